//! How long a create takes until the last member has the packet, beside the raw limit of the same bytes.
//!
//! A real server process, N members on line (the creator among them), one create after the other. The clock starts
//! when the request is written and stops when the last of the N sockets has delivered the whole group packet. The raw
//! limit is a thread that does only what cannot be avoided: reads the same request, `pwrite` + `fdatasync` of the same
//! number of bytes, one `send` of the same bytes to each of N sockets. The two take turns, in one run, and the same
//! code receives for both.
//!
//! `cargo bench --bench create`; `ROUNDTABLE_ROUNDS` sets the rounds for each size (default 200).

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

use std::time::Duration;

use attach::attach;
use peers::Peers;
use process::Process;
use raw_file::RawFile;
use raw_server::RawServer;
use roundtable::ids::{OperationId, UserId};
use roundtable::wire::{Deframer, FrameCaps, Kind, Push, Request};
use turns::Turns;

fn main() {
    let rounds = std::env::var("ROUNDTABLE_ROUNDS").ok().and_then(|text| text.parse().ok()).unwrap_or(200);
    println!("time until the last member has the packet, {rounds} creates each, in turns with the raw limit");
    println!(
        "{:>8} {:>12} {:>12} {:>12} {:>12} {:>9} {:>8}",
        "members", "median", "p99", "raw median", "raw p99", "spread", "ratio"
    );
    for members in [10, 100, 1_000] {
        report(members, &measure(members, rounds));
    }
}

fn measure(members: usize, rounds: usize) -> Turns {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let server = Process::start(&directory.path().join("data"));
    let users: Vec<UserId> =
        (0..members).map(|number| UserId::new(&format!("member-{number:04}")).expect("legal")).collect();
    let mut peers = Peers::new(users.iter().map(|user| attach(&server, user)).collect());

    let request = create_frame(&users);
    // The creator gets a reply before the packet.
    let outputs = peers.first(&request, |slot| if slot == 0 { 2 } else { 1 });
    check_packets(&outputs, members);
    let file = Some(RawFile::new(&directory.path().join("raw")));
    let raw = RawServer { request_bytes: request.len(), outputs: outputs.clone(), file };
    let mut raw_peers = Peers::new(raw.start());
    raw_peers.expect(&outputs);
    Turns::take(rounds, |_| (peers.round(&create_frame(&users)), raw_peers.round(&request)))
}

/// Everybody gets the same packet, with all members.
fn check_packets(outputs: &[Vec<u8>], members: usize) {
    let packet = &outputs[1];
    assert!(outputs[0].ends_with(packet) && outputs[1..].iter().all(|output| output == packet), "the same packet");
    let mut deframer = Deframer::default();
    deframer.feed(packet);
    let frame = deframer.next_frame(FrameCaps::Server).expect("a frame").expect("a whole one");
    let kind = Kind::from_number(frame.header.kind).expect("a known kind");
    let Some(Ok(Push::GroupPacket(packet))) = Push::decode(kind, frame.body) else { panic!("no group packet") };
    assert_eq!(packet.members.len(), members, "the packet names all members");
}

fn report(members: usize, turns: &Turns) {
    let millis = |time: Duration| format!("{:.3} ms", time.as_secs_f64() * 1e3);
    println!(
        "{members:>8} {:>12} {:>12} {:>12} {:>12} {:>9} {:>8.2}",
        millis(turns.ours(50)),
        millis(turns.ours(99)),
        millis(turns.raw(50)),
        millis(turns.raw(99)),
        format!("{:.2}-{:.2}", turns.ratio(25), turns.ratio(75)),
        turns.ratio(50),
    );
}

fn create_frame(users: &[UserId]) -> Vec<u8> {
    let mut frame = Vec::new();
    let create = Request::Create { operation: OperationId::random(), title: "bench".into(), members: users.to_vec() };
    create.encode_frame(&mut frame, 9);
    frame
}
