//! The operations of a principal that are remembered, so that the same id again gives the same answer (P6).

use std::collections::{HashMap, VecDeque};

use crate::group::Act;
use crate::ids::{GroupId, OperationId, Principal, UserId};
use crate::limits::{OPERATIONS_REMEMBERED, OPERATIONS_REMEMBERED_SERVICE};
use crate::store::{Operation, Ticket};

/// An operation id, and a digest of what was asked for with it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Key {
    pub(super) id: OperationId,
    pub(super) fingerprint: u64,
}

/// What became of an operation.
#[derive(Clone, Copy, Debug)]
pub(super) enum Outcome {
    /// It is on its way to the disk.
    Pending { ticket: Ticket, fingerprint: u64 },
    /// It is done.
    Done(Operation),
}

/// The last effective operations of a principal that had an id of the caller's. At least those that storage remembers.
///
/// Invariant: `order` names each key of `outcomes` once, oldest first; at most `done_max` of them are done.
#[derive(Debug)]
pub(super) struct Window {
    outcomes: HashMap<OperationId, Outcome>,
    order: VecDeque<OperationId>,
    done_max: usize,
    pending: usize,
}

impl Window {
    pub(super) fn loaded(principal: &Principal, operations: &[Operation]) -> Self {
        let done_max = match principal {
            Principal::User(_) => OPERATIONS_REMEMBERED,
            Principal::Service(_) => OPERATIONS_REMEMBERED_SERVICE,
        };
        let mut window = Self { outcomes: HashMap::new(), order: VecDeque::new(), done_max, pending: 0 };
        for operation in &operations[operations.len().saturating_sub(done_max)..] {
            window.outcomes.insert(operation.operation, Outcome::Done(*operation));
            window.order.push_back(operation.operation);
        }
        window
    }

    pub(super) fn find(&self, id: OperationId) -> Option<Outcome> {
        self.outcomes.get(&id).copied()
    }

    /// Notes an operation that was just committed.
    pub(super) fn begin(&mut self, key: Key, ticket: Ticket) {
        let before = self.outcomes.insert(key.id, Outcome::Pending { ticket, fingerprint: key.fingerprint });
        assert!(before.is_none(), "an operation takes effect once");
        self.order.push_back(key.id);
        self.pending += 1;
    }

    /// Notes that the disk has it, and forgets the oldest one over the limit.
    pub(super) fn finish(&mut self, operation: Operation) {
        let before = self.outcomes.insert(operation.operation, Outcome::Done(operation));
        assert!(matches!(before, Some(Outcome::Pending { .. })), "only a pending operation is finished");
        self.pending -= 1;
        if self.order.len() > self.done_max + self.pending
            && let Some(oldest) = self.order.pop_front()
        {
            self.outcomes.remove(&oldest);
        }
    }

    pub(super) fn memory_bytes(&self) -> usize {
        let each = size_of::<(OperationId, Outcome)>() + 2 * size_of::<OperationId>();
        size_of::<Self>() + 128 + self.order.len() * each
    }
}

/// Tells a retry from a reuse of an operation id: a CRC over everything that was asked for. Meant for mistakes: who
/// makes two requests collide on purpose harms only itself.
#[derive(Debug)]
pub(super) struct Digest {
    crc: crc32fast::Hasher,
    bytes: u64,
    kind: u8,
}

impl Digest {
    /// Of a create.
    pub(super) fn of_create(title: &str, members: &[UserId]) -> u64 {
        let mut digest = Self::new(0);
        digest.field(title.as_bytes());
        digest.users(members);
        digest.value()
    }

    /// Of a change of a group.
    pub(super) fn of_act(group: GroupId, act: &Act) -> u64 {
        let mut digest = Self::new(kind(act));
        digest.field(group.as_bytes());
        match act {
            Act::Add { members } | Act::Remove { members } => digest.users(members),
            Act::Leave | Act::Dissolve => {}
            Act::Rename { title } => digest.field(title.as_bytes()),
            Act::Transfer { owner } => digest.field(owner.as_str().as_bytes()),
            Act::Send { body } => digest.field(body),
            Act::Whisper { to, body } => {
                digest.users(to);
                digest.field(body);
            }
        }
        digest.value()
    }

    fn new(kind: u8) -> Self {
        Self { crc: crc32fast::Hasher::new(), bytes: 0, kind }
    }

    /// With its length before it, so that no two lists of fields have the same bytes.
    fn field(&mut self, bytes: &[u8]) {
        self.crc.update(&(bytes.len() as u64).to_be_bytes());
        self.crc.update(bytes);
        self.bytes += bytes.len() as u64;
    }

    fn users(&mut self, users: &[UserId]) {
        self.crc.update(&(users.len() as u64).to_be_bytes());
        for user in users {
            self.field(user.as_str().as_bytes());
        }
    }

    fn value(self) -> u64 {
        u64::from(self.crc.finalize()) << 32 | u64::from(self.kind) << 24 | self.bytes & 0xff_ffff
    }
}

/// Numbers that stand in fingerprints on disk: none is ever given another meaning.
fn kind(act: &Act) -> u8 {
    match act {
        Act::Add { .. } => 1,
        Act::Remove { .. } => 2,
        Act::Leave => 3,
        Act::Rename { .. } => 4,
        Act::Transfer { .. } => 5,
        Act::Dissolve => 6,
        Act::Send { .. } => 7,
        Act::Whisper { .. } => 8,
    }
}
