//! Backups of a server that is cleaning all the time.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use roundtable::ids::{GroupId, Role};

use super::copies::operate;
use super::site::{ALICE, Server, finish, program, run, segments};
use super::talk::{KEPT, Talk, check};

fn serve(data: &Path, config: &Path) -> Server {
    let config = config.to_str().expect("text");
    Server::try_start_with(data, &["--config", config]).unwrap_or_else(|refused| panic!("{refused:?}"))
}

/// The number of the first segment that is there.
fn first_number(data: &Path) -> u32 {
    let first = segments(data).remove(0);
    first.file_stem().and_then(|stem| stem.to_str()).and_then(|stem| stem.parse().ok()).expect("a number")
}

/// Backs up, restores, looks at all of it; what was acknowledged before is there.
fn back_up_and_compare(server: &Server, data: &Path, name: &str, group: GroupId, acknowledged: u64) {
    let home = data.parent().expect("a directory");
    let (backup, restored) = (home.join(format!("backup-{name}")), home.join(format!("restored-{name}")));
    let made = operate(server, data, &["backup", "--json", backup.to_str().expect("text")]);
    assert_eq!(made.code, 0, "{made:?}");
    let outcome = finish(program(&["restore", "--json"]).arg(&backup).arg("--data").arg(&restored));
    assert_eq!(outcome.code, 0, "{outcome:?}");
    let verified = run(&restored, &["verify", "--json"]);
    assert_eq!(verified.code, 0, "{verified:?}");
    let copy = serve(&restored, &home.join("config.toml"));
    let head = check(&mut copy.connect(ALICE, Role::User), group, acknowledged);
    println!(
        "{name}: {acknowledged} acknowledged before, {head} in the copy, from segment {}",
        first_number(&restored)
    );
    copy.stop();
}

#[test]
fn a_backup_of_a_server_that_is_cleaning_has_everything_acknowledged_before_it() {
    let home = tempfile::tempdir().expect("a directory");
    let (data, config) = (home.path().join("data"), home.path().join("config.toml"));
    std::fs::write(&config, format!("retention_entries = {KEPT}\n")).expect("written");
    let server = serve(&data, &config);
    let mut talk = Talk::begin(&server);
    let group = talk.group;
    let (stop, head) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
    let (stopped, acknowledged) = (stop.clone(), head.clone());
    let talking = std::thread::spawn(move || {
        while !stopped.load(Ordering::SeqCst) {
            assert!(talk.say(), "the disk is not full");
            acknowledged.store(talk.head(), Ordering::SeqCst);
        }
        talk
    });
    let mut first = 1;
    for round in 0..4 {
        // Two more segments are cleaned before each backup: what the last one held has gone on.
        while first_number(&data) < first + 2 {
            assert!(!talking.is_finished(), "it goes on talking");
            std::thread::yield_now();
        }
        first = first_number(&data);
        back_up_and_compare(&server, &data, &round.to_string(), group, head.load(Ordering::SeqCst));
    }
    stop.store(true, Ordering::SeqCst);
    let talk = talking.join().expect("it was not harmed");
    talk.check(&mut server.connect(ALICE, Role::User), talk.head());
    server.stop();
    assert_eq!(run(&data, &["verify"]).code, 0);
}
