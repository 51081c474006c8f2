//! The index thread: replays, folds, flushes, answers, plans cleaning; makes the index anew when it fails.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, TryRecvError};
use std::time::{Duration, Instant};

use super::{Backlog, Clock, Report, journal};
use crate::ids::UserId;
use crate::store::carried::{Carried, Carrying};
use crate::store::cleaner::{Action, Cleaner, Space};
use crate::store::directory::Format;
use crate::store::disk::Disk;
use crate::store::index::sled::panic_text;
use crate::store::index::{IndexError, IndexHome};
use crate::store::indexer::{FLUSH_BYTES, FoldError, Indexer};
use crate::store::journal::{Content, DirectoryId, JournalReader, Placed, Position};
use crate::store::{Event, GroupQuota, Request, Retention};

/// Quiet time after which what is folded is flushed, so that a next start has little to replay.
const FLUSH_AFTER: Duration = Duration::from_millis(200);
/// Pause after which it is looked whether the oldest segment is too old, or a hold on cleaning has ended.
const LOOK_AFTER: Duration = Duration::from_secs(10);
/// Journal that may be folded over a layer that is still being flushed; then folding waits for the flush.
const UNFROZEN_BYTES_MAX: u64 = 4 * FLUSH_BYTES;
/// Time that a stop gives the index, counted from when this thread first sees it.
const STOP_INDEX: Duration = Duration::from_secs(1);
/// How often in one run the index is made anew before storage gives up.
const RENEWALS_MAX: u32 = 3;

/// What the index thread is told.
pub(crate) enum Message {
    /// These were synced; if they end a slice of cleaning, what came of it.
    Packets { packets: Vec<(Placed, Content)>, running_ms: u64, carrying: Option<Carrying> },
    /// The segments before this one are gone.
    Released { first: u32 },
    /// Whether there is space for the next segment.
    Space(Space),
    /// Anything but a commit.
    LookUp(Request),
    /// Finish.
    Stop,
}

/// What it begins with.
pub(super) struct Start<D: Disk> {
    pub(super) indexer: Indexer<D>,
    pub(super) rebuilding: bool,
    pub(super) reader: JournalReader<D>,
    pub(super) cleaner: Cleaner,
    pub(super) retention: Retention,
    pub(super) quota: GroupQuota,
}

/// Those whom it talks to.
pub(super) struct Links {
    pub(super) report: Report,
    pub(super) journal: Sender<journal::Message>,
    pub(super) backlog: Arc<Backlog>,
    pub(super) clock: Clock,
    /// Set when storage begins to stop.
    pub(super) stopping: Arc<AtomicBool>,
}

pub(super) struct IndexThread<D: Disk> {
    indexer: Option<Indexer<D>>,
    reader: JournalReader<D>,
    home: Box<dyn IndexHome>,
    directory: DirectoryId,
    /// The journal is synced up to here, and everything before it has been handed to this thread.
    end: Position,
    renewals: u32,
    rebuilding: bool,
    cleaner: Cleaner,
    retention: Retention,
    quota: GroupQuota,
    links: Links,
    /// Until when the index may be brought up to the journal, once storage stops.
    stop_at: Option<Instant>,
}

/// Moves the index that is there aside and opens an empty one.
pub(super) fn renew<D: Disk>(
    home: &dyn IndexHome,
    reader: JournalReader<D>,
    directory: DirectoryId,
    reason: &IndexError,
) -> Result<Indexer<D>, IndexError> {
    let aside = home.move_aside()?;
    tracing::error!("the index does not work ({}); moved to {aside}, made anew from the journal", reason.0);
    Indexer::new(home.open()?, reader, directory)
}

impl<D: Disk> IndexThread<D> {
    pub(super) fn new(start: Start<D>, home: Box<dyn IndexHome>, format: Format, end: Position, links: Links) -> Self {
        let Start { mut indexer, rebuilding, reader, cleaner, retention, quota } = start;
        indexer.set_retention(retention);
        indexer.set_quota(quota.clone());
        let (indexer, directory) = (Some(indexer), format.directory);
        Self {
            indexer,
            reader,
            home,
            directory,
            end,
            renewals: 0,
            rebuilding,
            cleaner,
            retention,
            quota,
            links,
            stop_at: None,
        }
    }

    pub(super) fn run(mut self, queue: &Receiver<Message>) -> Result<(), String> {
        let outcome = self.turns(queue);
        self.links.backlog.give_up();
        if let Err(message) = &outcome {
            tracing::error!("{message}");
            self.links.report.say(Event::Failed { message: message.clone() });
        }
        outcome
    }

