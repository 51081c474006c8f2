//! Random lives of several users and devices, driven through the client that programs use.
//!
//! Each device keeps what a real one would keep: the groups that it was told, each with its record and how far it has
//! read. Bytes go both ways in random pieces, connections break at any byte, the disk and look-ups take their time.
//! In the end everything drains, and then every device must have exactly what storage has.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicU64, Ordering};

use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

use super::world::{Peer, Reading, World, user};
use crate::client::{Event as Told, RequestId, Session};
use crate::group::{Entry, Event, Member, Record};
use crate::ids::{DeviceId, GroupId, OperationId, Principal, UserId};
use crate::wire::{GroupPacket, GroupSeq, Hello, HistoryRequest, LogEntry, Mark, Reply, Request};

const USERS: [&str; 4] = ["alice", "bob", "carol", "dave"];
const STEPS: usize = 400;
/// What requests that are legal in themselves may be refused with.
const REFUSALS: [&str; 5] = ["NOT_FOUND", "RANGE", "FORBIDDEN", "NOT_A_MEMBER", "TRUNCATED"];

/// What a device keeps of a group.
struct Held {
    record: Record,
    next: u64,
}

struct Device {
    user: UserId,
    name: DeviceId,
    /// Whether it keeps what it was told, or goes by the user's marks.
    keeps: bool,
    held: BTreeMap<GroupId, Held>,
    /// Without keeping: the next seq of each group on this connection.
    nexts: BTreeMap<GroupId, u64>,
    line: Option<(Session, Peer)>,
    stalled: bool,
    asked: BTreeMap<RequestId, Request>,
    /// Changes without an answer, to be asked again with the same operation id.
    unanswered: Vec<Request>,
}

#[derive(Default)]
struct Seen {
    entries: BTreeSet<(UserId, GroupId, u64)>,
    acknowledged: BTreeMap<(UserId, OperationId), (GroupId, u64)>,
    /// Those of them that change nothing where it is so already.
    may_change_nothing: BTreeSet<(UserId, OperationId)>,
    /// Where reading went on behind a gap, because its user had left and come back.
    cuts: Vec<(UserId, GroupId, u64)>,
    rare: BTreeMap<&'static str, usize>,
}

struct Play {
    world: World,
    random: StdRng,
    devices: Vec<Device>,
    /// A service that acts for users.
    service: Peer,
    groups: Vec<GroupId>,
    /// Connections whose other end is gone without a word.
    half_open: Vec<Peer>,
    seen: Seen,
}

fn record_of(packet: &GroupPacket) -> Record {
    Record {
        group: packet.group,
        title: packet.title.as_str().into(),
        owner: packet.owner.clone(),
        creator: packet.creator.clone(),
        created_at_ms: packet.created_at_ms,
        members: packet.members.iter().map(|user| Member { user: user.clone(), joined: 0 }).collect(),
        version: packet.version,
        dissolved: false,
    }
}

fn operation_of(request: &Request) -> Option<OperationId> {
    match request {
        Request::Create { operation, .. }
        | Request::Add { operation, .. }
        | Request::Remove { operation, .. }
        | Request::Leave { operation, .. }
        | Request::Rename { operation, .. }
        | Request::Transfer { operation, .. }
        | Request::Dissolve { operation, .. }
        | Request::Send { operation, .. }
        | Request::Whisper { operation, .. } => Some(*operation),
        _ => None,
    }
}

fn ends(entry: &Entry, user: &UserId) -> bool {
    match &entry.event {
        Event::Left { .. } => entry.sender == *user,
        Event::Removed { members } => members.contains(user),
        Event::Dissolved => true,
        _ => false,
    }
}

