//! Each call, its errors, and what it leaves.

use std::slice::from_ref;

use roundtable::Engine;
use roundtable::engine::{Actor, Changed, EngineError, Page};
use roundtable::group::{Event, Limit, Succession};
use roundtable::ids::{GroupId, OperationId, UserId};
use roundtable::limits::{BODY_BYTES_MAX, GROUP_MEMBERS_MAX, OPERATIONS_REMEMBERED, TITLE_BYTES_MAX};

use super::{log, open, user};

/// An engine in a directory of its own, with alice, bob and carol in one group.
struct Scene {
    home: tempfile::TempDir,
    engine: Engine,
    alice: UserId,
    bob: UserId,
    carol: UserId,
    group: GroupId,
}

fn scene() -> Scene {
    let home = tempfile::tempdir().expect("a directory");
    let engine = open(home.path());
    let (alice, bob, carol) = (user("alice"), user("bob"), user("carol"));
    let group = engine.acting(&alice).create("g", &[bob.clone(), carol.clone()]).expect("it is made").group;
    Scene { home, engine, alice, bob, carol, group }
}

impl Scene {
    fn reopen(mut self) -> Self {
        self.engine.close().expect("it closes");
        self.engine = open(self.home.path());
        self
    }

    fn members(&self) -> Vec<String> {
        let record = self.engine.group(self.group).expect("it is there").record;
        record.members.iter().map(|member| member.user.to_string()).collect()
    }
}

#[test]
fn the_whole_life_of_a_group_is_its_record_and_its_log_and_both_are_there_after_reopening() {
    let scene = scene();
    let Scene { engine, alice, bob, carol, group, .. } = &scene;
    let dave = user("dave");
    let changed = |seq, version| Changed { group: *group, seq, version, repeated: false };
    assert_eq!(engine.acting(bob).append(*group, *b"hello").unwrap(), changed(2, 1));
    assert_eq!(engine.acting(bob).add(*group, &[dave.clone(), carol.clone()]).unwrap(), changed(3, 3));
    assert_eq!(engine.acting(bob).add(*group, from_ref(carol)).unwrap(), changed(3, 3), "it is so already");
    assert_eq!(engine.acting(alice).rename(*group, "new").unwrap(), changed(4, 4));
    assert_eq!(engine.acting(alice).whisper(*group, from_ref(bob), *b"psst").unwrap(), changed(5, 4));
    assert_eq!(engine.acting(alice).remove(*group, from_ref(carol)).unwrap(), changed(6, 6));
    assert_eq!(engine.acting(alice).transfer(*group, &dave).unwrap(), changed(7, 7));
    assert_eq!(engine.acting(&dave).leave(*group).unwrap(), changed(8, 8));
    assert_eq!(scene.members(), ["alice", "bob"]);
    let before = (engine.group(*group).unwrap(), log(engine, *group));
    assert_eq!((&*before.0.record.title, before.0.record.owner.as_str(), before.0.head), ("new", "alice", 8));
    assert_eq!(before.1[7].event, Event::Left { succession: Succession::Passed { owner: alice.clone() } });

    let scene = scene.reopen();
    assert_eq!((scene.engine.group(scene.group).unwrap(), log(&scene.engine, scene.group)), before);
    scene.engine.acting(&scene.alice).dissolve(scene.group).unwrap();
    assert!(scene.engine.group(scene.group).unwrap().record.dissolved);
    assert_eq!(scene.engine.acting(&scene.alice).append(scene.group, *b"x"), Err(EngineError::NotFound));
    assert_eq!(scene.engine.groups_of(&scene.alice).count(), 0);
}

