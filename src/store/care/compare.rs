//! Whether an index and the journal agree: an index made anew from the journal is asked the same questions.

use super::{Finding, Severity};
use crate::ids::{GroupId, Principal, UserId};
use crate::store::disk::Disk;
use crate::store::index::IndexError;
use crate::store::indexer::Indexer;
use crate::store::journal::JOURNAL_DIRECTORY;
use crate::store::tables::{Extent, memberships_key, operations_key};
use crate::store::{Damaged, GroupState};

/// Groups looked at in one step.
const PAGE: usize = 256;
/// Findings after which a comparison only counts on: one broken index would fill the screen.
const FINDINGS_MAX: usize = 20;
/// Entries read in one step, where two logs have to be compared entry by entry.
const ENTRIES_PAGE: usize = 256;
const BYTES_PAGE: usize = 1024 * 1024;

/// What was compared.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Compared {
    pub(super) groups: u64,
    pub(super) entries: u64,
    pub(super) users: u64,
    pub(super) principals: u64,
    /// Answers that differ.
    pub(super) differences: u64,
}

/// Two indexes, the first made anew from the journal, the second the one that is kept, if it works.
pub(super) struct Comparison<'i, D: Disk> {
    fresh: &'i mut Indexer<D>,
    kept: Option<&'i mut Indexer<D>>,
    findings: &'i mut Vec<Finding>,
    compared: Compared,
}

impl<'i, D: Disk> Comparison<'i, D> {
    pub(super) fn new(
        fresh: &'i mut Indexer<D>,
        kept: Option<&'i mut Indexer<D>>,
        findings: &'i mut Vec<Finding>,
    ) -> Self {
        Self { fresh, kept, findings, compared: Compared::default() }
    }

    /// Compares all groups, logs, memberships and operations; `progress` hears how many groups are done.
    pub(super) fn run(mut self, mut progress: impl FnMut(u64)) -> Result<Compared, IndexError> {
        let mut after = None;
        loop {
            let (states, more) = self.fresh.scan_groups(after, PAGE)?;
            let states = states.map_err(|Damaged| IndexError("a record cannot be read".to_owned()))?;
            if self.kept.is_some() {
                self.compare_page(after, &states)?;
            }
            for state in &states {
                self.group(state)?;
            }
            progress(self.compared.groups);
            after = states.last().map(|state| state.record.group);
            if !more || after.is_none() {
                break;
            }
        }
        self.users()?;
        self.principals()?;
        Ok(self.compared)
    }

    /// The page of the kept index that begins at the same place.
    fn compare_page(&mut self, after: Option<GroupId>, fresh: &[GroupState]) -> Result<(), IndexError> {
        let Some(kept) = &mut self.kept else { return Ok(()) };
        let (states, _) = kept.scan_groups(after, PAGE)?;
        let Ok(states) = states else {
            self.differ("a record", "it names a place in the journal where its packets are not");
            return Ok(());
        };
        let differing: Vec<GroupId> = (0..fresh.len().max(states.len()))
            .filter(|at| fresh.get(*at) != states.get(*at))
            .filter_map(|at| fresh.get(at).or(states.get(at)).map(|state| state.record.group))
            .collect();
        if let Some(group) = differing.first() {
            self.differ(&format!("group {group}"), "its record or its head is another");
        }
        Ok(())
    }

    /// One group: its log has no gap, and both indexes find it in the same places, or at least the same log.
    fn group(&mut self, state: &GroupState) -> Result<(), IndexError> {
        let group = state.record.group;
        self.compared.groups += 1;
        self.compared.entries += (state.head + 1).saturating_sub(state.floor);
        let extents = self.fresh.extents(group)?;
        if let Some(seq) = gap(&extents, state.floor, state.head) {
            let what = format!("the log of group {group} has no entry {seq}");
            self.findings.push(Finding::new(Severity::Damage, JOURNAL_DIRECTORY, None, what));
        }
        let Some(kept) = &mut self.kept else { return Ok(()) };
        if kept.extents(group)? != extents && !self.same_log(state)? {
            self.differ(&format!("group {group}"), "its log is another");
        }
        Ok(())
    }

