//! Folding entries: where a log stands, and where its entries are.
//!
//! Entries mostly come in the order of seqs. Carried ones come again, from another place: the newest place counts.

use super::fold::mistaken;
use super::{FoldError, Indexer};
use crate::group::{Entry, Event};
use crate::ids::GroupId;
use crate::store::carried::carried_entry_bytes;
use crate::store::disk::Disk;
use crate::store::index::Direction;
use crate::store::journal::Placed;
use crate::store::tables::{
    EXTENT_BYTES_MAX, EXTENTS_PER_VALUE, Extent, StateValue, Stored, Value, extents_first, extents_key, state_key,
};

/// A log of which nothing is known.
const NOTHING: StateValue = StateValue { head: 0, floor: 1, last_at_ms: 0, extents_last: 0, log_bytes: 0 };

impl<D: Disk> Indexer<D> {
    pub(super) fn fold_entry(&mut self, placed: Placed, group: GroupId, entry: &Entry) -> Result<(), FoldError> {
        let (key, lsn, seq) = (state_key(group), placed.lsn, entry.seq);
        let is_created = matches!(entry.event, Event::Created { .. });
        let rebuilding = self.rebuilding;
        let before = match self.overlay.edit(&key)? {
            Some(Stored { lsn: last, .. }) if *last >= lsn => return Ok(()),
            Some(Stored { value: Value::State(state), .. }) => *state,
            Some(_) => return Err(mistaken(&key).into()),
            None if is_created || rebuilding => NOTHING,
            None => return Ok(()),
        };
        let mut state = before;
        if seq >= state.floor {
            let own_bytes = u32::try_from(carried_entry_bytes(entry)).unwrap_or(u32::MAX);
            let extent = Extent { first_seq: seq, count: 1, position: placed.position, bytes: placed.bytes, own_bytes };
            let is_new = if seq > state.head {
                self.append_extent(lsn, group, extent, &mut state)?
            } else {
                self.insert_extent(lsn, group, extent, &mut state)?
            };
            state.log_bytes = state.log_bytes.saturating_add(if is_new { u64::from(own_bytes) } else { 0 });
        }
        if seq >= state.head {
            (state.head, state.last_at_ms) = (seq, entry.at_ms);
        }
        self.put_state(lsn, group, before, state)
    }

    pub(super) fn put_state(
        &mut self,
        lsn: u64,
        group: GroupId,
        before: StateValue,
        state: StateValue,
    ) -> Result<(), FoldError> {
        let (less, more) = (self.kept_bytes(&before), self.kept_bytes(&state));
        self.live_bytes = self.live_bytes.saturating_add(more).saturating_sub(less);
        *self.overlay.edit(&state_key(group))? = Some(Stored { lsn, value: Value::State(state) });
        Ok(())
    }

    /// What retention would keep of a log, about.
    pub(super) fn kept_bytes(&self, state: &StateValue) -> u64 {
        self.retention.kept_bytes(state.log_bytes, (state.head + 1).saturating_sub(state.floor))
    }

    /// Adds an entry behind all others.
    fn append_extent(
        &mut self,
        lsn: u64,
        group: GroupId,
        extent: Extent,
        state: &mut StateValue,
    ) -> Result<bool, FoldError> {
        if state.extents_last == 0 {
            state.extents_last = extent.first_seq;
        }
        let key = extents_key(group, state.extents_last);
        let slot = self.overlay.edit(&key)?;
        let stored = slot.get_or_insert_with(|| Stored { lsn: 0, value: Value::Extents(Vec::new()) });
        if stored.lsn >= lsn {
            return Ok(true);
        }
        let Value::Extents(extents) = &mut stored.value else { return Err(mistaken(&key).into()) };
        let is_full = extents.len() >= EXTENTS_PER_VALUE;
        if extents.last_mut().is_some_and(|last| last.absorb(&extent)) {
            stored.lsn = lsn;
        } else if !is_full {
            extents.push(extent);
            stored.lsn = lsn;
        } else {
            state.extents_last = extent.first_seq;
            let key = extents_key(group, extent.first_seq);
            let slot = self.overlay.edit(&key)?;
            if slot.as_ref().is_none_or(|stored| stored.lsn < lsn) {
                *slot = Some(Stored { lsn, value: Value::Extents(vec![extent]) });
            }
        }
        Ok(true)
    }

