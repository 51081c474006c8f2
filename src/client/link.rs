//! A socket and the conversation that goes over it: waits, writes, reads.

use std::io::{self, Read, Write};
use std::net::{TcpStream, ToSocketAddrs};
use std::time::{Duration, Instant};

use super::conversation::Conversation;
use super::error::SessionError;

/// Bytes taken from the socket at once.
const READ_BYTES: usize = 64 * 1024;
/// How long the last words of a server are waited for that closes while this side writes.
const LAST_WORDS: Duration = Duration::from_millis(100);

/// A clock that never goes back.
#[derive(Clone, Copy, Debug)]
pub(super) struct Clock {
    began: Instant,
}

impl Clock {
    pub(super) fn start() -> Self {
        Self { began: Instant::now() }
    }

    pub(super) fn now_ms(self) -> u64 {
        u64::try_from(self.began.elapsed().as_millis()).unwrap_or(u64::MAX)
    }
}

/// What one wait brought.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Turn {
    Moved,
    TimeUp,
    Interrupted,
}

/// Why a link is of no more use.
#[derive(Clone, Copy, Debug)]
pub(super) enum Broken {
    /// The connection ended.
    Closed,
    /// What came over it is not what a server sends.
    Protocol(SessionError),
}

/// One connection.
#[derive(Debug)]
pub(super) struct Link {
    stream: TcpStream,
    clock: Clock,
    scratch: Vec<u8>,
}

impl Link {
    /// Makes a connection. Not being able to takes `timeout` at most for each address of the name.
    pub(super) fn connect(server: &str, timeout: Duration, clock: Clock) -> io::Result<Self> {
        let mut failure = io::Error::new(io::ErrorKind::NotFound, "the name has no address");
        for address in server.to_socket_addrs()? {
            match TcpStream::connect_timeout(&address, timeout.max(Duration::from_millis(1))) {
                Ok(stream) => {
                    stream.set_nodelay(true)?;
                    stream.set_write_timeout(Some(timeout))?;
                    return Ok(Self { stream, clock, scratch: vec![0; READ_BYTES] });
                }
                Err(error) => failure = error,
            }
        }
        Err(failure)
    }

    /// Writes what waits, then reads once. Returns early when the heartbeat is due.
    pub(super) fn turn(&mut self, conversation: &mut Conversation, deadline: Option<Instant>) -> Result<Turn, Broken> {
        let now_ms = self.clock.now_ms();
        conversation.handle_time(now_ms).map_err(Broken::Protocol)?;
        self.flush(conversation)?;
        let until_deadline = deadline.map(|deadline| deadline.saturating_duration_since(Instant::now()));
        let due_ms = conversation.session().deadline_ms();
        let until_due = due_ms.map(|due_ms| Duration::from_millis(due_ms.saturating_sub(now_ms).max(1)));
        let wait = until_deadline.into_iter().chain(until_due).min();
        if until_deadline == Some(Duration::ZERO) {
            return self.read_what_is_there(conversation);
        }
        self.stream.set_read_timeout(wait).map_err(|_| Broken::Closed)?;
        let outcome = self.read(conversation)?;
        // What is missing was asked for.
        self.flush(conversation)?;
        let up = deadline.is_some_and(|deadline| Instant::now() >= deadline);
        Ok(if outcome == Turn::TimeUp && !up { Turn::Moved } else { outcome })
    }

    /// Writes what waits.
    pub(super) fn flush(&mut self, conversation: &mut Conversation) -> Result<(), Broken> {
        let output = conversation.session().output();
        if output.is_empty() {
            return Ok(());
        }
        if self.stream.write_all(output).is_err() {
            self.read_last_words(conversation);
            return Err(Broken::Closed);
        }
        let written = output.len();
        conversation.consume_output(written);
        Ok(())
    }

    /// A wait of no time: takes what has arrived already.
    fn read_what_is_there(&mut self, conversation: &mut Conversation) -> Result<Turn, Broken> {
        self.stream.set_nonblocking(true).map_err(|_| Broken::Closed)?;
        let outcome = self.read(conversation);
        self.stream.set_nonblocking(false).map_err(|_| Broken::Closed)?;
        self.flush(conversation)?;
        outcome
    }

    fn read(&mut self, conversation: &mut Conversation) -> Result<Turn, Broken> {
        match self.stream.read(&mut self.scratch) {
            Ok(0) => Err(Broken::Closed),
            Ok(count) => {
                let bytes = self.scratch.get(..count).unwrap_or_default();
                conversation.receive(self.clock.now_ms(), bytes).map_err(Broken::Protocol)?;
                Ok(Turn::Moved)
            }
            Err(error) => match error.kind() {
                io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut => Ok(Turn::TimeUp),
                io::ErrorKind::Interrupted => Ok(Turn::Interrupted),
                _ => Err(Broken::Closed),
            },
        }
    }

    /// A server that closes while this side writes has said why before it did.
    fn read_last_words(&mut self, conversation: &mut Conversation) {
        let _ = self.stream.set_read_timeout(Some(LAST_WORDS));
        while let Ok(count @ 1..) = self.stream.read(&mut self.scratch) {
            let bytes = self.scratch.get(..count).unwrap_or_default();
            if conversation.receive(self.clock.now_ms(), bytes).is_err() {
                return;
            }
        }
    }
}
