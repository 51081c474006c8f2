//! Going on line: what a device is told, and from when on it gets entries.

use super::world::requests::page_seqs;
use super::world::{Peer, World, hello, user};
use crate::ids::GroupId;
use crate::limits::{CONNECTIONS_PER_USER_MAX, HISTORY_GROUPS_MAX};
use crate::wire::{Attach, GroupSeq, Push, Reply, Request};

/// A group of alice and bob with this head; alice is on line.
fn with_group(head: u64) -> (World, Peer, GroupId) {
    let mut world = World::new();
    let alice = world.online("alice", "phone");
    let group = world.create(alice, "", &["bob"]).group;
    for number in 1..head {
        world.send(alice, group, &number.to_be_bytes());
    }
    world.got(alice);
    (world, alice, group)
}

#[test]
fn a_device_that_is_up_to_date_is_told_nothing_and_is_live() {
    let (mut world, alice, group) = with_group(5);
    let bob = world.attach("bob", "phone", &[(group, 5)]);
    assert_eq!(world.pushes(bob), [Push::Ready]);
    world.send(alice, group, b"hi");
    assert_eq!(world.pushed_seqs(bob), [6]);
}

#[test]
fn a_device_that_is_behind_is_told_so_and_live_once_history_reaches_the_head() {
    let (mut world, alice, group) = with_group(5);
    let bob = world.attach("bob", "phone", &[(group, 3)]);
    assert_eq!(world.pushes(bob), [Push::Behind { group, from: 4, head: 5 }, Push::Ready]);
    world.send(alice, group, b"hi");
    assert!(world.pushes(bob).is_empty());
    assert_eq!(world.catch_up(bob, group, 4), [4, 5, 6]);
    world.send(alice, group, b"hi");
    assert_eq!(world.pushed_seqs(bob), [7]);
}

#[test]
fn groups_that_were_left_or_never_were_are_gone() {
    let (mut world, alice, group) = with_group(3);
    let bob = world.open("bob", "phone");
    assert_eq!(world.leave(bob, group).seq, 4);
    world.send(alice, group, b"hi");
    let unknown = GroupId::from_bytes([3; 16]).unwrap();
    let others = world.create(alice, "", &[]).group;
    let tablet = world.attach("bob", "tablet", &[(group, 2), (unknown, 9), (others, 1)]);
    let mut told = world.pushes(tablet);
    assert_eq!(told.pop(), Some(Push::Ready));
    told.sort_by_key(|push| if let Push::Gone { group, .. } = push { *group } else { panic!("{push:?}") });
    let mut expected = vec![
        Push::Gone { group, until: 4 },
        Push::Gone { group: unknown, until: 0 },
        Push::Gone { group: others, until: 0 },
    ];
    expected.sort_by_key(|push| if let Push::Gone { group, .. } = push { *group } else { unreachable!() });
    assert_eq!(told, expected, "absent and forbidden look alike");
    world.send(alice, group, b"hi");
    assert!(world.pushes(tablet).is_empty());
}

#[test]
fn a_device_may_say_what_it_has_in_several_frames() {
    let (mut world, alice, first) = with_group(2);
    let second = world.create(alice, "", &["bob"]).group;
    let bob = world.open("bob", "phone");
    for (more, group, seq) in [(true, first, 2), (false, second, 1)] {
        let groups = vec![GroupSeq { group, seq }];
        let id = world.ask(bob, &Request::Attach(Attach::Device { more, groups }));
        assert_eq!(world.reply(bob, id), Reply::Attached);
    }
    assert_eq!(world.pushes(bob), [Push::Ready]);
}

#[test]
fn a_second_attach_closes_with_protocol() {
    let mut world = World::new();
    let alice = world.online("alice", "phone");
    world.ask(alice, &Request::Attach(Attach::Marks));
    assert_eq!(world.closed_with(alice), "PROTOCOL");
}

#[test]
fn by_marks_a_received_group_is_not_told_again() {
    let (mut world, alice, group) = with_group(3);
    let bob = world.attach_marks("bob", "watch");
    assert_eq!(world.packet(bob).group, group, "no mark yet");
    world.acknowledge(bob, group, 3);
    world.disconnect(bob);
    let bob = world.attach_marks("bob", "watch");
    assert_eq!(world.pushes(bob), [Push::Ready]);
    world.send(alice, group, b"hi");
    assert_eq!(world.pushed_seqs(bob), [4]);
    world.disconnect(bob);
    let bob = world.attach_marks("bob", "watch");
    assert_eq!(world.pushes(bob), [Push::Behind { group, from: 4, head: 4 }, Push::Ready]);
}

