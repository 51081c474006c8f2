//! The formula of P9 in `docs/operations.md`, held against the memory of the real program: with nobody there, with many
//! connections, with many groups, and with buffers full of what nobody reads.

use std::time::{Duration, Instant};

use roundtable::client::{Event, RequestId};
use roundtable::ids::{GroupId, OperationId, Role, UserId};
use roundtable::limits::OUTPUT_BYTES_SOFT;
use roundtable::wire::{GroupSeq, HistoryRequest, Reply, Request, Stat};

use crate::process::{Process, bytes_below};
use crate::support::user;
use crate::swarm::Swarm;

const KIB: u64 = 1 << 10;
const MIB: u64 = 1 << 20;
/// Longest wait for anything: only a run that fails waits so long.
const PATIENCE: Duration = Duration::from_secs(60);
const READERS: usize = 400;
const GROUPS: u64 = 6_000;
const IN_FLIGHT: u64 = 64;
/// Members of a group whose history they ask for.
const ROOM: usize = 10;
/// A page of history, twice.
const BODY_BYTES: usize = 32 * 1024;
const MESSAGES: usize = 16;
/// Pages that each reader asks for: more than the system takes for one who does not read.
const PAGES: usize = 6;

/// The terms of the formula, with the constants that the page gives.
#[derive(Clone, Copy, Debug, Default)]
struct Formula {
    connections: u64,
    buffers: u64,
    cache: u64,
    storage: u64,
    index: u64,
}

impl Formula {
    const BASE: u64 = 32 * MIB;
    const CONNECTION: u64 = 2 * KIB;
    const INDEX_CACHE_MAX: u64 = 4 * 64 * MIB;
    const GROUP: u64 = 170;

    /// By what the server says of itself, and by the bytes of `index/`.
    fn of(stats: &[Stat], groups: u64, index_bytes: u64) -> Self {
        let value = |name: &str| stats.iter().find(|stat| stat.name == name).unwrap().value;
        Self {
            connections: value("connections_count") * Self::CONNECTION,
            buffers: value("output_bytes") + value("input_bytes"),
            cache: value("cache_bytes"),
            storage: value("commits_pending_bytes") + 6 * value("index_backlog_bytes"),
            index: Self::INDEX_CACHE_MAX.min(4 * index_bytes) + 3 * Self::GROUP * groups + value("index_dirty_bytes"),
        }
    }

    /// The larger of each term.
    fn most(self, other: Self) -> Self {
        Self {
            connections: self.connections.max(other.connections),
            buffers: self.buffers.max(other.buffers),
            cache: self.cache.max(other.cache),
            storage: self.storage.max(other.storage),
            index: self.index.max(other.index),
        }
    }

    fn bytes(&self) -> u64 {
        Self::BASE + self.connections + self.buffers + self.cache + self.storage + self.index
    }
}

/// A server, everybody who talks to it, and what was seen of its memory.
struct Watched<'a> {
    server: &'a Process,
    index: std::path::PathBuf,
    swarm: Swarm,
    service: usize,
    operator: usize,
    groups: u64,
}

impl<'a> Watched<'a> {
    fn new(server: &'a Process, home: &std::path::Path) -> Self {
        let mut swarm = Swarm::new(server.address);
        let service = swarm.add(server.token("backend", Role::Service), false);
        let operator = swarm.add(server.token("root", Role::Operator), false);
        Self { server, index: home.join("data/index"), swarm, service, operator, groups: 0 }
    }

    /// Waits for answers of the service; none of them is a refusal.
    fn answers(&mut self, mut wanted: impl FnMut(RequestId, Reply) -> bool) {
        let from = Instant::now();
        loop {
            self.swarm.turn(Duration::from_millis(100));
            for slot in [self.service, self.operator] {
                assert!(!self.swarm.peers[slot].closed);
                while let Some((request, reply)) = self.swarm.peers[slot].session.poll_reply() {
                    assert!(!matches!(reply, Reply::Error(_)), "{reply:?}");
                    if wanted(request, reply) {
                        return;
                    }
                }
            }
            assert!(from.elapsed() < PATIENCE, "it answers");
        }
    }

    fn stats(&mut self) -> Vec<Stat> {
        self.swarm.peers[self.operator].session.request(&Request::Stats).unwrap();
        self.swarm.flush(self.operator);
        let mut listed = Vec::new();
        self.answers(|_, reply| match reply {
            Reply::StatsListed { stats } => {
                listed = stats;
                true
            }
            _ => false,
        });
        listed
    }

    fn formula(&mut self) -> Formula {
        Formula::of(&self.stats(), self.groups, bytes_below(&self.index))
    }

