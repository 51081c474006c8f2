//! A repair that is killed at any moment can be run again.

use std::time::{Duration, Instant};

use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

use crate::damage::check_saved;
use crate::site::{program, run};
use crate::table::{KINDS, Kind, damaged};

/// Kills in a usual run of the tests; `ROUNDTABLE_ROUNDS` says otherwise.
const ROUNDS_DEFAULT: u64 = 12;

#[test]
fn a_repair_that_is_killed_at_any_moment_and_run_again_saves_the_same() {
    let rounds = std::env::var("ROUNDTABLE_ROUNDS").ok().and_then(|text| text.parse().ok()).unwrap_or(ROUNDS_DEFAULT);
    let seed = StdRng::from_os_rng().random();
    let mut random = StdRng::seed_from_u64(seed);
    let kinds: Vec<&Kind> =
        KINDS.iter().filter(|kind| ["a segment missing", "a damaged FORMAT"].contains(&kind.name)).collect();
    let mut killed = 0;
    for kind in kinds {
        let (_directory, data) = damaged(kind);
        let from = Instant::now();
        let whole = run(&data, &["repair", "--yes", "--json"]);
        let takes = from.elapsed();
        check_saved(kind, &data, &whole);
        for _ in 0..rounds / 2 {
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
    }
    assert!(killed > rounds / 2, "seed {seed}: most were killed before they were done: {killed}");
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
