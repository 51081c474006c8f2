//! Makes the longest consistent journal out of a damaged one, and keeps the original.
//!
//! The new journal is built in `damaged-N/journal`, whole segments before the damage as hard links; then it changes
//! places with `journal` in one atomic step, so that at every moment `journal` is the old one or the new one. The index
//! goes before that: it must never meet a journal whose places have moved. A repair that was cut anywhere can be run
//! again (`docs/durability.md`).

use std::fs;
use std::path::{Path, PathBuf};

use super::place::{self, DAMAGED, INDEX, failed, names};
use super::plan::{Decisions, GroupLoss};
use super::rewrite::Rewriter;
use super::survey::{Survey, Walked, survey};
use super::verify::{Verified, copied_index, verify_locked};
use super::{Progress, REPAIR_MARK, offline};
use crate::store::OpenError;
use crate::store::directory::{Format, Lock, write_format};
use crate::store::disk::real::RealDisk;
use crate::store::disk::{Disk, DiskFile};
use crate::store::index::sled::SledHome;
use crate::store::journal::head::Head;
use crate::store::journal::segment::segment_path;
use crate::store::journal::writer::{Tail, beginning};
use crate::store::journal::{JOURNAL_DIRECTORY, head};

const JOURNAL_STAGE: &str = "writing what is saved";

/// A repair that is planned: nothing is changed yet, and nobody else can change anything.
#[derive(Debug)]
pub struct Repair {
    /// What is wrong, and how many packets are lost.
    pub verified: Verified,
    /// The groups that lose entries.
    pub groups: Vec<GroupLoss>,
    data: PathBuf,
    /// What becomes of the journal; `None` where it is whole.
    journal: Option<JournalPlan>,
    lock: Lock,
}

#[derive(Debug)]
struct JournalPlan {
    survey: Survey,
    decisions: Decisions,
}

/// A repair that is done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Repaired {
    /// The directory with the originals, relative to the data directory.
    pub kept: String,
    /// Segments that were written again.
    pub segments_written: u64,
}

impl Repair {
    /// Finds out what is wrong and what can be saved. `scratch` as for `verify`.
    pub fn plan(data: &Path, scratch: &Path, progress: &mut dyn FnMut(Progress)) -> Result<Self, OpenError> {
        let lock = place::lock(data)?;
        let verified = verify_locked(data, scratch, progress)?;
        let data = data.to_owned();
        // The index alone, which is made anew from the journal, makes no plan.
        if !verified.findings.iter().any(|finding| finding.is_damage() && finding.file != INDEX) {
            return Ok(Self { verified, groups: Vec::new(), data, journal: None, lock });
        }
        let disk = RealDisk::new(data.clone());
        let mut decisions = Decisions::default();
        let index = scratch.join("evidence");
        fs::create_dir_all(&index).map_err(|error| failed("create", &index, &error))?;
        let kept = copied_index(&data, &index, &mut Verified::default())?;
        let applied = kept.as_ref().and_then(|kept| super::verify::applied_of(&disk, kept));
        let stage = "finding what can be saved";
        let survey = survey(
            &disk,
            applied,
            |seen| decisions.see(&seen),
            |at, last| {
                progress(Progress { stage, done: u64::from(at), all: u64::from(last) });
            },
        )?;
        if let Some(kept) = kept {
            ask_index(&disk, survey.files.format, &kept, &mut decisions);
        }
        decisions.settle(survey.files.first, survey.losses.is_empty());
        let groups = decisions.losses();
        Ok(Self { verified, groups, data, journal: Some(JournalPlan { survey, decisions }), lock })
    }

    /// Whether anything is damaged, or a repair was left unfinished.
    pub fn is_needed(&self) -> bool {
        self.verified.is_damaged() || self.data.join(JOURNAL_DIRECTORY).join(REPAIR_MARK).exists()
    }

    /// Does it. An error leaves the originals where they were, or in the directory that the next run names.
    pub fn run(self, progress: &mut dyn FnMut(Progress)) -> Result<Repaired, OpenError> {
        remove_unfinished(&self.data)?;
        let kept = self.free_name()?;
        let aside = self.data.join(&kept);
        fs::create_dir(&aside).map_err(|error| failed("create", &aside, &error))?;
        let disk = RealDisk::new(self.data.clone());
        disk.sync_directory("")?;
        let mut segments_written = 0;
        let mut format = None;
        if let Some(plan) = &self.journal {
            segments_written = build(&disk, &aside, plan, progress)?;
            format = Some(plan.survey.files.format);
            if !plan.survey.files.format_is_whole {
                keep_format(&self.data, &aside, plan.survey.files.format)?;
            }
        }
        move_index(&self.data, &aside)?;
        if self.journal.is_some() {
            exchange(&self.data, &aside)?;
        }
        finish(&disk, &self.data, format, progress)?;
        drop(self.lock);
        Ok(Repaired { kept, segments_written })
    }