impl Device {
    fn take_events(&mut self, seen: &mut Seen) {
        while let Some(event) = self.line.as_mut().and_then(|(session, _)| session.poll_event()) {
            match event {
                Told::Group { packet, .. } => {
                    let held = Held { record: record_of(&packet), next: packet.from };
                    self.nexts.insert(packet.group, packet.from);
                    if let Some(before) = self.held.insert(packet.group, held) {
                        assert!(before.next < packet.from, "only another stay in it is told again");
                        *seen.rare.entry("another stay").or_default() += 1;
                    }
                }
                Told::Entry { group, entry } => self.follow(group, &entry, seen),
                Told::Gone { group, .. } => {
                    self.held.remove(&group);
                    *seen.rare.entry("gone").or_default() += 1;
                }
                Told::Behind { .. } => *seen.rare.entry("behind").or_default() += 1,
                Told::TakenOver => unreachable!("a device has one connection that it listens to"),
                Told::Ready | Told::AuthenticateSoon { .. } | Told::SignalRefused { .. } => {}
                Told::Truncated { group, floor } => {
                    // Its user left and came back while it was reading: what it has not of the first stay is lost to it.
                    seen.cuts.push((self.user.clone(), group, floor));
                    self.nexts.insert(group, floor);
                    if let Some(held) = self.held.get_mut(&group) {
                        held.next = floor;
                    }
                }
                Told::Signal { group, .. } => {
                    assert!(!self.keeps || self.held.contains_key(&group), "a signal of a group that it has");
                    *seen.rare.entry("signal").or_default() += 1;
                }
                // Of a group that was left while it was being read.
                Told::Unreadable { error, .. } => assert_eq!(error.name(), "NOT_FOUND"),
                other => panic!("{other:?}"),
            }
        }
    }

    fn follow(&mut self, group: GroupId, entry: &LogEntry, seen: &mut Seen) {
        let seq = entry.seq();
        seen.entries.insert((self.user.clone(), group, seq));
        let next = self.nexts.entry(group).or_insert(seq);
        assert_eq!(seq, *next, "entries ascend without gap from where a device starts");
        *next += 1;
        let Some(held) = self.held.get_mut(&group) else {
            assert!(!self.keeps, "an entry before its group: {} {group} {entry:?} next {next:?}", self.user);
            return;
        };
        assert_eq!(seq, held.next);
        held.next += 1;
        match entry {
            LogEntry::Shown(entry) => {
                assert!(entry.is_shown_to(&self.user));
                held.record.apply(entry);
                if ends(entry, &self.user) {
                    self.held.remove(&group);
                }
            }
            LogEntry::Hidden { .. } => *seen.rare.entry("hidden").or_default() += 1,
        }
    }

    fn take_replies(&mut self, seen: &mut Seen, groups: &mut Vec<GroupId>) {
        let Some((session, _)) = &mut self.line else { return };
        while let Some((id, reply)) = session.poll_reply() {
            let Some(request) = self.asked.remove(&id) else { continue };
            let outcome = match reply {
                Reply::Created(created) => {
                    assert_eq!(created.pushed + created.queued + 1, created.members);
                    groups.push(created.group);
                    Some((created.group, created.seq))
                }
                Reply::Changed(_, changed) => Some((changed.group, changed.seq)),
                Reply::Error(error) => {
                    assert!(REFUSALS.contains(&error.name()), "{error:?} to {request:?}");
                    None
                }
                _ => None,
            };
            let Some(operation) = operation_of(&request) else { continue };
            self.unanswered.retain(|other| operation_of(other) != Some(operation));
            if let Some(outcome) = outcome {
                if let Request::Add { .. }
                | Request::Remove { .. }
                | Request::Rename { .. }
                | Request::Transfer { .. } = request
                {
                    seen.may_change_nothing.insert((self.user.clone(), operation));
                }
                let before = seen.acknowledged.insert((self.user.clone(), operation), outcome);
                assert!(before.is_none_or(|before| before == outcome), "the same answer again");
            }
        }
    }
}

