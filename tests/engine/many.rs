//! Very many groups: made from several threads, given back one by one, in bounded memory.
//!
//! `ROUNDTABLE_GROUPS=1000000 cargo test --release --test engine very_many -- --nocapture`.

use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use roundtable::ids::UserId;
use roundtable::{Engine, limits};

use super::child::{Process, say};
use super::{number_from, user};

const GROUPS_DEFAULT: u64 = 20_000;
const THREADS: u64 = 8;
const MEMBERS: u64 = 8;
/// Memory that the process may grow by while it iterates: the pages of the index that it reads, which sled keeps up to
/// a bound, and one page of groups.
const GROWTH_KIB_MAX: u64 = 256 * 1024;

fn member(number: u64) -> UserId {
    user(&format!("user-{number:07}"))
}

/// Makes so many groups; each user is in eight of them.
pub(crate) fn make(directory: &Path, groups: u64) {
    let engine = Engine::open(directory).expect("it opens");
    let next = AtomicU64::new(0);
    let from = Instant::now();
    std::thread::scope(|scope| {
        for _ in 0..THREADS {
            scope.spawn(|| {
                loop {
                    let number = next.fetch_add(1, Ordering::Relaxed);
                    if number >= groups {
                        return;
                    }
                    let members: Vec<_> = (1..MEMBERS).map(|other| member((number + other * 7_919) % groups)).collect();
                    let made = engine.acting(&member(number)).create(&number.to_string(), &members);
                    assert_eq!(u64::from(made.expect("it is made").members), MEMBERS);
                }
            });
        }
    });
    let took = from.elapsed();
    let peak_kib = status_kib("VmHWM");
    let from = Instant::now();
    engine.close().expect("it closes");
    let journal = bytes_below(&directory.join("journal"));
    let index = bytes_below(&directory.join("index"));
    say(&format!(
        "{groups} groups of {MEMBERS} made by {THREADS} threads in {} ms, closed in {} ms; a group: journal {} B, index \
         {} B; peak memory {} MiB",
        took.as_millis(),
        from.elapsed().as_millis(),
        journal.saturating_sub(2 * limits::SEGMENT_BYTES_DEFAULT) / groups,
        index / groups,
        peak_kib / 1024,
    ));
}

/// Opens, and looks at each group once.
pub(crate) fn iterate(directory: &Path, groups: u64) {
    let from = Instant::now();
    let engine = Engine::open(directory).expect("it opens");
    let opened = from.elapsed();
    let before_kib = status_kib("VmRSS");
    let (mut count, mut growth_kib) = (0, 0);
    let from = Instant::now();
    let mut last = None;
    for group in engine.groups() {
        let group = group.expect("a group");
        assert_eq!(group.record.members.len() as u64, MEMBERS);
        assert!(last < Some(group.record.group), "in the order of ids");
        last = Some(group.record.group);
        count += 1;
        if count % 1_000 == 0 {
            growth_kib = growth_kib.max(status_kib("VmRSS").saturating_sub(before_kib));
        }
    }
    assert_eq!(count, groups, "each once");
    say(&format!(
        "opened in {} ms with {} MiB; iterated in {} ms with {} MiB more",
        opened.as_millis(),
        before_kib / 1024,
        from.elapsed().as_millis(),
        growth_kib / 1024,
    ));
    assert!(growth_kib <= GROWTH_KIB_MAX, "{growth_kib} KiB");
}

#[test]
fn very_many_groups_are_iterated_in_bounded_memory() {
    let groups = number_from("ROUNDTABLE_GROUPS").unwrap_or(GROUPS_DEFAULT);
    let home = tempfile::tempdir().expect("a directory");
    // Each in a process of its own: memory is the whole process's.
    for role in ["make", "iterate"] {
        let mut process = Process::start(role, home.path(), groups);
        println!("{}", process.line().unwrap_or_else(|| panic!("{role} failed")));
        assert!(process.finish(), "{role} failed");
    }
}

/// A line of what Linux says of this process.
fn status_kib(name: &str) -> u64 {
    let text = std::fs::read_to_string("/proc/self/status").expect("Linux");
    let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':')).expect("a known line");
    line.trim().trim_end_matches(" kB").parse().expect("a number")
}

fn bytes_below(path: &Path) -> u64 {
    let inside = std::fs::read_dir(path).expect("a directory").map(|item| item.expect("an item"));
    let bytes = |item: std::fs::DirEntry| {
        if item.path().is_dir() { bytes_below(&item.path()) } else { item.metadata().expect("it is there").len() }
    };
    inside.map(bytes).sum()
}
