//! The rule of release: what waits for the disk, and what happens when the disk has it.

use std::collections::{BTreeSet, VecDeque};
use std::sync::Arc;

use super::Hub;
use super::burst::Audience;
use super::connection::{Behind, ConnectionKey, Connections, Presence};
use super::dirty::{Company, Lengths};
use super::task::{Caller, OperationKey, Task};
use crate::group::{Entry, Event, Record};
use crate::ids::{GroupId, UserId};
use crate::limits::{OUTPUT_BYTES_SOFT, RELEASED_BYTES_PER_ROUND, RELEASED_PUSHES_PER_ROUND};
use crate::store::{Operation, Ticket};
use crate::wire::{Changed, Created, GroupPacket, Kind, LogEntry, Push, Reply};

/// What happens once a ticket is durable.
#[derive(Debug)]
pub(super) enum Release {
    /// An effect becomes visible: its reply, and its pushes.
    Effect(Box<Released>),
    /// Marks are on disk.
    Marks,
    /// An answer, mostly a refusal, that was computed from what was not durable yet.
    Answer { caller: Caller, reply: Reply },
    /// A read that came when changes of its group were on their way.
    Read { group: GroupId, task: Task },
    /// A retry of an operation that was on its way.
    Join { caller: Caller, key: OperationKey, kind: Kind },
}

/// An effect that waits to become visible.
#[derive(Debug)]
pub(super) struct Released {
    pub(super) caller: Caller,
    pub(super) kind: Kind,
    pub(super) group: GroupId,
    /// The record after the entry.
    pub(super) record: Arc<Record>,
    pub(super) entry: Arc<Entry>,
    pub(super) operation: Operation,
}

/// What waits, by ticket.
///
/// Invariant: element `i` of `waiting` belongs to ticket `released + 1 + i`; `bytes` is the sum of theirs; the first
/// of them, as many as there are `lsns`, are durable, and wait only for the connections to be written first.
#[derive(Debug, Default)]
pub(super) struct Releases {
    released: u64,
    waiting: VecDeque<(u64, Vec<Release>)>,
    lsns: VecDeque<u64>,
    pub(super) bytes: u64,
    slice: Slice,
}

/// What may still become visible until every connection with output has been written.
#[derive(Debug)]
struct Slice {
    bytes: usize,
    pushes: usize,
    /// Connections that are still to be written, once the first was.
    unwritten: Option<Lengths>,
}

impl Default for Slice {
    fn default() -> Self {
        Self { bytes: RELEASED_BYTES_PER_ROUND, pushes: RELEASED_PUSHES_PER_ROUND, unwritten: None }
    }
}

impl Releases {
    /// Takes the next ticket, with what happens first when it is durable.
    pub(super) fn begin(&mut self, bytes: u64, first: Release) -> Ticket {
        self.waiting.push_back((bytes, vec![first]));
        self.bytes += bytes;
        Ticket(self.released + self.waiting.len() as u64)
    }

    /// Adds what happens behind everything that already waits for a ticket that is not durable yet.
    pub(super) fn hold(&mut self, ticket: Ticket, release: Release) {
        let index = ticket.0.checked_sub(self.released + 1).and_then(|index| usize::try_from(index).ok());
        let (_, releases) = index.and_then(|index| self.waiting.get_mut(index)).expect("held only on pending tickets");
        releases.push(release);
    }

    /// Notes that everything up to a ticket is durable, with the LSNs of what is new in that.
    fn note_durable(&mut self, ticket: Ticket, lsns: &[u64]) {
        self.lsns.extend(lsns);
        assert_eq!(self.released + self.lsns.len() as u64, ticket.0, "each ticket has its LSN");
        assert!(self.lsns.len() <= self.waiting.len(), "only what was committed becomes durable");
    }

    /// Takes the next that is durable, if the slice is not used up.
    fn pop(&mut self) -> Option<(u64, Vec<Release>)> {
        if self.slice.bytes == 0 || self.slice.pushes == 0 {
            return None;
        }
        let lsn = self.lsns.pop_front()?;
        let (bytes, releases) = self.waiting.pop_front().expect("what is durable waits");
        self.released += 1;
        self.bytes -= bytes;
        Some((lsn, releases))
    }

