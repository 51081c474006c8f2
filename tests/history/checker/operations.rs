//! Each entry has one operation that made it, and each operation at most one entry: what was acknowledged is there
//! (P1), what has no answer is there as a whole or not at all (P2), once, with one answer (P6), by whoever asked (P8).
//!
//! Titles and bodies begin with the id of the operation that they belong to, which tells the effects of creating,
//! renaming, sending and whispering apart. Other effects are told by who did what to whom at that place of the log.

use std::collections::{BTreeMap, HashMap, HashSet};

use super::super::format::{Act, Answer, Call, Event, operation_in};
use super::book::{Asked, Book};
use super::logs::{Known, Logs};
use super::replay::Replays;
use super::rules::{Decision, members_of_create};
use super::{Promise, Verdict};

/// A group and a seq.
type Place<'l> = (&'l str, u64);

/// By which call each entry was made.
#[derive(Debug, Default)]
pub(super) struct Origins<'l> {
    asked: HashMap<Place<'l>, usize>,
    /// Calls, by their line, that were answered that all is so already.
    unchanged: HashSet<usize>,
}

impl Origins<'_> {
    /// The line in which an entry was asked for.
    pub(super) fn asked_at(&self, group: &str, seq: u64) -> Option<usize> {
        self.asked.get(&(group, seq)).copied()
    }
}

/// One operation of a user: every call that named its id.
#[derive(Debug)]
struct Operation<'l> {
    user: &'l str,
    id: &'l str,
    calls: Vec<&'l Asked<'l>>,
    effect: Option<Place<'l>>,
}

/// The answer to a call that succeeded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Success<'l> {
    at: Place<'l>,
    version: u64,
    /// 0 but for a create.
    members: u32,
    repeated: bool,
}

fn success<'l>(asked: &Asked<'l>) -> Option<Success<'l>> {
    match asked.returned?.1 {
        Answer::Created { group, seq, version, members, repeated } => {
            Some(Success { at: (group, *seq), version: *version, members: *members, repeated: *repeated })
        }
        Answer::Changed { group, seq, version, repeated } => {
            Some(Success { at: (group, *seq), version: *version, members: 0, repeated: *repeated })
        }
        _ => None,
    }
}

fn refusal<'l>(asked: &Asked<'l>) -> Option<&'l str> {
    match asked.returned?.1 {
        Answer::Refused { code, .. } => Some(code),
        _ => None,
    }
}

fn is_tagged(call: &Call) -> bool {
    match call {
        Call::Create { .. } => true,
        Call::Change { act, .. } => matches!(act, Act::Send(_) | Act::Whisper { .. } | Act::Rename(_)),
        _ => false,
    }
}

/// The operation that an event names.
fn tag(event: &Event) -> Option<&str> {
    match event {
        Event::Created { title: text, .. } | Event::Renamed(text) | Event::Message(text) => operation_in(text),
        Event::Whisper { body, .. } => operation_in(body),
        _ => None,
    }
}

/// What is looked up while operations are matched with entries.
struct Scene<'a, 'l> {
    logs: &'a Logs<'l>,
    replays: &'a Replays<'l>,
    /// The entries that name an operation.
    tagged: HashMap<&'l str, Vec<Place<'l>>>,
    origins: Origins<'l>,
    /// Untagged entries and the operations, by number, that were answered with their place.
    claims: BTreeMap<Place<'l>, Vec<usize>>,
}

pub(super) fn check<'l>(
    book: &'l Book<'l>,
    logs: &Logs<'l>,
    replays: &Replays<'l>,
    verdict: &mut Verdict,
) -> Origins<'l> {
    let calls = |numbers: &'l Vec<usize>| numbers.iter().map(|number| &book.calls[*number]).collect();
    let operations = book.operations.iter();
    let mut operations: Vec<Operation<'l>> =
        operations.map(|((user, id), numbers)| Operation { user, id, calls: calls(numbers), effect: None }).collect();
    let tagged = tagged_entries(logs);
    let mut scene = Scene { logs, replays, tagged, origins: Origins::default(), claims: BTreeMap::new() };
    for (number, operation) in operations.iter_mut().enumerate() {
        verdict.count("operations");
        if operation.calls.first().is_some_and(|asked| is_tagged(asked.call)) {
            scene.explain_tagged(operation, verdict);
        } else {
            scene.claim(number, operation, verdict);
        }
    }
    scene.settle_claims(&mut operations, verdict);
    scene.match_the_rest(&mut operations, verdict);
    let begun = begun_by_user(&operations);
    for operation in &operations {
        check_answers(operation, &begun, book.begin.operations_remembered, verdict);
    }
    scene.origins
}

