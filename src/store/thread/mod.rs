//! The threads of storage. The only place in `store` that has threads and reads clocks.
//!
//! * The **journal** thread appends, syncs and reports, and does nothing else.
//! * The **index** thread folds what the journal thread has synced, flushes it into sled, and answers look-ups.
//! * A **backup** thread while there is a backup: it links or copies what is sealed, and reads it back.
//! * The **spare** thread fills the next segment with zeros: 64 MiB of writes and their sync, which must delay neither
//!   an acknowledgement nor a look-up.
//!
//! Packets reach the index thread before `Durable` is reported, in a queue that wakes nobody; it takes them before each
//! look-up that it is woken for, and look-ups overtake only what does not concern them (`waiting.rs`): so a look-up that
//! was asked for after a ticket was durable sees it.

mod backlog;
mod backup;
#[cfg(test)]
mod cleaning_tests;
mod index;
mod journal;
mod room;
mod running;
mod spare;
#[cfg(test)]
mod steady;
#[cfg(any(test, feature = "sim"))]
pub(crate) mod stepped;
#[cfg(test)]
mod stop_tests;
#[cfg(test)]
mod tests;
mod waiting;

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::mpsc::{self, Receiver, Sender};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use rand::{RngCore, SeedableRng};

use super::cleaner::Cleaner;
use super::directory::{self, Format, Lock};
use super::disk::Disk;
use super::disk::real::RealDisk;
use super::index::sled::SledHome;
use super::index::{IndexError, IndexHome};
use super::indexer::Indexer;
use super::journal::writer::Journal;
use super::journal::{self as log, JournalReader, Now, Opened};
use super::{Change, Event, GroupQuota, OpenError, Request, Retention, Ticket, change_bytes};
use crate::limits::{PACKET_BYTES_MAX, SEGMENT_BYTES_MIN, STOP_MS};
use backlog::Backlog;
#[cfg(test)]
use journal::SealedLog;
use running::Running;

/// A day: a wall clock that says more has passed while nobody ran is not believed.
const DAY_MS: u64 = 24 * 60 * 60 * 1000;

/// Bytes of changes that come to the journal thread as one message at most, or little more: a batch is full by whole
/// messages.
const COMMITS_BYTES_MAX: usize = 256 * 1024;

/// Room that the first grant is made of at least, if the disk has it.
const START_ROOM_BYTES: u64 = 8 * PACKET_BYTES_MAX as u64;

/// The names of the threads.
const JOURNAL: &str = "journal";
const INDEX: &str = "index";
const SPARE: &str = "spare";

/// What a new data directory needs beside its first segment: head, format, key, and an empty index.
const NEW_DIRECTORY_BYTES: u64 = 4 * 1024 * 1024;

/// Where storage lives.
#[derive(Clone, Debug)]
pub struct StorageOptions {
    /// The data directory; made if it is missing.
    pub directory: PathBuf,
    /// Bytes of a segment of the journal, at least [`SEGMENT_BYTES_MIN`]. Only for a directory that is made new: one
    /// that is there says itself.
    pub segment_bytes: u64,
    /// How much of each log is kept.
    pub retention: Retention,
    /// In how many groups users may be: who has reached that is told as [`Event::UserFull`].
    pub quota: GroupQuota,
}

impl StorageOptions {
    /// A data directory, and otherwise the defaults.
    pub fn new(directory: impl Into<PathBuf>) -> Self {
        let (segment_bytes, retention) = (crate::limits::SEGMENT_BYTES_DEFAULT, Retention::default());
        Self { directory: directory.into(), segment_bytes, retention, quota: GroupQuota::default() }
    }
}

/// Tells the loop that there is an event to poll.
pub(crate) type Wake = Arc<dyn Fn() + Send + Sync>;

/// Open storage: the hub's port, with the threads behind it.
///
/// Dropped without [`Storage::stop`], it finishes and syncs what was submitted all the same, but tells nobody how
/// that went.
pub struct Storage {
    commits: Sender<journal::Message>,
    look_ups: Sender<index::Message>,
    events: Receiver<Event>,
    stopping: Arc<AtomicBool>,
    #[cfg(test)]
    holds: Arc<AtomicUsize>,
    /// None once storage has been stopped.
    running: Option<Running>,
    backups: backup::Backups,
    /// Given back last, when everything else is done.
    lock: Option<Lock>,
}

