//! A data directory that was cleaned several times: it is whole, its copies are, and what damage of it loses is listed.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use roundtable::engine::{Engine, EngineOptions, Snapshot};
use roundtable::group::Entry;
use roundtable::ids::GroupId;
use roundtable::limits::SEGMENT_BYTES_MIN;
use roundtable::store::Retention;

use crate::site::{Outcome, Server, copy_tree, finish, program, run, segments, tree, user};

/// Kinds of packets that cleaning writes: records, former memberships, operations, entries, floors.
const CARRIED: [u8; 5] = [0x10, 0x11, 0x12, 0x13, 0x14];
const RETENTION: Retention = Retention { entries_max: 200, bytes_max: u64::MAX, age_ms_max: u64::MAX };

/// What is asked of a group: its record, and its log from the floor on.
type Found = BTreeMap<GroupId, (Snapshot, Vec<Entry>)>;

struct Cleaned {
    _directory: tempfile::TempDir,
    data: PathBuf,
    found: Found,
}

fn open(data: &Path, retention: Retention) -> Engine {
    let options = EngineOptions { segment_bytes: SEGMENT_BYTES_MIN, retention, ..EngineOptions::new(data) };
    Engine::open_with(&options).unwrap_or_else(|error| panic!("{error}"))
}

fn stat(engine: &Engine, name: &str) -> u64 {
    let stats = engine.stats().expect("it lives");
    stats.into_iter().find(|(found, _)| found == name).unwrap_or_else(|| panic!("no {name}")).1
}

/// Writes until so many more segments were cleaned.
fn churn(engine: &Engine, group: GroupId, segments: u64) {
    let wanted = stat(engine, "journal_cleaned_segment_count") + segments;
    for number in 0_u32.. {
        engine.acting(&user("alice")).append(group, vec![7; 50_000]).expect("there is room");
        if stat(engine, "journal_cleaned_segment_count") >= wanted {
            return;
        }
        assert!(number < 5_000, "nothing is cleaned");
    }
}

/// Made once in a run.
fn site() -> &'static Cleaned {
    static SITE: OnceLock<Cleaned> = OnceLock::new();
    SITE.get_or_init(|| {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let data = directory.path().join("data");
        let engine = open(&data, RETENTION);
        let (alice, bob, carol) = (user("alice"), user("bob"), user("carol"));
        let all = [bob.clone(), carol.clone()];
        let create = |title: &str| engine.acting(&alice).create(title, &all).expect("created").group;
        let (busy, quiet, left, over) = (create("busy"), create("quiet"), create("left"), create("over"));
        for number in 0..250_u8 {
            engine.acting(&bob).append(quiet, vec![number; 30]).expect("sent");
        }
        engine.acting(&alice).rename(quiet, "quieter").expect("renamed");
        engine.acting(&alice).append(left, *b"hello").expect("sent");
        engine.acting(&carol).leave(left).expect("left");
        engine.acknowledge(&bob, left, 2, 1).expect("marked");
        engine.acting(&alice).dissolve(over).expect("dissolved");
        churn(&engine, busy, 3);
        engine.acting(&alice).append(quiet, *b"in the middle").expect("sent");
        churn(&engine, busy, 3);
        engine.close().expect("closed");
        let found = found(&data);
        assert!(!segments(&data).iter().any(|path| path.ends_with("00000001.seg")), "its beginning is cleaned");
        assert!(segments(&data).len() >= 4, "{} segments are left", segments(&data).len());
        assert!(found[&quiet].0.floor > 1 && found[&left].0.floor == 1 && found[&busy].0.floor > 100);
        Cleaned { _directory: directory, data, found }
    })
}

impl Cleaned {
    fn copy(&self) -> (tempfile::TempDir, PathBuf) {
        let copy = tempfile::tempdir().expect("a temporary directory");
        let data = copy.path().join("data");
        copy_tree(&self.data, &data);
        (copy, data)
    }
}

/// What an engine with nothing to clean finds on a copy.
fn found(data: &Path) -> Found {
    let copy = tempfile::tempdir().expect("a temporary directory");
    copy_tree(data, &copy.path().join("data"));
    let engine = open(&copy.path().join("data"), Retention::default());
    let states = engine.groups().map(|state| state.expect("it reads"));
    let states: Vec<_> = states.filter(|state| !state.record.dissolved).map(|state| state.record.group).collect();
    let log = |group: GroupId| {
        let snapshot = engine.group(group).expect("it is there");
        let mut entries = Vec::new();
        while snapshot.floor + (entries.len() as u64) <= snapshot.head {
            let page = engine.read(group, snapshot.floor + entries.len() as u64, 256).expect("no gap");
            entries.extend(page.entries);
        }
        (group, (snapshot, entries))
    };
    states.into_iter().map(log).collect()
}

