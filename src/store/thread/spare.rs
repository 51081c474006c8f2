//! The spare thread: makes the next segments, waits for space where there is none, and removes those that are cleaned.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender};
use std::time::Duration;

use super::{index, journal};
use crate::store::cleaner::Space;
use crate::store::disk::{Disk, DiskError};
use crate::store::journal::segment::segment_path;
use crate::store::journal::spare::{SpareMaker, Step, remove_named, spare_path};
use crate::store::journal::{JOURNAL_DIRECTORY, Spare};

/// Pause until a spare that could not be made is tried again.
const RETRY: Duration = Duration::from_secs(1);
/// Segments' worth of free space that is left to the index, to recovery and to a cleaning that carries more than it
/// gives back: without it no spare is made, so no room is granted.
pub(super) const RESERVE_SEGMENTS: u64 = 3;
/// What is left of that where cleaning could not go on otherwise: a start after a kill may need a segment.
const RECOVERY_SEGMENTS: u64 = 1;
/// There are two at most.
const NAMES: [&str; 2] = ["spare-1", "spare-2"];

/// What is wanted of it.
pub(crate) enum Wanted {
    /// One spare more.
    Spare,
    /// Cleaning cannot go on before there is one of those that are wanted.
    ForCleaning,
    /// The log begins with the segment `first`, which the head says durably: the one before it is to go.
    Removal { first: u32 },
}

pub(super) struct SpareThread<D: Disk> {
    pub(super) disk: D,
    pub(super) segment_bytes: u64,
    pub(super) wanted: Receiver<Wanted>,
    pub(super) ready: Sender<journal::Message>,
    pub(super) index: Sender<index::Message>,
    pub(super) stopping: Arc<AtomicBool>,
}

impl<D: Disk> SpareThread<D> {
    /// Runs until the journal thread is gone. It cannot fail: without a spare there is only no more room to grant.
    pub(super) fn run(self) {
        let mut owed = 0_usize;
        let mut space = Space::Enough;
        let mut left_segments = RESERVE_SEGMENTS;
        loop {
            let wanted = if owed == 0 {
                self.wanted.recv().map_err(|_| RecvTimeoutError::Disconnected)
            } else {
                let pause = if space == Space::Short { RETRY } else { Duration::ZERO };
                self.wanted.recv_timeout(pause)
            };
            match wanted {
                Ok(Wanted::Spare) => owed += 1,
                Ok(Wanted::ForCleaning) => left_segments = RECOVERY_SEGMENTS,
                Ok(Wanted::Removal { first }) => self.remove(first),
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => return,
            }
            if owed == 0 {
                continue;
            }
            match self.make_and_leave(left_segments) {
                Ok(Some(spare)) => {
                    owed -= 1;
                    left_segments = RESERVE_SEGMENTS;
                    self.say(&mut space, Space::Enough);
                    let _ = self.ready.send(journal::Message::Spare(Box::new(spare)));
                }
                Ok(None) => return,
                Err(error) => {
                    if space == Space::Enough {
                        tracing::warn!("no room for the next segment, changes may be refused: {error}");
                    }
                    self.say(&mut space, Space::Short);
                }
            }
        }
    }

    /// Tells the index thread, which plans cleaning.
    fn say(&self, before: &mut Space, now: Space) {
        if *before != now {
            let _ = self.index.send(index::Message::Space(now));
        }
        *before = now;
    }

    fn remove(&self, first: u32) {
        let path = segment_path(first - 1);
        let removed = self.disk.remove(&path).and_then(|()| self.disk.sync_directory(JOURNAL_DIRECTORY));
        if let Err(error) = removed {
            tracing::warn!("a cleaned segment stays until the next start: {error}");
        }
        let _ = self.index.send(index::Message::Released { first });
    }

    /// Makes one; nothing when storage stops meanwhile.
    pub(super) fn make(&self) -> Result<Option<Spare<D::File>>, String> {
        self.make_and_leave(RESERVE_SEGMENTS)
    }

    fn make_and_leave(&self, left_segments: u64) -> Result<Option<Spare<D::File>>, String> {
        let needed = self.segment_bytes * (1 + left_segments);
        let free = self.disk.free_bytes().map_err(|error| error.to_string())?;
        if free < needed {
            return Err(format!("{free} bytes are free, {needed} are needed"));
        }
        let name = self.unused_name().map_err(|error| error.to_string())?;
        let made = self.fill(name);
        if !matches!(made, Ok(Some(_))) {
            // Half a spare only takes space; the next start would remove it too.
            let _ = remove_named(&self.disk, name);
        }
        made.map_err(|error| error.to_string())
    }

    /// The other one may be waiting for its roll under its name.
    fn unused_name(&self) -> Result<&'static str, DiskError> {
        let [first, second] = NAMES;
        Ok(if self.disk.exists(&spare_path(first))? { second } else { first })
    }

    fn fill(&self, name: &str) -> Result<Option<Spare<D::File>>, DiskError> {
        let mut maker = SpareMaker::begin(&self.disk, name, self.segment_bytes)?;
        while !self.stopping.load(Ordering::Relaxed) {
            match maker.step()? {
                Step::More(more) => maker = more,
                Step::Done(spare) => return Ok(Some(spare)),
            }
        }
        Ok(None)
    }
}
