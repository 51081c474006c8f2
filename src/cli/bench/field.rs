//! One round's connections to one system, from the first socket to the last member on line.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use super::cpu::cpu_ns;
use super::crowd::{Crowd, Happened};
use super::cutter::Cutter;
use super::peers::{Item, Load, Peer, Seat};
use crate::cli::failure::Failure;
use crate::cli::interrupt::Interrupt;

/// How long a system may say nothing while something is awaited of it.
const PATIENCE: Duration = Duration::from_secs(30);

pub(super) struct Field<'a> {
    pub(super) peer: &'a mut dyn Peer,
    pub(super) crowd: Crowd,
    /// Slots below this are senders; the others are members.
    pub(super) senders: usize,
    pub(super) members: usize,
    interrupt: &'a Interrupt,
}

impl<'a> Field<'a> {
    /// Opens all connections, one after the other, each until the system says that it is ready.
    pub(super) fn open(
        peer: &'a mut dyn Peer,
        load: &Load,
        round: usize,
        interrupt: &'a Interrupt,
    ) -> Result<Self, Failure> {
        peer.begin(round);
        let mut crowd = Crowd::new()?;
        for number in 0..load.senders {
            interrupt.check()?;
            let (mut socket, cutter) = connect(peer, Seat::Sender, number)?;
            if number == 0 {
                prepare(&mut socket, peer, interrupt)?;
            }
            crowd.add(socket, Seat::Sender, cutter)?;
        }
        for number in 0..load.receivers() {
            interrupt.check()?;
            let (socket, cutter) = connect(peer, Seat::Member, number)?;
            crowd.add(socket, Seat::Member, cutter)?;
        }
        Ok(Self { peer, crowd, senders: load.senders, members: load.receivers(), interrupt })
    }

    /// One turn of the crowd. It is an error if nothing comes for half a minute.
    pub(super) fn turn(&mut self, on: &mut dyn FnMut(usize, Item) -> Result<(), Failure>) -> Result<(), Failure> {
        self.interrupt.check()?;
        if self.crowd.turn(PATIENCE, &*self.peer, on)? == Happened::Nothing {
            return Err(self.peer.failed("nothing came for 30 s"));
        }
        Ok(())
    }

    pub(super) fn send(&mut self, sender: usize, bytes: &[u8]) -> Result<(), Failure> {
        self.crowd.send(sender, bytes, &*self.peer)
    }

    /// Runs a part of a round; gives what it does, the time that it took, and the CPU that the system used in it, in
    /// nanoseconds, if it is known which process that is.
    pub(super) fn timed<T>(
        &mut self,
        part: impl FnOnce(&mut Self) -> Result<T, Failure>,
    ) -> Result<(T, Duration, Option<u64>), Failure> {
        let used = |field: &Self| field.peer.process().and_then(cpu_ns);
        let (before, begun) = (used(self), Instant::now());
        let outcome = part(self)?;
        let elapsed = begun.elapsed();
        let cpu_ns = before.zip(used(self)).map(|(before, after)| after.saturating_sub(before));
        Ok((outcome, elapsed, cpu_ns))
    }
}

fn connect(peer: &mut dyn Peer, seat: Seat, number: usize) -> Result<(TcpStream, Cutter), Failure> {
    let opening = peer.opening(seat, number);
    let open = || {
        let socket = TcpStream::connect_timeout(&peer.address(), PATIENCE)?;
        socket.set_nodelay(true)?;
        socket.set_read_timeout(Some(PATIENCE))?;
        Ok(socket)
    };
    let mut socket = open().map_err(|error: std::io::Error| peer.failed(&format!("no connection: {error}")))?;
    let mut cutter = Cutter::default();
    if !opening.is_empty() {
        ask(&mut socket, seat, &opening, Item::Ready, peer, &mut cutter)?;
    }
    Ok((socket, cutter))
}

/// What has to be there before members come.
fn prepare(socket: &mut TcpStream, peer: &mut dyn Peer, interrupt: &Interrupt) -> Result<(), Failure> {
    for request in peer.preparations() {
        interrupt.check()?;
        let answer = ask(socket, Seat::Sender, &request, Item::Answer, peer, &mut Cutter::default())?;
        peer.learn(&answer).map_err(|what| peer.failed(&what))?;
    }
    Ok(())
}

/// Writes, and reads until an item of a kind came; gives all bytes that came.
fn ask(
    socket: &mut TcpStream,
    seat: Seat,
    bytes: &[u8],
    awaited: Item,
    peer: &dyn Peer,
    cutter: &mut Cutter,
) -> Result<Vec<u8>, Failure> {
    let broken = |error: std::io::Error| peer.failed(&error.to_string());
    socket.write_all(bytes).map_err(broken)?;
    let (mut came, mut read, mut all) = (false, [0; 4096], Vec::new());
    while !came {
        let count = socket.read(&mut read).map_err(broken)?;
        if count == 0 {
            return Err(peer.failed("it closed a connection"));
        }
        all.extend_from_slice(&read[..count]);
        let next = [cutter.kept(), &read[..count]].concat();
        cutter.take(seat, &next, peer, |item| {
            came |= item == awaited;
            Ok(())
        })?;
    }
    Ok(all)
}
