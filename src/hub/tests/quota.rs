//! The groups that a user may be in.

use super::world::{World, user, users};
use crate::store::Event;
use crate::wire::Request;

#[test]
fn who_is_full_is_put_into_no_group_until_it_is_so_no_longer() {
    let mut world = World::new();
    let alice = world.open("alice", "phone");
    let group = world.create(alice, "", &["bob"]).group;
    world.storage(Event::UserFull { user: user("bob"), groups_max: Some(64) });
    let create = world.create_request("", &["carol", "bob"]);
    let id = world.ask(alice, &create);
    let error = world.refusal(alice, id);
    assert_eq!((error.name(), error.detail), ("LIMIT", 64));
    assert!(error.message.contains("bob"), "who it is: {}", error.message);
    let again = Request::Add { operation: world.operation(), group, members: users(&["bob"]) };
    assert_eq!(world.change(alice, &again).seq, 1, "who is in it already stays");
    let carol = world.create(alice, "", &["carol"]).group;
    let add = Request::Add { operation: world.operation(), group: carol, members: users(&["dave", "bob"]) };
    let id = world.ask(alice, &add);
    assert_eq!(world.refusal(alice, id).name(), "LIMIT");
    world.send(alice, group, b"bob talks and is talked to as before");
    world.storage(Event::UserFull { user: user("bob"), groups_max: None });
    assert_eq!(world.change(alice, &add).seq, 2, "a refusal is not remembered");
}
