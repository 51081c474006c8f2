//! A server that does only what none can avoid.
//!
//! It waits in `epoll`, reads the request, makes its bytes durable where that is asked, and does one `send` of bytes
//! that are made already to each socket. It looks at nothing.

use std::io::{ErrorKind, Read, Write};
use std::net::{TcpListener, TcpStream};

use mio::{Events, Interest, Poll, Token};

use crate::raw_file::RawFile;

/// What a raw server is told beforehand.
pub(crate) struct RawServer {
    /// The length of each request; they come on the first socket, one at a time.
    pub(crate) request_bytes: usize,
    /// What each socket gets of a request; possibly nothing.
    pub(crate) outputs: Vec<Vec<u8>>,
    /// Where requests are made durable before anybody gets anything.
    pub(crate) file: Option<RawFile>,
}

impl RawServer {
    /// Runs it on a thread until its peers close; gives their sockets, one for each output.
    pub(crate) fn start(self) -> Vec<TcpStream> {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let address = listener.local_addr().expect("a port");
        let mut accepted = Vec::new();
        let connect = |_: &Vec<u8>| {
            let socket = TcpStream::connect(address).expect("it listens");
            socket.set_nodelay(true).expect("a socket");
            let (peer, _) = listener.accept().expect("a connection");
            peer.set_nodelay(true).expect("a socket");
            peer.set_nonblocking(true).expect("a socket");
            accepted.push(mio::net::TcpStream::from_std(peer));
            socket
        };
        let sockets = self.outputs.iter().map(connect).collect();
        std::thread::spawn(move || self.run(accepted));
        sockets
    }

    fn run(mut self, mut sockets: Vec<mio::net::TcpStream>) {
        let mut poll = Poll::new().expect("epoll");
        for (slot, socket) in sockets.iter_mut().enumerate() {
            poll.registry().register(socket, Token(slot), Interest::READABLE).expect("it is registered");
        }
        let mut events = Events::with_capacity(1024);
        // Never full, so one read takes what there is.
        let mut scratch = vec![0; self.request_bytes + 1];
        let mut received = 0;
        loop {
            poll.poll(&mut events, None).expect("epoll");
            for event in &events {
                match sockets[event.token().0].read(&mut scratch[received..]) {
                    Ok(0) => return,
                    Ok(count) => received += count,
                    Err(error) if error.kind() == ErrorKind::WouldBlock => {}
                    Err(_) => return,
                }
            }
            if received < self.request_bytes {
                continue;
            }
            received = 0;
            if let Some(file) = &mut self.file {
                file.write(&scratch[..self.request_bytes]);
            }
            for (socket, output) in sockets.iter_mut().zip(&self.outputs).filter(|(_, output)| !output.is_empty()) {
                if socket.write_all(output).is_err() {
                    return;
                }
            }
        }
    }
}
