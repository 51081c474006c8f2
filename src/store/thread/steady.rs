//! Steady load with retention, on a real disk: what storage takes levels off, and what is to be kept is there.
//!
//! `ROUNDTABLE_ENTRIES=10000000 cargo test --release --lib steady_load -- --nocapture` is the long run: segments of
//! 64 MiB, 100 groups, 10,000 entries a group; once with all groups written alike, where the oldest segment is dead before
//! it is cleaned, and once by Zipf's law, where the quiet ones have entries in it that have to be carried. Its figures
//! stand in `docs/operations.md`.

use std::os::unix::fs::MetadataExt as _;
use std::path::Path;

use super::tests::{Waiting, stat};
use super::*;
use crate::group::Event as GroupEvent;
use crate::ids::GroupId;
use crate::store::journal::tests::{effect, user};
use crate::store::{Change, ReadId, change_bytes, verify};

const BODY_BYTES: usize = 100;
const MEMBERS: u64 = 8;
/// Changes under way at once.
const UNDER_WAY_MAX: u64 = 4_096;
const SAMPLES: u64 = 60;
const LINES: u64 = 20;

#[derive(Clone, Copy)]
struct Load {
    entries: u64,
    groups: u64,
    segment_bytes: u64,
    kept: u64,
    skewed: bool,
}

/// What has been sent: the head of each group.
struct Sent {
    load: Load,
    /// Up to which share of all changes each group is the one that is written, of 2³².
    shares: Vec<u64>,
    heads: Vec<u64>,
    number: u64,
}

/// What storage took after so many entries.
#[derive(Clone, Copy, Debug)]
struct Sample {
    entries: u64,
    journal_bytes: u64,
    index_bytes: u64,
}

impl Load {
    fn short() -> Self {
        Self { entries: 300_000, groups: 20, segment_bytes: SEGMENT_BYTES_MIN, kept: 500, skewed: false }
    }

    fn long(entries: u64) -> Self {
        let segment_bytes = crate::limits::SEGMENT_BYTES_DEFAULT;
        Self { entries, groups: 100, segment_bytes, kept: 10_000, skewed: false }
    }

    fn group(number: u64) -> GroupId {
        let mut id = [7; 16];
        id[..8].copy_from_slice(&number.to_be_bytes());
        GroupId::from_bytes(id).unwrap()
    }

    /// The bound that `docs/operations.md` gives for `journal/`.
    fn journal_bytes_max(&self) -> u64 {
        let operations = self.groups * crate::limits::OPERATIONS_REMEMBERED as u64;
        let entries = self.groups * self.kept * (BODY_BYTES as u64 + 72);
        let live = entries + self.groups * (150 + 64 * MEMBERS) + operations * 88;
        2 * live + 8 * self.segment_bytes
    }

    /// Whether what was taken levels off, and stays under the bound.
    fn check(&self, samples: &[Sample]) -> Result<(), String> {
        let third = samples.len() / 3;
        let most = |part: &[Sample], bytes: fn(&Sample) -> u64| part.iter().map(bytes).max().unwrap();
        for (name, bytes) in
            [("journal", (|sample| sample.journal_bytes) as fn(&Sample) -> u64), ("index", |sample| sample.index_bytes)]
        {
            let (second, last) = (most(&samples[third..2 * third], bytes), most(&samples[2 * third..], bytes));
            if last * 4 > second * 5 {
                return Err(format!("{name}: {last} bytes at last, {second} before: it grows"));
            }
        }
        let (all, bound) = (most(samples, |sample| sample.journal_bytes), self.journal_bytes_max());
        if all > bound { Err(format!("{all} bytes of journal, {bound} by the formula")) } else { Ok(()) }
    }
}

impl Sent {
    fn nothing(load: Load) -> Self {
        let weight = |group: u64| (1 << 24) / if load.skewed { group + 1 } else { 1 };
        let all: u64 = (0..load.groups).map(weight).sum();
        let shares = (0..load.groups).scan(0, |sum, group| {
            *sum += weight(group);
            Some((*sum << 32).div_ceil(all))
        });
        Self { load, shares: shares.collect(), heads: vec![0; usize::try_from(load.groups).unwrap()], number: 0 }
    }

