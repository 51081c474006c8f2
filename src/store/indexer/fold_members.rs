//! Folding memberships and marks.
//!
//! Marks below the joining count for nothing, so that it does not matter in which order a joining and the marks from
//! before it are met. A membership that has ended is kept until its user has received the end, or until the log no
//! longer reaches back to it; a row of its own says so, by which those of one group are found.

use super::crowds::Step;
use super::fold::mistaken;
use super::{FoldError, Indexer};
use crate::group::{Entry, Event, Succession};
use crate::ids::{GroupId, UserId};
use crate::store::Mark;
use crate::store::carried::FormerMember;
use crate::store::disk::Disk;
use crate::store::index::{Direction, IndexError};
use crate::store::overlay::Age;
use crate::store::tables::{
    CrowdValue, MEMBERSHIPS_PER_VALUE, MembershipValue, Stored, Value, former_ends, former_key, former_user,
    memberships_first, memberships_key,
};

impl<D: Disk> Indexer<D> {
    pub(super) fn fold_memberships(&mut self, lsn: u64, group: GroupId, entry: &Entry) -> Result<(), FoldError> {
        match &entry.event {
            Event::Created { members, .. } if self.group_value(group)?.is_none() => {
                // Nobody was in it before.
                for user in members {
                    self.note_joining(lsn, user, group, entry.seq)?;
                }
            }
            Event::Created { members, .. } | Event::Added { members } => {
                for user in members {
                    self.join(lsn, user, group, entry.seq)?;
                }
            }
            Event::Removed { members } => {
                for user in members {
                    self.end(lsn, user, group, entry.seq)?;
                }
            }
            Event::Left { succession: Succession::Unchanged | Succession::Passed { .. } } => {
                self.end(lsn, &entry.sender, group, entry.seq)?;
            }
            Event::Left { succession: Succession::Dissolved } | Event::Dissolved => {
                let Some(value) = self.group_value(group)? else { return Ok(()) };
                for member in self.with_members(group, value)?.members {
                    self.end(lsn, &member.user, group, entry.seq)?;
                }
            }
            Event::Renamed { .. } | Event::Transferred { .. } | Event::Message { .. } | Event::Whisper { .. } => {}
        }
        Ok(())
    }

    /// Puts a membership from a seq on into its value, in one of the layers, unless a newer packet has said more already.
    pub(super) fn put_joined(
        &mut self,
        age: Age,
        lsn: u64,
        user: &UserId,
        crowd: &mut Option<CrowdValue>,
        group: GroupId,
        seq: u64,
    ) -> Result<(), IndexError> {
        self.put_membership(age, lsn, user, crowd, group, |membership| {
            (membership.joined, membership.until) = (seq, None);
        })?;
        Ok(())
    }

    pub(super) fn join(&mut self, lsn: u64, user: &UserId, group: GroupId, seq: u64) -> Result<(), FoldError> {
        self.settle(user)?;
        let mut crowd = self.crowd(user)?;
        self.put_joined(Age::Active, lsn, user, &mut crowd, group, seq)?;
        // Rows are flushed behind memberships: after a crash one may be left that the membership does not confirm.
        let former = former_key(group, user);
        if self.overlay.value(&former)?.is_some()
            && self.membership(user, group)?.is_none_or(|membership| membership.until.is_none())
        {
            self.overlay.remove(&former);
        }
        Ok(())
    }

    /// Takes over a membership that has ended, as a carried packet says it.
    pub(super) fn fold_former(&mut self, lsn: u64, group: GroupId, member: &FormerMember) -> Result<(), FoldError> {
        let FormerMember { user, joined, until, received, read } = member;
        // A floor that stands in the same slice stands before what it lets go of.
        let floor = self.state(group)?.map_or(1, |state| state.floor);
        self.settle(user)?;
        let mut crowd = self.crowd(user)?;
        let put = self.put_membership(Age::Active, lsn, user, &mut crowd, group, |membership| {
            (membership.joined, membership.until) = (*joined, Some(*until));
            membership.received = membership.received.max(*received);
            membership.read = membership.read.max(*read);
        })?;
        match put {
            Some(membership) if membership.received >= *until || *until < floor => {
                self.drop_membership(lsn, user, group)
            }
            Some(_) => {
                self.overlay.put(&former_key(group, user), Stored { lsn, value: Value::Former(*until) });
                Ok(())
            }
            None => Ok(()),
        }
    }

