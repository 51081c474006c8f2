//! The real program under the faults of the machine and of its peers: one row of a table each, with a control.
//!
//! `cargo test --test faults` runs all rows with small counts; `ROUNDTABLE_FAULTS=milestone cargo test --release --test
//! faults` with those of a milestone, one row after the other, and prints the table that stands in `docs/durability.md`.
//! Words behind `--` choose rows by their names (`-- power_cuts`), `--list` names them; `ROUNDTABLE_SEED` repeats the
//! choices of a run.
//!
//! What a row cannot do here (no FUSE, no libfaketime) it says, by name and with the reason, and counts as skipped.
//! A row's control takes the protection away, or tells its check a lie, and has to be seen to fail.
//!
//! Clients, their ledger and what compares it with a server are those of `tests/durability`.

#![allow(clippy::unnecessary_wraps, reason = "all rows have one signature, and some can always be tried")]

mod clock;
mod crowd;
mod disk;
mod frames;
mod operations;
mod peer;
mod power;
mod rot;
mod silent;
mod slow_sync;
mod stopped;
mod table;
mod terminated;

#[path = "../durability/checker.rs"]
mod checker;
#[path = "../durability/found.rs"]
mod found;
#[path = "../durability/kills.rs"]
#[allow(dead_code, reason = "its own tests use the rest")]
mod kills;
#[path = "../durability/ledger.rs"]
mod ledger;
#[path = "../durability/load.rs"]
mod load;
#[path = "../durability/server.rs"]
#[allow(dead_code, reason = "the tests of tests/durability use the rest")]
mod server;

#[path = "../server/swarm.rs"]
#[allow(clippy::unwrap_used, dead_code, reason = "slow readers use the rest")]
mod swarm;

use std::process::ExitCode;

use table::Row;

/// All rows, in the order of the table.
const ROWS: &[Row] = &[
    Row { name: "power_cuts", fault: "power cut", run: power::run },
    Row { name: "failing_disk", fault: "n-th operation of the disk fails", run: operations::failing },
    Row { name: "failing_syncs", fault: "n-th sync fails", run: operations::failing_syncs },
    Row { name: "slow_sync", fault: "slow sync", run: slow_sync::run },
    Row { name: "journal_rot", fault: "flipped bits in the journal", run: rot::journal },
    Row { name: "index_rot", fault: "flipped bits in the index", run: rot::index },
    Row { name: "silent_peers", fault: "half-open peers, slowloris", run: silent::run },
    Row { name: "bad_frames", fault: "bad frames", run: frames::run },
    Row { name: "crowd", fault: "idle, hostile and honest peers at once", run: crowd::run },
    Row { name: "wall_clock", fault: "wall clock off by 10 years", run: clock::run },
    Row { name: "stopped_process", fault: "process stopped for a while", run: stopped::run },
    Row { name: "sigterm", fault: "SIGTERM under load", run: terminated::run },
];

fn main() -> ExitCode {
    table::main(ROWS)
}
