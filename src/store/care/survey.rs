//! Walks a whole journal and goes on behind damage: what is whole, what is damaged, what is missing.
//!
//! Recovery stops at the first damaged byte, because a server must not go on. Here whole packets behind it are found
//! again: their CRC starts from the segment's secret salt, so nothing that a client sent can pose as one, and their
//! LSNs say how many are missing in between.

use super::files::{Files, Holder, find};
use super::{Finding, Loss, Severity, salt};
use crate::store::OpenError;
use crate::store::disk::{Disk, DiskFile};
use crate::store::journal::Applied;
use crate::store::journal::packet::{Content, ContentError, Packet, watermark_at};
use crate::store::journal::recovery::{advance, first_tail, say, used_bytes};
use crate::store::journal::segment::{SEGMENT_FORMAT, SEGMENT_HEADER_BYTES, SegmentHeader, segment_path};
use crate::store::journal::writer::{Now, Tail, beginning};

/// Packets in a row that are whole, from one place to another in one segment.
#[derive(Clone, Copy, Debug)]
pub(super) struct Stretch {
    pub(super) from: Tail,
    pub(super) to: Tail,
}

/// A segment as it was found.
#[derive(Clone, Debug)]
pub(super) struct Walked {
    pub(super) number: u32,
    /// The file that holds it; `None` where it is missing.
    pub(super) path: Option<String>,
    pub(super) stretches: Vec<Stretch>,
    /// Nothing is wrong with it, nor with what stands before it.
    pub(super) is_whole: bool,
    /// Running time of the servers when it was begun, as far as is known.
    pub(super) running_ms: u64,
}

/// What a walk found.
#[derive(Debug)]
pub(super) struct Survey {
    pub(super) files: Files,
    pub(super) segments: Vec<Walked>,
    pub(super) findings: Vec<Finding>,
    pub(super) losses: Vec<Loss>,
    /// Whole packets that were found.
    pub(super) packets: u64,
    /// The tail behind the last segment of the whole ones at the beginning.
    pub(super) whole_until: Tail,
    /// The clocks of the newest packet.
    pub(super) last: Now,
}

impl Survey {
    /// Whether any byte is not what was written.
    pub(super) fn is_damaged(&self) -> bool {
        self.findings.iter().any(Finding::is_damage)
    }

    /// The LSN of the last whole packet; 0 where there is none.
    pub(super) fn last_lsn(&self) -> u64 {
        let stretches = self.segments.iter().flat_map(|segment| &segment.stretches);
        stretches.map(|stretch| stretch.to.next_lsn.saturating_sub(1)).max().unwrap_or(0)
    }
}

/// A whole packet.
pub(super) struct Seen<'a> {
    pub(super) packet: &'a Packet<'a>,
    /// What it says; nothing where that is no value.
    pub(super) content: Option<Content>,
}

/// Walks the journal on `disk`; gives every whole packet to `visit`, each once, in the order of LSNs. `applied` is what
/// the index says, which is a witness too; `progress` hears the number of each segment, and of the last.
pub(super) fn survey<D: Disk>(
    disk: &D,
    applied: Option<Applied>,
    mut visit: impl FnMut(Seen<'_>),
    mut progress: impl FnMut(u32, u32),
) -> Result<Survey, OpenError> {
    let mut files = find(disk)?;
    if let Some(applied) = applied.filter(|applied| applied.end.segment > files.last) {
        let path = segment_path(applied.end.segment);
        files.findings.push(Finding::damage(path, 0, "the segment is missing, and the index has applied it"));
        files.last = applied.end.segment;
    }
    let findings = std::mem::take(&mut files.findings);
    let survey = Survey {
        segments: Vec::new(),
        findings,
        losses: Vec::new(),
        packets: 0,
        whole_until: beginning(),
        last: Now::default(),
        files,
    };
    let mut walk = Walk { disk, applied, survey, visit: &mut visit, reached: None, at: (String::new(), 0) };
    for number in walk.survey.files.first..=walk.survey.files.last {
        progress(number, walk.survey.files.last);
        walk.segment(number)?;
    }
    walk.compare_with_index();
    Ok(walk.survey)
}

struct Walk<'v, D: Disk> {
    disk: &'v D,
    applied: Option<Applied>,
    survey: Survey,
    visit: &'v mut dyn FnMut(Seen<'_>),
    /// Behind the last whole packet; `None` before the first.
    reached: Option<Tail>,
    /// Where that is: what is missing next is missing there.
    at: (String, u64),
}

