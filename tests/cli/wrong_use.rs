//! Wrong use gives help: one line on standard error that says what to do, and the right exit code.

use std::fs;
use std::process::Command;

use roundtable::ids::{Role, UserId};
use roundtable::token::{Grant, LocalKey, mint};
use serde_json::Value;

use crate::program::{Outcome, Server, finish, program, run};

/// Every command of the program.
pub(crate) const COMMANDS: &[&str] = &[
    "serve",
    "demo",
    "token",
    "create",
    "add",
    "remove",
    "leave",
    "rename",
    "transfer",
    "dissolve",
    "send",
    "whisper",
    "signal",
    "show",
    "groups",
    "history",
    "readers",
    "watch",
    "ping",
    "stats",
    "connections",
    "kick",
    "verify",
    "repair",
    "backup",
    "restore",
    "export",
    "import",
    "completions",
    "man",
    "bench",
];

const NOBODYS_GROUP: &str = "0198f2a1-7c3e-7d10-8a55-0242ac120002";

/// Says the same for people and for programs, and checks both.
fn refused(code: i32, name: &str, says: &[&str], command: impl Fn(&[&str]) -> Command, arguments: &[&str]) {
    let human = finish(command(arguments));
    assert_one_line(&human, code);
    assert!(human.stderr.starts_with("error: "), "{human:?}");
    for part in says {
        assert!(human.stderr.contains(part), "{part} in {human:?}");
    }
    let json = finish(command(&[arguments, &["--json"]].concat()));
    assert_one_line(&json, code);
    let object: Value = serde_json::from_str(&json.stderr).unwrap_or_else(|_| panic!("an object: {json:?}"));
    assert_eq!(object["error"], name, "{object}");
    assert!(object["message"].as_str().is_some_and(|message| !message.is_empty()), "{object}");
}

fn assert_one_line(outcome: &Outcome, code: i32) {
    assert_eq!(outcome.code, code, "{outcome:?}");
    assert_eq!(outcome.stderr.lines().count(), 1, "{outcome:?}");
    assert_eq!(outcome.stdout, "", "{outcome:?}");
}

/// A port that nobody listens on: it was free a moment ago.
fn free_address() -> String {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
    listener.local_addr().expect("bound").to_string()
}

#[test]
fn no_server_is_running() {
    let address = free_address();
    let says = [address.as_str(), "roundtable serve"];
    refused(3, "CANNOT_CONNECT", &says, program, &["create", "--as", "alice", "bob", "--server", &address]);
    refused(3, "CANNOT_CONNECT", &says, program, &["ping", "--server", &address]);
}

#[test]
fn what_was_typed_makes_no_sense() {
    let long = "x".repeat(65);
    refused(2, "USAGE", &["must not be empty"], program, &["create", "--as", "", "bob"]);
    refused(2, "USAGE", &["at most 64 bytes"], program, &["create", "--as", "alice", &long]);
    refused(2, "USAGE", &["UUID"], program, &["show", "--as", "alice", "lunch"]);
    refused(2, "USAGE", &["--bogus", "roundtable create --help"], program, &["create", "--bogus"]);
    refused(2, "USAGE", &["frobnicate"], program, &["frobnicate"]);
    let group = NOBODYS_GROUP;
    refused(2, "USAGE", &["no members named", "--members-from"], program, &["add", "--as", "alice", group]);
    refused(2, "USAGE", &["no members named"], program, &["remove", "--as", "alice", group]);
    refused(2, "USAGE", &["at most 256 bytes"], program, &["rename", "--as", "alice", group, &"x".repeat(257)]);
    refused(2, "USAGE", &["--to"], program, &["whisper", "--as", "alice", group, "psst"]);
    refused(2, "USAGE", &["to whom"], program, &["whisper", "--as", "alice", group, "--to", ",", "psst"]);
    refused(2, "USAGE", &["1.."], program, &["readers", "--as", "alice", group, "--seq", "0"]);
    refused(2, "USAGE", &["--user"], program, &["groups", "--as", "alice", "--user", "bob"]);
    refused(2, "USAGE", &["bash, "], program, &["completions", "tcsh"]);
    refused(2, "USAGE", &["--as"], program, &["create", "bob"]);
    refused(2, "USAGE", &["no TLS", "--insecure-without-tls"], program, &["serve", "--listen", "0.0.0.0:0"]);
    refused(
        2,
        "USAGE",
        &["another machine", "roundtable token"],
        program,
        &["groups", "--as", "bob", "--server", "192.0.2.1:7400"],
    );
}

#[test]
fn every_command_has_help_with_an_example() {
    for command in COMMANDS {
        let help = run(&[command, "--help"]);
        assert_eq!(help.code, 0, "{help:?}");
        assert!(help.stdout.contains(&format!("roundtable {command}")), "an example: {help:?}");
    }
}

#[test]
fn a_group_that_is_absent_and_one_of_others_look_alike() {
    let server = Server::start();
    let created = server.run(&["create", "--as", "alice", "bob", "--json"]).object();
    let group = created["group"].as_str().expect("an id").to_owned();
    let says = ["roundtable groups"];
    let command = |arguments: &[&str]| server.command(arguments);
    refused(1, "NOT_FOUND", &says, command, &["send", "--as", "alice", NOBODYS_GROUP, "hi"]);
    refused(1, "NOT_FOUND", &says, command, &["send", "--as", "mallory", &group, "hi"]);
    refused(1, "NOT_FOUND", &says, command, &["show", "--as", "mallory", &group]);
    refused(1, "NOT_FOUND", &says, command, &["history", "--as", "mallory", &group]);
    refused(1, "NOT_FOUND", &says, command, &["leave", "--as", "mallory", &group]);
    for (name, rest) in [
        ("add", &["dave"][..]),
        ("remove", &["bob"]),
        ("rename", &["x"]),
        ("transfer", &["bob"]),
        ("dissolve", &[]),
        ("whisper", &["--to", "bob", "x"]),
        ("signal", &["x"]),
        ("readers", &[]),
    ] {
        for group in [NOBODYS_GROUP, &group] {
            refused(1, "NOT_FOUND", &says, command, &[&[name, "--as", "mallory", group], rest].concat());
        }
    }
}

