//! The operations of a principal that are remembered, so that the same id again gives the same answer (P6).

use std::collections::{HashMap, VecDeque};

use ahash::RandomState;

use super::task::{Caller, OperationKey};
use crate::ids::{GroupId, OperationId, Principal, UserId};
use crate::limits::{OPERATIONS_REMEMBERED, OPERATIONS_REMEMBERED_SERVICE};
use crate::store::{Operation, Ticket};

/// A create that waits for its principal's operations to be loaded.
#[derive(Debug)]
pub(super) struct ParkedCreate {
    pub(super) caller: Caller,
    pub(super) key: OperationKey,
    pub(super) title: std::sync::Arc<str>,
    pub(super) members: Vec<UserId>,
}

/// What is in memory of a principal's operations.
#[derive(Debug)]
pub(super) enum Window {
    /// Being loaded; these wait for it.
    Loading { creates: VecDeque<ParkedCreate>, groups: Vec<GroupId> },
    /// Loaded.
    Loaded(Remembered),
}

/// What became of an operation.
#[derive(Clone, Copy, Debug)]
pub(super) enum Outcome {
    /// It is on its way to the disk.
    Pending { ticket: Ticket, fingerprint: u64 },
    /// It is done.
    Done(Operation),
}

impl Outcome {
    pub(super) fn fingerprint(&self) -> u64 {
        match self {
            Self::Pending { fingerprint, .. } => *fingerprint,
            Self::Done(operation) => operation.fingerprint,
        }
    }
}

/// The last effective operations of a principal.
///
/// Invariant: `order` names each key of `outcomes` once, oldest first; at most `limit` of them are done.
#[derive(Debug)]
pub(super) struct Remembered {
    outcomes: HashMap<OperationId, Outcome, RandomState>,
    order: VecDeque<OperationId>,
    limit: usize,
    pending: usize,
    /// Whether it was used since the cache last looked.
    pub(super) used: bool,
    /// Bytes that the cache counts for it.
    pub(super) counted_bytes: usize,
}

impl Remembered {
    pub(super) fn new(principal: &Principal, operations: &[Operation], hasher: RandomState) -> Self {
        let limit = match principal {
            Principal::User(_) => OPERATIONS_REMEMBERED,
            Principal::Service(_) => OPERATIONS_REMEMBERED_SERVICE,
        };
        let mut outcomes = HashMap::with_hasher(hasher);
        let mut order = VecDeque::new();
        for operation in &operations[operations.len().saturating_sub(limit)..] {
            outcomes.insert(operation.operation, Outcome::Done(*operation));
            order.push_back(operation.operation);
        }
        Self { outcomes, order, limit, pending: 0, used: true, counted_bytes: 0 }
    }

    pub(super) fn find(&self, operation: OperationId) -> Option<Outcome> {
        self.outcomes.get(&operation).copied()
    }

    /// Notes an operation that was just handed to storage.
    pub(super) fn begin(&mut self, key: OperationKey, ticket: Ticket) {
        let outcome = Outcome::Pending { ticket, fingerprint: key.fingerprint };
        let before = self.outcomes.insert(key.operation, outcome);
        if !planted!("hub: an operation that is done is done again") {
            assert!(before.is_none(), "an operation takes effect once");
        }
        self.order.push_back(key.operation);
        self.pending += 1;
    }

    /// Notes that it is durable, and forgets the oldest one over the limit.
    pub(super) fn finish(&mut self, operation: Operation) {
        let before = self.outcomes.insert(operation.operation, Outcome::Done(operation));
        assert!(matches!(before, Some(Outcome::Pending { .. })), "only a pending operation is finished");
        self.pending -= 1;
        if self.order.len() > self.limit + self.pending
            && let Some(oldest) = self.order.pop_front()
        {
            self.outcomes.remove(&oldest);
        }
    }

    pub(super) fn is_idle(&self) -> bool {
        self.pending == 0
    }

    pub(super) fn memory_bytes(&self) -> usize {
        size_of::<Self>() + self.order.len() * (size_of::<(OperationId, Outcome)>() + 2 * size_of::<OperationId>())
    }
}
