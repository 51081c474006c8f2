//! Appending: group commit, markers, and rolling from one segment to the next.

use std::collections::VecDeque;

use super::head::{self, Head};
use super::packet::{Body, Position, WATERMARK_BYTES, Watermark, encode, padded};
use super::segment::{DirectoryId, JOURNAL_DIRECTORY, SEGMENT_HEADER_BYTES, SegmentHeader, segment_path};
use super::spare::{Spare, make_now};
use crate::store::carried::Carried;
use crate::store::disk::{Disk, DiskError, DiskErrorKind, DiskFile};
use crate::store::{Change, record};

/// Bytes at the end of each segment in which only a marker may stand, so that a full segment can be marked too.
const MARKER_RESERVE: u32 = 48;
const _: () = assert!(MARKER_RESERVE as usize == WATERMARK_BYTES);

/// The two clocks, as the caller read them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Now {
    /// Running time of all servers on this directory.
    pub(crate) running_ms: u64,
    /// Milliseconds since 1970.
    pub(crate) wall_ms: u64,
}

/// Where a change went.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Placed {
    /// Its number in the journal.
    pub(crate) lsn: u64,
    /// Its first byte.
    pub(crate) position: Position,
    /// Bytes that it takes.
    pub(crate) bytes: u32,
}

impl Placed {
    /// The first byte behind it.
    pub(crate) fn end(&self) -> Position {
        Position { segment: self.position.segment, offset: self.position.offset + self.bytes }
    }
}

/// One of the two slots of the head.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum HeadSlot {
    /// That of the segment before the newest.
    Older,
    /// That of the newest segment.
    Newer,
}

/// What all segments of a journal have in common.
pub(crate) struct Journal<D: Disk> {
    pub(crate) disk: D,
    pub(crate) directory: DirectoryId,
    pub(crate) segment_bytes: u32,
    /// A source of salts: nobody outside may know them.
    pub(crate) salts: Box<dyn FnMut() -> u32 + Send>,
}

/// Where the next packet goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Tail {
    pub(crate) segment: u32,
    pub(crate) salt: u32,
    pub(crate) offset: u32,
    pub(crate) next_lsn: u64,
    pub(crate) previous_crc: u32,
}

impl Tail {
    /// Its place.
    pub(crate) fn position(&self) -> Position {
        Position { segment: self.segment, offset: self.offset }
    }
}

/// The end of the journal, and the only one who writes there.
///
/// Invariant: everything before `synced` is covered by a successful sync, and `synced` ≤ the tail. After the first
/// failed write or sync it is poisoned: every later call fails without touching the disk, because what a failed sync
/// left behind can neither be trusted nor be synced again.
pub(crate) struct Writer<D: Disk> {
    journal: Journal<D>,
    file: D::File,
    tail: Tail,
    synced: Position,
    poisoned: Option<DiskError>,
    /// The segment with which the log begins.
    first: u32,
    /// At most two: the next segment, and one in reserve for cleaning on a full disk.
    spares: VecDeque<Spare<D::File>>,
    unwritten: Vec<u8>,
    marked: bool,
}

impl<D: Disk> Writer<D> {
    /// Goes on at `tail`, up to which everything is synced; the log begins with the segment `first`.
    pub(crate) fn new(journal: Journal<D>, file: D::File, tail: Tail, first: u32) -> Self {
        let synced = tail.position();
        let (spares, unwritten) = (VecDeque::new(), Vec::new());
        Self { journal, file, tail, synced, poisoned: None, first, spares, unwritten, marked: true }
    }