    fn turns(&mut self, queue: &Receiver<Message>) -> Result<(), String> {
        if !self.begin()? {
            return Ok(());
        }
        loop {
            self.clean()?;
            let next = self.next(queue);
            if self.turn(next)? {
                return Ok(());
            }
        }
    }

    /// Brings the index up to the journal's end; whether there was time for that.
    fn begin(&mut self) -> Result<bool, String> {
        self.guarded(Self::replay)?;
        if self.is_out_of_time() {
            return Ok(false);
        }
        self.rebuilding = false;
        let full = self.guarded(|thread| thread.indexer()?.full_users())?;
        self.report_crowds(full);
        self.links.report.say(Event::Ready);
        Ok(true)
    }

    /// Takes one message, or goes on with something; whether that was the last turn.
    fn turn(&mut self, next: Next) -> Result<bool, String> {
        match next {
            Next::Message(Message::Packets { packets, .. }) if self.is_out_of_time() => {
                // They are in the journal, and the next start folds them.
                self.links.backlog.take(packets_bytes(&packets));
            }
            Next::Message(Message::Packets { packets, running_ms, carrying }) => {
                self.take_packets(&packets, running_ms, carrying)?;
            }
            Next::Message(Message::Released { first }) => {
                self.cleaner.handle_released(first);
                // A feed may have looked into them again since the release was asked for.
                if let Some(indexer) = &mut self.indexer {
                    indexer.forget_before(first);
                }
            }
            Next::Message(Message::Space(space)) => self.cleaner.handle_space(space),
            Next::Message(Message::LookUp(request)) => {
                let answer = self.guarded(|thread| thread.answer(&request))?;
                if let Some(event) = answer {
                    self.links.report.say(event);
                }
            }
            Next::Turn => {}
            Next::Quiet => self.guarded(Self::flush_some)?,
            Next::Message(Message::Stop) | Next::Gone => {
                self.guarded(Self::flush_in_time)?;
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// One turn with the next message, if there is one, without waiting for any.
    #[cfg(any(test, feature = "sim"))]
    pub(super) fn step(&mut self, queue: &Receiver<Message>, begun: &mut bool) -> Result<bool, String> {
        if !std::mem::replace(begun, true) {
            return self.begin().map(|begins| !begins);
        }
        self.clean()?;
        let next = queue.try_recv().map_or(Next::Quiet, Next::Message);
        self.turn(next)
    }

    /// Whether nothing is under way but what may come in the queue.
    #[cfg(any(test, feature = "sim"))]
    pub(super) fn is_idle(&self) -> bool {
        let is_folded = |indexer: &Indexer<D>| !indexer.is_flushing() && indexer.unfrozen_bytes() == 0;
        self.indexer.as_ref().is_some_and(is_folded) && !self.is_cleaning() && !self.cleaner.is_releasing()
    }

    /// How often the index was made anew in this run.
    #[cfg(any(test, feature = "sim"))]
    pub(super) fn renewals(&self) -> u32 {
        self.renewals
    }

    fn take_packets(
        &mut self,
        packets: &[(Placed, Content)],
        running_ms: u64,
        carrying: Option<Carrying>,
    ) -> Result<(), String> {
        if let Some((placed, _)) = packets.last() {
            self.end = placed.end();
        }
        self.guarded(|thread| thread.fold(packets, running_ms))?;
        let crowds = self.indexer.as_mut().map(Indexer::take_crowds).unwrap_or_default();
        self.report_crowds(crowds);
        self.links.backlog.take(packets_bytes(packets));
        // What a slice carries stands behind the changes of its batch; its marks look like other marks, and count as
        // changes here, which only makes cleaning a little more willing.
        for (placed, content) in packets {
            match content {
                Content::Carried(_) => self.cleaner.note_carried(*placed, running_ms),
                Content::Effect(_) | Content::Marks(_) | Content::Watermark(_) => {
                    self.cleaner.note_change(*placed, running_ms);
                }
            }
            if let Content::Carried(Carried::Floors(floors)) = content {
                self.links.report.say(Event::FloorsMoved { floors: floors.clone() });
            }
        }
        if let Some(carrying) = carrying {
            let lsn = self.indexer.as_ref().and_then(Indexer::folded).map_or(0, |folded| folded.lsn);
            self.cleaner.handle_carried(carrying, lsn);
        }
        Ok(())
    }

    fn report_crowds(&self, crowds: Vec<(UserId, Option<u32>)>) {
        for (user, groups_max) in crowds {
            self.links.report.say(Event::UserFull { user, groups_max });
        }
    }

    /// Goes on with cleaning by one bounded step, if there is something to do.
    fn clean(&mut self) -> Result<(), String> {
        let now_ms = self.links.clock.now().running_ms;
        if self.cleaner.is_releasing() {
            let _ = self.links.journal.send(journal::Message::Look);
        }
        let action = self.guarded(|thread| {
            let Self { cleaner, indexer: Some(indexer), .. } = thread else { return Ok(None) };
            cleaner.poll(indexer, now_ms)
        })?;
        let is_behind = self.indexer.as_ref().is_some_and(|indexer| self.cleaner.is_behind(indexer));
        self.links.backlog.set_cleaning_behind(is_behind);
        // A thread that is gone has said `Failed`.
        let _ = match action {
            Some(Action::Carry(slice)) => self.links.journal.send(journal::Message::Carry(slice)),
            Some(Action::Release { first }) => self.links.journal.send(journal::Message::Release { first }),
            None => Ok(()),
        };
        Ok(())
    }

    fn is_cleaning(&self) -> bool {
        let now_ms = self.links.clock.now().running_ms;
        self.indexer.as_ref().is_some_and(|indexer| self.cleaner.is_busy(indexer, now_ms))
    }

    /// The next message, or that there is time to flush, or to go on with cleaning.
    fn next(&self, queue: &Receiver<Message>) -> Next {
        let indexer = self.indexer.as_ref();
        let is_flushing = indexer.is_some_and(Indexer::is_flushing);
        if is_flushing || self.is_cleaning() {
            return match queue.try_recv() {
                Ok(message) => Next::Message(message),
                Err(TryRecvError::Empty) if is_flushing => Next::Quiet,
                Err(TryRecvError::Empty) => Next::Turn,
                Err(TryRecvError::Disconnected) => Next::Gone,
            };
        }
        if indexer.is_some_and(|indexer| indexer.unfrozen_bytes() > 0) {
            return match queue.recv_timeout(FLUSH_AFTER) {
                Ok(message) => Next::Message(message),
                Err(RecvTimeoutError::Timeout) => Next::Quiet,
                Err(RecvTimeoutError::Disconnected) => Next::Gone,
            };
        }
        match queue.recv_timeout(LOOK_AFTER) {
            Ok(message) => Next::Message(message),
            Err(RecvTimeoutError::Timeout) => Next::Turn,
            Err(RecvTimeoutError::Disconnected) => Next::Gone,
        }
    }

    fn indexer(&mut self) -> Result<&mut Indexer<D>, FoldError> {
        self.indexer.as_mut().ok_or_else(|| FoldError::Index(IndexError("it is not open".to_owned())))
    }

    fn replay(&mut self) -> Result<(), FoldError> {
        let (end, rebuilding) = (self.end, self.rebuilding);
        let first = self.cleaner.first();
        let stopping = self.links.stopping.clone();
        self.indexer()?.replay(first, end, |place| {
            if rebuilding {
                let Position { segment, offset } = place;
                tracing::info!(segment, offset, last_segment = end.segment, "making the index anew");
            }
            !stopping.load(Ordering::Relaxed)
        })?;
        if self.links.stopping.load(Ordering::Relaxed) {
            // It may not have come to its end; what comes behind it is not folded any more.
            self.stop_at.get_or_insert_with(Instant::now);
        }
        Ok(())
    }

    fn fold(&mut self, packets: &[(Placed, Content)], running_ms: u64) -> Result<(), FoldError> {
        let indexer = self.indexer()?;
        for (placed, content) in packets {
            indexer.fold(*placed, content, running_ms)?;
        }
        while indexer.is_flushing() && indexer.unfrozen_bytes() > UNFROZEN_BYTES_MAX {
            indexer.flush_step()?;
        }
        if indexer.unfrozen_bytes() >= FLUSH_BYTES {
            indexer.begin_flush();
        }
        // Under load the queue is never empty: a flush has to go on all the same.
        if indexer.is_flushing() {
            indexer.flush_step()?;
        }
        Ok(())
    }

    /// Whether storage is stopping and the time for the index is used up.
    fn is_out_of_time(&mut self) -> bool {
        if !self.links.stopping.load(Ordering::Relaxed) {
            return false;
        }
        Instant::now() >= *self.stop_at.get_or_insert_with(|| Instant::now() + STOP_INDEX)
    }

    /// Flushes what is folded, as far as there is time. What is left costs the next start a replay, and nothing else:
    /// to flush all of a large backlog would take minutes.
    fn flush_in_time(&mut self) -> Result<(), FoldError> {
        // What is in the frozen layer, then what is folded above it.
        for _ in 0..2 {
            while self.indexer()?.is_flushing() {
                if self.is_out_of_time() {
                    return Ok(());
                }
                self.indexer()?.flush_step()?;
            }
            self.indexer()?.begin_flush();
        }
        Ok(())
    }

    fn flush_some(&mut self) -> Result<(), FoldError> {
        let indexer = self.indexer()?;
        indexer.begin_flush();
        indexer.flush_step()?;
        Ok(())
    }

    /// Does something with the index. When that fails or panics, the index is made anew from the journal, and it is
    /// done again: folding and answering may both be repeated.
    fn guarded<T>(&mut self, mut act: impl FnMut(&mut Self) -> Result<T, FoldError>) -> Result<T, String> {
        let mut again = |thread: &mut Self| {
            let outcome = catch_unwind(AssertUnwindSafe(|| act(thread)));
            outcome.unwrap_or_else(|panic| Err(FoldError::Index(IndexError(panic_text(&*panic)))))
        };
        loop {
            let reason = match again(self) {
                Ok(value) => return Ok(value),
                Err(FoldError::Journal(error)) => return Err(format!("the index cannot follow the journal: {error}")),
                Err(FoldError::Index(reason)) => reason,
            };
            if self.renewals >= RENEWALS_MAX {
                return Err(format!("the index failed again and again: {}", reason.0));
            }
            self.renewals += 1;
            self.rebuilding = true;
            self.indexer = None;
            let indexer = renew(&*self.home, self.reader.sibling(), self.directory, &reason);
            let mut indexer = indexer.map_err(|error| format!("the index cannot be made anew: {}", error.0))?;
            indexer.set_retention(self.retention);
            indexer.set_quota(self.quota.clone());
            self.indexer = Some(indexer);
            let replayed = catch_unwind(AssertUnwindSafe(|| self.replay()));
            if let Ok(Err(FoldError::Journal(error))) = replayed {
                return Err(format!("the index cannot be made anew: {error}"));
            }
            self.rebuilding = false;
        }
    }

    pub(super) fn answer(&mut self, request: &Request) -> Result<Option<Event>, FoldError> {
        let backlog_bytes = self.links.backlog.bytes();
        let (end, renewals, journal) = (self.end, self.renewals, self.cleaner.stats());
        let indexer = self.indexer()?;
        Ok(Some(match request {
            Request::Commit { .. } | Request::Backup { .. } => return Ok(None),
            Request::LoadGroup { group } => Event::GroupLoaded { group: *group, state: indexer.load_group(*group)? },
            Request::LoadUser { read, user } => {
                Event::UserLoaded { read: *read, memberships: indexer.load_user(user)? }
            }
            Request::LoadMembership { read, user, group } => {
                Event::MembershipLoaded { read: *read, membership: indexer.load_membership(user, *group)? }
            }
            Request::ReadMarks { read, group } => Event::MarksRead { read: *read, marks: indexer.read_marks(*group)? },
            Request::LoadOperations { principal } => Event::OperationsLoaded {
                principal: principal.clone(),
                operations: indexer.load_operations(principal)?,
            },
            Request::ListGroups { read, user, after, count_max } => {
                let (groups, more) = indexer.list_groups(user, *after, *count_max)?;
                Event::GroupsListed { read: *read, groups, more }
            }
            Request::ScanGroups { read, after, count_max } => {
                let (groups, more) = indexer.scan_groups(*after, *count_max)?;
                Event::GroupsScanned { read: *read, groups, more }
            }
            Request::ReadEntries { read, group, from, through, entries_max, bytes_max } => {
                let entries = indexer.read_entries(*group, *from, *through, *entries_max, *bytes_max)?;
                Event::EntriesRead { read: *read, entries }
            }
            Request::ReadFeed { read, after, items_max } => {
                Event::FeedRead { read: *read, page: indexer.read_feed(*after, *items_max) }
            }
            Request::ReadStats { read } => {
                let folded_lsn = indexer.folded().map_or(0, |folded| folded.lsn);
                let stats = [
                    ("journal_live_bytes", indexer.live_bytes()),
                    ("journal_dropped_entry_count", indexer.dropped_entries()),
                    ("journal_end_offset_bytes", u64::from(end.offset)),
                    ("journal_indexed_lsn", folded_lsn),
                    ("index_backlog_bytes", backlog_bytes),
                    ("index_dirty_count", indexer.dirty() as u64),
                    ("index_renewed_count", u64::from(renewals)),
                ];
                let stats = journal.into_iter().chain(stats);
                let stats = stats.map(|(name, value)| (name.to_owned(), value)).collect();
                Event::StatsRead { read: *read, stats }
            }
        }))
    }
}

fn packets_bytes(packets: &[(Placed, Content)]) -> u64 {
    packets.iter().map(|(placed, _)| u64::from(placed.bytes)).sum()
}

enum Next {
    Message(Message),
    Quiet,
    /// Nothing came.
    Turn,
    Gone,
}
