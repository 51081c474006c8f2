//! Storage as the hub sees it.

#![allow(clippy::cast_possible_truncation, clippy::format_push_string, clippy::large_stack_arrays)]

use std::sync::mpsc::{Receiver, channel};

use super::*;
use crate::group::Event as GroupEvent;
use crate::ids::Principal;
use crate::store::disk::simulated::{Fault, SimulatedDisk};
use crate::store::index::memory::MemoryHome;
use crate::store::journal::tests::{effect, group, user};
use crate::store::{Change, ReadId, Ticket, change_bytes};

/// Storage whose events a test waits for without sleeping.
pub(super) struct Waiting {
    pub(super) storage: Storage,
    woken: Receiver<()>,
    pub(super) ticket: u64,
    pub(super) credit: u64,
}

impl Waiting {
    pub(super) fn start(start: impl FnOnce(Wake) -> Result<Storage, OpenError>) -> Self {
        let (sender, woken) = channel();
        let storage = start(Arc::new(move || {
            let _ = sender.send(());
        }))
        .unwrap();
        Self { storage, woken, ticket: 0, credit: 0 }
    }

    fn real(directory: &std::path::Path) -> Self {
        let options = StorageOptions { segment_bytes: SEGMENT_BYTES_MIN, ..StorageOptions::new(directory) };
        Self::start(|wake| Storage::start(&options, wake))
    }

    fn simulated(disk: &SimulatedDisk, home: &MemoryHome) -> Self {
        Self::start(|wake| parts(disk, home).start(wake))
    }

    pub(super) fn commit(&mut self, change: Change) -> Ticket {
        self.ticket += 1;
        let ticket = Ticket(self.ticket);
        self.storage.submit(Request::Commit { ticket, change });
        ticket
    }

    pub(super) fn wait<T>(&mut self, mut wanted: impl FnMut(Event) -> Option<T>) -> T {
        loop {
            while let Some(event) = self.storage.poll_event() {
                if let Event::Credit { bytes_total } = event {
                    assert!(bytes_total > self.credit, "credit only grows");
                    self.credit = bytes_total;
                }
                if let Some(found) = wanted(event) {
                    return found;
                }
            }
            self.woken.recv_timeout(Duration::from_secs(60)).expect("an event comes");
        }
    }

    pub(super) fn wait_durable(&mut self, ticket: Ticket) {
        let mut last = Ticket(0);
        self.wait(|event| match event {
            Event::Durable { ticket: durable, .. } => {
                assert!(durable > last, "tickets come in order");
                last = durable;
                (durable >= ticket).then_some(())
            }
            Event::Failed { message } => panic!("{message}"),
            _ => None,
        });
    }

    pub(super) fn answers(&mut self) -> String {
        let read = ReadId(1);
        let alice = user("alice");
        self.storage.submit(Request::LoadGroup { group: group(1) });
        self.storage.submit(Request::LoadUser { read, user: alice.clone() });
        self.storage.submit(Request::LoadOperations { principal: Principal::User(alice.clone()) });
        self.storage.submit(Request::ListGroups { read, user: alice, after: None, count_max: 10 });
        self.storage.submit(Request::ReadEntries {
            read,
            group: group(1),
            from: 1,
            through: u64::MAX,
            entries_max: 1000,
            bytes_max: 1 << 20,
        });
        let mut answers = String::new();
        let mut count = 0;
        self.wait(|event| {
            if !matches!(event, Event::Durable { .. } | Event::Credit { .. } | Event::Ready) {
                answers.push_str(&format!("{event:?}\n"));
                count += 1;
            }
            (count == 5).then_some(())
        });
        answers
    }
}

pub(super) fn parts(disk: &SimulatedDisk, home: &MemoryHome) -> Parts<SimulatedDisk> {
    disk.create_directory("").unwrap();
    let random = rand::rngs::StdRng::seed_from_u64(1);
    let segment_bytes = u32::try_from(SEGMENT_BYTES_MIN).unwrap();
    Parts {
        disk: disk.clone(),
        home: Box::new(home.clone()),
        segment_bytes,
        random,
        retention: Retention::default(),
        quota: GroupQuota::default(),
    }
}