    /// The next change. A group begins with its creation; numbers times the golden ratio fall evenly on the shares.
    fn next(&mut self, body: &Arc<[u8]>) -> Change {
        let place = self.number.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 32;
        self.number += 1;
        let index = self.shares.partition_point(|share| *share <= place);
        self.heads[index] += 1;
        let (group, seq) = (index as u64, self.heads[index]);
        let sender = format!("user-{group:05}");
        let event = if seq == 1 {
            let members = (0..MEMBERS).map(|member| user(&format!("user-{:05}", (group + member) % self.load.groups)));
            GroupEvent::Created { title: "".into(), members: members.collect() }
        } else {
            GroupEvent::Message { body: body.clone() }
        };
        effect(Load::group(group), seq, 1, &sender, event)
    }
}

/// Bytes that the files of a directory take on the disk. One that is renamed or removed meanwhile is looked for again.
fn taken_bytes(directory: &Path) -> u64 {
    let blocks = |file: std::io::Result<std::fs::DirEntry>| Ok(file?.metadata()?.blocks());
    loop {
        let sum: std::io::Result<u64> = std::fs::read_dir(directory).unwrap().map(blocks).sum();
        if let Ok(blocks) = sum {
            return blocks * 512;
        }
    }
}

fn sample(directory: &Path, entries: u64) -> Sample {
    let [journal_bytes, index_bytes] = ["journal", "index"].map(|name| taken_bytes(&directory.join(name)));
    Sample { entries, journal_bytes, index_bytes }
}

/// Sends everything, as fast as credit and the bound on what is under way allow.
fn run(load: Load, directory: &Path, storage: &mut Waiting) -> (Vec<Sample>, Vec<u64>) {
    let body: Arc<[u8]> = vec![b'x'; BODY_BYTES].into();
    let mut changes = Sent::nothing(load);
    let (mut samples, mut used_bytes, mut durable) = (Vec::new(), 0, 0);
    let (from, mut lap) = (Instant::now(), Instant::now());
    let mut next = changes.next(&body);
    while durable < load.entries {
        let bytes = change_bytes(&next) as u64;
        let sent = storage.ticket;
        if sent < load.entries && sent - durable < UNDER_WAY_MAX && used_bytes + bytes <= storage.credit {
            used_bytes += bytes;
            // The one behind the last is never sent.
            let change =
                if sent + 1 < load.entries { std::mem::replace(&mut next, changes.next(&body)) } else { next.clone() };
            storage.commit(change);
            continue;
        }
        storage.wait(|event| match event {
            Event::Durable { ticket, .. } => {
                durable = ticket.0;
                Some(())
            }
            Event::Credit { .. } => Some(()),
            Event::Failed { message } => panic!("{message}"),
            _ => None,
        });
        if durable * SAMPLES / load.entries > samples.len() as u64 {
            samples.push(sample(directory, durable));
            if (samples.len() as u64).is_multiple_of(SAMPLES / LINES) {
                line(load, storage, samples.last().unwrap(), lap.elapsed());
                lap = Instant::now();
            }
        }
    }
    println!("{} entries durable after {} ms", load.entries, from.elapsed().as_millis());
    (samples, changes.heads)
}

fn line(load: Load, storage: &mut Waiting, sample: &Sample, lap: Duration) {
    let rate = u128::from(load.entries / LINES) * 1_000 / lap.as_millis().max(1);
    let mib = |bytes: u64| bytes >> 20;
    println!(
        "| {} | {} | {} | {} | {} | {rate} |",
        sample.entries,
        mib(sample.journal_bytes),
        mib(sample.index_bytes),
        mib(stat(storage, "journal_live_bytes")),
        mib(stat(storage, "journal_carried_bytes")),
    );
}

