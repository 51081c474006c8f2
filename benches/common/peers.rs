//! The sockets of all members, and how long a request takes until the last of them has what it gets.

use std::io::{ErrorKind, Read, Write};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use mio::{Events, Interest, Poll, Token};
use roundtable::wire::{Deframer, FrameCaps};

/// Events that one poll tells of, and how long it waits before something is wrong.
const EVENTS: usize = 1024;
const SILENCE: Duration = Duration::from_secs(30);

/// The first is that of the member who asks.
pub(crate) struct Peers {
    poll: Poll,
    sockets: Vec<mio::net::TcpStream>,
    /// Bytes that each gets of a request, and those that it has of this one.
    wanted: Vec<usize>,
    received: Vec<usize>,
    scratch: Vec<u8>,
}

impl Peers {
    pub(crate) fn new(sockets: Vec<TcpStream>) -> Self {
        let poll = Poll::new().expect("epoll");
        let mut sockets: Vec<_> = sockets.into_iter().map(from_std).collect();
        for (slot, socket) in sockets.iter_mut().enumerate() {
            poll.registry().register(socket, Token(slot), Interest::READABLE).expect("it is registered");
        }
        let (wanted, received) = (vec![0; sockets.len()], vec![0; sockets.len()]);
        Self { poll, sockets, wanted, received, scratch: vec![0; 1 << 20] }
    }

    /// One request that warms up, after which each member has got so many frames; gives their bytes, of which there
    /// are as many in each round from now on.
    pub(crate) fn first(&mut self, request: &[u8], frames: impl Fn(usize) -> usize) -> Vec<Vec<u8>> {
        let mut got = vec![Vec::new(); self.sockets.len()];
        let mut deframers: Vec<_> = got.iter().map(|_| Deframer::default()).collect();
        let mut missing: usize = (0..self.sockets.len()).map(frames).sum();
        let mut events = Events::with_capacity(EVENTS);
        self.sockets[0].write_all(request).expect("a small frame");
        while missing > 0 {
            self.poll.poll(&mut events, Some(SILENCE)).expect("epoll");
            assert!(!events.is_empty(), "{missing} frames did not come");
            for event in &events {
                let slot = event.token().0;
                while let Some(count) = read(&mut self.sockets[slot], &mut self.scratch) {
                    got[slot].extend_from_slice(&self.scratch[..count]);
                    deframers[slot].feed(&self.scratch[..count]);
                }
                while deframers[slot].next_frame(FrameCaps::Server).expect("frames").is_some() {
                    missing -= 1;
                }
            }
        }
        self.expect(&got);
        got
    }

    /// In each round, as many bytes come to each.
    pub(crate) fn expect(&mut self, outputs: &[Vec<u8>]) {
        self.wanted = outputs.iter().map(Vec::len).collect();
    }

    /// Writes the request and waits until every socket has what it gets.
    pub(crate) fn round(&mut self, request: &[u8]) -> Duration {
        self.received.fill(0);
        let mut missing = self.wanted.iter().filter(|wanted| **wanted > 0).count();
        let mut events = Events::with_capacity(EVENTS);
        let begun = Instant::now();
        self.sockets[0].write_all(request).expect("a small frame");
        while missing > 0 {
            self.poll.poll(&mut events, Some(SILENCE)).expect("epoll");
            assert!(!events.is_empty(), "{missing} members got nothing");
            for event in &events {
                let slot = event.token().0;
                while let Some(count) = read(&mut self.sockets[slot], &mut self.scratch) {
                    self.received[slot] += count;
                    if self.received[slot] == self.wanted[slot] {
                        missing -= 1;
                    }
                }
            }
        }
        begun.elapsed()
    }
}

fn from_std(socket: TcpStream) -> mio::net::TcpStream {
    socket.set_nonblocking(true).expect("a socket");
    mio::net::TcpStream::from_std(socket)
}

/// The bytes that a socket has; `None` once it has no more.
fn read(socket: &mut mio::net::TcpStream, scratch: &mut [u8]) -> Option<usize> {
    match socket.read(scratch) {
        Ok(0) => panic!("the server closed"),
        Ok(count) => Some(count),
        Err(error) if error.kind() == ErrorKind::WouldBlock => None,
        Err(error) => panic!("{error}"),
    }
}
