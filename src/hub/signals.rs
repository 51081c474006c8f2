//! Signals: ephemeral messages (typing and the like). Never stored, and lost to whoever is behind or reads slowly.

use std::sync::Arc;

use super::burst::Audience;
use super::changes::{not_found, refusal_body};
use super::task::Caller;
use super::{ConnectionKey, Hub};
use crate::group::{Limit, Refusal};
use crate::ids::{GroupId, UserId};
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
        let mut frame = Vec::new();
        let (sender, by) = (caller.user.clone(), caller.by.clone());
        Push::Signal { group: id, sender, by, body: body.to_vec() }.encode_frame(&mut frame);
        let audience = Audience { group: id, except: Some(caller.user.clone()) };
        let takers = self.fan_out_again(&audience, &frame).unwrap_or_else(|| {
            let takers = self.signal_takers(id, &caller.user);
            self.fan_out(&takers, frame, Some(audience));
            takers.len()
        });
        self.counters.signals_pushed += takers as u64;
        self.finish_request(caller.connection, 0, None);
    }

    /// The connections on which a group is live, but those of the sender and of those who are behind.
    fn signal_takers(&mut self, id: GroupId, sender: &UserId) -> Vec<ConnectionKey> {
        let live = self.loaded_group(id).map(|group| std::mem::take(&mut group.live)).unwrap_or_default();
        self.count_burst(&live);
        let takes = |key: &&ConnectionKey| {
            self.connections.find(**key).is_some_and(|connection| {
                let others = connection.session().is_some_and(|session| session.user != *sender);
                others && !connection.closing && connection.outbox.bytes() <= OUTPUT_BYTES_SOFT
            })
        };
        let takers = live.iter().filter(takes).copied().collect();
        if let Some(group) = self.loaded_group(id) {
            group.live = live;
        }
        takers
    }
}
