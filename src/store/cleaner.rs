//! When the oldest segment is cleaned, and in which steps: a state machine without threads.
//!
//! ```text
//! Idle ─▶ Walking ─▶ Waiting ─▶ Settling ─▶ Releasing ─▶ Idle
//!            ▲          │
//!            └──────────┘  for each slice; again from its beginning if a part of it was refused
//! ```
//!
//! * **Walking**: the next packets of the segment are looked at (`indexer/plan.rs`).
//! * **Waiting**: what they are carried as is written and synced by whoever owns the journal, and folded.
//! * **Settling**: the index becomes durable up to there, so that no replay needs the segment.
//! * **Releasing**: the head says durably that the log begins behind the segment; its file is removed.
//!
//! Nothing is lost whichever step is the last one: before the head says so, the segment is still there and what was
//! carried is said twice; afterwards nobody needs it, and the next start removes the file.

use std::collections::VecDeque;

use super::carried::{Carrying, Slice};
use super::disk::Disk;
use super::indexer::{FoldError, Indexer, Pace, Plan};
use super::journal::{Placed, Position, Sealed};
use super::retention::Retention;

/// Segments' worth of changes that may have gone by without cleaning and count for it later.
const ALLOWANCE_SEGMENTS: u64 = 8;

/// Packets that are looked at for each one that was folded meanwhile. A segment costs a few turns that look at nothing,
/// so this has to be well above one.
const WALKED_PER_FOLDED: usize = 8;
/// Segments over twice what lives, from which on cleaning is behind.
const BEHIND_SEGMENTS: u64 = 3;
/// Journal that may be folded for each batch that the index is flushed by while a segment waits for its checkpoint.
const FOLDED_PER_FLUSH_BYTES: u64 = 128 * 1024;
/// At most so many of them in one step: look-ups wait meanwhile.
const FLUSHES_PER_STEP: u64 = 4;

/// What is to be done next.
#[derive(Debug)]
pub(crate) enum Action {
    /// Write this, and say what came of it with [`Cleaner::handle_carried`].
    Carry(Slice),
    /// Make the log begin with this segment, remove those before it, and say so with [`Cleaner::handle_released`].
    Release { first: u32 },
}

#[derive(Debug)]
enum Phase {
    Idle,
    Walking(Plan),
    /// A slice is being written; where it began, and where the next one begins.
    Waiting {
        again: Plan,
        next: Plan,
    },
    /// The index has to be durable up to an LSN.
    Settling {
        segment: u32,
        lsn: u64,
    },
    Releasing {
        first: u32,
    },
    /// The oldest segment cannot be read: it stays, and so do all others.
    Stopped,
}

/// Whether there is space for the next segment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Space {
    Enough,
    Short,
}

/// The segments, and how far cleaning is.
#[derive(Debug)]
pub(crate) struct Cleaner {
    retention: Retention,
    segment_bytes: u64,
    /// Ended segments, oldest first; the first of them is the beginning of the log.
    sealed: VecDeque<Sealed>,
    /// The end of the newest segment, as far as it is folded.
    end: Position,
    phase: Phase,
    space: Space,
    /// Bytes that may be carried for the sake of the ratio alone: as many as others have written.
    allowance_bytes: u64,
    /// Packets of changes, and their bytes, that were folded since the last step.
    folded_packets: usize,
    folded_bytes: u64,
    /// Bytes of changes that were folded since the last slice was handed out.
    unpaid_bytes: u64,
    cleaned_segments: u64,
    carried_bytes: u64,
}

impl Cleaner {
    /// Of a journal with these ended segments that ends at `end`.
    pub(crate) fn new(retention: Retention, segment_bytes: u64, sealed: Vec<Sealed>, end: Position) -> Self {
        Self {
            retention,
            segment_bytes,
            sealed: sealed.into(),
            end,
            phase: Phase::Idle,
            space: Space::Enough,
            allowance_bytes: segment_bytes,
            folded_packets: 0,
            folded_bytes: 0,
            unpaid_bytes: 0,
            cleaned_segments: 0,
            carried_bytes: 0,
        }
    }

