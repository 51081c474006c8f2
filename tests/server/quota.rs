//! The groups that a user may be in, on a real server: at the limit, under it, over it, and over a restart.

use roundtable::client::{Client, ClientError};
use roundtable::ids::GroupId;
use roundtable::net::{Server, ServerOptions};
use roundtable::store::GroupQuota;
use roundtable::wire::GroupShown;

use crate::support::{Running, user};

const LIMIT: u32 = 64;

fn quota() -> GroupQuota {
    GroupQuota { groups_max: LIMIT, groups_max_of: [(user("bot"), 3 * LIMIT)].into() }
}

/// Makes a group, and waits for the index to have seen it: a page of the list comes behind it.
fn create(client: &mut Client, members: &[&str]) -> Result<GroupId, ClientError> {
    let members: Vec<_> = members.iter().map(|name| user(name)).collect();
    let group = client.create("", &members)?.group;
    client.list_groups().unwrap();
    Ok(group)
}

fn refused<T: std::fmt::Debug>(result: Result<T, ClientError>) -> (&'static str, u64) {
    match result {
        Err(ClientError::Refused(error)) => (error.name(), error.detail),
        other => panic!("not refused: {other:?}"),
    }
}

#[test]
fn nobody_is_put_into_more_groups_than_it_may_be_in_by_whomever() {
    let server = Running::start_with(|options| options.quota = quota());
    let mut alice = server.connect("alice");
    let groups: Vec<_> = (0..LIMIT).map(|_| create(&mut alice, &["bot"]).unwrap()).collect();
    assert_eq!(refused(create(&mut alice, &[])), ("LIMIT", u64::from(LIMIT)), "one more");
    let mut bob = server.connect("bob");
    assert_eq!(refused(create(&mut bob, &["alice"])), ("LIMIT", u64::from(LIMIT)), "nor by somebody else");
    let group = create(&mut bob, &["bot"]).unwrap();
    assert_eq!(refused(bob.add(group, &[user("carol"), user("alice")])), ("LIMIT", u64::from(LIMIT)));
    let GroupShown::Record { record, .. } = bob.group(group).unwrap() else { panic!("a record") };
    assert_eq!(record.members.len(), 2, "nobody of those was added");
    alice.leave(groups[0]).unwrap();
    alice.list_groups().unwrap();
    bob.add(group, &[user("carol"), user("alice")]).unwrap();
    alice.list_groups().unwrap();
    assert_eq!(refused(create(&mut alice, &[])), ("LIMIT", u64::from(LIMIT)));

    let (data, directory) = server.stop_and_keep();
    let mut options = ServerOptions::new("127.0.0.1:0".parse().unwrap(), data);
    options.quota = quota();
    let server = Running::over(Server::start(options).unwrap(), directory);
    let mut alice = server.connect("alice");
    assert_eq!(refused(create(&mut alice, &[])), ("LIMIT", u64::from(LIMIT)), "the limit is known from the start");
    let mut carol = server.connect("carol");
    for _ in 0..LIMIT - 1 {
        create(&mut carol, &["bot"]).unwrap();
    }
    assert_eq!(refused(create(&mut carol, &["bot"])), ("LIMIT", u64::from(LIMIT)), "the bot is in more, carol is not");
}
