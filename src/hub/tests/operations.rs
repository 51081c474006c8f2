//! One effect per operation id (P6), and changes that storage has no room for.

use super::world::{World, user};
use crate::ids::Principal;
use crate::store::Event;
use crate::wire::{Changed, Created, Reply, Request};

#[test]
fn a_retry_gives_the_same_answer_again_and_changes_nothing() {
    for restarted in [false, true] {
        let mut world = World::new();
        let alice = world.open("alice", "phone");
        let bob = world.online("bob", "phone");
        let create = world.create_request("lunch", &["bob", "carol"]);
        let id = world.ask(alice, &create);
        let Reply::Created(created) = world.reply(alice, id) else { panic!() };
        world.got(bob);
        let send = world.send_request(created.group, b"once");
        let changed = world.change(alice, &send);
        world.got(bob);
        if restarted {
            world = world.restarted();
        }
        let alice = world.open("alice", "laptop");
        let on_line = u32::from(!restarted);
        let id = world.ask(alice, &create);
        let again = Created { repeated: true, pushed: on_line, queued: 2 - on_line, ..created };
        assert_eq!(world.reply(alice, id), Reply::Created(again));
        assert_eq!(world.change(alice, &send), Changed { repeated: true, ..changed });
        assert_eq!(world.model.effects.len(), 2);
        assert!(restarted || world.got(bob).is_empty());
        let leave = world.leave_request(created.group);
        let left = world.change(alice, &leave);
        assert_eq!(world.change(alice, &leave), Changed { repeated: true, ..left }, "to who is out by now as well");
    }
}

#[test]
fn a_retry_of_a_pending_operation_joins_it() {
    let mut world = World::slow();
    let (alice, other) = (world.open("alice", "phone"), world.open("alice", "laptop"));
    let create = world.create_request("", &["bob"]);
    let first = world.ask(alice, &create);
    let second = world.ask(other, &create);
    assert!(world.got(alice).is_empty() && world.got(other).is_empty());
    world.sync();
    let Reply::Created(created) = world.reply(alice, first) else { panic!() };
    assert_eq!(world.reply(other, second), Reply::Created(Created { repeated: true, ..created }));
    let send = world.send_request(created.group, b"once");
    let ids = world.ask_all(alice, &[send.clone(), send.clone(), send]);
    assert!(world.got(alice).is_empty());
    world.sync();
    let answers: Vec<_> = ids.into_iter().map(|id| world.reply(alice, id)).collect();
    assert!(matches!(answers[0], Reply::Changed(_, Changed { seq: 2, repeated: false, .. })));
    assert!(
        answers[1..].iter().all(|reply| matches!(reply, Reply::Changed(_, Changed { seq: 2, repeated: true, .. })))
    );
    assert_eq!(world.model.effects.len(), 2);
}

#[test]
fn retries_that_come_while_operations_are_loaded_take_effect_once() {
    let mut world = World::new();
    let alice = world.open("alice", "phone");
    world.loads_held = true;
    let create = world.create_request("", &[]);
    let ids = world.ask_all(alice, &[create.clone(), create]);
    world.answer_all();
    let answers: Vec<_> = ids.into_iter().map(|id| world.reply(alice, id)).collect();
    assert!(
        matches!(answers[..], [Reply::Created(a), Reply::Created(b)] if !a.repeated && b.repeated && a.group == b.group)
    );
}

#[test]
fn an_operation_id_with_other_content_is_refused_in_either_life() {
    let mut world = World::new();
    let alice = world.open("alice", "phone");
    let group = world.create(alice, "", &[]).group;
    let operation = world.operation();
    let send = |body: &[u8]| Request::Send { operation, group, body: body.into() };
    world.change(alice, &send(b"one"));
    for round in 0..2 {
        if round == 1 {
            world = world.restarted();
        }
        let alice = world.open("alice", "laptop");
        for other in [send(b"two"), Request::Leave { operation, group }] {
            let id = world.ask(alice, &other);
            assert_eq!(world.refusal(alice, id).name(), "ID_REUSED");
        }
        assert!(world.change(alice, &send(b"one")).repeated);
    }
}

#[test]
fn operation_ids_of_two_users_are_apart() {
    let mut world = World::new();
    let (alice, bob) = (world.open("alice", "phone"), world.open("bob", "phone"));
    let create = world.create_request("", &[]);
    for peer in [alice, bob] {
        let id = world.ask(peer, &create);
        assert!(matches!(world.reply(peer, id), Reply::Created(created) if !created.repeated));
    }
}

#[test]
fn operations_that_were_let_go_are_loaded_again() {
    let mut world = World::new();
    let alice = world.open("alice", "phone");
    let create = world.create_request("", &["bob"]);
    let id = world.ask(alice, &create);
    let Reply::Created(created) = world.reply(alice, id) else { panic!() };
    world.hub.cache.bytes_max = 0;
    for _ in 0..3 {
        world.advance(1);
    }
    assert!(world.hub.windows.is_empty() && world.hub.groups.is_empty(), "all is let go");
    assert_eq!(world.hub.cache.bytes, 0);
    let id = world.ask(alice, &create);
    assert_eq!(world.reply(alice, id), Reply::Created(Created { repeated: true, ..created }));
}

