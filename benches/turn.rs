//! How long one whole turn takes on loopback: from the request until the last of ten members has what was said.
//!
//! A real server process; eleven members of one group on line, one of them sends, a signal or a stored message, and
//! the next one goes out when the last has this one. The clock starts when the request is written and stops when the
//! last socket has delivered all that it gets: the frame to each of ten, and for a message its answer and the frame to
//! the sender too. The raw limit is a thread that waits in `epoll`, reads the same request, for a message does a
//! `pwrite` and an `fdatasync` of as many bytes, and one `send` of the same bytes to each socket. The two take turns,
//! and the same code receives for both.
//!
//! `cargo bench --bench turn`; `ROUNDTABLE_ROUNDS` sets the rounds (default 2,000).

#[path = "common/attach.rs"]
mod attach;
#[path = "common/peers.rs"]
mod peers;
#[path = "common/process.rs"]
mod process;
#[path = "common/raw_file.rs"]
mod raw_file;
#[path = "common/raw_server.rs"]
mod raw_server;
#[path = "common/turns.rs"]
mod turns;

use std::path::Path;
use std::time::Duration;

use attach::attach;
use peers::Peers;
use process::Process;
use raw_file::RawFile;
use raw_server::RawServer;
use roundtable::ids::{GroupId, OperationId, UserId};
use roundtable::wire::{Deframer, FrameCaps, Kind, Push, Request};
use turns::Turns;

/// Who hears the one that sends.
const OTHERS: usize = 10;
const BODY_BYTES: usize = 100;

fn main() {
    let rounds = std::env::var("ROUNDTABLE_ROUNDS").ok().and_then(|text| text.parse().ok()).unwrap_or(2_000);
    println!(
        "time until the last of {OTHERS} has it, {BODY_BYTES} B each, {rounds} rounds, in turns with the raw limit"
    );
    println!(
        "{:>8} {:>12} {:>12} {:>12} {:>12} {:>9} {:>8}",
        "what", "median", "p99", "raw median", "raw p99", "spread", "ratio"
    );
    let directory = tempfile::tempdir().expect("a temporary directory");
    let server = Process::start(&directory.path().join("data"));
    let users: Vec<UserId> =
        (0..=OTHERS).map(|number| UserId::new(&format!("member-{number:04}")).expect("legal")).collect();
    let mut peers = Peers::new(users.iter().map(|user| attach(&server, user)).collect());
    let group = create(&mut peers, users);
    // Neither an answer nor the signal comes to its sender.
    report("signal", &measure(&mut peers, rounds, None, &|| signal(group), |slot| usize::from(slot > 0)));
    let synced = Some(directory.path());
    report("message", &measure(&mut peers, rounds, synced, &|| message(group), |slot| if slot == 0 { 2 } else { 1 }));
}

/// Makes the group; everybody gets its packet.
fn create(peers: &mut Peers, members: Vec<UserId>) -> GroupId {
    let create = Request::Create { operation: OperationId::random(), title: "bench".into(), members };
    let outputs = peers.first(&frame_of(&create), |slot| if slot == 0 { 2 } else { 1 });
    let mut deframer = Deframer::default();
    deframer.feed(&outputs[1]);
    let frame = deframer.next_frame(FrameCaps::Server).expect("a frame").expect("a whole one");
    let kind = Kind::from_number(frame.header.kind).expect("a known kind");
    let Some(Ok(Push::GroupPacket(packet))) = Push::decode(kind, frame.body) else { panic!("no group packet") };
    packet.group
}

fn measure(
    peers: &mut Peers,
    rounds: usize,
    synced: Option<&Path>,
    request: &dyn Fn() -> Vec<u8>,
    frames: impl Fn(usize) -> usize,
) -> Turns {
    let bytes = request();
    let outputs = peers.first(&bytes, frames);
    let file = synced.map(|directory| RawFile::new(&directory.join("raw")));
    let raw = RawServer { request_bytes: bytes.len(), outputs: outputs.clone(), file };
    let mut raw_peers = Peers::new(raw.start());
    raw_peers.expect(&outputs);
    Turns::take(rounds, |_| (peers.round(&request()), raw_peers.round(&bytes)))
}

fn report(what: &str, turns: &Turns) {
    let micros = |time: Duration| format!("{:.1} us", time.as_secs_f64() * 1e6);
    println!(
        "{what:>8} {:>12} {:>12} {:>12} {:>12} {:>9} {:>8.2}",
        micros(turns.ours(50)),
        micros(turns.ours(99)),
        micros(turns.raw(50)),
        micros(turns.raw(99)),
        format!("{:.2}-{:.2}", turns.ratio(25), turns.ratio(75)),
        turns.ratio(50),
    );
}

fn signal(group: GroupId) -> Vec<u8> {
    frame_of(&Request::Signal { group, body: vec![0x5a; BODY_BYTES].into() })
}

fn message(group: GroupId) -> Vec<u8> {
    let operation = OperationId::random();
    frame_of(&Request::Send { operation, group, body: vec![0x5a; BODY_BYTES].into() })
}

fn frame_of(request: &Request) -> Vec<u8> {
    let mut frame = Vec::new();
    request.encode_frame(&mut frame, 9);
    frame
}
