//! Many non-blocking sockets on one thread: what comes is cut into items, what is to be sent goes at once.

use std::io::{ErrorKind, Read, Write};
use std::net::TcpStream;
use std::os::fd::{AsRawFd, OwnedFd};
use std::time::{Duration, Instant};

use mio::unix::SourceFd;
use mio::{Events, Interest, Poll, Token};
use rustix::time::{
    Itimerspec, TimerfdClockId, TimerfdFlags, TimerfdTimerFlags, Timespec, timerfd_create, timerfd_settime,
};

use super::cutter::Cutter;
use super::failed;
use super::peers::{Item, Peer, Seat};
use crate::cli::failure::Failure;

const TIMER: Token = Token(usize::MAX);
/// Bytes that one read takes: more than a window of usual messages.
const READ_BYTES: usize = 256 * 1024;
const EVENTS_MAX: usize = 1024;

struct Connection {
    socket: mio::net::TcpStream,
    seat: Seat,
    cutter: Cutter,
    /// What the socket did not take yet.
    out: Vec<u8>,
}

/// The connections to one system: senders first, then members, by slot.
pub(super) struct Crowd {
    poll: Poll,
    events: Events,
    connections: Vec<Connection>,
    scratch: Vec<u8>,
    /// And what it is set to.
    timer: Option<(OwnedFd, Option<Instant>)>,
}

impl Crowd {
    pub(super) fn new() -> Result<Self, Failure> {
        let poll = Poll::new().map_err(|error| failed(format!("no epoll: {error}")))?;
        Ok(Self {
            poll,
            events: Events::with_capacity(EVENTS_MAX),
            connections: Vec::new(),
            scratch: vec![0; READ_BYTES],
            timer: None,
        })
    }

    /// Adds a connection that is open, in the next slot.
    pub(super) fn add(&mut self, socket: TcpStream, seat: Seat, cutter: Cutter) -> Result<(), Failure> {
        let slot = Token(self.connections.len());
        let refused = |error: std::io::Error| failed(format!("no socket: {error}"));
        socket.set_nonblocking(true).map_err(refused)?;
        let mut socket = mio::net::TcpStream::from_std(socket);
        let interest = match seat {
            Seat::Sender => Interest::READABLE | Interest::WRITABLE,
            Seat::Member => Interest::READABLE,
        };
        self.poll.registry().register(&mut socket, slot, interest).map_err(refused)?;
        self.connections.push(Connection { socket, seat, cutter, out: Vec::new() });
        Ok(())
    }

    /// A turn ends at this time at the latest. Milliseconds, which is what a poll can wait for, would be longer than
    /// what is to be measured.
    pub(super) fn wake_at(&mut self, time: Instant) -> Result<(), Failure> {
        let refused = |error: &dyn std::fmt::Display| failed(format!("no timer: {error}"));
        if self.timer.is_none() {
            let timer =
                timerfd_create(TimerfdClockId::Monotonic, TimerfdFlags::NONBLOCK).map_err(|error| refused(&error))?;
            // Edge-triggered: each expiry is an event of its own, whether or not the last one was read.
            let descriptor = timer.as_raw_fd();
            let register = self.poll.registry().register(&mut SourceFd(&descriptor), TIMER, Interest::READABLE);
            register.map_err(|error| refused(&error))?;
            self.timer = Some((timer, None));
        }
        let Some((timer, set)) = &mut self.timer else { unreachable!("it was made just now") };
        if *set == Some(time) {
            return Ok(());
        }
        *set = Some(time);
        // Zero would mean never.
        let wait = time.saturating_duration_since(Instant::now()).max(Duration::from_nanos(1));
        let wait = Timespec::try_from(wait).map_err(|error| refused(&error))?;
        let times = Itimerspec { it_interval: Timespec::default(), it_value: wait };
        timerfd_settime(timer, TimerfdTimerFlags::empty(), &times).map_err(|error| refused(&error))?;
        Ok(())
    }

    /// Sends, or keeps what the socket does not take until it does.
    pub(super) fn send(&mut self, slot: usize, bytes: &[u8], peer: &dyn Peer) -> Result<(), Failure> {
        let connection = &mut self.connections[slot];
        if !connection.out.is_empty() {
            connection.out.extend_from_slice(bytes);
            return Ok(());
        }
        let sent = write(&mut connection.socket, bytes).map_err(|error| peer.failed(&error.to_string()))?;
        connection.out.extend_from_slice(&bytes[sent..]);
        Ok(())
    }

    /// Waits until something comes, and tells what; gives whether anything happened within the time.
    pub(super) fn turn(
        &mut self,
        timeout: Duration,
        peer: &dyn Peer,
        on: &mut dyn FnMut(usize, Item) -> Result<(), Failure>,
    ) -> Result<Happened, Failure> {
        match self.poll.poll(&mut self.events, Some(timeout)) {
            Ok(()) => {}
            Err(error) if error.kind() == ErrorKind::Interrupted => return Ok(Happened::Something),
            Err(error) => return Err(failed(format!("poll: {error}"))),
        }
        for event in &self.events {
            let slot = event.token().0;
            let Some(connection) = self.connections.get_mut(slot) else { continue };
            if event.is_writable() && !connection.out.is_empty() {
                let sent = write(&mut connection.socket, &connection.out);
                connection.out.drain(..sent.map_err(|error| peer.failed(&error.to_string()))?);
            }
            if event.is_readable() || event.is_read_closed() {
                connection.read(&mut self.scratch, event.is_read_closed(), peer, &mut |item| on(slot, item))?;
            }
        }
        Ok(if self.events.is_empty() { Happened::Nothing } else { Happened::Something })
    }
}

/// Whether a turn saw anything.
#[derive(PartialEq, Eq)]
pub(super) enum Happened {
    Nothing,
    Something,
}

impl Connection {
    /// Reads until the socket has no more. What fills less than the buffer was all there was, unless it is the end.
    fn read(
        &mut self,
        scratch: &mut [u8],
        to_the_end: bool,
        peer: &dyn Peer,
        on: &mut dyn FnMut(Item) -> Result<(), Failure>,
    ) -> Result<(), Failure> {
        loop {
            let kept = self.cutter.kept().len();
            scratch[..kept].copy_from_slice(self.cutter.kept());
            let read = match self.socket.read(&mut scratch[kept..]) {
                Ok(0) => return Err(peer.failed("it closed a connection")),
                Ok(count) => kept + count,
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(()),
                Err(error) if error.kind() == ErrorKind::Interrupted => continue,
                Err(error) => return Err(peer.failed(&error.to_string())),
            };
            self.cutter.take(self.seat, &scratch[..read], peer, &mut *on)?;
            if read < scratch.len() && !to_the_end {
                return Ok(());
            }
        }
    }
}

/// As much as the socket takes.
fn write(socket: &mut mio::net::TcpStream, bytes: &[u8]) -> std::io::Result<usize> {
    let mut sent = 0;
    while sent < bytes.len() {
        match socket.write(&bytes[sent..]) {
            Ok(count) => sent += count,
            Err(error) if error.kind() == ErrorKind::WouldBlock => break,
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(sent)
}
