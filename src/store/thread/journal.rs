//! The journal thread: takes everything that is queued, writes it, syncs once, reports.

use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender};
use std::time::{Duration, Instant};

use super::{Backlog, Clock, Report, index, spare};
use crate::limits::{MARKER_DELAY_MS, PACKET_BYTES_MAX};
use crate::store::disk::{Disk, DiskError};
use crate::store::journal::{Spare, Writer};
use crate::store::{Change, Event, Ticket, change_bytes};
use std::sync::Arc;

/// Bytes of changes that go into one batch; more waits for the next one.
const BATCH_BYTES_MAX: usize = 16 * 1024 * 1024;
/// Room that one byte of granted change may take at most: the smallest change takes 64 bytes, and each may be a batch
/// of its own, with a watermark of 48 bytes before it and a marker of 48 bytes behind it.
const ROOM_PER_CREDIT: u64 = 3;

/// What the journal thread is told.
pub(crate) enum Message {
    /// Make this durable.
    Commit { ticket: Ticket, change: Change },
    /// A spare segment is there; the file is known to the spare thread's kind of disk.
    Spare(Box<dyn std::any::Any + Send>),
    /// Seal the current segment, and say which one that was. Waits for a spare: a full disk must not end storage.
    Roll(Sender<u32>),
    /// Finish.
    Stop,
}

/// Those whom it talks to.
pub(super) struct Links {
    pub(super) report: Report,
    pub(super) index: Sender<index::Message>,
    pub(super) spares: Sender<spare::Wanted>,
    pub(super) backlog: Arc<Backlog>,
    pub(super) clock: Clock,
}

pub(super) struct JournalThread<D: Disk> {
    writer: Writer<D>,
    links: Links,
    spare_wanted: bool,
    rolls: Vec<Sender<u32>>,
    committed_bytes: u64,
    credit_bytes: u64,
    batch_at: Instant,
}

/// What one turn took from the queue.
#[derive(Default)]
struct Taken {
    commits: Vec<(Ticket, Change)>,
    bytes: usize,
    stops: bool,
}

impl<D: Disk> JournalThread<D> {
    pub(super) fn new(writer: Writer<D>, links: Links) -> Self {
        let batch_at = Instant::now();
        let mut thread = Self {
            writer,
            links,
            spare_wanted: false,
            rolls: Vec::new(),
            committed_bytes: 0,
            credit_bytes: 0,
            batch_at,
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
            self.commit(&taken)?;
            self.seal()?;
            self.want_spare();
            self.grant();
            if taken.stops {
                return self.writer.mark(self.links.clock.now());
            }
        }
    }

    /// Waits for something to do, and marks the journal when it has been quiet for a while.
    fn take(&mut self, queue: &Receiver<Message>) -> Result<Taken, DiskError> {
        let mut taken = Taken::default();
        if self.writer.needs_mark() {
            let due = self.batch_at + Duration::from_millis(MARKER_DELAY_MS);
            match queue.recv_timeout(due.saturating_duration_since(Instant::now())) {
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
        while taken.bytes < BATCH_BYTES_MAX && !taken.stops {
            let Ok(message) = queue.try_recv() else { break };
            self.sort(message, &mut taken);
        }
        Ok(taken)
    }

    fn sort(&mut self, message: Message, taken: &mut Taken) {
        match message {
            Message::Commit { ticket, change } => {
                taken.bytes += change_bytes(&change);
                taken.commits.push((ticket, change));
            }
            Message::Spare(spare) => {
                if let Ok(spare) = spare.downcast::<Spare<D::File>>() {
                    self.spare_wanted = false;
                    self.writer.put_spare(*spare);
                }
            }
            Message::Roll(sealed) => self.rolls.push(sealed),
            Message::Stop => taken.stops = true,
        }
    }

    /// Seals the current segment for whoever asked, behind everything that was committed before.
    fn seal(&mut self) -> Result<(), DiskError> {
        if self.rolls.is_empty() || !self.writer.has_spare() {
            return Ok(());
        }
        let sealed = self.writer.end().segment;
        self.writer.seal(self.links.clock.now())?;
        for roll in self.rolls.drain(..) {
            // Whoever asked may have given up.
            let _ = roll.send(sealed);
        }
        Ok(())
    }

    fn commit(&mut self, taken: &Taken) -> Result<(), DiskError> {
        let Some((last, _)) = taken.commits.last() else { return Ok(()) };
        self.links.backlog.wait_for_room();
        let now = self.links.clock.now();
        let changes = taken.commits.iter().map(|(_, change)| change);
        let placed = self.writer.append_batch(changes, now)?;
        self.batch_at = Instant::now();
        self.committed_bytes += taken.bytes as u64;
        let lsns = placed.iter().map(|placed| placed.lsn).collect();
        let changes = taken.commits.iter().map(|(_, change)| change.clone());
        let packets = placed.into_iter().zip(changes).collect();
        self.links.backlog.add(taken.bytes as u64);
        // First the index's queue, then the report: a look-up that follows the report must find it folded.
        let sent = self.links.index.send(index::Message::Packets { packets, running_ms: now.running_ms });
        if sent.is_err() {
            self.links.backlog.give_up();
        }
        self.links.report.say(Event::Durable { ticket: *last, lsns });
        Ok(())
    }

    fn want_spare(&mut self) {
        if !self.spare_wanted && !self.writer.has_spare() {
            self.spare_wanted = self.links.spares.send(spare::Wanted).is_ok();
        }
    }

    /// Grants what fits for certain: into this segment, and into the spare. With a spare, a packet that does not fit
    /// the rest of this segment leaves up to a packet's room behind.
    fn grant(&mut self) {
        let mut room = self.writer.room_bytes();
        if self.writer.has_spare() {
            room = room.saturating_sub(PACKET_BYTES_MAX as u64) + self.writer.segment_room_bytes();
        }
        let credit = self.committed_bytes + room / ROOM_PER_CREDIT;
        if credit > self.credit_bytes {
            self.credit_bytes = credit;
            self.links.report.say(Event::Credit { bytes_total: credit });
        }
    }
}
