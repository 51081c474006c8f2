//! Joinings that are not in a value yet.
//!
//! A new group makes its members' memberships grow by one each. Most of these users are not in memory; to read the value
//! of each and write it back for 48 bytes would be most of what a create costs. So what a created group says of a user
//! waits here as it is, several of one user together, until somebody asks for the user, something else of it changes,
//! or a flush comes to it: then they are *settled*, which is when the value is read. The layers are those of the
//! overlay: frozen joinings are settled into the frozen layer, and while a user has any, nothing else of its memberships
//! is in the active one.

use std::collections::BTreeMap;
use std::ops::Bound;

use super::Indexer;
use crate::ids::{GroupId, UserId};
use crate::store::disk::Disk;
use crate::store::index::IndexError;
use crate::store::overlay::Age;
use crate::store::tables::{Key, MEMBERSHIPS_PER_VALUE, memberships_key, memberships_user};

/// Memory of a user here, and of each of its joinings.
const USER_BYTES: usize = 160;
const JOINING_BYTES: usize = 48;
/// Joinings of one user that wait in a layer: to settle them is one step, and its row of crowds is counted anew by it.
pub(super) const WAITING_MAX: usize = 64;
/// Users who are settled before a batch of a flush: about as many as have their values in one.
const SETTLED_PER_STEP: usize = 128;

/// A user's membership from a group's first entry on.
#[derive(Clone, Copy, Debug)]
struct Joining {
    lsn: u64,
    group: GroupId,
    seq: u64,
}

/// Of one user, in the order of LSNs.
#[derive(Debug)]
struct OfUser {
    joinings: Vec<Joining>,
    /// So many in all may wait; where it is few, with one more the user may be in as many groups as it may be, and
    /// somebody has to know.
    waiting_max: usize,
}

/// By the first key of a user's memberships, so in the order in which those are flushed.
type Layer = BTreeMap<Key, OfUser>;

/// The joinings of all users.
#[derive(Debug)]
pub(super) struct Joinings {
    active: Layer,
    active_count: usize,
    frozen: Layer,
    frozen_count: usize,
    settled_per_step: usize,
}

impl Default for Joinings {
    fn default() -> Self {
        // Tests and the simulator have few users, and go on one by one, so that anything may come in between.
        let settled_per_step = if cfg!(any(test, feature = "sim")) { 1 } else { SETTLED_PER_STEP };
        let (active, frozen) = (Layer::new(), Layer::new());
        Self { active, active_count: 0, frozen, frozen_count: 0, settled_per_step }
    }
}

impl Joinings {
    /// As many users at a step of a flush as where it is not a test.
    #[cfg(test)]
    pub(super) fn settle_many(&mut self) {
        self.settled_per_step = SETTLED_PER_STEP;
    }

    /// Memory of those that are not frozen, about.
    pub(super) fn active_bytes(&self) -> usize {
        self.active.len() * USER_BYTES + self.active_count * JOINING_BYTES
    }

    /// The same of all.
    pub(super) fn memory_bytes(&self) -> usize {
        self.active_bytes() + self.frozen.len() * USER_BYTES + self.frozen_count * JOINING_BYTES
    }

    /// Freezes the active ones, with the layer of the overlay.
    pub(super) fn freeze(&mut self) {
        assert!(self.frozen.is_empty(), "one layer is flushed at a time");
        self.frozen = std::mem::take(&mut self.active);
        self.frozen_count = std::mem::take(&mut self.active_count);
    }

    /// The user with the highest keys that has frozen ones.
    fn last_frozen(&self) -> Option<UserId> {
        self.frozen.last_key_value().and_then(|(key, _)| memberships_user(key))
    }

    /// The last key of that user: what is above it may be flushed.
    fn flush_bound(&self) -> Option<Vec<u8>> {
        self.last_frozen().map(|user| memberships_key(&user, [0xff; 16]))
    }

    /// The first key of the next user that has any.
    pub(super) fn next_key(&self, low: &[u8]) -> Option<Vec<u8>> {
        let next = |layer: &Layer| {
            let mut above = layer.range::<[u8], _>((Bound::Included(low), Bound::Unbounded));
            above.next().map(|(key, _)| key.to_vec())
        };
        [next(&self.active), next(&self.frozen)].into_iter().flatten().min()
    }

