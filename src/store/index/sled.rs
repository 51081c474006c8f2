//! The index in sled, and everything that is needed to use sled 0.34 safely. The only file that names it.
//!
//! What was measured of sled, and what follows from it, stands in `docs/durability.md`. In short: its `flush` does not
//! reach the device, so a checkpoint syncs `db` through a handle of our own, and often enough that sled never reuses a
//! segment whose replacement is not durable; its own flusher thread is off; a leftover of a snapshot is removed before
//! opening; it is opened on a thread of its own, where a panic or a hang harms nobody.

use std::fs::{self, File};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::mpsc;
use std::time::Duration;

use super::{Batch, Direction, Index, IndexError, IndexHome, Item, check_bounds};

/// sled's own segments, not the journal's: large enough that a leaf of our items never becomes a blob, and that syncs
/// are few (with 2 MiB they took a third of a flush's time).
const SLED_SEGMENT_BYTES: usize = 8 << 20;
/// Bytes that may be applied between two checkpoints. Overwriting makes sled write up to six times as much, and its log
/// must not grow by more than half a segment between two syncs.
const CHECKPOINT_BYTES: usize = SLED_SEGMENT_BYTES / 2 / 6;
const _: () = assert!(super::BATCH_BYTES_MAX <= CHECKPOINT_BYTES);
/// Pages that sled keeps in memory, as it counts them: up to four times that in truth, with what it has not freed yet.
/// Its default is 1 GiB, which a pass over a million groups fills; with four times as much as this, following creates
/// costs 2 % less (docs/benchmarks.md).
const SLED_CACHE_BYTES: u64 = 64 << 20;
/// How often after a batch sled is made to free what the batch has replaced: up to 512 pieces each time. By itself it
/// does that once in 128 accesses, of which a batch is one, and some hundred MiB are kept for nothing.
const COLLECTIONS_PER_BATCH: usize = 8;
/// How long opening may take: 1 million records take 2.4 s.
const OPEN_LIMIT: Duration = Duration::from_secs(120);
/// How often opening is tried while the lock of a database just dropped lingers, and how long between two tries.
const OPEN_TRIES: u32 = 100;
const OPEN_PAUSE: Duration = Duration::from_millis(20);

/// The directory of the index.
#[derive(Clone, Debug)]
pub(crate) struct SledHome {
    directory: PathBuf,
}

impl SledHome {
    /// The index lives in `directory`.
    pub(crate) fn new(directory: PathBuf) -> Self {
        Self { directory }
    }
}

impl IndexHome for SledHome {
    fn open(&self) -> Result<Box<dyn Index>, IndexError> {
        let (sender, receiver) = mpsc::channel();
        let directory = self.directory.clone();
        let thread = std::thread::Builder::new().name("index-open".to_owned());
        let spawned = thread.spawn(move || {
            let opened = catch_unwind(AssertUnwindSafe(|| open(&directory)));
            let _ = sender.send(opened.unwrap_or_else(|panic| Err(IndexError(panic_text(&*panic)))));
        });
        spawned.map_err(|error| IndexError(error.to_string()))?;
        match receiver.recv_timeout(OPEN_LIMIT) {
            Ok(opened) => Ok(Box::new(opened?)),
            Err(_) => Err(IndexError(format!("it was not open after {} s", OPEN_LIMIT.as_secs()))),
        }
    }

    fn move_aside(&self) -> Result<String, IndexError> {
        for number in 1.. {
            let aside = self.directory.with_file_name(format!("index.broken-{number}"));
            if !aside.exists() {
                if self.directory.exists() {
                    fs::rename(&self.directory, &aside).map_err(broken)?;
                }
                return Ok(aside.display().to_string());
            }
        }
        unreachable!("numbers do not end")
    }
}

/// The words of a panic.
pub(crate) fn panic_text(panic: &(dyn std::any::Any + Send)) -> String {
    let text = panic.downcast_ref::<String>().map(String::as_str);
    text.or_else(|| panic.downcast_ref::<&str>().copied()).unwrap_or("a panic without words").to_owned()
}

fn broken(error: impl std::fmt::Display) -> IndexError {
    IndexError(error.to_string())
}

