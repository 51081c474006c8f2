//! The conversation against a server that is played by hand: what is said again, in which order, and what is not.

use super::*;
use crate::group::{Entry, Event as LogEvent};
use crate::ids::{DeviceId, OperationId, Role};
use crate::wire::{Attach, Changed, Created, Deframer, GroupPacket, Kind, Limits, LogEntry, Push, Welcome};

fn user(name: &str) -> UserId {
    UserId::new(name).unwrap()
}

fn group(number: u8) -> GroupId {
    GroupId::from_bytes([number; 16]).unwrap()
}

fn operation(number: u8) -> OperationId {
    OperationId::from_bytes([number; 16]).unwrap()
}

fn send(number: u8) -> Request {
    Request::Send { operation: operation(number), group: group(1), body: [number].as_slice().into() }
}

fn done(number: u8, repeated: bool) -> Reply {
    let seq = u64::from(number);
    Reply::Changed(Kind::SendDone, Changed { group: group(1), seq, version: 1, repeated })
}

fn welcome() -> Reply {
    let limits =
        Limits { frame_bytes: 1, list_frame_bytes: 1, members: 1, body_bytes: 1, title_bytes: 1, in_flight: 1 };
    Reply::Welcome(Welcome {
        version: 1,
        connection: 1,
        server_time_ms: 0,
        heartbeat_s: 30,
        features: 0,
        user: user("bob"),
        role: Role::User,
        limits,
    })
}

/// A conversation of bob's, and the other side of its present connection.
struct Bench {
    conversation: Conversation,
    server: Deframer,
}

impl Bench {
    fn new() -> Self {
        let device = DeviceId::new("phone").unwrap();
        let hello =
            Hello { version_min: 1, version_max: 1, features: 0, heartbeat_s: 0, device, token: "t".to_owned() };
        let mut bench = Self { conversation: Conversation::new(Some(hello)), server: Deframer::default() };
        bench.connect();
        bench
    }

    /// Makes a connection up to the welcome.
    fn connect(&mut self) {
        self.begin();
        self.greet();
    }

    fn begin(&mut self) {
        self.server = Deframer::default();
        self.conversation.handle_connected(1).unwrap();
    }

    fn greet(&mut self) {
        let (id, request) = self.requests().remove(0);
        assert!(matches!(request, Request::Hello(_)), "{request:?}");
        self.reply(id, &welcome());
        assert_eq!(*self.conversation.standing(), Standing::Up);
    }

    fn requests(&mut self) -> Vec<(u32, Request)> {
        let output = self.conversation.session().output().to_vec();
        self.conversation.consume_output(output.len());
        self.server.feed(&output);
        let mut requests = Vec::new();
        while let Some(frame) = self.server.next_frame(FrameCaps::Client).unwrap() {
            let kind = Kind::from_number(frame.header.kind).unwrap();
            requests.push((frame.header.request_id, Request::decode(kind, frame.body).unwrap().unwrap()));
        }
        requests
    }

    fn said(&mut self) -> Vec<Request> {
        self.requests().into_iter().map(|(_, request)| request).collect()
    }

    fn reply(&mut self, id: u32, reply: &Reply) {
        let mut bytes = Vec::new();
        reply.encode_frame(&mut bytes, id);
        self.conversation.receive(1, &bytes).unwrap();
    }

    fn push(&mut self, push: &Push) {
        let mut bytes = Vec::new();
        push.encode_frame(&mut bytes);
        self.conversation.receive(1, &bytes).unwrap();
    }

    fn events(&mut self) -> Vec<Event> {
        std::iter::from_fn(|| self.conversation.poll_event()).collect()
    }
}

fn packet(number: u8) -> Push {
    Push::GroupPacket(GroupPacket {
        from: 2,
        group: group(number),
        version: 1,
        head: 1,
        created_at_ms: 5,
        owner: user("bob"),
        creator: user("bob"),
        title: String::new(),
        members: vec![user("bob")],
    })
}

fn message(seq: u64) -> Push {
    let event = LogEvent::Message { body: [7].as_slice().into() };
    let entry = LogEntry::Shown(Entry { seq, version: 1, at_ms: 7, sender: user("bob"), by: None, event });
    Push::Entry { group: group(1), entry }
}