    /// Changes a membership, or makes it; gives what came of it, unless a newer packet has said more already. The user
    /// must be settled in that layer; `crowd` is its row, which may change.
    fn put_membership(
        &mut self,
        age: Age,
        lsn: u64,
        user: &UserId,
        crowd: &mut Option<CrowdValue>,
        group: GroupId,
        change: impl FnOnce(&mut MembershipValue),
    ) -> Result<Option<MembershipValue>, IndexError> {
        let key = self.place_to_edit(age, user, *crowd, group)?;
        let slot = self.overlay.edit_in(age, &key)?;
        let stored = slot.get_or_insert_with(|| Stored { lsn: 0, value: Value::Memberships(Vec::new()) });
        if stored.lsn >= lsn {
            return Ok(None);
        }
        stored.lsn = lsn;
        let Value::Memberships(memberships) = &mut stored.value else { return Err(mistaken(&key)) };
        let found = memberships.binary_search_by_key(&group, |membership| membership.group);
        let at = found.unwrap_or_else(|at| {
            memberships.insert(at, MembershipValue { group, joined: 0, until: None, received: 0, read: 0 });
            at
        });
        let membership = &mut memberships[at];
        let was_member = is_member(membership);
        change(membership);
        for mark in [&mut membership.received, &mut membership.read] {
            if *mark < membership.joined {
                *mark = 0;
            }
        }
        let membership = *membership;
        if memberships.len() > MEMBERSHIPS_PER_VALUE {
            let last = self.split(age, user, &key)?;
            *crowd = self.fold_crowd(age, lsn, user, *crowd, Step::Divided { last })?;
        } else if was_member != is_member(&membership) {
            let in_last = is_in_last(*crowd, group);
            let step = if was_member { Step::Ended { in_last } } else { Step::Joined { in_last } };
            *crowd = self.fold_crowd(age, lsn, user, *crowd, step)?;
        }
        Ok(Some(membership))
    }

    /// Divides a value that became too large; gives the first group of the higher half where that is the last value.
    /// A value that a crash left half split may still have what the next one has taken over; that goes first.
    fn split(&mut self, age: Age, user: &UserId, key: &[u8]) -> Result<Option<[u8; 16]>, IndexError> {
        let mut behind = key.to_vec();
        behind.push(0);
        let next = self.overlay.nearest(&behind, &memberships_key(user, [0xff; 16]), Direction::Ascending)?;
        let next = next.as_ref().and_then(|(key, _)| memberships_first(key));
        let Some(Stored { lsn, value: Value::Memberships(memberships) }) = self.overlay.edit_in(age, key)? else {
            return Err(mistaken(key));
        };
        if let Some(next) = next {
            memberships.retain(|membership| *membership.group.as_bytes() < next);
        }
        if memberships.len() <= MEMBERSHIPS_PER_VALUE {
            return Ok(None);
        }
        // Group ids ascend with time, so a user's newest group mostly comes last: then the lower value stays full.
        let at = if next.is_none() { MEMBERSHIPS_PER_VALUE } else { memberships.len() / 2 };
        let higher = memberships.split_off(at);
        memberships.shrink_to_fit();
        let lsn = *lsn;
        let Some(first) = higher.first().map(|membership| *membership.group.as_bytes()) else { return Ok(None) };
        self.overlay.put_in(age, &memberships_key(user, first), Stored { lsn, value: Value::Memberships(higher) });
        Ok(next.is_none().then_some(first))
    }

