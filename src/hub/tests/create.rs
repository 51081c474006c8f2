//! Making a group: the reply, the one packet, and who gets it.

use super::world::{Reading, World, users};
use crate::limits::{OUTPUT_BYTES_SOFT, TITLE_BYTES_MAX};
use crate::wire::{Push, Reply};

#[test]
fn the_reply_says_to_whom_the_packet_was_pushed_and_for_whom_it_waits() {
    let mut world = World::new();
    let alice = world.online("alice", "phone");
    let _bob = world.online("bob", "phone");
    let _carol = world.open("carol", "one-shot");
    let created = world.create(alice, "lunch", &["bob", "carol", "dave"]);
    assert_eq!((created.members, created.pushed, created.queued), (4, 1, 2));
    assert_eq!((created.seq, created.version, created.repeated), (1, 1, false));
}

#[test]
fn a_group_of_one_is_legal() {
    let mut world = World::new();
    let alice = world.online("alice", "phone");
    let created = world.create(alice, "", &[]);
    assert_eq!((created.members, created.pushed, created.queued), (1, 0, 0));
    assert_eq!(world.packet(alice).members, users(&["alice"]));
}

#[test]
fn creator_and_duplicates_collapse_in_the_order_given() {
    let mut world = World::new();
    let alice = world.online("alice", "phone");
    let created = world.create(alice, "", &["carol", "alice", "bob", "carol", "bob"]);
    assert_eq!(created.members, 3);
    assert_eq!(world.packet(alice).members, users(&["alice", "carol", "bob"]));
}

#[test]
fn a_member_with_two_devices_counts_once_and_both_get_the_packet() {
    let mut world = World::new();
    let alice = world.online("alice", "phone");
    let (phone, tablet) = (world.online("bob", "phone"), world.online("bob", "tablet"));
    let second = world.online("alice", "laptop");
    let created = world.create(alice, "", &["bob"]);
    assert_eq!((created.pushed, created.queued), (1, 0));
    for peer in [alice, second, phone, tablet] {
        assert_eq!(world.packet(peer).group, created.group);
    }
}

#[test]
fn one_packet_is_the_same_bytes_for_everybody() {
    for members in [2, 400] {
        let mut world = World::new();
        let alice = world.online("alice", "phone");
        let peers =
            [alice, world.online("bob", "phone"), world.online("bob", "tablet"), world.online("carol", "phone")];
        let names: Vec<_> = (0..members).map(|number| format!("a member with the number {number}")).collect();
        let mut members = vec!["bob", "carol"];
        members.extend(names.iter().map(String::as_str));
        world.create(alice, "lunch", &members);
        let bytes = world.packet_bytes(alice).to_vec();
        assert_eq!(bytes.len(), 1);
        for peer in peers {
            assert_eq!(world.packet_bytes(peer), bytes);
        }
    }
}

#[test]
fn members_on_their_way_on_line_count_as_queued_and_are_told_once() {
    let mut world = World::new();
    let alice = world.online("alice", "phone");
    world.create(alice, "warms up the operations of alice", &[]);
    world.got(alice);
    world.loads_held = true;
    let bob = world.attach("bob", "phone", &[]);
    assert_eq!(world.held_loads(), 1, "the memberships of bob");
    let created = world.create(alice, "", &["bob"]);
    assert_eq!((created.pushed, created.queued), (0, 1));
    world.answer_all();
    assert!(
        matches!(&world.pushes(bob)[..], [Push::GroupPacket(packet), Push::Ready] if packet.group == created.group)
    );
    world.send(alice, created.group, b"hi");
    assert_eq!(world.pushed_seqs(bob), [2]);
}

/// The memberships are read before the create is durable, and arrive after it.
#[test]
fn a_create_released_while_an_older_list_of_memberships_is_under_way_is_told_once() {
    let mut world = World::new();
    let alice = world.online("alice", "phone");
    world.create(alice, "", &[]);
    world.loads_held = true;
    let bob = world.attach("bob", "phone", &[]);
    let memberships = world.take_answer();
    let created = world.create(alice, "", &["bob"]);
    world.loads_held = false;
    world.storage(memberships);
    assert_eq!(world.packet(bob).group, created.group);
    world.send(alice, created.group, b"hi");
    assert_eq!(world.pushed_seqs(bob), [2]);
}

