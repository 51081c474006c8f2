//! The disk port: everything that the journal asks of a file system.
//!
//! Paths are relative to the data directory, with `/` between names. Behind it stand `real` and, for tests and the
//! simulator, `simulated`, which tells what was written from what was synced. One contract suite runs against both.

#[cfg(test)]
pub(crate) mod contract;
pub(crate) mod real;
#[cfg(any(test, feature = "fuzzing", feature = "sim"))]
pub(crate) mod simulated;

use std::fmt;

/// A directory of files.
pub(crate) trait Disk: Clone + Send + Sync + 'static {
    /// An open file.
    type File: DiskFile;

    /// Opens a file that exists, for reading and writing.
    fn open(&self, path: &str) -> Result<Self::File, DiskError>;
    /// Makes a file that does not exist yet. Its name is durable only after [`Disk::sync_directory`].
    fn create(&self, path: &str) -> Result<Self::File, DiskError>;
    /// The files of a directory, in the order of their names.
    fn list(&self, directory: &str) -> Result<Vec<Listed>, DiskError>;
    /// The files of a directory; none where there is no such directory.
    fn list_or_none(&self, directory: &str) -> Result<Vec<Listed>, DiskError> {
        if self.exists(directory)? { self.list(directory) } else { Ok(Vec::new()) }
    }
    /// Whether there is a file or a directory.
    fn exists(&self, path: &str) -> Result<bool, DiskError>;
    /// Renames a file, in place of another if there is one.
    fn rename(&self, from: &str, to: &str) -> Result<(), DiskError>;
    /// Removes a file.
    fn remove(&self, path: &str) -> Result<(), DiskError>;
    /// Makes a directory; one that is there already is fine.
    fn create_directory(&self, path: &str) -> Result<(), DiskError>;
    /// Makes the names in a directory durable; `""` is the data directory itself.
    fn sync_directory(&self, path: &str) -> Result<(), DiskError>;
    /// Bytes that may still be allocated.
    fn free_bytes(&self) -> Result<u64, DiskError>;
}

/// An open file.
pub(crate) trait DiskFile: Send + 'static {
    /// Fills `buffer` from `offset`; an error where the file ends before.
    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> Result<(), DiskError>;
    /// Writes all of `bytes` at `offset`.
    fn write_at(&self, offset: u64, bytes: &[u8]) -> Result<(), DiskError>;
    /// `fdatasync`: content and size are durable afterwards, the name is not. After an error nothing may be believed
    /// of what was written since the last success, and trying again proves nothing.
    fn sync(&self) -> Result<(), DiskError>;
    /// Gives the space of `bytes` from `offset` back: they read as zeros, the size stays. A file system that cannot
    /// do that may refuse; nothing else changes then.
    fn release(&self, offset: u64, bytes: u64) -> Result<(), DiskError>;
    /// Its size in bytes.
    fn size(&self) -> Result<u64, DiskError>;
    /// Cuts or extends it; what is new reads as zeros and takes no space.
    #[cfg_attr(not(test), expect(dead_code, reason = "for repair, which cuts files; the journal itself never does"))]
    fn set_size(&self, bytes: u64) -> Result<(), DiskError>;
}

/// A file in a directory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Listed {
    /// Its name, without the directory.
    pub(crate) name: String,
    /// Its size in bytes.
    pub(crate) size_bytes: u64,
}

/// What went wrong with which file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DiskError {
    /// What was tried: `open`, `write`, `sync` …
    pub operation: &'static str,
    /// On which path.
    pub path: String,
    /// What came of it.
    pub kind: DiskErrorKind,
}

/// The kinds of failure that are told apart.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum DiskErrorKind {
    /// There is no such file or directory.
    NotFound,
    /// The disk or the quota is full.
    NoSpace,
    /// Anything else, in the words of the system.
    Other(String),
}

impl fmt::Display for DiskError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { operation, path, kind } = self;
        match kind {
            DiskErrorKind::NotFound => write!(f, "cannot {operation} {path}: there is no such file"),
            DiskErrorKind::NoSpace => write!(f, "cannot {operation} {path}: the disk is full"),
            DiskErrorKind::Other(text) => write!(f, "cannot {operation} {path}: {text}"),
        }
    }
}

impl std::error::Error for DiskError {}