impl Play {
    fn new(seed: u64) -> Self {
        let mut world = World::slow();
        let mut random = StdRng::seed_from_u64(seed);
        if random.random_bool(0.3) {
            world.hub.cache.bytes_max = random.random_range(0..20_000);
        }
        let service = world.connect();
        world.ask(service, &super::world::hello("service:gateway", "gateway"));
        let device = |(at, name): (usize, &&str)| Device {
            user: user(name),
            name: DeviceId::new(if at < USERS.len() { "phone" } else { "tablet" }).unwrap(),
            keeps: !at.is_multiple_of(3),
            held: BTreeMap::new(),
            nexts: BTreeMap::new(),
            line: None,
            stalled: false,
            asked: BTreeMap::new(),
            unanswered: Vec::new(),
        };
        let devices = USERS.iter().chain(&USERS).enumerate().map(device).collect();
        Self { world, random, devices, service, groups: Vec::new(), half_open: Vec::new(), seen: Seen::default() }
    }

    fn connect(&mut self, at: usize) {
        let peer = self.world.connect();
        self.world.set_reading(peer, Reading::Nothing);
        let device = &mut self.devices[at];
        let mut session = Session::new(self.world.now.monotonic_ms);
        let token = format!("user:{}", device.user);
        let (name, heartbeat_s) = (device.name.clone(), 15);
        session.hello(Hello { version_min: 1, version_max: 1, features: 0, heartbeat_s, device: name, token }).unwrap();
        device.nexts.clear();
        if device.keeps {
            let has: Vec<_> =
                device.held.iter().map(|(group, held)| GroupSeq { group: *group, seq: held.next - 1 }).collect();
            device.nexts = device.held.iter().map(|(group, held)| (*group, held.next)).collect();
            session.attach_device(&has).unwrap();
        } else {
            device.held.clear();
            session.attach_marks().unwrap();
        }
        device.stalled = false;
        device.asked.clear();
        for request in device.unanswered.clone() {
            let id = session.request(&request).unwrap();
            device.asked.insert(id, request);
        }
        device.line = Some((session, peer));
    }

    fn ask(&mut self, at: usize, request: Request) {
        let device = &mut self.devices[at];
        let Some((session, _)) = &mut device.line else { return };
        let id = session.request(&request).unwrap();
        if operation_of(&request).is_some() {
            device.unanswered.push(request.clone());
        }
        device.asked.insert(id, request);
    }

    fn some_group(&mut self) -> Option<GroupId> {
        (!self.groups.is_empty()).then(|| self.groups[self.random.random_range(0..self.groups.len())])
    }

    /// Moves up to so many bytes each way.
    fn pump(&mut self, at: usize, up: usize, down: usize) -> bool {
        let now_ms = self.world.now.monotonic_ms;
        let Some((session, peer)) = &mut self.devices[at].line else { return false };
        let peer = *peer;
        let mut moved = false;
        if self.world.is_open(peer) && self.world.hub.wants_bytes(self.world.key(peer)) {
            let bytes: Vec<u8> = session.output().iter().copied().take(up).collect();
            session.consume_output(bytes.len());
            moved |= !bytes.is_empty();
            if !bytes.is_empty() {
                self.world.send_bytes(peer, &bytes);
            }
        }
        let bytes = self.world.take_bytes(peer, down);
        self.world.turn();
        moved |= !bytes.is_empty();
        let Some((session, _)) = &mut self.devices[at].line else { unreachable!() };
        if !bytes.is_empty() {
            session.receive(now_ms, &bytes).expect("the hub is a server that a session understands");
        }
        let device = &mut self.devices[at];
        device.take_events(&mut self.seen);
        device.take_replies(&mut self.seen, &mut self.groups);
        if !self.world.is_open(peer) {
            let (session, _) = device.line.take().unwrap();
            if let Some(reason) = session.closing() {
                assert!(["SLOW", "TIMEOUT"].contains(&reason.name()), "{reason:?}");
                *self.seen.rare.entry("closed").or_default() += 1;
            }
        }
        moved
    }

