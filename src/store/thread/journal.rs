//! The journal thread: takes everything that is queued, writes it, syncs once, reports.
//!
//! What cleaning carries goes into the same batches, behind the changes and under the same sync, and never makes one of
//! them begin a new segment; a step of a release takes one sync in a turn. So cleaning delays no acknowledgement by more
//! than one sync.

use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender};
use std::time::Duration;

use super::room::{ROOM_PER_CREDIT, Room};
use super::{Backlog, Clock, Report, index, spare};
use crate::limits::MARKER_DELAY_MS;
use crate::store::carried::{Slice, Touched};
use crate::store::disk::{Disk, DiskError};
use crate::store::journal::packet::WATERMARK_BYTES;
use crate::store::journal::writer::carried_bytes;
use crate::store::journal::{Content, HeadSlot, Spare, Writer};
use crate::store::{Change, Event, Ticket, change_bytes};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

/// Watermarks of a batch: one before it, and one more if it begins a segment.
const BATCH_OVERHEAD: usize = 2 * WATERMARK_BYTES;

/// Quiet time after which the index thread is woken for packets that it was handed, and bytes of them for which it is
/// woken before the next batch is written. It would take a core from those who answer and deliver what was synced;
/// whoever looks something up wakes it besides.
const WAKE_AFTER: Duration = Duration::from_millis(2);
const WAKE_BYTES: u64 = 16 * 1024;

/// What the journal thread is told.
pub(crate) enum Message {
    /// Make these durable.
    Commit(Vec<(Ticket, Change)>),
    /// A spare segment is there; the file is known to the spare thread's kind of disk.
    Spare(Box<dyn std::any::Any + Send>),
    /// Write this besides the changes.
    Carry(Slice),
    /// Make the log begin with this segment.
    Release { first: u32 },
    /// Look again whether a release may go on.
    Look,
    /// End the segment, and say where the log begins and with which segment it ends then; nothing if there is no room
    /// for another one.
    Seal(Sender<Option<SealedLog>>),
    /// Finish.
    Stop,
}

/// The segments of the log that will not be written any more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct SealedLog {
    pub(crate) first: u32,
    pub(crate) last: u32,
}

/// Those whom it talks to.
pub(super) struct Links {
    pub(super) report: Report,
    pub(super) index: Sender<index::Message>,
    pub(super) packets: Sender<index::Message>,
    pub(super) spares: Sender<spare::Wanted>,
    pub(super) backlog: Arc<Backlog>,
    pub(super) clock: Clock,
    /// While it is not 0, no segment is removed.
    pub(super) holds: Arc<AtomicUsize>,
}

/// How far a release is: each slot of the head is written in a turn of its own.
#[derive(Clone, Copy, Debug)]
struct Release {
    first: u32,
    /// The newest segment when the older slot was written; written again if there is another one by then.
    older_written_in: Option<u32>,
}

pub(super) struct JournalThread<D: Disk> {
    writer: Writer<D>,
    links: Links,
    spares_wanted: usize,
    /// The spare thread knows that cleaning is stuck for want of room.
    asked_for_slice: bool,
    slice: Option<Slice>,
    release: Option<Release>,
    touched: Touched,
    committed_bytes: u64,
    credit_bytes: u64,
    batch_at_ms: u64,
    /// Bytes of packets that the index thread was handed, and not woken for.
    handed_bytes: u64,
}

/// What one turn took from the queue.
#[derive(Default)]
struct Taken {
    commits: Vec<(Ticket, Change)>,
    bytes: usize,
    seals: Vec<Sender<Option<SealedLog>>>,
    stops: bool,
}

impl<D: Disk> JournalThread<D> {
    pub(super) fn new(writer: Writer<D>, links: Links) -> Self {
        let batch_at_ms = links.clock.now().running_ms;
        let mut thread = Self {
            writer,
            links,
            spares_wanted: 0,
            asked_for_slice: false,
            slice: None,
            release: None,
            touched: Touched::default(),
            committed_bytes: 0,
            credit_bytes: 0,
            batch_at_ms,
            handed_bytes: 0,
        };
        // Before the thread runs: whoever opened storage finds the first grant there, and refuses nothing for want of it.
        thread.want_spare();
        thread.grant();
        thread
    }

