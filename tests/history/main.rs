//! What clients of the real server asked and saw, written down, and whether it can be true: P1 to P6 of
//! `docs/durability.md`, under a nemesis.
//!
//! ```text
//! clients ──▶ proxy ──▶ the real program            nemesis: kills, stops, cuts, fills the disk
//!    └──▶ the history, a file of lines (`format`) ──▶ checker ──▶ what cannot be true
//! ```
//!
//! `run` puts it together; `clients` and `device` ask, `recorder` writes; `proxy`, `server`, `disk` and `nemesis` are
//! what goes wrong. `checker` knows nothing of all that, nor of this crate: only the file, and the rules of groups as
//! the protocol's page tells them. `controls` plants lies into a good history and sees each named.
//!
//! `ROUNDTABLE_MINUTES=5 cargo test --release --test history -- --nocapture` is the long run; `ROUNDTABLE_SEED` repeats
//! its choices (the interleaving is the machine's), `ROUNDTABLE_CLIENTS` says how many clients, `ROUNDTABLE_HISTORY`
//! names a file of an earlier run that `a_history_that_was_kept_is_consistent` checks again.

mod checker;
mod clients;
mod controls;
mod device;
mod disk;
mod format;
mod nemesis;
mod proxy;
mod read_back;
mod recorder;
mod run;
mod server;
mod tally;
mod translate;
mod wishes;
