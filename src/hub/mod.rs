//! The core: connections, delivery, and the order in which things become visible. No I/O, no clock, no randomness.
//!
//! The hub takes inputs (`handle_*`: a connection was accepted, bytes arrived, output was written, time passed, storage
//! answered) and gives outputs (`poll_*`: storage requests, connections with something to write, connections to close,
//! connections to read again, the next deadline). The same inputs give the same outputs, byte for byte: time and the
//! seed of randomness come in as arguments, hash maps are keyed by that seed and never iterated. The mio loop, the
//! tests and later the simulator drive it through this one interface.
//!
//! **The rule of release.** Every change is handed to storage under a [`Ticket`]. Its reply and its pushes are made
//! when storage says that the ticket is durable, in the order of tickets. Whatever is shown is computed from durable
//! state; a read of a group with changes on their way to the disk waits for those that were there when it came, and so
//! does a refusal that was computed from them. So nobody ever sees what a power cut could take back.
//!
//! It knows the wire and the storage port, and neither sockets nor files.

mod backup;
mod buffers;
mod burst;
mod cache;
mod catch_up;
mod changes;
mod connection;
mod directory;
mod dirty;
mod feed;
mod group;
mod hello;
mod history;
#[cfg(any(test, feature = "fuzzing", feature = "sim"))]
mod invariants;
mod marks;
mod operate;
mod operations;
mod outbox;
mod permit;
mod quota;
mod reads;
mod release;
mod requests;
mod signals;
mod stats;
mod task;
#[cfg(any(test, feature = "fuzzing"))]
pub(crate) mod tests;
mod timers;
mod work;

use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};

use ahash::RandomState;
use rand::SeedableRng;
use rand::rngs::StdRng;

pub use connection::ConnectionKey;
pub use operate::{Audit, Audited};
pub use permit::Policy;

use crate::ids::{GroupId, Identity, Principal, TokenError, UserId};
use crate::limits::{
    BUFFER_BYTES_TOTAL, CONNECTIONS_MAX, OUTPUT_BYTES_HARD, OUTPUT_BYTES_UNAUTHENTICATED, UNAUTHENTICATED_MAX,
};
use crate::store::{Event, ReadId, Request as StoreRequest, Ticket};
use crate::wire::{ErrorBody, ErrorCode, Push, Reply};
use burst::Burst;
use cache::Cache;
use connection::{Connection, Connections, Since, State};
use directory::Directory;
use dirty::{Company, Dirty};
use feed::Feeds;
use group::Slot;
use marks::Marks;
use operations::Window;
use reads::PendingRead;
use release::Releases;
use stats::Counters;

/// The time at which an input is handled.
#[derive(Clone, Copy, Debug, Default)]
pub struct Now {
    /// Milliseconds on a clock that never goes back. Everything is timed by it.
    pub monotonic_ms: u64,
    /// Milliseconds since 1970. Only shown, put into ids, and compared with tokens.
    pub wall_ms: u64,
}

/// Where the hub's hash keys and group ids come from.
#[derive(Clone, Copy, Debug)]
pub struct Seed {
    /// Keys of the hash maps.
    pub hash: [u64; 4],
    /// Seed of the random part of group ids.
    pub ids: [u8; 32],
}

/// Says whom a token names: a pure function of the token and the wall clock.
pub trait Authenticator: Send {
    /// Checks a token at a time in milliseconds since 1970.
    fn authenticate(&self, token: &str, wall_ms: u64) -> Result<Identity, TokenError>;
}

/// The core of a server.
pub struct Hub {
    now: Now,
    policy: Policy,
    authenticator: Box<dyn Authenticator>,
    hasher: RandomState,
    random: StdRng,
    connections: Connections,
    connection_count: u64,
    unauthenticated: usize,
    directory: Directory,
    groups: HashMap<GroupId, Slot, RandomState>,
    windows: HashMap<Principal, Window, RandomState>,
    /// Gathered within one input, and in the buffers at its end.
    burst: Option<Burst>,
    cache: Cache,
    reads: BTreeMap<ReadId, PendingRead>,
    read_count: u64,
    /// Those of the reads that load the memberships of a user.
    user_loads: BTreeSet<ReadId>,
    /// Groups and operations that are being loaded.
    loads: usize,
    releases: Releases,
    marks: Marks,
    counters: Counters,
    storage_ready: bool,
    stopping: bool,
    credit_bytes: u64,
    committed_bytes: u64,
    /// Output of all connections together; a shared frame counts once.
    output_bytes: usize,
    /// What all connections have sent and what is not done yet.
    input_bytes: usize,
    /// The bound on both together.
    buffer_bytes_max: usize,
    timers: BTreeSet<(u64, ConnectionKey)>,
    /// Connections that wait for the disk to catch up with changes.
    held_back: Vec<ConnectionKey>,
    feeds: Feeds,
    /// Users who are in as many groups as they may be, with the limit.
    full: BTreeMap<UserId, u32>,
    requests: VecDeque<StoreRequest>,
    audits: VecDeque<Audit>,
    dirty: Dirty,
    finished: VecDeque<ConnectionKey>,
    closed: VecDeque<ConnectionKey>,
    resumed: VecDeque<ConnectionKey>,
    /// Groups whose waiting work can go on.
    unblocked: VecDeque<GroupId>,
    /// Connections whose notices can go on.
    telling: VecDeque<ConnectionKey>,
}

