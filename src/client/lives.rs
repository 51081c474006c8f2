//! Random lives of one device, against a small model of a server that drops pushes, loses connections, deletes old
//! entries, and removes and adds the device's user again. In the end the device shows what the server has, and what it
//! was told has neither gap nor repetition.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use proptest::prelude::*;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

use super::groups::ends_membership;
use super::{Event, Session};
use crate::group::{Entry, Event as LogEvent, Member, Record, Succession};
use crate::ids::{DeviceId, GroupId, Role, UserId};
use crate::wire::{
    Attach, Deframer, ErrorBody, ErrorCode, FrameCaps, GroupHistory, GroupPacket, GroupSeq, GroupShown, Hello,
    HistoryOutcome, Kind, Limits, LogEntry, Mark, Push, Reply, Request, Welcome,
};

const GROUPS: u8 = 3;
const STEPS: usize = 300;
const PAGE: usize = 4;

fn user(name: &str) -> UserId {
    UserId::new(name).unwrap()
}

fn me() -> UserId {
    user("bob")
}

/// The user's membership in a group: since, and until.
#[derive(Clone, Copy, Debug)]
struct Span {
    joined: u64,
    until: Option<u64>,
}

/// A group as the server has it. Entries of a kind that this client does not know are there as hidden ones.
struct Kept {
    log: Vec<LogEntry>,
    record: Record,
    floor: u64,
    span: Option<Span>,
    received: u64,
}

impl Kept {
    fn head(&self) -> u64 {
        self.log.len() as u64
    }

    fn joined(&self) -> Option<u64> {
        self.span.filter(|span| span.until.is_none()).map(|span| span.joined)
    }

    fn packet(&self, from: u64) -> Push {
        Push::GroupPacket(GroupPacket::of(&self.record, self.head(), from))
    }
}

/// How a group stands on the connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Place {
    Live,
    /// Behind, and not told of it yet.
    Owed,
    Told,
}

#[derive(Default)]
struct Server {
    groups: BTreeMap<GroupId, Kept>,
    places: BTreeMap<GroupId, Place>,
    attached: bool,
    has: Vec<GroupSeq>,
    deframer: Deframer,
    output: VecDeque<u8>,
}

impl Server {
    fn push(&mut self, push: &Push) {
        let mut bytes = Vec::new();
        push.encode_frame(&mut bytes);
        self.output.extend(bytes);
    }

    fn reply(&mut self, id: u32, reply: &Reply) {
        let mut bytes = Vec::new();
        reply.encode_frame(&mut bytes, id);
        self.output.extend(bytes);
    }

    /// The connection is gone, with what was on its way.
    fn cut(&mut self) {
        self.places.clear();
        self.attached = false;
        self.has.clear();
        self.deframer = Deframer::default();
        self.output.clear();
    }

    /// Another user does something in a group; `drop`: the connection reads too slowly for it.
    fn act(&mut self, id: GroupId, event: Option<LogEvent>, drop: bool) {
        let Some(kept) = self.groups.get_mut(&id) else { return };
        let seq = kept.head() + 1;
        let before = kept.joined();
        let entry = if let Some(event) = event {
            let version = if event.changes_record() { seq } else { kept.record.version };
            let entry = Entry { seq, version, at_ms: 0, sender: kept.record.owner.clone(), by: None, event };
            kept.record.apply(&entry);
            match &entry.event {
                LogEvent::Whisper { .. } => LogEntry::Hidden { seq, version },
                _ => LogEntry::Shown(entry),
            }
        } else {
            // A change of a kind that is not known here.
            kept.record.title = Arc::from(format!("future {seq}"));
            kept.record.version = seq;
            LogEntry::Hidden { seq, version: seq }
        };
        kept.log.push(entry.clone());
        match (before, kept.record.has(&me())) {
            (None, true) => {
                kept.span = Some(Span { joined: seq, until: None });
                kept.received = 0;
                let packet = kept.packet(seq + 1);
                if self.attached {
                    self.places.insert(id, Place::Live);
                    self.push(&packet);
                }
            }
            (Some(joined), stays) => {
                if !stays {
                    kept.span = Some(Span { joined, until: Some(seq) });
                }
                self.tell(id, entry, stays, drop);
            }
            (None, false) => {}
        }
    }

