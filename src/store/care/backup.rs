//! Copies a journal to where nothing writes to it: sealed segments as hard links or copies, checked, a manifest last.

use std::fmt;
use std::fs;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

use super::manifest::{Listed, MANIFEST, Manifest, checksum};
use super::place::{failed, lock, names};
use super::survey::survey;
use super::{Finding, Progress};
use crate::store::OpenError;
use crate::store::directory::{Format, read_format, sync_above, write_format};
use crate::store::disk::real::RealDisk;
use crate::store::disk::{Disk, DiskError, DiskErrorKind};
use crate::store::journal::head::Head;
use crate::store::journal::segment::{segment_number, segment_path};
use crate::store::journal::{JOURNAL_DIRECTORY, head};

/// What a backup consists of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BackupSummary {
    /// Files, the manifest included.
    pub files: u64,
    /// Bytes of all of them.
    pub bytes: u64,
}

/// Why there is no backup. What was begun of it is removed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum BackupError {
    /// The directory cannot be used, in words.
    Place(String),
    /// The disk has no room for it.
    NoSpace(String),
    /// The journal is damaged: there is nothing that is worth a backup's name.
    Damaged(String),
    /// Another backup is under way.
    Busy,
    /// The server stops.
    Stopping,
    /// The file system refuses.
    Failed(String),
}

impl fmt::Display for BackupError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Place(text) | Self::NoSpace(text) | Self::Damaged(text) | Self::Failed(text) => f.write_str(text),
            Self::Busy => f.write_str("another backup is under way: wait for its end"),
            Self::Stopping => f.write_str("the server is stopping: there is no backup"),
        }
    }
}

impl std::error::Error for BackupError {}

impl From<OpenError> for BackupError {
    fn from(error: OpenError) -> Self {
        match error {
            OpenError::Full { .. } | OpenError::Disk(DiskError { kind: DiskErrorKind::NoSpace, .. }) => {
                Self::NoSpace(error.to_string())
            }
            OpenError::Corrupt { .. } => Self::Damaged(error.to_string()),
            _ => Self::Failed(error.to_string()),
        }
    }
}

impl From<DiskError> for BackupError {
    fn from(error: DiskError) -> Self {
        OpenError::from(error).into()
    }
}

/// What a backup is made of.
pub(crate) struct Source<'s> {
    /// The data directory.
    pub(crate) data: &'s Path,
    pub(crate) format: Format,
    /// The segment with which the log begins.
    pub(crate) first: u32,
    /// The last segment that belongs to it.
    pub(crate) last: u32,
    /// Whether somebody may still write to that one, now or later: then it is copied, not linked.
    pub(crate) last_is_open: bool,
    pub(crate) made_at_ms: u64,
    /// Asked often; once it says no, the backup is given up.
    pub(crate) go_on: &'s dyn Fn() -> bool,
}

/// Backs up a data directory that no server runs on.
pub fn backup_offline(
    data: &Path,
    target: &Path,
    made_at_ms: u64,
    progress: &mut dyn FnMut(Progress),
) -> Result<BackupSummary, OfflineError> {
    let lock = lock(data).map_err(OfflineError::Open)?;
    check_place(data, target)?;
    let disk = RealDisk::new(data.to_owned());
    let format = read_format(&disk).map_err(OfflineError::Open)?;
    let missing = || OpenError::Corrupt { file: "FORMAT".to_owned(), offset: 0, reason: "it is missing".to_owned() };
    let format = format.ok_or_else(|| OfflineError::Open(missing()))?;
    let head = head::read(&disk, format.directory).map_err(OfflineError::Open)?;
    let last = last_segment(&disk)?.max(head.newest);
    let source = Source { data, format, first: head.first, last, last_is_open: true, made_at_ms, go_on: &|| true };
    let summary = copy(&source, target, progress)?;
    drop(lock);
    Ok(summary)
}

/// Why a backup without a server came to nothing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum OfflineError {
    /// The data directory cannot be used.
    Open(OpenError),
    /// The backup cannot be made.
    Backup(BackupError),
}

impl<E: Into<BackupError>> From<E> for OfflineError {
    fn from(error: E) -> Self {
        Self::Backup(error.into())
    }
}

fn segment_numbers(disk: &RealDisk) -> Result<Vec<u32>, DiskError> {
    let listed = disk.list_or_none(JOURNAL_DIRECTORY)?;
    Ok(listed.iter().filter_map(|file| segment_number(&file.name)).collect())
}

fn last_segment(disk: &RealDisk) -> Result<u32, DiskError> {
    Ok(segment_numbers(disk)?.into_iter().max().unwrap_or(0))
}

/// Refuses places at which a backup would be none.
pub(crate) fn check_place(data: &Path, target: &Path) -> Result<(), BackupError> {
    let shown = target.display();
    if !target.is_absolute() {
        return Err(BackupError::Place(format!("{shown} is a relative path: name the directory from the root on")));
    }
    // What does not exist yet lies in what does.
    let there = target.ancestors().find(|path| path.exists()).unwrap_or(Path::new("/"));
    let canonical = |path: &Path| path.canonicalize().map_err(|error| BackupError::from(failed("find", path, &error)));
    if canonical(there)?.starts_with(canonical(data)?) {
        return Err(BackupError::Place(format!("{shown} is inside the data directory: a backup belongs elsewhere")));
    }
    if !target.exists() {
        return Ok(());
    }
    match names(target) {
        Ok(names) if names.is_empty() => Ok(()),
        Ok(_) => Err(BackupError::Place(format!("{shown} is not empty: name a new directory"))),
        Err(_) => Err(BackupError::Place(format!("{shown} is no directory that can be read: name a new one"))),
    }
}

