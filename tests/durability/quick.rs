//! Kills in quick succession: no file is left behind, no segment is spent on nothing, and there is room to go on.

use std::path::Path;
use std::time::Duration;

use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

use super::kills::{Run, seed};
use super::server::{Server, segments};

/// Kills in a row.
const KILLS: usize = 12;
/// Longer than a start takes here.
const START_MAX: Duration = Duration::from_millis(80);

/// Unfinished and spare segments.
fn unfinished(data: &Path) -> Vec<String> {
    let inside = std::fs::read_dir(data.join("journal")).expect("a journal");
    let names = inside.map(|item| item.expect("an item").file_name().to_string_lossy().into_owned());
    names.filter(|name| Path::new(name).extension().is_some_and(|extension| extension == "tmp")).collect()
}

#[test]
fn starts_that_are_killed_leave_no_spare_behind_and_spend_no_segment() {
    let mut run = Run::new(seed());
    let mut random = StdRng::seed_from_u64(seed());
    let server = run.start();
    let load = run.load(&server);
    load.wait(20);
    server.kill();
    run.take(load);
    let before = segments(&run.data()).len();
    for _ in 0..KILLS {
        let after = Duration::from_micros(random.random_range(0..START_MAX.as_micros()).try_into().expect("small"));
        Server::start_and_kill(&run.data(), after);
        let unfinished = unfinished(&run.data());
        assert!(unfinished.len() <= 2, "at most one recovered and one spare segment in the making: {unfinished:?}");
    }
    let server = run.start();
    assert!(segments(&run.data()).len() <= before + 1, "the tail is written again once, not at each start");
    run.check(&server, true);
    // More than the rest of any segment: the spare is there, and credit with it.
    let user = super::ledger::user("user-1");
    let mut client = server.connect(&user, "room").expect("it takes a client");
    let group = client.create("room", &[]).expect("there is room").group;
    for _ in 0..150 {
        client.send(group, vec![7; 60_000]).expect("there is room");
    }
    let (status, _) = server.terminate();
    assert_eq!(status.code(), Some(0));
    let unfinished = unfinished(&run.data());
    assert!(unfinished.len() <= 2, "one spare for changes and one for cleaning at most: {unfinished:?}");
}

#[test]
fn a_kill_under_load_costs_the_disk_what_was_written_and_not_a_segment() {
    let mut run = Run::new(seed());
    let mut server = run.start();
    for _ in 0..6 {
        server = run.killed_round(server);
        run.check(&server, false);
    }
    let paths = segments(&run.data());
    let (newest, closed) = paths.split_last().expect("a segment");
    for path in closed {
        let metadata = path.metadata().expect("it is there");
        let content = std::fs::read(path).expect("it reads");
        let used = content.iter().rposition(|byte| *byte != 0).map_or(0, |last| last as u64 + 1);
        let taken = std::os::unix::fs::MetadataExt::blocks(&metadata) * 512;
        assert_eq!(metadata.len(), newest.metadata().expect("it is there").len(), "the size stays");
        assert!(taken <= used.next_multiple_of(4096) + 64 * 1024, "{}: {taken} for {used}", path.display());
    }
}
