//! The whole life of a group, command by command, and what its members see of it.

use serde_json::{Value, json};

use crate::program::Server;

fn text(value: &Value) -> String {
    value.as_str().expect("a text").to_owned()
}

/// A server with a group of alice, bob and carol.
fn with_group() -> (Server, String) {
    let server = Server::start();
    let created = server.run(&["create", "--as", "alice", "--title", "lunch", "bob", "carol", "--json"]).object();
    let group = text(&created["group"]);
    (server, group)
}

fn kinds(log: &[Value]) -> Vec<String> {
    log.iter().map(|entry| text(&entry["kind"])).collect()
}

#[test]
fn a_group_lives_from_its_making_to_its_end() {
    let (server, group) = with_group();
    let mut dave = server.watch(&["watch", "--as", "dave", "--json", "--count", "7"]);
    let changed = |arguments: &[&str], seq: u64, version: u64| {
        let answer = server.run(&[arguments, &["--json"]].concat()).object();
        let expected = (json!(group), json!(seq), json!(version));
        assert_eq!((&answer["group"], &answer["seq"], &answer["version"]), (&expected.0, &expected.1, &expected.2));
    };
    changed(&["add", "--as", "bob", &group, "dave", "erin", "bob"], 2, 2);
    changed(&["add", "--as", "bob", &group, "dave"], 2, 2);
    changed(&["rename", "--as", "alice", &group, "dinner"], 3, 3);
    changed(&["send", "--as", "dave", &group, "hi"], 4, 3);
    changed(&["whisper", "--as", "alice", &group, "--to", "bob,carol", "cake"], 5, 3);
    changed(&["transfer", "--as", "alice", &group, "bob"], 6, 6);
    changed(&["remove", "--as", "bob", &group, "erin", "nobody"], 7, 7);
    changed(&["leave", "--as", "carol", &group], 8, 8);

    let shown = server.run(&["show", "--as", "dave", &group, "--json"]).object();
    assert_eq!(
        (&shown["title"], &shown["owner"], &shown["creator"]),
        (&json!("dinner"), &json!("bob"), &json!("alice"))
    );
    let members = json!([{"user": "alice", "joined": 1}, {"user": "bob", "joined": 1}, {"user": "dave", "joined": 2}]);
    assert_eq!((&shown["members"], &shown["version"], &shown["head"]), (&members, &json!(8), &json!(8)));

    let seen: Vec<Value> = (0..7).map(|_| dave.next()).collect();
    assert_eq!(kinds(&seen), ["group", "renamed", "message", "hidden", "transferred", "removed", "left"]);
    assert_eq!(seen[0]["members"], json!(["alice", "bob", "carol", "dave", "erin"]), "the packet, not the entry");
    assert_eq!(seen[3], json!({"kind": "hidden", "group": group, "seq": 5, "version": 3}), "and nothing more");
    assert_eq!((&seen[5]["members"], &seen[4]["owner"]), (&json!(["erin"]), &json!("bob")));
    assert_eq!(dave.finish().code, 0);

    let log = server.run(&["history", "--as", "bob", &group, "--from", "5", "--limit", "1", "--json"]).object();
    assert_eq!((&log["kind"], &log["to"], &log["body"]), (&json!("whisper"), &json!(["bob", "carol"]), &json!("cake")));

    changed(&["dissolve", "--as", "bob", &group], 9, 9);
    assert_eq!(server.run(&["groups", "--as", "bob", "--json"]).objects(), Vec::<Value>::new());
    let refused = server.run(&["send", "--as", "bob", &group, "hi", "--json"]);
    assert_eq!(refused.code, 1, "{refused:?}");
    assert!(refused.stderr.contains("NOT_FOUND"), "{refused:?}");
}

