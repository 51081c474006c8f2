//! Mosquitto, by MQTT 3.1.1 (OASIS Standard, 29 October 2014), `QoS` 0: nothing is stored, nothing acknowledged.

use std::net::SocketAddr;
use std::path::Path;

use super::process::{Process, Recipe, Speaks};
use super::{Cut, Item, Load, Peer, Seat, Started, Task};
use crate::cli::failure::Failure;

// The first byte of each packet (section 2.2).
const CONNECT: u8 = 0x10;
const CONNACK: u8 = 0x20;
const PUBLISH: u8 = 0x30;
const SUBSCRIBE: u8 = 0x82;
const SUBACK: u8 = 0x90;
const PINGREQ: u8 = 0xc0;
const PINGRESP: u8 = 0xd0;

pub(super) struct Mosquitto {
    process: Process,
    load: Load,
    round: usize,
    body: Vec<u8>,
}

impl Mosquitto {
    pub(super) fn start(load: &Load, directory: &Path) -> Result<Started, Failure> {
        let recipe = Recipe {
            program: "mosquitto",
            package: "install mosquitto (Debian: apt install mosquitto)",
            configuration,
            arguments: &["-c"],
            speaks: Speaks::Err,
            ready: "running",
        };
        let body = vec![b'x'; load.bytes];
        recipe.start(directory, |process| Box::new(Self { process, load: load.clone(), round: 0, body }))
    }

    fn topic(&self, group: usize) -> String {
        format!("group/{:04}/{group:05}", self.round)
    }
}

fn configuration(port: u16, _directory: &Path) -> String {
    // Without a limit of queued messages, none of QoS 0 is dropped; and it must not wait for more before it sends.
    format!(
        "listener {port} 127.0.0.1\nallow_anonymous true\npersistence false\nmax_queued_messages 0\nset_tcp_nodelay \
         true\nconnection_messages false\nlog_dest stderr\nlog_type information\nlog_type error\n"
    )
}

/// Appends a packet: type, remaining length (section 2.2.3), the rest.
fn packet(kind: u8, rest: &[u8], out: &mut Vec<u8>) {
    out.push(kind);
    let mut length = rest.len();
    loop {
        let low = u8::try_from(length % 128).unwrap_or(0);
        length /= 128;
        out.push(if length > 0 { low | 0x80 } else { low });
        if length == 0 {
            break;
        }
    }
    out.extend_from_slice(rest);
}

/// A string: two bytes of length, then its bytes (section 1.5.3).
fn string(text: &str, out: &mut Vec<u8>) {
    out.extend_from_slice(&u16::try_from(text.len()).unwrap_or(u16::MAX).to_be_bytes());
    out.extend_from_slice(text.as_bytes());
}

impl Peer for Mosquitto {
    fn name(&self) -> &'static str {
        "mosquitto"
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
        let mut out = Vec::new();
        let mut connect = Vec::new();
        string("MQTT", &mut connect);
        // Level 4, a clean session, no keep-alive: the server closes nobody for being silent.
        connect.extend_from_slice(&[4, 0x02, 0, 0]);
        let side = if seat == Seat::Sender { "s" } else { "m" };
        string(&format!("{side}{:04}-{number:05}", self.round), &mut connect);
        packet(CONNECT, &connect, &mut out);
        if seat == Seat::Member {
            let mut subscribe = vec![0, 1];
            string(&self.topic(number / self.load.members), &mut subscribe);
            subscribe.push(0);
            packet(SUBSCRIBE, &subscribe, &mut out);
        }
        out
    }

    fn request(&mut self, _sender: usize, group: usize, out: &mut Vec<u8>) {
        if self.load.task == Task::Idle {
            return packet(PINGREQ, &[], out);
        }
        let mut rest = Vec::with_capacity(self.body.len() + 32);
        string(&self.topic(group), &mut rest);
        rest.extend_from_slice(&self.body);
        packet(PUBLISH, &rest, out);
    }

    fn cut(&self, seat: Seat, bytes: &[u8]) -> Result<Option<Cut>, String> {
        cut(seat, bytes)
    }
}

fn cut(seat: Seat, bytes: &[u8]) -> Result<Option<Cut>, String> {
    let Some((kind, rest)) = bytes.split_first() else { return Ok(None) };
    let mut length = 0_usize;
    for (place, byte) in rest.iter().take(4).enumerate() {
        length |= usize::from(byte & 0x7f) << (7 * place);
        if byte & 0x80 == 0 {
            let item = match (*kind, seat) {
                (PUBLISH, _) => Item::Delivery,
                (CONNACK, Seat::Sender) | (SUBACK, _) => Item::Ready,
                (CONNACK, Seat::Member) => Item::Other,
                (PINGRESP, _) => Item::Answer,
                _ => return Err(format!("not understood: a packet of the type {kind:#04x}")),
            };
            return Ok(Some(Cut { bytes: place + 2 + length, item }));
        }
    }
    if rest.len() >= 4 { Err("a length of more than four bytes".to_owned()) } else { Ok(None) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn packets_are_cut_by_their_remaining_length() {
        for size in [0, 1, 127, 128, 16_383, 16_384, 70_000] {
            let mut out = Vec::new();
            packet(PUBLISH, &vec![1; size], &mut out);
            assert_eq!(cut(Seat::Member, &out), Ok(Some(Cut { bytes: out.len(), item: Item::Delivery })), "{size}");
            assert_eq!(cut(Seat::Member, &out[..1]), Ok(None));
        }
        assert!(cut(Seat::Member, &[PUBLISH, 0x80, 0x80, 0x80, 0x80]).is_err());
        assert_eq!(cut(Seat::Sender, &[CONNACK, 2, 0, 0]), Ok(Some(Cut { bytes: 4, item: Item::Ready })));
        assert_eq!(cut(Seat::Member, &[SUBACK, 3, 0, 1, 0]), Ok(Some(Cut { bytes: 5, item: Item::Ready })));
    }
}