impl std::fmt::Debug for Storage {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Storage").finish_non_exhaustive()
    }
}

impl Storage {
    /// Opens a data directory, or makes it. Returns once the journal is recovered; [`Event::Ready`] follows when the
    /// index has caught up. `wake` is called, on any thread, after each event.
    pub fn start(options: &StorageOptions, wake: Arc<dyn Fn() + Send + Sync>) -> Result<Self, OpenError> {
        let lock = directory::lock(&options.directory)?;
        let home = SledHome::new(options.directory.join("index"));
        let segment_bytes = options.segment_bytes.max(SEGMENT_BYTES_MIN);
        let parts = Parts {
            disk: RealDisk::new(options.directory.clone()),
            home: Box::new(home),
            segment_bytes: u32::try_from(segment_bytes).unwrap_or(u32::MAX - 7),
            random: rand::rngs::StdRng::from_os_rng(),
            retention: options.retention,
            quota: options.quota.clone(),
        };
        let mut storage = parts.start(wake)?;
        storage.lock = Some(lock);
        storage.backups.set_data(options.directory.clone());
        Ok(storage)
    }

    /// Asks for something. Never blocks. After [`Event::Failed`] it is not answered any more.
    pub fn submit(&self, request: Request) {
        self.submit_all([request]);
    }

    /// Asks for several things. The changes among them come to the journal together: one by one, the first would be
    /// synced alone, and the others would wait for that.
    pub fn submit_all(&self, requests: impl IntoIterator<Item = Request>) {
        let (mut commits, mut bytes) = (Vec::new(), 0);
        for request in requests {
            match request {
                Request::Commit { ticket, change } => {
                    bytes += change_bytes(&change);
                    commits.push((ticket, change));
                    if bytes >= COMMITS_BYTES_MAX {
                        self.commit(std::mem::take(&mut commits));
                        bytes = 0;
                    }
                }
                Request::Backup { read, path } => {
                    // It has what was asked for before it.
                    self.commit(std::mem::take(&mut commits));
                    bytes = 0;
                    self.backups.begin(read, path.into());
                }
                // A thread that is gone has said `Failed`; there is nobody to tell.
                look_up => _ = self.look_ups.send(index::Message::LookUp(look_up)),
            }
        }
        self.commit(commits);
    }

    fn commit(&self, commits: Vec<(Ticket, Change)>) {
        if !commits.is_empty() {
            let _ = self.commits.send(journal::Message::Commit(commits));
        }
    }

    /// The next event, if there is one. Never blocks.
    pub fn poll_event(&self) -> Option<Event> {
        self.events.try_recv().ok()
    }

    /// Keeps every segment where it is for as long as the answer lives. One that is being removed already is before the
    /// beginning that [`Storage::seal`] tells afterwards.
    #[cfg(test)]
    pub(crate) fn hold_cleaning(&self) -> CleaningHold {
        CleaningHold::new(&self.holds, &self.commits)
    }

    /// Ends the segment that is being written; the answer tells which segments will not change any more. What was
    /// acknowledged before is in them. Nothing if there is no room for another segment.
    #[cfg(test)]
    pub(crate) fn seal(&self) -> Receiver<Option<SealedLog>> {
        let (reply, answer) = mpsc::channel();
        // A thread that is gone drops the sender: then there is no answer.
        let _ = self.commits.send(journal::Message::Seal(reply));
        answer
    }

    /// Finishes and syncs everything submitted, marks the journal as closed, and checkpoints the index; as far as that is
    /// possible in the time that a stop may take. An error names what failed, or what did not end: whatever was
    /// acknowledged is on disk all the same.
    pub fn stop(self) -> Result<(), String> {
        self.stop_within(Duration::from_millis(STOP_MS))
    }

    /// The same with less time, or more.
    pub(crate) fn stop_within(mut self, limit: Duration) -> Result<(), String> {
        self.finish(limit)
    }

