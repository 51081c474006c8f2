//! Answering look-ups.

use std::sync::Arc;

use super::fold::mistaken;
use super::fold_operations::operations_max;
use super::{FoldError, Indexer};
use crate::group::{Entry, Record};
use crate::ids::{GroupId, Principal, UserId};
use crate::store::carried::{Carried, CarriedEntry};
use crate::store::disk::Disk;
use crate::store::index::{Direction, IndexError};
use crate::store::journal::{Content, Position, ReadError};
use crate::store::tables::{
    Extent, GroupValue, MembersAt, MembershipValue, StateValue, Value, changes_key, extents_first, extents_key,
    group_key, group_key_of, memberships_first, memberships_key, operations_key, state_key,
};
use crate::store::{Damaged, GroupState, GroupSummary, Mark, Membership, Operation};

/// Memory that the records of one page of groups take before it ends.
const SCAN_BYTES_MAX: usize = 4 * 1024 * 1024;

/// An answer that may lie in a damaged place of the journal.
type Read<T> = Result<Result<T, Damaged>, IndexError>;

/// A page of entries that is being filled.
struct Page {
    entries: Vec<Entry>,
    next_seq: u64,
    through: u64,
    entries_left: usize,
    bytes_left: usize,
}

impl<D: Disk> Indexer<D> {
    /// A group as it is.
    pub(crate) fn load_group(&mut self, group: GroupId) -> Read<Option<GroupState>> {
        let (Some(value), Some(state)) = (self.group_value(group)?, self.state(group)?) else { return Ok(Ok(None)) };
        damaged_apart(self.with_members(group, value)).map(|record| {
            record.map(|record| {
                let StateValue { head, floor, last_at_ms, .. } = state;
                Some(GroupState { record, head, floor, last_at_ms })
            })
        })
    }

    /// All memberships of a user, in the order of group ids.
    pub(crate) fn load_user(&mut self, user: &UserId) -> Result<Vec<Membership>, IndexError> {
        self.settle(user)?;
        let mut memberships = Vec::new();
        self.each_membership(user, [0; 16], |membership| {
            let head = self.state(membership.group)?.map_or(0, |state| state.head);
            memberships.push(membership.with_head(head));
            Ok(More::Yes)
        })?;
        Ok(memberships)
    }

    /// A user's place in one group.
    pub(crate) fn load_membership(&mut self, user: &UserId, group: GroupId) -> Result<Option<Membership>, IndexError> {
        self.settle(user)?;
        let mut found = None;
        self.each_membership(user, *group.as_bytes(), |membership| {
            if membership.group == group {
                let head = self.state(group)?.map_or(0, |state| state.head);
                found = Some(membership.with_head(head));
            }
            Ok(if membership.group < group { More::Yes } else { More::No })
        })?;
        Ok(found)
    }

    /// How many groups a user is a member of, by what is settled.
    pub(super) fn count_groups(&self, user: &UserId) -> Result<u32, IndexError> {
        let mut groups = 0_u32;
        self.each_membership(user, [0; 16], |membership| {
            groups = groups.saturating_add(u32::from(membership.until.is_none() && membership.joined > 0));
            Ok(More::Yes)
        })?;
        Ok(groups)
    }

    /// The marks of a group's members, in the order of joining.
    pub(crate) fn read_marks(&mut self, group: GroupId) -> Read<Vec<Mark>> {
        let Some(value) = self.group_value(group)? else { return Ok(Ok(Vec::new())) };
        let members = match damaged_apart(self.with_members(group, value))? {
            Ok(record) => record.members,
            Err(damaged) => return Ok(Err(damaged)),
        };
        let mut marks = Vec::with_capacity(members.len());
        for member in members {
            let place = self.load_membership(&member.user, group)?;
            let (received, read) = place.map_or((0, 0), |place| (place.received, place.read));
            marks.push(Mark { user: member.user, group, received, read });
        }
        Ok(Ok(marks))
    }

