//! Requests that change something: once per operation id, decided by the rules of groups on the newest state, and
//! handed to storage.

use std::collections::VecDeque;
use std::sync::Arc;

use rand::RngCore;

use super::Hub;
use super::cache::Cached;
use super::group::{Group, Slot};
use super::operations::{Outcome, ParkedCreate, Remembered, Window};
use super::release::{Release, Released};
use super::task::{Caller, OperationKey, Task};
use crate::group::{self, Act, Author, Authority, Decision, Entry, Limit, Record, Refusal};
use crate::ids::{GroupId, Principal};
use crate::limits::{BODY_BYTES_MAX, GROUP_MEMBERS_MAX, PENDING_BYTES_MAX, TITLE_BYTES_MAX};
use crate::store::{Change, Effect, Operation, Request as StoreRequest};
use crate::wire::{Changed, Created, ErrorBody, ErrorCode, Kind, Reply};

impl Hub {
    /// Makes a group, once the operations of its creator are loaded.
    pub(super) fn create(&mut self, parked: ParkedCreate) {
        if !self.has_operations(&parked.caller.principal) {
            if let Some(Window::Loading { creates, .. }) = self.windows.get_mut(&parked.caller.principal) {
                creates.push_back(parked);
            }
            return;
        }
        let ParkedCreate { caller, key, title, members } = parked;
        if self.find_operation(&caller.principal, key).is_some() {
            return self.answer_known(&caller, key, Kind::Create);
        }
        let entry = match group::create(&self.author(&caller), title, members) {
            Ok(entry) => entry,
            Err(refusal) => return self.refuse(caller.connection, caller.request_id, refusal_body(refusal)),
        };
        if let Some(error) = self.over_quota(&entry.event) {
            return self.refuse(caller.connection, caller.request_id, error);
        }
        let mut random = [0; 10];
        self.random.fill_bytes(&mut random);
        let id = GroupId::generate(self.now.wall_ms, &random);
        let record = Arc::new(Record::from_created(id, &entry).expect("a create makes a created entry"));
        let slot = Slot { group: Some(Group::begun(record.clone())), waiting: VecDeque::new() };
        if self.submit(caller, key, Kind::Create, id, record, entry, Some(slot)) {
            self.cache.insert(Cached::Group(id));
        }
    }

    /// Changes a group. Gives the task back if the operations of its principal have to be loaded first.
    pub(super) fn change(
        &mut self,
        id: GroupId,
        caller: Caller,
        key: OperationKey,
        kind: Kind,
        act: Act,
    ) -> Result<(), Box<Task>> {
        if !self.has_operations(&caller.principal) {
            if let Some(Window::Loading { groups, .. }) = self.windows.get_mut(&caller.principal) {
                groups.push(id);
            }
            return Err(Box::new(Task::Change { caller, key, kind, act }));
        }
        if self.find_operation(&caller.principal, key).is_some() {
            self.answer_known(&caller, key, kind);
            return Ok(());
        }
        let author = self.author(&caller);
        let Some(group) = self.loaded_group(id) else { unreachable!("work on a group begins when it is loaded") };
        match group::decide(&group.record, group.head, &author, act) {
            Ok(Decision::Entry(entry)) => {
                let record = group.record.clone();
                if let Some(error) = self.over_quota(&entry.event) {
                    self.refuse_at(id, caller, error);
                } else {
                    let record = record_after(&record, &entry);
                    self.submit(caller, key, kind, id, record, entry, None);
                }
            }
            Ok(Decision::Unchanged) => {
                let version = group.record.version;
                let done = kind.done().expect("changes of groups are answered by Changed");
                let changed = Changed { group: id, seq: version, version, repeated: false };
                self.answer_at(id, caller, Reply::Changed(done, changed));
            }
            Err(refusal) => self.refuse_at(id, caller, refusal_body(refusal)),
        }
        Ok(())
    }

    fn author(&self, caller: &Caller) -> Author {
        let (sender, by) = (caller.user.clone(), caller.by.clone());
        Author { sender, by, authority: Authority::Sender, at_ms: self.now.wall_ms }
    }

