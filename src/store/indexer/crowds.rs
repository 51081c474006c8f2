//! Users in very many groups: who has reached the number of groups that it may be in.
//!
//! A row counts the groups of each user whose memberships have filled more than one value. It follows joinings and
//! endings, and is counted anew whenever a value is divided: so what a crash may have made wrong by one is right again
//! some joinings later. A quota can stand that; an exact count would cost a look-up for each member of each new group.

use super::fold::mistaken;
use super::{FoldError, Indexer};
use crate::ids::UserId;
use crate::store::disk::Disk;
use crate::store::index::Direction;
use crate::store::tables::{Stored, Value, crowd_ends, crowd_key, crowd_user};

/// What a packet did to the number of groups of a user.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Step {
    Joined,
    Ended,
    /// A value of its memberships was divided.
    Divided,
}

impl<D: Disk> Indexer<D> {
    /// The number of groups of a user, if there is a row of it.
    pub(super) fn crowd(&self, user: &UserId) -> Result<Option<u32>, FoldError> {
        let key = crowd_key(user);
        match self.overlay.value(&key)? {
            Some(Stored { value: Value::Crowd(groups), .. }) => Ok(Some(groups)),
            Some(_) => Err(mistaken(&key)),
            None => Ok(None),
        }
    }

    /// Counts a step of a user of whom the row says `before`.
    pub(super) fn fold_crowd(
        &mut self,
        lsn: u64,
        user: &UserId,
        before: Option<u32>,
        step: Step,
    ) -> Result<(), FoldError> {
        let groups = match (step, before) {
            (Step::Divided, _) => self.count_groups(user)?,
            (Step::Joined | Step::Ended, None) => return Ok(()),
            (Step::Joined, Some(before)) => before.saturating_add(1),
            (Step::Ended, Some(before)) => before.saturating_sub(1),
        };
        self.overlay.put(crowd_key(user), Stored { lsn, value: Value::Crowd(groups) });
        let limit = self.quota.of(user);
        let (was, is) = (before.is_some_and(|before| before >= limit), groups >= limit);
        if was != is {
            self.crowds.push((user.clone(), is.then_some(limit)));
        }
        Ok(())
    }

    /// Who has become full since this was last asked, or is so no longer: with the limit, or without.
    pub(crate) fn take_crowds(&mut self) -> Vec<(UserId, Option<u32>)> {
        std::mem::take(&mut self.crowds)
    }

    /// All who are full.
    pub(crate) fn full_users(&mut self) -> Result<Vec<(UserId, Option<u32>)>, FoldError> {
        self.crowds.clear();
        let (mut low, high) = crowd_ends();
        let mut full = Vec::new();
        while let Some((key, stored)) = self.overlay.nearest(&low, &high, Direction::Ascending)? {
            let (Value::Crowd(groups), Some(user)) = (stored.value, crowd_user(&key)) else {
                return Err(mistaken(&key));
            };
            let limit = self.quota.of(&user);
            if groups >= limit {
                full.push((user, Some(limit)));
            }
            low = key;
            low.push(0);
        }
        Ok(full)
    }
}
