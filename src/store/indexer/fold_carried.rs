//! Folding what cleaning has carried.
//!
//! In an index that has followed the journal, carried packets say what it knows already; only the places change. In one
//! that is made anew they are the beginning of what they tell of.

use super::fold::{mistaken, record_bytes};
use super::{FoldError, Indexer};
use crate::ids::GroupId;
use crate::store::carried::{Carried, CarriedEntry};
use crate::store::disk::Disk;
use crate::store::index::Direction;
use crate::store::journal::Placed;
use crate::store::tables::{
    GroupValue, Stored, Value, former_ends, former_group, former_table_ends, former_user, group_key, group_key_of,
    memberships_ends, state_group, state_key_of,
};
use crate::store::{GroupState, Mark};

impl<D: Disk> Indexer<D> {
    pub(super) fn fold_carried(&mut self, placed: Placed, carried: &Carried) -> Result<(), FoldError> {
        let lsn = placed.lsn;
        match carried {
            Carried::Record(state) => self.fold_base(placed, state),
            Carried::Entry(CarriedEntry { group, entry, .. }) => self.fold_entry(placed, *group, entry),
            Carried::Floors(floors) => {
                floors.iter().try_for_each(|(group, floor)| self.fold_floor(lsn, *group, *floor))
            }
            Carried::Marks(marks) => marks.iter().try_for_each(|mark: &Mark| self.fold_mark(lsn, mark)),
            Carried::Memberships { group, members } if self.rebuilding => {
                // The record comes behind them, perhaps.
                members.iter().try_for_each(|member| self.fold_former(lsn, *group, member))
            }
            Carried::Operations(operations) if self.rebuilding => {
                operations.iter().try_for_each(|operation| self.fold_carried_operation(lsn, operation))
            }
            Carried::Memberships { .. } | Carried::Operations(_) | Carried::LogStart { .. } => Ok(()),
        }
    }

    /// The whole record stands here now: what changed it before is not needed any more.
    fn fold_base(&mut self, placed: Placed, state: &GroupState) -> Result<(), FoldError> {
        let record = &state.record;
        let key = group_key(record.group);
        let rebuilding = self.rebuilding;
        match self.overlay.edit(&key)? {
            Some(stored) if stored.lsn >= placed.lsn => return Ok(()),
            Some(Stored { lsn, value: Value::Group(value) }) => {
                (value.base, value.changes_last) = (placed.position, 0);
                *lsn = placed.lsn;
            }
            Some(_) => return Err(mistaken(&key).into()),
            slot @ None if rebuilding => {
                let value = GroupValue::new(record.clone(), placed.position);
                let bytes = record_bytes(value.members_count);
                *slot = Some(Stored { lsn: placed.lsn, value: Value::Group(Box::new(value)) });
                self.live_bytes = self.live_bytes.saturating_add(bytes);
                for member in &record.members {
                    self.join(placed.lsn, &member.user, record.group, member.joined)?;
                }
                self.fold_base_state(placed.lsn, state)?;
            }
            None => return Ok(()),
        }
        self.remove_changes(record.group, record.version)
    }

    fn fold_base_state(&mut self, lsn: u64, told: &GroupState) -> Result<(), FoldError> {
        let group = told.record.group;
        let Some(before) = self.state_or_nothing(group, lsn)? else { return Ok(()) };
        let mut state = self.raise_floor(lsn, group, before, told.floor)?;
        if told.head >= state.head {
            (state.head, state.last_at_ms) = (told.head, told.last_at_ms);
        }
        self.put_state(lsn, group, before, state)
    }

    /// Ends making the index anew: removes what was noted of groups and memberships that are gone.
    pub(super) fn sweep(&mut self) -> Result<(), FoldError> {
        self.sweep_memberships()?;
        self.sweep_former()?;
        self.sweep_groups()?;
        self.sweep_states()
    }

    fn sweep_memberships(&mut self) -> Result<(), FoldError> {
        let (mut low, high) = memberships_ends();
        while let Some((key, stored)) = self.overlay.nearest(&low, &high, Direction::Ascending)? {
            let Value::Memberships(mut memberships) = stored.value else { return Err(mistaken(&key).into()) };
            let before = memberships.len();
            memberships.retain(|membership| membership.joined > 0);
            if memberships.is_empty() {
                self.overlay.remove(&key);
            } else if memberships.len() < before {
                let swept = Stored { lsn: stored.lsn, value: Value::Memberships(memberships) };
                self.overlay.put(&key, swept);
            }
            low = behind(key);
        }
        Ok(())
    }

    fn sweep_former(&mut self) -> Result<(), FoldError> {
        let (mut low, high) = former_table_ends();
        while let Some((key, _)) = self.overlay.nearest(&low, &high, Direction::Ascending)? {
            let parts = former_group(&key).zip(former_user(&key));
            let (group, user) = parts.ok_or_else(|| mistaken(&key))?;
            if self.overlay.value(&group_key(group))?.is_none() {
                self.drop_membership(0, &user, group)?;
            }
            low = behind(key);
        }
        Ok(())
    }

    fn sweep_groups(&mut self) -> Result<(), FoldError> {
        let (mut low, high) = (group_key_of([0; 16]), group_key_of([0xff; 16]));
        while let Some((key, stored)) = self.overlay.nearest(&low, &high, Direction::Ascending)? {
            let Value::Group(value) = stored.value else { return Err(mistaken(&key).into()) };
            if value.record.dissolved && !self.has_former(value.record.group)? {
                self.remove_group(value.record.group)?;
            }
            low = behind(key);
        }
        Ok(())
    }

    fn sweep_states(&mut self) -> Result<(), FoldError> {
        let (mut low, high) = (state_key_of([0; 16]), state_key_of([0xff; 16]));
        while let Some((key, _)) = self.overlay.nearest(&low, &high, Direction::Ascending)? {
            let group = state_group(&key).ok_or_else(|| mistaken(&key))?;
            if self.overlay.value(&group_key(group))?.is_none() {
                self.remove_group(group)?;
            }
            low = behind(key);
        }
        Ok(())
    }

    pub(super) fn has_former(&self, group: GroupId) -> Result<bool, FoldError> {
        let (low, high) = former_ends(group);
        Ok(self.overlay.nearest(&low, &high, Direction::Ascending)?.is_some())
    }
}

fn behind(mut key: Vec<u8>) -> Vec<u8> {
    key.push(0);
    key
}
