//! What a client is told unasked.

use crate::ids::{GroupId, UserId};
use crate::wire::{ErrorBody, GroupPacket, LogEntry};

/// Something that the server told, in the order in which a user interface should show it.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Event {
    /// A group that this device did not have, or that its user is in again. It can be shown from this alone.
    Group {
        /// What it says; `from` is the seq of the next entry, also where the frame begins below what was told already.
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
    /// The user is no longer in a group. Entries up to its leaving came before this. Who is removed while it listens
    /// hears that by the entry alone.
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
    /// A signal of this client was not taken.
    SignalRefused {
        /// The group.
        group: GroupId,
        /// Why.
        error: ErrorBody,
    },
    /// The token expires soon. Not told where a token source takes care of it.
    AuthenticateSoon {
        /// When, in milliseconds since 1970.
        expires_at_ms: u64,
    },
    /// One item of a service's feed: an entry was made.
    Feed {
        /// Its place in the feed: [`super::Client::feed`] goes on behind it.
        position: u64,
        /// The group.
        group: GroupId,
        /// The entry's seq.
        seq: u64,
        /// Whose act it was.
        sender: UserId,
        /// The members who had no live connection.
        offline: Vec<UserId>,
    },
    /// A service's feed cannot go on where it stood, and does not by itself: cleaning has passed the position while there
    /// was no connection (`TRUNCATED`, with the lowest that can be asked for), or the place is damaged. To go on,
    /// ask for the feed again.
    FeedEnded {
        /// Why.
        error: ErrorBody,
    },
    /// The connection was lost; another one is being made. Nothing is lost by it but signals.
    Interrupted {
        /// What the server said about it, if it said anything.
        reason: Option<ErrorBody>,
    },
    /// There is a connection again. What was missed comes now; if the client was on line, [`Event::Ready`] follows.
    Resumed,
    /// A newer connection of the same user and device took this one's place; it closes.
    TakenOver,
    /// The server is about to stop; the connection closes.
    GoingAway {
        /// In so many milliseconds.
        within_ms: u64,
    },
}
