//! Changes: decided by the rules of groups on the newest state, committed in the order of decision, answered once they
//! are durable.

use std::sync::Arc;

use super::cache::Loaded;
use super::group::{Durable, Group, memory_bytes};
use super::operations::{Digest, Key, Outcome, Window};
use super::port::{Effect, Uncommitted};
use super::{Engine, EngineError, wall_ms};
use crate::group::{self, Act, Author, Authority, Decision, Entry, Record};
use crate::ids::{GroupId, OperationId, Principal, UserId};
use crate::store::{Change, Operation, Ticket};

/// Whose act a change is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Actor {
    /// A user, with the rights of the member or owner that it is.
    User(UserId),
    /// The program that embeds the engine: it may do what an owner may, in every group, without being a member. Its
    /// entries carry [`EngineOptions::system`](super::EngineOptions::system) as `by`, which no user's entry does.
    System,
}

impl From<&UserId> for Actor {
    fn from(user: &UserId) -> Self {
        Self::User(user.clone())
    }
}

/// A group was made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Created {
    /// Its id.
    pub group: GroupId,
    /// The seq of its first entry: 1.
    pub seq: u64,
    /// Its version: 1.
    pub version: u64,
    /// How many members it had then.
    pub members: u32,
    /// Whether this operation id had made it before: nothing was changed now.
    pub repeated: bool,
}

/// A group was changed, or is so already.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Changed {
    /// The group.
    pub group: GroupId,
    /// The seq of the entry. Where it was so already there is none, and this is the version.
    pub seq: u64,
    /// The version of the group's record after it.
    pub version: u64,
    /// Whether this operation id had changed it before: nothing was changed now.
    pub repeated: bool,
}

/// Makes changes in the name of somebody. Made by [`Engine::acting`].
///
/// **Every method blocks until its change is durable**: covered by a successful `fdatasync`. Callers on several threads
/// share one sync, so many at once cost hardly more than one. From its return on, every call on any thread shows it.
/// After an error nothing was changed, but for [`EngineError::Failed`], where that is unknown.
#[derive(Clone, Debug)]
#[must_use = "it changes nothing by itself"]
pub struct Acting<'a> {
    engine: &'a Engine,
    actor: Actor,
    operation: Option<OperationId>,
}

/// What became of an attempt.
enum Attempt {
    /// This is the answer, once the ticket is durable; at once for ticket 0.
    Answer(Ticket, Result<Answered, EngineError>),
    /// The same operation is on its way: look again when the ticket is durable.
    Again(Ticket),
    /// No room for so many bytes.
    NoRoom(u64),
}

struct Answered {
    group: GroupId,
    seq: u64,
    version: u64,
    members: u32,
    repeated: bool,
}

impl Answered {
    fn of(operation: &Operation, repeated: bool) -> Self {
        let Operation { group, seq, version, members, .. } = *operation;
        Self { group, seq, version, members, repeated }
    }

    fn changed(self) -> Changed {
        Changed { group: self.group, seq: self.seq, version: self.version, repeated: self.repeated }
    }
}

/// The window of a principal, where the caller gave an operation id.
type Remembering = Option<(Key, Arc<Loaded<Window>>)>;

impl<'a> Acting<'a> {
    pub(super) fn new(engine: &'a Engine, actor: Actor) -> Self {
        Self { engine, actor, operation: None }
    }

    /// Gives the next change an id: saying it again with the same id, even after a crash, gives the same answer with
    /// `repeated` set and changes nothing; with other content it is refused as [`EngineError::IdReused`]. Remembered
    /// are at least the last [`OPERATIONS_REMEMBERED`](crate::limits::OPERATIONS_REMEMBERED) effective changes of a
    /// user, and [`OPERATIONS_REMEMBERED_SERVICE`](crate::limits::OPERATIONS_REMEMBERED_SERVICE) of `System`.
    /// Refusals, and changes that changed nothing, are not remembered. Without it each change gets a random id.
    ///
    /// An id belongs to the engine or to the server: one that a server was given is `IdReused` here.
    pub fn operation(mut self, id: OperationId) -> Self {
        self.operation = Some(id);
        self
    }

