//! The storage port: what the hub may ask of storage, as values, and what comes back.
//!
//! The hub hands over [`Request`]s and gets [`Event`]s, in an order that keeps two rules:
//!
//! * [`Event::Durable`] comes in the order of tickets, and only after a successful `fdatasync` covers them.
//! * A load that was requested after a ticket was reported durable sees the effect of that ticket.
//!
//! Behind the port stand the journal (`journal/`: the only thing an acknowledgement depends on) and the index
//! (`index/`: sled, always rebuildable from the journal). The formats on disk are specified in `record.rs` and
//! `journal/`. This module knows the rules of groups, and neither the wire nor the hub.

#[cfg(feature = "benching")]
#[doc(hidden)]
pub mod benching;
mod care;
mod carried;
mod cleaner;
mod directory;
mod disk;
mod error;
#[cfg(any(test, feature = "fuzzing"))]
pub(crate) mod fuzzing;
mod index;
mod indexer;
mod journal;
mod overlay;
mod quota;
mod record;
mod retention;
mod tables;
mod thread;

/// Storage on a simulated disk, for the tests of those who stand on this port.
#[cfg(test)]
pub(crate) mod testing {
    pub(crate) use super::disk::Disk as TestDisk;
    pub(crate) use super::disk::simulated::{Fault, SimulatedDisk};
    pub(crate) use super::index::memory::MemoryHome;
    pub(crate) use super::thread::Parts;
}

/// Storage that takes steps, on a disk that forgets, and what its journal durably says: for the simulator.
#[cfg(any(test, feature = "sim"))]
pub(crate) mod stepped {
    pub(crate) use crate::store::disk::Disk;
    pub(crate) use crate::store::disk::simulated::{Fault, SimulatedDisk};
    pub(crate) use crate::store::index::memory::MemoryHome;
    pub(crate) use crate::store::journal::image::{Follower, Found, Said};
    pub(crate) use crate::store::thread::Parts;
    pub(crate) use crate::store::thread::stepped::{Stepped, SteppedClock};
}

pub use care::{
    Archive, BackupError, BackupSummary, Finding, GroupLoss, ImportError, Imported, Importer, Loss, OfflineError, Pass,
    Progress, Repair, Repaired, Restored, Severity, Verified, backup_offline, restore, verify,
};
pub use disk::{DiskError, DiskErrorKind};
pub use error::OpenError;
pub use quota::GroupQuota;
pub use retention::Retention;
pub use thread::{Storage, StorageOptions};

use std::sync::Arc;

use crate::group::{Entry, Record};
use crate::ids::{GroupId, OperationId, Principal, UserId};

/// Most marks in one [`Change::Marks`]: so many with the longest user ids fit one packet.
pub const MARKS_PER_CHANGE_MAX: usize = 10_000;

/// Exactly the bytes that a change takes in the journal, header and padding included: what credit is counted in.
pub fn change_bytes(change: &Change) -> usize {
    journal::writer::change_bytes(change)
}

/// The hub's own number of a commit in this run: 1, 2, 3 … in the order of submission. The journal gives each an LSN.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Ticket(pub u64);

/// The hub's own number of a read that is under way.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ReadId(pub u64);

/// What one packet of the journal says; atomic by construction.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Change {
    /// One request's effect.
    Effect(Effect),
    /// Marks of several users, coalesced.
    Marks(Vec<Mark>),
}

/// The effect of one request: one entry in one group's log, and what is remembered of the operation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Effect {
    /// Who authenticated.
    pub principal: Principal,
    /// The client's id of the request.
    pub operation: OperationId,
    /// A digest of the request's content, to tell a retry from a reuse of the id.
    pub fingerprint: u64,
    /// The group.
    pub group: GroupId,
    /// Its next entry.
    pub entry: Arc<Entry>,
}

/// How far a user has received and read a group.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mark {
    /// Whose.
    pub user: UserId,
    /// In which group.
    pub group: GroupId,
    /// The highest seq that some device has acknowledged as received.
    pub received: u64,
    /// The highest seq that a person has read; 0 for none.
    pub read: u64,
}

