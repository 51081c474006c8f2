//! Keeps the index behind the journal, and answers look-ups from it.
//!
//! Packets are folded in the order of their LSNs, exactly once or again: folding one that is applied already changes
//! nothing, and the same packets always give the same answers. Answers come from what is folded, flushed or not.
//! No threads, no clock.

mod answers;
mod feed;
mod fold;
mod listing;
#[cfg(test)]
mod tests;

use super::Change;
use super::index::{Index, IndexError};
use super::journal::{DirectoryId, JournalReader, Placed, Position, ReadError};
use super::overlay::{Flush, Overlay};
use super::tables::AppliedValue;
use crate::store::disk::Disk;

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

/// The index, what is folded but not flushed, and the journal that both come from.
pub(crate) struct Indexer<D: Disk> {
    overlay: Overlay,
    reader: JournalReader<D>,
    directory: DirectoryId,
    folded: Option<AppliedValue>,
    unfrozen_bytes: u64,
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
        Ok(Self { overlay, reader, directory, folded, unfrozen_bytes: 0 })
    }

    /// Up to where the journal is folded.
    pub(crate) fn folded(&self) -> Option<AppliedValue> {
        self.folded
    }

    /// Folds one packet.
    pub(crate) fn fold(&mut self, placed: Placed, change: &Change, running_ms: u64) -> Result<(), FoldError> {
        if self.folded.is_some_and(|folded| placed.lsn <= folded.lsn) {
            return Ok(());
        }
        self.fold_change(placed, change)?;
        let (lsn, end, directory) = (placed.lsn, placed.end(), self.directory);
        self.folded = Some(AppliedValue { lsn, end, directory, running_ms });
        self.unfrozen_bytes += u64::from(placed.bytes);
        Ok(())
    }

    /// Folds the journal from where the index stands up to `end`, flushing as it goes; `progress` hears each place.
    pub(crate) fn replay(&mut self, end: Position, mut progress: impl FnMut(Position)) -> Result<(), FoldError> {
        let start = Position { segment: 1, offset: super::journal::segment::SEGMENT_HEADER_BYTES };
        let from = self.folded.map_or(start, |folded| folded.end);
        let mut reader = self.reader.sibling();
        let mut running_ms = self.folded.map_or(0, |folded| folded.running_ms);
        reader.walk(from, end, |packet| {
            let change = match packet.content {
                super::journal::Content::Effect(effect) => Change::Effect(effect),
                super::journal::Content::Marks(marks) => Change::Marks(marks),
                super::journal::Content::Watermark(watermark) => {
                    running_ms = watermark.running_ms;
                    return Ok(());
                }
            };
            self.fold(packet.placed, &change, running_ms)?;
            if self.unfrozen_bytes >= FLUSH_BYTES {
                self.flush()?;
                progress(packet.placed.position);
            }
            Ok(())
        })
    }

    /// Bytes of journal that are folded and not in the layer that is being flushed.
    pub(crate) fn unfrozen_bytes(&self) -> u64 {
        self.unfrozen_bytes
    }

    /// Values that are not flushed.
    pub(crate) fn dirty(&self) -> usize {
        self.overlay.dirty()
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
            self.overlay.freeze(folded);
            self.unfrozen_bytes = 0;
        }
    }

    /// Writes the next batch of a flush; after the last one the index is durable up to there.
    pub(crate) fn flush_step(&mut self) -> Result<Flush, IndexError> {
        let flush = self.overlay.flush_step()?;
        if flush == Flush::Done {
            self.overlay.checkpoint()?;
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

/// Journal folded after which a flush begins.
pub(crate) const FLUSH_BYTES: u64 = 4 * 1024 * 1024;
