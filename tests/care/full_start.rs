//! Starts on a disk that is full, or nearly: served, or refused by name; nothing is lost, and with room the next one goes on.

use std::path::Path;
use std::sync::OnceLock;

use roundtable::Engine;
use roundtable::ids::{GroupId, Role, UserId};

use super::disk::{Disk, MIB};
use super::site::{BOB, Outcome, Server, copy_tree, run, user};

const GROUPS: u64 = 8_000;
const THREADS: u64 = 8;

/// Exit code 6, and words that say what to do.
fn check_refusal(refused: &Outcome, what: &str) {
    assert_eq!(refused.code, 6, "{what}: {refused:?}");
    assert!(refused.stderr.contains("make room") && refused.stderr.contains("nothing is lost"), "{what}: {refused:?}");
}

#[test]
fn starts_on_a_disk_of_any_size_serve_or_say_what_is_missing_and_go_on_when_there_is_room() {
    let (mut served, mut refused) = (0, 0);
    for kib in (64..14 * 1024).step_by(960) {
        let Some(disk) = Disk::mount(kib * 1024) else { return };
        let mut kept = None;
        match Server::try_start(&disk.data()) {
            Ok(server) => {
                served += 1;
                let mut bob = server.connect(BOB, Role::User);
                // Granted or refused; what was acknowledged is there afterwards.
                kept = bob.create("on a small disk", &[user("alice")]).ok().map(|created| created.group);
                server.stop();
            }
            Err(outcome) => {
                refused += 1;
                check_refusal(&outcome, &format!("{kib} KiB"));
            }
        }
        disk.resize(64 * MIB);
        let server = Server::start(&disk.data());
        let mut bob = server.connect(BOB, Role::User);
        let after = bob.create("with room", &[user("alice")]).expect("there is room").group;
        let listed: Vec<GroupId> = bob.list_groups().expect("listed").iter().map(|group| group.group).collect();
        assert!(kept.iter().chain([&after]).all(|group| listed.contains(group)), "{kib} KiB: {listed:?}");
        server.stop();
        assert_eq!(run(&disk.data(), &["verify"]).code, 0, "{kib} KiB");
    }
    assert!(served > 3 && refused > 3, "{served} served, {refused} refused");
}

/// A directory with many groups, so that its index is much larger than the smallest disks below leave room for.
fn many_groups() -> &'static Path {
    static PLACE: OnceLock<tempfile::TempDir> = OnceLock::new();
    let place = PLACE.get_or_init(|| {
        let place = tempfile::tempdir().expect("a temporary directory");
        let data = place.path().join("data");
        Server::start(&data).stop();
        let engine = Engine::open(&data).expect("it opens");
        std::thread::scope(|scope| {
            for thread in 0..THREADS {
                let engine = &engine;
                scope.spawn(move || {
                    for number in 0..GROUPS / THREADS {
                        let name = |member| user(&format!("member-{}", (thread * 7 + number * 13 + member) % 2_000));
                        let mut members: Vec<UserId> = (0..24).map(name).collect();
                        if number == 0 {
                            members.push(user(BOB));
                        }
                        let group = engine.acting(&name(99)).create("one of many", &members).expect("created").group;
                        engine.acting(&name(99)).append(group, vec![7; 1024]).expect("appended");
                    }
                });
            }
        });
        engine.close().expect("closed");
        place
    });
    place.path()
}

#[test]
fn an_index_that_has_to_be_made_anew_on_a_full_disk_is_made_or_the_start_says_what_is_missing() {
    let data = many_groups().join("data");
    let (mut served, mut refused, mut ended) = (0, 0, 0);
    for free_mib in [0, 1, 3, 6, 12, 64] {
        let Some(disk) = Disk::mount(256 * MIB) else { return };
        copy_tree(&data, &disk.data());
        std::fs::remove_dir_all(disk.data().join("index")).expect("there was one");
        if free_mib == 0 {
            disk.take_all();
        } else {
            disk.take_until(free_mib * MIB);
        }
        let groups = |server: &Server| server.connect(BOB, Role::User).list_groups().map(|groups| groups.len() as u64);
        match Server::try_start(&disk.data()) {
            Err(outcome) => {
                refused += 1;
                check_refusal(&outcome, &format!("{free_mib} MiB"));
            }
            // It listens before the index is made.
            Ok(server) => {
                if let Ok(found) = groups(&server) {
                    served += 1;
                    assert_eq!(found, THREADS);
                    server.stop();
                } else {
                    ended += 1;
                    check_refusal(&server.outcome(), &format!("{free_mib} MiB"));
                }
            }
        }
        let inside = std::fs::read_dir(disk.data()).expect("it reads").flatten();
        let aside: Vec<_> = inside.map(|item| item.file_name()).collect();
        let aside = aside.iter().filter(|name| name.to_string_lossy().starts_with("index.broken"));
        assert_eq!(aside.count(), 0, "{free_mib} MiB: a full disk does not make an index a broken one");
        disk.give_back();
        let server = Server::start(&disk.data());
        assert_eq!(groups(&server).expect("listed"), THREADS, "{free_mib} MiB");
        server.stop();
        assert_eq!(run(&disk.data(), &["verify"]).code, 0, "{free_mib} MiB");
    }
    println!("{served} served, {refused} refused, {ended} ended");
    assert!(served > 0 && refused > 0 && ended > 0, "{served} served, {refused} refused, {ended} ended");
}
