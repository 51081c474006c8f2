//! The index in memory, for tests and the simulator.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::{Batch, Direction, Index, IndexError, IndexHome, Item, check_bounds};

type Map = BTreeMap<Vec<u8>, Vec<u8>>;

/// A place that keeps an index while nobody has it open. Clones are the same place.
#[derive(Clone, Debug, Default)]
pub(crate) struct MemoryHome {
    map: Arc<Mutex<Map>>,
    power: Arc<Mutex<Power>>,
    scans: Arc<AtomicUsize>,
}

/// What a power cut leaves of an index: everything up to the last checkpoint, and of the batches after it the first few.
#[derive(Debug, Default)]
struct Power {
    durable: Map,
    pending: Vec<Batch>,
}

impl MemoryHome {
    /// Cuts the power: of the batches that were applied since the last checkpoint, so many survive.
    #[cfg(any(test, feature = "sim"))]
    pub(crate) fn crash(&self, kept: usize) {
        let mut power = self.power();
        let pending = std::mem::take(&mut power.pending);
        for batch in pending.into_iter().take(kept) {
            apply_to(&mut power.durable, batch);
        }
        *self.content() = power.durable.clone();
    }

    /// Another place with the same content.
    #[cfg(any(test, feature = "sim"))]
    pub(crate) fn fork(&self) -> Self {
        let copy = Self::default();
        *copy.content() = self.content().clone();
        copy
    }

    /// How often something was looked for in a range so far.
    #[cfg(test)]
    pub(crate) fn scans(&self) -> usize {
        self.scans.load(Ordering::Relaxed)
    }

    fn power(&self) -> MutexGuard<'_, Power> {
        self.power.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The content, for tests that damage it.
    pub(crate) fn content(&self) -> MutexGuard<'_, Map> {
        self.map.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl IndexHome for MemoryHome {
    fn open(&self) -> Result<Box<dyn Index>, IndexError> {
        Ok(Box::new(self.clone()))
    }

    fn move_aside(&self) -> Result<String, IndexError> {
        self.content().clear();
        *self.power() = Power::default();
        Ok("nowhere".to_owned())
    }
}

impl Index for MemoryHome {
    fn value(&self, key: &[u8]) -> Result<Option<Vec<u8>>, IndexError> {
        Ok(self.content().get(key).cloned())
    }

    fn scan(&self, low: &[u8], high: &[u8], direction: Direction, limit: usize) -> Result<Vec<Item>, IndexError> {
        self.scans.fetch_add(1, Ordering::Relaxed);
        let map = self.content();
        let range = map.range(low.to_vec()..=high.to_vec()).map(|(key, value)| (key.clone(), value.clone()));
        Ok(match direction {
            Direction::Ascending => range.take(limit).collect(),
            Direction::Descending => range.rev().take(limit).collect(),
        })
    }

    fn apply(&mut self, batch: Batch) -> Result<(), IndexError> {
        check_bounds(&batch);
        self.power().pending.push(batch.clone());
        apply_to(&mut self.content(), batch);
        Ok(())
    }

    fn checkpoint(&mut self) -> Result<(), IndexError> {
        let mut power = self.power();
        for batch in std::mem::take(&mut power.pending) {
            apply_to(&mut power.durable, batch);
        }
        Ok(())
    }
}

fn apply_to(map: &mut Map, batch: Batch) {
    for (key, value) in batch {
        match value {
            Some(value) => map.insert(key, value),
            None => map.remove(&key),
        };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_index_in_memory_keeps_the_contract() {
        super::super::contract::holds(&MemoryHome::default());
    }
}
