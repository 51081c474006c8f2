//! Who may do what, and which entry it makes. Each rule takes the record as it is and gives the entry; the record
//! afterwards is [`Record::apply`] of that entry, so that a replayed log cannot differ from what was answered.

use std::collections::HashSet;
use std::sync::Arc;

use super::entry::{Entry, Event, Succession};
use super::record::Record;
use crate::ids::UserId;
use crate::limits::{BODY_BYTES_MAX, GROUP_MEMBERS_MAX, TITLE_BYTES_MAX};

/// Why a request was refused. Nothing was changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// There is no such group, or the user is not in it: the two look alike to those outside.
    NotFound,
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
pub fn create(
    creator: &UserId,
    title: Arc<str>,
    members: Vec<UserId>,
    by: Option<UserId>,
    at_ms: u64,
) -> Result<Entry, Refusal> {
    if title.len() > TITLE_BYTES_MAX {
        return Err(Refusal::Limit(Limit::Title));
    }
    let mut seen = HashSet::with_capacity(members.len() + 1);
    seen.insert(creator.clone());
    let mut list = Vec::with_capacity(members.len() + 1);
    list.push(creator.clone());
    list.extend(members.into_iter().filter(|user| seen.insert(user.clone())));
    if list.len() > GROUP_MEMBERS_MAX {
        return Err(Refusal::Limit(Limit::Members));
    }
    Ok(Entry { seq: 1, version: 1, at_ms, sender: creator.clone(), by, event: Event::Created { title, members: list } })
}

/// A message of a member to all.
pub fn send(
    record: &Record,
    head: u64,
    sender: &UserId,
    body: Arc<[u8]>,
    by: Option<UserId>,
    at_ms: u64,
) -> Result<Entry, Refusal> {
    if !record.has(sender) {
        return Err(Refusal::NotFound);
    }
    if body.len() > BODY_BYTES_MAX {
        return Err(Refusal::Limit(Limit::Body));
    }
    Ok(next(record, head, sender, by, at_ms, Event::Message { body }))
}

/// A member leaves. When the owner leaves, the longest-standing of the others becomes owner; when the last member
/// leaves, the group is dissolved. Both are said in the one entry.
pub fn leave(record: &Record, head: u64, sender: &UserId, by: Option<UserId>, at_ms: u64) -> Result<Entry, Refusal> {
    if !record.has(sender) {
        return Err(Refusal::NotFound);
    }
    let heir = record.members.iter().find(|member| member.user != *sender);
    let succession = match heir {
        None => Succession::Dissolved,
        Some(heir) if record.owner == *sender => Succession::Passed { owner: heir.user.clone() },
        Some(_) => Succession::Unchanged,
    };
    Ok(next(record, head, sender, by, at_ms, Event::Left { succession }))
}

fn next(record: &Record, head: u64, sender: &UserId, by: Option<UserId>, at_ms: u64, event: Event) -> Entry {
    let seq = head + 1;
    let version = if event.changes_record() { seq } else { record.version };
    Entry { seq, version, at_ms, sender: sender.clone(), by, event }
}