fn fill(storage: &mut Waiting, messages: u64) {
    let members = vec![user("alice"), user("bob")];
    storage.commit(effect(group(1), 1, 1, "alice", GroupEvent::Created { title: "t".into(), members }));
    let mut last = Ticket(0);
    for seq in 2..=messages + 1 {
        last = storage.commit(effect(group(1), seq, 1, "alice", GroupEvent::Message { body: b"hello"[..].into() }));
    }
    storage.wait_durable(last);
}

#[test]
fn changes_that_are_submitted_together_are_synced_together() {
    let mut storage = Waiting::simulated(&SimulatedDisk::new(), &MemoryHome::default());
    let members = vec![user("alice")];
    let created = effect(group(1), 1, 1, "alice", GroupEvent::Created { title: "t".into(), members });
    let message = |seq| effect(group(1), seq, 1, "alice", GroupEvent::Message { body: b"hello"[..].into() });
    let changes = std::iter::once(created).chain((2..=1000).map(message));
    let commits = (1..).map(Ticket).zip(changes).map(|(ticket, change)| Request::Commit { ticket, change });
    storage.storage.submit_all(commits);
    let first = storage.wait(|event| match event {
        Event::Durable { ticket, lsns } => Some((ticket, lsns.len())),
        _ => None,
    });
    assert_eq!(first, (Ticket(1000), 1000));
}

#[test]
fn a_load_after_durable_sees_the_effect_and_a_clean_stop_keeps_it() {
    let directory = tempfile::tempdir().unwrap();
    let mut storage = Waiting::real(directory.path());
    fill(&mut storage, 300);
    let before = storage.answers();
    assert!(before.contains("head: 301") && before.contains("seq: 301"), "{before}");
    storage.storage.stop().unwrap();
    let mut storage = Waiting::real(directory.path());
    assert_eq!(storage.answers(), before);
    assert!(!directory.path().join("journal/00000002.seg").exists(), "a clean stop leaves nothing to write again");
}

#[test]
fn an_index_that_is_deleted_or_garbage_is_made_anew_with_the_same_answers() {
    let directory = tempfile::tempdir().unwrap();
    let mut storage = Waiting::real(directory.path());
    fill(&mut storage, 500);
    let before = storage.answers();
    storage.storage.stop().unwrap();

    std::fs::remove_dir_all(directory.path().join("index")).unwrap();
    let mut storage = Waiting::real(directory.path());
    assert_eq!(storage.answers(), before, "deleted");
    storage.storage.stop().unwrap();

    for garbage in [&b"garbage"[..], &[0xa5; 100_000]] {
        for file in std::fs::read_dir(directory.path().join("index")).unwrap() {
            let path = file.unwrap().path();
            if path.is_file() {
                std::fs::write(path, garbage).unwrap();
            }
        }
        let mut storage = Waiting::real(directory.path());
        assert_eq!(storage.answers(), before, "garbage");
        storage.storage.stop().unwrap();
    }
    assert!(directory.path().join("index.broken-1").exists(), "nothing is thrown away");
}

#[test]
fn a_second_storage_on_the_same_directory_is_refused_and_harms_nobody() {
    let directory = tempfile::tempdir().unwrap();
    let mut storage = Waiting::real(directory.path());
    let options = StorageOptions { segment_bytes: 0, ..StorageOptions::new(directory.path()) };
    let error = Storage::start(&options, Arc::new(|| {})).unwrap_err();
    assert!(matches!(error, OpenError::Locked { pid: Some(_), .. }), "{error}");
    fill(&mut storage, 3);
}

#[test]
fn what_was_reported_durable_survives_a_power_cut_with_or_without_the_index() {
    let disk = SimulatedDisk::new();
    let home = MemoryHome::default();
    let mut storage = Waiting::simulated(&disk, &home);
    fill(&mut storage, 50);
    let before = storage.answers();
    let cut = disk.fork();
    cut.crash(|_| false);
    drop(storage);
    let mut storage = Waiting::simulated(&cut, &MemoryHome::default());
    assert_eq!(storage.answers(), before);
}

