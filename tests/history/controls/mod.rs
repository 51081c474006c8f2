//! Lies planted into a good history of the real server, each at many places, and the promise that each breaks named.

mod delivered;
mod durable;
mod once;
mod ordered;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::OnceLock;
use std::time::Duration;

use crate::checker::{Promise, check};
use crate::format::{Act, Answer, Call, Entry, Event, Line, Outcome, Push, What};
use crate::run::{Plan, demand_none, run, seed};

/// Most places at which one lie is tried.
const PLACES_MAX: usize = 3;

/// One history, with faults in it, that is as it should be.
pub(super) fn good() -> &'static [Line] {
    static GOOD: OnceLock<Vec<Line>> = OnceLock::new();
    GOOD.get_or_init(|| {
        let plan = Plan {
            seed: seed(),
            time: Duration::from_secs(4),
            clients: 8,
            mean_pause: Duration::from_millis(20),
            is_long: false,
            has_nemesis: true,
        };
        let directory = tempfile::tempdir().expect("a temporary directory");
        let path = directory.path().join("history.jsonl");
        let lines = run(&plan, &path).lines;
        demand_none(&check(&lines), &path, plan.seed);
        lines
    })
}

/// Plants a lie at places of this sort that take it, one at a time, up to so many: each has to be named.
pub(super) fn each_is_named(
    promise: Promise,
    sort: fn(&Line) -> bool,
    mut plant: impl FnMut(&mut Vec<Line>, usize) -> bool,
) {
    let good = good();
    // Spread over the history, in an order that is the same for the same history.
    let step = (good.len() / 997).max(1);
    let places = (0..step).flat_map(|first| (first..good.len()).step_by(step));
    let mut planted = 0;
    for place in places.filter(|place| sort(&good[*place])) {
        let mut lines = good.to_vec();
        if !plant(&mut lines, place) {
            continue;
        }
        planted += 1;
        let found: BTreeSet<Promise> = check(&lines).anomalies.iter().map(|anomaly| anomaly.promise).collect();
        assert!(found.contains(&promise), "line {}: {:?}, found {found:?}", place + 1, good[place]);
        if planted == PLACES_MAX {
            return;
        }
    }
    assert!(planted > 0, "the history has a place for it");
}

pub(super) fn is_message(line: &Line) -> bool {
    pushed_message(line).is_some()
}

pub(super) fn is_push(line: &Line) -> bool {
    matches!(line.what, What::Push { .. })
}

pub(super) fn is_answer(line: &Line) -> bool {
    matches!(line.what, What::Return { .. })
}

// ---- looking and changing --------------------------------------------------------------------------------------

/// The entries that a line shows, each with its group.
pub(super) fn entries_of(line: &mut Line) -> Vec<(String, &mut Entry)> {
    match &mut line.what {
        What::Push { push: Push::Entry { group, entry }, .. } => vec![(group.clone(), entry)],
        What::Return { answer: Answer::Page { parts }, .. } => {
            let parts = parts.iter_mut();
            let entries = parts.flat_map(|part| match &mut part.outcome {
                Outcome::Entries { entries, .. } => {
                    entries.iter_mut().map(|entry| (part.group.clone(), entry)).collect()
                }
                Outcome::Refused { .. } => Vec::new(),
            });
            entries.collect()
        }
        _ => Vec::new(),
    }
}

/// Changes an entry wherever it is shown.
pub(super) fn change_everywhere(lines: &mut [Line], group: &str, seq: u64, change: impl Fn(&mut Entry)) {
    for line in lines {
        for (_, entry) in entries_of(line).into_iter().filter(|(of, entry)| of == group && entry.seq == seq) {
            change(entry);
        }
    }
}

/// The message that a push at this place shows: connection, group, seq, sender and body.
pub(super) fn pushed_message(line: &Line) -> Option<(u32, String, u64, String, String)> {
    let What::Push { conn, push: Push::Entry { group, entry } } = &line.what else { return None };
    let shown = entry.shown.as_ref()?;
    let Event::Message(body) = &shown.event else { return None };
    Some((*conn, group.clone(), entry.seq, shown.sender.clone(), body.clone()))
}

pub(super) fn quiet(lines: &[Line]) -> usize {
    lines.iter().position(|line| line.what == What::Quiet).expect("it was quiet in the end")
}

/// The lines of the first call that asked for a body, and of its answer: places of `Invoke` and of `Return`.
pub(super) fn asked_and_answered(lines: &[Line], wanted: &str) -> Option<(usize, usize)> {
    let asks = |line: &Line| match &line.what {
        What::Invoke { conn, req, call: Call::Change { act: Act::Send(body), .. } } if body == wanted => {
            Some((*conn, *req))
        }
        _ => None,
    };
    let (invoked, request) = lines.iter().enumerate().find_map(|(place, line)| Some((place, asks(line)?)))?;
    let answers = |line: &Line| match &line.what {
        What::Return { conn, req, answer: Answer::Changed { .. } } => (*conn, *req) == request,
        _ => false,
    };
    Some((invoked, lines.iter().position(answers)?))
}

/// Puts a line elsewhere, at the time of the one that stands there.
pub(super) fn move_line(lines: &mut Vec<Line>, from: usize, to: usize) {
    let mut line = lines.remove(from);
    line.t = lines[to].t;
    lines.insert(to, line);
}

pub(super) fn users(lines: &[Line]) -> BTreeMap<u32, String> {
    let user = |line: &Line| match &line.what {
        What::Connect { conn, user, .. } => Some((*conn, user.clone())),
        _ => None,
    };
    lines.iter().filter_map(user).collect()
}
