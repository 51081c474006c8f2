//! A data directory opened without a server, to be read as a whole, and to be added to.
//!
//! It is opened as a server opens it: the journal is recovered, the index is brought up to date or made anew.

use std::path::Path;

use super::{Progress, offline, place};
use crate::group::Entry;
use crate::ids::{GroupId, UserId};
use crate::limits::SEGMENT_BYTES_DEFAULT;
use crate::store::directory::{Format, Lock, lock, read_format, write_format};
use crate::store::disk::real::RealDisk;
use crate::store::index::sled::SledHome;
use crate::store::index::{IndexError, IndexHome};
use crate::store::indexer::Indexer;
use crate::store::journal::{Content, JOURNAL_DIRECTORY, Now, Writer, recovery};
use crate::store::{Change, Damaged, GroupState, Membership, OpenError};

/// Entries read in one step.
const ENTRIES_PAGE: usize = 256;
const BYTES_PAGE: usize = 1024 * 1024;

/// An open data directory.
pub struct Archive {
    indexer: Indexer<RealDisk>,
    writer: Writer<RealDisk>,
    now: Now,
    _lock: Lock,
}

impl std::fmt::Debug for Archive {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Archive").finish_non_exhaustive()
    }
}

impl Archive {
    /// Opens a directory that is there.
    pub fn open(data: &Path, progress: &mut dyn FnMut(Progress)) -> Result<Self, OpenError> {
        let lock = place::lock(data)?;
        Self::opened(data, lock, progress)
    }

    /// Opens a directory, or makes it if it is empty or absent.
    pub fn open_or_make(data: &Path, progress: &mut dyn FnMut(Progress)) -> Result<Self, OpenError> {
        let lock = lock(data)?;
        let disk = RealDisk::new(data.to_owned());
        if read_format(&disk)?.is_none() && recovery::is_unused(&disk)? {
            make(&disk)?;
        }
        Self::opened(data, lock, progress)
    }

    fn opened(data: &Path, lock: Lock, progress: &mut dyn FnMut(Progress)) -> Result<Self, OpenError> {
        let disk = RealDisk::new(data.to_owned());
        let missing =
            || OpenError::Corrupt { file: "FORMAT".to_owned(), offset: 0, reason: "it is missing".to_owned() };
        let format = read_format(&disk)?.ok_or_else(missing)?;
        let home = SledHome::new(data.join(place::INDEX));
        let mut indexer = match offline::indexer(&disk, format, &home) {
            Ok(indexer) => indexer,
            Err(_) => renewed(&disk, format, &home)?,
        };
        let opened = offline::open(disk.clone(), format, offline::applied(&indexer))?;
        if !opened.index_agrees {
            drop(indexer);
            indexer = renewed(&disk, format, &home)?;
        }
        let all = u64::from(opened.end.segment);
        offline::catch_up(&mut indexer, &opened, |at| {
            progress(Progress { stage: "reading the journal", done: u64::from(at.segment), all });
        })?;
        Ok(Self { indexer, writer: opened.writer, now: opened.last, _lock: lock })
    }

    /// A page of all groups, in the order of their ids, and whether there are more.
    pub fn groups(&mut self, after: Option<GroupId>, count_max: usize) -> Result<(Vec<GroupState>, bool), OpenError> {
        let (groups, more) = self.indexer.scan_groups(after, count_max).map_err(broken)?;
        Ok((groups.map_err(damaged)?, more))
    }

    /// One group.
    pub fn group(&mut self, group: GroupId) -> Result<Option<GroupState>, OpenError> {
        self.indexer.load_group(group).map_err(broken)?.map_err(damaged)
    }

    /// Entries of a group from a seq on: a page, empty only behind the head.
    pub fn entries(&mut self, group: GroupId, from: u64) -> Result<Vec<Entry>, OpenError> {
        let read = self.indexer.read_entries(group, from, u64::MAX, ENTRIES_PAGE, BYTES_PAGE);
        read.map_err(broken)?.map_err(damaged)
    }

    /// The next user with memberships, in some fixed order.
    pub fn next_user(&self, after: Option<&UserId>) -> Result<Option<UserId>, OpenError> {
        self.indexer.next_user(after).map_err(broken)
    }

    /// The memberships of a user, former ones included.
    pub fn memberships(&mut self, user: &UserId) -> Result<Vec<Membership>, OpenError> {
        self.indexer.load_user(user).map_err(broken)
    }

    /// Adds changes, durably when it returns.
    pub(super) fn append(&mut self, changes: &[Change]) -> Result<(), OpenError> {
        let placed = self.writer.append(changes, &[], self.now)?;
        for (placed, change) in placed.into_iter().zip(changes) {
            self.indexer
                .fold(placed, &Content::from(change.clone()), self.now.running_ms)
                .map_err(offline::open_error)?;
        }
        if self.indexer.is_full() {
            self.indexer.flush().map_err(broken)?;
        }
        Ok(())
    }

    /// Closes it as a clean stop does.
    pub fn close(mut self) -> Result<(), OpenError> {
        self.writer.mark(self.now)?;
        self.indexer.flush().map_err(broken)
    }
}

/// Makes a data directory: journal, then `FORMAT`.
fn make(disk: &RealDisk) -> Result<(), OpenError> {
    use crate::store::disk::Disk;
    for file in disk.list_or_none(JOURNAL_DIRECTORY)? {
        disk.remove(&format!("{JOURNAL_DIRECTORY}/{}", file.name))?;
    }
    let segment_bytes = u32::try_from(SEGMENT_BYTES_DEFAULT).expect("the default fits");
    let format = Format { segment_bytes, directory: offline::directory_id() };
    recovery::create(&mut offline::journal(disk.clone(), format))?;
    write_format(disk, format)
}

/// Moves the index aside and begins one anew.
fn renewed(disk: &RealDisk, format: Format, home: &SledHome) -> Result<Indexer<RealDisk>, OpenError> {
    home.move_aside().and_then(|_| offline::indexer(disk, format, home)).map_err(broken)
}

fn broken(error: IndexError) -> OpenError {
    OpenError::Index(error.0)
}

fn damaged(Damaged: Damaged) -> OpenError {
    let reason = "a place that is needed cannot be read; `roundtable verify` names it".to_owned();
    OpenError::Corrupt { file: JOURNAL_DIRECTORY.to_owned(), offset: 0, reason }
}
