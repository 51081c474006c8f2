//! The rule of release: what waits for the disk, and what happens when the disk has it.

use std::collections::VecDeque;
use std::sync::Arc;

use super::Hub;
use super::connection::{Behind, ConnectionKey, Connections, Presence};
use super::outbox::SharedFrame;
use super::task::{Caller, OperationKey, Task};
use crate::group::{Entry, Event, Record};
use crate::ids::{GroupId, UserId};
use crate::limits::{FRAME_BYTES_COPIED_MAX, OUTPUT_BYTES_SOFT};
use crate::store::{Operation, Ticket};
use crate::wire::{Changed, Created, GroupPacket, Kind, Push, Reply};

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
/// Invariant: element `i` of `waiting` belongs to ticket `durable + 1 + i`; `bytes` is the sum of theirs.
#[derive(Debug, Default)]
pub(super) struct Releases {
    durable: u64,
    waiting: VecDeque<(u64, Vec<Release>)>,
    pub(super) bytes: u64,
}

impl Releases {
    /// Takes the next ticket, with what happens first when it is durable.
    pub(super) fn begin(&mut self, bytes: u64, first: Release) -> Ticket {
        self.waiting.push_back((bytes, vec![first]));
        self.bytes += bytes;
        Ticket(self.durable + self.waiting.len() as u64)
    }

    /// Adds what happens behind everything that already waits for a ticket that is not durable yet.
    pub(super) fn hold(&mut self, ticket: Ticket, release: Release) {
        let index = ticket.0.checked_sub(self.durable + 1).and_then(|index| usize::try_from(index).ok());
        let (_, releases) = index.and_then(|index| self.waiting.get_mut(index)).expect("held only on pending tickets");
        releases.push(release);
    }

    fn pop_through(&mut self, ticket: Ticket) -> Option<Vec<Release>> {
        if self.durable >= ticket.0 {
            return None;
        }
        let (bytes, releases) = self.waiting.pop_front().expect("only what was committed becomes durable");
        self.durable += 1;
        self.bytes -= bytes;
        Some(releases)
    }

    pub(super) fn is_empty(&self) -> bool {
        self.waiting.is_empty()
    }

    pub(super) fn len(&self) -> usize {
        self.waiting.len()
    }

    #[cfg(test)]
    pub(super) fn all(&self) -> impl Iterator<Item = &Release> {
        self.waiting.iter().flat_map(|(_, releases)| releases)
    }
}

impl Hub {
    /// Lets everything become visible that waited for tickets up to this one.
    pub(super) fn release(&mut self, ticket: Ticket) {
        while let Some(releases) = self.releases.pop_through(ticket) {
            for release in releases {
                match release {
                    Release::Effect(released) => self.release_effect(&released),
                    Release::Marks => self.marks.landed(),
                    Release::Answer { caller, reply } => self.answer(caller.connection, caller.request_id, &reply),
                    Release::Read { group, task } => self.run_read(group, task),
                    Release::Join { caller, key, kind } => self.answer_known(&caller, key, kind),
                }
            }
        }
    }

