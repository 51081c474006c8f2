//! The groups that a client knows: what a user interface shows of each, how far each has been read, what is missing.
//!
//! It decides what to ask for and in which order entries are told; it encodes nothing. Whatever order pushes and pages
//! of history come in, a group's entries leave here ascending, each once, without a gap.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;

use super::event::Event;
use super::session::SessionError;
use crate::group::{Event as LogEvent, Member, Record};
use crate::ids::{GroupId, UserId};
use crate::limits::HISTORY_GROUPS_MAX;
use crate::wire::{ErrorBody, ErrorCode, GroupHistory, GroupPacket, GroupSeq, GroupShown, HistoryOutcome, LogEntry};

/// One group as a user interface shows it: made from its group packet alone, kept current by the entries since.
#[derive(Clone, Copy, Debug)]
pub struct GroupView<'a> {
    record: &'a Record,
    head: u64,
    next: u64,
}

impl<'a> GroupView<'a> {
    /// The group.
    pub fn group(&self) -> GroupId {
        self.record.group
    }

    /// Its title; empty means: show the members.
    pub fn title(&self) -> &'a str {
        &self.record.title
    }

    /// Who may remove, rename, transfer and dissolve.
    pub fn owner(&self) -> &'a UserId {
        &self.record.owner
    }

    /// Who made it.
    pub fn creator(&self) -> &'a UserId {
        &self.record.creator
    }

    /// When it was made, in milliseconds since 1970.
    pub fn created_at_ms(&self) -> u64 {
        self.record.created_at_ms
    }

    /// The seq of the last entry that changed what is shown here.
    pub fn version(&self) -> u64 {
        self.record.version
    }

    /// All members, in the order of joining.
    pub fn members(&self) -> impl ExactSizeIterator<Item = &'a UserId> + use<'a> {
        self.record.members.iter().map(|member| &member.user)
    }

    /// The highest seq that the group is known to have.
    pub fn head(&self) -> u64 {
        self.head
    }

    /// The next seq that is expected; entries below it have been told.
    pub fn next(&self) -> u64 {
        self.next
    }
}

/// How far one group has been told.
///
/// Invariant: every entry below `next` that the user may see has been told, or a `Truncated` was told instead.
#[derive(Debug)]
struct Tracked {
    next: u64,
    head: u64,
    /// What is shown. Missing for a group that is known by its entries alone until its record has been fetched.
    record: Option<Record>,
    /// A request for its history is under way.
    asked: bool,
    /// The user is no longer in it; it is forgotten once it has been told up to here.
    gone: Option<u64>,
}

impl Tracked {
    fn starting_at(next: u64) -> Self {
        Self { next, head: next.saturating_sub(1), record: None, asked: false, gone: None }
    }

    fn is_behind(&self) -> bool {
        self.next <= self.head
    }
}

/// All groups of one session.
#[derive(Debug, Default)]
pub(super) struct Groups {
    /// Whose they are, once the server has said it.
    me: Option<UserId>,
    tracked: BTreeMap<GroupId, Tracked>,
    wanted_history: BTreeSet<GroupId>,
    wanted_record: BTreeSet<GroupId>,
    events: VecDeque<Event>,
}

impl Groups {
    pub(super) fn set_user(&mut self, user: UserId) {
        self.me = Some(user);
    }

    pub(super) fn poll_event(&mut self) -> Option<Event> {
        self.events.pop_front()
    }

    pub(super) fn tell(&mut self, event: Event) {
        self.events.push_back(event);
    }

