//! One directory, one process.

use std::io::{BufRead, BufReader, Read};
use std::process::{Command, Stdio};

use roundtable::engine::EngineError;

use super::child::Process;
use super::{open, try_open, user};

#[test]
fn a_second_process_is_refused_by_name_and_the_first_goes_on() {
    let home = tempfile::tempdir().expect("a directory");
    let mut first = Process::start("hold", home.path(), 0);
    assert_eq!(first.line().as_deref(), Some("open"));
    let locked = EngineError::Locked { directory: home.path().to_owned(), pid: Some(first.pid()) };
    let refused = try_open(home.path()).expect_err("it is held");
    assert_eq!(refused, locked);
    let text = refused.to_string();
    assert!(text.contains(&first.pid().to_string()) && text.contains(&home.path().display().to_string()), "{text}");
    assert!(first.finish(), "the first is unharmed");

    let engine = open(home.path());
    let mut second = Process::start("hold", home.path(), 0);
    let said = second.line().expect("it says why");
    assert!(said.starts_with("Locked") && said.contains(&std::process::id().to_string()), "{said}");
    let alice = user("alice");
    let group = engine.acting(&alice).create("g", &[]).expect("the first is unharmed").group;
    assert_eq!(engine.group(group).expect("it is there").head, 1);
}

#[test]
fn a_process_that_was_killed_holds_nothing() {
    let home = tempfile::tempdir().expect("a directory");
    let mut first = Process::start("hold", home.path(), 0);
    assert_eq!(first.line().as_deref(), Some("open"));
    first.kill();
    open(home.path()).close().expect("it closes");
}

#[test]
fn a_second_engine_in_one_process_is_refused_too() {
    let home = tempfile::tempdir().expect("a directory");
    let engine = open(home.path());
    let refused = try_open(home.path()).expect_err("it is held");
    assert_eq!(refused, EngineError::Locked { directory: home.path().to_owned(), pid: Some(std::process::id()) });
    engine.close().expect("it closes");
    open(home.path());
}

#[test]
fn an_engine_and_a_server_refuse_each_other_by_name_and_work_on_the_same_directory_in_turn() {
    let home = tempfile::tempdir().expect("a directory");
    let serve = || {
        let mut command = Command::new(env!("CARGO_BIN_EXE_roundtable"));
        command.args(["serve", "--listen", "127.0.0.1:0", "--data"]).arg(home.path()).env("ROUNDTABLE_LOG", "off");
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        command.spawn().expect("serve runs")
    };
    let engine = open(home.path());
    let group = engine.acting(&user("alice")).create("g", &[]).expect("it is made").group;
    let refused = serve().wait_with_output().expect("it ends");
    assert_eq!(refused.status.code(), Some(6));
    let text = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert!(text.contains(&format!("process {}", std::process::id())), "{text}");
    engine.close().expect("it closes");

    let mut server = serve();
    let mut line = String::new();
    BufReader::new(server.stdout.take().expect("piped")).read_line(&mut line).expect("text");
    assert!(line.starts_with("listening on "), "{line}");
    let refused = try_open(home.path()).expect_err("it is held");
    assert_eq!(refused, EngineError::Locked { directory: home.path().to_owned(), pid: Some(server.id()) });
    server.kill().expect("it is killed");
    let mut rest = String::new();
    server.stderr.take().expect("piped").read_to_string(&mut rest).expect("text");
    server.wait().expect("it ends");
    assert_eq!(open(home.path()).group(group).expect("it is there").head, 1);
}
