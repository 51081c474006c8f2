//! The feed: every entry, in the order of the journal, with those who were not on line, from any position on.

use super::world::{Peer, Reading, World, hello, user, users};
use crate::ids::GroupId;
use crate::limits::{FEED_PAGE_ITEMS, FEED_RECENT_ITEMS};
use crate::wire::{Push, Reply, Request};

fn service(world: &mut World) -> Peer {
    let peer = world.connect();
    let id = world.ask(peer, &hello("service:push", "push"));
    assert!(matches!(world.reply(peer, id), Reply::Welcome(_)));
    peer
}

fn begin(world: &mut World, peer: Peer, position: u64) -> u64 {
    let id = world.ask(peer, &Request::Feed { position });
    match world.reply(peer, id) {
        Reply::FeedBegun { position } => position,
        other => panic!("{other:?}"),
    }
}

/// What was told: position, group, seq, who was not on line.
fn items(world: &mut World, peer: Peer) -> Vec<(u64, GroupId, u64, Vec<String>)> {
    let item = |push| match push {
        Push::FeedItem { position, group, seq, offline, .. } => {
            (position, group, seq, offline.iter().map(ToString::to_string).collect())
        }
        other => panic!("{other:?}"),
    };
    world.pushes(peer).into_iter().map(item).collect()
}

fn seqs(items: &[(u64, GroupId, u64, Vec<String>)]) -> Vec<u64> {
    items.iter().map(|item| item.2).collect()
}

#[test]
fn each_entry_is_told_with_the_members_who_had_no_live_connection() {
    let mut world = World::new();
    let (alice, bob) = (world.online("alice", "phone"), world.online("bob", "phone"));
    let feed = service(&mut world);
    begin(&mut world, feed, 0);
    let group = world.create(alice, "", &["bob", "carol"]).group;
    world.send(alice, group, b"hi");
    world.disconnect(bob);
    world.send(alice, group, b"bob?");
    let remove = Request::Remove { operation: world.operation(), group, members: users(&["carol"]) };
    world.change(alice, &remove);
    let told = items(&mut world, feed);
    assert_eq!(seqs(&told), [1, 2, 3, 4]);
    let offline: Vec<_> = told.iter().map(|item| item.3.join(" ")).collect();
    assert_eq!(offline, ["carol", "carol", "bob carol", "bob carol"], "who is removed is told of it, too");
    assert!(told.windows(2).all(|pair| pair[0].0 < pair[1].0));
}

#[test]
fn a_feed_goes_on_behind_the_position_that_it_names_over_a_restart() {
    let mut world = World::new();
    let alice = world.online("alice", "phone");
    let feed = service(&mut world);
    begin(&mut world, feed, 0);
    let group = world.create(alice, "", &["bob"]).group;
    let many = 5 * FEED_PAGE_ITEMS as u64;
    for _ in 1..many {
        world.send(alice, group, b"hi");
    }
    let told = items(&mut world, feed);
    assert_eq!(seqs(&told), (1..=many).collect::<Vec<_>>());
    for at in [0, 7, 3 * FEED_PAGE_ITEMS] {
        let mut world = World::over(world.model.clone());
        let feed = service(&mut world);
        let position = told[at].0;
        assert_eq!(begin(&mut world, feed, position), position);
        let again: Vec<_> = items(&mut world, feed).iter().map(|item| (item.0, item.2)).collect();
        let rest: Vec<_> = told[at + 1..].iter().map(|item| (item.0, item.2)).collect();
        assert_eq!(again, rest);
        let bob = world.open("bob", "other");
        world.send(bob, group, b"and on");
        assert_eq!(seqs(&items(&mut world, feed)), [many + 1], "live from there on");
    }
}

#[test]
fn a_service_that_reads_slowly_is_told_everything_once_it_reads() {
    let mut world = World::new();
    let alice = world.online("alice", "phone");
    let feed = service(&mut world);
    begin(&mut world, feed, 0);
    world.set_reading(feed, Reading::Nothing);
    let group = world.create(alice, "", &["bob"]).group;
    let many = 3 * FEED_RECENT_ITEMS as u64;
    for _ in 1..many {
        world.send(alice, group, b"hi");
    }
    assert!(world.waiting(feed) < 100_000, "what waits is bounded");
    world.set_reading(feed, Reading::Everything);
    assert_eq!(seqs(&items(&mut world, feed)), (1..=many).collect::<Vec<_>>());
    world.send(alice, group, b"live again");
    assert_eq!(seqs(&items(&mut world, feed)), [many + 1]);
}

#[test]
fn what_is_released_while_a_page_is_read_comes_behind_it_once() {
    let mut world = World::new();
    let alice = world.online("alice", "phone");
    let group = world.create(alice, "", &["bob"]).group;
    let feed = service(&mut world);
    world.loads_held = true;
    world.ask(feed, &Request::Feed { position: 1 });
    world.send(alice, group, b"before the page is made");
    let page = world.take_answer();
    world.send(alice, group, b"behind the page");
    world.storage(page);
    world.answer_all();
    let told = items(&mut world, feed);
    assert_eq!(seqs(&told), [1, 2, 3]);
}

#[test]
fn a_position_behind_the_end_is_refused_and_another_may_be_asked_for() {
    let mut world = World::new();
    let feed = service(&mut world);
    let id = world.ask(feed, &Request::Feed { position: 1_000_000 });
    assert_eq!(world.refusal(feed, id).name(), "RANGE");
    begin(&mut world, feed, 0);
    let id = world.ask(feed, &Request::Feed { position: 0 });
    assert!(world.find_reply(feed, id).is_none());
    assert_eq!(world.closed_with(feed), "PROTOCOL", "a second one");
}

#[test]
fn the_feed_is_for_services() {
    let mut world = World::new();
    let alice = world.open("alice", "phone");
    let id = world.ask(alice, &Request::Feed { position: 0 });
    assert_eq!(world.refusal(alice, id).name(), "FORBIDDEN");
    let feed = service(&mut world);
    let id = world.ask_as(feed, &Request::Feed { position: 0 }, &user("alice"));
    assert_eq!(world.refusal(feed, id).name(), "FORBIDDEN");
}
