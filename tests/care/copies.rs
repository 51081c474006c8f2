//! Backups of a server under load, restored elsewhere; and every place and state in which there must be none.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;

use roundtable::client::ClientError;
use roundtable::ids::{GroupId, Role};
use serde_json::Value;

use crate::site::{BOB, Outcome, Server, finish, program, run, site, tree, user};

/// A command for the operator of a server.
pub(crate) fn operate(server: &Server, data: &Path, arguments: &[&str]) -> Outcome {
    finish(program(arguments).env("ROUNDTABLE_SERVER", &server.address).env("ROUNDTABLE_DATA", data))
}

/// One user that sends to a group of its own until it is told to stop; gives what was acknowledged.
fn sender(server: &Server, name: String, stop: Arc<AtomicBool>) -> JoinHandle<(GroupId, u64)> {
    let mut client = server.connect(&name, Role::User);
    std::thread::spawn(move || {
        let group = client.create(&name, &[user(BOB)]).expect("created").group;
        let mut acknowledged = 1;
        while !stop.load(Ordering::Relaxed) {
            match client.send(group, vec![7; 2_000 + usize::try_from(acknowledged % 9_000).expect("small")]) {
                Ok(changed) => acknowledged = changed.seq,
                Err(ClientError::Refused(error)) => panic!("{error:?}"),
                Err(_) => break,
            }
        }
        (group, acknowledged)
    })
}

fn heads(server: &Server) -> BTreeMap<GroupId, u64> {
    let groups = server.connect(BOB, Role::User).list_groups().expect("listed");
    groups.into_iter().map(|summary| (summary.group, summary.head)).collect()
}

#[test]
fn everything_acknowledged_before_a_backup_of_a_loaded_server_is_in_it() {
    let (directory, data) = site().copy();
    let server = Server::start(&data);
    let stop = Arc::new(AtomicBool::new(false));
    let senders: Vec<_> = (0..4).map(|number| sender(&server, format!("user-{number}"), stop.clone())).collect();
    for round in 0..3 {
        // Let some of it stand behind what the last backup has: a known head of each sender's group.
        let before = loop {
            let heads = heads(&server);
            let senders: Vec<u64> =
                heads.iter().filter(|(group, _)| !site().logs.contains_key(group)).map(|(_, head)| *head).collect();
            if senders.len() == 4 && senders.iter().all(|head| *head > 20 * (round + 1)) {
                break heads;
            }
        };
        let backup = directory.path().join(format!("backup-{round}"));
        let made = operate(&server, &data, &["backup", "--json", backup.to_str().expect("text")]);
        assert_eq!(made.code, 0, "{made:?}");
        let restored = directory.path().join(format!("restored-{round}"));
        let outcome = finish(program(&["restore", "--json"]).arg(&backup).arg("--data").arg(&restored));
        assert_eq!(outcome.code, 0, "{outcome:?}");
        assert_eq!(run(&restored, &["verify"]).code, 0);
        let copy = Server::start(&restored);
        let found = copy.logs();
        for (group, head) in &before {
            let entries = found.get(group).map_or(0, Vec::len) as u64;
            assert!(entries >= *head, "round {round}: {group} has {entries} of {head} acknowledged entries");
        }
        for (group, log) in &site().logs {
            assert!(found.get(group) == Some(log), "what was there before is the same");
        }
        // The copy goes on by itself.
        let group = *site().logs.keys().next().expect("a group");
        copy.connect("alice", Role::User).send(group, "only here").expect("sent");
        copy.stop();
    }
    stop.store(true, Ordering::Relaxed);
    for sender in senders {
        let (group, acknowledged) = sender.join().expect("it goes on during a backup");
        assert!(heads(&server)[&group] >= acknowledged, "the server was not harmed");
    }
    server.stop();
    assert_eq!(run(&data, &["verify"]).code, 0);
}

