//! One create, one packet to everybody, and what follows.

use roundtable::client::Event;
use roundtable::group::Event as GroupEvent;
use roundtable::wire::LogEntry;

use crate::support::{Running, next, user};

#[test]
fn a_thousand_members_on_line_have_the_packet_of_one_create_without_a_second_request() {
    const MEMBERS: usize = 1_000;
    let server = Running::start();
    let names: Vec<_> = (0..MEMBERS).map(|number| format!("member-{number}")).collect();
    let mut clients: Vec<_> = names.iter().map(|name| server.attach(name)).collect();
    let requests = server.stat("requests_total");

    let members: Vec<_> = names.iter().map(|name| user(name)).collect();
    let created = clients[0].create("everybody", &members).unwrap();
    assert_eq!((created.members, created.pushed, created.queued), (1_000, 999, 0));
    let mut frames = std::collections::BTreeSet::new();
    for client in &mut clients {
        let Event::Group { packet, frame } = next(client) else { panic!("the group packet is the first thing") };
        assert_eq!(packet.group, created.group);
        assert_eq!(packet.members, members, "all members, in order");
        frames.insert(frame);
    }
    assert_eq!(frames.len(), 1, "it is encoded once: everybody gets the same bytes");
    // The create, and the hello and the question of whoever asked for the two figures.
    assert_eq!(server.stat("requests_total") - requests, 1 + 2);
    assert_eq!(server.stat("group_packets_pushed_total"), 1_000);
}

#[test]
fn a_member_gets_what_it_missed_behind_the_packet_and_then_what_comes() {
    let server = Running::start();
    let mut alice = server.attach("alice");
    let group = alice.create("lunch", &[user("bob")]).unwrap().group;
    for number in 0..300 {
        alice.send(group, format!("message {number}")).unwrap();
    }
    let mut bob = server.connect("bob");
    bob.attach_marks().unwrap();
    let mut seqs = Vec::new();
    while seqs.len() < 300 {
        match next(&mut bob) {
            Event::Group { packet, .. } => {
                assert!(seqs.is_empty(), "the packet comes first");
                assert_eq!((packet.from, packet.head), (2, 301));
            }
            Event::Entry { entry, .. } => seqs.push(entry.seq()),
            _ => {}
        }
    }
    assert_eq!(seqs, (2..=301).collect::<Vec<_>>(), "ascending and without gap");
    alice.send(group, "live").unwrap();
    loop {
        if let Event::Entry { entry: LogEntry::Shown(entry), .. } = next(&mut bob) {
            assert_eq!(entry.seq, 302);
            assert!(matches!(entry.event, GroupEvent::Message { ref body } if **body == *b"live"));
            break;
        }
    }
}

#[test]
fn two_devices_of_a_user_count_once_and_both_get_everything() {
    let server = Running::start();
    let options = |device: &str| {
        let token = server.token("bob", roundtable::ids::Role::User);
        roundtable::client::ConnectOptions::new(server.address.to_string(), token)
            .with_device(roundtable::ids::DeviceId::new(device).unwrap())
    };
    let mut devices: Vec<_> =
        ["phone", "desk"].map(|device| roundtable::client::Client::connect(options(device)).unwrap()).into();
    for device in &mut devices {
        device.attach_marks().unwrap();
        while !matches!(next(device), Event::Ready) {}
    }
    let mut alice = server.attach("alice");
    let created = alice.create("lunch", &[user("bob"), user("carol")]).unwrap();
    assert_eq!((created.members, created.pushed, created.queued), (3, 1, 1));
    alice.send(created.group, "hi").unwrap();
    for device in &mut devices {
        assert!(matches!(next(device), Event::Group { .. }));
        assert!(matches!(next(device), Event::Entry { entry, .. } if entry.seq() == 2));
    }
}