    /// Tells the connection of an entry that its user may see.
    fn tell(&mut self, id: GroupId, entry: LogEntry, stays: bool, drop: bool) {
        let seq = entry.seq();
        match self.places.get(&id) {
            Some(Place::Live) if drop && stays => _ = self.places.insert(id, Place::Owed),
            Some(Place::Live) => self.push(&Push::Entry { group: id, entry }),
            Some(Place::Owed | Place::Told) if !stays => self.push(&Push::Gone { group: id, until: seq }),
            Some(Place::Owed | Place::Told) | None => {}
        }
        if !stays {
            self.places.remove(&id);
        }
    }

    /// The connection has room again: it is told what it is behind in.
    fn tell_behind(&mut self) {
        let owed: Vec<GroupId> =
            self.places.iter().filter(|(_, place)| **place == Place::Owed).map(|(group, _)| *group).collect();
        for group in owed {
            let head = self.groups[&group].head();
            self.places.insert(group, Place::Told);
            // Where it fell behind is not what the client goes by.
            self.push(&Push::Behind { group, from: head, head });
        }
    }

    fn purge(&mut self, id: GroupId, floor: u64) {
        let Some(kept) = self.groups.get_mut(&id) else { return };
        kept.floor = kept.floor.max(floor.min(kept.head() + 1));
        if kept.span.is_some_and(|span| span.until.is_some_and(|until| kept.floor > until)) {
            kept.span = None;
        }
    }

    fn take(&mut self, bytes: &[u8]) {
        let mut deframer = std::mem::take(&mut self.deframer);
        deframer.feed(bytes);
        while let Some(frame) = deframer.next_frame(FrameCaps::Client).unwrap() {
            let kind = Kind::from_number(frame.header.kind).unwrap();
            self.handle(frame.header.request_id, Request::decode(kind, frame.body).unwrap().unwrap());
        }
        self.deframer = deframer;
    }

    fn handle(&mut self, id: u32, request: Request) {
        match request {
            Request::Hello(_) => self.reply(id, &welcome()),
            Request::Attach(Attach::Marks) => {
                let marks = self.groups.iter().map(|(group, kept)| GroupSeq { group: *group, seq: kept.received });
                self.has = marks.collect();
                self.attach(id, false);
            }
            Request::Attach(Attach::Device { more, groups }) => {
                self.has.extend(groups);
                if more { self.reply(id, &Reply::Attached) } else { self.attach(id, true) }
            }
            Request::History(request) => {
                let parts = request.groups.iter().map(|at| (at.group, self.page(at))).collect::<Vec<_>>();
                let groups = parts.into_iter().map(|(group, outcome)| GroupHistory { group, outcome }).collect();
                self.reply(id, &Reply::HistoryPage { groups });
            }
            Request::GetGroup { group, newer_than } => {
                let reply = self.record(group, newer_than);
                self.reply(id, &reply);
            }
            Request::Acknowledge { marks } => {
                for Mark { group, received, .. } in marks {
                    let kept = self.groups.get_mut(&group).unwrap();
                    if kept.joined().is_some_and(|joined| received >= joined) {
                        kept.received = kept.received.max(received);
                    }
                }
            }
            other => panic!("{other:?}"),
        }
    }

