//! What is on the disk, and what is only on its way: files and directories, each with what was synced of it, what it is
//! now, and the changes between the two.
//!
//! A sync of a file makes its content and size durable, a sync of a directory its names, and nothing else does. A power
//! cut keeps what was synced and, of all the other changes, any that it likes: each name and each 512 bytes of a write by
//! themselves, the later ones without the earlier ones too. This is more than real file systems do to a program.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::{OsStr, OsString};

use rand::Rng;
use rand::rngs::StdRng;

use super::content::Content;

/// What a disk writes wholly or not at all.
const SECTOR_BYTES: u64 = 512;
/// The inode of the root.
pub(crate) const ROOT: u64 = 1;

pub(crate) type Names = BTreeMap<OsString, u64>;

#[derive(Debug)]
enum Change {
    Write { offset: u64, bytes: Vec<u8> },
    Size { bytes: u64 },
    Zero { offset: u64, bytes: u64 },
}

impl Change {
    fn apply(&self, content: &mut Content) {
        match self {
            Self::Write { offset, bytes } => content.write(*offset, bytes),
            Self::Size { bytes } => content.set_size(*bytes),
            Self::Zero { offset, bytes } => content.zero(*offset, *bytes),
        }
    }
}

/// Names of one directory that change at once: a rename within it is two.
#[derive(Debug)]
struct NameChange(Vec<(OsString, Option<u64>)>);

impl NameChange {
    fn apply(&self, names: &mut Names) {
        for (name, inode) in &self.0 {
            match inode {
                Some(inode) => names.insert(name.clone(), *inode),
                None => names.remove(name),
            };
        }
    }
}

#[derive(Debug)]
enum Node {
    File { now: Content, durable: Content, pending: Vec<Change> },
    Directory { now: Names, durable: Names, pending: Vec<NameChange> },
}

/// All files and directories by their inode. `now` is always `durable` with all of `pending`, and with what a failed sync
/// has dropped.
#[derive(Debug)]
pub(crate) struct Image {
    nodes: BTreeMap<u64, Node>,
    last: u64,
}

impl Image {
    pub(crate) fn new() -> Self {
        let mut image = Self { nodes: BTreeMap::new(), last: 0 };
        image.add(Self::directory());
        image
    }

    fn directory() -> Node {
        Node::Directory { now: Names::new(), durable: Names::new(), pending: Vec::new() }
    }

    fn add(&mut self, node: Node) -> u64 {
        self.last += 1;
        self.nodes.insert(self.last, node);
        self.last
    }

    pub(crate) fn make_file(&mut self) -> u64 {
        self.add(Node::File { now: Content::default(), durable: Content::default(), pending: Vec::new() })
    }

    pub(crate) fn make_directory(&mut self) -> u64 {
        self.add(Self::directory())
    }

    /// The names in a directory; nothing where it is none.
    pub(crate) fn names(&self, inode: u64) -> Option<&Names> {
        match self.nodes.get(&inode)? {
            Node::Directory { now, .. } => Some(now),
            Node::File { .. } => None,
        }
    }

    pub(crate) fn find(&self, directory: u64, name: &OsStr) -> Option<u64> {
        self.names(directory)?.get(name).copied()
    }

    /// The content of a file; nothing where it is none.
    pub(crate) fn content(&self, inode: u64) -> Option<&Content> {
        match self.nodes.get(&inode)? {
            Node::File { now, .. } => Some(now),
            Node::Directory { .. } => None,
        }
    }

    pub(crate) fn write(&mut self, inode: u64, offset: u64, bytes: &[u8]) {
        self.change(inode, Change::Write { offset, bytes: bytes.to_vec() });
    }

    pub(crate) fn set_size(&mut self, inode: u64, bytes: u64) {
        self.change(inode, Change::Size { bytes });
    }

    pub(crate) fn zero(&mut self, inode: u64, offset: u64, bytes: u64) {
        self.change(inode, Change::Zero { offset, bytes });
    }

    fn change(&mut self, inode: u64, change: Change) {
        if let Some(Node::File { now, pending, .. }) = self.nodes.get_mut(&inode) {
            change.apply(now);
            pending.push(change);
        }
    }

    /// Changes names of one directory at once; `None` removes one.
    pub(crate) fn rename(&mut self, directory: u64, changes: Vec<(OsString, Option<u64>)>) {
        if let Some(Node::Directory { now, pending, .. }) = self.nodes.get_mut(&directory) {
            let change = NameChange(changes);
            change.apply(now);
            pending.push(change);
        }
    }

    /// `fsync`: of a file its content, of a directory its names.
    pub(crate) fn sync(&mut self, inode: u64) {
        match self.nodes.get_mut(&inode) {
            Some(Node::File { durable, pending, .. }) => {
                pending.drain(..).for_each(|change| change.apply(durable));
            }
            Some(Node::Directory { durable, pending, .. }) => {
                pending.drain(..).for_each(|change| change.apply(durable));
            }
            None => {}
        }
    }

    /// A sync that failed, as on Linux: what it covered of a file still reads as before, and no later sync writes it.
    /// Names stay on their way: they are written by blocks that other names dirty again, not each by itself.
    pub(crate) fn fail_sync(&mut self, inode: u64) {
        if let Some(Node::File { pending, .. }) = self.nodes.get_mut(&inode) {
            pending.clear();
        }
    }

    /// Cuts the power. Of the changes that were not synced each survives with a probability of `share`. Gives how many
    /// did, and how many did not.
    pub(crate) fn cut(&mut self, share: f64, random: &mut StdRng) -> (u64, u64) {
        let (mut kept, mut lost) = (0, 0);
        let mut survives = || {
            let survives = random.random_bool(share);
            *(if survives { &mut kept } else { &mut lost }) += 1;
            survives
        };
        for node in self.nodes.values_mut() {
            match node {
                Node::File { now, durable, pending } => {
                    for piece in pending.drain(..).flat_map(pieces) {
                        if survives() {
                            piece.apply(durable);
                        }
                    }
                    *now = durable.clone();
                }
                Node::Directory { now, durable, pending } => {
                    for change in pending.drain(..) {
                        if survives() {
                            change.apply(durable);
                        }
                    }
                    *now = durable.clone();
                }
            }
        }
        self.forget_what_has_no_name();
        (kept, lost)
    }

    fn forget_what_has_no_name(&mut self) {
        let mut named = BTreeSet::new();
        let mut next = vec![ROOT];
        while let Some(inode) = next.pop() {
            if named.insert(inode) {
                next.extend(self.names(inode).into_iter().flat_map(BTreeMap::values));
            }
        }
        self.nodes.retain(|inode, _| named.contains(inode));
    }
}

/// A change as a disk may tear it.
fn pieces(change: Change) -> Vec<Change> {
    let Change::Write { offset, bytes } = change else { return vec![change] };
    let mut pieces = Vec::new();
    let mut at = offset;
    let mut rest = &bytes[..];
    while !rest.is_empty() {
        let until = usize::try_from(SECTOR_BYTES - at % SECTOR_BYTES).expect("small");
        let (piece, later) = rest.split_at(until.min(rest.len()));
        pieces.push(Change::Write { offset: at, bytes: piece.to_vec() });
        at += piece.len() as u64;
        rest = later;
    }
    pieces
}
