//! The loop itself.

use std::collections::VecDeque;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use mio::event::Event;
use mio::{Events, Poll};

use super::listener::{Listener, RETRY_MS};
use super::peer::{Moved, Peer};
use super::signals::Signals;
use super::standstill::{Standstill, Told};
use super::{FIRST_PEER, LISTENER, SIGNALS, WAKER};
use crate::hub::{ConnectionKey, Hub, Now};
use crate::limits::{
    ACCEPTS_PER_TURN, CONNECTIONS_MAX, DESCRIPTORS_RESERVED, DRAIN_MS, READ_BYTES_PER_TURN, STOP_MS, WRITES_PER_TURN,
};
use crate::store::{Event as StoreEvent, Storage};

/// Events that one poll tells of; the others come with the next one.
const EVENTS_PER_TURN: usize = 1024;

/// Both clocks. Only here is either read on behalf of the hub.
pub(super) struct Clock {
    started: Instant,
}

impl Clock {
    pub(super) fn start() -> Self {
        Self { started: Instant::now() }
    }

    pub(super) fn now(&self) -> Now {
        let since_1970 = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        Now { monotonic_ms: millis(self.started.elapsed()), wall_ms: millis(since_1970) }
    }
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

/// Everything that the loop thread owns.
pub(super) struct Loop {
    poll: Poll,
    listener: Option<Listener>,
    signals: Signals,
    hub: Hub,
    storage: Storage,
    clock: Clock,
    /// By the hub's slots.
    peers: Vec<Option<Peer>>,
    peer_count: usize,
    peers_max: usize,
    /// Connections with bytes to read, each once.
    ready: VecDeque<ConnectionKey>,
    scratch: Vec<u8>,
    standstill: Standstill,
    asked_to_stop: Arc<AtomicBool>,
    /// While stopping: when it ends at the latest.
    drain_until_ms: Option<u64>,
    failure: Option<String>,
}

impl Loop {
    pub(super) fn new(
        poll: Poll,
        mut listener: Listener,
        hub: Hub,
        storage: Storage,
        clock: Clock,
        descriptors: usize,
        asked_to_stop: Arc<AtomicBool>,
    ) -> io::Result<Self> {
        listener.register(poll.registry())?;
        let signals = Signals::register(poll.registry())?;
        Ok(Self {
            poll,
            listener: Some(listener),
            signals,
            hub,
            storage,
            clock,
            peers: Vec::with_capacity(CONNECTIONS_MAX),
            peer_count: 0,
            peers_max: descriptors.saturating_sub(DESCRIPTORS_RESERVED),
            ready: VecDeque::new(),
            scratch: vec![0; READ_BYTES_PER_TURN],
            standstill: Standstill::default(),
            asked_to_stop,
            drain_until_ms: None,
            failure: None,
        })
    }

    pub(super) fn run(mut self) -> Result<(), String> {
        let mut events = Events::with_capacity(EVENTS_PER_TURN);
        while !self.is_over() {
            let timeout = self.timeout();
            self.standstill.wait(timeout.map(millis));
            let told = match self.poll.poll(&mut events, timeout) {
                Ok(()) if events.iter().count() < EVENTS_PER_TURN => Told::All,
                Ok(()) => Told::Some,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => Told::Nothing,
                Err(error) => return Err(format!("poll: {error}")),
            };
            self.turn(&events, told);
        }
        for peer in self.peers.drain(..).flatten() {
            peer.close(self.poll.registry(), &mut self.scratch);
        }
        tracing::info!("closing the data directory");
        if let Some(message) = self.failure {
            return Err(message);
        }
        let until_ms = self.drain_until_ms.unwrap_or(0) + STOP_MS - DRAIN_MS;
        let left_ms = until_ms.saturating_sub(self.clock.now().monotonic_ms);
        self.storage.stop_within(Duration::from_millis(left_ms))
    }