    /// Runs each machine on a thread of its own.
    fn spawn<D: Disk>(mut self, machines: Machines<D>) -> Self {
        let Machines { journal, commit_queue, index, look_up_queue, spare, report, backlog } = machines;
        let mut running = Running::default();
        // Nobody waits in vain for a thread that panicked: not for what it was to report, nor for room in its queue.
        let panicked = || {
            let (report, backlog) = (report.clone(), backlog.clone());
            move |message: &str| {
                backlog.give_up();
                report.say(Event::Failed { message: message.to_owned() });
            }
        };
        running.spawn(JOURNAL, move || journal.run(&commit_queue), panicked());
        running.spawn(INDEX, move || index.run(&look_up_queue), panicked());
        let make_spares = move || {
            spare.run();
            Ok(())
        };
        running.spawn(SPARE, make_spares, panicked());
        self.running = Some(running);
        self
    }

    fn finish(&mut self, limit: Duration) -> Result<(), String> {
        let Some(mut running) = self.running.take() else { return Ok(()) };
        let until = Instant::now() + limit;
        self.stopping.store(true, Ordering::Relaxed);
        let _ = self.commits.send(journal::Message::Stop);
        // In this order: the journal's thread is the last to give the other two anything to do.
        for name in [JOURNAL, INDEX, SPARE] {
            if !running.wait(name, until) {
                // It may go on one day, and must not meet another process in its directory.
                std::mem::forget(self.lock.take());
                let limit_ms = limit.as_millis();
                return Err(format!("the {name} thread did not end within {limit_ms} ms: does the disk answer?"));
            }
            // Behind its last packets. It says so itself, but not when it panicked.
            if name == JOURNAL {
                let _ = self.look_ups.send(index::Message::Stop);
            }
        }
        if self.backups.finish(until) {
            self.lock = None;
        } else {
            tracing::warn!("an unfinished backup does not end: its disk does not answer");
            std::mem::forget(self.lock.take());
        }
        running.outcome()
    }
}

/// While it lives, no segment is removed.
#[derive(Debug)]
pub(crate) struct CleaningHold {
    holds: Arc<AtomicUsize>,
    journal: Sender<journal::Message>,
}

impl CleaningHold {
    fn new(holds: &Arc<AtomicUsize>, journal: &Sender<journal::Message>) -> Self {
        holds.fetch_add(1, Ordering::SeqCst);
        Self { holds: holds.clone(), journal: journal.clone() }
    }
}

impl Drop for CleaningHold {
    fn drop(&mut self) {
        self.holds.fetch_sub(1, Ordering::SeqCst);
        let _ = self.journal.send(journal::Message::Look);
    }
}

impl Drop for Storage {
    fn drop(&mut self) {
        if let Err(message) = self.finish(Duration::from_millis(STOP_MS)) {
            tracing::error!("storage did not end well: {message}");
        }
    }
}

/// What storage is made of; tests put other parts in.
pub(crate) struct Parts<D: Disk> {
    pub(crate) disk: D,
    pub(crate) home: Box<dyn IndexHome>,
    pub(crate) segment_bytes: u32,
    pub(crate) random: rand::rngs::StdRng,
    pub(crate) retention: Retention,
    pub(crate) quota: GroupQuota,
}

impl<D: Disk> Parts<D> {
    /// Opens everything and starts the threads.
    pub(crate) fn start(mut self, wake: Wake) -> Result<Storage, OpenError> {
        let (format, opened, start) = self.open()?;
        let clock = Clock::new(opened.last);
        let (machines, storage) = self.assemble(format, opened, start, wake, clock);
        Ok(storage.spawn(machines))
    }

