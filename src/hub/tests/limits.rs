//! What a peer gets that is too much, too slow, or wrong.

use super::world::requests::history_request;
use super::world::{Peer, Reading, World, hello};
use crate::hub::connection::CLOSE_LINGER_MS;
use crate::ids::GroupId;
use crate::limits::{
    FRAME_STALL_MS, IN_FLIGHT_MAX, MALFORMED_PER_MINUTE_MAX, OUTPUT_BYTES_HARD, OUTPUT_BYTES_UNAUTHENTICATED,
    OUTPUT_STALL_MS, REQUEST_BYTES_SOFT,
};
use crate::wire::{Header, Kind, Reply, Request, encode_frame, flags};

/// A group whose log is long enough for a connection to be asked to take more than the hard limit.
fn with_long_log() -> (World, GroupId) {
    let mut world = World::new();
    let alice = world.open("alice", "phone");
    let group = world.create(alice, "", &["bob"]).group;
    for _ in 0..4 {
        world.send(alice, group, &vec![7; 60_000]);
    }
    (world, group)
}

fn raw(world: &mut World, peer: Peer, kind: Kind, flags: u8, body: &[u8]) -> u32 {
    let id = world.next_request_id(peer);
    let mut frame = Vec::new();
    encode_frame(&mut frame, kind, 0, id, |writer| writer.raw(body));
    Header::seal(&mut frame, 0, kind, flags, id);
    world.send_bytes(peer, &frame);
    id
}

#[test]
fn above_sixty_four_requests_in_flight_reading_pauses_and_goes_on_with_the_first_answer() {
    let mut world = World::new();
    let alice = world.open("alice", "phone");
    world.loads_held = true;
    let absent = GroupId::from_bytes([9; 16]).unwrap();
    let sends: Vec<_> = (0..IN_FLIGHT_MAX - 1).map(|_| world.send_request(absent, b"hi")).collect();
    let mut ids = world.ask_all(alice, &sends);
    assert!(world.hub.wants_bytes(world.key(alice)), "one is left");
    let requests = [world.send_request(absent, b"hi"), Request::Ping, world.send_request(absent, b"hi")];
    ids.extend(world.ask_all(alice, &requests));
    assert!(!world.hub.wants_bytes(world.key(alice)));
    assert!(world.got(alice).is_empty(), "the ping behind the limit is not answered yet");
    world.answer_all();
    assert!(world.hub.wants_bytes(world.key(alice)));
    for id in ids {
        world.reply(alice, id);
    }
    world.hub.check_idle();
}

#[test]
fn acknowledgements_are_not_in_flight() {
    let (mut world, group) = with_long_log();
    let bob = world.open("bob", "phone");
    for _ in 0..3 * IN_FLIGHT_MAX {
        world.acknowledge(bob, group, 3);
    }
    assert!(world.hub.wants_bytes(world.key(bob)));
    world.hub.check_idle();
}

#[test]
fn a_connection_that_waits_for_the_server_is_not_closed_for_its_silence() {
    let mut world = World::new();
    let alice = world.open("alice", "phone");
    world.loads_held = true;
    let absent = GroupId::from_bytes([9; 16]).unwrap();
    let shows: Vec<_> = (0..IN_FLIGHT_MAX).map(|_| Request::GetGroup { group: absent, newer_than: 0 }).collect();
    world.ask_all(alice, &shows);
    assert!(!world.hub.wants_bytes(world.key(alice)));
    world.advance(100_000);
    assert!(world.is_open(alice), "it may have sent what nobody reads");
    world.answer_all();
    assert!(world.is_open(alice));
    world.advance(74_999);
    assert!(world.is_open(alice));
    world.advance(1);
    world.turn();
    assert_eq!(world.closed_with(alice), "TIMEOUT");
}

#[test]
fn a_malformed_body_is_told_and_the_tenth_in_a_minute_closes() {
    let mut world = World::new();
    let alice = world.open("alice", "phone");
    for _ in 0..2 {
        for _ in 1..MALFORMED_PER_MINUTE_MAX {
            let id = raw(&mut world, alice, Kind::Send, 0, b"short");
            assert_eq!(world.refusal(alice, id).name(), "MALFORMED");
        }
        assert!(world.is_open(alice));
        world.advance(60_000);
    }
    for _ in 0..MALFORMED_PER_MINUTE_MAX {
        raw(&mut world, alice, Kind::Send, 0, b"short");
    }
    assert_eq!(world.closed_with(alice), "MALFORMED");
}

#[test]
fn kinds_and_flags_that_are_not_served_are_refused_and_the_connection_lives() {
    let mut world = World::new();
    let alice = world.open("alice", "phone");
    for reserved in [0x02, 0x80, 0x80 | flags::AS_USER] {
        let id = raw(&mut world, alice, Kind::Ping, reserved, b"");
        assert_eq!(world.refusal(alice, id).name(), "UNKNOWN_KIND");
    }
    let mut frame = Vec::new();
    encode_frame(&mut frame, Kind::Ping, 0, 999, |_| {});
    frame[6..8].copy_from_slice(&0x3abc_u16.to_be_bytes());
    let crc = crc32fast::hash(&frame[..20]);
    frame[20..24].copy_from_slice(&crc.to_be_bytes());
    world.send_bytes(alice, &frame);
    assert_eq!(world.refusal(alice, 999).name(), "UNKNOWN_KIND");
    let id = world.ask(alice, &Request::Ping);
    assert!(matches!(world.reply(alice, id), Reply::Pong { .. }));
}