/// What the hub asks.
#[derive(Clone, Debug)]
pub enum Request {
    /// Make this durable. Answered by [`Event::Durable`].
    Commit {
        /// One more than the last.
        ticket: Ticket,
        /// What.
        change: Change,
    },
    /// The group as it is. Answered by [`Event::GroupLoaded`].
    LoadGroup {
        /// Which.
        group: GroupId,
    },
    /// All memberships of a user. Answered by [`Event::UserLoaded`].
    LoadUser {
        /// The number to answer with.
        read: ReadId,
        /// Whose.
        user: UserId,
    },
    /// A user's place in one group. Answered by [`Event::MembershipLoaded`].
    LoadMembership {
        /// The number to answer with.
        read: ReadId,
        /// Whose.
        user: UserId,
        /// In which group.
        group: GroupId,
    },
    /// The marks of a group's members. Answered by [`Event::MarksRead`].
    ReadMarks {
        /// The number to answer with.
        read: ReadId,
        /// Of which group.
        group: GroupId,
    },
    /// The remembered operations of a principal. Answered by [`Event::OperationsLoaded`].
    LoadOperations {
        /// Whose.
        principal: Principal,
    },
    /// A page of the groups of a user, in the order of group ids. Answered by [`Event::GroupsListed`].
    ListGroups {
        /// The number to answer with.
        read: ReadId,
        /// Whose.
        user: UserId,
        /// Only groups with a higher id.
        after: Option<GroupId>,
        /// At most so many.
        count_max: usize,
    },
    /// Entries of a group's log. Answered by [`Event::EntriesRead`].
    ReadEntries {
        /// The number to answer with.
        read: ReadId,
        /// Which group.
        group: GroupId,
        /// The first seq wanted.
        from: u64,
        /// The last seq wanted.
        through: u64,
        /// At most so many entries.
        entries_max: usize,
        /// At most so many bytes of packets, but always one entry if there is one.
        bytes_max: usize,
    },
    /// What was journalled behind a place. Answered by [`Event::FeedRead`].
    ReadFeed {
        /// The number to answer with.
        read: ReadId,
        /// Behind which place; `None`: behind everything that is there now.
        after: Option<FeedPlace>,
        /// At most so many items.
        items_max: usize,
    },
    /// A page of all groups, in the order of their ids. Answered by [`Event::GroupsScanned`].
    ScanGroups {
        /// The number to answer with.
        read: ReadId,
        /// Only groups with a higher id.
        after: Option<GroupId>,
        /// At most so many; fewer where their records are large.
        count_max: usize,
    },
    /// A backup of everything that is durable now. Answered by [`Event::BackupDone`]; commits and look-ups go on.
    Backup {
        /// The number to answer with.
        read: ReadId,
        /// A directory that is empty or absent, as an absolute path.
        path: String,
    },
    /// Counters and gauges of storage. Answered by [`Event::StatsRead`].
    ReadStats {
        /// The number to answer with.
        read: ReadId,
    },
}

/// What storage says.
#[derive(Clone, Debug)]
pub enum Event {
    /// Everything up to this ticket is covered by a successful `fdatasync`.
    Durable {
        /// The last one covered.
        ticket: Ticket,
        /// The LSNs of those that are covered since the last report, ascending.
        lsns: Vec<u64>,
    },
    /// The hub may have committed so many bytes ([`change_bytes`]) in all since the start. Never falls.
    Credit {
        /// In all since the start.
        bytes_total: u64,
    },
    /// The index is open: loads are answered from now on.
    Ready,
    /// A group as it is, or nothing where there is none.
    GroupLoaded {
        /// Which.
        group: GroupId,
        /// Its state; `None` where there is no such group.
        state: Result<Option<GroupState>, Damaged>,
    },
    /// All memberships of a user, former ones included, in the order of group ids.
    UserLoaded {
        /// The number that was asked with.
        read: ReadId,
        /// The memberships.
        memberships: Vec<Membership>,
    },
    /// A user's place in one group, or nothing where it has none.
    MembershipLoaded {
        /// The number that was asked with.
        read: ReadId,
        /// The membership, possibly one that has ended.
        membership: Option<Membership>,
    },
    /// The marks of a group's members, in the order of joining; nothing where there is no such group.
    MarksRead {
        /// The number that was asked with.
        read: ReadId,
        /// One for each member.
        marks: Result<Vec<Mark>, Damaged>,
    },
    /// The remembered operations of a principal, oldest first.
    OperationsLoaded {
        /// Whose.
        principal: Principal,
        /// At least the last so many that the limits promise.
        operations: Vec<Operation>,
    },
    /// A page of the groups of a user.
    GroupsListed {
        /// The number that was asked with.
        read: ReadId,
        /// In the order of group ids; members only.
        groups: Vec<GroupSummary>,
        /// Whether there are more behind the last.
        more: bool,
    },
    /// A page of all groups, dissolved ones included.
    GroupsScanned {
        /// The number that was asked with.
        read: ReadId,
        /// In the order of their ids; a page ends before a damaged record, which fails the next one.
        groups: Result<Vec<GroupState>, Damaged>,
        /// Whether there are more behind the last.
        more: bool,
    },
    /// Entries, ascending and without gap, beginning at the seq that was asked for.
    EntriesRead {
        /// The number that was asked with.
        read: ReadId,
        /// The entries; empty where the log has none in the range.
        entries: Result<Vec<Entry>, Damaged>,
    },
    /// What was journalled behind a place, as far as it fits one page.
    FeedRead {
        /// The number that was asked with.
        read: ReadId,
        /// The page.
        page: Result<FeedPage, FeedError>,
    },
    /// A backup is done, or came to nothing.
    BackupDone {
        /// The number that was asked with.
        read: ReadId,
        /// What it consists of.
        result: Result<BackupSummary, BackupError>,
    },
    /// The logs of these groups have let go of what is below these seqs, durably.
    FloorsMoved {
        /// Each with the lowest seq that its log still has.
        floors: Vec<(GroupId, u64)>,
    },
    /// A user is in as many groups as it may be, or no longer. Said unasked, as soon as the index has seen it, and at
    /// the start before [`Event::Ready`].
    UserFull {
        /// Who.
        user: UserId,
        /// The limit that is reached; `None` if it is not any more.
        groups_max: Option<u32>,
    },
    /// Counters and gauges.
    StatsRead {
        /// The number that was asked with.
        read: ReadId,
        /// By name with unit.
        stats: Vec<(String, u64)>,
    },
    /// Storage failed and acknowledges nothing any more: the process has to stop.
    Failed {
        /// What an operator needs to know.
        message: String,
    },
}

