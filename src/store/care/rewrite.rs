//! Writes the part of a journal again that stands from the first damage on, without what cannot stay.
//!
//! Packets keep their LSNs: in the place of one that is lost, or cannot stay, stands a watermark packet, which takes an
//! LSN and says nothing else. It has 48 bytes, no packet has fewer: so what is written again fits into the segments in
//! which it stood, and these keep their numbers.

use super::plan::{Decisions, Verdict};
use super::survey::{Stretch, Walked};
use crate::ids::GroupId;
use crate::store::OpenError;
use crate::store::carried::{CARRIED_LIST_MAX, Carried};
use crate::store::disk::{Disk, DiskFile};
use crate::store::journal::Content;
use crate::store::journal::packet::{Body, PACKET_HEADER_BYTES, Packet, WATERMARK_BYTES, Watermark};
use crate::store::journal::recovery::{advance, push};
use crate::store::journal::segment::{SEGMENT_HEADER_BYTES, segment_path};
use crate::store::journal::spare::make_now;
use crate::store::journal::writer::{Journal, Now, Tail, begin_segment};

/// Where a filler stands in for a packet; the largest one, so that one fits wherever a packet stood.
const FILLER_BYTES: u32 = 48;
const _: () = assert!(FILLER_BYTES as usize == WATERMARK_BYTES);
/// What one floor takes in its packet.
const FLOOR_BYTES: usize = 16 + 8;

/// Writes segments one behind the other into a new journal.
pub(super) struct Rewriter<'p, From: Disk, To: Disk> {
    from: &'p From,
    decisions: &'p Decisions,
    journal: Journal<To>,
    tail: Tail,
    first: u32,
    now: Now,
}

impl<'p, From: Disk, To: Disk> Rewriter<'p, From, To> {
    /// Goes on behind `tail`, which ends the segments that stay as they are, in a log that begins with `first`.
    pub(super) fn new(from: &'p From, decisions: &'p Decisions, journal: Journal<To>, tail: Tail, first: u32) -> Self {
        Self { from, decisions, journal, tail, first, now: Now::default() }
    }

    /// Writes the segments, in their order, and the floors behind them; the last one ends with a marker.
    pub(super) fn run(
        mut self,
        segments: &[Walked],
        floors: &[(GroupId, u64)],
        mut progress: impl FnMut(u32),
    ) -> Result<(), OpenError> {
        for (at, segment) in segments.iter().enumerate() {
            progress(segment.number);
            let later = segments.get(at + 1..).unwrap_or_default();
            let next_lsn = later.iter().find_map(|later| later.stretches.first()).map(|first| first.from.next_lsn);
            self.segment(segment, next_lsn, later.is_empty())?;
        }
        let room_bytes = self.journal.segment_bytes - SEGMENT_HEADER_BYTES - 2 * FILLER_BYTES;
        let floors_max = (room_bytes as usize - PACKET_HEADER_BYTES - 8) / FLOOR_BYTES;
        for some in floors.chunks(floors_max.min(CARRIED_LIST_MAX)) {
            self.floors(some)?;
        }
        Ok(())
    }

    /// A segment that tells floors: no packet of before can do it, because the rooms that are free are small.
    fn floors(&mut self, floors: &[(GroupId, u64)]) -> Result<(), OpenError> {
        let spare = make_now(&self.journal.disk, "repair", u64::from(self.journal.segment_bytes))?;
        let (now, carried) = (self.now, Carried::Floors(floors.to_vec()));
        let running_ms = now.running_ms;
        let (_, tail) = begin_segment(&mut self.journal, spare, self.tail, self.first, running_ms, |out, tail| {
            push(out, tail, &Body::Carried(&carried));
            put_watermark(out, tail, now);
        })?;
        self.tail = tail;
        Ok(())
    }

    fn segment(&mut self, walked: &Walked, fill_until: Option<u64>, is_last: bool) -> Result<(), OpenError> {
        let segment_bytes = self.journal.segment_bytes;
        let bytes = self.bytes(walked)?;
        let spare = make_now(&self.journal.disk, "repair", u64::from(segment_bytes))?;
        let (decisions, mut now) = (self.decisions, self.now);
        now.running_ms = now.running_ms.max(walked.running_ms);
        let (_, tail) =
            begin_segment(&mut self.journal, spare, self.tail, self.first, walked.running_ms, |out, tail| {
                for stretch in &walked.stretches {
                    fill(out, tail, stretch.from.next_lsn, u32::MAX, now);
                    copy(out, tail, &bytes, *stretch, decisions, &mut now);
                }
                fill(out, tail, fill_until.unwrap_or(0), segment_bytes, now);
                if is_last && tail.offset + FILLER_BYTES <= segment_bytes {
                    let marker = tail.next_lsn + 1;
                    fill(out, tail, marker, segment_bytes, now);
                }
            })?;
        if tail.offset > segment_bytes {
            let reason = "what can be saved of it does not fit into one segment".to_owned();
            return Err(OpenError::Corrupt { file: segment_path(walked.number), offset: 0, reason });
        }
        (self.tail, self.now) = (tail, now);
        Ok(())
    }

    /// The bytes of the original; what is cut off reads as zeros.
    fn bytes(&self, walked: &Walked) -> Result<Vec<u8>, OpenError> {
        let mut bytes = vec![0; self.journal.segment_bytes as usize];
        if let Some(path) = &walked.path {
            let file = self.from.open(path)?;
            let there = usize::try_from(file.size()?).unwrap_or(usize::MAX).min(bytes.len());
            file.read_at(0, &mut bytes[..there])?;
        }
        Ok(bytes)
    }
}

/// Puts fillers up to an LSN, as far as they fit.
fn fill(out: &mut Vec<u8>, tail: &mut Tail, lsn: u64, segment_bytes: u32, now: Now) {
    while tail.next_lsn < lsn && tail.offset.saturating_add(FILLER_BYTES) <= segment_bytes {
        put_watermark(out, tail, now);
    }
}

/// Everything before it will be synced before the journal gets its name: so it may say that it was.
fn put_watermark(out: &mut Vec<u8>, tail: &mut Tail, now: Now) {
    let Now { running_ms, wall_ms } = now;
    let synced = tail.position();
    push(out, tail, &Body::Watermark(Watermark { synced, running_ms, wall_ms }));
}

/// Writes the packets of a stretch again.
fn copy(out: &mut Vec<u8>, tail: &mut Tail, bytes: &[u8], stretch: Stretch, decisions: &Decisions, now: &mut Now) {
    let mut cursor = stretch.from;
    while cursor.offset < stretch.to.offset {
        let Ok((packet, after)) = advance(bytes, cursor) else { unreachable!("the survey has followed it") };
        put(out, tail, &packet, decisions, now);
        cursor = after;
    }
}

fn put(out: &mut Vec<u8>, tail: &mut Tail, packet: &Packet<'_>, decisions: &Decisions, now: &mut Now) {
    let content = packet.content().ok();
    if let Some(Content::Watermark(watermark)) = &content {
        *now = Now { running_ms: watermark.running_ms, wall_ms: watermark.wall_ms };
        // Places have moved: the old one may point into a packet.
        return put_watermark(out, tail, *now);
    }
    match decisions.verdict(packet.lsn, content.as_ref()) {
        Verdict::Keep => push(out, tail, &Body::Again(packet)),
        Verdict::Change(change) => push(out, tail, &Body::Change(&change)),
        Verdict::Carried(carried) => push(out, tail, &Body::Carried(&carried)),
        Verdict::Drop => put_watermark(out, tail, *now),
    }
}