impl Hub {
    /// A hub without connections. `started` is the time of its first input.
    pub fn new(seed: Seed, policy: Policy, authenticator: Box<dyn Authenticator>, started: Now) -> Self {
        let [k0, k1, k2, k3] = seed.hash;
        let hasher = RandomState::with_seeds(k0, k1, k2, k3);
        Self {
            now: started,
            policy,
            authenticator,
            random: StdRng::from_seed(seed.ids),
            connections: Connections::default(),
            connection_count: 0,
            unauthenticated: 0,
            directory: Directory::new(hasher.clone()),
            groups: HashMap::with_hasher(hasher.clone()),
            windows: HashMap::with_hasher(hasher.clone()),
            hasher,
            cache: Cache::default(),
            reads: BTreeMap::new(),
            read_count: 0,
            user_loads: BTreeSet::new(),
            loads: 0,
            releases: Releases::default(),
            marks: Marks::default(),
            counters: Counters::new(started.monotonic_ms),
            storage_ready: false,
            stopping: false,
            credit_bytes: 0,
            committed_bytes: 0,
            output_bytes: 0,
            input_bytes: 0,
            buffer_bytes_max: BUFFER_BYTES_TOTAL,
            timers: BTreeSet::new(),
            held_back: Vec::new(),
            feeds: Feeds::default(),
            burst: None,
            full: BTreeMap::new(),
            requests: VecDeque::new(),
            audits: VecDeque::new(),
            dirty: Dirty::default(),
            finished: VecDeque::new(),
            closed: VecDeque::new(),
            resumed: VecDeque::new(),
            unblocked: VecDeque::new(),
            telling: VecDeque::new(),
        }
    }

    // ---- inputs ------------------------------------------------------------------------------------------------

    /// A connection was accepted. Over a limit it is told so and closed.
    pub fn handle_accepted(&mut self, now: Now) -> ConnectionKey {
        self.now = now;
        let over = self.connections.len() >= CONNECTIONS_MAX || self.unauthenticated >= UNAUTHENTICATED_MAX;
        self.connection_count += 1;
        self.unauthenticated += 1;
        let key = self.connections.insert(Connection::new(self.connection_count, now));
        self.counters.accepted += 1;
        if over {
            self.close_with(key, ErrorCode::TooMany, 0, "the server has no room for another connection");
        } else if self.stopping {
            self.close_with(key, ErrorCode::GoingAway, 0, "the server is stopping");
        }
        self.arm(key);
        key
    }

    /// Bytes arrived on a connection.
    pub fn handle_bytes(&mut self, key: ConnectionKey, bytes: &[u8], now: Now) {
        self.now = now;
        let Some(connection) = self.connections.find_mut(key) else { return };
        if connection.closing {
            return;
        }
        connection.heard_ms = now.monotonic_ms;
        connection.deframer.feed(bytes);
        self.take_frames(key);
        self.recount_input(key);
        self.settle();
    }

    /// The peer is gone, or the connection broke.
    pub fn handle_closed(&mut self, key: ConnectionKey, now: Now) {
        self.now = now;
        self.forget(key);
        self.settle();
    }

    /// The first `count` bytes of a connection's output were written.
    pub fn handle_written(&mut self, key: ConnectionKey, count: usize, now: Now) {
        self.now = now;
        let Some(connection) = self.connections.find_mut(key) else { return };
        let was_paused = connection.is_paused();
        self.output_bytes -= connection.outbox.consume(count);
        let is_empty = connection.outbox.is_empty();
        if is_empty || count > 0 {
            connection.stuck_since = Since::default();
        }
        if connection.closing {
            if is_empty {
                self.finished.push_back(key);
            }
        } else if was_paused || connection.waits_for_room() {
            if was_paused && !connection.is_paused() {
                self.resumed.push_back(key);
            }
            self.tell_notices(key);
            self.resume_feed(key);
            self.settle();
        }
        if !is_empty {
            self.handle_blocked(key, now);
            // A socket that took a part may take more: asked in the next turn, so that the others come first.
            self.handle_writable(key);
        }
    }

