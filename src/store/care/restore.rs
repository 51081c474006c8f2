//! Makes a data directory of a backup.
//!
//! The directory keeps its id. Segments and index belong to it by that id, and nothing else does: an index of another
//! copy of the same directory is found out by its place in the journal. To change it, every segment would have to be
//! written again, and a copy that is byte for byte what was checked is worth more.

use std::fs;
use std::path::Path;

use super::manifest::{Listed, MANIFEST, Manifest, checksum};
use super::place::{failed, names};
use super::survey::survey;
use super::{Progress, RESTORE_MARK};
use crate::store::OpenError;
use crate::store::directory::{Lock, lock};
use crate::store::disk::real::RealDisk;
use crate::store::disk::{Disk, DiskError, DiskErrorKind, DiskFile};
use crate::store::journal::JOURNAL_DIRECTORY;

/// What was restored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Restored {
    /// Files that were copied.
    pub files: u64,
    /// Their bytes.
    pub bytes: u64,
    /// The last packet.
    pub last_lsn: u64,
    /// When the backup was made, in milliseconds since 1970.
    pub made_at_ms: u64,
}

/// Makes `data`, which must be empty or absent, of a backup. Every byte is compared with the manifest and every packet
/// is walked. `FORMAT` comes last: what was cut before is no data directory, and the same call begins it anew.
pub fn restore(backup: &Path, data: &Path, progress: &mut dyn FnMut(Progress)) -> Result<Restored, OpenError> {
    let manifest = Manifest::read(backup)?;
    let files = &manifest.files;
    for (done, file) in (1..).zip(files) {
        compare(&backup.join(&file.name), file)?;
        progress(Progress { stage: "checking the backup", done, all: files.len() as u64 });
    }
    let _lock = empty_place(data)?;
    let disk = RealDisk::new(data.to_owned());
    if !disk.exists(RESTORE_MARK)? {
        disk.create(RESTORE_MARK)?.sync()?;
    }
    // Before there is anything that would be somebody else's without it.
    disk.sync_directory("")?;
    disk.create_directory(JOURNAL_DIRECTORY)?;
    disk.sync_directory("")?;
    let (format, journal): (Vec<&Listed>, Vec<&Listed>) = files.iter().partition(|file| file.name == "FORMAT");
    for (done, file) in (1..).zip(&journal) {
        copy(backup, data, file)?;
        progress(Progress { stage: "copying", done, all: journal.len() as u64 });
    }
    disk.sync_directory(JOURNAL_DIRECTORY)?;
    check(&disk, &manifest)?;
    for file in format {
        copy(backup, data, file)?;
    }
    disk.sync_directory("")?;
    disk.remove(RESTORE_MARK)?;
    disk.sync_directory("")?;
    let bytes = files.iter().map(|file| file.bytes).sum();
    let Manifest { last_lsn, made_at_ms, .. } = manifest;
    Ok(Restored { files: files.len() as u64, bytes, last_lsn, made_at_ms })
}

/// Locks the directory and makes sure that nothing is in it but what a restore that was cut has left: that goes, but for
/// its mark, so that a cut while it goes leaves what the next one knows again.
fn empty_place(data: &Path) -> Result<Lock, OpenError> {
    let inside = if data.exists() { names(data).map_err(|error| failed("list", data, &error))? } else { Vec::new() };
    let is_ours = inside.iter().any(|name| name == RESTORE_MARK);
    let ours = [RESTORE_MARK, JOURNAL_DIRECTORY, "FORMAT", "LOCK"];
    let other = inside.iter().find(|name| !(is_ours && ours.iter().any(|own| *name == own) || *name == "LOCK"));
    if let Some(other) = other {
        let text = format!("{} is in it: a backup is restored into a new directory", other.to_string_lossy());
        let kind = DiskErrorKind::Other(text);
        return Err(DiskError { operation: "restore into", path: data.display().to_string(), kind }.into());
    }
    let lock = lock(data)?;
    let disk = RealDisk::new(data.to_owned());
    if disk.exists("FORMAT")? {
        disk.remove("FORMAT")?;
        disk.sync_directory("")?;
    }
    let journal = data.join(JOURNAL_DIRECTORY);
    if journal.exists() {
        fs::remove_dir_all(&journal).map_err(|error| failed("remove", &journal, &error))?;
    }
    Ok(lock)
}

