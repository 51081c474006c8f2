//! Groups in use: their state with and without what is not durable yet, their last entries, and who is live in them.

use std::collections::VecDeque;
use std::sync::Arc;

use super::connection::ConnectionKey;
use super::outbox::SharedFrame;
use super::task::Task;
use crate::group::{Entry, Record};
use crate::limits::{RING_BYTES, RING_ENTRIES};
use crate::store::{GroupState, Ticket};

/// A group as far as it is in memory.
#[derive(Debug)]
pub(super) struct Slot {
    /// `None` while it is being loaded.
    pub(super) group: Option<Group>,
    /// Work on the group that has not begun yet, in order. Whatever arrives while something waits here waits behind
    /// it, so requests on one group take effect in the order in which they came.
    pub(super) waiting: VecDeque<Task>,
}

/// A group that is loaded.
///
/// Invariant: `durable` and `durable_head` are what the disk has; `record` and `head` are that plus `pending` commits.
/// Only the first pair is ever shown to anybody; the second decides what the next change is. `live` names each
/// connection once that is attached as a member, not behind in this group, and gets its entries as they come (and
/// possibly some that are closed by now).
#[derive(Debug)]
pub(super) struct Group {
    pub(super) record: Arc<Record>,
    pub(super) head: u64,
    pub(super) durable: Arc<Record>,
    pub(super) durable_head: u64,
    pub(super) floor: u64,
    /// Commits on their way to the disk.
    pub(super) pending: usize,
    /// The last of them.
    pub(super) last_ticket: Ticket,
    pub(super) ring: Ring,
    pub(super) live: Vec<ConnectionKey>,
    /// Reads that are under way and need the group to stay.
    pub(super) reads: usize,
    /// The number of the last read that was asked of storage when the group last changed.
    pub(super) changed_at: u64,
    /// The last large group packet that was made, for those who come one after the other: head, from, frame.
    pub(super) packet: Option<(u64, u64, Arc<SharedFrame>)>,
    /// Whether it was used since the cache last looked.
    pub(super) used: bool,
    /// Bytes that the cache counts for it.
    pub(super) counted_bytes: usize,
}

impl Group {
    /// A group as storage has it.
    pub(super) fn loaded(state: GroupState) -> Self {
        let record = Arc::new(state.record);
        Self {
            durable: record.clone(),
            record,
            head: state.head,
            durable_head: state.head,
            floor: state.floor,
            pending: 0,
            last_ticket: Ticket(0),
            ring: Ring::default(),
            live: Vec::new(),
            reads: 0,
            changed_at: 0,
            packet: None,
            used: false,
            counted_bytes: 0,
        }
    }

    /// A group whose first entry is on its way to the disk: nothing of it is durable yet.
    pub(super) fn begun(record: Arc<Record>) -> Self {
        let nobody = Record { members: Vec::new(), ..(*record).clone() };
        let mut group =
            Self::loaded(GroupState { record: nobody, head: 0, floor: 1, last_at_ms: record.created_at_ms });
        group.record = record;
        group
    }

    /// Whether nothing that only the hub knows depends on its staying in memory.
    pub(super) fn is_idle(&self) -> bool {
        self.pending == 0 && self.reads == 0
    }

    /// Bytes of memory, roughly.
    pub(super) fn memory_bytes(&self) -> usize {
        size_of::<Self>() + self.durable.memory_bytes() + self.ring.bytes + self.live.len() * size_of::<ConnectionKey>()
    }
}

/// The last entries of a group, so that a reader close to the head needs no disk.
///
/// Invariant: the entries are consecutive, the last one is the durable head; `bytes` is what they take.
#[derive(Debug, Default)]
pub(super) struct Ring {
    entries: VecDeque<Arc<Entry>>,
    bytes: usize,
}

impl Ring {
    /// Adds the next entry and lets the oldest go that no longer fit. The newest is always kept.
    pub(super) fn push(&mut self, entry: Arc<Entry>) {
        if let Some(last) = self.entries.back() {
            assert_eq!(last.seq + 1, entry.seq, "a log has no gap");
        }
        self.bytes += entry.memory_bytes();
        self.entries.push_back(entry);
        while self.entries.len() > 1 && (self.entries.len() > RING_ENTRIES || self.bytes > RING_BYTES) {
            let gone = self.entries.pop_front().map_or(0, |entry| entry.memory_bytes());
            self.bytes -= gone;
        }
    }

    /// The entries from a seq on, if the ring still has that one.
    pub(super) fn from(&self, seq: u64) -> Option<impl Iterator<Item = &Arc<Entry>>> {
        let first = self.entries.front()?.seq;
        let skip = usize::try_from(seq.checked_sub(first)?).ok()?;
        (skip < self.entries.len()).then(|| self.entries.iter().skip(skip))
    }
}