    /// Opens index and journal, and says what each of the threads begins with.
    fn open(&mut self) -> Result<(Format, Opened<D>, index::Start<D>), OpenError> {
        let format = self.format()?;
        let reader = JournalReader::new(self.disk.clone(), format.segment_bytes);
        // The index is opened before the journal, and before anything is answered: recovery has to know what the
        // index has applied, because a journal that ends before that is damaged. It costs a second or two where
        // there are a million groups; replay is what happens behind.
        // On a full disk it fails, and looks as if it were broken.
        self.require("the index", index::FLUSH_FREE_BYTES)?;
        let (mut indexer, mut rebuilding) = match self.open_index(format, reader.sibling()) {
            Ok(indexer) => (indexer, false),
            Err(error) => (self.new_index(format, &reader, &error)?, true),
        };
        let applied = indexer.folded().map(|applied| log::Applied { lsn: applied.lsn, end: applied.end });
        let mut opened = log::recovery::open(self.journal(format), applied)?;
        if !opened.index_agrees {
            drop(indexer);
            indexer = self.new_index(format, &reader, &IndexError("it disagrees with the journal".to_owned()))?;
            rebuilding = true;
        }
        let sealed = std::mem::take(&mut opened.sealed);
        let cleaner = Cleaner::new(self.retention, u64::from(format.segment_bytes), sealed, opened.end);
        let (retention, quota) = (self.retention, self.quota.clone());
        Ok((format, opened, index::Start { indexer, rebuilding, reader, cleaner, retention, quota }))
    }

    /// Makes what each of the threads is to run, and the ends of the queues between them.
    fn assemble(
        self,
        format: Format,
        mut opened: Opened<D>,
        start: index::Start<D>,
        wake: Wake,
        clock: Clock,
    ) -> (Machines<D>, Storage) {
        let (event_sender, events) = mpsc::channel();
        let report = Report { events: event_sender, wake };
        let backup_report = report.clone();
        let (commits, commit_queue) = mpsc::channel();
        let (look_ups, packets, look_up_queue) = index::Queue::new();
        let (spares, spare_queue) = mpsc::channel();
        let stopping = Arc::new(AtomicBool::new(false));
        let backlog = Arc::new(Backlog::new(u64::from(format.segment_bytes)));
        let spare = spare::SpareThread {
            disk: self.disk.clone(),
            segment_bytes: u64::from(format.segment_bytes),
            wanted: spare_queue,
            ready: commits.clone(),
            index: look_ups.clone(),
            stopping: stopping.clone(),
        };
        if opened.writer.room_bytes() < START_ROOM_BYTES {
            // The rest of the last segment may be too little for one message. The first grant has to be enough, so the
            // spare is made before anything is answered; on a full disk there is none, and changes are refused.
            // Where there is something to clean, one spare is reserved for that.
            for _ in opened.first..=opened.end.segment.min(opened.first + 1) {
                match spare.make() {
                    Ok(Some(made)) => opened.writer.put_spare(made),
                    Ok(None) => {}
                    Err(error) => tracing::warn!("no room for the next segment, changes may be refused: {error}"),
                }
            }
        }
        let holds = Arc::new(AtomicUsize::new(0));
        let (report_, journal, backlog_) = (report.clone(), commits.clone(), backlog.clone());
        let (clock_, stopping_) = (clock.clone(), stopping.clone());
        let links = index::Links { report: report_, journal, backlog: backlog_, clock: clock_, stopping: stopping_ };
        let index = index::IndexThread::new(start, self.home, format, opened.end, links);
        let (report_, backlog_, holds_) = (report.clone(), backlog.clone(), holds.clone());
        let links = journal::Links {
            report: report_,
            index: look_ups.clone(),
            packets,
            spares,
            backlog: backlog_,
            clock,
            holds: holds_,
        };
        let journal = journal::JournalThread::new(opened.writer, links);
        let machines = Machines { journal, commit_queue, index, look_up_queue, spare, backlog, report };
        let backups = backup::Backups::new(format, backup_report, commits.clone(), stopping.clone(), holds.clone());
        let storage = Storage {
            commits,
            look_ups,
            events,
            stopping,
            #[cfg(test)]
            holds,
            running: None,
            backups,
            lock: None,
        };
        (machines, storage)
    }

    /// Reads what the directory is, or makes it.
    fn format(&mut self) -> Result<Format, OpenError> {
        if let Some(format) = directory::read_format(&self.disk)? {
            // After a kill in the first start its name may be in memory only.
            self.disk.sync_directory("")?;
            return Ok(format);
        }
        if !log::recovery::is_unused(&self.disk)? {
            let reason = "it is missing, and the journal is not empty".to_owned();
            return Err(OpenError::Corrupt { file: "FORMAT".to_owned(), offset: 0, reason });
        }
        for file in self.disk.list_or_none(log::JOURNAL_DIRECTORY)? {
            self.disk.remove(&format!("{}/{}", log::JOURNAL_DIRECTORY, file.name))?;
        }
        self.require("a new data directory", u64::from(self.segment_bytes) + NEW_DIRECTORY_BYTES)?;
        let mut directory = [0; 16];
        self.random.fill_bytes(&mut directory);
        let format = Format { segment_bytes: self.segment_bytes & !7, directory };
        log::recovery::create(&mut self.journal(format))?;
        directory::write_format(&self.disk, format)?;
        Ok(format)
    }

