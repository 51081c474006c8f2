//! The session against frames that a server could send.

use std::sync::Arc;

use super::*;
use crate::client::Event;
use crate::group::{Entry, Event as LogEvent, Member, Record, Succession};
use crate::ids::{DeviceId, Role, UserId};
use crate::limits;
use crate::wire::{ErrorCode, GroupHistory, GroupPacket, GroupShown, HistoryOutcome, Limits, LogEntry};

fn user(name: &str) -> UserId {
    UserId::new(name).unwrap()
}

fn group(number: u8) -> GroupId {
    GroupId::from_bytes([number; 16]).unwrap()
}

fn entry(seq: u64, version: u64, sender: &str, event: LogEvent) -> LogEntry {
    LogEntry::Shown(Entry { seq, version, at_ms: 7, sender: user(sender), by: None, event })
}

fn message(seq: u64) -> LogEntry {
    entry(seq, 1, "alice", LogEvent::Message { body: Arc::from(seq.to_string().as_bytes()) })
}

fn packet(number: u8, from: u64, head: u64) -> Push {
    Push::GroupPacket(GroupPacket {
        from,
        group: group(number),
        version: 1,
        head,
        created_at_ms: 5,
        owner: user("alice"),
        creator: user("alice"),
        title: "lunch".to_owned(),
        members: vec![user("alice"), user("bob")],
    })
}

fn page(head: u64, floor: u64, entries: Vec<LogEntry>) -> Reply {
    let outcome = HistoryOutcome::Entries { head, floor, entries };
    Reply::HistoryPage { groups: vec![GroupHistory { group: group(1), outcome }] }
}

fn refused(code: ErrorCode, detail: u64) -> Reply {
    let outcome = HistoryOutcome::Refused(ErrorBody::new(code, detail, "no"));
    Reply::HistoryPage { groups: vec![GroupHistory { group: group(1), outcome }] }
}

/// A session of bob's that has its welcome, and the other side of it.
struct Bench {
    session: Session,
    server: Deframer,
}

impl Bench {
    fn new() -> Self {
        let mut bench = Self { session: Session::new(0), server: Deframer::default() };
        let device = DeviceId::new("phone").unwrap();
        let hello =
            Hello { version_min: 1, version_max: 1, features: 0, heartbeat_s: 0, device, token: "t".to_owned() };
        bench.session.hello(hello).unwrap();
        let (id, request) = bench.requests().pop().unwrap();
        assert!(matches!(request, Request::Hello(_)));
        let limits =
            Limits { frame_bytes: 1, list_frame_bytes: 1, members: 1, body_bytes: 1, title_bytes: 1, in_flight: 1 };
        let welcome = Welcome {
            version: 1,
            connection: 1,
            server_time_ms: 0,
            heartbeat_s: 30,
            features: 0,
            user: user("bob"),
            role: Role::User,
            limits,
        };
        bench.reply(id, &Reply::Welcome(welcome)).unwrap();
        assert!(matches!(bench.session.poll_reply(), Some((_, Reply::Welcome(_)))));
        bench
    }

    fn requests(&mut self) -> Vec<(u32, Request)> {
        self.server.feed(self.session.output());
        self.session.consume_output(self.session.output().len());
        let mut requests = Vec::new();
        while let Some(frame) = self.server.next_frame(FrameCaps::Client).unwrap() {
            let kind = Kind::from_number(frame.header.kind).unwrap();
            requests.push((frame.header.request_id, Request::decode(kind, frame.body).unwrap().unwrap()));
        }
        requests
    }

    fn push(&mut self, push: &Push) -> Result<(), SessionError> {
        let mut bytes = Vec::new();
        push.encode_frame(&mut bytes);
        self.session.receive(1, &bytes)
    }

    fn entry(&mut self, entry: LogEntry) {
        self.push(&Push::Entry { group: group(1), entry }).unwrap();
    }

