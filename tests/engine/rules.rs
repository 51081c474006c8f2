//! What a group should be, from the rules of groups alone: the sequential model of all tests here.

use roundtable::Engine;
use roundtable::engine::{Actor, Changed, EngineError};
use roundtable::group::{Act, Author, Authority, Decision, Entry, Record, decide};
use roundtable::ids::{GroupId, OperationId};

use super::user;

/// A group from its log.
#[derive(Clone, Debug)]
pub(crate) struct Replayed {
    /// The records after each entry: element `i` is that after seq `i + 1`.
    records: Vec<Record>,
    pub(crate) entries: Vec<Entry>,
}

impl Replayed {
    /// Follows a log; in words what is wrong with it.
    pub(crate) fn of(group: GroupId, entries: Vec<Entry>) -> Result<Self, String> {
        let mut records: Vec<Record> = Vec::with_capacity(entries.len());
        for (entry, seq) in entries.iter().zip(1..) {
            if entry.seq != seq {
                return Err(format!("{group}: seq {} stands where {seq} should", entry.seq));
            }
            let record = match records.last() {
                None => Record::from_created(group, entry).ok_or(format!("{group}: begins with {entry:?}"))?,
                Some(before) => {
                    let mut record = before.clone();
                    record.apply(entry);
                    record
                }
            };
            if entry.version != record.version {
                return Err(format!("{group}: {entry:?} has another version than its record, {}", record.version));
            }
            records.push(record);
        }
        Ok(Self { records, entries })
    }

    pub(crate) fn head(&self) -> u64 {
        self.entries.len() as u64
    }

    /// The record after a seq.
    pub(crate) fn at(&self, seq: u64) -> Option<&Record> {
        self.records.get(usize::try_from(seq.checked_sub(1)?).ok()?)
    }

    pub(crate) fn entry(&self, seq: u64) -> Option<&Entry> {
        self.entries.get(usize::try_from(seq.checked_sub(1)?).ok()?)
    }

    /// What the rules say to an act after a seq.
    pub(crate) fn decide(&self, seq: u64, actor: &Actor, act: &Act) -> Result<Decision, EngineError> {
        let record = self.at(seq).ok_or(EngineError::NotFound)?;
        decide(record, seq, &author(actor), act.clone()).map_err(EngineError::from)
    }

    /// Whether an act made the entry with this seq.
    pub(crate) fn made(&self, seq: u64, actor: &Actor, act: &Act) -> bool {
        let Some(entry) = self.entry(seq) else { return false };
        self.decide(seq - 1, actor, act) == Ok(Decision::Entry(timeless(entry)))
    }

    /// Whether an act had nothing to do after this seq, which is that of a version.
    pub(crate) fn had_nothing_to_do(&self, seq: u64, actor: &Actor, act: &Act) -> bool {
        self.at(seq).is_some_and(|record| record.version == seq)
            && self.decide(seq, actor, act) == Ok(Decision::Unchanged)
    }
}

pub(crate) fn author(actor: &Actor) -> Author {
    match actor {
        Actor::User(user) => Author { sender: user.clone(), by: None, authority: Authority::Sender, at_ms: 0 },
        Actor::System => {
            let system = user("system");
            Author { sender: system.clone(), by: Some(system), authority: Authority::System, at_ms: 0 }
        }
    }
}

/// An entry without the one thing that the rules do not say.
pub(crate) fn timeless(entry: &Entry) -> Entry {
    Entry { at_ms: 0, ..entry.clone() }
}

/// Does an act through the engine.
pub(crate) fn perform(
    engine: &Engine,
    actor: &Actor,
    operation: Option<OperationId>,
    group: GroupId,
    act: &Act,
) -> Result<Changed, EngineError> {
    let acting = engine.acting(actor.clone());
    let acting = operation.map_or(acting.clone(), |id| acting.operation(id));
    match act {
        Act::Add { members } => acting.add(group, members),
        Act::Remove { members } => acting.remove(group, members),
        Act::Leave => acting.leave(group),
        Act::Rename { title } => acting.rename(group, title),
        Act::Transfer { owner } => acting.transfer(group, owner),
        Act::Dissolve => acting.dissolve(group),
        Act::Send { body } => acting.append(group, body.clone()),
        Act::Whisper { to, body } => acting.whisper(group, to, body.clone()),
    }
}
