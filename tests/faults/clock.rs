//! A wall clock that is off by ten years, and jumps while the server runs: nothing is lost, nobody is thrown out, nothing
//! is purged. Tokens are good for longer than that.
//!
//! The clock is libfaketime's (Debian: `libfaketime`), which is put under the server alone; where it is not installed the
//! row is skipped.

use std::path::{Path, PathBuf};

use rand::Rng;
use roundtable::wire::{Kind, Reply, Request};

use crate::kills::Run;
use crate::ledger::user;
use crate::peer::{Heard, Peer};
use crate::server::{PATIENCE, Server};
use crate::table::{Seen, Skipped, Stage};

const YEAR_MS: i128 = 365 * 24 * 60 * 60 * 1_000;
/// Where the clock goes, one after the other.
const SHIFTS_YEARS: [i128; 4] = [10, -10, 10, 0];

pub(crate) fn run(stage: &Stage) -> Result<Seen, Skipped> {
    let library = library().ok_or_else(|| Skipped("libfaketime is not installed (Debian: libfaketime)".to_owned()))?;
    let rounds = stage.scale(1, 10);
    let mut random = stage.random(1);
    let place = tempfile::tempdir().expect("a temporary directory");
    let file = place.path().join("clock");
    let mut run = Run::new(random.random());
    let mut jumps = 0;
    for round in 1..=rounds {
        set(&file, 0);
        let server = start(&run, &library, &file);
        let mut peer = Peer::enter(&server, &user("peer"), 30);
        assert!(offset_years(&mut peer).abs() < 1, "control: without a shift the clock is the machine's");
        let load = run.load(&server);
        for years in SHIFTS_YEARS {
            set(&file, years);
            load.wait(20);
            let seen = offset_years(&mut peer);
            assert!((seen - years).abs() <= 1, "control: the server's clock is off by {seen} years and not {years}");
            jumps += 1;
        }
        set(&file, SHIFTS_YEARS[random.random_range(0..2)]);
        server.kill();
        run.take(load);
        // The start has another clock than what it finds was written with.
        let server = start(&run, &library, &file);
        run.check(&server, round == rounds);
        server.kill();
        stage.show(round, rounds, "rounds");
    }
    Ok(Seen {
        count: format!("{jumps} jumps, {rounds} starts with another clock"),
        observed: format!("{} acknowledged, the same connections go on", run.acknowledged()),
        control: "the server's own clock is seen to be off by as much, and right without a shift".to_owned(),
    })
}

fn library() -> Option<PathBuf> {
    let places = ["/usr/lib/x86_64-linux-gnu", "/usr/lib/aarch64-linux-gnu", "/usr/lib64", "/usr/lib"];
    places.iter().map(|place| Path::new(place).join("faketime/libfaketime.so.1")).find(|path| path.exists())
}

fn set(file: &Path, years: i128) {
    std::fs::write(file, format!("{years:+}y\n")).expect("it writes");
}

fn start(run: &Run, library: &Path, file: &Path) -> Server {
    let environment = [
        ("LD_PRELOAD", library),
        ("FAKETIME_TIMESTAMP_FILE", file),
        ("FAKETIME_NO_CACHE", Path::new("1")),
        ("FAKETIME_DONT_FAKE_MONOTONIC", Path::new("1")),
        ("DONT_FAKE_MONOTONIC", Path::new("1")),
    ];
    Server::try_start_under(&run.data(), &environment).unwrap_or_else(|refused| panic!("{refused:?}"))
}

/// How many years the clock that the server shows is off.
fn offset_years(peer: &mut Peer) -> i128 {
    peer.ask(&Request::Ping);
    loop {
        let Heard::Frame { kind, body, .. } = peer.hear(PATIENCE) else { panic!("a peer is thrown out") };
        if kind != Kind::Pong.number() {
            continue;
        }
        let Some(Ok(Reply::Pong { server_time_ms, .. })) = Reply::decode(Kind::Pong, &body) else { panic!("{body:?}") };
        let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).expect("it is later");
        let off = i128::from(server_time_ms) - i128::try_from(now.as_millis()).expect("small");
        return (off + YEAR_MS / 2).div_euclid(YEAR_MS);
    }
}
