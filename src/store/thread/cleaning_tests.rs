//! Cleaning beside changes, with the real threads on a simulated disk: what it costs an acknowledgement, and what it
//! does when the disk is full.

#![allow(clippy::cast_possible_truncation, clippy::format_push_string)]

use std::sync::Mutex;

use super::spare::RESERVE_SEGMENTS;
use super::tests::{Waiting, parts, stat};
use super::*;
use crate::group::{Entry, Event as GroupEvent};
use crate::ids::{GroupId, Principal};
use crate::store::disk::simulated::{SimulatedDisk, Tally};
use crate::store::index::memory::MemoryHome;
use crate::store::journal::tests::{effect, group, user};
use crate::store::{Change, Mark, ReadId, Ticket, change_bytes};

const JOURNAL: &str = "journal";

/// Changes of a few groups: messages of many sizes, members that come and go, marks. The same seed, the same changes.
struct Changes {
    random: rand::rngs::StdRng,
    logs: Vec<(u64, u64)>,
    /// What every entry of group 1 and 2 was, by seq - 1.
    entries: Vec<Vec<Entry>>,
    body_bytes_max: u32,
    /// Groups that are made before anything else, and then live for ever.
    creations: u32,
}

impl Changes {
    fn new(seed: u64, body_bytes_max: u32) -> Self {
        let random = rand::rngs::StdRng::seed_from_u64(seed);
        Self { random, logs: vec![(0, 0); 6], entries: vec![Vec::new(); 6], body_bytes_max, creations: 0 }
    }

    /// Nothing of it is ever let go, and carried it takes more than twice as much.
    fn creation(number: u32) -> Change {
        let mut id = [9; 16];
        id[..4].copy_from_slice(&number.to_be_bytes());
        let id = GroupId::from_bytes(id).unwrap();
        let name = |member: u32| format!("member-{}", number * 8 + member);
        let members = (0..8).map(|member| user(&name(member))).collect();
        effect(id, 1, 1, &name(0), GroupEvent::Created { title: "t".into(), members })
    }

    fn below(&mut self, bound: u32) -> u32 {
        self.random.next_u32() % bound
    }

    fn next(&mut self) -> Change {
        if self.creations > 0 {
            self.creations -= 1;
            return Self::creation(self.creations);
        }
        let number = if self.below(10) == 0 { 1 + self.below(5) } else { 0 };
        let (head, version) = self.logs[number as usize];
        let (id, seq) = (group(number as u8 + 1), head + 1);
        if head == 0 {
            let members = (0..20).map(|member| user(&format!("u{member}"))).collect();
            return self.said(number, seq, GroupEvent::Created { title: "t".into(), members });
        }
        match self.below(20) {
            0 => Change::Marks(vec![Mark { user: user("u1"), group: id, received: head, read: 0 }]),
            1 if number > 0 => self.said(number, seq, GroupEvent::Renamed { title: format!("{version}").into() }),
            _ => {
                let bytes = self.below(self.body_bytes_max) as usize;
                self.said(number, seq, GroupEvent::Message { body: vec![7; bytes].into() })
            }
        }
    }

    fn said(&mut self, number: u32, seq: u64, event: GroupEvent) -> Change {
        let (head, version) = &mut self.logs[number as usize];
        *head = seq;
        *version = if event.changes_record() { seq } else { *version };
        let change = effect(group(number as u8 + 1), seq, *version, "u0", event);
        if let Change::Effect(effect) = &change {
            self.entries[number as usize].push((*effect.entry).clone());
        }
        change
    }

    /// Each log is what was said, from its floor on, and has what retention keeps. Gives the floors, and what is
    /// remembered of operations.
    fn check(&self, storage: &mut Waiting, kept: u64) -> (Vec<u64>, String) {
        let mut floors = Vec::new();
        for (number, said) in self.entries.iter().enumerate() {
            let id = group(u8::try_from(number).unwrap() + 1);
            let head = said.len() as u64;
            let load = Request::LoadGroup { group: id };
            storage.storage.submit(load);
            let state = storage.wait(|event| match event {
                Event::GroupLoaded { state, .. } => Some(state.unwrap().unwrap()),
                Event::Failed { message } => panic!("{message}"),
                _ => None,
            });
            assert_eq!((state.head, state.record.version), (head, self.logs[number].1), "group {number}");
            assert!(state.floor == 1 || state.floor + kept <= head + 1, "{} of {head}", state.floor);
            let (read, entries_max, bytes_max) = (ReadId(1), usize::MAX, usize::MAX);
            let (from, through) = (1, u64::MAX);
            storage.storage.submit(Request::ReadEntries { read, group: id, from, through, entries_max, bytes_max });
            let entries = storage.wait(|event| match event {
                Event::EntriesRead { entries, .. } => Some(entries.unwrap()),
                _ => None,
            });
            // Cleaning goes on meanwhile: the floor may have moved since it was told.
            let first = entries.first().map_or(head + 1, |entry| entry.seq);
            assert!(first == state.floor || (first > state.floor && first + kept <= head + 1), "group {number}");
            assert!(entries == said[usize::try_from(first).unwrap() - 1..], "group {number}");
            floors.push(state.floor);
        }
        storage.storage.submit(Request::LoadOperations { principal: Principal::User(user("u0")) });
        let operations = storage.wait(|event| match event {
            Event::OperationsLoaded { operations, .. } => Some(operations),
            _ => None,
        });
        (floors, format!("{operations:?}"))
    }
}

