//! One raw connection: says any bytes, hears frames.

use std::io::{ErrorKind, Read, Write};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use roundtable::codec::Reader;
use roundtable::ids::{DeviceId, Role, UserId};
use roundtable::token::{Grant, LocalKey, mint};
use roundtable::wire::{Deframer, ErrorBody, ErrorCode, FrameCaps, Hello, Kind, Request, VERSION};

use crate::server::{PATIENCE, Server};

/// Far from now, in both directions.
const LONG_AGO_MS: u64 = 0;
const FAR_AHEAD_MS: u64 = 4_000_000_000_000;

/// What came.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Heard {
    Frame {
        kind: u16,
        request_id: u32,
        body: Vec<u8>,
    },
    /// The server closed the connection.
    Closed,
    /// Nothing within the time.
    Nothing,
}

impl Heard {
    /// The code, if it is an error.
    pub(crate) fn code(&self) -> Option<ErrorCode> {
        let Self::Frame { kind, body, .. } = self else { return None };
        let error = ErrorBody::decode(&mut Reader::new(body)).ok()?;
        (*kind == Kind::Error.number()).then_some(())?;
        ErrorCode::from_number(error.code)
    }

    pub(crate) fn is(&self, wanted: Kind) -> bool {
        matches!(self, Self::Frame { kind, .. } if *kind == wanted.number())
    }
}

/// One connection.
pub(crate) struct Peer {
    pub(crate) socket: TcpStream,
    deframer: Deframer,
    requests: u32,
}

impl Peer {
    pub(crate) fn connect(address: &str) -> Self {
        let socket = TcpStream::connect(address).expect("the server accepts");
        socket.set_nodelay(true).expect("a socket");
        Self { socket, deframer: Deframer::default(), requests: 0 }
    }

    /// One that is authenticated.
    pub(crate) fn enter(server: &Server, user: &UserId, heartbeat_s: u16) -> Self {
        let mut peer = Self::connect(&server.address);
        let heard = peer.greet(server.options(user, "peer").token, heartbeat_s);
        assert!(heard.is(Kind::Welcome), "{heard:?}");
        peer
    }

    /// Says hello; gives the answer.
    pub(crate) fn greet(&mut self, token: String, heartbeat_s: u16) -> Heard {
        self.ask(&hello(token, heartbeat_s));
        self.hear(PATIENCE)
    }

    /// Says a request; gives its number.
    pub(crate) fn ask(&mut self, request: &Request) -> u32 {
        self.requests += 1;
        let mut frame = Vec::new();
        request.encode_frame(&mut frame, self.requests);
        self.say(&frame);
        self.requests
    }

    /// Says bytes; that the server may have closed meanwhile is heard afterwards.
    pub(crate) fn say(&mut self, bytes: &[u8]) {
        let _ = self.socket.write_all(bytes);
    }

    pub(crate) fn hear(&mut self, limit: Duration) -> Heard {
        let until = Instant::now() + limit;
        let mut bytes = [0; 16 * 1024];
        loop {
            if let Some(frame) = self.deframer.next_frame(FrameCaps::Server).expect("the server follows the protocol") {
                let (kind, request_id) = (frame.header.kind, frame.header.request_id);
                return Heard::Frame { kind, request_id, body: frame.body.to_vec() };
            }
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Heard::Nothing;
            }
            self.socket.set_read_timeout(Some(left)).expect("a socket");
            match self.socket.read(&mut bytes) {
                Ok(0) => return Heard::Closed,
                Ok(count) => self.deframer.feed(&bytes[..count]),
                Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {
                    return Heard::Nothing;
                }
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(_) => return Heard::Closed,
            }
        }
    }

    /// The codes of all errors until the server closes; nothing if it does not.
    pub(crate) fn codes_until_closed(&mut self, limit: Duration) -> Option<Vec<ErrorCode>> {
        let mut codes = Vec::new();
        loop {
            match self.hear(limit) {
                Heard::Closed => return Some(codes),
                Heard::Nothing => return None,
                heard @ Heard::Frame { .. } => codes.extend(heard.code()),
            }
        }
    }

    /// Whether a ping is answered in time; what comes before the answer is passed over.
    pub(crate) fn pings(&mut self, limit: Duration) -> bool {
        let asked = self.ask(&Request::Ping);
        loop {
            match self.hear(limit) {
                Heard::Frame { kind, request_id, .. } if request_id == asked => return kind == Kind::Pong.number(),
                Heard::Frame { .. } => {}
                Heard::Closed | Heard::Nothing => return false,
            }
        }
    }
}

pub(crate) fn hello(token: String, heartbeat_s: u16) -> Request {
    let device = DeviceId::new("peer").expect("a legal name");
    Request::Hello(Hello { version_min: VERSION, version_max: VERSION, features: 0, heartbeat_s, device, token })
}

/// A token that is good unless it is changed.
pub(crate) fn token(key: &LocalKey, user: &UserId, change: impl FnOnce(&mut Grant)) -> String {
    let mut grant = Grant {
        user: user.clone(),
        role: Role::User,
        device: None,
        cluster: "roundtable".to_owned(),
        valid_from_ms: LONG_AGO_MS,
        expires_at_ms: FAR_AHEAD_MS,
    };
    change(&mut grant);
    mint(key, &grant)
}

/// Memory that a process has now, in bytes.
pub(crate) fn memory_bytes(pid: u32) -> u64 {
    let text = std::fs::read_to_string(format!("/proc/{pid}/status")).expect("it runs");
    let line = text.lines().find_map(|line| line.strip_prefix("VmRSS:")).expect("Linux says it");
    line.trim().trim_end_matches(" kB").parse::<u64>().expect("a number") * 1024
}
