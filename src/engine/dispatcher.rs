//! The thread that takes what storage says to those who wait for it.

use std::sync::Arc;

use super::EngineError;
use super::Shared;
use super::cache::Loaded;
use super::group::{self, Group};
use super::operations::Window;
use super::port::Effect;
use crate::ids::{GroupId, Principal};
use crate::store::{Damaged, Event, GroupState, Operation, ReadId, Ticket};

/// Runs until the signal ends.
pub(super) fn run(shared: &Arc<Shared>) {
    let _guard = FailOnPanic(shared);
    while shared.signal.wait() {
        while let Some(event) = shared.port.poll_event() {
            handle(shared, event);
        }
    }
}

/// Nobody waits for a thread that is gone.
struct FailOnPanic<'a>(&'a Shared);

impl Drop for FailOnPanic<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.0.port.fail("the engine's dispatcher panicked");
        }
    }
}

fn handle(shared: &Shared, event: Event) {
    match event {
        Event::Durable { ticket, .. } => release(shared, ticket),
        Event::Credit { bytes_total } => shared.port.grant(bytes_total),
        Event::Ready => shared.port.make_ready(),
        Event::GroupLoaded { group, state } => finish_group(shared, group, state),
        Event::OperationsLoaded { principal, operations } => finish_window(shared, &principal, &operations),
        Event::Failed { message } => shared.port.fail(&message),
        other => {
            if let Some(read) = read_id(&other) {
                shared.port.answer(read, other);
            }
        }
    }
}

/// The number of the read that an event answers.
fn read_id(event: &Event) -> Option<ReadId> {
    match event {
        Event::UserLoaded { read, .. }
        | Event::MarksRead { read, .. }
        | Event::GroupsListed { read, .. }
        | Event::GroupsScanned { read, .. }
        | Event::EntriesRead { read, .. }
        | Event::StatsRead { read, .. } => Some(*read),
        _ => None,
    }
}

/// Makes everything visible that waited for tickets up to this one, in their order, and then lets the callers go on:
/// so whoever hears of an answer finds what it tells of.
fn release(shared: &Shared, ticket: Ticket) {
    for effect in shared.port.take_effects(ticket) {
        show(shared, effect);
    }
    shared.port.finish(ticket);
}

fn show(shared: &Shared, effect: Effect) {
    let Effect { id, group, durable, changes_record, window, operation } = effect;
    let bytes = group::memory_bytes(&durable.record);
    group.lock().show(durable);
    if changes_record {
        shared.groups.recount(&id, &group, bytes);
    }
    if let Some((principal, window)) = window {
        let bytes = {
            let mut window = window.lock();
            window.finish(operation);
            window.memory_bytes()
        };
        shared.windows.recount(&principal, &window, bytes);
    }
}

fn finish_group(shared: &Shared, id: GroupId, state: Result<Option<GroupState>, Damaged>) {
    let mut shard = shared.groups.shard(&id);
    let found = match state {
        Ok(Some(state)) => {
            let bytes = group::memory_bytes(&state.record);
            let group = Loaded::new(Group::loaded(state), bytes);
            shard.insert(id, group.clone());
            shared.groups.trim(&mut shard);
            Ok(Some(group))
        }
        Ok(None) => Ok(None),
        Err(Damaged) => Err(EngineError::Damaged),
    };
    shared.port.finish_group(id, &found);
}

fn finish_window(shared: &Shared, principal: &Principal, operations: &[Operation]) {
    let mut shard = shared.windows.shard(principal);
    let window = Window::loaded(principal, operations);
    let bytes = window.memory_bytes();
    let window = Loaded::new(window, bytes);
    shard.insert(principal.clone(), window.clone());
    shared.windows.trim(&mut shard);
    shared.port.finish_window(principal, &window);
}