    /// The remembered operations of a principal, oldest first.
    pub(crate) fn load_operations(&self, principal: &Principal) -> Result<Vec<Operation>, IndexError> {
        let mut operations = Vec::new();
        let low = operations_key(principal, u64::MAX);
        let mut high = operations_key(principal, 0);
        while let Some((key, stored)) = self.overlay.nearest(&low, &high, Direction::Descending)? {
            let Value::Operations(some) = stored.value else { return Err(mistaken(&key)) };
            operations.extend(some.list.into_iter().map(|(_, operation)| operation));
            let Some(before) = key_before(key) else { break };
            high = before;
        }
        let surplus = operations.len().saturating_sub(operations_max(principal));
        operations.drain(..surplus);
        Ok(operations)
    }

    /// A page of the groups that a user is a member of, and whether there are more.
    pub(crate) fn list_groups(
        &mut self,
        user: &UserId,
        after: Option<GroupId>,
        count_max: usize,
    ) -> Result<(Vec<GroupSummary>, bool), IndexError> {
        self.settle(user)?;
        let from = after.map_or([0; 16], |group| *group.as_bytes());
        let mut groups = Vec::new();
        let mut more = false;
        self.each_membership(user, from, |membership| {
            if membership.until.is_some() || after.is_some_and(|after| membership.group <= after) {
                return Ok(More::Yes);
            }
            if groups.len() >= count_max {
                more = true;
                return Ok(More::No);
            }
            groups.extend(self.summary(membership)?);
            Ok(More::Yes)
        })?;
        Ok((groups, more))
    }

    /// A page of all groups in the order of their ids, and whether there are more. The page ends before a damaged
    /// record, and where the records would take too much memory; it has at least one unless the first is damaged.
    pub(crate) fn scan_groups(
        &mut self,
        after: Option<GroupId>,
        count_max: usize,
    ) -> Result<(Result<Vec<GroupState>, Damaged>, bool), IndexError> {
        let last = group_key_of([0xff; 16]);
        let mut low = after.map_or_else(|| group_key_of([0; 16]), |group| behind(group_key(group)));
        let mut groups: Vec<GroupState> = Vec::new();
        let mut memory_bytes = 0;
        while let Some((key, stored)) = self.overlay.nearest(&low, &last, Direction::Ascending)? {
            if groups.len() >= count_max || memory_bytes >= SCAN_BYTES_MAX {
                return Ok((Ok(groups), true));
            }
            let Value::Group(value) = stored.value else { return Err(mistaken(&key)) };
            match self.load_group(value.record.group)? {
                Ok(Some(state)) => {
                    memory_bytes += state.record.memory_bytes();
                    groups.push(state);
                }
                Ok(None) => {}
                Err(Damaged) if groups.is_empty() => return Ok((Err(Damaged), true)),
                Err(Damaged) => return Ok((Ok(groups), true)),
            }
            low = behind(key);
        }
        Ok((Ok(groups), false))
    }

