//! Sets of numbers that mostly stand in a row: seqs of a log, LSNs.

use std::collections::BTreeMap;

/// Numbers, as stretches from the first through the last. No two of them touch.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Ranges(BTreeMap<u64, u64>);

impl Ranges {
    pub(super) fn insert(&mut self, number: u64) {
        if self.contains(number) {
            return;
        }
        let last = self.0.remove(&number.saturating_add(1)).unwrap_or(number);
        match self.0.range_mut(..number).next_back() {
            Some((_, before)) if before.saturating_add(1) == number => *before = last,
            _ => {
                self.0.insert(number, last);
            }
        }
    }

    pub(super) fn remove(&mut self, number: u64) {
        let Some((first, last)) = self.around(number) else { return };
        self.0.remove(&first);
        if first < number {
            self.0.insert(first, number - 1);
        }
        if number < last {
            self.0.insert(number + 1, last);
        }
    }

    pub(super) fn contains(&self, number: u64) -> bool {
        self.around(number).is_some()
    }

    /// The highest number of the stretch from `low` through `high` that is in neither of two sets.
    pub(super) fn highest_missing(&self, other: &Self, low: u64, high: u64) -> Option<u64> {
        let mut at = high;
        while at >= low {
            let around = [self.around(at), other.around(at)].into_iter().flatten();
            let Some(first) = around.map(|(first, _)| first).min() else { return Some(at) };
            at = first.checked_sub(1)?;
        }
        None
    }

    /// The last of the numbers that follow one without a gap.
    pub(super) fn followed_through(&self, number: u64) -> u64 {
        self.around(number.saturating_add(1)).map_or(number, |(_, last)| last)
    }

    /// How many are higher than a number.
    pub(super) fn count_above(&self, number: u64) -> u64 {
        let above = self.0.range(..).rev().take_while(|(_, last)| **last > number);
        above.map(|(first, last)| last - (*first).max(number + 1) + 1).sum()
    }

    fn around(&self, number: u64) -> Option<(u64, u64)> {
        let (first, last) = self.0.range(..=number).next_back()?;
        (number <= *last).then_some((*first, *last))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_hold_what_was_put_in_and_not_taken_out_whatever_the_order() {
        let (mut ranges, mut model) = (Ranges::default(), std::collections::BTreeSet::new());
        let mut seed = 7_u64;
        for _ in 0..4_000 {
            seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            let (number, takes) = ((seed >> 33) % 60, (seed >> 60) == 0);
            if takes {
                ranges.remove(number);
                model.remove(&number);
            } else if (seed >> 50).is_multiple_of(2) {
                ranges.insert(number);
                model.insert(number);
            }
            let found: Vec<u64> = (0..70).filter(|number| ranges.contains(*number)).collect();
            assert_eq!(found, model.iter().copied().collect::<Vec<_>>());
            let missing = (10..=50).rev().find(|number| !model.contains(number));
            assert_eq!(ranges.highest_missing(&Ranges::default(), 10, 50), missing);
            let run = (30..70).find(|number| !model.contains(&(number + 1))).unwrap();
            assert_eq!(ranges.followed_through(30), run);
            assert_eq!(ranges.count_above(30), model.iter().filter(|number| **number > 30).count() as u64);
            let stretches: Vec<_> = ranges.0.iter().collect();
            assert!(stretches.windows(2).all(|pair| *pair[0].1 + 1 < *pair[1].0), "no two touch: {stretches:?}");
        }
    }

    #[test]
    fn a_number_is_missing_only_where_both_sets_lack_it() {
        let (mut own, mut carried) = (Ranges::default(), Ranges::default());
        (1..=5).chain(9..=12).for_each(|number| own.insert(number));
        (5..=8).for_each(|number| carried.insert(number));
        assert_eq!(own.highest_missing(&carried, 1, 12), None);
        assert_eq!(own.highest_missing(&carried, 1, 13), Some(13));
        carried.remove(7);
        assert_eq!(own.highest_missing(&carried, 1, 12), Some(7));
        assert_eq!(own.highest_missing(&carried, 8, 12), None);
        assert_eq!(own.highest_missing(&carried, 13, 12), None, "nothing is missing of nothing");
    }
}