    fn reply(&mut self, id: u32, reply: &Reply) -> Result<(), SessionError> {
        let mut bytes = Vec::new();
        reply.encode_frame(&mut bytes, id);
        self.session.receive(1, &bytes)
    }

    fn events(&mut self) -> Vec<Event> {
        std::iter::from_fn(|| self.session.poll_event()).collect()
    }

    fn told(&mut self) -> Vec<u64> {
        self.events()
            .iter()
            .filter_map(|event| if let Event::Entry { entry, .. } = event { Some(entry.seq()) } else { None })
            .collect()
    }

    /// The one request for history that is under way, and the seq it asks from.
    fn history(&mut self) -> (u32, u64) {
        let requests = self.requests();
        let [(id, Request::History(history))] = &requests[..] else { panic!("one history request: {requests:?}") };
        assert_eq!(history.groups.len(), 1);
        (*id, history.groups[0].seq)
    }
}

#[test]
fn a_group_is_shown_from_its_packet_alone() {
    let mut bench = Bench::new();
    let mut frame = Vec::new();
    packet(1, 2, 1).encode_frame(&mut frame);
    bench.session.receive(1, &frame).unwrap();
    let Some(Event::Group { packet, frame: tapped }) = bench.session.poll_event() else { panic!("a group") };
    assert_eq!(tapped, frame, "the frame as it came");
    assert_eq!(packet.members, [user("alice"), user("bob")]);
    assert!(bench.requests().is_empty(), "nothing is asked back");
    let view = bench.session.group(group(1)).unwrap();
    assert_eq!(
        (view.title(), view.owner().as_str(), view.version(), view.head(), view.next()),
        ("lunch", "alice", 1, 1, 2)
    );
    assert_eq!(view.members().cloned().collect::<Vec<_>>(), [user("alice"), user("bob")]);
    assert_eq!(bench.session.groups().count(), 1);
}

/// Found by fuzzing: such a packet showed a group with nothing up to a seq that it did not have.
#[test]
fn a_packet_that_starts_beyond_its_own_head_shows_no_group_beyond_its_head() {
    let mut bench = Bench::new();
    let mut frame = Vec::new();
    packet(1, 2, 1).encode_frame(&mut frame);
    packet(1, 9, 3).encode_frame(&mut frame);
    bench.session.receive(1, &frame).unwrap();
    let view = bench.session.group(group(1)).unwrap();
    assert_eq!((view.next(), view.head()), (9, 8));
}

/// Found by fuzzing: such a packet made the client wait for an entry that no log has.
#[test]
fn a_packet_that_starts_at_0_is_read_on_from_1() {
    let mut bench = Bench::new();
    let mut frame = Vec::new();
    packet(1, 0, 3).encode_frame(&mut frame);
    bench.session.receive(1, &frame).unwrap();
    assert_eq!(bench.history().1, 1);
}

#[test]
fn bytes_may_be_cut_anywhere() {
    let mut bytes = Vec::new();
    packet(1, 2, 1).encode_frame(&mut bytes);
    for seq in 2..5 {
        Push::Entry { group: group(1), entry: message(seq) }.encode_frame(&mut bytes);
    }
    Push::Ready.encode_frame(&mut bytes);
    let mut bench = Bench::new();
    for byte in bytes {
        bench.session.receive(1, &[byte]).unwrap();
    }
    let events = bench.events();
    assert_eq!(events.len(), 5);
    assert_eq!(events.last(), Some(&Event::Ready));
}

#[test]
fn entries_that_were_told_are_dropped() {
    let mut bench = Bench::new();
    bench.push(&packet(1, 2, 1)).unwrap();
    for seq in [1, 2, 2, 1, 3] {
        bench.entry(message(seq));
    }
    assert_eq!(bench.told(), [2, 3]);
    assert!(bench.requests().is_empty());
}