    /// The socket of a connection was offered its output, and did not take all of it.
    pub fn handle_blocked(&mut self, key: ConnectionKey, now: Now) {
        self.now = now;
        if let Some(connection) = self.connections.find_mut(key)
            && !connection.outbox.is_empty()
            && !connection.stuck_since.is_some()
        {
            connection.stuck_since = Since::at(now.monotonic_ms);
            self.arm(key);
        }
    }

    /// The socket of a connection takes bytes again.
    pub fn handle_writable(&mut self, key: ConnectionKey) {
        if let Some(connection) = self.connections.find_mut(key)
            && !connection.outbox.is_empty()
            && !connection.dirty
        {
            connection.dirty = true;
            // What it did not take at once waits with those who wait anyhow.
            self.dirty.push(key, Company::Crowd);
        }
    }

    /// Time passed: call it at least at [`Hub::next_deadline_ms`].
    pub fn handle_time(&mut self, now: Now) {
        self.now = now;
        self.expire_timers();
        self.commit_due_marks();
        self.release_slice();
        self.settle();
    }

    /// Storage said something.
    pub fn handle_storage(&mut self, event: Event, now: Now) {
        self.now = now;
        match event {
            Event::Durable { ticket, lsns } => self.release(ticket, &lsns),
            Event::Credit { bytes_total } => self.credit_bytes = self.credit_bytes.max(bytes_total),
            Event::Ready => self.storage_ready = true,
            Event::GroupLoaded { group, state } => self.finish_group_load(group, state),
            Event::UserLoaded { read, memberships } => self.finish_user_load(read, memberships),
            Event::OperationsLoaded { principal, operations } => self.finish_operations_load(&principal, &operations),
            Event::MembershipLoaded { read, membership } => self.finish_membership(read, membership),
            Event::MarksRead { read, marks } => self.finish_readers(read, marks),
            Event::GroupsListed { read, groups, more } => self.finish_list(read, groups, more),
            Event::EntriesRead { read, entries } => self.finish_entries(read, entries),
            Event::FeedRead { read, page } => self.finish_feed_page(read, page),
            Event::BackupDone { read, result } => self.finish_backup(read, result),
            Event::FloorsMoved { floors } => self.raise_floors(&floors),
            Event::UserFull { user, groups_max } => self.note_full(user, groups_max),
            Event::StatsRead { read, stats } => self.finish_stats(read, stats),
            // A scan is never asked for by the hub: it is for those who embed storage, and for its care. After a failure
            // whoever drives the hub stops the process; nothing that is pending is ever released.
            Event::GroupsScanned { .. } | Event::Failed { .. } => {}
        }
        self.settle();
    }

    /// Logs have let go of their beginnings.
    fn raise_floors(&mut self, floors: &[(GroupId, u64)]) {
        for (id, floor) in floors {
            if let Some(group) = self.groups.get_mut(id).and_then(|slot| slot.group.as_mut()) {
                group.floor = group.floor.max(*floor);
            }
        }
    }

    /// The server is about to stop: everybody is told, no more requests are taken, what was begun is finished, and
    /// each connection is closed behind its last answer.
    pub fn handle_stop(&mut self, within_ms: u64, now: Now) {
        self.now = now;
        self.stopping = true;
        self.commit_marks(None);
        for key in self.connections.keys() {
            self.append(key, |out| Push::GoingAway { within_ms }.encode_frame(out));
            self.close_if_done(key);
        }
        self.settle();
    }

    // ---- outputs -----------------------------------------------------------------------------------------------

    /// The next thing to ask of storage.
    pub fn poll_request(&mut self) -> Option<StoreRequest> {
        self.requests.pop_front()
    }

    /// Whether there is something to poll that was not polled yet.
    pub fn has_work(&self) -> bool {
        let polled = self.dirty.is_empty() && self.resumed.is_empty() && self.finished.is_empty();
        !polled || !self.closed.is_empty() || !self.requests.is_empty()
    }

    /// How many times [`Hub::poll_dirty`] gives a connection before it begins anew, at most.
    pub fn dirty_count(&self) -> usize {
        self.dirty.len()
    }

