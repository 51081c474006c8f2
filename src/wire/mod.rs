//! Bytes ↔ values of the protocol: header, requests, replies, pushes, errors, and the deframer.
//!
//! Pure; bytes from a peer never panic here. It does not know the disk. Every layout is specified, with test vectors
//! that the tests read, in `docs/protocol.md`.

#![cfg_attr(not(test), deny(clippy::indexing_slicing, clippy::arithmetic_side_effects, clippy::as_conversions))]

mod deframer;
mod entry;
mod error;
mod header;
mod push;
mod reply;
mod request;
#[cfg(test)]
mod tests;

pub use deframer::{Deframer, Frame, FrameCaps, FrameError};
pub use entry::LogEntry;
pub use error::{ErrorBody, ErrorCode};
pub use header::{Header, HeaderError, Kind, MAGIC, VERSION, flags};
pub(crate) use push::encode_entry_push;
pub use push::{GroupPacket, Push};
pub use reply::{
    Changed, ConnectionRow, Created, GroupHistory, GroupShown, GroupSummary, HistoryOutcome, Limits, Reply, Stat,
    UserMarks, Welcome,
};
pub use request::{Attach, GroupSeq, Hello, HistoryRequest, Mark, Request};

/// Features that this server offers in [`Welcome`]; a client uses only what both sides name.
pub mod features {
    /// Reserved: one connection carries many users, with a list of recipients in pushes.
    pub const GATEWAY: u64 = 1 << 0;
    /// Changes of membership beyond leaving: add, remove, rename, transfer, dissolve.
    pub const MEMBERSHIP: u64 = 1 << 1;
    /// Whispers, signals and read marks of others.
    pub const WHISPER: u64 = 1 << 2;
    /// Services: `as USER`, the feed.
    pub const SERVICE: u64 = 1 << 3;
    /// Operators: connections, kick, backup.
    pub const OPERATOR: u64 = 1 << 4;
    /// Authentication again in place.
    pub const REAUTHENTICATE: u64 = 1 << 5;
    /// What this version serves.
    pub const SERVED: u64 = MEMBERSHIP | WHISPER | SERVICE | OPERATOR | REAUTHENTICATE;
}

/// Appends one frame: a header with both CRCs, and the body that `write` makes.
pub fn encode_frame(
    out: &mut Vec<u8>,
    kind: Kind,
    flags: u8,
    request_id: u32,
    write: impl FnOnce(&mut crate::codec::Writer<'_>),
) {
    let start = out.len();
    out.extend_from_slice(&[0; crate::limits::HEADER_BYTES]);
    write(&mut crate::codec::Writer::new(out));
    Header::seal(out, start, kind, flags, request_id);
}
