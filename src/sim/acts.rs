//! What clients do: honest ones what a person would, hostile ones what they should not.

use rand::Rng;

use super::device::operation_of;
use super::manner::Manner;
use super::truth::Attempt;
use super::world::World;
use crate::client::Standing;
use crate::ids::{DeviceId, GroupId, OperationId, UserId};
use crate::wire::{GroupSeq, Hello, HistoryRequest, Mark, Request};

/// Answers that a client waits for at once.
const WAITING_MAX: usize = 6;
/// Groups of a run.
const GROUPS_MAX: usize = 5;

impl World {
    /// Some client does something.
    pub(super) fn act(&mut self) {
        let at = self.random.random_range(0..self.devices.len());
        if !self.tend(at) || self.devices[at].waiting() >= WAITING_MAX {
            return;
        }
        let Some((request, user)) = self.some_call(at) else { return };
        if self.story.is_some() {
            let title = self.devices[at].title();
            let text = format!("{request:?}");
            let user = user.as_ref().map_or(String::new(), |user| format!(" for {user}"));
            self.tell(|| format!("{title} asks{user}: {}", text.chars().take(150).collect::<String>()));
        }
        if let Request::Kick { user } = &request {
            let cut = self.lines_of(user);
            self.devices[at].kicks(cut);
        }
        self.devices[at].ask(request, user, &mut self.truth);
    }

    /// What a device asks, by what it is, and for whom if not for its own user.
    fn some_call(&mut self, at: usize) -> Option<(Request, Option<UserId>)> {
        match self.devices[at].manner() {
            Manner::Keeps | Manner::Marks => self.some_request(at).map(|request| (request, None)),
            Manner::Service => {
                // Pages of history and lists are checked as users see them.
                let request = self.some_request(at).filter(|request| operation_of(request).is_some())?;
                let user = self.random.random_range(0..self.users.len());
                Some((request, Some(self.users[user].clone())))
            }
            Manner::Operator => Some(self.some_look()),
        }
    }

    /// What operators ask.
    fn some_look(&mut self) -> (Request, Option<UserId>) {
        let user = self.users[self.random.random_range(0..self.users.len())].clone();
        let group = self.some_group();
        match (self.random.random_range(0..12_u32), group) {
            (0, _) => (Request::Kick { user }, None),
            (1..4, Some(group)) => (Request::GetGroup { group, newer_than: 0 }, None),
            (4..7, _) => (Request::ListGroups { after: None, count_max: 3 }, Some(user)),
            (7..9, _) => (Request::Stats, None),
            _ => (Request::Connections { after: 0, count_max: self.random.random_range(0..4) }, None),
        }
    }

    /// Connects it if it can be, tells it the time; whether it is connected.
    pub(super) fn tend(&mut self, at: usize) -> bool {
        let now_ms = self.now.monotonic_ms;
        let device = &mut self.devices[at];
        if device.line.is_none() {
            if now_ms < device.away_until_ms || matches!(device.conversation.standing(), Standing::Over(_)) {
                return false;
            }
            return self.accept(Some(at));
        }
        if device.conversation.handle_time(now_ms).is_err() {
            let number = device.line;
            self.count("server silent");
            if let Some(line) = self.lines.iter().position(|line| Some(line.number) == number) {
                let line = self.lines.remove(line);
                if let (Some(key), Some(server)) = (line.key, &mut self.server) {
                    server.hub.handle_closed(key, self.now);
                }
            }
            self.forget_line(at);
            return false;
        }
        true
    }

    fn forget_line(&mut self, at: usize) {
        self.devices[at].line = None;
        self.devices[at].conversation.handle_disconnected();
    }

    fn operation(&mut self) -> OperationId {
        self.operations += 1;
        OperationId::from_bytes((u128::from(self.operations) | 1 << 100).to_be_bytes()).expect("not nil")
    }

    fn some_group(&mut self) -> Option<GroupId> {
        let count = self.truth.groups.len();
        let at = self.random.random_range(0..count.max(1));
        self.truth.groups.keys().nth(at).copied()
    }

    fn some_users(&mut self, chance: f64) -> Vec<UserId> {
        let users = self.users.clone();
        users.into_iter().filter(|_| self.random.random_bool(chance)).collect()
    }

    fn body(&mut self, operation: OperationId) -> std::sync::Arc<[u8]> {
        let bytes = self.random.random_range(0..=self.plan.body_bytes_max);
        let mut body = operation.as_bytes().to_vec();
        body.resize(16 + bytes, 7);
        body.into()
    }