    /// Notes a new place of an entry, or one that comes after later ones; gives whether it was not known at all.
    fn insert_extent(
        &mut self,
        lsn: u64,
        group: GroupId,
        extent: Extent,
        state: &mut StateValue,
    ) -> Result<bool, FoldError> {
        let seq = extent.first_seq;
        let here = extents_key(group, seq);
        let nearest = self.overlay.nearest(&extents_key(group, 0), &here, Direction::Descending)?;
        let key = nearest.map_or(here, |(key, _)| key);
        // The last value may have been let go of with all that stood in it: then what comes behind this entry must not
        // go on in its key, which is below this one.
        state.extents_last = state.extents_last.max(extents_first(&key).unwrap_or(seq));
        let slot = self.overlay.edit(&key)?;
        let stored = slot.get_or_insert_with(|| Stored { lsn: 0, value: Value::Extents(Vec::new()) });
        let Value::Extents(extents) = &mut stored.value else { return Err(mistaken(&key).into()) };
        let is_new = !extents.iter().any(|extent| extent.has(seq));
        if stored.lsn >= lsn {
            return Ok(is_new);
        }
        place(extents, extent);
        stored.lsn = lsn;
        if extents.len() > EXTENTS_PER_VALUE {
            self.split_extents(group, &key, state)?;
        }
        Ok(is_new)
    }

    /// Divides a value that became too large. What a crash left half split may still have what the next value has
    /// taken over; that goes first.
    fn split_extents(&mut self, group: GroupId, key: &[u8], state: &mut StateValue) -> Result<(), FoldError> {
        let next = self.extents_behind(group, key)?;
        let Some(Stored { lsn, value: Value::Extents(extents) }) = self.overlay.edit(key)? else {
            return Err(mistaken(key).into());
        };
        if let Some(next) = next {
            extents.retain(|extent| extent.first_seq < next);
        }
        if extents.len() <= EXTENTS_PER_VALUE {
            return Ok(());
        }
        let higher = extents.split_off(extents.len() / 2);
        let lsn = *lsn;
        let Some(first) = higher.first().map(|extent| extent.first_seq) else { return Ok(()) };
        if next.is_none() {
            state.extents_last = first;
        }
        self.overlay.put(&extents_key(group, first), Stored { lsn, value: Value::Extents(higher) });
        Ok(())
    }

    /// The seq in the key of extents behind another.
    pub(super) fn extents_behind(&self, group: GroupId, key: &[u8]) -> Result<Option<u64>, FoldError> {
        let mut behind = key.to_vec();
        behind.push(0);
        let next = self.overlay.nearest(&behind, &extents_key(group, u64::MAX), Direction::Ascending)?;
        Ok(next.as_ref().and_then(|(key, _)| extents_first(key)))
    }

    pub(super) fn fold_floor(&mut self, lsn: u64, group: GroupId, floor: u64) -> Result<(), FoldError> {
        let key = state_key(group);
        let rebuilding = self.rebuilding;
        let before = match self.overlay.edit(&key)? {
            Some(Stored { lsn: last, .. }) if *last >= lsn => return Ok(()),
            Some(Stored { value: Value::State(state), .. }) => *state,
            Some(_) => return Err(mistaken(&key).into()),
            None if rebuilding => NOTHING,
            None => return Ok(()),
        };
        if floor <= before.floor {
            return Ok(());
        }
        let state = self.raise_floor(lsn, group, before, floor)?;
        self.put_state(lsn, group, before, state)?;
        self.drop_former_before(lsn, group, floor)?;
        self.remove_if_over(group)
    }

    /// What becomes of a log of which the entries below a seq are let go.
    pub(super) fn raise_floor(
        &mut self,
        lsn: u64,
        group: GroupId,
        before: StateValue,
        floor: u64,
    ) -> Result<StateValue, FoldError> {
        let gone_bytes = self.trim_extents(lsn, group, floor)?;
        if !self.rebuilding {
            self.dropped_entries += floor.min(before.head + 1).saturating_sub(before.floor);
        }
        let left_bytes = before.log_bytes.saturating_sub(gone_bytes);
        let log_bytes = if floor > before.head { 0 } else { left_bytes };
        Ok(StateValue { floor: floor.max(before.floor), log_bytes, ..before })
    }

    /// Where a log stands, or the beginning of one; nothing if a packet from an LSN on has said more already.
    pub(super) fn state_or_nothing(&mut self, group: GroupId, lsn: u64) -> Result<Option<StateValue>, FoldError> {
        let key = state_key(group);
        match self.overlay.value(&key)? {
            Some(Stored { lsn: last, .. }) if last >= lsn => Ok(None),
            Some(Stored { value: Value::State(state), .. }) => Ok(Some(state)),
            Some(_) => Err(mistaken(&key).into()),
            None => Ok(Some(NOTHING)),
        }
    }

