//! What the program is for: one create, everybody has it; and the shapes that scripts rely on.

use std::io::Write;
use std::process::Stdio;

use serde_json::{Value, json};

use crate::program::{Server, finish, program};

fn text(value: &Value) -> String {
    value.as_str().expect("a text").to_owned()
}

#[test]
fn one_create_reaches_who_is_on_line_at_once_and_the_others_when_they_come() {
    let server = Server::start();
    let mut bob = server.watch(&["watch", "--as", "bob", "--json", "--count", "2"]);

    let receipt = server.run(&["create", "--as", "alice", "--title", "lunch", "bob", "carol", "--json"]).object();
    assert_eq!((&receipt["members"], &receipt["pushed"], &receipt["queued"]), (&json!(3), &json!(1), &json!(1)));
    assert_eq!((&receipt["seq"], &receipt["version"]), (&json!(1), &json!(1)));
    let group = text(&receipt["group"]);

    let packet = bob.next();
    assert_eq!(packet["kind"], "group");
    assert_eq!(packet["group"], group.as_str());
    assert_eq!(packet["title"], "lunch");
    assert_eq!(packet["owner"], "alice");
    assert_eq!(packet["members"], json!(["alice", "bob", "carol"]));

    let sent = server.run(&["send", "--as", "alice", &group, "hi", "--json"]).object();
    assert_eq!((&sent["group"], &sent["seq"], &sent["version"]), (&json!(group), &json!(2), &json!(1)));
    let message = bob.next();
    assert_eq!((&message["kind"], &message["seq"], &message["body"]), (&json!("message"), &json!(2), &json!("hi")));
    assert_eq!(message["sender"], "alice");
    assert_eq!(bob.finish().code, 0, "--count 2 ends it");

    let carol = server.run(&["watch", "--as", "carol", "--json", "--count", "2"]).objects();
    assert_eq!(carol[0]["kind"], "group", "first the packet");
    assert_eq!(carol[0]["members"], json!(["alice", "bob", "carol"]));
    assert_eq!((&carol[1]["kind"], &carol[1]["seq"]), (&json!("message"), &json!(2)), "then what was missed");
}

#[test]
fn what_was_printed_is_not_printed_again() {
    let server = Server::start();
    let group = text(&server.run(&["create", "--as", "alice", "bob", "--json"]).object()["group"]);
    let first = server.run(&["watch", "--as", "bob", "--json", "--count", "1"]).objects();
    assert_eq!(first[0]["kind"], "group");
    server.run(&["send", "--as", "alice", &group, "one"]);
    let second = server.run(&["watch", "--as", "bob", "--json", "--count", "1"]).objects();
    assert_eq!((&second[0]["kind"], &second[0]["seq"]), (&json!("message"), &json!(2)));
    let listed = server.run(&["groups", "--as", "bob", "--json"]).object();
    assert_eq!((&listed["head"], &listed["received"]), (&json!(2), &json!(2)));
}

#[test]
fn the_shapes_are_those_of_the_design() {
    let server = Server::start();
    let group = text(&server.run(&["create", "--as", "alice", "--title", "t", "bob", "--json"]).object()["group"]);
    server.run(&["send", "--as", "bob", &group, "hi"]);

    let shown = server.run(&["show", "--as", "bob", &group, "--json"]).object();
    for field in ["group", "title", "owner", "creator", "created_at", "version", "head", "floor", "members"] {
        assert!(!shown[field].is_null(), "{field} in {shown}");
    }
    assert_eq!(shown["members"], json!([{"user": "alice", "joined": 1}, {"user": "bob", "joined": 1}]));
    assert_eq!((&shown["head"], &shown["floor"]), (&json!(2), &json!(1)));

    let listed = server.run(&["groups", "--as", "alice", "--json"]).object();
    for field in ["group", "title", "members", "version", "head", "received", "read", "last_at"] {
        assert!(!listed[field].is_null(), "{field} in {listed}");
    }

    let left = server.run(&["leave", "--as", "alice", &group, "--json"]).object();
    assert_eq!((&left["seq"], &left["version"]), (&json!(3), &json!(3)));

    let log = server.run(&["history", "--as", "bob", &group, "--json"]).objects();
    let kinds: Vec<String> = log.iter().map(|entry| text(&entry["kind"])).collect();
    assert_eq!(kinds, ["created", "message", "left"]);
    assert_eq!(log[0]["members"], json!(["alice", "bob"]));
    assert_eq!(log[1]["body"], "hi");
    assert_eq!(log[2]["owner"], "bob");
    assert_eq!(
        server.run(&["history", "--as", "bob", &group, "--from", "2", "--limit", "1", "--json"]).objects().len(),
        1
    );

    let pong = server.run(&["ping", "--json"]).object();
    assert_eq!(pong["ready"], true);
    assert!(server.run(&["stats", "--json"]).object().is_object());
}

