//! A socket and the session that runs over it: waits, writes, reads, keeps time.

use std::io::{self, Read, Write};
use std::net::{TcpStream, ToSocketAddrs};
use std::time::{Duration, Instant};

use super::error::ClientError;
use super::session::{RequestId, Session, SessionError, TooLarge};
use crate::ids::OperationId;
use crate::wire::{Reply, Request};

/// Bytes taken from the socket at once.
const READ_BYTES: usize = 64 * 1024;

/// What a server says to a ping.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pong {
    /// The server's clock, in milliseconds since 1970.
    pub server_time_ms: u64,
    /// Whether it serves requests already.
    pub ready: bool,
    /// How long the answer took.
    pub round_trip: Duration,
}

/// What one wait brought.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Turn {
    Moved,
    TimeUp,
    Interrupted,
}

/// A socket and the session that runs over it.
#[derive(Debug)]
pub(super) struct Link {
    stream: TcpStream,
    pub(super) session: Session,
    began: Instant,
    timeout: Duration,
    scratch: Vec<u8>,
}

impl Link {
    pub(super) fn connect(server: &str, timeout: Duration) -> Result<Self, ClientError> {
        let stream =
            connect(server, timeout).map_err(|error| ClientError::Connect { server: server.to_owned(), error })?;
        let began = Instant::now();
        Ok(Self { stream, session: Session::new(0), began, timeout, scratch: vec![0; READ_BYTES] })
    }

    fn now_ms(&self) -> u64 {
        u64::try_from(self.began.elapsed().as_millis()).unwrap_or(u64::MAX)
    }

    pub(super) fn ping(&mut self) -> Result<Pong, ClientError> {
        let sent = Instant::now();
        let request = self.session.request(&Request::Ping).map_err(too_large)?;
        match self.answer(request, None)? {
            Reply::Pong { server_time_ms, ready } => Ok(Pong { server_time_ms, ready, round_trip: sent.elapsed() }),
            other => Err(unexpected(&other)),
        }
    }

    /// Waits for the answer to a request. `operation` is that of a change: if the connection breaks, nobody here
    /// knows whether it happened.
    pub(super) fn answer(&mut self, request: RequestId, operation: Option<OperationId>) -> Result<Reply, ClientError> {
        self.await_answer(request, self.timeout).map_err(|error| match (operation, error) {
            (Some(operation), ClientError::Closed { reason }) => ClientError::OutcomeUnknown { operation, reason },
            (Some(operation), ClientError::TimedOut | ClientError::Protocol(_)) => {
                ClientError::OutcomeUnknown { operation, reason: None }
            }
            (_, error) => error,
        })
    }

    /// Waits for an answer that may take long; the heartbeat tells whether the server is there.
    pub(super) fn answer_within(&mut self, request: RequestId, patience: Duration) -> Result<Reply, ClientError> {
        self.await_answer(request, patience)
    }

    fn await_answer(&mut self, request: RequestId, patience: Duration) -> Result<Reply, ClientError> {
        let deadline = Instant::now() + patience;
        loop {
            // Answers to requests that were given up on are passed over.
            while let Some((answered, reply)) = self.session.poll_reply() {
                match reply {
                    Reply::Error(error) if answered == request => return Err(ClientError::Refused(error)),
                    reply if answered == request => return Ok(reply),
                    _ => {}
                }
            }
            if self.turn(Some(deadline))? == Turn::TimeUp {
                return Err(ClientError::TimedOut);
            }
        }
    }

    /// Writes what waits, then reads once. Returns early when the heartbeat is due.
    pub(super) fn turn(&mut self, deadline: Option<Instant>) -> Result<Turn, ClientError> {
        let now_ms = self.now_ms();
        self.session.handle_time(now_ms).map_err(ClientError::Protocol)?;
        self.flush()?;
        let now = Instant::now();
        let until_deadline = deadline.map(|deadline| deadline.saturating_duration_since(now));
        let until_heartbeat =
            self.session.deadline_ms().map(|due_ms| Duration::from_millis(due_ms.saturating_sub(now_ms).max(1)));
        let wait = until_deadline.into_iter().chain(until_heartbeat).min();
        if until_deadline == Some(Duration::ZERO) {
            return self.read_what_is_there();
        }
        self.stream.set_read_timeout(wait).map_err(|_| self.closed())?;
        let outcome = self.read()?;
        let up = deadline.is_some_and(|deadline| Instant::now() >= deadline);
        Ok(if outcome == Turn::TimeUp && !up { Turn::Moved } else { outcome })
    }

    /// A wait of no time: takes what has arrived already.
    fn read_what_is_there(&mut self) -> Result<Turn, ClientError> {
        self.stream.set_nonblocking(true).map_err(|_| self.closed())?;
        let outcome = self.read();
        self.stream.set_nonblocking(false).map_err(|_| self.closed())?;
        outcome
    }

    fn read(&mut self) -> Result<Turn, ClientError> {
        match self.stream.read(&mut self.scratch) {
            Ok(0) => Err(self.closed()),
            Ok(count) => {
                let now_ms = self.now_ms();
                let bytes = self.scratch.get(..count).unwrap_or_default();
                self.session.receive(now_ms, bytes).map_err(ClientError::Protocol)?;
                // What is missing was asked for.
                self.flush()?;
                Ok(Turn::Moved)
            }
            Err(error) => match error.kind() {
                io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut => Ok(Turn::TimeUp),
                io::ErrorKind::Interrupted => Ok(Turn::Interrupted),
                _ => Err(self.closed()),
            },
        }
    }

    pub(super) fn flush(&mut self) -> Result<(), ClientError> {
        if self.session.output().is_empty() {
            return Ok(());
        }
        if self.stream.write_all(self.session.output()).is_err() {
            self.read_last_words();
            return Err(self.closed());
        }
        let written = self.session.output().len();
        self.session.consume_output(written);
        Ok(())
    }

    /// A server that closes while this side writes has said why before it did.
    fn read_last_words(&mut self) {
        let _ = self.stream.set_read_timeout(Some(Duration::from_millis(100)));
        while let Ok(count @ 1..) = self.stream.read(&mut self.scratch) {
            let now_ms = self.now_ms();
            let bytes = self.scratch.get(..count).unwrap_or_default();
            if self.session.receive(now_ms, bytes).is_err() {
                return;
            }
        }
    }

    fn closed(&self) -> ClientError {
        ClientError::Closed { reason: self.session.closing().cloned() }
    }
}

fn connect(server: &str, timeout: Duration) -> io::Result<TcpStream> {
    let mut failure = io::Error::new(io::ErrorKind::NotFound, "the name has no address");
    for address in server.to_socket_addrs()? {
        match TcpStream::connect_timeout(&address, timeout) {
            Ok(stream) => {
                stream.set_nodelay(true)?;
                stream.set_write_timeout(Some(timeout))?;
                return Ok(stream);
            }
            Err(error) => failure = error,
        }
    }
    Err(failure)
}

pub(super) fn too_large(TooLarge { max }: TooLarge) -> ClientError {
    ClientError::TooLarge { max }
}

pub(super) fn unexpected(reply: &Reply) -> ClientError {
    ClientError::Protocol(SessionError::Unexpected { kind: reply.kind().number() })
}
