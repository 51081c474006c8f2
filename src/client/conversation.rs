//! A client that outlives its connections, without a socket, a clock or randomness: what was asked and is not answered
//! yet is said again on the next connection, changes under the same operation id, in the same order.
//!
//! Whoever drives it makes connections, moves bytes and waits ([`super::Client`] does so over TCP; a simulator does it
//! in virtual time):
//!
//! ```text
//! down ──reconnected──▶ greeting ──Welcome──▶ up ──handle_disconnected──▶ down
//!                          └──refused: standing() says whether trying again makes sense
//! ```
//!
//! On `Welcome`, in this order: marks that were set, going on line again with what is here, everything unanswered.

use std::collections::{BTreeMap, VecDeque};

use super::error::{SessionError, TooLarge};
use super::event::Event;
use super::retry::may_reconnect;
use super::session::{RequestId, Session};
use crate::ids::{GroupId, UserId};
use crate::wire::{ErrorBody, ErrorCode, FrameCaps, FrameError, GroupSeq, Hello, Mark, Reply, Request};

/// Marks in one frame when they are all said again: 40 bytes each, far below what a frame may have.
const MARKS_PER_FRAME: usize = 2_000;

/// The number of a call: it stays the same over all connections that its answer takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct CallId(u64);

/// Whether there is a connection, and whether there can be another.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Standing {
    /// No connection; making one makes sense.
    Down,
    /// The hello is under way.
    Greeting,
    /// Authenticated.
    Up,
    /// The server has said why it takes this client no more: another connection would end in the same way.
    Over(ErrorBody),
}

/// What waits for an answer.
#[derive(Debug)]
struct Unanswered {
    what: What,
    /// Whether it was ever put into the output of a connection.
    said: bool,
}

#[derive(Debug)]
enum What {
    Request { request: Request, user: Option<UserId> },
    Attach,
}

/// A client over one connection after another.
#[derive(Debug)]
pub struct Conversation {
    session: Session,
    /// How it introduces itself; `None`: it asks for what needs no introduction (a ping).
    hello: Option<Hello>,
    standing: Standing,
    greeting: Option<RequestId>,
    /// The request that goes on with the feed of an earlier connection.
    feeding: Option<RequestId>,
    last_call: u64,
    unanswered: BTreeMap<CallId, Unanswered>,
    asked: BTreeMap<RequestId, CallId>,
    answers: VecDeque<(CallId, Reply)>,
    /// The highest marks that were set: they have no answer, so they are said again.
    marks: BTreeMap<GroupId, Mark>,
    /// Whether there was a connection before.
    resumes: bool,
}

impl Conversation {
    /// Without a connection yet. Without a hello only what needs none can be asked.
    pub fn new(hello: Option<Hello>) -> Self {
        Self {
            session: Session::new(0),
            hello,
            standing: Standing::Down,
            greeting: None,
            feeding: None,
            last_call: 0,
            unanswered: BTreeMap::new(),
            asked: BTreeMap::new(),
            answers: VecDeque::new(),
            marks: BTreeMap::new(),
            resumes: false,
        }
    }

    /// The groups, what is to be written, what the server granted.
    pub fn session(&self) -> &Session {
        &self.session
    }

    /// Whether there is a connection, and whether there can be another.
    pub fn standing(&self) -> &Standing {
        &self.standing
    }

    /// Introduces itself with another token from the next connection on. Who was turned away because the last one had
    /// ended may come back with it.
    pub fn set_token(&mut self, token: String) {
        let expired = ErrorCode::TokenExpired.number();
        if matches!(&self.standing, Standing::Over(reason) if reason.code == expired) {
            self.standing = Standing::Down;
        }
        if let Some(hello) = &mut self.hello {
            hello.token = token;
        }
    }

    // ---- connections -------------------------------------------------------------------------------------------

