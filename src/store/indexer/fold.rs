//! Folding: what each packet changes in the index.
//!
//! Every value is guarded by the LSN of its own last change, so folding again over newer values changes nothing.

use super::{FoldError, Indexer};
use crate::group::{Entry, Event, Record, Succession};
use crate::ids::{GroupId, Principal, UserId};
use crate::limits::{OPERATIONS_REMEMBERED, OPERATIONS_REMEMBERED_SERVICE};
use crate::store::disk::Disk;
use crate::store::index::{Direction, IndexError};
use crate::store::journal::Placed;
use crate::store::tables::{
    CHANGES_PER_VALUE, EXTENT_BYTES_MAX, EXTENTS_PER_VALUE, Extent, GroupValue, MEMBERSHIPS_PER_VALUE, MembersAt,
    MembershipValue, OPERATIONS_PER_VALUE, StateValue, Stored, Value, changes_key, extents_key, group_key,
    memberships_first, memberships_key, operations_key, operations_number, state_key,
};
use crate::store::{Change, Effect, Mark, Operation};

impl<D: Disk> Indexer<D> {
    pub(super) fn fold_change(&mut self, placed: Placed, change: &Change) -> Result<(), FoldError> {
        match change {
            Change::Effect(effect) => {
                self.fold_operation(placed.lsn, effect)?;
                self.fold_state(placed, effect.group, &effect.entry)?;
                if effect.entry.event.changes_record() {
                    self.fold_memberships(placed.lsn, effect.group, &effect.entry)?;
                    self.fold_group(placed, effect.group, &effect.entry)?;
                }
                Ok(())
            }
            Change::Marks(marks) => {
                for mark in marks {
                    self.fold_mark(placed.lsn, mark)?;
                }
                Ok(())
            }
        }
    }

    fn fold_operation(&mut self, lsn: u64, effect: &Effect) -> Result<(), FoldError> {
        let principal = &effect.principal;
        let (low, high) = (operations_key(principal, u64::MAX), operations_key(principal, 0));
        let last = self.overlay.lowest_newest_first(&low, &high)?;
        let number = last.as_deref().and_then(operations_number).unwrap_or(0);
        let key = operations_key(principal, number);
        let slot = self.overlay.edit(&key)?;
        let stored = slot.get_or_insert_with(|| Stored { lsn: 0, value: Value::Operations(Vec::new()) });
        if stored.lsn >= lsn {
            return Ok(());
        }
        let Value::Operations(operations) = &mut stored.value else { return Err(mistaken(&key)) };
        if operations.len() < OPERATIONS_PER_VALUE {
            operations.push(Operation::of(effect));
            stored.lsn = lsn;
            return Ok(());
        }
        let value = Value::Operations(vec![Operation::of(effect)]);
        self.overlay.put(operations_key(principal, number + 1), Stored { lsn, value });
        // The newest value and as many full ones as the limit needs are kept.
        let kept = operations_max(principal).div_ceil(OPERATIONS_PER_VALUE) as u64 + 1;
        if let Some(old) = (number + 1).checked_sub(kept) {
            self.overlay.remove(operations_key(principal, old));
        }
        Ok(())
    }

    fn fold_state(&mut self, placed: Placed, group: GroupId, entry: &Entry) -> Result<(), FoldError> {
        let key = state_key(group);
        let lsn = placed.lsn;
        let state = match self.overlay.edit(&key)? {
            Some(Stored { lsn: last, .. }) if *last >= lsn => return Ok(()),
            Some(Stored { value: Value::State(state), .. }) => *state,
            Some(_) => return Err(mistaken(&key)),
            None => StateValue { head: 0, floor: entry.seq, last_at_ms: 0, extents_last: entry.seq },
        };
        let extents_last = self.fold_extent(placed, group, entry.seq, state.extents_last)?;
        let state = StateValue { head: state.head.max(entry.seq), last_at_ms: entry.at_ms, extents_last, ..state };
        *self.overlay.edit(&key)? = Some(Stored { lsn, value: Value::State(state) });
        Ok(())
    }