    /// Makes a group: its creator and owner is the acting user, or, for `System`, the first of `members`. Each user
    /// counts once; a group of one is legal. The title may be empty.
    ///
    /// Errors: `Limit` for more than 10,000 members or 256 bytes of title; `NotAMember` for a group of nobody, which
    /// only `System` can ask for; `IdReused`, `Full`, `Failed`, `Closed`.
    pub fn create(self, title: &str, members: &[UserId]) -> Result<Created, EngineError> {
        let key = self.key(|| Digest::of_create(title, members));
        let creator = match &self.actor {
            Actor::User(user) => user,
            Actor::System => members.first().ok_or(EngineError::NotAMember)?,
        };
        let answered = self.until_answered(key, |acting, remembering| {
            let author = Author { sender: creator.clone(), ..acting.author() };
            match group::create(&author, title.into(), members.to_vec()) {
                Ok(entry) => acting.begin_group(&entry, remembering),
                Err(refusal) => Attempt::Answer(Ticket(0), Err(refusal.into())),
            }
        })?;
        let Answered { group, seq, version, members, repeated } = answered;
        Ok(Created { group, seq, version, members, repeated })
    }

    /// Adds users, in this order. Those who are members already stay where they are.
    ///
    /// Errors: `NotFound`, `Damaged`; `Limit` where the group would have more than 10,000 members; `IdReused`, `Full`,
    /// `Failed`, `Closed`.
    pub fn add(self, group: GroupId, members: &[UserId]) -> Result<Changed, EngineError> {
        self.change(group, &Act::Add { members: members.to_vec() })
    }

    /// Removes members; others are ignored. For the owner and `System`; a member that names itself alone leaves. The
    /// owner cannot be removed.
    ///
    /// Errors: `NotFound`, `Forbidden`, `Damaged`, `IdReused`, `Full`, `Failed`, `Closed`.
    pub fn remove(self, group: GroupId, members: &[UserId]) -> Result<Changed, EngineError> {
        self.change(group, &Act::Remove { members: members.to_vec() })
    }

    /// Leaves. When the owner leaves, the longest-standing other member becomes owner; with the last member the group
    /// is dissolved.
    ///
    /// Errors: `NotFound` (`System` is in no group), `Damaged`, `IdReused`, `Full`, `Failed`, `Closed`.
    pub fn leave(self, group: GroupId) -> Result<Changed, EngineError> {
        self.change(group, &Act::Leave)
    }

    /// Gives the group another title of 0 to 256 bytes. For the owner and `System`.
    ///
    /// Errors: `NotFound`, `Forbidden`, `Limit`, `Damaged`, `IdReused`, `Full`, `Failed`, `Closed`.
    pub fn rename(self, group: GroupId, title: &str) -> Result<Changed, EngineError> {
        self.change(group, &Act::Rename { title: title.into() })
    }

    /// Makes another member the owner. For the owner and `System`.
    ///
    /// Errors: `NotFound`, `Forbidden`, `NotAMember`, `Damaged`, `IdReused`, `Full`, `Failed`, `Closed`.
    pub fn transfer(self, group: GroupId, owner: &UserId) -> Result<Changed, EngineError> {
        self.change(group, &Act::Transfer { owner: owner.clone() })
    }

    /// Ends the group: nobody is in it any more, and nothing can be done in it. For the owner and `System`.
    ///
    /// Errors: `NotFound`, `Forbidden`, `Damaged`, `IdReused`, `Full`, `Failed`, `Closed`.
    pub fn dissolve(self, group: GroupId) -> Result<Changed, EngineError> {
        self.change(group, &Act::Dissolve)
    }

    /// Appends a message of at most 64 KiB to the group's log.
    ///
    /// Errors: `NotFound`, `Limit`, `Damaged`, `IdReused`, `Full`, `Failed`, `Closed`.
    pub fn append(self, group: GroupId, body: impl Into<Arc<[u8]>>) -> Result<Changed, EngineError> {
        self.change(group, &Act::Send { body: body.into() })
    }

