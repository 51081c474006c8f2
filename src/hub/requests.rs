//! From frames to requests: the order of checks that stands between a peer's bytes and everything else.

use std::collections::{BTreeMap, VecDeque};

use super::Hub;
use super::connection::{ConnectionKey, Presence, Session, State};
use super::operations::ParkedCreate;
use super::task::{Act, Caller, OperationKey, Task};
use crate::codec::DecodeError;
use crate::ids::{Identity, Principal, Role, TokenError};
use crate::limits::{
    BODY_BYTES_MAX, FRAME_BYTES_MAX, FRAME_BYTES_MAX_LIST, GROUP_MEMBERS_MAX, HEARTBEAT_S_DEFAULT, HEARTBEAT_S_MAX,
    HEARTBEAT_S_MIN, IN_FLIGHT_MAX, MALFORMED_PER_MINUTE_MAX, TITLE_BYTES_MAX,
};
use crate::wire::{
    ErrorBody, ErrorCode, Frame, FrameCaps, FrameError, Header, Hello, Kind, Limits, Reply, Request, VERSION, Welcome,
    features,
};

/// Time that a token is still good for after its end, because clocks differ.
const TOKEN_LEEWAY_MS: u64 = 30_000;

const VERSION_MESSAGE: &str = "protocol version 1 is spoken here";

/// What came out of a connection's deframer.
enum Taken {
    Frame { header: Header, request: Result<(Request, Kind), Bad> },
    Nothing,
    Broken(FrameError),
}

/// A whole frame that is no request.
enum Bad {
    Unserved,
    OutOfPlace,
    Malformed(DecodeError),
}

impl Hub {
    /// Takes every whole frame that a connection has sent, as long as more requests are taken from it.
    pub(super) fn take_frames(&mut self, key: ConnectionKey) {
        loop {
            let Some(connection) = self.connections.find_mut(key) else { return };
            // While the server stops, what was not begun is not begun any more.
            if connection.is_paused() || self.stopping {
                return;
            }
            match take_frame(connection) {
                Taken::Frame { header, request } => self.take_request(key, header, request),
                Taken::Nothing => break,
                Taken::Broken(error) => return self.break_off(key, error),
            }
        }
        let now_ms = self.now.monotonic_ms;
        if let Some(connection) = self.connections.find_mut(key) {
            let waits = connection.deframer.buffered_bytes() > 0;
            connection.frame_since_ms = if waits { connection.frame_since_ms.or(Some(now_ms)) } else { None };
        }
        self.arm(key);
    }

    /// The connection may send again: what it had sent before comes first.
    pub fn handle_resumed(&mut self, key: ConnectionKey, now: super::Now) {
        self.now = now;
        if let Some(connection) = self.connections.find_mut(key) {
            // It could not be heard while it was not read.
            connection.heard_ms = now.monotonic_ms;
            connection.frame_since_ms = connection.frame_since_ms.map(|_| now.monotonic_ms);
        }
        self.take_frames(key);
        self.arm(key);
        self.settle();
    }

    /// There is no way to find the next frame: says why, and closes.
    fn break_off(&mut self, key: ConnectionKey, error: FrameError) {
        self.counters.closed_protocol += 1;
        match error {
            FrameError::Magic => self.close(key),
            FrameError::Version => self.close_version(key),
            FrameError::Crc => self.close_with(key, ErrorCode::BadCrc, 0, "a frame does not match its CRC"),
            FrameError::TooLarge { max } => {
                let message = format!("a frame of this kind has at most {max} bytes here");
                self.close_with(key, ErrorCode::TooLarge, max as u64, &message);
            }
        }
    }

    fn close_version(&mut self, key: ConnectionKey) {
        self.close_with(key, ErrorCode::Version, u64::from(VERSION), VERSION_MESSAGE);
    }

    fn take_request(&mut self, key: ConnectionKey, header: Header, request: Result<(Request, Kind), Bad>) {
        let Some(connection) = self.connections.find_mut(key) else { return };
        connection.frame_since_ms = None;
        connection.in_flight += 1;
        self.counters.requests += 1;
        let is_open = connection.session().is_some();
        let is_greeting = [Kind::Hello.number(), Kind::Ping.number()].contains(&header.kind);
        if header.request_id == 0 {
            return self.close_with(key, ErrorCode::Protocol, 0, "a request has a number of 1 or more");
        }
        match request {
            _ if !is_open && !is_greeting => {
                self.close_with(key, ErrorCode::NotAuthenticated, 0, "say hello first");
            }
            Ok((Request::Ping, _)) => self.pong(key, header.request_id),
            Ok((Request::Hello(hello), _)) if !is_open => self.hello(key, header.request_id, &hello),
            Ok((Request::Hello(_), _)) => self.close_with(key, ErrorCode::Protocol, 0, "a second hello"),
            Err(Bad::OutOfPlace) => {
                self.close_with(key, ErrorCode::Protocol, 0, "a frame that only a server sends");
            }
            Err(Bad::Malformed(error)) => self.malformed(key, header.request_id, error),
            Err(Bad::Unserved) => self.unserved(key, header.request_id),
            Ok((request, kind)) => self.serve(key, header, kind, request),
        }
    }

