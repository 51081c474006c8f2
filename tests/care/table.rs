//! The kinds of damage.

use std::fs;
use std::path::{Path, PathBuf};

use crate::site::{segments, site};

/// What one kind of damage is, and who has to say what about it.
pub(crate) struct Kind {
    pub(crate) name: &'static str,
    pub(crate) damage: fn(&Path),
    /// What `verify` and `serve` name.
    pub(crate) named: &'static str,
    pub(crate) serve: Serve,
    /// Whether entries are lost for certain, whatever is repaired.
    pub(crate) loses: bool,
}

/// What a server does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Serve {
    /// It refuses with exit code 4 and the name of the file.
    Refuses,
    /// It refuses as soon as somebody needs the place, or when it starts without an index: old segments are not read
    /// at each start.
    RefusesWithoutIndex,
    /// It starts: only the index is broken, and made anew.
    Starts,
}

use Serve::{Refuses, RefusesWithoutIndex, Starts};

pub(crate) const KINDS: &[Kind] = &[
    Kind {
        name: "a flipped bit in an old segment",
        damage: |data| flip(data, 1, 1_000_000),
        named: "journal/00000002.seg",
        serve: RefusesWithoutIndex,
        loses: true,
    },
    Kind {
        name: "a flipped bit in the newest segment",
        damage: flip_newest,
        named: "journal/0000000",
        serve: RefusesWithoutIndex,
        loses: true,
    },
    Kind {
        name: "a page of garbage",
        damage: |data| overwrite(data, 1, 500_000, &[0xa5; 8192]),
        named: "journal/00000002.seg",
        serve: RefusesWithoutIndex,
        loses: true,
    },
    Kind {
        name: "a page of zeros",
        damage: |data| overwrite(data, 0, 300_000, &[0; 4096]),
        named: "journal/00000001.seg",
        serve: RefusesWithoutIndex,
        loses: true,
    },
    Kind {
        name: "a flipped bit in a header",
        damage: |data| flip(data, 1, 300),
        named: "journal/00000002.seg",
        serve: Refuses,
        loses: false,
    },
    Kind {
        name: "another salt in a header",
        damage: |data| overwrite(data, 1, 40, &[1, 2, 3, 4]),
        named: "journal/00000002.seg",
        serve: Refuses,
        loses: false,
    },
    Kind {
        name: "a header of zeros",
        damage: |data| overwrite(data, 2, 0, &[0; 512]),
        named: "journal/00000003.seg",
        serve: Refuses,
        loses: false,
    },
    Kind {
        name: "a header of zeros at the beginning",
        damage: |data| overwrite(data, 0, 0, &[0; 512]),
        named: "journal/00000001.seg",
        serve: Refuses,
        loses: false,
    },
    Kind {
        name: "a truncated old segment",
        damage: |data| truncate(data, 1, 2_000_000),
        named: "journal/00000002.seg",
        serve: Refuses,
        loses: true,
    },
    Kind {
        name: "a truncated newest segment",
        damage: |data| truncate(data, usize::MAX, 100_000),
        named: "journal/0000000",
        serve: Refuses,
        loses: true,
    },
    Kind {
        name: "an empty segment",
        damage: |data| truncate(data, 1, 0),
        named: "journal/00000002.seg",
        serve: Refuses,
        loses: true,
    },
    Kind {
        name: "the first segment missing",
        damage: |data| remove(data, 0),
        named: "journal/00000001.seg",
        serve: Refuses,
        loses: true,
    },
    Kind {
        name: "a segment missing",
        damage: |data| remove(data, 1),
        named: "journal/00000002.seg",
        serve: Refuses,
        loses: true,
    },
    Kind {
        name: "two segments missing",
        damage: |data| {
            remove(data, 2);
            remove(data, 1);
        },
        named: "journal/00000002.seg",
        serve: Refuses,
        loses: true,
    },
    Kind {
        name: "the newest segment missing",
        damage: |data| remove(data, usize::MAX),
        named: "journal/0000000",
        serve: Refuses,
        loses: true,
    },
    Kind {
        name: "swapped segments",
        damage: |data| swap(data, 1, 2),
        named: "journal/00000002.seg",
        serve: Refuses,
        loses: false,
    },
    Kind {
        name: "a duplicated segment",
        damage: |data| duplicate(data, 1, 2),
        named: "journal/00000003.seg",
        serve: Refuses,
        loses: true,
    },
    Kind {
        name: "a segment of another directory",
        damage: foreign_segment,
        named: "journal/00000002.seg",
        serve: Refuses,
        loses: true,
    },
    Kind {
        name: "a damaged FORMAT",
        damage: |data| flip_file(&data.join("FORMAT"), 20),
        named: "FORMAT",
        serve: Refuses,
        loses: false,
    },
    Kind {
        name: "a missing FORMAT",
        damage: |data| fs::remove_file(data.join("FORMAT")).expect("removed"),
        named: "FORMAT",
        serve: Refuses,
        loses: false,
    },
    Kind {
        name: "a missing HEAD",
        damage: |data| fs::remove_file(data.join("journal/HEAD")).expect("removed"),
        named: "journal/HEAD",
        serve: Refuses,
        loses: false,
    },
    Kind {
        name: "a HEAD of zeros",
        damage: |data| fs::write(data.join("journal/HEAD"), [0; 8192]).expect("written"),
        named: "journal/HEAD",
        serve: Refuses,
        loses: false,
    },
    Kind {
        name: "a truncated HEAD",
        damage: |data| fs::write(data.join("journal/HEAD"), [0; 100]).expect("written"),
        named: "journal/HEAD",
        serve: Refuses,
        loses: false,
    },
    Kind {
        name: "no journal at all",
        damage: |data| fs::remove_dir_all(data.join("journal")).expect("removed"),
        named: "journal/",
        serve: Serve::Refuses,
        loses: true,
    },
    Kind { name: "an index of garbage", damage: garbage_index, named: "index", serve: Starts, loses: false },
    Kind { name: "the index of another directory", damage: foreign_index, named: "index", serve: Starts, loses: false },
];

