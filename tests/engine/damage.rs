//! Damaged directories: named when opening, named to who reads, or mended from the journal.

use std::path::{Path, PathBuf};

use roundtable::engine::EngineError;
use roundtable::ids::GroupId;

use super::kills::{Run, users};
use super::ledger::Found;
use super::{log, open, seed, try_open, user};

/// A run that has something to lose.
fn run_with_content() -> Run {
    let mut run = Run::new(seed());
    while run.totals.get("acknowledged").copied().unwrap_or_default() < 100 {
        run.killed_round();
        run.check();
    }
    run
}

fn segments(data: &Path) -> Vec<PathBuf> {
    let inside = std::fs::read_dir(data.join("journal")).expect("a journal");
    let mut paths: Vec<PathBuf> = inside.map(|item| item.expect("an item").path()).collect();
    paths.retain(|path| path.extension().is_some_and(|extension| extension == "seg"));
    paths.sort();
    paths
}

fn file(path: &Path) -> String {
    format!("journal/{}", path.file_name().expect("a name").to_string_lossy())
}

fn demand_all(run: &mut Run) {
    let found = Found::in_engine(&open(&run.data()), &users());
    let losses = run.ledger.losses(&found, true);
    assert!(losses.is_empty(), "seed {}: {losses:?}", run.seed);
}

#[test]
fn an_index_that_is_deleted_or_garbage_is_made_anew_with_the_same_answers() {
    let mut run = run_with_content();
    std::fs::remove_dir_all(run.data().join("index")).expect("it is there");
    demand_all(&mut run);
    for item in std::fs::read_dir(run.data().join("index")).expect("it is there") {
        let path = item.expect("an item").path();
        if path.is_file() {
            std::fs::write(path, vec![0xa5; 70_000]).expect("it writes");
        }
    }
    demand_all(&mut run);
    assert!(run.data().join("index.broken-1").exists(), "nothing is thrown away");
    run.killed_round();
    run.check();
}

#[test]
fn a_flipped_byte_in_the_middle_of_the_journal_is_refused_with_file_and_offset() {
    let mut run = run_with_content();
    let newest = segments(&run.data()).pop().expect("a segment");
    let good = std::fs::read(&newest).expect("it reads");
    let end = good.iter().rposition(|byte| *byte != 0).expect("it has packets") + 1;
    let place = 512 + (end - 512) / 2;
    let mut bad = good.clone();
    bad[place] ^= 0x40;
    std::fs::write(&newest, bad).expect("it writes");
    // Without the index, for which what it has applied needs no second look, every packet is read.
    std::fs::remove_dir_all(run.data().join("index")).expect("it is there");
    match try_open(&run.data()) {
        Err(EngineError::Corrupt { file: named, offset, .. }) => {
            assert_eq!(named, file(&newest));
            let offset = usize::try_from(offset).expect("small");
            assert!(offset <= place && offset + 128 * 1024 > place, "the packet around {place}: {offset}");
        }
        other => panic!("seed {}: {other:?}", run.seed),
    }
    std::fs::write(&newest, good).expect("it writes");
    demand_all(&mut run);
}

#[test]
fn a_missing_last_segment_is_refused_with_its_name_even_without_the_index() {
    let mut run = run_with_content();
    let newest = segments(&run.data()).pop().expect("a segment");
    let aside = run.data().join("aside");
    std::fs::rename(&newest, &aside).expect("it moves");
    std::fs::remove_dir_all(run.data().join("index")).expect("it is there");
    match try_open(&run.data()) {
        Err(EngineError::Corrupt { file: named, .. }) => assert_eq!(named, file(&newest)),
        other => panic!("seed {}: {other:?}", run.seed),
    }
    std::fs::rename(&aside, &newest).expect("it moves");
    demand_all(&mut run);
}

/// Fills a segment and more with the messages of one group; gives it, and another one.
fn two_groups(data: &Path) -> (GroupId, GroupId) {
    let engine = open(data);
    let alice = user("alice");
    let old = engine.acting(&alice).create("old", &[]).expect("it is made").group;
    for number in 2..=120_u8 {
        engine.acting(&alice).append(old, vec![number; 60_000]).expect("it is sent");
    }
    let new = engine.acting(&alice).create("new", &[]).expect("it is made").group;
    engine.acting(&alice).append(new, *b"fine").expect("it is sent");
    engine.close().expect("it closes");
    (old, new)
}

#[test]
fn damage_in_an_old_segment_is_named_to_who_reads_it_and_harms_nobody_else() {
    let home = tempfile::tempdir().expect("a directory");
    let (old, new) = two_groups(home.path());
    let first = segments(home.path()).remove(0);
    let mut bytes = std::fs::read(&first).expect("it reads");
    let place = bytes.windows(64).position(|window| window == [20; 64]).expect("the message of seq 20");
    bytes[place + 1_000] ^= 1;
    std::fs::write(&first, bytes).expect("it writes");

    let engine = open(home.path());
    let alice = user("alice");
    assert_eq!(engine.read(old, 20, 1), Err(EngineError::Damaged));
    let page = engine.read(old, 18, 10).expect("what is before it is good");
    assert!(page.entries.iter().all(|entry| entry.seq < 20) && !page.entries.is_empty());
    assert_eq!(engine.read(old, 120, 1).expect("what is behind it is good").entries.len(), 1);
    assert_eq!(log(&engine, new).len(), 2);
    assert_eq!(engine.acting(&alice).append(old, *b"on").expect("the group goes on").seq, 121);
    assert_eq!(engine.groups().count(), 2);
}
