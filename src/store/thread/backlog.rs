//! How far the index thread may be behind the journal thread.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Condvar, Mutex, PoisonError};

use crate::limits::INDEX_BACKLOG_BYTES_MAX;

/// The part of a segment that the index may be behind while cleaning is behind: one segment is cleaned in so many turns
/// of the index's queue at most, or nearly.
const BACKLOG_PER_SEGMENT: u64 = 8;

/// Bytes of changes that go into one batch; more waits for the next one.
const BATCH_BYTES_MAX: usize = 16 * 1024 * 1024;

/// Bytes of journal that the index thread has been given and has not folded; at the bound the journal thread waits.
#[derive(Debug, Default)]
pub(super) struct Backlog {
    bytes: Mutex<u64>,
    less: Condvar,
    /// The bound while cleaning keeps up, and while it does not.
    bytes_max: u64,
    behind_bytes_max: u64,
    /// More is written than cleaning gets rid of. What it carries comes back through the index's queue, which has to be
    /// short for that; else the journal would grow as long as the load lasts.
    cleaning_behind: AtomicBool,
    /// Nobody folds any more, so nobody is waited for.
    abandoned: AtomicBool,
}

impl Backlog {
    pub(super) fn new(segment_bytes: u64) -> Self {
        // What waits is not cleaned: with small segments it must not be many of them.
        let bytes_max = INDEX_BACKLOG_BYTES_MAX.min(segment_bytes);
        let behind_bytes_max = segment_bytes / BACKLOG_PER_SEGMENT;
        Self { bytes_max, behind_bytes_max, ..Self::default() }
    }

    pub(super) fn set_cleaning_behind(&self, behind: bool) {
        if self.cleaning_behind.swap(behind, Ordering::SeqCst) != behind {
            let _backlog = self.bytes.lock().unwrap_or_else(PoisonError::into_inner);
            self.less.notify_all();
        }
    }

    /// Bytes of changes in one batch: while cleaning is behind, few enough that its turns come often.
    pub(super) fn batch_bytes_max(&self) -> usize {
        if self.cleaning_behind.load(Ordering::SeqCst) {
            usize::try_from(self.behind_bytes_max / 2).unwrap_or(usize::MAX).min(BATCH_BYTES_MAX)
        } else {
            BATCH_BYTES_MAX
        }
    }

    fn bound(&self) -> u64 {
        if self.cleaning_behind.load(Ordering::SeqCst) { self.behind_bytes_max } else { self.bytes_max }
    }

    pub(super) fn add(&self, bytes: u64) {
        *self.bytes.lock().unwrap_or_else(PoisonError::into_inner) += bytes;
    }

    pub(super) fn take(&self, bytes: u64) {
        let mut backlog = self.bytes.lock().unwrap_or_else(PoisonError::into_inner);
        *backlog = backlog.saturating_sub(bytes);
        self.less.notify_all();
    }

    pub(super) fn bytes(&self) -> u64 {
        *self.bytes.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether the journal thread would not have to wait.
    #[cfg(any(test, feature = "sim"))]
    pub(super) fn has_room(&self) -> bool {
        self.bytes() < self.bound() || self.abandoned.load(Ordering::SeqCst)
    }

    pub(super) fn wait_for_room(&self) {
        let mut backlog = self.bytes.lock().unwrap_or_else(PoisonError::into_inner);
        while *backlog >= self.bound() && !self.abandoned.load(Ordering::SeqCst) {
            backlog = self.less.wait(backlog).unwrap_or_else(PoisonError::into_inner);
        }
    }

    /// The index thread is gone for good: nothing waits for it any more.
    pub(super) fn give_up(&self) {
        let _backlog = self.bytes.lock().unwrap_or_else(PoisonError::into_inner);
        self.abandoned.store(true, Ordering::SeqCst);
        self.less.notify_all();
    }
}