#[test]
fn what_has_no_answer_is_said_again_in_order_under_the_same_operation_id() {
    let mut bench = Bench::new();
    let calls: Vec<CallId> = (1..=3).map(|number| bench.conversation.call(send(number), None).unwrap()).collect();
    let ids: Vec<u32> = bench.requests().iter().map(|(id, _)| *id).collect();
    bench.reply(ids[1], &done(2, false));
    assert_eq!(bench.conversation.poll_answer(), Some((calls[1], done(2, false))));
    bench.conversation.handle_disconnected();
    bench.connect();
    let again = bench.requests();
    let said: Vec<&Request> = again.iter().map(|(_, request)| request).collect();
    assert_eq!(said, [&send(1), &send(3)], "what was answered is not said again");
    bench.reply(again[0].0, &done(1, true));
    bench.reply(again[1].0, &done(3, false));
    assert_eq!(bench.conversation.poll_answer(), Some((calls[0], done(1, true))));
    assert_eq!(bench.conversation.poll_answer(), Some((calls[2], done(3, false))));
    assert_eq!(bench.conversation.unanswered(), 0);
}

#[test]
fn what_is_asked_without_a_connection_is_said_with_the_next_one() {
    let mut bench = Bench::new();
    bench.conversation.handle_disconnected();
    let call = bench.conversation.call(send(1), Some(user("alice"))).unwrap();
    assert!(!bench.conversation.was_said(call), "it surely has no effect");
    bench.begin();
    assert!(!bench.conversation.was_said(call), "nothing goes out before the welcome");
    bench.greet();
    assert!(bench.conversation.was_said(call));
    // As the user that it was asked for.
    let mut frame = Vec::new();
    send(1).encode_frame_as(&mut frame, 0, Some(&user("alice")));
    assert_eq!(bench.conversation.session().output()[24..], frame[24..]);
}

#[test]
fn an_answer_of_a_lost_connection_is_taken_if_it_was_read_and_the_call_is_over() {
    let mut bench = Bench::new();
    let call = bench.conversation.call(send(1), None).unwrap();
    let (id, _) = bench.requests().remove(0);
    bench.reply(id, &done(1, false));
    bench.conversation.handle_disconnected();
    bench.connect();
    assert_eq!(bench.said(), []);
    assert_eq!(bench.conversation.poll_answer(), Some((call, done(1, false))));
}

#[test]
fn who_gave_up_is_not_asked_for_again() {
    let mut bench = Bench::new();
    let call = bench.conversation.call(send(1), None).unwrap();
    bench.conversation.give_up(call);
    let (id, _) = bench.requests().remove(0);
    bench.reply(id, &done(1, false));
    assert_eq!(bench.conversation.poll_answer(), None);
    bench.conversation.handle_disconnected();
    bench.connect();
    assert_eq!(bench.said(), []);
}

#[test]
fn it_goes_on_line_again_with_what_it_has_then_asks_what_is_unanswered() {
    let mut bench = Bench::new();
    bench.conversation.attach_device(&[GroupSeq { group: group(9), seq: 4 }]);
    let (id, _) = bench.requests().remove(0);
    bench.reply(id, &Reply::Attached);
    bench.push(&packet(1));
    bench.push(&message(2));
    bench.conversation.call(send(1), None).unwrap();
    bench.conversation.acknowledge(&[Mark { group: group(1), received: 2, read: 1 }]).unwrap();
    bench.conversation.acknowledge(&[Mark { group: group(1), received: 1, read: 2 }]).unwrap();
    bench.requests();
    bench.conversation.handle_disconnected();
    bench.connect();
    let said = bench.said();
    let mark = Mark { group: group(1), received: 2, read: 2 };
    let held = vec![GroupSeq { group: group(1), seq: 2 }, GroupSeq { group: group(9), seq: 4 }];
    assert_eq!(
        said,
        [
            Request::Acknowledge { marks: vec![mark] },
            Request::Attach(Attach::Device { more: false, groups: held }),
            send(1)
        ]
    );
    // What the last connection told already is not told again.
    bench.push(&message(2));
    bench.push(&message(3));
    let events = bench.events();
    let told: Vec<u64> = events
        .iter()
        .filter_map(|event| if let Event::Entry { entry, .. } = event { Some(entry.seq()) } else { None })
        .collect();
    assert_eq!(told, [2, 3]);
    assert!(events.contains(&Event::Interrupted { reason: None }) && events.contains(&Event::Resumed));
}