/// Up to where a segment counts.
#[derive(Clone, Copy)]
struct Bound {
    end: u32,
    /// Packets from this LSN on stand in the next segment.
    lsn: u64,
    /// Nothing says where the segment ends but what was synced.
    is_open: bool,
    /// Everything before was synced, in a segment whose end is open.
    line: u32,
}

impl<D: Disk> Walk<'_, D> {
    fn segment(&mut self, number: u32) -> Result<(), OpenError> {
        let Some(holder) = self.survey.files.holders.get(&number).cloned() else {
            if self.at.0.is_empty() || number == self.survey.files.last {
                self.at = (segment_path(number), u64::from(SEGMENT_HEADER_BYTES));
            }
            self.survey.segments.push(Walked {
                number,
                path: None,
                stretches: Vec::new(),
                is_whole: false,
                running_ms: self.survey.last.running_ms,
            });
            self.lose_a_segment(number);
            return Ok(());
        };
        let before = self.damages();
        let follows = self.survey.segments.iter().all(|segment| segment.is_whole);
        let bytes = self.bytes(&holder)?;
        let Some(start) = self.start(&holder, &bytes) else {
            self.damage(&holder.path, 0, "no packet in it is whole, or its salt is lost");
            self.survey.segments.push(Walked {
                number,
                path: None,
                stretches: Vec::new(),
                is_whole: false,
                running_ms: self.survey.last.running_ms,
            });
            self.lose_a_segment(number);
            return Ok(());
        };
        let stretches = self.follow(&holder, &bytes, start)?;
        let is_whole = follows && holder.is_in_order && self.damages() == before;
        if let (true, Some(last)) = (is_whole, stretches.last()) {
            self.survey.whole_until = last.to;
        }
        let running_ms = holder.header.map_or(self.survey.last.running_ms, |header| header.running_ms);
        self.survey.segments.push(Walked { number, path: Some(holder.path), stretches, is_whole, running_ms });
        Ok(())
    }

    fn damages(&self) -> usize {
        self.survey.findings.iter().filter(|finding| finding.is_damage()).count()
    }

    fn damage(&mut self, file: &str, offset: u32, what: &str) {
        self.survey.findings.push(Finding::damage(file, u64::from(offset), what));
    }

    /// The bytes of a segment; what is cut off reads as zeros.
    fn bytes(&self, holder: &Holder) -> Result<Vec<u8>, OpenError> {
        let mut bytes = vec![0; self.survey.files.format.segment_bytes as usize];
        let there = usize::try_from(holder.size_bytes).unwrap_or(usize::MAX).min(bytes.len());
        self.disk.open(&holder.path)?.read_at(0, &mut bytes[..there])?;
        Ok(bytes)
    }

    /// The tail before the first packet: by the header or, where that is damaged, by the packets themselves.
    fn start(&mut self, holder: &Holder, bytes: &[u8]) -> Option<Tail> {
        let start = match &holder.header {
            Some(header) => {
                let start = first_tail(header);
                let follows = self.reached.map_or(header.first_lsn == 1 || self.is_cleaned(), |reached| {
                    reached.next_lsn == start.next_lsn && reached.previous_crc == start.previous_crc
                });
                if !follows && self.reached.is_none_or(|reached| reached.next_lsn == start.next_lsn) && self.is_next() {
                    self.damage(&holder.path, 0, "the segment does not follow its predecessor");
                }
                start
            }
            None => headless(holder.number, bytes)?,
        };
        let before = if self.is_cleaned() { start.next_lsn } else { 1 };
        let next_lsn = self.reached.map_or(before, |reached| reached.next_lsn);
        if self.at.0.is_empty() {
            self.at = (holder.path.clone(), 0);
        }
        self.lose(next_lsn, start.next_lsn);
        Some(start)
    }

    /// Whether the log does not begin with the first segment of all: then nothing but its first header says with which
    /// LSN it begins.
    fn is_cleaned(&self) -> bool {
        self.survey.files.first > 1
    }

    /// Whether nothing is missing before the segment that is walked now.
    fn is_next(&self) -> bool {
        self.survey.segments.iter().all(|segment| segment.path.is_some())
    }

    /// Follows the packets of a segment, and finds them again behind damage.
    fn follow(&mut self, holder: &Holder, bytes: &[u8], start: Tail) -> Result<Vec<Stretch>, OpenError> {
        let bound = self.bound(holder, bytes, start.salt)?;
        let within = &bytes[..bound.end as usize];
        let (mut stretches, mut from, mut tail) = (Vec::new(), start, start);
        loop {
            if tail.offset >= bound.end || tail.next_lsn >= bound.lsn {
                break;
            }
            let bad = match advance(within, tail) {
                Ok((packet, after)) => {
                    self.take(&packet, tail)?;
                    tail = after;
                    continue;
                }
                Err(bad) => bad,
            };
            if bound.is_open && tail.offset >= bound.line {
                self.note_torn_tail(holder, bytes, tail.offset);
                break;
            }
            self.damage(&holder.path, tail.offset, say(bad));
            stretches.push(Stretch { from, to: tail });
            self.reach(holder, tail);
            from = resync(within, tail, bound.lsn).unwrap_or(Tail { offset: bound.end, ..tail });
            if from.offset >= bound.end {
                if bound.is_open {
                    self.lose_the_end();
                }
                return Ok(stretches);
            }
            self.lose(tail.next_lsn, from.next_lsn);
            tail = from;
        }
        stretches.push(Stretch { from, to: tail });
        self.reach(holder, tail);
        self.check_end(holder, tail);
        Ok(stretches)
    }

    fn reach(&mut self, holder: &Holder, tail: Tail) {
        self.reached = Some(tail);
        self.at = (holder.path.clone(), u64::from(tail.offset));
    }

    /// The successor says with which packet the segment ended.
    fn check_end(&mut self, holder: &Holder, tail: Tail) {
        let Some(next) = self.next_header(holder.number) else { return };
        let is_same = tail.next_lsn == next.first_lsn && tail.previous_crc == next.previous_crc;
        if !is_same && tail.next_lsn >= next.first_lsn {
            self.damage(&holder.path, tail.offset, "the successor goes on from another packet");
        }
    }

    fn next_header(&self, number: u32) -> Option<SegmentHeader> {
        self.survey.files.holders.get(&(number + 1)).and_then(|next| next.header)
    }

    fn bound(&self, holder: &Holder, bytes: &[u8], salt: u32) -> Result<Bound, OpenError> {
        let segment_bytes = self.survey.files.format.segment_bytes;
        if let Some(next) = self.next_header(holder.number) {
            let end = next.previous_end.offset.clamp(SEGMENT_HEADER_BYTES, segment_bytes);
            return Ok(Bound { end, lsn: next.first_lsn, is_open: false, line: end });
        }
        let mut bound = Bound { end: segment_bytes, lsn: u64::MAX, is_open: true, line: 0 };
        if let Some(next) = self.survey.files.holders.get(&(holder.number + 1)) {
            let start = headless(next.number, &self.bytes(next)?);
            bound.lsn = start.map_or(u64::MAX, |start| start.next_lsn);
        }
        bound.line = line(bytes, holder.number, salt);
        if let Some(applied) = self.applied.filter(|applied| applied.end.segment == holder.number) {
            bound.line = bound.line.max(applied.end.offset);
        }
        Ok(bound)
    }

    fn take(&mut self, packet: &Packet<'_>, tail: Tail) -> Result<(), OpenError> {
        self.survey.packets += 1;
        let file = segment_path(tail.segment);
        let content = match packet.content() {
            Ok(content) => Some(content),
            Err(ContentError::Newer) => {
                return Err(OpenError::NewerFormat { file, found: u32::from(u8::MAX), supported: SEGMENT_FORMAT });
            }
            Err(ContentError::Malformed(error)) => {
                self.damage(&file, tail.offset, &format!("a whole packet holds no value: {error}"));
                None
            }
        };
        if let Some(Content::Watermark(watermark)) = &content {
            self.survey.last = Now { running_ms: watermark.running_ms, wall_ms: watermark.wall_ms };
        }
        (self.visit)(Seen { packet, content });
        Ok(())
    }

    fn note_torn_tail(&mut self, holder: &Holder, bytes: &[u8], offset: u32) {
        if used_bytes(bytes) > offset as usize && holder.number == self.survey.files.last {
            let what = "a torn tail, which was never acknowledged: the next start cuts it";
            self.survey.findings.push(Finding::new(Severity::Note, &*holder.path, Some(u64::from(offset)), what));
        }
    }

    /// Takes note that the packets from one LSN up to another are missing.
    fn lose(&mut self, from_lsn: u64, to_lsn: u64) {
        if to_lsn > from_lsn {
            let (file, offset) = self.at.clone();
            self.survey.losses.push(Loss { file, offset, first_lsn: from_lsn, packets: Some(to_lsn - from_lsn) });
        }
    }

    /// How much stood in a segment is known from those around it, unless it is the last one, or the first of a log that
    /// was cleaned.
    fn lose_a_segment(&mut self, number: u32) {
        if number == self.survey.files.last {
            self.lose_the_end();
        } else if number == self.survey.files.first && self.is_cleaned() {
            let (file, offset) = (segment_path(number), u64::from(SEGMENT_HEADER_BYTES));
            self.survey.losses.push(Loss { file, offset, first_lsn: 0, packets: None });
        }
    }

    fn lose_the_end(&mut self) {
        let (file, offset) = self.at.clone();
        let first_lsn = self.reached.map_or(1, |reached| reached.next_lsn);
        self.survey.losses.push(Loss { file, offset, first_lsn, packets: None });
    }

    /// What the index has applied was durable: a journal that ends before is damaged.
    fn compare_with_index(&mut self) {
        let next_lsn = self.reached.map_or(1, |reached| reached.next_lsn);
        let Some(applied) = self.applied.filter(|applied| applied.lsn >= next_lsn) else { return };
        let (file, offset) = self.at.clone();
        let what = format!("the log ends before LSN {}, which the index has applied", applied.lsn);
        self.survey.findings.push(Finding::damage(file, offset, what));
        if self.reached.is_some() || !self.is_cleaned() {
            self.survey.losses.retain(|loss| loss.packets.is_some() || loss.first_lsn == 0);
            self.lose(next_lsn, applied.lsn + 1);
        }
        if let Some(last) = self.survey.segments.last_mut() {
            last.is_whole = false;
        }
    }
}

