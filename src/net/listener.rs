//! The listening socket.
//!
//! Invariant: readiness is edge-triggered, so whoever stops accepting before the system says `WouldBlock` has to come
//! back by itself; `pending` is true exactly as long as there may be somebody waiting of whom no event will tell.

use std::io;
use std::net::SocketAddr;

use mio::net::{TcpListener, TcpStream};
use mio::{Interest, Registry};

use super::LISTENER;

/// How long to wait before accepting is tried again when descriptors ran out.
pub(super) const RETRY_MS: u64 = 100;

pub(super) struct Listener {
    socket: TcpListener,
    pending: bool,
    /// Out of descriptors: only time, or a connection that closes, can help.
    starved: bool,
    /// Whether the log has said so; once until it is over.
    complained: bool,
}

impl Listener {
    pub(super) fn bind(address: SocketAddr) -> io::Result<Self> {
        Ok(Self { socket: TcpListener::bind(address)?, pending: false, starved: false, complained: false })
    }

    pub(super) fn address(&self) -> io::Result<SocketAddr> {
        self.socket.local_addr()
    }

    pub(super) fn register(&mut self, registry: &Registry) -> io::Result<()> {
        registry.register(&mut self.socket, LISTENER, Interest::READABLE)
    }

    /// Somebody waits.
    pub(super) fn set_ready(&mut self) {
        self.pending = true;
    }

    /// A descriptor was given back.
    pub(super) fn descriptor_freed(&mut self) {
        self.starved = false;
    }

    pub(super) fn is_pending(&self) -> bool {
        self.pending
    }

    /// Somebody may wait and can be accepted at once.
    pub(super) fn is_ready(&self) -> bool {
        self.pending && !self.starved
    }

    /// There is no room for another connection until one closes.
    pub(super) fn starve(&mut self) {
        self.starved = true;
    }

    /// The next connection; `None` if nobody waits or none can be taken now.
    pub(super) fn accept(&mut self) -> Option<TcpStream> {
        loop {
            match self.socket.accept() {
                Ok((socket, _)) => {
                    self.complained = false;
                    return Some(socket);
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    self.pending = false;
                    return None;
                }
                // The peer gave up while it waited: the next one may still be there.
                Err(error) if is_about_the_peer(&error) => {}
                Err(error) => {
                    if !std::mem::replace(&mut self.complained, true) {
                        tracing::warn!("cannot accept: {error}; trying again as connections close");
                    }
                    self.starved = true;
                    return None;
                }
            }
        }
    }
}

fn is_about_the_peer(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::ConnectionAborted | io::ErrorKind::ConnectionReset | io::ErrorKind::Interrupted
    )
}