#[test]
fn an_attach_without_an_answer_is_answered_by_the_next_connection() {
    let mut bench = Bench::new();
    let call = bench.conversation.attach_marks();
    bench.conversation.handle_disconnected();
    bench.connect();
    let requests = bench.requests();
    let [(id, Request::Attach(Attach::Marks))] = &requests[..] else { panic!("once: {requests:?}") };
    bench.reply(*id, &Reply::Attached);
    assert_eq!(bench.conversation.poll_answer(), Some((call, Reply::Attached)));
}

#[test]
fn after_going_on_line_by_marks_again_every_group_is_read_on_from_where_it_stood() {
    let mut bench = Bench::new();
    bench.conversation.attach_marks();
    let (id, _) = bench.requests().remove(0);
    bench.reply(id, &Reply::Attached);
    bench.push(&packet(1));
    bench.push(&message(2));
    bench.conversation.handle_disconnected();
    bench.connect();
    // Another device of the user may have acknowledged 3 meanwhile: the server would tell nothing of it. Asked before
    // the server has looked at the marks, it may still be a member, and no more when it looks: it would tell nothing.
    assert_eq!(bench.said(), [Request::Attach(Attach::Marks)]);
    bench.push(&Push::Ready);
    let said = bench.said();
    let [Request::History(history)] = &said[..] else { panic!("{said:?}") };
    assert_eq!(history.groups, [GroupSeq { group: group(1), seq: 3 }]);
}

#[test]
fn a_packet_that_begins_below_what_was_told_says_where_the_entries_go_on() {
    let mut bench = Bench::new();
    bench.conversation.attach_marks();
    // At the head by marks: no packet, only what comes.
    bench.push(&message(5));
    bench.conversation.handle_disconnected();
    bench.connect();
    bench.events();
    // A crash has set the marks back.
    bench.push(&packet(1));
    let events = bench.events();
    let [Event::Group { packet, .. }] = &events[..] else { panic!("{events:?}") };
    assert_eq!(packet.from, 6);
}

#[test]
fn signals_are_not_said_again() {
    let mut bench = Bench::new();
    let signal = Request::Signal { group: group(1), body: [1].as_slice().into() };
    bench.conversation.say_once(&signal, None).unwrap();
    assert_eq!(bench.said(), std::slice::from_ref(&signal));
    bench.conversation.handle_disconnected();
    bench.conversation.say_once(&signal, None).unwrap();
    bench.connect();
    assert_eq!(bench.said(), []);
}

#[test]
fn the_feed_goes_on_behind_the_last_item() {
    let mut bench = Bench::new();
    let item = |position| Push::FeedItem { position, group: group(1), seq: 1, sender: user("bob"), offline: vec![] };
    bench.conversation.call(Request::Feed { position: 0 }, None).unwrap();
    let (id, _) = bench.requests().remove(0);
    bench.reply(id, &Reply::FeedBegun { position: 40 });
    bench.push(&item(41));
    bench.conversation.handle_disconnected();
    bench.connect();
    assert_eq!(bench.said(), [Request::Feed { position: 41 }]);
    bench.push(&item(41));
    bench.push(&item(42));
    let told: Vec<u64> = bench
        .events()
        .iter()
        .filter_map(|event| if let Event::Feed { position, .. } = event { Some(*position) } else { None })
        .collect();
    assert_eq!(told, [41, 42], "each once");
}

