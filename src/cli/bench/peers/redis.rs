//! Redis, by RESP 2 (<https://redis.io/docs/latest/develop/reference/protocol-spec/>).
//!
//! Messages and signals are `PUBLISH` to a channel for each group, which stores nothing. Creates and sends are one
//! script each, by `EVALSHA`, with `appendfsync always`: a set of the members and a `PUBLISH` to each of them; an
//! `XADD` to the group's stream and a `PUBLISH` of it.

use std::net::SocketAddr;
use std::path::Path;

use super::super::sample;
use super::process::{Process, Recipe, Speaks};
use super::roundtable::{Frames, POOL_USERS};
use super::{Cut, Item, Load, Peer, Seat, Started, Task};
use crate::cli::failure::Failure;

/// `KEYS[1]` the group, `ARGV[1]` the packet, then the members: 1,000 at a time, which Lua's stack has room for.
const CREATE: &str = "for first = 2, #ARGV, 1000 do \
                      redis.call('SADD', KEYS[1], unpack(ARGV, first, math.min(first + 999, #ARGV))) end \
                      for i = 2, #ARGV do redis.call('PUBLISH', 'user:' .. ARGV[i], ARGV[1]) end return 1";
/// `KEYS[1]` the group, `ARGV[1]` the message.
const SEND: &str = "redis.call('XADD', KEYS[1], '*', 'body', ARGV[1]) return redis.call('PUBLISH', KEYS[1], ARGV[1])";

pub(in crate::cli::bench) struct Redis {
    process: Process,
    load: Load,
    round: usize,
    /// Of the task's script; empty until it is loaded.
    digest: String,
    requests: u64,
    /// What a create sends to each member: as long as the packet of roundtable.
    packet: Vec<u8>,
    /// A command that is the same each time, for each group.
    publish: Vec<Vec<u8>>,
}

impl Redis {
    pub(in crate::cli::bench) fn start(load: &Load, directory: &Path) -> Result<Started, Failure> {
        let durable = matches!(load.task, Task::CreateOnline | Task::CreateOffline | Task::Send);
        let recipe = Recipe {
            program: "redis-server",
            package: "install redis-server (Debian: apt install redis-server)",
            configuration: if durable { durable_configuration } else { volatile_configuration },
            arguments: &[],
            speaks: Speaks::Out,
            ready: "Ready to accept connections",
        };
        let mut online = load.clone();
        online.task = Task::CreateOnline;
        online.members = load.members.max(1);
        let packet = Frames::of(&online).push;
        let (load, digest) = (load.clone(), String::new());
        recipe.start(directory, |process| {
            Box::new(Self { process, load, round: 0, digest, requests: 0, packet, publish: Vec::new() })
        })
    }

    fn channel(&self, group: usize) -> String {
        format!("group:{:04}:{group:05}", self.round)
    }

    fn user(&self, number: usize) -> String {
        format!("member-{:04}-{number:05}", self.round)
    }

    fn create(&mut self, out: &mut Vec<u8>) {
        let users: Vec<String> = match self.load.task {
            Task::CreateOnline => (0..self.load.members).map(|number| self.user(number)).collect(),
            // Spread over as many users as roundtable's are.
            _ => (1..=sample::count(self.load.members))
                .map(|place| format!("pool-{:06}", self.requests.wrapping_mul(7_919 * place) % POOL_USERS))
                .collect(),
        };
        let mut arguments: Vec<&[u8]> = vec![&self.packet];
        arguments.extend(users.iter().map(String::as_bytes));
        // As long as a UUID.
        self.evaluate(&format!("group:{:04}:{:025}", self.round, self.requests), &arguments, out);
    }

    fn evaluate(&self, key: &str, arguments: &[&[u8]], out: &mut Vec<u8>) {
        let mut words: Vec<&[u8]> = vec![b"EVALSHA", self.digest.as_bytes(), b"1", key.as_bytes()];
        words.extend_from_slice(arguments);
        command(&words, out);
    }
}

