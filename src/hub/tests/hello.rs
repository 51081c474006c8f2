//! Hello, ping, and what comes before them.

use super::world::{World, hello};
use crate::ids::DeviceId;
use crate::limits::{HEARTBEAT_S_MAX, HEARTBEAT_S_MIN};
use crate::wire::{Hello, Push, Reply, Request, features};

fn hello_of(world: &mut World, versions: (u8, u8), heartbeat_s: u16) -> (super::world::Peer, u32) {
    let peer = world.connect();
    let (device, token) = (DeviceId::new("phone").unwrap(), "user:alice".to_owned());
    let (version_min, version_max) = versions;
    let hello = Hello { version_min, version_max, features: u64::MAX, heartbeat_s, device, token };
    let id = world.ask(peer, &Request::Hello(hello));
    (peer, id)
}

#[test]
fn hello_is_welcomed_with_what_is_granted() {
    let mut world = World::new();
    for (wanted, granted) in [(0, 30), (1, HEARTBEAT_S_MIN), (40, 40), (u16::MAX, HEARTBEAT_S_MAX)] {
        let (peer, id) = hello_of(&mut world, (0, 7), wanted);
        let Reply::Welcome(welcome) = world.reply(peer, id) else { panic!("not welcome") };
        assert_eq!((welcome.version, welcome.heartbeat_s, welcome.features), (1, granted, features::SERVED));
        assert_eq!((welcome.user.as_str(), welcome.server_time_ms), ("alice", world.now.wall_ms));
    }
}

#[test]
fn hello_without_a_common_version_closes_with_version() {
    for versions in [(0, 0), (2, 9)] {
        let mut world = World::new();
        let (peer, id) = hello_of(&mut world, versions, 0);
        assert_eq!(world.refusal(peer, id).name(), "VERSION", "with the number of the hello");
        assert!(!world.is_open(peer));
    }
}

#[test]
fn a_new_token_of_the_same_user_takes_the_place_of_the_one_that_ends() {
    let mut world = World::new();
    let peer = world.connect();
    world.ask(peer, &hello("short:alice", "phone"));
    for _ in 0..20 {
        world.advance(20_000);
        let id = world.ask(peer, &Request::Authenticate { token: "short:alice".to_owned() });
        assert_eq!(world.reply(peer, id), Reply::Authenticated { expires_at_ms: world.now.wall_ms + 60_000 });
    }
    assert!(world.pushes(peer).is_empty(), "it never came near the end");
    for (token, code) in [("user:bob", "AUTH_FAILED"), ("operator:alice", "AUTH_FAILED"), ("expired", "TOKEN_EXPIRED")]
    {
        let peer = world.open("alice", "other");
        let id = world.ask(peer, &Request::Authenticate { token: token.to_owned() });
        assert_eq!(world.refusal(peer, id).name(), code);
        assert!(!world.is_open(peer));
    }
}

#[test]
fn tokens_that_are_not_accepted_close_with_one_code_for_all_causes_but_expiry() {
    for (token, code) in [
        ("bad", "AUTH_FAILED"),
        ("", "AUTH_FAILED"),
        ("user:alice/tablet", "AUTH_FAILED"),
        ("expired", "TOKEN_EXPIRED"),
    ] {
        let mut world = World::new();
        let peer = world.connect();
        let id = world.ask(peer, &hello(token, "phone"));
        assert_eq!(world.refusal(peer, id).name(), code, "with the number of the hello");
        assert!(!world.is_open(peer));
        assert!(world.got(peer).is_empty());
    }
}

#[test]
fn a_token_for_one_device_lets_that_device_in() {
    let mut world = World::new();
    let peer = world.connect();
    let id = world.ask(peer, &hello("user:alice/phone", "phone"));
    assert!(matches!(world.reply(peer, id), Reply::Welcome(_)));
}

#[test]
fn a_second_hello_closes_with_protocol() {
    let mut world = World::new();
    let peer = world.open("alice", "phone");
    world.ask(peer, &hello("user:alice", "phone"));
    assert_eq!(world.closed_with(peer), "PROTOCOL");
}

#[test]
fn any_request_before_hello_closes_with_not_authenticated() {
    let mut world = World::new();
    for request in [world.create_request("", &[]), Request::Stats, Request::Kick { user: super::world::user("bob") }] {
        let peer = world.connect();
        world.ask(peer, &request);
        assert_eq!(world.closed_with(peer), "NOT_AUTHENTICATED");
    }
    assert!(world.model.effects.is_empty());
}

#[test]
fn ping_before_hello_says_whether_the_server_is_ready() {
    let mut world = World::new();
    world.hub.storage_ready = false;
    let peer = world.connect();
    for ready in [false, true] {
        world.hub.storage_ready = ready;
        let id = world.ask(peer, &Request::Ping);
        assert_eq!(world.reply(peer, id), Reply::Pong { server_time_ms: world.now.wall_ms, ready });
    }
    assert!(world.is_open(peer));
}

#[test]
fn five_seconds_without_hello_close_with_timeout_whatever_is_pinged() {
    let mut world = World::new();
    let peer = world.connect();
    world.advance(4_999);
    world.ask(peer, &Request::Ping);
    assert!(world.is_open(peer));
    world.advance(1);
    assert_eq!(world.closed_with(peer), "TIMEOUT");
}

#[test]
fn a_server_that_stops_welcomes_nobody() {
    let mut world = World::new();
    world.hub.handle_stop(10_000, world.now);
    let peer = world.connect();
    assert_eq!(world.closed_with(peer), "GOING_AWAY");
}

#[test]
fn a_token_that_ends_closes_the_connection_thirty_seconds_later() {
    let mut world = World::new();
    let peer = world.connect();
    world.ask(peer, &hello("short:alice", "phone"));
    for _ in 0..8 {
        world.advance(10_000);
        world.ask(peer, &Request::Ping);
    }
    assert!(world.is_open(peer));
    let told = world.pushes(peer);
    assert!(matches!(told[..], [Push::AuthenticateSoon { .. }]), "asked for a new one at its end: {told:?}");
    world.advance(9_999);
    assert!(world.is_open(peer));
    world.advance(1);
    assert_eq!(world.closed_with(peer), "TOKEN_EXPIRED");
}