/// The packets of a segment: kind, first byte, bytes.
fn packets(path: &Path) -> Vec<(u8, usize, usize)> {
    let bytes = fs::read(path).expect("it reads");
    let (mut packets, mut at) = (Vec::new(), 512);
    while at + 24 <= bytes.len() && bytes[at + 4] != 0 {
        let length = u32::from_be_bytes(*bytes[at..].first_chunk().expect("4 bytes"));
        let whole = (24 + length as usize).next_multiple_of(8);
        packets.push((bytes[at + 4], at, whole));
        at += whole;
    }
    packets
}

fn flip(path: &Path, at: usize) {
    let mut bytes = fs::read(path).expect("it reads");
    bytes[at] ^= 0x10;
    fs::write(path, bytes).expect("it writes");
}

/// Repairs, and holds what is there then against what was there and what was listed as lost.
fn check_repair(data: &Path, what: &str) -> Outcome {
    let repaired = run(data, &["repair", "--yes", "--json"]);
    assert_eq!(repaired.code, 0, "{what}: {repaired:?}");
    let verified = run(data, &["verify", "--json"]);
    assert_eq!(verified.code, 0, "{what}: {verified:?}");
    let listed = |kind: &str, field: &str| -> BTreeMap<GroupId, u64> {
        let objects = repaired.objects().into_iter().filter(|object| object["kind"] == kind);
        let group = |text: &str| text.parse().expect("an id");
        objects
            .map(|object| (group(object["group"].as_str().expect("an id")), object[field].as_u64().expect("a seq")))
            .collect()
    };
    let (fronts, ends) = (listed("lost_first_entries", "last"), listed("lost_entries", "first"));
    let now = found(data);
    for (group, (snapshot, entries)) in &site().found {
        let head = ends.get(group).map_or(snapshot.head, |first| first - 1);
        let floor = fronts.get(group).map_or(snapshot.floor, |last| last + 1);
        if head == 0 {
            assert!(!now.contains_key(group), "{what}: {group} is listed as lost");
            continue;
        }
        let Some((snapshot_now, entries_now)) = now.get(group) else { panic!("{what}: {group} is lost in silence") };
        assert_eq!(snapshot_now.head, head, "{what}: {group}");
        // What retention had let go of may be there again, what it had not is there or listed.
        let from_then: Vec<_> = entries_now.iter().filter(|entry| entry.seq >= floor).collect();
        let wanted: Vec<_> = entries.iter().filter(|entry| (floor..=head).contains(&entry.seq)).collect();
        assert_eq!(from_then, wanted, "{what}: {group}");
        assert!(snapshot_now.floor <= floor, "{what}: {group} begins at {}, not {floor}", snapshot_now.floor);
        if head == snapshot.head {
            assert_eq!(snapshot_now.record, snapshot.record, "{what}: {group}");
        }
    }
    assert!(now.keys().all(|group| site().found.contains_key(group)), "{what}: nothing comes back to life");
    repaired
}

/// It serves, is cleaned again, and is whole then.
fn check_that_it_goes_on(data: &Path, what: &str) {
    let before = found(data);
    let engine = open(data, RETENTION);
    let busy = engine.acting(&user("alice")).create("busy again", &[]).expect("created").group;
    for group in before.keys() {
        engine.acting(&user("alice")).append(*group, *b"and on").unwrap_or_else(|error| panic!("{what}: {error}"));
    }
    churn(&engine, busy, 4);
    engine.close().expect("closed");
    let now = found(data);
    for (group, (snapshot, _)) in &before {
        let (snapshot_now, _) = now.get(group).unwrap_or_else(|| panic!("{what}: {group} is gone after cleaning"));
        assert_eq!((snapshot_now.head, &snapshot_now.record), (snapshot.head + 1, &snapshot.record), "{what}: {group}");
    }
    fs::remove_dir_all(data.join("index")).expect("removed");
    assert!(found(data) == now, "{what}: an index made anew says the same");
    let verified = run(data, &["verify", "--json"]);
    assert_eq!(verified.code, 0, "{what}: {verified:?}");
}