#[test]
fn a_backup_without_a_server_has_everything_too() {
    let (directory, data) = site().copy();
    let before = tree(&data);
    let backup = directory.path().join("backup");
    let made = finish(program(&["backup", "--offline", "--json", "--data"]).arg(&data).arg(&backup));
    assert_eq!(made.code, 0, "{made:?}");
    assert!(tree(&data) == before, "nothing is changed");
    let inside = tree(&backup);
    assert!(!inside.keys().any(|path| path.starts_with("index") || path.starts_with("keys")), "neither index nor keys");
    let restored = directory.path().join("restored");
    let outcome = finish(program(&["restore"]).arg(&backup).arg("--data").arg(&restored));
    assert_eq!(outcome.code, 0, "{outcome:?}");
    assert!(outcome.stdout.contains("roundtable serve"), "it says what to do next: {outcome:?}");
    assert!(Server::start(&restored).logs() == site().logs);
    assert!(tree(&backup) == inside, "a restored directory that is written to leaves the backup alone");
}

#[test]
fn a_backup_into_a_wrong_place_is_refused_by_name_and_leaves_nothing() {
    let (directory, data) = site().copy();
    let server = Server::start(&data);
    let full = directory.path().join("full");
    fs::create_dir(&full).expect("made");
    fs::write(full.join("mine"), "mine").expect("written");
    let file = directory.path().join("file");
    fs::write(&file, "mine").expect("written");
    let inside = data.join("backup");
    let link = directory.path().join("link");
    std::os::unix::fs::symlink(&data, &link).expect("linked");
    let through_link = link.join("backup");
    let cases = [
        ("backup", "relative"),
        (full.to_str().expect("text"), "not empty"),
        (file.to_str().expect("text"), "no directory"),
        (inside.to_str().expect("text"), "inside the data directory"),
        (through_link.to_str().expect("text"), "inside the data directory"),
        ("/proc/nowhere/backup", "cannot be made"),
    ];
    for (place, words) in cases {
        let refused = operate(&server, &data, &["backup", "--json", place]);
        assert_eq!(refused.code, 1, "{place}: {refused:?}");
        let error: Value = serde_json::from_str(refused.stderr.trim()).expect("an object");
        assert_eq!(error["error"], "MALFORMED", "{place}");
        assert!(error["message"].as_str().expect("text").contains(words), "{place}: {error}");
    }
    assert!(!inside.exists() && fs::read(full.join("mine")).is_ok_and(|bytes| bytes == b"mine"));
    // Not an operator: a token of a user.
    let token = crate::site::token(&data, "alice", Role::User);
    let place = directory.path().join("not-allowed");
    let refused = operate(&server, &data, &["backup", "--token", &token, place.to_str().expect("text"), "--json"]);
    assert!(refused.code == 1 && refused.stderr.contains("FORBIDDEN") && !place.exists(), "{refused:?}");
    // The command without a server does not touch a directory that a server holds.
    let refused = finish(program(&["backup", "--offline", "--data"]).arg(&data).arg(&place));
    assert!(refused.code == 6 && !place.exists(), "{refused:?}");
}

#[test]
fn a_backup_that_finds_no_room_is_refused_by_name_and_leaves_nothing() {
    let (directory, data) = site().copy();
    let small = directory.path().join("small");
    fs::create_dir(&small).expect("made");
    let mounted = Command::new("mount").args(["-t", "tmpfs", "-o", "size=6m", "tmpfs"]).arg(&small).status();
    if !mounted.is_ok_and(|status| status.success()) {
        eprintln!("not run: nobody may mount a small file system here");
        return;
    }
    let server = Server::start(&data);
    let place = small.join("backup");
    let refused = operate(&server, &data, &["backup", "--json", place.to_str().expect("text")]);
    let left: Vec<_> = fs::read_dir(&place).map(|inside| inside.flatten().collect()).unwrap_or_default();
    let unmounted = Command::new("umount").arg(&small).status();
    assert_eq!(refused.code, 1, "{refused:?}");
    assert!(refused.stderr.contains("STORAGE_FULL") && refused.stderr.contains("bytes are free"), "{refused:?}");
    assert!(left.is_empty(), "{left:?}");
    assert!(unmounted.is_ok_and(|status| status.success()));
    let again = directory.path().join("backup");
    assert_eq!(operate(&server, &data, &["backup", again.to_str().expect("text")]).code, 0, "elsewhere it works");
}

