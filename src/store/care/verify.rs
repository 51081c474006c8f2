//! Whether a data directory is whole: every packet, every value of the index, and that the two agree.
//!
//! Nothing is changed but `LOCK`. What a start would write is written to a [`Shadow`]; the index is copied before sled
//! opens it, because opening is writing.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;

use super::compare::Comparison;
use super::place::{self, INDEX, copy_tree};
use super::shadow::Shadow;
use super::survey::survey;
use super::{Finding, Loss, Progress, Severity, offline};
use crate::store::OpenError;
use crate::store::directory::Format;
use crate::store::disk::Disk;
use crate::store::disk::real::RealDisk;
use crate::store::index::sled::{SledHome, panic_text};
use crate::store::index::{Direction, Index, IndexError, IndexHome};
use crate::store::indexer::Indexer;
use crate::store::journal::JournalReader;
use crate::store::tables::Stored;

/// Values of the index looked at in one step.
const SCAN: usize = 512;

/// What a data directory is like.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Verified {
    /// Everything that was found, in the order of looking.
    pub findings: Vec<Finding>,
    /// Packets that are missing.
    pub losses: Vec<Loss>,
    /// Segments that were walked.
    pub segments: u64,
    /// Whole packets.
    pub packets: u64,
    /// Values of the index that were read.
    pub index_values: u64,
    /// Groups that were compared; none where the journal is damaged, because then there is nothing to compare with.
    pub groups: u64,
    /// Entries of their logs.
    pub entries: u64,
    /// Users with memberships.
    pub users: u64,
}

impl Verified {
    /// Whether any byte is not what was written.
    pub fn is_damaged(&self) -> bool {
        self.findings.iter().any(Finding::is_damage)
    }
}

/// Verifies the data directory `data`. `scratch` is an empty directory with room for two copies of the index. Errors
/// where a server holds the directory, or nothing can be read at all; damage is no error.
pub fn verify(data: &Path, scratch: &Path, progress: &mut dyn FnMut(Progress)) -> Result<Verified, OpenError> {
    let _lock = place::lock(data)?;
    verify_locked(data, scratch, progress)
}

/// The same for whoever holds the lock.
pub(super) fn verify_locked(
    data: &Path,
    scratch: &Path,
    progress: &mut dyn FnMut(Progress),
) -> Result<Verified, OpenError> {
    let disk = RealDisk::new(data.to_owned());
    let mut verified = Verified::default();
    let kept = copied_index(data, scratch, &mut verified)?;
    let applied = kept.as_ref().and_then(|kept| applied_of(&disk, kept));
    let stage = "reading the journal";
    let found = survey(
        &disk,
        applied,
        |_| {},
        |at, last| {
            progress(Progress { stage, done: u64::from(at), all: u64::from(last) });
        },
    );
    let mut survey = match found {
        Ok(survey) => survey,
        Err(OpenError::Corrupt { file, offset, reason }) => {
            // Not even what the directory is can be told.
            verified.findings.push(Finding::damage(file, offset, reason));
            place::foreign(data, &mut verified.findings)?;
            return Ok(verified);
        }
        Err(other) => return Err(other),
    };
    verified.segments = survey.segments.len() as u64;
    verified.packets = survey.packets;
    verified.losses = std::mem::take(&mut survey.losses);
    let is_damaged = survey.is_damaged();
    verified.findings.append(&mut survey.findings);
    if is_damaged {
        let what = "not compared with the index: it is damaged";
        verified.findings.push(Finding::new(Severity::Note, "journal", None, what));
    } else {
        agree(&disk, survey.files.format, kept, scratch, &mut verified, progress)?;
    }
    place::foreign(data, &mut verified.findings)?;
    Ok(verified)
}

/// A copy of the index that opened, its values all read; nothing where there is no index, or a broken one.
pub(super) fn copied_index(
    data: &Path,
    scratch: &Path,
    verified: &mut Verified,
) -> Result<Option<SledHome>, OpenError> {
    let (original, copy) = (data.join(INDEX), scratch.join("kept"));
    if !original.is_dir() {
        let what = "there is none: the next start makes it anew from the journal";
        verified.findings.push(Finding::new(Severity::Note, INDEX, None, what));
        return Ok(None);
    }
    copy_tree(&original, &copy)?;
    let home = SledHome::new(copy);
    let read = catch_unwind(AssertUnwindSafe(|| {
        let index = home.open()?;
        read_values(&*index, verified)
    }));
    match read.unwrap_or_else(|panic| Err(IndexError(panic_text(&*panic)))) {
        Ok(()) => Ok(Some(home)),
        Err(error) => {
            broken(&error, verified);
            Ok(None)
        }
    }
}