#[test]
fn tokens_that_are_not_accepted() {
    let server = Server::start();
    let command = |arguments: &[&str]| server.command(arguments);
    refused(1, "AUTH_FAILED", &["roundtable token"], command, &["groups", "--token", "garbage"]);
    let key = LocalKey::open(&server.data().join("keys")).expect("the server's key");
    let grant = Grant {
        user: UserId::new("alice").expect("legal"),
        role: Role::User,
        device: None,
        cluster: "roundtable".to_owned(),
        valid_from_ms: 0,
        expires_at_ms: 1_000_000,
    };
    let expired = mint(&key, &grant);
    refused(1, "TOKEN_EXPIRED", &["roundtable token"], command, &["groups", "--token", &expired]);
    let elsewhere = mint(&key, &Grant { cluster: "west".to_owned(), expires_at_ms: u64::MAX, ..grant });
    refused(1, "AUTH_FAILED", &["--cluster"], command, &["groups", "--token", &elsewhere]);
}

#[test]
fn a_server_that_cannot_start_says_why() {
    let mut server = Server::start();
    let data = server.data();
    let data = data.to_str().expect("a plain path");
    let other = tempfile::tempdir().expect("a directory");
    let other = other.path().to_str().expect("a plain path").to_owned();
    let address = server.address.clone();
    refused(6, "PORT_IN_USE", &[&address], program, &["serve", "--data", &other, "--listen", &address]);
    refused(6, "LOCKED", &[], program, &["serve", "--data", data, "--listen", "127.0.0.1:0"]);
    refused(6, "CANNOT_START", &["/proc"], program, &["serve", "--data", "/proc/nothing", "--listen", "127.0.0.1:0"]);

    server.kill();
    let format = server.data().join("FORMAT");
    let text = fs::read_to_string(&format).expect("FORMAT is text");
    fs::write(&format, text.replacen("roundtable 1", "roundtable 2", 1)).expect("written");
    refused(6, "NEWER_FORMAT", &["FORMAT"], program, &["serve", "--data", data, "--listen", "127.0.0.1:0"]);
}

#[test]
fn a_reader_that_goes_away_is_no_panic() {
    let mut child = program(&["--help"]).spawn().expect("it runs");
    drop(child.stdout.take());
    let output = child.wait_with_output().expect("it ends");
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(!stderr.contains("panicked"), "{stderr}");
}

#[test]
fn a_server_without_a_port_is_said_to_lack_it() {
    for wrong in ["localhost", "127.0.0.1:", "[::1]"] {
        refused(2, "USAGE", &["the port is missing"], program, &["ping", "--server", wrong]);
    }
    refused(2, "USAGE", &["[::1]:7400"], program, &["ping", "--server", "fe80::1"]);
    refused(2, "USAGE", &["no port"], program, &["ping", "--server", "localhost:99999"]);
}

#[test]
fn a_token_of_one_device_is_used_as_that_device() {
    let server = Server::start();
    let token = server.run(&["token", "alice", "--device", "phone"]).stdout;
    let token = token.trim_end();
    assert_eq!(server.run(&["create", "bob", "--token", token, "--json"]).object()["members"], 2);
    assert_eq!(server.run(&["watch", "--token", token, "--count", "1", "--json"]).objects().len(), 1);
    let command = |arguments: &[&str]| server.command(arguments);
    refused(2, "USAGE", &["phone", "laptop"], command, &["watch", "--token", token, "--device", "laptop"]);
}

#[test]
fn refusals_say_a_thing_once() {
    let server = Server::start();
    let refused = server.run(&["show", "--as", "alice", NOBODYS_GROUP]).stderr;
    assert_eq!(refused.matches("no such group").count(), 1, "{refused}");
    let refused = server.run(&["groups", "--token", "garbage"]).stderr;
    assert_eq!(refused.matches("accept").count(), 1, "{refused}");
}

#[test]
fn members_from_a_device_without_an_end_are_refused() {
    refused(2, "USAGE", &["1048576"], program, &["create", "--as", "alice", "--members-from", "/dev/zero"]);
}

#[test]
fn what_only_the_owner_may_is_said_to_be_so() {
    let server = Server::start();
    let created = server.run(&["create", "--as", "alice", "bob", "carol", "--json"]).object();
    let group = created["group"].as_str().expect("an id").to_owned();
    let command = |arguments: &[&str]| server.command(arguments);
    for (name, rest) in [("remove", &["carol"][..]), ("rename", &["x"]), ("transfer", &["bob"]), ("dissolve", &[])] {
        refused(1, "FORBIDDEN", &["owner"], command, &[&[name, "--as", "bob", &group], rest].concat());
    }
    refused(1, "NOT_A_MEMBER", &["member"], command, &["transfer", "--as", "alice", &group, "dave"]);
    refused(1, "NOT_A_MEMBER", &["member"], command, &["whisper", "--as", "alice", &group, "--to", "dave", "x"]);
}
