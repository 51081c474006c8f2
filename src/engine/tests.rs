//! What only a disk that fails on command shows; everything else stands in `tests/engine`.

use rand::SeedableRng;

use super::*;
use crate::ids::OperationId;
use crate::limits::SEGMENT_BYTES_MIN;
use crate::store::testing::TestDisk as _;
use crate::store::testing::{Fault, MemoryHome, Parts, SimulatedDisk};
use crate::store::{GroupQuota, Retention};

fn user(name: &str) -> UserId {
    UserId::new(name).unwrap()
}

fn open(disk: &SimulatedDisk, cache_bytes_max: usize) -> Engine {
    disk.create_directory("").unwrap();
    let segment_bytes = u32::try_from(SEGMENT_BYTES_MIN).unwrap();
    let home = Box::new(MemoryHome::default());
    let parts = Parts {
        disk: disk.clone(),
        home,
        segment_bytes,
        random: StdRng::seed_from_u64(1),
        retention: Retention::default(),
        quota: GroupQuota::default(),
    };
    let options = EngineOptions { cache_bytes_max, ..EngineOptions::new("") };
    Engine::over(&options, |wake| parts.start(wake)).unwrap()
}

fn gauge(engine: &Engine, name: &str) -> u64 {
    engine.stats().unwrap().into_iter().find(|(other, _)| other == name).unwrap().1
}

#[test]
fn on_a_full_disk_changes_are_refused_whole_and_reads_go_on_until_there_is_room_again() {
    let disk = SimulatedDisk::new();
    disk.set_capacity(Some(2 * SEGMENT_BYTES_MIN));
    let engine = open(&disk, 1 << 20);
    let alice = user("alice");
    let group = engine.acting(&alice).create("g", &[]).unwrap().group;
    let body: Arc<[u8]> = vec![7; 60_000].into();
    let mut head = 1;
    let refused = loop {
        match engine.acting(&alice).append(group, body.clone()) {
            Ok(changed) => {
                head += 1;
                assert_eq!(changed.seq, head);
            }
            Err(error) => break error,
        }
        assert!(head < 1_000, "a bounded disk has an end");
    };
    assert_eq!(refused, EngineError::Full);
    assert!(head > 10, "most of the segment was used: {head}");
    // Known to be full, it is said at once; and nothing of a create is there that was refused.
    let once = OperationId::random();
    assert_eq!(engine.acting(&alice).operation(once).append(group, body.clone()), Err(EngineError::Full));
    let others: Vec<_> = (0..9_000).map(|number| user(&format!("a-member-with-a-longer-name-{number}"))).collect();
    assert_eq!(engine.acting(&alice).create("large", &others), Err(EngineError::Full));
    assert_eq!(engine.groups().count(), 1);
    assert_eq!(engine.group(group).unwrap().head, head);
    assert_eq!(engine.read(group, head, 1).unwrap().entries[0].seq, head);

    disk.set_capacity(None);
    // Room is looked for again every second; until then it is said to be full.
    let changed = loop {
        match engine.acting(&alice).operation(once).append(group, body.clone()) {
            Err(EngineError::Full) => std::thread::yield_now(),
            outcome => break outcome.unwrap(),
        }
    };
    assert_eq!((changed.seq, changed.repeated), (head + 1, false), "what was refused was not remembered");
}

#[test]
fn after_a_failed_sync_nothing_is_acknowledged_and_everybody_is_told() {
    let disk = SimulatedDisk::new();
    let engine = open(&disk, 1 << 20);
    let alice = user("alice");
    let group = engine.acting(&alice).create("g", &[]).unwrap().group;
    // The second operation is the sync of the next batch: its write succeeds.
    disk.fail(2, Fault::FromThenOn);
    let outcomes: Vec<_> = std::thread::scope(|scope| {
        let append = || engine.acting(&alice).append(group, *b"lost");
        let threads: Vec<_> = (0..4).map(|_| scope.spawn(append)).collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).collect()
    });
    for outcome in outcomes {
        assert!(matches!(outcome, Err(EngineError::Failed { .. })), "{outcome:?}");
    }
    assert!(matches!(engine.group(group), Err(EngineError::Failed { .. })));
    assert!(matches!(engine.acting(&alice).create("h", &[]), Err(EngineError::Failed { .. })));
    assert!(matches!(engine.groups().next(), Some(Err(EngineError::Failed { .. }))));
    assert!(matches!(engine.close(), Err(EngineError::Failed { .. })));

    disk.kill();
    disk.crash(|_| false);
    let engine = open(&disk, 1 << 20);
    assert_eq!(engine.group(group).unwrap().head, 1, "what was acknowledged is there");
}

#[test]
fn callers_share_a_sync() {
    let disk = SimulatedDisk::new();
    let engine = open(&disk, 1 << 20);
    let (threads, each) = (8, 200);
    let before = disk.operations();
    std::thread::scope(|scope| {
        for number in 0..threads {
            let engine = &engine;
            scope.spawn(move || {
                let alice = user(&format!("alice-{number}"));
                let group = engine.acting(&alice).create("g", &[]).unwrap().group;
                for _ in 1..each {
                    engine.acting(&alice).append(group, *b"x").unwrap();
                }
            });
        }
    });
    // A commit alone takes a write and a sync; the index of this engine is in memory and takes neither.
    let operations = disk.operations() - before;
    assert!(operations < 2 * threads * each, "{operations} operations for {} commits", threads * each);
}

#[test]
fn what_is_loaded_stays_within_its_bound_and_what_was_let_go_is_answered_the_same() {
    let disk = SimulatedDisk::new();
    let bound = 64 << 10;
    let engine = open(&disk, bound);
    let alice = user("alice");
    let groups: Vec<_> = (0..500_u32)
        .map(|number| {
            let members: Vec<_> = (0..8).map(|member| user(&format!("user-{number}-{member}"))).collect();
            engine.acting(&alice).operation(OperationId::random()).create(&number.to_string(), &members).unwrap().group
        })
        .collect();
    let bytes = gauge(&engine, "cache_bytes");
    // The last one of each part stays whatever it takes; that of alice's operations is the largest.
    assert!(bytes <= 2 * bound as u64 + (16 << 10), "{bytes}");
    assert!(gauge(&engine, "evicted_total") > 300, "most were let go");
    for (number, group) in groups.iter().enumerate() {
        let snapshot = engine.group(*group).unwrap();
        assert_eq!((&*snapshot.record.title, snapshot.head), (number.to_string().as_str(), 1));
    }
    assert!(gauge(&engine, "cache_bytes") <= 2 * bound as u64 + (16 << 10));
}

#[test]
fn nobody_waits_for_a_dispatcher_that_is_gone() {
    let disk = SimulatedDisk::new();
    let engine = open(&disk, 1 << 20);
    engine.shared().port.fail("told so");
    let told = EngineError::Failed { message: "told so".to_owned() };
    assert_eq!(engine.group(engine.shared().new_group_id()), Err(told.clone()));
    assert_eq!(engine.acting(&user("alice")).create("g", &[]), Err(told));
}