    /// Gives the seq in the last key of extents.
    fn fold_extent(&mut self, placed: Placed, group: GroupId, seq: u64, last: u64) -> Result<u64, FoldError> {
        let lsn = placed.lsn;
        let key = extents_key(group, last);
        let slot = self.overlay.edit(&key)?;
        let stored = slot.get_or_insert_with(|| Stored { lsn: 0, value: Value::Extents(Vec::new()) });
        if stored.lsn >= lsn {
            return Ok(last);
        }
        let Value::Extents(extents) = &mut stored.value else { return Err(mistaken(&key)) };
        if let Some(extent) = extents.last_mut()
            && extent.position.segment == placed.position.segment
            && placed.end().offset - extent.position.offset <= EXTENT_BYTES_MAX
        {
            extent.count += 1;
            extent.bytes = placed.end().offset - extent.position.offset;
            stored.lsn = lsn;
            return Ok(last);
        }
        let extent = Extent { first_seq: seq, count: 1, position: placed.position, bytes: placed.bytes };
        if extents.len() < EXTENTS_PER_VALUE {
            extents.push(extent);
            stored.lsn = lsn;
            return Ok(last);
        }
        let key = extents_key(group, seq);
        let slot = self.overlay.edit(&key)?;
        if slot.as_ref().is_none_or(|stored| stored.lsn < lsn) {
            *slot = Some(Stored { lsn, value: Value::Extents(vec![extent]) });
        }
        Ok(seq)
    }

    fn fold_group(&mut self, placed: Placed, group: GroupId, entry: &Entry) -> Result<(), FoldError> {
        let key = group_key(group);
        let lsn = placed.lsn;
        let slot = self.overlay.edit(&key)?;
        if let Some(record) = Record::from_created(group, entry) {
            if slot.is_none() {
                let members_count = count(record.members.len());
                let created = placed.position;
                let members_at = MembersAt::Value;
                let mut value = GroupValue { record, members_count, changes: 0, created, members_at };
                value.shrink();
                *slot = Some(Stored { lsn, value: Value::Group(value) });
            }
            return Ok(());
        }
        let Some(stored) = slot else { return Ok(()) };
        if stored.lsn >= lsn {
            return Ok(());
        }
        let Value::Group(value) = &mut stored.value else { return Err(mistaken(&key)) };
        value.members_count = members_after(value.members_count, &entry.event);
        value.record.apply(entry);
        // Where the members stand in the journal, those that an entry adds must not stay in the record alone.
        match value.members_at {
            MembersAt::Journal if value.record.dissolved => value.members_at = MembersAt::Value,
            MembersAt::Journal => value.record.members = Vec::new(),
            MembersAt::Value => value.shrink(),
        }
        let number = value.changes / CHANGES_PER_VALUE;
        value.changes += 1;
        stored.lsn = lsn;
        self.fold_position(placed, &changes_key(group, number))
    }

    fn fold_position(&mut self, placed: Placed, key: &[u8]) -> Result<(), FoldError> {
        let slot = self.overlay.edit(key)?;
        let stored = slot.get_or_insert_with(|| Stored { lsn: 0, value: Value::Changes(Vec::new()) });
        if stored.lsn < placed.lsn {
            let Value::Changes(positions) = &mut stored.value else { return Err(mistaken(key)) };
            positions.push(placed.position);
            stored.lsn = placed.lsn;
        }
        Ok(())
    }

    fn fold_memberships(&mut self, lsn: u64, group: GroupId, entry: &Entry) -> Result<(), FoldError> {
        match &entry.event {
            Event::Created { members, .. } | Event::Added { members } => {
                for user in members {
                    self.join(lsn, user, group, entry.seq)?;
                }
            }
            Event::Removed { members } => {
                for user in members {
                    self.end(lsn, user, group, entry.seq)?;
                }
            }
            Event::Left { succession: Succession::Unchanged | Succession::Passed { .. } } => {
                self.end(lsn, &entry.sender, group, entry.seq)?;
            }
            Event::Left { succession: Succession::Dissolved } | Event::Dissolved => {
                let Some(value) = self.group_value(group)? else { return Ok(()) };
                for member in self.with_members(group, value)?.members {
                    self.end(lsn, &member.user, group, entry.seq)?;
                }
            }
            Event::Renamed { .. } | Event::Transferred { .. } | Event::Message { .. } | Event::Whisper { .. } => {}
        }
        Ok(())
    }

    fn join(&mut self, lsn: u64, user: &UserId, group: GroupId, seq: u64) -> Result<(), FoldError> {
        let key = self.memberships_key_of(user, group)?;
        let slot = self.overlay.edit(&key)?;
        let stored = slot.get_or_insert_with(|| Stored { lsn: 0, value: Value::Memberships(Vec::new()) });
        if stored.lsn >= lsn {
            return Ok(());
        }
        stored.lsn = lsn;
        let Value::Memberships(memberships) = &mut stored.value else { return Err(mistaken(&key)) };
        match memberships.binary_search_by_key(&group, |membership| membership.group) {
            Ok(at) => {
                let membership = &mut memberships[at];
                membership.joined = seq;
                membership.until = None;
            }
            Err(at) => {
                let new = MembershipValue { group, joined: seq, until: None, received: 0, read: 0 };
                memberships.insert(at, new);
            }
        }
        if memberships.len() > MEMBERSHIPS_PER_VALUE { self.split(user, &key) } else { Ok(()) }
    }

