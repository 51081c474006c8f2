//! What has been folded but not flushed, over the index: so a look-up sees everything that is journalled.
//!
//! Two layers: changes go into the *active* one; to flush, it is *frozen* as a whole and written out in batches while
//! a new active one fills. A frozen layer is the state after one certain packet; what still waits to be put into it
//! (`indexer/joinings.rs`) is put there before the keys below it are written. It is written in the descending order of
//! keys, but for a user's row of crowds, which may come as late as just before the user's memberships, and again. What is
//! written is removed; the applied LSN goes last, with the last batch. After a crash in between, some values on disk are
//! newer than the applied LSN; replay passes over them, because each carries the LSN of its own last change. For that the
//! order matters, and it is the order of tables (`tables.rs`): what points is written after what
//! it points to (a state after the extents, a record after the changes and after the memberships that the same entry
//! ended), the higher half of a split value before the lower half gives it up, and older operations before newer ones,
//! because only the newest is asked whether it has a packet already.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::ops::Bound;

use super::index::{BATCH_BYTES_MAX, Batch, Direction, Index, IndexError};
use super::tables::{AppliedValue, Key, Stored, Value, applied_key};

/// Values that are not in the index, and about how much memory they take.
#[derive(Default)]
struct Layer {
    values: BTreeMap<Key, Option<Stored>>,
    memory_bytes: usize,
}

impl Layer {
    fn get(&self, key: &[u8]) -> Option<&Option<Stored>> {
        self.values.get(key)
    }

    fn put(&mut self, key: &[u8], stored: Option<Stored>) {
        if self.values.insert(Key::from_slice(key), stored).is_none() {
            self.memory_bytes += memory_bytes(key);
        }
    }

    /// The value of a key; if there is none yet, the one that `below` gives.
    fn value_or(
        &mut self,
        key: &[u8],
        below: impl FnOnce() -> Result<Option<Stored>, IndexError>,
    ) -> Result<&mut Option<Stored>, IndexError> {
        match self.values.entry(Key::from_slice(key)) {
            Entry::Occupied(entry) => Ok(entry.into_mut()),
            Entry::Vacant(entry) => {
                let stored = entry.insert(below()?);
                self.memory_bytes += memory_bytes(key);
                Ok(stored)
            }
        }
    }

    fn pop_last(&mut self) {
        if let Some((key, _)) = self.values.pop_last() {
            self.memory_bytes -= memory_bytes(&key);
        }
    }
}

/// The layers over an index.
pub(crate) struct Overlay {
    index: Box<dyn Index>,
    active: Layer,
    frozen: Layer,
    /// What the frozen layer is the state after; `None` while there is no frozen layer.
    frozen_applied: Option<AppliedValue>,
}