    /// The next connection that has something to write since it was last given here: what becomes of it is told by
    /// [`Hub::handle_written`], [`Hub::handle_blocked`] or [`Hub::handle_closed`].
    pub fn poll_dirty(&mut self) -> Option<ConnectionKey> {
        loop {
            let waiting = self.dirty.lengths();
            let (key, company) = self.dirty.pop()?;
            self.releases.note_write(waiting, company);
            if let Some(connection) = self.connections.find_mut(key) {
                connection.dirty = false;
                return Some(key);
            }
        }
    }

    /// The next connection on which everything is written that ever will be: its writing side is to be shut down. What
    /// still comes from it is dropped; it is closed when the peer closes, or comes up in [`Hub::poll_closed`].
    pub fn poll_finished(&mut self) -> Option<ConnectionKey> {
        self.finished.pop_front()
    }

    /// The next connection to close. The hub has forgotten it.
    pub fn poll_closed(&mut self) -> Option<ConnectionKey> {
        while let Some(key) = self.closed.pop_front() {
            if self.forget(key) {
                return Some(key);
            }
        }
        None
    }

    /// The next connection that may be read again after [`Hub::wants_bytes`] said no.
    pub fn poll_resumed(&mut self) -> Option<ConnectionKey> {
        self.resumed.pop_front()
    }

    /// Whether bytes of this connection are welcome now, be it to be dropped. If not, it comes up in
    /// [`Hub::poll_resumed`] later.
    pub fn wants_bytes(&self, key: ConnectionKey) -> bool {
        self.connections.find(key).is_some_and(|connection| connection.closing || !connection.is_paused())
    }

    /// What waits to be written on a connection, in order.
    pub fn output(&self, key: ConnectionKey) -> impl Iterator<Item = &[u8]> {
        self.connections.find(key).into_iter().flat_map(|connection| connection.outbox.chunks())
    }

    /// When [`Hub::handle_time`] has to be called at the latest, on the monotonic clock.
    pub fn next_deadline_ms(&self) -> Option<u64> {
        let timer = self.timers.first().map(|(deadline_ms, _)| *deadline_ms);
        let release = self.releases.has_durable().then_some(self.now.monotonic_ms);
        [timer, self.marks.due_ms(), release].into_iter().flatten().min()
    }

    /// Whether, after [`Hub::handle_stop`], nothing is left to finish or to write.
    pub fn is_drained(&self) -> bool {
        let begun = self.releases.is_empty() && self.reads.is_empty() && self.loads == 0 && self.marks.is_settled();
        begun && !self.has_work() && self.output_bytes == 0
    }

    // ---- shared by the parts -----------------------------------------------------------------------------------

    /// Does what became possible by an input: goes on with waiting work, within what memory allows.
    fn settle(&mut self) {
        self.forget_known_marks();
        loop {
            if let Some(group) = self.unblocked.pop_front() {
                self.run_waiting(group);
            } else if let Some(key) = self.telling.pop_front() {
                self.tell_notices(key);
            } else {
                break;
            }
        }
        self.release_held_back();
        self.end_burst();
        self.shed_buffers();
        self.evict();
    }

    /// Appends output to a connection, unless it is closing; over its hard limit it is closed instead.
    fn append(&mut self, key: ConnectionKey, encode: impl FnOnce(&mut Vec<u8>)) {
        self.catch_burst_up(key);
        let Some(connection) = self.connections.find_mut(key) else { return };
        if connection.closing {
            return;
        }
        let before = connection.outbox.bytes();
        self.output_bytes += connection.outbox.append_with(encode);
        self.after_append(key, before, Company::Few);
    }

    fn after_append(&mut self, key: ConnectionKey, before: usize, company: Company) {
        let Some(connection) = self.connections.find_mut(key) else { return };
        let hard = match connection.state {
            State::Unauthenticated => OUTPUT_BYTES_UNAUTHENTICATED,
            State::Open(_) => OUTPUT_BYTES_HARD,
        };
        let waiting = connection.outbox.bytes();
        if before > 0 && waiting > hard {
            self.counters.closed_slow += 1;
            self.cut(key, waiting);
            return;
        }
        if !connection.dirty {
            connection.dirty = true;
            self.dirty.push(key, company);
        }
        if before == 0 {
            connection.stuck_since = Since::default();
        }
    }

    /// Closes a connection that does not read: what waits is dropped, for it would never be taken.
    fn cut(&mut self, key: ConnectionKey, waiting: usize) {
        self.end_burst();
        let Some(connection) = self.connections.find_mut(key) else { return };
        self.output_bytes -= connection.outbox.cut();
        self.close_with(key, ErrorCode::Slow, waiting as u64, "output was not read fast enough");
    }

