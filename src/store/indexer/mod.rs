//! Keeps the index behind the journal, and answers look-ups from it.
//!
//! Packets are folded in the order of their LSNs, exactly once or again: folding one that is applied already changes
//! nothing, and the same packets always give the same answers. Answers come from what is folded, flushed or not.
//! No threads, no clock.

mod answers;
#[cfg(test)]
mod cleaning_tests;
mod crowds;
mod feed;
mod fold;
mod fold_carried;
mod fold_log;
mod fold_members;
mod fold_operations;
#[cfg(test)]
mod growth;
mod joinings;
mod listing;
mod plan;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;

use super::index::{Index, IndexError};
use super::journal::segment::SEGMENT_HEADER_BYTES;
use super::journal::{Content, DirectoryId, JournalReader, Placed, Position, ReadError};
use super::overlay::{Flush, Overlay};
use super::quota::GroupQuota;
use super::retention::Retention;
use super::tables::AppliedValue;
use crate::ids::{Principal, UserId};
use crate::store::disk::Disk;

use crowds::NearlyFull;
use joinings::Joinings;
pub(crate) use plan::{Pace, Plan};

/// Packets with their places.
pub(crate) type Packets = Vec<(Placed, Content)>;

/// Why a packet could not be folded.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum FoldError {
    /// The index has to be made anew.
    Index(IndexError),
    /// The journal does not give what is needed.
    Journal(ReadError),
}

impl From<IndexError> for FoldError {
    fn from(error: IndexError) -> Self {
        Self::Index(error)
    }
}

impl From<ReadError> for FoldError {
    fn from(error: ReadError) -> Self {
        Self::Journal(error)
    }
}

/// Why a replay ends before its end.
enum Halt {
    /// Whoever hears the progress has said so.
    Asked,
    Failed(FoldError),
}

impl<E: Into<FoldError>> From<E> for Halt {
    fn from(error: E) -> Self {
        Self::Failed(error.into())
    }
}

/// The index, what is folded but not flushed, and the journal that both come from.
pub(crate) struct Indexer<D: Disk> {
    overlay: Overlay,
    reader: JournalReader<D>,
    directory: DirectoryId,
    folded: Option<AppliedValue>,
    unfrozen_bytes: u64,
    /// By which live bytes are estimated; floors are moved by packets alone.
    retention: Retention,
    quota: GroupQuota,
    /// Who has become full, or is so no longer, and was not told of yet.
    crowds: Vec<(UserId, Option<u32>)>,
    nearly_full: NearlyFull,
    joinings: Joinings,
    /// Whose operations were counted in this run, with a key behind which none of theirs stands: what was removed from
    /// there is not passed again each time.
    trimmed: BTreeMap<Principal, Vec<u8>>,
    /// Bytes of the journal that cleaning would carry; estimated.
    live_bytes: u64,
    /// Entries below a floor that was moved, in this run.
    dropped_entries: u64,
    /// The index is being made anew: a group's record may come after what is said of it.
    rebuilding: bool,
    /// The LSN that the flush under way leads to, and the one up to which the index is durable.
    flushing_lsn: u64,
    checkpointed_lsn: u64,
}

impl<D: Disk> Indexer<D> {
    /// Over an open index; nothing is folded that the index has not applied.
    pub(crate) fn new(
        index: Box<dyn Index>,
        reader: JournalReader<D>,
        directory: DirectoryId,
    ) -> Result<Self, IndexError> {
        let overlay = Overlay::new(index);
        let folded = overlay.applied()?;
        if folded.is_some_and(|folded| folded.directory != directory) {
            return Err(IndexError("it belongs to another data directory".to_owned()));
        }
        let (live_bytes, rebuilding, lsn) =
            folded.map_or((0, false, 0), |folded| (folded.live_bytes, folded.rebuilding, folded.lsn));
        Ok(Self {
            overlay,
            reader,
            directory,
            folded,
            unfrozen_bytes: 0,
            retention: Retention::default(),
            quota: GroupQuota::default(),
            crowds: Vec::new(),
            nearly_full: NearlyFull::default(),
            joinings: Joinings::default(),
            trimmed: BTreeMap::new(),
            live_bytes,
            dropped_entries: 0,
            rebuilding,
            flushing_lsn: 0,
            checkpointed_lsn: lsn,
        })
    }

