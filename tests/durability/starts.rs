//! Other ways to stop and to start: cleanly, with the index gone or broken, with a damaged journal, twice at once.

use std::time::Duration;

use super::kills::{Run, seed};
use super::server::{Server, segments};

/// The promise of a clean stop (docs/durability.md; drain and all).
const STOP_MAX: Duration = Duration::from_secs(10);

/// A run that has something to lose, and no server.
fn run_with_content() -> Run {
    let mut run = Run::new(seed());
    let mut server = run.start();
    // A round may be killed before anything was acknowledged.
    while run.acknowledged() == 0 {
        server = run.killed_round(server);
    }
    run.check(&server, true);
    server.terminate();
    run
}

#[test]
fn an_index_that_is_deleted_between_two_starts_is_made_anew() {
    let mut run = run_with_content();
    std::fs::remove_dir_all(run.data().join("index")).expect("it is there");
    let server = run.start();
    run.check(&server, true);
    let server = run.killed_round(server);
    run.check(&server, true);
}

#[test]
fn an_index_of_garbage_is_moved_aside_and_made_anew() {
    let mut run = run_with_content();
    for item in std::fs::read_dir(run.data().join("index")).expect("it is there") {
        let path = item.expect("an item").path();
        if path.is_file() {
            std::fs::write(path, vec![0xa5; 70_000]).expect("it writes");
        }
    }
    let server = run.start();
    run.check(&server, true);
    assert!(run.data().join("index.broken-1").exists(), "nothing is thrown away");
}

#[test]
fn a_flipped_byte_in_the_middle_of_the_journal_is_refused_with_file_and_offset() {
    let mut run = run_with_content();
    let newest = segments(&run.data()).pop().expect("a segment");
    let good = std::fs::read(&newest).expect("it reads");
    let end = good.iter().rposition(|byte| *byte != 0).expect("it has packets") + 1;
    let place = 512 + (end - 512) / 2;
    let mut bad = good.clone();
    bad[place] ^= 0x40;
    std::fs::write(&newest, bad).expect("it writes");

    let refused = Server::try_start(&run.data()).expect_err("it must not start");
    assert_eq!(refused.code, Some(4), "{refused:?}");
    assert_eq!(refused.stderr.lines().count(), 1, "{refused:?}");
    let file = format!("journal/{}", newest.file_name().expect("a name").to_string_lossy());
    assert!(refused.stderr.contains(&file), "{refused:?}");
    let after = refused.stderr.split("offset ").nth(1).unwrap_or_default();
    let digits: String = after.chars().take_while(char::is_ascii_digit).collect();
    let offset: usize = digits.parse().unwrap_or_else(|_| panic!("no offset: {refused:?}"));
    assert!(offset <= place && offset + 128 * 1024 > place, "the packet around {place}: {refused:?}");

    std::fs::write(&newest, good).expect("it writes");
    let server = run.start();
    run.check(&server, true);
}

#[test]
fn a_missing_last_segment_is_refused_with_its_name_even_without_the_index() {
    let mut run = run_with_content();
    let newest = segments(&run.data()).pop().expect("a segment");
    let aside = run.data().join("aside");
    std::fs::rename(&newest, &aside).expect("it moves");
    std::fs::remove_dir_all(run.data().join("index")).expect("it is there");
    let refused = Server::try_start(&run.data()).expect_err("it must not start");
    assert_eq!(refused.code, Some(4), "{refused:?}");
    let file = newest.file_name().expect("a name").to_string_lossy().into_owned();
    assert!(refused.stderr.contains(&file) && refused.stderr.contains("missing"), "{refused:?}");

    std::fs::rename(&aside, &newest).expect("it moves");
    let server = run.start();
    run.check(&server, true);
}

#[test]
fn sigterm_under_load_ends_with_0_in_time_and_loses_nothing_acknowledged() {
    let mut run = Run::new(seed());
    let mut server = run.start();
    for _ in 0..4 {
        let load = run.load(&server);
        let (status, took) = server.terminate();
        run.take(load);
        assert_eq!(status.code(), Some(0));
        assert!(took < STOP_MAX, "{took:?}");
        let before = segments(&run.data()).len();
        server = run.start();
        assert_eq!(segments(&run.data()).len(), before, "a clean stop leaves nothing to write again");
        run.check(&server, true);
    }
}

#[test]
fn a_second_server_on_the_same_directory_is_refused_and_the_first_is_unharmed() {
    let mut run = Run::new(seed());
    let server = run.start();
    let load = run.load(&server);
    let refused = Server::try_start(&run.data()).expect_err("it must not start");
    assert_eq!(refused.code, Some(6), "{refused:?}");
    assert!(refused.stderr.contains(&format!("process {}", server.pid())), "{refused:?}");
    load.wait(50);
    let (status, _) = server.terminate();
    assert_eq!(status.code(), Some(0));
    run.take(load);
    let server = run.start();
    run.check(&server, true);
}
