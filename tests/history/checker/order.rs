//! Every answer fits some place of its group's log between call and return (P4), and nothing is seen before it was
//! asked for.

use super::super::format::{Act, Answer, Call, Outcome, Record};
use super::book::{Asked, Book};
use super::logs::{Logs, Told, told_by};
use super::replay::{Replay, Replays};
use super::rules::{Decision, State};
use super::window::{Window, Windows};
use super::{Promise, Verdict};

pub(super) fn check<'l>(
    book: &Book<'l>,
    logs: &Logs<'l>,
    replays: &Replays<'l>,
    windows: &Windows<'_, 'l>,
    verdict: &mut Verdict,
) {
    check_not_before_it_was_asked(book, logs, windows, verdict);
    for asked in &book.calls {
        let Some((line, answer)) = asked.returned else { continue };
        if let Err(why) = (Case { book, replays, windows, asked, line }).check(answer, verdict) {
            let text = format!("{} asked {:?} in line {}: {why}", asked.user, asked.call, asked.invoked + 1);
            verdict.accuse(Promise::P4, line, text);
        }
    }
}

/// An operation that was asked for after another one had returned, or had been seen, stands behind it.
fn check_not_before_it_was_asked(book: &Book<'_>, logs: &Logs<'_>, windows: &Windows<'_, '_>, verdict: &mut Verdict) {
    for (place, line) in book.lines.iter().enumerate() {
        for (group, told) in told_by(&line.what) {
            let seq = match told {
                Told::Entry(entry) => entry.seq,
                Told::Seq(seq) => seq,
            };
            if seq == 0 || logs.get(group).is_none_or(|log| log.entry(seq).is_none()) {
                continue;
            }
            verdict.count("seqs in real time");
            let earliest = windows.of(group).map_or(0, |window| window.earliest(seq));
            if earliest > place {
                let text = format!(
                    "seq {seq} of {group} is told, and what stands up to it was asked for in line {}",
                    earliest + 1
                );
                verdict.accuse(Promise::P4, place, text);
            }
        }
    }
}

/// One answer.
struct Case<'a, 'l> {
    book: &'a Book<'l>,
    replays: &'a Replays<'l>,
    windows: &'a Windows<'a, 'l>,
    asked: &'a Asked<'l>,
    line: usize,
}

/// A group within the time of a call.
struct Span<'a, 'l> {
    replay: &'a Replay<'l>,
    lowest: u64,
    highest: u64,
}

impl Span<'_, '_> {
    /// Whether some state in the time of the call is so.
    fn any(&self, test: impl Fn(Option<&State>) -> bool) -> bool {
        self.replay.states(self.lowest, self.highest).any(test)
    }

    fn has_head(&self, head: u64) -> Result<(), String> {
        let Self { lowest, highest, .. } = *self;
        let text = || format!("head {head}, and it was {lowest} at least and {highest} at most");
        (lowest..=highest).contains(&head).then_some(()).ok_or_else(text)
    }
}

impl<'a, 'l> Case<'a, 'l> {
    fn span(&self, group: &str) -> Option<Span<'a, 'l>> {
        let replay = self.replays.get(group)?;
        let (lowest, highest) = self
            .windows
            .of(group)
            .map_or((0, 0), |window: &Window<'_, '_>| window.heads(self.asked.invoked, self.line));
        Some(Span { replay, lowest, highest })
    }