#[test]
fn what_is_acknowledged_after_a_kill_in_a_first_start_survives_the_power_cut_that_follows() {
    for nth in 1.. {
        let disk = SimulatedDisk::new();
        disk.fail(nth, Fault::FromThenOn);
        let format = parts(&disk, &MemoryHome::default()).format();
        disk.kill();
        let mut storage = Waiting::simulated(&disk, &MemoryHome::default());
        fill(&mut storage, 3);
        let before = storage.answers();
        let cut = disk.fork();
        cut.crash(|_| false);
        drop(storage);
        let mut storage = Waiting::simulated(&cut, &MemoryHome::default());
        assert_eq!(storage.answers(), before, "operation {nth}");
        if format.is_ok() {
            break;
        }
    }
}

#[test]
fn a_first_start_cut_by_power_at_any_operation_is_begun_again_or_goes_on() {
    for nth in 1.. {
        let mut complete = false;
        for keep in 0..4_usize {
            let disk = SimulatedDisk::new();
            disk.fail(nth, Fault::FromThenOn);
            complete = parts(&disk, &MemoryHome::default()).format().is_ok();
            disk.crash(|pending| keep == 3 || (keep > 0 && pending % 2 == keep - 1));
            let mut storage = Waiting::simulated(&disk, &MemoryHome::default());
            fill(&mut storage, 3);
            let before = storage.answers();
            let cut = disk.fork();
            cut.crash(|_| false);
            drop(storage);
            let mut storage = Waiting::simulated(&cut, &MemoryHome::default());
            assert_eq!(storage.answers(), before, "operation {nth}, keep {keep}");
        }
        if complete {
            break;
        }
    }
}

#[test]
fn after_a_failed_sync_nothing_is_acknowledged_and_it_is_said() {
    let disk = SimulatedDisk::new();
    let mut storage = Waiting::simulated(&disk, &MemoryHome::default());
    fill(&mut storage, 2);
    disk.fail(1, Fault::FromThenOn);
    storage.commit(effect(group(1), 4, 1, "alice", GroupEvent::Dissolved));
    let message = storage.wait(|event| match event {
        Event::Failed { message } => Some(message),
        Event::Durable { ticket, .. } => panic!("{ticket:?} was acknowledged"),
        _ => None,
    });
    assert!(message.contains("00000001.seg"), "{message}");
    assert!(storage.storage.stop().is_err());
}

#[test]
fn damage_in_the_index_is_met_by_making_it_anew_while_it_runs() {
    let disk = SimulatedDisk::new();
    let home = MemoryHome::default();
    let mut storage = Waiting::simulated(&disk, &home);
    fill(&mut storage, 50);
    let before = storage.answers();
    storage.storage.stop().unwrap();
    for (key, value) in home.content().iter_mut() {
        if key[0] == 0x60 {
            value[20] ^= 1;
        }
    }
    let mut storage = Waiting::simulated(&disk, &home);
    assert_eq!(storage.answers(), before);
}

#[test]
fn credit_stops_on_a_full_disk_and_grows_again_with_space() {
    let disk = SimulatedDisk::new();
    disk.set_capacity(Some(2 * SEGMENT_BYTES_MIN));
    let mut storage = Waiting::simulated(&disk, &MemoryHome::default());
    let body: Arc<[u8]> = vec![7; 60_000].into();
    let members = vec![user("alice")];
    let first = effect(group(1), 1, 1, "alice", GroupEvent::Created { title: "t".into(), members });
    let mut used = change_bytes(&first) as u64;
    storage.wait(|event| matches!(event, Event::Credit { .. }).then_some(()));
    let mut last = storage.commit(first);
    let mut seq = 1;
    let mut next = |storage: &Waiting, used: &mut u64| {
        let change = effect(group(1), seq + 1, 1, "alice", GroupEvent::Message { body: body.clone() });
        let bytes = change_bytes(&change) as u64;
        if *used + bytes > storage.credit {
            return None;
        }
        seq += 1;
        *used += bytes;
        Some(change)
    };
    // Keeping to the credit, storage never fails, whatever the disk.
    loop {
        storage.wait_durable(last);
        let Some(change) = next(&storage, &mut used) else {
            // A turn of the journal thread ends with its grant, and the second of these comes in a later one.
            for _ in 0..2 {
                assert!(storage.storage.seal().recv().unwrap().is_none(), "there is no room for a spare");
            }
            storage.answers();
            let Some(change) = next(&storage, &mut used) else { break };
            last = storage.commit(change);
            continue;
        };
        last = storage.commit(change);
    }
    assert!(used > SEGMENT_BYTES_MIN / 2, "most of the segment was used: {used}");
    disk.set_capacity(None);
    let granted = storage.credit;
    storage.wait(|event| match event {
        Event::Credit { bytes_total } => (bytes_total > granted + SEGMENT_BYTES_MIN / 8).then_some(()),
        _ => None,
    });
}

