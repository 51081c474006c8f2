//! The real program, killed at any moment and started again: what was said to be durable is there.
//!
//! `ledger` keeps what clients tried, were told and saw; `load` makes them do it; `found` reads back what the server
//! has after a start; `checker` compares the two, without a server, so that a test can show that it sees a loss.
//! `kills` puts it together, `starts` has the other ways to stop and to start. `retries` kills the client instead, or
//! both.
//!
//! `ROUNDTABLE_ROUNDS=200 cargo test --release --test durability -- --nocapture` is the long run; `ROUNDTABLE_SEED`
//! repeats the choices of one (the interleaving of threads is the machine's).

mod checker;
mod found;
#[allow(dead_code, reason = "tests/faults uses the rest")]
mod kills;
mod ledger;
mod load;
mod quick;
mod retries;
#[allow(dead_code, reason = "tests/faults uses the rest")]
mod server;
mod starts;
