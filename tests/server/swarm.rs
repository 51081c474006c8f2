//! Very many clients on one thread: the library's sans-I/O sessions over sockets that one `mio::Poll` watches.

use std::collections::VecDeque;
use std::io::{ErrorKind, Read, Write};
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use mio::{Events, Interest, Poll, Token};
use roundtable::client::Session;
use roundtable::ids::DeviceId;
use roundtable::wire::{Hello, VERSION};

/// Read from one connection before the next one has its turn.
const READ_BYTES_PER_TURN: usize = 256 * 1024;
/// How often sessions are told the time.
const TICK: Duration = Duration::from_millis(100);

/// One of the clients.
#[allow(clippy::struct_excessive_bools)] // each is one fact of its own about the connection
pub(crate) struct Peer {
    pub(crate) session: Session,
    socket: mio::net::TcpStream,
    token: String,
    attaches: bool,
    /// A reader that stops reading leaves everything in the socket.
    reads: bool,
    readable: bool,
    queued: bool,
    /// The server has closed the connection, or it broke.
    pub(crate) closed: bool,
}

/// All of them.
pub(crate) struct Swarm {
    poll: Poll,
    events: Events,
    address: SocketAddr,
    pub(crate) peers: Vec<Peer>,
    /// Those with something to read.
    ready: VecDeque<usize>,
    /// Those that heard something, or were closed, in the last turn.
    touched: Vec<usize>,
    scratch: Vec<u8>,
    began: Instant,
    ticked: Instant,
}

impl Swarm {
    pub(crate) fn new(address: SocketAddr) -> Self {
        let began = Instant::now();
        Self {
            poll: Poll::new().unwrap(),
            events: Events::with_capacity(1024),
            address,
            peers: Vec::new(),
            ready: VecDeque::new(),
            touched: Vec::new(),
            scratch: vec![0; 64 * 1024],
            began,
            ticked: began,
        }
    }

    /// Time of the whole swarm, in nanoseconds.
    pub(crate) fn now_ns(&self) -> u64 {
        u64::try_from(self.began.elapsed().as_nanos()).unwrap()
    }

    fn now_ms(&self) -> u64 {
        self.now_ns() / 1_000_000
    }

    /// Connects one more and says hello; with `attaches` it also goes on line. Gives its number.
    pub(crate) fn add(&mut self, token: String, attaches: bool) -> usize {
        let slot = self.peers.len();
        let mut session = Session::new(self.now_ms());
        session.hello(hello(&token)).unwrap();
        if attaches {
            session.attach_marks().unwrap();
        }
        let socket = self.connect(slot);
        let (reads, readable, queued, closed) = (true, false, false, false);
        self.peers.push(Peer { session, socket, token, attaches, reads, readable, queued, closed });
        self.flush(slot);
        slot
    }

    /// Makes another connection for one whose last is closed, which goes on with what it has.
    pub(crate) fn reconnect(&mut self, slot: usize) {
        let (socket, now_ms) = (self.connect(slot), self.now_ms());
        let peer = &mut self.peers[slot];
        (peer.socket, peer.closed, peer.readable) = (socket, false, false);
        peer.session.reconnect(now_ms);
        peer.session.hello(hello(&peer.token)).unwrap();
        if peer.attaches {
            peer.session.attach_again().unwrap();
        }
        self.flush(slot);
    }

    fn connect(&self, slot: usize) -> mio::net::TcpStream {
        let socket = std::net::TcpStream::connect(self.address).unwrap();
        socket.set_nodelay(true).unwrap();
        socket.set_nonblocking(true).unwrap();
        let mut socket = mio::net::TcpStream::from_std(socket);
        self.poll.registry().register(&mut socket, Token(slot), Interest::READABLE | Interest::WRITABLE).unwrap();
        socket
    }

    /// From now on nothing is read from this connection. It is not watched either, as by a process that hangs: an
    /// event for each frame that comes would cost those that read, who are on this thread too.
    pub(crate) fn stop_reading(&mut self, slot: usize) {
        let peer = &mut self.peers[slot];
        peer.reads = false;
        self.poll.registry().deregister(&mut peer.socket).unwrap();
    }

    /// It reads again.
    pub(crate) fn read_again(&mut self, slot: usize) {
        let peer = &mut self.peers[slot];
        peer.reads = true;
        // What has come meanwhile is an event of the new registration.
        let interest = Interest::READABLE | Interest::WRITABLE;
        self.poll.registry().register(&mut peer.socket, Token(slot), interest).unwrap();
        self.queue(slot);
    }

    /// Waits until something happens, `limit` at most, and moves bytes. Gives those that heard something.
    pub(crate) fn turn(&mut self, limit: Duration) -> Vec<usize> {
        let limit = if self.ready.is_empty() { limit } else { Duration::ZERO };
        match self.poll.poll(&mut self.events, Some(limit)) {
            Err(error) if error.kind() != ErrorKind::Interrupted => panic!("{error}"),
            _ => {}
        }
        let happened: Vec<(usize, bool, bool)> = self
            .events
            .iter()
            .map(|event| (event.token().0, event.is_readable() || event.is_read_closed(), event.is_writable()))
            .collect();
        for (slot, readable, writable) in happened {
            self.peers[slot].readable |= readable;
            self.queue(slot);
            if writable {
                self.flush(slot);
            }
        }
        for _ in 0..self.ready.len() {
            let Some(slot) = self.ready.pop_front() else { break };
            self.peers[slot].queued = false;
            self.read(slot);
        }
        if self.ticked.elapsed() >= TICK {
            self.tick();
        }
        std::mem::take(&mut self.touched)
    }

    fn queue(&mut self, slot: usize) {
        let peer = &mut self.peers[slot];
        if peer.reads && peer.readable && !peer.queued && !peer.closed {
            peer.queued = true;
            self.ready.push_back(slot);
        }
    }

    fn read(&mut self, slot: usize) {
        let now_ms = self.now_ms();
        let peer = &mut self.peers[slot];
        let mut count = 0;
        while peer.reads && peer.readable && !peer.closed && count < READ_BYTES_PER_TURN {
            match peer.socket.read(&mut self.scratch) {
                Ok(0) => peer.closed = true,
                Ok(read) => {
                    count += read;
                    peer.session.receive(now_ms, &self.scratch[..read]).unwrap();
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => peer.readable = false,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(_) => peer.closed = true,
            }
        }
        self.touched.push(slot);
        self.queue(slot);
        self.flush(slot);
    }

    /// Writes what a session wants to say.
    pub(crate) fn flush(&mut self, slot: usize) {
        let peer = &mut self.peers[slot];
        while !peer.closed && !peer.session.output().is_empty() {
            match peer.socket.write(peer.session.output()) {
                Ok(written) => peer.session.consume_output(written),
                // Writable again is an event.
                Err(error) if error.kind() == ErrorKind::WouldBlock => return,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                // Whoever does not read does not hear that either.
                Err(_) if !peer.reads => return,
                Err(_) => peer.closed = true,
            }
        }
    }

    fn tick(&mut self) {
        self.ticked = Instant::now();
        let now_ms = self.now_ms();
        for slot in 0..self.peers.len() {
            self.peers[slot].session.handle_time(now_ms).unwrap();
            self.flush(slot);
        }
    }
}

fn hello(token: &str) -> Hello {
    let device = DeviceId::new("swarm").unwrap();
    // The longest heartbeat: who stops reading does not ping either.
    Hello { version_min: VERSION, version_max: VERSION, features: 0, heartbeat_s: 300, device, token: token.to_owned() }
}
