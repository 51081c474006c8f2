//! What is so: the groups as the durable journal says, followed packet by packet, by rules of its own.
//!
//! Everything that anybody is told is held against it. It knows the pure rules of groups, and neither the hub nor the
//! index. What it finds wrong is a panic: that ends the run, and whoever runs it names the seed.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::group::{Entry, Event, Record};
use crate::ids::{GroupId, OperationId, Principal, UserId};
use crate::store::stepped::{Follower, Found, Said, SimulatedDisk};
use crate::store::{Effect, Operation};
use crate::wire::Request;

/// From which seq through which a user was in a group; without an end if it still is.
pub(super) type Stay = (u64, Option<u64>);

/// A group.
pub(super) struct Kept {
    pub(super) record: Record,
    /// The record at each of its versions.
    pub(super) records: BTreeMap<u64, Record>,
    pub(super) log: Vec<Entry>,
    pub(super) floor: u64,
    pub(super) stays: BTreeMap<UserId, Vec<Stay>>,
    /// The highest seq that somebody was told of.
    pub(super) told: u64,
}

impl Kept {
    pub(super) fn head(&self) -> u64 {
        self.log.len() as u64
    }

    pub(super) fn entry(&self, seq: u64) -> Option<&Entry> {
        self.log.get(usize::try_from(seq.checked_sub(1)?).ok()?)
    }

    /// Whether a user was a member when an entry was made, the one that ended it included.
    pub(super) fn was_member(&self, user: &UserId, seq: u64) -> bool {
        let stays = self.stays.get(user).into_iter().flatten();
        stays.into_iter().any(|(joined, until)| *joined <= seq && until.is_none_or(|until| seq <= until))
    }

    /// Since when a user is a member.
    pub(super) fn joined(&self, user: &UserId) -> Option<u64> {
        let last = self.stays.get(user)?.last()?;
        last.1.is_none().then_some(last.0)
    }

    fn place_members(&mut self) {
        let head = self.head();
        for member in &self.record.members {
            let stays = self.stays.entry(member.user.clone()).or_default();
            if stays.last().is_none_or(|(joined, _)| *joined != member.joined) {
                stays.push((member.joined, None));
            }
        }
        for (user, stays) in &mut self.stays {
            if let Some((_, until @ None)) = stays.last_mut()
                && !self.record.has(user)
            {
                *until = Some(head);
            }
        }
    }
}

/// What was asked for: whose act it is, the service that acts for the user, if one does, and what.
pub(super) struct Attempt {
    pub(super) user: UserId,
    pub(super) by: Option<UserId>,
    pub(super) request: Request,
}

impl Attempt {
    /// Among whose operations it counts.
    pub(super) fn principal(&self) -> Principal {
        self.by.clone().map_or_else(|| Principal::User(self.user.clone()), Principal::Service)
    }
}

/// All groups, and all that was asked.
#[derive(Default)]
pub(super) struct Truth {
    pub(super) groups: BTreeMap<GroupId, Kept>,
    pub(super) operations: BTreeMap<(Principal, OperationId), Operation>,
    /// What clients have asked for, by operation, and who.
    pub(super) attempts: BTreeMap<OperationId, Attempt>,
    /// What was heard that is worth counting.
    pub(super) rare: Vec<&'static str>,
    effects: BTreeMap<u64, (GroupId, u64)>,
    follower: Follower,
    found: Vec<Found>,
}

impl Truth {
    /// Takes what has become durable.
    pub(super) fn follow(&mut self, disk: &SimulatedDisk) {
        let mut found = std::mem::take(&mut self.found);
        if let Err(error) = self.follower.follow(disk, &mut found) {
            panic!("{error}");
        }
        for Found { lsn, said } in found.drain(..) {
            match said {
                Said::Effect(effect) => self.take_effect(lsn, effect),
                Said::Floors(floors) => floors.into_iter().for_each(|(group, floor)| {
                    let kept = self.groups.get_mut(&group).expect("a floor of a group that there is");
                    kept.floor = kept.floor.max(floor);
                }),
                Said::Record(state) => {
                    let kept = self.groups.get(&state.record.group).expect("a record of a group that there is");
                    let then = kept.records.get(&state.record.version);
                    assert_eq!(then, Some(&state.record), "what is carried of a group is its record");
                }
                Said::Entry(group, entry) => {
                    let kept = self.groups.get(&group).expect("an entry of a group that there is");
                    assert_eq!(kept.entry(entry.seq), Some(&entry), "what is carried of a log is its entry");
                }
                Said::Other => {}
            }
        }
        self.found = found;
    }