#[test]
fn what_is_refused_changes_nothing() {
    let Scene { engine, alice, bob, group, home: _home, .. } = scene();
    let (group, stranger) = (group, user("stranger"));
    let absent: GroupId = "0198f2a1-7c3e-7d10-8a55-0242ac120002".parse().unwrap();
    let long = "x".repeat(TITLE_BYTES_MAX + 1);
    let crowd: Vec<_> = (0..GROUP_MEMBERS_MAX).map(|number| user(&format!("u{number}"))).collect();
    let before = engine.group(group).unwrap();
    let stranger_acts = || engine.acting(&stranger);
    assert_eq!(stranger_acts().append(group, *b"x"), Err(EngineError::NotFound));
    assert_eq!(stranger_acts().leave(group), Err(EngineError::NotFound));
    assert_eq!(engine.acting(&alice).append(absent, *b"x"), Err(EngineError::NotFound));
    assert_eq!(engine.acting(&bob).rename(group, "x"), Err(EngineError::Forbidden));
    assert_eq!(engine.acting(&bob).remove(group, from_ref(&alice)), Err(EngineError::Forbidden));
    assert_eq!(engine.acting(&bob).dissolve(group), Err(EngineError::Forbidden));
    assert_eq!(engine.acting(&alice).transfer(group, &stranger), Err(EngineError::NotAMember));
    assert_eq!(engine.acting(&alice).whisper(group, from_ref(&stranger), *b"x"), Err(EngineError::NotAMember));
    assert_eq!(engine.acting(&alice).rename(group, &long), Err(EngineError::Limit(Limit::Title)));
    assert_eq!(engine.acting(&alice).create(&long, &[]), Err(EngineError::Limit(Limit::Title)));
    assert_eq!(engine.acting(&alice).create("x", &crowd), Err(EngineError::Limit(Limit::Members)));
    assert_eq!(engine.acting(&alice).add(group, &crowd), Err(EngineError::Limit(Limit::Members)));
    let body = vec![0; BODY_BYTES_MAX + 1];
    assert_eq!(engine.acting(&alice).append(group, body), Err(EngineError::Limit(Limit::Body)));
    assert_eq!(engine.acting(Actor::System).create("x", &[]), Err(EngineError::NotAMember));
    assert_eq!(engine.acting(Actor::System).leave(group), Err(EngineError::NotFound));
    assert_eq!(engine.group(group).unwrap(), before);
    assert_eq!(engine.groups().count(), 1);
}

#[test]
fn limits_hold_exactly() {
    let Scene { engine, alice, group, home: _home, .. } = scene();
    let crowd: Vec<_> = (1..GROUP_MEMBERS_MAX).map(|number| user(&format!("u{number}"))).collect();
    let full = engine.acting(&alice).create(&"x".repeat(TITLE_BYTES_MAX), &crowd).unwrap();
    assert_eq!(full.members as usize, GROUP_MEMBERS_MAX);
    engine.acting(&alice).add(full.group, &crowd).expect("all are in it already");
    assert_eq!(engine.acting(&alice).add(full.group, &[user("one-more")]), Err(EngineError::Limit(Limit::Members)));
    engine.acting(&alice).append(group, vec![1; BODY_BYTES_MAX]).unwrap();
    let readers = engine.readers(full.group).unwrap();
    assert_eq!(readers.len(), GROUP_MEMBERS_MAX);
    assert!(engine.groups().all(|group| group.is_ok()));
}

#[test]
fn the_system_may_do_what_an_owner_may_without_being_a_member_and_its_entries_say_so() {
    let Scene { engine, bob, carol, group, home: _home, .. } = scene();
    let system = || engine.acting(Actor::System);
    system().remove(group, from_ref(&bob)).unwrap();
    system().rename(group, "moderated").unwrap();
    system().append(group, *b"be kind").unwrap();
    system().transfer(group, &carol).unwrap();
    let made = system().create("by the program", &[carol.clone(), bob.clone()]).unwrap();
    let entries = log(&engine, group);
    assert!(entries[1..].iter().all(|entry| entry.sender == user("system") && entry.by == Some(user("system"))));
    let record = engine.group(made.group).unwrap().record;
    assert_eq!((record.owner.as_str(), record.creator.as_str(), record.members.len()), ("carol", "carol", 2));
    assert_eq!(log(&engine, made.group)[0].by, Some(user("system")));
    system().dissolve(group).unwrap();
}