    fn step(&mut self) {
        let at = self.random.random_range(0..self.devices.len());
        match self.random.random_range(0..100) {
            0..12 if self.devices[at].line.is_none() => self.connect(at),
            0..12 => self.devices[at].stalled ^= self.random.random_bool(0.5),
            12..15 => {
                if let Some((_, peer)) = self.devices[at].line.take() {
                    if self.random.random_bool(0.5) {
                        self.world.disconnect(peer);
                    } else {
                        // Nobody tells the server: the next connection of the device takes over.
                        *self.seen.rare.entry("half open").or_default() += 1;
                        self.half_open.push(peer);
                    }
                }
            }
            15..22 => {
                let members = USERS.iter().filter(|_| self.random.random_bool(0.6)).copied().collect::<Vec<_>>();
                let request = self.world.create_request("a group", &members);
                self.ask(at, request);
            }
            22..40 => {
                let bytes = if self.random.random_bool(0.3) { 20_000 } else { 10 };
                if let Some(group) = self.some_group() {
                    let request = self.world.send_request(group, &vec![7; bytes]);
                    self.ask(at, request);
                }
            }
            40..48 => self.step_membership(at),
            48..53 => {
                let device = &self.devices[at];
                let marks = device.nexts.iter().filter(|_| self.random.random_bool(0.5));
                let mark = |(group, next): (&GroupId, &u64)| Mark { group: *group, received: next - 1, read: 0 };
                let marks: Vec<_> = marks.map(mark).filter(|mark| mark.received > 0).collect();
                self.ask(at, Request::Acknowledge { marks });
            }
            53..56 => {
                if let Some(group) = self.some_group() {
                    let groups = vec![GroupSeq { group, seq: self.random.random_range(1..5) }];
                    self.ask(at, Request::History(HistoryRequest { groups, entries_max: 3, bytes_max: 0 }));
                }
            }
            56..58 => self.step_other_reads(at),
            58..64 => {
                for _ in 0..self.random.random_range(1..4) {
                    self.world.sync_one();
                }
                self.world.turn();
            }
            64..67 => self.world.apply_one(),
            67..70 => self.world.loads_held = self.random.random_bool(0.7),
            70..80 => _ = self.world.answer_one(),
            80..84 => {
                let ms = self.random.random_range(0..3_000);
                self.world.advance(ms);
                for device in &mut self.devices {
                    if let Some((session, _)) = &mut device.line {
                        let _ = session.handle_time(self.world.now.monotonic_ms);
                    }
                }
            }
            _ => {
                let (up, down) = (self.random.random_range(0..3_000), self.random.random_range(0..30_000));
                self.pump(at, up, if self.devices[at].stalled { 0 } else { down });
            }
        }
        for at in 0..self.devices.len() {
            if self.random.random_bool(0.2) && !self.devices[at].stalled {
                let (up, down) = (self.random.random_range(1..400), self.random.random_range(1..9_000));
                self.pump(at, up, down);
            }
        }
    }

    /// A change of a group's record, a whisper, or the like, by a device or by a service for its user.
    fn step_membership(&mut self, at: usize) {
        let Some(group) = self.some_group() else { return };
        let operation = self.world.operation();
        let some: Vec<UserId> = USERS.iter().filter(|_| self.random.random_bool(0.3)).map(|name| user(name)).collect();
        let one = user(USERS[self.random.random_range(0..USERS.len())]);
        let request = match self.random.random_range(0..20) {
            0..2 => Request::Leave { operation, group },
            2..7 => Request::Add { operation, group, members: some },
            7..11 => Request::Remove { operation, group, members: some },
            11..13 => Request::Rename { operation, group, title: format!("title {}", self.world.now.wall_ms).into() },
            13..15 => Request::Transfer { operation, group, owner: one },
            15 => Request::Dissolve { operation, group },
            _ => Request::Whisper { operation, group, to: some, body: [9; 9].into() },
        };
        if self.random.random_bool(0.2) {
            let user = self.devices[at].user.clone();
            self.world.ask_as(self.service, &request, &user);
            *self.seen.rare.entry("for a user").or_default() += 1;
        } else {
            self.ask(at, request);
        }
    }

