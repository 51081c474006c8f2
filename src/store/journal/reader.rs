//! Reading packets back: one by its place, those of a span, or all from one place to another.

use std::collections::BTreeMap;

use super::packet::{Content, Packet, Position};
use super::recovery::{advance, advance_at, first_tail, say};
use super::segment::{SEGMENT_HEADER_BYTES, SegmentHeader, segment_path};
use super::writer::{Placed, Tail};
use crate::limits::PACKET_BYTES_MAX;
use crate::store::disk::{Disk, DiskError, DiskErrorKind, DiskFile};

/// Segments kept open for reading.
const OPEN_SEGMENTS_MAX: usize = 16;

/// Bytes that a walk reads at once.
const WINDOW_BYTES: usize = 256 * 1024;

/// A place in a walk through one segment. A clone goes on from there by itself.
#[derive(Clone, Debug)]
pub(crate) struct Walk {
    tail: Tail,
    end: u32,
    running_ms: u64,
    window: Vec<u8>,
    window_at: u32,
}

impl Walk {
    /// The segment.
    pub(crate) fn segment(&self) -> u32 {
        self.tail.segment
    }

    /// The same place, without what was read ahead.
    pub(crate) fn place(&self) -> Self {
        let Self { tail, end, running_ms, .. } = *self;
        Self { tail, end, running_ms, window: Vec::new(), window_at: 0 }
    }
}

/// Why a read gave nothing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum ReadError {
    /// The bytes are not what was written.
    Damaged {
        /// The segment's path.
        file: String,
        /// The first byte that is wrong.
        offset: u64,
        /// In words.
        reason: &'static str,
    },
    /// The disk does not give them.
    Disk(DiskError),
}

impl std::fmt::Display for ReadError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Damaged { file, offset, reason } => write!(f, "{file} is damaged at offset {offset}: {reason}"),
            Self::Disk(error) => error.fmt(f),
        }
    }
}

impl From<DiskError> for ReadError {
    fn from(error: DiskError) -> Self {
        Self::Disk(error)
    }
}

/// Reads a journal that somebody else is appending to; never asked for anything that is not synced.
pub(crate) struct JournalReader<D: Disk> {
    disk: D,
    segment_bytes: u32,
    open: BTreeMap<u32, (D::File, SegmentHeader)>,
}

/// A packet that was read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct ReadPacket {
    pub(crate) placed: Placed,
    pub(crate) content: Content,
}

/// Some packets in their order, and where the next ones begin.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Stretch {
    pub(crate) packets: Vec<ReadPacket>,
    pub(crate) next: Position,
}

impl<D: Disk> JournalReader<D> {
    /// Space that is left on the disk.
    pub(crate) fn free_bytes(&self) -> Result<u64, DiskError> {
        self.disk.free_bytes()
    }

    /// A reader of the journal on `disk`.
    pub(crate) fn new(disk: D, segment_bytes: u32) -> Self {
        Self { disk, segment_bytes, open: BTreeMap::new() }
    }

    /// Another reader of the same journal.
    pub(crate) fn sibling(&self) -> Self {
        Self::new(self.disk.clone(), self.segment_bytes)
    }

    /// The size of a segment.
    pub(crate) fn segment_bytes(&self) -> usize {
        self.segment_bytes as usize
    }

    /// The packet at a place.
    pub(crate) fn packet(&mut self, position: Position) -> Result<ReadPacket, ReadError> {
        let mut bytes = self.bytes(position, 8 * 1024)?;
        let salt = self.segment(position.segment)?.1.salt;
        if Packet::decode(&bytes, salt).is_err() {
            bytes = self.bytes(position, PACKET_BYTES_MAX)?;
        }
        decode(&bytes, salt, position).ok_or_else(|| damaged(position, "there is no whole packet"))
    }

