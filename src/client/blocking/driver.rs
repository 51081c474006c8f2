//! Makes connections, and makes them again; waits for answers and events over whichever there is.
//!
//! Invariant: there is a link exactly while the conversation is greeting or up.

use std::io;
use std::thread;
use std::time::{Duration, Instant};

use rand::TryRngCore;
use rand::rngs::OsRng;

use super::options::ConnectOptions;
use crate::client::conversation::{CallId, Conversation, Standing};
use crate::client::error::{ClientError, TooLarge};
use crate::client::event::Event;
use crate::client::link::{Broken, Clock, Link, Turn};
use crate::client::retry::Backoff;
use crate::client::session::Session;
use crate::ids::{OperationId, UserId};
use crate::wire::{ErrorBody, ErrorCode, GroupSeq, Hello, Mark, Reply, Request, VERSION, Welcome, features};

/// How an answer is waited for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Manner {
    /// On every connection that it takes, and on none longer than the timeout.
    Persistent,
    /// On this connection alone, as long as it lives: for what takes long and cannot be said again.
    Patient,
}

/// A time without a connection.
#[derive(Debug)]
struct Outage {
    since: Instant,
    next_attempt: Instant,
    error: Option<io::Error>,
}

/// A conversation and the connection that it goes over at present.
#[derive(Debug)]
pub(super) struct Driver {
    conversation: Conversation,
    link: Option<Link>,
    clock: Clock,
    options: ConnectOptions,
    /// Kept over short-lived connections: a server that takes clients and drops them at once is not stormed.
    backoff: Backoff,
    outage: Option<Outage>,
    /// Connections made so far.
    connections: u64,
    connected: Instant,
    /// What the server said last about a connection that it closed.
    reason: Option<ErrorBody>,
}

impl Driver {
    /// Connects and authenticates, without trying again.
    pub(super) fn open(options: ConnectOptions) -> Result<(Self, Welcome), ClientError> {
        let hello = Hello {
            version_min: VERSION,
            version_max: VERSION,
            features: features::SERVED,
            heartbeat_s: options.heartbeat_s,
            device: options.device.clone(),
            token: options.token.clone(),
        };
        let mut driver = Self::begin(options, Some(hello))?;
        let deadline = Instant::now().checked_add(driver.options.timeout);
        loop {
            if let Some(welcome) = driver.session().welcome() {
                let welcome = welcome.clone();
                return Ok((driver, welcome));
            }
            // Closing is how a hello is refused.
            if let Some(reason) = driver.session().closing() {
                return Err(ClientError::Refused(reason.clone()));
            }
            match driver.turn_link(deadline) {
                Ok(Turn::TimeUp) => return Err(ClientError::TimedOut),
                Ok(Turn::Moved | Turn::Interrupted) => {}
                Err(Broken::Protocol(error)) => return Err(ClientError::Protocol(error)),
                Err(Broken::Closed) => {
                    let reason = driver.conversation.handle_disconnected();
                    return Err(reason.map_or(ClientError::Closed { reason: None }, ClientError::Refused));
                }
            }
        }
    }

    /// Connects; with a hello, says it.
    pub(super) fn begin(options: ConnectOptions, hello: Option<Hello>) -> Result<Self, ClientError> {
        let clock = Clock::start();
        let link = Link::connect(&options.server, options.timeout, clock)
            .map_err(|error| ClientError::Connect { server: options.server.clone(), error })?;
        let mut conversation = Conversation::new(hello);
        conversation.handle_connected(clock.now_ms()).map_err(too_large)?;
        Ok(Self {
            conversation,
            link: Some(link),
            clock,
            options,
            backoff: Backoff::default(),
            outage: None,
            connections: 1,
            connected: Instant::now(),
            reason: None,
        })
    }

    pub(super) fn session(&self) -> &Session {
        self.conversation.session()
    }

    pub(super) fn is_connected(&self) -> bool {
        self.link.is_some()
    }

    pub(super) fn poll_event(&mut self) -> Option<Event> {
        loop {
            match self.conversation.poll_event()? {
                // Taken care of.
                Event::AuthenticateSoon { .. } if self.options.token_source.is_some() => {}
                // Where nothing is tried again, the end is told as the error that it is.
                Event::Interrupted { .. } if !self.options.retry.retries() => {}
                event => return Some(event),
            }
        }
    }

    // ---- asking ------------------------------------------------------------------------------------------------

    pub(super) fn attach_marks(&mut self) -> Result<(), ClientError> {
        let call = self.conversation.attach_marks();
        self.attached(call)
    }

    pub(super) fn attach_device(&mut self, groups: &[GroupSeq]) -> Result<(), ClientError> {
        let call = self.conversation.attach_device(groups);
        self.attached(call)
    }

    fn attached(&mut self, call: CallId) -> Result<(), ClientError> {
        match self.answer(call, None, Manner::Persistent, Instant::now())? {
            Reply::Attached => Ok(()),
            other => Err(super::requests::unexpected(&other)),
        }
    }

