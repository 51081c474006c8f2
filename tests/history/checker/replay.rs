//! The states that a group goes through, by its log; entries that the rules do not allow (P3).

use std::collections::{BTreeMap, HashMap};

use super::super::format::Event;
use super::logs::{Known, Log, Logs};
use super::rules::{Decision, State, act_of};
use super::{Promise, Verdict};

/// A stay of a user in a group: from the entry that made it a member to the one that ended it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Stay {
    pub(super) joined: u64,
    pub(super) until: Option<u64>,
}

/// All states of a group.
#[derive(Debug, Default)]
pub(super) struct Replay<'l> {
    /// Each with the seq that made it, ascending.
    states: Vec<State>,
    /// In their order.
    stays: HashMap<&'l str, Vec<Stay>>,
    pub(super) head: u64,
}

/// By group.
pub(super) type Replays<'l> = BTreeMap<&'l str, Replay<'l>>;

impl Replay<'_> {
    /// The state after a seq; `None` before the first.
    pub(super) fn state(&self, seq: u64) -> Option<&State> {
        let count = self.states.partition_point(|state| state.version <= seq);
        count.checked_sub(1).map(|last| &self.states[last])
    }

    /// The states that were current between two seqs, both included; `None` if there was none at the first.
    pub(super) fn states(&self, from: u64, to: u64) -> impl Iterator<Item = Option<&State>> {
        let first = self.states.partition_point(|state| state.version <= from);
        let last = self.states.partition_point(|state| state.version <= to);
        let before = first.checked_sub(1).map(|at| &self.states[at]);
        std::iter::once(before).chain(self.states[first..last.max(first)].iter().map(Some))
    }

    pub(super) fn stays(&self, user: &str) -> &[Stay] {
        self.stays.get(user).map_or(&[], Vec::as_slice)
    }

    /// The stay that an entry belongs to, for a user: the one that makes a member and the one that ends it included.
    pub(super) fn stay_at(&self, user: &str, seq: u64) -> Option<Stay> {
        let within = |stay: &&Stay| stay.joined <= seq && stay.until.is_none_or(|until| seq <= until);
        self.stays(user).iter().find(within).copied()
    }

    /// Everybody who was ever in it.
    pub(super) fn users(&self) -> impl Iterator<Item = &str> {
        self.stays.keys().copied()
    }
}

pub(super) fn all<'l>(logs: &Logs<'l>, verdict: &mut Verdict) -> Replays<'l> {
    logs.iter().map(|(group, log)| (*group, replay(group, log, verdict))).collect()
}

fn replay<'l>(group: &str, log: &Log<'l>, verdict: &mut Verdict) -> Replay<'l> {
    let mut replay = Replay { head: log.entries.len() as u64, ..Replay::default() };
    for (seq, known) in (1..).zip(&log.entries) {
        let Some(known) = known else { return replay };
        if let Err(why) = replay.follow(seq, known) {
            verdict.accuse(Promise::P3, known.place, format!("seq {seq} of {group}: {why}"));
        }
    }
    replay
}

impl<'l> Replay<'l> {
    fn follow(&mut self, seq: u64, known: &Known<'l>) -> Result<(), String> {
        let before = self.states.last();
        let Some(shown) = known.shown else {
            // A whisper that none of its readers saw again.
            let version = before.map_or(0, |state| state.version);
            return (known.version == version).then_some(()).ok_or(format!("version {}", known.version));
        };
        let next = match (&shown.event, before) {
            (Event::Created { title, members }, None) if members.first() == Some(&shown.sender) => {
                Some(State::created(&shown.sender, title, members))
            }
            (Event::Created { .. }, _) | (_, None) => return Err(format!("{:?} is out of place", shown.event)),
            (event, Some(state)) => {
                let act = act_of(event).ok_or("a second creation")?;
                let decided = state.decide(&shown.sender, &act);
                if decided != Decision::Effect(event.clone()) {
                    return Err(format!("{} did {event:?}, to which the rules say {decided:?}", shown.sender));
                }
                state.after(seq, &shown.sender, event)
            }
        };
        let version = next.as_ref().or(before).map_or(0, |state| state.version);
        if let Some(next) = next {
            self.note_stays(seq, &next, &shown.event, &shown.sender);
            self.states.push(next);
        }
        (known.version == version).then_some(()).ok_or(format!("version {} instead of {version}", known.version))
    }

    fn note_stays(&mut self, seq: u64, next: &State, event: &'l Event, sender: &'l str) {
        let mut end = |user: &str| {
            if let Some(stay) = self.stays.get_mut(user).and_then(|stays| stays.last_mut()) {
                stay.until = stay.until.or(Some(seq));
            }
        };
        match event {
            Event::Created { members: users, .. } | Event::Added(users) => {
                for user in users {
                    self.stays.entry(user).or_default().push(Stay { joined: seq, until: None });
                }
            }
            Event::Removed(users) => users.iter().for_each(|user| end(user)),
            Event::Left { .. } => end(sender),
            Event::Dissolved => {
                for stays in self.stays.values_mut() {
                    if let Some(stay) = stays.last_mut() {
                        stay.until = stay.until.or(Some(seq));
                    }
                }
            }
            Event::Renamed(_) | Event::Transferred(_) | Event::Message(_) | Event::Whisper { .. } => {}
        }
        debug_assert!(next.version == seq);
    }
}
