//! What the hub keeps loaded, under one bound in bytes: what was not used lately goes first, never what is in use.

use std::collections::VecDeque;

use super::Hub;
use super::operations::Window;
use crate::ids::{GroupId, Principal};
use crate::limits::CACHE_BYTES_MAX;

/// Something that can be loaded again.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Cached {
    Group(GroupId),
    Operations(Principal),
}

/// How many are looked at in a turn to let go of some, besides some for each that was loaded meanwhile. Each has to be
/// looked at twice; a whole round in one turn would find that nothing was used since the last one, and let go of what is
/// used all the time.
const LOOKED_AT: usize = 64;
const LOOKED_AT_PER_LOAD: usize = 4;

/// The clock: what is loaded, in the order in which it is looked at next.
///
/// Invariant: `bytes` is the sum of what groups and windows had when they were last counted; `queue` names everything
/// that is loaded.
#[derive(Debug)]
pub(super) struct Cache {
    pub(super) bytes: usize,
    /// The bound.
    pub(super) bytes_max: usize,
    queue: VecDeque<Cached>,
    /// How many were loaded since some were last let go of.
    inserted: usize,
}

impl Default for Cache {
    fn default() -> Self {
        Self { bytes: 0, bytes_max: CACHE_BYTES_MAX, queue: VecDeque::new(), inserted: 0 }
    }
}

impl Cache {
    /// Counts the bytes of something anew.
    pub(super) fn recount(&mut self, counted: &mut usize, bytes: usize) {
        self.bytes = self.bytes + bytes - *counted;
        *counted = bytes;
    }

    /// Something was loaded.
    pub(super) fn insert(&mut self, cached: Cached) {
        self.queue.push_back(cached);
        self.inserted += 1;
    }
}

impl Hub {
    /// Lets go of some of what was not used lately while more is loaded than the bound allows.
    pub(super) fn evict(&mut self) {
        let inserted = std::mem::take(&mut self.cache.inserted);
        if self.cache.bytes <= self.cache.bytes_max {
            return;
        }
        let mut candidates = LOOKED_AT + LOOKED_AT_PER_LOAD * inserted;
        while candidates > 0 && self.cache.bytes > self.cache.bytes_max {
            candidates -= 1;
            let Some(cached) = self.cache.queue.pop_front() else { return };
            match &cached {
                Cached::Group(group) => self.evict_group(*group),
                Cached::Operations(principal) => self.evict_operations(principal),
            }
            .unwrap_or_else(|| self.cache.queue.push_back(cached));
        }
    }

    /// `None` if it has to stay: it is in use, or was used since it was last looked at (the clock algorithm).
    fn evict_group(&mut self, id: GroupId) -> Option<()> {
        let Some(slot) = self.groups.get_mut(&id) else { return Some(()) };
        let group = slot.group.as_mut()?;
        // A load of a user that was asked before the group's last change may not know of it: the group must still be
        // here when the answer comes.
        if self.user_loads.first().is_some_and(|oldest| oldest.0 <= group.changed_at) {
            return None;
        }
        if !slot.waiting.is_empty() || !group.is_idle() || std::mem::take(&mut group.used) {
            return None;
        }
        self.cache.bytes -= group.counted_bytes;
        self.groups.remove(&id);
        self.counters.evicted += 1;
        Some(())
    }

    fn evict_operations(&mut self, principal: &Principal) -> Option<()> {
        let Some(Window::Loaded(remembered)) = self.windows.get_mut(principal) else { return Some(()) };
        if !remembered.is_idle() || std::mem::take(&mut remembered.used) {
            return None;
        }
        self.cache.bytes -= remembered.counted_bytes;
        self.windows.remove(principal);
        self.counters.evicted += 1;
        Some(())
    }
}