    pub(super) fn acknowledge(&mut self, marks: &[Mark]) -> Result<(), ClientError> {
        self.conversation.acknowledge(marks).map_err(too_large)?;
        self.flush()
    }

    pub(super) fn say_once(&mut self, request: &Request, user: Option<&UserId>) -> Result<(), ClientError> {
        self.conversation.say_once(request, user).map_err(too_large)?;
        self.flush()
    }

    /// Asks, and waits for the answer. `operation` is that of a change: if its answer does not come, nobody here knows
    /// whether it happened. `began`: when the caller began to ask for it.
    pub(super) fn ask(
        &mut self,
        request: Request,
        user: Option<UserId>,
        operation: Option<OperationId>,
        manner: Manner,
        began: Instant,
    ) -> Result<Reply, ClientError> {
        let call = self.conversation.call(request, user).map_err(too_large)?;
        self.answer(call, operation, manner, began)
    }

    fn answer(
        &mut self,
        call: CallId,
        operation: Option<OperationId>,
        manner: Manner,
        began: Instant,
    ) -> Result<Reply, ClientError> {
        if let Some(outage) = &mut self.outage {
            // However long there has been no connection: this call has a time of its own.
            outage.since = Instant::now();
        }
        self.await_answer(call, manner, began).map_err(|error| {
            // A change that was never put on any connection has surely not happened.
            let operation = operation.filter(|_| self.conversation.was_said(call));
            self.conversation.give_up(call);
            match (operation, error) {
                (_, error @ (ClientError::Refused(_) | ClientError::TooLarge { .. })) | (None, error) => error,
                (Some(operation), ClientError::Closed { reason }) => ClientError::OutcomeUnknown { operation, reason },
                (Some(operation), _) => ClientError::OutcomeUnknown { operation, reason: self.reason.clone() },
            }
        })
    }

    fn await_answer(&mut self, call: CallId, manner: Manner, began: Instant) -> Result<Reply, ClientError> {
        let limit = match manner {
            Manner::Persistent => began.checked_add(self.options.timeout.max(self.retry_total())),
            Manner::Patient => None,
        };
        let mut connection = self.connections;
        let mut attempt_began = Instant::now();
        loop {
            // Answers to requests that were given up are passed over.
            while let Some((answered, reply)) = self.conversation.poll_answer() {
                match reply {
                    Reply::Error(error) if answered == call => return Err(ClientError::Refused(error)),
                    reply if answered == call => return Ok(reply),
                    _ => {}
                }
            }
            if manner == Manner::Patient && (self.link.is_none() || self.connections != connection) {
                return Err(ClientError::Closed { reason: self.reason.clone() });
            }
            if self.connections != connection {
                (connection, attempt_began) = (self.connections, Instant::now());
            }
            let attempt = attempt_began.checked_add(self.options.timeout);
            let attempt = attempt.filter(|_| manner == Manner::Persistent && self.link.is_some());
            if self.turn(attempt.into_iter().chain(limit).min())? == Turn::TimeUp {
                let over = |end: Instant| Instant::now() >= end;
                if limit.is_some_and(over) || !self.options.retry.retries() {
                    return Err(ClientError::TimedOut);
                }
                if attempt.is_some_and(over) && self.link.is_some() {
                    // It takes what is sent and does not answer: another connection may.
                    self.handle_broken(Broken::Closed)?;
                }
            }
        }
    }

    /// Lets time pass; the connection is kept alive, and what comes is kept.
    pub(super) fn wait(&mut self, time: Duration) -> Result<(), ClientError> {
        let Some(deadline) = Instant::now().checked_add(time) else { return Ok(()) };
        while Instant::now() < deadline {
            self.turn(Some(deadline))?;
        }
        Ok(())
    }

    /// How long to wait before a request is made again that was refused with this, if the policy wants that at all.
    pub(super) fn patience(&self, refusal: &ErrorBody, began: Instant, full: &mut Backoff) -> Option<Duration> {
        let elapsed_ms = u64::try_from(began.elapsed().as_millis()).unwrap_or(u64::MAX);
        self.options.retry.wait_ms(refusal, elapsed_ms, full, random()).map(Duration::from_millis)
    }

    // ---- connections -------------------------------------------------------------------------------------------

    /// Moves bytes, or makes a connection where there is none; at most until the deadline.
    pub(super) fn turn(&mut self, deadline: Option<Instant>) -> Result<Turn, ClientError> {
        if self.link.is_none() {
            return self.reconnect(deadline);
        }
        self.renew_token()?;
        // Before the welcome there is no heartbeat that would notice a server that says nothing.
        let greeted_by = self.connected.checked_add(self.options.timeout);
        let greeted_by = greeted_by.filter(|_| *self.conversation.standing() == Standing::Greeting);
        match self.turn_link(deadline.into_iter().chain(greeted_by).min()) {
            Ok(turn) => self.handle_turn(turn, greeted_by, deadline),
            Err(broken) => self.handle_broken(broken).map(|()| Turn::Moved),
        }
    }