    /// Refuses to begin what a full disk would end half-way.
    fn require(&self, what: &'static str, needed_bytes: u64) -> Result<(), OpenError> {
        match self.disk.free_bytes() {
            Ok(free_bytes) if free_bytes < needed_bytes => Err(OpenError::Full { what, free_bytes, needed_bytes }),
            _ => Ok(()),
        }
    }

    fn journal(&mut self, format: Format) -> Journal<D> {
        let mut random = rand::rngs::StdRng::from_rng(&mut self.random);
        let salts = Box::new(move || random.next_u32());
        let Format { segment_bytes, directory } = format;
        Journal { disk: self.disk.clone(), directory, segment_bytes, salts }
    }

    fn open_index(&self, format: Format, reader: JournalReader<D>) -> Result<Indexer<D>, IndexError> {
        Indexer::new(self.home.open()?, reader, format.directory)
    }

    fn new_index(
        &self,
        format: Format,
        reader: &JournalReader<D>,
        reason: &IndexError,
    ) -> Result<Indexer<D>, OpenError> {
        index::renew(&*self.home, reader.sibling(), format.directory, reason).map_err(|error| OpenError::Index(error.0))
    }
}

/// What the threads run, and the queues that they take from. They decide by what is in their queues and by the clock
/// that they are given; waiting is all that a thread adds, so a simulator can run them step by step.
struct Machines<D: Disk> {
    journal: journal::JournalThread<D>,
    commit_queue: Receiver<journal::Message>,
    index: index::IndexThread<D>,
    look_up_queue: index::Queue,
    spare: spare::SpareThread<D>,
    backlog: Arc<Backlog>,
    report: Report,
}

/// Where events go.
#[derive(Clone)]
struct Report {
    events: Sender<Event>,
    wake: Wake,
}

impl Report {
    fn say(&self, event: Event) {
        // Nobody polls any more while storage is being dropped.
        let _ = self.events.send(event);
        (self.wake)();
    }
}

/// The two clocks: running time goes on from where the last server stopped, plus what the wall clock says has passed
/// since, within 0 … 24 h, so that a wrong clock ages nothing by more than a day.
#[derive(Clone, Debug)]
struct Clock {
    source: Source,
    running_ms: u64,
}

/// Where time comes from.
#[derive(Clone, Debug)]
enum Source {
    /// The system's clocks, since then.
    System(Instant),
    /// Whoever runs the machines step by step.
    #[cfg(any(test, feature = "sim"))]
    Stepped(Arc<stepped::SteppedClock>),
}

impl Source {
    fn since_ms(&self) -> u64 {
        match self {
            Self::System(started) => u64::try_from(started.elapsed().as_millis()).unwrap_or(u64::MAX),
            #[cfg(any(test, feature = "sim"))]
            Self::Stepped(clock) => clock.since_ms(),
        }
    }

    fn wall_ms(&self) -> u64 {
        match self {
            Self::System(_) => wall_ms(),
            #[cfg(any(test, feature = "sim"))]
            Self::Stepped(clock) => clock.wall_ms(),
        }
    }
}

impl Clock {
    fn new(last: Now) -> Self {
        Self::over(Source::System(Instant::now()), last)
    }

    fn over(source: Source, last: Now) -> Self {
        let away_ms = if last.wall_ms == 0 { 0 } else { source.wall_ms().saturating_sub(last.wall_ms).min(DAY_MS) };
        Self { source, running_ms: last.running_ms.saturating_add(away_ms) }
    }

    fn now(&self) -> Now {
        let running_ms = self.running_ms.saturating_add(self.source.since_ms());
        Now { running_ms, wall_ms: self.source.wall_ms() }
    }
}

fn wall_ms() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or(Duration::ZERO);
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}