    /// Changes alone.
    #[cfg(test)]
    pub(crate) fn append_batch<'c>(
        &mut self,
        changes: impl IntoIterator<Item = &'c Change>,
        now: Now,
    ) -> Result<Vec<Placed>, DiskError> {
        self.append(changes, &[], now)
    }

    /// Writes changes in their order, and behind them what cleaning carries, and syncs once; gives where each went.
    /// After an error nothing of the batch may be acknowledged, and the writer is poisoned.
    pub(crate) fn append<'c>(
        &mut self,
        changes: impl IntoIterator<Item = &'c Change>,
        carried: &[Carried],
        now: Now,
    ) -> Result<Vec<Placed>, DiskError> {
        self.guarded(|writer| {
            let mut placed = Vec::new();
            for change in changes {
                placed.push(writer.place(&Body::Change(change), change_bytes(change), now)?);
            }
            for carried in carried {
                placed.push(writer.place(&Body::Carried(carried), carried_bytes(carried), now)?);
            }
            if !placed.is_empty() {
                writer.write_and_sync()?;
                writer.marked = false;
            }
            Ok(placed)
        })
    }

    /// Says durably that everything so far was synced, unless that was said already.
    pub(crate) fn mark(&mut self, now: Now) -> Result<(), DiskError> {
        if self.marked {
            return Ok(());
        }
        self.guarded(|writer| {
            writer.push(&Body::Watermark(Watermark {
                synced: writer.synced,
                running_ms: now.running_ms,
                wall_ms: now.wall_ms,
            }));
            writer.write_and_sync()?;
            writer.marked = true;
            Ok(())
        })
    }

    /// The same where a run before has not come to it.
    pub(crate) fn mark_again(&mut self, now: Now) -> Result<(), DiskError> {
        self.marked = false;
        self.mark(now)
    }

    /// Whether a marker is due.
    pub(crate) fn needs_mark(&self) -> bool {
        !self.marked && self.poisoned.is_none()
    }

    /// Ends the segment here and goes on in the next one; gives the number of the one that was ended. A segment without
    /// packets is not ended: then it is the one before. A marker comes first: in a backup the ended segment is the last
    /// one, and without a successor nothing else says that all of it was synced.
    pub(crate) fn seal(&mut self, now: Now) -> Result<u32, DiskError> {
        self.mark(now)?;
        self.guarded(|writer| {
            if writer.tail.offset > SEGMENT_HEADER_BYTES {
                writer.roll(now)?;
                writer.marked = true;
            }
            Ok(writer.tail.segment.saturating_sub(1))
        })
    }

    /// Goes on in the next segment before anything needs it: three syncs.
    pub(crate) fn begin_next(&mut self, now: Now) -> Result<(), DiskError> {
        self.guarded(|writer| writer.roll(now))
    }

    /// Says durably, in one of the two slots of the head, that the log begins with the segment `first`. Only when both
    /// say so may the segments before it be removed: one call for each, so that no more than one sync is in the way of
    /// the next acknowledgement.
    pub(crate) fn record_first(&mut self, first: u32, slot: HeadSlot) -> Result<(), DiskError> {
        self.guarded(|writer| {
            let newest = match slot {
                HeadSlot::Older => writer.tail.segment.saturating_sub(1),
                HeadSlot::Newer => writer.tail.segment,
            };
            head::record(&writer.journal.disk, writer.journal.directory, Head { newest, first })?;
            writer.first = writer.first.max(first);
            Ok(())
        })
    }

    /// The segment with which the log begins.
    pub(crate) fn first(&self) -> u32 {
        self.first
    }

    /// Keeps a spare for the next roll.
    pub(crate) fn put_spare(&mut self, spare: Spare<D::File>) {
        self.spares.push_back(spare);
    }

    /// How many spares there are.
    pub(crate) fn spare_count(&self) -> usize {
        self.spares.len()
    }

    /// Bytes of packets that fit into the rest of this segment.
    pub(crate) fn room_bytes(&self) -> u64 {
        u64::from((self.journal.segment_bytes - MARKER_RESERVE).saturating_sub(self.tail.offset))
    }

    /// Bytes of packets that fit into one empty segment.
    pub(crate) fn segment_room_bytes(&self) -> u64 {
        u64::from(self.journal.segment_bytes - MARKER_RESERVE - SEGMENT_HEADER_BYTES)
    }

    /// The place behind the last packet.
    pub(crate) fn end(&self) -> Position {
        self.tail.position()
    }

    /// The LSN of the next packet.
    pub(crate) fn next_lsn(&self) -> u64 {
        self.tail.next_lsn
    }

    /// Where the next packet goes, for tests that write it themselves.
    #[cfg(test)]
    pub(crate) fn tail(&self) -> Tail {
        self.tail
    }

    fn guarded<T>(&mut self, act: impl FnOnce(&mut Self) -> Result<T, DiskError>) -> Result<T, DiskError> {
        if let Some(error) = &self.poisoned {
            return Err(error.clone());
        }
        let outcome = act(self);
        if let Err(error) = &outcome {
            self.poisoned = Some(error.clone());
        }
        outcome
    }

    /// Encodes one packet, behind the head of the batch where it is the first of its segment.
    fn place(&mut self, body: &Body<'_>, bytes: usize, now: Now) -> Result<Placed, DiskError> {
        let head = |writer: &Self| if writer.unwritten.is_empty() { WATERMARK_BYTES } else { 0 };
        if (head(self) + bytes) as u64 > self.room_bytes() {
            self.roll(now)?;
            assert!((head(self) + bytes) as u64 <= self.room_bytes(), "every packet fits an empty segment");
        }
        if self.unwritten.is_empty() {
            let watermark = Watermark { synced: self.synced, running_ms: now.running_ms, wall_ms: now.wall_ms };
            self.push(&Body::Watermark(watermark));
        }
        let (lsn, position) = (self.tail.next_lsn, self.tail.position());
        self.push(body);
        debug_assert_eq!((self.tail.offset - position.offset) as usize, bytes, "what was granted is what it takes");
        Ok(Placed { lsn, position, bytes: self.tail.offset - position.offset })
    }

    fn push(&mut self, body: &Body<'_>) {
        let start = self.unwritten.len();
        let tail = &mut self.tail;
        tail.previous_crc = encode(&mut self.unwritten, tail.salt, tail.next_lsn, tail.previous_crc, body);
        tail.next_lsn += 1;
        tail.offset += u32::try_from(self.unwritten.len() - start).expect("a packet is bounded");
    }

    fn write_and_sync(&mut self) -> Result<(), DiskError> {
        if !self.unwritten.is_empty() {
            let start = self.tail.offset - u32::try_from(self.unwritten.len()).expect("within one segment");
            self.file.write_at(u64::from(start), &self.unwritten)?;
            self.unwritten.clear();
            if self.unwritten.capacity() > 4 * 1024 * 1024 {
                self.unwritten = Vec::new();
            }
        }
        if !planted!("journal: acknowledges before the sync")
            && let Err(error) = self.file.sync()
        {
            if !planted!("journal: tries a failed sync again") {
                return Err(error);
            }
            self.file.sync()?;
        }
        self.synced = self.tail.position();
        Ok(())
    }

    /// Ends this segment where it is and goes on in the next. The old one is synced first: a segment that has a
    /// successor counts as synced up to the end that the successor names.
    fn roll(&mut self, now: Now) -> Result<(), DiskError> {
        let is_unsynced = !self.unwritten.is_empty() || self.synced != self.tail.position();
        if is_unsynced && planted!("journal: a segment that ends is not synced") {
            let start = self.tail.offset - u32::try_from(self.unwritten.len()).expect("within one segment");
            self.file.write_at(u64::from(start), &self.unwritten)?;
            self.unwritten.clear();
        } else if is_unsynced {
            self.write_and_sync()?;
        }
        let spare = match self.spares.pop_front() {
            Some(spare) => spare,
            None => make_now(&self.journal.disk, "roll", u64::from(self.journal.segment_bytes))?,
        };
        let previous = self.tail;
        let (file, tail) = begin_segment(&mut self.journal, spare, previous, self.first, now.running_ms, |_, _| {})?;
        self.file = file;
        self.tail = tail;
        self.synced = tail.position();
        Ok(())
    }
}