/// The tail before the first packet of a segment whose header is damaged.
fn headless(number: u32, bytes: &[u8]) -> Option<Tail> {
    let salt = salt::recover(bytes)?;
    let first = Packet::decode(bytes.get(SEGMENT_HEADER_BYTES as usize..)?, salt).ok()?;
    let (next_lsn, previous_crc) = (first.lsn, first.previous_crc);
    Some(Tail { segment: number, salt, offset: SEGMENT_HEADER_BYTES, next_lsn, previous_crc })
}

/// The highest offset in this segment up to which any whole watermark in it says that everything was synced.
fn line(bytes: &[u8], number: u32, salt: u32) -> u32 {
    let used = used_bytes(bytes);
    let places = (SEGMENT_HEADER_BYTES as usize..used).step_by(8);
    let watermarks = places.filter_map(|at| watermark_at(&bytes[at..], salt)).map(|watermark| watermark.synced);
    watermarks.filter(|synced| synced.segment == number).map(|synced| synced.offset).max().unwrap_or(0)
}

/// The next place from `tail` on at which a whole packet stands that belongs behind it.
fn resync(bytes: &[u8], tail: Tail, lsn_max: u64) -> Option<Tail> {
    (tail.offset as usize..bytes.len()).step_by(8).find_map(|at| {
        let rest = &bytes[at..];
        // The LSN before the CRC: almost no place passes, and a CRC may take a megabyte.
        let lsn = u64::from_be_bytes(*rest.get(8..)?.first_chunk()?);
        if lsn < tail.next_lsn || lsn >= lsn_max {
            return None;
        }
        let packet = Packet::decode(rest, tail.salt).ok()?;
        let offset = u32::try_from(at).ok()?;
        Some(Tail { offset, next_lsn: packet.lsn, previous_crc: packet.previous_crc, ..tail })
    })
}
