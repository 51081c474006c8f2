//! Standard output that cannot be written: what was done is not lost, what nobody saw is not acknowledged.

use std::fs::OpenOptions;
use std::io::{BufRead, BufReader, Read};
use std::process::{Command, Stdio};

use serde_json::{Value, json};

use crate::program::{Server, program};

/// Runs a command whose output cannot be written; gives its exit code and standard error.
fn run_to(stdout: Stdio, mut command: Command) -> (i32, String) {
    let output = command.stdout(stdout).spawn().expect("it runs").wait_with_output().expect("it ends");
    (output.status.code().expect("by itself"), String::from_utf8(output.stderr).expect("text"))
}

fn full() -> Stdio {
    OpenOptions::new().write(true).open("/dev/full").expect("a device that is always full").into()
}

/// A pipe whose reader is gone.
fn broken_pipe() -> Stdio {
    let (reader, writer) = std::io::pipe().expect("a pipe");
    drop(reader);
    writer.into()
}

#[test]
fn a_change_whose_result_cannot_be_printed_is_told_on_standard_error() {
    let server = Server::start();
    for (stdout, title) in [(full(), "full"), (broken_pipe(), "broken")] {
        let (code, stderr) =
            run_to(stdout, server.command(&["create", "--as", "alice", "--title", title, "bob", "--json"]));
        assert_eq!(code, 5, "{stderr}");
        let told: Value = serde_json::from_str(&stderr).expect("one object");
        assert_eq!(told["error"], "UNDELIVERED");
        let operation = told["operation_id"].as_str().expect("an id");
        let again =
            server.run(&["create", "--as", "alice", "--title", title, "bob", "--json", "--operation-id", operation]);
        assert_eq!(again.object()["group"], told["result"]["group"], "the same operation finds the same group");
        let group = told["result"]["group"].as_str().expect("an id").to_owned();

        let (code, stderr) = run_to(full(), server.command(&["send", "--as", "bob", &group, "hi"]));
        assert_eq!(code, 5, "{stderr}");
        assert!(stderr.contains("seq 2") && stderr.contains("--operation-id"), "{stderr}");
        let (code, stderr) = run_to(broken_pipe(), server.command(&["leave", "--as", "bob", &group]));
        assert_eq!(code, 5, "{stderr}");
        assert!(stderr.contains("seq 3") && stderr.contains("--operation-id"), "{stderr}");
    }
}

#[test]
fn watch_does_not_acknowledge_what_could_not_be_printed() {
    let server = Server::start();
    server.run(&["create", "--as", "alice", "bob"]);
    let watch = || server.command(&["watch", "--as", "bob", "--count", "1"]);
    let (code, stderr) = run_to(broken_pipe(), watch());
    assert_eq!(code, 0, "{stderr}");
    assert_eq!(run_to(full(), watch()).0, 1);
    let listed = server.run(&["groups", "--as", "bob", "--json"]).object();
    assert_eq!(listed["received"], json!(0), "nobody has seen it");
    assert_eq!(server.run(&["watch", "--as", "bob", "--count", "1", "--json"]).object()["kind"], "group");
}

#[test]
fn a_server_whose_standard_output_is_closed_serves() {
    let data = tempfile::tempdir().expect("a directory");
    let path = data.path().join("data");
    let mut child = program(&["serve", "--listen", "127.0.0.1:0", "--segment-mib", "4", "--data"])
        .arg(&path)
        .stdout(broken_pipe())
        .spawn()
        .expect("serve runs");
    let mut log = BufReader::new(child.stderr.take().expect("piped"));
    let address = loop {
        let mut line = String::new();
        assert_ne!(log.read_line(&mut line).expect("text"), 0, "it ended");
        if let Some((_, rest)) = line.split_once("listening on ")
            && line.contains("standard output")
        {
            break rest.split(';').next().expect("an address").to_owned();
        }
    };
    let pong = crate::program::run(&["ping", "--server", &address]);
    child.kill().expect("it is killed");
    child.wait().expect("it ends");
    let _ = log.read_to_string(&mut String::new());
    assert_eq!(pong.code, 0, "{pong:?}");
}

#[test]
fn watch_ends_by_itself_when_its_reader_is_gone() {
    let server = Server::start();
    server.run(&["create", "--as", "alice", "bob"]);
    let (reader, writer) = std::io::pipe().expect("a pipe");
    let mut child = server.command(&["watch", "--as", "bob"]).stdout(writer).spawn().expect("it runs");
    let mut line = String::new();
    BufReader::new(reader).read_line(&mut line).expect("the group packet");
    assert!(line.contains("alice, bob"), "{line}");
    // The reader was dropped with the line above; nothing is sent any more.
    assert_eq!(child.wait().expect("it ends").code(), Some(0));
}