/// Copies a file, syncs it, and compares the copy with the manifest.
fn copy(backup: &Path, data: &Path, file: &Listed) -> Result<(), OpenError> {
    let (from, to) = (backup.join(&file.name), data.join(&file.name));
    fs::copy(&from, &to).map_err(|error| failed("copy", &to, &error))?;
    let writable = fs::set_permissions(&to, std::os::unix::fs::PermissionsExt::from_mode(0o600));
    writable.map_err(|error| failed("make writable", &to, &error))?;
    let synced = fs::File::open(&to).and_then(|file| file.sync_all());
    synced.map_err(|error| failed("sync", &to, &error))?;
    compare(&to, file)
}

fn compare(path: &Path, file: &Listed) -> Result<(), OpenError> {
    let corrupt = |reason: String| OpenError::Corrupt { file: path.display().to_string(), offset: 0, reason };
    let found = match checksum(path, &|| true) {
        Err(OpenError::Disk(DiskError { kind: DiskErrorKind::NotFound, .. })) => {
            return Err(corrupt(format!("{MANIFEST} lists it, and it is missing")));
        }
        found => found?,
    };
    match found {
        Some((bytes, _)) if bytes != file.bytes => {
            Err(corrupt(format!("it has {bytes} bytes, {MANIFEST} says {}", file.bytes)))
        }
        Some((_, crc)) if crc == file.crc => Ok(()),
        _ => Err(corrupt(format!("it is not what {MANIFEST} says: the CRC is another"))),
    }
}

/// Walks every packet of the copy.
fn check(disk: &RealDisk, manifest: &Manifest) -> Result<(), OpenError> {
    let survey = survey(disk, None, |_| {}, |_, _| {})?;
    let last_lsn = survey.last_lsn();
    let mut damage = survey.findings.into_iter().filter(|finding| finding.is_damage() && finding.file != "FORMAT");
    if let Some(finding) = damage.next() {
        return Err(OpenError::Corrupt {
            file: finding.file,
            offset: finding.offset.unwrap_or(0),
            reason: finding.what,
        });
    }
    if last_lsn < manifest.last_lsn {
        let reason = format!("the journal ends at LSN {last_lsn}, the backup says {}", manifest.last_lsn);
        return Err(OpenError::Corrupt { file: MANIFEST.to_owned(), offset: 0, reason });
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Else a kill right behind it would leave a journal that the next restore takes for somebody else's.
    #[test]
    fn the_mark_of_a_cut_restore_stays_until_another_one_is_done() {
        let directory = tempfile::tempdir().unwrap();
        let journal = directory.path().join(JOURNAL_DIRECTORY);
        for _ in 0..2 {
            fs::create_dir_all(&journal).unwrap();
            fs::write(journal.join("00000001.seg"), b"half").unwrap();
            fs::write(directory.path().join("FORMAT"), b"whole").unwrap();
            fs::write(directory.path().join(RESTORE_MARK), b"").unwrap();
            drop(empty_place(directory.path()).unwrap());
            assert!(directory.path().join(RESTORE_MARK).exists());
            assert!(!journal.exists() && !directory.path().join("FORMAT").exists());
        }
    }

    #[test]
    fn what_is_not_of_a_restore_is_left_alone() {
        let directory = tempfile::tempdir().unwrap();
        fs::create_dir(directory.path().join(JOURNAL_DIRECTORY)).unwrap();
        let error = empty_place(directory.path()).unwrap_err().to_string();
        assert!(error.contains("journal is in it"), "{error}");
        assert!(directory.path().join(JOURNAL_DIRECTORY).exists());
    }
}