    fn step_other_reads(&mut self, at: usize) {
        let Some(group) = self.some_group() else { return };
        let request = match self.random.random_range(0..4) {
            0 => Request::ListGroups { after: None, count_max: 3 },
            1 => Request::GetGroup { group, newer_than: self.random.random_range(0..4) },
            2 => Request::Readers { group, seq: self.random.random_range(0..3) },
            _ => Request::Signal { group, body: [1; 4].into() },
        };
        self.ask(at, request);
    }

    /// Everything that is under way arrives.
    fn drain(&mut self) {
        for round in 0..200 {
            self.world.answer_all();
            self.world.sync();
            let mut moved = false;
            for at in 0..self.devices.len() {
                while self.pump(at, usize::MAX, usize::MAX) {
                    moved = true;
                }
            }
            if !moved && round > 2 && self.world.model.queued() == 0 && self.world.held_loads() == 0 {
                return;
            }
            self.world.advance(200);
        }
        panic!("it never drains");
    }

    fn check(&self) {
        let model = &self.world.model;
        for device in &self.devices {
            assert!(device.asked.values().all(|request| operation_of(request).is_none()) || device.line.is_none());
            let Some((session, _)) = &device.line else { continue };
            let mine: BTreeSet<GroupId> =
                model.groups.iter().filter(|(_, kept)| kept.record.has(&device.user)).map(|(id, _)| *id).collect();
            let held: BTreeSet<GroupId> = device.held.keys().copied().collect();
            if device.keeps {
                assert_eq!(held, mine, "{} {} has exactly its groups", device.user, device.name.as_str());
            }
            for (id, held) in &device.held {
                let kept = &model.groups[id];
                let members = |record: &Record| record.members.iter().map(|m| m.user.clone()).collect::<Vec<_>>();
                assert_eq!(members(&held.record), members(&kept.record));
                assert_eq!((&held.record.title, &held.record.owner), (&kept.record.title, &kept.record.owner));
                let peer = device.line.as_ref().map(|(_, peer)| *peer).unwrap();
                let line = &self.world.lines[peer.0];
                let behind = self.world.hub.connections.find(line.key).unwrap().session().unwrap().behind.get(id);
                let state = (behind, line.audit.place(*id), session.group(*id).map(|view| (view.next(), view.head())));
                assert_eq!((held.record.version, held.next), (kept.record.version, kept.head() + 1), "{state:?}");
            }
            for view in session.groups().filter(|view| device.keeps || mine.contains(&view.group())) {
                let kept = &model.groups[&view.group()];
                assert!(view.members().eq(kept.record.members.iter().map(|member| &member.user)));
                assert_eq!((view.title(), view.version()), (&*kept.record.title, kept.record.version));
                assert_eq!((view.next(), view.head()), (kept.head() + 1, kept.head()));
            }
            for (group, next) in &device.nexts {
                let kept = &model.groups[group];
                assert!(!kept.record.has(&device.user) || *next == kept.head() + 1, "it has all of what it follows");
            }
        }
        for (user, group, seq) in &self.seen.entries {
            assert!(model.was_member(user, *group, *seq), "{user} saw entry {seq} of {group}");
        }
        for (user, group, floor) in &self.seen.cuts {
            let stays = &model.stays[&(user.clone(), *group)];
            assert!(stays.iter().skip(1).any(|(joined, _)| joined == floor), "{user} lost entries of {group}");
        }
        let mut effects = BTreeMap::new();
        for effect in &model.effects {
            let (Principal::User(user) | Principal::Service(user)) = &effect.principal;
            let by = effect.entry.by.as_ref();
            assert_eq!(by, matches!(effect.principal, Principal::Service(_)).then_some(user), "who acted is recorded");
            let place = (effect.group, effect.entry.seq);
            assert!(effects.insert((user.clone(), effect.operation), place).is_none(), "one effect per operation");
        }
        for (operation, place) in &self.seen.acknowledged {
            let unchanged = self.seen.may_change_nothing.contains(operation) && !effects.contains_key(operation);
            if unchanged {
                let entry = &model.groups[&place.0].log[usize::try_from(place.1).unwrap() - 1];
                assert!(entry.event.changes_record(), "where nothing changed, the answer is the version");
            } else {
                assert_eq!(effects.get(operation), Some(place), "what was acknowledged is there");
            }
        }
    }
}