    /// The segment with which the log begins: a replay starts there.
    pub(crate) fn first(&self) -> u32 {
        match self.phase {
            Phase::Releasing { first } => first,
            _ => self.sealed.front().map_or(self.end.segment, |sealed| sealed.number),
        }
    }

    /// Takes note of a change that was written and folded.
    pub(crate) fn note_change(&mut self, placed: Placed, running_ms: u64) {
        self.note(placed, running_ms);
        self.folded_packets += 1;
        self.folded_bytes += u64::from(placed.bytes);
        self.unpaid_bytes += u64::from(placed.bytes);
        let most = ALLOWANCE_SEGMENTS * self.segment_bytes;
        self.allowance_bytes = (self.allowance_bytes + u64::from(placed.bytes)).min(most);
    }

    /// Takes note of a carried packet that was written and folded.
    pub(crate) fn note_carried(&mut self, placed: Placed, running_ms: u64) {
        self.note(placed, running_ms);
        self.allowance_bytes = self.allowance_bytes.saturating_sub(u64::from(placed.bytes));
        self.carried_bytes += u64::from(placed.bytes);
    }

    fn note(&mut self, placed: Placed, running_ms: u64) {
        if placed.position.segment > self.end.segment {
            let Position { segment: number, offset: end } = self.end;
            self.sealed.push_back(Sealed { number, end, ended_ms: running_ms });
        }
        self.end = placed.end();
    }

    /// Whether there is space for the next segment.
    pub(crate) fn handle_space(&mut self, space: Space) {
        self.space = space;
    }

    /// A slice was written, synced and folded, as far as it was still true, up to an LSN.
    pub(crate) fn handle_carried(&mut self, outcome: Carrying, lsn: u64) {
        self.phase = match (std::mem::replace(&mut self.phase, Phase::Idle), outcome) {
            (Phase::Waiting { again, .. }, Carrying::Refused) => {
                // A small one is overtaken less easily.
                self.unpaid_bytes = 0;
                Phase::Walking(again)
            }
            (Phase::Waiting { next, .. }, Carrying::Done) if next.is_done() => {
                Phase::Settling { segment: next.segment(), lsn }
            }
            (Phase::Waiting { next, .. }, Carrying::Done) => Phase::Walking(next),
            (phase, _) => phase,
        };
    }

    /// The segments before a first one are gone.
    pub(crate) fn handle_released(&mut self, first: u32) {
        while self.sealed.front().is_some_and(|sealed| sealed.number < first) {
            self.sealed.pop_front();
            self.cleaned_segments += 1;
        }
        self.phase = Phase::Idle;
    }

    /// Whether [`Cleaner::poll`] has something to do without anything else happening.
    pub(crate) fn is_busy<D: Disk>(&self, indexer: &Indexer<D>, now_ms: u64) -> bool {
        match self.phase {
            Phase::Idle => self.wants_cleaning(indexer, now_ms),
            Phase::Walking(_) | Phase::Settling { .. } => true,
            Phase::Waiting { .. } | Phase::Releasing { .. } | Phase::Stopped => false,
        }
    }

    /// Whether a release is under way, which a hold may keep waiting.
    pub(crate) fn is_releasing(&self) -> bool {
        matches!(self.phase, Phase::Releasing { .. })
    }

    /// Whether more is written than cleaning gets rid of: then the index must not be far behind, because each slice
    /// comes back through its queue.
    pub(crate) fn is_behind<D: Disk>(&self, indexer: &Indexer<D>) -> bool {
        let wanted_bytes = indexer.live_bytes().saturating_mul(2) + BEHIND_SEGMENTS * self.segment_bytes;
        !matches!(self.phase, Phase::Stopped) && self.journal_bytes() > wanted_bytes
    }

    /// How much the next step may look at and carry: as much as keeps up with what was folded since the last one.
    fn pace(&mut self) -> (Pace, u64) {
        let walked = std::mem::take(&mut self.folded_packets).saturating_mul(WALKED_PER_FOLDED);
        let carried_bytes = self.unpaid_bytes.min(self.segment_bytes / 16);
        let pace = Pace { packets: walked, carried_bytes: usize::try_from(carried_bytes).unwrap_or(usize::MAX) };
        let flushes = std::mem::take(&mut self.folded_bytes) / FOLDED_PER_FLUSH_BYTES;
        (pace, flushes.min(FLUSHES_PER_STEP))
    }