    /// All whole packets that begin in the `span_bytes` from a place, in their order. A damaged one is passed over:
    /// whoever asked knows what it must find.
    pub(crate) fn span(&mut self, position: Position, span_bytes: u32) -> Result<Vec<ReadPacket>, ReadError> {
        let bytes = self.bytes(position, span_bytes as usize)?;
        let salt = self.segment(position.segment)?.1.salt;
        let mut packets = Vec::new();
        let mut at = 0;
        while let Some(rest) = bytes.get(at as usize..).filter(|rest| !rest.is_empty()) {
            let place = Position { segment: position.segment, offset: position.offset + at };
            match decode(rest, salt, place) {
                Some(packet) => {
                    at += packet.placed.bytes;
                    packets.push(packet);
                }
                None => at += 8,
            }
        }
        Ok(packets)
    }

    /// Gives every packet from `from` up to `to` to `take`, in their order. What is between was synced, so anything
    /// wrong is damage. Both are places between packets; a segment without a successor ends at `to`.
    pub(crate) fn walk<E: From<ReadError>>(
        &mut self,
        from: Position,
        to: Position,
        mut take: impl FnMut(ReadPacket) -> Result<(), E>,
    ) -> Result<(), E> {
        for number in from.segment..=to.segment {
            let header = self.segment(number)?.1;
            let end = if number == to.segment { to.offset } else { self.segment(number + 1)?.1.previous_end.offset };
            let mut bytes = vec![0; end as usize];
            self.segment(number)?.0.read_at(0, &mut bytes).map_err(ReadError::from)?;
            let mut tail = first_tail(&header);
            while tail.offset < end {
                let place = tail.position();
                let (packet, after) = advance(&bytes, tail).map_err(|error| damaged(place, say(error)))?;
                if place >= from {
                    take(read_packet(&packet, place).ok_or_else(|| damaged(place, "a whole packet holds no value"))?)?;
                }
                tail = after;
            }
        }
        Ok(())
    }

    /// The packets from `from` on, at most about so many bytes of them and none behind `to`, and where the next ones
    /// begin. `from` is a place between packets, or the very beginning of a segment.
    pub(crate) fn stretch(&mut self, from: Position, to: Position, bytes_max: u32) -> Result<Stretch, ReadError> {
        let from = Position { offset: from.offset.max(SEGMENT_HEADER_BYTES), ..from };
        let end = match from.segment {
            segment if segment == to.segment => to.offset,
            segment => self.segment(segment + 1)?.1.previous_end.offset,
        };
        let behind = |segment: u32| match segment {
            segment if segment == to.segment => to,
            segment => Position { segment: segment + 1, offset: SEGMENT_HEADER_BYTES },
        };
        if from.offset >= end {
            return Ok(Stretch { packets: Vec::new(), next: behind(from.segment) });
        }
        // Never less than the largest packet, so that the first one is always whole.
        let packet_bytes_max = u32::try_from(PACKET_BYTES_MAX).unwrap_or(u32::MAX);
        let wanted = bytes_max.max(packet_bytes_max).min(end - from.offset);
        let bytes = self.bytes(from, wanted as usize)?;
        let salt = self.segment(from.segment)?.1.salt;
        let mut packets = Vec::new();
        let mut at = from;
        while at.offset < end {
            let rest = bytes.get((at.offset - from.offset) as usize..).unwrap_or_default();
            match decode(rest, salt, at) {
                Some(packet) => {
                    at = packet.placed.end();
                    packets.push(packet);
                }
                None if at != from && at.offset - from.offset + packet_bytes_max > wanted => break,
                None => return Err(damaged(at, "there is no whole packet")),
            }
        }
        Ok(Stretch { packets, next: if at.offset >= end { behind(at.segment) } else { at } })
    }