    /// Forgets the places of the entries below a seq; gives what they took.
    fn trim_extents(&mut self, lsn: u64, group: GroupId, floor: u64) -> Result<u64, FoldError> {
        let mut gone_bytes = 0;
        let mut low = extents_key(group, 0);
        let high = extents_key(group, floor.saturating_sub(1));
        while let Some((key, _)) = self.overlay.nearest(&low, &high, Direction::Ascending)? {
            let Some(stored) = self.overlay.edit(&key)? else { break };
            let Value::Extents(extents) = &mut stored.value else { return Err(mistaken(&key).into()) };
            if stored.lsn < lsn {
                stored.lsn = lsn;
                extents.retain_mut(|extent| {
                    gone_bytes += extent.trim(floor);
                    extent.count > 0
                });
            }
            if extents.is_empty() {
                self.overlay.remove(&key);
            }
            low = key;
            low.push(0);
        }
        Ok(gone_bytes)
    }
}

/// Puts a place of one entry into an ordered list, instead of the place that it had.
fn place(extents: &mut Vec<Extent>, extent: Extent) {
    let seq = extent.first_seq;
    let mut at = extents.partition_point(|other| other.first_seq <= seq);
    if let Some(before) = at.checked_sub(1)
        && let Some(old) = extents.get(before).copied().filter(|old| old.has(seq))
    {
        let left = old.part(old.first_seq, seq, extent.own_bytes);
        let right = old.part(seq + 1, old.end(), extent.own_bytes);
        at = before + usize::from(left.is_some());
        extents.splice(before..=before, left.into_iter().chain(right));
    }
    let absorbed =
        at.checked_sub(1).and_then(|before| extents.get_mut(before)).is_some_and(|last| last.absorb(&extent));
    if !absorbed {
        extents.insert(at, extent);
    }
}

impl Extent {
    fn has(&self, seq: u64) -> bool {
        (self.first_seq..self.end()).contains(&seq)
    }

    /// Takes the next entry in, if it stands close behind in the same segment.
    fn absorb(&mut self, next: &Self) -> bool {
        let end = next.position.offset + next.bytes;
        let fits = self.end() == next.first_seq
            && self.position.segment == next.position.segment
            && self.position.offset < next.position.offset
            && end - self.position.offset <= EXTENT_BYTES_MAX;
        if fits {
            self.count += 1;
            self.bytes = end - self.position.offset;
            self.own_bytes = self.own_bytes.saturating_add(next.own_bytes);
        }
        fits
    }

    /// The part from one seq up to another, when one entry that takes `taken_bytes` is taken out between the parts.
    fn part(&self, from: u64, to: u64, taken_bytes: u32) -> Option<Self> {
        let count = u32::try_from(to.checked_sub(from)?).ok().filter(|count| *count > 0)?;
        let rest = u64::from(self.own_bytes.saturating_sub(taken_bytes));
        let own_bytes = rest * u64::from(count) / u64::from(self.count - 1).max(1);
        Some(Self { first_seq: from, count, own_bytes: u32::try_from(own_bytes).unwrap_or(u32::MAX), ..*self })
    }

    /// Lets go of what is below a seq; gives about what that took.
    fn trim(&mut self, floor: u64) -> u64 {
        let gone = u32::try_from(floor.saturating_sub(self.first_seq)).unwrap_or(u32::MAX).min(self.count);
        if gone == 0 {
            return 0;
        }
        let gone_bytes = u64::from(self.own_bytes) * u64::from(gone) / u64::from(self.count);
        self.first_seq += u64::from(gone);
        self.count -= gone;
        self.own_bytes -= u32::try_from(gone_bytes).unwrap_or(self.own_bytes);
        gone_bytes
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::journal::Position;

    fn at(first_seq: u64, segment: u32, offset: u32) -> Extent {
        Extent { first_seq, count: 1, position: Position { segment, offset }, bytes: 64, own_bytes: 50 }
    }

    #[test]
    fn places_stay_in_order_and_cover_each_seq_once_whatever_is_carried() {
        let mut extents = Vec::new();
        for seq in 1..=40 {
            place(&mut extents, at(seq, 1, 512 + 64 * u32::try_from(seq).unwrap()));
        }
        assert_eq!(extents.len(), 1);
        for (number, seq) in [20, 1, 2, 3, 40, 39, 21, 19, 4, 22].into_iter().enumerate() {
            place(&mut extents, at(seq, 2, 512 + 64 * u32::try_from(number).unwrap()));
            let mut next = 1;
            for extent in &extents {
                assert_eq!(extent.first_seq, next, "after {seq}");
                next = extent.end();
            }
            assert_eq!(next, 41);
            assert_eq!(extents.iter().map(|extent| extent.own_bytes).sum::<u32>(), 40 * 50, "after {seq}");
            assert_eq!(extents.iter().find(|extent| extent.has(seq)).unwrap().position.segment, 2);
        }
        let gone: u64 = extents.iter_mut().map(|extent| extent.trim(11)).sum();
        assert_eq!(gone, 500);
    }
}
