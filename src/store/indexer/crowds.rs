//! Users in very many groups: who has reached the number of groups that it may be in.
//!
//! A row counts the groups of each user whose memberships have filled more than one value. It follows endings, and
//! joinings when they are settled (so few wait that they cannot fill the user), and is counted anew whenever a value is
//! divided: so what a crash may have made wrong is right again some joinings later. A quota can stand that; an exact
//! count would cost a look-up for each member of each new group. What changes in the last value, where new groups go, is
//! not counted before that is divided, unless the user is nearly full: else each value that is written would have a row
//! written with it.

use std::collections::BTreeSet;

use super::fold::mistaken;
use super::joinings::WAITING_MAX;
use super::{FoldError, Indexer};
use crate::ids::UserId;
use crate::store::disk::Disk;
use crate::store::index::{Direction, IndexError};
use crate::store::overlay::Age;
use crate::store::tables::{CrowdValue, MEMBERSHIPS_PER_VALUE, Stored, Value, crowd_ends, crowd_key, crowd_user};

/// Groups of a user that a row may lack: of its last value, of what waits in both layers, and one more.
const UNCOUNTED_MAX: usize = MEMBERSHIPS_PER_VALUE + 2 * WAITING_MAX + 1;

/// What a packet did to the number of groups of a user.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Step {
    /// In the last of its values?
    Joined {
        in_last: bool,
    },
    Ended {
        in_last: bool,
    },
    /// A value of its memberships was divided: the last one, if there is a new one with this first group.
    Divided {
        last: Option<[u8; 16]>,
    },
}

/// The few users who might be full with all that may wait: their rows are exact, and are read before one more of their
/// joinings waits. Not known before all rows were read once.
#[derive(Debug, Default)]
pub(super) struct NearlyFull(Option<BTreeSet<UserId>>);

impl NearlyFull {
    fn note(&mut self, user: &UserId, groups: u32, limit: u32) {
        let Some(users) = &mut self.0 else { return };
        if is_nearly_full(groups, limit) {
            users.insert(user.clone());
        } else {
            users.remove(user);
        }
    }

    fn has(&self, user: &UserId) -> bool {
        self.0.as_ref().is_some_and(|users| users.contains(user))
    }
}

/// Whether a user of whom the row says so many groups belongs to those few. Where the limit is so low that anybody might
/// be full, nobody does.
fn is_nearly_full(groups: u32, limit: u32) -> bool {
    let (groups, limit) = (groups as usize, limit as usize);
    groups + UNCOUNTED_MAX > limit && !may_be_full_without_row(limit)
}

/// Whether somebody may be full of whom there is no row: its groups are as many as one value has.
fn may_be_full_without_row(limit: usize) -> bool {
    MEMBERSHIPS_PER_VALUE + UNCOUNTED_MAX > limit
}

impl<D: Disk> Indexer<D> {
    /// Whether a user might be full if everything that may wait of it were counted. It costs no look-up.
    pub(super) fn may_be_full(&self, user: &UserId) -> bool {
        let is_unknown = self.nearly_full.0.is_none();
        is_unknown || self.nearly_full.has(user) || may_be_full_without_row(self.quota.of(user) as usize)
    }

    /// The row of a user, if there is one.
    pub(super) fn crowd(&self, user: &UserId) -> Result<Option<CrowdValue>, IndexError> {
        let key = crowd_key(user);
        match self.overlay.value(&key)? {
            Some(Stored { value: Value::Crowd(crowd), .. }) => Ok(Some(crowd)),
            Some(_) => Err(mistaken(&key)),
            None => Ok(None),
        }
    }