    fn unserved(&mut self, key: ConnectionKey, request_id: u32) {
        let message = "this kind of request, or a flag of it, is not served here";
        self.refuse(key, request_id, ErrorBody::new(ErrorCode::UnknownKind, 0, message));
    }

    /// A bad body in a good frame: told, and at the tenth in a minute the connection closes.
    fn malformed(&mut self, key: ConnectionKey, request_id: u32, error: DecodeError) {
        let now_ms = self.now.monotonic_ms;
        let Some(connection) = self.connections.find_mut(key) else { return };
        if now_ms - connection.malformed_since_ms >= 60_000 {
            connection.malformed_since_ms = now_ms;
            connection.malformed_count = 0;
        }
        connection.malformed_count += 1;
        let is_last = connection.malformed_count >= MALFORMED_PER_MINUTE_MAX;
        self.refuse(key, request_id, ErrorBody::new(ErrorCode::Malformed, 0, error.to_string()));
        if is_last {
            self.counters.closed_protocol += 1;
            self.close(key);
        }
    }

    fn pong(&mut self, key: ConnectionKey, request_id: u32) {
        let ready = self.storage_ready && !self.stopping;
        self.answer(key, request_id, &Reply::Pong { server_time_ms: self.now.wall_ms, ready });
    }

    // ---- hello -------------------------------------------------------------------------------------------------

    fn hello(&mut self, key: ConnectionKey, request_id: u32, hello: &Hello) {
        if hello.version_min > VERSION || hello.version_max < VERSION {
            return self.turn_away(
                key,
                request_id,
                ErrorBody::new(ErrorCode::Version, VERSION.into(), VERSION_MESSAGE),
            );
        }
        let identity = match self.authenticator.authenticate(&hello.token, self.now.wall_ms) {
            Ok(identity) if identity.device.as_ref().is_none_or(|device| *device == hello.device) => identity,
            Ok(_) | Err(TokenError::Rejected) => {
                let error = ErrorBody::new(ErrorCode::AuthFailed, 0, "the token is not accepted");
                return self.turn_away(key, request_id, error);
            }
            Err(TokenError::Expired) => {
                let message = "the token has expired, or is not valid yet: get a new one";
                return self.turn_away(key, request_id, ErrorBody::new(ErrorCode::TokenExpired, 0, message));
            }
        };
        let heartbeat_s = match hello.heartbeat_s {
            0 => HEARTBEAT_S_DEFAULT,
            wanted => wanted.clamp(HEARTBEAT_S_MIN, HEARTBEAT_S_MAX),
        };
        let (wall_ms, now_ms) = (self.now.wall_ms, self.now.monotonic_ms);
        let Some(connection) = self.connections.find_mut(key) else { return };
        let welcome = welcome(connection.number, wall_ms, heartbeat_s, hello.features, &identity);
        let lasts_ms = identity.expires_at_ms.saturating_sub(wall_ms).saturating_add(TOKEN_LEEWAY_MS);
        connection.state = State::Open(Box::new(Session {
            principal: match identity.role {
                Role::Service => Principal::Service(identity.user.clone()),
                Role::User | Role::Operator => Principal::User(identity.user.clone()),
            },
            user: identity.user,
            role: identity.role,
            device: hello.device.clone(),
            silence_ms: u64::from(heartbeat_s) * 2_500,
            token_ends_ms: now_ms.saturating_add(lasts_ms),
            presence: Presence::Detached,
            behind: BTreeMap::new(),
            notices: VecDeque::new(),
            notices_loading: 0,
            ready_owed: false,
        }));
        self.unauthenticated -= 1;
        self.answer(key, request_id, &Reply::Welcome(welcome));
        self.arm(key);
    }

    /// Refuses a hello, under its number, and closes.
    fn turn_away(&mut self, key: ConnectionKey, request_id: u32, error: ErrorBody) {
        self.refuse(key, request_id, error);
        self.close(key);
    }

    // ---- everything else ---------------------------------------------------------------------------------------