    /// A connection is made, at this time of a clock that never goes back.
    pub fn handle_connected(&mut self, now_ms: u64) -> Result<(), TooLarge> {
        self.session.reconnect(now_ms);
        self.asked.clear();
        self.feeding = None;
        self.standing = Standing::Greeting;
        match self.hello.clone() {
            Some(hello) => self.greeting = Some(self.session.hello(hello)?),
            None => self.handle_welcome(),
        }
        Ok(())
    }

    /// The connection is gone, or is given up. Gives what the server said about it, if it said anything.
    pub fn handle_disconnected(&mut self) -> Option<ErrorBody> {
        let reason = self.session.closing().cloned();
        let standing = match &reason {
            Some(reason) if !may_reconnect(reason) => Standing::Over(reason.clone()),
            _ => Standing::Down,
        };
        let before = std::mem::replace(&mut self.standing, standing);
        if before == Standing::Up && self.standing == Standing::Down {
            self.session.tell(Event::Interrupted { reason: reason.clone() });
        }
        reason
    }

    /// The server sent what no server sends. Whether another connection makes sense all the same: damage on the way
    /// may be over by then, a server of another kind is not.
    pub fn handle_error(&mut self, error: SessionError) -> bool {
        self.handle_disconnected();
        matches!(error, SessionError::Silent | SessionError::Frame(FrameError::Crc)) && self.standing == Standing::Down
    }

    /// Takes bytes as they came from the socket, cut anywhere.
    pub fn receive(&mut self, now_ms: u64, bytes: &[u8]) -> Result<(), SessionError> {
        let outcome = self.session.receive(now_ms, bytes);
        self.take_replies();
        outcome
    }

    /// Tells the time.
    pub fn handle_time(&mut self, now_ms: u64) -> Result<(), SessionError> {
        self.session.handle_time(now_ms)
    }

    /// The first `count` bytes of the session's output were written.
    pub fn consume_output(&mut self, count: usize) {
        self.session.consume_output(count);
    }

    // ---- calls -------------------------------------------------------------------------------------------------

    /// Asks something, now or as soon as there is a connection. It is said again on every connection until its answer
    /// is there or [`Self::give_up`]: a change needs an operation id for that, which all of them have.
    pub fn call(&mut self, request: Request, user: Option<UserId>) -> Result<CallId, TooLarge> {
        let max = FrameCaps::Client.frame_bytes_max(request.kind().number());
        let mut frame = Vec::new();
        request.encode_frame_as(&mut frame, 1, user.as_ref());
        if frame.len() > max {
            return Err(TooLarge { max });
        }
        Ok(self.enter(What::Request { request, user }))
    }

    /// Goes on line with the user's received marks, now and on every connection that follows.
    pub fn attach_marks(&mut self) -> CallId {
        self.session.prepare_marks();
        self.enter(What::Attach)
    }

    /// The same with what this device has; on connections that follow, with what it has by then.
    pub fn attach_device(&mut self, groups: &[GroupSeq]) -> CallId {
        self.session.prepare_device(groups);
        self.enter(What::Attach)
    }

    /// Says how far this device has received and read groups. No answer; said again after a reconnection.
    pub fn acknowledge(&mut self, marks: &[Mark]) -> Result<(), TooLarge> {
        for mark in marks {
            let kept = self.marks.entry(mark.group).or_insert(*mark);
            (kept.received, kept.read) = (kept.received.max(mark.received), kept.read.max(mark.read));
        }
        if self.standing == Standing::Up {
            self.say_marks(marks)?;
        }
        Ok(())
    }

    /// Sends what has no answer and is not said again: a signal. Without a connection it is dropped, like one to
    /// somebody who is off line.
    pub fn say_once(&mut self, request: &Request, user: Option<&UserId>) -> Result<(), TooLarge> {
        if self.standing == Standing::Up {
            self.session.request_as(request, user)?;
        }
        Ok(())
    }

    /// The next answer.
    pub fn poll_answer(&mut self) -> Option<(CallId, Reply)> {
        self.answers.pop_front()
    }