    /// Counts by another quota than the default.
    pub(crate) fn set_quota(&mut self, quota: GroupQuota) {
        self.quota = quota;
    }

    /// Estimates by another retention than the default.
    pub(crate) fn set_retention(&mut self, retention: Retention) {
        self.retention = retention;
    }

    /// Bytes of the journal that cleaning would carry, about.
    pub(crate) fn live_bytes(&self) -> u64 {
        self.live_bytes
    }

    /// Entries that floors have passed, in this run.
    pub(crate) fn dropped_entries(&self) -> u64 {
        self.dropped_entries
    }

    /// The index is durable up to this LSN.
    pub(crate) fn checkpointed_lsn(&self) -> u64 {
        self.checkpointed_lsn
    }

    /// Closes the segments before one: they are about to be removed.
    pub(crate) fn forget_before(&mut self, first: u32) {
        self.reader.forget_before(first);
    }

    /// Up to where the journal is folded.
    pub(crate) fn folded(&self) -> Option<AppliedValue> {
        self.folded
    }

    /// Folds one packet.
    pub(crate) fn fold(&mut self, placed: Placed, content: &Content, running_ms: u64) -> Result<(), FoldError> {
        if self.folded.is_some_and(|folded| placed.lsn <= folded.lsn) {
            return Ok(());
        }
        self.fold_content(placed, content)?;
        self.folded = Some(AppliedValue {
            lsn: placed.lsn,
            end: placed.end(),
            directory: self.directory,
            running_ms,
            live_bytes: self.live_bytes,
            rebuilding: self.rebuilding,
        });
        self.unfrozen_bytes += u64::from(placed.bytes);
        Ok(())
    }

    /// Folds the journal, which begins with the segment `first`, from where the index stands up to `end`, flushing as
    /// it goes; `progress` hears each place and says whether to go on. What was not reached is replayed another time.
    pub(crate) fn replay(
        &mut self,
        first: u32,
        end: Position,
        mut progress: impl FnMut(Position) -> bool,
    ) -> Result<(), FoldError> {
        let start = Position { segment: first, offset: SEGMENT_HEADER_BYTES };
        let from = self.folded.map_or(start, |folded| folded.end);
        self.rebuilding |= self.folded.is_none();
        let mut reader = self.reader.sibling();
        let mut running_ms = self.folded.map_or(0, |folded| folded.running_ms);
        let walked = reader.walk::<Halt>(from, end, |packet| {
            if let Content::Watermark(watermark) = packet.content {
                running_ms = watermark.running_ms;
                return Ok(());
            }
            self.fold(packet.placed, &packet.content, running_ms)?;
            if self.is_full() {
                self.flush()?;
                if !progress(packet.placed.position) {
                    return Err(Halt::Asked);
                }
            }
            Ok(())
        });
        match walked {
            Ok(()) => {}
            Err(Halt::Asked) => return Ok(()),
            Err(Halt::Failed(error)) => return Err(error),
        }
        if self.rebuilding {
            if !progress(end) {
                return Ok(());
            }
            // What is swept has to be in values, and all of them at once may be too many for the memory.
            self.flush()?;
            self.sweep()?;
            self.rebuilding = false;
            if let Some(folded) = &mut self.folded {
                (folded.rebuilding, folded.live_bytes) = (false, self.live_bytes);
                // There is something to flush: that it is whole now.
                self.unfrozen_bytes += 1;
            }
        }
        Ok(())
    }

