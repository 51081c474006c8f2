//! One connection's socket.

use std::io::{self, IoSlice, Read};
use std::net::Shutdown;

use mio::net::TcpStream;
use mio::{Interest, Registry, Token};

use super::FIRST_PEER;
use super::transport::{Plain, Transport};
use crate::hub::ConnectionKey;

/// Pieces of output that one system call writes.
const SLICES_MAX: usize = 64;

/// A socket and what is known of its readiness.
///
/// Invariant: `readable` and `writable` are false only after the system said `WouldBlock`; then an event will come.
#[allow(clippy::struct_excessive_bools)] // each is one fact of its own about the socket
pub(super) struct Peer {
    pub(super) key: ConnectionKey,
    socket: TcpStream,
    transport: Plain,
    pub(super) readable: bool,
    pub(super) writable: bool,
    /// The system said that the peer has ended its side, which it says once: reading goes on until it is seen.
    pub(super) read_closed: bool,
    /// Whether it stands in the queue of those to be read.
    pub(super) queued: bool,
}

/// What one system call did.
pub(super) enum Moved {
    Bytes(usize),
    Blocked,
    Closed,
}

impl Peer {
    pub(super) fn new(key: ConnectionKey, mut socket: TcpStream, registry: &Registry) -> io::Result<Self> {
        // Small packets must not wait for the acknowledgement of earlier ones; a socket that refuses works as well.
        let _ = socket.set_nodelay(true);
        let token = Token(FIRST_PEER + key.slot());
        registry.register(&mut socket, token, Interest::READABLE | Interest::WRITABLE)?;
        Ok(Self { key, socket, transport: Plain, readable: false, writable: true, read_closed: false, queued: false })
    }

    pub(super) fn read(&mut self, into: &mut [u8]) -> Moved {
        let outcome = self.transport.read(&mut self.socket, into);
        match outcome {
            Ok(0) => Moved::Closed,
            Ok(count) => {
                // A short read means that the socket is empty: what comes later makes a new event. An end that came
                // with these bytes does not.
                self.readable = count == into.len() || self.read_closed;
                Moved::Bytes(count)
            }
            Err(error) => moved(&error, &mut self.readable),
        }
    }

    pub(super) fn write<'a>(&mut self, mut output: impl Iterator<Item = &'a [u8]>) -> Moved {
        let Some(first) = output.next() else { return Moved::Bytes(0) };
        let written = match output.next() {
            None => self.transport.write(&mut self.socket, &[IoSlice::new(first)]),
            Some(second) => {
                let mut slices = [IoSlice::new(&[]); SLICES_MAX];
                let mut count = 0;
                for (slot, bytes) in slices.iter_mut().zip([first, second].into_iter().chain(output)) {
                    *slot = IoSlice::new(bytes);
                    count += 1;
                }
                self.transport.write(&mut self.socket, &slices[..count])
            }
        };
        match written {
            Ok(written) => Moved::Bytes(written),
            Err(error) => moved(&error, &mut self.writable),
        }
    }

    /// Nothing more will be written. Closing comes when the peer has closed too, or has taken too long: closing a
    /// socket with unread bytes resets it, and the peer would lose the last thing that it was told.
    pub(super) fn finish(&mut self) {
        let _ = self.socket.shutdown(Shutdown::Write);
    }

    /// Ends the connection, with what has already come from the peer read and dropped.
    pub(super) fn close(mut self, registry: &Registry, scratch: &mut [u8]) {
        self.finish();
        let _ = self.socket.read(scratch);
        let _ = registry.deregister(&mut self.socket);
    }
}

fn moved(error: &io::Error, ready: &mut bool) -> Moved {
    match error.kind() {
        io::ErrorKind::WouldBlock => {
            *ready = false;
            Moved::Blocked
        }
        // Interrupted: nothing moved, and it may be tried again at once.
        io::ErrorKind::Interrupted => Moved::Bytes(0),
        _ => Moved::Closed,
    }
}