    /// Appends a message that is meant for some members only. [`Engine::read`] gives it whole: whom to show it to is
    /// the caller's business, as it is the server's for its clients.
    ///
    /// Errors: `NotFound`, `NotAMember`, `Limit`, `Damaged`, `IdReused`, `Full`, `Failed`, `Closed`.
    pub fn whisper(self, group: GroupId, to: &[UserId], body: impl Into<Arc<[u8]>>) -> Result<Changed, EngineError> {
        self.change(group, &Act::Whisper { to: to.to_vec(), body: body.into() })
    }

    // ---- once per operation id ---------------------------------------------------------------------------------

    fn key(&self, fingerprint: impl FnOnce() -> u64) -> Option<Key> {
        self.operation.map(|id| Key { id, fingerprint: fingerprint() })
    }

    fn change(&self, id: GroupId, act: &Act) -> Result<Changed, EngineError> {
        let key = self.key(|| Digest::of_act(id, act));
        let answered = self.until_answered(key, |acting, remembering| match acting.engine.shared().group(id) {
            Ok(group) => acting.begin_change(id, &group, act.clone(), remembering),
            Err(error) => Attempt::Answer(Ticket(0), Err(error)),
        });
        answered.map(Answered::changed)
    }

    /// Tries until there is an answer that may be given. No lock is held while it waits.
    fn until_answered(
        &self,
        key: Option<Key>,
        attempt: impl Fn(&Self, &Remembering) -> Attempt,
    ) -> Result<Answered, EngineError> {
        let shared = self.engine.shared();
        shared.port.check_open()?;
        let remembering = match key {
            Some(key) => Some((key, shared.window(&self.principal())?)),
            None => None,
        };
        loop {
            // Before the group is loaded: the answer to a repeated operation outlives its group.
            let known = remembering.as_ref().and_then(|(key, window)| known(*key, &window.lock()));
            match known.unwrap_or_else(|| attempt(self, &remembering)) {
                Attempt::Answer(ticket, outcome) => {
                    shared.port.wait(ticket)?;
                    return outcome;
                }
                Attempt::Again(ticket) => shared.port.wait(ticket)?,
                Attempt::NoRoom(bytes) => shared.port.wait_for_room(bytes)?,
            }
        }
    }

    // ---- deciding and committing -------------------------------------------------------------------------------

    fn begin_group(&self, entry: &Entry, remembering: &Remembering) -> Attempt {
        let shared = self.engine.shared();
        let id = shared.new_group_id();
        let record = Arc::new(Record::from_created(id, entry).expect("a create makes a created entry"));
        let group = Loaded::new(Group::begun(record.clone()), memory_bytes(&record));
        let mut state = group.lock();
        let mut window = remembering.as_ref().map(|(key, window)| (*key, window.lock()));
        if let Some(known) = window.as_ref().and_then(|(key, window)| known(*key, window)) {
            return known;
        }
        let (change, effect) = self.effect(id, &group, record.clone(), entry, remembering);
        let operation = effect.operation;
        // The shard stays locked until the group is in it: once the change is committed somebody may learn of the
        // group from the index, and must find this state of it.
        let mut shard = shared.groups.shard(&id);
        let ticket = match shared.port.commit(change, Some(effect)) {
            Ok(ticket) => ticket,
            Err(uncommitted) => return uncommitted.into(),
        };
        shard.insert(id, group.clone());
        shared.groups.trim(&mut shard);
        drop(shard);
        state.begin(record, entry.seq, ticket);
        if let Some((key, window)) = &mut window {
            window.begin(*key, ticket);
        }
        Attempt::Answer(ticket, Ok(Answered::of(&operation, false)))
    }