    fn is_over(&self) -> bool {
        let drained = || self.hub.is_drained();
        let late = |until_ms| self.clock.now().monotonic_ms >= until_ms;
        self.failure.is_some() || self.drain_until_ms.is_some_and(|until_ms| drained() || late(until_ms))
    }

    /// How long there is nothing to do unless something happens.
    fn timeout(&self) -> Option<Duration> {
        let accepts = self.listener.as_ref().is_some_and(Listener::is_ready);
        if !self.ready.is_empty() || accepts || self.hub.has_work() || self.standstill.is_catching_up() {
            return Some(Duration::ZERO);
        }
        let now_ms = self.clock.now().monotonic_ms;
        let starved = self.listener.as_ref().is_some_and(Listener::is_pending).then_some(now_ms + RETRY_MS);
        let first = [self.hub.next_deadline_ms(), self.drain_until_ms, starved].into_iter().flatten().min()?;
        Some(Duration::from_millis(first.saturating_sub(now_ms)))
    }

    fn turn(&mut self, events: &Events, told: Told) {
        events.iter().for_each(|event| self.note(event));
        if self.asked_to_stop.swap(false, Ordering::AcqRel) {
            self.stop();
        }
        let now = self.clock.now();
        while let Some(event) = self.storage.poll_event() {
            if let StoreEvent::Failed { message } = &event {
                tracing::error!("storage failed, nothing more is acknowledged: {message}");
                self.failure = Some(message.clone());
                return;
            }
            self.hub.handle_storage(event, now);
        }
        self.accept(now);
        self.read_ready(now);
        self.resume(now);
        let (polls, turns) = (self.peer_count / EVENTS_PER_TURN + 2, self.peer_count / WRITES_PER_TURN + 1);
        if self.standstill.may_judge(now.monotonic_ms, told, polls, turns) {
            self.hub.handle_time(now);
        }
        self.submit();
        self.write_dirty(now);
        self.close_finished(now);
        self.submit();
        while let Some(audit) = self.hub.poll_audit() {
            tracing::info!(target: "roundtable::audit", "{audit}");
        }
    }

    fn note(&mut self, event: &Event) {
        match event.token() {
            LISTENER => self.listener.iter_mut().for_each(Listener::set_ready),
            WAKER => {}
            SIGNALS => {
                if self.signals.take() {
                    self.stop();
                }
            }
            token => {
                let Some(peer) = self.peers.get_mut(token.0 - FIRST_PEER).and_then(Option::as_mut) else { return };
                if event.is_writable() || event.is_error() {
                    peer.writable = true;
                    self.hub.handle_writable(peer.key);
                }
                if event.is_readable() || event.is_read_closed() || event.is_error() {
                    peer.readable = true;
                    peer.read_closed |= event.is_read_closed() || event.is_error();
                    let key = peer.key;
                    self.queue_read(key);
                }
            }
        }
    }

    /// Stops accepting and begins to drain; asked once more, it does not wait any longer.
    fn stop(&mut self) {
        let now = self.clock.now();
        if self.drain_until_ms.is_some() {
            self.drain_until_ms = Some(now.monotonic_ms);
            return;
        }
        tracing::info!("stopping: finishing what was begun");
        self.listener = None;
        self.drain_until_ms = Some(now.monotonic_ms + DRAIN_MS);
        self.hub.handle_stop(DRAIN_MS, now);
    }

    // ---- accepting ---------------------------------------------------------------------------------------------

    fn accept(&mut self, now: Now) {
        let Some(listener) = &mut self.listener else { return };
        // A descriptor may be free again without a connection of ours having closed.
        listener.descriptor_freed();
        for _ in 0..ACCEPTS_PER_TURN {
            if !listener.is_ready() {
                return;
            }
            if self.peer_count >= self.peers_max {
                return listener.starve();
            }
            let Some(socket) = listener.accept() else { return };
            let key = self.hub.handle_accepted(now);
            match Peer::new(key, socket, self.poll.registry()) {
                Ok(peer) => {
                    if self.peers.len() <= key.slot() {
                        self.peers.resize_with(key.slot() + 1, || None);
                    }
                    self.peers[key.slot()] = Some(peer);
                    self.peer_count += 1;
                }
                Err(error) => {
                    tracing::warn!("a connection was dropped: {error}");
                    self.hub.handle_closed(key, now);
                }
            }
        }
    }