#[test]
fn what_a_packet_lacks_is_read_page_by_page() {
    let mut bench = Bench::new();
    bench.push(&packet(1, 2, 5)).unwrap();
    let (id, from) = bench.history();
    assert_eq!(from, 2);
    bench.reply(id, &page(5, 1, vec![message(2), message(3)])).unwrap();
    assert_eq!(bench.told(), [2, 3]);
    let (id, from) = bench.history();
    assert_eq!(from, 4);
    bench.reply(id, &page(5, 1, vec![message(4), message(5)])).unwrap();
    assert_eq!(bench.told(), [4, 5]);
    assert!(bench.requests().is_empty());
    assert_eq!(bench.session.group(group(1)).unwrap().next(), 6);
}

#[test]
fn a_gap_is_closed_and_what_came_behind_it_is_told_once() {
    let mut bench = Bench::new();
    bench.push(&packet(1, 2, 1)).unwrap();
    bench.entry(message(4));
    assert_eq!(bench.told(), [0; 0]);
    let (id, from) = bench.history();
    assert_eq!(from, 2);
    // Another one comes while the answer is under way: no second request, but the page does not reach it.
    bench.entry(message(5));
    assert!(bench.requests().is_empty());
    bench.reply(id, &page(4, 1, vec![message(2), message(3), message(4)])).unwrap();
    let (id, from) = bench.history();
    assert_eq!(from, 5);
    bench.reply(id, &page(5, 1, vec![message(5)])).unwrap();
    assert_eq!(bench.told(), [2, 3, 4, 5]);
}

#[test]
fn behind_is_read_from_where_the_device_is() {
    let mut bench = Bench::new();
    bench.session.attach_device(&[GroupSeq { group: group(1), seq: 3 }]).unwrap();
    assert!(matches!(&bench.requests()[..], [(_, Request::Attach(Attach::Device { more: false, .. }))]));
    bench.push(&Push::Behind { group: group(1), from: 4, head: 4 }).unwrap();
    let (id, from) = bench.history();
    assert_eq!(from, 4);
    bench.reply(id, &page(4, 1, vec![message(4)])).unwrap();
    assert_eq!(bench.told(), [4]);
    // The group is known by its entries alone: its record is fetched, once.
    let requests = bench.requests();
    let [(id, Request::GetGroup { newer_than: 0, .. })] = &requests[..] else { panic!("{requests:?}") };
    let record = Record {
        group: group(1),
        title: "t".into(),
        owner: user("alice"),
        creator: user("alice"),
        created_at_ms: 1,
        members: vec![Member { user: user("alice"), joined: 1 }],
        version: 1,
        dissolved: false,
    };
    bench.reply(*id, &Reply::GroupShown(GroupShown::Record { head: 4, floor: 1, record })).unwrap();
    assert_eq!(bench.session.group(group(1)).unwrap().title(), "t");
    assert!(bench.requests().is_empty());
}

#[test]
fn a_moved_floor_is_told_and_reading_goes_on_from_it() {
    let mut bench = Bench::new();
    bench.push(&packet(1, 2, 9)).unwrap();
    let (id, _) = bench.history();
    bench.reply(id, &refused(ErrorCode::Truncated, 8)).unwrap();
    assert!(bench.events().contains(&Event::Truncated { group: group(1), floor: 8 }));
    let requests = bench.requests();
    // A change below the floor would show in no entry that is left: the record is asked for as well.
    let [(id, Request::History(history)), (_, Request::GetGroup { newer_than: 1, .. })] = &requests[..] else {
        panic!("{requests:?}")
    };
    let (id, from) = (*id, history.groups[0].seq);
    assert_eq!(from, 8);
    bench.reply(id, &page(9, 8, vec![message(8), message(9)])).unwrap();
    assert_eq!(bench.told(), [8, 9]);
}

