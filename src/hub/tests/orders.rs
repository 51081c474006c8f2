//! Six changes that want to end each other's membership, in every order and at several paces of the disk: what is
//! answered, pushed and kept is what the rules of groups say of that order.

use super::world::{Peer, World, user, users};
use crate::group::{Act, Author, Authority, Decision, Event, Record, decide};
use crate::hub::changes::refusal_body;
use crate::ids::{GroupId, UserId};
use crate::wire::{LogEntry, Push, Reply, Request};

/// dave is no member in the beginning.
const NAMES: [&str; 4] = ["alice", "bob", "carol", "dave"];
/// After which of the six the disk is done with the oldest change that it has not reported: bit by bit.
const PACES: [u8; 4] = [0b00_0000, 0b11_1111, 0b01_0101, 0b10_0110];

#[derive(Clone, Copy, Debug)]
enum Deed {
    OwnerRemovesBob,
    OwnerLeaves,
    OwnerTransfersToBob,
    BobLeaves,
    CarolAddsDaveAndBob,
    CarolLeaves,
}

const DEEDS: [Deed; 6] = [
    Deed::OwnerRemovesBob,
    Deed::OwnerLeaves,
    Deed::OwnerTransfersToBob,
    Deed::BobLeaves,
    Deed::CarolAddsDaveAndBob,
    Deed::CarolLeaves,
];

impl Deed {
    fn sender(self) -> &'static str {
        match self {
            Self::OwnerRemovesBob | Self::OwnerLeaves | Self::OwnerTransfersToBob => "alice",
            Self::BobLeaves => "bob",
            Self::CarolAddsDaveAndBob | Self::CarolLeaves => "carol",
        }
    }

    fn act(self) -> Act {
        match self {
            Self::OwnerRemovesBob => Act::Remove { members: users(&["bob"]) },
            Self::OwnerLeaves | Self::BobLeaves | Self::CarolLeaves => Act::Leave,
            Self::OwnerTransfersToBob => Act::Transfer { owner: user("bob") },
            Self::CarolAddsDaveAndBob => Act::Add { members: users(&["dave", "bob"]) },
        }
    }

    fn request(self, world: &mut World, group: GroupId) -> Request {
        let operation = world.operation();
        match self {
            Self::OwnerRemovesBob => Request::Remove { operation, group, members: users(&["bob"]) },
            Self::OwnerLeaves | Self::BobLeaves | Self::CarolLeaves => Request::Leave { operation, group },
            Self::OwnerTransfersToBob => Request::Transfer { operation, group, owner: user("bob") },
            Self::CarolAddsDaveAndBob => Request::Add { operation, group, members: users(&["dave", "bob"]) },
        }
    }
}

/// What a connection is told of the group, in order.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Told {
    Entry { seq: u64, event: Event },
    Packet { from: u64, owner: UserId, members: Vec<UserId> },
}

/// What comes of an order.
#[derive(Debug, PartialEq, Eq)]
struct Outcome {
    /// Seq and version, or the name of the refusal.
    answers: Vec<Result<(u64, u64), &'static str>>,
    told: [Vec<Told>; 4],
    record: Record,
    head: u64,
}

/// By the rules, one after the other.
fn by_the_rules(order: &[Deed], mut record: Record) -> Outcome {
    let (mut head, mut answers, mut told) = (1, Vec::new(), [const { Vec::new() }; 4]);
    for deed in order {
        let author =
            Author { sender: user(deed.sender()), by: None, authority: Authority::Sender, at_ms: record.created_at_ms };
        answers.push(match decide(&record, head, &author, deed.act()) {
            Ok(Decision::Entry(entry)) => {
                let before = record.clone();
                record.apply(&entry);
                head = entry.seq;
                let owner = record.owner.clone();
                let members: Vec<_> = record.members.iter().map(|member| member.user.clone()).collect();
                for (name, told) in NAMES.iter().zip(&mut told) {
                    let who = user(name);
                    if before.has(&who) {
                        told.push(Told::Entry { seq: head, event: entry.event.clone() });
                    } else if record.has(&who) {
                        told.push(Told::Packet { from: head + 1, owner: owner.clone(), members: members.clone() });
                    }
                }
                Ok((entry.seq, entry.version))
            }
            Ok(Decision::Unchanged) => Ok((record.version, record.version)),
            Err(refusal) => Err(refusal_body(refusal).name()),
        });
    }
    Outcome { answers, told, record, head }
}