    pub(super) fn spend(&mut self, frame_bytes: usize, recipients: usize) {
        self.slice.bytes = self.slice.bytes.saturating_sub(frame_bytes);
        self.slice.pushes = self.slice.pushes.saturating_sub(recipients);
    }

    /// One of the connections with output is about to be written; so many there are with it. Those that had output
    /// when the slice was begun come first in their company: behind the last of them the next slice may begin.
    pub(super) fn note_write(&mut self, dirty: Lengths, company: Company) {
        let unwritten = self.slice.unwritten.get_or_insert(dirty);
        unwritten.count(company);
        if unwritten.is_zero() {
            self.slice = Slice::default();
        }
    }

    /// Whether something is durable and not visible yet.
    pub(super) fn has_durable(&self) -> bool {
        !self.lsns.is_empty()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.waiting.is_empty()
    }

    pub(super) fn len(&self) -> usize {
        self.waiting.len()
    }

    #[cfg(any(test, feature = "fuzzing", feature = "sim"))]
    pub(super) fn all(&self) -> impl Iterator<Item = &Release> {
        self.waiting.iter().flat_map(|(_, releases)| releases)
    }
}

impl Hub {
    /// Everything up to this ticket is durable and may become visible.
    pub(super) fn release(&mut self, ticket: Ticket, lsns: &[u64]) {
        self.releases.note_durable(ticket, lsns);
        self.release_slice();
    }

    /// Lets what is durable become visible, in the order of tickets: a slice of it; when the connections were written,
    /// [`Hub::handle_time`] goes on. A batch of the journal may hold more than a buffer should, and those who read
    /// fast would wait for all of it, and then fall behind together with those who do not.
    pub(super) fn release_slice(&mut self) {
        if self.dirty.is_empty() {
            self.releases.slice = Slice::default();
        }
        while let Some((lsn, releases)) = self.releases.pop() {
            for release in releases {
                match release {
                    Release::Effect(released) => {
                        let before = self.release_effect(&released);
                        self.tell_feeds(lsn, &released, before);
                    }
                    Release::Marks => self.marks.landed(self.read_count),
                    Release::Answer { caller, reply } => self.answer(caller.connection, caller.request_id, &reply),
                    Release::Read { group, task } => self.run_read(group, task),
                    Release::Join { caller, key, kind } => self.answer_known(&caller, key, kind),
                }
            }
        }
    }

    /// Gives the record as it was before.
    fn release_effect(&mut self, released: &Released) -> Arc<Record> {
        let Some(group) = self.groups.get_mut(&released.group).and_then(|slot| slot.group.as_mut()) else {
            unreachable!("a group with pending commits stays loaded")
        };
        let before = std::mem::replace(&mut group.durable, released.record.clone());
        group.durable_head = released.entry.seq;
        group.pending -= 1;
        group.ring.push(released.entry.clone());
        group.changed_at = self.read_count;
        group.packet = None;
        let bytes = group.memory_bytes();
        self.cache.recount(&mut group.counted_bytes, bytes);
        self.finish_operation(&released.caller.principal, released.operation);
        match &released.entry.event {
            Event::Created { members, .. } => self.release_created(released, members),
            Event::Added { .. }
            | Event::Removed { .. }
            | Event::Left { .. }
            | Event::Renamed { .. }
            | Event::Transferred { .. }
            | Event::Dissolved
            | Event::Message { .. }
            | Event::Whisper { .. } => self.release_entry(released, &before),
        }
        before
    }

    /// The reply to the creator, and the one packet to every connection of every member.
    fn release_created(&mut self, released: &Released, members: &[UserId]) {
        let (takers, pushed) = self.packet_takers(released, members);
        let operation = released.operation;
        let created = Created {
            group: operation.group,
            seq: operation.seq,
            version: operation.version,
            members: operation.members,
            pushed,
            queued: operation.members - 1 - pushed,
            repeated: false,
        };
        self.answer(released.caller.connection, released.caller.request_id, &Reply::Created(created));
        self.push_packet(released, takers);
    }