    pub(super) fn run(mut self, queue: &Receiver<Message>) -> Result<(), String> {
        let outcome = self.turns(queue);
        // Everything that was synced is in the index thread's queue; this ends it.
        let _ = self.links.index.send(index::Message::Stop);
        outcome.map_err(|error| {
            let message = format!("the journal failed: {error}; nothing after that is acknowledged");
            tracing::error!("{message}");
            self.links.report.say(Event::Failed { message: message.clone() });
            message
        })
    }

    fn turns(&mut self, queue: &Receiver<Message>) -> Result<(), DiskError> {
        loop {
            let taken = self.take(queue)?;
            if self.turn(taken)? {
                return Ok(());
            }
        }
    }

    /// Does what is to be done with what was taken; whether that was the last turn.
    fn turn(&mut self, taken: Taken) -> Result<bool, DiskError> {
        self.commit(taken.commits, taken.bytes)?;
        self.seal(taken.seals)?;
        self.go_on_releasing()?;
        self.want_spare();
        self.grant();
        if taken.stops {
            self.writer.mark(self.links.clock.now())?;
        }
        Ok(taken.stops)
    }

    /// One turn with what is in the queue, without waiting for anything. A marker that is due is written instead of
    /// waiting.
    #[cfg(any(test, feature = "sim"))]
    pub(super) fn step(&mut self, queue: &Receiver<Message>) -> Result<bool, DiskError> {
        let mut taken = Taken::default();
        self.take_queued(queue, &mut taken);
        let is_idle = taken.commits.is_empty() && !self.may_write_slice(0) && !self.may_release();
        if is_idle && self.is_mark_due() {
            self.writer.mark(self.links.clock.now())?;
        }
        self.turn(taken)
    }

    #[cfg(any(test, feature = "sim"))]
    pub(super) fn is_mark_due(&self) -> bool {
        self.writer.needs_mark() && self.links.clock.now().running_ms >= self.batch_at_ms + MARKER_DELAY_MS
    }

    /// Whether nothing is under way but what may come in the queue.
    #[cfg(any(test, feature = "sim"))]
    pub(super) fn is_idle(&self) -> bool {
        !self.writer.needs_mark() && !self.may_write_slice(0) && !self.may_release()
    }

    /// Waits for something to do, and marks the journal when it has been quiet for a while.
    fn take(&mut self, queue: &Receiver<Message>) -> Result<Taken, DiskError> {
        let mut taken = Taken::default();
        if self.may_write_slice(0) || self.may_release() {
            if let Ok(message) = queue.try_recv() {
                self.sort(message, &mut taken);
            }
        } else if self.handed_bytes > 0 {
            match queue.recv_timeout(WAKE_AFTER) {
                Ok(message) => self.sort(message, &mut taken),
                Err(RecvTimeoutError::Timeout) => self.wake_index(),
                Err(RecvTimeoutError::Disconnected) => taken.stops = true,
            }
        } else if self.writer.needs_mark() {
            let due_ms = self.batch_at_ms + MARKER_DELAY_MS;
            let left = Duration::from_millis(due_ms.saturating_sub(self.links.clock.now().running_ms));
            match queue.recv_timeout(left) {
                Ok(message) => self.sort(message, &mut taken),
                Err(RecvTimeoutError::Timeout) => self.writer.mark(self.links.clock.now())?,
                Err(RecvTimeoutError::Disconnected) => taken.stops = true,
            }
        } else {
            match queue.recv() {
                Ok(message) => self.sort(message, &mut taken),
                Err(_) => taken.stops = true,
            }
        }
        self.take_queued(queue, &mut taken);
        Ok(taken)
    }

    fn wake_index(&mut self) {
        self.handed_bytes = 0;
        // One that is gone has said `Failed`.
        let _ = self.links.index.send(index::Message::Wake);
    }

    /// Takes what is in the queue, up to what makes a batch.
    fn take_queued(&mut self, queue: &Receiver<Message>, taken: &mut Taken) {
        let bytes_max = self.links.backlog.batch_bytes_max();
        while taken.bytes < bytes_max && !taken.stops {
            let Ok(message) = queue.try_recv() else { break };
            self.sort(message, taken);
        }
    }