/// By a hub whose disk has a pace of its own.
fn by_the_hub(order: &[Deed], pace: u8) -> (Record, Outcome) {
    let mut world = World::new();
    let phones = NAMES.map(|name| world.online(name, "phone"));
    let desks = NAMES.map(|name| world.open(name, "desk"));
    let group = world.create(desks[0], "", &["bob", "carol"]).group;
    for phone in &phones[..3] {
        world.packet(*phone);
    }
    let created = world.model.groups[&group].record.clone();
    world.synced = false;
    let mut asked: Vec<(Peer, u32)> = Vec::new();
    for (at, deed) in order.iter().enumerate() {
        let desk = desks[NAMES.iter().position(|name| *name == deed.sender()).unwrap()];
        let request = deed.request(&mut world, group);
        asked.push((desk, world.ask(desk, &request)));
        if pace >> at & 1 == 1 {
            world.sync_one();
            world.turn();
        }
    }
    world.sync();
    world.hub.check_idle();
    let answer = |(desk, id): (Peer, u32)| match world.reply(desk, id) {
        Reply::Changed(_, changed) => Ok((changed.seq, changed.version)),
        Reply::Error(error) => Err(error.name()),
        other => panic!("not an answer to a change: {other:?}"),
    };
    let answers = asked.into_iter().map(answer).collect();
    let told = phones.map(|phone| world.pushes(phone).into_iter().map(told).collect());
    let kept = &world.model.groups[&group];
    for name in NAMES {
        let place = world.model.places.get(&(user(name), group));
        let is_member = place.is_some_and(|place| place.until.is_none());
        assert_eq!(is_member, kept.record.has(&user(name)), "{name}'s list of groups says the same");
    }
    (created, Outcome { answers, told, record: kept.record.clone(), head: kept.head() })
}

fn told(push: Push) -> Told {
    match push {
        Push::Entry { entry: LogEntry::Shown(entry), .. } => Told::Entry { seq: entry.seq, event: entry.event },
        Push::GroupPacket(packet) => {
            assert_eq!((packet.head + 1, packet.version), (packet.from, packet.head), "live from here on");
            Told::Packet { from: packet.from, owner: packet.owner, members: packet.members }
        }
        other => panic!("nothing but entries and packets to who reads: {other:?}"),
    }
}

/// Every order of the rest behind what is chosen.
fn orders(chosen: &mut Vec<Deed>, rest: &[Deed], visit: &mut impl FnMut(&[Deed])) {
    if rest.is_empty() {
        visit(chosen);
    }
    for at in 0..rest.len() {
        chosen.push(rest[at]);
        let others = [&rest[..at], &rest[at + 1..]].concat();
        orders(chosen, &others, visit);
        chosen.pop();
    }
}

#[test]
fn in_every_order_of_events_and_at_every_pace_of_the_disk_the_rules_hold() {
    let (mut count, mut dissolved, mut refused) = (0, 0, 0);
    orders(&mut Vec::new(), &DEEDS, &mut |order| {
        for pace in PACES {
            let (created, truth) = by_the_hub(order, pace);
            let expected = by_the_rules(order, created);
            assert_eq!(truth, expected, "{order:?} at {pace:06b}");
            dissolved += usize::from(truth.record.dissolved);
            refused += truth.answers.iter().filter(|answer| answer.is_err()).count();
            count += 1;
        }
    });
    assert_eq!(count, 720 * PACES.len());
    assert!(dissolved > 0 && refused > count, "the orders meet what is to be tested: {dissolved}, {refused}");
}