    pub(super) fn views(&self) -> impl Iterator<Item = GroupView<'_>> {
        self.tracked.values().filter_map(view_of)
    }

    pub(super) fn view(&self, group: GroupId) -> Option<GroupView<'_>> {
        self.tracked.get(&group).and_then(view_of)
    }

    /// The device has these already, up to and including the seqs.
    pub(super) fn resume(&mut self, groups: &[GroupSeq]) {
        for at in groups {
            let next = at.seq.saturating_add(1);
            self.tracked.entry(at.group).or_insert_with(|| Tracked::starting_at(next));
        }
    }

    pub(super) fn handle_packet(&mut self, packet: GroupPacket, frame: Vec<u8>) {
        let tracked = self.tracked.entry(packet.group).or_insert_with(|| Tracked::starting_at(packet.from));
        tracked.next = tracked.next.max(packet.from);
        tracked.head = tracked.head.max(packet.head);
        tracked.gone = None;
        if tracked.record.as_ref().is_none_or(|record| record.version < packet.version) {
            tracked.record = Some(record_of(&packet));
        }
        self.want_what_is_missing(packet.group);
        self.tell(Event::Group { packet, frame });
    }

    pub(super) fn handle_behind(&mut self, group: GroupId, from: u64, head: u64) {
        let tracked = self.tracked.entry(group).or_insert_with(|| Tracked::starting_at(from));
        tracked.head = tracked.head.max(head);
        let from = tracked.next;
        // Asked for even if nothing is missing here: the server pushes no entry until an answer reaches the head.
        self.wanted_history.insert(group);
        self.want_what_is_missing(group);
        self.tell(Event::Behind { group, from, head });
    }

    pub(super) fn handle_gone(&mut self, group: GroupId, until: u64) {
        if let Some(tracked) = self.tracked.get_mut(&group) {
            // A member may read up to its leaving, and no further.
            tracked.head = until;
            tracked.gone = Some(until);
            self.want_what_is_missing(group);
            self.finish_if_gone(group);
        } else {
            self.tell(Event::Gone { group, until });
        }
    }

    /// An entry that was pushed. One that was told already is dropped; one behind a gap waits on the server until
    /// history has closed the gap.
    pub(super) fn handle_entry(&mut self, group: GroupId, entry: LogEntry) {
        let tracked = self.tracked.entry(group).or_insert_with(|| Tracked::starting_at(entry.seq()));
        tracked.head = tracked.head.max(entry.seq());
        if entry.seq() == tracked.next {
            self.deliver(group, entry);
        }
        self.want_what_is_missing(group);
    }

    /// The next request for history, if one is due: groups and the seqs from which they are wanted.
    pub(super) fn next_history(&mut self) -> Option<Vec<GroupSeq>> {
        let mut asked = Vec::new();
        while asked.len() < HISTORY_GROUPS_MAX {
            let Some(group) = self.wanted_history.pop_first() else { break };
            if let Some(tracked) = self.tracked.get_mut(&group).filter(|tracked| !tracked.asked) {
                tracked.asked = true;
                asked.push(GroupSeq { group, seq: tracked.next });
            }
        }
        (!asked.is_empty()).then_some(asked)
    }

    /// The next record to ask for, if one is due, with the version that is known of it.
    pub(super) fn next_record(&mut self) -> Option<(GroupId, u64)> {
        let group = self.wanted_record.pop_first()?;
        let known = self.tracked.get(&group).and_then(|tracked| tracked.record.as_ref());
        Some((group, known.map_or(0, |record| record.version)))
    }

    /// A page of history. A page that brings nothing of what was asked for is an error: asking again would never end.
    pub(super) fn handle_history(&mut self, asked: &[GroupSeq], groups: Vec<GroupHistory>) -> Result<(), SessionError> {
        self.release(asked);
        for (GroupHistory { group, outcome }, seq) in groups.into_iter().zip(asked.iter().map(|at| at.seq)) {
            match outcome {
                HistoryOutcome::Entries { head, floor, entries } => self.handle_page(group, head, floor, entries),
                HistoryOutcome::Refused(error) => self.handle_refusal(group, seq, error),
            }
        }
        let mut progress = false;
        for at in asked {
            let Some(tracked) = self.tracked.get(&at.group) else {
                progress = true;
                continue;
            };
            progress |= tracked.next > at.seq || !tracked.is_behind() || self.wanted_history.contains(&at.group);
            self.want_what_is_missing(at.group);
            self.finish_if_gone(at.group);
        }
        if progress { Ok(()) } else { Err(SessionError::NoProgress) }
    }

    /// A whole request for history was refused.
    pub(super) fn handle_history_refused(&mut self, asked: &[GroupSeq], error: &ErrorBody) {
        self.release(asked);
        for at in asked {
            self.handle_refusal(at.group, at.seq, error.clone());
            self.finish_if_gone(at.group);
        }
    }

    pub(super) fn handle_record(&mut self, shown: GroupShown) {
        let GroupShown::Record { head, record, .. } = shown else { return };
        let Some(tracked) = self.tracked.get_mut(&record.group) else { return };
        if tracked.record.as_ref().is_none_or(|known| known.version < record.version) {
            tracked.head = tracked.head.max(head);
            let group = record.group;
            tracked.record = Some(record);
            self.want_what_is_missing(group);
        }
    }

    fn release(&mut self, asked: &[GroupSeq]) {
        for at in asked {
            if let Some(tracked) = self.tracked.get_mut(&at.group) {
                tracked.asked = false;
            }
        }
    }

    fn handle_page(&mut self, group: GroupId, head: u64, floor: u64, entries: Vec<LogEntry>) {
        let Some(tracked) = self.tracked.get_mut(&group) else { return };
        if tracked.gone.is_none() {
            tracked.head = tracked.head.max(head);
        }
        if floor > tracked.next {
            tracked.next = floor;
            self.tell(Event::Truncated { group, floor });
        }
        for entry in entries {
            if self.tracked.get(&group).is_some_and(|tracked| entry.seq() == tracked.next) {
                self.deliver(group, entry);
            }
        }
    }

    /// What was wanted from a seq on is refused.
    fn handle_refusal(&mut self, group: GroupId, asked: u64, error: ErrorBody) {
        let Some(tracked) = self.tracked.get_mut(&group) else { return };
        if tracked.next > asked {
            // Asked before the user was added again; the packet that said so has overtaken this answer.
            return;
        }
        if error.code == ErrorCode::Truncated.number() && error.detail > tracked.next {
            tracked.next = error.detail;
            // Even if nothing is left to read: only an answer that reaches the head makes the group live again.
            self.wanted_history.insert(group);
            self.tell(Event::Truncated { group, floor: error.detail });
            return;
        }
        if error.code == ErrorCode::NotFound.number() {
            // Its user left before the answer was made: what was not told by then cannot be read any more.
            let until = tracked.gone.unwrap_or(0);
            self.forget(group);
            self.tell(Event::Gone { group, until });
            return;
        }
        // Not asked for again by itself, or a damaged place would be asked for without end.
        tracked.head = tracked.next.saturating_sub(1);
        if tracked.gone.is_none() {
            self.tell(Event::Unreadable { group, error });
        }
    }

    fn deliver(&mut self, group: GroupId, entry: LogEntry) {
        let Some(tracked) = self.tracked.get_mut(&group) else { return };
        tracked.next = entry.seq().saturating_add(1);
        tracked.head = tracked.head.max(entry.seq());
        if let (LogEntry::Shown(shown), Some(record)) = (&entry, &mut tracked.record) {
            record.apply(shown);
        }
        let ends = ends_membership(&entry, self.me.as_ref());
        let outdated = tracked.record.as_ref().is_none_or(|record| record.version < entry.version());
        if ends {
            tracked.record = None;
        } else if outdated {
            // A change of the record was never seen (it lies below the floor), or there is no record yet.
            self.wanted_record.insert(group);
        }
        self.tell(Event::Entry { group, entry });
        if ends {
            self.forget(group);
        }
    }

    fn want_what_is_missing(&mut self, group: GroupId) {
        let Some(tracked) = self.tracked.get(&group) else { return };
        if tracked.is_behind() {
            self.wanted_history.insert(group);
        }
        if tracked.asked {
            // Looked at again when the answer is here.
            self.wanted_history.remove(&group);
        }
    }

    fn finish_if_gone(&mut self, group: GroupId) {
        let Some(tracked) = self.tracked.get(&group) else { return };
        if let Some(until) = tracked.gone.filter(|_| !tracked.asked && !tracked.is_behind()) {
            self.forget(group);
            self.tell(Event::Gone { group, until });
        }
    }

    fn forget(&mut self, group: GroupId) {
        self.tracked.remove(&group);
        self.wanted_history.remove(&group);
        self.wanted_record.remove(&group);
    }
}