fn path(data: &Path, at: usize) -> PathBuf {
    let all = segments(data);
    all[at.min(all.len() - 1)].clone()
}

fn flip_file(path: &Path, offset: usize) {
    let mut bytes = fs::read(path).expect("it reads");
    bytes[offset] ^= 0x10;
    fs::write(path, bytes).expect("it writes");
}

fn flip(data: &Path, at: usize, offset: usize) {
    flip_file(&path(data, at), offset);
}

/// In the middle of what is written.
fn flip_newest(data: &Path) {
    let newest = path(data, usize::MAX);
    let bytes = fs::read(&newest).expect("it reads");
    let used = bytes.iter().rposition(|byte| *byte != 0).expect("it has packets");
    flip_file(&newest, 512 + (used - 512) / 2);
}

fn overwrite(data: &Path, at: usize, offset: usize, with: &[u8]) {
    let path = path(data, at);
    let mut bytes = fs::read(&path).expect("it reads");
    bytes[offset..offset + with.len()].copy_from_slice(with);
    fs::write(path, bytes).expect("it writes");
}

fn truncate(data: &Path, at: usize, length: u64) {
    let file = fs::OpenOptions::new().write(true).open(path(data, at)).expect("it opens");
    file.set_len(length).expect("it cuts");
}

fn remove(data: &Path, at: usize) {
    fs::remove_file(path(data, at)).expect("it is removed");
}

fn swap(data: &Path, one: usize, other: usize) {
    let (one, other, aside) = (path(data, one), path(data, other), data.join("aside"));
    fs::rename(&one, &aside).expect("it moves");
    fs::rename(&other, &one).expect("it moves");
    fs::rename(&aside, &other).expect("it moves");
}

fn duplicate(data: &Path, from: usize, to: usize) {
    let to = path(data, to);
    fs::remove_file(&to).expect("it is removed");
    fs::copy(data.join(path(data, from)), to).expect("it copies");
}

/// A data directory of its own, for what does not belong here.
fn another() -> (tempfile::TempDir, PathBuf) {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let data = directory.path().join("data");
    let server = crate::site::Server::start(&data);
    server.connect("alice", roundtable::ids::Role::User).create("elsewhere", &[]).expect("created");
    server.stop();
    (directory, data)
}

fn foreign_segment(data: &Path) {
    let (_directory, other) = another();
    fs::copy(path(&other, 0), path(data, 1)).expect("it copies");
}

fn foreign_index(data: &Path) {
    let (_directory, other) = another();
    fs::remove_dir_all(data.join("index")).expect("removed");
    crate::site::copy_tree(&other.join("index"), &data.join("index"));
}

fn garbage_index(data: &Path) {
    for item in fs::read_dir(data.join("index")).expect("it is there") {
        let path = item.expect("an item").path();
        if path.is_file() {
            fs::write(path, vec![0xa5; 70_000]).expect("it writes");
        }
    }
}

/// A copy of the site with this damage.
pub(crate) fn damaged(kind: &Kind) -> (tempfile::TempDir, PathBuf) {
    let (directory, data) = site().copy();
    (kind.damage)(&data);
    (directory, data)
}