#[test]
fn an_operation_id_takes_effect_once_whatever_comes_between() {
    let Scene { home, engine, alice, bob, group, .. } = scene();
    let ids: Vec<_> = (0..5).map(|_| OperationId::random()).collect();
    let created = engine.acting(&alice).operation(ids[0]).create("once", from_ref(&bob)).unwrap();
    let added = engine.acting(&alice).operation(ids[1]).add(group, &[user("dave")]).unwrap();
    let sent = engine.acting(&bob).operation(ids[1]).append(group, *b"of bob: another principal").unwrap();
    let over = engine.acting(&alice).operation(ids[2]).dissolve(group).unwrap();
    assert!(!created.repeated && !added.repeated && !sent.repeated && !over.repeated);

    let again = |engine: &Engine| {
        let repeated = |before: Changed| Ok(Changed { repeated: true, ..before });
        let made = engine.acting(&alice).operation(ids[0]).create("once", from_ref(&bob)).unwrap();
        assert_eq!((made.group, made.members, made.repeated), (created.group, 2, true));
        assert_eq!(engine.acting(&alice).operation(ids[1]).add(group, &[user("dave")]), repeated(added));
        assert_eq!(engine.acting(&bob).operation(ids[1]).append(group, *b"of bob: another principal"), repeated(sent));
        assert_eq!(engine.acting(&alice).operation(ids[2]).dissolve(group), repeated(over), "of a group that is over");
        let reused = Err(EngineError::IdReused);
        assert_eq!(engine.acting(&alice).operation(ids[1]).add(group, &[user("erin")]), reused);
        assert_eq!(engine.acting(&alice).operation(ids[1]).remove(group, &[user("dave")]), reused);
        assert_eq!(engine.acting(&alice).operation(ids[0]).dissolve(group), reused);
        assert_eq!(engine.acting(&bob).operation(ids[1]).append(group, *b"other"), reused);
        // Refusals are not remembered: the same id may do something else.
        assert_eq!(engine.acting(&alice).operation(ids[3]).append(group, *b"x"), Err(EngineError::NotFound));
        assert_eq!(engine.groups().count(), 2, "nothing was made again");
    };
    again(&engine);
    engine.close().unwrap();
    let engine = open(home.path());
    again(&engine);
    assert!(!engine.acting(&alice).operation(ids[3]).append(created.group, *b"y").unwrap().repeated);
}

#[test]
fn as_many_operations_are_remembered_as_is_promised_in_memory_and_after_reopening() {
    for reopens in [false, true] {
        let scene = scene();
        let ids: Vec<_> = (0..=OPERATIONS_REMEMBERED).map(|_| OperationId::random()).collect();
        for id in &ids {
            scene.engine.acting(&scene.alice).operation(*id).append(scene.group, *b"x").unwrap();
        }
        let scene = if reopens { scene.reopen() } else { scene };
        let again =
            |id: OperationId| scene.engine.acting(&scene.alice).operation(id).append(scene.group, *b"x").unwrap();
        assert!(ids[1..].iter().all(|id| again(*id).repeated));
        // The oldest is forgotten: it is done again, which forgets the next one.
        assert!(!again(ids[0]).repeated);
        assert!(!again(ids[1]).repeated);
        assert!(again(ids[3]).repeated);
    }
}

#[test]
fn a_log_is_read_in_pages_from_anywhere_in_it_and_nowhere_else() {
    let Scene { engine, alice, group, home: _home, .. } = scene();
    for number in 2..=40_u64 {
        engine.acting(&alice).append(group, vec![7; 20_000 + usize::try_from(number).unwrap()]).unwrap();
    }
    let all = log(&engine, group);
    assert!(all.iter().map(|entry| entry.seq).eq(1..=40));
    let page = engine.read(group, 0, 3).unwrap();
    assert_eq!((page.entries.len(), page.head, page.floor), (3, 40, 1));
    assert_eq!(page.entries, all[..3]);
    let page = engine.read(group, 10, 256).unwrap();
    assert!((2..=13).contains(&page.entries.len()), "a page has 256 KiB at most: {}", page.entries.len());
    assert_eq!(page.entries[0], all[9]);
    assert_eq!(engine.read(group, 41, 1).unwrap(), Page { entries: Vec::new(), head: 40, floor: 1 });
    assert_eq!(engine.read(group, 42, 1), Err(EngineError::Range { head: 40 }));
    assert_eq!(engine.read(group, u64::MAX, 1), Err(EngineError::Range { head: 40 }));
}

