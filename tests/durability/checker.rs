//! Compares what was tried, told and seen with what is there. Knows no server.

use std::collections::{BTreeMap, BTreeSet};

use roundtable::group::{Event, Member, Record};
use roundtable::ids::{GroupId, UserId};
use roundtable::wire::{GroupPacket, GroupSummary, LogEntry};

use super::found::{Found, Group};
use super::ledger::{Answer, Ledger, Operation, Outcome, Wish};

/// Everything that is not as it must be, in words; empty if all is well. `wanted` says which groups were looked for.
pub(crate) fn losses(ledger: &Ledger, found: &Found, wanted: impl Fn(GroupId) -> bool) -> Vec<String> {
    let mut losses = Vec::new();
    // Nobody may read a group that all have left; that its operations are remembered is asked for elsewhere.
    let over = ledger.left_by_all();
    let wanted = |id: GroupId| wanted(id) && (found.groups.contains_key(&id) || !over.contains(&id));
    for (id, group) in &found.groups {
        check_log(*id, group, &mut losses);
        check_record(*id, group, &mut losses);
    }
    check_lists(found, &wanted, &mut losses);
    for (id, before) in ledger.established.iter().filter(|(id, _)| wanted(**id)) {
        let now = found.groups.get(id).map_or(&[][..], |group| &group.entries);
        for entry in before {
            compare(*id, entry, now, "was read before", &mut losses);
        }
    }
    for (user, id, entry) in ledger.seen_entries.iter().filter(|(_, id, _)| wanted(*id)) {
        let now = found.groups.get(id).map_or(&[][..], |group| &group.entries);
        compare(*id, entry, now, &format!("was seen by {user}"), &mut losses);
    }
    for (user, packet) in ledger.seen_packets.iter().filter(|(_, packet)| wanted(packet.group)) {
        check_packet(user, packet, found, &mut losses);
    }
    check_operations(ledger, found, &wanted, &mut losses);
    losses
}

/// Whether an entry is what an operation wishes for. Titles and bodies are unique, and each user leaves a group once.
fn is_effect(entry: &LogEntry, operation: &Operation) -> bool {
    let LogEntry::Shown(entry) = entry else { return false };
    let by_content = match (&entry.event, &operation.wish) {
        (Event::Created { title, members }, Wish::Create { title: wished, members: others }) => {
            let first = members.first() == Some(&operation.user);
            let rest: BTreeSet<&UserId> = members.iter().skip(1).collect();
            let wished_rest: BTreeSet<&UserId> = others.iter().filter(|user| **user != operation.user).collect();
            **title == **wished && first && rest == wished_rest && rest.len() + 1 == members.len()
        }
        (Event::Message { body }, Wish::Send { body: wished, .. }) => **body == **wished,
        (Event::Left { .. }, Wish::Leave { .. }) => true,
        _ => false,
    };
    by_content && entry.sender == operation.user && entry.by.is_none()
}

fn check_log(id: GroupId, group: &Group, losses: &mut Vec<String>) {
    for (expected, entry) in (1..).zip(&group.entries) {
        if entry.seq() != expected {
            losses.push(format!("{id}: the log has seq {} where {expected} must stand", entry.seq()));
            return;
        }
    }
    let Group { entries, head, floor, .. } = group;
    if entries.len() as u64 != *head || *floor != 1 {
        losses.push(format!("{id}: {} entries, but the head is {head} and the floor {floor}", entries.len()));
    }
}

fn check_record(id: GroupId, group: &Group, losses: &mut Vec<String>) {
    let Some(replayed) = replay(id, &group.entries, u64::MAX) else {
        losses.push(format!("{id}: the log does not begin with its creation"));
        return;
    };
    for entry in &group.entries {
        let version = replay_version(&group.entries, entry.seq());
        if entry.version() != version {
            losses.push(format!("{id}: seq {} has version {} instead of {version}", entry.seq(), entry.version()));
        }
    }
    if group.record != replayed {
        losses.push(format!("{id}: the record is not what its log makes: {:?} and {replayed:?}", group.record));
    }
}

fn replay(id: GroupId, entries: &[LogEntry], through: u64) -> Option<Record> {
    let LogEntry::Shown(first) = entries.first()? else { return None };
    let mut record = Record::from_created(id, first)?;
    for entry in entries.iter().take_while(|entry| entry.seq() <= through) {
        if let LogEntry::Shown(entry) = entry {
            record.apply(entry);
        }
    }
    record.check_invariants();
    Some(record)
}

/// The seq of the last entry up to `seq` that changes the record.
fn replay_version(entries: &[LogEntry], seq: u64) -> u64 {
    let changes = |entry: &&LogEntry| matches!(entry, LogEntry::Shown(entry) if entry.event.changes_record());
    let upto = usize::try_from(seq).expect("small").min(entries.len());
    entries[..upto].iter().rev().find(changes).map_or(0, LogEntry::seq)
}

