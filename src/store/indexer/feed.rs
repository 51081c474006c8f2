//! The feed: what was journalled behind a place, in the order of LSNs, read from the journal itself.
//!
//! A page reads a bounded stretch, whatever it finds there, so that look-ups behind it do not wait long. What cleaning
//! has carried forward is no news and is passed over.

use super::Indexer;
use crate::store::disk::{Disk, DiskErrorKind};
use crate::store::journal::reader::Stretch;
use crate::store::journal::{Content, Position, ReadError};
use crate::store::{FeedError, FeedItem, FeedPage, FeedPlace};

/// Journal that one page reads at most.
const STRETCH_BYTES: u32 = 1024 * 1024;

/// The place of a journal without an effect. Whoever asks for 0 asks for what comes from now on, so it must not be 0,
/// or a feed that is begun before anything was written could not go on; the first packet is always a watermark.
const NOTHING_YET: u64 = 1;

impl<D: Disk> Indexer<D> {
    /// A page of what stands behind a place; without one, nothing, and where the end is.
    pub(crate) fn read_feed(&mut self, after: Option<FeedPlace>, items_max: usize) -> Result<FeedPage, FeedError> {
        let Some(folded) = self.folded else { return Ok(empty(NOTHING_YET, None)) };
        let Some(after) = after else { return Ok(empty(folded.lsn, Some(folded.end))) };
        if after.lsn > folded.lsn {
            return Err(FeedError::Beyond { last: folded.lsn });
        }
        if after.lsn == folded.lsn {
            return Ok(empty(folded.lsn, Some(folded.end)));
        }
        let stretch = self.stretch_behind(after, folded.end)?;
        let mut page = FeedPage { items: Vec::new(), through: after, at_end: false };
        for packet in stretch.packets {
            if page.items.len() >= items_max {
                return Ok(page);
            }
            let lsn = packet.placed.lsn;
            page.through = FeedPlace { lsn: lsn.max(after.lsn), at: Some(packet.placed.end()) };
            if let Content::Effect(effect) = packet.content
                && lsn > after.lsn
            {
                let (seq, sender) = (effect.entry.seq, effect.entry.sender.clone());
                page.items.push(FeedItem { lsn, group: effect.group, seq, sender });
            }
        }
        page.through.at = Some(stretch.next);
        page.at_end = stretch.next >= folded.end;
        if page.at_end {
            page.through.lsn = folded.lsn;
        }
        Ok(page)
    }

    /// What is to be read behind a place.
    fn stretch_behind(&mut self, after: FeedPlace, end: Position) -> Result<Stretch, FeedError> {
        if let Some(at) = after.at {
            match self.reader.stretch(at, end, STRETCH_BYTES) {
                // Its segment was cleaned meanwhile. What follows may stand in the next one all the same.
                Err(ReadError::Disk(error)) if error.kind == DiskErrorKind::NotFound => {}
                read => return read.map_err(|error| unreadable(&error)),
            }
        }
        let from = self.segment_of(after.lsn + 1, end)?;
        self.reader.stretch(from, end, STRETCH_BYTES).map_err(|error| unreadable(&error))
    }

    /// The beginning of the segment that holds an LSN.
    fn segment_of(&mut self, lsn: u64, end: Position) -> Result<Position, FeedError> {
        for segment in (1..=end.segment).rev() {
            match self.reader.first_lsn(segment) {
                Ok(Some(first)) if first <= lsn => return Ok(Position { segment, offset: 0 }),
                Ok(Some(_)) => {}
                Ok(None) => break,
                Err(error) => return Err(unreadable(&error)),
            }
        }
        Err(FeedError::Truncated { first: self.first_place(end) })
    }

    /// The lowest place that can be asked for.
    fn first_place(&mut self, end: Position) -> u64 {
        let firsts = (1..=end.segment).rev().map_while(|segment| self.reader.first_lsn(segment).ok().flatten());
        firsts.last().map_or(0, |first| first.saturating_sub(1))
    }
}

fn unreadable(error: &ReadError) -> FeedError {
    tracing::error!("{error}");
    FeedError::Damaged
}

fn empty(lsn: u64, at: Option<Position>) -> FeedPage {
    FeedPage { items: Vec::new(), through: FeedPlace { lsn, at }, at_end: true }
}
