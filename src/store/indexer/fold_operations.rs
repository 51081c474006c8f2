//! Folding remembered operations: the newest so many of each principal, in the order of the LSNs at which they took
//! effect, whatever the order in which packets tell of them.

use super::fold::mistaken;
use super::{FoldError, Indexer};
use crate::ids::Principal;
use crate::limits::{OPERATIONS_REMEMBERED, OPERATIONS_REMEMBERED_SERVICE};
use crate::store::carried::CarriedOperation;
use crate::store::disk::Disk;
use crate::store::index::Direction;
use crate::store::tables::{OPERATIONS_PER_VALUE, OperationsValue, Stored, Value, operations_key};
use crate::store::{Effect, Operation};

/// What carrying one operation takes, about.
const OPERATION_BYTES: u64 = 88;

impl<D: Disk> Indexer<D> {
    pub(super) fn fold_operation(&mut self, lsn: u64, effect: &Effect) -> Result<(), FoldError> {
        let principal = &effect.principal;
        let operation = (lsn, Operation::of(effect));
        let Some(key) = self.newest_operations(principal)? else {
            self.put_operations(principal, lsn, OperationsValue { older: 0, list: vec![operation] }, lsn);
            self.live_bytes = self.live_bytes.saturating_add(OPERATION_BYTES);
            return Ok(());
        };
        let Some(stored) = self.overlay.edit(&key)? else { return Err(mistaken(&key).into()) };
        if stored.lsn >= lsn {
            return Ok(());
        }
        let Value::Operations(newest) = &mut stored.value else { return Err(mistaken(&key).into()) };
        self.live_bytes = self.live_bytes.saturating_add(OPERATION_BYTES);
        if newest.list.len() < OPERATIONS_PER_VALUE {
            if planted!("indexer: the oldest of a value's operations gives way") && newest.list.len() > 7 {
                newest.list.remove(0);
            }
            newest.list.push(operation);
            stored.lsn = lsn;
            return Ok(());
        }
        let mut older = newest.older + newest.list.len() as u64;
        if older > operations_max(principal) as u64 && !self.trimmed.contains_key(principal) {
            older = self.count_operations(principal)?;
            self.trimmed.insert(principal.clone(), operations_key(principal, 0));
        }
        let older = self.trim_operations(principal, older)?;
        self.put_operations(principal, lsn, OperationsValue { older, list: vec![operation] }, lsn);
        Ok(())
    }

    /// Takes over an operation from a carried packet, while the index is made anew.
    pub(super) fn fold_carried_operation(&mut self, lsn: u64, carried: &CarriedOperation) -> Result<(), FoldError> {
        let principal = &carried.principal;
        let operation = (carried.lsn, carried.operation);
        // It may be older than all that was removed.
        if let Some(behind) = self.trimmed.get_mut(principal) {
            *behind = operations_key(principal, 0);
        }
        let Some(newest_key) = self.newest_operations(principal)? else {
            self.live_bytes = self.live_bytes.saturating_add(OPERATION_BYTES);
            self.put_operations(principal, carried.lsn, OperationsValue { older: 0, list: vec![operation] }, lsn);
            return Ok(());
        };
        let (low, high) = (operations_key(principal, carried.lsn), operations_key(principal, 0));
        let key = self.overlay.nearest(&low, &high, Direction::Ascending)?.map_or(low, |(key, _)| key);
        // Looked at first: to edit an older value and not the newest would leave a layer without the newest, see below.
        if let Some(Stored { value: Value::Operations(value), .. }) = self.overlay.value(&key)?
            && value.list.binary_search_by_key(&carried.lsn, |(lsn, _)| *lsn).is_ok()
        {
            return Ok(());
        }
        let slot = self.overlay.edit(&key)?;
        let stored =
            slot.get_or_insert_with(|| Stored { lsn: 0, value: Value::Operations(OperationsValue::default()) });
        let Value::Operations(value) = &mut stored.value else { return Err(mistaken(&key).into()) };
        let Err(at) = value.list.binary_search_by_key(&carried.lsn, |(lsn, _)| *lsn) else { return Ok(()) };
        value.list.insert(at, operation);
        stored.lsn = stored.lsn.max(lsn);
        self.live_bytes = self.live_bytes.saturating_add(OPERATION_BYTES);
        // Half of a value that is full goes on by itself, unless what comes in order is only at its end.
        let cut = if at == OPERATIONS_PER_VALUE { at } else { OPERATIONS_PER_VALUE / 2 };
        let higher = (value.list.len() > OPERATIONS_PER_VALUE).then(|| value.list.split_off(cut));
        let (lower, older) = (value.list.len() as u64, value.older);
        let value_lsn = stored.lsn;
        let is_newest = key == newest_key;
        let Some(higher) = higher else {
            return if is_newest { Ok(()) } else { self.count_older(&newest_key) };
        };
        let first = higher.first().map_or(carried.lsn, |(lsn, _)| *lsn);
        if is_newest {
            let value = OperationsValue { older: older + lower, list: higher };
            self.put_operations(principal, first, value, value_lsn);
            return Ok(());
        }
        self.put_operations(principal, first, OperationsValue { older: 0, list: higher }, value_lsn);
        self.count_older(&newest_key)
    }

