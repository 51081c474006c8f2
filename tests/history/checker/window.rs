//! Which places of a log an answer may have been made at.
//!
//! An entry cannot be there before the operation that made it was asked for, and not before the entries below it. What
//! anybody was told of before a call began must be there when it is answered.

use std::collections::BTreeMap;

use super::logs::{Log, Logs};
use super::operations::Origins;

/// One group.
#[derive(Debug)]
pub(super) struct Window<'a, 'l> {
    log: &'a Log<'l>,
    /// By seq - 1: the line before which the entry cannot have been there.
    earliest: Vec<usize>,
}

/// All groups.
#[derive(Debug)]
pub(super) struct Windows<'a, 'l> {
    groups: BTreeMap<&'l str, Window<'a, 'l>>,
}

impl<'a, 'l> Windows<'a, 'l> {
    pub(super) fn new(logs: &'a Logs<'l>, origins: &Origins<'l>) -> Self {
        let window = |(group, log): (&&'l str, &'a Log<'l>)| {
            let mut highest = 0;
            let earliest = (1..=log.entries.len() as u64).map(|seq| {
                highest = highest.max(origins.asked_at(group, seq).unwrap_or(0));
                highest
            });
            (*group, Window { log, earliest: earliest.collect() })
        };
        Self { groups: logs.iter().map(window).collect() }
    }

    pub(super) fn of(&self, group: &str) -> Option<&Window<'a, 'l>> {
        self.groups.get(group)
    }
}

impl Window<'_, '_> {
    /// The line before which a seq cannot have been there.
    pub(super) fn earliest(&self, seq: u64) -> usize {
        let at = usize::try_from(seq.saturating_sub(1)).unwrap_or(usize::MAX);
        self.earliest.get(at).copied().unwrap_or(usize::MAX)
    }

    /// The heads that an answer between two lines may have been made at: lowest and highest.
    pub(super) fn heads(&self, invoked: usize, returned: usize) -> (u64, u64) {
        let lowest = self.log.proved_before(invoked);
        let highest = self.earliest.partition_point(|earliest| *earliest <= returned) as u64;
        (lowest, highest.max(lowest))
    }
}
