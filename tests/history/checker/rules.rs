//! The rules of a group, as `docs/protocol.md` tells them; written apart from the server's, which they are held against.

use std::collections::BTreeSet;

use super::super::format::{Act, Event};

/// A group after some entry.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct State {
    pub(super) version: u64,
    pub(super) title: String,
    pub(super) owner: String,
    pub(super) creator: String,
    /// In the order of joining, with the seq of it.
    pub(super) members: Vec<(String, u64)>,
}

/// What the rules say to an act.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Decision {
    Effect(Event),
    /// It is so already.
    Unchanged,
    Refused(&'static str),
}

impl State {
    pub(super) fn joined(&self, user: &str) -> Option<u64> {
        self.members.iter().find(|(member, _)| member == user).map(|(_, joined)| *joined)
    }

    pub(super) fn has(&self, user: &str) -> bool {
        self.joined(user).is_some()
    }

    /// The state that a created entry makes.
    pub(super) fn created(sender: &str, title: &str, members: &[String]) -> Self {
        Self {
            version: 1,
            title: title.to_owned(),
            owner: sender.to_owned(),
            creator: sender.to_owned(),
            members: members.iter().map(|member| (member.clone(), 1)).collect(),
        }
    }

    /// The state after an entry that changes it; `None` if this one does not.
    pub(super) fn after(&self, seq: u64, sender: &str, event: &Event) -> Option<Self> {
        let mut next = self.clone();
        next.version = seq;
        match event {
            Event::Message(_) | Event::Whisper { .. } | Event::Created { .. } => return None,
            Event::Added(users) => next.members.extend(users.iter().map(|user| (user.clone(), seq))),
            Event::Removed(users) => next.members.retain(|(member, _)| !users.contains(member)),
            Event::Left { heir, .. } => {
                next.members.retain(|(member, _)| member != sender);
                next.owner = heir.clone().unwrap_or(next.owner);
            }
            Event::Renamed(title) => next.title.clone_from(title),
            Event::Transferred(owner) => next.owner.clone_from(owner),
            Event::Dissolved => next.members.clear(),
        }
        Some(next)
    }

    /// What an act of a user does now.
    pub(super) fn decide(&self, user: &str, act: &Act) -> Decision {
        if !self.has(user) {
            return Decision::Refused("NOT_FOUND");
        }
        let is_owner = self.owner == user;
        match act {
            Act::Send(body) => Decision::Effect(Event::Message(body.clone())),
            Act::Whisper { to, body } => self.whisper(user, to, body),
            Act::Add(users) => {
                let fresh = once_each(users.iter().filter(|added| !self.has(added)));
                effect_of_some(fresh, Event::Added)
            }
            Act::Leave => Decision::Effect(self.left(user)),
            Act::Remove(users) => {
                let present = once_each(users.iter().filter(|removed| self.has(removed)));
                if present == [user] {
                    Decision::Effect(self.left(user))
                } else if !is_owner || present.contains(&self.owner) {
                    Decision::Refused("FORBIDDEN")
                } else {
                    effect_of_some(present, Event::Removed)
                }
            }
            Act::Rename(_) | Act::Transfer(_) | Act::Dissolve if !is_owner => Decision::Refused("FORBIDDEN"),
            Act::Rename(title) if *title == self.title => Decision::Unchanged,
            Act::Rename(title) => Decision::Effect(Event::Renamed(title.clone())),
            Act::Transfer(owner) if !self.has(owner) => Decision::Refused("NOT_A_MEMBER"),
            Act::Transfer(owner) if *owner == self.owner => Decision::Unchanged,
            Act::Transfer(owner) => Decision::Effect(Event::Transferred(owner.clone())),
            Act::Dissolve => Decision::Effect(Event::Dissolved),
        }
    }

    fn whisper(&self, user: &str, to: &[String], body: &str) -> Decision {
        if !to.iter().all(|member| self.has(member)) {
            return Decision::Refused("NOT_A_MEMBER");
        }
        let to = once_each(to.iter().filter(|member| *member != user));
        Decision::Effect(Event::Whisper { to, body: body.to_owned() })
    }

    /// The longest-standing of the others follows an owner; without others the group is over.
    fn left(&self, user: &str) -> Event {
        let heir = self.members.iter().map(|(member, _)| member).find(|member| *member != user);
        Event::Left { heir: heir.filter(|_| self.owner == user).cloned(), dissolved: heir.is_none() }
    }
}

/// The act that makes an event, where the event tells all of it.
pub(super) fn act_of(event: &Event) -> Option<Act> {
    Some(match event.clone() {
        Event::Created { .. } => return None,
        Event::Added(users) => Act::Add(users),
        Event::Removed(users) => Act::Remove(users),
        Event::Left { .. } => Act::Leave,
        Event::Renamed(title) => Act::Rename(title),
        Event::Transferred(owner) => Act::Transfer(owner),
        Event::Dissolved => Act::Dissolve,
        Event::Message(body) => Act::Send(body),
        Event::Whisper { to, body } => Act::Whisper { to, body },
    })
}

/// The members that a create makes: the creator, then the others in their order.
pub(super) fn members_of_create(creator: &str, members: &[String]) -> Vec<String> {
    let creator = creator.to_owned();
    once_each([&creator].into_iter().chain(members))
}

fn once_each<'u>(users: impl Iterator<Item = &'u String>) -> Vec<String> {
    let mut seen = BTreeSet::new();
    users.filter(|user| seen.insert(*user)).cloned().collect()
}

fn effect_of_some(users: Vec<String>, event: fn(Vec<String>) -> Event) -> Decision {
    if users.is_empty() { Decision::Unchanged } else { Decision::Effect(event(users)) }
}
