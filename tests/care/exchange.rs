//! Export and import: what comes out goes in again as it was.

use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::{Duration, Instant};

use roundtable::ids::Role;
use serde_json::Value;

use crate::site::{Outcome, Server, finish, program, run, site, user};

/// A copy of the site with more: groups that members have left, one that is over, marks that differ.
fn with_leavers() -> (tempfile::TempDir, PathBuf) {
    let (directory, data) = site().copy();
    let server = Server::start(&data);
    let (mut alice, mut bob) = (server.connect("alice", Role::User), server.connect("bob", Role::User));
    let over = alice.create("over", &[user("bob"), user("алиса")]).expect("created").group;
    alice.send(over, [0xff, 0xfe]).expect("sent");
    let seq = bob.send(over, "text\u{202e}").expect("sent").seq;
    bob.acknowledge(&[roundtable::wire::Mark { group: over, received: seq, read: 2 }]).expect("acknowledged");
    bob.ping().expect("taken");
    alice.leave(over).expect("left");
    bob.leave(over).expect("left");
    server.connect("алиса", Role::User).leave(over).expect("left");
    let passed = bob.create("passed on", &[user("alice")]).expect("created").group;
    bob.leave(passed).expect("left");
    server.stop();
    (directory, data)
}

fn exported(data: &Path) -> String {
    let outcome = run(data, &["export"]);
    assert_eq!(outcome.code, 0, "{}", outcome.stderr);
    outcome.stdout
}

fn import(data: &Path, lines: &str) -> Outcome {
    let mut child = program(&["import", "--json", "--data"]).arg(data).stdin(Stdio::piped()).spawn().expect("it runs");
    child.stdin.take().expect("piped").write_all(lines.as_bytes()).expect("it reads");
    let output = child.wait_with_output().expect("it ends");
    Outcome {
        code: output.status.code().expect("by itself"),
        stdout: String::from_utf8(output.stdout).expect("text"),
        stderr: String::from_utf8(output.stderr).expect("text"),
    }
}

#[test]
fn an_export_of_an_import_is_the_export() {
    let (directory, data) = with_leavers();
    let lines = exported(&data);
    let count = |kind: &str| lines.lines().filter(|line| line.starts_with(&format!("{{\"kind\":\"{kind}\""))).count();
    assert_eq!(count("group"), site().logs.len() + 2);
    assert!(count("membership") >= 6 && count("left") == 4, "it has what is to be kept");
    let new = directory.path().join("new");
    let imported = import(&new, &lines);
    assert_eq!(imported.code, 0, "{imported:?}");
    assert_eq!(imported.objects()[0]["groups"], site().logs.len() + 2);
    let again = exported(&new);
    for (line, (before, after)) in (1..).zip(lines.lines().zip(again.lines())) {
        assert_eq!(before, after, "line {line}");
    }
    assert_eq!(lines.len(), again.len());
    assert_eq!(run(&new, &["verify"]).code, 0);
    // The data goes on where it was: same logs, same marks, next numbers.
    let original = Server::start(&data);
    let server = Server::start(&new);
    assert!(server.logs() == original.logs());
    let list = |server: &Server| server.connect("bob", Role::User).list_groups().expect("listed");
    assert_eq!(list(&server), list(&original), "marks too");
    let (group, log) = site().logs.iter().next().expect("a group");
    let seq = server.connect("alice", Role::User).send(*group, "next").expect("sent").seq;
    assert_eq!(seq, log.len() as u64 + 1);
}

#[test]
fn one_group_is_exported_alone_and_imported_beside_others() {
    let (_directory, data) = with_leavers();
    let group = site().logs.keys().next().expect("a group").to_string();
    let one = run(&data, &["export", &group]);
    assert_eq!(one.code, 0, "{}", one.stderr);
    assert!(one.objects().iter().all(|object| object["group"] == group.as_str()));
    let other = tempfile::tempdir().expect("a directory");
    let there = other.path().join("data");
    let server = Server::start(&there);
    server.connect("carol", Role::User).create("mine", &[user("bob")]).expect("created");
    server.stop();
    let imported = import(&there, &one.stdout);
    assert_eq!(imported.code, 0, "{imported:?}");
    let server = Server::start(&there);
    let logs = server.logs();
    assert_eq!(logs.len(), 2);
    let group = group.parse().expect("an id");
    assert!(logs.get(&group) == site().logs.get(&group));
    server.stop();
    let unknown = run(&data, &["export", "0190a2e4-0000-7000-8000-000000000001", "--json"]);
    assert!(unknown.code == 1 && unknown.stderr.contains("NOT_FOUND"), "{unknown:?}");
}