fn check_lists(found: &Found, wanted: &impl Fn(GroupId) -> bool, losses: &mut Vec<String>) {
    let mut members: BTreeMap<&UserId, BTreeSet<GroupId>> = BTreeMap::new();
    for (id, group) in &found.groups {
        let Some(record) = replay(*id, &group.entries, u64::MAX) else { continue };
        for (user, list) in &found.lists {
            let Some(Member { .. }) = record.member(user) else { continue };
            members.entry(user).or_default().insert(*id);
            let head = group.entries.len() as u64;
            let agrees = |summary: &&GroupSummary| {
                summary.group == *id
                    && summary.head == head
                    && summary.version == record.version
                    && *summary.title == *record.title
                    && summary.members as usize == record.members.len()
            };
            if list.iter().filter(agrees).count() != 1 {
                losses.push(format!("{id}: the list of {user} does not have it once and as it is"));
            }
        }
    }
    for (user, list) in &found.lists {
        let listed: BTreeSet<GroupId> = list.iter().map(|summary| summary.group).filter(|id| wanted(*id)).collect();
        if listed != members.remove(user).unwrap_or_default() {
            losses.push(format!("the list of {user} has other groups than their logs say"));
        }
    }
}

fn compare(id: GroupId, entry: &LogEntry, now: &[LogEntry], why: &str, losses: &mut Vec<String>) {
    let at = usize::try_from(entry.seq() - 1).expect("small");
    match now.get(at) {
        Some(same) if same == entry => {}
        Some(other) => losses.push(format!("{id}: seq {} {why} as {entry:?} and is {other:?}", entry.seq())),
        None => losses.push(format!("{id}: seq {} {why} and is gone", entry.seq())),
    }
}

fn check_packet(user: &UserId, packet: &GroupPacket, found: &Found, losses: &mut Vec<String>) {
    let id = packet.group;
    let Some(group) = found.groups.get(&id) else {
        losses.push(format!("{id}: its packet was seen by {user} and the group is gone"));
        return;
    };
    let expected = replay(id, &group.entries, packet.version);
    let same = expected.is_some_and(|record| GroupPacket::of(&record, packet.head, packet.from) == *packet);
    if !same || packet.head > group.entries.len() as u64 {
        losses.push(format!("{id}: its packet was seen by {user} as {packet:?}, which its log does not say"));
    }
}

fn check_operations(ledger: &Ledger, found: &Found, wanted: &impl Fn(GroupId) -> bool, losses: &mut Vec<String>) {
    let mut unexplained: BTreeSet<(GroupId, u64)> = BTreeSet::new();
    for (id, group) in &found.groups {
        unexplained.extend(group.entries.iter().map(|entry| (*id, entry.seq())));
    }
    let index = Index::of(found);
    for operation in &ledger.operations {
        let effects = index.effects(operation);
        let Operation { id, user, wish, .. } = operation;
        for (group, entry) in &effects {
            unexplained.remove(&(*group, entry.seq()));
        }
        match operation.outcome {
            Outcome::Acknowledged(Answer { group, seq, version, members, .. }) if wanted(group) => {
                let [(at, entry)] = effects[..] else {
                    let count = effects.len();
                    losses.push(format!("{group}: acknowledged operation {id} of {user} has {count} effects"));
                    continue;
                };
                let members_made = match entry {
                    LogEntry::Shown(entry) => members_of(&entry.event),
                    LogEntry::Hidden { .. } => 0,
                };
                if (at, entry.seq(), entry.version(), members_made) != (group, seq, version, members) {
                    losses.push(format!("{group}: operation {id} was answered seq {seq} version {version}: {entry:?}"));
                }
            }
            Outcome::Unknown if effects.len() > 1 => {
                losses.push(format!("operation {id} of {user} has {} effects: {wish:?}", effects.len()));
            }
            Outcome::Refused if !effects.is_empty() => {
                losses.push(format!("operation {id} of {user} was refused and has an effect"));
            }
            Outcome::Acknowledged(_) | Outcome::Unknown | Outcome::Refused => {}
        }
    }
    losses.extend(unexplained.iter().map(|(id, seq)| format!("{id}: nobody asked for what stands at seq {seq}")));
}

fn members_of(event: &Event) -> u32 {
    match event {
        Event::Created { members, .. } => u32::try_from(members.len()).expect("small"),
        _ => 0,
    }
}

/// An entry and its group.
type Effect<'f> = (GroupId, &'f LogEntry);

/// Finds the effects of operations without going through all logs for each.
pub(crate) struct Index<'f> {
    created: BTreeMap<&'f str, Vec<Effect<'f>>>,
    /// By group, sender, and body; an empty one for what is no message.
    others: BTreeMap<(GroupId, &'f UserId, &'f [u8]), Vec<Effect<'f>>>,
}

impl<'f> Index<'f> {
    pub(crate) fn of(found: &'f Found) -> Self {
        let mut index = Self { created: BTreeMap::new(), others: BTreeMap::new() };
        for (id, group) in &found.groups {
            for entry in &group.entries {
                let LogEntry::Shown(shown) = entry else { continue };
                let slot = match &shown.event {
                    Event::Created { title, .. } => index.created.entry(title).or_default(),
                    Event::Message { body } => index.others.entry((*id, &shown.sender, body)).or_default(),
                    _ => index.others.entry((*id, &shown.sender, &[])).or_default(),
                };
                slot.push((*id, entry));
            }
        }
        index
    }

    /// All entries that are what the operation wishes for.
    pub(crate) fn effects(&self, operation: &Operation) -> Vec<Effect<'f>> {
        let candidates = match &operation.wish {
            Wish::Create { title, .. } => self.created.get(title.as_str()),
            Wish::Send { group, body } => self.others.get(&(*group, &operation.user, body)),
            Wish::Leave { group } => self.others.get(&(*group, &operation.user, &[])),
        };
        let all = candidates.into_iter().flatten().copied();
        all.filter(|(_, entry)| is_effect(entry, operation)).collect()
    }
}
