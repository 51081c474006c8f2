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

mod disk;
mod power;
mod table;

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

use std::process::ExitCode;

use table::Row;

/// All rows, in the order of the table.
const ROWS: &[Row] = &[Row { name: "power_cuts", fault: "power cut", run: power::run }];

fn main() -> ExitCode {
    table::main(ROWS)
}
