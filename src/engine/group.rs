//! A group that is loaded.

use std::sync::Arc;

use crate::group::{Entry, Record};
use crate::store::{GroupState, Ticket};

/// The state of a group with and without what is on its way to the disk.
///
/// Invariant: `durable` is what the disk has; `record` and `head` are that plus the commits up to `last_ticket`. Only
/// the first is ever shown; the second decides what the next change is.
#[derive(Debug)]
pub(super) struct Group {
    pub(super) record: Arc<Record>,
    pub(super) head: u64,
    pub(super) last_ticket: Ticket,
    /// `None` while the group's first entry is on its way.
    pub(super) durable: Option<Durable>,
    pub(super) floor: u64,
}

/// What of a group may be shown.
#[derive(Clone, Debug)]
pub(super) struct Durable {
    pub(super) record: Arc<Record>,
    pub(super) head: u64,
    pub(super) last_at_ms: u64,
}

impl Group {
    /// As storage has it.
    pub(super) fn loaded(state: GroupState) -> Self {
        let record = Arc::new(state.record);
        let durable = Durable { record: record.clone(), head: state.head, last_at_ms: state.last_at_ms };
        Self { record, head: state.head, last_ticket: Ticket(0), durable: Some(durable), floor: state.floor }
    }

    /// With a first entry that is not committed yet.
    pub(super) fn begun(record: Arc<Record>) -> Self {
        Self { record, head: 1, last_ticket: Ticket(0), durable: None, floor: 1 }
    }

    /// The record after an entry: the same one where the entry does not change it.
    pub(super) fn record_after(&self, entry: &Entry) -> Arc<Record> {
        if !entry.event.changes_record() {
            return self.record.clone();
        }
        let mut next = (*self.record).clone();
        next.apply(entry);
        next.check_invariants();
        Arc::new(next)
    }

    /// Follows an entry that was committed.
    pub(super) fn begin(&mut self, record: Arc<Record>, head: u64, ticket: Ticket) {
        self.record = record;
        self.head = head;
        self.last_ticket = ticket;
    }

    /// Follows an entry that the disk has.
    pub(super) fn show(&mut self, durable: Durable) {
        assert!(self.durable.as_ref().is_none_or(|before| before.head < durable.head), "a log grows");
        self.durable = Some(durable);
    }
}

/// Bytes of memory that a group takes while it is loaded, roughly.
pub(super) fn memory_bytes(record: &Record) -> usize {
    size_of::<Group>() + 128 + record.memory_bytes()
}
