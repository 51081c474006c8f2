//! Connections: what the hub knows of each, and keys that a later connection in the same slot cannot be taken for.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::num::NonZeroU64;

use slab::Slab;

use super::Now;
use super::feed::Feed;
use super::outbox::Outbox;
use crate::ids::{DeviceId, GroupId, Principal, Role, UserId};
use crate::limits::{
    AUTHENTICATE_MS, CONNECTIONS_MAX, FRAME_STALL_MS, IN_FLIGHT_MAX, IN_FLIGHT_MAX_SERVICE, LARGE_IN_FLIGHT_MAX,
    OUTPUT_BYTES_SOFT, OUTPUT_STALL_MS, REQUEST_BYTES_SOFT, TOKEN_LEEWAY_MS,
};
use crate::wire::Deframer;

/// Names one connection for as long as it lives; never one that came later in its slot.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ConnectionKey {
    slot: u32,
    generation: u32,
}

impl ConnectionKey {
    /// The slot: small, dense, used again after the connection is gone.
    pub fn slot(self) -> usize {
        self.slot as usize
    }
}

/// A moment on the monotonic clock, if there is one: half of an `Option<u64>`, for each connection has several.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Since(Option<NonZeroU64>);

impl Since {
    pub(super) fn at(ms: u64) -> Self {
        Self(NonZeroU64::new(ms.saturating_add(1)))
    }

    pub(super) fn ms(self) -> Option<u64> {
        self.0.map(|next_ms| next_ms.get() - 1)
    }

    pub(super) fn is_some(self) -> bool {
        self.0.is_some()
    }
}

/// What a connection may do.
#[derive(Debug)]
pub(super) enum State {
    /// Nothing but hello and ping.
    Unauthenticated,
    /// Everything that its session allows.
    Open(Box<Session>),
}

/// Who a connection is, once it is authenticated.
#[derive(Debug)]
pub(super) struct Session {
    pub(super) user: UserId,
    pub(super) role: Role,
    pub(super) device: DeviceId,
    /// Silence after which it is dead.
    pub(super) silence_ms: u32,
    /// When its token ends, leeway included, on the monotonic clock.
    pub(super) token_ends_ms: u64,
    /// Whether it was asked for a new one.
    pub(super) told_of_end: bool,
    pub(super) presence: Presence,
    /// The groups that are not live on this connection, each with what is owed or awaited. A group of the user that is
    /// not in here is live, if the presence is `Attached`.
    pub(super) behind: Lacks,
    /// Groups of `behind` about which something has to be told, in order.
    pub(super) notices: Notices,
    /// Notices that wait for their group to be loaded: at most [`CATCH_UP_LOADS`](crate::limits::CATCH_UP_LOADS).
    pub(super) notices_loading: u8,
    /// How far the feed has been told on it, if it asked for it.
    pub(super) feed: Option<Box<Feed>>,
    /// Whether `Ready` is still to be told.
    pub(super) ready_owed: bool,
}

impl Session {
    /// Whose operations are remembered together.
    pub(super) fn principal(&self) -> Principal {
        match self.role {
            Role::Service => Principal::Service(self.user.clone()),
            Role::User | Role::Operator => Principal::User(self.user.clone()),
        }
    }
}

/// How far a connection is on its way on line.
#[derive(Debug)]
pub(super) enum Presence {
    /// It gets no pushes.
    Detached,
    /// Frames with what its device has are coming in.
    Collecting(Box<Collecting>),
    /// The memberships of its user are being loaded.
    Loading(Box<Loading>),
    /// It gets pushes.
    Attached,
}

/// What the device has, as far as it has said.
#[derive(Debug, Default)]
pub(super) struct Collecting {
    pub(super) has: BTreeMap<GroupId, u64>,
}

/// Groups in the order in which they are to be told of. Most of the time there are none, and then it takes no memory.
#[derive(Debug, Default)]
pub(super) struct Notices {
    queue: Option<Box<Queue>>,
}

#[derive(Debug, Default)]
struct Queue {
    groups: VecDeque<GroupId>,
}

impl Notices {
    pub(super) fn new(groups: impl Iterator<Item = GroupId>) -> Self {
        let groups: VecDeque<GroupId> = groups.collect();
        Self { queue: (!groups.is_empty()).then(|| Box::new(Queue { groups })) }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.queue.is_none()
    }

    pub(super) fn push_back(&mut self, group: GroupId) {
        self.queue.get_or_insert_default().groups.push_back(group);
    }

    pub(super) fn push_front(&mut self, group: GroupId) {
        self.queue.get_or_insert_default().groups.push_front(group);
    }

    pub(super) fn pop_front(&mut self) -> Option<GroupId> {
        let groups = &mut self.queue.as_mut()?.groups;
        let first = groups.pop_front();
        if groups.is_empty() {
            self.queue = None;
        }
        first
    }
}

/// Groups that are not live on a connection. Most of the time there are none, and then it takes no memory.
#[derive(Debug, Default)]
pub(super) struct Lacks {
    groups: Option<Box<Groups>>,
}

#[derive(Debug, Default)]
struct Groups {
    behind: BTreeMap<GroupId, Behind>,
}

