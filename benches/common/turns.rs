//! Times of two that took turns, and what they are to each other.

use std::time::Duration;

/// What was measured and the raw limit, one after the other in each turn: the ratio is taken within a turn, because the
/// machine changes its speed by the minute.
pub(crate) struct Turns {
    ours: Vec<Duration>,
    raw: Vec<Duration>,
    ratios: Vec<f64>,
}

impl Turns {
    /// Takes so many turns; each gives the time of what is measured and that of the raw limit.
    pub(crate) fn take(count: usize, turn: impl FnMut(usize) -> (Duration, Duration)) -> Self {
        let turns: Vec<_> = (0..count).map(turn).collect();
        let mut ratios: Vec<f64> = turns.iter().map(|(ours, raw)| ours.as_secs_f64() / raw.as_secs_f64()).collect();
        let (mut ours, mut raw): (Vec<_>, Vec<_>) = turns.into_iter().unzip();
        ours.sort();
        raw.sort();
        ratios.sort_by(f64::total_cmp);
        Self { ours, raw, ratios }
    }

    /// The time below which so many of a hundred turns are.
    pub(crate) fn ours(&self, percent: usize) -> Duration {
        at(&self.ours, percent)
    }

    /// The same of the raw limit.
    pub(crate) fn raw(&self, percent: usize) -> Duration {
        at(&self.raw, percent)
    }

    /// The ratio of the times below which so many of a hundred turns are; 0 and 100 are the lowest and the highest.
    pub(crate) fn ratio(&self, percent: usize) -> f64 {
        at(&self.ratios, percent)
    }
}

fn at<T: Copy>(sorted: &[T], percent: usize) -> T {
    sorted[(sorted.len() * percent / 100).min(sorted.len() - 1)]
}
