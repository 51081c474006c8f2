//! What has been folded but not flushed, over the index: so a look-up sees everything that is journalled.
//!
//! Two layers: changes go into the *active* one; to flush, it is *frozen* as a whole and written out in batches while
//! a new active one fills. A frozen layer is the state after one certain packet. It is written in the descending order
//! of keys and removed as it is written; the applied LSN goes last, with the last batch. After a crash in between, some
//! values on disk are newer than the applied LSN; replay passes over them, because each carries the LSN of its own last
//! change. For that the order matters, and it is the order of tables (`tables.rs`): what points is written after what
//! it points to (a state after the extents, a record after the changes and after the memberships that the same entry
//! ended), the higher half of a split value before the lower half gives it up, and older operations before newer ones,
//! because only the newest is asked whether it has a packet already.

use std::collections::BTreeMap;
use std::ops::Bound;

use super::index::{BATCH_BYTES_MAX, Batch, Direction, Index, IndexError};
use super::tables::{AppliedValue, Stored, Value, applied_key};

type Layer = BTreeMap<Vec<u8>, Option<Stored>>;

/// The layers over an index.
pub(crate) struct Overlay {
    index: Box<dyn Index>,
    active: Layer,
    frozen: Layer,
    /// What the frozen layer is the state after; `None` while there is no frozen layer.
    frozen_applied: Option<AppliedValue>,
}

/// Whether a flush has more to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Flush {
    /// The frozen layer is not written yet.
    More,
    /// There is no frozen layer any more.
    Done,
}

impl Overlay {
    /// Nothing over `index`.
    pub(crate) fn new(index: Box<dyn Index>) -> Self {
        Self { index, active: Layer::new(), frozen: Layer::new(), frozen_applied: None }
    }

    /// Up to where the index itself has applied the journal.
    pub(crate) fn applied(&self) -> Result<Option<AppliedValue>, IndexError> {
        let key = applied_key();
        match self.index.value(&key)?.map(|bytes| decode(&key, &bytes)).transpose()? {
            Some(Stored { value: Value::Applied(applied), .. }) => Ok(Some(applied)),
            Some(_) => Err(IndexError("the applied LSN is another value".to_owned())),
            None => Ok(None),
        }
    }

    /// The value of a key.
    pub(crate) fn value(&self, key: &[u8]) -> Result<Option<Stored>, IndexError> {
        match self.active.get(key).or_else(|| self.frozen.get(key)) {
            Some(stored) => Ok(stored.clone()),
            None => self.index.value(key)?.map(|bytes| decode(key, &bytes)).transpose(),
        }
    }

    /// Whether a key has a value.
    pub(crate) fn contains(&self, key: &[u8]) -> Result<bool, IndexError> {
        match self.active.get(key).or_else(|| self.frozen.get(key)) {
            Some(stored) => Ok(stored.is_some()),
            None => Ok(self.index.value(key)?.is_some()),
        }
    }

    /// The value of a key, to be changed.
    pub(crate) fn edit(&mut self, key: &[u8]) -> Result<&mut Option<Stored>, IndexError> {
        if !self.active.contains_key(key) {
            let stored = self.value(key)?;
            self.active.insert(key.to_vec(), stored);
        }
        self.active.get_mut(key).ok_or_else(|| IndexError("unreachable".to_owned()))
    }

    /// Puts a value.
    pub(crate) fn put(&mut self, key: Vec<u8>, stored: Stored) {
        self.active.insert(key, Some(stored));
    }

    /// Removes a value.
    pub(crate) fn remove(&mut self, key: Vec<u8>) {
        self.active.insert(key, None);
    }

    /// The item with the nearest key in `low` ..= `high`, from the low or from the high end.
    pub(crate) fn nearest(
        &self,
        low: &[u8],
        high: &[u8],
        direction: Direction,
    ) -> Result<Option<(Vec<u8>, Stored)>, IndexError> {
        let (mut low, mut high) = (Bound::Included(low.to_vec()), Bound::Included(high.to_vec()));
        loop {
            let candidates = [
                nearest_in(&self.active, &low, &high, direction),
                nearest_in(&self.frozen, &low, &high, direction),
                self.nearest_indexed(&low, &high, direction)?,
            ];
            let keys = candidates.into_iter().flatten();
            let found = match direction {
                Direction::Ascending => keys.min(),
                Direction::Descending => keys.max(),
            };
            let Some(key) = found else { return Ok(None) };
            if let Some(stored) = self.value(&key)? {
                return Ok(Some((key, stored)));
            }
            // Removed, but the index below does not know yet: look behind it.
            match direction {
                Direction::Ascending => low = Bound::Excluded(key),
                Direction::Descending => high = Bound::Excluded(key),
            }
        }
    }