    /// What the server takes, which the formula has to cover; and the formula, of which each term is what it was before
    /// or behind that: buffers fill meanwhile.
    fn look(&mut self, what: &str) -> (u64, Formula) {
        let before = self.formula();
        let memory = self.server.memory_bytes();
        let formula = before.most(self.formula());
        println!("{what}: {} KiB, the formula says {} KiB: {formula:?}", memory / KIB, formula.bytes() / KIB);
        assert!(memory <= formula.bytes(), "{what}: {memory} bytes, {formula:?}");
        (memory, formula)
    }

    /// Asks for a user, without waiting.
    fn ask(&mut self, request: &Request, by: &UserId) {
        self.swarm.peers[self.service].session.request_as(request, Some(by)).unwrap();
        self.swarm.flush(self.service);
    }

    fn create(&mut self, members: Vec<UserId>) {
        let creator = members[0].clone();
        let create = Request::Create { operation: OperationId::random(), title: "".into(), members };
        self.ask(&create, &creator);
        self.groups += 1;
    }

    fn created(&mut self) -> GroupId {
        let mut made = None;
        self.answers(|_, reply| {
            made = if let Reply::Created(created) = reply { Some(created.group) } else { None };
            made.is_some()
        });
        made.unwrap()
    }
}

#[test]
fn memory_stays_within_the_formula_of_the_guide_and_most_of_the_formula_is_there() {
    let home = tempfile::tempdir().unwrap();
    let server = Process::start(home.path());
    let mut watched = Watched::new(&server, home.path());
    let (empty, _) = watched.look("empty");

    let readers: Vec<UserId> = (0..READERS).map(|number| user(&format!("reader-{number}"))).collect();
    let (mut slots, mut ready) = (Vec::new(), 0);
    for (number, reader) in readers.iter().enumerate() {
        slots.push(watched.swarm.add(server.token(reader.as_str(), Role::User), true));
        // Few at a time: the server bounds how many are not authenticated yet.
        while (number % 64 == 63 || number + 1 == READERS) && ready < slots.len() {
            for slot in watched.swarm.turn(PATIENCE) {
                while let Some(event) = watched.swarm.peers[slot].session.poll_event() {
                    ready += usize::from(matches!(event, Event::Ready));
                }
            }
        }
    }
    let (connected, _) = watched.look("connected");
    let each = connected.saturating_sub(empty) / READERS as u64;
    assert!(each <= Formula::CONNECTION, "{each} bytes a connection that is idle");

    for number in 0..GROUPS {
        let name = |member: u64| user(&format!("user-{}", (number * 31 + member * 17) % (GROUPS / 2)));
        watched.create((0..8).map(name).collect());
        if number >= IN_FLIGHT {
            watched.created();
        }
    }
    for _ in 0..IN_FLIGHT {
        watched.created();
    }
    let (with_groups, _) = watched.look("with groups");

    let mut rooms = Vec::new();
    for members in readers.chunks(ROOM) {
        watched.create(members.to_vec());
        let group = watched.created();
        for _ in 0..MESSAGES {
            let body = vec![7; BODY_BYTES].into();
            watched.ask(&Request::Send { operation: OperationId::random(), group, body }, &members[0]);
            watched.answers(|_, reply| matches!(reply, Reply::Changed(..)));
        }
        rooms.push(group);
    }
    for (number, slot) in slots.iter().enumerate() {
        ask_without_reading(&mut watched.swarm, *slot, rooms[number / ROOM]);
    }
    let (full, formula) = fill_buffers(&mut watched);
    // Otherwise the formula would hold whatever the buffers cost.
    let grown = full - with_groups;
    assert!(grown < formula.buffers * 3 / 2, "buffers of {} bytes cost {grown}", formula.buffers);
    assert!(full * 3 > formula.bytes(), "the formula says three times as much as there is: {formula:?}");
}

/// Pages are made for each who asks, and shared by nobody.
fn ask_without_reading(swarm: &mut Swarm, slot: usize, group: GroupId) {
    swarm.stop_reading(slot);
    for _ in 0..PAGES {
        let groups = vec![GroupSeq { group, seq: 1 }];
        let page = Request::History(HistoryRequest { groups, entries_max: 0, bytes_max: 0 });
        swarm.peers[slot].session.request(&page).unwrap();
    }
    swarm.flush(slot);
}

/// Looks until most buffers hold as much as the soft limit.
fn fill_buffers(watched: &mut Watched<'_>) -> (u64, Formula) {
    let from = Instant::now();
    loop {
        let (memory, formula) = watched.look("with buffers");
        if formula.buffers > READERS as u64 * OUTPUT_BYTES_SOFT as u64 {
            return (memory, formula);
        }
        assert!(from.elapsed() < PATIENCE, "buffers fill: {formula:?}");
    }
}