/// The journal's thread at the moment when it has said something.
struct Told {
    /// What it had done by then. It is told behind the event, so it has to be waited for.
    tallies: Receiver<Tally>,
    /// It goes on when it is told to, or when nobody tells it any more: so a change can be queued before the rest of its
    /// turn, whatever the machine is busy with.
    go_on: mpsc::Sender<()>,
}

fn watched(disk: &SimulatedDisk, retention: Retention) -> (Waiting, Told) {
    let (tell, tallies) = mpsc::channel();
    let (go_on, goes_on) = mpsc::channel();
    let goes_on = Mutex::new(goes_on);
    let seen = disk.clone();
    let storage = Waiting::start(|wake| {
        let wake: Wake = Arc::new(move || {
            if std::thread::current().name() == Some(JOURNAL) {
                // Nobody counts any more at the end.
                let _ = tell.send(seen.with_tally(JOURNAL, || ()).0);
                wake();
                let _ = goes_on.lock().unwrap().recv();
            } else {
                wake();
            }
        });
        Parts { retention, ..parts(disk, &MemoryHome::default()) }.start(wake)
    });
    (storage, Told { tallies, go_on })
}

/// What the journal's thread did from the moment when a change was queued until its report.
struct Wait {
    syncs: u64,
    /// Segments that were begun, or were being begun.
    rolls: u64,
}

/// The waits of so many changes, one under way at a time, and how many segments were cleaned.
fn waits(seed: u64, changes: u64, retention: Retention) -> (Vec<Wait>, u64) {
    let disk = SimulatedDisk::new();
    let (mut storage, told) = watched(&disk, retention);
    let mut load = Changes::new(seed, 30_000);
    // The journal's thread says grants and reports, and nothing else; the first grant was said by the starting thread.
    storage.wait(|event| matches!(event, Event::Credit { .. }).then_some(()));
    let mut waits = Vec::new();
    for number in 1..=changes {
        let change = load.next();
        let request = Request::Commit { ticket: Ticket(number), change };
        // The next change is queued as soon as the last is reported, before the rest of that turn; or at some time.
        let at_once = number % 2 == 0;
        if number > 1 && !at_once {
            told.go_on.send(()).unwrap();
        }
        let (before, ()) = disk.with_tally(JOURNAL, || storage.storage.submit(request));
        if at_once {
            told.go_on.send(()).unwrap();
        }
        let after = storage.wait(|event| match event {
            Event::Credit { .. } => {
                told.tallies.recv().unwrap();
                told.go_on.send(()).unwrap();
                None
            }
            Event::Durable { .. } => Some(told.tallies.recv().unwrap()),
            Event::Failed { message } => panic!("{message}"),
            _ => None,
        });
        // Queued in the middle of a roll: behind its renaming, and before the directory and the head are synced.
        let in_roll = u64::from(before.renames > 0 && before.syncs_since_rename < 2);
        waits.push(Wait { syncs: after.syncs - before.syncs, rolls: after.renames - before.renames + in_roll });
    }
    drop(told);
    let cleaned = stat(&mut storage, "journal_cleaned_segment_count");
    load.check(&mut storage, retention.entries_max);
    (waits, cleaned)
}

#[test]
fn an_acknowledgement_waits_for_at_most_one_sync_more_beside_cleaning() {
    let keeps_all = Retention { entries_max: u64::MAX, bytes_max: u64::MAX, age_ms_max: u64::MAX };
    let retention = Retention { entries_max: 100, ..keeps_all };
    let most = |waits: &[Wait], rolls: u64| {
        waits.iter().filter(|wait| wait.rolls == rolls).map(|wait| wait.syncs).max().unwrap_or(0)
    };
    let mut delayed = 0;
    for seed in 0..4 {
        let (alone, none) = waits(seed, 2_500, keeps_all);
        assert_eq!(none, 0);
        let (beside, cleaned) = waits(seed, 2_500, retention);
        assert!(cleaned > 2, "{cleaned} segments were cleaned");
        // Its own, and a marker or what cleaning had begun before. A roll, whoever needs it, has three, and one more
        // for what stands in the old segment; never are there two.
        for (waits, what) in [(&alone, "alone"), (&beside, "beside cleaning")] {
            assert!(most(waits, 0) <= 2, "{what}: {} syncs", most(waits, 0));
            assert!(most(waits, 1) <= 2 + 4, "{what}: {} syncs with a roll", most(waits, 1));
            assert!(waits.iter().all(|wait| wait.rolls <= 1), "{what}");
        }
        delayed += beside.iter().filter(|wait| wait.rolls == 0 && wait.syncs == 2).count();
        println!("seed {seed}: {cleaned} cleaned, {delayed} changes so far waited for another sync");
    }
    assert!(delayed > 10, "cleaning was in the way of {delayed} changes only");
}