fn tagged_entries<'l>(logs: &Logs<'l>) -> HashMap<&'l str, Vec<Place<'l>>> {
    let mut tagged: HashMap<&str, Vec<Place<'_>>> = HashMap::new();
    for (group, log) in logs {
        for (seq, known) in (1..).zip(&log.entries) {
            if let Some(op) = known.and_then(|known| tag(&known.shown?.event)) {
                tagged.entry(op).or_default().push((group, seq));
            }
        }
    }
    tagged
}

impl<'l> Scene<'_, 'l> {
    fn known(&self, (group, seq): Place<'_>) -> Option<Known<'l>> {
        self.logs.get(group)?.entry(seq)
    }

    /// Whether the entry at a place is what a call asks for, by the rules at that place.
    fn is_effect(&self, at: Place<'_>, asked: &Asked<'_>) -> bool {
        let Some(shown) = self.known(at).and_then(|known| known.shown) else { return false };
        if shown.sender != asked.user || shown.by.is_some() {
            return false;
        }
        match asked.call {
            Call::Create { title, members, .. } => {
                let members = members_of_create(asked.user, members);
                at.1 == 1 && shown.event == Event::Created { title: title.clone(), members }
            }
            Call::Change { group, act, .. } => {
                let state = self.replays.get(at.0).and_then(|replay| replay.state(at.1 - 1));
                let decided = state.map(|state| state.decide(asked.user, act));
                group == at.0 && decided == Some(Decision::Effect(shown.event.clone()))
            }
            _ => false,
        }
    }

    fn explain_tagged(&mut self, operation: &mut Operation<'l>, verdict: &mut Verdict) {
        let effects = self.tagged.remove(operation.id).unwrap_or_default();
        let (user, id) = (operation.user, operation.id);
        let logs = self.logs;
        let place =
            |(group, seq): Place<'l>| logs.get(group).and_then(|log| log.entry(seq)).map_or(0, |known| known.place);
        if let [_, second, ..] = effects[..] {
            verdict.accuse(Promise::P6, place(second), format!("operation {id} has {} effects", effects.len()));
        }
        for at in &effects {
            let matching: Vec<_> = operation.calls.iter().filter(|asked| self.is_effect(*at, asked)).collect();
            let Some(first) = matching.first() else {
                let shown = self.known(*at).and_then(|known| known.shown);
                let other = shown.is_some_and(|shown| shown.sender != user || shown.by.is_some());
                let promise = if other { Promise::P8 } else { Promise::P2 };
                let text = format!("seq {} of {} is not what {user} asked for as {id}: {shown:?}", at.1, at.0);
                verdict.accuse(promise, place(*at), text);
                continue;
            };
            self.origins.asked.insert(*at, first.invoked);
            operation.effect = Some(*at);
        }
        for (asked, told) in operation.calls.iter().filter_map(|asked| Some((asked, success(asked)?))) {
            verdict.count("acknowledgements");
            let line = asked.returned.map_or(0, |(place, _)| place);
            match self.known(told.at) {
                // A whisper that nobody was shown, or an entry that nobody saw, which was said elsewhere.
                Some(Known { shown: None, .. }) | None if effects.is_empty() => {
                    self.origins.asked.entry(told.at).or_insert(asked.invoked);
                    operation.effect.get_or_insert(told.at);
                }
                _ if operation.effect == Some(told.at) => {}
                _ => {
                    let text =
                        format!("operation {id} was acknowledged at seq {} of {}: not there", told.at.1, told.at.0);
                    verdict.accuse(Promise::P1, line, text);
                }
            }
        }
        if operation.effect.is_some() && operation.calls.iter().all(|asked| success(asked).is_none()) {
            verdict.count("effects without an answer");
        }
        accuse_refused(operation, verdict);
    }

    /// An operation that its entry does not name: by its answers.
    fn claim(&mut self, number: usize, operation: &Operation<'l>, verdict: &mut Verdict) {
        for (asked, told) in operation.calls.iter().filter_map(|asked| Some((asked, success(asked)?))) {
            verdict.count("acknowledgements");
            let line = asked.returned.map_or(0, |(place, _)| place);
            let proved = self.logs.get(told.at.0).and_then(|log| log.first_proof(told.at.1)).unwrap_or(0);
            let first = operation.calls[0].invoked;
            if self.is_effect(told.at, asked) && first < proved {
                let claims = self.claims.entry(told.at).or_default();
                if claims.last() != Some(&number) {
                    claims.push(number);
                }
            } else if self.is_unchanged(asked, told.at) && !told.repeated {
                self.origins.unchanged.insert(asked.invoked);
            } else {
                let text = format!("operation {} was acknowledged at seq {} of {}", operation.id, told.at.1, told.at.0);
                verdict.accuse(Promise::P1, line, format!("{text}, where its effect is not"));
            }
        }
    }

    fn is_unchanged(&self, asked: &Asked<'_>, (group, version): Place<'_>) -> bool {
        let Call::Change { act, .. } = asked.call else { return false };
        let state = self.replays.get(group).and_then(|replay| replay.state(version));
        state.is_some_and(|state| state.version == version && state.decide(asked.user, act) == Decision::Unchanged)
    }

    /// One of those that were answered with an entry's place made it; to the others all was so already.
    fn settle_claims(&mut self, operations: &mut [Operation<'l>], verdict: &mut Verdict) {
        for (at, claims) in std::mem::take(&mut self.claims) {
            let is_repeated = |number: &&usize| {
                let mut told = operations[**number].calls.iter().filter_map(|asked| success(asked));
                told.any(|told| told.at == at && told.repeated)
            };
            let owner = claims.iter().find(is_repeated).or(claims.first()).copied().unwrap_or(0);
            let first = claims.iter().map(|number| operations[*number].calls[0].invoked).min();
            self.origins.asked.insert(at, first.unwrap_or(0));
            operations[owner].effect = Some(at);
            for other in claims.iter().filter(|number| **number != owner) {
                for asked in
                    operations[*other].calls.iter().filter(|asked| success(asked).is_some_and(|told| told.at == at))
                {
                    if self.is_unchanged(asked, at) && success(asked).is_some_and(|told| !told.repeated) {
                        self.origins.unchanged.insert(asked.invoked);
                    } else {
                        let (a, b) = (operations[owner].id, operations[*other].id);
                        let text = format!("operations {a} and {b} have one effect, seq {} of {}", at.1, at.0);
                        verdict.accuse(Promise::P6, asked.invoked, text);
                    }
                }
            }
        }
    }

    /// Entries that no answer told of belong to operations without an answer, each to another one.
    fn match_the_rest(&mut self, operations: &mut [Operation<'l>], verdict: &mut Verdict) {
        let mut open: HashMap<(&str, &str), Vec<usize>> = HashMap::new();
        for (number, operation) in operations.iter().enumerate() {
            if let Some(Asked { call: Call::Change { group, .. }, .. }) = operation.calls.first()
                && operation.effect.is_none()
                && operation.calls.iter().any(|asked| asked.returned.is_none())
            {
                open.entry((group, operation.user)).or_default().push(number);
            }
        }
        for numbers in open.values_mut() {
            numbers.sort_by_key(|number| operations[*number].calls[0].invoked);
        }
        for (group, log) in self.logs {
            for (seq, known) in (1..).zip(&log.entries) {
                let at = (*group, seq);
                let Some((known, shown)) = known.and_then(|known| Some((known, known.shown?))) else { continue };
                if self.origins.asked.contains_key(&at)
                    || tag(&shown.event).is_some_and(|op| !self.tagged.contains_key(op))
                {
                    continue;
                }
                let numbers = open.entry((group, shown.sender.as_str())).or_default();
                let proved = log.first_proof(seq).unwrap_or(0);
                let found = numbers.iter().position(|number| {
                    let asked = operations[*number].calls[0];
                    asked.invoked < proved && self.is_effect(at, asked)
                });
                if let Some(found) = found {
                    let number = numbers.remove(found);
                    self.origins.asked.insert(at, operations[number].calls[0].invoked);
                    operations[number].effect = Some(at);
                    verdict.count("effects without an answer");
                } else {
                    let text = format!("nobody asked for seq {seq} of {group}: {shown:?}");
                    verdict.accuse(Promise::P2, known.place, text);
                }
            }
        }
    }
}

/// What was refused each time has no effect.
fn accuse_refused(operation: &Operation<'_>, verdict: &mut Verdict) {
    if let Some(at) = operation.effect
        && operation.calls.iter().all(|asked| refusal(asked).is_some())
    {
        let text = format!("operation {} was refused and is seq {} of {}", operation.id, at.1, at.0);
        verdict.accuse(Promise::P2, operation.calls[0].invoked, text);
    }
}

/// The lines in which each user began an operation, ascending.
fn begun_by_user<'l>(operations: &[Operation<'l>]) -> HashMap<&'l str, Vec<usize>> {
    let mut begun: HashMap<&str, Vec<usize>> = HashMap::new();
    for operation in operations {
        begun.entry(operation.user).or_default().push(operation.calls[0].invoked);
    }
    for places in begun.values_mut() {
        places.sort_unstable();
    }
    begun
}

