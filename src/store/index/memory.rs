//! The index in memory, for tests and the simulator.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::{Batch, Direction, Index, IndexError, IndexHome, Item, check_bounds};

type Map = BTreeMap<Vec<u8>, Vec<u8>>;

/// A place that keeps an index while nobody has it open. Clones are the same place.
#[derive(Clone, Debug, Default)]
pub(crate) struct MemoryHome {
    map: Arc<Mutex<Map>>,
}

impl MemoryHome {
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
        Ok("nowhere".to_owned())
    }
}

impl Index for MemoryHome {
    fn value(&self, key: &[u8]) -> Result<Option<Vec<u8>>, IndexError> {
        Ok(self.content().get(key).cloned())
    }

    fn scan(&self, low: &[u8], high: &[u8], direction: Direction, limit: usize) -> Result<Vec<Item>, IndexError> {
        let map = self.content();
        let range = map.range(low.to_vec()..=high.to_vec()).map(|(key, value)| (key.clone(), value.clone()));
        Ok(match direction {
            Direction::Ascending => range.take(limit).collect(),
            Direction::Descending => range.rev().take(limit).collect(),
        })
    }

    fn apply(&mut self, batch: Batch) -> Result<(), IndexError> {
        check_bounds(&batch);
        let mut map = self.content();
        for (key, value) in batch {
            match value {
                Some(value) => map.insert(key, value),
                None => map.remove(&key),
            };
        }
        Ok(())
    }

    fn checkpoint(&mut self) -> Result<(), IndexError> {
        Ok(())
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
