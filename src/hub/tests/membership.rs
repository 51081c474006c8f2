//! Changes of membership that meet each other on their way to the disk.

use super::world::{Got, Peer, World, user, users};
use crate::group::{Event, Succession};
use crate::ids::GroupId;
use crate::wire::{GroupShown, LogEntry, Push, Reply, Request};

/// A group of alice (its owner), bob and carol, in this order of joining.
struct Trio {
    world: World,
    group: GroupId,
    /// One connection of each that is on line and has the group.
    phones: [Peer; 3],
    /// One of each for requests, off line.
    desks: [Peer; 3],
}

const ALICE: usize = 0;
const BOB: usize = 1;
const CAROL: usize = 2;
const NAMES: [&str; 3] = ["alice", "bob", "carol"];

impl Trio {
    /// On a disk that is done when the test says so, from here on.
    fn new() -> Self {
        let mut world = World::new();
        let phones = NAMES.map(|name| world.online(name, "phone"));
        let desks = NAMES.map(|name| world.open(name, "desk"));
        let group = world.create(desks[ALICE], "", &["bob", "carol"]).group;
        for phone in phones {
            world.packet(phone);
        }
        world.synced = false;
        Self { world, group, phones, desks }
    }

    fn add(&mut self, names: &[&str]) -> Request {
        Request::Add { operation: self.world.operation(), group: self.group, members: users(names) }
    }

    fn remove(&mut self, names: &[&str]) -> Request {
        Request::Remove { operation: self.world.operation(), group: self.group, members: users(names) }
    }

    fn transfer(&mut self, name: &str) -> Request {
        Request::Transfer { operation: self.world.operation(), group: self.group, owner: user(name) }
    }

    fn leave(&mut self) -> Request {
        self.world.leave_request(self.group)
    }

    /// Both requests are on their way before the first is on disk; then the disk has them. What they were answered:
    /// the seq, or the name of the refusal.
    fn at_once(&mut self, first: (usize, &Request), second: (usize, &Request)) -> [Result<u64, &'static str>; 2] {
        let asked = [first, second].map(|(who, request)| (who, self.world.ask(self.desks[who], request)));
        for (who, _) in asked {
            assert!(self.world.got(self.desks[who]).is_empty(), "nothing is answered that is not durable");
        }
        for phone in self.phones {
            assert!(self.world.got(phone).is_empty(), "nothing is pushed that is not durable");
        }
        self.world.sync();
        self.world.hub.check_idle();
        asked.map(|(who, id)| match self.world.reply(self.desks[who], id) {
            Reply::Changed(_, changed) => Ok(changed.seq),
            Reply::Error(error) => Err(error.name()),
            other => panic!("not an answer to a change: {other:?}"),
        })
    }

    /// What the log has behind the creation, as it was pushed to nobody in particular.
    fn log(&self) -> Vec<Event> {
        self.world.model.groups[&self.group].log[1..].iter().map(|entry| entry.event.clone()).collect()
    }

    fn pushed(&mut self) -> [Vec<u64>; 3] {
        self.phones.map(|phone| self.world.pushed_seqs(phone))
    }

    /// Owner and members, as a member is shown them; and as they are on disk.
    fn record(&mut self, asker: usize) -> (String, Vec<String>) {
        let id = self.world.ask(self.desks[asker], &Request::GetGroup { group: self.group, newer_than: 0 });
        let Reply::GroupShown(GroupShown::Record { record, .. }) = self.world.reply(self.desks[asker], id) else {
            panic!("it is shown to {}", NAMES[asker])
        };
        assert_eq!(record, self.world.model.groups[&self.group].record);
        let members = record.members.iter().map(|member| member.user.to_string()).collect();
        (record.owner.to_string(), members)
    }
}

fn left(succession: Succession) -> Event {
    Event::Left { succession }
}

fn passed(to: &str) -> Event {
    left(Succession::Passed { owner: user(to) })
}

fn removed(names: &[&str]) -> Event {
    Event::Removed { members: users(names) }
}

fn added(names: &[&str]) -> Event {
    Event::Added { members: users(names) }
}

#[test]
fn an_owner_who_leaves_while_its_heir_is_being_removed_is_followed_by_the_next_one() {
    let mut trio = Trio::new();
    let (remove, leave) = (trio.remove(&["bob"]), trio.leave());
    assert_eq!(trio.at_once((ALICE, &remove), (ALICE, &leave)), [Ok(2), Ok(3)]);
    assert_eq!(trio.log(), [removed(&["bob"]), passed("carol")]);
    assert_eq!(trio.pushed(), [vec![2, 3], vec![2], vec![2, 3]]);
    assert_eq!(trio.record(CAROL), ("carol".into(), vec!["carol".into()]));
}

