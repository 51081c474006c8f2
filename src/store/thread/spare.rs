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

/// What the spare thread owes, and whether there was space for it.
pub(super) struct Debt {
    owed: usize,
    space: Space,
    /// Segments' worth of free space that has to be left.
    left_segments: u64,
}

impl Default for Debt {
    fn default() -> Self {
        Self { owed: 0, space: Space::Enough, left_segments: RESERVE_SEGMENTS }
    }
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
        let mut debt = Debt::default();
        loop {
            let wanted = if debt.owed == 0 {
                self.wanted.recv().map_err(|_| RecvTimeoutError::Disconnected)
            } else {
                let pause = if debt.space == Space::Short { RETRY } else { Duration::ZERO };
                self.wanted.recv_timeout(pause)
            };
            match wanted {
                Ok(wanted) => self.take(&wanted, &mut debt),
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => return,
            }
            if !self.pay(&mut debt) {
                return;
            }
        }
    }

    /// One turn with what is wanted, without waiting for it; whether it did something.
    #[cfg(any(test, feature = "sim"))]
    pub(super) fn step(&self, debt: &mut Debt) -> bool {
        let before = debt.owed;
        match self.wanted.try_recv() {
            Ok(wanted) => self.take(&wanted, debt),
            Err(_) if debt.owed == 0 => return false,
            Err(_) => {}
        }
        self.pay(debt);
        debt.owed != before
    }

    fn take(&self, wanted: &Wanted, debt: &mut Debt) {
        match wanted {
            Wanted::Spare => debt.owed += 1,
            Wanted::ForCleaning => debt.left_segments = RECOVERY_SEGMENTS,
            Wanted::Removal { first } => self.remove(*first),
        }
    }

    /// Makes one of those that are owed; whether storage goes on.
    fn pay(&self, debt: &mut Debt) -> bool {
        if debt.owed == 0 {
            return true;
        }
        match self.make_and_leave(debt.left_segments) {
            Ok(Some(spare)) => {
                debt.owed -= 1;
                debt.left_segments = RESERVE_SEGMENTS;
                self.say(&mut debt.space, Space::Enough);
                let _ = self.ready.send(journal::Message::Spare(Box::new(spare)));
            }
            Ok(None) => return false,
            Err(error) => {
                if debt.space == Space::Enough {
                    tracing::warn!("no room for the next segment, changes may be refused: {error}");
                }
                self.say(&mut debt.space, Space::Short);
            }
        }
        true
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
