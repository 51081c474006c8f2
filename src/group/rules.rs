//! Who may do what, and which entry it makes. Each rule takes the record as it is and gives the entry; the record
//! afterwards is [`Record::apply`] of that entry, so that a replayed log cannot differ from what was answered.
//!
//! Any member may send, whisper, add and leave; the owner may also remove, rename, transfer and dissolve. What is asked
//! for and is so already changes nothing and makes no entry. One request makes at most one entry.

use std::collections::HashSet;
use std::sync::Arc;

use super::entry::{Entry, Event, Succession};
use super::record::Record;
use crate::ids::UserId;
use crate::limits::{BODY_BYTES_MAX, GROUP_MEMBERS_MAX, TITLE_BYTES_MAX};

/// What somebody asks of a group that is there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Act {
    /// Users become members, in this order; those who are already stay where they are.
    Add {
        /// Whom.
        members: Vec<UserId>,
    },
    /// Members are removed; others are ignored. Removing oneself alone is leaving.
    Remove {
        /// Whom.
        members: Vec<UserId>,
    },
    /// The asker leaves.
    Leave,
    /// The group gets another title.
    Rename {
        /// The new one, possibly empty.
        title: Arc<str>,
    },
    /// Another member becomes the owner.
    Transfer {
        /// Who.
        owner: UserId,
    },
    /// The group ends.
    Dissolve,
    /// A message to all members.
    Send {
        /// Opaque.
        body: Arc<[u8]>,
    },
    /// A message to some members.
    Whisper {
        /// To whom; the sender need not be named.
        to: Vec<UserId>,
        /// Opaque.
        body: Arc<[u8]>,
    },
}

/// Who asks, and when.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Author {
    /// Whose act it is.
    pub sender: UserId,
    /// The service that acts for the user, if one does.
    pub by: Option<UserId>,
    /// Whose rights count.
    pub authority: Authority,
    /// The wall clock, in milliseconds since 1970; only shown.
    pub at_ms: u64,
}

/// By which right somebody asks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Authority {
    /// As the member, or the owner, that the sender is.
    Sender,
    /// As the program that the store is embedded in: it may do what an owner may, in every group, without being a
    /// member.
    System,
}

/// What became of a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Decision {
    /// It makes this entry.
    Entry(Entry),
    /// It is so already: nothing to do.
    Unchanged,
}

/// Why a request was refused. Nothing was changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// There is no such group, or the user is not in it: the two look alike to those outside.
    NotFound,
    /// A member, but without the right.
    Forbidden,
    /// Somebody who was named is not a member.
    NotAMember,
    /// A quota is used up.
    Limit(Limit),
}

/// Which quota.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Limit {
    /// Members of a group.
    Members,
    /// Bytes of a title.
    Title,
    /// Bytes of a body.
    Body,
}

/// A new group: the `Created` entry with the creator first, then the members in the order given, each once.
/// A group of one is legal.
pub fn create(author: &Author, title: Arc<str>, members: Vec<UserId>) -> Result<Entry, Refusal> {
    check_title(&title)?;
    let mut seen = HashSet::with_capacity(members.len() + 1);
    let mut list = Vec::with_capacity(members.len() + 1);
    for user in std::iter::once(author.sender.clone()).chain(members) {
        if seen.insert(user.clone()) {
            list.push(user);
        }
    }
    if list.len() > GROUP_MEMBERS_MAX {
        return Err(Refusal::Limit(Limit::Members));
    }
    let Author { sender, by, at_ms, .. } = author.clone();
    Ok(Entry { seq: 1, version: 1, at_ms, sender, by, event: Event::Created { title, members: list } })
}

/// What an act does to a group whose last entry is `head`.
pub fn decide(record: &Record, head: u64, author: &Author, act: Act) -> Result<Decision, Refusal> {
    if record.dissolved || (author.authority == Authority::Sender && !record.has(&author.sender)) {
        return Err(Refusal::NotFound);
    }
    let event = match act {
        Act::Add { members } => add(record, members)?,
        Act::Remove { members } => remove(record, author, &members)?,
        Act::Leave => Some(leave(record, &author.sender)?),
        Act::Rename { title } => rename(record, author, title)?,
        Act::Transfer { owner } => transfer(record, author, owner)?,
        Act::Dissolve => dissolve(record, author)?,
        Act::Send { body } => Some(send(body)?),
        Act::Whisper { to, body } => Some(whisper(record, &author.sender, to, body)?),
    };
    let Some(event) = event else { return Ok(Decision::Unchanged) };
    let seq = head + 1;
    let version = if event.changes_record() { seq } else { record.version };
    let Author { sender, by, at_ms, .. } = author.clone();
    Ok(Decision::Entry(Entry { seq, version, at_ms, sender, by, event }))
}

