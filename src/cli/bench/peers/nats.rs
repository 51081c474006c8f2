//! NATS, by its client protocol (<https://docs.nats.io/reference/reference-protocols/nats-protocol>). Core NATS: a
//! message goes to whoever has subscribed, and is gone.

use std::net::SocketAddr;
use std::path::Path;

use super::process::{Process, Recipe, Speaks};
use super::{Cut, Item, Load, Peer, Seat, Started, Task};
use crate::cli::failure::Failure;

pub(super) struct Nats {
    process: Process,
    load: Load,
    round: usize,
    body: Vec<u8>,
}

impl Nats {
    pub(super) fn start(load: &Load, directory: &Path) -> Result<Started, Failure> {
        let recipe = Recipe {
            program: "nats-server",
            package: "install nats-server (Debian: apt install nats-server)",
            configuration,
            arguments: &["--config"],
            speaks: Speaks::Err,
            ready: "Server is ready",
        };
        let body = vec![b'x'; load.bytes];
        recipe.start(directory, |process| Box::new(Self { process, load: load.clone(), round: 0, body }))
    }

    fn subject(&self, group: usize) -> String {
        format!("group.{:04}.{group:05}", self.round)
    }
}

fn configuration(port: u16, _directory: &Path) -> String {
    // Its own pings would come into the middle of a measurement.
    format!("listen: \"127.0.0.1:{port}\"\nmax_connections: 20000\nping_interval: \"1h\"\nwrite_deadline: \"30s\"\n")
}

impl Peer for Nats {
    fn name(&self) -> &'static str {
        "nats"
    }

    fn process(&self) -> Option<u32> {
        Some(self.process.child.id())
    }

    fn address(&self) -> SocketAddr {
        self.process.address
    }

    fn begin(&mut self, round: usize) {
        self.round = round;
    }

    fn opening(&mut self, seat: Seat, number: usize) -> Vec<u8> {
        let mut out = b"CONNECT {\"verbose\":false,\"pedantic\":false,\"name\":\"bench\"}\r\n".to_vec();
        if seat == Seat::Member {
            out.extend_from_slice(format!("SUB {} 1\r\n", self.subject(number / self.load.members)).as_bytes());
        }
        out.extend_from_slice(b"PING\r\n");
        out
    }

    fn request(&mut self, _sender: usize, group: usize, out: &mut Vec<u8>) {
        if self.load.task == Task::Idle {
            return out.extend_from_slice(b"PING\r\n");
        }
        out.extend_from_slice(format!("PUB {} {}\r\n", self.subject(group), self.body.len()).as_bytes());
        out.extend_from_slice(&self.body);
        out.extend_from_slice(b"\r\n");
    }

    /// `PONG` ends the first words; later, when a connection idles, it is the answer to its heartbeat.
    fn cut(&self, _seat: Seat, bytes: &[u8]) -> Result<Option<Cut>, String> {
        cut(bytes)
    }
}

fn cut(bytes: &[u8]) -> Result<Option<Cut>, String> {
    let Some(end) = bytes.windows(2).position(|pair| pair == b"\r\n") else { return Ok(None) };
    let (line, mut length) = (&bytes[..end], end + 2);
    let item = if line.starts_with(b"MSG ") {
        // MSG subject sid [reply-to] bytes
        let size = line.rsplit(|byte| *byte == b' ').next().and_then(|digits| std::str::from_utf8(digits).ok());
        length += size.and_then(|digits| digits.parse::<usize>().ok()).ok_or("a MSG without a length")? + 2;
        Item::Delivery
    } else if line == b"PONG" {
        Item::Ready
    } else if line.starts_with(b"-ERR") {
        return Err(String::from_utf8_lossy(line).into_owned());
    } else if [b"INFO ".as_slice(), b"PING", b"+OK"].iter().any(|word| line.starts_with(word)) {
        Item::Other
    } else {
        return Err(format!("not understood: {}", String::from_utf8_lossy(line)));
    };
    Ok(Some(Cut { bytes: length, item }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_are_cut_by_their_length_and_the_rest_by_lines() {
        let message = b"MSG group.1 1 5\r\nhello\r\n";
        assert_eq!(cut(message), Ok(Some(Cut { bytes: message.len(), item: Item::Delivery })));
        assert_eq!(cut(&message[..17]), Ok(Some(Cut { bytes: message.len(), item: Item::Delivery })));
        assert_eq!(cut(&message[..16]), Ok(None));
        assert_eq!(cut(b"PONG\r\nMSG"), Ok(Some(Cut { bytes: 6, item: Item::Ready })));
        assert_eq!(cut(b"INFO {\"server\":1}\r\n").map(|cut| cut.map(|cut| cut.item)), Ok(Some(Item::Other)));
        assert!(cut(b"-ERR 'Slow Consumer'\r\n").is_err());
    }
}