pub(super) fn stat(storage: &mut Waiting, name: &str) -> u64 {
    storage.storage.submit(Request::ReadStats { read: ReadId(7) });
    storage.wait(|event| match event {
        Event::StatsRead { stats, .. } => stats.iter().find(|(found, _)| found == name).map(|(_, value)| *value),
        Event::Failed { message } => panic!("{message}"),
        _ => None,
    })
}

#[test]
fn the_threads_clean_what_retention_lets_go_and_a_hold_keeps_every_segment() {
    let disk = SimulatedDisk::new();
    let home = MemoryHome::default();
    let retention = Retention { entries_max: 20, ..Retention::default() };
    let mut storage = Waiting::start(|wake| Parts { retention, ..parts(&disk, &home) }.start(wake));
    let members = vec![user("alice")];
    storage.commit(effect(group(1), 1, 1, "alice", GroupEvent::Created { title: "t".into(), members }));
    let hold = storage.storage.hold_cleaning();
    let body: Arc<[u8]> = vec![7; 60_000].into();
    for seq in 2..=400 {
        let event = GroupEvent::Message { body: body.clone() };
        let ticket = storage.commit(effect(group(1), seq, 1, "alice", event));
        storage.wait_durable(ticket);
    }
    // The next spare may still be on its way.
    let sealed = loop {
        if let Some(sealed) = storage.storage.seal().recv().unwrap() {
            break sealed;
        }
    };
    assert!(sealed.first == 1 && sealed.last >= 5, "{sealed:?}");
    assert!(disk.exists("journal/00000001.seg").unwrap());
    assert_eq!(stat(&mut storage, "journal_cleaned_segment_count"), 0);
    drop(hold);
    while stat(&mut storage, "journal_cleaned_segment_count") < 4 {}
    assert!(!disk.exists("journal/00000001.seg").unwrap());
    let before = storage.answers();
    assert!(before.contains("head: 400, floor: 3"), "{}", &before[..300]);
    drop(storage);
    disk.crash(|_| false);
    let mut storage = Waiting::start(|wake| Parts { retention, ..parts(&disk, &MemoryHome::default()) }.start(wake));
    let after = storage.answers();
    assert!(after.contains("head: 400, floor: 3"), "{}", &after[..300]);
}

/// What sled rolled back, or somebody put back.
#[test]
fn an_index_from_before_the_beginning_of_the_log_is_made_anew() {
    let (disk, home) = (SimulatedDisk::new(), MemoryHome::default());
    let retention = Retention { entries_max: 20, ..Retention::default() };
    let start = |home: &MemoryHome| Waiting::start(|wake| Parts { retention, ..parts(&disk, home) }.start(wake));
    let mut storage = start(&home);
    fill(&mut storage, 30);
    storage.storage.stop().unwrap();
    let old = home.fork();

    let mut storage = start(&home);
    let body: Arc<[u8]> = vec![7; 60_000].into();
    for seq in 32..=300 {
        let ticket = storage.commit(effect(group(1), seq, 1, "alice", GroupEvent::Message { body: body.clone() }));
        storage.wait_durable(ticket);
    }
    while stat(&mut storage, "journal_cleaned_segment_count") < 2 {}
    storage.storage.stop().unwrap();
    assert!(!disk.exists("journal/00000001.seg").unwrap(), "what the old index goes on from is gone");
    let mut storage = start(&old);
    let after = storage.answers();
    assert!(after.contains("head: 300") && after.contains("seq: 300,"), "{}", &after[..300]);
}

