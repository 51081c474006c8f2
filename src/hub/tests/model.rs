//! Storage as its port describes it, in memory.
//!
//! A change that was handed over waits in `queued`; [`Model::apply_next`] makes it durable, and from then on loads see
//! it, as they may in the real storage, whose index can be ahead of the report.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use crate::group::{Entry, Record};
use crate::ids::{GroupId, Principal, UserId};
use crate::store::{Change, Damaged, Effect, Event, GroupState, GroupSummary, Membership, Operation, Request, Ticket};

pub(super) struct Kept {
    pub(super) record: Record,
    pub(super) log: Vec<Entry>,
    pub(super) floor: u64,
}

impl Kept {
    pub(super) fn head(&self) -> u64 {
        self.log.len() as u64
    }

    fn state(&self) -> GroupState {
        let last_at_ms = self.log.last().map_or(0, |entry| entry.at_ms);
        GroupState { record: self.record.clone(), head: self.head(), floor: self.floor, last_at_ms }
    }
}

#[derive(Default)]
pub(super) struct Model {
    pub(super) groups: BTreeMap<GroupId, Kept>,
    pub(super) places: BTreeMap<(UserId, GroupId), Membership>,
    pub(super) operations: BTreeMap<Principal, Vec<Operation>>,
    /// Every effect that became durable, in order.
    pub(super) effects: Vec<Effect>,
    /// Every packet of marks that became durable.
    pub(super) marks_packets: usize,
    pub(super) damaged: BTreeSet<GroupId>,
    queued: VecDeque<(Ticket, Change)>,
    committed: u64,
}

impl Model {
    pub(super) fn commit(&mut self, ticket: Ticket, change: Change) {
        self.committed += 1;
        assert_eq!(ticket.0, self.committed, "tickets are numbered one by one");
        self.queued.push_back((ticket, change));
    }

    /// Changes that are not durable yet.
    pub(super) fn queued(&self) -> usize {
        self.queued.len()
    }

    /// What was not durable is gone, and tickets begin anew.
    pub(super) fn forget_queued(&mut self) {
        self.queued.clear();
        self.committed = 0;
    }

    /// Makes the oldest change durable.
    pub(super) fn apply_next(&mut self) -> Option<Ticket> {
        let (ticket, change) = self.queued.pop_front()?;
        match change {
            Change::Effect(effect) => self.apply_effect(effect),
            Change::Marks(marks) => {
                self.marks_packets += 1;
                assert!(!marks.is_empty(), "an empty packet of marks says nothing");
                for mark in marks {
                    if let Some(place) = self.places.get_mut(&(mark.user, mark.group)) {
                        place.received = place.received.max(mark.received);
                        place.read = place.read.max(mark.read);
                    }
                }
            }
        }
        Some(ticket)
    }

    fn apply_effect(&mut self, effect: Effect) {
        let entry = effect.entry.clone();
        if let Some(record) = Record::from_created(effect.group, &entry) {
            let kept = Kept { record, log: vec![entry], floor: 1 };
            assert!(self.groups.insert(effect.group, kept).is_none(), "a group id is made once");
        } else {
            let kept = self.groups.get_mut(&effect.group).expect("a group is created before it changes");
            assert!(kept.record.has(&entry.sender), "only members change a group");
            assert_eq!(entry.seq, kept.head() + 1, "a log has no gap");
            kept.record.apply(&entry);
            assert_eq!(entry.version, kept.record.version);
            kept.log.push(entry);
        }
        self.place_members(effect.group);
        let remembered = self.operations.entry(effect.principal.clone()).or_default();
        assert!(remembered.iter().all(|known| known.operation != effect.operation), "an operation has one effect");
        remembered.push(Operation::of(&effect));
        self.effects.push(effect);
    }

    fn place_members(&mut self, group: GroupId) {
        let kept = &self.groups[&group];
        for member in &kept.record.members {
            let place =
                Membership { group, joined: member.joined, until: None, received: 0, read: 0, head: kept.head() };
            self.places.entry((member.user.clone(), group)).or_insert(place);
        }
        let head = kept.head();
        for ((user, _), place) in self.places.iter_mut().filter(|((_, of), _)| *of == group) {
            place.head = head;
            if place.until.is_none() && !kept.record.has(user) {
                place.until = Some(head);
            }
        }
    }

    /// Whether a user was in a group when an entry was made.
    pub(super) fn was_member(&self, user: &UserId, group: GroupId, seq: u64) -> bool {
        let place = self.places.get(&(user.clone(), group));
        place.is_some_and(|place| place.joined <= seq && place.until.is_none_or(|until| seq <= until))
    }

    fn places_of<'a>(&'a self, user: &'a UserId) -> impl Iterator<Item = &'a Membership> {
        self.places.iter().filter(move |((of, _), _)| of == user).map(|(_, place)| place)
    }

    fn summary(&self, place: &Membership) -> GroupSummary {
        let kept = &self.groups[&place.group];
        GroupSummary {
            group: place.group,
            title: kept.record.title.to_string(),
            members: u32::try_from(kept.record.members.len()).unwrap(),
            version: kept.record.version,
            head: kept.head(),
            received: place.received,
            read: place.read,
            last_at_ms: kept.state().last_at_ms,
        }
    }

    fn entries(&self, group: GroupId, from: u64, through: u64, entries_max: usize, bytes_max: usize) -> Vec<Entry> {
        let mut bytes = 0;
        let mut entries = Vec::new();
        let wanted = |entry: &&Entry| (from..=through).contains(&entry.seq);
        for entry in self.groups[&group].log.iter().filter(wanted).take(entries_max) {
            bytes += entry.memory_bytes();
            if bytes > bytes_max && !entries.is_empty() {
                break;
            }
            entries.push(entry.clone());
        }
        entries
    }

    /// What storage says to a look-up, by what is durable now.
    pub(super) fn answer(&self, request: &Request) -> Event {
        match request {
            Request::Commit { .. } => unreachable!("a commit is no look-up"),
            Request::ScanGroups { .. } => unreachable!("the hub never scans"),
            Request::LoadGroup { group } if self.damaged.contains(group) => {
                Event::GroupLoaded { group: *group, state: Err(Damaged) }
            }
            Request::LoadGroup { group } => {
                Event::GroupLoaded { group: *group, state: Ok(self.groups.get(group).map(Kept::state)) }
            }
            Request::LoadUser { read, user } => {
                Event::UserLoaded { read: *read, memberships: self.places_of(user).cloned().collect() }
            }
            Request::LoadOperations { principal } => Event::OperationsLoaded {
                principal: principal.clone(),
                operations: self.operations.get(principal).cloned().unwrap_or_default(),
            },
            Request::ListGroups { read, user, after, count_max } => {
                let behind = |place: &&Membership| after.is_none_or(|after| place.group > after);
                let places = self.places_of(user).filter(|place| place.until.is_none()).filter(behind);
                let mut groups: Vec<_> = places.map(|place| self.summary(place)).collect();
                let more = groups.len() > *count_max;
                groups.truncate(*count_max);
                Event::GroupsListed { read: *read, groups, more }
            }
            Request::ReadEntries { read, group, from, through, entries_max, bytes_max } => {
                let entries = if self.damaged.contains(group) {
                    Err(Damaged)
                } else {
                    Ok(self.entries(*group, *from, *through, *entries_max, *bytes_max))
                };
                Event::EntriesRead { read: *read, entries }
            }
            Request::ReadStats { read } => {
                Event::StatsRead { read: *read, stats: vec![("journal_bytes".to_owned(), 7)] }
            }
        }
    }
}
