//! The journal alone and the index alone, on the real disk: what storage is made of, without its threads, for
//! `benches/`. Not in a normal build.

use std::path::Path;

use super::disk::real::RealDisk;
use super::index::IndexHome as _;
use super::index::sled::SledHome;
use super::indexer::{self, Indexer};
use super::journal::spare::make_now;
use super::journal::writer::Journal;
use super::journal::{DirectoryId, JournalReader, Now, Placed, Position, Writer, recovery, segment};
use super::{Change, GroupState, change_bytes};
use crate::ids::GroupId;
use crate::limits::SEGMENT_BYTES_DEFAULT;

const DIRECTORY: DirectoryId = [9; 16];

fn segment_bytes() -> u32 {
    u32::try_from(SEGMENT_BYTES_DEFAULT).expect("a segment has an offset of 32 bits")
}

/// A new journal with segments of the default size.
pub struct JournalAlone {
    disk: RealDisk,
    writer: Writer<RealDisk>,
    appended: u64,
}

impl JournalAlone {
    /// Below a directory that exists and is empty.
    pub fn create(directory: &Path) -> Self {
        let disk = RealDisk::new(directory.to_owned());
        let mut salt = 0;
        let salts = Box::new(move || {
            salt += 1;
            salt
        });
        let mut journal = Journal { disk: disk.clone(), directory: DIRECTORY, segment_bytes: segment_bytes(), salts };
        recovery::create(&mut journal).expect("the directory takes a journal");
        let writer = recovery::open(journal, None).expect("it was just made").writer;
        Self { disk, writer, appended: 0 }
    }

    /// Makes the next segment ready, unless it is: what the spare thread does behind.
    pub fn make_spare(&mut self) {
        if self.writer.spare_count() == 0 {
            let spare = make_now(&self.disk, "bench", u64::from(segment_bytes())).expect("room for a segment");
            self.writer.put_spare(spare);
        }
    }

    /// Appends all changes and syncs once: a group commit.
    pub fn append(&mut self, changes: &[Change]) {
        self.appended += 1;
        let now = Now { running_ms: self.appended, wall_ms: self.appended };
        let placed = self.writer.append(changes, &[], now).expect("the disk takes it");
        assert_eq!(placed.len(), changes.len());
    }
}

/// Changes with the places that they have in a journal.
pub struct Packets(indexer::Packets);

/// An index in sled, over a journal that nothing is read of: creates and look-ups of small groups do not.
pub struct IndexAlone {
    indexer: Indexer<RealDisk>,
    lsn: u64,
    end: Position,
}

impl IndexAlone {
    /// A new one below a directory.
    pub fn create(directory: &Path) -> Self {
        let home = SledHome::new(directory.join("index"));
        let reader = JournalReader::new(RealDisk::new(directory.to_owned()), segment_bytes());
        let indexer = Indexer::new(home.open().expect("a new index"), reader, DIRECTORY).expect("it is empty");
        Self { indexer, lsn: 0, end: Position { segment: 1, offset: segment::SEGMENT_HEADER_BYTES } }
    }

    /// Gives changes the places behind all those before.
    pub fn place(&mut self, changes: Vec<Change>) -> Packets {
        let place = |change: Change| {
            let bytes = u32::try_from(change_bytes(&change)).expect("a change is bounded");
            if self.end.offset + bytes > segment_bytes() {
                self.end = Position { segment: self.end.segment + 1, offset: segment::SEGMENT_HEADER_BYTES };
            }
            self.lsn += 1;
            let placed = Placed { lsn: self.lsn, position: self.end, bytes };
            self.end = placed.end();
            (placed, change.into())
        };
        Packets(changes.into_iter().map(place).collect())
    }

    /// Folds them into memory, from where look-ups see them.
    pub fn fold(&mut self, packets: &Packets) {
        for (placed, content) in &packets.0 {
            self.indexer.fold(*placed, content, placed.lsn).expect("the index works");
        }
    }

    /// Writes everything that is folded into sled, and syncs it.
    pub fn flush(&mut self) {
        self.indexer.flush().expect("the index works");
    }

    /// A group with its members.
    pub fn group(&mut self, id: GroupId) -> Option<GroupState> {
        self.indexer.load_group(id).expect("the index works").expect("it is not damaged")
    }
}
