//! Backups of running storage, each on a thread of its own: acknowledgements and look-ups go on meanwhile.
//!
//! The journal thread seals the current segment behind everything that was committed before; what is sealed is never
//! written to again, so it can be linked or copied without stopping anybody.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::mpsc::{self, Receiver, RecvTimeoutError, Sender};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use super::journal::{self, SealedLog};
use super::{CleaningHold, Report, wall_ms};
use crate::store::care::{Source, check_place, copy_journal};
use crate::store::directory::Format;
use crate::store::disk::Disk;
use crate::store::disk::real::RealDisk;
use crate::store::journal::Position;
use crate::store::journal::recovery::release_rest;
use crate::store::journal::segment::SEGMENT_HEADER_BYTES;
use crate::store::{BackupError, BackupSummary, Event, ReadId};

/// How long a backup waits for a segment to be sealed. That needs a spare, which a full disk does not have.
const SEAL_PATIENCE: Duration = Duration::from_secs(30);
/// How often it looks whether the server stops.
const LOOK: Duration = Duration::from_millis(50);
/// Segments' worth of free space below which nothing is sealed: a seal spends the spare that granted room is backed by.
const RESERVE_SEGMENTS: u64 = 3;

/// Begins backups, one at a time.
pub(super) struct Backups {
    task: Task,
    busy: Arc<AtomicBool>,
    /// The last one, and what it says when it has ended.
    thread: Mutex<Option<(JoinHandle<()>, Receiver<()>)>>,
}

/// What a backup needs to know.
#[derive(Clone)]
struct Task {
    /// The data directory; none where storage is not on the real disk.
    data: Option<PathBuf>,
    format: Format,
    report: Report,
    commits: Sender<journal::Message>,
    stopping: Arc<AtomicBool>,
    /// While it is not 0, no segment is deleted.
    cleaning_held: Arc<AtomicUsize>,
}

impl Backups {
    pub(super) fn new(
        format: Format,
        report: Report,
        commits: Sender<journal::Message>,
        stopping: Arc<AtomicBool>,
        cleaning_held: Arc<AtomicUsize>,
    ) -> Self {
        let task = Task { data: None, format, report, commits, stopping, cleaning_held };
        Self { task, busy: Arc::new(AtomicBool::new(false)), thread: Mutex::new(None) }
    }

    /// Says where the journal is.
    pub(super) fn set_data(&mut self, data: PathBuf) {
        self.task.data = Some(data);
    }

    /// Begins one; its outcome is an event.
    pub(super) fn begin(&self, read: ReadId, path: PathBuf) {
        if self.busy.swap(true, Ordering::SeqCst) {
            return self.task.report.say(Event::BackupDone { read, result: Err(BackupError::Busy) });
        }
        let (task, busy) = (self.task.clone(), self.busy.clone());
        let (end, ended) = mpsc::channel();
        let run = move || {
            let result = task.run(&path);
            if let Err(error) = &result {
                tracing::warn!("no backup in {}: {error}", path.display());
            }
            busy.store(false, Ordering::SeqCst);
            task.report.say(Event::BackupDone { read, result });
            // It may be a stop that waits for it.
            let _ = end.send(());
        };
        let spawned = std::thread::Builder::new().name("backup".to_owned()).spawn(run);
        match spawned {
            Ok(thread) => *self.thread.lock().unwrap_or_else(PoisonError::into_inner) = Some((thread, ended)),
            Err(error) => {
                self.busy.store(false, Ordering::SeqCst);
                let result = Err(BackupError::Failed(format!("the system gives no thread: {error}")));
                self.task.report.say(Event::BackupDone { read, result });
            }
        }
    }

    /// Waits for the end of a backup that is under way, or until then; whether there is none any more. `stopping` is
    /// set: it gives up at the next step.
    pub(super) fn finish(&self, until: Instant) -> bool {
        let Some((thread, ended)) = self.thread.lock().unwrap_or_else(PoisonError::into_inner).take() else {
            return true;
        };
        let left = until.saturating_duration_since(Instant::now());
        if ended.recv_timeout(left) == Err(RecvTimeoutError::Timeout) {
            return false;
        }
        // A panic of it was its own: it holds nothing that others need.
        let _ = thread.join();
        true
    }
}

impl Task {
    fn run(&self, target: &Path) -> Result<BackupSummary, BackupError> {
        let data = self.data.as_deref().ok_or_else(|| BackupError::Failed("there is no real disk".to_owned()))?;
        check_place(data, target)?;
        let disk = RealDisk::new(data.to_owned());
        let needed = RESERVE_SEGMENTS * u64::from(self.format.segment_bytes);
        let free = disk.free_bytes()?;
        if free < needed {
            let text = format!("the disk of the data directory has {free} bytes left, and {needed} are needed");
            return Err(BackupError::NoSpace(text));
        }
        let _held = CleaningHold::new(&self.cleaning_held, &self.commits);
        let SealedLog { first, last } = self.seal()?;
        if last < first {
            return Err(BackupError::Place("nothing was ever written: there is nothing to back up".to_owned()));
        }
        // What a seal leaves empty is given back, as recovery gives it back; where that is not possible it stays taken.
        let start = Position { segment: last, offset: SEGMENT_HEADER_BYTES };
        release_rest(&disk, start, self.format.segment_bytes);
        let go_on = || !self.stopping.load(Ordering::Relaxed);
        let format = self.format;
        let source = Source { data, format, first, last, last_is_open: false, made_at_ms: wall_ms(), go_on: &go_on };
        copy_journal(&source, target, &mut |_| {})
    }

    /// The segments that are sealed behind everything committed so far.
    fn seal(&self) -> Result<SealedLog, BackupError> {
        let until = Instant::now() + SEAL_PATIENCE;
        while Instant::now() < until {
            let (sealed, reply) = mpsc::channel();
            self.commits.send(journal::Message::Seal(sealed)).map_err(|_| BackupError::Stopping)?;
            if let Some(sealed) = self.answer_of(&reply)? {
                return Ok(sealed);
            }
            // Without a spare there is nothing to go on in; the spare thread makes one, unless the disk is full.
            std::thread::park_timeout(LOOK);
        }
        Err(BackupError::NoSpace("the disk has no room for another segment".to_owned()))
    }

    /// What the journal's thread says, as long as storage does not stop: it may be stuck.
    fn answer_of(&self, reply: &Receiver<Option<SealedLog>>) -> Result<Option<SealedLog>, BackupError> {
        loop {
            let answer = reply.recv_timeout(LOOK);
            if self.stopping.load(Ordering::Relaxed) {
                return Err(BackupError::Stopping);
            }
            match answer {
                Ok(answer) => return Ok(answer),
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => return Err(BackupError::Stopping),
            }
        }
    }
}
