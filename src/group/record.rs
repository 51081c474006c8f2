//! The record of a group and how entries change it.

use std::collections::HashSet;
use std::sync::Arc;

use super::entry::{Entry, Event, Succession};
use crate::ids::{GroupId, UserId};

/// One member of a group.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Member {
    /// Who.
    pub user: UserId,
    /// The seq of the entry that made it a member.
    pub joined: u64,
}

/// A group as it is after some entry of its log.
///
/// Invariant: unless it is dissolved, the owner is a member; no user is a member twice; members stand in the order in
/// which they joined, so `members[0]` is the longest-standing one; `version` is the seq of the entry that made it so.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Record {
    /// The group.
    pub group: GroupId,
    /// Its title; empty means that clients show the members.
    pub title: Arc<str>,
    /// Who may remove, rename, transfer and dissolve.
    pub owner: UserId,
    /// Who made it.
    pub creator: UserId,
    /// When it was made, in milliseconds since 1970.
    pub created_at_ms: u64,
    /// In the order of joining.
    pub members: Vec<Member>,
    /// The seq of the last entry that changed this record.
    pub version: u64,
    /// Over: without members, and nothing can be done in it any more.
    pub dissolved: bool,
}

impl Record {
    /// The record that a `Created` entry makes; `None` for any other entry.
    pub fn from_created(group: GroupId, entry: &Entry) -> Option<Self> {
        let Event::Created { title, members } = &entry.event else { return None };
        Some(Self {
            group,
            title: title.clone(),
            owner: entry.sender.clone(),
            creator: entry.sender.clone(),
            created_at_ms: entry.at_ms,
            members: members.iter().map(|user| Member { user: user.clone(), joined: entry.seq }).collect(),
            version: entry.seq,
            dissolved: false,
        })
    }

    /// The member entry of a user, if it is a member.
    pub fn member(&self, user: &UserId) -> Option<&Member> {
        self.members.iter().find(|member| member.user == *user)
    }

    /// Whether the user is a member.
    pub fn has(&self, user: &UserId) -> bool {
        self.member(user).is_some()
    }

    /// Follows one entry of the log. An entry that does not change records (a message), and one that is not newer than
    /// this record, changes nothing: so replaying a log over a newer record is harmless.
    pub fn apply(&mut self, entry: &Entry) {
        if !entry.event.changes_record() || entry.version <= self.version {
            return;
        }
        self.version = entry.version;
        match &entry.event {
            Event::Created { .. } | Event::Message { .. } | Event::Whisper { .. } => {}
            Event::Added { members } => {
                let mut known: HashSet<UserId> = self.members.iter().map(|member| member.user.clone()).collect();
                let joined = members.iter().filter(|user| known.insert((*user).clone()));
                self.members.extend(joined.map(|user| Member { user: user.clone(), joined: entry.seq }));
            }
            Event::Removed { members } => {
                let removed: HashSet<&UserId> = members.iter().collect();
                self.members.retain(|member| !removed.contains(&member.user));
            }
            Event::Left { succession } => {
                self.members.retain(|member| member.user != entry.sender);
                match succession {
                    Succession::Unchanged => {}
                    Succession::Passed { owner } => self.owner = owner.clone(),
                    Succession::Dissolved => self.dissolve(),
                }
            }
            Event::Renamed { title } => self.title = title.clone(),
            Event::Transferred { owner } => self.owner = owner.clone(),
            Event::Dissolved => self.dissolve(),
        }
    }

    fn dissolve(&mut self) {
        self.members.clear();
        self.dissolved = true;
    }

    /// Bytes of memory that it takes, roughly: for the bound on what is kept loaded.
    pub fn memory_bytes(&self) -> usize {
        let member_bytes = size_of::<Member>() + 48;
        size_of::<Self>() + self.title.len() + self.members.len() * member_bytes
    }

    /// Asserts the invariant of the type.
    pub fn check_invariants(&self) {
        assert!(self.version >= 1, "a record has a version");
        assert_eq!(self.dissolved, self.members.is_empty(), "a group is dissolved when nobody is left, and only then");
        assert!(self.dissolved || self.has(&self.owner), "the owner is a member");
        assert!(
            self.members.windows(2).all(|pair| matches!(pair, [a, b] if a.joined <= b.joined)),
            "members stand in the order of joining"
        );
        let users: HashSet<&UserId> = self.members.iter().map(|member| &member.user).collect();
        assert_eq!(users.len(), self.members.len(), "no user is a member twice");
    }
}
