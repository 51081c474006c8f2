//! One client without its socket: bytes in, bytes out, and a line for everything that it asks and sees.
//!
//! It follows `docs/protocol.md` and nothing else: catches up where it is told that it is behind, says operations again
//! that have no answer, presents what it has. Whether what it sees can be true is not its business.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::{Duration, Instant};

use rand::Rng as _;
use roundtable::ids::DeviceId;
use roundtable::wire::{Deframer, FrameCaps, Hello, Kind, Push as WirePush, Reply, Request, VERSION, features};

use super::format::{Answer, Call, Entry, Event, Outcome, Part, Push, What};
use super::recorder::Recorder;
use super::translate::{answer_of, push_of, request_of};
use super::wishes::{Board, KEEPER};

/// Operations that may be said again: the newest of those that were acknowledged.
const DONE_MAX: usize = 24;
/// Groups in one request for history.
const PAGE_GROUPS_MAX: usize = 8;

/// How a client goes on line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Manner {
    /// With what it has.
    Keeps,
    /// By the marks of its user.
    ByMarks,
    /// Not at all: it only asks.
    Visits,
}

/// What a device has of a group.
#[derive(Clone, Copy, Debug)]
struct Held {
    next: u64,
    live: bool,
}

#[derive(Debug)]
pub(crate) struct Device {
    pub(crate) user: String,
    name: String,
    manner: Manner,
    token: String,
    /// The connection, if there is one.
    pub(crate) line: Option<Line>,
    held: BTreeMap<String, Held>,
    /// Groups of which the keeper has read the first page, which no push and no catch-up tells.
    begun: BTreeSet<String>,
    /// Operations without an answer, to be said again.
    unanswered: VecDeque<Call>,
    done: VecDeque<Call>,
    next_wish: Instant,
    mean_pause: Duration,
    /// Requests under way at once.
    window: usize,
}

/// One connection.
#[derive(Debug)]
pub(crate) struct Line {
    pub(crate) conn: u32,
    deframer: Deframer,
    pub(crate) output: Vec<u8>,
    last_req: u32,
    pending: BTreeMap<u32, (Call, Instant)>,
    welcomed: bool,
    ready: bool,
    /// The request for what is missing that is under way.
    catch_up: Option<u32>,
    /// An answer that takes longer ends the connection.
    patience: Duration,
    /// The connection ends when so much of the output is written.
    pub(crate) cut_after: Option<usize>,
    /// Until then nothing is read.
    pub(crate) paused_until: Option<Instant>,
}

/// What a device works with.
pub(crate) struct Around<'a> {
    pub(crate) board: &'a mut Board,
    pub(crate) recorder: &'a Recorder,
    pub(crate) now: Instant,
}

impl Device {
    pub(crate) fn new(user: &str, name: &str, manner: Manner, token: String, mean_pause: Duration) -> Self {
        let window = if name.ends_with('0') { 12 } else { 3 };
        Self {
            user: user.to_owned(),
            name: name.to_owned(),
            manner,
            token,
            line: None,
            held: BTreeMap::new(),
            begun: BTreeSet::new(),
            unanswered: VecDeque::new(),
            done: VecDeque::new(),
            next_wish: Instant::now(),
            mean_pause,
            window,
        }
    }

    // ---- connections -------------------------------------------------------------------------------------------

    /// There is a connection.
    pub(crate) fn begin(&mut self, conn: u32, around: &mut Around<'_>) {
        let patience = Duration::from_millis(around.board.random.random_range(1_000..12_000));
        let hello = Hello {
            version_min: VERSION,
            version_max: VERSION,
            features: features::SERVED,
            heartbeat_s: 300,
            device: DeviceId::new(&self.name).expect("a legal name"),
            token: self.token.clone(),
        };
        let mut output = Vec::new();
        Request::Hello(hello).encode_frame(&mut output, 1);
        self.line = Some(Line {
            conn,
            deframer: Deframer::default(),
            output,
            last_req: 1,
            pending: BTreeMap::new(),
            welcomed: false,
            ready: false,
            catch_up: None,
            patience,
            cut_after: None,
            paused_until: None,
        });
        around.recorder.say(What::Connect { conn, user: self.user.clone(), device: self.name.clone() });
    }

    /// The connection is gone.
    pub(crate) fn end(&mut self, why: &str, around: &mut Around<'_>) {
        let Some(line) = self.line.take() else { return };
        for (req, (call, _)) in line.pending {
            around.recorder.say(What::Unknown { conn: line.conn, req });
            // Some are never heard of again.
            if is_operation(&call) && !self.unanswered.contains(&call) && !around.board.happens(80) {
                self.unanswered.push_back(call);
            }
        }
        around.recorder.say(What::End { conn: line.conn, why: why.to_owned() });
    }

