//! The directory itself: its lock, what does not belong into it, copies of files.

use std::ffi::OsString;
use std::fs;
use std::io;
use std::path::Path;

use super::{Finding, Severity};
use crate::store::OpenError;
use crate::store::directory::{Lock, lock_existing};
use crate::store::disk::{DiskError, DiskErrorKind};

/// The directory of the index.
pub(super) const INDEX: &str = "index";
/// What the names of directories with kept originals begin with.
pub(super) const DAMAGED: &str = "damaged-";

/// Locks a data directory; one that is none is refused before anything is made in it.
pub(super) fn lock(data: &Path) -> Result<Lock, OpenError> {
    let is_one = ["FORMAT", "journal"].iter().any(|name| data.join(name).exists());
    if is_one || has_kept(data) {
        return lock_existing(data);
    }
    let kind = DiskErrorKind::Other("it is no data directory of roundtable: name one with --data".to_owned());
    Err(DiskError { operation: "use", path: data.display().to_string(), kind }.into())
}

/// Whether a repair was interrupted just when the journal was away.
fn has_kept(data: &Path) -> bool {
    names(data).is_ok_and(|names| names.iter().any(|name| name.to_string_lossy().starts_with(DAMAGED)))
}

/// What stands in a data directory beside the journal, and does not belong there.
pub(super) fn foreign(data: &Path, findings: &mut Vec<Finding>) -> Result<(), OpenError> {
    for name in names(data).map_err(|error| failed("list", data, &error))? {
        let name = name.to_string_lossy().into_owned();
        let known = ["FORMAT", "LOCK", "BACKUP", "keys", "journal", INDEX];
        if known.contains(&&*name) {
            continue;
        }
        let (severity, what) = if name.starts_with("index.broken-") {
            (Severity::Note, "an index that did not work and was made anew: may be deleted")
        } else if name.starts_with(DAMAGED) {
            (Severity::Note, "originals that `roundtable repair` kept: may be deleted once nothing of them is missed")
        } else if name == super::RESTORE_MARK {
            (Severity::Note, "a restore was not finished: run it again")
        } else if name == "FORMAT.tmp" {
            (Severity::Note, "an unfinished FORMAT: may be deleted")
        } else {
            (Severity::Warning, "no file of roundtable: left alone")
        };
        findings.push(Finding::new(severity, name, None, what));
    }
    let journal = data.join("journal");
    if journal.is_dir() {
        for item in fs::read_dir(&journal).map_err(|error| failed("list", &journal, &error))? {
            let item = item.map_err(|error| failed("list", &journal, &error))?;
            // Files are looked at by those who read the journal.
            if !item.file_type().is_ok_and(|kind| kind.is_file()) {
                let name = format!("journal/{}", item.file_name().to_string_lossy());
                findings.push(Finding::new(Severity::Warning, name, None, "no file of roundtable: left alone"));
            }
        }
    }
    Ok(())
}

/// The names in a directory, in their order.
pub(super) fn names(directory: &Path) -> io::Result<Vec<OsString>> {
    let mut names = fs::read_dir(directory)?.map(|item| Ok(item?.file_name())).collect::<io::Result<Vec<_>>>()?;
    names.sort();
    Ok(names)
}

/// Copies a directory of files and directories.
pub(super) fn copy_tree(from: &Path, to: &Path) -> Result<(), OpenError> {
    let copied = || -> io::Result<()> {
        fs::create_dir_all(to)?;
        for name in names(from)? {
            let (from, to) = (from.join(&name), to.join(&name));
            if from.is_dir() {
                copy_tree(&from, &to).map_err(|error| io::Error::other(error.to_string()))?;
            } else {
                fs::copy(&from, &to)?;
            }
        }
        Ok(())
    };
    copied().map_err(|error| failed("copy", from, &error))
}

/// An error of the system, with what was tried.
pub(super) fn failed(operation: &'static str, path: &Path, error: &io::Error) -> OpenError {
    let kind = match error.kind() {
        io::ErrorKind::NotFound => DiskErrorKind::NotFound,
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => DiskErrorKind::NoSpace,
        _ => DiskErrorKind::Other(error.to_string()),
    };
    DiskError { operation, path: path.display().to_string(), kind }.into()
}
