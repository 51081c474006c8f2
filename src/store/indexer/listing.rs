//! Going through everything that the index holds: for those who compare or copy a whole directory.

use super::Indexer;
use crate::ids::{GroupId, Principal, UserId};
use crate::store::disk::Disk;
use crate::store::index::{Direction, IndexError};
use crate::store::tables::{
    Extent, Value, extents_key, memberships_key, memberships_user, operations_key, operations_principal, state_key,
};

impl<D: Disk> Indexer<D> {
    /// The next user with memberships, in the order of their keys.
    pub(crate) fn next_user(&self, after: Option<&UserId>) -> Result<Option<UserId>, IndexError> {
        let low = after.map_or_else(|| vec![0x60], |user| behind(memberships_key(user, [0xff; 16])));
        let found = self.overlay.nearest(&low, &[0x60, 0xff], Direction::Ascending)?;
        let keys = [found.map(|(key, _)| key), self.joinings.next_key(&low)];
        Ok(keys.into_iter().flatten().min().and_then(|key| memberships_user(&key)))
    }

    /// The next principal with remembered operations, in the order of their keys.
    pub(crate) fn next_principal(&self, after: Option<&Principal>) -> Result<Option<Principal>, IndexError> {
        let low = after.map_or_else(|| vec![0x40], |principal| behind(operations_key(principal, 0)));
        let found = self.overlay.nearest(&low, &[0x40, 0xff], Direction::Ascending)?;
        Ok(found.and_then(|(key, _)| operations_principal(&key)))
    }

    /// The next group with the floor and the head of its log, in the order of group ids.
    pub(crate) fn next_log(&self, after: Option<GroupId>) -> Result<Option<(GroupId, u64, u64)>, IndexError> {
        let low = after.map_or_else(|| vec![0x30], |group| behind(state_key(group)));
        let Some((key, stored)) = self.overlay.nearest(&low, &[0x30, 0xff], Direction::Ascending)? else {
            return Ok(None);
        };
        let group = key.last_chunk().and_then(|bytes| GroupId::from_bytes(*bytes));
        match (group, stored.value) {
            (Some(group), Value::State(state)) => Ok(Some((group, state.floor, state.head))),
            _ => Err(IndexError(format!("key {key:02x?} does not hold a state"))),
        }
    }

    /// Where the entries of a group stand, in the order of their seqs.
    pub(crate) fn extents(&self, group: GroupId) -> Result<Vec<Extent>, IndexError> {
        let mut extents = Vec::new();
        let (mut low, high) = (extents_key(group, 0), extents_key(group, u64::MAX));
        while let Some((key, stored)) = self.overlay.nearest(&low, &high, Direction::Ascending)? {
            let Value::Extents(some) = stored.value else {
                return Err(IndexError(format!("key {key:02x?} does not hold extents")));
            };
            extents.extend(some);
            low = behind(key);
        }
        Ok(extents)
    }
}

/// The lowest key behind another.
fn behind(mut key: Vec<u8>) -> Vec<u8> {
    key.push(0);
    key
}