impl Lacks {
    pub(super) fn new(behind: BTreeMap<GroupId, Behind>) -> Self {
        Self { groups: (!behind.is_empty()).then(|| Box::new(Groups { behind })) }
    }

    pub(super) fn len(&self) -> usize {
        self.groups.as_ref().map_or(0, |groups| groups.behind.len())
    }

    pub(super) fn contains_key(&self, group: &GroupId) -> bool {
        self.get(group).is_some()
    }

    pub(super) fn get(&self, group: &GroupId) -> Option<&Behind> {
        self.groups.as_ref()?.behind.get(group)
    }

    pub(super) fn get_mut(&mut self, group: &GroupId) -> Option<&mut Behind> {
        self.groups.as_mut()?.behind.get_mut(group)
    }

    pub(super) fn insert(&mut self, group: GroupId, behind: Behind) {
        self.groups.get_or_insert_default().behind.insert(group, behind);
    }

    pub(super) fn remove(&mut self, group: &GroupId) {
        let Some(groups) = &mut self.groups else { return };
        groups.behind.remove(group);
        if groups.behind.is_empty() {
            self.groups = None;
        }
    }
}

/// What is kept while memberships are being loaded: the answer may not know of what was released meanwhile.
#[derive(Debug)]
pub(super) struct Loading {
    pub(super) basis: Basis,
    /// Groups that the user has joined.
    pub(super) late: BTreeSet<GroupId>,
    /// Seqs at which memberships of it have ended.
    pub(super) ended: BTreeMap<GroupId, u64>,
}

/// From what is decided what a connection lacks.
#[derive(Debug)]
pub(super) enum Basis {
    /// What the device has.
    Device(BTreeMap<GroupId, u64>),
    /// The user's received marks.
    Marks,
}

impl Basis {
    /// Whether the device shows a group, as far as that is known.
    pub(super) fn shows(&self, group: GroupId) -> bool {
        matches!(self, Self::Device(has) if has.contains_key(&group))
    }
}

/// Why a group is not live on a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Behind {
    /// The device does not have the group, or it `shows` it from an earlier stay of its user: the group packet is owed,
    /// to be read on from this seq.
    Untold { from: u64, shows: bool },
    /// The device has it up to here: a notice is owed.
    Owed { from: u64 },
    /// It was told; an answer to a history request that reaches the head makes it live.
    Told,
    /// The device has a group that its user is no longer in: that is owed; to a client that keeps nothing, with the
    /// seq from which it may still read.
    Gone { until: u64, from: Option<u64> },
}

/// One connection.
///
/// Invariant: it is in the hub's list of dirty connections exactly when `dirty`; reading goes on unless `is_paused`.
#[derive(Debug)]
pub(super) struct Connection {
    pub(super) number: u64,
    pub(super) state: State,
    pub(super) deframer: Deframer,
    pub(super) outbox: Outbox,
    /// Requests that have no answer yet, and marks that are not taken yet.
    pub(super) in_flight: u32,
    /// Those of them with large answers.
    pub(super) large_in_flight: u8,
    /// Bytes of the requests that were taken since none was in flight.
    pub(super) request_bytes: u32,
    /// What counts of it as input of the whole.
    pub(super) counted_input: usize,
    /// Waits for the disk to catch up with changes.
    pub(super) held_back: bool,
    pub(super) dirty: bool,
    pub(super) closing: bool,
    pub(super) accepted_ms: u64,
    /// The same on the wall clock, to be shown.
    pub(super) accepted_wall_ms: u64,
    pub(super) heard_ms: u64,
    /// Since when an unfinished frame waits, if one does.
    pub(super) frame_since: Since,
    /// The socket did not take all that waits: when it last took something, or first took nothing. Most output never
    /// waits for its socket, and needs no deadline.
    pub(super) stuck_since: Since,
    pub(super) closing_ms: u64,
    /// The deadline that is in the timer queue.
    pub(super) timer_ms: u64,
    pub(super) malformed_since_ms: u64,
    pub(super) malformed_count: u32,
}

/// Time that a closing connection has to take its last bytes.
pub(super) const CLOSE_LINGER_MS: u64 = 2_000;

impl Connection {
    pub(super) fn new(number: u64, now: Now) -> Self {
        let now_ms = now.monotonic_ms;
        Self {
            number,
            state: State::Unauthenticated,
            deframer: Deframer::default(),
            outbox: Outbox::default(),
            in_flight: 0,
            large_in_flight: 0,
            request_bytes: 0,
            counted_input: 0,
            held_back: false,
            dirty: false,
            closing: false,
            accepted_ms: now_ms,
            accepted_wall_ms: now.wall_ms,
            heard_ms: now_ms,
            frame_since: Since::default(),
            stuck_since: Since::default(),
            closing_ms: 0,
            timer_ms: u64::MAX,
            malformed_since_ms: now_ms,
            malformed_count: 0,
        }
    }

    pub(super) fn session(&self) -> Option<&Session> {
        match &self.state {
            State::Unauthenticated => None,
            State::Open(session) => Some(session),
        }
    }

