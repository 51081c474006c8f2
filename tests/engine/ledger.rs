//! What a process that embeds the engine tried and was told, kept outside of it; and whether that is what is there.

use std::collections::{BTreeMap, BTreeSet};

use roundtable::Engine;
use roundtable::engine::{Actor, EngineError, Snapshot};
use roundtable::group::{Act, Entry};
use roundtable::ids::{GroupId, OperationId, UserId};

use super::log;
use super::rules::{Replayed, perform};

/// What was asked for. Titles and bodies are made of the operation id, so it fits a short line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Wish {
    Create(Vec<UserId>),
    Act(GroupId, Act),
    Mark(GroupId, u64),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Answer {
    pub(crate) group: GroupId,
    pub(crate) seq: u64,
    pub(crate) version: u64,
    pub(crate) repeated: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Outcome {
    Unknown,
    Refused,
    Acknowledged(Answer),
}

#[derive(Clone, Debug)]
pub(crate) struct Operation {
    pub(crate) user: UserId,
    pub(crate) wish: Wish,
    pub(crate) outcome: Outcome,
    pub(crate) round: u64,
}

impl Operation {
    /// Does it through an engine.
    pub(crate) fn perform(&self, engine: &Engine, id: OperationId) -> Result<Answer, EngineError> {
        let actor = Actor::from(&self.user);
        match &self.wish {
            Wish::Create(members) => {
                let created = engine.acting(actor).operation(id).create(&id.to_string(), members)?;
                let (group, seq, version) = (created.group, created.seq, created.version);
                Ok(Answer { group, seq, version, repeated: created.repeated })
            }
            Wish::Act(group, act) => {
                let changed = perform(engine, &actor, Some(id), *group, act)?;
                let (seq, version, repeated) = (changed.seq, changed.version, changed.repeated);
                Ok(Answer { group: changed.group, seq, version, repeated })
            }
            Wish::Mark(group, seq) => {
                engine.acknowledge(&self.user, *group, *seq, *seq)?;
                Ok(Answer { group: *group, seq: *seq, version: 0, repeated: false })
            }
        }
    }
}

/// What an engine has.
#[derive(Debug, Default)]
pub(crate) struct Found {
    groups: BTreeMap<GroupId, (Snapshot, Vec<Entry>)>,
    lists: BTreeMap<UserId, Vec<GroupId>>,
    marks: BTreeMap<(GroupId, UserId), u64>,
}

impl Found {
    pub(crate) fn in_engine(engine: &Engine, users: &[UserId]) -> Self {
        let mut found = Self::default();
        for snapshot in engine.groups() {
            let snapshot = snapshot.expect("a group");
            let group = snapshot.record.group;
            for reader in engine.readers(group).expect("marks") {
                found.marks.insert((group, reader.user), reader.read.min(reader.received));
            }
            found.groups.insert(group, (snapshot, log(engine, group)));
        }
        for user in users {
            let list = engine.groups_of(user).map(|line| line.expect("a line").group);
            found.lists.insert(user.clone(), list.collect());
        }
        found
    }

    pub(crate) fn entries(&self) -> usize {
        self.groups.values().map(|(_, entries)| entries.len()).sum()
    }
}

/// Everything that must be true of an engine's state.
#[derive(Clone, Debug, Default)]
pub(crate) struct Ledger {
    pub(crate) operations: BTreeMap<OperationId, Operation>,
    /// In the order in which they were tried.
    pub(crate) order: Vec<OperationId>,
    /// Logs as they were read before: prefixes of what they are now.
    established: BTreeMap<GroupId, Vec<Entry>>,
    /// Whose each entry is.
    makers: BTreeMap<(GroupId, u64), OperationId>,
    /// Entries that several who were told of them could have made: one added a member, another found it added.
    contested: BTreeSet<(GroupId, u64)>,
    marks: BTreeMap<(GroupId, UserId), u64>,
}

impl Ledger {
    pub(crate) fn try_operation(&mut self, id: OperationId, operation: Operation) {
        let before = self.operations.insert(id, operation);
        assert!(before.is_none(), "an id is used once");
        self.order.push(id);
    }

    pub(crate) fn end_operation(&mut self, id: OperationId, outcome: Outcome) {
        let operation = self.operations.get_mut(&id).expect("it was tried");
        operation.outcome = outcome;
        if let (Wish::Mark(group, seq), Outcome::Acknowledged(_)) = (&operation.wish, outcome) {
            let mark = self.marks.entry((*group, operation.user.clone())).or_default();
            *mark = (*mark).max(*seq);
        }
    }

    /// What is not as it must be, in words. With `complete`, each entry must be somebody's who was told of it.
    pub(crate) fn losses(&mut self, found: &Found, complete: bool) -> Vec<String> {
        let mut losses = Vec::new();
        let mut replayed = BTreeMap::new();
        for (group, (snapshot, entries)) in &found.groups {
            match Replayed::of(*group, entries.clone()) {
                Ok(history) => {
                    check_group(snapshot, &history, &mut losses);
                    replayed.insert(*group, history);
                }
                Err(wrong) => losses.push(wrong),
            }
        }
        for (group, before) in &self.established {
            let now = found.groups.get(group).map(|(_, entries)| &entries[..entries.len().min(before.len())]);
            if now != Some(&before[..]) {
                losses.push(format!("{group}: the log is not what was read before, up to {}", before.len()));
            }
        }
        self.claim(&replayed, &mut losses);
        if complete {
            let all = replayed.iter().flat_map(|(group, history)| (1..=history.head()).map(|seq| (*group, seq)));
            let unclaimed = all.filter(|place| !self.makers.contains_key(place));
            losses.extend(unclaimed.map(|(group, seq)| format!("{group}: nobody made seq {seq}, or twice")));
        }
        check_lists(found, &mut losses);
        for ((group, user), mark) in &self.marks {
            // Who is no member any more has no marks; who came back has none from before.
            let record = found.groups.get(group).map(|(snapshot, _)| &snapshot.record);
            let joined = record.and_then(|record| record.members.iter().find(|member| member.user == *user));
            let counts = joined.is_some_and(|member| *mark >= member.joined);
            if counts && found.marks.get(&(*group, user.clone())).is_some_and(|now| now < mark) {
                losses.push(format!("{group}: {user} had read up to {mark}"));
            }
        }
        losses
    }

    /// Finds the entry of each operation that was acknowledged.
    fn claim(&mut self, replayed: &BTreeMap<GroupId, Replayed>, losses: &mut Vec<String>) {
        for (id, operation) in &self.operations {
            let Outcome::Acknowledged(answer) = operation.outcome else { continue };
            let place = (answer.group, answer.seq);
            if self.makers.get(&place) == Some(id) || matches!(operation.wish, Wish::Mark(..)) {
                continue;
            }
            let actor = Actor::from(&operation.user);
            let Some(history) = replayed.get(&answer.group) else {
                losses.push(format!("{}: not there, but {operation:?}", answer.group));
                continue;
            };
            let (made, nothing) = match &operation.wish {
                Wish::Create(_) => (history.entry(1).is_some_and(|entry| is_of(entry, *id, operation)), false),
                Wish::Act(_, act) => {
                    let made = history.made(answer.seq, &actor, act);
                    (made, history.had_nothing_to_do(answer.seq, &actor, act))
                }
                Wish::Mark(..) => continue,
            };
            let free = !self.makers.contains_key(&place);
            if made && free {
                self.makers.insert(place, *id);
            } else if made && nothing {
                self.contested.insert(place);
            } else if !nothing {
                losses.push(format!("{place:?} does not say what was acknowledged: {operation:?}"));
            }
        }
    }

    /// Whether an operation is known to have made an entry, and no other could have: then saying it again repeats its
    /// answer.
    pub(crate) fn is_effective(&self, id: OperationId) -> bool {
        let Some(Outcome::Acknowledged(answer)) = self.operations.get(&id).map(|operation| operation.outcome) else {
            return false;
        };
        let place = (answer.group, answer.seq);
        self.makers.get(&place) == Some(&id) && !self.contested.contains(&place)
    }

    /// What was read is what must be there from now on.
    pub(crate) fn establish(&mut self, found: Found) {
        self.established = found.groups.into_iter().map(|(group, (_, entries))| (group, entries)).collect();
    }

    pub(crate) fn users(&self) -> BTreeSet<UserId> {
        self.operations.values().map(|operation| operation.user.clone()).collect()
    }
}

fn is_of(entry: &Entry, id: OperationId, operation: &Operation) -> bool {
    matches!(&entry.event, roundtable::group::Event::Created { title, .. } if **title == id.to_string())
        && entry.sender == operation.user
}

fn check_group(snapshot: &Snapshot, history: &Replayed, losses: &mut Vec<String>) {
    let group = snapshot.record.group;
    if snapshot.head != history.head() || snapshot.floor != 1 {
        losses.push(format!("{group}: {} to {}, but the log has {}", snapshot.floor, snapshot.head, history.head()));
    }
    if history.at(history.head()) != Some(&*snapshot.record) {
        losses.push(format!("{group}: the record is not what its log makes: {:?}", snapshot.record));
    }
}

fn check_lists(found: &Found, losses: &mut Vec<String>) {
    for (user, list) in &found.lists {
        let is_in =
            |(group, (snapshot, _)): (&GroupId, &(Snapshot, Vec<Entry>))| snapshot.record.has(user).then_some(*group);
        let expected: Vec<GroupId> = found.groups.iter().filter_map(is_in).collect();
        if *list != expected {
            losses.push(format!("the list of {user} has {} groups, not {}", list.len(), expected.len()));
        }
    }
}
