//! What the hub keeps and lets go: marks, the cache, and what was begun when it stops.

use super::world::requests::history_request;
use super::world::{Got, World};
use crate::limits::MARKS_DELAY_MS;
use crate::store::Event;
use crate::wire::{Mark, Push, Reply, Request};

#[test]
fn marks_are_journalled_together_after_a_second() {
    let mut world = World::new();
    let (alice, bob) = (world.open("alice", "phone"), world.open("bob", "phone"));
    let group = world.create(alice, "", &["bob"]).group;
    world.send(alice, group, b"hi");
    world.acknowledge(alice, group, 2);
    world.advance(MARKS_DELAY_MS / 2);
    world.ask(bob, &Request::Acknowledge { marks: vec![Mark { group, received: 2, read: 1 }] });
    world.acknowledge(bob, group, 1);
    world.advance(MARKS_DELAY_MS / 2 - 1);
    assert_eq!(world.model.marks_packets, 0);
    world.advance(1);
    assert_eq!(world.model.marks_packets, 1);
    let place = |name| &world.model.places[&(super::world::user(name), group)];
    assert_eq!((place("alice").received, place("bob").received, place("bob").read), (2, 2, 1), "marks only grow");
    world.advance(60_000);
    assert_eq!(world.model.marks_packets, 1);
}

#[test]
fn marks_are_journalled_when_their_user_goes() {
    let mut world = World::new();
    let (alice, bob) = (world.open("alice", "phone"), world.open("bob", "phone"));
    let group = world.create(alice, "", &["bob"]).group;
    world.acknowledge(alice, group, 1);
    world.acknowledge(bob, group, 1);
    world.disconnect(bob);
    let place = |name| world.model.places[&(super::world::user(name), group)].received;
    assert_eq!((place("alice"), place("bob")), (0, 1));
}

#[test]
fn those_who_go_do_not_put_off_the_marks_of_those_who_stay() {
    let mut world = World::new();
    let alice = world.open("alice", "phone");
    let group = world.create(alice, "", &["bob"]).group;
    world.acknowledge(alice, group, 1);
    for _ in 0..4 {
        world.advance(MARKS_DELAY_MS / 4);
        let other = world.open("bob", "phone");
        world.acknowledge(other, group, 1);
        world.disconnect(other);
    }
    assert_eq!(world.model.places[&(super::world::user("alice"), group)].received, 1, "a second has passed");
}

#[test]
fn a_look_up_that_was_asked_for_before_a_mark_was_on_disk_shows_it() {
    let mut world = World::new();
    let (alice, bob) = (world.open("alice", "phone"), world.open("bob", "phone"));
    let group = world.create(alice, "", &["bob"]).group;
    (world.synced, world.loads_held) = (false, true);
    world.acknowledge(bob, group, 1);
    world.disconnect(bob);
    let laptop = world.open("bob", "laptop");
    let id = world.ask(laptop, &Request::ListGroups { after: None, count_max: 10 });
    let answer = world.take_answer();
    world.sync();
    world.storage(answer);
    let Reply::GroupsListed { groups, .. } = world.reply(laptop, id) else { panic!("not listed") };
    assert_eq!(groups[0].received, 1, "it was taken before this was asked");
    assert!(world.hub.marks.is_known(), "what storage tells everybody is not kept");
}

#[test]
fn a_mark_beyond_the_head_is_a_range_error_and_one_of_strangers_is_not_found() {
    let mut world = World::new();
    let (alice, carol) = (world.open("alice", "phone"), world.open("carol", "phone"));
    let group = world.create(alice, "", &["bob"]).group;
    let id = world.acknowledge(alice, group, 2);
    let error = world.refusal(alice, id);
    assert_eq!((error.name(), error.detail), ("RANGE", 1));
    let id = world.ask(alice, &Request::Acknowledge { marks: vec![Mark { group, received: 1, read: 2 }] });
    assert_eq!(world.refusal(alice, id).name(), "RANGE");
    let id = world.acknowledge(carol, group, 1);
    assert_eq!(world.refusal(carol, id).name(), "NOT_FOUND");
    world.advance(10_000);
    assert_eq!(world.model.marks_packets, 0);
}

#[test]
fn without_credit_marks_wait_and_are_journalled_when_there_is_some() {
    let mut world = World::new();
    let alice = world.open("alice", "phone");
    let group = world.create(alice, "", &[]).group;
    world.hub.credit_bytes = world.hub.committed_bytes;
    world.acknowledge(alice, group, 1);
    world.advance(10_000);
    assert_eq!(world.model.marks_packets, 0);
    let more = world.hub.credit_bytes + 10_000;
    world.storage(Event::Credit { bytes_total: more });
    world.advance(MARKS_DELAY_MS);
    assert_eq!(world.model.marks_packets, 1);
}

#[test]
fn the_list_of_groups_shows_marks_that_are_not_journalled_yet_and_is_paged() {
    let mut world = World::new();
    let alice = world.open("alice", "phone");
    let groups: Vec<_> = (0..5).map(|_| world.create(alice, "", &[]).group).collect();
    world.acknowledge(alice, groups[0], 1);
    let mut listed = Vec::new();
    loop {
        let after = listed.last().map(|(group, _)| *group);
        let id = world.ask(alice, &Request::ListGroups { after, count_max: 2 });
        let Reply::GroupsListed { more, groups } = world.reply(alice, id) else { panic!() };
        listed.extend(groups.into_iter().map(|summary| (summary.group, summary.received)));
        if !more {
            break;
        }
    }
    let mut expected: Vec<_> = groups.iter().map(|group| (*group, u64::from(*group == groups[0]))).collect();
    expected.sort();
    assert_eq!(listed, expected);
}