    /// Counts a step of a user of whom the row says `before`, in one of the layers; gives what it says then.
    pub(super) fn fold_crowd(
        &mut self,
        age: Age,
        lsn: u64,
        user: &UserId,
        before: Option<CrowdValue>,
        step: Step,
    ) -> Result<Option<CrowdValue>, IndexError> {
        let may_be_full = self.may_be_full(user);
        // After a crash the row may be ahead of what is folded again: its last key never goes back.
        let mut last = before.map_or([0; 16], |before| before.last);
        let groups = match (step, before) {
            (Step::Divided { last: newest }, _) => {
                last = last.max(newest.unwrap_or_default());
                self.count_groups(user)?
            }
            (Step::Joined { .. } | Step::Ended { .. }, None) => return Ok(None),
            (Step::Joined { in_last: true } | Step::Ended { in_last: true }, _) if !may_be_full => return Ok(before),
            (Step::Joined { .. }, Some(before)) => before.groups.saturating_add(1),
            (Step::Ended { .. }, Some(before)) => before.groups.saturating_sub(1),
        };
        let limit = self.quota.of(user);
        let was_exact = self.nearly_full.has(user) || may_be_full_without_row(limit as usize);
        let groups = if is_nearly_full(groups, limit) && !was_exact { self.count_groups(user)? } else { groups };
        self.nearly_full.note(user, groups, limit);
        let after = CrowdValue { groups, last };
        self.overlay.put_in(age, &crowd_key(user), Stored { lsn, value: Value::Crowd(after) });
        let (was, is) = (before.is_some_and(|before| before.groups >= limit), groups >= limit);
        if was != is {
            self.crowds.push((user.clone(), is.then_some(limit)));
        }
        Ok(Some(after))
    }

    /// Who has become full since this was last asked, or is so no longer: with the limit, or without.
    pub(crate) fn take_crowds(&mut self) -> Vec<(UserId, Option<u32>)> {
        std::mem::take(&mut self.crowds)
    }

    /// All who are full.
    pub(crate) fn full_users(&mut self) -> Result<Vec<(UserId, Option<u32>)>, FoldError> {
        self.crowds.clear();
        self.nearly_full = NearlyFull(Some(BTreeSet::new()));
        let (mut low, high) = crowd_ends();
        let mut full = Vec::new();
        while let Some((key, stored)) = self.overlay.nearest(&low, &high, Direction::Ascending)? {
            let (Value::Crowd(CrowdValue { groups, .. }), Some(user)) = (stored.value, crowd_user(&key)) else {
                return Err(mistaken(&key).into());
            };
            let limit = self.quota.of(&user);
            self.nearly_full.note(&user, groups, limit);
            if groups >= limit {
                full.push((user, Some(limit)));
            }
            low = key;
            low.push(0);
        }
        Ok(full)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ids::GroupId;
    use crate::store::Mark;
    use crate::store::index::memory::MemoryHome;
    use crate::store::indexer::tests::{Rig, created, everything};
    use crate::store::journal::tests::{group, user};
    use crate::store::tables::MEMBERSHIPS_PER_VALUE;

    const SEGMENT_BYTES: u32 = 256 * 1024;

    /// The row tells of the last value before that is flushed, and of groups that the value before it still has.
    #[test]
    fn a_flush_cut_at_any_value_of_a_user_in_many_groups_is_completed_by_replay() {
        let full = u8::try_from(MEMBERSHIPS_PER_VALUE).unwrap();
        let mut rig = Rig::new(SEGMENT_BYTES);
        // The group in between comes last, and divides the value behind a group that was there and has been marked.
        let create = |rig: &mut Rig, number| _ = rig.commit(&created(group(number), "alice", &["bob".to_owned()]));
        (1..full).chain([full + 1]).for_each(|number| create(&mut rig, number));
        rig.indexer.flush().unwrap();
        let before = rig.home.content().clone();
        let mark = |number| Mark { user: user("alice"), group: group(number), received: 1, read: 1 };
        rig.commit(&crate::store::Change::Marks(vec![mark(full + 1), mark(1)]));
        create(&mut rig, full);
        rig.commit(&crate::store::Change::Marks(vec![mark(full)]));
        (full + 2..full + 4).for_each(|number| create(&mut rig, number));
        rig.indexer.flush().unwrap();
        let after = rig.home.content().clone();
        let row = crowd_key(&user("alice"));
        assert!(
            !before.contains_key(&row) && after.contains_key(&row),
            "the value was divided in the flush that is cut"
        );

        let groups: Vec<GroupId> = (1..full + 4).map(group).collect();
        let users = [user("alice"), user("bob")];
        let good = everything(&mut rig.indexer, &groups, &users);
        // In values, a user is flushed in the descending order of keys.
        for cut in after.keys() {
            let home = MemoryHome::default();
            home.content().extend(before.clone());
            home.content().extend(after.range(cut.clone()..).map(|(key, value)| (key.clone(), value.clone())));
            let mut cut_off = rig.replayed(&home, SEGMENT_BYTES);
            assert_eq!(everything(&mut cut_off, &groups, &users), good, "cut at {cut:02x?}");
        }
    }
}
