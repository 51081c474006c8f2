//! The index thread: replays, folds, flushes, answers, plans cleaning; makes the index anew when it fails.

mod answers;

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{self, Receiver, RecvTimeoutError, Sender, TryRecvError};
use std::time::{Duration, Instant};

use super::running::give_way;
use super::waiting::Waiting;
use super::{Backlog, Clock, Report, journal};
use crate::ids::UserId;
use crate::limits::INDEX_BACKLOG_BYTES_MAX;
use crate::store::carried::{Carried, Carrying};
use crate::store::cleaner::{Action, Cleaner, Space};
use crate::store::directory::Format;
use crate::store::disk::Disk;
use crate::store::index::sled::panic_text;
use crate::store::index::{IndexError, IndexHome};
use crate::store::indexer::{FLUSH_BYTES_MAX, FoldError, Indexer};
use crate::store::journal::{Content, DirectoryId, JournalReader, Placed, Position};
use crate::store::{Event, GroupQuota, Request, Retention};

/// Quiet time after which what is folded is flushed, so that a next start has little to replay.
const FLUSH_AFTER: Duration = Duration::from_secs(2);
/// Pause after which it is looked whether the oldest segment is too old, or a hold on cleaning has ended.
const LOOK_AFTER: Duration = Duration::from_secs(10);
/// Messages that are heard before something is done about them.
const HEARD_PER_TURN: usize = 256;
/// Journal that a start hands to the queue instead of replaying it before anything is answered: all that a run before
/// it can have left, in its queue and in two layers, with ends of segments that are empty. There is more only behind an index that could not be written.
const MISSED_BYTES_MAX: u64 = INDEX_BACKLOG_BYTES_MAX + 3 * FLUSH_BYTES_MAX;
/// Time that a stop gives the index, counted from when this thread first sees it.
const STOP_INDEX: Duration = Duration::from_secs(1);
/// Space that has to be left on the disk for the next step of a flush: six times what it applies, and as much again.
pub(super) const FLUSH_FREE_BYTES: u64 = 2 * 1024 * 1024;
/// Pause after which it is looked whether there is space for a flush again.
const SPACE_AFTER: Duration = Duration::from_secs(1);
/// How often in one run the index is made anew before storage gives up.
const RENEWALS_MAX: u32 = 3;

/// What the index thread is told.
pub(crate) enum Message {
    /// These were synced; if they end a slice of cleaning, what came of it.
    Packets { packets: Vec<(Placed, Content)>, running_ms: u64, carrying: Option<Carrying>, origin: Origin },
    /// The segments before this one are gone.
    Released { first: u32 },
    /// Whether there is space for the next segment.
    Space(Space),
    /// There are packets.
    Wake,
    /// Anything but a commit.
    LookUp(Request),
    /// Finish.
    Stop,
}

/// Where the index thread hears from. Packets have a queue of their own, in which they wake nobody: when they are folded
/// is for the journal thread to say. Whoever takes a message takes the packets before it.
pub(super) struct Queue {
    messages: Receiver<Message>,
    packets: Receiver<Message>,
}

impl Queue {
    /// With the ends at which is sent: messages, and packets.
    pub(super) fn new() -> (Sender<Message>, Sender<Message>, Self) {
        let (message_sender, messages) = mpsc::channel();
        let (packet_sender, packets) = mpsc::channel();
        (message_sender, packet_sender, Self { messages, packets })
    }
}

