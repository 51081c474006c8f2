//! Leaving, and what becomes of a group by it.

use super::world::requests::history_request;
use super::world::{World, users};
use crate::group::{Event, Succession};
use crate::wire::{GroupShown, LogEntry, Push, Reply, Request};

fn succession(push: &Push) -> Succession {
    match push {
        Push::Entry { entry: LogEntry::Shown(entry), .. } => match &entry.event {
            Event::Left { succession } => succession.clone(),
            other => panic!("{other:?}"),
        },
        other => panic!("{other:?}"),
    }
}

#[test]
fn the_devices_of_a_leaver_get_its_leaving_and_then_nothing() {
    let mut world = World::new();
    let (alice, phone, tablet) =
        (world.online("alice", "phone"), world.online("bob", "phone"), world.online("bob", "tablet"));
    let group = world.create(alice, "", &["bob"]).group;
    for peer in [alice, phone, tablet] {
        world.packet(peer);
    }
    assert_eq!(world.leave(phone, group).seq, 2);
    for peer in [alice, phone, tablet] {
        let pushes = world.pushes(peer);
        assert_eq!(pushes.len(), 1);
        assert_eq!(succession(&pushes[0]), Succession::Unchanged);
    }
    world.send(alice, group, b"about bob");
    assert!(world.got(phone).is_empty() && world.got(tablet).is_empty());
    assert_eq!(world.pushed_seqs(alice), [3]);
    let request = world.send_request(group, b"me again");
    let id = world.ask(phone, &request);
    assert_eq!(world.refusal(phone, id).name(), "NOT_FOUND");
}

#[test]
fn a_device_that_is_behind_when_its_user_leaves_is_told_that_the_group_is_gone() {
    let mut world = World::new();
    let alice = world.online("alice", "phone");
    let group = world.create(alice, "", &["bob"]).group;
    world.send(alice, group, b"hi");
    let phone = world.attach("bob", "phone", &[(group, 1)]);
    assert_eq!(world.pushes(phone), [Push::Behind { group, from: 2, head: 2 }, Push::Ready]);
    let fresh = world.attach("bob", "tablet", &[]);
    assert_eq!(world.packet(fresh).group, group);
    let one_shot = world.open("bob", "one-shot");
    assert_eq!(world.leave(one_shot, group).seq, 3);
    for peer in [phone, fresh] {
        assert_eq!(world.pushes(peer), [Push::Gone { group, until: 3 }], "it would wait for ever to become live");
    }
    world.send(alice, group, b"about bob");
    let id = world.ask(phone, &history_request(&[(group, 2)], 0, 0));
    assert!(matches!(world.reply(phone, id), Reply::HistoryPage { .. }));
    world.send(alice, group, b"more about bob");
    assert!(world.pushes(phone).is_empty() && world.pushes(fresh).is_empty());
}

#[test]
fn when_the_owner_leaves_all_are_told_who_is_owner_now() {
    let mut world = World::new();
    let (alice, bob) = (world.online("alice", "phone"), world.online("bob", "phone"));
    let group = world.create(alice, "", &["carol", "bob"]).group;
    world.packet(alice);
    world.packet(bob);
    world.leave(alice, group);
    let carol = super::world::user("carol");
    assert_eq!(succession(&world.pushes(bob)[0]), Succession::Passed { owner: carol.clone() });
    let id = world.ask(bob, &Request::GetGroup { group, newer_than: 0 });
    let Reply::GroupShown(GroupShown::Record { record, head, .. }) = world.reply(bob, id) else { panic!() };
    assert_eq!((record.owner, record.version, head), (carol, 2, 2));
    let members: Vec<_> = record.members.into_iter().map(|member| member.user).collect();
    assert_eq!(members, users(&["carol", "bob"]));
}

#[test]
fn the_last_who_leaves_dissolves_the_group_for_good() {
    let mut world = World::new();
    let alice = world.online("alice", "phone");
    let group = world.create(alice, "", &[]).group;
    world.packet(alice);
    world.leave(alice, group);
    assert_eq!(succession(&world.pushes(alice)[0]), Succession::Dissolved);
    for round in 0..2 {
        if round == 1 {
            world = world.restarted();
        }
        let alice = world.open("alice", "other");
        let requests = [
            world.send_request(group, b"anybody?"),
            world.leave_request(group),
            Request::GetGroup { group, newer_than: 0 },
        ];
        for id in world.ask_all(alice, &requests) {
            assert_eq!(world.refusal(alice, id).name(), "NOT_FOUND");
        }
    }
    assert_eq!(world.model.effects.len(), 2);
}

#[test]
fn a_group_that_was_left_is_not_listed() {
    let mut world = World::new();
    let alice = world.open("alice", "phone");
    let kept = world.create(alice, "kept", &["bob"]).group;
    let left = world.create(alice, "left", &["bob"]).group;
    world.leave(alice, left);
    let id = world.ask(alice, &Request::ListGroups { after: None, count_max: 0 });
    let Reply::GroupsListed { more: false, groups } = world.reply(alice, id) else { panic!() };
    assert_eq!(groups.iter().map(|listed| (listed.group, listed.members)).collect::<Vec<_>>(), [(kept, 2)]);
}
