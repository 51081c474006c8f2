//! The groups that a client knows: how far each has been told, what is missing.
//!
//! It decides what to ask for and in which order entries are told; it encodes nothing. Whatever order pushes and pages
//! of history come in, and however many connections they come over, a group's entries leave here ascending, each once,
//! without a gap.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use super::error::SessionError;
use super::event::Event;
use super::tracked::{GroupView, Tracked};
use crate::group::Event as LogEvent;
use crate::ids::{GroupId, UserId};
use crate::limits::HISTORY_GROUPS_MAX;
use crate::wire::{ErrorBody, ErrorCode, GroupHistory, GroupPacket, GroupSeq, GroupShown, HistoryOutcome, LogEntry};

/// Groups and seqs that are asked for together, under a number of their own.
#[derive(Debug)]
pub(super) struct Batch {
    number: u64,
    pub(super) asked: Vec<GroupSeq>,
}

/// All groups of one client.
#[derive(Debug, Default)]
pub(super) struct Groups {
    /// Whose they are, once the server has said it.
    me: Option<UserId>,
    tracked: BTreeMap<GroupId, Tracked>,
    wanted_history: BTreeSet<GroupId>,
    wanted_record: BTreeSet<GroupId>,
    /// Groups of an earlier connection of which this one has told nothing yet. Only where a server goes by the user's
    /// marks: it does not know what this client has, so it cannot say that it is gone.
    unheard: BTreeSet<GroupId>,
    batches: u64,
    events: VecDeque<Event>,
    /// How far each group was told in events that were taken: what waits in `events` is not in it yet.
    told: BTreeMap<GroupId, u64>,
}

impl Groups {
    pub(super) fn set_user(&mut self, user: UserId) {
        self.me = Some(user);
    }

    pub(super) fn poll_event(&mut self) -> Option<Event> {
        let event = self.events.pop_front()?;
        match &event {
            Event::Group { packet, .. } => self.note(packet.group, packet.from.saturating_sub(1)),
            Event::Entry { group, entry } if ends_membership(entry, self.me.as_ref()) => _ = self.told.remove(group),
            Event::Entry { group, entry } => self.note(*group, entry.seq()),
            Event::Truncated { group, floor } => self.note(*group, floor.saturating_sub(1)),
            Event::Gone { group, .. } => _ = self.told.remove(group),
            _ => {}
        }
        Some(event)
    }

    fn note(&mut self, group: GroupId, seq: u64) {
        let told = self.told.entry(group).or_insert(seq);
        *told = seq.max(*told);
    }

    pub(super) fn tell(&mut self, event: Event) {
        self.events.push_back(event);
    }