fn broken(error: &IndexError, verified: &mut Verified) {
    let what = format!("it does not work ({}): it is made anew from the journal, and nothing is lost", error.0);
    verified.findings.push(Finding::new(Severity::Damage, INDEX, None, what));
}

/// Reads every value.
fn read_values(index: &dyn Index, verified: &mut Verified) -> Result<(), IndexError> {
    let mut low = Vec::new();
    loop {
        let items = index.scan(&low, &[0xff], Direction::Ascending, SCAN)?;
        for (key, value) in &items {
            verified.index_values += 1;
            if let Err(error) = Stored::decode(key, value) {
                let what = format!("the value of key {key:02x?} is damaged: {error}");
                return Err(IndexError(what));
            }
        }
        let Some((last, _)) = items.last() else { return Ok(()) };
        low.clone_from(last);
        low.push(0);
    }
}

/// What a copied index has applied; it belongs to whichever directory it says.
pub(super) fn applied_of<D: Disk>(disk: &D, kept: &SledHome) -> Option<crate::store::journal::Applied> {
    let format = crate::store::directory::read_format(disk).ok().flatten()?;
    let applied = catch_unwind(AssertUnwindSafe(|| {
        offline::indexer(disk, format, kept).ok().and_then(|indexer| offline::applied(&indexer))
    }));
    applied.ok().flatten()
}

/// Opens a journal that looks whole exactly as a server would, makes an index anew from it, and compares.
fn agree<D: Disk>(
    disk: &D,
    format: Format,
    kept: Option<SledHome>,
    scratch: &Path,
    verified: &mut Verified,
    progress: &mut dyn FnMut(Progress),
) -> Result<(), OpenError> {
    let shadow = Shadow::new(disk.clone());
    let mut kept = kept.and_then(|home| match opened(&shadow, format, &home) {
        Ok(indexer) => Some(indexer),
        Err(error) => {
            broken(&error, verified);
            None
        }
    });
    let opened = match offline::open(shadow.clone(), format, kept.as_ref().and_then(offline::applied)) {
        Ok(opened) => opened,
        Err(OpenError::Corrupt { file, offset, reason }) => {
            verified.findings.push(Finding::damage(file, offset, reason));
            return Ok(());
        }
        Err(other) => return Err(other),
    };
    if kept.is_some() && !opened.index_agrees {
        broken(&IndexError("it is at no place of this journal".to_owned()), verified);
        kept = None;
    }
    let all = u64::from(opened.end.segment);
    let fresh = SledHome::new(scratch.join("fresh"));
    let mut fresh = offline::indexer(&shadow, format, &fresh).map_err(|error| OpenError::Index(error.0))?;
    offline::catch_up(&mut fresh, &opened, |at| {
        progress(Progress { stage: "making an index anew", done: u64::from(at.segment), all });
    })?;
    let outcome = catch_unwind(AssertUnwindSafe(|| {
        if let Some(kept) = &mut kept {
            offline::catch_up(kept, &opened, |_| {}).map_err(|error| IndexError(error.to_string()))?;
        }
        Comparison::new(&mut fresh, kept.as_mut(), &mut verified.findings)
            .run(|groups| progress(Progress { stage: "comparing groups", done: groups, all: 0 }))
    }));
    match outcome.unwrap_or_else(|panic| Err(IndexError(panic_text(&*panic)))) {
        Ok(compared) => {
            (verified.groups, verified.entries, verified.users) = (compared.groups, compared.entries, compared.users);
        }
        Err(error) => broken(&error, verified),
    }
    Ok(())
}

fn opened<D: Disk>(shadow: &Shadow<D>, format: Format, home: &SledHome) -> Result<Indexer<Shadow<D>>, IndexError> {
    let reader = JournalReader::new(shadow.clone(), format.segment_bytes);
    let opened = catch_unwind(AssertUnwindSafe(|| Indexer::new(home.open()?, reader, format.directory)));
    opened.unwrap_or_else(|panic| Err(IndexError(panic_text(&*panic))))
}