    fn check(&self, answer: &Answer, verdict: &mut Verdict) -> Result<(), String> {
        if let Answer::Refused { code, .. } = answer {
            verdict.count("refusals");
            return self.check_refusal(code);
        }
        match (self.asked.call, answer) {
            // Of lists see `lists`.
            (Call::Create { .. }, Answer::Created { .. })
            | (Call::Attach { .. }, Answer::Attached)
            | (Call::List { .. }, Answer::Listed { .. }) => Ok(()),
            (Call::Change { group, act, .. }, Answer::Changed { group: told, seq, version, repeated })
                if group == told =>
            {
                self.check_changed(group, act, (*seq, *version), *repeated)
            }
            (Call::Get { group, .. }, Answer::Shown { group: told, head, record, .. }) if group == told => {
                verdict.count("records read");
                self.check_shown(group, *head, record)
            }
            (Call::Get { group, newer_than }, Answer::Unchanged { group: told, version }) if group == told => {
                verdict.count("records read");
                let is_so = |state: Option<&State>| {
                    state.is_some_and(|state| state.version == *version && state.has(self.asked.user))
                };
                let fits = version <= newer_than && self.span(group).is_some_and(|span| span.any(is_so));
                fits.then_some(()).ok_or_else(|| format!("unchanged at version {version}"))
            }
            (Call::History { groups }, Answer::Page { parts }) => {
                if !groups.iter().map(|(group, _)| group).eq(parts.iter().map(|part| &part.group)) {
                    return Err("the page has other groups".to_owned());
                }
                for ((group, from), part) in groups.iter().zip(parts) {
                    verdict.count("pages of a group");
                    self.check_part(group, *from, &part.outcome).map_err(|why| format!("{group}: {why}"))?;
                }
                Ok(())
            }
            (_, answer) => Err(format!("answered {answer:?}")),
        }
    }

    /// Entries are held against the rules where they stand; here is where all was so already.
    fn check_changed(&self, group: &str, act: &Act, (seq, version): (u64, u64), repeated: bool) -> Result<(), String> {
        let Some(span) = self.span(group) else { return Err("a group that nobody ever saw".to_owned()) };
        let entry_version = span.replay.state(seq).map(|state| state.version);
        if entry_version != Some(version) {
            return Err(format!("seq {seq} with version {version}, and the version there is {entry_version:?}"));
        }
        if seq > span.highest {
            return Err(format!("seq {seq}, and there can be {} at most", span.highest));
        }
        if seq > span.lowest || repeated {
            return Ok(());
        }
        // It was there before: then nothing was changed, in a state of the time of the call.
        let is_so = |state: Option<&State>| {
            state.is_some_and(|state| {
                state.version == version && state.decide(self.asked.user, act) == Decision::Unchanged
            })
        };
        span.any(is_so).then_some(()).ok_or_else(|| format!("seq {seq}, which was there before, and it was not so"))
    }

    fn check_shown(&self, group: &str, head: u64, record: &Record) -> Result<(), String> {
        let Some(span) = self.span(group) else { return Err("a group that nobody ever saw".to_owned()) };
        span.has_head(head)?;
        let state = span.replay.state(head).ok_or("no state there")?;
        let Record { version, title, owner, creator, members } = record.clone();
        let shown = State { version, title, owner, creator, members };
        if *state != shown {
            return Err(format!("shown {shown:?}, and at {head} it is {state:?}"));
        }
        state.has(self.asked.user).then_some(()).ok_or_else(|| "shown to somebody who is no member".to_owned())
    }

    fn check_part(&self, group: &str, from: u64, outcome: &Outcome) -> Result<(), String> {
        let Some(span) = self.span(group) else { return Err("a group that nobody ever saw".to_owned()) };
        let user = self.asked.user;
        match outcome {
            Outcome::Entries { head, floor, entries } => {
                // Who has left reads up to there; a page may also end where its user has just left.
                let left = span.replay.stays(user).iter().any(|stay| stay.until == Some(*head));
                let was_out = span.any(|state| state.is_none_or(|state| !state.has(user)));
                if !(left && was_out) {
                    span.has_head(*head)?;
                }
                if !(from..).zip(entries).all(|(seq, entry)| seq == entry.seq) {
                    return Err("entries that are not one behind the other".to_owned());
                }
                let beyond = entries.last().is_some_and(|entry| entry.seq > *head) || from > head + 1;
                if beyond || from < *floor {
                    return Err(format!("entries from {from}, head {head}, floor {floor}"));
                }
                self.check_floor(&span, *floor)
            }
            Outcome::Refused { code, detail } => self.check_part_refusal(&span, group, from, code, *detail),
        }
    }