#[test]
fn who_is_removed_gets_the_entry_that_says_so_and_reads_up_to_it() {
    let (server, group) = with_group();
    let mut carol = server.watch(&["watch", "--as", "carol", "--json", "--count", "2"]);
    assert_eq!(carol.next()["kind"], "group");
    server.run(&["remove", "--as", "alice", &group, "carol"]);
    server.run(&["send", "--as", "alice", &group, "she is gone"]);
    let last = carol.next();
    assert_eq!((&last["kind"], &last["members"]), (&json!("removed"), &json!(["carol"])));
    assert_eq!(carol.finish().code, 0);
    let refused = server.run(&["show", "--as", "carol", &group]);
    assert_eq!(refused.code, 1, "{refused:?}");

    // Added again, she begins at the entry that added her.
    server.run(&["add", "--as", "alice", &group, "carol"]);
    let log = server.run(&["history", "--as", "carol", &group, "--json"]).objects();
    assert_eq!(kinds(&log), ["added"]);
    assert_eq!(log[0]["seq"], 4);
}

#[test]
fn a_former_member_reads_what_it_was_there_for() {
    let (server, group) = with_group();
    server.run(&["send", "--as", "alice", &group, "for all"]);
    server.run(&["remove", "--as", "alice", &group, "carol"]);
    server.run(&["send", "--as", "alice", &group, "not for carol"]);
    let log = server.run(&["history", "--as", "carol", &group, "--json"]).objects();
    assert_eq!(kinds(&log), ["created", "message", "removed"]);
    assert_eq!(log[1]["body"], "for all");
}

#[test]
fn the_same_operation_id_gives_the_same_answer_to_every_change() {
    let (mut server, group) = with_group();
    let ids: Vec<String> = (1..=8).map(|n| format!("0198f2a1-7c3e-7d10-8a55-0242ac12000{n}")).collect();
    let changes: [Vec<&str>; 7] = [
        vec!["add", "--as", "alice", &group, "dave"],
        vec!["rename", "--as", "alice", &group, "x"],
        vec!["send", "--as", "alice", &group, "hi"],
        vec!["whisper", "--as", "alice", &group, "--to", "bob", "psst"],
        vec!["remove", "--as", "alice", &group, "dave"],
        vec!["transfer", "--as", "alice", &group, "bob"],
        vec!["leave", "--as", "carol", &group],
    ];
    let say = |server: &Server, change: &[&str], id: &str| {
        server.run(&[change, &["--json", "--operation-id", id]].concat()).object()
    };
    let first: Vec<Value> = changes.iter().zip(&ids).map(|(change, id)| say(&server, change, id)).collect();
    assert!(first.iter().all(|answer| answer["repeated"] == false), "{first:?}");
    server.crash_and_restart();
    for ((change, id), before) in changes.iter().zip(&ids).zip(&first) {
        let again = say(&server, change, id);
        assert_eq!(again["repeated"], true, "{change:?}: {again}");
        assert_eq!((&again["seq"], &again["version"]), (&before["seq"], &before["version"]), "{change:?}");
    }
    assert_eq!(server.run(&["show", "--as", "bob", &group, "--json"]).object()["head"], 8);
    let reused = server.run(&["rename", "--as", "alice", &group, "y", "--json", "--operation-id", &ids[1]]);
    assert!(reused.code == 1 && reused.stderr.contains("ID_REUSED"), "{reused:?}");
}

#[test]
fn signals_reach_who_is_on_line_and_are_not_kept() {
    let (server, group) = with_group();
    let mut bob = server.watch(&["watch", "--as", "bob", "--json", "--count", "2"]);
    assert_eq!(bob.next()["kind"], "group");
    let told = server.run(&["signal", "--as", "alice", &group, "typing", "--json"]).object();
    assert_eq!(told, json!({"group": group}));
    let signal = bob.next();
    assert_eq!(signal, json!({"kind": "signal", "group": group, "sender": "alice", "body": "typing"}));
    assert_eq!(server.run(&["show", "--as", "bob", &group, "--json"]).object()["head"], 1);
    let refused = server.run(&["signal", "--as", "mallory", &group, "typing"]);
    assert_eq!(refused.code, 1, "{refused:?}");
}

