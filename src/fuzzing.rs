//! The bodies of the fuzz targets: what must hold whatever bytes come in.
//!
//! `fuzz/` hands them to libFuzzer, one program for each row of [`TARGETS`]; the normal test run hands them the corpus
//! (`corpus.rs`). A body panics where something is wrong, and in no other way says anything. What protects bytes from
//! accidents — CRCs, LSNs, chains, signatures — the bodies put right themselves, so that what lies behind is reached:
//! a CRC finds accidents, not attackers.
//!
//! How each input is read is said at its body; `fuzz/README.md` says how to run them. This module knows everything
//! and nothing knows it; it is not in a normal build.

mod bodies;
mod configuration;
#[cfg(test)]
mod corpus;
mod frames;
mod server;
mod session;
mod tokens;

pub use bodies::bodies;
pub use configuration::configuration;
pub use frames::frames;
pub(crate) use frames::put_right;
pub use session::session;
pub use tokens::tokens;

/// One target: its name in `fuzz/`, and its body.
pub type Target = (&'static str, fn(&[u8]));

/// All targets of the library; `command_line` belongs to the program and stands in `src/cli/fuzzing.rs`.
pub const TARGETS: &[Target] = &[
    ("bodies", bodies),
    ("configuration", configuration),
    ("frames", frames),
    ("hub", crate::hub::tests::fuzzing::hub),
    ("journal", crate::store::fuzzing::journal),
    ("records", crate::store::fuzzing::records),
    ("session", session),
    ("tokens", tokens),
];

/// The body of a target.
pub fn target(name: &str) -> Option<fn(&[u8])> {
    TARGETS.iter().find(|(known, _)| *known == name).map(|(_, body)| *body)
}