/// Makes the backup in `target`, which [`check_place`] has found good.
pub(crate) fn copy(
    source: &Source<'_>,
    target: &Path,
    progress: &mut dyn FnMut(Progress),
) -> Result<BackupSummary, BackupError> {
    let made = fs::DirBuilder::new().recursive(true).mode(0o700).create(target);
    made.map_err(|error| BackupError::Place(format!("{} cannot be made: {error}", target.display())))?;
    let outcome = fill(source, target, progress);
    if outcome.is_err() {
        // It was empty: everything in it is of this backup, and half of one is of no use.
        if let Err(error) = remove_content(target) {
            tracing::warn!("an unfinished backup stays in {}: {error}", target.display());
        }
    }
    outcome
}

fn remove_content(target: &Path) -> std::io::Result<()> {
    for name in names(target)? {
        let path = target.join(name);
        if path.is_dir() { fs::remove_dir_all(&path)? } else { fs::remove_file(&path)? }
    }
    Ok(())
}

fn fill(source: &Source<'_>, target: &Path, progress: &mut dyn FnMut(Progress)) -> Result<BackupSummary, BackupError> {
    let disk = RealDisk::new(target.to_owned());
    disk.create_directory(JOURNAL_DIRECTORY)?;
    let mut numbers = segment_numbers(&RealDisk::new(source.data.to_owned()))?;
    numbers.retain(|number| (source.first..=source.last).contains(number));
    let all = numbers.len() as u64;
    for (done, number) in (1..).zip(&numbers) {
        still_wanted(source)?;
        place(source, &disk, target, *number)?;
        progress(Progress { stage: "copying segments", done, all });
    }
    head::create(&disk, source.format.directory)?;
    head::record(&disk, source.format.directory, Head { newest: source.last, first: source.first })?;
    disk.sync_directory(JOURNAL_DIRECTORY)?;
    write_format(&disk, source.format)?;
    sync_above(target)?;
    let last_lsn = check(source, &disk, progress)?;
    let mut files = vec!["FORMAT".to_owned(), format!("{JOURNAL_DIRECTORY}/{}", head::HEAD_FILE)];
    files.extend(numbers.into_iter().map(segment_path));
    let files = files.into_iter().map(|name| {
        let sums = checksum(&target.join(&name), source.go_on)?.ok_or(BackupError::Stopping)?;
        Ok(Listed { name, bytes: sums.0, crc: sums.1 })
    });
    let files = files.collect::<Result<Vec<_>, BackupError>>()?;
    let manifest = Manifest { format: source.format, made_at_ms: source.made_at_ms, last_lsn, files };
    manifest.write(&disk)?;
    let written = fs::metadata(target.join(MANIFEST)).map_err(|error| failed("find", target, &error))?.len();
    let bytes = manifest.files.iter().map(|file| file.bytes).sum::<u64>() + written;
    Ok(BackupSummary { files: manifest.files.len() as u64 + 1, bytes })
}

fn still_wanted(source: &Source<'_>) -> Result<(), BackupError> {
    if (source.go_on)() { Ok(()) } else { Err(BackupError::Stopping) }
}

/// Links a segment or, on another file system, copies and syncs it.
fn place(source: &Source<'_>, disk: &RealDisk, target: &Path, number: u32) -> Result<(), BackupError> {
    let path = segment_path(number);
    let (from, to): (PathBuf, PathBuf) = (source.data.join(&path), target.join(&path));
    let may_link = number < source.last || !source.last_is_open;
    if may_link && fs::hard_link(&from, &to).is_ok() {
        return Ok(());
    }
    let needed = u64::from(source.format.segment_bytes);
    let free = disk.free_bytes()?;
    if free < needed {
        let text = format!("{free} bytes are free at {}, the next segment needs {needed}", target.display());
        return Err(BackupError::NoSpace(text));
    }
    fs::copy(&from, &to).map_err(|error| BackupError::from(failed("copy", &to, &error)))?;
    let copied = fs::File::open(&to).and_then(|file| file.sync_all());
    copied.map_err(|error| BackupError::from(failed("sync", &to, &error)))
}

/// Walks every packet of the copies; gives the LSN of the last.
fn check(source: &Source<'_>, disk: &RealDisk, progress: &mut dyn FnMut(Progress)) -> Result<u64, BackupError> {
    let stage = "checking the copies";
    let survey = survey(
        disk,
        None,
        |_| {},
        |at, last| {
            progress(Progress { stage, done: u64::from(at), all: u64::from(last) });
        },
    )?;
    still_wanted(source)?;
    if let Some(finding) = survey.findings.iter().find(|finding| Finding::is_damage(finding)) {
        let text = format!("{finding}: run `roundtable verify` when the server has stopped");
        return Err(BackupError::Damaged(text));
    }
    Ok(survey.last_lsn())
}
