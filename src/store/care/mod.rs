//! Care of a data directory while no server runs on it: is it whole, what can be saved, copies, exchange.
//!
//! Everything here takes the directory's lock, uses the journal's own readers and writers, and knows neither the wire
//! nor the hub. What is found and what is lost is said in values; the command line turns them into words.

mod archive;
mod backup;
mod compare;
mod files;
mod import;
mod manifest;
mod offline;
mod place;
mod plan;
mod ranges;
mod repair;
mod restore;
mod rewrite;
mod salt;
mod shadow;
mod survey;
mod verify;

use std::fmt;

pub use archive::Archive;
pub use backup::{BackupError, BackupSummary, OfflineError, backup_offline};
pub(crate) use backup::{Source, check_place, copy as copy_journal};
pub use import::{ImportError, Imported, Importer, Pass};
pub use plan::GroupLoss;
pub use repair::{Repair, Repaired};
pub use restore::{Restored, restore};
pub use verify::{Verified, verify};

/// A file that stands in a journal that `repair` has built and not finished with.
const REPAIR_MARK: &str = "REPAIR";

/// A file that stands in a data directory while it is restored.
const RESTORE_MARK: &str = "RESTORE";

/// How much something that was found matters.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Severity {
    /// Worth knowing; a server starts, and nothing is lost.
    Note,
    /// Something that does not belong there. A server leaves it alone.
    Warning,
    /// Bytes are not what was written. Unless it is the index alone, a server refuses to start.
    Damage,
}

/// Something that was found in a data directory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// How much it matters.
    pub severity: Severity,
    /// The file, relative to the data directory.
    pub file: String,
    /// The first byte that is wrong, where there is one.
    pub offset: Option<u64>,
    /// In words.
    pub what: String,
}

impl Finding {
    fn new(severity: Severity, file: impl Into<String>, offset: Option<u64>, what: impl Into<String>) -> Self {
        Self { severity, file: file.into(), offset, what: what.into() }
    }

    fn damage(file: impl Into<String>, offset: u64, what: impl Into<String>) -> Self {
        Self::new(Severity::Damage, file, Some(offset), what)
    }

    /// Whether bytes are not what was written.
    pub fn is_damage(&self) -> bool {
        self.severity == Severity::Damage
    }
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.offset {
            Some(offset) => write!(f, "{} at offset {offset}: {}", self.file, self.what),
            None => write!(f, "{}: {}", self.file, self.what),
        }
    }
}

/// Packets that are not there any more, or not whole.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Loss {
    /// The file in which the first of them stood, as far as can be told.
    pub file: String,
    /// Where the first of them stood.
    pub offset: u64,
    /// The LSN of the first; 0 where that is not known: at the beginning of a journal that was cleaned.
    pub first_lsn: u64,
    /// How many; not known where the beginning or the end of the journal is lost.
    pub packets: Option<u64>,
}

/// How far a long task is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Progress {
    /// What it does at the moment.
    pub stage: &'static str,
    /// So much of it is done …
    pub done: u64,
    /// … of so much.
    pub all: u64,
}
