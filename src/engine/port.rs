//! The one place that talks to storage: hands out tickets, keeps who waits for what, and says when the disk is full.
//!
//! Locks are taken in this order, and nobody waits for the disk while holding one: a group, a window of operations, a
//! shard of a cache, the port.

use std::collections::{HashMap, VecDeque};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use super::EngineError;
use super::cache::Loaded;
use super::group::{Durable, Group};
use super::operations::Window;
use super::slot::Slot;
use crate::ids::{GroupId, Principal};
use crate::limits::ENGINE_ROOM_MS;
use crate::store::{Change, Event, Operation, ReadId, Request, Storage, Ticket, change_bytes};

type Outcome<T> = Result<T, EngineError>;
type Waiter<T> = Arc<Slot<Outcome<T>>>;
/// A loaded thing; `None` where there is none.
pub(super) type Found<V> = Option<Arc<Loaded<V>>>;

/// What becomes visible when its ticket is durable.
#[derive(Debug)]
pub(super) struct Effect {
    pub(super) id: GroupId,
    pub(super) group: Arc<Loaded<Group>>,
    pub(super) durable: Durable,
    /// Whether the record is another one than before.
    pub(super) changes_record: bool,
    pub(super) window: Option<(Principal, Arc<Loaded<Window>>)>,
    pub(super) operation: Operation,
}

/// Why a change was not committed.
#[derive(Debug)]
pub(super) enum Uncommitted {
    /// There is no room for so many bytes now.
    NoRoom(u64),
    /// There never will be.
    Gone(EngineError),
}

#[derive(Debug)]
struct Waiting {
    effect: Option<Box<Effect>>,
    waiters: Vec<Waiter<()>>,
}

#[derive(Debug, Default)]
enum Phase {
    #[default]
    Open,
    /// Nothing more is taken, what was taken is finished.
    Closing,
    Closed,
    Failed(String),
}

/// Invariant: element `i` of `waiting` belongs to ticket `durable + 1 + i`; each of `reads`, `groups` and `windows` has
/// a request under way in storage.
#[derive(Debug, Default)]
struct State {
    storage: Option<Storage>,
    phase: Phase,
    ready: bool,
    durable: u64,
    waiting: VecDeque<Waiting>,
    credit_bytes: u64,
    committed_bytes: u64,
    /// The last wait for room was in vain, and no room has come since.
    full: bool,
    starved: Vec<Waiter<()>>,
    read_count: u64,
    reads: HashMap<ReadId, Waiter<Event>>,
    groups: HashMap<GroupId, Vec<Waiter<Found<Group>>>>,
    windows: HashMap<Principal, Vec<Waiter<Found<Window>>>>,
}

/// What is counted since the engine was opened, and what is under way.
#[derive(Clone, Copy, Debug)]
pub(super) struct Gauges {
    pub(super) commits_total: u64,
    pub(super) commits_pending: u64,
    pub(super) credit_bytes: u64,
    pub(super) committed_bytes: u64,
}

/// Storage, and who waits for it.
#[derive(Debug)]
pub(super) struct Port {
    state: Mutex<State>,
    /// Whether the phase is `Open`; for those who need no more of the state.
    open: AtomicBool,
    /// Ready, failed, or nothing under way any more.
    turned: Condvar,
}