#[test]
fn an_owner_who_has_left_removes_nobody_any_more() {
    let mut trio = Trio::new();
    let (leave, remove) = (trio.leave(), trio.remove(&["bob"]));
    assert_eq!(trio.at_once((ALICE, &leave), (ALICE, &remove)), [Ok(2), Err("NOT_FOUND")]);
    assert_eq!(trio.log(), [passed("bob")]);
    assert_eq!(trio.pushed(), [vec![2], vec![2], vec![2]]);
    assert_eq!(trio.record(CAROL), ("bob".into(), vec!["bob".into(), "carol".into()]));
}

#[test]
fn who_is_removed_and_leaves_at_once_goes_by_the_one_entry_that_came_first() {
    let mut trio = Trio::new();
    let (remove, leave) = (trio.remove(&["bob"]), trio.leave());
    assert_eq!(trio.at_once((ALICE, &remove), (BOB, &leave)), [Ok(2), Err("NOT_FOUND")]);
    assert_eq!(trio.log(), [removed(&["bob"])]);
    assert_eq!(trio.pushed(), [vec![2], vec![2], vec![2]]);

    let mut trio = Trio::new();
    let (leave, remove) = (trio.leave(), trio.remove(&["bob"]));
    let answers = trio.at_once((BOB, &leave), (ALICE, &remove));
    assert_eq!(answers, [Ok(2), Ok(2)], "what is so already succeeds without an entry");
    assert_eq!(trio.log(), [left(Succession::Unchanged)]);
    assert_eq!(trio.pushed(), [vec![2], vec![2], vec![2]]);
    assert_eq!(trio.record(ALICE), ("alice".into(), vec!["alice".into(), "carol".into()]));
}

#[test]
fn of_many_who_are_removed_one_who_has_just_left_is_not_named() {
    let mut trio = Trio::new();
    let (leave, remove) = (trio.leave(), trio.remove(&["carol", "bob"]));
    assert_eq!(trio.at_once((BOB, &leave), (ALICE, &remove)), [Ok(2), Ok(3)]);
    assert_eq!(trio.log(), [left(Succession::Unchanged), removed(&["carol"])]);
    assert_eq!(trio.pushed(), [vec![2, 3], vec![2], vec![2, 3]]);
}

#[test]
fn a_group_is_given_to_nobody_who_is_leaving_it() {
    let mut trio = Trio::new();
    let (leave, transfer) = (trio.leave(), trio.transfer("bob"));
    assert_eq!(trio.at_once((BOB, &leave), (ALICE, &transfer)), [Ok(2), Err("NOT_A_MEMBER")]);
    assert_eq!(trio.record(ALICE).0, "alice");

    let mut trio = Trio::new();
    let (transfer, leave) = (trio.transfer("bob"), trio.leave());
    assert_eq!(trio.at_once((ALICE, &transfer), (BOB, &leave)), [Ok(2), Ok(3)]);
    assert_eq!(trio.log()[1], passed("alice"), "the longest-standing, who gave it away");
    assert_eq!(trio.record(CAROL), ("alice".into(), vec!["alice".into(), "carol".into()]));
}

/// alice, alone in a group, and dave, whom she knows.
fn alone() -> (World, GroupId, Peer, Peer) {
    let mut world = World::new();
    let (alice, dave) = (world.online("alice", "phone"), world.online("dave", "phone"));
    let group = world.create(alice, "", &[]).group;
    world.packet(alice);
    world.synced = false;
    (world, group, alice, dave)
}

#[test]
fn the_last_member_who_leaves_behind_an_add_leaves_the_group_to_who_was_added() {
    let (mut world, group, alice, dave) = alone();
    let add = Request::Add { operation: world.operation(), group, members: users(&["dave"]) };
    let leave = world.leave_request(group);
    world.ask_all(alice, &[add, leave]);
    assert!(world.got(dave).is_empty());
    world.sync();
    let told = world.pushes(dave);
    let [Push::GroupPacket(packet), Push::Entry { entry: LogEntry::Shown(entry), .. }] = &told[..] else {
        panic!("the packet, then what came behind: {told:?}")
    };
    assert_eq!((packet.from, packet.head), (3, 2), "live from the entry behind the one that added it");
    assert_eq!((packet.owner.as_str(), &packet.members), ("alice", &users(&["alice", "dave"])), "as it was then");
    assert_eq!((entry.seq, &entry.event), (3, &passed("dave")));
    world.synced = true;
    assert_eq!(world.send(dave, group, b"mine").seq, 4);
    world.hub.check_idle();
}