    pub(super) fn session_mut(&mut self) -> Option<&mut Session> {
        match &mut self.state {
            State::Unauthenticated => None,
            State::Open(session) => Some(session),
        }
    }

    /// Whether a group of its user is live on it.
    pub(super) fn is_live(&self, group: GroupId) -> bool {
        !self.closing
            && self.session().is_some_and(|session| {
                matches!(session.presence, Presence::Attached) && !session.behind.contains_key(&group)
            })
    }

    /// Whether no more requests are taken from it for now: answers wait to be made, or to be read.
    pub(super) fn is_paused(&self) -> bool {
        let in_flight_max = self.session().map_or(IN_FLIGHT_MAX, |session| in_flight_max(session.role));
        self.closing
            || self.held_back
            || self.in_flight as usize >= in_flight_max
            || self.request_bytes as usize > REQUEST_BYTES_SOFT
            || self.large_in_flight >= LARGE_IN_FLIGHT_MAX
            || self.outbox.bytes() > OUTPUT_BYTES_SOFT
    }

    /// Whether something is to be told as soon as output is written.
    pub(super) fn waits_for_room(&self) -> bool {
        self.session().is_some_and(|session| {
            !session.notices.is_empty()
                || session.ready_owed
                || session.feed.as_ref().is_some_and(|feed| feed.is_resting())
        })
    }

    /// When something has to be done about it if nothing happens, and what.
    pub(super) fn deadline(&self) -> (u64, Overdue) {
        if self.closing {
            return (self.closing_ms + CLOSE_LINGER_MS, Overdue::Linger);
        }
        let mut first = match &self.state {
            State::Unauthenticated => (self.accepted_ms + AUTHENTICATE_MS, Overdue::Authentication),
            State::Open(session) if session.told_of_end => (session.token_ends_ms, Overdue::Token),
            State::Open(session) => (session.token_ends_ms.saturating_sub(TOKEN_LEEWAY_MS), Overdue::TokenSoon),
        };
        // Who is not read cannot be heard: its silence is the server's doing.
        if let State::Open(session) = &self.state
            && !self.is_paused()
        {
            first = first.min((self.heard_ms + u64::from(session.silence_ms), Overdue::Silence));
        }
        if let Some(since_ms) = self.frame_since.ms()
            && !self.is_paused()
        {
            first = first.min((since_ms + FRAME_STALL_MS, Overdue::Frame));
        }
        if let Some(since_ms) = self.stuck_since.ms() {
            first = first.min((since_ms + OUTPUT_STALL_MS, Overdue::Output));
        }
        first
    }
}

/// Requests without an answer above which reading pauses.
pub(super) fn in_flight_max(role: Role) -> usize {
    match role {
        Role::Service => IN_FLIGHT_MAX_SERVICE,
        Role::User | Role::Operator => IN_FLIGHT_MAX,
    }
}

/// What a connection did not do in time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Overdue {
    Linger,
    Authentication,
    Silence,
    TokenSoon,
    Token,
    Frame,
    Output,
}

/// All connections, by key.
///
/// The room for all there may be is reserved at once: what is not used takes no memory, and nothing is ever copied.
#[derive(Debug)]
pub(super) struct Connections {
    slots: Slab<Connection>,
    /// The generation of each slot's present or next connection.
    generations: Vec<u32>,
}

impl Default for Connections {
    fn default() -> Self {
        Self { slots: Slab::with_capacity(CONNECTIONS_MAX), generations: Vec::with_capacity(CONNECTIONS_MAX) }
    }
}

impl Connections {
    pub(super) fn len(&self) -> usize {
        self.slots.len()
    }

    pub(super) fn insert(&mut self, connection: Connection) -> ConnectionKey {
        let slot = self.slots.insert(connection);
        if slot == self.generations.len() {
            self.generations.push(0);
        }
        let slot_number = u32::try_from(slot).expect("connections are bounded by limits.rs");
        ConnectionKey { slot: slot_number, generation: self.generations[slot] }
    }

    pub(super) fn find(&self, key: ConnectionKey) -> Option<&Connection> {
        self.is_current(key).then(|| self.slots.get(key.slot())).flatten()
    }

    pub(super) fn find_mut(&mut self, key: ConnectionKey) -> Option<&mut Connection> {
        if self.is_current(key) { self.slots.get_mut(key.slot()) } else { None }
    }

    pub(super) fn remove(&mut self, key: ConnectionKey) -> Option<Connection> {
        if !self.is_current(key) {
            return None;
        }
        let connection = self.slots.try_remove(key.slot())?;
        self.generations[key.slot()] = key.generation.wrapping_add(1);
        Some(connection)
    }

    /// All keys, in the order of slots.
    pub(super) fn keys(&self) -> Vec<ConnectionKey> {
        let key =
            |(slot, _)| ConnectionKey { slot: u32::try_from(slot).unwrap_or(0), generation: self.generations[slot] };
        self.slots.iter().map(key).collect()
    }

    fn is_current(&self, key: ConnectionKey) -> bool {
        self.generations.get(key.slot()) == Some(&key.generation)
    }
}
