//! Bit rot: one bit of the journal flips behind everybody's back while no server runs. It is noticed, or it changes
//! nothing. Played on a copy, because a server that refuses to start would be the end of the run.

use std::sync::Arc;

use rand::Rng;
use rand::rngs::StdRng;

use super::plan::Plan;
use super::server;
use super::truth::{Kept, Truth};
use crate::ids::UserId;
use crate::store::stepped::{Disk as _, MemoryHome, SimulatedDisk, Stepped, SteppedClock};
use crate::store::{Event, OpenError, ReadId, Request};

/// The directory of the segments and of `HEAD`.
const JOURNAL: &str = "journal";

/// Flips one bit of what a start has just found whole, marked and synced, and starts again on that. Says what came of it.
pub(super) fn check(
    disk: &SimulatedDisk,
    home: &MemoryHome,
    plan: &Plan,
    (truth, users): (&Truth, &[UserId]),
    random: &mut StdRng,
) -> &'static str {
    let copy = disk.fork();
    copy.kill();
    copy.set_capacity(None);
    let (file, place) = flip(&copy, random);
    let mut storage = match server::open(&copy, home, plan, 1, Arc::new(SteppedClock::default())) {
        Ok(storage) => storage,
        Err(OpenError::Corrupt { .. } | OpenError::NewerFormat { .. }) => return "flipped bit refused",
        Err(error) => panic!("a flipped bit in {file} at {place} is taken for something else: {error}"),
    };
    if storage.step_index().and_then(|()| storage.catch_up()).is_err() {
        return "flipped bit refused";
    }
    let account = server::account(&mut storage, truth, users);
    let mut outcome = "flipped bit harmless";
    for (kept, events) in truth.groups.values().zip(account.chunks(3)) {
        let what = format!("a flipped bit in {file} at {place} changes {} in silence", kept.record.group);
        if !is_whole(kept, events, &mut storage, &what) {
            outcome = "flipped bit told to who reads it";
        }
    }
    outcome
}

fn flip(disk: &SimulatedDisk, random: &mut StdRng) -> (String, usize) {
    let files = disk.list(JOURNAL).expect("a journal");
    let file = format!("{JOURNAL}/{}", files[random.random_range(0..files.len())].name);
    // Most of a segment is zeros that nobody reads.
    let used = disk.content(&file).iter().rposition(|byte| *byte != 0).map_or(1, |last| last + 1);
    let (place, bit) = (random.random_range(0..used), random.random_range(0..8_u32));
    disk.tamper(&file, |bytes| bytes[place] ^= 1 << bit);
    (file, place)
}

/// Whether answers about a group are what is so; if not, they say that it is damaged.
fn is_whole(kept: &Kept, events: &[Event], storage: &mut Stepped<SimulatedDisk>, what: &str) -> bool {
    for event in events {
        match event {
            Event::GroupLoaded { state: Ok(None), .. } => {
                assert!(kept.record.dissolved, "{what}: it is gone");
                return true;
            }
            Event::GroupLoaded { state: Ok(Some(state)), .. } => {
                let found = (&state.record, state.head, state.floor);
                assert_eq!(found, (&kept.record, kept.head(), kept.floor), "{what}");
            }
            Event::EntriesRead { entries: Ok(entries), .. } => {
                let from = usize::try_from(kept.floor - 1).unwrap_or(usize::MAX);
                let log = kept.log.get(from..).unwrap_or_default();
                assert_eq!(entries.as_slice(), log.get(..entries.len()).unwrap_or_default(), "{what}");
                if entries.len() < log.len() {
                    // What was read before a damaged place is still good; whoever goes on from there is told.
                    let next = storage.ask(&page(kept, kept.floor + entries.len() as u64));
                    assert!(matches!(next, Some(Event::EntriesRead { entries: Err(_), .. })), "{what}: {next:?}");
                    return false;
                }
            }
            Event::GroupLoaded { state: Err(_), .. }
            | Event::EntriesRead { entries: Err(_), .. }
            | Event::MarksRead { marks: Err(_), .. } => return false,
            _ => {}
        }
    }
    true
}

fn page(kept: &Kept, from: u64) -> Request {
    let group = kept.record.group;
    Request::ReadEntries { read: ReadId(1), group, from, through: u64::MAX, entries_max: 10_000, bytes_max: 1 << 20 }
}