/// Each log is whole from its floor to its head, and as long as it has to be. Cleaning goes on meanwhile: where a page
/// begins later than was asked, the floor must have moved there.
fn check_logs(load: Load, heads: &[u64], storage: &mut Waiting) {
    assert_eq!(heads.iter().sum::<u64>(), load.entries);
    for (number, head) in (0..).zip(heads.iter().copied()) {
        let group = Load::group(number);
        let mut from = floor(load, storage, group, head);
        while from <= head {
            let (read, entries_max, bytes_max) = (ReadId(1), 4_096, 1 << 20);
            storage.storage.submit(Request::ReadEntries { read, group, from, through: head, entries_max, bytes_max });
            let entries = storage.wait(|event| match event {
                Event::EntriesRead { entries, .. } => Some(entries.unwrap()),
                _ => None,
            });
            assert!(!entries.is_empty(), "{from} of {head} is missing");
            if entries[0].seq > from {
                from = floor(load, storage, group, head);
                assert!(entries[0].seq <= from, "{} follows the floor {from}", entries[0].seq);
                continue;
            }
            for entry in entries {
                assert_eq!((entry.seq, entry.sender.as_str()), (from, &*format!("user-{number:05}")));
                from += 1;
            }
        }
    }
}

/// Where a log begins now.
fn floor(load: Load, storage: &mut Waiting, group: GroupId, head: u64) -> u64 {
    storage.storage.submit(Request::LoadGroup { group });
    let state = storage.wait(|event| match event {
        Event::GroupLoaded { state, .. } => Some(state.unwrap().unwrap()),
        _ => None,
    });
    assert_eq!((state.head, state.record.members.len() as u64), (head, MEMBERS));
    assert!(state.floor + load.kept <= head + 1 || state.floor == 1, "{} of {head}", state.floor);
    state.floor
}

fn start(load: Load, directory: &Path) -> Waiting {
    let retention = Retention { entries_max: load.kept, ..Retention::default() };
    let options = StorageOptions { segment_bytes: load.segment_bytes, retention, ..StorageOptions::new(directory) };
    Waiting::start(|wake| Storage::start(&options, wake))
}

#[test]
fn under_a_steady_load_with_retention_disk_use_levels_off_and_what_is_kept_is_whole() {
    let carried_bytes = levels_off(false);
    println!("{carried_bytes} bytes carried");
}

#[test]
fn under_a_steady_load_of_busy_and_quiet_groups_disk_use_levels_off_and_what_is_carried_is_whole() {
    let carried_bytes = levels_off(true);
    assert!(carried_bytes > 0, "nothing was carried");
}

/// Gives the bytes that cleaning has carried.
fn levels_off(skewed: bool) -> u64 {
    let entries = std::env::var("ROUNDTABLE_ENTRIES").ok().map(|text| text.parse().expect("a number"));
    let load = Load { skewed, ..entries.map_or_else(Load::short, Load::long) };
    let home = tempfile::tempdir().unwrap();
    println!("| entries | journal MiB | index MiB | live MiB | carried MiB | entries/s |");
    let mut storage = start(load, home.path());
    let (samples, heads) = run(load, home.path(), &mut storage);
    let [cleaned, carried_bytes] =
        ["journal_cleaned_segment_count", "journal_carried_bytes"].map(|name| stat(&mut storage, name));
    println!("{cleaned} segments cleaned; by the formula {} MiB", load.journal_bytes_max() >> 20);
    load.check(&samples).unwrap();
    assert!(cleaned > 3, "{cleaned}");
    check_logs(load, &heads, &mut storage);
    storage.storage.stop().unwrap();
    let scratch = tempfile::tempdir().unwrap();
    let verified = verify(home.path(), scratch.path(), &mut |_| {}).unwrap();
    assert!(verified.findings.is_empty(), "{:?}", verified.findings);
    assert_eq!(verified.groups, load.groups);
    carried_bytes
}

#[test]
fn control_without_cleaning_disk_use_is_seen_to_grow() {
    let load = Load::short();
    let home = tempfile::tempdir().unwrap();
    let mut storage = start(load, home.path());
    let hold = storage.storage.hold_cleaning();
    let (samples, _) = run(load, home.path(), &mut storage);
    load.check(&samples).unwrap_err();
    drop(hold);
}