    // ---- reading -----------------------------------------------------------------------------------------------

    /// Puts a connection into the queue of those to be read, if it has something and the hub wants it.
    fn queue_read(&mut self, key: ConnectionKey) {
        let wanted = self.hub.wants_bytes(key);
        if let Some(peer) = self.peer(key)
            && wanted
            && peer.readable
            && !peer.queued
        {
            peer.queued = true;
            self.ready.push_back(key);
        }
    }

    /// Reads each ready connection once.
    fn read_ready(&mut self, now: Now) {
        for _ in 0..self.ready.len() {
            let Some(key) = self.ready.pop_front() else { return };
            let mut scratch = std::mem::take(&mut self.scratch);
            if let Some(peer) = self.peer(key) {
                peer.queued = false;
                match peer.read(&mut scratch) {
                    Moved::Bytes(count) => self.hub.handle_bytes(key, &scratch[..count], now),
                    Moved::Blocked => {}
                    Moved::Closed => self.drop_peer(key, now),
                }
            }
            self.scratch = scratch;
            self.queue_read(key);
        }
    }

    fn resume(&mut self, now: Now) {
        while let Some(key) = self.hub.poll_resumed() {
            self.hub.handle_resumed(key, now);
            self.queue_read(key);
        }
    }

    // ---- storage, writing, closing -----------------------------------------------------------------------------

    fn submit(&mut self) {
        self.storage.submit_all(std::iter::from_fn(|| self.hub.poll_request()));
    }

    /// Writes each connection with output once, or the first of very many: then what has come meanwhile goes out with
    /// the rest, instead of waiting for all of them. What a socket does not take waits until it says that it is
    /// writable.
    fn write_dirty(&mut self, now: Now) {
        let mut left = WRITES_PER_TURN;
        for _ in 0..self.hub.dirty_count() {
            if left == 0 {
                return;
            }
            let Some(key) = self.hub.poll_dirty() else { return };
            let Some(peer) = self.peers.get_mut(key.slot()).and_then(Option::as_mut) else { continue };
            if !peer.writable {
                self.hub.handle_blocked(key, now);
                continue;
            }
            left -= 1;
            match peer.write(self.hub.output(key)) {
                Moved::Bytes(count) => self.hub.handle_written(key, count, now),
                Moved::Blocked => self.hub.handle_blocked(key, now),
                Moved::Closed => self.drop_peer(key, now),
            }
        }
    }

    fn close_finished(&mut self, now: Now) {
        while let Some(key) = self.hub.poll_finished() {
            if let Some(peer) = self.peer(key) {
                peer.finish();
            }
            self.queue_read(key);
        }
        while let Some(key) = self.hub.poll_closed() {
            self.drop_peer(key, now);
        }
    }

    fn drop_peer(&mut self, key: ConnectionKey, now: Now) {
        self.hub.handle_closed(key, now);
        let peer = self.peers.get_mut(key.slot()).and_then(|slot| slot.take_if(|peer| peer.key == key));
        let Some(peer) = peer else { return };
        let mut rest = [0; 4096];
        peer.close(self.poll.registry(), &mut rest);
        self.peer_count -= 1;
        self.listener.iter_mut().for_each(Listener::descriptor_freed);
    }

    fn peer(&mut self, key: ConnectionKey) -> Option<&mut Peer> {
        self.peers.get_mut(key.slot()).and_then(Option::as_mut).filter(|peer| peer.key == key)
    }
}