fn view_of(tracked: &Tracked) -> Option<GroupView<'_>> {
    let record = tracked.record.as_ref().filter(|_| tracked.gone.is_none())?;
    Some(GroupView { record, head: tracked.head, next: tracked.next })
}

fn record_of(packet: &GroupPacket) -> Record {
    Record {
        group: packet.group,
        title: Arc::from(packet.title.as_str()),
        owner: packet.owner.clone(),
        creator: packet.creator.clone(),
        created_at_ms: packet.created_at_ms,
        // A packet names the members in the order of joining, not the seqs at which they joined.
        members: packet.members.iter().map(|user| Member { user: user.clone(), joined: 0 }).collect(),
        version: packet.version,
        dissolved: false,
    }
}

fn ends_membership(entry: &LogEntry, me: Option<&UserId>) -> bool {
    let LogEntry::Shown(entry) = entry else { return false };
    match &entry.event {
        LogEvent::Dissolved => true,
        LogEvent::Left { .. } => Some(&entry.sender) == me,
        LogEvent::Removed { members } => me.is_some_and(|me| members.contains(me)),
        LogEvent::Created { .. }
        | LogEvent::Added { .. }
        | LogEvent::Renamed { .. }
        | LogEvent::Transferred { .. }
        | LogEvent::Message { .. }
        | LogEvent::Whisper { .. } => false,
    }
}
