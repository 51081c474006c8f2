//! What stands between a socket and the hub. Plain bytes now; TLS and WebSocket turn the bytes of the socket into the
//! bytes of the protocol behind this same seam, and the loop does not notice.

use std::io::{self, IoSlice, Read, Write};

use mio::net::TcpStream;

/// Turns what a socket carries into bytes of the protocol, and back. Nothing here blocks.
pub(super) trait Transport {
    /// Reads bytes of the protocol. `Ok(0)`: the peer has closed. `WouldBlock`: nothing more until the socket says so.
    fn read(&mut self, socket: &mut TcpStream, into: &mut [u8]) -> io::Result<usize>;

    /// Writes bytes of the protocol, as many as the socket takes; returns how many.
    fn write(&mut self, socket: &mut TcpStream, slices: &[IoSlice<'_>]) -> io::Result<usize>;
}

/// The bytes of the protocol as they are.
#[derive(Debug)]
pub(super) struct Plain;

impl Transport for Plain {
    fn read(&mut self, socket: &mut TcpStream, into: &mut [u8]) -> io::Result<usize> {
        socket.read(into)
    }

    fn write(&mut self, socket: &mut TcpStream, slices: &[IoSlice<'_>]) -> io::Result<usize> {
        match slices {
            // `writev` costs more than `send`, which for a small frame shows.
            [one] => socket.write(one),
            _ => socket.write_vectored(slices),
        }
    }
}
