//! Spare segments: files of zeros made before they are needed.
//!
//! Zeros that are written and synced beforehand make later syncs cheaper (measured; `fallocate` alone does not), and
//! they are what granted room is backed by. A spare has a temporary name and no header; it becomes a segment when the
//! writer gives it both.

use super::segment::JOURNAL_DIRECTORY;
use crate::store::disk::{Disk, DiskError, DiskFile};

/// Zeros written in one step.
const STEP_BYTES: usize = 1024 * 1024;
/// What the names of unfinished and spare segments end with. A start removes them all.
pub(crate) const SUFFIX: &str = ".tmp";

/// A synced file of zeros, of the size of a segment.
#[derive(Debug)]
pub(crate) struct Spare<F> {
    pub(crate) file: F,
    pub(crate) path: String,
}

/// A spare in the making: call [`SpareMaker::step`] until it is done.
pub(crate) struct SpareMaker<D: Disk> {
    file: D::File,
    path: String,
    written: u64,
    segment_bytes: u64,
}

/// How far a spare is.
pub(crate) enum Step<D: Disk> {
    /// Not done yet.
    More(SpareMaker<D>),
    /// Synced.
    Done(Spare<D::File>),
}

impl<D: Disk> SpareMaker<D> {
    /// Begins a file; two with the same `name` must not be in the making at once.
    pub(crate) fn begin(disk: &D, name: &str, segment_bytes: u64) -> Result<Self, DiskError> {
        let path = spare_path(name);
        if disk.exists(&path)? {
            disk.remove(&path)?;
        }
        let file = disk.create(&path)?;
        Ok(Self { file, path, written: 0, segment_bytes })
    }

    /// Writes the next zeros, or syncs at the end.
    pub(crate) fn step(mut self) -> Result<Step<D>, DiskError> {
        static ZEROS: [u8; STEP_BYTES] = [0; STEP_BYTES];
        let rest = usize::try_from(self.segment_bytes - self.written).unwrap_or(usize::MAX);
        if rest == 0 {
            self.file.sync()?;
            return Ok(Step::Done(Spare { file: self.file, path: self.path }));
        }
        let zeros = &ZEROS[..rest.min(STEP_BYTES)];
        self.file.write_at(self.written, zeros)?;
        self.written += zeros.len() as u64;
        Ok(Step::More(self))
    }
}

/// Makes a spare at once. 64 MiB take 40 ms here (180 ms the first time), so a first start and a roll that finds no
/// spare simply wait for it; see `docs/durability.md`.
pub(crate) fn make_now<D: Disk>(disk: &D, name: &str, segment_bytes: u64) -> Result<Spare<D::File>, DiskError> {
    let mut maker = SpareMaker::begin(disk, name, segment_bytes)?;
    loop {
        match maker.step() {
            Ok(Step::More(more)) => maker = more,
            Ok(Step::Done(spare)) => return Ok(spare),
            Err(error) => {
                // Gives back the room that the unfinished file takes: on a full disk others need it.
                let _ = remove_named(disk, name);
                return Err(error);
            }
        }
    }
}

/// The path of a spare.
pub(crate) fn spare_path(name: &str) -> String {
    format!("{JOURNAL_DIRECTORY}/{name}{SUFFIX}")
}

/// Removes an unfinished or unused spare.
pub(crate) fn remove_named<D: Disk>(disk: &D, name: &str) -> Result<(), DiskError> {
    disk.remove(&spare_path(name))
}

/// Removes what an earlier run left unfinished or unused. A spare's own file may be incomplete, and nothing tells.
pub(crate) fn remove_leftovers<D: Disk>(disk: &D) -> Result<(), DiskError> {
    for file in disk.list_or_none(JOURNAL_DIRECTORY)? {
        if file.name.ends_with(SUFFIX) {
            disk.remove(&format!("{JOURNAL_DIRECTORY}/{}", file.name))?;
        }
    }
    Ok(())
}