    fn attach(&mut self, around: &mut Around<'_>) {
        let call = match self.manner {
            Manner::Visits => return,
            Manner::ByMarks => {
                self.held.clear();
                Call::Attach { has: None }
            }
            Manner::Keeps => {
                let mut has = Vec::new();
                for (group, held) in std::mem::take(&mut self.held) {
                    let forgets = if around.board.happens(50) { around.board.random.random_range(0..30) } else { 0 };
                    let seq = (held.next - 1).saturating_sub(forgets);
                    // What it has nothing of, it does not have.
                    if seq > 0 && !(forgets > 20 && self.user != KEEPER) {
                        self.held.insert(group.clone(), Held { next: seq + 1, live: true });
                        has.push((group, seq));
                    }
                }
                Call::Attach { has: Some(has) }
            }
        };
        self.ask(call, around);
    }

    /// Takes bytes as they came. An error says why the connection is over.
    pub(crate) fn receive(&mut self, bytes: &[u8], around: &mut Around<'_>) -> Result<(), String> {
        let Some(line) = &mut self.line else { return Ok(()) };
        let mut deframer = std::mem::take(&mut line.deframer);
        deframer.feed(bytes);
        let outcome = self.take_frames(&mut deframer, around);
        if let Some(line) = &mut self.line {
            line.deframer = deframer;
        }
        outcome
    }

    fn take_frames(&mut self, deframer: &mut Deframer, around: &mut Around<'_>) -> Result<(), String> {
        while let Some(frame) = deframer.next_frame(FrameCaps::Server).map_err(|error| format!("{error:?}"))? {
            let kind = Kind::from_number(frame.header.kind).ok_or("an unknown kind")?;
            if let Some(push) = WirePush::decode(kind, frame.body) {
                let push = push.map_err(|error| format!("{error:?}"))?;
                self.take_push(push, around);
            } else {
                let reply = Reply::decode(kind, frame.body).ok_or("neither push nor reply")?;
                self.take_reply(frame.header.request_id, reply.map_err(|error| format!("{error:?}"))?, around)?;
            }
        }
        Ok(())
    }

    // ---- what the server says ----------------------------------------------------------------------------------

    fn take_reply(&mut self, req: u32, reply: Reply, around: &mut Around<'_>) -> Result<(), String> {
        let Some(line) = &mut self.line else { return Ok(()) };
        if let (0 | 1, Reply::Error(error)) = (req, &reply) {
            return Err(error.name().to_owned());
        }
        if let Reply::Welcome(_) = reply {
            line.welcomed = true;
            self.attach(around);
            for call in std::mem::take(&mut self.unanswered) {
                self.ask(call, around);
            }
            return Ok(());
        }
        let conn = line.conn;
        let asked = line.pending.remove(&req);
        let Some(answer) = answer_of(reply) else { return Ok(()) };
        around.recorder.say(What::Return { conn, req, answer: answer.clone() });
        let Some((call, _)) = asked else { return Ok(()) };
        self.take_answer(req, call, &answer, around);
        Ok(())
    }

    fn take_answer(&mut self, req: u32, call: Call, answer: &Answer, around: &mut Around<'_>) {
        match (answer, &call) {
            (Answer::Created { .. } | Answer::Changed { .. }, _) => {
                if self.done.len() == DONE_MAX {
                    self.done.pop_front();
                }
                self.done.push_back(call);
            }
            (Answer::Page { parts }, Call::History { groups }) => {
                let catches_up =
                    self.line.as_mut().is_some_and(|line| line.catch_up.take_if(|asked| *asked == req).is_some());
                for ((_, from), part) in groups.iter().zip(parts) {
                    self.take_part(*from, part, catches_up, around);
                }
            }
            (Answer::Refused { code, .. }, call) => {
                if let Some(line) = &mut self.line {
                    line.catch_up.take_if(|asked| *asked == req);
                }
                if code == "STORAGE_FULL" && is_operation(call) && around.board.happens(500) {
                    self.unanswered.push_back(call.clone());
                }
            }
            _ => {}
        }
    }