#[test]
fn over_the_bound_on_all_buffers_the_largest_debtor_goes_whatever_its_debt_is_made_of() {
    let mut world = World::new();
    let (alice, bob, carol) =
        (world.open("alice", "phone"), world.online("bob", "phone"), world.open("carol", "phone"));
    let group = world.create(alice, "", &["bob"]).group;
    world.packet(bob);
    world.hub.buffer_bytes_max = 150_000;
    // Half a frame of carol's waits for its rest, and output of bob's to be read.
    let mut frame = Vec::new();
    Request::Send { operation: world.operation(), group, body: vec![7; 50_000].into() }.encode_frame(&mut frame, 9);
    world.send_bytes(carol, &frame[..40_000]);
    assert_eq!(world.hub.input_bytes, 40_000);
    world.set_reading(bob, Reading::Nothing);
    for _ in 0..2 {
        world.send(alice, group, &vec![1; 30_000]);
    }
    assert!(world.is_open(bob) && world.is_open(carol));
    let dave = world.open("dave", "phone");
    world.send_bytes(dave, &frame[..49_000]);
    assert_eq!(world.hub.counters.closed_slow, 0, "just below it");
    world.send_bytes(carol, &frame[40_000..49_000]);
    world.set_reading(bob, Reading::Everything);
    assert_eq!(world.closed_with(bob), "SLOW", "output and input count alike");
    assert!(world.is_open(carol) && world.is_open(dave), "and only as many go as have to");
    world.send_bytes(dave, &frame[49_000..49_500]);
    world.hub.buffer_bytes_max = 60_000;
    world.send_bytes(carol, &frame[49_000..=49_000]);
    assert_eq!(world.closed_with(dave), "SLOW");
    assert!(world.is_open(carol));
    assert_eq!(world.hub.input_bytes, 49_001);
}

#[test]
fn while_many_bytes_of_requests_are_under_way_no_more_are_read() {
    let mut world = World::slow();
    let alice = world.open("alice", "phone");
    let create = world.create_request("", &[]);
    world.ask(alice, &create);
    world.sync();
    let Reply::Created(created) = world.reply(alice, 2) else { panic!() };
    let mut asked = 0;
    while world.hub.wants_bytes(world.key(alice)) {
        let send = world.send_request(created.group, &vec![7; 60_000]);
        world.ask(alice, &send);
        asked += 1;
    }
    assert_eq!(asked, REQUEST_BYTES_SOFT / 60_000 + 1, "far below the number of requests that may be in flight");
    world.sync();
    assert!(world.hub.wants_bytes(world.key(alice)));
    assert_eq!(world.hub.input_bytes, 0);
}

#[test]
fn frames_that_only_a_server_sends_close_with_protocol() {
    for kind in [Kind::Ready, Kind::Welcome, Kind::Error] {
        let mut world = World::new();
        let alice = world.open("alice", "phone");
        raw(&mut world, alice, kind, 0, b"");
        assert_eq!(world.closed_with(alice), "PROTOCOL");
    }
}

#[test]
fn bytes_that_are_no_frames_close_each_with_its_code() {
    let mut good = Vec::new();
    Request::Ping.encode_frame(&mut good, 1);
    let mut crc = good.clone();
    crc[9] ^= 1;
    let mut body = Vec::new();
    hello("user:alice", "phone").encode_frame(&mut body, 1);
    *body.last_mut().unwrap() ^= 1;
    let mut large = Vec::new();
    encode_frame(&mut large, Kind::Hello, 0, 1, |writer| writer.raw(&[0; 5_000]));
    for (bytes, code) in
        [(crc, Some("BAD_CRC")), (body, Some("BAD_CRC")), (large, Some("TOO_LARGE")), (b"GET /".to_vec(), None)]
    {
        let mut world = World::new();
        let peer = world.connect();
        world.send_bytes(peer, &bytes);
        match code {
            Some(code) => assert_eq!(world.closed_with(peer), code),
            None => assert!(!world.is_open(peer) && world.got(peer).is_empty(), "nothing is answered"),
        }
    }
}

#[test]
fn a_frame_that_is_not_finished_in_time_closes() {
    let mut world = World::new();
    let alice = world.open("alice", "phone");
    let mut ping = Vec::new();
    Request::Ping.encode_frame(&mut ping, 9);
    for byte in &ping[..20] {
        world.send_bytes(alice, &[*byte]);
        world.advance(FRAME_STALL_MS / 20 - 1);
        assert!(world.is_open(alice));
    }
    world.advance(20);
    assert_eq!(world.closed_with(alice), "TIMEOUT");
}