    /// Entries of a group from a seq on, within the bounds; empty where the log has none.
    pub(crate) fn read_entries(
        &mut self,
        group: GroupId,
        from: u64,
        through: u64,
        entries_max: usize,
        bytes_max: usize,
    ) -> Read<Vec<Entry>> {
        let Some(state) = self.state(group)? else { return Ok(Ok(Vec::new())) };
        let (from, through) = (from.max(state.floor), through.min(state.head));
        let mut page =
            Page { entries: Vec::new(), next_seq: from, through, entries_left: entries_max, bytes_left: bytes_max };
        let mut place = extents_key(group, from);
        let mut direction = Direction::Descending;
        while page.next_seq <= page.through && page.entries_left > 0 {
            let (low, high) = match direction {
                Direction::Descending => (extents_key(group, 0), place),
                Direction::Ascending => (place, extents_key(group, u64::MAX)),
            };
            let Some((key, stored)) = self.overlay.nearest(&low, &high, direction)? else { break };
            let Value::Extents(extents) = stored.value else { return Err(mistaken(&key)) };
            let before = page.next_seq;
            // A value that a crash left half split may still have what the next one has taken over.
            let taken_over = self.overlay.nearest(&behind(key), &extents_key(group, u64::MAX), Direction::Ascending)?;
            let taken_over = taken_over.and_then(|(key, _)| extents_first(&key)).unwrap_or(u64::MAX);
            for extent in extents.into_iter().filter(|extent| extent.first_seq < taken_over) {
                let filled = self.fill(group, extent, &mut page);
                if let Err(error) = filled {
                    // What was read before the damaged place is still good; the next request meets the damage.
                    return Ok(if page.entries.is_empty() { Err(logged(&error)) } else { Ok(page.entries) });
                }
            }
            if page.next_seq == before {
                break;
            }
            (place, direction) = (extents_key(group, page.next_seq), Direction::Ascending);
        }
        Ok(Ok(page.entries))
    }

    /// Adds the entries of one extent that belong into the page.
    fn fill(&mut self, group: GroupId, extent: Extent, page: &mut Page) -> Result<(), ReadError> {
        let behind = extent.end();
        if page.next_seq < extent.first_seq
            || page.next_seq >= behind
            || page.next_seq > page.through
            || page.entries_left == 0
        {
            return Ok(());
        }
        for packet in self.reader.span(extent.position, extent.bytes)? {
            // Carried entries stand among later ones of the same group.
            let Some(entry) = entry_of(packet.content, group).filter(|entry| entry.seq == page.next_seq) else {
                continue;
            };
            let bytes = packet.placed.bytes as usize;
            let full = bytes > page.bytes_left && !page.entries.is_empty();
            if page.entries_left == 0 || full || page.next_seq > page.through {
                page.entries_left = 0;
                return Ok(());
            }
            page.entries.push(entry);
            page.next_seq += 1;
            page.entries_left -= 1;
            page.bytes_left = page.bytes_left.saturating_sub(bytes);
        }
        if page.next_seq < behind && page.next_seq <= page.through && page.entries_left > 0 {
            return Err(missing(extent.position));
        }
        Ok(())
    }

    pub(super) fn group_value(&self, group: GroupId) -> Result<Option<GroupValue>, IndexError> {
        let key = group_key(group);
        match self.overlay.value(&key)?.map(|stored| stored.value) {
            Some(Value::Group(value)) => Ok(Some(*value)),
            Some(_) => Err(mistaken(&key)),
            None => Ok(None),
        }
    }

    /// The whole record: its members come from the journal where they are too many for the index.
    pub(super) fn with_members(&mut self, group: GroupId, value: GroupValue) -> Result<Record, FoldError> {
        if value.members_at == MembersAt::Value {
            return Ok(value.record);
        }
        let (mut low, high) = (changes_key(group, 0), changes_key(group, u64::MAX));
        let mut changes = Vec::new();
        while let Some((key, stored)) = self.overlay.nearest(&low, &high, Direction::Ascending)? {
            let Value::Changes(some) = stored.value else { return Err(mistaken(&key).into()) };
            changes.extend(some);
            low = behind(key);
        }
        let mut record = self.record_at(group, value.base)?;
        for (version, position) in changes {
            if version > record.version {
                record.apply(&self.entry_at(group, position)?);
            }
        }
        Ok(record)
    }

    fn record_at(&mut self, group: GroupId, position: Position) -> Result<Record, ReadError> {
        let record = match self.reader.packet(position)?.content {
            Content::Effect(effect) if effect.group == group => Record::from_created(group, &effect.entry),
            Content::Carried(Carried::Record(state)) if state.record.group == group => Some(state.record),
            _ => None,
        };
        record.ok_or_else(|| missing(position))
    }