fn open(directory: &Path) -> Result<SledIndex, IndexError> {
    fs::create_dir_all(directory).map_err(broken)?;
    remove_unfinished_snapshots(directory)?;
    let config = sled::Config::new().path(directory).segment_size(SLED_SEGMENT_BYTES).flush_every_ms(None);
    let config = config.cache_capacity(SLED_CACHE_BYTES);
    let mut tries = 0;
    let database = loop {
        match config.open() {
            Ok(database) => break database,
            Err(sled::Error::Io(error)) if error.kind() == std::io::ErrorKind::WouldBlock && tries < OPEN_TRIES => {
                tries += 1;
                std::thread::sleep(OPEN_PAUSE);
            }
            Err(error) => return Err(broken(error)),
        }
    };
    let log = File::options().read(true).write(true).open(directory.join("db")).map_err(broken)?;
    let database = Some(database);
    let mut index = SledIndex { database, log, directory: directory.to_owned(), unsynced_bytes: 0 };
    index.checkpoint()?;
    Ok(index)
}

/// A snapshot that a crash left half made keeps sled from opening for ever.
fn remove_unfinished_snapshots(directory: &Path) -> Result<(), IndexError> {
    for file in fs::read_dir(directory).map_err(broken)? {
        let file = file.map_err(broken)?;
        let name = file.file_name().to_string_lossy().into_owned();
        if name.starts_with("snap.") && name.ends_with(".generating") {
            fs::remove_file(file.path()).map_err(broken)?;
        }
    }
    Ok(())
}

/// An open sled database.
struct SledIndex {
    /// There until it is dropped.
    database: Option<sled::Db>,
    /// Our own handle on sled's log: the only way to sync it.
    log: File,
    directory: PathBuf,
    unsynced_bytes: usize,
}

impl SledIndex {
    fn database(&self) -> &sled::Db {
        self.database.as_ref().expect("it is taken out by drop alone")
    }
}

impl Drop for SledIndex {
    /// sled syncs when it is dropped, and panics where that fails: the index can be made anew, so that must not end the
    /// process with anything but its own reason.
    fn drop(&mut self) {
        let database = self.database.take();
        if let Err(panic) = catch_unwind(AssertUnwindSafe(|| drop(database))) {
            tracing::warn!("the index was not closed cleanly: {}", panic_text(&*panic));
        }
    }
}

impl Index for SledIndex {
    fn value(&self, key: &[u8]) -> Result<Option<Vec<u8>>, IndexError> {
        Ok(self.database().get(key).map_err(broken)?.map(|value| value.to_vec()))
    }

    fn scan(&self, low: &[u8], high: &[u8], direction: Direction, limit: usize) -> Result<Vec<Item>, IndexError> {
        let range = self.database().range(low.to_vec()..=high.to_vec());
        let item = |item: Result<(sled::IVec, sled::IVec), sled::Error>| {
            item.map(|(key, value)| (key.to_vec(), value.to_vec())).map_err(broken)
        };
        match direction {
            Direction::Ascending => range.take(limit).map(item).collect(),
            Direction::Descending => range.rev().take(limit).map(item).collect(),
        }
    }

    fn apply(&mut self, batch: Batch) -> Result<(), IndexError> {
        check_bounds(&batch);
        let batch_bytes: usize = batch.iter().map(|(key, value)| key.len() + value.as_ref().map_or(0, Vec::len)).sum();
        // Before, not after: the log must not have grown too far when the sync comes.
        if self.unsynced_bytes + batch_bytes > CHECKPOINT_BYTES {
            self.checkpoint()?;
        }
        self.unsynced_bytes += batch_bytes;
        let mut changes = sled::Batch::default();
        for (key, value) in batch {
            match value {
                Some(value) => changes.insert(key, value),
                None => changes.remove(key),
            }
        }
        self.database().apply_batch(changes).map_err(broken)?;
        for _ in 0..COLLECTIONS_PER_BATCH {
            sled::pin().flush();
        }
        Ok(())
    }

    fn checkpoint(&mut self) -> Result<(), IndexError> {
        self.database().flush().map_err(broken)?;
        rustix::fs::fdatasync(&self.log).map_err(broken)?;
        let directory = File::open(&self.directory).map_err(broken)?;
        rustix::fs::fsync(&directory).map_err(broken)?;
        self.unsynced_bytes = 0;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sled_keeps_the_contract() {
        let directory = tempfile::tempdir().unwrap();
        super::super::contract::holds(&SledHome::new(directory.path().join("index")));
    }

    #[test]
    fn a_snapshot_left_half_made_does_not_keep_it_from_opening() {
        let directory = tempfile::tempdir().unwrap();
        let home = SledHome::new(directory.path().join("index"));
        drop(home.open().unwrap());
        fs::write(directory.path().join("index/snap.0000000000000007.generating"), b"half").unwrap();
        home.open().unwrap();
        assert!(!directory.path().join("index/snap.0000000000000007.generating").exists());
    }
}
