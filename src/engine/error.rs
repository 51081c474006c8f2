//! Why a call of the engine did not do what was asked: one type, with what became of the state.

use std::fmt;
use std::path::PathBuf;

use crate::group::{Limit, Refusal};
use crate::limits::{BODY_BYTES_MAX, GROUP_MEMBERS_MAX, TITLE_BYTES_MAX};
use crate::store::OpenError;

/// Why a call did not succeed.
///
/// After every error but [`EngineError::Failed`] the call has changed nothing, and the engine goes on. After `Failed`
/// whether the change took effect is unknown, until it is said again, with the same operation id, to an engine that
/// was opened anew.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum EngineError {
    /// There is no such group, or it is dissolved, or the acting user is not a member of it.
    NotFound,
    /// A member, but without the right; only the owner may do that.
    Forbidden,
    /// Somebody who was named is not a member; or a group would have nobody in it.
    NotAMember,
    /// A quota: [`GROUP_MEMBERS_MAX`] members, [`TITLE_BYTES_MAX`] bytes of a title, [`BODY_BYTES_MAX`] bytes of a body.
    Limit(Limit),
    /// The operation id was used for another request.
    IdReused,
    /// A seq or mark beyond the end of the log.
    Range {
        /// The seq of the last entry.
        head: u64,
    },
    /// The log no longer has what was asked for; it begins later.
    Truncated {
        /// The first seq that it still has.
        floor: u64,
    },
    /// The disk is full: there is no room for this change. Reads go on, and changes as soon as there is room.
    Full,
    /// What was asked for lies in a damaged place of the disk; the log names file and offset. All else goes on.
    Damaged,
    /// Storage failed and acknowledges nothing any more: the engine answers nothing else from here on.
    Failed {
        /// What an operator needs to know.
        message: String,
    },
    /// The engine was closed.
    Closed,
    /// Opening: another process, or another engine in this one, has the directory.
    Locked {
        /// The data directory.
        directory: PathBuf,
        /// The process that has it, if it said so.
        pid: Option<u32>,
    },
    /// Opening: a later version of this program wrote it.
    NewerFormat {
        /// The file that says so, relative to the data directory.
        file: String,
        /// The format that was found.
        found: u32,
        /// The newest that this program reads.
        supported: u32,
    },
    /// Opening: bytes that were durable are not what was written.
    Corrupt {
        /// The file, relative to the data directory.
        file: String,
        /// The first byte of what is wrong.
        offset: u64,
        /// What is wrong there.
        reason: String,
    },
    /// Opening: the file system refuses, or the index can neither be opened nor be made anew.
    CannotOpen {
        /// What, and what to do about it.
        reason: String,
    },
}

impl From<Refusal> for EngineError {
    fn from(refusal: Refusal) -> Self {
        match refusal {
            Refusal::NotFound => Self::NotFound,
            Refusal::Forbidden => Self::Forbidden,
            Refusal::NotAMember => Self::NotAMember,
            Refusal::Limit(limit) => Self::Limit(limit),
        }
    }
}

impl From<OpenError> for EngineError {
    fn from(error: OpenError) -> Self {
        let reason = error.to_string();
        match error {
            OpenError::Locked { path, pid } => {
                let directory = path.parent().map(std::path::Path::to_path_buf).unwrap_or(path);
                Self::Locked { directory, pid }
            }
            OpenError::NewerFormat { file, found, supported } => Self::NewerFormat { file, found, supported },
            OpenError::Corrupt { file, offset, reason } => Self::Corrupt { file, offset, reason },
            OpenError::Disk(_) | OpenError::Full { .. } | OpenError::Index(_) => Self::CannotOpen { reason },
        }
    }
}

impl fmt::Display for EngineError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotFound => f.write_str("no such group, or not a member of it"),
            Self::Forbidden => f.write_str("only the owner may do that; the owner itself goes by leaving"),
            Self::NotAMember => f.write_str("somebody who is named is not a member"),
            Self::Limit(Limit::Members) => write!(f, "a group has at most {GROUP_MEMBERS_MAX} members"),
            Self::Limit(Limit::Title) => write!(f, "a title has at most {TITLE_BYTES_MAX} bytes"),
            Self::Limit(Limit::Body) => write!(f, "a body has at most {BODY_BYTES_MAX} bytes"),
            Self::IdReused => f.write_str("this operation id was used for another request: make a new one"),
            Self::Range { head } => write!(f, "the log ends at seq {head}"),
            Self::Truncated { floor } => write!(f, "the log begins at seq {floor}"),
            Self::Full => f.write_str("the disk is full: nothing was changed"),
            Self::Damaged => f.write_str("this place on the disk is damaged; the log names file and offset"),
            Self::Failed { message } => write!(f, "storage failed: {message}"),
            Self::Closed => f.write_str("the engine is closed"),
            Self::Locked { directory, pid: Some(pid) } => {
                write!(f, "{} is held by process {pid}", directory.display())
            }
            Self::Locked { directory, pid: None } => write!(f, "{} is held by another process", directory.display()),
            Self::NewerFormat { file, found, supported } => {
                write!(f, "{file} has format {found}, this program reads up to {supported}")
            }
            Self::Corrupt { file, offset, reason } => write!(f, "{file} is damaged at offset {offset} ({reason})"),
            Self::CannotOpen { reason } => f.write_str(reason),
        }
    }
}

impl std::error::Error for EngineError {}