    fn take(&mut self, age: Age, key: &[u8]) -> Vec<Joining> {
        let (layer, count) = match age {
            Age::Active => (&mut self.active, &mut self.active_count),
            Age::Frozen => (&mut self.frozen, &mut self.frozen_count),
        };
        let joinings = layer.remove(key).map(|of_user| of_user.joinings).unwrap_or_default();
        *count -= joinings.len();
        joinings
    }
}

impl<D: Disk> Indexer<D> {
    /// Notes that a user is in a group in which it was not before; it waits, unless the user might be full by it.
    pub(super) fn note_joining(&mut self, lsn: u64, user: &UserId, group: GroupId, seq: u64) -> Result<(), IndexError> {
        let key = memberships_key(user, [0; 16]);
        let joining = Joining { lsn, group, seq };
        let waiting_max = if let Some(of_user) = self.joinings.active.get_mut(key.as_slice()) {
            if of_user.joinings.len() < of_user.waiting_max {
                of_user.joinings.push(joining);
                self.joinings.active_count += 1;
                return Ok(());
            }
            0
        } else {
            self.waiting_max(user, &key)?
        };
        if waiting_max > 0 {
            self.joinings.active.insert(Key::from_slice(&key), OfUser { joinings: vec![joining], waiting_max });
            self.joinings.active_count += 1;
            return Ok(());
        }
        self.settle(user)?;
        self.put_joinings(Age::Active, user, vec![joining])
    }

    /// How many joinings of a user may wait. Rows are read of those alone who may be full by it: to read the row of
    /// each member was a third of what a created group cost until its answer, where users are in many groups.
    fn waiting_max(&self, user: &UserId, key: &[u8]) -> Result<usize, IndexError> {
        if !self.may_be_full(user) {
            debug_assert_eq!(self.waiting_max_by_row(user, key), Ok(WAITING_MAX), "{user:?}");
            return Ok(WAITING_MAX);
        }
        self.waiting_max_by_row(user, key)
    }

    /// The same by the row of crowds; without one the user may be in as many groups as one value holds.
    fn waiting_max_by_row(&self, user: &UserId, key: &[u8]) -> Result<usize, IndexError> {
        let groups = self.crowd(user)?.map_or(MEMBERSHIPS_PER_VALUE, |crowd| crowd.groups as usize);
        let frozen = self.joinings.frozen.get(key).map_or(0, |of_user| of_user.joinings.len());
        Ok((self.quota.of(user) as usize).saturating_sub(groups + frozen + 1).min(WAITING_MAX))
    }

    /// Puts what waits of a user into the values of its memberships. Whatever reads or changes these comes behind it.
    pub(super) fn settle(&mut self, user: &UserId) -> Result<(), IndexError> {
        self.settle_in(Age::Frozen, user)?;
        self.settle_in(Age::Active, user)
    }

    fn settle_in(&mut self, age: Age, user: &UserId) -> Result<(), IndexError> {
        let joinings = self.joinings.take(age, &memberships_key(user, [0; 16]));
        self.put_joinings(age, user, joinings)
    }

    fn put_joinings(&mut self, age: Age, user: &UserId, joinings: Vec<Joining>) -> Result<(), IndexError> {
        if joinings.is_empty() {
            return Ok(());
        }
        let mut crowd = self.crowd(user)?;
        for Joining { lsn, group, seq } in joinings {
            self.put_joined(age, lsn, user, &mut crowd, group, seq)?;
        }
        Ok(())
    }