#[test]
fn a_change_that_was_purged_makes_the_record_be_fetched() {
    let mut bench = Bench::new();
    bench.push(&packet(1, 2, 1)).unwrap();
    let body = Arc::from(&b"x"[..]);
    bench.entry(entry(2, 1, "alice", LogEvent::Message { body: Arc::clone(&body) }));
    assert!(bench.requests().is_empty());
    bench.push(&Push::Behind { group: group(1), from: 3, head: 9 }).unwrap();
    let (id, _) = bench.history();
    bench.reply(id, &page(9, 9, vec![entry(9, 7, "alice", LogEvent::Message { body })])).unwrap();
    let requests = bench.requests();
    assert!(matches!(&requests[..], [(_, Request::GetGroup { newer_than: 1, .. })]), "{requests:?}");
}

#[test]
fn a_refusal_of_a_place_that_pushes_went_past_is_asked_about_again_from_there() {
    let mut bench = Bench::new();
    bench.push(&packet(1, 2, 3)).unwrap();
    let (id, from) = bench.history();
    assert_eq!(from, 2);
    bench.entry(message(2));
    bench.entry(message(3));
    assert_eq!(bench.told(), [2, 3]);
    bench.reply(id, &refused(ErrorCode::Truncated, 3)).unwrap();
    assert_eq!(bench.events(), [], "nothing of it is missing here");
    assert_eq!(bench.history().1, 4);
}

#[test]
fn a_refused_page_is_told_and_not_asked_for_again_by_itself() {
    let mut bench = Bench::new();
    bench.push(&packet(1, 2, 3)).unwrap();
    let (id, _) = bench.history();
    bench.reply(id, &refused(ErrorCode::Damaged, 0)).unwrap();
    assert!(bench.events().iter().any(|event| matches!(event, Event::Unreadable { .. })));
    assert!(bench.requests().is_empty());
    bench.entry(message(4));
    assert_eq!(bench.history().1, 2);
}

#[test]
fn a_page_that_brings_nothing_ends_the_connection_instead_of_asking_for_ever() {
    let mut bench = Bench::new();
    bench.push(&packet(1, 2, 3)).unwrap();
    let (id, _) = bench.history();
    assert_eq!(bench.reply(id, &page(3, 1, Vec::new())), Err(SessionError::NoProgress));
}

#[test]
fn changes_of_the_record_are_followed() {
    let mut bench = Bench::new();
    bench.push(&packet(1, 2, 1)).unwrap();
    bench.entry(entry(2, 2, "alice", LogEvent::Added { members: vec![user("carol")] }));
    bench.entry(entry(3, 3, "alice", LogEvent::Renamed { title: "dinner".into() }));
    bench.entry(entry(4, 4, "alice", LogEvent::Left { succession: Succession::Passed { owner: user("bob") } }));
    let view = bench.session.group(group(1)).unwrap();
    assert_eq!((view.title(), view.owner(), view.version()), ("dinner", &user("bob"), 4));
    assert_eq!(view.members().cloned().collect::<Vec<_>>(), [user("bob"), user("carol")]);
    bench.entry(entry(5, 5, "bob", LogEvent::Left { succession: Succession::Passed { owner: user("carol") } }));
    assert!(bench.session.group(group(1)).is_none(), "bob left: the list no longer shows the group");
    assert!(bench.requests().is_empty());
}

#[test]
fn who_is_gone_is_told_its_last_entries_first() {
    let mut bench = Bench::new();
    bench.push(&packet(1, 2, 1)).unwrap();
    bench.events();
    bench.push(&Push::Gone { group: group(1), until: 3 }).unwrap();
    assert_eq!(bench.events(), []);
    let (id, from) = bench.history();
    assert_eq!(from, 2);
    bench.reply(id, &page(3, 1, vec![message(2), message(3)])).unwrap();
    let events = bench.events();
    assert_eq!(events.last(), Some(&Event::Gone { group: group(1), until: 3 }));
    assert_eq!(events.len(), 3);
    assert_eq!(bench.session.groups().count(), 0);
    bench.push(&Push::Gone { group: group(2), until: 0 }).unwrap();
    assert_eq!(bench.events(), [Event::Gone { group: group(2), until: 0 }]);
}

