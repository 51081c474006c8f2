//! What the clients do next: drawn from a seed and from what anybody has seen of the groups so far.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use rand::rngs::StdRng;
use rand::seq::{IndexedRandom as _, SliceRandom as _};
use rand::{Rng as _, SeedableRng as _};
use roundtable::ids::OperationId;

use super::format::{Act, Call, Entry, Event, Packet, body_text};
use super::translate::body_of;

/// Sees every group from its first entry to its last, because it never leaves, acknowledges nothing, and nobody
/// removes it: so the history knows the whole log of each group.
pub(crate) const KEEPER: &str = "keeper";

/// A group, as far as anybody has seen it. Only what is asked next depends on it, nothing that is checked.
#[derive(Debug, Default)]
pub(crate) struct Sketch {
    pub(crate) members: BTreeSet<String>,
    owner: String,
    version: u64,
    pub(crate) head: u64,
}

/// What all clients together have in mind.
#[derive(Debug)]
pub(crate) struct Board {
    pub(crate) random: StdRng,
    users: Vec<String>,
    pub(crate) groups: BTreeMap<String, Sketch>,
    /// While the disk is full, bodies are large: what was granted before must be used up.
    flood: Arc<AtomicBool>,
    /// More groups than this, with somebody in them, are not made.
    groups_max: usize,
}

impl Board {
    pub(crate) fn new(seed: u64, users: Vec<String>, flood: Arc<AtomicBool>) -> Self {
        let groups_max = 4 + 3 * users.len();
        Self { random: StdRng::seed_from_u64(seed), users, groups: BTreeMap::new(), flood, groups_max }
    }

    /// Whether something of this likelihood, in a thousand, is so.
    pub(crate) fn happens(&mut self, in_a_thousand: u32) -> bool {
        self.random.random_range(0..1000) < in_a_thousand
    }

    // ---- what was seen -----------------------------------------------------------------------------------------

    pub(crate) fn see_head(&mut self, group: &str, head: u64) {
        let sketch = self.groups.entry(group.to_owned()).or_default();
        sketch.head = sketch.head.max(head);
    }

    pub(crate) fn see_packet(&mut self, packet: &Packet) {
        self.see_head(&packet.group, packet.head);
        let sketch = self.groups.entry(packet.group.clone()).or_default();
        if packet.version > sketch.version {
            sketch.version = packet.version;
            sketch.members = packet.members.iter().cloned().collect();
            sketch.owner.clone_from(&packet.owner);
        }
    }

    pub(crate) fn see_entry(&mut self, group: &str, entry: &Entry) {
        self.see_head(group, entry.seq);
        let sketch = self.groups.entry(group.to_owned()).or_default();
        let Some(shown) = entry.shown.as_ref().filter(|_| entry.version == entry.seq && entry.seq > sketch.version)
        else {
            return;
        };
        sketch.version = entry.seq;
        match &shown.event {
            Event::Created { members, .. } => {
                sketch.members = members.iter().cloned().collect();
                sketch.owner.clone_from(&shown.sender);
            }
            Event::Added(users) => sketch.members.extend(users.iter().cloned()),
            Event::Removed(users) => sketch.members.retain(|member| !users.contains(member)),
            Event::Left { heir, .. } => {
                sketch.members.remove(&shown.sender);
                sketch.owner = heir.clone().unwrap_or_else(|| sketch.owner.clone());
            }
            Event::Transferred(owner) => sketch.owner.clone_from(owner),
            Event::Dissolved => sketch.members.clear(),
            Event::Renamed(_) | Event::Message(_) | Event::Whisper { .. } => {}
        }
    }

    // ---- what is wished for ------------------------------------------------------------------------------------

    /// A new change, with an operation id of its own.
    pub(crate) fn change(&mut self, user: &str) -> Call {
        let op = self.operation();
        let dice = self.random.random_range(0..100);
        let alive = self.groups.values().filter(|sketch| sketch.members.len() > 2).count();
        let group = self.pick_group(user);
        match group {
            Some(group) if alive >= self.groups_max || dice >= 5 => {
                let act = self.act(user, &group, &op);
                Call::Change { op, group, act }
            }
            _ => {
                let mut members = self.some_users(6);
                // Last, so that it is the heir of nobody else.
                members.push(KEEPER.to_owned());
                Call::Create { title: op.clone(), op, members }
            }
        }
    }

