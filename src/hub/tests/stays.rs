//! A stay in a group that begins or ends while a connection of the user is behind, attaching, or not reading.

use super::world::requests::{history_request, page_seqs};
use super::world::{Got, Peer, Reading, World, users};
use crate::ids::GroupId;
use crate::limits::OUTPUT_BYTES_SOFT;
use crate::wire::{Attach, GroupSeq, HistoryOutcome, HistoryRequest, Push, Reply, Request};

/// bob's phone takes nothing, and more than the soft limit waits for it, of a group that is not the trio's.
fn choked(world: &mut World, phone: Peer) {
    let carol = world.open("carol", "other");
    let other = world.create(carol, "other", &["bob"]).group;
    world.turn();
    world.set_reading(phone, Reading::Nothing);
    for _ in 0..2 {
        world.send(carol, other, &vec![b'z'; 40_000]);
    }
    assert!(world.waiting(phone) > OUTPUT_BYTES_SOFT);
}

/// alice has a group, bob is on line and not in it.
fn duo() -> (World, GroupId, Peer, Peer) {
    let mut world = World::new();
    let (alice, bob) = (world.online("alice", "phone"), world.online("bob", "phone"));
    let group = world.create(alice, "", &["carol"]).group;
    (world, group, alice, bob)
}

/// What was pushed about one group.
fn about(pushes: Vec<Push>, id: GroupId) -> Vec<Push> {
    let of = |push: &Push| match push {
        Push::GroupPacket(packet) => packet.group == id,
        Push::Entry { group, .. } | Push::Behind { group, .. } | Push::Gone { group, .. } => *group == id,
        _ => false,
    };
    pushes.into_iter().filter(of).collect()
}

#[test]
fn who_is_added_while_it_does_not_read_gets_the_packet_as_it_is_when_it_does_and_then_the_rest() {
    let (mut world, group, alice, bob) = duo();
    choked(&mut world, bob);
    let before = world.waiting(bob);
    let add = Request::Add { operation: world.operation(), group, members: users(&["bob"]) };
    assert_eq!(world.change(alice, &add).seq, 2);
    world.send(alice, group, b"three");
    let add = Request::Add { operation: world.operation(), group, members: users(&["dave"]) };
    assert_eq!(world.change(alice, &add).seq, 4);
    assert_eq!(world.waiting(bob), before, "nothing more waits for who does not read");
    world.set_reading(bob, Reading::Everything);
    let told = about(world.pushes(bob), group);
    let [Push::GroupPacket(packet)] = &told[..] else { panic!("{told:?}") };
    assert_eq!((packet.from, packet.head, packet.version), (3, 4, 4));
    assert_eq!(packet.members, users(&["alice", "carol", "bob", "dave"]));
    world.send(alice, group, b"five");
    assert_eq!(world.catch_up(bob, group, packet.from), [3, 4, 5]);
    world.send(alice, group, b"six");
    assert_eq!(world.pushed_seqs(bob), [6], "live");
}

#[test]
fn who_is_added_and_removed_while_it_does_not_read_is_told_nothing_of_it() {
    let (mut world, group, alice, bob) = duo();
    choked(&mut world, bob);
    let add = Request::Add { operation: world.operation(), group, members: users(&["bob"]) };
    world.change(alice, &add);
    let remove = Request::Remove { operation: world.operation(), group, members: users(&["bob"]) };
    assert_eq!(world.change(alice, &remove).seq, 3);
    world.send(alice, group, b"about bob");
    world.set_reading(bob, Reading::Everything);
    assert_eq!(about(world.pushes(bob), group), []);
}

#[test]
fn who_is_added_while_it_attaches_gets_the_packet_once_whichever_of_the_two_is_done_first() {
    for answered_first in [true, false] {
        for says_more in [true, false] {
            let (mut world, group, alice, _) = duo();
            world.send(alice, group, b"two");
            world.got(alice);
            let tablet = world.open("bob", "tablet");
            world.loads_held = true;
            let attach = world.ask(tablet, &Request::Attach(Attach::Device { more: false, groups: Vec::new() }));
            assert_eq!(world.held_loads(), 1, "the memberships of bob are being loaded");
            // The index gives the answer before the add, or knows of it already.
            let early = answered_first.then(|| world.take_answer());
            let add = Request::Add { operation: world.operation(), group, members: users(&["bob"]) };
            assert_eq!(world.change(alice, &add).seq, 3);
            if says_more {
                world.send(alice, group, b"four");
            }
            assert!(matches!(world.got(tablet)[..], [Got::Reply(id, Reply::Attached)] if id == attach));
            match early {
                Some(event) => world.storage(event),
                None => assert!(world.answer_one()),
            }
            world.answer_all();
            let packet = world.packet(tablet);
            let head = if says_more { 4 } else { 3 };
            assert_eq!((packet.from, packet.head, packet.version), (4, head, 3), "{answered_first} {says_more}");
            if says_more {
                assert_eq!(world.catch_up(tablet, group, 4), [4]);
            }
            world.send(alice, group, b"next");
            assert_eq!(world.pushed_seqs(tablet), [head + 1]);
        }
    }
}