    /// Answers a request; the connection may have one more in flight again.
    fn answer(&mut self, key: ConnectionKey, request_id: u32, reply: &Reply) {
        self.finish_request(key, 0, Some((request_id, reply)));
    }

    /// Answers one of the requests of which only so many are under way at once.
    fn answer_large(&mut self, key: ConnectionKey, request_id: u32, reply: &Reply) {
        self.finish_request(key, 1, Some((request_id, reply)));
    }

    /// One request of a connection, or one mark, needs nothing more but this answer.
    fn finish_request(&mut self, key: ConnectionKey, large: u8, answer: Option<(u32, &Reply)>) {
        let Some(connection) = self.connections.find(key) else { return };
        let was_paused = connection.is_paused();
        if let Some((request_id, reply)) = answer {
            self.append(key, |out| reply.encode_frame(out, request_id));
        }
        let Some(connection) = self.connections.find_mut(key) else { return };
        connection.in_flight -= 1;
        connection.large_in_flight -= large;
        if connection.in_flight == 0 {
            connection.request_bytes = 0;
        }
        if was_paused && !connection.is_paused() {
            self.resumed.push_back(key);
        }
        self.recount_input(key);
        self.close_if_done(key);
    }

    /// While the server stops, a connection is closed once all its requests are answered.
    fn close_if_done(&mut self, key: ConnectionKey) {
        let leaves_it = planted!("hub: a stop leaves what it has begun without an answer");
        let is_done = |connection: &Connection| connection.in_flight == 0 || leaves_it;
        if self.stopping && self.connections.find(key).is_some_and(is_done) {
            self.close_with(key, ErrorCode::GoingAway, 0, "the server is stopping");
        }
    }

    /// Refuses a request; the connection lives.
    fn refuse(&mut self, key: ConnectionKey, request_id: u32, error: ErrorBody) {
        self.counters.refused += 1;
        self.answer(key, request_id, &Reply::Error(error));
    }

    /// Says why, and closes once that is written.
    fn close_with(&mut self, key: ConnectionKey, code: ErrorCode, detail: u64, message: &str) {
        self.append(key, |out| Reply::Error(ErrorBody::new(code, detail, message)).encode_frame(out, 0));
        self.close(key);
    }

    /// Closes a connection once what waits is written.
    fn close(&mut self, key: ConnectionKey) {
        self.end_burst();
        let Some(connection) = self.connections.find_mut(key) else { return };
        if connection.closing {
            return;
        }
        connection.closing = true;
        connection.closing_ms = self.now.monotonic_ms;
        if connection.outbox.is_empty() {
            self.finished.push_back(key);
        }
        self.drop_input(key);
        self.arm(key);
    }

    /// Forgets a connection and whatever was kept for it. Requests of it that were begun still take effect.
    fn forget(&mut self, key: ConnectionKey) -> bool {
        self.end_burst();
        let Some(mut connection) = self.connections.remove(key) else { return false };
        let freed = connection.outbox.clear();
        if !planted!("hub: output of a connection that is gone stays counted") {
            self.output_bytes -= freed;
        }
        self.input_bytes -= connection.counted_input;
        self.timers.remove(&(connection.timer_ms, key));
        match connection.state {
            State::Unauthenticated => self.unauthenticated -= 1,
            State::Open(session) => {
                self.directory.remove(&session.user, key);
                self.feeds.forget(key);
                self.commit_marks(Some(&session.user));
            }
        }
        true
    }

    /// Numbers a read that is about to be asked of storage.
    fn begin_read(&mut self, pending: PendingRead) -> ReadId {
        self.read_count += 1;
        let read = ReadId(self.read_count);
        self.reads.insert(read, pending);
        read
    }

    /// Hands a change to storage. The caller has checked the credit.
    fn commit(&mut self, change: crate::store::Change, release: release::Release) -> Ticket {
        let bytes = crate::store::change_bytes(&change) as u64;
        self.committed_bytes += bytes;
        let ticket = self.releases.begin(bytes, release);
        self.requests.push_back(StoreRequest::Commit { ticket, change });
        self.counters.commits += 1;
        ticket
    }

    /// Whether storage has room for a change.
    fn has_credit(&self, change: &crate::store::Change) -> bool {
        self.committed_bytes + crate::store::change_bytes(change) as u64 <= self.credit_bytes
    }
}