    fn act(&mut self, user: &str, group: &str, op: &str) -> Act {
        let (members, owner) = match self.groups.get(group) {
            Some(sketch) => (sketch.members.iter().cloned().collect::<Vec<_>>(), sketch.owner.clone()),
            None => (Vec::new(), String::new()),
        };
        let others: Vec<String> = members.into_iter().filter(|member| member != KEEPER && member != user).collect();
        let other = others.choose(&mut self.random).cloned();
        // An owner uses its rights more often than others try to.
        let dice = if owner == user { self.random.random_range(0..100) } else { self.random.random_range(0..130) };
        match (dice, other) {
            (0..8, _) => Act::Add(self.some_users(2)),
            (8..13, Some(other)) => Act::Remove(vec![other]),
            (13..15, _) => Act::Leave,
            (15..20, _) => Act::Rename(op.to_owned()),
            (20..24, Some(other)) => Act::Transfer(other),
            (24..25, _) => Act::Dissolve,
            (25..34, Some(other)) => Act::Whisper { to: vec![other, user.to_owned()], body: self.body(op) },
            // Somebody who may not be in it.
            (34..36, _) => Act::Whisper { to: self.some_users(1), body: self.body(op) },
            _ => Act::Send(self.body(op)),
        }
    }

    /// The same operation id with other content.
    pub(crate) fn with_other_content(&mut self, call: &Call) -> Option<Call> {
        let mut call = call.clone();
        match &mut call {
            Call::Create { members, .. } => members.insert(0, format!("other-{}", self.random.random_range(0..1000))),
            Call::Change { op, act: Act::Send(body) | Act::Whisper { body, .. }, .. } => {
                *body = body_text(&body_of(op, self.random.random_range(5_000..6_000)));
            }
            Call::Change { act: Act::Rename(title), .. } => title.push_str(" other"),
            _ => return None,
        }
        Some(call)
    }

    pub(crate) fn get(&mut self, user: &str) -> Option<Call> {
        let group = self.pick_group(user)?;
        let version = self.groups.get(&group).map_or(0, |sketch| sketch.version);
        let newer_than = if self.happens(500) { version } else { 0 };
        Some(Call::Get { group, newer_than })
    }

    /// History of a few groups from anywhere.
    pub(crate) fn history(&mut self, user: &str) -> Option<Call> {
        let mut groups = BTreeMap::new();
        for _ in 0..self.random.random_range(1..4) {
            let group = self.pick_group(user)?;
            let head = self.groups.get(&group).map_or(1, |sketch| sketch.head.max(1));
            let from = if self.happens(200) {
                self.random.random_range(1..=head)
            } else {
                head.saturating_sub(self.random.random_range(0..20)).max(1)
            };
            groups.insert(group, from);
        }
        Some(Call::History { groups: groups.into_iter().collect() })
    }

    /// Mostly one that the user is in, and of these mostly the same few; now and then any.
    fn pick_group(&mut self, user: &str) -> Option<String> {
        let anywhere = self.happens(60);
        let wanted = |sketch: &Sketch| anywhere || sketch.members.contains(user);
        let of_user = || self.groups.iter().filter(|(_, sketch)| wanted(sketch)).map(|(group, _)| group);
        let count = of_user().count();
        if count == 0 {
            return None;
        }
        let place = self.random.random_range(0..count).min(self.random.random_range(0..count));
        let wanted = |sketch: &Sketch| anywhere || sketch.members.contains(user);
        self.groups.iter().filter(|(_, sketch)| wanted(sketch)).map(|(group, _)| group).nth(place).cloned()
    }

    fn some_users(&mut self, max: usize) -> Vec<String> {
        let count = self.random.random_range(1..=max);
        let mut users = self.users.clone();
        users.partial_shuffle(&mut self.random, count).0.to_vec()
    }

    fn body(&mut self, op: &str) -> String {
        let bytes = match self.random.random_range(0..100) {
            0..60 if self.flood.load(Ordering::Relaxed) => self.random.random_range(20_000..60_000),
            0..10 => self.random.random_range(0..60_000),
            10..20 => self.random.random_range(0..4_000),
            _ => self.random.random_range(0..200),
        };
        body_text(&body_of(op, bytes))
    }

    fn operation(&mut self) -> String {
        let mut bytes = [0; 16];
        self.random.fill(&mut bytes);
        OperationId::from_bytes(bytes).expect("not zero").to_string()
    }
}
