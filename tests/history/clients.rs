//! All clients on one thread: their sockets, and when they connect, come back and go.

use std::collections::{BTreeMap, VecDeque};
use std::io::{ErrorKind, Read as _, Write as _};
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use mio::{Events, Interest, Poll, Token};
use rand::Rng as _;

use super::device::{Around, Device};
use super::recorder::Recorder;
use super::wishes::Board;

/// Read from one connection before the next one has its turn.
const READ_BYTES_PER_TURN: usize = 64 * 1024;
/// Connections that are left open without being used.
const ABANDONED_MAX: usize = 16;
/// Clients look at the clock this often.
const TICK: Duration = Duration::from_millis(2);

#[derive(Debug)]
struct Socket {
    stream: mio::net::TcpStream,
    readable: bool,
    writable: bool,
}

#[derive(Debug)]
pub(crate) struct Clients {
    poll: Poll,
    events: Events,
    address: SocketAddr,
    pub(crate) devices: Vec<Device>,
    sockets: Vec<Option<Socket>>,
    away_until: Vec<Instant>,
    /// Connections that nobody reads or closes: the server takes them for alive until the device is back.
    abandoned: VecDeque<mio::net::TcpStream>,
    pub(crate) board: Board,
    recorder: Recorder,
    connections: u32,
    scratch: Vec<u8>,
    /// Whether they wish for anything new.
    pub(crate) busy: bool,
}

impl Clients {
    pub(crate) fn new(address: SocketAddr, board: Board, devices: Vec<Device>, recorder: Recorder) -> Self {
        let count = devices.len();
        Self {
            poll: Poll::new().expect("a poll"),
            events: Events::with_capacity(256),
            address,
            devices,
            sockets: (0..count).map(|_| None).collect(),
            away_until: vec![Instant::now(); count],
            abandoned: VecDeque::new(),
            board,
            recorder,
            connections: 0,
            scratch: vec![0; READ_BYTES_PER_TURN],
            busy: true,
        }
    }

    /// Waits a moment for the network, and lets everybody do what is due.
    pub(crate) fn turn(&mut self) {
        match self.poll.poll(&mut self.events, Some(TICK)) {
            Err(error) if error.kind() != ErrorKind::Interrupted => panic!("{error}"),
            _ => {}
        }
        for event in &self.events {
            if let Some(socket) = self.sockets.get_mut(event.token().0).and_then(Option::as_mut) {
                socket.readable |= event.is_readable() || event.is_read_closed() || event.is_error();
                socket.writable |= event.is_writable();
            }
        }
        for slot in 0..self.devices.len() {
            if self.sockets[slot].is_none() {
                self.connect(slot);
            }
            if let Err(why) = self.read(slot).and_then(|()| self.act(slot)).and_then(|()| self.write(slot)) {
                self.end(slot, &why);
            }
        }
    }

    pub(crate) fn next_connection(&mut self) -> u32 {
        self.connections += 1;
        self.connections
    }

    /// Says all that was done lately once more.
    pub(crate) fn say_all_again(&mut self) {
        for device in &mut self.devices {
            let (board, recorder) = (&mut self.board, &self.recorder);
            device.say_all_again(&mut Around { board, recorder, now: Instant::now() });
        }
    }

    pub(crate) fn are_settled(&self) -> bool {
        self.devices.iter().all(Device::is_settled)
    }

    /// Whether every device has all groups of its user up to their heads.
    pub(crate) fn have_all(&self, heads: &BTreeMap<String, BTreeMap<String, u64>>) -> bool {
        self.devices.iter().all(|device| heads.get(&device.user).is_none_or(|heads| device.has_all(heads)))
    }

    fn connect(&mut self, slot: usize) {
        let now = Instant::now();
        if now < self.away_until[slot] {
            return;
        }
        self.away_until[slot] = now + Duration::from_millis(self.board.random.random_range(20..250));
        let Ok(stream) = std::net::TcpStream::connect(self.address) else { return };
        stream.set_nodelay(true).expect("a socket");
        stream.set_nonblocking(true).expect("a socket");
        let mut stream = mio::net::TcpStream::from_std(stream);
        let interest = Interest::READABLE | Interest::WRITABLE;
        self.poll.registry().register(&mut stream, Token(slot), interest).expect("a socket");
        self.sockets[slot] = Some(Socket { stream, readable: true, writable: true });
        let conn = self.next_connection();
        let (board, recorder) = (&mut self.board, &self.recorder);
        self.devices[slot].begin(conn, &mut Around { board, recorder, now });
    }

    fn end(&mut self, slot: usize, why: &str) {
        if let Some(mut socket) = self.sockets[slot].take().filter(|_| self.board.happens(200)) {
            self.poll.registry().deregister(&mut socket.stream).expect("a socket");
            self.abandoned.push_back(socket.stream);
            if self.abandoned.len() > ABANDONED_MAX {
                self.abandoned.pop_front();
            }
        }
        let now = Instant::now();
        // Some come back at once.
        let away_ms = if self.board.happens(300) { 0 } else { self.board.random.random_range(5..400) };
        self.away_until[slot] = now + Duration::from_millis(away_ms);
        let (board, recorder) = (&mut self.board, &self.recorder);
        self.devices[slot].end(why, &mut Around { board, recorder, now });
    }

    fn read(&mut self, slot: usize) -> Result<(), String> {
        let Some(socket) = &mut self.sockets[slot] else { return Ok(()) };
        let now = Instant::now();
        let device = &mut self.devices[slot];
        if let Some(line) = &mut device.line {
            line.paused_until = line.paused_until.filter(|until| *until > now && self.busy);
            if line.paused_until.is_some() {
                return Ok(());
            }
        }
        let mut count = 0;
        while socket.readable && count < READ_BYTES_PER_TURN {
            match socket.stream.read(&mut self.scratch) {
                Ok(0) => return Err("closed".to_owned()),
                Ok(read) => {
                    count += read;
                    let (board, recorder) = (&mut self.board, &self.recorder);
                    device.receive(&self.scratch[..read], &mut Around { board, recorder, now })?;
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => socket.readable = false,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(error.to_string()),
            }
        }
        Ok(())
    }

    fn act(&mut self, slot: usize) -> Result<(), String> {
        let (board, recorder) = (&mut self.board, &self.recorder);
        self.devices[slot].handle_time(self.busy, &mut Around { board, recorder, now: Instant::now() })
    }

    fn write(&mut self, slot: usize) -> Result<(), String> {
        let Some((socket, line)) = self.sockets[slot].as_mut().zip(self.devices[slot].line.as_mut()) else {
            return Ok(());
        };
        while socket.writable && !line.output.is_empty() {
            let count = line.cut_after.unwrap_or(usize::MAX).min(line.output.len());
            if count == 0 {
                break;
            }
            match socket.stream.write(&line.output[..count]) {
                Ok(written) => {
                    line.output.drain(..written);
                    line.cut_after = line.cut_after.map(|left| left - written);
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => socket.writable = false,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(error.to_string()),
            }
        }
        if line.cut_after == Some(0) { Err("cut by the client".to_owned()) } else { Ok(()) }
    }
}
