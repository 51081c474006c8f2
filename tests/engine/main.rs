//! The embedded engine on real disks: its rules, its concurrency, and what survives kills and damage.
//!
//! `api` drives each call; `model` random sequences against the rules, with reopening in between; `concurrent` random
//! calls of several threads against what any one order of them could give; `child` is this executable again, as a
//! process that embeds an engine; `kills` and `damage` do to it what the tests in `durability` do to the server;
//! `alone` two processes on one directory; `many` very many groups.
//!
//! `ROUNDTABLE_ROUNDS=200 cargo test --release --test engine -- --nocapture` is the long run of the kills,
//! `ROUNDTABLE_GROUPS=1000000` the large one of `many`, `ROUNDTABLE_SEED` repeats the choices of a run.

#![allow(clippy::unwrap_used)] // these are tests, and clippy cannot tell

mod alone;
mod api;
mod child;
mod concurrent;
mod damage;
mod kills;
mod ledger;
mod many;
mod model;
mod rules;

use std::path::Path;

use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use roundtable::Engine;
use roundtable::engine::{EngineError, EngineOptions};
use roundtable::group::Entry;
use roundtable::ids::{GroupId, UserId};
use roundtable::limits::SEGMENT_BYTES_MIN;

fn user(name: &str) -> UserId {
    UserId::new(name).expect("a legal name")
}

/// With small segments, so that tests roll them.
fn try_open(directory: &Path) -> Result<Engine, EngineError> {
    Engine::open_with(&EngineOptions { segment_bytes: SEGMENT_BYTES_MIN, ..EngineOptions::new(directory) })
}

fn open(directory: &Path) -> Engine {
    try_open(directory).unwrap_or_else(|error| panic!("{}: {error}", directory.display()))
}

/// A whole log, page by page.
fn log(engine: &Engine, group: GroupId) -> Vec<Entry> {
    let mut entries: Vec<Entry> = Vec::new();
    loop {
        let from = entries.last().map_or(1, |last| last.seq + 1);
        let page = engine.read(group, from, 64).unwrap_or_else(|error| panic!("{group} from {from}: {error}"));
        if page.entries.is_empty() {
            assert_eq!(from, page.head + 1, "a page is empty at the end of a log only");
            return entries;
        }
        entries.extend(page.entries);
    }
}

fn number_from(variable: &str) -> Option<u64> {
    let text = std::env::var(variable).ok()?;
    Some(text.parse().unwrap_or_else(|_| panic!("{variable} is no number: {text}")))
}

fn seed() -> u64 {
    let seed = number_from("ROUNDTABLE_SEED").unwrap_or_else(|| StdRng::from_os_rng().random());
    println!("ROUNDTABLE_SEED={seed}");
    seed
}