    /// Settles some frozen ones, if nothing else can be flushed before. Gives the key above which everything may be
    /// flushed; none once all may.
    pub(super) fn settle_for_flush(&mut self) -> Result<Option<Vec<u8>>, IndexError> {
        if let Some(bound) = self.joinings.flush_bound()
            && self.overlay.has_frozen_above(&bound)
        {
            return Ok(Some(bound));
        }
        for _ in 0..self.joinings.settled_per_step {
            let Some(user) = self.joinings.last_frozen() else { break };
            self.settle_in(Age::Frozen, &user)?;
        }
        Ok(self.joinings.flush_bound())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::group::{Event, Succession};
    use crate::store::indexer::tests::{Rig, created};
    use crate::store::journal::tests::{effect, group, user};
    use crate::store::quota::GroupQuota;

    const SEGMENT_BYTES: u32 = 256 * 1024;

    fn create(rig: &mut Rig, numbers: std::ops::RangeInclusive<u8>) {
        numbers.for_each(|number| _ = rig.commit(&created(group(number), "alice", &["bob".to_owned()])));
    }

    #[test]
    fn what_waits_is_one_write_of_a_user_when_it_is_flushed() {
        let mut rig = Rig::new(SEGMENT_BYTES);
        create(&mut rig, 1..=20);
        assert_eq!((rig.indexer.joinings.active.len(), rig.indexer.joinings.active_count), (2, 40));
        let key = memberships_key(&user("alice"), [0; 16]);
        assert!(rig.indexer.overlay.value(&key).unwrap().is_none(), "nothing is read or put before");
        rig.indexer.flush().unwrap();
        assert_eq!((rig.indexer.dirty_bytes(), rig.indexer.joinings.frozen_count), (0, 0));
        assert!(rig.home.content().contains_key(&key));
        assert_eq!(rig.indexer.load_user(&user("alice")).unwrap().len(), 20);
    }

    #[test]
    fn a_user_is_told_to_be_full_with_the_group_that_fills_it_wherever_the_others_wait() {
        // The first limit is so low that rows are always read, the second so high that they are not at first.
        for (limit, flushes) in [(60, 1), (200, 3)] {
            for flushed_at in (1..limit).step_by(flushes) {
                fills(limit, flushed_at);
            }
        }
    }

    fn fills(limit: u8, flushed_at: u8) {
        let full = |rig: &mut Rig| rig.indexer.take_crowds();
        let mut rig = Rig::new(SEGMENT_BYTES);
        rig.indexer.set_quota(GroupQuota { groups_max: u32::from(limit), ..GroupQuota::default() });
        assert_eq!(rig.indexer.full_users().unwrap(), []);
        create(&mut rig, 1..=flushed_at);
        rig.indexer.begin_flush();
        // In the middle of the flush: bob's are settled, alice's are not.
        rig.indexer.flush_step().unwrap();
        create(&mut rig, flushed_at + 1..=limit - 1);
        assert_eq!(full(&mut rig), [], "limit {limit}, flushed at {flushed_at}");
        create(&mut rig, limit..=limit);
        let mut told = full(&mut rig);
        told.sort();
        let is_full = |name| (user(name), Some(u32::from(limit)));
        assert_eq!(told, [is_full("alice"), is_full("bob")], "limit {limit}, flushed at {flushed_at}");
    }

    #[test]
    fn rows_are_read_only_of_those_who_may_be_full_with_what_waits() {
        let mut rig = Rig::new(SEGMENT_BYTES);
        rig.indexer.set_quota(GroupQuota { groups_max: 200, ..GroupQuota::default() });
        assert!(rig.indexer.may_be_full(&user("alice")), "no row was read yet");
        rig.indexer.full_users().unwrap();
        create(&mut rig, 1..=64);
        rig.indexer.flush().unwrap();
        assert!(!rig.indexer.may_be_full(&user("alice")), "its last value is full and was not divided");
        create(&mut rig, 65..=65);
        rig.indexer.flush().unwrap();
        assert!(rig.indexer.may_be_full(&user("alice")), "65, 32 in the last value, 64 in each layer");
        assert!(!rig.indexer.may_be_full(&user("carol")));
        assert_eq!(rig.indexer.full_users().unwrap(), []);
        assert!(rig.indexer.may_be_full(&user("bob")), "the same by reading rows");
        let groups = |rig: &Rig| rig.indexer.crowd(&user("alice")).unwrap().unwrap().groups;
        create(&mut rig, 66..=70);
        rig.indexer.flush().unwrap();
        assert_eq!(groups(&rig), 70, "the row of one who is nearly full is exact");
        for number in 1..=31 {
            let left = Event::Left { succession: Succession::Unchanged };
            rig.commit(&effect(group(number), 2, 2, "alice", left));
        }
        assert!(!rig.indexer.may_be_full(&user("alice")));
        assert_eq!(groups(&rig), 39);
        create(&mut rig, 71..=75);
        rig.indexer.flush().unwrap();
        assert_eq!(groups(&rig), 39, "and that of others leaves the last value out");
    }
}
