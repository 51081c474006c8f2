//! Makes a failing run smaller: fewer kinds of faults, fewer clients, fewer steps, as long as it fails.

use super::plan::Plan;
use super::{Cuts, Outcome, run, tell};

/// A failing run, as small as it became.
#[derive(Clone, Debug)]
pub struct Shrunk {
    /// What is left out of it.
    pub cuts: Cuts,
    /// How it went, with its story.
    pub outcome: Outcome,
    /// The kinds of faults that are left.
    pub faults: Vec<super::Fault>,
    /// Runs that it took.
    pub runs: u64,
}

/// Shrinks the run of a seed; nothing if it does not fail.
pub fn shrink(seed: u64) -> Option<Shrunk> {
    let mut cuts = Cuts::default();
    let mut runs = 1;
    run(seed, &cuts).violation?;
    let mut fails = |cuts: &Cuts| {
        runs += 1;
        run(seed, cuts).violation.is_some()
    };
    for fault in Plan::draw(seed, &cuts).faults().collect::<Vec<_>>() {
        let mut less = cuts.clone();
        less.without.push(fault);
        if fails(&less) {
            cuts = less;
        }
    }
    for clients_max in 1..Plan::draw(seed, &cuts).clients {
        let less = Cuts { clients_max, ..cuts.clone() };
        if fails(&less) {
            cuts = less;
            break;
        }
    }
    // A run with fewer steps is the beginning of the longer one, and then its quiet end: the fewest that fail.
    let (mut low, mut high) = (0, Plan::draw(seed, &cuts).steps);
    while low < high {
        let steps_max = low.midpoint(high);
        if fails(&Cuts { steps_max, ..cuts.clone() }) {
            high = steps_max;
        } else {
            low = steps_max + 1;
        }
    }
    if fails(&Cuts { steps_max: high, ..cuts.clone() }) {
        cuts.steps_max = high;
    }
    let faults = Plan::draw(seed, &cuts).faults().collect();
    Some(Shrunk { outcome: tell(seed, &cuts), cuts, faults, runs })
}