    fn end(&mut self, lsn: u64, user: &UserId, group: GroupId, seq: u64) -> Result<(), FoldError> {
        self.settle(user)?;
        let crowd = self.crowd(user)?;
        let key = self.memberships_place(user, crowd, group)?;
        let Some(stored) = self.overlay.edit(&key)? else { return Ok(()) };
        let Value::Memberships(memberships) = &mut stored.value else { return Err(mistaken(&key).into()) };
        let Ok(at) = memberships.binary_search_by_key(&group, |membership| membership.group) else { return Ok(()) };
        let membership = &mut memberships[at];
        let ends = stored.lsn < lsn && is_member(membership);
        if ends {
            membership.until = Some(seq);
            stored.lsn = lsn;
        }
        // Again after a crash, the membership may have been flushed and its row not.
        if membership.until != Some(seq) {
            return Ok(());
        }
        if ends {
            let in_last = is_in_last(crowd, group);
            self.fold_crowd(Age::Active, lsn, user, crowd, Step::Ended { in_last })?;
        }
        self.overlay.put(&former_key(group, user), Stored { lsn, value: Value::Former(seq) });
        Ok(())
    }

    pub(super) fn fold_mark(&mut self, lsn: u64, mark: &Mark) -> Result<(), FoldError> {
        let (user, group) = (&mark.user, mark.group);
        self.settle(user)?;
        let key = self.memberships_key_of(user, group)?;
        let found = match self.overlay.edit(&key)? {
            Some(Stored { lsn: last, value: Value::Memberships(memberships) }) => {
                let found = memberships.binary_search_by_key(&group, |membership| membership.group).ok();
                found.map(|at| {
                    // Marks only grow, so they need no guard, and one packet may have several in one value.
                    *last = (*last).max(lsn);
                    note_mark(&mut memberships[at], mark);
                    memberships[at]
                })
            }
            Some(_) => return Err(mistaken(&key).into()),
            None => None,
        };
        match found {
            Some(MembershipValue { until: Some(until), received, .. }) if received >= until => {
                self.drop_membership(lsn, user, group)?;
                self.remove_if_over(group)
            }
            Some(_) => Ok(()),
            // The membership is told later, in a carried packet that does not have this mark.
            None if self.rebuilding => self.keep_mark(lsn, mark),
            // Again after a crash: the membership is gone already, its group perhaps not yet.
            None => {
                self.confirm_former(user, group)?;
                self.remove_if_over(group)
            }
        }
    }

    /// Keeps a mark without a membership; the end of making the index anew removes it if none came. Its user is settled.
    fn keep_mark(&mut self, lsn: u64, mark: &Mark) -> Result<(), FoldError> {
        let crowd = self.crowd(&mark.user)?;
        let key = self.memberships_place(&mark.user, crowd, mark.group)?;
        let slot = self.overlay.edit(&key)?;
        let stored = slot.get_or_insert_with(|| Stored { lsn: 0, value: Value::Memberships(Vec::new()) });
        stored.lsn = stored.lsn.max(lsn);
        let Value::Memberships(memberships) = &mut stored.value else { return Err(mistaken(&key).into()) };
        let Mark { group, received, read, .. } = *mark;
        if let Err(at) = memberships.binary_search_by_key(&group, |membership| membership.group) {
            memberships.insert(at, MembershipValue { group, joined: 0, until: None, received, read });
        }
        if memberships.len() > MEMBERSHIPS_PER_VALUE {
            let last = self.split(Age::Active, &mark.user, &key)?;
            self.fold_crowd(Age::Active, lsn, &mark.user, crowd, Step::Divided { last })?;
        }
        Ok(())
    }

    /// Removes the row of a former membership that is gone.
    fn confirm_former(&mut self, user: &UserId, group: GroupId) -> Result<(), FoldError> {
        let former = former_key(group, user);
        if self.overlay.value(&former)?.is_some() && self.membership(user, group)?.is_none() {
            self.overlay.remove(&former);
        }
        Ok(())
    }

    /// Drops a membership that has ended.
    pub(super) fn drop_membership(&mut self, lsn: u64, user: &UserId, group: GroupId) -> Result<(), FoldError> {
        self.settle(user)?;
        let key = self.memberships_key_of(user, group)?;
        if let Some(stored) = self.overlay.edit(&key)? {
            let Value::Memberships(memberships) = &mut stored.value else { return Err(mistaken(&key).into()) };
            memberships.retain(|membership| membership.group != group);
            stored.lsn = stored.lsn.max(lsn);
            if memberships.is_empty() {
                self.overlay.remove(&key);
            }
        }
        self.overlay.remove(&former_key(group, user));
        Ok(())
    }