#[test]
fn silence_of_two_and_a_half_heartbeats_closes_and_any_frame_prevents_it() {
    let mut world = World::new();
    let alice = world.open("alice", "phone");
    for _ in 0..3 {
        world.advance(74_999);
        assert!(world.is_open(alice));
        world.ask(alice, &Request::Ping);
    }
    world.advance(74_999);
    assert!(world.is_open(alice));
    world.advance(1);
    assert_eq!(world.closed_with(alice), "TIMEOUT");
}

#[test]
fn answers_that_are_not_read_pause_reading_long_before_the_hard_limit() {
    let (mut world, group) = with_long_log();
    let bob = world.open("bob", "phone");
    world.set_reading(bob, Reading::Nothing);
    let pages: Vec<_> = (0..20).map(|_| history_request(&[(group, 2)], 0, 0)).collect();
    let ids = world.ask_all(bob, &pages);
    assert!(world.waiting(bob) <= OUTPUT_BYTES_HARD / 2, "one page, not twenty");
    assert!(!world.hub.wants_bytes(world.key(bob)));
    world.set_reading(bob, Reading::Chunks(10_000));
    world.turn();
    for id in ids {
        assert!(matches!(world.reply(bob, id), Reply::HistoryPage { .. }), "it is only late");
    }
    world.hub.check_idle();
}

#[test]
fn a_stranger_who_asks_and_does_not_read_is_closed_with_slow() {
    let mut world = World::new();
    let peer = world.connect();
    world.set_reading(peer, Reading::Nothing);
    while world.waiting(peer) <= OUTPUT_BYTES_UNAUTHENTICATED - 100 {
        world.ask(peer, &Request::Ping);
    }
    let (id, mut pings) = (world.next_request_id(peer), Vec::new());
    (0..8).for_each(|_| Request::Ping.encode_frame(&mut pings, id));
    world.send_bytes(peer, &pings);
    assert!(world.waiting(peer) < 1_000, "what would not be taken is dropped");
    world.set_reading(peer, Reading::Everything);
    assert_eq!(world.closed_with(peer), "SLOW");
}

#[test]
fn an_answer_that_finds_the_buffer_empty_is_always_accepted() {
    let (mut world, group) = with_long_log();
    let bob = world.open("bob", "phone");
    for _ in 0..20 {
        assert_eq!(world.history_seqs(bob, group, 2).0.len(), 4);
    }
    assert!(world.is_open(bob));
}

#[test]
fn output_of_which_no_byte_drains_for_ten_seconds_closes() {
    let (mut world, group) = with_long_log();
    let bob = world.open("bob", "phone");
    world.set_reading(bob, Reading::Nothing);
    world.ask(bob, &history_request(&[(group, 2)], 0, 0));
    for _ in 0..5 {
        world.advance(OUTPUT_STALL_MS - 1);
        assert_eq!(world.take(bob, 1), 1, "one byte is enough");
    }
    world.advance(OUTPUT_STALL_MS - 1);
    assert!(!world.hub.connections.find(world.key(bob)).unwrap().closing);
    world.advance(1);
    assert!(world.hub.connections.find(world.key(bob)).unwrap().closing);
    world.advance(CLOSE_LINGER_MS);
    assert!(!world.is_open(bob), "its last words are not waited for");
    assert_eq!(world.hub.output_bytes, 0);
}

/// A peer that always leaves a little unread must not make the server keep all that it has read.
#[test]
fn what_was_read_is_freed_even_if_the_buffer_is_never_empty() {
    let (mut world, group) = with_long_log();
    let bob = world.open("bob", "phone");
    world.set_reading(bob, Reading::Nothing);
    for _ in 0..50 {
        world.ask(bob, &history_request(&[(group, 5)], 0, 0));
        let waiting = world.waiting(bob);
        world.take(bob, waiting - 10);
        assert!(world.hub.output_bytes < 4 * 65_536, "{} bytes are held for 10", world.hub.output_bytes);
    }
}

#[test]
fn a_token_of_another_role_is_refused_what_is_not_its_own() {
    let mut world = World::new();
    let operator = world.connect();
    world.ask(operator, &hello("operator:o", "console"));
    let id = world.ask(operator, &Request::Stats);
    assert!(matches!(world.find_reply(operator, id), Some(Reply::StatsListed { stats }) if stats.len() > 20));
    let backup = Request::Backup { path: "/backups/1".to_owned() };
    let id = world.ask(operator, &backup);
    assert_eq!(world.find_reply(operator, id), Some(Reply::BackupDone { files: 3, bytes: 4711 }));
    let request = world.create_request("", &[]);
    let id = world.ask(operator, &request);
    assert_eq!(world.refusal(operator, id).name(), "FORBIDDEN");
    let alice = world.open("alice", "phone");
    let id = world.ask(alice, &backup);
    assert_eq!(world.refusal(alice, id).name(), "FORBIDDEN");
    let id = world.ask(alice, &Request::Stats);
    assert_eq!(world.refusal(alice, id).name(), "FORBIDDEN");
}