#[test]
fn a_backup_of_damaged_data_is_no_backup() {
    let (directory, data) = site().copy();
    let server = Server::start(&data);
    // Below the running server: in a segment that it has sealed and does not read.
    let victim = crate::site::segments(&data)[1].clone();
    let mut bytes = fs::read(&victim).expect("it reads");
    bytes[900_000] ^= 1;
    fs::write(&victim, bytes).expect("it writes");
    let place = directory.path().join("backup");
    let refused = operate(&server, &data, &["backup", "--json", place.to_str().expect("text")]);
    assert_eq!(refused.code, 4, "{refused:?}");
    assert!(refused.stderr.contains("DAMAGED") && refused.stderr.contains("00000002.seg"), "{refused:?}");
    assert_eq!(fs::read_dir(&place).map_or(0, Iterator::count), 0, "nothing is left of it");
}

#[test]
fn a_backup_that_is_damaged_or_unfinished_is_not_restored() {
    let (directory, data) = site().copy();
    let backup = directory.path().join("backup");
    assert_eq!(finish(program(&["backup", "--offline", "--data"]).arg(&data).arg(&backup)).code, 0);
    let restored = directory.path().join("restored");
    let restore = || finish(program(&["restore", "--json"]).arg(&backup).arg("--data").arg(&restored));
    let files: Vec<_> = tree(&backup).into_iter().collect();
    for (name, good) in &files {
        let path = backup.join(name);
        let mut flipped = good.clone();
        let place = flipped.len() / 3;
        flipped[place] ^= 0x04;
        for bad in [Some(flipped), Some(good[..good.len() - 1].to_vec()), None] {
            // On a file of its own: segments of a backup may be linked.
            fs::remove_file(&path).expect("it is there");
            if let Some(bad) = &bad {
                fs::write(&path, bad).expect("it writes");
            }
            let refused = restore();
            assert_eq!(refused.code, 4, "{name:?}: {refused:?}");
            let file = name.file_name().expect("a name").to_str().expect("text");
            assert!(refused.stderr.contains(file) || refused.stderr.contains("BACKUP"), "{name:?}: {refused:?}");
            assert!(!restored.join("FORMAT").exists(), "{name:?}: it is no data directory");
            fs::write(&path, good).expect("it writes");
        }
    }
    assert_eq!(restore().code, 0, "whole again, it is restored");
    let before = tree(&restored);
    let refused = restore();
    assert!(refused.code == 6 && refused.stderr.contains("is in it"), "{refused:?}");
    assert!(tree(&restored) == before);
    assert!(Server::start(&restored).logs() == site().logs);
}

#[test]
fn a_restore_that_is_killed_at_any_moment_is_no_data_directory_and_can_be_run_again() {
    let (directory, data) = site().copy();
    let backup = directory.path().join("backup");
    assert_eq!(finish(program(&["backup", "--offline", "--data"]).arg(&data).arg(&backup)).code, 0);
    let from = std::time::Instant::now();
    let whole = directory.path().join("whole");
    assert_eq!(finish(program(&["restore"]).arg(&backup).arg("--data").arg(&whole)).code, 0);
    let takes = from.elapsed();
    let restored = directory.path().join("restored");
    for step in 1..10_u32 {
        let mut child = program(&["restore", "--data"]).arg(&restored).arg(&backup).spawn().expect("it runs");
        let from = std::time::Instant::now();
        while from.elapsed() < takes * step / 10 {
            std::hint::spin_loop();
        }
        child.kill().expect("it is killed");
        if child.wait().expect("it ends").code() == Some(0) {
            break;
        }
        if restored.exists() && !restored.join("FORMAT").exists() && crate::site::has_segments(&restored) {
            let refused = Server::try_start(&restored).err().expect("half a directory is not served");
            assert_eq!(refused.code, 4, "{refused:?}");
            fs::remove_dir_all(restored.join("keys")).ok();
        }
    }
    if !restored.join("FORMAT").exists() {
        let outcome = finish(program(&["restore", "--data"]).arg(&restored).arg(&backup));
        assert_eq!(outcome.code, 0, "{outcome:?}");
    }
    assert!(Server::start(&restored).logs() == site().logs);
}