    pub(super) fn views(&self) -> impl Iterator<Item = GroupView<'_>> {
        self.tracked.values().filter_map(Tracked::view)
    }

    pub(super) fn view(&self, group: GroupId) -> Option<GroupView<'_>> {
        self.tracked.get(&group).and_then(Tracked::view)
    }

    /// How far each group was told in the events that were taken.
    pub(super) fn positions(&self) -> Vec<GroupSeq> {
        self.told.iter().map(|(group, seq)| GroupSeq { group: *group, seq: *seq }).collect()
    }

    // ---- connections -------------------------------------------------------------------------------------------

    /// The device has these already, up to and including the seqs.
    pub(super) fn resume(&mut self, groups: &[GroupSeq]) {
        for at in groups {
            let next = at.seq.saturating_add(1);
            self.tracked.entry(at.group).or_insert_with(|| Tracked::starting_at(next));
            self.note(at.group, at.seq);
        }
    }

    /// The connection is gone, and with it every answer that was awaited.
    pub(super) fn handle_disconnected(&mut self) {
        self.wanted_history.clear();
        self.wanted_record.clear();
        self.unheard.clear();
        for (group, tracked) in &mut self.tracked {
            tracked.asked = None;
            if tracked.has_record() && tracked.needs_record() {
                self.wanted_record.insert(*group);
            }
        }
    }

    /// What is here already, told or waiting to be taken: what another connection goes on from.
    pub(super) fn held(&self) -> Vec<GroupSeq> {
        let held = self.tracked.iter();
        held.map(|(group, tracked)| GroupSeq {
            group: *group,
            seq: tracked.next.saturating_sub(u64::from(!planted!("client: claims an entry that it lacks"))),
        })
        .collect()
    }

    /// Every group is looked at once all that is lacking by the user's marks has been told. Not sooner: who leaves a
    /// group between a page of its history and the moment at which the server looks at the marks would be told of that
    /// by neither.
    pub(super) fn doubt_all(&mut self) {
        self.unheard = self.tracked.keys().copied().collect();
    }

    /// All that this device lacks has been told. Groups that it lacked nothing in have no packet to be shown from.
    pub(super) fn handle_ready(&mut self) {
        self.wanted_history.append(&mut self.unheard);
        let unknown = self.tracked.iter().filter(|(_, tracked)| !tracked.has_record() && tracked.needs_record());
        self.wanted_record.extend(unknown.map(|(group, _)| *group));
        self.tell(Event::Ready);
    }

    // ---- pushes ------------------------------------------------------------------------------------------------

    pub(super) fn handle_packet(&mut self, mut packet: GroupPacket, frame: Vec<u8>) {
        let group = packet.group;
        self.unheard.remove(&group);
        let tracked = self.tracked.entry(group).or_insert_with(|| Tracked::starting_at(packet.from));
        let known = tracked.has_record() && tracked.gone.is_none() && packet.from <= tracked.next;
        tracked.begin(&packet);
        if packet.from <= packet.head {
            // Even if nothing is missing here: the server pushes no entry until an answer reaches the head.
            self.wanted_history.insert(group);
        }
        if !known {
            // By marks a server may begin below what was told already, and entries are told once.
            packet.from = tracked.next;
            self.tell(Event::Group { packet, frame });
        }
        self.want_what_is_missing(group);
    }

    pub(super) fn handle_behind(&mut self, group: GroupId, from: u64, head: u64) {
        self.unheard.remove(&group);
        let tracked = self.tracked.entry(group).or_insert_with(|| Tracked::starting_at(from));
        tracked.head = tracked.head.max(head);
        let from = tracked.next;
        // Asked for even if nothing is missing here, as above.
        self.wanted_history.insert(group);
        self.want_what_is_missing(group);
        self.tell(Event::Behind { group, from, head });
    }

    pub(super) fn handle_gone(&mut self, group: GroupId, until: u64) {
        let Some(tracked) = self.tracked.get_mut(&group).filter(|_| until > 0) else {
            self.forget(group);
            return self.tell(Event::Gone { group, until });
        };
        // A member may read up to its leaving, and no further.
        tracked.head = until;
        tracked.gone = Some(until);
        self.wanted_record.remove(&group);
        self.want_what_is_missing(group);
        self.finish_if_gone(group);
    }

    /// An entry that was pushed. One that was told already is dropped; one behind a gap waits on the server until
    /// history has closed the gap.
    pub(super) fn handle_entry(&mut self, group: GroupId, entry: LogEntry) {
        let tracked = self.tracked.entry(group).or_insert_with(|| Tracked::starting_at(entry.seq()));
        tracked.head = tracked.head.max(entry.seq());
        if entry.seq() == tracked.next || entry.seq() > tracked.next && planted!("client: a gap is passed over") {
            self.deliver(group, entry);
        }
        self.want_what_is_missing(group);
    }

    // ---- what is missing ---------------------------------------------------------------------------------------

    /// The next request for history, if one is due: groups and the seqs from which they are wanted.
    pub(super) fn next_history(&mut self) -> Option<Batch> {
        let number = self.batches.wrapping_add(1);
        let mut asked = Vec::new();
        while asked.len() < HISTORY_GROUPS_MAX {
            let Some(group) = self.wanted_history.pop_first() else { break };
            if let Some(tracked) = self.tracked.get_mut(&group).filter(|tracked| tracked.asked.is_none()) {
                tracked.asked = Some(number);
                asked.push(GroupSeq { group, seq: tracked.next });
            }
        }
        if asked.is_empty() {
            return None;
        }
        self.batches = number;
        Some(Batch { number, asked })
    }

    /// The next record to ask for, if one is due, with the version that is known of it.
    pub(super) fn next_record(&mut self) -> Option<(GroupId, u64)> {
        loop {
            let group = self.wanted_record.pop_first()?;
            if let Some(tracked) = self.tracked.get(&group).filter(|tracked| tracked.needs_record()) {
                return Some((group, tracked.known_version()));
            }
        }
    }

    /// A page of history. A page that brings nothing of what was asked for is an error: asking again would never end.
    pub(super) fn handle_history(&mut self, batch: &Batch, groups: Vec<GroupHistory>) -> Result<(), SessionError> {
        let mut awaited = self.release(batch);
        for GroupHistory { group, outcome } in groups {
            let Some(from) = awaited.get(&group).copied() else { continue };
            match outcome {
                HistoryOutcome::Entries { head, floor, entries } => self.handle_page(group, head, floor, entries),
                HistoryOutcome::Refused(error) => self.handle_refusal(group, from, error),
            }
        }
        let mut progress = awaited.len() < batch.asked.len();
        awaited.retain(|group, from| {
            progress |= self.tracked.get(group).is_none_or(|tracked| tracked.next > *from || !tracked.is_behind())
                || self.wanted_history.contains(group);
            self.tracked.contains_key(group)
        });
        for group in awaited.into_keys() {
            self.want_what_is_missing(group);
            self.finish_if_gone(group);
        }
        if progress { Ok(()) } else { Err(SessionError::NoProgress) }
    }

    /// A whole request for history was refused.
    pub(super) fn handle_history_refused(&mut self, batch: &Batch, error: &ErrorBody) {
        for (group, from) in self.release(batch) {
            self.handle_refusal(group, from, error.clone());
            self.finish_if_gone(group);
        }
    }

    /// A request for history is to be made again later.
    pub(super) fn want_history_again(&mut self, batch: &Batch) {
        let awaited = self.release(batch);
        self.wanted_history.extend(awaited.keys());
    }

    /// The same for a record.
    pub(super) fn want_record_again(&mut self, group: GroupId) {
        self.wanted_record.insert(group);
    }

    pub(super) fn handle_record(&mut self, shown: GroupShown) {
        match shown {
            GroupShown::Record { head, record, .. } => {
                let group = record.group;
                let Some(tracked) = self.tracked.get_mut(&group) else { return };
                tracked.take_record(head, record);
                self.want_what_is_missing(group);
            }
            GroupShown::Unchanged { group, version } => {
                let Some(tracked) = self.tracked.get_mut(&group) else { return };
                tracked.confirm_record(version);
            }
        }
    }

    /// The groups that still wait for this answer, with the seqs from which it was asked for. They wait no more.
    fn release(&mut self, batch: &Batch) -> BTreeMap<GroupId, u64> {
        let mut awaited = BTreeMap::new();
        for at in &batch.asked {
            let waits = |tracked: &&mut Tracked| tracked.asked == Some(batch.number);
            if let Some(tracked) = self.tracked.get_mut(&at.group).filter(waits) {
                tracked.asked = None;
                awaited.insert(at.group, at.seq);
            }
        }
        awaited
    }

    fn handle_page(&mut self, group: GroupId, head: u64, floor: u64, entries: Vec<LogEntry>) {
        let Some(tracked) = self.tracked.get_mut(&group) else { return };
        if tracked.gone.is_none() {
            tracked.head = tracked.head.max(head);
        }
        if floor > tracked.next {
            self.truncate(group, floor);
        }
        for entry in entries {
            if self.tracked.get(&group).is_some_and(|tracked| entry.seq() == tracked.next) {
                self.deliver(group, entry);
            }
        }
    }

    /// What was wanted from a seq on is refused.
    fn handle_refusal(&mut self, group: GroupId, from: u64, error: ErrorBody) {
        let Some(tracked) = self.tracked.get_mut(&group) else { return };
        if tracked.next > from && error.code != ErrorCode::NotFound.number() {
            // Entries that were pushed meanwhile have gone past the place that is refused.
            self.wanted_history.insert(group);
            return;
        }
        if error.code == ErrorCode::Truncated.number() && error.detail > tracked.next {
            // Even if nothing is left to read: only an answer that reaches the head makes the group live again.
            self.wanted_history.insert(group);
            return self.truncate(group, error.detail);
        }
        if error.code == ErrorCode::NotFound.number() {
            // Its user left before the answer was made: what was not told by then cannot be read any more.
            let until = tracked.gone.unwrap_or(0);
            self.forget(group);
            return self.tell(Event::Gone { group, until });
        }
        // Not asked for again by itself, or a damaged place would be asked for without end.
        tracked.head = tracked.next.saturating_sub(1);
        if tracked.gone.is_none() {
            self.tell(Event::Unreadable { group, error });
        }
    }

    fn truncate(&mut self, group: GroupId, floor: u64) {
        let Some(tracked) = self.tracked.get_mut(&group) else { return };
        tracked.skip_to(floor);
        if tracked.needs_record() {
            self.wanted_record.insert(group);
        }
        self.tell(Event::Truncated { group, floor });
    }

    fn deliver(&mut self, group: GroupId, entry: LogEntry) {
        let Some(tracked) = self.tracked.get_mut(&group) else { return };
        tracked.follow(&entry);
        let ends = ends_membership(&entry, self.me.as_ref());
        let gone = tracked.gone;
        if tracked.needs_record() {
            self.wanted_record.insert(group);
        }
        self.tell(Event::Entry { group, entry });
        if ends {
            self.forget(group);
            // Where the server has said so, the application hears both: the entry, and that it is over.
            if let Some(until) = gone {
                self.tell(Event::Gone { group, until });
            }
        }
    }

    fn want_what_is_missing(&mut self, group: GroupId) {
        let Some(tracked) = self.tracked.get(&group) else { return };
        if tracked.is_behind() {
            self.wanted_history.insert(group);
        }
        if tracked.asked.is_some() {
            // Looked at again when the answer is here.
            self.wanted_history.remove(&group);
        }
    }

    fn finish_if_gone(&mut self, group: GroupId) {
        let Some(tracked) = self.tracked.get(&group) else { return };
        if let Some(until) = tracked.gone.filter(|_| tracked.asked.is_none() && !tracked.is_behind()) {
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

/// Whether the entry ends the user's own membership.
pub(super) fn ends_membership(entry: &LogEntry, me: Option<&UserId>) -> bool {
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