#[test]
fn nobody_is_added_to_a_group_that_its_last_member_is_leaving() {
    let (mut world, group, alice, dave) = alone();
    let leave = world.leave_request(group);
    let add = Request::Add { operation: world.operation(), group, members: users(&["dave"]) };
    let ids = world.ask_all(alice, &[leave, add]);
    world.sync();
    assert_eq!(world.refusal(alice, ids[1]).name(), "NOT_FOUND");
    assert!(world.got(dave).is_empty(), "it never knew");
    let kept = &world.model.groups[&group];
    assert_eq!((kept.log.len(), &kept.log[1].event, kept.record.dissolved), (2, &left(Succession::Dissolved), true));
    assert!(!world.model.places.contains_key(&(user("dave"), group)));
    world.hub.check_idle();
}

#[test]
fn what_who_is_being_added_asks_takes_effect_behind_its_joining_and_is_answered_behind_it() {
    let mut trio = Trio::new();
    let dave = trio.world.online("dave", "phone");
    let group = trio.group;
    let send = trio.world.send_request(group, b"am I in?");
    let early = trio.world.ask(dave, &send);
    assert_eq!(trio.world.refusal(dave, early).name(), "NOT_FOUND", "not before it is asked for");
    let add = trio.add(&["dave"]);
    trio.world.ask(trio.desks[ALICE], &add);
    let show = trio.world.ask(dave, &Request::GetGroup { group, newer_than: 0 });
    let send = trio.world.send_request(group, b"I am in");
    let sent = trio.world.ask(dave, &send);
    assert!(trio.world.got(dave).is_empty(), "nobody knows of it yet");
    trio.world.sync_one();
    trio.world.turn();
    let told = trio.world.got(dave);
    let [Got::Push(Push::GroupPacket(packet)), Got::Reply(id, Reply::GroupShown(_))] = &told[..] else {
        panic!("the packet, and the answer that waited for it: {told:?}")
    };
    assert_eq!((packet.from, *id), (3, show));
    trio.world.sync();
    assert!(matches!(trio.world.reply(dave, sent), Reply::Changed(_, changed) if changed.seq == 3));
    assert_eq!(trio.world.pushed_seqs(dave), [3]);
    assert_eq!(trio.pushed(), [vec![2, 3], vec![2, 3], vec![2, 3]]);
}

#[test]
fn who_is_added_and_removed_before_the_disk_has_either_is_told_both_and_nothing_else() {
    let mut trio = Trio::new();
    let dave = trio.world.online("dave", "phone");
    let (add, remove) = (trio.add(&["dave"]), trio.remove(&["dave"]));
    assert_eq!(trio.at_once((BOB, &add), (ALICE, &remove)), [Ok(2), Ok(3)]);
    let send = trio.world.send_request(trio.group, b"about dave");
    trio.world.ask(trio.desks[ALICE], &send);
    trio.world.sync();
    let told = trio.world.pushes(dave);
    assert!(
        matches!(&told[..], [Push::GroupPacket(packet), Push::Entry { entry, .. }] if packet.from == 3 && entry.seq() == 3),
        "{told:?}"
    );
    assert_eq!(trio.log()[..2], [added(&["dave"]), removed(&["dave"])]);
}

#[test]
fn who_is_removed_and_added_again_at_once_gets_the_packet_of_its_new_stay() {
    let mut trio = Trio::new();
    let (remove, add) = (trio.remove(&["bob"]), trio.add(&["bob"]));
    assert_eq!(trio.at_once((ALICE, &remove), (CAROL, &add)), [Ok(2), Ok(3)]);
    let told = trio.world.pushes(trio.phones[BOB]);
    let [Push::Entry { entry, .. }, Push::GroupPacket(packet)] = &told[..] else { panic!("{told:?}") };
    assert_eq!((entry.seq(), packet.from, packet.head), (2, 4, 3));
    assert_eq!(packet.members, users(&["alice", "carol", "bob"]), "in the order of joining: it is the youngest now");
    let leave = trio.leave();
    trio.world.ask(trio.desks[ALICE], &leave);
    trio.world.sync();
    assert_eq!(trio.log()[2], passed("carol"));
    assert_eq!(trio.world.pushed_seqs(trio.phones[BOB]), [4]);
}