fn play(seed: u64) -> Play {
    let mut play = Play::new(seed);
    for _ in 0..STEPS {
        play.step();
    }
    for device in &mut play.devices {
        device.stalled = false;
    }
    play.drain();
    for at in 0..play.devices.len() {
        if play.devices[at].line.is_none() {
            play.connect(at);
        }
    }
    play.drain();
    play.check();
    // One that never went on line is not taken over: what waits for it does so until it has been silent for too long.
    for peer in std::mem::take(&mut play.half_open) {
        if play.world.is_open(peer) {
            play.world.disconnect(peer);
        }
    }
    play.drain();
    play.world.hub.check_idle();
    play
}

/// Runs one life and says which one it was if it ends badly.
fn named(seed: u64) -> Play {
    std::panic::catch_unwind(|| play(seed)).unwrap_or_else(|_| panic!("the life with the seed {seed} went wrong"))
}

/// How many lives are run; `ROUNDTABLE_SEEDS` says otherwise for longer runs.
fn lives() -> u64 {
    std::env::var("ROUNDTABLE_SEEDS").ok().and_then(|text| text.parse().ok()).unwrap_or(1_000)
}

fn count_rare(rare: &mut BTreeMap<&'static str, usize>, play: &Play) {
    let counters = &play.world.hub.counters;
    let counted = [
        ("acknowledged", play.seen.acknowledged.len() as u64),
        ("cut", play.seen.cuts.len() as u64),
        ("evicted", counters.evicted),
        ("fell behind", counters.fallen_behind),
    ];
    for (what, count) in play.seen.rare.iter().map(|(what, count)| (*what, *count as u64)).chain(counted) {
        *rare.entry(what).or_default() += usize::try_from(count).unwrap();
    }
}

#[test]
fn whatever_happens_every_device_ends_with_what_storage_has() {
    let (lives, next) = (lives(), AtomicU64::new(0));
    let run = || {
        let mut rare = BTreeMap::new();
        loop {
            let seed = next.fetch_add(1, Ordering::Relaxed);
            if seed >= lives {
                return rare;
            }
            count_rare(&mut rare, &named(seed));
        }
    };
    let mut rare: BTreeMap<&str, usize> = BTreeMap::new();
    std::thread::scope(|scope| {
        let threads = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
        let runs: Vec<_> = (0..threads).map(|_| scope.spawn(run)).collect();
        for counted in runs.into_iter().map(|run| run.join().expect("the panic above names the seed")) {
            for (what, count) in counted {
                *rare.entry(what).or_default() += count;
            }
        }
    });
    println!("{rare:?}");
    let wanted = [
        "acknowledged",
        "another stay",
        "behind",
        "closed",
        "evicted",
        "fell behind",
        "for a user",
        "gone",
        "half open",
        "hidden",
        "signal",
    ];
    for what in wanted {
        assert!(rare.get(what).is_some_and(|count| *count > 3), "{what} is reached: {rare:?}");
    }
}

#[test]
fn the_same_inputs_give_the_same_outputs_byte_for_byte() {
    for seed in [3, 1_000_003] {
        let (first, second) = (named(seed), named(seed));
        assert_eq!(first.world.trace(), second.world.trace());
        assert_ne!(first.world.trace(), named(seed + 1).world.trace(), "the trace says something");
    }
}