    fn handle_turn(
        &mut self,
        turn: Turn,
        greeted_by: Option<Instant>,
        deadline: Option<Instant>,
    ) -> Result<Turn, ClientError> {
        if *self.conversation.standing() == Standing::Up {
            self.outage = None;
        } else if greeted_by.is_some_and(|by| Instant::now() >= by) {
            self.handle_broken(Broken::Closed)?;
        }
        let up = deadline.is_some_and(|deadline| Instant::now() >= deadline);
        Ok(if turn == Turn::TimeUp && !up { Turn::Moved } else { turn })
    }

    fn turn_link(&mut self, deadline: Option<Instant>) -> Result<Turn, Broken> {
        let link = self.link.as_mut().ok_or(Broken::Closed)?;
        link.turn(&mut self.conversation, deadline)
    }

    fn flush(&mut self) -> Result<(), ClientError> {
        let Some(link) = &mut self.link else { return Ok(()) };
        link.flush(&mut self.conversation).or_else(|broken| self.handle_broken(broken))
    }

    /// The connection is of no more use. An error if another one would not be either.
    fn handle_broken(&mut self, broken: Broken) -> Result<(), ClientError> {
        self.link = None;
        match broken {
            Broken::Closed => self.reason = self.conversation.handle_disconnected(),
            Broken::Protocol(error) if self.conversation.handle_error(error) && self.options.retry.retries() => {}
            Broken::Protocol(error) => return Err(ClientError::Protocol(error)),
        }
        self.check_standing()?;
        let lasted = self.connected.elapsed();
        if lasted > Duration::from_millis(self.options.retry.delay_max_ms) {
            self.backoff = Backoff::default();
        }
        self.postpone(None);
        Ok(())
    }

    /// Whether another connection makes sense.
    fn check_standing(&mut self) -> Result<(), ClientError> {
        if let Standing::Over(reason) = self.conversation.standing().clone() {
            let expired = reason.code == ErrorCode::TokenExpired.number();
            match self.options.token_source.as_ref().filter(|_| expired) {
                Some(source) => self.conversation.set_token(source.token()),
                None => return Err(ClientError::Closed { reason: Some(reason) }),
            }
        }
        if self.options.retry.retries() { Ok(()) } else { Err(ClientError::Closed { reason: self.reason.clone() }) }
    }

    /// The next attempt is made after a random while.
    fn postpone(&mut self, error: Option<io::Error>) {
        let delay = Duration::from_millis(self.backoff.next_ms(&self.options.retry, random()));
        let now = Instant::now();
        let since = self.outage.as_ref().map_or(now, |outage| outage.since);
        self.outage = Some(Outage { since, next_attempt: now.checked_add(delay).unwrap_or(now), error });
    }

    fn reconnect(&mut self, deadline: Option<Instant>) -> Result<Turn, ClientError> {
        self.check_standing()?;
        if self.outage.is_none() {
            self.postpone(None);
        }
        let Some(outage) = &self.outage else { unreachable!("it was just made") };
        if outage.since.elapsed() >= self.retry_total() {
            // Whoever asks next has a time of its own.
            let error = self.outage.take().and_then(|outage| outage.error);
            return Err(match error {
                Some(error) => ClientError::Connect { server: self.options.server.clone(), error },
                None => ClientError::Closed { reason: self.reason.clone() },
            });
        }
        let next_attempt = outage.next_attempt;
        let until = deadline.map_or(next_attempt, |deadline| deadline.min(next_attempt));
        thread::sleep(until.saturating_duration_since(Instant::now()));
        if until < next_attempt {
            return Ok(Turn::TimeUp);
        }
        match Link::connect(&self.options.server, self.options.timeout, self.clock) {
            Ok(link) => {
                self.link = Some(link);
                self.connections += 1;
                self.connected = Instant::now();
                self.conversation.handle_connected(self.clock.now_ms()).map_err(too_large)?;
            }
            Err(error) => self.postpone(Some(error)),
        }
        Ok(Turn::Moved)
    }

    /// Authenticates again in place where the server has asked for it and there is something to do it with.
    fn renew_token(&mut self) -> Result<(), ClientError> {
        let Some(source) = &self.options.token_source else { return Ok(()) };
        if self.conversation.poll_expiry().is_none() {
            return Ok(());
        }
        let token = source.token();
        self.conversation.set_token(token.clone());
        // If it is refused, the connection ends with the old token, and the next one begins with the new.
        self.say_once(&Request::Authenticate { token }, None)
    }

    fn retry_total(&self) -> Duration {
        Duration::from_millis(self.options.retry.total_ms)
    }
}

pub(super) fn too_large(TooLarge { max }: TooLarge) -> ClientError {
    ClientError::TooLarge { max }
}

/// Where the system gives no randomness, waits are their full length.
fn random() -> u64 {
    OsRng.try_next_u64().unwrap_or(u64::MAX)
}
