//! Received and read marks: coalesced in memory, journalled packed at most once a second and when a user goes.
//!
//! Nothing is answered to an acknowledgement and nothing waits for its marks: a crash may set them back, which repeats
//! entries and loses none.

use std::collections::{BTreeMap, VecDeque};

use super::Hub;
use super::changes::not_found;
use super::reads::PendingRead;
use super::release::Release;
use super::task::Caller;
use crate::ids::{GroupId, UserId};
use crate::limits::MARKS_DELAY_MS;
use crate::store::{Change, MARKS_PER_CHANGE_MAX, Mark, Membership, ReadId};
use crate::wire::{ErrorBody, ErrorCode};

type Places = BTreeMap<(UserId, GroupId), (u64, u64)>;

/// The marks that the index does not know yet, or that an answer on its way may not know.
///
/// Invariant: `since_ms` is set exactly when `fresh` is not empty.
#[derive(Debug, Default)]
pub(super) struct Marks {
    /// Not handed to storage yet.
    fresh: Places,
    since_ms: Option<u64>,
    /// On their way to the disk, in the order in which they were handed over.
    flying: VecDeque<Places>,
    /// On disk, with the number of look-ups that had been asked for by then: the answers to those may not know of them.
    landed: VecDeque<(u64, Places)>,
}

impl Marks {
    fn note(&mut self, user: &UserId, group: GroupId, received: u64, read: u64, now_ms: u64) {
        let place = self.fresh.entry((user.clone(), group)).or_default();
        *place = (place.0.max(received), place.1.max(read));
        self.since_ms.get_or_insert(now_ms);
    }

    /// What a user acknowledged of a group that the index may not know yet: received, read.
    pub(super) fn of(&self, user: &UserId, group: GroupId) -> (u64, u64) {
        let key = (user.clone(), group);
        let landed = self.landed.iter().map(|(_, places)| places);
        let places = landed.chain(&self.flying).chain([&self.fresh]).filter_map(|places| places.get(&key));
        places.fold((0, 0), |(received, read), place| (received.max(place.0), read.max(place.1)))
    }

    /// When the fresh ones have to be handed to storage.
    pub(super) fn due_ms(&self) -> Option<u64> {
        self.since_ms.map(|since_ms| since_ms + MARKS_DELAY_MS)
    }

    /// The oldest that were on their way are on disk; so many look-ups have been asked for.
    pub(super) fn landed(&mut self, reads: u64) {
        self.landed.extend(self.flying.pop_front().map(|places| (reads, places)));
    }

    /// Forgets those that every look-up knows which has no answer yet; the oldest of them is the first.
    fn forget_known(&mut self, first: Option<ReadId>) {
        while self.landed.front().is_some_and(|(reads, _)| first.is_none_or(|first| first.0 > *reads)) {
            self.landed.pop_front();
        }
    }

    /// Whether nothing is kept of what storage tells everybody.
    #[cfg(any(test, feature = "fuzzing", feature = "sim"))]
    pub(super) fn is_known(&self) -> bool {
        self.landed.is_empty()
    }

    pub(super) fn is_settled(&self) -> bool {
        self.fresh.is_empty() && self.flying.is_empty()
    }

    /// Takes up to one packet's worth of the fresh marks, of one user or of all.
    fn take(&mut self, user: Option<&UserId>) -> Places {
        let keys: Vec<_> = match user {
            None => self.fresh.keys().take(MARKS_PER_CHANGE_MAX).cloned().collect(),
            Some(user) => {
                let lowest = GroupId::from_bytes([0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1]).expect("not nil");
                let from = self.fresh.range((user.clone(), lowest)..).map(|(key, _)| key);
                from.take_while(|(owner, _)| owner == user).take(MARKS_PER_CHANGE_MAX).cloned().collect()
            }
        };
        keys.into_iter().filter_map(|key| self.fresh.remove_entry(&key)).collect()
    }
}

impl Hub {
    /// Forgets the marks that the index has told, or will tell, to everybody who asks.
    pub(super) fn forget_known_marks(&mut self) {
        if !self.marks.landed.is_empty() {
            // A backup takes long, and does not ask for marks.
            let first = self.reads.iter().find(|(_, pending)| !matches!(pending, PendingRead::Backup(_)));
            self.marks.forget_known(first.map(|(read, _)| *read));
        }
    }

    /// Takes one mark of an acknowledgement.
    pub(super) fn mark(&mut self, id: GroupId, caller: &Caller, received: u64, read: u64) {
        let Some(group) = self.loaded_group(id) else { unreachable!("marks are taken of a loaded group") };
        if !group.durable.has(&caller.user) {
            let pending = PendingRead::FormerMark(caller.clone(), id, received, read);
            return self.load_membership(pending, caller.user.clone(), id);
        }
        let head = group.durable_head;
        self.note_mark(id, caller, (received, read), head);
    }

    /// A mark of somebody who was no member when it came: it may say that it has read to the end.
    pub(super) fn mark_former(
        &mut self,
        caller: &Caller,
        id: GroupId,
        membership: Option<&Membership>,
        received: u64,
        read: u64,
    ) {
        if let Some(group) = self.loaded_group(id).filter(|group| group.durable.has(&caller.user)) {
            // Added again while its former membership was looked up.
            let head = group.durable_head;
            return self.note_mark(id, caller, (received, read), head);
        }
        match membership.and_then(|membership| self.former_until(&caller.user, membership)) {
            Some(until) => self.note_mark(id, caller, (received, read), until),
            None => self.refuse_mark(caller, not_found()),
        }
    }

    fn note_mark(&mut self, id: GroupId, caller: &Caller, (received, read): (u64, u64), last: u64) {
        if received > last || read > last {
            let message = format!("a mark is beyond the head, which is {last}");
            return self.refuse_mark(caller, ErrorBody::new(ErrorCode::Range, last, message));
        }
        self.marks.note(&caller.user, id, received, read, self.now.monotonic_ms);
        self.finish_request(caller.connection, 0, None);
    }

    /// Says what was wrong with one mark of an acknowledgement.
    pub(super) fn refuse_mark(&mut self, caller: &Caller, error: ErrorBody) {
        self.refuse(caller.connection, caller.request_id, error);
    }

    pub(super) fn commit_due_marks(&mut self) {
        if self.marks.due_ms().is_some_and(|due_ms| due_ms <= self.now.monotonic_ms) {
            self.commit_marks(None);
        }
    }

    /// Hands the fresh marks of one user, or of all, to storage; without room for them they wait.
    pub(super) fn commit_marks(&mut self, user: Option<&UserId>) {
        loop {
            let places = self.marks.take(user);
            if places.is_empty() {
                break;
            }
            let mark = |((user, group), (received, read)): (&(UserId, GroupId), &(u64, u64))| Mark {
                user: user.clone(),
                group: *group,
                received: *received,
                read: *read,
            };
            let change = Change::Marks(places.iter().map(mark).collect());
            if !self.has_credit(&change) {
                self.marks.fresh.extend(places);
                self.marks.since_ms = Some(self.now.monotonic_ms);
                return;
            }
            self.commit(change, Release::Marks);
            self.marks.flying.push_back(places);
        }
        if self.marks.fresh.is_empty() {
            self.marks.since_ms = None;
        }
    }
}