    /// The reply to the sender, the entry to everybody who is live, and the group packet to those whom it added.
    fn release_entry(&mut self, released: &Released, before: &Record) {
        let Operation { group: id, seq, version, .. } = released.operation;
        let changed = Changed { group: id, seq, version, repeated: false };
        let done = released.kind.done().expect("changes of groups are answered by Changed");
        self.answer(released.caller.connection, released.caller.request_id, &Reply::Changed(done, changed));
        if matches!(released.entry.event, Event::Message { .. }) {
            return self.push_message(id, &released.entry);
        }
        let takers = self.entry_takers(id, seq);
        self.push_entry(id, &released.entry, &takers);
        let ended = ended_by(&released.entry, before);
        let stays = if planted!("hub: who was removed stays live") { takers } else { self.without(takers, &ended) };
        if let Some(group) = self.loaded_group(id) {
            group.live = stays;
        }
        for user in ended {
            self.end_behind(id, user, seq);
        }
        if let Event::Added { members } = &released.entry.event {
            let (takers, _) = self.packet_takers(released, members);
            self.push_packet(released, takers);
        }
    }

    /// A message to everybody who is live. Of those that become visible together, the first finds them.
    fn push_message(&mut self, group: GroupId, entry: &Entry) {
        let mut frame = Vec::new();
        crate::wire::encode_entry_push(&mut frame, group, entry);
        let audience = Audience { group, except: None };
        let takers = self.fan_out_again(&audience, &frame).unwrap_or_else(|| {
            let takers = self.entry_takers(group, entry.seq);
            self.fan_out(&takers, frame, Some(audience));
            let count = takers.len();
            if let Some(group) = self.loaded_group(group) {
                group.live = takers;
            }
            count
        });
        self.counters.entries_pushed += takers as u64;
    }

    /// Takes those out who are live in a group: they take an entry now.
    fn entry_takers(&mut self, group: GroupId, seq: u64) -> Vec<ConnectionKey> {
        let live = self.loaded_group(group).map(|group| std::mem::take(&mut group.live)).unwrap_or_default();
        self.count_burst(&live);
        self.keep_live(live, group, seq)
    }

    /// The entry to each of these connections: a whisper's content to its sender and addressees alone.
    fn push_entry(&mut self, group: GroupId, entry: &Entry, takers: &[ConnectionKey]) {
        self.counters.entries_pushed += takers.len() as u64;
        let mut frame = Vec::new();
        crate::wire::encode_entry_push(&mut frame, group, entry);
        if !matches!(entry.event, Event::Whisper { .. }) {
            return self.fan_out(takers, frame, None);
        }
        let (insiders, others): (Vec<_>, Vec<_>) = takers.iter().partition(|key| {
            let session = self.connections.find(**key).and_then(|connection| connection.session());
            let is_leaking = planted!("hub: a whisper is pushed to everybody");
            session.is_some_and(|session| is_leaking || entry.is_shown_to(&session.user))
        });
        self.fan_out(&insiders, frame, None);
        let mut frame = Vec::new();
        let hidden = LogEntry::Hidden { seq: entry.seq, version: entry.version };
        Push::Entry { group, entry: hidden }.encode_frame(&mut frame);
        self.fan_out(&others, frame, None);
    }

    /// The connections that take the packet of a group which these users have just joined, and how many users other
    /// than the caller they belong to; what is owed to the others is noted.
    fn packet_takers(&mut self, released: &Released, members: &[UserId]) -> (Vec<ConnectionKey>, u32) {
        let mut takers = Vec::new();
        let mut others = 0;
        for user in members {
            let before = takers.len();
            for key in self.directory.connections(user) {
                if takes_packet(&mut self.connections, *key, released.group, released.entry.seq + 1) {
                    takers.push(*key);
                }
            }
            if takers.len() > before && *user != released.caller.user {
                others += 1;
            }
        }
        (takers, others)
    }

    /// The group packet, encoded once, to connections that are live in the group from here on.
    fn push_packet(&mut self, released: &Released, takers: Vec<ConnectionKey>) {
        if takers.is_empty() {
            return;
        }
        let mut frame = Vec::new();
        let packet = GroupPacket::of(&released.record, released.entry.seq, released.entry.seq + 1);
        Push::GroupPacket(packet).encode_frame(&mut frame);
        self.fan_out(&takers, frame, None);
        self.counters.group_packets += takers.len() as u64;
        if let Some(group) = self.groups.get_mut(&released.group).and_then(|slot| slot.group.as_mut()) {
            group.live.extend(takers);
            let bytes = group.memory_bytes();
            self.cache.recount(&mut group.counted_bytes, bytes);
        }
    }