    fn attach(&mut self, id: u32, is_device: bool) {
        self.attached = true;
        self.reply(id, &Reply::Attached);
        let has: BTreeMap<GroupId, u64> = self.has.drain(..).map(|at| (at.group, at.seq)).collect();
        for (group, kept) in &self.groups {
            let (group, head) = (*group, kept.head());
            let seq = has.get(&group).copied();
            let (place, push) = match kept.joined() {
                Some(joined) => match seq.filter(|seq| *seq >= joined) {
                    None => {
                        let live = joined == head;
                        (Some(if live { Place::Live } else { Place::Told }), Some(kept.packet(joined + 1)))
                    }
                    Some(seq) if seq < head => (Some(Place::Told), Some(Push::Behind { group, from: seq + 1, head })),
                    Some(_) => (Some(Place::Live), None),
                },
                None if is_device && seq.is_some() => {
                    let until = kept.span.and_then(|span| span.until).unwrap_or(0);
                    (None, Some(Push::Gone { group, until }))
                }
                None => (None, None),
            };
            self.places.extend(place.map(|place| (group, place)));
            let mut bytes = Vec::new();
            if let Some(push) = push {
                push.encode_frame(&mut bytes);
            }
            self.output.extend(bytes);
        }
        self.push(&Push::Ready);
    }

    fn page(&mut self, at: &GroupSeq) -> HistoryOutcome {
        let refuse = |code, detail| HistoryOutcome::Refused(ErrorBody::new(code, detail, ""));
        let Some(kept) = self.groups.get(&at.group) else { return refuse(ErrorCode::NotFound, 0) };
        let Some(span) = kept.span else { return refuse(ErrorCode::NotFound, 0) };
        let (lowest, last) = (kept.floor.max(span.joined), span.until.unwrap_or(kept.head()));
        if at.seq < lowest {
            return refuse(ErrorCode::Truncated, lowest);
        }
        if at.seq > last + 1 {
            return refuse(ErrorCode::Range, last);
        }
        let entries: Vec<LogEntry> =
            kept.log.iter().filter(|entry| (at.seq..=last).contains(&entry.seq())).take(PAGE).cloned().collect();
        let reached = entries.last().map_or(at.seq - 1, LogEntry::seq) == kept.head();
        let (head, floor) = (last, kept.floor);
        if reached && span.until.is_none() && self.places.get(&at.group) == Some(&Place::Told) {
            self.places.insert(at.group, Place::Live);
        }
        HistoryOutcome::Entries { head, floor, entries }
    }

    fn record(&self, group: GroupId, newer_than: u64) -> Reply {
        match self.groups.get(&group).filter(|kept| kept.joined().is_some()) {
            None => Reply::Error(ErrorBody::new(ErrorCode::NotFound, 0, "")),
            Some(kept) if kept.record.version <= newer_than => {
                Reply::GroupShown(GroupShown::Unchanged { group, version: kept.record.version })
            }
            Some(kept) => {
                let (head, floor, record) = (kept.head(), kept.floor, kept.record.clone());
                Reply::GroupShown(GroupShown::Record { head, floor, record })
            }
        }
    }
}

fn welcome() -> Reply {
    let limits =
        Limits { frame_bytes: 1, list_frame_bytes: 1, members: 1, body_bytes: 1, title_bytes: 1, in_flight: 1 };
    let (user, role) = (me(), Role::User);
    let welcome =
        Welcome { version: 1, connection: 1, server_time_ms: 0, heartbeat_s: 30, features: 0, user, role, limits };
    Reply::Welcome(welcome)
}

/// What the application behind the session has stored: the next seq of each group.
#[derive(Default)]
struct App {
    next: BTreeMap<GroupId, u64>,
}

impl App {
    fn take(&mut self, event: Event) {
        match event {
            Event::Group { packet, .. } => {
                let next = self.next.entry(packet.group).or_insert(packet.from);
                assert!(packet.from >= *next, "a packet of the stretch that is here already is not told again");
                *next = packet.from;
            }
            Event::Entry { group, entry } => {
                let next = self.next.entry(group).or_insert(entry.seq());
                assert_eq!(entry.seq(), *next, "ascending, each once, without a gap");
                *next += 1;
                if ends_membership(&entry, Some(&me())) {
                    self.next.remove(&group);
                }
            }
            Event::Truncated { group, floor } => _ = self.next.insert(group, floor),
            Event::Gone { group, .. } => _ = self.next.remove(&group),
            Event::Behind { .. } | Event::Ready => {}
            other => panic!("{other:?}"),
        }
    }