    fn sort(&mut self, message: Message, taken: &mut Taken) {
        match message {
            Message::Commit(commits) => {
                taken.bytes += commits.iter().map(|(_, change)| change_bytes(change)).sum::<usize>();
                taken.commits.extend(commits);
            }
            Message::Spare(spare) => {
                if let Ok(spare) = spare.downcast::<Spare<D::File>>() {
                    self.spares_wanted = self.spares_wanted.saturating_sub(1);
                    self.writer.put_spare(*spare);
                }
            }
            Message::Carry(slice) => {
                self.touched.forget_through(slice.basis_lsn);
                self.slice = Some(slice);
            }
            Message::Release { first } => self.release = Some(Release { first, older_written_in: None }),
            Message::Look => {}
            Message::Seal(reply) => taken.seals.push(reply),
            Message::Stop => taken.stops = true,
        }
    }

    fn commit(&mut self, commits: Vec<(Ticket, Change)>, bytes: usize) -> Result<(), DiskError> {
        let slice = if self.may_write_slice(bytes) { self.slice.take() } else { None };
        let slice_bytes: usize = slice.iter().flat_map(|slice| &slice.carried).map(carried_bytes).sum();
        let fits_empty_segment = (slice_bytes + BATCH_OVERHEAD) as u64 <= self.writer.segment_room_bytes();
        if commits.is_empty() && !self.fits_here(slice_bytes) && fits_empty_segment {
            // The roll alone: a change that comes meanwhile waits for it, and not for the slice's sync besides.
            self.slice = slice;
            return self.writer.begin_next(self.links.clock.now());
        }
        if commits.is_empty() && slice.is_none() {
            return Ok(());
        }
        if self.handed_bytes >= WAKE_BYTES {
            // It folds what came before while this is being synced.
            self.wake_index();
        }
        self.links.backlog.wait_for_room();
        let now = self.links.clock.now();
        let lsn = self.writer.next_lsn();
        for (_, change) in &commits {
            self.touched.note(lsn, change);
        }
        let (carried, carrying) = slice.map_or((Vec::new(), None), |slice| {
            let (carried, carrying) = self.touched.what_is_true(slice);
            (carried, Some(carrying))
        });
        let changes = commits.iter().map(|(_, change)| change);
        let placed = self.writer.append(changes, &carried, now)?;
        self.batch_at_ms = self.links.clock.now().running_ms;
        self.committed_bytes += bytes as u64;
        let last = commits.last().map(|(ticket, _)| *ticket);
        let lsns = placed.iter().take(commits.len()).map(|placed| placed.lsn).collect();
        let placed_bytes = placed.iter().map(|placed| u64::from(placed.bytes)).sum();
        self.links.backlog.add(placed_bytes);
        self.handed_bytes += placed_bytes;
        let changes = commits.into_iter().map(|(_, change)| Content::from(change));
        let packets = placed.into_iter().zip(changes.chain(carried.into_iter().map(Content::from))).collect();
        // First the index's queue, then the report: a look-up that follows the report must find it there.
        let (running_ms, origin, goes_on_cleaning) = (now.running_ms, index::Origin::Journal, carrying.is_some());
        let sent = self.links.packets.send(index::Message::Packets { packets, running_ms, carrying, origin });
        if sent.is_err() {
            self.links.backlog.give_up();
        }
        if let Some(ticket) = last {
            self.links.report.say(Event::Durable { ticket, lsns });
        }
        if goes_on_cleaning {
            // The next slice waits for what came of this one.
            self.wake_index();
        }
        Ok(())
    }

    /// Whether the slice that waits fits behind so many bytes of changes: it must not make their batch begin a new
    /// segment, and it must leave the room that was granted for changes.
    fn may_write_slice(&self, changes_bytes: usize) -> bool {
        let Some(slice) = &self.slice else { return false };
        let carried_bytes: usize = slice.carried.iter().map(carried_bytes).sum();
        let batch_bytes = (changes_bytes + carried_bytes + BATCH_OVERHEAD) as u64;
        let used_bytes = self.committed_bytes + changes_bytes as u64;
        let left_bytes = self.credit_bytes.saturating_sub(used_bytes) * ROOM_PER_CREDIT;
        self.room().takes_slice(batch_bytes, changes_bytes > 0, left_bytes)
    }