    /// Drops the memberships of a group that ended before a seq.
    pub(super) fn drop_former_before(&mut self, lsn: u64, group: GroupId, floor: u64) -> Result<(), FoldError> {
        let (mut low, high) = former_ends(group);
        while let Some((key, stored)) = self.overlay.nearest(&low, &high, Direction::Ascending)? {
            let (Value::Former(until), Some(user)) = (stored.value, former_user(&key)) else {
                return Err(mistaken(&key).into());
            };
            let is_current = self.membership(&user, group)?.is_some_and(|membership| membership.until.is_none());
            if is_current {
                self.overlay.remove(&key);
            } else if until < floor {
                self.drop_membership(lsn, &user, group)?;
            }
            low = key;
            low.push(0);
        }
        Ok(())
    }

    /// The membership of a user in a group, former ones included.
    pub(super) fn membership(&mut self, user: &UserId, group: GroupId) -> Result<Option<MembershipValue>, FoldError> {
        self.settle(user)?;
        let key = self.memberships_key_of(user, group)?;
        match self.overlay.value(&key)?.map(|stored| stored.value) {
            Some(Value::Memberships(memberships)) => {
                let found = memberships.binary_search_by_key(&group, |membership| membership.group);
                Ok(found.ok().map(|at| memberships[at]).filter(|membership| membership.joined > 0))
            }
            Some(_) => Err(mistaken(&key).into()),
            None => Ok(None),
        }
    }

    /// The key that holds, or would hold, a membership.
    fn memberships_key_of(&self, user: &UserId, group: GroupId) -> Result<Vec<u8>, IndexError> {
        self.memberships_place(user, self.crowd(user)?, group)
    }

    /// The same for a value that is going to be changed in one of the layers: mostly the newest one, which is in the
    /// layer then, so that it is read once.
    fn place_to_edit(
        &mut self,
        age: Age,
        user: &UserId,
        crowd: Option<CrowdValue>,
        group: GroupId,
    ) -> Result<Vec<u8>, IndexError> {
        if let Some(crowd) = crowd.filter(|_| is_in_last(crowd, group)) {
            let newest = memberships_key(user, crowd.last);
            if self.overlay.edit_in(age, &newest)?.is_some() {
                return Ok(newest);
            }
        }
        self.memberships_place(user, crowd, group)
    }

    /// The same with the user's row of crowds, if there is one.
    fn memberships_place(
        &self,
        user: &UserId,
        crowd: Option<CrowdValue>,
        group: GroupId,
    ) -> Result<Vec<u8>, IndexError> {
        let first = memberships_key(user, [0; 16]);
        // Most users are in few groups: then there is no other value, and no scan is needed to know it. The row of
        // crowds is flushed before the values of which it tells, so no crash leaves several values without it.
        let Some(crowd) = crowd else { return Ok(first) };
        let newest = memberships_key(user, crowd.last);
        // Behind a crash the row may tell of a value that was not flushed.
        if is_in_last(Some(crowd), group) && self.overlay.contains(&newest)? {
            return Ok(newest);
        }
        let nearest = self.overlay.nearest(&first, &memberships_key(user, *group.as_bytes()), Direction::Descending)?;
        Ok(nearest.map_or(first, |(key, _)| key))
    }
}

/// Whether a group belongs to the last value of a user in many groups.
fn is_in_last(crowd: Option<CrowdValue>, group: GroupId) -> bool {
    crowd.is_some_and(|crowd| *group.as_bytes() >= crowd.last)
}

fn is_member(membership: &MembershipValue) -> bool {
    membership.until.is_none() && membership.joined > 0
}

fn note_mark(membership: &mut MembershipValue, mark: &Mark) {
    if mark.received >= membership.joined {
        membership.received = membership.received.max(mark.received);
    }
    if mark.read >= membership.joined {
        membership.read = membership.read.max(mark.read);
    }
}