    fn some_request(&mut self, at: usize) -> Option<Request> {
        let operation = self.operation();
        let roll = self.random.random_range(0..100_u32);
        if self.truth.groups.is_empty() || (roll < 8 && self.truth.groups.len() < GROUPS_MAX) {
            let title = format!("group {}", self.operations).into();
            return Some(Request::Create { operation, title, members: self.some_users(0.7) });
        }
        let group = self.some_group()?;
        Some(match roll {
            0..60 => Request::Send { operation, group, body: self.body(operation) },
            60..64 => Request::Whisper { operation, group, to: self.some_users(0.3), body: self.body(operation) },
            64..68 => Request::Add { operation, group, members: self.some_users(0.4) },
            68..71 => Request::Remove { operation, group, members: self.some_users(0.3) },
            71 => Request::Leave { operation, group },
            72..74 => Request::Rename { operation, group, title: format!("title {}", self.operations).into() },
            74..76 => {
                let owner = self.random.random_range(0..self.users.len());
                Request::Transfer { operation, group, owner: self.users[owner].clone() }
            }
            76 if self.random.random_bool(0.3) => Request::Dissolve { operation, group },
            76..79 => Request::GetGroup { group, newer_than: 0 },
            79..81 => Request::ListGroups { after: None, count_max: 3 },
            81..83 => Request::Readers { group, seq: 0 },
            83..86 => {
                let seq = self.random.random_range(1..6);
                let groups = vec![GroupSeq { group, seq }];
                Request::History(HistoryRequest { groups, entries_max: 3, bytes_max: 0 })
            }
            86..90 => {
                let body = vec![1; 4].into();
                let _ = self.devices[at].conversation.say_once(&Request::Signal { group, body }, None);
                return None;
            }
            _ => {
                let marks: Vec<Mark> = self.devices[at]
                    .positions()
                    .filter(|(_, received)| *received > 0)
                    .map(|(group, received)| Mark { group, received, read: 0 })
                    .collect();
                let _ = self.devices[at].conversation.acknowledge(&marks);
                return None;
            }
        })
    }

    /// A peer that means no good.
    pub(super) fn step_hostile(&mut self) {
        let Some(at) = self.lines.iter().position(|line| line.is_hostile && line.key.is_some()) else {
            self.accept(None);
            return;
        };
        self.count("hostile act");
        let mut bytes = Vec::new();
        match self.random.random_range(0..6_u32) {
            0 => {
                let device = DeviceId::new("d").expect("a name");
                let (features, heartbeat_s, token) = (0, 0, "user:mallory".to_owned());
                let hello = Hello { version_min: 1, version_max: 1, features, heartbeat_s, device, token };
                Request::Hello(hello).encode_frame(&mut bytes, 1);
            }
            1 => {
                let count = self.random.random_range(1..200_usize);
                bytes.extend((0..count).map(|_| self.random.random::<u8>()));
            }
            2 => {
                Request::Ping.encode_frame(&mut bytes, 2);
                let at = self.random.random_range(0..bytes.len());
                bytes[at] ^= 1 << self.random.random_range(0..8_u32);
            }
            3 => {
                let count = self.random.random_range(1..150_u32);
                (0..count).for_each(|id| Request::Ping.encode_frame(&mut bytes, id + 1));
            }
            _ => self.pry(&mut bytes),
        }
        self.lines[at].up.extend(bytes);
    }

    /// Asks for what is not its own.
    fn pry(&mut self, bytes: &mut Vec<u8>) {
        let Some(group) = self.some_group() else { return };
        let operation = self.operation();
        let request = match self.random.random_range(0..5_u32) {
            0 => Request::GetGroup { group, newer_than: 0 },
            1 => {
                let groups = vec![GroupSeq { group, seq: 1 }];
                Request::History(HistoryRequest { groups, entries_max: 0, bytes_max: 0 })
            }
            2 => Request::Send { operation, group, body: vec![6; 6].into() },
            3 => Request::Readers { group, seq: 0 },
            _ => Request::ListGroups { after: None, count_max: 9 },
        };
        if let Some(operation) = operation_of(&request) {
            let mallory = UserId::new("mallory").expect("a name");
            let attempt = Attempt { user: mallory, by: None, request: request.clone() };
            self.truth.attempts.insert(operation, attempt);
        }
        request.encode_frame(bytes, 3);
    }
}
