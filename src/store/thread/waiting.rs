//! What waits for the index thread, in order, and whom it concerns.
//!
//! A look-up has to see every packet that was handed over before it. What concerns neither its group nor its user
//! cannot change the answer: so such a look-up is answered at once, however much there is to fold.

use std::collections::{HashMap, VecDeque};
use std::hash::Hash;

use super::index::Message;
use crate::group::{Event, Succession};
use crate::ids::{GroupId, Principal, UserId};
use crate::store::journal::Content;
use crate::store::{Effect, Request};

/// Packets that are folded before look-ups have their turn again.
const PACKETS_PER_TURN: usize = 64;

/// How much of what waits concerns each.
#[derive(Debug)]
struct Concerned<K>(HashMap<K, u32>);

impl<K> Default for Concerned<K> {
    fn default() -> Self {
        Self(HashMap::new())
    }
}

impl<K: Hash + Eq + Clone> Concerned<K> {
    fn has(&self, key: &K) -> bool {
        !self.0.is_empty() && self.0.contains_key(key)
    }

    fn count(&mut self, key: &K, step: Step) {
        match step {
            Step::Comes => *self.0.entry(key.clone()).or_insert(0) += 1,
            Step::Goes => {
                let left = self.0.get_mut(key).map_or(0, |count| {
                    *count -= 1;
                    *count
                });
                if left == 0 {
                    self.0.remove(key);
                }
            }
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Step {
    Comes,
    Goes,
}

/// Whom packets concern.
#[derive(Default)]
struct Audience {
    groups: Concerned<GroupId>,
    users: Concerned<UserId>,
    principals: Concerned<Principal>,
}

/// Messages in the order in which they came, but for the look-ups that are answered already.
///
/// Whom they concern is counted when a look-up asks. Where none does, as under a burst of creates, counting was a
/// seventh of what the index thread did.
///
/// Invariant: `audience` is of the packets in the first `counted` of `messages`.
#[derive(Default)]
pub(super) struct Waiting {
    messages: VecDeque<Message>,
    counted: usize,
    audience: Audience,
}

impl Waiting {
    /// Appends a message; one with very many packets as several, what came of cleaning with the last.
    pub(super) fn push(&mut self, message: Message) {
        let Message::Packets { mut packets, running_ms, carrying, origin } = message else {
            return self.messages.push_back(message);
        };
        while packets.len() > PACKETS_PER_TURN {
            let rest = packets.split_off(PACKETS_PER_TURN);
            let first = std::mem::replace(&mut packets, rest);
            self.messages.push_back(Message::Packets { packets: first, running_ms, carrying: None, origin });
        }
        self.messages.push_back(Message::Packets { packets, running_ms, carrying, origin });
    }

    /// The oldest message.
    pub(super) fn pop(&mut self) -> Option<Message> {
        let message = self.messages.pop_front()?;
        if self.counted > 0 {
            self.counted -= 1;
            self.audience.count(&message, Step::Goes);
        }
        Some(message)
    }

    pub(super) fn is_empty(&self) -> bool {
        self.messages.is_empty()
    }

    /// Whether an answer could be another one once everything that waits is folded, as far as the request tells.
    pub(super) fn concerns(&mut self, request: &Request) -> bool {
        if self.is_empty() {
            return false;
        }
        match request {
            Request::LoadGroup { group }
            | Request::LoadMembership { group, .. }
            | Request::ReadMarks { group, .. }
            | Request::ReadEntries { group, .. } => self.audience().groups.has(group),
            Request::LoadUser { user, .. } | Request::ListGroups { user, .. } => self.audience().users.has(user),
            Request::LoadOperations { principal } => self.audience().principals.has(principal),
            Request::ReadStats { .. } => false,
            // These tell of everything; changes and backups do not come here.
            Request::ScanGroups { .. } | Request::ReadFeed { .. } | Request::Commit { .. } | Request::Backup { .. } => {
                true
            }
        }
    }

    /// Whether something that waits is of this group: then what a user's list says of it is old.
    pub(super) fn concerns_group(&mut self, group: GroupId) -> bool {
        self.audience().groups.has(&group)
    }

    /// Whom everything that waits concerns.
    fn audience(&mut self) -> &Audience {
        for message in self.messages.range(self.counted..) {
            self.audience.count(message, Step::Comes);
        }
        self.counted = self.messages.len();
        &self.audience
    }
}

impl Audience {
    fn count(&mut self, message: &Message, step: Step) {
        let Message::Packets { packets, .. } = message else { return };
        for (_, content) in packets {
            match content {
                Content::Effect(effect) => self.count_effect(effect, step),
                Content::Marks(marks) => {
                    for mark in marks {
                        self.groups.count(&mark.group, step);
                        self.users.count(&mark.user, step);
                    }
                }
                // What is carried was folded before; that a floor moved is told when it is folded.
                Content::Carried(_) | Content::Watermark(_) => {}
            }
        }
    }

    fn count_effect(&mut self, effect: &Effect, step: Step) {
        self.groups.count(&effect.group, step);
        self.principals.count(&effect.principal, step);
        match &effect.entry.event {
            Event::Created { members, .. } | Event::Added { members } | Event::Removed { members } => {
                for user in members {
                    self.users.count(user, step);
                }
            }
            Event::Left { succession: Succession::Unchanged | Succession::Passed { .. } } => {
                self.users.count(&effect.entry.sender, step);
            }
            // Whoever was a member still has the group in its list.
            Event::Left { succession: Succession::Dissolved }
            | Event::Dissolved
            | Event::Renamed { .. }
            | Event::Transferred { .. }
            | Event::Message { .. }
            | Event::Whisper { .. } => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::journal::tests::{effect, group, user};
    use crate::store::journal::{Placed, Position};
    use crate::store::thread::index::Origin;
    use crate::store::{Mark, ReadId};

    fn packets(changes: Vec<crate::store::Change>) -> Message {
        let placed = Placed { lsn: 1, position: Position { segment: 1, offset: 0 }, bytes: 64 };
        let packets = changes.into_iter().map(|change| (placed, Content::from(change))).collect();
        Message::Packets { packets, running_ms: 0, carrying: None, origin: Origin::Journal }
    }

    fn created(number: u8, members: &[&str]) -> crate::store::Change {
        let members: Vec<_> = members.iter().map(|name| user(name)).collect();
        effect(group(number), 1, 1, "alice", Event::Created { title: "t".into(), members })
    }

    fn of_user(name: &str) -> Request {
        Request::LoadUser { read: ReadId(1), user: user(name) }
    }

    #[test]
    fn a_look_up_waits_for_packets_of_its_group_or_its_user_and_for_no_others() {
        let mut waiting = Waiting::default();
        waiting.push(packets(vec![created(1, &["alice", "bob"])]));
        let mark = Mark { user: user("dave"), group: group(3), received: 1, read: 1 };
        waiting.push(packets(vec![crate::store::Change::Marks(vec![mark])]));
        let principal = |name| Request::LoadOperations { principal: Principal::User(user(name)) };
        for (request, waits) in [
            (Request::LoadGroup { group: group(1) }, true),
            (Request::LoadGroup { group: group(2) }, false),
            (Request::ReadMarks { read: ReadId(1), group: group(3) }, true),
            (of_user("bob"), true),
            (of_user("carol"), false),
            (of_user("dave"), true),
            (principal("alice"), true),
            (principal("bob"), false),
            (Request::ScanGroups { read: ReadId(1), after: None, count_max: 1 }, true),
            (Request::ReadStats { read: ReadId(1) }, false),
        ] {
            assert_eq!(waiting.concerns(&request), waits, "{request:?}");
        }
        waiting.pop();
        assert!(!waiting.concerns(&of_user("bob")) && waiting.concerns(&of_user("dave")));
        waiting.push(packets(vec![created(4, &["erin"])]));
        assert!(waiting.concerns(&of_user("erin")), "what came behind what was counted");
        waiting.push(packets(vec![created(5, &["frank"])]));
        while waiting.pop().is_some() {}
        let Audience { groups, users, principals } = &waiting.audience;
        assert!(
            groups.0.is_empty() && users.0.is_empty() && principals.0.is_empty(),
            "and what was not went uncounted"
        );
        assert!(!waiting.concerns(&of_user("dave")));
    }

    #[test]
    fn very_many_packets_come_out_in_parts_and_in_order() {
        let mut waiting = Waiting::default();
        let numbers = 1..=u8::MAX;
        waiting.push(packets(numbers.clone().map(|number| created(number, &["bob"])).collect()));
        let mut seen = Vec::new();
        while let Some(Message::Packets { packets, .. }) = waiting.pop() {
            assert!(packets.len() <= PACKETS_PER_TURN);
            for (_, content) in packets {
                let Content::Effect(effect) = content else { panic!() };
                seen.push(effect.group);
            }
        }
        assert_eq!(seen, numbers.map(group).collect::<Vec<_>>());
    }
}
