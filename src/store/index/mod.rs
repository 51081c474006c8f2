//! The index port: an ordered map from small keys to small values, rebuildable at any time from the journal.
//!
//! Behind it stand `sled` and, for tests and the simulator, `memory`. One contract suite runs against both.

#[cfg(test)]
mod contract;
#[cfg(any(test, feature = "fuzzing", feature = "sim"))]
pub(crate) mod memory;
pub(crate) mod sled;

/// Key and value together have at most so many bytes: sled puts larger ones into files that it never syncs.
pub(crate) const ITEM_BYTES_MAX: usize = 4096;
/// A batch has at most so many bytes of keys and values.
pub(crate) const BATCH_BYTES_MAX: usize = 128 * 1024;

/// A key with its value.
pub(crate) type Item = (Vec<u8>, Vec<u8>);
/// Changes that are applied together: a value to put, or none to remove the key.
pub(crate) type Batch = Vec<(Vec<u8>, Option<Vec<u8>>)>;

/// The order of a scan.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Direction {
    Ascending,
    Descending,
}

/// The index does not work, or holds what nobody wrote; it has to be opened again or made anew.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct IndexError(pub(crate) String);

/// An open index.
pub(crate) trait Index: Send {
    /// The value of a key.
    fn value(&self, key: &[u8]) -> Result<Option<Vec<u8>>, IndexError>;
    /// Up to `limit` items with `low` ≤ key ≤ `high`, from the lowest or from the highest.
    fn scan(&self, low: &[u8], high: &[u8], direction: Direction, limit: usize) -> Result<Vec<Item>, IndexError>;
    /// Applies all of a batch or nothing; durable at the latest at the next checkpoint.
    fn apply(&mut self, batch: Batch) -> Result<(), IndexError>;
    /// Makes everything applied so far durable.
    fn checkpoint(&mut self) -> Result<(), IndexError>;
}

/// Where an index lives.
pub(crate) trait IndexHome: Send {
    /// Opens the index, or makes an empty one.
    fn open(&self) -> Result<Box<dyn Index>, IndexError>;
    /// Moves the index that is there out of the way; gives its new name.
    fn move_aside(&self) -> Result<String, IndexError>;
}

/// Asserts the bounds of a batch: we built it ourselves.
pub(crate) fn check_bounds(batch: &Batch) {
    let mut batch_bytes = 0;
    for (key, value) in batch {
        let bytes = key.len() + value.as_ref().map_or(0, Vec::len);
        assert!(bytes <= ITEM_BYTES_MAX, "an item of the index is bounded");
        batch_bytes += bytes;
    }
    assert!(batch_bytes <= BATCH_BYTES_MAX, "a batch of the index is bounded");
}