/// Turns a spare into the segment behind `previous`, with the packets that `fill` encodes, and makes content, name and
/// the head durable, in this order: a name must never show a segment without a header, nor the head a segment that a
/// power cut can still take.
pub(crate) fn begin_segment<D: Disk>(
    journal: &mut Journal<D>,
    spare: Spare<D::File>,
    previous: Tail,
    first: u32,
    running_ms: u64,
    fill: impl FnOnce(&mut Vec<u8>, &mut Tail),
) -> Result<(D::File, Tail), DiskError> {
    let number = previous.segment.checked_add(1).ok_or_else(|| out_of_numbers(&spare.path))?;
    let header = SegmentHeader {
        number,
        directory: journal.directory,
        segment_bytes: u64::from(journal.segment_bytes),
        salt: (journal.salts)(),
        previous_crc: previous.previous_crc,
        first_lsn: previous.next_lsn,
        previous_end: previous.position(),
        running_ms,
    };
    let mut tail = Tail { segment: number, salt: header.salt, offset: SEGMENT_HEADER_BYTES, ..previous };
    let mut bytes = header.encode();
    fill(&mut bytes, &mut tail);
    spare.file.write_at(0, &bytes)?;
    spare.file.sync()?;
    journal.disk.rename(&spare.path, &segment_path(number))?;
    if !planted!("journal: a new segment's name is not synced") {
        journal.disk.sync_directory(JOURNAL_DIRECTORY)?;
    }
    if !planted!("journal: a new segment is not recorded in the head") {
        head::record(&journal.disk, journal.directory, Head { newest: number, first })?;
    }
    Ok((spare.file, tail))
}

fn out_of_numbers(path: &str) -> DiskError {
    let kind = DiskErrorKind::Other("the journal has no more segment numbers".to_owned());
    DiskError { operation: "number", path: path.to_owned(), kind }
}

/// The tail before the first segment of all.
pub(crate) fn beginning() -> Tail {
    Tail { segment: 0, salt: 0, offset: 0, next_lsn: 1, previous_crc: 0 }
}

/// Exactly the bytes that a carried packet takes in the journal.
pub(crate) fn carried_bytes(carried: &Carried) -> usize {
    padded(carried.body_bytes())
}

/// Exactly the bytes that a change takes in the journal, header and padding included.
pub(crate) fn change_bytes(change: &Change) -> usize {
    padded(record::change_body_bytes(change))
}