    fn take_part(&mut self, from: u64, part: &Part, catches_up: bool, around: &mut Around<'_>) {
        let user = &self.user;
        if let Outcome::Entries { head, entries, .. } = &part.outcome {
            if from == 1 && !entries.is_empty() {
                self.begun.insert(part.group.clone());
            }
            around.board.see_head(&part.group, *head);
            for entry in entries {
                around.board.see_entry(&part.group, entry);
            }
        }
        let held = self.held.get_mut(&part.group).filter(|held| catches_up && !held.live && held.next == from);
        let Some(held) = held else { return };
        match &part.outcome {
            Outcome::Entries { head, entries, .. } => {
                held.next = entries.last().map_or(held.next, |entry| entry.seq + 1);
                held.live = held.next > *head;
                if entries.last().is_some_and(|entry| ends_stay(user, entry)) {
                    self.held.remove(&part.group);
                }
            }
            Outcome::Refused { code, detail } => match code.as_str() {
                "TRUNCATED" => held.next = held.next.max(*detail),
                "SLOW_DOWN" => {}
                _ => _ = self.held.remove(&part.group),
            },
        }
    }

    fn take_push(&mut self, push: WirePush, around: &mut Around<'_>) {
        let Some(line) = &mut self.line else { return };
        let Some(push) = push_of(push) else { return };
        around.recorder.say(What::Push { conn: line.conn, push: push.clone() });
        match push {
            Push::Entry { group, entry } => {
                around.board.see_entry(&group, &entry);
                if ends_stay(&self.user, &entry) {
                    self.held.remove(&group);
                } else {
                    self.held.insert(group, Held { next: entry.seq + 1, live: true });
                }
            }
            Push::Packet(packet) => {
                around.board.see_packet(&packet);
                self.held.insert(packet.group, Held { next: packet.from, live: packet.from > packet.head });
            }
            Push::Behind { group, from, .. } => {
                let held = self.held.entry(group).or_insert(Held { next: from, live: false });
                held.next = held.next.max(from);
                held.live = false;
            }
            Push::Gone { group, until } => {
                let held = self.held.remove(&group);
                // Who is gone may read to the end, until it has acknowledged that.
                if let Some(held) = held.filter(|held| held.next <= until && around.board.happens(500)) {
                    self.ask(Call::History { groups: vec![(group.clone(), held.next)] }, around);
                    if self.user != KEEPER {
                        self.ask(Call::Acknowledge { marks: vec![(group, until, until)] }, around);
                    }
                }
            }
            Push::Ready => line.ready = true,
            Push::TakenOver | Push::GoingAway => {}
        }
    }

    // ---- what the client asks ----------------------------------------------------------------------------------

    fn ask(&mut self, call: Call, around: &mut Around<'_>) -> u32 {
        let line = self.line.as_mut().expect("there is a connection");
        line.last_req += 1;
        let req = line.last_req;
        around.recorder.say(What::Invoke { conn: line.conn, req, call: call.clone() });
        request_of(&call).encode_frame(&mut line.output, req);
        // An acknowledgement has no answer but a refusal.
        if !matches!(call, Call::Acknowledge { .. }) {
            line.pending.insert(req, (call, around.now));
        }
        req
    }

    /// Time passes: asks for what is missing and, while there is something to be wished for, for more. An error says
    /// why the connection is given up.
    pub(crate) fn handle_time(&mut self, busy: bool, around: &mut Around<'_>) -> Result<(), String> {
        let Some(line) = &mut self.line else { return Ok(()) };
        let waits = |(_, since): &(Call, Instant)| around.now.duration_since(*since) > line.patience;
        if line.pending.values().any(waits) {
            return Err("no answer for too long".to_owned());
        }
        if !line.welcomed {
            return Ok(());
        }
        self.catch_up(around);
        if self.user == KEEPER {
            self.read_beginnings(around);
        }
        if !busy {
            while let Some(call) = self.unanswered.pop_front() {
                self.ask(call, around);
            }
        } else if self.user != KEEPER && around.now >= self.next_wish {
            self.next_wish = around.now + self.mean_pause.mul_f64(2.0 * around.board.random.random::<f64>());
            if self.line.as_ref().is_some_and(|line| line.pending.len() < self.window) {
                self.wish(around);
            }
        }
        Ok(())
    }

    fn catch_up(&mut self, around: &mut Around<'_>) {
        if self.line.as_ref().is_some_and(|line| line.catch_up.is_some()) || self.manner == Manner::Visits {
            return;
        }
        let behind = self.held.iter().filter(|(_, held)| !held.live).take(PAGE_GROUPS_MAX);
        let groups: Vec<_> = behind.map(|(group, held)| (group.clone(), held.next)).collect();
        if !groups.is_empty() {
            let req = self.ask(Call::History { groups }, around);
            if let Some(line) = &mut self.line {
                line.catch_up = Some(req);
            }
        }
    }

