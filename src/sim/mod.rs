//! The simulator: the production hub, journal, index and client over a simulated disk, network and clock, by one seed.
//!
//! [`run`] plays one seed to its end. The same seed gives the same run, byte for byte ([`Outcome::trace`]). What is
//! checked stands where it is checked: `truth` (the durable journal), `audit` (what leaves the hub), `device` (what an
//! honest client sees), `server` (what storage answers after a start). `docs/durability.md` says what it does not do.

mod acts;
mod audit;
mod device;
mod manner;
mod plan;
mod planted;
mod rot;
mod server;
mod shrink;
#[cfg(test)]
mod tests;
mod truth;
mod world;

use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind};

pub use plan::{Cuts, Fault};
pub use planted::PLANTED;
pub use shrink::{Shrunk, shrink};

use world::World;

/// What came of a run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Outcome {
    /// Steps and rounds that were played.
    pub events: u64,
    /// A digest of every byte that was exchanged.
    pub trace: u64,
    /// What broke, if something did.
    pub violation: Option<String>,
    /// How often states were reached that are rare.
    pub rare: BTreeMap<&'static str, u64>,
    /// What happened, if it was asked for.
    pub story: Vec<String>,
}

/// Plays one seed.
pub fn run(seed: u64, cuts: &Cuts) -> Outcome {
    play(seed, cuts, false)
}

/// Plays one seed, and tells what happens.
pub fn tell(seed: u64, cuts: &Cuts) -> Outcome {
    play(seed, cuts, true)
}

/// How many seeds from one on it takes to find a planted fault, and what is found; nothing where so many do not find it.
/// A seed that breaks a promise without the fault finds nothing.
pub fn find_planted(name: &str, from: u64, seeds_max: u64) -> Option<(u64, String)> {
    (0..seeds_max).find_map(|number| {
        let seed = from.wrapping_add(number);
        let violation = run_planted(seed, name)?.violation?;
        run(seed, &Cuts::default()).violation.is_none().then_some((number + 1, violation))
    })
}

/// Plays one seed with a fault planted that [`PLANTED`] names; nothing if it does not.
pub fn run_planted(seed: u64, name: &str) -> Option<Outcome> {
    let name = PLANTED.iter().find(|planted| **planted == name)?;
    crate::planted::plant(Some(name));
    let outcome = run(seed, &Cuts::default());
    crate::planted::plant(None);
    Some(outcome)
}

fn play(seed: u64, cuts: &Cuts, tells: bool) -> Outcome {
    let mut world = World::new(seed, cuts, tells);
    // A panic is how production code and the checks say that something is wrong; the world is only read afterwards.
    let played = catch_unwind(AssertUnwindSafe(|| world.run()));
    let violation = played.err().map(|panic| {
        let text = panic.downcast_ref::<String>().map(String::as_str);
        text.or_else(|| panic.downcast_ref::<&str>().copied()).unwrap_or("a panic without words").to_owned()
    });
    let story = world.story.take().unwrap_or_default();
    Outcome { events: world.events, trace: world.trace(), violation, rare: std::mem::take(&mut world.rare), story }
}