#[test]
fn readers_tells_how_far_each_member_is() {
    let (server, group) = with_group();
    server.run(&["send", "--as", "alice", &group, "hi"]);
    let seen = server.run(&["watch", "--as", "bob", "--count", "2", "--json"]);
    assert_eq!(seen.objects().len(), 2);
    let readers = server.run(&["readers", "--as", "alice", &group, "--json"]).objects();
    let names: Vec<&Value> = readers.iter().map(|reader| &reader["user"]).collect();
    assert_eq!(names, ["alice", "bob", "carol"]);
    assert_eq!(readers[1], json!({"group": group, "user": "bob", "received": 2, "read": 0}));
    assert_eq!(
        server.run(&["readers", "--as", "alice", &group, "--seq", "1", "--json"]).objects(),
        Vec::<Value>::new()
    );
    let human = server.run(&["readers", "--as", "alice", &group]).stdout;
    assert!(human.lines().next().is_some_and(|titles| titles.ends_with("user")), "{human}");
}

#[test]
fn a_service_acts_for_users_and_is_named_in_what_it_does() {
    let (server, group) = with_group();
    let token = server.run(&["token", "gateway", "--role", "service"]).stdout;
    let token = token.trim_end();
    let sent = server.run(&["send", "--as", "bob", &group, "hi", "--token", token, "--json"]).object();
    assert_eq!(sent["seq"], 2);
    let entry = server.run(&["history", "--as", "alice", &group, "--from", "2", "--json"]).object();
    assert_eq!((&entry["sender"], &entry["by"]), (&json!("bob"), &json!("gateway")));
    let refused = server.run(&["send", "--as", "mallory", &group, "hi", "--token", token]);
    assert!(refused.code == 1 && refused.stderr.contains("no such group"), "judged as that user: {refused:?}");
    let nobody = server.run(&["send", &group, "hi", "--token", token]);
    assert!(nobody.code == 2 && nobody.stderr.contains("--as USER"), "{nobody:?}");
    let watch = server.run(&["watch", "--token", token]);
    assert!(watch.code == 2 && watch.stderr.contains("user's own token"), "{watch:?}");
}

#[test]
fn operators_see_groups_and_connections_and_cut_users_off() {
    let (server, group) = with_group();
    let mut bob = server.watch(&["watch", "--as", "bob", "--device", "phone", "--json"]);
    assert_eq!(bob.next()["kind"], "group");

    let listed = server.run(&["groups", "--user", "carol", "--json"]).object();
    assert_eq!((&listed["group"], &listed["members"]), (&json!(group), &json!(3)));
    assert_eq!(server.run(&["show", &group, "--json"]).object()["owner"], "alice");

    let connections = server.run(&["connections", "--json"]).objects();
    let row = connections.iter().find(|row| row["user"] == "bob").expect("bob is connected");
    assert_eq!((&row["device"], &row["behind"]), (&json!("phone"), &json!(0)));
    assert!(row["connection"].is_u64() && row["since"].is_u64() && row["output_bytes"].is_u64(), "{row}");
    let human = server.run(&["connections"]).stdout;
    assert!(human.contains("bob, phone"), "{human}");

    let kicked = server.run(&["kick", "bob", "--json"]).object();
    assert_eq!(kicked, json!({"user": "bob", "connections": 1}));
    let ended = bob.finish();
    assert_eq!(ended.code, 1, "{ended:?}");
    assert!(ended.stderr.contains("KICKED"), "{ended:?}");

    let token = server.run(&["token", "alice"]).stdout;
    for command in [&["connections"][..], &["kick", "bob"], &["groups", "--user", "bob"]] {
        let refused = server.run(&[command, &["--token", token.trim_end(), "--json"]].concat());
        assert!(refused.code == 1 && refused.stderr.contains("FORBIDDEN"), "{command:?}: {refused:?}");
    }
}

#[test]
fn a_watch_outlives_its_server() {
    let (mut server, group) = with_group();
    let address = server.address.clone();
    let mut bob = server.watch(&["watch", "--as", "bob", "--json", "--count", "3"]);
    assert_eq!(bob.next()["kind"], "group");
    server.kill();
    server.restart_at(&address);
    server.run(&["send", "--as", "alice", &group, "one"]);
    server.run(&["send", "--as", "alice", &group, "two"]);
    assert_eq!((bob.next()["body"].clone(), bob.next()["body"].clone()), (json!("one"), json!("two")));
    assert_eq!(bob.finish().code, 0);
}