/// One of the two layers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Age {
    /// The one that changes go into.
    Active,
    /// The one that is being flushed.
    Frozen,
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
        Self { index, active: Layer::default(), frozen: Layer::default(), frozen_applied: None }
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
            None => indexed(&*self.index, key),
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
        self.edit_in(Age::Active, key)
    }

    /// The same in one of the layers: in the frozen one only what the active one says nothing of.
    pub(crate) fn edit_in(&mut self, age: Age, key: &[u8]) -> Result<&mut Option<Stored>, IndexError> {
        self.check_layer(age, key);
        let Self { index, active, frozen, .. } = self;
        match age {
            Age::Active => active
                .value_or(key, || frozen.get(key).map_or_else(|| indexed(&**index, key), |stored| Ok(stored.clone()))),
            Age::Frozen => frozen.value_or(key, || indexed(&**index, key)),
        }
    }

    /// Puts a value.
    pub(crate) fn put(&mut self, key: &[u8], stored: Stored) {
        self.put_in(Age::Active, key, stored);
    }

    /// The same in one of the layers.
    pub(crate) fn put_in(&mut self, age: Age, key: &[u8], stored: Stored) {
        self.check_layer(age, key);
        self.layer(age).put(key, Some(stored));
    }

    /// What is newer than the frozen layer must not get into it.
    fn check_layer(&self, age: Age, key: &[u8]) {
        debug_assert!(age == Age::Active || !self.active.values.contains_key(key), "{key:02x?} is in the active layer");
    }

    fn layer(&mut self, age: Age) -> &mut Layer {
        match age {
            Age::Active => &mut self.active,
            Age::Frozen => &mut self.frozen,
        }
    }

    /// Removes a value.
    pub(crate) fn remove(&mut self, key: &[u8]) {
        self.active.put(key, None);
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
            let mut range = layer.values.range::<[u8], _>((Bound::Included(low), Bound::Included(high)));
            if let Some((key, _)) = range.find(|(_, stored)| stored.is_some()) {
                return Ok(Some(key.to_vec()));
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

    /// Memory of what is in both layers, about.
    pub(crate) fn memory_bytes(&self) -> usize {
        self.active.memory_bytes + self.frozen.memory_bytes
    }

    /// Memory of what is in the active one.
    pub(crate) fn active_bytes(&self) -> usize {
        self.active.memory_bytes
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

    /// Whether the frozen layer has anything above a key.
    pub(crate) fn has_frozen_above(&self, key: &[u8]) -> bool {
        self.frozen.values.last_key_value().is_some_and(|(last, _)| last.as_slice() > key)
    }

    /// Writes one batch of the frozen layer: of what is above a key, if something is still to be added below.
    pub(crate) fn flush_step(&mut self, above: Option<&[u8]>) -> Result<Flush, IndexError> {
        let Some(applied) = self.frozen_applied else { return Ok(Flush::Done) };
        let key = applied_key();
        let last = Stored { lsn: applied.lsn, value: Value::Applied(applied) }.encode(&key);
        let mut room = BATCH_BYTES_MAX - key.len() - last.len();
        let mut batch: Batch = Vec::new();
        for (key, stored) in self.frozen.values.iter().rev() {
            let value = stored.as_ref().map(|stored| stored.encode(key));
            let bytes = key.len() + value.as_ref().map_or(0, Vec::len);
            if bytes > room || above.is_some_and(|above| key.as_slice() <= above) {
                break;
            }
            room -= bytes;
            batch.push((key.to_vec(), value));
        }
        let written = batch.len();
        let done = above.is_none() && written == self.frozen.values.len();
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
    let mut range = layer.values.range::<[u8], _>((low.as_ref().map(Vec::as_slice), high.as_ref().map(Vec::as_slice)));
    let item = match direction {
        Direction::Ascending => range.next(),
        Direction::Descending => range.next_back(),
    };
    item.map(|(key, _)| key.to_vec())
}

/// What a value of a table takes in a layer with its key, about: a record of a small group, and few full ones of lists that
/// grow; but memberships and operations, of which very many may be full, for nearly as large as they may be.
fn memory_bytes(key: &[u8]) -> usize {
    match key.first() {
        Some(0x10) => 768,
        Some(0x20 | 0x50) => 512,
        Some(0x40 | 0x60) => 2_048,
        _ => 256,
    }
}

fn is_empty(low: &Bound<Vec<u8>>, high: &Bound<Vec<u8>>) -> bool {
    match (low, high) {
        (Bound::Included(low), Bound::Included(high)) => low > high,
        (Bound::Included(low) | Bound::Excluded(low), Bound::Included(high) | Bound::Excluded(high)) => low >= high,
        _ => false,
    }
}

fn indexed(index: &dyn Index, key: &[u8]) -> Result<Option<Stored>, IndexError> {
    index.value(key)?.map(|bytes| decode(key, &bytes)).transpose()
}

fn decode(key: &[u8], bytes: &[u8]) -> Result<Stored, IndexError> {
    Stored::decode(key, bytes).map_err(|error| IndexError(format!("the value of key {key:02x?} is damaged: {error}")))
}
