//! What the journal alone takes for a durable append, beside the raw limit of the same bytes.
//!
//! So many appends of stored messages are outstanding, and become durable together: one group commit, one write and
//! one `fdatasync`. The raw limit is `pwrite` + `fdatasync` of the bytes that these messages take in the journal, in
//! the same groups, into a file that was filled with zeros beforehand. In each round both have their turn of
//! [`Load::commits`] commits, one behind the other. The journal's share is encoding, CRCs, its own bytes (48 a group
//! commit), and the change from one segment to the next with three syncs; the next segment is made ready between the
//! turns, as another thread does it in a server. No threads, no queue, no index.
//!
//! `cargo bench --features benching --bench journal`; `ROUNDTABLE_ROUNDS` sets the rounds (default 9), `-- --json` prints
//! an object for each line.

#[path = "common/raw_file.rs"]
mod raw_file;
#[path = "common/turns.rs"]
mod turns;

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use raw_file::RawFile;
use roundtable::group::{Entry, Event};
use roundtable::ids::{GroupId, OperationId, Principal, UserId};
use roundtable::store::benching::JournalAlone;
use roundtable::store::{Change, Effect, change_bytes};
use serde_json::{Value, json};
use turns::Turns;

/// So many appends at once, and how many such commits are a turn.
struct Load {
    outstanding: usize,
    commits: usize,
}

const LOADS: [Load; 3] = [
    Load { outstanding: 1, commits: 500 },
    Load { outstanding: 64, commits: 500 },
    Load { outstanding: 1_024, commits: 100 },
];
const BODY_BYTES: usize = 100;

fn main() {
    let rounds = std::env::var("ROUNDTABLE_ROUNDS").ok().and_then(|text| text.parse().ok()).unwrap_or(9);
    let is_json = std::env::args().any(|argument| argument == "--json");
    if !is_json {
        println!(
            "durable appends a second, {rounds} rounds, in turns with the raw limit; medians, and the ratio's range"
        );
        println!(
            "{:>11} {:>6} {:>12} {:>12} {:>12} {:>7} {:>11}",
            "outstanding", "bytes", "a commit", "appends/s", "raw", "ratio", "range"
        );
    }
    for load in &LOADS {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let measured = measure(load, rounds, directory.path());
        println!("{}", if is_json { measured.object().to_string() } else { measured.line() });
    }
}

/// What came of a load.
struct Measured<'a> {
    load: &'a Load,
    /// Of one append.
    bytes: usize,
    turns: Turns,
}

impl Measured<'_> {
    /// Ours to raw. Rates are the reverse of times.
    fn ratio(&self, percentile: usize) -> f64 {
        1.0 / self.turns.ratio(100 - percentile)
    }

    fn line(&self) -> String {
        let commits = f64::from(u32::try_from(self.load.commits).expect("few"));
        let appends = commits * f64::from(u32::try_from(self.load.outstanding).expect("few"));
        format!(
            "{:>11} {:>6} {:>9.1} us {:>12.0} {:>12.0} {:>7.2} {:>11}",
            self.load.outstanding,
            self.bytes,
            self.turns.ours(50).as_secs_f64() * 1e6 / commits,
            appends / self.turns.ours(50).as_secs_f64(),
            appends / self.turns.raw(50).as_secs_f64(),
            self.ratio(50),
            format!("{:.2}-{:.2}", self.ratio(0), self.ratio(100)),
        )
    }

    fn object(&self) -> Value {
        json!({
            "bench": "journal", "outstanding": self.load.outstanding, "ratio_to_raw": self.ratio(50),
            "spread": {"ratio_to_raw": [self.ratio(0), self.ratio(100)]},
        })
    }
}

fn measure<'a>(load: &'a Load, rounds: usize, directory: &Path) -> Measured<'a> {
    let mut journal = JournalAlone::create(directory);
    let mut raw = RawFile::new(&directory.join("raw"));
    let changes: Vec<Change> = (1..=load.outstanding).map(message).collect();
    let bytes: usize = changes.iter().map(change_bytes).sum();
    let content = vec![0xa5; bytes];
    let turns = Turns::take(rounds, |_| {
        journal.make_spare();
        let ours = timed(load.commits, || journal.append(&changes));
        (ours, timed(load.commits, || raw.write(&content)))
    });
    Measured { load, bytes: bytes / load.outstanding, turns }
}

fn timed(count: usize, mut act: impl FnMut()) -> Duration {
    let from = Instant::now();
    for _ in 0..count {
        act();
    }
    from.elapsed()
}

fn message(seq: usize) -> Change {
    let seq = u64::try_from(seq).expect("64 bits");
    let sender = UserId::new("user-000000").expect("a legal user id");
    let event = Event::Message { body: vec![0x5a; BODY_BYTES].into() };
    Change::Effect(Effect {
        principal: Principal::User(sender.clone()),
        operation: OperationId::random(),
        fingerprint: seq,
        group: GroupId::generate(1_758_800_000_000, &[7; 10]),
        entry: Arc::new(Entry { seq, version: 1, at_ms: 1_758_800_000_000, sender, by: None, event }),
    })
}
