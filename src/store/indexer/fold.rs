//! Folding: what each packet changes in the index.
//!
//! Every value is guarded by the LSN of its own last change, so folding again over newer values changes nothing.
//!
//! What is said of a group that is not known is passed over: its record is gone, or, while the index is made anew,
//! comes later in a carried packet, which then has everything that was passed over. Only entries and marks are noted
//! all the same while the index is made anew, because carried packets do not repeat those of later segments.

use super::{FoldError, Indexer};
use crate::group::{Entry, Event, Record, Succession};
use crate::ids::GroupId;
use crate::store::Effect;
use crate::store::disk::Disk;
use crate::store::index::{Direction, IndexError};
use crate::store::journal::{Content, Placed};
use crate::store::tables::{
    CHANGES_PER_VALUE, GroupValue, MembersAt, Stored, Value, changes_key, extents_key, group_key, state_key,
};

impl<D: Disk> Indexer<D> {
    pub(super) fn fold_content(&mut self, placed: Placed, content: &Content) -> Result<(), FoldError> {
        match content {
            Content::Effect(effect) => self.fold_effect(placed, effect),
            Content::Marks(marks) => {
                for mark in marks {
                    self.fold_mark(placed.lsn, mark)?;
                }
                Ok(())
            }
            Content::Carried(carried) => self.fold_carried(placed, carried),
            Content::Watermark(_) => Ok(()),
        }
    }

    fn fold_effect(&mut self, placed: Placed, effect: &Effect) -> Result<(), FoldError> {
        let Effect { group, entry, .. } = effect;
        self.fold_operation(placed.lsn, effect)?;
        self.fold_entry(placed, *group, entry)?;
        if !entry.event.changes_record() {
            return Ok(());
        }
        if !is_created(&entry.event) && self.overlay.value(&group_key(*group))?.is_none() {
            return Ok(());
        }
        self.fold_memberships(placed.lsn, *group, entry)?;
        self.fold_group(placed, *group, entry)?;
        if ends_group(&entry.event) {
            self.remove_if_over(*group)?;
        }
        Ok(())
    }

    fn fold_group(&mut self, placed: Placed, group: GroupId, entry: &Entry) -> Result<(), FoldError> {
        let key = group_key(group);
        let lsn = placed.lsn;
        let slot = self.overlay.edit(&key)?;
        if let Some(record) = Record::from_created(group, entry) {
            if slot.is_none() {
                let value = GroupValue::new(record, placed.position);
                self.live_bytes = self.live_bytes.saturating_add(record_bytes(value.members_count));
                *slot = Some(Stored { lsn, value: Value::Group(Box::new(value)) });
            }
            return Ok(());
        }
        let Some(stored) = slot else { return Ok(()) };
        if stored.lsn >= lsn {
            return Ok(());
        }
        let Value::Group(value) = &mut stored.value else { return Err(mistaken(&key).into()) };
        let before = record_bytes(value.members_count);
        value.members_count = members_after(value.members_count, &entry.event);
        let after = record_bytes(value.members_count);
        value.record.apply(entry);
        // Where the members stand in the journal, those that an entry adds must not stay in the record alone.
        match value.members_at {
            MembersAt::Journal if value.record.dissolved => value.members_at = MembersAt::Value,
            MembersAt::Journal => value.record.members = Vec::new(),
            MembersAt::Value => value.shrink(),
        }
        let changes_last = value.changes_last;
        stored.lsn = lsn;
        self.live_bytes = self.live_bytes.saturating_add(after).saturating_sub(before);
        let changes_last = self.fold_change(placed, group, entry.version, changes_last)?;
        if let Some(Stored { value: Value::Group(value), .. }) = self.overlay.edit(&key)? {
            value.changes_last = changes_last;
        }
        Ok(())
    }

    /// Notes where a change of a record stands; gives the version in the last key of changes.
    fn fold_change(&mut self, placed: Placed, group: GroupId, version: u64, last: u64) -> Result<u64, FoldError> {
        let change = (version, placed.position);
        let fresh = || Stored { lsn: placed.lsn, value: Value::Changes(vec![change]) };
        if last == 0 {
            self.overlay.put(&changes_key(group, version), fresh());
            return Ok(version);
        }
        let key = changes_key(group, last);
        let slot = self.overlay.edit(&key)?;
        let stored = slot.get_or_insert_with(|| Stored { lsn: 0, value: Value::Changes(Vec::new()) });
        if stored.lsn >= placed.lsn {
            return Ok(last);
        }
        let Value::Changes(changes) = &mut stored.value else { return Err(mistaken(&key).into()) };
        if changes.len() < CHANGES_PER_VALUE {
            changes.push(change);
            stored.lsn = placed.lsn;
            return Ok(last);
        }
        self.overlay.put(&changes_key(group, version), fresh());
        Ok(version)
    }

    /// Forgets the changes up to a version: a newer packet has the whole record.
    pub(super) fn remove_changes(&mut self, group: GroupId, through: u64) -> Result<(), FoldError> {
        self.remove_range(&changes_key(group, 0), &changes_key(group, through))
    }

    /// Removes a dissolved group when nobody has a membership in it any more. While the index is made anew that waits
    /// for the end: memberships that are kept may not have been told yet.
    pub(super) fn remove_if_over(&mut self, group: GroupId) -> Result<(), FoldError> {
        if self.rebuilding {
            return Ok(());
        }
        let dissolved = self.group_value(group)?.is_some_and(|value| value.record.dissolved);
        if !dissolved {
            return Ok(());
        }
        if self.has_former(group)? { Ok(()) } else { self.remove_group(group) }
    }

    /// Removes everything of a group but the operations that made it.
    pub(super) fn remove_group(&mut self, group: GroupId) -> Result<(), FoldError> {
        if let Some(value) = self.group_value(group)? {
            self.live_bytes = self.live_bytes.saturating_sub(record_bytes(value.members_count));
            self.overlay.remove(&group_key(group));
        }
        if let Some(state) = self.state(group)? {
            self.live_bytes = self.live_bytes.saturating_sub(self.kept_bytes(&state));
            self.overlay.remove(&state_key(group));
        }
        self.remove_changes(group, u64::MAX)?;
        self.remove_range(&extents_key(group, 0), &extents_key(group, u64::MAX))
    }

    fn remove_range(&mut self, low: &[u8], high: &[u8]) -> Result<(), FoldError> {
        while let Some((key, _)) = self.overlay.nearest(low, high, Direction::Ascending)? {
            self.overlay.remove(&key);
        }
        Ok(())
    }
}

/// What carrying a record takes, about, with the marks of its members.
pub(super) fn record_bytes(members: u32) -> u64 {
    150 + 64 * u64::from(members)
}

fn is_created(event: &Event) -> bool {
    matches!(event, Event::Created { .. })
}

fn ends_group(event: &Event) -> bool {
    matches!(event, Event::Dissolved | Event::Left { succession: Succession::Dissolved })
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

pub(super) fn mistaken(key: &[u8]) -> IndexError {
    IndexError(format!("key {key:02x?} holds a value of another table"))
}