/// Figures for `docs/durability.md`: `cargo test --release --lib figures -- --ignored --nocapture`.
#[test]
#[ignore = "measures, by hand"]
fn figures() {
    let directory = tempfile::tempdir().unwrap();
    for _ in 0..3 {
        std::fs::create_dir_all(directory.path().join("zeros/journal")).unwrap();
        let disk = RealDisk::new(directory.path().join("zeros"));
        let from = Instant::now();
        log::spare::make_now(&disk, "measured", crate::limits::SEGMENT_BYTES_DEFAULT).unwrap();
        println!("64 MiB of zeros, synced: {} ms", from.elapsed().as_millis());
        let from = Instant::now();
        SledHome::new(directory.path().join("empty")).open().unwrap();
        println!("an empty sled, opened: {} ms", from.elapsed().as_millis());
        std::fs::remove_dir_all(directory.path().join("empty")).unwrap();
    }
    let options = StorageOptions::new(directory.path());
    let from = Instant::now();
    let mut storage = Waiting::start(|wake| Storage::start(&options, wake));
    println!("first start {} ms", from.elapsed().as_millis());
    storage.wait(|event| matches!(event, Event::Ready).then_some(()));
    println!("ready {} ms", from.elapsed().as_millis());

    let from = Instant::now();
    let mut last = Ticket(0);
    for number in 0..20_000_u32 {
        let mut id = [7; 16];
        id[..4].copy_from_slice(&number.to_be_bytes());
        let id = crate::ids::GroupId::from_bytes(id).unwrap();
        let members = (0..8).map(|member| user(&format!("user-{}", (number * 7 + member * 13) % 20_000))).collect();
        let event = GroupEvent::Created { title: "title".into(), members };
        last = storage.commit(effect(id, 1, 1, &format!("user-{}", number % 20_000), event));
    }
    storage.wait_durable(last);
    println!("20,000 groups of 8 durable after {} ms", from.elapsed().as_millis());
    storage.answers();
    println!("and looked up after {} ms", from.elapsed().as_millis());
    let from = Instant::now();
    let body: Arc<[u8]> = vec![7; 100].into();
    for seq in 2..=200_001 {
        last = storage.commit(effect(group(1), seq, 1, "alice", GroupEvent::Message { body: body.clone() }));
    }
    storage.wait_durable(last);
    println!("200,000 messages of 100 B durable after {} ms", from.elapsed().as_millis());
    storage.answers();
    println!("and looked up after {} ms", from.elapsed().as_millis());
    let mut single = Vec::new();
    for seq in 200_002..=200_301 {
        let from = Instant::now();
        let ticket = storage.commit(effect(group(1), seq, 1, "alice", GroupEvent::Message { body: body.clone() }));
        storage.wait_durable(ticket);
        single.push(from.elapsed().as_micros());
    }
    single.sort_unstable();
    println!("one at a time: p50 {} us, p99 {} us", single[150], single[297]);
    let from = Instant::now();
    storage.storage.stop().unwrap();
    println!("stop {} ms", from.elapsed().as_millis());
    let bytes = std::fs::metadata(directory.path().join("index/db")).unwrap().len();
    println!("index {} KiB", bytes / 1024);
    let from = Instant::now();
    let mut storage = Waiting::start(|wake| Storage::start(&options, wake));
    storage.wait(|event| matches!(event, Event::Ready).then_some(()));
    println!("second start {} ms", from.elapsed().as_millis());
    storage.storage.stop().unwrap();
    std::fs::remove_dir_all(directory.path().join("index")).unwrap();
    let from = Instant::now();
    let mut storage = Waiting::start(|wake| Storage::start(&options, wake));
    storage.wait(|event| matches!(event, Event::Ready).then_some(()));
    println!("start with the index made anew {} ms", from.elapsed().as_millis());
}