    fn same_log(&mut self, state: &GroupState) -> Result<bool, IndexError> {
        let Some(kept) = &mut self.kept else { return Ok(true) };
        let group = state.record.group;
        let mut seq = state.floor;
        while seq <= state.head {
            let fresh = self.fresh.read_entries(group, seq, state.head, ENTRIES_PAGE, BYTES_PAGE)?;
            let read = fresh.as_ref().map_or(0, Vec::len);
            if kept.read_entries(group, seq, state.head, ENTRIES_PAGE, BYTES_PAGE)? != fresh {
                return Ok(false);
            }
            if read == 0 {
                break;
            }
            seq += read as u64;
        }
        Ok(true)
    }

    fn users(&mut self) -> Result<(), IndexError> {
        let mut after: Option<UserId> = None;
        loop {
            let fresh = self.fresh.next_user(after.as_ref())?;
            let kept = self.kept.as_ref().map(|kept| kept.next_user(after.as_ref())).transpose()?.flatten();
            let Some(user) = fresh.into_iter().chain(kept).min_by_key(|user: &UserId| memberships_key(user, [0; 16]))
            else {
                return Ok(());
            };
            self.compared.users += 1;
            if let Some(kept) = &mut self.kept
                && kept.load_user(&user)? != self.fresh.load_user(&user)?
            {
                self.differ(&format!("user {user}"), "the memberships are others");
            }
            after = Some(user);
        }
    }

    fn principals(&mut self) -> Result<(), IndexError> {
        let mut after: Option<Principal> = None;
        loop {
            let fresh = self.fresh.next_principal(after.as_ref())?;
            let kept = self.kept.as_ref().map(|kept| kept.next_principal(after.as_ref())).transpose()?.flatten();
            let Some(principal) = fresh.into_iter().chain(kept).min_by_key(|of: &Principal| operations_key(of, 0))
            else {
                return Ok(());
            };
            self.compared.principals += 1;
            if let Some(kept) = &mut self.kept
                && kept.load_operations(&principal)? != self.fresh.load_operations(&principal)?
            {
                let (Principal::User(name) | Principal::Service(name)) = &principal;
                self.differ(&format!("{name}"), "the remembered operations are others");
            }
            after = Some(principal);
        }
    }

    fn differ(&mut self, of: &str, how: &str) {
        self.compared.differences += 1;
        if self.compared.differences <= FINDINGS_MAX as u64 {
            let what = format!("it disagrees with the journal about {of}: {how}");
            self.findings.push(Finding::new(Severity::Damage, super::place::INDEX, None, what));
        }
    }
}

/// The first seq from the floor to the head that no extent has.
fn gap(extents: &[Extent], floor: u64, head: u64) -> Option<u64> {
    let mut next = floor;
    for extent in extents {
        if extent.first_seq > next {
            break;
        }
        next = next.max(extent.first_seq + u64::from(extent.count));
    }
    (next <= head).then_some(next)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::journal::Position;

    #[test]
    fn a_gap_in_a_log_is_found_wherever_it_is() {
        let extent =
            |first_seq, count| Extent { first_seq, count, position: Position::default(), bytes: 0, own_bytes: 0 };
        let log = [extent(1, 4), extent(5, 1), extent(6, 10)];
        assert_eq!(gap(&log, 1, 15), None);
        assert_eq!(gap(&log[1..], 5, 15), None, "the floor may be higher than 1");
        assert_eq!(gap(&log[1..], 4, 15), Some(4));
        assert_eq!(gap(&[log[0], log[2]], 1, 15), Some(5));
        assert_eq!(gap(&log, 1, 16), Some(16));
        assert_eq!(gap(&[], 1, 0), None);
    }
}
