//! The spare thread: makes the next segment, and waits for space where there is none.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender};
use std::time::Duration;

use super::journal;
use crate::store::disk::{Disk, DiskError};
use crate::store::journal::Spare;
use crate::store::journal::spare::{SpareMaker, Step, remove_named};

/// Pause until a spare that could not be made is tried again.
const RETRY: Duration = Duration::from_secs(1);
/// Segments' worth of free space that is left to the index and to recovery: without it no spare is made, so no room
/// is granted.
const RESERVE_SEGMENTS: u64 = 2;
const NAME: &str = "spare";

/// One spare is wanted.
pub(crate) struct Wanted;

pub(super) struct SpareThread<D: Disk> {
    pub(super) disk: D,
    pub(super) segment_bytes: u64,
    pub(super) wanted: Receiver<Wanted>,
    pub(super) ready: Sender<journal::Message>,
    pub(super) stopping: Arc<AtomicBool>,
}

impl<D: Disk> SpareThread<D> {
    /// Runs until the journal thread is gone. It cannot fail: without a spare there is only no more room to grant.
    pub(super) fn run(self) {
        let mut complained = false;
        while self.wanted.recv().is_ok() {
            loop {
                match self.make() {
                    Ok(Some(spare)) => {
                        complained = false;
                        let _ = self.ready.send(journal::Message::Spare(Box::new(spare)));
                        break;
                    }
                    Ok(None) => return,
                    Err(error) if !complained => {
                        complained = true;
                        tracing::warn!("no room for the next segment, changes may be refused: {error}");
                    }
                    Err(_) => {}
                }
                if let Err(RecvTimeoutError::Disconnected) = self.wanted.recv_timeout(RETRY) {
                    return;
                }
            }
        }
    }

    /// Makes one; nothing when storage stops meanwhile.
    pub(super) fn make(&self) -> Result<Option<Spare<D::File>>, String> {
        let needed = self.segment_bytes * (1 + RESERVE_SEGMENTS);
        let free = self.disk.free_bytes().map_err(|error| error.to_string())?;
        if free < needed {
            return Err(format!("{free} bytes are free, {needed} are needed"));
        }
        let made = self.fill();
        if !matches!(made, Ok(Some(_))) {
            // Half a spare only takes space; the next start would remove it too.
            let _ = remove_named(&self.disk, NAME);
        }
        made.map_err(|error| error.to_string())
    }

    fn fill(&self) -> Result<Option<Spare<D::File>>, DiskError> {
        let mut maker = SpareMaker::begin(&self.disk, NAME, self.segment_bytes)?;
        while !self.stopping.load(Ordering::Relaxed) {
            match maker.step()? {
                Step::More(more) => maker = more,
                Step::Done(spare) => return Ok(Some(spare)),
            }
        }
        Ok(None)
    }
}