#[test]
fn a_list_that_was_answered_before_the_newest_entries_names_no_mark_above_its_head() {
    let mut world = World::new();
    let alice = world.open("alice", "phone");
    let tablet = world.open("alice", "tablet");
    let group = world.create(alice, "", &[]).group;
    world.loads_held = true;
    let id = world.ask(alice, &Request::ListGroups { after: None, count_max: 0 });
    let answer = world.take_answer();
    world.send(tablet, group, b"hi");
    world.ask(tablet, &Request::Acknowledge { marks: vec![Mark { group, received: 2, read: 2 }] });
    world.storage(answer);
    let Reply::GroupsListed { groups, .. } = world.reply(alice, id) else { panic!() };
    assert_eq!((groups[0].head, groups[0].received, groups[0].read), (1, 1, 1));
}

#[test]
fn groups_that_were_let_go_still_push_to_everybody_on_line() {
    let mut world = World::new();
    let (alice, bob) = (world.online("alice", "phone"), world.online("bob", "phone"));
    world.hub.cache.bytes_max = 0;
    let groups: Vec<_> = (0..20).map(|_| world.create(alice, "", &["bob", "carol"]).group).collect();
    world.advance(1);
    world.advance(1);
    assert!(world.hub.groups.is_empty() && world.hub.counters.evicted >= 20);
    world.got(alice);
    world.got(bob);
    for group in &groups {
        assert_eq!(world.send(bob, *group, b"hi").seq, 2);
        assert_eq!((world.pushed_seqs(alice), world.pushed_seqs(bob)), (vec![2], vec![2]));
    }
    let carol = world.attach("carol", "phone", &[]);
    assert_eq!(world.pushes(carol).len(), groups.len() + 1);
    world.hub.check_idle();
}

#[test]
fn what_is_in_use_is_not_let_go() {
    let mut world = World::slow();
    let alice = world.open("alice", "phone");
    world.hub.cache.bytes_max = 0;
    let create = world.create_request("", &[]);
    world.ask(alice, &create);
    for _ in 0..4 {
        world.advance(1);
    }
    assert_eq!((world.hub.groups.len(), world.hub.windows.len()), (1, 1), "a create is pending");
    world.sync();
    for _ in 0..4 {
        world.advance(1);
    }
    assert!(world.hub.groups.is_empty() && world.hub.windows.is_empty());
}

#[test]
fn a_stop_is_told_refuses_what_is_new_and_finishes_what_was_begun() {
    let mut world = World::slow();
    let (alice, bob) = (world.online("alice", "phone"), world.online("bob", "phone"));
    let create = world.create_request("", &["bob"]);
    world.ask(alice, &create);
    world.sync();
    let group = world.packet(bob).group;
    world.got(alice);
    let send = world.send_request(group, b"before");
    let begun = world.ask(alice, &send);
    world.acknowledge(bob, group, 1);
    world.hub.handle_stop(10_000, world.now);
    world.turn();
    assert_eq!(world.pushes(bob), [Push::GoingAway { within_ms: 10_000 }]);
    let send = world.send_request(group, b"after");
    let late = world.ask(alice, &send);
    assert!(!world.hub.is_drained());
    world.sync();
    assert!(matches!(world.reply(alice, begun), Reply::Changed(..)), "what was begun is answered");
    assert!(world.find_reply(alice, late).is_none(), "nothing more is begun");
    assert_eq!(world.closed_with(alice), "GOING_AWAY");
    assert_eq!(world.pushed_seqs(bob), [2]);
    assert_eq!(world.closed_with(bob), "GOING_AWAY", "its mark waited for the entry before it");
    world.advance(MARKS_DELAY_MS);
    world.sync();
    assert_eq!(world.model.places[&(super::world::user("bob"), group)].received, 1, "marks are finished too");
    assert!(world.hub.is_drained());
}

#[test]
fn a_stop_waits_for_requests_whose_group_or_operations_are_still_being_loaded() {
    let mut world = World::new();
    let alice = world.open("alice", "phone");
    let group = world.create(alice, "", &["bob"]).group;
    let mut world = world.restarted();
    let bob = world.open("bob", "phone");
    world.loads_held = true;
    let send = world.send_request(group, b"read before the stop");
    let id = world.ask(bob, &send);
    world.hub.handle_stop(10_000, world.now);
    world.turn();
    assert!(matches!(world.got(bob)[..], [Got::Push(Push::GoingAway { .. })]));
    while world.held_loads() > 0 {
        assert!(!world.hub.is_drained(), "the request is neither refused nor done");
        world.answer_one();
    }
    assert!(matches!(world.reply(bob, id), Reply::Changed(..)));
    assert!(world.hub.is_drained());
}

#[test]
fn a_stop_waits_for_output_that_is_not_written_yet() {
    let mut world = World::new();
    let alice = world.open("alice", "phone");
    let group = world.create(alice, "", &[]).group;
    world.set_reading(alice, super::world::Reading::Nothing);
    world.ask(alice, &history_request(&[(group, 1)], 0, 0));
    world.hub.handle_stop(10_000, world.now);
    world.turn();
    assert!(!world.hub.is_drained());
    world.set_reading(alice, super::world::Reading::Chunks(7));
    assert!(world.hub.is_drained());
}