    fn entry_at(&mut self, group: GroupId, position: Position) -> Result<Entry, ReadError> {
        let entry = entry_of(self.reader.packet(position)?.content, group);
        entry.ok_or_else(|| missing(position))
    }

    pub(super) fn state(&self, group: GroupId) -> Result<Option<StateValue>, IndexError> {
        let key = state_key(group);
        match self.overlay.value(&key)?.map(|stored| stored.value) {
            Some(Value::State(state)) => Ok(Some(state)),
            Some(_) => Err(mistaken(&key)),
            None => Ok(None),
        }
    }

    fn summary(&self, membership: MembershipValue) -> Result<Option<GroupSummary>, IndexError> {
        let (Some(value), Some(state)) = (self.group_value(membership.group)?, self.state(membership.group)?) else {
            return Ok(None);
        };
        Ok(Some(GroupSummary {
            group: membership.group,
            title: value.record.title.to_string(),
            members: value.members_count,
            version: value.record.version,
            head: state.head,
            received: membership.received,
            read: membership.read,
            last_at_ms: state.last_at_ms,
        }))
    }

    /// Gives the settled memberships of a user to `take`, beginning with the value that would hold `from`.
    fn each_membership(
        &self,
        user: &UserId,
        from: [u8; 16],
        mut take: impl FnMut(MembershipValue) -> Result<More, IndexError>,
    ) -> Result<(), IndexError> {
        let (first, last) = (memberships_key(user, [0; 16]), memberships_key(user, [0xff; 16]));
        let mut current = self.overlay.nearest(&first, &memberships_key(user, from), Direction::Descending)?;
        if current.is_none() {
            current = self.overlay.nearest(&first, &last, Direction::Ascending)?;
        }
        while let Some((key, stored)) = current {
            let Value::Memberships(memberships) = stored.value else { return Err(mistaken(&key)) };
            current = self.overlay.nearest(&behind(key), &last, Direction::Ascending)?;
            // A value that a crash left half split may still have what the next one has taken over.
            let end = current.as_ref().and_then(|(key, _)| memberships_first(key));
            for membership in memberships {
                let taken_over = end.is_some_and(|end| *membership.group.as_bytes() >= end);
                if !taken_over && membership.joined > 0 && take(membership)? == More::No {
                    return Ok(());
                }
            }
        }
        Ok(())
    }
}

/// The entry of a group that a packet has, if it has one.
fn entry_of(content: Content, group: GroupId) -> Option<Entry> {
    match content {
        Content::Effect(effect) if effect.group == group => Some(Arc::unwrap_or_clone(effect.entry)),
        Content::Carried(Carried::Entry(CarriedEntry { group: of, entry, .. })) if of == group => Some(entry),
        _ => None,
    }
}

/// Whether an iteration goes on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum More {
    Yes,
    No,
}

/// The lowest key above another.
fn behind(mut key: Vec<u8>) -> Vec<u8> {
    key.push(0);
    key
}

/// The key just before another of the same length.
fn key_before(mut key: Vec<u8>) -> Option<Vec<u8>> {
    let number = u64::from_be_bytes(*key.last_chunk()?).checked_sub(1)?;
    let start = key.len() - 8;
    key.truncate(start);
    key.extend_from_slice(&number.to_be_bytes());
    Some(key)
}

fn damaged_apart(read: Result<Record, FoldError>) -> Read<Record> {
    match read {
        Ok(record) => Ok(Ok(record)),
        Err(FoldError::Journal(error)) => Ok(Err(logged(&error))),
        Err(FoldError::Index(error)) => Err(error),
    }
}

fn logged(error: &ReadError) -> Damaged {
    tracing::error!("{error}");
    Damaged
}

fn missing(position: Position) -> ReadError {
    ReadError::Damaged {
        file: crate::store::journal::segment::segment_path(position.segment),
        offset: u64::from(position.offset),
        reason: "the entry that the index names is not there",
    }
}