    /// The newest entries of a group are never deleted.
    fn check_floor(&self, span: &Span<'_, '_>, floor: u64) -> Result<(), String> {
        let text = || format!("floor {floor}, head {} at most", span.highest);
        (floor == 1 || self.book.may_be_deleted(floor - 1, span.highest)).then_some(()).ok_or_else(text)
    }

    fn check_part_refusal(
        &self,
        span: &Span<'_, '_>,
        group: &str,
        from: u64,
        code: &str,
        detail: u64,
    ) -> Result<(), String> {
        let user = self.asked.user;
        match code {
            "TRUNCATED" => {
                let joined = span.any(|state| state.and_then(|state| state.joined(user)) == Some(detail))
                    || span.replay.stays(user).iter().any(|stay| stay.joined == detail);
                let floor = self.check_floor(span, detail).is_ok();
                (from < detail && (joined || floor)).then_some(()).ok_or_else(|| format!("TRUNCATED at {detail}"))
            }
            "RANGE" => {
                let left = span.replay.stays(user).iter().any(|stay| stay.until == Some(detail));
                let fits = from > detail + 1 && (left || span.has_head(detail).is_ok());
                fits.then_some(()).ok_or_else(|| format!("RANGE at {detail}"))
            }
            "NOT_FOUND" => {
                let fits = self.was_forgotten(span, group);
                fits.then_some(()).ok_or_else(|| "NOT_FOUND, and it may read it".to_owned())
            }
            "SLOW_DOWN" | "GOING_AWAY" => Ok(()),
            code => Err(format!("refused: {code}")),
        }
    }

    /// Whether, at some place in the time of the call, the user was in no stay, and of the one before nothing need be
    /// kept: it was acknowledged to its end, or the floor has passed that.
    fn was_forgotten(&self, span: &Span<'_, '_>, group: &str) -> bool {
        let stays = span.replay.stays(self.asked.user);
        let ends = std::iter::once(Some(0)).chain(stays.iter().map(|stay| stay.until));
        let begins = stays.iter().map(|stay| stay.joined).chain([u64::MAX]);
        ends.zip(begins).any(|(ended, begins)| {
            let Some(until) = ended else { return false };
            let is_in_time = until <= span.highest && span.lowest < begins;
            let is_forgotten = until == 0
                || self.book.may_be_deleted(until, span.highest)
                || self.book.acknowledged_before(self.asked.user, group, self.line) >= until;
            is_in_time && is_forgotten
        })
    }

    fn check_refusal(&self, code: &str) -> Result<(), String> {
        match (code, self.asked.call) {
            ("STORAGE_FULL", Call::Create { .. } | Call::Change { .. }) if self.book.begin.disk_may_be_full => Ok(()),
            // Of ids see `operations`; of marks it does not say which one.
            ("SLOW_DOWN" | "GOING_AWAY", _)
            | ("ID_REUSED", Call::Create { .. } | Call::Change { .. })
            | ("NOT_FOUND", Call::Acknowledge { .. }) => Ok(()),
            (code, Call::Change { group, act, .. }) => {
                let refuses = |state: Option<&State>| match state {
                    None => code == "NOT_FOUND",
                    Some(state) => matches!(state.decide(self.asked.user, act), Decision::Refused(why) if why == code),
                };
                let fits = self.span(group).map_or(code == "NOT_FOUND", |span| span.any(refuses));
                fits.then_some(()).ok_or_else(|| format!("refused: {code}, which fits no state of that time"))
            }
            ("NOT_FOUND", Call::Get { group, .. }) => {
                let was_out = |state: Option<&State>| state.is_none_or(|state| !state.has(self.asked.user));
                let fits = self.span(group).is_none_or(|span| span.any(was_out));
                fits.then_some(()).ok_or_else(|| "NOT_FOUND to a member".to_owned())
            }
            (code, _) => Err(format!("refused: {code}")),
        }
    }
}