    /// Reads the first entries of new groups before retention can take them.
    fn read_beginnings(&mut self, around: &mut Around<'_>) {
        let Some(line) = &self.line else { return };
        let is_asked = |group: &String| {
            line.pending
                .values()
                .any(|(call, _)| matches!(call, Call::History { groups } if *groups == [(group.clone(), 1)]))
        };
        let fresh = self.held.keys().find(|group| !self.begun.contains(*group) && !is_asked(group)).cloned();
        if let Some(group) = fresh {
            self.ask(Call::History { groups: vec![(group, 1)] }, around);
        }
    }

    fn wish(&mut self, around: &mut Around<'_>) {
        let board = &mut *around.board;
        let known = self.done.len();
        let call = match board.random.random_range(0..1000) {
            0..60 if known > 0 => Some(self.done[board.random.random_range(0..known)].clone()),
            60..90 if known > 0 => {
                let call = &self.done[board.random.random_range(0..known)];
                board.with_other_content(call)
            }
            // Said again while the first has no answer yet.
            90..130 => {
                let pending = self.line.iter().flat_map(|line| line.pending.values());
                pending.map(|(call, _)| call).find(|call| is_operation(call)).cloned()
            }
            130..190 => board.get(&self.user),
            190..220 => Some(Call::List { after: None }),
            220..280 if self.manner == Manner::Visits => board.history(&self.user),
            220..280 => self.acknowledgement(board),
            280..286 => return self.cut(around),
            286..292 => {
                let pause = Duration::from_millis(board.random.random_range(100..3_000));
                if let Some(line) = &mut self.line {
                    line.paused_until = Some(around.now + pause);
                }
                return;
            }
            292..700 if !self.unanswered.is_empty() => self.unanswered.pop_front(),
            _ => Some(board.change(&self.user)),
        };
        if let Some(call) = call {
            self.ask(call, around);
        }
    }

    fn acknowledgement(&self, board: &mut Board) -> Option<Call> {
        let count = self.held.len();
        let place = board.random.random_range(0..count.max(1));
        let (group, held) = self.held.iter().nth(place)?;
        let received = held.next - 1;
        (received > 0).then(|| Call::Acknowledge { marks: vec![(group.clone(), received, received / 2)] })
    }

    /// Goes in the middle of a request.
    fn cut(&mut self, around: &mut Around<'_>) {
        let call = around.board.change(&self.user);
        let before = self.line.as_ref().map_or(0, |line| line.output.len());
        self.ask(call, around);
        if let Some(line) = &mut self.line {
            line.cut_after = Some(around.board.random.random_range(before..=line.output.len()));
        }
    }

    // ---- in the end --------------------------------------------------------------------------------------------

    /// Says its last operations once more: on the server of the end they have the answers that they had.
    pub(crate) fn say_all_again(&mut self, around: &mut Around<'_>) {
        self.unanswered.extend(self.done.drain(..));
        if self.line.as_ref().is_some_and(|line| line.welcomed) {
            for call in std::mem::take(&mut self.unanswered) {
                self.ask(call, around);
            }
        }
    }

    /// Whether it is connected and waits for nothing.
    pub(crate) fn is_settled(&self) -> bool {
        let at_rest =
            |line: &Line| line.welcomed && line.pending.is_empty() && (line.ready || self.manner == Manner::Visits);
        self.unanswered.is_empty()
            && self.line.as_ref().is_some_and(at_rest)
            && (self.manner == Manner::Visits || self.held.values().all(|held| held.live))
    }

    /// Whether it has all of these groups up to their heads.
    pub(crate) fn has_all(&self, heads: &BTreeMap<String, u64>) -> bool {
        self.manner == Manner::Visits
            || heads.iter().all(|(group, head)| match self.held.get(group) {
                Some(held) => held.next == head + 1,
                // It may stand at its mark, of which nothing is said.
                None => self.manner == Manner::ByMarks,
            })
    }
}

fn is_operation(call: &Call) -> bool {
    matches!(call, Call::Create { .. } | Call::Change { .. })
}

fn ends_stay(user: &str, entry: &Entry) -> bool {
    let Some(shown) = &entry.shown else { return false };
    match &shown.event {
        Event::Dissolved => true,
        Event::Left { .. } => shown.sender == user,
        Event::Removed(users) => users.iter().any(|removed| removed == user),
        _ => false,
    }
}