    /// Hands an effect to storage and lets the newest state of the group follow it. Says whether there was room.
    #[allow(clippy::too_many_arguments)] // the parts of one effect, each used once
    fn submit(
        &mut self,
        caller: Caller,
        key: OperationKey,
        kind: Kind,
        id: GroupId,
        record: Arc<Record>,
        entry: Entry,
        begun: Option<Slot>,
    ) -> bool {
        let entry = Arc::new(entry);
        let effect = Effect {
            principal: caller.principal.clone(),
            operation: key.operation,
            fingerprint: key.fingerprint,
            group: id,
            entry: entry.clone(),
        };
        let operation = Operation::of(&effect);
        let change = Change::Effect(effect);
        if !self.has_credit(&change) {
            let error = ErrorBody::new(ErrorCode::StorageFull, 0, "the disk is full: nothing was changed");
            self.refuse_at(id, caller, error);
            return false;
        }
        if let Some(slot) = begun {
            self.groups.insert(id, slot);
        }
        let connection = caller.connection;
        let principal = caller.principal.clone();
        let released = Released { caller, kind, group: id, record: record.clone(), entry: entry.clone(), operation };
        let ticket = self.commit(change, Release::Effect(Box::new(released)));
        if let Some(group) = self.loaded_group(id) {
            group.head = entry.seq;
            group.record = record;
            group.pending += 1;
            group.last_ticket = ticket;
        }
        if let Some(Window::Loaded(remembered)) = self.windows.get_mut(&principal) {
            remembered.begin(key, ticket);
        }
        self.hold_back_if_behind(connection);
        true
    }

    /// Refuses by the newest state.
    pub(super) fn refuse_at(&mut self, id: GroupId, caller: Caller, error: ErrorBody) {
        self.counters.refused += 1;
        self.answer_at(id, caller, Reply::Error(error));
    }

    /// Answers by the newest state: not before that state is durable, for the answer tells of it.
    fn answer_at(&mut self, id: GroupId, caller: Caller, reply: Reply) {
        let pending = self.loaded_group(id).filter(|group| group.pending > 0).map(|group| group.last_ticket);
        match pending.filter(|_| !planted!("hub: a refusal does not wait for what it tells of")) {
            Some(ticket) => self.releases.hold(ticket, Release::Answer { caller, reply }),
            None => self.answer(caller.connection, caller.request_id, &reply),
        }
    }

    /// Answers a request whose operation id is known: the same again, later if it is on its way, or that the id was
    /// used for something else.
    pub(super) fn answer_known(&mut self, caller: &Caller, key: OperationKey, kind: Kind) {
        let Some(outcome) = self.find_operation(&caller.principal, key) else {
            unreachable!("an operation is remembered while answers to it wait")
        };
        if outcome.fingerprint() != key.fingerprint {
            let message = "this operation id was used for another request: make a new one";
            let error = ErrorBody::new(ErrorCode::IdReused, 0, message);
            return match outcome {
                // That the id is taken is not true before the operation that took it is durable.
                Outcome::Pending { ticket, .. } => {
                    self.counters.refused += 1;
                    let (caller, reply) = (caller.clone(), Reply::Error(error));
                    self.releases.hold(ticket, Release::Answer { caller, reply });
                }
                Outcome::Done(_) => self.refuse(caller.connection, caller.request_id, error),
            };
        }
        match outcome {
            Outcome::Pending { ticket, .. } => {
                self.releases.hold(ticket, Release::Join { caller: caller.clone(), key, kind });
            }
            Outcome::Done(operation) if kind == Kind::Create => {
                self.enqueue(operation.group, Task::RepeatCreate { caller: caller.clone(), operation });
            }
            Outcome::Done(Operation { group, seq, version, .. }) => {
                let done = kind.done().expect("changes of groups are answered by Changed");
                let changed = Changed { group, seq, version, repeated: true };
                self.answer(caller.connection, caller.request_id, &Reply::Changed(done, changed));
            }
        }
    }

    /// The answer to a create again: the same group, and who has it at this moment.
    pub(super) fn repeat_create(&mut self, caller: &Caller, operation: Operation) {
        let id = operation.group;
        let group = self.groups.get(&id).and_then(|slot| slot.group.as_ref());
        let others = group.into_iter().flat_map(|group| &group.durable.members);
        let on_line = others.filter(|member| member.user != caller.user).filter(|member| {
            let keys = self.directory.connections(&member.user);
            keys.iter().any(|key| self.connections.find(*key).is_some_and(|connection| connection.is_live(id)))
        });
        let others_max = operation.members.saturating_sub(1);
        let pushed = u32::try_from(on_line.count()).unwrap_or(u32::MAX).min(others_max);
        let created = Created {
            group: id,
            seq: operation.seq,
            version: operation.version,
            members: operation.members,
            pushed,
            queued: others_max - pushed,
            repeated: true,
        };
        self.answer(caller.connection, caller.request_id, &Reply::Created(created));
    }

    // ---- operations --------------------------------------------------------------------------------------------