    /// Where the effect of an operation stands.
    pub(super) fn operation(&self, operation: OperationId) -> Option<&Operation> {
        let attempt = self.attempts.get(&operation)?;
        self.operations.get(&(attempt.principal(), operation))
    }

    /// The effect behind a place of the journal, and where that stands.
    pub(super) fn effect_behind(&self, lsn: u64) -> Option<(u64, GroupId, u64)> {
        let next = self.effects.range(lsn + 1..).next();
        next.map(|(lsn, (group, seq))| (*lsn, *group, *seq))
    }

    /// A group of which somebody is told.
    pub(super) fn group(&self, group: GroupId) -> &Kept {
        self.groups.get(&group).unwrap_or_else(|| panic!("{group} is told of, and is not in the durable journal"))
    }

    fn take_effect(&mut self, lsn: u64, effect: Effect) {
        let place = (effect.group, effect.entry.seq);
        if let Some(before) = self.effects.get(&lsn) {
            assert_eq!(*before, place, "LSN {lsn} never changes its meaning");
            let log = self.group(effect.group).entry(effect.entry.seq);
            assert_eq!(log, Some(&*effect.entry), "what is written again is the same");
            return;
        }
        if let Some((last, _)) = self.effects.last_key_value() {
            assert!(*last < lsn, "LSN {lsn} is new, and lower than {last}, which was durable");
        }
        self.effects.insert(lsn, place);
        self.check_attempt(&effect);
        let key = (effect.principal.clone(), effect.operation);
        let before = self.operations.insert(key, Operation::of(&effect));
        assert!(before.is_none(), "operation {} has one effect", effect.operation);
        let (group, entry) = (effect.group, Arc::unwrap_or_clone(effect.entry));
        if let Some(record) = Record::from_created(group, &entry) {
            let records = BTreeMap::from([(1, record.clone())]);
            let mut kept = Kept { record, records, log: vec![entry], floor: 1, stays: BTreeMap::new(), told: 0 };
            kept.place_members();
            assert!(self.groups.insert(group, kept).is_none(), "a group id is made once");
            return;
        }
        let kept = self.groups.get_mut(&group).expect("a group is created before it changes");
        assert!(kept.record.has(&entry.sender), "only members change a group");
        assert_eq!(entry.seq, kept.head() + 1, "a log has no gap");
        kept.record.apply(&entry);
        kept.record.check_invariants();
        assert_eq!(entry.version, kept.record.version, "an entry carries the group's version");
        let changes = entry.event.changes_record();
        kept.log.push(entry);
        if changes {
            kept.records.insert(kept.record.version, kept.record.clone());
            kept.place_members();
        }
    }

    /// Whatever is in the journal was asked for, by whom it says, and as it says.
    fn check_attempt(&self, effect: &Effect) {
        let attempt = self.attempts.get(&effect.operation);
        let attempt = attempt.unwrap_or_else(|| panic!("nobody asked for {effect:?}"));
        let Attempt { user, by, request } = attempt;
        assert_eq!(*user, effect.entry.sender, "the sender is who was authenticated, or named by a service");
        assert_eq!(*by, effect.entry.by, "what a service does for a user says so");
        assert_eq!(attempt.principal(), effect.principal, "an operation is its principal's own");
        let fits = match (request, &effect.entry.event) {
            (Request::Create { title, .. }, Event::Created { title: made, members }) => {
                title == made && members.first() == Some(user)
            }
            (Request::Send { group, body, .. }, Event::Message { body: sent })
            | (Request::Whisper { group, body, .. }, Event::Whisper { body: sent, .. }) => {
                *group == effect.group && body == sent
            }
            (Request::Rename { group, title, .. }, Event::Renamed { title: made }) => {
                *group == effect.group && title == made
            }
            (Request::Add { group, members, .. }, Event::Added { members: added })
            | (Request::Remove { group, members, .. }, Event::Removed { members: added }) => {
                *group == effect.group && added.iter().all(|user| members.contains(user))
            }
            (Request::Leave { group, .. } | Request::Remove { group, .. }, Event::Left { .. })
            | (Request::Dissolve { group, .. }, Event::Dissolved) => *group == effect.group,
            (Request::Transfer { group, owner, .. }, Event::Transferred { owner: now }) => {
                *group == effect.group && owner == now
            }
            _ => false,
        };
        assert!(fits, "{request:?} made {:?}", effect.entry);
    }
}
