//! Stopping, and starting again.

use roundtable::client::Event;
use roundtable::net::{Server, ServerOptions};

use crate::support::{Running, next, user};

fn options(server: &Running) -> ServerOptions {
    ServerOptions {
        segment_bytes: 4 << 20,
        ..ServerOptions::new("127.0.0.1:0".parse().unwrap(), server.directory.path().join("data"))
    }
}

#[test]
fn a_clean_stop_tells_the_clients_and_ends_well() {
    let server = Running::start();
    let mut alice = server.attach("alice");
    let group = alice.create("lunch", &[user("bob")]).unwrap().group;
    assert!(matches!(next(&mut alice), Event::Group { .. }));
    alice.send(group, "hi").unwrap();
    assert!(matches!(next(&mut alice), Event::Entry { .. }));
    server.stop().unwrap();
    assert!(matches!(next(&mut alice), Event::GoingAway { .. }));
}

#[test]
fn a_second_server_on_the_same_directory_is_refused_and_the_first_is_unharmed() {
    let server = Running::start();
    let refused = Server::start(options(&server)).err().expect("the directory is locked").to_string();
    assert!(refused.contains("LOCK") && refused.contains(&std::process::id().to_string()), "{refused}");
    let group = server.attach("alice").create("lunch", &[user("bob")]).unwrap();
    assert_eq!(group.members, 2);
}

#[test]
fn a_port_that_is_in_use_is_named() {
    let server = Running::start();
    let other = tempfile::tempdir().unwrap();
    let mut options = options(&server);
    options.listen = server.address;
    options.data = other.path().join("data");
    let refused = Server::start(options).err().expect("the port is in use").to_string();
    assert!(refused.contains(&server.address.to_string()) && refused.contains("in use"), "{refused}");
}
