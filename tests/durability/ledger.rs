//! What clients tried, what they were told, and what they saw: kept outside of the server.

use std::collections::{BTreeMap, BTreeSet};

use roundtable::client::Event;
use roundtable::group::{Entry, Event as LogEvent};
use roundtable::ids::{GroupId, OperationId, UserId};
use roundtable::wire::{Changed, Created, GroupPacket, LogEntry};

/// What a client asked for. Titles and bodies carry the operation id, so that an effect can be told in a log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Wish {
    Create { title: String, members: Vec<UserId> },
    Send { group: GroupId, body: Vec<u8> },
    Leave { group: GroupId },
}

/// The answer to an operation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Answer {
    pub(crate) group: GroupId,
    pub(crate) seq: u64,
    pub(crate) version: u64,
    /// 0 but for a create.
    pub(crate) members: u32,
    pub(crate) repeated: bool,
}

impl From<Created> for Answer {
    fn from(created: Created) -> Self {
        let Created { group, seq, version, members, repeated, .. } = created;
        Self { group, seq, version, members, repeated }
    }
}

impl From<Changed> for Answer {
    fn from(Changed { group, seq, version, repeated }: Changed) -> Self {
        Self { group, seq, version, members: 0, repeated }
    }
}

/// What became of an operation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// There was no answer.
    Unknown,
    /// It was refused: nothing was changed.
    Refused,
    Acknowledged(Answer),
}

/// One operation of one user.
#[derive(Clone, Debug)]
pub(crate) struct Operation {
    pub(crate) id: OperationId,
    pub(crate) user: UserId,
    pub(crate) wish: Wish,
    pub(crate) outcome: Outcome,
    /// The round in which it was tried first.
    pub(crate) round: u64,
}

/// What one watcher saw, in its order.
#[derive(Debug)]
pub(crate) struct Sight {
    pub(crate) user: UserId,
    pub(crate) events: Vec<Event>,
}

/// Everything that must be true of the server's state.
#[derive(Clone, Debug, Default)]
pub(crate) struct Ledger {
    /// In the order of issue of each user.
    pub(crate) operations: Vec<Operation>,
    /// Logs as they were read before: prefixes of what they are now.
    pub(crate) established: BTreeMap<GroupId, Vec<LogEntry>>,
    /// Entries and packets that watchers saw since the last look.
    pub(crate) seen_entries: Vec<(UserId, GroupId, LogEntry)>,
    pub(crate) seen_packets: Vec<(UserId, GroupPacket)>,
    /// How many entries and packets were seen in all.
    pub(crate) seen: u64,
}

impl Ledger {
    /// Takes note of what a watcher saw.
    pub(crate) fn witness(&mut self, sight: Sight) {
        for event in sight.events {
            match event {
                Event::Entry { group, entry } => self.seen_entries.push((sight.user.clone(), group, entry)),
                Event::Group { packet, .. } => self.seen_packets.push((sight.user.clone(), packet)),
                _ => continue,
            }
            self.seen += 1;
        }
    }

    /// The groups that all their members have left, or perhaps have.
    pub(crate) fn left_by_all(&self) -> BTreeSet<GroupId> {
        let mut members: BTreeMap<GroupId, BTreeSet<UserId>> = BTreeMap::new();
        for (group, log) in &self.established {
            if let Some(LogEntry::Shown(Entry { event: LogEvent::Created { members: all, .. }, .. })) = log.first() {
                members.insert(*group, all.iter().cloned().collect());
            }
        }
        for (_, packet) in &self.seen_packets {
            members.entry(packet.group).or_insert_with(|| packet.members.iter().cloned().collect());
        }
        for Operation { user, wish, outcome, .. } in &self.operations {
            if let (Wish::Create { members: others, .. }, Outcome::Acknowledged(answer)) = (wish, outcome) {
                let all = others.iter().chain([user]).cloned().collect();
                members.insert(answer.group, all);
            }
        }
        for Operation { user, wish, outcome, .. } in &self.operations {
            if let (Wish::Leave { group }, Outcome::Acknowledged(_) | Outcome::Unknown) = (wish, outcome)
                && let Some(members) = members.get_mut(group)
            {
                members.remove(user);
            }
        }
        members.into_iter().filter(|(_, members)| members.is_empty()).map(|(group, _)| group).collect()
    }

    /// All groups that it says something about.
    pub(crate) fn groups(&self) -> Vec<GroupId> {
        let mut groups: Vec<GroupId> = self.established.keys().copied().collect();
        groups.extend(self.operations.iter().filter_map(|operation| match operation.outcome {
            Outcome::Acknowledged(answer) => Some(answer.group),
            Outcome::Unknown | Outcome::Refused => None,
        }));
        groups.extend(self.seen_entries.iter().map(|(_, group, _)| *group));
        groups.extend(self.seen_packets.iter().map(|(_, packet)| packet.group));
        groups.sort_unstable();
        groups.dedup();
        groups
    }
}

/// The users of all tests here.
pub(crate) fn users() -> Vec<UserId> {
    (1..=8).map(|number| user(&format!("user-{number}"))).collect()
}

pub(crate) fn user(name: &str) -> UserId {
    UserId::new(name).expect("a legal name")
}
