//! Storage as its port describes it, in memory.
//!
//! A change that was handed over waits in `queued`; [`Model::apply_next`] makes it durable, and from then on loads see
//! it, as they may in the real storage, whose index can be ahead of the report.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use crate::group::{Entry, Record};
use crate::ids::{GroupId, Principal, UserId};
use crate::store::{
    BackupSummary, Change, Damaged, Effect, Event, FeedError, FeedItem, FeedPage, FeedPlace, GroupState, GroupSummary,
    Mark, Membership, Operation, Request, Ticket,
};

#[derive(Clone)]
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

/// From which seq through which a user was in a group; without an end if it still is.
type Stay = (u64, Option<u64>);

#[derive(Clone, Default)]
pub(super) struct Model {
    pub(super) groups: BTreeMap<GroupId, Kept>,
    pub(super) places: BTreeMap<(UserId, GroupId), Membership>,
    pub(super) operations: BTreeMap<Principal, Vec<Operation>>,
    /// From which seq through which a user was in a group, one after the other.
    pub(super) stays: BTreeMap<(UserId, GroupId), Vec<Stay>>,
    /// Every effect that became durable, in order.
    pub(super) effects: Vec<Effect>,
    /// Every packet of marks that became durable.
    pub(super) marks_packets: usize,
    pub(super) damaged: BTreeSet<GroupId>,
    /// The LSN of the last packet, and of each effect.
    lsn: u64,
    effect_lsns: Vec<(u64, usize)>,
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
    pub(super) fn apply_next(&mut self) -> Option<(Ticket, u64)> {
        let (ticket, change) = self.queued.pop_front()?;
        // Watermarks take some, too.
        self.lsn += 1 + ticket.0 % 2;
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
                    self.drop_ended();
                }
            }
        }
        Some((ticket, self.lsn))
    }

    fn apply_effect(&mut self, effect: Effect) {
        let entry = (*effect.entry).clone();
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
        self.effect_lsns.push((self.lsn, self.effects.len()));
        self.effects.push(effect);
    }

    fn place_members(&mut self, group: GroupId) {
        let kept = &self.groups[&group];
        let head = kept.head();
        for member in &kept.record.members {
            let (joined, key) = (member.joined, (member.user.clone(), group));
            let new = Membership { group, joined, until: None, received: 0, read: 0, head };
            let place = self.places.entry(key.clone()).or_insert(new);
            let stays = self.stays.entry(key).or_default();
            if stays.last().is_none_or(|(last, _)| *last != joined) {
                (place.joined, place.until) = (joined, None);
                stays.push((joined, None));
            }
        }
        for ((user, _), place) in self.places.iter_mut().filter(|((_, of), _)| *of == group) {
            place.head = head;
            if place.until.is_none() && !kept.record.has(user) {
                place.until = Some(head);
                let stay = self.stays.get_mut(&(user.clone(), group)).and_then(|stays| stays.last_mut());
                stay.expect("who leaves was in it").1 = Some(head);
            }
        }
        self.drop_ended();
    }

    /// A membership that has ended is kept until its user has received all of it.
    fn drop_ended(&mut self) {
        self.places.retain(|_, place| place.until.is_none_or(|until| place.received < until));
    }

    /// Whether a user was in a group when an entry was made.
    pub(super) fn was_member(&self, user: &UserId, group: GroupId, seq: u64) -> bool {
        let stays = self.stays.get(&(user.clone(), group)).into_iter().flatten();
        stays.into_iter().any(|(joined, until)| *joined <= seq && until.is_none_or(|until| seq <= until))
    }

    fn places_of<'a>(&'a self, user: &'a UserId) -> impl Iterator<Item = &'a Membership> {
        self.places.iter().filter(move |((of, _), _)| of == user).map(|(_, place)| place)
    }

    fn feed(&self, after: Option<FeedPlace>, items_max: usize) -> Result<FeedPage, FeedError> {
        let last = self.lsn;
        let Some(after) = after.map(|place| place.lsn) else {
            return Ok(FeedPage { items: Vec::new(), through: FeedPlace::behind(last), at_end: true });
        };
        if after > last {
            return Err(FeedError::Beyond { last });
        }
        let item = |(lsn, effect): &(u64, usize)| {
            let effect = &self.effects[*effect];
            FeedItem { lsn: *lsn, group: effect.group, seq: effect.entry.seq, sender: effect.entry.sender.clone() }
        };
        let later = self.effect_lsns.iter().filter(|(lsn, _)| *lsn > after);
        let items: Vec<FeedItem> = later.clone().map(item).take(items_max).collect();
        let at_end = items.len() == later.count();
        let through = if at_end { last } else { items.last().map_or(after, |item| item.lsn) };
        Ok(FeedPage { items, through: FeedPlace::behind(through), at_end })
    }

    fn marks(&self, group: GroupId) -> Vec<Mark> {
        let members = &self.groups[&group].record.members;
        let place = |user: &UserId| &self.places[&(user.clone(), group)];
        let mark = |user: &UserId| {
            let Membership { received, read, .. } = *place(user);
            Mark { user: user.clone(), group, received, read }
        };
        members.iter().map(|member| mark(&member.user)).collect()
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
            Request::LoadMembership { read, user, group } => {
                Event::MembershipLoaded { read: *read, membership: self.places.get(&(user.clone(), *group)).cloned() }
            }
            Request::ReadMarks { read, group } if self.damaged.contains(group) => {
                Event::MarksRead { read: *read, marks: Err(Damaged) }
            }
            Request::ReadMarks { read, group } => Event::MarksRead { read: *read, marks: Ok(self.marks(*group)) },
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
            Request::ReadFeed { read, after, items_max } => {
                Event::FeedRead { read: *read, page: self.feed(*after, *items_max) }
            }
            // The one that works; what cannot be backed up is refused in `tests/care` by real storage.
            Request::Backup { read, .. } => {
                Event::BackupDone { read: *read, result: Ok(BackupSummary { files: 3, bytes: 4711 }) }
            }
            Request::ReadStats { read } => {
                Event::StatsRead { read: *read, stats: vec![("journal_bytes".to_owned(), 7)] }
            }
        }
    }
}