#[test]
fn by_marks_what_was_left_is_told_until_the_end_is_received() {
    let (mut world, _, group) = with_group(3);
    let bob = world.open("bob", "phone");
    world.acknowledge(bob, group, 2);
    world.leave(bob, group);
    let watch = world.attach_marks("bob", "watch");
    let told = [Push::Behind { group, from: 3, head: 4 }, Push::Gone { group, until: 4 }, Push::Ready];
    assert_eq!(world.pushes(watch), told, "where it may go on reading, and that it ends there");
    assert_eq!(world.history_seqs(watch, group, 3), (vec![3, 4], 4));
    world.acknowledge(watch, group, 4);
    let again = world.attach_marks("bob", "again");
    assert_eq!(world.pushes(again), [Push::Ready]);
}

#[test]
fn marks_that_are_not_journalled_yet_count_at_attaching() {
    let (mut world, _, group) = with_group(3);
    let bob = world.open("bob", "phone");
    world.synced = false;
    world.acknowledge(bob, group, 3);
    let watch = world.attach_marks("bob", "watch");
    assert_eq!(world.pushes(watch), [Push::Ready]);
    world.advance(1_000);
    let second = world.attach_marks("bob", "second");
    assert_eq!(world.pushes(second), [Push::Ready], "on their way to the disk");
    world.sync();
}

/// Entries become durable before, while and after the memberships are read.
#[test]
fn entries_released_while_memberships_are_loaded_leave_no_gap_and_no_repeat() {
    for read_first in [false, true] {
        for loaded in [false, true] {
            let (mut world, mut alice, group) = with_group(3);
            if !loaded {
                world = world.restarted();
                alice = world.attach("alice", "phone", &[(group, 3)]);
                world.pushes(alice);
            }
            world.loads_held = true;
            let bob = world.attach("bob", "phone", &[(group, 3)]);
            let answer = read_first.then(|| world.take_answer());
            let send = world.send_request(group, b"four");
            world.ask(alice, &send);
            while world.held_loads() > usize::from(!read_first) {
                let last = world.held_loads() - usize::from(!read_first);
                if last > 0 && !read_first {
                    // The look-ups of the send overtake the one of the attach.
                    world.rotate_loads();
                }
                world.answer_one();
            }
            assert_eq!(world.model.groups[&group].head(), 4);
            match answer {
                Some(answer) => world.storage(answer),
                None => world.answer_all(),
            }
            world.answer_all();
            assert_eq!(world.pushes(bob), [Push::Behind { group, from: 4, head: 4 }, Push::Ready]);
            assert_eq!(world.catch_up(bob, group, 4), [4]);
            world.send(alice, group, b"five");
            assert_eq!(world.pushed_seqs(bob), [5]);
            world.hub.check_idle();
        }
    }
}

#[test]
fn entries_pending_while_memberships_are_loaded_are_pushed_when_they_are_durable() {
    let (mut world, alice, group) = with_group(3);
    world.synced = false;
    let send = world.send_request(group, b"four");
    world.ask(alice, &send);
    world.apply_one();
    let bob = world.attach("bob", "phone", &[(group, 3)]);
    assert_eq!(world.pushes(bob), [Push::Ready], "of what is not released nothing is told");
    let carol = world.attach("bob", "tablet", &[(group, 2)]);
    world.sync();
    assert_eq!(world.pushed_seqs(bob), [4]);
    assert_eq!(world.pushes(carol), [Push::Behind { group, from: 3, head: 4 }, Push::Ready]);
}

#[test]
fn the_newest_connection_of_a_device_takes_over() {
    let (mut world, alice, group) = with_group(2);
    let old = world.attach("bob", "phone", &[(group, 2)]);
    let tablet = world.attach("bob", "tablet", &[(group, 2)]);
    world.pushes(tablet);
    world.pushes(old);
    let new = world.attach("bob", "phone", &[(group, 2)]);
    assert_eq!(world.pushes(old), [Push::TakenOver]);
    assert!(!world.is_open(old) && world.is_open(tablet));
    let created = world.create(alice, "", &["bob"]);
    assert_eq!(created.pushed, 1);
    world.pushes(new);
    world.pushes(tablet);
    world.send(alice, group, b"hi");
    assert_eq!((world.pushed_seqs(new), world.pushed_seqs(tablet)), (vec![3], vec![3]));
    assert_eq!(world.hub.directory.connections(&user("bob")), [world.key(tablet), world.key(new)]);
}