    /// The newest value is changed whenever an older one is: so the newest layer of the overlay that has any value of
    /// a principal has the newest one.
    fn count_older(&mut self, newest_key: &[u8]) -> Result<(), FoldError> {
        match self.overlay.edit(newest_key)? {
            Some(Stored { value: Value::Operations(newest), .. }) => {
                newest.older += 1;
                Ok(())
            }
            _ => Err(mistaken(newest_key).into()),
        }
    }

    /// What is stored, counted anew: a flush that was cut short may have removed the oldest value, and not have written
    /// the newest one, which still counts it. Trimming by that would take more than the window can spare.
    fn count_operations(&self, principal: &Principal) -> Result<u64, FoldError> {
        let (mut low, high) = (operations_key(principal, u64::MAX), operations_key(principal, 0));
        let mut count = 0;
        while let Some((key, stored)) = self.overlay.nearest(&low, &high, Direction::Ascending)? {
            let Value::Operations(value) = stored.value else { return Err(mistaken(&key).into()) };
            count += value.list.len() as u64;
            low = key;
            low.push(0);
        }
        Ok(count)
    }

    /// Removes the oldest values that the window does not need, when `older` operations stand in all values and a new
    /// one is begun; gives how many are left.
    fn trim_operations(&mut self, principal: &Principal, mut older: u64) -> Result<u64, FoldError> {
        let limit = operations_max(principal) as u64;
        let (low, mut high) = (operations_key(principal, u64::MAX), self.behind_operations(principal));
        while older > limit
            && let Some((key, stored)) = self.overlay.nearest(&low, &high, Direction::Descending)?
        {
            let Value::Operations(value) = stored.value else { return Err(mistaken(&key).into()) };
            let count = value.list.len() as u64;
            if older.saturating_sub(count) < limit {
                break;
            }
            older -= count;
            self.live_bytes = self.live_bytes.saturating_sub(count * OPERATION_BYTES);
            high.clone_from(&key);
            self.overlay.remove(&key);
        }
        if let Some(behind) = self.trimmed.get_mut(principal) {
            *behind = high;
        }
        Ok(older)
    }

    /// A key behind all operations of a principal.
    fn behind_operations(&self, principal: &Principal) -> Vec<u8> {
        self.trimmed.get(principal).cloned().unwrap_or_else(|| operations_key(principal, 0))
    }

    fn newest_operations(&self, principal: &Principal) -> Result<Option<Vec<u8>>, FoldError> {
        let (low, high) = (operations_key(principal, u64::MAX), operations_key(principal, 0));
        Ok(self.overlay.lowest_newest_first(&low, &high)?)
    }

    fn put_operations(&mut self, principal: &Principal, first_lsn: u64, value: OperationsValue, lsn: u64) {
        self.overlay.put(&operations_key(principal, first_lsn), Stored { lsn, value: Value::Operations(value) });
    }

    /// The LSN of the oldest operation of a principal that is kept.
    pub(super) fn oldest_operation(&self, principal: &Principal) -> Result<Option<u64>, FoldError> {
        let (low, high) = (operations_key(principal, u64::MAX), self.behind_operations(principal));
        match self.overlay.nearest(&low, &high, Direction::Descending)? {
            Some((_, Stored { value: Value::Operations(value), .. })) => Ok(value.list.first().map(|(lsn, _)| *lsn)),
            Some((key, _)) => Err(mistaken(&key).into()),
            None => Ok(None),
        }
    }
}

/// Operations of a principal that are remembered.
pub(super) fn operations_max(principal: &Principal) -> usize {
    match principal {
        Principal::User(_) => OPERATIONS_REMEMBERED,
        Principal::Service(_) => OPERATIONS_REMEMBERED_SERVICE,
    }
}