impl Port {
    pub(super) fn new(storage: Storage) -> Self {
        let state = State { storage: Some(storage), ..State::default() };
        Self { state: Mutex::new(state), turned: Condvar::new(), open: AtomicBool::new(true) }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    // ---- for callers -------------------------------------------------------------------------------------------

    /// Whether something new may be begun.
    pub(super) fn check_open(&self) -> Outcome<()> {
        if self.open.load(Ordering::Acquire) { Ok(()) } else { self.state().check() }
    }

    /// Waits until everything can be answered.
    pub(super) fn wait_ready(&self) -> Outcome<()> {
        let state = self.turned.wait_while(self.state(), |state| !state.ready && matches!(state.phase, Phase::Open));
        state.unwrap_or_else(PoisonError::into_inner).check()
    }

    /// Commits a change, with what becomes visible when it is durable.
    pub(super) fn commit(&self, change: Change, effect: Option<Box<Effect>>) -> Result<Ticket, Uncommitted> {
        let bytes = change_bytes(&change) as u64;
        let mut state = self.state();
        state.check().map_err(Uncommitted::Gone)?;
        if state.committed_bytes + bytes > state.credit_bytes {
            return Err(Uncommitted::NoRoom(bytes));
        }
        state.committed_bytes += bytes;
        state.waiting.push_back(Waiting { effect, waiters: Vec::with_capacity(1) });
        let ticket = state.last_ticket();
        // Under the lock: storage is to see tickets in their order.
        state.submit(Request::Commit { ticket, change });
        Ok(ticket)
    }

    /// Waits until a ticket is durable, and what came with it is visible.
    pub(super) fn wait(&self, ticket: Ticket) -> Outcome<()> {
        let mut state = self.state();
        let Some(ahead) = ticket.0.checked_sub(state.durable + 1) else { return Ok(()) };
        state.check_alive()?;
        let waiting = usize::try_from(ahead).ok().and_then(|at| state.waiting.get_mut(at));
        let waiter = Slot::new();
        waiting.expect("a ticket that was given is durable or waits").waiters.push(waiter.clone());
        drop(state);
        waiter.wait()
    }

    /// Waits until everything that was committed before is visible. The index may tell of a change a moment before
    /// storage reports it: whoever has looked there waits, so that nobody learns of it from one call and misses it in
    /// the next.
    pub(super) fn settle(&self) -> Outcome<()> {
        let ticket = self.state().last_ticket();
        self.wait(ticket)
    }

    /// Waits until there is room for a change, at most [`ENGINE_ROOM_MS`]: the next segment may be in the making. On a
    /// disk that was found full nobody waits, until there is room again.
    pub(super) fn wait_for_room(&self, bytes: u64) -> Outcome<()> {
        let deadline = Instant::now() + Duration::from_millis(ENGINE_ROOM_MS);
        loop {
            let mut state = self.state();
            state.check()?;
            if state.committed_bytes + bytes <= state.credit_bytes {
                return Ok(());
            }
            if state.full {
                return Err(EngineError::Full);
            }
            let waiter = Slot::new();
            state.starved.push(waiter.clone());
            drop(state);
            if let Some(outcome) = waiter.wait_until(deadline) {
                outcome?;
                continue;
            }
            let mut state = self.state();
            state.starved.retain(|other| !Arc::ptr_eq(other, &waiter));
            state.full = state.committed_bytes + bytes > state.credit_bytes;
        }
    }

    /// Asks storage something, and waits for the answer.
    pub(super) fn ask(&self, request: impl FnOnce(ReadId) -> Request) -> Outcome<Event> {
        let mut state = self.state();
        state.check()?;
        state.read_count += 1;
        let read = ReadId(state.read_count);
        let waiter = Slot::new();
        state.reads.insert(read, waiter.clone());
        state.submit(request(read));
        drop(state);
        waiter.wait()
    }

    /// Has a group loaded, once for all who ask. Called with its shard locked, and waited for without.
    pub(super) fn load_group(&self, group: GroupId) -> Outcome<Waiter<Found<Group>>> {
        let mut state = self.state();
        state.check()?;
        let waiter = Slot::new();
        let waiters = state.groups.entry(group).or_default();
        waiters.push(waiter.clone());
        if waiters.len() == 1 {
            state.submit(Request::LoadGroup { group });
        }
        Ok(waiter)
    }

    /// The same for the operations of a principal.
    pub(super) fn load_window(&self, principal: &Principal) -> Outcome<Waiter<Found<Window>>> {
        let mut state = self.state();
        state.check()?;
        let waiter = Slot::new();
        let waiters = state.windows.entry(principal.clone()).or_default();
        waiters.push(waiter.clone());
        if waiters.len() == 1 {
            state.submit(Request::LoadOperations { principal: principal.clone() });
        }
        Ok(waiter)
    }

    pub(super) fn gauges(&self) -> Gauges {
        let state = self.state();
        Gauges {
            commits_total: state.last_ticket().0,
            commits_pending: state.waiting.len() as u64,
            credit_bytes: state.credit_bytes.saturating_sub(state.committed_bytes),
            committed_bytes: state.committed_bytes,
        }
    }

    /// Takes nothing more, waits for what is under way, and gives storage back to be stopped. Once.
    pub(super) fn close(&self) -> Outcome<Option<Storage>> {
        let mut state = self.state();
        self.open.store(false, Ordering::Release);
        match state.phase {
            Phase::Open => state.phase = Phase::Closing,
            Phase::Closing | Phase::Closed => return Err(EngineError::Closed),
            Phase::Failed(_) => return Ok(state.storage.take()),
        }
        let state = self.turned.wait_while(state, |state| state.is_busy());
        let mut state = state.unwrap_or_else(PoisonError::into_inner);
        if matches!(state.phase, Phase::Closing) {
            state.phase = Phase::Closed;
        }
        for waiter in state.starved.drain(..) {
            waiter.fill(Err(EngineError::Closed));
        }
        Ok(state.storage.take())
    }

    // ---- for the dispatcher ------------------------------------------------------------------------------------

    pub(super) fn poll_event(&self) -> Option<Event> {
        self.state().storage.as_ref()?.poll_event()
    }

    /// What becomes visible with the tickets up to this one. They count as durable once [`Port::finish`] says so.
    pub(super) fn take_effects(&self, ticket: Ticket) -> Vec<Effect> {
        let mut state = self.state();
        let count = state.count_through(ticket);
        state.waiting.iter_mut().take(count).filter_map(|waiting| waiting.effect.take()).map(|effect| *effect).collect()
    }

    /// Everything up to a ticket is visible: whoever waits for it goes on.
    pub(super) fn finish(&self, ticket: Ticket) {
        let mut state = self.state();
        let count = state.count_through(ticket);
        let finished: Vec<Waiting> = state.waiting.drain(..count).collect();
        state.durable += count as u64;
        self.turn(&state);
        drop(state);
        for waiter in finished.into_iter().flat_map(|waiting| waiting.waiters) {
            waiter.fill(Ok(()));
        }
    }

    pub(super) fn grant(&self, bytes_total: u64) {
        let mut state = self.state();
        state.credit_bytes = state.credit_bytes.max(bytes_total);
        state.full = false;
        for waiter in state.starved.drain(..) {
            waiter.fill(Ok(()));
        }
    }

    pub(super) fn make_ready(&self) {
        let mut state = self.state();
        state.ready = true;
        self.turned.notify_all();
    }

    pub(super) fn answer(&self, read: ReadId, event: Event) {
        let mut state = self.state();
        let waiter = state.reads.remove(&read);
        self.turn(&state);
        drop(state);
        if let Some(waiter) = waiter {
            waiter.fill(Ok(event));
        }
    }

    /// Called with the group's shard locked.
    pub(super) fn finish_group(&self, group: GroupId, found: &Outcome<Found<Group>>) {
        let mut state = self.state();
        let waiters = state.groups.remove(&group).unwrap_or_default();
        self.turn(&state);
        drop(state);
        for waiter in waiters {
            waiter.fill(found.clone());
        }
    }

    /// Called with the principal's shard locked.
    pub(super) fn finish_window(&self, principal: &Principal, window: &Arc<Loaded<Window>>) {
        let mut state = self.state();
        let waiters = state.windows.remove(principal).unwrap_or_default();
        self.turn(&state);
        drop(state);
        for waiter in waiters {
            waiter.fill(Ok(Some(window.clone())));
        }
    }

    /// Storage is gone: whoever waits is told, and whoever comes.
    pub(super) fn fail(&self, message: &str) {
        let mut state = self.state();
        if matches!(state.phase, Phase::Closed | Phase::Failed(_)) {
            return;
        }
        state.phase = Phase::Failed(message.to_owned());
        self.open.store(false, Ordering::Release);
        let error = EngineError::Failed { message: message.to_owned() };
        let waiting = std::mem::take(&mut state.waiting).into_iter().flat_map(|waiting| waiting.waiters);
        let starved = std::mem::take(&mut state.starved);
        waiting.chain(starved).for_each(|waiter| waiter.fill(Err(error.clone())));
        state.reads.drain().for_each(|(_, waiter)| waiter.fill(Err(error.clone())));
        state.groups.drain().flat_map(|(_, waiters)| waiters).for_each(|waiter| waiter.fill(Err(error.clone())));
        state.windows.drain().flat_map(|(_, waiters)| waiters).for_each(|waiter| waiter.fill(Err(error.clone())));
        self.turned.notify_all();
    }

    fn turn(&self, state: &State) {
        if matches!(state.phase, Phase::Closing) && !state.is_busy() {
            self.turned.notify_all();
        }
    }
}

impl State {
    /// Whether something new may be begun.
    fn check(&self) -> Outcome<()> {
        match &self.phase {
            Phase::Open => Ok(()),
            Phase::Closing | Phase::Closed => Err(EngineError::Closed),
            Phase::Failed(message) => Err(EngineError::Failed { message: message.clone() }),
        }
    }

    /// Whether what was begun may still be waited for.
    fn check_alive(&self) -> Outcome<()> {
        if matches!(self.phase, Phase::Closing) { Ok(()) } else { self.check() }
    }

    fn last_ticket(&self) -> Ticket {
        Ticket(self.durable + self.waiting.len() as u64)
    }

    fn count_through(&self, ticket: Ticket) -> usize {
        let count = ticket.0.saturating_sub(self.durable);
        usize::try_from(count).unwrap_or(usize::MAX).min(self.waiting.len())
    }

    fn is_busy(&self) -> bool {
        let reads = self.reads.is_empty() && self.groups.is_empty() && self.windows.is_empty();
        !self.waiting.is_empty() || !reads
    }

    fn submit(&self, request: Request) {
        if let Some(storage) = &self.storage {
            storage.submit(request);
        }
    }
}