    /// The first `damaged-N` that is not there.
    fn free_name(&self) -> Result<String, OpenError> {
        let taken = names(&self.data).map_err(|error| failed("list", &self.data, &error))?;
        let free = (1..=taken.len() + 1).map(|number| format!("{DAMAGED}{number}"));
        let mut free = free.filter(|name| !taken.iter().any(|taken| taken.to_str() == Some(name)));
        Ok(free.next().expect("more numbers than names"))
    }
}

/// The heads that the index knew of are witnesses of what is lost, though the journal alone decides what stays.
fn ask_index(disk: &RealDisk, format: Format, kept: &SledHome, decisions: &mut Decisions) {
    let asked = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
        let Ok(indexer) = offline::indexer(disk, format, kept) else { return };
        let mut after = None;
        loop {
            match indexer.next_log(after) {
                Ok(Some((group, floor, head))) => {
                    decisions.know(group, floor, head);
                    after = Some(group);
                }
                // Only an index that was read to its end knows which groups are not there any more.
                Ok(None) => return decisions.ask_index(indexer.folded().map_or(0, |folded| folded.lsn)),
                Err(_) => return,
            }
        }
    }));
    if asked.is_err() {
        tracing::warn!("the index gives no evidence of what is lost: it panicked");
    }
}

/// Removes what an interrupted repair has built and not put in place; originals that were kept stay.
fn remove_unfinished(data: &Path) -> Result<(), OpenError> {
    for name in names(data).map_err(|error| failed("list", data, &error))? {
        if !name.to_string_lossy().starts_with(DAMAGED) {
            continue;
        }
        let aside = data.join(&name);
        let built = aside.join(JOURNAL_DIRECTORY);
        if built.join(REPAIR_MARK).exists() {
            // The mark goes last: half removed it must still be known for what it is.
            for inside in names(&built).map_err(|error| failed("list", &built, &error))? {
                let path = built.join(&inside);
                if inside != REPAIR_MARK {
                    fs::remove_file(&path).map_err(|error| failed("remove", &path, &error))?;
                }
            }
            fs::remove_dir_all(&built).map_err(|error| failed("remove", &built, &error))?;
        }
        // Only succeeds where nothing was kept in it.
        let _ = fs::remove_dir(&aside);
    }
    Ok(())
}

/// Builds the new journal in `aside/journal`, synced; gives how many segments were written again.
fn build(
    disk: &RealDisk,
    aside: &Path,
    plan: &JournalPlan,
    progress: &mut dyn FnMut(Progress),
) -> Result<u64, OpenError> {
    let new = RealDisk::new(aside.to_owned());
    let survey = &plan.survey;
    let format = survey.files.format;
    new.create_directory(JOURNAL_DIRECTORY)?;
    let mark = new.create(&format!("{JOURNAL_DIRECTORY}/{REPAIR_MARK}"))?;
    mark.write_at(0, b"built by `roundtable repair`, which removes this file when it is done\n")?;
    mark.sync()?;
    new.sync_directory(JOURNAL_DIRECTORY)?;
    new.sync_directory("")?;
    head::create(&new, format.directory)?;
    let (whole, rest) = parts(survey, plan.decisions.first_dropped());
    for (at, segment) in whole.iter().enumerate() {
        let is_last = at + 1 == whole.len() && rest.is_empty();
        place_whole(disk, &new, aside, segment, is_last)?;
    }
    if let Some(last) = whole.last() {
        head::record(&new, format.directory, Head { newest: last.number, first: survey.files.first })?;
    }
    let behind_whole = whole.last().and_then(|segment| segment.stretches.last()).map(|stretch| stretch.to);
    let start = behind_whole.unwrap_or_else(|| before(survey));
    let all = u64::from(survey.files.last);
    let journal = offline::journal(new.clone(), format);
    let rewriter = Rewriter::new(disk, &plan.decisions, journal, start, survey.files.first);
    let floors = plan.decisions.raised_floors();
    rewriter.run(&rest, &floors, |number| progress(Progress { stage: JOURNAL_STAGE, done: u64::from(number), all }))?;
    new.sync_directory(JOURNAL_DIRECTORY)?;
    check(&new, format)?;
    Ok(rest.len() as u64)
}

/// The segments that stay as they are, and those that are written again. Nothing is written for what is lost at the
/// end; a journal of which nothing is left begins anew with an empty segment. A packet that cannot stay may stand before
/// all damage.
fn parts(survey: &Survey, first_dropped: Option<u64>) -> (Vec<Walked>, Vec<Walked>) {
    let stays = |segment: &&Walked| {
        let next_lsn = segment.stretches.last().map_or(0, |stretch| stretch.to.next_lsn);
        segment.is_whole && first_dropped.is_none_or(|dropped| next_lsn <= dropped)
    };
    let whole = survey.segments.iter().take_while(stays).count();
    let (whole, rest) = survey.segments.split_at(whole);
    let has_packets = |segment: &Walked| !segment.stretches.is_empty();
    let mut used = rest.iter().rposition(has_packets).map_or(0, |last| last + 1);
    if whole.is_empty() {
        used = used.max(1);
    }
    (whole.to_vec(), rest.iter().take(used).cloned().collect())
}