    /// Whether the operations of a principal are loaded; if not, they will be.
    fn has_operations(&mut self, principal: &Principal) -> bool {
        match self.windows.get_mut(principal) {
            Some(Window::Loaded(remembered)) => {
                remembered.used = true;
                true
            }
            Some(Window::Loading { .. }) => false,
            None => {
                let loading = Window::Loading { creates: VecDeque::new(), groups: Vec::new() };
                self.windows.insert(principal.clone(), loading);
                self.requests.push_back(StoreRequest::LoadOperations { principal: principal.clone() });
                self.loads += 1;
                false
            }
        }
    }

    fn find_operation(&self, principal: &Principal, key: OperationKey) -> Option<Outcome> {
        match self.windows.get(principal)? {
            Window::Loaded(_) if planted!("hub: an operation that is done is done again") => None,
            Window::Loaded(remembered) => remembered.find(key.operation),
            Window::Loading { .. } => None,
        }
    }

    pub(super) fn finish_operation(&mut self, principal: &Principal, operation: Operation) {
        let Some(Window::Loaded(remembered)) = self.windows.get_mut(principal) else {
            unreachable!("a principal with pending operations stays loaded")
        };
        remembered.finish(operation);
        let bytes = remembered.memory_bytes();
        self.cache.recount(&mut remembered.counted_bytes, bytes);
    }

    pub(super) fn finish_operations_load(&mut self, principal: &Principal, operations: &[Operation]) {
        self.loads -= 1;
        let mut remembered = Remembered::new(principal, operations, self.hasher.clone());
        let bytes = remembered.memory_bytes();
        self.cache.recount(&mut remembered.counted_bytes, bytes);
        self.cache.insert(Cached::Operations(principal.clone()));
        let loaded = Window::Loaded(remembered);
        let Some(Window::Loading { creates, groups }) = self.windows.insert(principal.clone(), loaded) else {
            unreachable!("operations are loaded once")
        };
        for parked in creates {
            self.create(parked);
        }
        self.unblocked.extend(groups);
    }

    // ---- back-pressure -----------------------------------------------------------------------------------------

    /// Bytes of changes that may wait for the disk: never more than half of what storage has granted, so that a burst
    /// is slowed down where the disk has room, and refused only where it has none.
    fn pending_bytes_max(&self) -> u64 {
        (PENDING_BYTES_MAX as u64).min(self.credit_bytes.saturating_sub(self.committed_bytes))
    }

    /// While more changes wait for the disk than may, those who send more are not read.
    fn hold_back_if_behind(&mut self, key: super::ConnectionKey) {
        if self.releases.bytes <= self.pending_bytes_max() {
            return;
        }
        if let Some(connection) = self.connections.find_mut(key)
            && !connection.held_back
        {
            connection.held_back = true;
            self.held_back.push(key);
            self.counters.held_back += 1;
        }
    }

    pub(super) fn release_held_back(&mut self) {
        if self.held_back.is_empty() || self.releases.bytes > self.pending_bytes_max() / 2 {
            return;
        }
        for key in std::mem::take(&mut self.held_back) {
            if let Some(connection) = self.connections.find_mut(key) {
                connection.held_back = false;
                if !connection.is_paused() {
                    self.resumed.push_back(key);
                }
            }
        }
    }
}

/// The record after an entry: the same one where the entry does not change it.
fn record_after(record: &Arc<Record>, entry: &Entry) -> Arc<Record> {
    if !entry.event.changes_record() {
        return record.clone();
    }
    let mut next = (**record).clone();
    next.apply(entry);
    next.check_invariants();
    Arc::new(next)
}

pub(super) fn refusal_body(refusal: Refusal) -> ErrorBody {
    match refusal {
        Refusal::NotFound => not_found(),
        Refusal::Forbidden => {
            ErrorBody::new(ErrorCode::Forbidden, 0, "only the owner may do that; the owner itself goes by leaving")
        }
        Refusal::NotAMember => ErrorBody::new(ErrorCode::NotAMember, 0, "somebody who is named is not a member"),
        Refusal::Limit(limit) => {
            let (max, message) = match limit {
                Limit::Members => (GROUP_MEMBERS_MAX, "members: a group has at most 10,000"),
                Limit::Title => (TITLE_BYTES_MAX, "title: at most 256 bytes"),
                Limit::Body => (BODY_BYTES_MAX, "body: at most 65,536 bytes"),
            };
            ErrorBody::new(ErrorCode::Limit, max as u64, message)
        }
    }
}

pub(super) fn not_found() -> ErrorBody {
    ErrorBody::new(ErrorCode::NotFound, 0, "no such group, or you are not a member of it")
}