    /// Divides a value that became too large. A value that a crash left half split may still have what the next one
    /// has taken over; that goes first.
    fn split(&mut self, user: &UserId, key: &[u8]) -> Result<(), FoldError> {
        let mut behind = key.to_vec();
        behind.push(0);
        let next = self.overlay.nearest(&behind, &memberships_key(user, [0xff; 16]), Direction::Ascending)?;
        let next = next.as_ref().and_then(|(key, _)| memberships_first(key));
        let Some(Stored { lsn, value: Value::Memberships(memberships) }) = self.overlay.edit(key)? else {
            return Err(mistaken(key));
        };
        if let Some(next) = next {
            memberships.retain(|membership| *membership.group.as_bytes() < next);
        }
        if memberships.len() <= MEMBERSHIPS_PER_VALUE {
            return Ok(());
        }
        // Group ids ascend with time, so a user's newest group mostly comes last: then the lower value stays full.
        let at = if next.is_none() { MEMBERSHIPS_PER_VALUE } else { memberships.len() / 2 };
        let higher = memberships.split_off(at);
        let lsn = *lsn;
        let Some(first) = higher.first() else { return Ok(()) };
        let key = memberships_key(user, *first.group.as_bytes());
        self.overlay.put(key, Stored { lsn, value: Value::Memberships(higher) });
        Ok(())
    }

    fn end(&mut self, lsn: u64, user: &UserId, group: GroupId, seq: u64) -> Result<(), FoldError> {
        self.change_membership(lsn, user, group, |last, membership| {
            if last < lsn && membership.until.is_none() {
                membership.until = Some(seq);
            }
        })
    }

    fn fold_mark(&mut self, lsn: u64, mark: &Mark) -> Result<(), FoldError> {
        // Marks only grow, so they need no guard, and one packet may have several in one value.
        self.change_membership(lsn, &mark.user, mark.group, |_, membership| {
            membership.received = membership.received.max(mark.received);
            membership.read = membership.read.max(mark.read);
        })
    }

    fn change_membership(
        &mut self,
        lsn: u64,
        user: &UserId,
        group: GroupId,
        change: impl FnOnce(u64, &mut MembershipValue),
    ) -> Result<(), FoldError> {
        let key = self.memberships_key_of(user, group)?;
        let Some(stored) = self.overlay.edit(&key)? else { return Ok(()) };
        let Value::Memberships(memberships) = &mut stored.value else { return Err(mistaken(&key)) };
        if let Ok(at) = memberships.binary_search_by_key(&group, |membership| membership.group) {
            change(stored.lsn, &mut memberships[at]);
            stored.lsn = stored.lsn.max(lsn);
        }
        Ok(())
    }

    /// The key that holds, or would hold, a membership.
    fn memberships_key_of(&self, user: &UserId, group: GroupId) -> Result<Vec<u8>, IndexError> {
        let first = memberships_key(user, [0; 16]);
        let nearest = self.overlay.nearest(&first, &memberships_key(user, *group.as_bytes()), Direction::Descending)?;
        Ok(nearest.map_or(first, |(key, _)| key))
    }
}

/// Operations of a principal that are remembered.
pub(super) fn operations_max(principal: &Principal) -> usize {
    match principal {
        Principal::User(_) => OPERATIONS_REMEMBERED,
        Principal::Service(_) => OPERATIONS_REMEMBERED_SERVICE,
    }
}

fn members_after(before: u32, event: &Event) -> u32 {
    match event {
        Event::Added { members } => before.saturating_add(count(members.len())),
        Event::Removed { members } => before.saturating_sub(count(members.len())),
        Event::Left { succession: Succession::Unchanged | Succession::Passed { .. } } => before.saturating_sub(1),
        Event::Left { succession: Succession::Dissolved } | Event::Dissolved => 0,
        Event::Created { .. }
        | Event::Renamed { .. }
        | Event::Transferred { .. }
        | Event::Message { .. }
        | Event::Whisper { .. } => before,
    }
}

fn count(length: usize) -> u32 {
    u32::try_from(length).expect("a group has at most 10,000 members")
}

fn mistaken(key: &[u8]) -> FoldError {
    FoldError::Index(IndexError(format!("key {key:02x?} holds a value of another table")))
}
