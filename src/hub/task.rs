//! Work on one group that one request, or a connection's catch-up, asks for.

use super::connection::ConnectionKey;
use super::feed::FeedJob;
use super::history::HistoryJob;
use crate::group::Act;
use crate::ids::{OperationId, Principal, Role, UserId};
use crate::store::Operation;
use crate::wire::{Header, Kind};

/// Who asked, and where the answer goes.
#[derive(Clone, Debug)]
pub(super) struct Caller {
    pub(super) connection: ConnectionKey,
    pub(super) request_id: u32,
    pub(super) user: UserId,
    /// The service that acts for the user, if one does.
    pub(super) by: Option<UserId>,
    pub(super) principal: Principal,
    pub(super) role: Role,
}

/// The client's name for a request that changes something.
#[derive(Clone, Copy, Debug)]
pub(super) struct OperationKey {
    pub(super) operation: OperationId,
    pub(super) fingerprint: u64,
}

impl OperationKey {
    /// The key of each operation that a frame may ask for. The fingerprint tells a retry from a reuse of an id: the CRC
    /// of the body, which the deframer has checked, with the kind and the low bits of the length.
    pub(super) fn of(header: Header) -> impl Fn(OperationId) -> Self {
        let low_bits = u64::from(header.kind) << 16 | u64::from(header.body_bytes & 0xffff);
        let fingerprint = u64::from(header.body_crc) << 32 | low_bits;
        move |operation| Self { operation, fingerprint }
    }
}

/// One piece of work on one group.
#[derive(Debug)]
pub(super) enum Task {
    Change { caller: Caller, key: OperationKey, kind: Kind, act: Act },
    RepeatCreate { caller: Caller, operation: Operation },
    Show { caller: Caller, newer_than: u64 },
    History(Box<HistoryJob>),
    Mark { caller: Caller, received: u64, read: u64 },
    Readers { caller: Caller, seq: u64 },
    Feed(Box<FeedJob>),
    Signal { caller: Caller, body: std::sync::Arc<[u8]> },
    Notice { connection: ConnectionKey },
}
