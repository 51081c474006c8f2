//! A repair that is killed at any moment can be run again; a backup that is killed is whole or none.

use std::time::{Duration, Instant};

use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

use crate::copies::operate;
use crate::damage::check_saved;
use crate::site::{Server, finish, program, run, site};
use crate::table::{KINDS, Kind, damaged};

/// Kills in a usual run of the tests; `ROUNDTABLE_ROUNDS` says otherwise.
const ROUNDS_DEFAULT: u64 = 12;
/// Times more rounds than wanted, until enough kills came before the end, however fast this machine is.
const ROUNDS_FACTOR_MAX: u64 = 20;

#[test]
fn a_repair_that_is_killed_at_any_moment_and_run_again_saves_the_same() {
    let rounds = std::env::var("ROUNDTABLE_ROUNDS").ok().and_then(|text| text.parse().ok()).unwrap_or(ROUNDS_DEFAULT);
    let seed = StdRng::from_os_rng().random();
    let mut random = StdRng::seed_from_u64(seed);
    let kinds: Vec<&Kind> =
        KINDS.iter().filter(|kind| ["a segment missing", "a damaged FORMAT"].contains(&kind.name)).collect();
    for kind in kinds {
        let (_directory, data) = damaged(kind);
        let from = Instant::now();
        let whole = run(&data, &["repair", "--yes", "--json"]);
        let takes = from.elapsed();
        check_saved(kind, &data, &whole);
        let (mut round, mut killed) = (0, 0);
        while round < rounds / 2 || (killed <= rounds / 4 && round < rounds * ROUNDS_FACTOR_MAX) {
            round += 1;
            let (_directory, data) = damaged(kind);
            let first = run(&data, &["repair", "--dry-run", "--json"]);
            for _ in 0..random.random_range(1..4) {
                killed += u64::from(start_and_kill(&data, takes.mul_f64(random.random())));
            }
            let again = run(&data, &["repair", "--yes", "--json"]);
            assert_eq!(again.code, 0, "seed {seed}, {}: {again:?}", kind.name);
            println!("seed {seed}, {}: {}", kind.name, again.stdout.lines().last().unwrap_or_default());
            check_saved(kind, &data, &first);
        }
        assert!(killed > rounds / 4, "seed {seed}, {}: {killed} of {round} were killed before the end", kind.name);
    }
}

/// Gives whether the kill came before the end.
fn start_and_kill(data: &std::path::Path, after: Duration) -> bool {
    let mut child = program(&["repair", "--yes", "--data"]).arg(data).spawn().expect("repair runs");
    let from = Instant::now();
    while from.elapsed() < after {
        std::hint::spin_loop();
    }
    child.kill().expect("it is killed");
    child.wait().expect("it ends").code().is_none()
}

#[test]
fn a_backup_whose_server_is_killed_at_any_moment_is_whole_or_refused() {
    let rounds = std::env::var("ROUNDTABLE_ROUNDS").ok().and_then(|text| text.parse().ok()).unwrap_or(ROUNDS_DEFAULT);
    let seed = StdRng::from_os_rng().random();
    let mut random = StdRng::seed_from_u64(seed);
    let takes = {
        let (directory, data) = site().copy();
        let server = Server::start(&data);
        let from = Instant::now();
        let backup = directory.path().join("backup");
        assert_eq!(operate(&server, &data, &["backup", backup.to_str().expect("text")]).code, 0);
        from.elapsed()
    };
    let (mut round, mut whole, mut cut) = (0, 0, 0);
    while round < rounds || (cut == 0 && round < rounds * ROUNDS_FACTOR_MAX) {
        round += 1;
        let (directory, data) = site().copy();
        let backup = directory.path().join("backup");
        let mut server = Server::start(&data);
        let address = server.address.clone();
        let mut command = program(&["backup", backup.to_str().expect("text")]);
        command.env("ROUNDTABLE_SERVER", &address).env("ROUNDTABLE_DATA", &data);
        let mut asked = command.spawn().expect("backup runs");
        let (from, after) = (Instant::now(), takes.mul_f64(random.random_range(0.2..1.1)));
        while from.elapsed() < after {
            std::hint::spin_loop();
        }
        server.kill();
        let answered = asked.wait().expect("it ends").code() == Some(0);
        let restored = directory.path().join("restored");
        let outcome = finish(program(&["restore"]).arg(&backup).arg("--data").arg(&restored));
        let what = format!("seed {seed}, round {round}: {outcome:?}");
        if outcome.code == 0 {
            whole += 1;
            assert!(Server::start(&restored).logs() == site().logs, "{what}");
        } else {
            cut += 1;
            assert!(!answered && !restored.join("FORMAT").exists(), "{what}");
        }
        assert!(Server::start(&data).logs() == site().logs, "{what}");
    }
    println!("seed {seed}: {whole} whole, {cut} cut");
    assert!(cut > 0, "seed {seed}: no kill fell into a backup");
}
