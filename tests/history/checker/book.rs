//! Answers beside their calls, and calls by their operations.

use std::collections::{BTreeMap, HashMap};

use super::super::format::{Answer, Begin, Call, Line, What};
use super::{Promise, Verdict};

/// A call and what became of it. Places are numbers of lines, from 0.
#[derive(Debug)]
pub(super) struct Asked<'l> {
    pub(super) user: &'l str,
    pub(super) call: &'l Call,
    pub(super) invoked: usize,
    pub(super) returned: Option<(usize, &'l Answer)>,
}

/// All of a history, in order.
#[derive(Debug)]
pub(super) struct Book<'l> {
    pub(super) lines: &'l [Line],
    pub(super) begin: &'l Begin,
    /// The user of each connection.
    pub(super) users: HashMap<u32, &'l str>,
    /// By the place of the call.
    pub(super) calls: Vec<Asked<'l>>,
    by_request: HashMap<(u32, u32), usize>,
    /// The calls of each operation of a user, in order.
    pub(super) operations: BTreeMap<(&'l str, &'l str), Vec<usize>>,
    /// The highest received mark that a user may have set of a group, and by which line; both grow.
    marks: HashMap<(&'l str, &'l str), Vec<(usize, u64)>>,
    /// Where the faults were over.
    pub(super) quiet: Option<usize>,
    /// Where everybody had had the time to hear all.
    pub(super) finish: Option<usize>,
}

impl<'l> Book<'l> {
    /// `None` if this is no history; what is wrong was said then.
    pub(super) fn read(lines: &'l [Line], verdict: &mut Verdict) -> Option<Self> {
        let Some(Line { what: What::Begin(begin), .. }) = lines.first() else {
            verdict.accuse(Promise::File, 0, "a history begins with what it is of");
            return None;
        };
        let mut book = Self {
            lines,
            begin,
            users: HashMap::new(),
            calls: Vec::new(),
            by_request: HashMap::new(),
            operations: BTreeMap::new(),
            marks: HashMap::new(),
            quiet: None,
            finish: None,
        };
        let mut before = 0;
        for (place, line) in lines.iter().enumerate() {
            if line.t < before {
                verdict.accuse(Promise::File, place, "the clock went back");
            }
            before = line.t;
            if let Err(why) = book.take(place, &line.what) {
                verdict.accuse(Promise::File, place, why);
            }
        }
        Some(book)
    }

    fn take(&mut self, place: usize, what: &'l What) -> Result<(), &'static str> {
        match what {
            What::Connect { conn, user, .. } => {
                if self.users.insert(*conn, user).is_some() {
                    return Err("a connection's number is used twice");
                }
            }
            What::Invoke { conn, req, call } => {
                let user = *self.users.get(conn).ok_or("a call on no connection")?;
                let number = self.calls.len();
                self.calls.push(Asked { user, call, invoked: place, returned: None });
                if self.by_request.insert((*conn, *req), number).is_some() {
                    return Err("a request's number is used twice");
                }
                self.note_marks(place, user, call);
                if let Some(op) = operation_of(call) {
                    self.operations.entry((user, op)).or_default().push(number);
                }
            }
            What::Return { conn, req, answer } => {
                let number = *self.by_request.get(&(*conn, *req)).ok_or("an answer to no call")?;
                if self.calls[number].returned.replace((place, answer)).is_some()
                    && !matches!(self.calls[number].call, Call::Acknowledge { .. })
                {
                    return Err("a second answer");
                }
            }
            What::Unknown { conn, req } => {
                self.by_request.get(&(*conn, *req)).ok_or("no answer to no call")?;
            }
            What::Quiet => self.quiet = Some(place),
            What::Finish => self.finish = Some(place),
            What::Begin(_) | What::Push { .. } | What::End { .. } | What::Fault(_) => {}
        }
        Ok(())
    }

    fn note_marks(&mut self, place: usize, user: &'l str, call: &'l Call) {
        let Call::Acknowledge { marks } = call else { return };
        for (group, received, _) in marks {
            let noted = self.marks.entry((user, group)).or_default();
            if noted.last().is_none_or(|(_, before)| before < received) {
                noted.push((place, *received));
            }
        }
    }

    /// The call that an answer is to.
    pub(super) fn call_of(&self, conn: u32, req: u32) -> Option<&Asked<'l>> {
        self.by_request.get(&(conn, req)).map(|number| &self.calls[*number])
    }

    /// The highest received mark that a user may have set of a group before a line.
    pub(super) fn acknowledged_before(&self, user: &str, group: &str, place: usize) -> u64 {
        let Some(noted) = self.marks.get(&(user, group)) else { return 0 };
        let count = noted.partition_point(|(line, _)| *line < place);
        count.checked_sub(1).map_or(0, |last| noted[last].1)
    }

    /// Whether a place is one that retention may have deleted, if the log ends at `head` at most.
    pub(super) fn may_be_deleted(&self, seq: u64, head: u64) -> bool {
        seq + self.begin.retention_entries <= head
    }
}

/// The operation id of a call that has one.
pub(super) fn operation_of(call: &Call) -> Option<&str> {
    match call {
        Call::Create { op, .. } | Call::Change { op, .. } => Some(op),
        Call::Attach { .. }
        | Call::Acknowledge { .. }
        | Call::Get { .. }
        | Call::List { .. }
        | Call::History { .. } => None,
    }
}
