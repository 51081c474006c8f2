//! Requests that only read: a group, the list of groups, history.

use super::Hub;
use super::changes::not_found;
use super::connection::{Behind, ConnectionKey, Presence};
use super::group::Ring;
use super::task::{Caller, Task};
use super::work::damaged;
use crate::group::Entry;
use crate::ids::GroupId;
use crate::limits::{HISTORY_BYTES_MAX, HISTORY_ENTRIES_MAX, LIST_GROUPS_MAX};
use crate::store::{Damaged, GroupSummary, ReadId, Request as StoreRequest};
use crate::wire::{
    self, ErrorBody, ErrorCode, GroupHistory, GroupSeq, GroupShown, HistoryOutcome, HistoryRequest, LogEntry, Reply,
};

/// What waits for an answer of storage.
#[derive(Debug)]
pub(super) enum PendingRead {
    /// The memberships of a connection's user, for its catch-up.
    Attach(ConnectionKey),
    /// A page of the list of groups.
    List(Caller),
    /// Entries for the group that the job is at.
    History(Box<HistoryJob>),
    /// The gauges of storage.
    Stats(Caller),
    /// A backup.
    Backup(Caller),
}

/// A request for history on its way through its groups, one at a time.
#[derive(Debug)]
pub(super) struct HistoryJob {
    caller: Caller,
    /// The groups that are still to be done, the present one first.
    groups: std::collections::VecDeque<GroupSeq>,
    entries_left: usize,
    bytes_left: usize,
    done: Vec<GroupHistory>,
    /// Whether an entry was taken: the first one may be larger than the page.
    begun: bool,
    /// The parts of `done` that reached the head, each with the next seq: such a group stays loaded, and is live once
    /// the page is on its way.
    reached: Vec<(usize, u64)>,
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

    /// Takes what the ring has from `next` on, as far as the page has room; gives the seq behind it.
    fn take_ring(&mut self, ring: &Ring, mut next: u64, entries: &mut Vec<LogEntry>) -> u64 {
        for entry in ring.from(next).into_iter().flatten() {
            if !self.takes(entry) {
                break;
            }
            next = entry.seq + 1;
            entries.push(LogEntry::Shown((**entry).clone()));
        }
        next
    }
}

impl Hub {
    // ---- a group -----------------------------------------------------------------------------------------------

    pub(super) fn show(&mut self, id: GroupId, caller: &Caller, newer_than: u64) {
        let Some(group) = self.loaded_group(id).filter(|group| group.durable.has(&caller.user)) else {
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

    // ---- history -----------------------------------------------------------------------------------------------

    pub(super) fn history(&mut self, caller: Caller, request: HistoryRequest) {
        let job = HistoryJob {
            caller,
            groups: request.groups.into(),
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
        for (part, next) in std::mem::take(&mut job.reached) {
            let id = job.done[part].group;
            let Some(group) = self.groups.get_mut(&id).and_then(|slot| slot.group.as_mut()) else {
                unreachable!("a group that is read stays loaded")
            };
            group.reads -= 1;
            if !group.durable.has(&job.caller.user) {
                continue;
            }
            let mut late = Vec::new();
            let next = job.take_ring(&group.ring, next, &mut late);
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

    /// Reads the present group of a history request: from the ring if it is close to the head, else from the disk.
    pub(super) fn read_history(&mut self, id: GroupId, job: Box<HistoryJob>) {
        let Some(from) = job.groups.front().map(|at| at.seq) else { unreachable!("a job is at a group") };
        let Some(group) = self.groups.get_mut(&id).and_then(|slot| slot.group.as_mut()) else {
            unreachable!("history is read of a loaded group")
        };
        let Some(joined) = group.durable.member(&job.caller.user).map(|member| member.joined) else {
            return self.refuse_part(id, job, not_found());
        };
        let head = group.durable_head;
        let lowest = group.floor.max(joined);
        if from < lowest {
            let message = format!("the log begins at seq {lowest} for you");
            return self.refuse_part(id, job, ErrorBody::new(ErrorCode::Truncated, lowest, message));
        }
        if from > head + 1 {
            let message = format!("the log ends at seq {head}");
            return self.refuse_part(id, job, ErrorBody::new(ErrorCode::Range, head, message));
        }
        if from == head + 1 || job.is_full() || group.ring.from(from).is_some() {
            return self.finish_part(id, job, Vec::new());
        }
        group.reads += 1;
        let (entries_max, bytes_max) = (job.entries_left.max(1), job.bytes_left);
        let read = self.begin_read(PendingRead::History(job));
        let request = StoreRequest::ReadEntries { read, group: id, from, through: head, entries_max, bytes_max };
        self.requests.push_back(request);
    }

    pub(super) fn finish_entries(&mut self, read: ReadId, entries: Result<Vec<Entry>, Damaged>) {
        let Some(PendingRead::History(job)) = self.reads.remove(&read) else { return };
        let Some(at) = job.groups.front().copied() else { unreachable!("a job is at a group") };
        let Some(group) = self.loaded_group(at.group) else { unreachable!("a group that is read stays loaded") };
        group.reads -= 1;
        if !group.durable.has(&job.caller.user) {
            return self.refuse_part(at.group, job, not_found());
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
        let mut next = from;
        let mut entries = Vec::new();
        for entry in read {
            if entry.seq > group.durable_head || !job.takes(&entry) {
                break;
            }
            next = entry.seq + 1;
            entries.push(LogEntry::Shown(entry));
        }
        let next = job.take_ring(&group.ring, next, &mut entries);
        let (head, floor) = (group.durable_head, group.floor);
        if next > head {
            group.reads += 1;
            job.reached.push((job.done.len(), next));
        }
        job.done.push(GroupHistory { group: id, outcome: HistoryOutcome::Entries { head, floor, entries } });
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
    pub(super) fn make_live(&mut self, key: ConnectionKey, id: GroupId) {
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

fn page(wanted: u32, max: usize) -> usize {
    match usize::try_from(wanted) {
        Ok(0) | Err(_) => max,
        Ok(wanted) => wanted.min(max),
    }
}