#[test]
fn a_malformed_line_is_named_and_nothing_is_imported() {
    let (_directory, data) = with_leavers();
    let good = exported(&data);
    let lines: Vec<&str> = good.lines().collect();
    let group_lines: Vec<usize> = (0..lines.len()).filter(|at| lines[*at].starts_with("{\"kind\":\"group\"")).collect();
    let second = group_lines[1];
    let other = tempfile::tempdir().expect("a directory");
    let there = other.path().join("data");
    let replaced = |at: usize, with: &str| {
        let mut lines: Vec<String> = lines.iter().map(|line| (*line).to_owned()).collect();
        with.clone_into(&mut lines[at]);
        lines.retain(|line| !line.is_empty());
        lines.join("\n")
    };
    let twice = format!("{good}{}", lines[..second].join("\n"));
    let cases = [
        (replaced(2, "not json"), 3, "no JSON object"),
        (replaced(2, "{\"kind\":\"message\"}"), 3, "`group` has to be a text"),
        (replaced(1, ""), 2, "entry 2 follows entry 0"),
        (replaced(3, ""), 4, "entry 4 follows entry 2"),
        (replaced(0, ""), 1, "before any group"),
        (replaced(second - 1, ""), second, "ends at entry"),
        (replaced(0, &lines[0].replace("\"version\":1", "\"version\":2")), second + 1, "does not make the record"),
        (replaced(2, &lines[2].replace("\"version\":1", "\"version\":2")), 3, "has version 2 instead of 1"),
        (replaced(0, &lines[0].replace("\"floor\":1", "\"floor\":2")), 1, "whole logs"),
        (twice, lines.len() + 1, "a second time"),
    ];
    for (bad, number, words) in cases {
        let refused = import(&there, &bad);
        assert_eq!(refused.code, 1, "{words}: {refused:?}");
        let error: Value = serde_json::from_str(refused.stderr.trim()).expect("an object");
        let message = error["message"].as_str().expect("text");
        assert_eq!(error["error"], "BAD_IMPORT");
        assert!(message.starts_with(&format!("line {number}:")) && message.contains(words), "{words}: {message}");
        assert_eq!(exported(&there), "", "{words}: nothing came in");
    }
    assert_eq!(import(&there, &good).code, 0, "the good one goes in behind all of that");
    let same = import(&there, &good);
    assert_eq!(same.objects()[0]["entries"], 0, "what is there already is the same: {same:?}");
    let other_text = replaced(2, &lines[2].replace("\"at\":1", "\"at\":2"));
    let refused = import(&there, &other_text);
    assert!(refused.code == 1 && refused.stderr.contains("with another entry 2"), "{refused:?}");
    assert_eq!(exported(&there), good);
}

#[test]
fn an_import_that_is_killed_at_any_moment_is_completed_by_running_it_again() {
    let (directory, data) = with_leavers();
    let lines = exported(&data);
    let file = directory.path().join("lines");
    fs::write(&file, &lines).expect("written");
    let from = Instant::now();
    let whole = directory.path().join("whole");
    assert_eq!(finish(program(&["import", "--data"]).arg(&whole).arg(&file)).code, 0);
    let mut takes = from.elapsed();
    let new = directory.path().join("new");
    let mut killed = 0;
    // Sooner each time, in case that the first one was a slow one.
    while killed <= 2 && !takes.is_zero() {
        for step in 1..8_u32 {
            let mut child = program(&["import", "--data"]).arg(&new).arg(&file).spawn().expect("it runs");
            spin(takes * step / 8);
            child.kill().expect("it is killed");
            killed += u32::from(child.wait().expect("it ends").code().is_none());
        }
        takes /= 2;
    }
    assert!(killed > 2, "some were killed before their end: {killed}");
    let outcome = finish(program(&["import", "--data"]).arg(&new).arg(&file));
    assert_eq!(outcome.code, 0, "{outcome:?}");
    assert_eq!(exported(&new), lines);
    assert_eq!(run(&new, &["verify"]).code, 0);
}

fn spin(time: Duration) {
    let from = Instant::now();
    while from.elapsed() < time {
        std::hint::spin_loop();
    }
}