    /// Connections of a user whose membership ended that were behind did not get the entry that says so: they are told
    /// by itself. Those that go on line at present will be.
    fn end_behind(&mut self, group: GroupId, user: &UserId, until: u64) {
        for key in self.directory.connections(user).to_vec() {
            let Some(session) = self.connections.find_mut(key).and_then(|connection| connection.session_mut()) else {
                continue;
            };
            if let Presence::Loading(loading) = &mut session.presence {
                loading.ended.insert(group, until);
            }
            match session.behind.get_mut(&group) {
                None | Some(Behind::Gone { .. }) => {}
                Some(Behind::Untold { shows: false, .. }) => session.behind.remove(&group),
                Some(lack @ (Behind::Told | Behind::Owed { .. } | Behind::Untold { .. })) => {
                    *lack = Behind::Gone { until, from: None };
                    session.notices.push_back(group);
                    self.tell_more(key);
                }
            }
        }
    }

    /// Those of the live connections that take an entry now. One that reads too slowly falls behind with this entry.
    fn keep_live(&mut self, live: Vec<ConnectionKey>, group: GroupId, seq: u64) -> Vec<ConnectionKey> {
        let mut takers = live;
        takers.retain(|key| {
            let Some(connection) = self.connections.find_mut(*key) else { return false };
            if connection.closing {
                return false;
            }
            if connection.outbox.bytes() <= OUTPUT_BYTES_SOFT {
                return true;
            }
            if let Some(session) = connection.session_mut() {
                let from =
                    if planted!("hub: the entry at which somebody falls behind is lost") { seq + 1 } else { seq };
                session.behind.insert(group, Behind::Owed { from });
                session.notices.push_back(group);
                self.counters.fallen_behind += 1;
            }
            false
        });
        takers
    }

    /// The connections that are of none of these users.
    fn without(&self, mut keys: Vec<ConnectionKey>, users: &BTreeSet<&UserId>) -> Vec<ConnectionKey> {
        if !users.is_empty() {
            keys.retain(|key| {
                let session = self.connections.find(*key).and_then(|connection| connection.session());
                session.is_some_and(|session| !users.contains(&session.user))
            });
        }
        keys
    }
}

/// The users whose membership ends with an entry of a group that was so before it.
pub(super) fn ended_by<'e>(entry: &'e Entry, before: &'e Record) -> BTreeSet<&'e UserId> {
    match &entry.event {
        Event::Removed { members } => members.iter().collect(),
        Event::Left { .. } => BTreeSet::from([&entry.sender]),
        Event::Dissolved => before.members.iter().map(|member| &member.user).collect(),
        Event::Created { .. }
        | Event::Added { .. }
        | Event::Renamed { .. }
        | Event::Transferred { .. }
        | Event::Message { .. }
        | Event::Whisper { .. } => BTreeSet::new(),
    }
}

/// Whether a connection takes the packet of a group that its user has just joined; if not, what is owed is noted. What
/// was owed to it of an earlier stay in the group is told by the packet as well.
fn takes_packet(connections: &mut Connections, key: ConnectionKey, group: GroupId, from: u64) -> bool {
    let Some(connection) = connections.find_mut(key) else { return false };
    if connection.closing {
        return false;
    }
    let has_room = connection.outbox.bytes() <= OUTPUT_BYTES_SOFT;
    let Some(session) = connection.session_mut() else { return false };
    match &mut session.presence {
        Presence::Attached if has_room => {
            session.behind.remove(&group);
            true
        }
        Presence::Attached => {
            let before = session.behind.get(&group).copied();
            let shows = before.is_some_and(|before| !matches!(before, Behind::Untold { shows: false, .. }));
            session.behind.insert(group, Behind::Untold { from, shows });
            session.notices.push_back(group);
            false
        }
        Presence::Loading(loading) => {
            if !planted!("hub: a group made while a device attaches is not told") {
                loading.late.insert(group);
            }
            false
        }
        Presence::Detached | Presence::Collecting(_) => false,
    }
}