/// Sends what there is room for; the changes that were refused for want of credit are said again when there is some.
struct Sender {
    load: Changes,
    refused: Option<Change>,
    used_bytes: u64,
    last: Ticket,
}

impl Sender {
    /// Gives whether there was room.
    fn send(&mut self, storage: &mut Waiting) -> bool {
        let change = self.refused.take().unwrap_or_else(|| self.load.next());
        let bytes = change_bytes(&change) as u64;
        if self.used_bytes + bytes > storage.credit {
            self.refused = Some(change);
            return false;
        }
        self.used_bytes += bytes;
        self.last = storage.commit(change);
        storage.wait_durable(self.last);
        true
    }
}

/// Sends until something is refused and no space is left for another segment.
fn fill_disk(sender: &mut Sender, storage: &mut Waiting, disk: &SimulatedDisk) {
    let needed = (1 + RESERVE_SEGMENTS) * SEGMENT_BYTES_MIN;
    while sender.send(storage) || disk.free_bytes().unwrap() >= needed {
        if sender.refused.is_some() {
            wait_for_credit(storage);
        }
    }
    assert_eq!(stat(storage, "journal_cleaned_segment_count"), 0);
}

/// Sends so many bytes more; waits for room where there is none.
fn go_on(sender: &mut Sender, storage: &mut Waiting, bytes: u64) {
    let wanted = sender.used_bytes + bytes;
    while sender.used_bytes < wanted {
        if !sender.send(storage) {
            wait_for_credit(storage);
        }
    }
}

fn wait_for_credit(storage: &mut Waiting) {
    storage.wait(|event| match event {
        Event::Credit { .. } => Some(()),
        Event::Failed { message } => panic!("{message}"),
        _ => None,
    });
}

/// Fills a disk of so many segments while nothing may be removed; then space comes from cleaning alone, and twice the
/// disk is written.
fn full_and_going_on(load: Changes, segments: u64, kept: u64) {
    let retention = Retention { entries_max: kept, bytes_max: u64::MAX, age_ms_max: u64::MAX };
    let disk = SimulatedDisk::new();
    let capacity = segments * SEGMENT_BYTES_MIN;
    disk.set_capacity(Some(capacity));
    let mut storage = Waiting::start(|wake| Parts { retention, ..parts(&disk, &MemoryHome::default()) }.start(wake));
    storage.wait(|event| matches!(event, Event::Credit { .. }).then_some(()));
    let mut sender = Sender { load, refused: None, used_bytes: 0, last: Ticket(0) };

    let hold = storage.storage.hold_cleaning();
    fill_disk(&mut sender, &mut storage, &disk);
    drop(hold);
    go_on(&mut sender, &mut storage, 2 * capacity);
    assert!(stat(&mut storage, "journal_cleaned_segment_count") > 0);
    let (floors_before, operations_before) = sender.load.check(&mut storage, kept);
    drop(storage);
    disk.crash(|_| false);
    let mut storage = Waiting::start(|wake| Parts { retention, ..parts(&disk, &MemoryHome::default()) }.start(wake));
    let (floors, operations) = sender.load.check(&mut storage, kept);
    assert!(operations == operations_before, "an index made anew says the same");
    // Cleaning goes on at any time.
    assert!(floors.iter().zip(&floors_before).all(|(now, before)| now >= before), "{floors:?} {floors_before:?}");
}

#[test]
fn on_a_full_disk_changes_are_refused_cleaning_goes_on_and_gives_them_room_again() {
    for seed in 1..=4 {
        full_and_going_on(Changes::new(seed, 60_000), 9, 60);
        full_and_going_on(Changes::new(seed, 2_000), 9, 1_000);
    }
}

#[test]
fn a_cleaning_that_carries_more_than_a_segment_does_not_stop_a_full_disk_for_ever() {
    let creations = u32::try_from(SEGMENT_BYTES_MIN / change_bytes(&Changes::creation(7_000_000)) as u64).unwrap();
    full_and_going_on(Changes { creations, ..Changes::new(1, 60_000) }, 15, 60);
}
