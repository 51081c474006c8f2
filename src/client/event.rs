//! What a client is told unasked.

use crate::ids::{GroupId, UserId};
use crate::wire::{ErrorBody, GroupPacket, LogEntry};

/// Something that the server told, in the order in which a user interface should show it.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Event {
    /// A group that this device did not have. It can be shown from this alone.
    Group {
        /// What it says.
        packet: GroupPacket,
        /// The whole frame as it came: 24 bytes of header, then the body.
        frame: Vec<u8>,
    },
    /// The next entry of a group. Those of one group come in ascending order, each once, without a gap.
    Entry {
        /// The group.
        group: GroupId,
        /// The entry.
        entry: LogEntry,
    },
    /// The connection is behind in a group; what is missing is being fetched and comes as [`Event::Entry`].
    Behind {
        /// The group.
        group: GroupId,
        /// The first seq that is missing.
        from: u64,
        /// The seq of the group's last entry.
        head: u64,
    },
    /// The user is no longer in a group. Entries up to its leaving came before this.
    Gone {
        /// The group.
        group: GroupId,
        /// The seq of the entry that ended the membership; 0 where nothing is known of it any more.
        until: u64,
    },
    /// All that the device lacked has been told.
    Ready,
    /// Entries below the floor are deleted on the server and were never seen here; reading goes on from the floor.
    Truncated {
        /// The group.
        group: GroupId,
        /// The lowest seq that the server still has.
        floor: u64,
    },
    /// What is missing in a group could not be fetched. The next entry of the group makes the client try again.
    Unreadable {
        /// The group.
        group: GroupId,
        /// Why.
        error: ErrorBody,
    },
    /// An ephemeral message: typing and the like.
    Signal {
        /// The group.
        group: GroupId,
        /// Whose.
        sender: UserId,
        /// The service that acted for the sender, if one did.
        by: Option<UserId>,
        /// Opaque to the server.
        body: Vec<u8>,
    },
    /// The token expires soon.
    AuthenticateSoon {
        /// When, in milliseconds since 1970.
        expires_at_ms: u64,
    },
    /// A newer connection of the same user and device took this one's place; it closes.
    TakenOver,
    /// The server is about to stop; the connection closes.
    GoingAway {
        /// In so many milliseconds.
        within_ms: u64,
    },
}