    fn positions(&self) -> Vec<GroupSeq> {
        self.next.iter().map(|(group, next)| GroupSeq { group: *group, seq: next - 1 }).collect()
    }
}

struct Life {
    random: StdRng,
    server: Server,
    session: Session,
    app: App,
    by_marks: bool,
    reached: BTreeMap<&'static str, u32>,
}

impl Life {
    fn new(seed: u64) -> Self {
        let mut random = StdRng::seed_from_u64(seed);
        let by_marks = random.random_bool(0.3);
        let (server, session, app) = (Server::default(), Session::new(0), App::default());
        let mut life = Self { random, server, session, app, by_marks, reached: BTreeMap::new() };
        for number in 1..=GROUPS {
            let group = GroupId::from_bytes([number; 16]).unwrap();
            let members = vec![user("alice"), me(), user("carol")];
            let event = LogEvent::Created { title: "t".into(), members };
            let entry = Entry { seq: 1, version: 1, at_ms: 0, sender: user("alice"), by: None, event };
            let record = Record::from_created(group, &entry).unwrap();
            let span = Some(Span { joined: 1, until: None });
            let kept = Kept { log: vec![LogEntry::Shown(entry)], record, floor: 1, span, received: 0 };
            life.server.groups.insert(group, kept);
        }
        life.begin();
        life
    }

    fn count(&mut self, what: &'static str) {
        *self.reached.entry(what).or_default() += 1;
    }

    fn hello(&mut self) {
        let device = DeviceId::new("phone").unwrap();
        let token = String::new();
        let hello = Hello { version_min: 1, version_max: 1, features: 0, heartbeat_s: 0, device, token };
        self.session.hello(hello).unwrap();
    }

    /// A program that starts, with what it has stored.
    fn begin(&mut self) {
        self.server.cut();
        self.session = Session::new(0);
        self.hello();
        if self.by_marks {
            self.app.next.clear();
            self.session.attach_marks().unwrap();
        } else {
            self.session.attach_device(&self.app.positions()).unwrap();
        }
    }

    fn reconnect(&mut self) {
        self.server.cut();
        self.session.reconnect(0);
        self.hello();
        self.session.attach_again().unwrap();
    }

    fn pump(&mut self, up: usize, down: usize) -> bool {
        let bytes: Vec<u8> = self.session.output().iter().copied().take(up).collect();
        self.session.consume_output(bytes.len());
        self.server.take(&bytes);
        let down = down.min(self.server.output.len());
        let answer: Vec<u8> = self.server.output.drain(..down).collect();
        if !answer.is_empty() {
            self.session.receive(0, &answer).unwrap();
        }
        !bytes.is_empty() || !answer.is_empty()
    }

    fn take_events(&mut self) {
        while let Some(event) = self.session.poll_event() {
            match &event {
                Event::Truncated { .. } => self.count("truncated"),
                Event::Gone { until: 0, .. } => self.count("forgotten"),
                Event::Gone { .. } => self.count("gone"),
                Event::Group { packet, .. } if packet.from > 2 => self.count("added again"),
                Event::Behind { .. } => self.count("behind"),
                _ => {}
            }
            self.app.take(event);
            if !self.by_marks {
                assert_eq!(self.session.positions(), self.app.positions(), "what is to be stored is what was told");
            }
        }
        if self.session.groups().any(|view| !view.is_current()) {
            self.count("doubtful");
        }
    }