/// When packets were written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Origin {
    /// In this run.
    Journal,
    /// In the one before, which had not brought the index so far.
    Missed,
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
    waiting: Waiting,
    /// Packets of the run before that are not folded. Until then nothing is cleaned: the journal thread knows only what
    /// was changed in this run.
    missed: usize,
    /// When something was last folded.
    folded_at: Instant,
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
            waiting: Waiting::default(),
            missed: 0,
            folded_at: Instant::now(),
            stop_at: None,
        }
    }

    /// Runs until storage stops, giving way to the threads for which somebody waits.
    pub(super) fn run(mut self, queue: &Queue) -> Result<(), String> {
        give_way();
        let outcome = self.turns(queue);
        self.links.backlog.give_up();
        if let Err(message) = &outcome {
            tracing::error!("{message}");
            self.links.report.say(Event::Failed { message: message.clone() });
        }
        outcome
    }

    fn turns(&mut self, queue: &Queue) -> Result<(), String> {
        if !self.begin()? {
            return Ok(());
        }
        loop {
            self.tell_crowds();
            self.hear(queue)?;
            match self.turn()? {
                Turn::Done => {}
                Turn::Nothing => self.rest(queue)?,
                Turn::Last => return Ok(()),
            }
        }
    }

    /// Sees to it that the index has what is in the journal, or that it waits to be folded; whether there was time.
    fn begin(&mut self) -> Result<bool, String> {
        self.guarded(Self::catch_up)?;
        if self.is_out_of_time() {
            return Ok(false);
        }
        self.rebuilding = false;
        let full = self.guarded(|thread| thread.indexer()?.full_users())?;
        self.report_crowds(full);
        self.links.report.say(Event::Ready);
        Ok(true)
    }

    /// Goes on with cleaning, and with what waits.
    fn turn(&mut self) -> Result<Turn, String> {
        self.clean()?;
        if self.has_folded_enough() {
            self.guarded(Self::flush_some)?;
            return Ok(Turn::Done);
        }
        match self.waiting.pop() {
            Some(Message::Stop) => {
                self.guarded(Self::flush_in_time)?;
                Ok(Turn::Last)
            }
            Some(message) => self.handle(message).map(|()| Turn::Done),
            None => Ok(Turn::Nothing),
        }
    }

    /// One turn with the next message, if there is one, without waiting for any; whether it was the last.
    #[cfg(any(test, feature = "sim"))]
    pub(super) fn step(&mut self, queue: &Queue, begun: &mut bool) -> Result<bool, String> {
        if !std::mem::replace(begun, true) {
            return self.begin().map(|begins| !begins);
        }
        self.tell_crowds();
        if let Some(message) = queue.messages.try_iter().find(|message| !matches!(message, Message::Wake)) {
            self.take_behind_packets(queue, message)?;
        } else if let Ok(packets) = queue.packets.try_recv() {
            self.waiting.push(packets);
        }
        match self.turn()? {
            Turn::Done => {}
            Turn::Nothing => self.guarded(Self::flush_some)?,
            Turn::Last => return Ok(true),
        }
        Ok(false)
    }

    /// Whether nothing is under way but what may come in the queue.
    #[cfg(any(test, feature = "sim"))]
    pub(super) fn is_idle(&self) -> bool {
        let is_folded = |indexer: &Indexer<D>| !indexer.is_flushing() && indexer.unfrozen_bytes() == 0;
        let is_quiet = self.waiting.is_empty() && !self.is_cleaning() && !self.cleaner.is_releasing();
        is_quiet && self.indexer.as_ref().is_some_and(is_folded)
    }

    /// Whether everything of the runs before is folded.
    #[cfg(any(test, feature = "sim"))]
    pub(super) fn has_caught_up(&self) -> bool {
        self.missed == 0
    }

    /// How often the index was made anew in this run.
    #[cfg(any(test, feature = "sim"))]
    pub(super) fn renewals(&self) -> u32 {
        self.renewals
    }

    /// Hears what has come; answers the look-ups that need not wait for what came before them.
    fn hear(&mut self, queue: &Queue) -> Result<(), String> {
        for _ in 0..HEARD_PER_TURN {
            match queue.messages.try_recv() {
                Ok(message) => self.take_behind_packets(queue, message)?,
                Err(TryRecvError::Empty) => {
                    self.take_queued_packets(queue);
                    return Ok(());
                }
                Err(TryRecvError::Disconnected) => return self.take_behind_packets(queue, Message::Stop),
            }
        }
        Ok(())
    }

    /// Takes a message, behind the packets that were handed over before it.
    fn take_behind_packets(&mut self, queue: &Queue, message: Message) -> Result<(), String> {
        self.take_queued_packets(queue);
        self.take(message)
    }

    fn take_queued_packets(&mut self, queue: &Queue) {
        while let Ok(packets) = queue.packets.try_recv() {
            self.waiting.push(packets);
        }
    }

    fn take(&mut self, message: Message) -> Result<(), String> {
        match message {
            Message::LookUp(request) if !self.waiting.concerns(&request) => {
                let answer = self.guarded(|thread| thread.answer(&request))?;
                if answer.as_ref().is_some_and(|answer| self.is_old(answer)) {
                    self.waiting.push(Message::LookUp(request));
                } else if let Some(event) = answer {
                    self.links.report.say(event);
                }
            }
            // Neither depends on what waits to be folded, and cleaning goes on sooner.
            Message::Released { first } => {
                self.cleaner.handle_released(first);
                // A feed may have looked into them again since the release was asked for.
                if let Some(indexer) = &mut self.indexer {
                    indexer.forget_before(first);
                }
            }
            Message::Space(space) => {
                self.cleaner.handle_space(space);
            }
            Message::Wake => {}
            message => self.waiting.push(message),
        }
        Ok(())
    }

    fn handle(&mut self, message: Message) -> Result<(), String> {
        match message {
            Message::Packets { packets, running_ms, carrying, origin } => {
                if origin == Origin::Missed {
                    self.missed -= packets.len();
                }
                if self.is_out_of_time() {
                    // They are in the journal, and the next start folds them.
                    self.links.backlog.take(packets_bytes(&packets));
                    return Ok(());
                }
                self.take_packets(&packets, running_ms, carrying, origin)
            }
            Message::LookUp(request) => {
                if let Some(event) = self.guarded(|thread| thread.answer(&request))? {
                    self.links.report.say(event);
                }
                Ok(())
            }
            Message::Stop | Message::Released { .. } | Message::Space(_) | Message::Wake => {
                unreachable!("they do not wait")
            }
        }
    }

    /// With nothing to handle: goes on flushing, or waits until something comes or is due.
    fn rest(&mut self, queue: &Queue) -> Result<(), String> {
        let is_flushing = self.indexer.as_ref().is_some_and(Indexer::is_flushing);
        let is_dirty = self.indexer.as_ref().is_some_and(|indexer| indexer.unfrozen_bytes() > 0);
        // Counted from the last change: look-ups alone must not put the flush off.
        let is_due = is_flushing || is_dirty && self.folded_at.elapsed() >= FLUSH_AFTER;
        let pause = if is_due || self.is_cleaning() {
            if has_space(&self.reader) {
                return if is_due { self.guarded(Self::flush_some) } else { Ok(()) };
            }
            SPACE_AFTER
        } else if is_dirty {
            FLUSH_AFTER.saturating_sub(self.folded_at.elapsed())
        } else {
            LOOK_AFTER
        };
        match queue.messages.recv_timeout(pause) {
            Ok(message) => self.take_behind_packets(queue, message),
            Err(RecvTimeoutError::Timeout) => Ok(()),
            Err(RecvTimeoutError::Disconnected) => self.take_behind_packets(queue, Message::Stop),
        }
    }

    fn take_packets(
        &mut self,
        packets: &[(Placed, Content)],
        running_ms: u64,
        carrying: Option<Carrying>,
        origin: Origin,
    ) -> Result<(), String> {
        if let Some((placed, _)) = packets.last() {
            self.end = self.end.max(placed.end());
        }
        self.guarded(|thread| thread.fold(packets, running_ms))?;
        self.tell_crowds();
        self.links.backlog.take(packets_bytes(packets));
        self.folded_at = Instant::now();
        // What a slice carries stands behind the changes of its batch; its marks look like other marks, and count as
        // changes here, which only makes cleaning a little more willing.
        for (placed, content) in packets {
            match (origin, content) {
                // The cleaner began with the end of the journal.
                (Origin::Missed, _) => {}
                (Origin::Journal, Content::Carried(_)) => self.cleaner.note_carried(*placed, running_ms),
                (Origin::Journal, Content::Effect(_) | Content::Marks(_) | Content::Watermark(_)) => {
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

    /// Says who has become full, or is so no longer: by a packet, or by what was settled for a look-up or a flush.
    fn tell_crowds(&mut self) {
        let crowds = self.indexer.as_mut().map(Indexer::take_crowds).unwrap_or_default();
        self.report_crowds(crowds);
    }

    fn report_crowds(&self, crowds: Vec<(UserId, Option<u32>)>) {
        for (user, groups_max) in crowds {
            self.links.report.say(Event::UserFull { user, groups_max });
        }
    }

    /// Goes on with cleaning by one bounded step, if there is something to do.
    fn clean(&mut self) -> Result<(), String> {
        if self.missed > 0 {
            return Ok(());
        }
        let now_ms = self.links.clock.now().running_ms;
        if self.cleaner.is_releasing() {
            let _ = self.links.journal.send(journal::Message::Look);
        }
        let action = self.guarded(|thread| {
            let Self { cleaner, indexer: Some(indexer), reader, .. } = thread else { return Ok(None) };
            // A step may flush, and what it carries has to be flushed.
            let has_room = !cleaner.is_busy(indexer, now_ms) || has_space(reader);
            if has_room { cleaner.poll(indexer, now_ms) } else { Ok(None) }
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
        self.missed == 0 && self.indexer.as_ref().is_some_and(|indexer| self.cleaner.is_busy(indexer, now_ms))
    }

    fn indexer(&mut self) -> Result<&mut Indexer<D>, FoldError> {
        self.indexer.as_mut().ok_or_else(|| FoldError::Index(IndexError("it is not open".to_owned())))
    }

    /// Makes sure that everything in the journal is folded, or waits to be. A new index has nothing that it could answer
    /// from, so there all of it is folded first.
    fn catch_up(&mut self) -> Result<(), FoldError> {
        let end = self.end;
        if self.indexer()?.missed_bytes_max(end).is_none_or(|bytes| bytes > MISSED_BYTES_MAX) {
            return self.replay();
        }
        for (running_ms, packets) in self.indexer()?.missed(end)? {
            self.missed += packets.len();
            self.links.backlog.add(packets_bytes(&packets));
            self.waiting.push(Message::Packets { packets, running_ms, carrying: None, origin: Origin::Missed });
        }
        Ok(())
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
        if indexer.is_full() {
            indexer.begin_flush();
        }
        // Under load the queue is never empty: a flush has to go on all the same.
        if indexer.is_flushing() && has_space(&self.reader) {
            self.indexer()?.flush_step()?;
        }
        Ok(())
    }

    /// Whether so much is folded over a layer that is being flushed that the flush has to go first.
    fn has_folded_enough(&self) -> bool {
        let is_full = |indexer: &Indexer<D>| indexer.is_flushing() && indexer.is_full();
        self.indexer.as_ref().is_some_and(is_full) && has_space(&self.reader)
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
                if self.is_out_of_time() || !has_space(&self.reader) {
                    return Ok(());
                }
                self.indexer()?.flush_step()?;
            }
            self.indexer()?.begin_flush();
        }
        Ok(())
    }

    fn flush_some(&mut self) -> Result<(), FoldError> {
        if !has_space(&self.reader) {
            return Ok(());
        }
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
            if !has_space(&self.reader) {
                // A new one would need at least as much, beside what is moved aside.
                let reason = reason.0;
                return Err(format!(
                    "the disk is too full for the index ({reason}): make room and start again; nothing is lost"
                ));
            }
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
}

/// Whether there is space for the next step of a flush. The index does not survive a write that fails, and cannot be made
/// anew on a full disk either; what is not flushed stays in memory, bounded by the room that was granted, and costs the
/// next start a replay.
fn has_space<D: Disk>(reader: &JournalReader<D>) -> bool {
    reader.free_bytes().map_or(true, |free_bytes| free_bytes >= FLUSH_FREE_BYTES)
}

/// What came of a turn.
enum Turn {
    Done,
    /// There was nothing to do.
    Nothing,
    /// Storage has ended.
    Last,
}

fn packets_bytes(packets: &[(Placed, Content)]) -> u64 {
    packets.iter().map(|(placed, _)| u64::from(placed.bytes)).sum()
}

#[cfg(test)]
#[path = "index_tests.rs"]
mod tests;