    /// About how many bytes of the journal up to `end` are not folded; nothing if the index is made anew, and can
    /// answer nothing before that is done.
    pub(crate) fn missed_bytes_max(&self, end: Position) -> Option<u64> {
        let from = self.folded.filter(|_| !self.rebuilding)?.end;
        let segments = u64::from(end.segment.saturating_sub(from.segment));
        let bytes = segments * self.reader.segment_bytes() as u64 + u64::from(end.offset);
        Some(bytes.saturating_sub(u64::from(from.offset)))
    }

    /// What of the journal up to `end` is not folded, by the running time at which it was written.
    pub(crate) fn missed(&self, end: Position) -> Result<Vec<(u64, Packets)>, FoldError> {
        let Some(folded) = self.folded else { return Ok(Vec::new()) };
        let (from, mut running_ms) = (folded.end, folded.running_ms);
        let mut missed: Vec<(u64, Packets)> = Vec::new();
        self.reader.sibling().walk::<ReadError>(from, end, |packet| {
            match (packet.content, missed.last_mut()) {
                (Content::Watermark(watermark), _) => running_ms = watermark.running_ms,
                (content, Some((at, packets))) if *at == running_ms => packets.push((packet.placed, content)),
                (content, _) => missed.push((running_ms, vec![(packet.placed, content)])),
            }
            Ok(())
        })?;
        Ok(missed)
    }

    /// Bytes of journal that are folded and not in the layer that is being flushed.
    pub(crate) fn unfrozen_bytes(&self) -> u64 {
        self.unfrozen_bytes
    }

    /// Whether what is folded is enough for a flush.
    pub(crate) fn is_full(&self) -> bool {
        let flush_bytes = (self.reader.segment_bytes() as u64 / 2).clamp(FLUSH_BYTES_MIN, FLUSH_BYTES_MAX);
        let memory_bytes = self.overlay.active_bytes() + self.joinings.active_bytes();
        self.unfrozen_bytes >= flush_bytes || memory_bytes >= FLUSH_MEMORY_BYTES
    }

    /// Memory of what is not flushed, about.
    pub(crate) fn dirty_bytes(&self) -> usize {
        self.overlay.memory_bytes() + self.joinings.memory_bytes()
    }

    /// Whether a flush is under way.
    pub(crate) fn is_flushing(&self) -> bool {
        self.overlay.is_flushing()
    }

    /// Begins to flush what is folded, unless there is nothing or a flush is under way.
    pub(crate) fn begin_flush(&mut self) {
        if let Some(folded) = self.folded
            && !self.overlay.is_flushing()
            && self.unfrozen_bytes > 0
        {
            let mut folded = folded;
            if planted!("indexer: claims one packet more than it has") {
                folded.lsn += 1;
            }
            self.overlay.freeze(folded);
            self.joinings.freeze();
            self.flushing_lsn = folded.lsn;
            self.unfrozen_bytes = 0;
        }
    }

    /// Writes the next batch of a flush; after the last one the index is durable up to there.
    pub(crate) fn flush_step(&mut self) -> Result<Flush, IndexError> {
        let above = self.settle_for_flush()?;
        let flush = self.overlay.flush_step(above.as_deref())?;
        if flush == Flush::Done {
            self.overlay.checkpoint()?;
            self.checkpointed_lsn = self.checkpointed_lsn.max(self.flushing_lsn);
        }
        Ok(flush)
    }

    /// Flushes everything.
    pub(crate) fn flush(&mut self) -> Result<(), IndexError> {
        while self.flush_step()? == Flush::More {}
        self.begin_flush();
        while self.flush_step()? == Flush::More {}
        Ok(())
    }
}

/// Journal folded after which a flush begins, at least and at most: half a segment, because cleaning waits for flushes.
const FLUSH_BYTES_MIN: u64 = 4 * 1024 * 1024;
pub(crate) const FLUSH_BYTES_MAX: u64 = 32 * 1024 * 1024;
/// Memory of what is folded after which one begins all the same: two layers may be full. The more there is, the more
/// joinings of a user become one write, which is what makes the index fast. A created group of 8 takes 2.2 KiB.
const FLUSH_MEMORY_BYTES: usize = 192 * 1024 * 1024;