#[test]
fn many_groups_behind_are_asked_for_together_within_bounds() {
    let mut bench = Bench::new();
    let mut bytes = Vec::new();
    for number in 1..=200 {
        packet(number, 2, 3).encode_frame(&mut bytes);
    }
    bench.session.receive(1, &bytes).unwrap();
    let requests = bench.requests();
    let sizes: Vec<usize> = requests
        .iter()
        .map(|(_, request)| if let Request::History(history) = request { history.groups.len() } else { 0 })
        .collect();
    assert_eq!(sizes, [limits::HISTORY_GROUPS_MAX, 64, 64, 8]);
}

#[test]
fn answers_find_their_requests() {
    let mut bench = Bench::new();
    let first = bench.session.request(&Request::Ping).unwrap();
    let second = bench.session.request(&Request::Stats).unwrap();
    let ids: Vec<u32> = bench.requests().iter().map(|(id, _)| *id).collect();
    bench.reply(ids[1], &Reply::Error(ErrorBody::new(ErrorCode::Forbidden, 0, "no"))).unwrap();
    bench.reply(ids[0], &Reply::Pong { server_time_ms: 1, ready: true }).unwrap();
    bench.reply(77, &Reply::Attached).unwrap();
    assert!(matches!(bench.session.poll_reply(), Some((id, Reply::Error(_))) if id == second));
    assert!(matches!(bench.session.poll_reply(), Some((id, Reply::Pong { .. })) if id == first));
    assert!(bench.session.poll_reply().is_none(), "nobody waits for an unknown answer");
    bench.reply(0, &Reply::Error(ErrorBody::new(ErrorCode::Slow, 9, "slow"))).unwrap();
    assert_eq!(bench.session.closing().map(ErrorBody::name), Some("SLOW"));
}

#[test]
fn a_heartbeat_goes_out_when_nothing_else_did_and_silence_is_noticed() {
    let mut bench = Bench::new();
    let due = bench.session.deadline_ms().unwrap();
    bench.session.handle_time(due - 1).unwrap();
    assert!(bench.requests().is_empty());
    bench.session.handle_time(due).unwrap();
    assert!(matches!(&bench.requests()[..], [(_, Request::Ping)]));
    assert_eq!(bench.session.handle_time(75_000), Ok(()));
    assert_eq!(bench.session.handle_time(75_001), Err(SessionError::Silent));
}

#[test]
fn strange_bytes_are_named() {
    assert_eq!(Bench::new().session.receive(1, b"HTTP/1.1 400"), Err(SessionError::Frame(FrameError::Magic)));
    let mut bytes = Vec::new();
    Request::Ping.encode_frame(&mut bytes, 1);
    assert_eq!(Bench::new().session.receive(1, &bytes), Err(SessionError::Unexpected { kind: Kind::Ping.number() }));
    let mut damaged = Vec::new();
    packet(1, 2, 1).encode_frame(&mut damaged);
    *damaged.last_mut().unwrap() ^= 1;
    assert_eq!(Bench::new().session.receive(1, &damaged), Err(SessionError::Frame(FrameError::Crc)));
}

#[test]
fn a_request_over_the_cap_is_not_sent() {
    let mut bench = Bench::new();
    let operation = crate::ids::OperationId::from_bytes([1; 16]).unwrap();
    let body: Arc<[u8]> = vec![0; limits::FRAME_BYTES_MAX].into();
    let outcome = bench.session.request(&Request::Send { operation, group: group(1), body });
    assert_eq!(outcome, Err(TooLarge { max: limits::FRAME_BYTES_MAX }));
    assert!(bench.session.output().is_empty());
}
