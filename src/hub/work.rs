//! Work on groups: parked until its group is loaded, begun in the order in which it came.

use std::collections::VecDeque;

use super::Hub;
use super::cache::Cached;
use super::changes::not_found;
use super::group::{Group, Slot};
use super::release::Release;
use super::task::Task;
use crate::ids::GroupId;
use crate::store::{Damaged, GroupState, Request as StoreRequest};
use crate::wire::{ErrorBody, ErrorCode, Reply};

impl Hub {
    /// Does work on a group, now if it can, else in its turn.
    pub(super) fn enqueue(&mut self, id: GroupId, task: Task) {
        let slot = self.groups.entry(id).or_insert_with(|| {
            self.requests.push_back(StoreRequest::LoadGroup { group: id });
            self.loads += 1;
            Slot { group: None, waiting: VecDeque::new() }
        });
        if slot.group.is_none() || !slot.waiting.is_empty() {
            slot.waiting.push_back(task);
            return;
        }
        if let Err(task) = self.begin(id, task)
            && let Some(slot) = self.groups.get_mut(&id)
        {
            slot.waiting.push_front(*task);
        }
    }

    /// Goes on with what waits for a group, until something has to wait again.
    pub(super) fn run_waiting(&mut self, id: GroupId) {
        loop {
            let Some(slot) = self.groups.get_mut(&id) else { return };
            if slot.group.is_none() {
                return;
            }
            let Some(task) = slot.waiting.pop_front() else { return };
            if let Err(task) = self.begin(id, task) {
                if let Some(slot) = self.groups.get_mut(&id) {
                    slot.waiting.push_front(*task);
                }
                return;
            }
        }
    }

    /// Begins one piece of work on a loaded group; gives it back if something else has to be loaded first.
    fn begin(&mut self, id: GroupId, task: Task) -> Result<(), Box<Task>> {
        if let Some(group) = self.loaded_group(id) {
            group.used = true;
        }
        match task {
            Task::Change { caller, key, kind, act } => self.change(id, caller, key, kind, act),
            // Ephemeral: it goes by the last durable list, and waits for nothing.
            Task::Signal { caller, body } => {
                self.signal(id, &caller, &body);
                Ok(())
            }
            Task::RepeatCreate { .. }
            | Task::Show { .. }
            | Task::History(_)
            | Task::Mark { .. }
            | Task::Readers { .. }
            | Task::Feed(_)
            | Task::Notice { .. } => {
                self.read_in_order(id, task);
                Ok(())
            }
        }
    }

    /// A read waits for the changes of its group that were there before it: they took effect first.
    fn read_in_order(&mut self, id: GroupId, task: Task) {
        let pending = self.loaded_group(id).filter(|group| group.pending > 0).map(|group| group.last_ticket);
        match pending {
            Some(ticket) => self.releases.hold(ticket, Release::Read { group: id, task }),
            None => self.run_read(id, task),
        }
    }

    /// Does work that reads the durable state of a group.
    pub(super) fn run_read(&mut self, id: GroupId, task: Task) {
        match task {
            Task::Change { .. } | Task::Signal { .. } => unreachable!("they begin when they come"),
            Task::RepeatCreate { caller, operation } => self.repeat_create(&caller, operation),
            Task::Show { caller, newer_than } => self.show(id, &caller, newer_than),
            Task::History(job) => self.read_history(id, job),
            Task::Mark { caller, received, read } => self.mark(id, &caller, received, read),
            Task::Readers { caller, seq } => self.readers(id, caller, seq),
            Task::Feed(job) => self.tell_feed_item(id, job),
            Task::Notice { connection } => self.tell_loaded(connection, id),
        }
    }

    pub(super) fn loaded_group(&mut self, id: GroupId) -> Option<&mut Group> {
        self.groups.get_mut(&id).and_then(|slot| slot.group.as_mut())
    }

    /// A load came back: who is live in the group follows from who is on line and behind in nothing of it.
    pub(super) fn finish_group_load(&mut self, id: GroupId, state: Result<Option<GroupState>, Damaged>) {
        self.loads -= 1;
        let state = match state {
            Ok(Some(state)) => state,
            Ok(None) => return self.fail_waiting(id, &not_found()),
            Err(Damaged) => return self.fail_waiting(id, &damaged()),
        };
        let mut group = Group::loaded(state);
        let keys = group.durable.members.iter().flat_map(|member| self.directory.connections(&member.user));
        group.live = keys
            .copied()
            .filter(|key| self.connections.find(*key).is_some_and(|connection| connection.is_live(id)))
            .collect();
        let bytes = group.memory_bytes();
        self.cache.recount(&mut group.counted_bytes, bytes);
        self.cache.insert(Cached::Group(id));
        if let Some(slot) = self.groups.get_mut(&id) {
            slot.group = Some(group);
        }
        self.run_waiting(id);
    }

    /// There is no such group, or it cannot be read: whoever waited for it is told.
    fn fail_waiting(&mut self, id: GroupId, error: &ErrorBody) {
        let Some(slot) = self.groups.remove(&id) else { return };
        for task in slot.waiting {
            match task {
                Task::Change { caller, .. } | Task::Signal { caller, .. } => {
                    self.refuse(caller.connection, caller.request_id, error.clone());
                }
                Task::Show { caller, .. } | Task::Readers { caller, .. } => {
                    self.answer_large(caller.connection, caller.request_id, &Reply::Error(error.clone()));
                }
                Task::Mark { caller, .. } => self.refuse_mark(&caller, error.clone()),
                Task::Feed(job) => self.tell_feed_item_of_nobody(job),
                Task::RepeatCreate { caller, operation } => self.repeat_create(&caller, operation),
                Task::History(job) => self.refuse_part(id, job, error.clone()),
                Task::Notice { connection } => self.tell_missing(connection, id, error.code),
            }
        }
    }
}

pub(super) fn damaged() -> ErrorBody {
    ErrorBody::new(ErrorCode::Damaged, 0, "this place on the server's disk is damaged; its log names the file")
}