fn add(record: &Record, members: Vec<UserId>) -> Result<Option<Event>, Refusal> {
    let mut known: HashSet<UserId> = record.members.iter().map(|member| member.user.clone()).collect();
    let members: Vec<_> = members.into_iter().filter(|user| known.insert(user.clone())).collect();
    if known.len() > GROUP_MEMBERS_MAX {
        return Err(Refusal::Limit(Limit::Members));
    }
    Ok((!members.is_empty()).then_some(Event::Added { members }))
}

/// The owner cannot be removed, by itself together with others no more than by the system: who owns the group then is
/// said by a `Left` or a `Transferred` entry alone.
fn remove(record: &Record, author: &Author, members: &[UserId]) -> Result<Option<Event>, Refusal> {
    let named: HashSet<&UserId> = members.iter().collect();
    let mut seen = HashSet::new();
    let present = record.members.iter().map(|member| &member.user).filter(|user| named.contains(user));
    let present: HashSet<&UserId> = present.collect();
    if author.authority == Authority::Sender && present.len() == 1 && present.contains(&author.sender) {
        return leave(record, &author.sender).map(Some);
    }
    check_owner(record, author)?;
    if present.contains(&record.owner) {
        return Err(Refusal::Forbidden);
    }
    let members: Vec<_> = members.iter().filter(|user| present.contains(user) && seen.insert(*user)).cloned().collect();
    Ok((!members.is_empty()).then_some(Event::Removed { members }))
}

/// When the owner leaves, the longest-standing of the others becomes owner; when the last member leaves, the group is
/// dissolved. Both are said in the one entry.
fn leave(record: &Record, sender: &UserId) -> Result<Event, Refusal> {
    if !record.has(sender) {
        return Err(Refusal::NotFound);
    }
    let heir = record.members.iter().find(|member| member.user != *sender);
    let succession = match heir {
        None => Succession::Dissolved,
        Some(heir) if record.owner == *sender => Succession::Passed { owner: heir.user.clone() },
        Some(_) => Succession::Unchanged,
    };
    Ok(Event::Left { succession })
}

fn rename(record: &Record, author: &Author, title: Arc<str>) -> Result<Option<Event>, Refusal> {
    check_owner(record, author)?;
    check_title(&title)?;
    Ok((record.title != title).then_some(Event::Renamed { title }))
}

fn transfer(record: &Record, author: &Author, owner: UserId) -> Result<Option<Event>, Refusal> {
    check_owner(record, author)?;
    if !record.has(&owner) {
        return Err(Refusal::NotAMember);
    }
    Ok((record.owner != owner).then_some(Event::Transferred { owner }))
}

fn dissolve(record: &Record, author: &Author) -> Result<Option<Event>, Refusal> {
    check_owner(record, author)?;
    Ok(Some(Event::Dissolved))
}

fn send(body: Arc<[u8]>) -> Result<Event, Refusal> {
    check_body(&body)?;
    Ok(Event::Message { body })
}

/// Addressees each once, in the order given, without the sender: a whisper to nobody else is a note to oneself.
fn whisper(record: &Record, sender: &UserId, to: Vec<UserId>, body: Arc<[u8]>) -> Result<Event, Refusal> {
    check_body(&body)?;
    let members: HashSet<&UserId> = record.members.iter().map(|member| &member.user).collect();
    if !to.iter().all(|user| members.contains(user)) {
        return Err(Refusal::NotAMember);
    }
    let mut seen: HashSet<UserId> = HashSet::from([sender.clone()]);
    let to = to.into_iter().filter(|user| seen.insert(user.clone())).collect();
    Ok(Event::Whisper { to, body })
}

fn check_owner(record: &Record, author: &Author) -> Result<(), Refusal> {
    match author.authority {
        Authority::System => Ok(()),
        Authority::Sender if record.owner == author.sender => Ok(()),
        Authority::Sender => Err(Refusal::Forbidden),
    }
}

fn check_title(title: &str) -> Result<(), Refusal> {
    if title.len() > TITLE_BYTES_MAX { Err(Refusal::Limit(Limit::Title)) } else { Ok(()) }
}

fn check_body(body: &[u8]) -> Result<(), Refusal> {
    if body.len() > BODY_BYTES_MAX { Err(Refusal::Limit(Limit::Body)) } else { Ok(()) }
}
