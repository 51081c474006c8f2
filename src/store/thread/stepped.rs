//! Storage without threads: the machines that the threads run, each taking a step when somebody says so.
//!
//! For the simulator. Nothing is decided here: what a batch is, when room is granted, what is folded, flushed, cleaned
//! and reported stands where the threads have it. Waiting is all that is left out, and time comes from whoever steps.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use super::{Clock, Machines, Parts, Source, Storage, index, journal, spare};
use crate::store::disk::Disk;
use crate::store::{Event, OpenError, Request};

/// The time since a start, and the wall clock, as somebody sets them.
#[derive(Debug, Default)]
pub(crate) struct SteppedClock {
    since_ms: AtomicU64,
    wall_ms: AtomicU64,
}

impl SteppedClock {
    /// Sets both.
    pub(crate) fn set(&self, since_ms: u64, wall_ms: u64) {
        self.since_ms.store(since_ms, Ordering::Relaxed);
        self.wall_ms.store(wall_ms, Ordering::Relaxed);
    }

    pub(super) fn since_ms(&self) -> u64 {
        self.since_ms.load(Ordering::Relaxed)
    }

    pub(super) fn wall_ms(&self) -> u64 {
        self.wall_ms.load(Ordering::Relaxed)
    }
}

/// Open storage whose machines take a step when they are told to.
pub(crate) struct Stepped<D: Disk> {
    machines: Machines<D>,
    storage: Storage,
    index_begun: bool,
    debt: spare::Debt,
}

impl<D: Disk> Parts<D> {
    /// Opens everything, and starts nothing.
    pub(crate) fn start_stepped(mut self, clock: Arc<SteppedClock>) -> Result<Stepped<D>, OpenError> {
        let (format, opened, start) = self.open()?;
        let clock = Clock::over(Source::Stepped(clock), opened.last);
        let (machines, storage) = self.assemble(format, opened, start, Arc::new(|| {}), clock);
        Ok(Stepped { machines, storage, index_begun: false, debt: spare::Debt::default() })
    }
}

impl<D: Disk> Stepped<D> {
    /// Asks for several things.
    pub(crate) fn submit_all(&self, requests: impl IntoIterator<Item = Request>) {
        self.storage.submit_all(requests);
    }

    /// The next event, if there is one.
    pub(crate) fn poll_event(&self) -> Option<Event> {
        self.storage.poll_event()
    }

    /// The journal takes what is queued, writes it, syncs and reports; nothing while the index is too far behind.
    /// An error is the end of this storage.
    pub(crate) fn step_journal(&mut self) -> Result<(), String> {
        if !self.machines.backlog.has_room() {
            return Ok(());
        }
        let stepped = self.machines.journal.step(&self.machines.commit_queue);
        stepped.map(|_| ()).map_err(|error| error.to_string())
    }

    /// The index takes one message, or goes on with flushing or cleaning.
    pub(crate) fn step_index(&mut self) -> Result<(), String> {
        self.machines.index.step(&self.machines.look_up_queue, &mut self.index_begun).map(|_| ())
    }

    /// The index takes steps until it has everything of the runs before.
    pub(crate) fn catch_up(&mut self) -> Result<(), String> {
        while !self.machines.index.has_caught_up() {
            self.step_index()?;
        }
        Ok(())
    }

    /// The spare machine makes or removes a segment.
    pub(crate) fn step_spare(&mut self) -> bool {
        self.machines.spare.step(&mut self.debt)
    }

    /// Whether no machine has anything under way, beside what may be in its queue.
    pub(crate) fn is_idle(&self) -> bool {
        self.machines.journal.is_idle() && self.machines.index.is_idle()
    }

    /// The answer that the index gives now, past its queue; nothing for what is no look-up, and on failure.
    pub(crate) fn ask(&mut self, request: &Request) -> Option<Event> {
        self.machines.index.answer(request).ok().flatten()
    }

    /// How often the index was made anew in this run.
    pub(crate) fn renewals(&self) -> u32 {
        self.machines.index.renewals()
    }

    /// A clean stop: everything is finished, marked and flushed.
    pub(crate) fn stop(mut self) -> Result<(), String> {
        // What is queued comes first, so the stop is met behind it.
        let _ = self.storage.commits.send(journal::Message::Stop);
        loop {
            let Machines { journal, commit_queue, index, look_up_queue, backlog, .. } = &mut self.machines;
            if backlog.has_room() && journal.step(commit_queue).map_err(|error| error.to_string())? {
                break;
            }
            index.step(look_up_queue, &mut self.index_begun)?;
        }
        let _ = self.storage.look_ups.send(index::Message::Stop);
        while !self.machines.index.step(&self.machines.look_up_queue, &mut self.index_begun)? {}
        Ok(())
    }
}