/// The tail before the first segment of a journal.
fn before(survey: &Survey) -> Tail {
    let first = survey.segments.iter().find_map(|segment| segment.stretches.first());
    match first {
        // What stood before it was cleaned.
        Some(stretch) if survey.files.first > 1 => Tail { segment: survey.files.first - 1, ..stretch.from },
        _ => Tail { segment: survey.files.first.saturating_sub(1), ..beginning() },
    }
}

/// Puts a segment that stays as it is into the new journal. Only the last one is ever written to again, so it alone
/// needs a copy: the original must stay what it is.
fn place_whole(
    disk: &RealDisk,
    new: &RealDisk,
    aside: &Path,
    segment: &Walked,
    is_last: bool,
) -> Result<(), OpenError> {
    let path = segment_path(segment.number);
    let (from, to) = (disk.below(&path), aside.join(&path));
    if !is_last && fs::hard_link(&from, &to).is_ok() {
        return Ok(());
    }
    fs::copy(&from, &to).map_err(|error| failed("copy", &to, &error))?;
    new.open(&path)?.sync()?;
    Ok(())
}

/// What was built must be whole before it takes the place of anything.
fn check(new: &RealDisk, format: Format) -> Result<(), OpenError> {
    // The new directory has no FORMAT; the segments themselves say it.
    let checked = survey(new, None, |_| {}, |_, _| {})?;
    assert_eq!(checked.files.format, format, "what we wrote says what it is");
    let mut wrong = checked.findings.into_iter().filter(|finding| finding.is_damage() && finding.file != "FORMAT");
    match wrong.next() {
        None => Ok(()),
        Some(finding) => Err(OpenError::Corrupt {
            file: finding.file,
            offset: finding.offset.unwrap_or(0),
            reason: format!("the repaired journal is not whole: {}; the original is where it was", finding.what),
        }),
    }
}

/// Keeps a damaged `FORMAT` and writes a new one from what the segments say.
fn keep_format(data: &Path, aside: &Path, format: Format) -> Result<(), OpenError> {
    let (from, to) = (data.join("FORMAT"), aside.join("FORMAT"));
    if from.exists() {
        fs::copy(&from, &to).map_err(|error| failed("copy", &from, &error))?;
    }
    write_format(&RealDisk::new(data.to_owned()), format)
}

/// Moves the index out of the way.
fn move_index(data: &Path, aside: &Path) -> Result<(), OpenError> {
    let (from, to) = (data.join(INDEX), aside.join(INDEX));
    if from.exists() {
        fs::rename(&from, &to).map_err(|error| failed("move", &from, &error))?;
    }
    RealDisk::new(aside.to_owned()).sync_directory("")?;
    RealDisk::new(data.to_owned()).sync_directory("")?;
    Ok(())
}

/// Lets the new journal and the old one change places, in one step.
fn exchange(data: &Path, aside: &Path) -> Result<(), OpenError> {
    use rustix::fs::{CWD, RenameFlags, renameat_with};
    let (old, new) = (data.join(JOURNAL_DIRECTORY), aside.join(JOURNAL_DIRECTORY));
    let flags = if old.exists() { RenameFlags::EXCHANGE } else { RenameFlags::NOREPLACE };
    renameat_with(CWD, &new, CWD, &old, flags).map_err(|error| failed("exchange", &old, &error.into()))?;
    RealDisk::new(data.to_owned()).sync_directory("")?;
    RealDisk::new(aside.to_owned()).sync_directory("")?;
    Ok(())
}

/// Opens what is there now as a server does, makes the index anew, and takes the mark away.
fn finish(
    disk: &RealDisk,
    data: &Path,
    format: Option<Format>,
    progress: &mut dyn FnMut(Progress),
) -> Result<(), OpenError> {
    let format = match format {
        Some(format) => format,
        None => crate::store::directory::read_format(disk)?.expect("a directory that is whole has a format"),
    };
    let mark = format!("{JOURNAL_DIRECTORY}/{REPAIR_MARK}");
    if disk.exists(&mark)? {
        disk.remove(&mark)?;
        disk.sync_directory(JOURNAL_DIRECTORY)?;
    }
    let opened = offline::open(disk.clone(), format, None)?;
    let home = SledHome::new(data.join(INDEX));
    let mut indexer = offline::indexer(disk, format, &home).map_err(|error| OpenError::Index(error.0))?;
    let all = u64::from(opened.end.segment);
    offline::catch_up(&mut indexer, &opened, |at| {
        progress(Progress { stage: "making the index anew", done: u64::from(at.segment), all });
    })
}
