//! History: pages of up to 64 groups, read one after the other, from the ring close to the head, else from the disk.
//!
//! A member reads from its joining up to the head, and a page that reaches the head makes the group live. A former
//! member reads up to where its membership ended, as long as that is kept.

use std::collections::VecDeque;

use super::Hub;
use super::changes::not_found;
use super::connection::{Behind, ConnectionKey, Presence};
use super::group::Ring;
use super::reads::{PendingRead, page};
use super::task::{Caller, Task};
use super::work::damaged;
use crate::group::Entry;
use crate::ids::GroupId;
use crate::limits::{HISTORY_BYTES_MAX, HISTORY_ENTRIES_MAX};
use crate::store::{Damaged, Membership, ReadId, Request as StoreRequest};
use crate::wire::{ErrorBody, ErrorCode, GroupHistory, GroupSeq, HistoryOutcome, HistoryRequest, LogEntry, Reply};

/// A request for history on its way through its groups, one at a time.
#[derive(Debug)]
pub(super) struct HistoryJob {
    caller: Caller,
    /// The groups that are still to be done, the present one first.
    groups: VecDeque<GroupSeq>,
    /// What of the present group may be read, while its entries are on their way.
    reach: Reach,
    entries_left: usize,
    bytes_left: usize,
    done: Vec<GroupHistory>,
    /// Whether an entry was taken: the first one may be larger than the page.
    begun: bool,
    /// The parts of `done` that reached the head: such a group stays loaded, and is live once the page is on its way.
    reached: Vec<Reached>,
}

/// How far a user may read in a group.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Reach {
    /// A member since this seq: up to the head.
    Member { joined: u64 },
    /// A former member: up to where it left.
    Former { joined: u64, until: u64 },
}

/// A part of a page that reached the head.
#[derive(Debug)]
struct Reached {
    part: usize,
    /// The seq behind the last entry that was taken.
    next: u64,
    /// Since when the user was a member then.
    joined: u64,
}

impl HistoryJob {
    /// Whether no entry has room any more.
    fn is_full(&self) -> bool {
        self.begun && (self.entries_left == 0 || self.bytes_left == 0)
    }

    /// Whether the page has room for an entry, which it then has less of.
    fn takes(&mut self, entry: &Entry) -> bool {
        let bytes = entry.memory_bytes();
        if self.begun && (self.entries_left == 0 || self.bytes_left < bytes) {
            return false;
        }
        self.begun = true;
        self.entries_left = self.entries_left.saturating_sub(1);
        self.bytes_left = self.bytes_left.saturating_sub(bytes);
        true
    }

    /// Takes what the ring has from `next` through `last`, as far as the page has room; gives the seq behind it.
    fn take_ring(&mut self, ring: &Ring, mut next: u64, last: u64, entries: &mut Vec<LogEntry>) -> u64 {
        for entry in ring.from(next).into_iter().flatten() {
            if entry.seq > last || !self.takes(entry) {
                break;
            }
            next = entry.seq + 1;
            let shown = if planted!("hub: history shows whispers to everybody") {
                LogEntry::Shown((**entry).clone())
            } else {
                LogEntry::shown_to(&self.caller.user, entry)
            };
            entries.push(shown);
        }
        next
    }
}

impl Hub {
    pub(super) fn history(&mut self, caller: Caller, request: HistoryRequest) {
        let job = HistoryJob {
            caller,
            groups: request.groups.into(),
            reach: Reach::Member { joined: 0 },
            entries_left: page(request.entries_max, HISTORY_ENTRIES_MAX),
            bytes_left: page(request.bytes_max, HISTORY_BYTES_MAX),
            done: Vec::new(),
            begun: false,
            reached: Vec::new(),
        };
        self.continue_history(Box::new(job));
    }

    /// Goes on with the next group of a history request, or answers it.
    fn continue_history(&mut self, job: Box<HistoryJob>) {
        if let Some(at) = job.groups.front() {
            return self.enqueue(at.group, Task::History(job));
        }
        self.answer_history(*job);
    }

    /// Answers a history request. A group of which the page reaches the head is live from here on: the next entry is
    /// pushed behind this page. What came while other groups were read is still put into it.
    fn answer_history(&mut self, mut job: HistoryJob) {
        let mut live = Vec::new();
        for Reached { part, next, joined } in std::mem::take(&mut job.reached) {
            let id = job.done[part].group;
            let Some(group) = self.groups.get_mut(&id).and_then(|slot| slot.group.as_mut()) else {
                unreachable!("a group that is read stays loaded")
            };
            group.reads -= 1;
            // Who has left since, or left and came back, reads no further here.
            if group.durable.member(&job.caller.user).is_none_or(|member| member.joined != joined) {
                continue;
            }
            let mut late = Vec::new();
            let next = job.take_ring(&group.ring, next, group.durable_head, &mut late);
            if let HistoryOutcome::Entries { head, entries, .. } = &mut job.done[part].outcome {
                entries.extend(late);
                *head = group.durable_head;
            }
            if next > group.durable_head {
                live.push(id);
            }
        }
        let HistoryJob { caller, done, .. } = job;
        self.answer_large(caller.connection, caller.request_id, &Reply::HistoryPage { groups: done });
        for id in live {
            self.make_live(caller.connection, id);
        }
    }

    /// Reads the present group of a history request.
    pub(super) fn read_history(&mut self, id: GroupId, mut job: Box<HistoryJob>) {
        let Some(group) = self.loaded_group(id) else { unreachable!("history is read of a loaded group") };
        if let Some(member) = group.durable.member(&job.caller.user) {
            job.reach = Reach::Member { joined: member.joined };
            return self.read_within(id, job);
        }
        group.reads += 1;
        let user = job.caller.user.clone();
        self.load_membership(PendingRead::FormerHistory(job), user, id);
    }

