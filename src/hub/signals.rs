//! Signals: ephemeral messages (typing and the like). Never stored, and lost to whoever is behind or reads slowly.

use std::sync::Arc;

use super::Hub;
use super::changes::{not_found, refusal_body};
use super::task::Caller;
use crate::group::{Limit, Refusal};
use crate::ids::GroupId;
use crate::limits::{BODY_BYTES_MAX, OUTPUT_BYTES_SOFT};
use crate::wire::Push;

impl Hub {
    /// To the live connections of the other members, by the last durable list. There is no answer but a refusal.
    pub(super) fn signal(&mut self, id: GroupId, caller: &Caller, body: &Arc<[u8]>) {
        let Some(group) = self.groups.get_mut(&id).and_then(|slot| slot.group.as_mut()) else {
            unreachable!("work on a group begins when it is loaded")
        };
        if !group.durable.has(&caller.user) {
            return self.refuse(caller.connection, caller.request_id, not_found());
        }
        if body.len() > BODY_BYTES_MAX {
            let error = refusal_body(Refusal::Limit(Limit::Body));
            return self.refuse(caller.connection, caller.request_id, error);
        }
        let live = std::mem::take(&mut group.live);
        self.count_burst(&live);
        let takes = |key: &&super::ConnectionKey| {
            self.connections.find(**key).is_some_and(|connection| {
                let others = connection.session().is_some_and(|session| session.user != caller.user);
                others && !connection.closing && connection.outbox.bytes() <= OUTPUT_BYTES_SOFT
            })
        };
        let takers: Vec<_> = live.iter().filter(takes).copied().collect();
        if let Some(group) = self.loaded_group(id) {
            group.live = live;
        }
        let mut frame = Vec::new();
        let (sender, by) = (caller.user.clone(), caller.by.clone());
        Push::Signal { group: id, sender, by, body: body.to_vec() }.encode_frame(&mut frame);
        self.counters.signals_pushed += takers.len() as u64;
        self.fan_out(&takers, frame);
        self.finish_request(caller.connection, 0, None);
    }
}
