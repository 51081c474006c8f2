//! What happened in a run, counted: a kind that never came was not tested.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::sync::{Mutex, PoisonError};

use super::format::{Act, Answer, Call, Line, Outcome, Push, What};

/// Faults, counted as they happen.
#[derive(Debug, Default)]
pub(crate) struct Tally(Mutex<BTreeMap<&'static str, u64>>);

impl Tally {
    pub(crate) fn fault(&self, name: &'static str) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner).entry(name).or_default() += 1;
    }

    pub(crate) fn faults(&self) -> BTreeMap<&'static str, u64> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

/// What became of the calls of one kind.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Calls {
    pub(crate) answered: u64,
    pub(crate) repeated: u64,
    pub(crate) refused: u64,
    pub(crate) unknown: u64,
}

/// The lines of a history, counted.
#[derive(Debug, Default)]
pub(crate) struct Counts {
    pub(crate) calls: BTreeMap<&'static str, Calls>,
    pub(crate) refusals: BTreeMap<String, u64>,
    pub(crate) pushes: BTreeMap<&'static str, u64>,
    pub(crate) connections: u64,
}

pub(crate) fn count(lines: &[Line]) -> Counts {
    let mut counts = Counts::default();
    let mut kinds: BTreeMap<(u32, u32), &'static str> = BTreeMap::new();
    for line in lines {
        match &line.what {
            What::Connect { .. } => counts.connections += 1,
            What::Invoke { conn, req, call } => {
                kinds.insert((*conn, *req), kind_of(call));
                counts.calls.entry(kind_of(call)).or_default();
            }
            What::Unknown { conn, req } => {
                counts.of(kinds.get(&(*conn, *req))).unknown += 1;
            }
            What::Return { conn, req, answer } => {
                let calls = counts.of(kinds.get(&(*conn, *req)));
                match answer {
                    Answer::Refused { code, .. } => {
                        calls.refused += 1;
                        *counts.refusals.entry(code.clone()).or_default() += 1;
                    }
                    Answer::Created { repeated: true, .. } | Answer::Changed { repeated: true, .. } => {
                        calls.repeated += 1;
                    }
                    Answer::Page { parts } => {
                        calls.answered += 1;
                        for part in parts {
                            if let Outcome::Refused { code, .. } = &part.outcome {
                                *counts.refusals.entry(format!("{code} (page)")).or_default() += 1;
                            }
                        }
                    }
                    _ => calls.answered += 1,
                }
            }
            What::Push { push, .. } => *counts.pushes.entry(push_kind(push)).or_default() += 1,
            What::Begin(_) | What::End { .. } | What::Fault(_) | What::Quiet | What::Finish => {}
        }
    }
    counts
}

impl Counts {
    fn of(&mut self, kind: Option<&&'static str>) -> &mut Calls {
        self.calls.entry(kind.copied().unwrap_or("?")).or_default()
    }

    /// For people.
    pub(crate) fn summary(&self) -> String {
        let mut text = String::from("  calls: answered / repeated / refused / without an answer\n");
        for (kind, calls) in &self.calls {
            let Calls { answered, repeated, refused, unknown } = calls;
            writeln!(text, "    {kind:<12} {answered:>8} {repeated:>8} {refused:>8} {unknown:>8}").expect("text");
        }
        writeln!(text, "  refused with: {:?}", self.refusals).expect("text");
        writeln!(text, "  pushes: {:?} on {} connections", self.pushes, self.connections).expect("text");
        text
    }
}

fn kind_of(call: &Call) -> &'static str {
    match call {
        Call::Attach { has: Some(_) } => "attach",
        Call::Attach { has: None } => "attach marks",
        Call::Create { .. } => "create",
        Call::Change { act, .. } => match act {
            Act::Add(_) => "add",
            Act::Remove(_) => "remove",
            Act::Leave => "leave",
            Act::Rename(_) => "rename",
            Act::Transfer(_) => "transfer",
            Act::Dissolve => "dissolve",
            Act::Send(_) => "send",
            Act::Whisper { .. } => "whisper",
        },
        Call::Acknowledge { .. } => "acknowledge",
        Call::Get { .. } => "get",
        Call::List { .. } => "list",
        Call::History { .. } => "history",
    }
}

fn push_kind(push: &Push) -> &'static str {
    match push {
        Push::Entry { .. } => "entry",
        Push::Packet(_) => "packet",
        Push::Behind { .. } => "behind",
        Push::Gone { .. } => "gone",
        Push::Ready => "ready",
        Push::TakenOver => "taken over",
        Push::GoingAway => "going away",
    }
}
