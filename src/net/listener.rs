//! The listening socket.
//!
//! Invariant: readiness is edge-triggered, so whoever stops accepting before the system says `WouldBlock` has to come
//! back by itself; `pending` is true exactly as long as there may be somebody waiting of whom no event will tell.

use std::io;
use std::net::SocketAddr;

use mio::net::{TcpListener, TcpStream};
use mio::{Interest, Registry};
use socket2::SockRef;

use super::LISTENER;
use crate::limits::{SOCKET_SEND_BYTES, SOCKET_UNSENT_BYTES};

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
        let socket = TcpListener::bind(address)?;
        bound_output(&socket)?;
        Ok(Self { socket, pending: false, starved: false, complained: false })
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

/// Bounds what the system holds of a connection's output; connections have it from the socket that accepts them.
///
/// Without this a peer that does not read is worth megabytes of kernel memory that no figure shows, and as long as the
/// kernel takes them it is written to like one that reads. `SO_SNDBUF` alone is no answer: a value that is good for
/// that is bad for a long path, on which as much has to be under way unacknowledged. What is unsent needs little.
fn bound_output(socket: &TcpListener) -> io::Result<()> {
    let socket = SockRef::from(socket);
    socket.set_send_buffer_size(SOCKET_SEND_BYTES)?;
    #[cfg(target_os = "linux")]
    socket.set_tcp_notsent_lowat(u32::try_from(SOCKET_UNSENT_BYTES).unwrap_or(u32::MAX))?;
    Ok(())
}

fn is_about_the_peer(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::ConnectionAborted | io::ErrorKind::ConnectionReset | io::ErrorKind::Interrupted
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_system_holds_of_a_connection_is_bounded() {
        let mut listener = Listener::bind("127.0.0.1:0".parse().unwrap()).unwrap();
        let peer = std::net::TcpStream::connect(listener.address().unwrap()).unwrap();
        listener.set_ready();
        let socket = listener.accept().expect("it has connected");
        let socket = SockRef::from(&socket);
        let bytes = socket.send_buffer_size().unwrap();
        assert!(bytes <= 2 * SOCKET_SEND_BYTES, "{bytes}");
        #[cfg(target_os = "linux")]
        assert_eq!(socket.tcp_notsent_lowat().unwrap(), u32::try_from(SOCKET_UNSENT_BYTES).unwrap());
        drop(peer);
    }
}