/// Storage's index may be ahead of its report: the memberships name a group whose create the hub has not released.
#[test]
fn a_create_that_the_memberships_name_before_its_release_is_told_once() {
    let mut world = World::new();
    let alice = world.online("alice", "phone");
    world.create(alice, "", &[]);
    world.got(alice);
    world.synced = false;
    let request = world.create_request("", &["bob"]);
    let id = world.ask(alice, &request);
    world.apply_one();
    let bob = world.attach("bob", "phone", &[]);
    world.sync();
    world.synced = true;
    let Reply::Created(created) = world.reply(alice, id) else { panic!() };
    assert_eq!(created.pushed + created.queued, 1);
    assert_eq!(world.packet(bob).group, created.group);
    world.send(alice, created.group, b"hi");
    assert_eq!(world.pushed_seqs(bob), [2]);
}

#[test]
fn an_offline_member_gets_the_packet_before_any_entry_then_ready() {
    let mut world = World::new();
    let alice = world.online("alice", "phone");
    let created = world.create(alice, "lunch", &["bob"]);
    for number in 0..3 {
        world.send(alice, created.group, &[number]);
    }
    let bob = world.attach("bob", "phone", &[]);
    let pushes = world.pushes(bob);
    let [Push::GroupPacket(packet), Push::Ready] = &pushes[..] else { panic!("{pushes:?}") };
    assert_eq!((packet.from, packet.head, packet.version), (2, 4, 1));
    world.send(alice, created.group, b"not pushed: bob is behind");
    assert!(world.pushes(bob).is_empty());
    assert_eq!(world.catch_up(bob, created.group, packet.from), [2, 3, 4, 5]);
    world.send(alice, created.group, b"live");
    assert_eq!(world.pushed_seqs(bob), [6]);
}

#[test]
fn a_member_who_does_not_read_counts_as_queued_and_is_told_when_it_reads() {
    let mut world = World::new();
    let (alice, bob) = (world.online("alice", "phone"), world.online("bob", "phone"));
    let first = world.create(alice, "", &["bob"]).group;
    world.set_reading(bob, Reading::Nothing);
    while world.waiting(bob) <= OUTPUT_BYTES_SOFT {
        world.send(alice, first, &[7; 9_000]);
    }
    let created = world.create(alice, "", &["bob"]);
    assert_eq!((created.pushed, created.queued), (0, 1));
    let second = world.create(alice, "", &["bob", "carol"]);
    assert_eq!((second.pushed, second.queued), (0, 2));
    world.set_reading(bob, Reading::Chunks(1_000));
    let packets: Vec<_> = world.packet_bytes(bob).to_vec();
    assert_eq!(packets.len(), 3, "each group once");
    world.got(bob);
    world.send(alice, created.group, b"hi");
    assert_eq!(world.pushed_seqs(bob), [2]);
}

#[test]
fn limits_of_a_create_are_refused_and_change_nothing() {
    let mut world = World::new();
    let alice = world.open("alice", "phone");
    let title = "x".repeat(TITLE_BYTES_MAX + 1);
    let request = world.create_request(&title, &[]);
    let id = world.ask(alice, &request);
    let error = world.refusal(alice, id);
    assert_eq!((error.name(), error.detail), ("LIMIT", TITLE_BYTES_MAX as u64));
    let names: Vec<_> = (0..10_000).map(|number| number.to_string()).collect();
    let names: Vec<_> = names.iter().map(String::as_str).collect();
    let request = world.create_request("", &names);
    let id = world.ask(alice, &request);
    assert_eq!((world.refusal(alice, id).name(), world.model.effects.len()), ("LIMIT", 0));
    let request = world.create_request(&title[1..], &names[1..]);
    let id = world.ask(alice, &request);
    let Reply::Created(created) = world.reply(alice, id) else { panic!() };
    assert_eq!((created.members, created.queued), (10_000, 9_999));
}