    fn serve(&mut self, key: ConnectionKey, header: Header, kind: Kind, request: Request) {
        let Some(session) = self.connections.find(key).and_then(|connection| connection.session()) else { return };
        let caller = Caller {
            connection: key,
            request_id: header.request_id,
            user: session.user.clone(),
            principal: session.principal.clone(),
        };
        let is_operators = matches!(request, Request::Stats | Request::Backup { .. });
        let needed = if is_operators { Role::Operator } else { Role::User };
        if session.role != needed {
            let message = format!("this request needs a token of the role {}", needed.name());
            return self.refuse(key, header.request_id, ErrorBody::new(ErrorCode::Forbidden, 0, message));
        }
        let operation_key = |operation| OperationKey { operation, fingerprint: fingerprint(header) };
        match request {
            Request::Attach(attach) => {
                if self.attach(key, attach) {
                    self.answer(key, header.request_id, &Reply::Attached);
                } else {
                    self.close_with(key, ErrorCode::Protocol, 0, "an attach out of place, or of too many groups");
                }
            }
            Request::Create { operation, title, members } => {
                self.create(ParkedCreate { caller, key: operation_key(operation), title, members });
            }
            Request::Send { operation, group, body } => {
                let (key, act) = (operation_key(operation), Act::Send { body });
                self.enqueue(group, Task::Change { caller, key, kind, act });
            }
            Request::Leave { operation, group } => {
                let (key, act) = (operation_key(operation), Act::Leave);
                self.enqueue(group, Task::Change { caller, key, kind, act });
            }
            Request::GetGroup { .. } | Request::ListGroups { .. } | Request::History(_) => {
                self.serve_large(caller, request);
            }
            Request::Acknowledge { marks } => {
                // It has no answer; each of its marks is in flight until it is taken, or refused by itself.
                if let Some(connection) = self.connections.find_mut(key) {
                    connection.in_flight += marks.len();
                }
                for mark in marks {
                    let (received, read) = (mark.received, mark.read);
                    self.enqueue(mark.group, Task::Mark { caller: caller.clone(), received, read });
                }
                self.finish_request(key, 0, None);
            }
            Request::Stats => self.stats(caller),
            Request::Backup { path } => self.backup(caller, path),
            Request::Hello(_)
            | Request::Ping
            | Request::Authenticate { .. }
            | Request::Add { .. }
            | Request::Remove { .. }
            | Request::Rename { .. }
            | Request::Transfer { .. }
            | Request::Dissolve { .. }
            | Request::Whisper { .. }
            | Request::Signal { .. }
            | Request::Readers { .. }
            | Request::Feed { .. }
            | Request::Connections { .. }
            | Request::Kick { .. } => self.unserved(key, header.request_id),
        }
    }
}

impl Hub {
    /// Requests with large answers: few of one connection are under way at once, so that answers which nobody reads
    /// cannot pile up.
    fn serve_large(&mut self, caller: Caller, request: Request) {
        if let Some(connection) = self.connections.find_mut(caller.connection) {
            connection.large_in_flight += 1;
        }
        match request {
            Request::GetGroup { group, newer_than } => self.enqueue(group, Task::Show { caller, newer_than }),
            Request::ListGroups { after, count_max } => self.list(caller, after, count_max),
            Request::History(request) => self.history(caller, request),
            other => unreachable!("{:?} has no large answer", other.kind()),
        }
    }
}

/// The next frame of a connection, decoded: nothing borrowed from its buffer goes further than here.
fn take_frame(connection: &mut super::connection::Connection) -> Taken {
    let caps = if connection.session().is_some() { FrameCaps::Client } else { FrameCaps::Unauthenticated };
    match connection.deframer.next_frame(caps) {
        Ok(Some(frame)) => Taken::Frame { header: frame.header, request: decode(frame) },
        Ok(None) => Taken::Nothing,
        Err(error) => Taken::Broken(error),
    }
}

fn decode(frame: Frame<'_>) -> Result<(Request, Kind), Bad> {
    if frame.header.flags != 0 {
        return Err(Bad::Unserved);
    }
    let kind = Kind::from_number(frame.header.kind).ok_or(Bad::Unserved)?;
    if !is_served(kind) {
        return Err(if Request::decode(kind, &[]).is_some() { Bad::Unserved } else { Bad::OutOfPlace });
    }
    let request = Request::decode(kind, frame.body).ok_or(Bad::OutOfPlace)?;
    request.map(|request| (request, kind)).map_err(Bad::Malformed)
}

/// The requests of this version; `docs/protocol.md` has the same list.
fn is_served(kind: Kind) -> bool {
    matches!(
        kind,
        Kind::Hello
            | Kind::Attach
            | Kind::Ping
            | Kind::Create
            | Kind::Leave
            | Kind::Send
            | Kind::Acknowledge
            | Kind::GetGroup
            | Kind::ListGroups
            | Kind::History
            | Kind::Stats
            | Kind::Backup
    )
}

/// Tells a retry from a reuse of an operation id: the CRC of the body, which the deframer has checked, with the kind
/// and the low bits of the length.
fn fingerprint(header: Header) -> u64 {
    u64::from(header.body_crc) << 32 | u64::from(header.kind) << 16 | u64::from(header.body_bytes & 0xffff)
}

fn welcome(connection: u64, wall_ms: u64, heartbeat_s: u16, wanted: u64, identity: &Identity) -> Welcome {
    let limit = |value: usize| u32::try_from(value).unwrap_or(u32::MAX);
    Welcome {
        version: VERSION,
        connection,
        server_time_ms: wall_ms,
        heartbeat_s,
        features: wanted & features::SERVED,
        user: identity.user.clone(),
        role: identity.role,
        limits: Limits {
            frame_bytes: limit(FRAME_BYTES_MAX),
            list_frame_bytes: limit(FRAME_BYTES_MAX_LIST),
            members: limit(GROUP_MEMBERS_MAX),
            body_bytes: limit(BODY_BYTES_MAX),
            title_bytes: limit(TITLE_BYTES_MAX),
            in_flight: limit(IN_FLIGHT_MAX),
        },
    }
}
