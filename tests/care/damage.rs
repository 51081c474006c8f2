//! Every kind of damage: it is named, nothing is lost in silence, and a repair saves the rest.

use std::collections::BTreeMap;
use std::path::Path;

use roundtable::ids::GroupId;
use serde_json::Value;

use crate::site::{Logs, Outcome, Server, copy_tree, run, site, tree};
use crate::table::{KINDS, Kind, Serve, damaged};

#[test]
fn a_whole_directory_is_whole_and_nothing_in_it_is_changed() {
    let (_directory, data) = site().copy();
    let before = tree(&data);
    let outcome = run(&data, &["verify", "--json"]);
    assert_eq!(outcome.code, 0, "{outcome:?}");
    let summary = outcome.objects().pop().expect("a summary");
    assert_eq!((&summary["kind"], &summary["damaged"]), (&Value::from("summary"), &Value::from(false)));
    assert_eq!(summary["groups"], site().logs.len());
    assert_eq!(summary["entries"], site().logs.values().map(Vec::len).sum::<usize>());
    assert_eq!(summary["users"], 2);
    let repair = run(&data, &["repair", "--json"]);
    assert_eq!((repair.code, &repair.objects()[0]["needed"]), (0, &Value::from(false)), "{repair:?}");
    assert!(tree(&data) == before, "verify changes nothing, nor does a repair of nothing");
}

#[test]
fn every_kind_of_damage_is_named_by_verify_and_by_serve() {
    for kind in KINDS {
        let name = kind.name;
        let (_directory, data) = damaged(kind);
        let before = tree(&data);
        let outcome = run(&data, &["verify", "--json"]);
        assert_eq!(outcome.code, 4, "{name}: {outcome:?}");
        assert_eq!(outcome.stderr.lines().count(), 1, "{name}: {outcome:?}");
        let named = outcome.objects().into_iter().any(|object| {
            object["severity"] == "damage"
                && object["file"].as_str().is_some_and(|file| file.starts_with(kind.named))
                && (object["offset"].is_u64() || kind.serve == Serve::Starts)
        });
        assert!(named, "{name}: {outcome:?}");
        assert!(tree(&data) == before, "{name}: verify changes nothing");
        serve_says_so(kind, &data);
    }
}

fn serve_says_so(kind: &Kind, data: &Path) {
    let name = kind.name;
    if kind.serve == Serve::RefusesWithoutIndex {
        std::fs::remove_dir_all(data.join("index")).expect("it is there");
    }
    match (kind.serve, Server::try_start(data)) {
        (Serve::Starts, Ok(server)) => assert!(server.logs() == site().logs, "{name}: nothing is lost"),
        (Serve::Refuses | Serve::RefusesWithoutIndex, Err(refused)) => {
            assert_eq!(refused.code, 4, "{name}: {refused:?}");
            assert_eq!(refused.stderr.lines().count(), 1, "{name}: {refused:?}");
            assert!(refused.stderr.contains(kind.named), "{name}: {refused:?}");
        }
        (Serve::Starts, Err(refused)) => panic!("{name}: {refused:?}"),
        (_, Ok(_)) => panic!("{name}: it started on damaged data"),
    }
}

#[test]
fn a_repair_of_every_kind_saves_everything_that_it_does_not_list_as_lost() {
    for kind in KINDS {
        let (_directory, data) = damaged(kind);
        let before = tree(&data);
        let dry = run(&data, &["repair", "--dry-run", "--json"]);
        assert_eq!(dry.code, 0, "{}: {dry:?}", kind.name);
        assert!(tree(&data) == before, "{}: a dry run changes nothing", kind.name);
        let refused = run(&data, &["repair"]);
        assert_eq!(refused.code, 2, "{}: nobody said --yes: {refused:?}", kind.name);
        assert!(tree(&data) == before, "{}: nor does a refused one", kind.name);

        let repaired = run(&data, &["repair", "--yes", "--json"]);
        assert_eq!(repaired.code, 0, "{}: {repaired:?}", kind.name);
        assert_eq!(losses(&dry), losses(&repaired), "{}: it does what it said", kind.name);
        let report = repaired.objects().pop().expect("a report");
        let kept = report["kept"].as_str().expect("a path").to_owned();
        let kept = tree(Path::new(&kept));
        let originals = before.iter().filter(|(path, _)| path.extension().is_none_or(|extension| extension != "tmp"));
        for (path, bytes) in originals.filter(|(path, _)| !path.starts_with("keys")) {
            let is_there = std::fs::read(data.join(path)).is_ok_and(|now| now == *bytes);
            assert!(kept.get(path) == Some(bytes) || is_there, "{}: the original of {path:?}", kind.name);
        }
        check_saved(kind, &data, &repaired);
    }
}