fn durable_configuration(port: u16, directory: &Path) -> String {
    configuration(port, directory, "yes")
}

fn volatile_configuration(port: u16, directory: &Path) -> String {
    configuration(port, directory, "no")
}

fn configuration(port: u16, directory: &Path, append: &str) -> String {
    // A subscriber that reads slowly is not thrown out: nobody is slow here but by the load itself.
    format!(
        "port {port}\nbind 127.0.0.1\ndir {}\nsave \"\"\nappendonly {append}\nappendfsync always\n\
         auto-aof-rewrite-percentage 0\nmaxclients 15000\nclient-output-buffer-limit pubsub 0 0 0\ndaemonize no\n",
        directory.display()
    )
}

/// One command, as an array of bulk strings.
fn command(words: &[&[u8]], out: &mut Vec<u8>) {
    out.extend_from_slice(format!("*{}\r\n", words.len()).as_bytes());
    for word in words {
        out.extend_from_slice(format!("${}\r\n", word.len()).as_bytes());
        out.extend_from_slice(word);
        out.extend_from_slice(b"\r\n");
    }
}

impl Peer for Redis {
    fn name(&self) -> &'static str {
        "redis"
    }

    fn process(&self) -> Option<u32> {
        Some(self.process.child.id())
    }

    fn address(&self) -> SocketAddr {
        self.process.address
    }

    fn begin(&mut self, round: usize) {
        self.round = round;
        let body = vec![b'x'; self.load.bytes];
        let publish = |group| {
            let mut out = Vec::new();
            command(&[b"PUBLISH", self.channel(group).as_bytes(), &body], &mut out);
            out
        };
        self.publish = (0..self.load.groups).map(publish).collect();
    }

    fn opening(&mut self, seat: Seat, number: usize) -> Vec<u8> {
        let mut out = Vec::new();
        match (seat, self.load.task) {
            (Seat::Sender, _) => command(&[b"PING"], &mut out),
            (Seat::Member, Task::CreateOnline) => {
                let channel = format!("user:{}", self.user(number));
                command(&[b"SUBSCRIBE", channel.as_bytes()], &mut out);
            }
            (Seat::Member, _) => {
                let channel = self.channel(number / self.load.members);
                command(&[b"SUBSCRIBE", channel.as_bytes()], &mut out);
            }
        }
        out
    }

    fn preparations(&mut self) -> Vec<Vec<u8>> {
        let script = match self.load.task {
            Task::CreateOnline | Task::CreateOffline => CREATE,
            Task::Send => SEND,
            Task::Signal | Task::Message | Task::Idle => return Vec::new(),
        };
        let mut out = Vec::new();
        command(&[b"SCRIPT", b"LOAD", script.as_bytes()], &mut out);
        vec![out]
    }

    /// `$40`, and on the next line the digest.
    fn learn(&mut self, answer: &[u8]) -> Result<(), String> {
        let digest = String::from_utf8_lossy(answer).lines().nth(1).unwrap_or_default().to_owned();
        if digest.len() != 40 {
            return Err("no digest of a script".to_owned());
        }
        self.digest = digest;
        Ok(())
    }

    fn request(&mut self, sender: usize, group: usize, out: &mut Vec<u8>) {
        self.requests += 1;
        match self.load.task {
            Task::Signal | Task::Message => out.extend_from_slice(&self.publish[group]),
            Task::Idle => command(&[b"PING"], out),
            Task::Send => {
                let body = vec![b'x'; self.load.bytes];
                self.evaluate(&self.channel(sender), &[&body], out);
            }
            Task::CreateOnline | Task::CreateOffline => self.create(out),
        }
    }

    fn cut(&self, seat: Seat, bytes: &[u8]) -> Result<Option<Cut>, String> {
        cut(seat, bytes)
    }
}

