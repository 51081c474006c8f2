//! The rule of release: nothing is shown that a power cut could take back.

use super::world::requests::history_request;
use super::world::{Got, World, users};
use crate::wire::{GroupShown, HistoryOutcome, Push, Reply, Request};

#[test]
fn a_create_is_answered_and_pushed_only_once_it_is_durable() {
    let mut world = World::slow();
    let (alice, bob) = (world.online("alice", "phone"), world.online("bob", "phone"));
    let request = world.create_request("lunch", &["bob"]);
    let id = world.ask(alice, &request);
    world.advance(3_000);
    assert!(world.got(alice).is_empty() && world.got(bob).is_empty(), "nothing leaves before its ticket");
    world.apply_one();
    world.turn();
    assert!(world.got(alice).is_empty() && world.got(bob).is_empty(), "not before the hub knows");
    world.sync();
    assert!(matches!(world.reply(alice, id), Reply::Created(created) if created.pushed == 1));
    assert_eq!(world.packet(alice).members, users(&["alice", "bob"]));
    assert_eq!(world.packet(bob).title, "lunch");
}

#[test]
fn each_change_becomes_visible_with_its_own_ticket_in_order() {
    let mut world = World::slow();
    let (alice, bob) = (world.online("alice", "phone"), world.online("bob", "phone"));
    let request = world.create_request("", &["bob"]);
    world.ask(alice, &request);
    world.sync();
    let group = world.packet(bob).group;
    world.got(alice);
    let requests: Vec<_> = (0..4).map(|number| world.send_request(group, &[number])).collect();
    let ids = world.ask_all(alice, &requests);
    for (at, id) in ids.iter().enumerate() {
        assert!(world.got(bob).is_empty());
        assert!(world.sync_one());
        world.turn();
        let seq = 2 + at as u64;
        assert!(
            matches!(&world.got(alice)[..], [Got::Reply(got, Reply::Changed(_, changed)), Got::Push(Push::Entry { entry, .. })]
            if got == id && changed.seq == seq && entry.seq() == seq),
            "the reply first, then the push"
        );
        assert_eq!(world.pushed_seqs(bob), [seq]);
    }
}

#[test]
fn a_refusal_that_tells_of_pending_state_waits_for_it() {
    let mut world = World::slow();
    let alice = world.open("alice", "phone");
    let request = world.create_request("", &["bob"]);
    let created = world.ask(alice, &request);
    world.sync();
    let Reply::Created(created) = world.reply(alice, created) else { panic!() };
    let requests = [world.leave_request(created.group), world.send_request(created.group, b"late")];
    let ids = world.ask_all(alice, &requests);
    assert!(world.got(alice).is_empty(), "that alice is out is not known before her leaving is durable");
    world.sync();
    assert!(matches!(world.reply(alice, ids[0]), Reply::Changed(..)));
    assert_eq!(world.refusal(alice, ids[1]).name(), "NOT_FOUND");
}

#[test]
fn that_a_pending_operation_id_is_taken_is_told_once_the_operation_is_durable() {
    let mut world = World::slow();
    let alice = world.open("alice", "phone");
    let operation = world.operation();
    let create = |title: &str| Request::Create { operation, title: title.into(), members: vec![] };
    let ids = world.ask_all(alice, &[create("one"), create("another")]);
    assert!(world.got(alice).is_empty(), "a power cut could still take the first one back");
    world.sync();
    assert!(matches!(world.reply(alice, ids[0]), Reply::Created(_)));
    assert_eq!(world.refusal(alice, ids[1]).name(), "ID_REUSED");
}

#[test]
fn a_refusal_of_durable_state_does_not_wait_for_other_groups() {
    let mut world = World::slow();
    let alice = world.open("alice", "phone");
    let request = world.create_request("", &[]);
    world.ask(alice, &request);
    let absent = crate::ids::GroupId::from_bytes([9; 16]).unwrap();
    let request = world.send_request(absent, b"?");
    let id = world.ask(alice, &request);
    assert_eq!(world.refusal(alice, id).name(), "NOT_FOUND");
    world.sync();
}

#[test]
fn reads_see_the_changes_that_came_before_them_and_wait_for_them() {
    let mut world = World::slow();
    let alice = world.online("alice", "phone");
    let request = world.create_request("", &[]);
    world.ask(alice, &request);
    world.sync();
    let group = match &world.got(alice)[..] {
        [Got::Reply(_, Reply::Created(created)), Got::Push(_)] => created.group,
        other => panic!("{other:?}"),
    };
    let send = world.send_request(group, b"one");
    let show = Request::GetGroup { group, newer_than: 0 };
    let ids = world.ask_all(alice, &[send, history_request(&[(group, 1)], 0, 0), show]);
    assert!(world.got(alice).is_empty());
    let later = world.send_request(group, b"two");
    world.ask(alice, &later);
    world.sync_one();
    world.turn();
    let Reply::HistoryPage { groups } = world.reply(alice, ids[1]) else { panic!() };
    let HistoryOutcome::Entries { head, entries, .. } = &groups[0].outcome else { panic!() };
    assert_eq!((*head, entries.len()), (2, 2), "what was there when it came, and nothing that is not durable");
    let Reply::GroupShown(GroupShown::Record { head, .. }) = world.reply(alice, ids[2]) else { panic!() };
    assert_eq!(head, 2);
    world.sync();
    assert_eq!(world.pushed_seqs(alice), [2, 3]);
}

#[test]
fn a_read_that_came_before_a_change_does_not_wait_for_it() {
    let mut world = World::slow();
    let alice = world.open("alice", "phone");
    let request = world.create_request("", &[]);
    let id = world.ask(alice, &request);
    world.sync();
    let Reply::Created(created) = world.reply(alice, id) else { panic!() };
    let show = world.ask(alice, &Request::GetGroup { group: created.group, newer_than: 0 });
    assert!(matches!(world.reply(alice, show), Reply::GroupShown(_)));
    let show = world.ask(alice, &Request::GetGroup { group: created.group, newer_than: 1 });
    assert!(matches!(world.reply(alice, show), Reply::GroupShown(GroupShown::Unchanged { version: 1, .. })));
}

#[test]
fn a_request_whose_connection_is_gone_still_takes_effect() {
    let mut world = World::slow();
    let (alice, bob) = (world.online("alice", "phone"), world.online("bob", "phone"));
    world.loads_held = true;
    let request = world.create_request("", &["bob"]);
    world.ask(alice, &request);
    world.disconnect(alice);
    world.answer_all();
    world.sync();
    assert_eq!(world.packet(bob).members, users(&["alice", "bob"]));
    world.hub.check_idle();
}