#[test]
fn who_is_removed_while_it_attaches_is_told_where_its_stay_ended() {
    for answered_first in [true, false] {
        let mut world = World::new();
        let alice = world.online("alice", "phone");
        let group = world.create(alice, "", &["bob"]).group;
        world.send(alice, group, b"two");
        let phone = world.open("bob", "phone");
        world.loads_held = true;
        let groups = vec![GroupSeq { group, seq: 1 }];
        world.ask(phone, &Request::Attach(Attach::Device { more: false, groups }));
        let early = answered_first.then(|| world.take_answer());
        let remove = Request::Remove { operation: world.operation(), group, members: users(&["bob"]) };
        assert_eq!(world.change(alice, &remove).seq, 3);
        // The record changes once more before anybody looks.
        let rename = Request::Rename { operation: world.operation(), group, title: "without bob".into() };
        assert_eq!(world.change(alice, &rename).version, 4);
        match early {
            Some(event) => world.storage(event),
            None => assert!(world.answer_one()),
        }
        world.answer_all();
        assert_eq!(world.pushes(phone), [Push::Gone { group, until: 3 }, Push::Ready]);
        assert_eq!(world.history_seqs(phone, group, 2), (vec![2, 3], 3));
        world.send(alice, group, b"more about bob");
        assert!(world.pushes(phone).is_empty());
    }
}

#[test]
fn a_device_that_shows_an_earlier_stay_is_told_of_the_end_of_one_that_it_never_heard_of() {
    let mut world = World::new();
    let alice = world.online("alice", "phone");
    let group = world.create(alice, "", &["bob"]).group;
    let other = world.create(alice, "", &["bob"]).group;
    world.send(alice, other, &vec![b'z'; 40_000]);
    let change = |world: &mut World, members: &[&str], is_added: bool| {
        let (operation, members) = (world.operation(), users(members));
        let add = Request::Add { operation, group, members: members.clone() };
        world.change(alice, &if is_added { add } else { Request::Remove { operation, group, members } }).seq
    };
    assert_eq!((change(&mut world, &["bob"], false), change(&mut world, &["bob"], true)), (2, 3));
    // Bob's phone was away meanwhile. It is to be told the packet, but its output is full.
    let phone = world.open("bob", "phone");
    world.set_reading(phone, Reading::Nothing);
    let groups = vec![GroupSeq { group: other, seq: 2 }];
    world.ask(phone, &Request::History(HistoryRequest { groups, entries_max: 0, bytes_max: 0 }));
    let groups = vec![GroupSeq { group, seq: 1 }, GroupSeq { group: other, seq: 2 }];
    world.ask(phone, &Request::Attach(Attach::Device { more: false, groups }));
    assert!(world.waiting(phone) > OUTPUT_BYTES_SOFT / 2);
    assert_eq!(change(&mut world, &["bob"], false), 4);
    world.set_reading(phone, Reading::Everything);
    assert_eq!(world.pushes(phone), [Push::Gone { group, until: 4 }, Push::Ready]);
}

#[test]
fn who_is_added_again_is_told_of_no_end_where_the_index_knows_of_it_first() {
    let mut world = World::new();
    let (alice, desk) = (world.online("alice", "phone"), world.open("bob", "desk"));
    let group = world.create(alice, "", &["bob"]).group;
    assert_eq!(world.leave(desk, group).seq, 2);
    let rename = Request::Rename { operation: world.operation(), group, title: "without bob".into() };
    assert_eq!(world.change(alice, &rename).version, 3);
    world.synced = false;
    let add = Request::Add { operation: world.operation(), group, members: users(&["bob"]) };
    world.ask(alice, &add);
    // On disk, and in the index; the hub has not heard of it.
    world.apply_one();
    let phone = world.attach("bob", "phone", &[(group, 1)]);
    assert_eq!(world.pushes(phone), [Push::Ready]);
    world.sync();
    assert_eq!(world.packet(phone).from, 5);
}

