//! A TCP proxy that breaks connections: cuts them in the middle of a frame, resets them, holds bytes back.
//!
//! Two threads a connection, one for each direction, each blocked in a read: there are some fifty connections.

use std::io::{Read as _, Write as _};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// How long a peer may leave a write waiting before its connection is given up.
const WRITE_PATIENCE: Duration = Duration::from_secs(10);

/// Which way bytes go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Way {
    Up,
    Down,
}

/// What is to happen to a connection.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Harm {
    /// Both sides are closed behind so many more bytes of one direction.
    Cut { way: Way, after_bytes: usize },
    /// Both sides are reset.
    Reset,
    /// Nothing passes in one direction for so long.
    Stall { way: Way, time: Duration },
}

#[derive(Debug)]
pub(crate) struct Proxy {
    pub(crate) address: SocketAddr,
    shared: Arc<Shared>,
    acceptor: Option<JoinHandle<()>>,
}

#[derive(Debug, Default)]
struct Shared {
    inside: Mutex<Inside>,
}

#[derive(Debug, Default)]
struct Inside {
    server: Option<SocketAddr>,
    pairs: Vec<Arc<Pair>>,
    closing: bool,
}

#[derive(Debug)]
struct Pair {
    client: TcpStream,
    server: TcpStream,
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct State {
    over: bool,
    stalled: [Option<Instant>; 2],
    cut: [Option<usize>; 2],
}

impl Proxy {
    pub(crate) fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let address = listener.local_addr().expect("an address");
        let shared = Arc::new(Shared::default());
        let inside = shared.clone();
        let acceptor = std::thread::spawn(move || {
            for stream in listener.incoming() {
                let Ok(client) = stream else { continue };
                if !inside.accept(client) {
                    return;
                }
            }
        });
        Self { address, shared, acceptor: Some(acceptor) }
    }

    /// Where connections go from now on.
    pub(crate) fn lead_to(&self, server: Option<SocketAddr>) {
        self.shared.lock().server = server;
    }

    /// Does something to one of the connections, picked by a number. Says whether there was one.
    pub(crate) fn harm(&self, pick: usize, harm: Harm) -> bool {
        let mut inside = self.shared.lock();
        inside.pairs.retain(|pair| !pair.lock().over);
        let count = inside.pairs.len();
        let Some(pair) = inside.pairs.get(pick.checked_rem(count).unwrap_or(0)).cloned() else { return false };
        drop(inside);
        pair.suffer(harm);
        true
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        let mut inside = self.shared.lock();
        inside.closing = true;
        for pair in inside.pairs.drain(..) {
            pair.end();
        }
        drop(inside);
        // Wakes the one that accepts.
        let _ = TcpStream::connect(self.address);
        if let Some(acceptor) = self.acceptor.take() {
            let _ = acceptor.join();
        }
    }
}

impl Shared {
    fn lock(&self) -> std::sync::MutexGuard<'_, Inside> {
        self.inside.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Says whether more are to be accepted.
    fn accept(&self, client: TcpStream) -> bool {
        let mut inside = self.lock();
        if inside.closing {
            return false;
        }
        let server = inside.server.and_then(|address| TcpStream::connect(address).ok());
        // Without a server the client finds its connection closed.
        let Some(server) = server else { return true };
        for stream in [&client, &server] {
            stream.set_nodelay(true).expect("a socket");
            stream.set_write_timeout(Some(WRITE_PATIENCE)).expect("a socket");
        }
        let pair = Arc::new(Pair { client, server, state: Mutex::default(), changed: Condvar::new() });
        for way in [Way::Up, Way::Down] {
            let pair = pair.clone();
            std::thread::spawn(move || pair.carry(way));
        }
        inside.pairs.push(pair);
        true
    }
}

impl Pair {
    fn lock(&self) -> std::sync::MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn suffer(&self, harm: Harm) {
        match harm {
            Harm::Cut { way, after_bytes } => self.lock().cut[way as usize] = Some(after_bytes),
            Harm::Stall { way, time } => self.lock().stalled[way as usize] = Some(Instant::now() + time),
            Harm::Reset => {
                for stream in [&self.client, &self.server] {
                    let _ = socket2::SockRef::from(stream).set_linger(Some(Duration::ZERO));
                }
                self.end();
            }
        }
    }

    /// Wakes both directions, which then let go of the sockets.
    fn end(&self) {
        self.lock().over = true;
        self.changed.notify_all();
        for stream in [&self.client, &self.server] {
            let _ = stream.shutdown(Shutdown::Both);
        }
    }

    fn carry(&self, way: Way) {
        let (mut from, mut to) = match way {
            Way::Up => (&self.client, &self.server),
            Way::Down => (&self.server, &self.client),
        };
        let mut bytes = vec![0; 16 * 1024];
        while let Ok(count @ 1..) = from.read(&mut bytes) {
            let passes = self.wait(way, count);
            if to.write_all(&bytes[..passes]).is_err() || passes < count {
                break;
            }
        }
        self.end();
    }

    /// Waits until a stall is over, and says how many of so many bytes pass.
    fn wait(&self, way: Way, count: usize) -> usize {
        let mut state = self.lock();
        while let Some(left) = state.stalled[way as usize].map(|until| until.saturating_duration_since(Instant::now()))
        {
            if state.over {
                return 0;
            }
            if left.is_zero() {
                state.stalled[way as usize] = None;
                break;
            }
            state = self.changed.wait_timeout(state, left).unwrap_or_else(PoisonError::into_inner).0;
        }
        let Some(left) = state.cut[way as usize] else { return count };
        state.cut[way as usize] = Some(left.saturating_sub(count));
        count.min(left)
    }
}