    /// Whether a batch with packets of so many bytes begins no new segment.
    fn fits_here(&self, bytes: usize) -> bool {
        bytes == 0 || (bytes + BATCH_OVERHEAD) as u64 <= self.writer.room_bytes()
    }

    fn seal(&mut self, replies: Vec<Sender<Option<SealedLog>>>) -> Result<(), DiskError> {
        for reply in replies {
            let sealed = if self.writer.spare_count() > 0 {
                let last = self.writer.seal(self.links.clock.now())?;
                Some(SealedLog { first: self.writer.first(), last })
            } else {
                None
            };
            // Whoever asked may have given up.
            let _ = reply.send(sealed);
        }
        Ok(())
    }

    fn may_release(&self) -> bool {
        self.release.is_some() && self.links.holds.load(Ordering::SeqCst) == 0
    }

    /// Writes one slot of the head; behind the second one, the segment may go.
    fn go_on_releasing(&mut self) -> Result<(), DiskError> {
        if !self.may_release() {
            return Ok(());
        }
        let Some(Release { first, older_written_in }) = self.release else { return Ok(()) };
        let newest = self.writer.end().segment;
        if planted!("cleaner: a segment goes before the head says so") {
            self.release = None;
            let _ = self.links.spares.send(spare::Wanted::Removal { first });
            return Ok(());
        }
        if older_written_in == Some(newest) {
            self.writer.record_first(first, HeadSlot::Newer)?;
            self.release = None;
            let _ = self.links.spares.send(spare::Wanted::Removal { first });
        } else {
            self.writer.record_first(first, HeadSlot::Older)?;
            self.release = Some(Release { first, older_written_in: Some(newest) });
        }
        Ok(())
    }

    /// Whether there is something to clean.
    fn has_ended_segments(&self) -> bool {
        self.writer.end().segment > self.writer.first()
    }

    /// One spare is for changes, another one for cleaning. It is made before there is something to clean, so that
    /// grants do not have to wait for it then.
    fn want_spare(&mut self) {
        let is_half_full = self.writer.room_bytes() < self.writer.segment_room_bytes() / 2;
        let wanted = 1 + usize::from(self.has_ended_segments() || is_half_full);
        while self.writer.spare_count() + self.spares_wanted < wanted {
            if self.links.spares.send(spare::Wanted::Spare).is_err() {
                return;
            }
            self.spares_wanted += 1;
        }
        self.want_spare_for_slice();
    }

    /// What is carried may take more than the segment it comes from: a creation is carried as record, entry and
    /// operation. When the room that was kept is used up in the middle of a cleaning, only another segment helps, and
    /// without it nothing would ever be given back.
    fn want_spare_for_slice(&mut self) {
        let is_stuck = self.slice.is_some() && self.writer.spare_count() == 0 && !self.may_write_slice(0);
        if is_stuck && !self.asked_for_slice {
            let _ = self.links.spares.send(spare::Wanted::ForCleaning);
        }
        self.asked_for_slice = is_stuck;
    }

    fn room(&self) -> Room {
        let (rest_bytes, segment_bytes) = (self.writer.room_bytes(), self.writer.segment_room_bytes());
        Room { rest_bytes, spares: self.writer.spare_count() as u64, segment_bytes }
    }

    /// Grants what fits for certain and is not kept: on a full disk what is kept is what cleaning writes into.
    fn grant(&mut self) {
        let room = self.room();
        let keeps_room = self.has_ended_segments() || room.spares > 1;
        let bytes = if keeps_room { room.beside_cleaning_bytes() } else { room.bytes() };
        let credit = self.committed_bytes + bytes / ROOM_PER_CREDIT;
        if credit > self.credit_bytes {
            self.credit_bytes = credit;
            self.links.report.say(Event::Credit { bytes_total: credit });
        }
    }
}