/// A group as it is on disk.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GroupState {
    /// The record.
    pub record: Record,
    /// The seq of the last entry.
    pub head: u64,
    /// The lowest seq that the log still has.
    pub floor: u64,
    /// When the last entry was made, in milliseconds since 1970.
    pub last_at_ms: u64,
}

/// A user's place in one group.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Membership {
    /// The group.
    pub group: GroupId,
    /// The seq of the entry that made the user a member.
    pub joined: u64,
    /// The seq of the entry that ended it, once it has ended.
    pub until: Option<u64>,
    /// The highest seq acknowledged as received.
    pub received: u64,
    /// The highest seq read.
    pub read: u64,
    /// The seq of the group's last entry.
    pub head: u64,
}

/// A line in a user's list of groups.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GroupSummary {
    /// The group.
    pub group: GroupId,
    /// Its title.
    pub title: String,
    /// How many members it has.
    pub members: u32,
    /// Its record's version.
    pub version: u64,
    /// The seq of its last entry.
    pub head: u64,
    /// The highest seq that the user has received.
    pub received: u64,
    /// The highest seq that the user has read.
    pub read: u64,
    /// When its last entry was made, in milliseconds since 1970.
    pub last_at_ms: u64,
}

/// What is remembered of an effective operation: enough to give the same answer again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Operation {
    /// The client's id of the request.
    pub operation: OperationId,
    /// The digest of the request's content.
    pub fingerprint: u64,
    /// The group of the answer.
    pub group: GroupId,
    /// The seq of the answer.
    pub seq: u64,
    /// The version of the answer.
    pub version: u64,
    /// The number of members in the answer to a create; 0 for other requests.
    pub members: u32,
}

impl Operation {
    /// What is remembered of an effect.
    pub fn of(effect: &Effect) -> Self {
        let members = match &effect.entry.event {
            crate::group::Event::Created { members, .. } => u32::try_from(members.len()).unwrap_or(u32::MAX),
            _ => 0,
        };
        Self {
            operation: effect.operation,
            fingerprint: effect.fingerprint,
            group: effect.group,
            seq: effect.entry.seq,
            version: effect.entry.version,
            members,
        }
    }
}

/// A place in the order of everything that was ever journalled.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FeedPlace {
    /// The LSN of the last packet before it.
    pub lsn: u64,
    /// Where the next one stands, if that is known: it spares the search.
    at: Option<journal::Position>,
}

impl FeedPlace {
    /// The place behind the packet with this LSN.
    pub fn behind(lsn: u64) -> Self {
        Self { lsn, at: None }
    }

    /// A later place, to be searched from where this one would be.
    #[must_use]
    pub fn advanced(self, lsn: u64) -> Self {
        Self { lsn, ..self }
    }
}

/// One entry, as the feed tells of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FeedItem {
    /// Its packet's LSN.
    pub lsn: u64,
    /// The group.
    pub group: GroupId,
    /// The entry's seq.
    pub seq: u64,
    /// Whose act it was.
    pub sender: UserId,
}

/// A stretch of the journal.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FeedPage {
    /// Ascending; possibly none.
    pub items: Vec<FeedItem>,
    /// Everything up to here is in the page.
    pub through: FeedPlace,
    /// Whether that was everything that is durable.
    pub at_end: bool,
}

/// Why a stretch of the journal cannot be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FeedError {
    /// The place lies before what the journal still has.
    Truncated {
        /// The first place that can be asked for.
        first: u64,
    },
    /// The place lies behind the end.
    Beyond {
        /// The last place that can be asked for.
        last: u64,
    },
    /// Damaged on disk.
    Damaged,
}

/// Bytes on disk that turned out to be damaged when they were read. The log names the file and the offset.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Damaged;