#[test]
fn for_people_the_answer_stands_alone_on_standard_output() {
    let server = Server::start();
    let created = server.run(&["create", "--as", "alice", "bob"]);
    let group = created.stdout.trim_end();
    assert_eq!(group.len(), 36, "{created:?}");
    assert_eq!(server.run(&["send", "--as", "bob", group, "hi"]).stdout, "2\n");
    let hostile = server.run(&["send", "--as", "bob", group, "\u{1b}[2J\u{202e}"]);
    assert_eq!(hostile.code, 0, "{hostile:?}");
    let log = server.run(&["history", "--as", "alice", group]).stdout;
    assert!(log.contains("\\u{1b}[2J\\u{202e}") && !log.contains('\u{1b}'), "{log:?}");
}

#[test]
fn messages_and_members_may_come_from_standard_input() {
    let server = Server::start();
    let fed = |arguments: &[&str], input: &[u8]| {
        let mut child = server.command(arguments).stdin(Stdio::piped()).spawn().expect("it runs");
        child.stdin.take().expect("piped").write_all(input).expect("it reads");
        let output = child.wait_with_output().expect("it ends");
        assert!(output.status.success(), "{output:?}");
        serde_json::from_slice::<Value>(&output.stdout).expect("an object")
    };
    let created = fed(&["create", "--as", "alice", "--members-from", "-", "--json"], b"bob\nMs. Carol\n\nbob\n");
    assert_eq!(created["members"], 3);
    let group = text(&created["group"]);
    fed(&["send", "--as", "alice", &group, "-", "--json"], &[0xff, 0xfe]);
    let log = server.run(&["history", "--as", "Ms. Carol", &group, "--from", "2", "--json"]).object();
    assert_eq!((&log["body_base64"], &log["body"]), (&json!("//4="), &Value::Null));
}

#[test]
fn the_same_operation_id_again_changes_nothing() {
    let mut server = Server::start();
    let create = ["create", "--as", "alice", "bob", "--json", "--operation-id", "0198f2a1-7c3e-7d10-8a55-0242ac120002"];
    let first = server.run(&create).object();
    server.crash_and_restart();
    let again = server.run(&create).object();
    assert_eq!(first["group"], again["group"]);
    assert_eq!(server.run(&["groups", "--as", "bob", "--json"]).objects().len(), 1);
}

#[test]
fn a_token_stands_for_its_user() {
    let server = Server::start();
    let token = server.run(&["token", "alice", "--ttl", "1h"]).stdout;
    let token = token.trim_end();
    let as_token = |arguments: &[&str]| {
        let mut command = program(arguments);
        command.env("ROUNDTABLE_SERVER", &server.address).env("ROUNDTABLE_TOKEN", token);
        finish(command)
    };
    assert_eq!(as_token(&["create", "bob", "--json"]).object()["members"], 2);
    assert_eq!(as_token(&["groups", "--as", "alice", "--json"]).objects().len(), 1);
    let other = as_token(&["groups", "--as", "bob"]);
    assert_eq!(other.code, 2, "{other:?}");
}

#[test]
fn the_demo_keeps_its_promises() {
    let outcome = finish(program(&["demo"]));
    assert_eq!(outcome.code, 0, "{outcome:?}");
    for said in ["pushed   2", "queued   1", "GroupPacket", "52544", "SIGKILL", "the same 4 entries"] {
        assert!(outcome.stdout.contains(said), "{said} in {}", outcome.stdout);
    }
    let object = finish(program(&["demo", "--json"])).object();
    assert_eq!((&object["ok"], &object["members"]), (&json!(true), &json!(4)));
}