#[test]
fn marks_only_grow_and_are_there_after_reopening() {
    let Scene { home, engine, alice, bob, group, .. } = scene();
    engine.acting(&alice).append(group, *b"x").unwrap();
    let marks = |engine: &Engine| -> Vec<(String, u64, u64)> {
        let readers = engine.readers(group).unwrap();
        readers.into_iter().map(|reader| (reader.user.to_string(), reader.received, reader.read)).collect()
    };
    engine.acknowledge(&bob, group, 2, 1).unwrap();
    engine.acknowledge(&bob, group, 1, 0).unwrap();
    engine.acknowledge(&alice, group, 1, 0).unwrap();
    let expected = [("alice".to_owned(), 1, 0), ("bob".to_owned(), 2, 1), ("carol".to_owned(), 0, 0)].to_vec();
    assert_eq!(marks(&engine), expected);
    assert_eq!(engine.acknowledge(&bob, group, 3, 0), Err(EngineError::Range { head: 2 }));
    assert_eq!(engine.acknowledge(&bob, group, 0, 3), Err(EngineError::Range { head: 2 }));
    assert_eq!(engine.acknowledge(&user("stranger"), group, 1, 1), Err(EngineError::NotFound));
    let summary = engine.groups_of(&bob).next().unwrap().unwrap();
    assert_eq!((summary.group, summary.received, summary.read, summary.head), (group, 2, 1, 2));
    engine.close().unwrap();
    let engine = open(home.path());
    assert_eq!(marks(&engine), expected);
    engine.acknowledge(&bob, group, 2, 2).unwrap();
}

#[test]
fn iterations_give_every_group_once_over_several_pages() {
    let Scene { engine, alice, bob, group, home: _home, .. } = scene();
    let mut made = vec![group];
    for number in 0..600 {
        let members: &[UserId] = if number % 2 == 0 { &[] } else { std::slice::from_ref(&bob) };
        made.push(engine.acting(&alice).create("one of many", members).unwrap().group);
    }
    made.sort_unstable();
    let all: Vec<_> = engine.groups().map(|group| group.unwrap().record.group).collect();
    assert_eq!(all, made);
    let of_alice: Vec<_> = engine.groups_of(&alice).map(|group| group.unwrap().group).collect();
    assert_eq!(of_alice, made);
    assert_eq!(engine.groups_of(&bob).count(), 301);
    assert_eq!(engine.groups_of(&user("nobody")).count(), 0);
}

#[test]
fn a_closed_engine_says_so_on_every_clone_and_a_dropped_one_has_finished() {
    let Scene { engine, alice, group, home, .. } = scene();
    let clone = engine.clone();
    engine.close().unwrap();
    let closed = EngineError::Closed;
    assert_eq!(clone.group(group), Err(closed.clone()));
    assert_eq!(clone.acting(&alice).append(group, *b"x"), Err(closed.clone()));
    assert_eq!(clone.acknowledge(&alice, group, 1, 1), Err(closed.clone()));
    assert_eq!(clone.groups().next(), Some(Err(closed.clone())));
    assert_eq!(clone.stats(), Err(closed.clone()));
    assert_eq!(clone.close(), Err(closed));

    let engine = open(home.path());
    let iterator = engine.groups();
    drop(engine);
    assert_eq!(iterator.count(), 1, "an iterator keeps it open");
    open(home.path()).close().expect("and gives it back when it ends");
}

#[test]
fn an_engine_can_be_shared_between_threads() {
    fn shared<T: Send + Sync + Clone + 'static>(_: &T) {}
    let scene = scene();
    shared(&scene.engine);
}