    /// The first LSN of a segment; `None` if there is no such segment.
    pub(crate) fn first_lsn(&mut self, segment: u32) -> Result<Option<u64>, ReadError> {
        match self.segment(segment) {
            Ok((_, header)) => Ok(Some(header.first_lsn)),
            Err(ReadError::Disk(error)) if error.kind == DiskErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Begins to walk through one segment that ends at `end`.
    pub(crate) fn begin_walk(&mut self, number: u32, end: u32) -> Result<Walk, ReadError> {
        let header = self.segment(number)?.1;
        Ok(Walk { tail: first_tail(&header), end, running_ms: header.running_ms, window: Vec::new(), window_at: 0 })
    }

    /// The next packet of a walk, with the running time at which it was written; nothing at the end. Whatever is wrong
    /// is damage, as in [`JournalReader::walk`].
    pub(crate) fn walk_on(&mut self, walk: &mut Walk) -> Result<Option<(ReadPacket, u64)>, ReadError> {
        if walk.tail.offset >= walk.end {
            return Ok(None);
        }
        let place = walk.tail.position();
        let mut at = walk.tail.offset.saturating_sub(walk.window_at) as usize;
        if Packet::decode(walk.window.get(at..).unwrap_or_default(), walk.tail.salt).is_err() {
            walk.window = self.bytes(place, WINDOW_BYTES.min((walk.end - walk.tail.offset) as usize))?;
            (walk.window_at, at) = (walk.tail.offset, 0);
        }
        if Packet::decode(walk.window.get(at..).unwrap_or_default(), walk.tail.salt).is_err() {
            walk.window = self.bytes(place, PACKET_BYTES_MAX.min((walk.end - walk.tail.offset) as usize))?;
        }
        let window = walk.window.get(at..).unwrap_or_default();
        let (packet, after) = advance_at(window, walk.tail).map_err(|error| damaged(place, say(error)))?;
        let read = read_packet(&packet, place).ok_or_else(|| damaged(place, "a whole packet holds no value"))?;
        walk.tail = after;
        if let Content::Watermark(watermark) = &read.content {
            walk.running_ms = watermark.running_ms;
        }
        Ok(Some((read, walk.running_ms)))
    }

    /// Closes the segments before one: they are about to be removed, and an open file keeps its space.
    pub(crate) fn forget_before(&mut self, first: u32) {
        self.open = self.open.split_off(&first);
    }

    fn bytes(&mut self, position: Position, bytes_max: usize) -> Result<Vec<u8>, ReadError> {
        let left = self.segment_bytes.saturating_sub(position.offset) as usize;
        let mut bytes = vec![0; bytes_max.min(left)];
        self.segment(position.segment)?.0.read_at(u64::from(position.offset), &mut bytes)?;
        Ok(bytes)
    }

    fn segment(&mut self, number: u32) -> Result<&(D::File, SegmentHeader), ReadError> {
        if !self.open.contains_key(&number) {
            let path = segment_path(number);
            let file = self.disk.open(&path)?;
            let mut bytes = vec![0; SEGMENT_HEADER_BYTES as usize];
            file.read_at(0, &mut bytes)?;
            let Ok(header) = SegmentHeader::decode(&bytes) else {
                return Err(damaged(Position { segment: number, offset: 0 }, "the header is damaged"));
            };
            if self.open.len() >= OPEN_SEGMENTS_MAX {
                self.open.pop_first();
            }
            self.open.insert(number, (file, header));
        }
        Ok(&self.open[&number])
    }
}

fn decode(bytes: &[u8], salt: u32, position: Position) -> Option<ReadPacket> {
    read_packet(&Packet::decode(bytes, salt).ok()?, position)
}

fn read_packet(packet: &Packet<'_>, position: Position) -> Option<ReadPacket> {
    let content = packet.content().ok()?;
    Some(ReadPacket { placed: Placed { lsn: packet.lsn, position, bytes: packet.bytes }, content })
}

fn damaged(position: Position, reason: &'static str) -> ReadError {
    ReadError::Damaged { file: segment_path(position.segment), offset: u64::from(position.offset), reason }
}