/// The group and the last entry that stays of it, for each group that loses something.
fn losses(outcome: &Outcome) -> BTreeMap<GroupId, u64> {
    let lost = outcome.objects().into_iter().filter(|object| object["kind"] == "lost_entries");
    lost.map(|object| {
        let group = object["group"].as_str().expect("an id").parse().expect("an id");
        (group, object["first"].as_u64().expect("a seq") - 1)
    })
    .collect()
}

/// After a repair: whole, startable, and each log is what it was, or ends where the repair said.
pub(crate) fn check_saved(kind: &Kind, data: &Path, repaired: &Outcome) {
    let name = kind.name;
    let verified = run(data, &["verify", "--json"]);
    assert_eq!(verified.code, 0, "{name}: {verified:?}");
    let lost = losses(repaired);
    assert_eq!(!lost.is_empty(), kind.loses, "{name}: {repaired:?}");
    let expected: Logs = site()
        .logs
        .iter()
        .map(|(group, log)| {
            let kept = lost.get(group).map_or(log.len(), |kept| usize::try_from(*kept).expect("small"));
            (*group, log[..kept].to_vec())
        })
        .filter(|(_, log)| !log.is_empty())
        .collect();
    let server = Server::start(data);
    let logs = server.logs();
    for (group, log) in &expected {
        let found = logs.get(group).map_or(0, Vec::len);
        assert!(logs.get(group) == Some(log), "{name}: {group} has {found} entries instead of {}", log.len());
    }
    assert_eq!(logs.len(), expected.len(), "{name}");
    // It serves: what is written from now on is found by the next verify.
    let mut alice = server.connect("alice", roundtable::ids::Role::User);
    let group = alice.create("after the repair", &[]).expect("created").group;
    alice.send(group, "hello").expect("sent");
    if let Some(group) = expected.keys().next() {
        alice.send(*group, "and on").expect("a group goes on behind what was saved of it");
    }
    server.stop();
    let verified = run(data, &["verify", "--json"]);
    assert_eq!(verified.code, 0, "{name}: {verified:?}");
}

#[test]
fn foreign_files_are_named_and_are_no_damage() {
    let (_directory, data) = site().copy();
    std::fs::write(data.join("notes.txt"), "mine").expect("written");
    std::fs::write(data.join("journal/00000001.seg.bak"), "mine").expect("written");
    std::fs::create_dir(data.join("journal/old")).expect("made");
    let verified = run(&data, &["verify", "--json"]);
    assert_eq!(verified.code, 0, "{verified:?}");
    let warned: Vec<String> = verified
        .objects()
        .iter()
        .filter(|object| object["severity"] == "warning")
        .map(|object| object["file"].as_str().expect("a name").to_owned())
        .collect();
    assert_eq!(warned, ["journal/00000001.seg.bak", "notes.txt", "journal/old"]);
    assert!(Server::start(&data).logs() == site().logs);
}

#[test]
fn text_in_file_names_cannot_drive_the_terminal() {
    let (_directory, data) = site().copy();
    std::fs::write(data.join("a\u{1b}[2Jb"), "mine").expect("written");
    let verified = run(&data, &["verify"]);
    assert!(verified.stdout.contains("a\\u{1b}[2Jb") && !verified.stdout.contains('\u{1b}'), "{verified:?}");
}

#[test]
fn a_directory_that_is_none_or_held_by_a_server_is_refused_by_name() {
    let empty = tempfile::tempdir().expect("a directory");
    let (_directory, data) = site().copy();
    let server = Server::start(&data);
    for command in ["verify", "repair"] {
        let refused = run(empty.path(), &[command]);
        assert_eq!(refused.code, 6, "{refused:?}");
        assert!(refused.stderr.contains("no data directory"), "{refused:?}");
        assert_eq!(std::fs::read_dir(empty.path()).expect("there").count(), 0, "nothing is made in it");
        let refused = run(&data, &[command, "--json"]);
        assert_eq!(refused.code, 6, "{refused:?}");
        let error: Value = serde_json::from_str(refused.stderr.trim()).expect("an object");
        assert_eq!(error["error"], "LOCKED");
        assert!(error["message"].as_str().expect("text").contains(&format!("process {}", server.pid())));
    }
    assert!(server.logs() == site().logs, "the server does not notice");
}

#[test]
fn an_index_that_is_behind_or_missing_is_no_damage() {
    let (_directory, data) = site().copy();
    let old = data.with_file_name("old");
    copy_tree(&data.join("index"), &old);
    let server = Server::start(&data);
    let group = *site().logs.keys().next().expect("a group");
    server.connect("alice", roundtable::ids::Role::User).send(group, "newer").expect("sent");
    server.stop();
    std::fs::remove_dir_all(data.join("index")).expect("removed");
    let missing = run(&data, &["verify", "--json"]);
    assert_eq!(missing.code, 0, "{missing:?}");
    copy_tree(&old, &data.join("index"));
    let behind = run(&data, &["verify", "--json"]);
    assert_eq!(behind.code, 0, "{behind:?}");
}