    /// The lowest key in the range that has a value, looked for in the newest layer first. Only for tables in which
    /// newer keys are lower and only the lowest is ever changed: it spares the index a scan for each packet.
    pub(crate) fn lowest_newest_first(&self, low: &[u8], high: &[u8]) -> Result<Option<Vec<u8>>, IndexError> {
        for layer in [&self.active, &self.frozen] {
            let mut range = layer.range(low.to_vec()..=high.to_vec());
            if let Some((key, _)) = range.find(|(_, stored)| stored.is_some()) {
                return Ok(Some(key.clone()));
            }
        }
        Ok(self.nearest(low, high, Direction::Ascending)?.map(|(key, _)| key))
    }

    fn nearest_indexed(
        &self,
        low: &Bound<Vec<u8>>,
        high: &Bound<Vec<u8>>,
        direction: Direction,
    ) -> Result<Option<Vec<u8>>, IndexError> {
        if is_empty(low, high) {
            return Ok(None);
        }
        let (Bound::Included(from) | Bound::Excluded(from)) = low else { return Ok(None) };
        let (Bound::Included(to) | Bound::Excluded(to)) = high else { return Ok(None) };
        // Two, because the first may be the excluded end itself.
        let items = self.index.scan(from, to, direction, 2)?;
        let inside = |key: &Vec<u8>| *low != Bound::Excluded(key.clone()) && *high != Bound::Excluded(key.clone());
        Ok(items.into_iter().map(|(key, _)| key).find(inside))
    }

    /// Values that are not flushed.
    pub(crate) fn dirty(&self) -> usize {
        self.active.len() + self.frozen.len()
    }

    /// Values that are not frozen.
    pub(crate) fn active(&self) -> usize {
        self.active.len()
    }

    /// Whether a frozen layer waits to be written.
    pub(crate) fn is_flushing(&self) -> bool {
        self.frozen_applied.is_some()
    }

    /// Freezes the active layer, which is the state after `applied`. There must be no frozen one.
    pub(crate) fn freeze(&mut self, applied: AppliedValue) {
        assert!(self.frozen_applied.is_none(), "one layer is flushed at a time");
        self.frozen = std::mem::take(&mut self.active);
        self.frozen_applied = Some(applied);
    }

    /// Writes one batch of the frozen layer.
    pub(crate) fn flush_step(&mut self) -> Result<Flush, IndexError> {
        let Some(applied) = self.frozen_applied else { return Ok(Flush::Done) };
        let key = applied_key();
        let last = Stored { lsn: applied.lsn, value: Value::Applied(applied) }.encode(&key);
        let mut room = BATCH_BYTES_MAX - key.len() - last.len();
        let mut batch: Batch = Vec::new();
        for (key, stored) in self.frozen.iter().rev() {
            let value = stored.as_ref().map(|stored| stored.encode(key));
            let bytes = key.len() + value.as_ref().map_or(0, Vec::len);
            if bytes > room {
                break;
            }
            room -= bytes;
            batch.push((key.clone(), value));
        }
        let written = batch.len();
        let done = written == self.frozen.len();
        if done {
            batch.push((key, Some(last)));
        }
        self.index.apply(batch)?;
        for _ in 0..written {
            self.frozen.pop_last();
        }
        if done {
            self.frozen_applied = None;
            return Ok(Flush::Done);
        }
        Ok(Flush::More)
    }

    /// Makes the index durable as far as it is flushed.
    pub(crate) fn checkpoint(&mut self) -> Result<(), IndexError> {
        self.index.checkpoint()
    }
}

fn nearest_in(layer: &Layer, low: &Bound<Vec<u8>>, high: &Bound<Vec<u8>>, direction: Direction) -> Option<Vec<u8>> {
    if is_empty(low, high) {
        return None;
    }
    let mut range = layer.range((low.clone(), high.clone()));
    let item = match direction {
        Direction::Ascending => range.next(),
        Direction::Descending => range.next_back(),
    };
    item.map(|(key, _)| key.clone())
}

fn is_empty(low: &Bound<Vec<u8>>, high: &Bound<Vec<u8>>) -> bool {
    match (low, high) {
        (Bound::Included(low), Bound::Included(high)) => low > high,
        (Bound::Included(low) | Bound::Excluded(low), Bound::Included(high) | Bound::Excluded(high)) => low >= high,
        _ => false,
    }
}

fn decode(key: &[u8], bytes: &[u8]) -> Result<Stored, IndexError> {
    Stored::decode(key, bytes).map_err(|error| IndexError(format!("the value of key {key:02x?} is damaged: {error}")))
}
