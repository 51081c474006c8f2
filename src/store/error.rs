//! Why a data directory cannot be opened: each says what to do about it.

use std::fmt;
use std::path::PathBuf;

use super::disk::{DiskError, DiskErrorKind};
use super::journal::ReadError;

/// Why storage did not start. Nothing was acknowledged, and no packet that was there is gone.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum OpenError {
    /// Another process has the directory open.
    Locked {
        /// The lock file.
        path: PathBuf,
        /// The process that holds it, if it said so.
        pid: Option<u32>,
    },
    /// A later version of the program wrote it.
    NewerFormat {
        /// The file that says so.
        file: String,
        /// The format that was found.
        found: u32,
        /// The newest that this program reads.
        supported: u32,
    },
    /// Bytes that were durable are not what was written.
    Corrupt {
        /// The file, relative to the data directory.
        file: String,
        /// The first byte that is wrong.
        offset: u64,
        /// What is wrong there.
        reason: String,
    },
    /// The file system refuses.
    Disk(DiskError),
    /// The disk is too full to start on.
    Full {
        /// What there is no space for.
        what: &'static str,
        /// Bytes that are free.
        free_bytes: u64,
        /// Bytes that have to be.
        needed_bytes: u64,
    },
    /// The index can neither be opened nor be made anew.
    Index(String),
}

impl OpenError {
    /// Whether data is damaged, so that starting again changes nothing.
    pub fn is_damage(&self) -> bool {
        matches!(self, Self::Corrupt { .. })
    }
}

impl fmt::Display for OpenError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Locked { path, pid: Some(pid) } => {
                write!(f, "{} is held by process {pid}: stop that server, or name another --data", path.display())
            }
            Self::Locked { path, pid: None } => {
                write!(f, "{} is held by another process: stop that server, or name another --data", path.display())
            }
            Self::NewerFormat { file, found, supported } => write!(
                f,
                "{file} has format {found}, this program reads up to {supported}: run the version that wrote it"
            ),
            Self::Corrupt { file, offset, reason } => write!(
                f,
                "{file} is damaged at offset {offset} ({reason}): restore a backup, or see `roundtable repair --dry-run`"
            ),
            Self::Full { what, free_bytes, needed_bytes } => write!(
                f,
                "{what} needs {needed_bytes} bytes of free space, {free_bytes} are free: make room on the disk of the \
                 data directory and start again; nothing is lost"
            ),
            Self::Disk(error) if error.kind == DiskErrorKind::NoSpace => {
                write!(f, "{error}: make room on it and start again; nothing is lost")
            }
            Self::Disk(error) => write!(f, "{error}: check the data directory's owner, mode and free space"),
            Self::Index(reason) => {
                write!(f, "the index cannot be opened or made anew ({reason}): check space and rights of index/")
            }
        }
    }
}

impl std::error::Error for OpenError {}

impl From<ReadError> for OpenError {
    fn from(error: ReadError) -> Self {
        match error {
            ReadError::Damaged { file, offset, reason } => Self::Corrupt { file, offset, reason: reason.to_owned() },
            ReadError::Disk(error) => Self::Disk(error),
        }
    }
}

impl From<DiskError> for OpenError {
    fn from(error: DiskError) -> Self {
        Self::Disk(error)
    }
}