    fn release_effect(&mut self, released: &Released) {
        let Some(group) = self.groups.get_mut(&released.group).and_then(|slot| slot.group.as_mut()) else {
            unreachable!("a group with pending commits stays loaded")
        };
        group.durable = released.record.clone();
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
            _ => self.release_entry(released),
        }
    }

    /// The reply to the creator, and the one packet to every connection of every member.
    fn release_created(&mut self, released: &Released, members: &[UserId]) {
        let mut takers = Vec::new();
        let mut pushed = 0;
        for user in members {
            let before = takers.len();
            for key in self.directory.connections(user) {
                if takes_packet(&mut self.connections, *key, released.group) {
                    takers.push(*key);
                }
            }
            if takers.len() > before && *user != released.caller.user {
                pushed += 1;
            }
        }
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
        let mut frame = Vec::new();
        let packet = GroupPacket::of(&released.record, released.entry.seq, released.entry.seq + 1);
        Push::GroupPacket(packet).encode_frame(&mut frame);
        self.fan_out(&takers, frame);
        self.counters.group_packets += takers.len() as u64;
        if let Some(group) = self.loaded_group(released.group) {
            // Nobody was live before: until now the group was not there for anybody.
            group.live = takers;
        }
    }

    /// The reply to the sender, and the entry to everybody who is live.
    fn release_entry(&mut self, released: &Released) {
        let Operation { group, seq, version, .. } = released.operation;
        let changed = Changed { group, seq, version, repeated: false };
        let done = released.kind.done().expect("changes of groups are answered by Changed");
        self.answer(released.caller.connection, released.caller.request_id, &Reply::Changed(done, changed));
        let mut frame = Vec::new();
        crate::wire::encode_entry_push(&mut frame, group, &released.entry);
        let live = self.loaded_group(group).map(|group| std::mem::take(&mut group.live)).unwrap_or_default();
        let takers = self.keep_live(live, group, seq);
        self.fan_out(&takers, frame);
        self.counters.entries_pushed += takers.len() as u64;
        let leaver = match &released.entry.event {
            Event::Left { .. } => Some(&released.entry.sender),
            _ => None,
        };
        let stays = self.without(takers, leaver);
        if let Some(group) = self.loaded_group(group) {
            group.live = stays;
        }
        if let Some(leaver) = leaver {
            self.end_behind(group, leaver, seq);
        }
    }

    /// Connections of a user who left that were behind did not get the entry that says so: they are told by itself.
    fn end_behind(&mut self, group: GroupId, leaver: &UserId, until: u64) {
        for key in self.directory.connections(leaver).to_vec() {
            let Some(session) = self.connections.find_mut(key).and_then(|connection| connection.session_mut()) else {
                continue;
            };
            match session.behind.get_mut(&group) {
                None | Some(Behind::Gone { .. }) => {}
                Some(Behind::Untold { .. }) => _ = session.behind.remove(&group),
                Some(lack @ (Behind::Told | Behind::Owed { .. })) => {
                    *lack = Behind::Gone { until };
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
                session.behind.insert(group, Behind::Owed { from: seq });
                session.notices.push_back(group);
                self.counters.fallen_behind += 1;
            }
            false
        });
        takers
    }

    /// The connections that are not of this user.
    fn without(&self, mut keys: Vec<ConnectionKey>, user: Option<&UserId>) -> Vec<ConnectionKey> {
        let Some(user) = user else { return keys };
        let own = self.directory.connections(user);
        keys.retain(|key| !own.contains(key));
        keys
    }

    /// Writes one encoded frame into the buffer of each connection.
    fn fan_out(&mut self, takers: &[ConnectionKey], frame: Vec<u8>) {
        if frame.len() <= FRAME_BYTES_COPIED_MAX {
            for key in takers {
                self.append(*key, |out| out.extend_from_slice(&frame));
            }
            return;
        }
        let shared = SharedFrame::new(frame);
        for key in takers {
            self.append_shared(*key, &shared);
        }
    }

    /// Appends a large frame without copying it. It counts once, as long as some connection has it.
    pub(super) fn append_shared(&mut self, key: ConnectionKey, frame: &Arc<SharedFrame>) {
        let Some(connection) = self.connections.find_mut(key) else { return };
        if connection.closing {
            return;
        }
        let before = connection.outbox.bytes();
        self.output_bytes += connection.outbox.append_shared(frame);
        self.after_append(key, before);
    }
}

/// Whether a connection takes the packet of a new group now; if not, what is owed to it is noted.
fn takes_packet(connections: &mut Connections, key: ConnectionKey, group: GroupId) -> bool {
    let Some(connection) = connections.find_mut(key) else { return false };
    if connection.closing {
        return false;
    }
    let has_room = connection.outbox.bytes() <= OUTPUT_BYTES_SOFT;
    let Some(session) = connection.session_mut() else { return false };
    match &mut session.presence {
        Presence::Attached if has_room => true,
        Presence::Attached => {
            session.behind.insert(group, Behind::Untold { from: 2 });
            session.notices.push_back(group);
            false
        }
        Presence::Loading { late, .. } => {
            late.insert(group);
            false
        }
        Presence::Detached | Presence::Collecting(_) => false,
    }
}