#[test]
fn refusals_are_not_remembered() {
    let mut world = World::new();
    let (alice, bob) = (world.open("alice", "phone"), world.open("bob", "phone"));
    let group = world.create(alice, "", &[]).group;
    let operation = world.operation();
    let send = Request::Send { operation, group, body: b"hi"[..].into() };
    let id = world.ask(bob, &send);
    assert_eq!(world.refusal(bob, id).name(), "NOT_FOUND");
    let other = Request::Create { operation, title: "".into(), members: vec![] };
    let id = world.ask(bob, &other);
    assert!(matches!(world.reply(bob, id), Reply::Created(created) if !created.repeated));
    assert!(!world.model.operations[&Principal::User(user("bob"))].is_empty());
}

#[test]
fn the_oldest_of_very_many_operations_is_forgotten_and_no_other() {
    let mut world = World::new();
    let alice = world.open("alice", "phone");
    let create = world.create_request("", &[]);
    let id = world.ask(alice, &create);
    let Reply::Created(created) = world.reply(alice, id) else { panic!() };
    let first = world.send_request(created.group, b"first");
    world.change(alice, &first);
    for _ in 0..crate::limits::OPERATIONS_REMEMBERED - 1 {
        world.send(alice, created.group, b"more");
    }
    assert!(world.change(alice, &first).repeated);
    world.send(alice, created.group, b"one too many");
    let window = &world.hub.windows[&Principal::User(user("alice"))];
    let crate::hub::operations::Window::Loaded(remembered) = window else { panic!() };
    let Request::Send { operation, .. } = first else { panic!() };
    assert!(remembered.find(operation).is_none());
}

#[test]
fn without_credit_a_change_is_refused_and_later_the_same_one_works() {
    let mut world = World::new();
    let alice = world.online("alice", "phone");
    let group = world.create(alice, "", &["bob"]).group;
    world.packet(alice);
    world.hub.credit_bytes = world.hub.committed_bytes + 10;
    let requests = [world.create_request("", &["bob"]), world.send_request(group, b"hi"), world.leave_request(group)];
    for id in world.ask_all(alice, &requests) {
        assert_eq!(world.refusal(alice, id).name(), "STORAGE_FULL");
    }
    assert!(world.got(alice).is_empty());
    assert_eq!(world.model.effects.len(), 1);
    assert_eq!(world.history_seqs(alice, group, 1).0, [1], "reads go on");
    let more = world.hub.credit_bytes + 1_000_000;
    world.storage(Event::Credit { bytes_total: more });
    assert_eq!(world.change(alice, &requests[1]).seq, 2);
    let id = world.ask(alice, &requests[0]);
    assert!(matches!(world.reply(alice, id), Reply::Created(_)));
}

#[test]
fn who_sends_more_than_the_disk_takes_is_not_read_until_it_has_caught_up() {
    let mut world = World::slow();
    let (alice, bob) = (world.online("alice", "phone"), world.online("bob", "phone"));
    let request = world.create_request("", &[]);
    world.ask(alice, &request);
    world.sync();
    let group = world.packet(alice).group;
    let credit = world.hub.committed_bytes + 40_000;
    world.hub.credit_bytes = credit;
    let sends: Vec<_> = (0..10).map(|_| world.send_request(group, &[7; 5_000])).collect();
    let ids = world.ask_all(alice, &sends);
    assert!(!world.hub.wants_bytes(world.key(alice)), "held back");
    assert!(world.model.queued() < 8, "and what had arrived waits");
    assert!(world.hub.wants_bytes(world.key(bob)), "others are read");
    let id = world.ask(bob, &Request::Ping);
    assert!(matches!(world.reply(bob, id), Reply::Pong { .. }));
    world.storage(Event::Credit { bytes_total: credit + 1_000_000 });
    world.sync();
    assert!(world.hub.wants_bytes(world.key(alice)));
    for id in ids {
        assert!(matches!(world.reply(alice, id), Reply::Changed(..)));
    }
    world.hub.check_idle();
}

#[test]
fn a_full_cache_lets_go_of_groups_and_keeps_the_operations_that_are_in_use() {
    let mut world = World::new();
    let alice = world.open("alice", "phone");
    world.create(alice, "", &["bob"]);
    world.hub.cache.bytes_max = 200_000;
    // From here on a load is never answered: whoever needs one waits for ever.
    world.loads_held = true;
    for _ in 0..1_000 {
        world.create(alice, "", &["bob"]);
        assert!(world.hub.cache.bytes < 210_000, "{}", world.hub.cache.bytes);
    }
    assert!(world.hub.counters.evicted > 100);
}
