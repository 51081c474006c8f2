//! A full disk under the real program: a file system of its own of a few segments, and a foreign file beside the data.

use std::path::{Path, PathBuf};
use std::time::Instant;

use roundtable::client::{Client, Event};
use roundtable::ids::{GroupId, Role};

use super::disk::{Disk, MIB};
use super::site::{ALICE, BOB, Server, run, segments, user};
use super::talk::{KEPT, PATIENCE, Talk, is_full};

const DISK_MIB: u64 = 96;
/// Less than a server of 4 MiB segments wants free for another one, and enough for its index.
const FULL_BYTES: u64 = 10 * MIB;

impl Disk {
    fn serve(&self) -> Server {
        let config = self.place().join("config.toml");
        std::fs::write(&config, format!("retention_entries = {KEPT}\n")).expect("written");
        let config = config.to_str().expect("text").to_owned();
        Server::try_start_with(&self.data(), &["--config", &config]).unwrap_or_else(|refused| panic!("{refused:?}"))
    }
}

/// Three segments full of what lives for ever: whenever one of them is the oldest, all of it has to be carried.
const STAYS_BYTES: u64 = 12 * MIB;

/// A clean stop, a look at all of it, and a start: nothing is damaged, nothing is lost.
fn check_from_disk(disk: &Disk, server: Server, talk: &Talk) {
    server.stop();
    let verified = run(&disk.data(), &["verify", "--json"]);
    assert_eq!(verified.code, 0, "{verified:?}");
    let server = disk.serve();
    talk.check(&mut server.connect(ALICE, Role::User), talk.head());
    server.stop();
}

fn first_segment(data: &Path) -> PathBuf {
    segments(data).remove(0)
}

/// Waits for an event that is the one.
fn wait_for(client: &mut Client, wanted: impl Fn(&Event) -> bool) {
    loop {
        let event = client.next_event(Some(PATIENCE)).expect("it lives").expect("it comes");
        if wanted(&event) {
            return;
        }
    }
}

#[test]
fn on_a_full_disk_changes_are_refused_reads_and_pushes_go_on_and_creates_go_on_when_there_is_space() {
    let Some(disk) = Disk::mount(DISK_MIB * MIB) else { return };
    let server = disk.serve();
    let mut talk = Talk::begin(&server);
    // What cleaning gives back is taken as well, until there is nothing more to be gained.
    while {
        disk.take_until(FULL_BYTES);
        talk.say()
    } {}
    let mut carol = server.connect("carol", Role::User);
    // Small ones find room a while longer.
    let mut created = Vec::new();
    let refused = loop {
        match carol.create("as long as there is room", &[user(BOB)]) {
            Ok(group) => created.push(group.group),
            Err(error) => break error,
        }
        disk.take_until(FULL_BYTES);
    };
    assert!(is_full(&refused), "{refused}");

    let mut bob = server.connect(BOB, Role::User);
    talk.check(&mut bob, talk.head());
    bob.attach_marks().expect("on line");
    // Catching up ends with the newest entry; from then on what is pushed comes.
    let head = talk.head();
    wait_for(
        &mut bob,
        |event| matches!(event, Event::Entry { group, entry } if *group == talk.group && entry.seq() == head),
    );
    talk.client.signal(talk.group, b"typing").expect("said");
    talk.client.ping().expect("the server answers");
    wait_for(&mut bob, |event| matches!(event, Event::Signal { .. }));

    disk.give_back();
    let from = Instant::now();
    let after = loop {
        match carol.create("after", &[user(BOB)]) {
            Ok(group) => break group.group,
            Err(error) => assert!(is_full(&error) && from.elapsed() < PATIENCE, "{error}"),
        }
    };
    wait_for(&mut bob, |event| matches!(event, Event::Group { packet, .. } if packet.group == after));
    talk.say_bytes(20 * MIB);
    let listed: Vec<GroupId> = carol.list_groups().expect("listed").iter().map(|summary| summary.group).collect();
    assert!(created.iter().chain([&after]).all(|group| listed.contains(group)), "what was acknowledged is there");
    assert_eq!(listed.len(), created.len() + 1, "and what was refused is not");
    println!("{} said, {} times refused, {} small groups", talk.said, talk.refused, created.len());
    check_from_disk(&disk, server, &talk);
}

#[test]
fn on_a_disk_that_stays_full_cleaning_gives_room_for_several_times_its_size() {
    let Some(disk) = Disk::mount(DISK_MIB * MIB) else { return };
    let server = disk.serve();
    let mut talk = Talk::begin(&server);
    // Otherwise nothing in the oldest segment would live: cleaning would need no room, and nobody had to keep any for it.
    talk.say_what_stays(STAYS_BYTES);
    // Cleaning begins by itself at three segments or so: less is left than it would use.
    disk.take_until(FULL_BYTES + 3 * 4 * MIB);
    let first = first_segment(&disk.data());
    talk.say_bytes(2 * DISK_MIB * MIB);
    assert!(!first.exists(), "room came from cleaning alone");
    println!("{} said, {} times refused, {} bytes free", talk.said, talk.refused, disk.free_bytes());
    check_from_disk(&disk, server, &talk);
}

#[test]
fn a_disk_that_others_fill_to_the_last_byte_stops_changes_and_not_the_server() {
    let Some(disk) = Disk::mount(DISK_MIB * MIB) else { return };
    let server = disk.serve();
    let mut talk = Talk::begin(&server);
    disk.take_all();
    // The last one waits a second for room; by then the index would have been flushed several times.
    while talk.say() {}
    assert!(talk.said > 10, "what was granted before is used: {}", talk.said);
    let mut bob = server.connect(BOB, Role::User);
    assert_eq!(bob.history(talk.group, 1, 0).expect("reads go on").head, talk.head());
    disk.give_back();
    talk.say_bytes(20 * MIB);
    check_from_disk(&disk, server, &talk);
}