#[test]
fn a_cleaned_directory_is_whole_and_so_are_its_copies_with_or_without_the_index() {
    let (directory, data) = site().copy();
    let before = tree(&data);
    let verified = run(&data, &["verify", "--json"]);
    assert_eq!(verified.code, 0, "{verified:?}");
    assert_eq!(verified.objects().pop().expect("a summary")["groups"], site().found.len() + 1, "and the dissolved one");
    let repair = run(&data, &["repair", "--json"]);
    assert_eq!((repair.code, &repair.objects()[0]["needed"]), (0, &false.into()), "{repair:?}");
    assert!(tree(&data) == before, "nothing is changed");
    let (backup, restored) = (directory.path().join("backup"), directory.path().join("restored"));
    let made = finish(program(&["backup", "--offline", "--data"]).arg(&data).arg(&backup));
    assert_eq!(made.code, 0, "{made:?}");
    let outcome = finish(program(&["restore"]).arg(&backup).arg("--data").arg(&restored));
    assert_eq!(outcome.code, 0, "{outcome:?}");
    assert_eq!(run(&restored, &["verify"]).code, 0);
    assert!(found(&restored) == site().found, "restored, with an index made anew");
    fs::remove_dir_all(data.join("index")).expect("removed");
    assert_eq!(run(&data, &["verify"]).code, 0);
    assert!(found(&data) == site().found, "made anew");
    check_that_it_goes_on(&restored, "restored");
}

#[test]
fn a_flipped_bit_in_each_kind_of_carried_packet_is_named_and_what_it_loses_is_listed() {
    for kind in CARRIED {
        let mut tried = 0;
        for number in 0..segments(&site().data).len() {
            let of_kind: Vec<_> = packets(&segments(&site().data)[number]);
            let of_kind: Vec<_> = of_kind.into_iter().filter(|(found, ..)| *found == kind).collect();
            let some = [of_kind.first(), of_kind.last()];
            for (has_index, (_, at, bytes)) in [true, false].into_iter().zip(some.into_iter().flatten()) {
                let (_directory, data) = site().copy();
                let path = segments(&data)[number].clone();
                flip(&path, at + bytes / 2);
                if !has_index {
                    fs::remove_dir_all(data.join("index")).expect("removed");
                }
                let what = format!("kind {kind:#x} at {at} of {}, index {has_index}", path.display());
                let verified = run(&data, &["verify", "--json"]);
                assert_eq!(verified.code, 4, "{what}: {verified:?}");
                let name = path.file_name().expect("a name").to_str().expect("text");
                assert!(verified.stdout.contains(name), "{what}: {verified:?}");
                check_repair(&data, &what);
                tried += 1;
            }
        }
        assert!(tried > 0, "there is no packet of kind {kind:#x}");
    }
}

#[test]
fn a_missing_first_segment_is_named_and_what_was_carried_out_of_it_is_not_lost() {
    for has_index in [true, false] {
        let (_directory, data) = site().copy();
        let first = segments(&data)[0].clone();
        fs::remove_file(&first).expect("removed");
        let name = first.file_name().expect("a name").to_str().expect("text");
        if !has_index {
            fs::remove_dir_all(data.join("index")).expect("removed");
        }
        let verified = run(&data, &["verify", "--json"]);
        assert!(verified.code == 4 && verified.stdout.contains(name), "{verified:?}");
        let refused = Server::try_start(&data).err().expect("it does not start");
        assert!(refused.code == 4 && refused.stderr.contains(name), "{refused:?}");
        fs::remove_dir_all(data.join("keys")).ok();
        check_repair(&data, &format!("the first segment is missing, index {has_index}"));
        check_that_it_goes_on(&data, "repaired");
    }
}

#[test]
fn every_segment_of_a_cleaned_directory_may_be_missing_and_what_it_loses_is_listed() {
    for number in 1..segments(&site().data).len() {
        let (_directory, data) = site().copy();
        fs::remove_file(&segments(&data)[number]).expect("removed");
        let what = format!("segment {number} from the first is missing");
        assert_eq!(run(&data, &["verify"]).code, 4, "{what}");
        check_repair(&data, &what);
        check_that_it_goes_on(&data, &what);
    }
}

#[test]
fn a_segment_that_is_older_than_the_head_says_is_a_note_and_goes_at_the_next_start() {
    let (_directory, data) = site().copy();
    let first = segments(&data)[0].clone();
    let number: u32 = first.file_stem().and_then(|stem| stem.to_str()).expect("text").parse().expect("a number");
    let older = first.with_file_name(format!("{:08}.seg", number - 1));
    fs::copy(&first, &older).expect("copied");
    let verified = run(&data, &["verify", "--json"]);
    assert_eq!(verified.code, 0, "{verified:?}");
    let name = older.file_name().expect("a name").to_str().expect("text");
    let noted = verified
        .objects()
        .into_iter()
        .any(|object| object["severity"] == "note" && object["file"].as_str().is_some_and(|file| file.ends_with(name)));
    assert!(noted, "{verified:?}");
    let server = Server::start(&data);
    assert!(!older.exists(), "it is removed");
    server.stop();
    assert!(found(&data) == site().found);
}