    /// Goes on for somebody who was no member when it asked.
    pub(super) fn read_former_history(&mut self, mut job: Box<HistoryJob>, membership: Option<Membership>) {
        let Some(id) = job.groups.front().map(|at| at.group) else { unreachable!("a job is at a group") };
        let Some(group) = self.loaded_group(id) else { unreachable!("a group that is read stays loaded") };
        group.reads -= 1;
        if group.durable.has(&job.caller.user) {
            // Added again while its former membership was looked up.
            return self.read_history(id, job);
        }
        let until = membership.as_ref().and_then(|membership| self.former_until(&job.caller.user, membership));
        let (Some(membership), Some(until)) = (membership, until) else {
            return self.refuse_part(id, job, not_found());
        };
        job.reach = Reach::Former { joined: membership.joined, until };
        self.read_within(id, job);
    }

    /// Reads what the job's user may: from the ring if it is close to the head, else from the disk.
    fn read_within(&mut self, id: GroupId, job: Box<HistoryJob>) {
        let Some(from) = job.groups.front().map(|at| at.seq) else { unreachable!("a job is at a group") };
        let Some(group) = self.groups.get_mut(&id).and_then(|slot| slot.group.as_mut()) else {
            unreachable!("history is read of a loaded group")
        };
        let (joined, last) = match job.reach {
            Reach::Member { joined } => (joined, group.durable_head),
            Reach::Former { joined, until } => (joined, until),
        };
        let lowest = group.floor.max(joined);
        if from < lowest && !planted!("hub: history is shown from before the joining") {
            let message = format!("the log begins at seq {lowest} for you");
            return self.refuse_part(id, job, ErrorBody::new(ErrorCode::Truncated, lowest, message));
        }
        if from > last + 1 {
            let message = format!("the log ends at seq {last} for you");
            return self.refuse_part(id, job, ErrorBody::new(ErrorCode::Range, last, message));
        }
        if from == last + 1 || job.is_full() || group.ring.from(from).is_some() {
            return self.finish_part(id, job, Vec::new());
        }
        group.reads += 1;
        let (entries_max, bytes_max) = (job.entries_left.max(1), job.bytes_left);
        let read = self.begin_read(PendingRead::History(job));
        let request = StoreRequest::ReadEntries { read, group: id, from, through: last, entries_max, bytes_max };
        self.requests.push_back(request);
    }

    pub(super) fn finish_entries(&mut self, read: ReadId, entries: Result<Vec<Entry>, Damaged>) {
        let Some(PendingRead::History(job)) = self.reads.remove(&read) else { return };
        let Some(at) = job.groups.front().copied() else { unreachable!("a job is at a group") };
        let Some(group) = self.loaded_group(at.group) else { unreachable!("a group that is read stays loaded") };
        group.reads -= 1;
        let joined = group.durable.member(&job.caller.user).map(|member| member.joined);
        // Who has joined or left while the disk was read may read something else now, and a floor may have passed.
        if matches!(job.reach, Reach::Member { joined: then } if Some(then) != joined) || at.seq < group.floor {
            return self.read_history(at.group, job);
        }
        match entries {
            Ok(entries) if entries.first().is_some_and(|first| first.seq == at.seq) => {
                self.finish_part(at.group, job, entries);
            }
            // The log says that it has the seq, so an answer without it is damage as well.
            Ok(_) | Err(Damaged) => self.refuse_part(at.group, job, damaged()),
        }
    }

    /// Puts the entries that were read, and those of the ring behind them, into the page.
    fn finish_part(&mut self, id: GroupId, mut job: Box<HistoryJob>, read: Vec<Entry>) {
        let Some(GroupSeq { seq: from, .. }) = job.groups.pop_front() else { unreachable!("a job is at a group") };
        let Some(group) = self.groups.get_mut(&id).and_then(|slot| slot.group.as_mut()) else {
            unreachable!("history is read of a loaded group")
        };
        let last = match job.reach {
            Reach::Member { .. } => group.durable_head,
            Reach::Former { until, .. } => until,
        };
        let mut next = from;
        let mut entries = Vec::new();
        for entry in read {
            if entry.seq > last || !job.takes(&entry) {
                break;
            }
            next = entry.seq + 1;
            entries.push(LogEntry::shown_to(&job.caller.user, &entry));
        }
        let next = job.take_ring(&group.ring, next, last, &mut entries);
        let floor = group.floor;
        if let Reach::Member { joined } = job.reach
            && next > last
        {
            group.reads += 1;
            job.reached.push(Reached { part: job.done.len(), next, joined });
        }
        job.done.push(GroupHistory { group: id, outcome: HistoryOutcome::Entries { head: last, floor, entries } });
        self.continue_history(job);
    }

    pub(super) fn refuse_part(&mut self, id: GroupId, mut job: Box<HistoryJob>, error: ErrorBody) {
        job.groups.pop_front();
        job.done.push(GroupHistory { group: id, outcome: HistoryOutcome::Refused(error) });
        self.continue_history(job);
    }

    /// The connection has everything of the group up to the head: from here on entries are pushed as they come. Not if
    /// the group packet is still owed to it, which comes before any entry; nor if it has not been told yet that it is
    /// behind: it cannot know that this page, asked for before and from anywhere, closes a gap.
    fn make_live(&mut self, key: ConnectionKey, id: GroupId) {
        let Some(session) = self.connections.find_mut(key).and_then(|connection| connection.session_mut()) else {
            return;
        };
        if !matches!(session.presence, Presence::Attached) {
            return;
        }
        if session.behind.get(&id) == Some(&Behind::Told) {
            session.behind.remove(&id);
            self.add_live(id, key);
        }
    }
}