    /// Goes on by one step, bounded by what was folded since the last one.
    pub(crate) fn poll<D: Disk>(&mut self, indexer: &mut Indexer<D>, now_ms: u64) -> Result<Option<Action>, FoldError> {
        // What is folded while a slice or a release waits counts for the step after it.
        let is_waiting = matches!(self.phase, Phase::Waiting { .. } | Phase::Releasing { .. });
        let begins = matches!(self.phase, Phase::Idle) && self.wants_cleaning(indexer, now_ms);
        let (pace, flushes) = if is_waiting || begins { Default::default() } else { self.pace() };
        match &mut self.phase {
            Phase::Idle => {
                self.unpaid_bytes = 0;
                if begins && let Some(oldest) = self.sealed.front().copied() {
                    tracing::debug!(segment = oldest.number, live_bytes = indexer.live_bytes(), "cleaning begins");
                    let begun = indexer.begin_plan(oldest.number, oldest.end);
                    self.phase = begun.map_or_else(|error| stopped(&error), Phase::Walking);
                }
                Ok(None)
            }
            Phase::Walking(plan) => {
                let again = plan.place();
                let slice = match indexer.plan_slice(plan, now_ms, pace) {
                    Ok(slice) => slice,
                    Err(FoldError::Index(error)) => {
                        // Another index will do it; from where this slice began.
                        *plan = again;
                        return Err(FoldError::Index(error));
                    }
                    Err(error @ FoldError::Journal(_)) => {
                        self.phase = stopped(&error);
                        return Ok(None);
                    }
                };
                if slice.carried.is_empty() {
                    return Ok(None);
                }
                let next = plan.clone();
                self.unpaid_bytes = 0;
                self.phase = Phase::Waiting { again, next };
                Ok(Some(Action::Carry(slice)))
            }
            Phase::Settling { segment, lsn } => {
                for _ in 0..=flushes {
                    if indexer.checkpointed_lsn() < *lsn {
                        indexer.begin_flush();
                        indexer.flush_step()?;
                    }
                }
                if indexer.checkpointed_lsn() < *lsn {
                    return Ok(None);
                }
                let first = *segment + 1;
                indexer.forget_before(first);
                self.phase = Phase::Releasing { first };
                Ok(Some(Action::Release { first }))
            }
            Phase::Waiting { .. } | Phase::Releasing { .. } | Phase::Stopped => Ok(None),
        }
    }

    /// Cleaning the oldest segment is worth it when half of the journal is dead, so that a byte is carried about once
    /// for each byte that is written; it is due when everything in the segment is too old; and when space is short it is
    /// tried while there is something to be gained.
    fn wants_cleaning<D: Disk>(&self, indexer: &Indexer<D>, now_ms: u64) -> bool {
        let Some(oldest) = self.sealed.front() else { return false };
        let (all_bytes, live_bytes) = (self.journal_bytes(), indexer.live_bytes());
        let is_worth_it = live_bytes.saturating_mul(2) <= all_bytes && self.allowance_bytes > 0;
        let is_due = self.retention.is_expired(oldest.ended_ms, now_ms);
        let is_short = self.space == Space::Short && live_bytes.saturating_mul(8) <= all_bytes.saturating_mul(7);
        is_worth_it || is_due || is_short
    }

    /// Bytes of all segments up to their ends.
    pub(crate) fn journal_bytes(&self) -> u64 {
        self.sealed.iter().map(|sealed| u64::from(sealed.end)).sum::<u64>() + u64::from(self.end.offset)
    }

    /// Counters and gauges, by name with unit.
    pub(crate) fn stats(&self) -> [(&'static str, u64); 5] {
        [
            ("journal_bytes", self.journal_bytes()),
            ("journal_segment_count", self.sealed.len() as u64 + 1),
            ("journal_first_segment_number", u64::from(self.first())),
            ("journal_cleaned_segment_count", self.cleaned_segments),
            ("journal_carried_bytes", self.carried_bytes),
        ]
    }
}

fn stopped(error: &FoldError) -> Phase {
    tracing::error!("cleaning stops, and the journal will only grow: {error:?}; run verify and repair");
    Phase::Stopped
}