/// What may be answered to anything: it says nothing about the operation.
fn is_about_the_server(code: &str) -> bool {
    ["SLOW_DOWN", "GOING_AWAY"].contains(&code)
}

/// One id, one answer (P6).
fn check_answers(operation: &Operation<'_>, begun: &HashMap<&str, Vec<usize>>, remembered: u64, verdict: &mut Verdict) {
    let told = operation.calls.iter().filter_map(|asked| Some((asked, success(asked)?)));
    let effective: Vec<_> = told.filter(|(_, told)| Some(told.at) == operation.effect).collect();
    // The content that has the effect, the answer to it, and since when it is known.
    let first = effective.iter().min_by_key(|(asked, _)| asked.returned.map(|(place, _)| place));
    for (number, asked) in operation.calls.iter().enumerate() {
        let Some((line, answer)) = asked.returned else { continue };
        let mut accuse = |text: String| {
            verdict.accuse(Promise::P6, line, format!("operation {} of {}: {text}", operation.id, operation.user));
        };
        let before = &operation.calls[..number];
        if refusal(asked) == Some("ID_REUSED") && before.iter().all(|other| other.call == asked.call) {
            accuse("ID_REUSED, and it was never said with other content".to_owned());
        }
        if success(asked).is_some_and(|told| told.repeated) && before.iter().all(|other| other.call != asked.call) {
            accuse("answered as repeated, and said for the first time".to_owned());
        }
        let Some((owner, known)) = first else { continue };
        let since = owner.returned.map_or(usize::MAX, |(place, _)| place);
        if let Some(told) = success(asked)
            && (asked.call != owner.call
                || (told.at, told.version, told.members) != (known.at, known.version, known.members))
            && (asked.call != owner.call || asked.invoked > since)
        {
            accuse(format!("answered {told:?}, and {known:?} to {:?}", owner.call));
        }
        let begun = &begun[operation.user];
        let until = begun.partition_point(|place| *place < asked.invoked);
        let later = until.saturating_sub(begun.partition_point(|place| *place <= operation.calls[0].invoked));
        if asked.invoked < since || later as u64 + 64 > remembered {
            continue;
        }
        match (asked.call == owner.call, success(asked), refusal(asked)) {
            (_, _, Some(code)) if is_about_the_server(code) => {}
            (true, Some(told), _) if told.repeated => verdict.count("said again"),
            (false, _, Some("ID_REUSED")) => verdict.count("said again with other content"),
            _ => accuse(format!("said again behind {known:?}, and answered {answer:?}")),
        }
    }
}