/// One reply. The whole reply has to be there, but for the last bulk string of an array, whose length is enough.
fn cut(seat: Seat, bytes: &[u8]) -> Result<Option<Cut>, String> {
    let Some((line, rest)) = split_line(bytes) else { return Ok(None) };
    let head = bytes.len() - rest.len();
    let said = |item| Ok(Some(Cut { bytes: head, item }));
    match line.split_first() {
        Some((b'+', b"PONG")) if seat == Seat::Sender => said(Item::Ready),
        Some((b'+' | b':', _)) => said(Item::Answer),
        Some((b'-', text)) => Err(String::from_utf8_lossy(text).into_owned()),
        Some((b'$', length)) => Ok(Some(Cut { bytes: head + decimal(length)? + 2, item: Item::Answer })),
        Some((b'*', b"3")) => push(rest, head),
        _ => Err(format!("not understood: {}", String::from_utf8_lossy(line))),
    }
}

/// `message CHANNEL BODY` or `subscribe CHANNEL COUNT`.
fn push(rest: &[u8], mut length: usize) -> Result<Option<Cut>, String> {
    let Some((kind, rest)) = bulk(rest, &mut length)? else { return Ok(None) };
    let item = if kind == b"message" { Item::Delivery } else { Item::Ready };
    let Some((_, rest)) = bulk(rest, &mut length)? else { return Ok(None) };
    let Some((line, _)) = split_line(rest) else { return Ok(None) };
    length += line.len() + 2;
    if let Some((b'$', digits)) = line.split_first() {
        length += decimal(digits)? + 2;
    }
    Ok(Some(Cut { bytes: length, item }))
}

/// A string, and what is behind it.
type Split<'b> = (&'b [u8], &'b [u8]);

/// A whole bulk string at the front, and what is behind it.
fn bulk<'b>(bytes: &'b [u8], length: &mut usize) -> Result<Option<Split<'b>>, String> {
    let Some((line, rest)) = split_line(bytes) else { return Ok(None) };
    let Some((b'$', digits)) = line.split_first() else { return Err("a reply is no string".to_owned()) };
    let size = decimal(digits)?;
    let Some((text, rest)) = rest.split_at_checked(size) else { return Ok(None) };
    let Some(rest) = rest.strip_prefix(b"\r\n") else { return Ok(None) };
    *length += line.len() + 2 + size + 2;
    Ok(Some((text, rest)))
}

fn split_line(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let end = bytes.windows(2).position(|pair| pair == b"\r\n")?;
    Some((&bytes[..end], &bytes[end + 2..]))
}

fn decimal(digits: &[u8]) -> Result<usize, String> {
    let text = std::str::from_utf8(digits).ok();
    text.and_then(|text| text.parse().ok()).ok_or_else(|| "a length is no number".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What the bytes are, once enough of them is there, and for each prefix either that or nothing.
    fn cut_whole(bytes: &[u8]) -> Cut {
        let whole = cut(Seat::Member, bytes).unwrap().unwrap();
        for length in 1..bytes.len() {
            let part = cut(Seat::Member, &bytes[..length]).unwrap();
            assert!(part.is_none() || part == Some(whole), "{length} of {bytes:?}");
        }
        assert_eq!(whole.bytes, bytes.len());
        whole
    }

    #[test]
    fn replies_are_cut_at_their_ends_wherever_the_bytes_are_split() {
        assert_eq!(cut_whole(b"*3\r\n$7\r\nmessage\r\n$2\r\ng1\r\n$5\r\nhello\r\n").item, Item::Delivery);
        assert_eq!(cut_whole(b"*3\r\n$9\r\nsubscribe\r\n$2\r\ng1\r\n:1\r\n").item, Item::Ready);
        assert_eq!(cut_whole(b":1000\r\n").item, Item::Answer);
        assert_eq!(cut_whole(b"$3\r\nabc\r\n").item, Item::Answer);
    }

    #[test]
    fn a_complaint_is_an_error_in_its_own_words() {
        assert_eq!(cut(Seat::Sender, b"-NOSCRIPT no such\r\n").unwrap_err(), "NOSCRIPT no such");
    }
}
