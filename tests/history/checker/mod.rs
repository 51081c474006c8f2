//! Whether a history can be true. Reads lines and nothing else: no server, nothing of the crate that is tested.
//!
//! `book` puts answers to their calls. `logs` makes one log of a group out of all that anybody saw of it, and `replay`
//! the states that it goes through by `rules`, which are those of the protocol's page, written once more. Then
//! `operations` explains each entry by the operation that made it, `order` holds times against the order of the log,
//! `delivery` follows each connection, `isolation` asks who may see what, `last` compares with what is there in the end.
//!
//! A place in time is a line's number. Everything is linear in the history, but for searches in sorted lists.

mod book;
mod delivery;
mod isolation;
mod last;
mod lists;
mod logs;
mod operations;
mod order;
mod replay;
mod rules;
mod window;

use std::collections::BTreeMap;
use std::fmt;

use super::format::Line;

/// Which promise is broken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Promise {
    /// What was acknowledged or seen is gone.
    P1,
    /// What has no answer is there in part, or nobody asked for it.
    P2,
    /// A gap in a log, a seq with two meanings, an entry that the rules do not allow.
    P3,
    /// An answer that does not fit the order of the log and real time.
    P4,
    /// A device lacks an entry, or has it out of order.
    P5,
    /// An operation with two effects, or two answers.
    P6,
    /// Somebody saw what was not for him.
    P7,
    /// An entry by somebody who did not ask for it.
    P8,
    /// The file is not a history.
    File,
}

/// Something that cannot be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Anomaly {
    pub(crate) promise: Promise,
    /// The line that shows it, counted from 1.
    pub(crate) line: usize,
    pub(crate) text: String,
}

impl fmt::Display for Anomaly {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?} line {}: {}", self.promise, self.line, self.text)
    }
}

/// What was found, and how much was looked at.
#[derive(Debug, Default)]
pub(crate) struct Verdict {
    pub(crate) anomalies: Vec<Anomaly>,
    /// How often each kind of check was made.
    pub(crate) checked: BTreeMap<&'static str, u64>,
}

impl Verdict {
    fn accuse(&mut self, promise: Promise, place: usize, text: impl Into<String>) {
        self.anomalies.push(Anomaly { promise, line: place + 1, text: text.into() });
    }

    fn count(&mut self, what: &'static str) {
        *self.checked.entry(what).or_default() += 1;
    }
}

/// Checks a whole history.
pub(crate) fn check(lines: &[Line]) -> Verdict {
    let mut verdict = Verdict::default();
    let Some(book) = book::Book::read(lines, &mut verdict) else { return verdict };
    let logs = logs::read(&book, &mut verdict);
    let replays = replay::all(&logs, &mut verdict);
    let origins = operations::check(&book, &logs, &replays, &mut verdict);
    let windows = window::Windows::new(&logs, &origins);
    order::check(&book, &logs, &replays, &windows, &mut verdict);
    lists::check(&book, &replays, &windows, &mut verdict);
    delivery::check(&book, &replays, &mut verdict);
    isolation::check(&book, &logs, &replays, &mut verdict);
    last::check(&book, &logs, &mut verdict);
    verdict.anomalies.sort_by_key(|anomaly| anomaly.line);
    verdict
}