    fn act(&mut self) {
        let group = GroupId::from_bytes([self.random.random_range(1..=GROUPS); 16]).unwrap();
        let record = &self.server.groups[&group].record;
        if record.dissolved {
            return;
        }
        let strangers: Vec<UserId> =
            ["bob", "carol", "dave", "erin"].map(user).into_iter().filter(|user| !record.has(user)).collect();
        let others: Vec<UserId> = record.members.iter().map(|member| member.user.clone()).collect();
        let others: Vec<UserId> = others.into_iter().filter(|user| *user != record.owner).collect();
        let (drop, body) = (self.random.random_bool(0.15), Arc::from(&b"x"[..]));
        let mut pick = |users: &[UserId]| users.get(self.random.random_range(0..users.len().max(1))).cloned();
        let (stranger, other) = (pick(&strangers), pick(&others));
        let event = match (self.random.random_range(0..100), stranger, other) {
            (0..15, Some(stranger), _) => Some(LogEvent::Added { members: vec![stranger] }),
            (15..25, _, Some(other)) => Some(LogEvent::Removed { members: vec![other] }),
            (25..35, ..) => Some(LogEvent::Renamed { title: format!("t{}", self.random.random::<u8>()).into() }),
            (35..40, _, Some(other)) => Some(LogEvent::Transferred { owner: other }),
            (40..45, ..) => None,
            (45..60, ..) => Some(LogEvent::Whisper { to: Vec::new(), body }),
            (60, _, Some(owner)) => Some(LogEvent::Left { succession: Succession::Passed { owner } }),
            _ => Some(LogEvent::Message { body }),
        };
        self.server.act(group, event, drop);
    }

    fn step(&mut self) {
        match self.random.random_range(0..100) {
            0..45 => self.act(),
            45..55 => self.server.tell_behind(),
            55..62 => {
                let group = GroupId::from_bytes([self.random.random_range(1..=GROUPS); 16]).unwrap();
                let head = self.server.groups[&group].head();
                let floor = if self.random.random_bool(0.4) { head + 1 } else { self.random.random_range(1..=head) };
                self.server.purge(group, floor);
            }
            62..66 => self.reconnect(),
            66..68 => {
                self.take_events();
                self.begin();
            }
            68..72 if self.by_marks => {
                let marks = self.app.positions().into_iter();
                let marks = marks.map(|at| Mark { group: at.group, received: at.seq, read: 0 }).collect();
                self.session.request(&Request::Acknowledge { marks }).unwrap();
            }
            _ => {
                let (up, down) = (self.random.random_range(0..200), self.random.random_range(0..300));
                self.pump(up, down);
            }
        }
        if self.random.random_bool(0.3) {
            self.take_events();
        }
    }

    fn finish(&mut self) {
        for _ in 0..3 {
            self.server.tell_behind();
            while self.pump(usize::MAX, usize::MAX) {}
        }
        self.take_events();
    }

    fn check(&self) {
        for (group, kept) in &self.server.groups {
            let Some(view) = self.session.group(*group) else {
                // By marks, a group that nothing was missing in is not told.
                assert!(kept.joined().is_none() || self.by_marks, "{group} is shown: {:?}", kept.record);
                continue;
            };
            assert!(kept.joined().is_some(), "{group} is not shown any more");
            let members = |record: &Record| record.members.iter().map(|m: &Member| m.user.clone()).collect::<Vec<_>>();
            assert!(view.is_current());
            assert_eq!(view.members().cloned().collect::<Vec<_>>(), members(&kept.record));
            assert_eq!((view.title(), view.owner()), (&*kept.record.title, &kept.record.owner));
            assert_eq!((view.version(), view.head()), (kept.record.version, kept.head()));
            assert_eq!(view.next(), kept.head() + 1, "all of it was told");
            assert_eq!(self.app.next.get(group), Some(&view.next()), "and all that was told was taken");
        }
    }
}

fn live(seed: u64) -> BTreeMap<&'static str, u32> {
    let mut life = Life::new(seed);
    for _ in 0..STEPS {
        life.step();
    }
    life.finish();
    life.check();
    life.reached
}

proptest! {
    #[test]
    fn whatever_is_missed_the_device_ends_with_what_the_server_has(seed: u64) {
        live(seed);
    }
}

#[test]
fn lives_reach_what_they_are_about() {
    let mut reached: BTreeMap<&str, u32> = BTreeMap::new();
    for seed in 0..100 {
        for (what, count) in live(seed) {
            *reached.entry(what).or_default() += count;
        }
    }
    for what in ["truncated", "forgotten", "gone", "added again", "behind", "doubtful"] {
        assert!(reached.get(what).is_some_and(|count| *count > 10), "{what}: {reached:?}");
    }
}