#[test]
fn who_is_removed_while_its_output_waits_gets_that_and_nothing_behind_it() {
    let mut world = World::new();
    let (alice, bob) = (world.online("alice", "phone"), world.online("bob", "phone"));
    let group = world.create(alice, "", &["bob"]).group;
    world.packet(bob);
    world.set_reading(bob, Reading::Nothing);
    world.send(alice, group, &vec![b'z'; 40_000]);
    assert!((1..=OUTPUT_BYTES_SOFT).contains(&world.waiting(bob)), "live still");
    let remove = Request::Remove { operation: world.operation(), group, members: users(&["bob"]) };
    assert_eq!(world.change(alice, &remove).seq, 3);
    let waiting = world.waiting(bob);
    world.send(alice, group, b"about bob");
    assert_eq!(world.waiting(bob), waiting);
    world.set_reading(bob, Reading::Everything);
    assert_eq!(world.pushed_seqs(bob), [2, 3], "its removal is the last that it hears");
}

#[test]
fn who_is_removed_when_it_has_fallen_behind_is_told_up_to_where_it_may_read() {
    for behind_before in [true, false] {
        let mut world = World::new();
        let (alice, bob) = (world.online("alice", "phone"), world.online("bob", "phone"));
        let group = world.create(alice, "", &["bob"]).group;
        world.packet(bob);
        world.set_reading(bob, Reading::Nothing);
        for _ in 0..2 {
            world.send(alice, group, &vec![b'z'; 40_000]);
        }
        assert!(world.waiting(bob) > OUTPUT_BYTES_SOFT);
        // It falls behind with this message, or with its very removal.
        if behind_before {
            world.send(alice, group, b"four");
        }
        let remove = Request::Remove { operation: world.operation(), group, members: users(&["bob"]) };
        let until = world.change(alice, &remove).seq;
        world.send(alice, group, b"about bob");
        world.set_reading(bob, Reading::Everything);
        let told = world.pushes(bob);
        let [Push::Entry { .. }, Push::Entry { entry, .. }, gone] = &told[..] else { panic!("{told:?}") };
        assert_eq!((entry.seq(), gone), (3, &Push::Gone { group, until }));
        let id = world.ask(bob, &history_request(&[(group, 4)], 0, 0));
        let Reply::HistoryPage { mut groups } = world.reply(bob, id) else { panic!() };
        let (seqs, head) = page_seqs(groups.pop().unwrap().outcome);
        assert_eq!((seqs, head), ((4..=until).collect(), until));
        world.acknowledge(bob, group, until);
        world.advance(2_000);
        let outcome = world.history(bob, group, 4);
        assert!(matches!(outcome, HistoryOutcome::Refused(error) if error.name() == "NOT_FOUND"), "it has it all");
    }
}

#[test]
fn who_is_removed_between_two_pages_is_told_so_and_reads_on_up_to_there() {
    let mut world = World::new();
    let alice = world.online("alice", "phone");
    let group = world.create(alice, "", &["bob"]).group;
    for body in ["two", "three", "four"] {
        world.send(alice, group, body.as_bytes());
    }
    let bob = world.attach("bob", "phone", &[(group, 1)]);
    assert_eq!(world.pushes(bob), [Push::Behind { group, from: 2, head: 4 }, Push::Ready]);
    let page = |world: &mut World, from, entries_max| {
        let id = world.ask(bob, &history_request(&[(group, from)], entries_max, 0));
        let Reply::HistoryPage { mut groups } = world.reply(bob, id) else { panic!() };
        page_seqs(groups.pop().unwrap().outcome)
    };
    assert_eq!(page(&mut world, 2, 1), (vec![2], 4));
    let remove = Request::Remove { operation: world.operation(), group, members: users(&["bob"]) };
    assert_eq!(world.change(alice, &remove).seq, 5);
    world.send(alice, group, b"about bob");
    assert_eq!(world.pushes(bob), [Push::Gone { group, until: 5 }], "it would read on for ever");
    assert_eq!(page(&mut world, 3, 2), (vec![3, 4], 5));
    assert_eq!(page(&mut world, 5, 2), (vec![5], 5));
    world.send(alice, group, b"more about bob");
    assert_eq!(world.pushes(bob), []);
}