    fn begin_change(&self, id: GroupId, group: &Arc<Loaded<Group>>, act: Act, remembering: &Remembering) -> Attempt {
        let mut state = group.lock();
        let mut window = remembering.as_ref().map(|(key, window)| (*key, window.lock()));
        if let Some(known) = window.as_ref().and_then(|(key, window)| known(*key, window)) {
            return known;
        }
        let entry = match group::decide(&state.record, state.head, &self.author(), act) {
            Ok(Decision::Entry(entry)) => entry,
            // What was decided by a state that is on its way is answered when that is durable.
            Ok(Decision::Unchanged) => {
                let version = state.record.version;
                let answered = Answered { group: id, seq: version, version, members: 0, repeated: false };
                return Attempt::Answer(state.last_ticket, Ok(answered));
            }
            Err(refusal) => return Attempt::Answer(state.last_ticket, Err(refusal.into())),
        };
        let record = state.record_after(&entry);
        let (change, effect) = self.effect(id, group, record.clone(), &entry, remembering);
        let operation = effect.operation;
        let ticket = match self.engine.shared().port.commit(change, Some(effect)) {
            Ok(ticket) => ticket,
            Err(uncommitted) => return uncommitted.into(),
        };
        state.begin(record, entry.seq, ticket);
        if let Some((key, window)) = &mut window {
            window.begin(*key, ticket);
        }
        Attempt::Answer(ticket, Ok(Answered::of(&operation, false)))
    }

    /// What the journal gets, and what becomes visible once it has that.
    fn effect(
        &self,
        id: GroupId,
        group: &Arc<Loaded<Group>>,
        record: Arc<Record>,
        entry: &Entry,
        remembering: &Remembering,
    ) -> (Change, Box<Effect>) {
        let (operation, fingerprint) = match remembering {
            Some((key, _)) => (key.id, key.fingerprint),
            None => (OperationId::random(), 0),
        };
        let principal = self.principal();
        let stored = crate::store::Effect {
            principal: principal.clone(),
            operation,
            fingerprint,
            group: id,
            entry: Arc::new(entry.clone()),
        };
        let effect = Effect {
            id,
            group: group.clone(),
            durable: Durable { record, head: entry.seq, last_at_ms: entry.at_ms },
            changes_record: entry.event.changes_record(),
            window: remembering.as_ref().map(|(_, window)| (principal, window.clone())),
            operation: Operation::of(&stored),
        };
        (Change::Effect(stored), Box::new(effect))
    }

    fn principal(&self) -> Principal {
        match &self.actor {
            Actor::User(user) => Principal::User(user.clone()),
            Actor::System => Principal::Service(self.engine.shared().system.clone()),
        }
    }

    fn author(&self) -> Author {
        let at_ms = wall_ms();
        match &self.actor {
            Actor::User(user) => Author { sender: user.clone(), by: None, authority: Authority::Sender, at_ms },
            Actor::System => {
                let system = self.engine.shared().system.clone();
                Author { sender: system.clone(), by: Some(system), authority: Authority::System, at_ms }
            }
        }
    }
}

impl From<Uncommitted> for Attempt {
    fn from(uncommitted: Uncommitted) -> Self {
        match uncommitted {
            Uncommitted::NoRoom(bytes) => Self::NoRoom(bytes),
            Uncommitted::Gone(error) => Self::Answer(Ticket(0), Err(error)),
        }
    }
}

/// The answer to an operation whose id is known.
fn known(key: Key, window: &Window) -> Option<Attempt> {
    let reused = |fingerprint: u64| (fingerprint != key.fingerprint).then_some(EngineError::IdReused);
    Some(match window.find(key.id)? {
        Outcome::Pending { ticket, fingerprint } => match reused(fingerprint) {
            // That the id is taken is not true before the operation that took it is durable.
            Some(error) => Attempt::Answer(ticket, Err(error)),
            None => Attempt::Again(ticket),
        },
        Outcome::Done(operation) => {
            let outcome = reused(operation.fingerprint).map_or_else(|| Ok(Answered::of(&operation, true)), Err);
            Attempt::Answer(Ticket(0), outcome)
        }
    })
}
