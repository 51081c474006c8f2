//! Requests that only read: a group, the list of groups, the marks of a group's members.

use super::Hub;
use super::changes::not_found;
use super::connection::ConnectionKey;
use super::group::Group;
use super::history::HistoryJob;
use super::task::Caller;
use super::work::damaged;
use crate::ids::{GroupId, Role, UserId};
use crate::limits::LIST_GROUPS_MAX;
use crate::store::{Damaged, GroupSummary, Mark, Membership, ReadId, Request as StoreRequest};
use crate::wire::{self, GroupShown, Reply, UserMarks};

/// What waits for an answer of storage.
#[derive(Debug)]
pub(super) enum PendingRead {
    /// The memberships of a connection's user, for its catch-up.
    Attach(ConnectionKey),
    /// A page of the list of groups.
    List(Caller),
    /// Entries for the group that the job is at.
    History(Box<HistoryJob>),
    /// The former membership of the job's user in the group that the job is at.
    FormerHistory(Box<HistoryJob>),
    /// The former membership of somebody who acknowledges: received, read.
    FormerMark(Caller, GroupId, u64, u64),
    /// The marks of a group's members; those who have read less than the seq are left out.
    Readers(Caller, GroupId, u64),
    /// A page of the feed of a connection; with the request that began it, as long as that has no answer.
    Feed(ConnectionKey, Option<Caller>),
    /// The gauges of storage.
    Stats(Caller),
    /// A backup.
    Backup(Caller),
}

impl Hub {
    // ---- a group -----------------------------------------------------------------------------------------------

    pub(super) fn show(&mut self, id: GroupId, caller: &Caller, newer_than: u64) {
        let may_see = |group: &&mut Group| caller.role == Role::Operator || group.durable.has(&caller.user);
        let Some(group) = self.loaded_group(id).filter(may_see) else {
            return self.answer_large(caller.connection, caller.request_id, &Reply::Error(not_found()));
        };
        let version = group.durable.version;
        let shown = if newer_than > 0 && version <= newer_than {
            GroupShown::Unchanged { group: id, version }
        } else {
            GroupShown::Record { head: group.durable_head, floor: group.floor, record: (*group.durable).clone() }
        };
        self.answer_large(caller.connection, caller.request_id, &Reply::GroupShown(shown));
    }

    // ---- the list of groups ------------------------------------------------------------------------------------

    pub(super) fn list(&mut self, caller: Caller, after: Option<GroupId>, count_max: u32) {
        let count_max = page(count_max, LIST_GROUPS_MAX);
        let user = caller.user.clone();
        let read = self.begin_read(PendingRead::List(caller));
        self.requests.push_back(StoreRequest::ListGroups { read, user, after, count_max });
    }

    pub(super) fn finish_list(&mut self, read: ReadId, groups: Vec<GroupSummary>, more: bool) {
        let Some(PendingRead::List(caller)) = self.reads.remove(&read) else { return };
        let with_marks = |summary: GroupSummary| {
            let (received, read) = self.marks.of(&caller.user, summary.group);
            // Storage may have answered before the newest entries, which are acknowledged by now: a line shows one
            // moment, so marks count up to the head that it had then.
            let (received, read) = (received.min(summary.head), read.min(summary.head));
            wire::GroupSummary {
                group: summary.group,
                title: summary.title,
                members: summary.members,
                version: summary.version,
                head: summary.head,
                received: summary.received.max(received),
                read: summary.read.max(read),
                last_at_ms: summary.last_at_ms,
            }
        };
        let groups = groups.into_iter().map(with_marks).collect();
        self.answer_large(caller.connection, caller.request_id, &Reply::GroupsListed { more, groups });
    }

    // ---- readers -----------------------------------------------------------------------------------------------

    pub(super) fn readers(&mut self, id: GroupId, caller: Caller, seq: u64) {
        let Some(group) = self.loaded_group(id).filter(|group| group.durable.has(&caller.user)) else {
            return self.answer_large(caller.connection, caller.request_id, &Reply::Error(not_found()));
        };
        group.reads += 1;
        let read = self.begin_read(PendingRead::Readers(caller, id, seq));
        self.requests.push_back(StoreRequest::ReadMarks { read, group: id });
    }

    pub(super) fn finish_readers(&mut self, read: ReadId, marks: Result<Vec<Mark>, Damaged>) {
        let Some(PendingRead::Readers(caller, id, seq)) = self.reads.remove(&read) else { return };
        let Some(group) = self.groups.get_mut(&id).and_then(|slot| slot.group.as_mut()) else {
            unreachable!("a group that is read stays loaded")
        };
        group.reads -= 1;
        let reply = match marks {
            // Who has left since may not be told any more, and who has come is not in there.
            _ if !group.durable.has(&caller.user) => Reply::Error(not_found()),
            Err(Damaged) => Reply::Error(damaged()),
            Ok(marks) => {
                let readers = marks.into_iter().map(|mark| {
                    let (received, read) = self.marks.of(&mark.user, id);
                    UserMarks { user: mark.user, received: received.max(mark.received), read: read.max(mark.read) }
                });
                Reply::ReadersListed { group: id, readers: readers.filter(|marks| marks.read >= seq).collect() }
            }
        };
        self.answer_large(caller.connection, caller.request_id, &reply);
    }

    // ---- former members ----------------------------------------------------------------------------------------

    /// Asks for a user's place in a group that it is no member of.
    pub(super) fn load_membership(&mut self, pending: PendingRead, user: UserId, group: GroupId) {
        let read = self.begin_read(pending);
        self.requests.push_back(StoreRequest::LoadMembership { read, user, group });
    }

    pub(super) fn finish_membership(&mut self, read: ReadId, membership: Option<Membership>) {
        match self.reads.remove(&read) {
            Some(PendingRead::FormerHistory(job)) => self.read_former_history(job, membership),
            Some(PendingRead::FormerMark(caller, group, received, read)) => {
                self.mark_former(&caller, group, membership.as_ref(), received, read);
            }
            _ => unreachable!("memberships are loaded for former members"),
        }
    }

    /// How far somebody who is no member any more may read, if at all: up to where it left, until it has acknowledged
    /// that.
    pub(super) fn former_until(&self, user: &UserId, membership: &Membership) -> Option<u64> {
        let until = membership.until?;
        let received = self.marks.of(user, membership.group).0.max(membership.received);
        (received < until).then_some(until)
    }
}

/// The size of a page: what is wanted, within a bound; 0 wants as much as there may be.
pub(super) fn page(wanted: u32, max: usize) -> usize {
    match usize::try_from(wanted) {
        Ok(0) | Err(_) => max,
        Ok(wanted) => wanted.min(max),
    }
}