    /// Whether a call has been put into the output of some connection: if not, it surely has no effect.
    pub fn was_said(&self, call: CallId) -> bool {
        self.unanswered.get(&call).is_none_or(|unanswered| unanswered.said)
    }

    /// Nobody waits for the answer any more.
    pub fn give_up(&mut self, call: CallId) {
        self.unanswered.remove(&call);
        self.answers.retain(|(answered, _)| *answered != call);
    }

    /// Calls without an answer.
    pub fn unanswered(&self) -> usize {
        self.unanswered.len()
    }

    /// The next thing that the server told unasked.
    pub fn poll_event(&mut self) -> Option<Event> {
        self.session.poll_event()
    }

    /// The server has said that the token expires soon; said once a connection.
    pub fn poll_expiry(&mut self) -> Option<u64> {
        self.session.poll_expiry()
    }

    /// Whether a call for a feed waits: a second feed on one connection would end it.
    fn asks_for_feed(&self) -> bool {
        let is_feed = |one: &Unanswered| matches!(one.what, What::Request { request: Request::Feed { .. }, .. });
        self.unanswered.values().any(is_feed)
    }

    fn enter(&mut self, what: What) -> CallId {
        self.last_call += 1;
        let call = CallId(self.last_call);
        self.unanswered.insert(call, Unanswered { what, said: false });
        if self.standing == Standing::Up {
            self.say(call);
        }
        call
    }

    fn say(&mut self, call: CallId) {
        let Some(unanswered) = self.unanswered.get_mut(&call) else { return };
        let request = match &unanswered.what {
            What::Request { request, user } => self.session.request_as(request, user.as_ref()).ok(),
            What::Attach => self.session.attach_again(),
        };
        unanswered.said = true;
        // What is too large was refused when the call was made.
        self.asked.extend(request.map(|request| (request, call)));
    }

    fn say_marks(&mut self, marks: &[Mark]) -> Result<(), TooLarge> {
        for marks in marks.chunks(MARKS_PER_FRAME) {
            self.session.request(&Request::Acknowledge { marks: marks.to_vec() })?;
        }
        Ok(())
    }

    fn take_replies(&mut self) {
        while let Some((request, reply)) = self.session.poll_reply() {
            if self.greeting == Some(request) {
                self.greeting = None;
                match reply {
                    Reply::Error(reason) => self.session.set_closing(reason),
                    _ => self.handle_welcome(),
                }
            } else if self.feeding == Some(request) {
                self.feeding = None;
                if let Reply::Error(error) = reply {
                    self.session.end_feed(error);
                }
            } else if let Some(call) = self.asked.remove(&request)
                && self.unanswered.remove(&call).is_some()
            {
                self.answers.push_back((call, reply));
            }
        }
    }

    fn handle_welcome(&mut self) {
        self.standing = Standing::Up;
        if std::mem::replace(&mut self.resumes, true) {
            self.session.tell(Event::Resumed);
        }
        let marks: Vec<Mark> = self.marks.values().copied().collect();
        self.say_marks(&marks).expect("so many marks fit one frame");
        let attaches = |(_, unanswered): &(&CallId, &Unanswered)| matches!(unanswered.what, What::Attach);
        if !self.unanswered.iter().any(|one| attaches(&one)) {
            // It was on line before: nobody waits for this answer.
            self.session.attach_again();
        }
        if let Some(position) = self.session.feed_position().filter(|_| !self.asks_for_feed()) {
            let request = self.session.request(&Request::Feed { position }).expect("a number fits one frame");
            self.feeding = Some(request);
        }
        let mut unanswered: Vec<CallId> = self.unanswered.keys().copied().collect();
        if planted!("client: what has no answer is not said again") {
            unanswered.retain(|call| !self.unanswered.get(call).is_some_and(|one| one.said));
        }
        for call in unanswered {
            self.say(call);
        }
    }
}

#[cfg(test)]
#[path = "conversation_tests.rs"]
mod tests;