#[test]
fn a_feed_that_cannot_go_on_on_the_next_connection_says_so_and_is_not_asked_for_again_by_itself() {
    let mut bench = Bench::new();
    bench.conversation.call(Request::Feed { position: 0 }, None).unwrap();
    let (id, _) = bench.requests().remove(0);
    bench.reply(id, &Reply::FeedBegun { position: 40 });
    bench.conversation.handle_disconnected();
    bench.connect();
    let requests = bench.requests();
    let [(id, Request::Feed { position: 40 })] = &requests[..] else { panic!("{requests:?}") };
    bench.events();
    let error = ErrorBody::new(ErrorCode::Truncated, 90, "");
    bench.reply(*id, &Reply::Error(error.clone()));
    assert_eq!(bench.events(), [Event::FeedEnded { error }]);
    bench.conversation.handle_disconnected();
    bench.connect();
    assert_eq!(bench.said(), []);
}

#[test]
fn a_feed_that_was_asked_for_and_not_begun_is_asked_for_once_on_the_next_connection() {
    let mut bench = Bench::new();
    bench.conversation.call(Request::Feed { position: 0 }, None).unwrap();
    let (id, _) = bench.requests().remove(0);
    bench.reply(id, &Reply::FeedBegun { position: 40 });
    bench.conversation.handle_disconnected();
    bench.conversation.call(Request::Feed { position: 50 }, None).unwrap();
    bench.connect();
    assert_eq!(bench.said(), [Request::Feed { position: 50 }]);
}

#[test]
fn why_a_connection_ended_says_whether_to_come_back() {
    let closed_for = |code| {
        let mut bench = Bench::new();
        bench.reply(0, &Reply::Error(ErrorBody::new(code, 0, "")));
        bench.conversation.handle_disconnected();
        bench.conversation.standing().clone()
    };
    assert_eq!(closed_for(ErrorCode::Slow), Standing::Down);
    assert_eq!(closed_for(ErrorCode::GoingAway), Standing::Down);
    assert!(matches!(closed_for(ErrorCode::AuthFailed), Standing::Over(_)));
    // Pushed out by another connection of the device: the two would push each other out for ever.
    let mut bench = Bench::new();
    bench.push(&Push::TakenOver);
    bench.conversation.handle_disconnected();
    assert!(matches!(bench.conversation.standing(), Standing::Over(reason) if reason.name() == "TAKEN_OVER"));
    // A hello that is refused.
    let mut bench = Bench::new();
    bench.conversation.handle_disconnected();
    bench.begin();
    let (id, _) = bench.requests().remove(0);
    bench.reply(id, &Reply::Error(ErrorBody::new(ErrorCode::TokenExpired, 0, "")));
    bench.conversation.handle_disconnected();
    assert!(matches!(bench.conversation.standing(), Standing::Over(reason) if reason.name() == "TOKEN_EXPIRED"));
    bench.conversation.set_token("another".to_owned());
    assert_eq!(*bench.conversation.standing(), Standing::Down, "with another token it may come back");
}

#[test]
fn what_is_too_large_is_refused_with_and_without_a_connection() {
    let mut bench = Bench::new();
    let body = vec![0; crate::limits::FRAME_BYTES_MAX].into();
    let request = Request::Send { operation: operation(1), group: group(1), body };
    let too_large = Err(TooLarge { max: crate::limits::FRAME_BYTES_MAX });
    assert_eq!(bench.conversation.call(request.clone(), None), too_large);
    bench.conversation.handle_disconnected();
    assert_eq!(bench.conversation.call(request, None), too_large);
    assert_eq!(bench.conversation.unanswered(), 0);
}

#[test]
fn a_create_that_was_made_is_heard_of_in_the_end() {
    let mut bench = Bench::new();
    let request = Request::Create { operation: operation(1), title: "t".into(), members: vec![user("alice")] };
    let call = bench.conversation.call(request, None).unwrap();
    for _ in 0..3 {
        bench.conversation.handle_disconnected();
        bench.connect();
    }
    let (id, _) = bench.requests().remove(0);
    let created = Created { group: group(1), seq: 1, version: 1, members: 2, pushed: 0, queued: 1, repeated: true };
    bench.reply(id, &Reply::Created(created));
    assert_eq!(bench.conversation.poll_answer(), Some((call, Reply::Created(created))));
}