#[test]
fn a_connection_that_does_not_attach_takes_nobody_over() {
    let mut world = World::new();
    let alice = world.online("alice", "phone");
    let again = world.open("alice", "phone");
    assert!(world.is_open(alice) && world.is_open(again));
}

#[test]
fn the_eleventh_connection_of_a_user_makes_the_oldest_give_way() {
    let mut world = World::new();
    let peers: Vec<_> =
        (0..CONNECTIONS_PER_USER_MAX).map(|number| world.online("bob", &format!("d{number}"))).collect();
    assert!(peers.iter().all(|peer| world.is_open(*peer)));
    world.online("bob", "one more");
    assert_eq!(world.pushes(peers[0]), [Push::TakenOver]);
    assert!(!world.is_open(peers[0]) && peers[1..].iter().all(|peer| world.is_open(*peer)));
}

#[test]
fn connections_that_are_closing_already_make_nobody_give_way() {
    let mut world = World::new();
    let peers: Vec<_> =
        (0..CONNECTIONS_PER_USER_MAX).map(|number| world.online("bob", &format!("d{number}"))).collect();
    let last = peers[CONNECTIONS_PER_USER_MAX - 1];
    world.set_reading(last, super::world::Reading::Nothing);
    world.ask(last, &hello("user:bob", "phone"));
    assert!(world.is_open(last), "its last words are not taken yet");
    world.online("bob", "one more");
    assert!(world.is_open(peers[0]), "there are ten, not eleven");
}

#[test]
fn more_groups_than_output_has_room_for_are_told_as_the_device_reads() {
    let mut world = World::new();
    let alice = world.open("alice", "phone");
    let title = "t".repeat(250);
    let groups: Vec<_> = (0..600).map(|_| world.create(alice, &title, &["bob"]).group).collect();
    let bob = world.open("bob", "phone");
    world.set_reading(bob, super::world::Reading::Nothing);
    world.ask(bob, &Request::Attach(Attach::Marks));
    assert!(world.waiting(bob) < 2 * crate::limits::OUTPUT_BYTES_SOFT, "paced by the output");
    let late = world.create(alice, "", &["bob"]).group;
    world.set_reading(bob, super::world::Reading::Chunks(999));
    let told: Vec<_> = world.pushes(bob);
    assert_eq!(told.last(), Some(&Push::Ready));
    assert_eq!(told.iter().filter(|push| matches!(push, Push::GroupPacket(_))).count(), groups.len() + 1);
    world.send(alice, late, b"hi");
    assert_eq!(world.pushed_seqs(bob), [2]);
    world.hub.check_idle();
}

/// Every group is loaded already, so nothing interrupts the telling: it must not eat the stack.
#[test]
fn a_device_with_very_many_groups_is_told_of_all() {
    let mut world = World::new();
    let alice = world.open("alice", "phone");
    let groups: Vec<_> = (0..2_000).map(|_| world.create(alice, "", &["bob"]).group).collect();
    for group in &groups {
        world.send(alice, *group, b"hi");
    }
    let has: Vec<_> = groups.iter().map(|group| (*group, 1)).collect();
    let bob = world.attach("bob", "phone", &has);
    let told = world.pushes(bob);
    assert_eq!(told.len(), groups.len() + 1);
    assert_eq!(told.last(), Some(&Push::Ready));
    for chunk in groups.chunks(HISTORY_GROUPS_MAX) {
        let asked: Vec<_> = chunk.iter().map(|group| (*group, 2)).collect();
        let id = world.ask(bob, &super::world::requests::history_request(&asked, 0, 0));
        let Reply::HistoryPage { groups } = world.reply(bob, id) else { panic!() };
        for part in groups {
            assert_eq!(page_seqs(part.outcome), (vec![2], 2));
        }
    }
    world.send(alice, groups[1_234], b"live");
    assert_eq!(world.pushed_seqs(bob), [3]);
}
