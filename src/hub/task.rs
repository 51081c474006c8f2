//! Work on one group that one request, or a connection's catch-up, asks for.

use super::connection::ConnectionKey;
use super::reads::HistoryJob;
use crate::group::Act;
use crate::ids::{OperationId, Principal, UserId};
use crate::store::Operation;
use crate::wire::Kind;

/// Who asked, and where the answer goes.
#[derive(Clone, Debug)]
pub(super) struct Caller {
    pub(super) connection: ConnectionKey,
    pub(super) request_id: u32,
    pub(super) user: UserId,
    /// The service that acts for the user, if one does.
    pub(super) by: Option<UserId>,
    pub(super) principal: Principal,
}

/// The client's name for a request that changes something.
#[derive(Clone, Copy, Debug)]
pub(super) struct OperationKey {
    pub(super) operation: OperationId,
    pub(super) fingerprint: u64,
}

/// One piece of work on one group.
#[derive(Debug)]
pub(super) enum Task {
    Change { caller: Caller, key: OperationKey, kind: Kind, act: Act },
    RepeatCreate { caller: Caller, operation: Operation },
    Show { caller: Caller, newer_than: u64 },
    History(Box<HistoryJob>),
    Mark { caller: Caller, received: u64, read: u64 },
    Notice { connection: ConnectionKey },
}
