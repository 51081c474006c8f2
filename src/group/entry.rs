//! Entries: the items of a group's log. Everything that happens in a group is one.

use std::sync::Arc;

use crate::ids::UserId;

/// One item of a group's log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// Its number in the group: 1, 2, 3 … without gap or reuse.
    pub seq: u64,
    /// The seq of the last entry that changed the record, this one included.
    pub version: u64,
    /// When the server took it, in milliseconds since 1970. For showing only; nothing depends on it.
    pub at_ms: u64,
    /// The user whose act it was.
    pub sender: UserId,
    /// The service that acted for the user, if one did.
    pub by: Option<UserId>,
    /// What happened.
    pub event: Event,
}

/// What an entry says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// The group was made; seq 1. All members, the creator first.
    Created {
        /// The title, possibly empty.
        title: Arc<str>,
        /// All members, the creator first.
        members: Vec<UserId>,
    },
    /// Users joined, in this order.
    Added {
        /// Those who were not members before.
        members: Vec<UserId>,
    },
    /// Members were removed.
    Removed {
        /// Those who were members before.
        members: Vec<UserId>,
    },
    /// The sender left.
    Left {
        /// What became of the group's ownership.
        succession: Succession,
    },
    /// The title changed.
    Renamed {
        /// The new title, possibly empty.
        title: Arc<str>,
    },
    /// The owner made another member the owner.
    Transferred {
        /// The new owner.
        owner: UserId,
    },
    /// The group is over.
    Dissolved,
    /// A message to all members.
    Message {
        /// Opaque to the server.
        body: Arc<[u8]>,
    },
    /// A message to some members; the others see only that a seq was used.
    Whisper {
        /// The addressees, without the sender.
        to: Vec<UserId>,
        /// Opaque to the server.
        body: Arc<[u8]>,
    },
}

/// What a member's leaving did to the ownership.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Succession {
    /// Nothing: it was not the owner.
    Unchanged,
    /// The owner left; the longest-standing member is owner now.
    Passed {
        /// The new owner.
        owner: UserId,
    },
    /// The last member left: the group is dissolved.
    Dissolved,
}

impl Event {
    /// Whether it changes the group's record and so raises its version.
    pub fn changes_record(&self) -> bool {
        match self {
            Self::Created { .. }
            | Self::Added { .. }
            | Self::Removed { .. }
            | Self::Left { .. }
            | Self::Renamed { .. }
            | Self::Transferred { .. }
            | Self::Dissolved => true,
            Self::Message { .. } | Self::Whisper { .. } => false,
        }
    }
}

impl Entry {
    /// Whether a member may see more of it than its seq and version: a whisper is for its sender and its addressees.
    pub fn is_shown_to(&self, user: &UserId) -> bool {
        match &self.event {
            Event::Whisper { to, .. } => self.sender == *user || to.contains(user),
            Event::Created { .. }
            | Event::Added { .. }
            | Event::Removed { .. }
            | Event::Left { .. }
            | Event::Renamed { .. }
            | Event::Transferred { .. }
            | Event::Dissolved
            | Event::Message { .. } => true,
        }
    }

    /// Bytes that it takes in memory or in a frame, roughly and never less than in a frame.
    pub fn memory_bytes(&self) -> usize {
        let users = |users: &[UserId]| users.iter().map(|user| user.as_str().len() + 24).sum::<usize>();
        let event = match &self.event {
            Event::Created { title, members } => title.len() + users(members),
            Event::Added { members } | Event::Removed { members } => users(members),
            Event::Renamed { title } => title.len(),
            Event::Message { body } => body.len(),
            Event::Whisper { to, body } => users(to) + body.len(),
            Event::Left { .. } | Event::Transferred { .. } | Event::Dissolved => 64,
        };
        size_of::<Self>() + 2 * crate::limits::USER_BYTES_MAX + event
    }
}
