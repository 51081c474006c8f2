//! From frames to requests: the order of checks that stands between a peer's bytes and everything else.

use super::Hub;
use super::connection::{ConnectionKey, Since};
use super::hello::VERSION_MESSAGE;
use super::operations::ParkedCreate;
use super::permit::{permit, sort_of};
use super::task::{Caller, OperationKey, Task};
use crate::codec::DecodeError;
use crate::group::Act;
use crate::ids::{GroupId, Role, UserId};
use crate::limits::MALFORMED_PER_MINUTE_MAX;
use crate::wire::{ErrorBody, ErrorCode, Frame, FrameCaps, FrameError, Header, Kind, Reply, Request, VERSION, flags};

/// What came out of a connection's deframer.
enum Taken {
    Frame { header: Header, request: Result<Asked, Bad> },
    Nothing,
    Broken(FrameError),
}

/// A request, and for whom it is made if not for the connection's own user.
struct Asked {
    request: Request,
    kind: Kind,
    as_user: Option<UserId>,
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
            if !waits {
                connection.frame_since = Since::default();
            } else if !connection.frame_since.is_some() {
                connection.frame_since = Since::at(now_ms);
            }
        }
        self.arm(key);
    }

    /// The connection may send again: what it had sent before comes first.
    pub fn handle_resumed(&mut self, key: ConnectionKey, now: super::Now) {
        self.now = now;
        if let Some(connection) = self.connections.find_mut(key) {
            // It could not be heard while it was not read.
            connection.heard_ms = now.monotonic_ms;
            if connection.frame_since.is_some() {
                connection.frame_since = Since::at(now.monotonic_ms);
            }
        }
        self.take_frames(key);
        self.recount_input(key);
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

    fn take_request(&mut self, key: ConnectionKey, header: Header, request: Result<Asked, Bad>) {
        let Some(connection) = self.connections.find_mut(key) else { return };
        connection.frame_since = Since::default();
        connection.in_flight += 1;
        connection.request_bytes += header.body_bytes;
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
            Ok(Asked { request: Request::Ping, .. }) => self.pong(key, header.request_id),
            Ok(Asked { request: Request::Hello(hello), .. }) if !is_open => self.hello(key, header.request_id, &hello),
            Ok(Asked { request: Request::Hello(_), .. }) => {
                self.close_with(key, ErrorCode::Protocol, 0, "a second hello");
            }
            Err(Bad::OutOfPlace) => {
                self.close_with(key, ErrorCode::Protocol, 0, "a frame that only a server sends");
            }
            Err(Bad::Malformed(error)) => self.malformed(key, header.request_id, error),
            Err(Bad::Unserved) => self.unserved(key, header.request_id),
            Ok(asked) => self.serve(key, header, asked),
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

    // ---- everything else ---------------------------------------------------------------------------------------

    fn serve(&mut self, key: ConnectionKey, header: Header, asked: Asked) {
        let Some(session) = self.connections.find(key).and_then(|connection| connection.session()) else { return };
        let Asked { request, kind, as_user } = asked;
        if let Err(message) = permit(session.role, kind, as_user.is_some(), self.policy) {
            return self.refuse(key, header.request_id, ErrorBody::new(ErrorCode::Forbidden, 0, message));
        }
        let (user, by) = match as_user {
            Some(user) if session.role == Role::Service => (user, Some(session.user.clone())),
            Some(user) => (user, None),
            None => (session.user.clone(), None),
        };
        let caller = Caller {
            connection: key,
            request_id: header.request_id,
            user,
            by,
            principal: session.principal(),
            role: session.role,
        };
        let operation_key = OperationKey::of(header);
        match request {
            Request::Attach(attach) => {
                if self.attach(key, attach) {
                    self.answer(key, header.request_id, &Reply::Attached);
                } else {
                    self.close_with(key, ErrorCode::Protocol, 0, "an attach out of place, or of too many groups");
                }
            }
            Request::Authenticate { token } => self.authenticate_again(key, header.request_id, &token),
            Request::Create { operation, title, members } => {
                self.create(ParkedCreate { caller, key: operation_key(operation), title, members });
            }
            Request::Add { operation, group, members } => {
                self.ask_change(group, caller, operation_key(operation), kind, Act::Add { members });
            }
            Request::Remove { operation, group, members } => {
                self.ask_change(group, caller, operation_key(operation), kind, Act::Remove { members });
            }
            Request::Leave { operation, group } => {
                self.ask_change(group, caller, operation_key(operation), kind, Act::Leave);
            }
            Request::Rename { operation, group, title } => {
                self.ask_change(group, caller, operation_key(operation), kind, Act::Rename { title });
            }
            Request::Transfer { operation, group, owner } => {
                self.ask_change(group, caller, operation_key(operation), kind, Act::Transfer { owner });
            }
            Request::Dissolve { operation, group } => {
                self.ask_change(group, caller, operation_key(operation), kind, Act::Dissolve);
            }
            Request::Send { operation, group, body } => {
                self.ask_change(group, caller, operation_key(operation), kind, Act::Send { body });
            }
            Request::Whisper { operation, group, to, body } => {
                self.ask_change(group, caller, operation_key(operation), kind, Act::Whisper { to, body });
            }
            Request::Signal { group, body } => self.enqueue(group, Task::Signal { caller, body }),
            Request::GetGroup { .. } | Request::ListGroups { .. } | Request::History(_) | Request::Readers { .. } => {
                self.audit(&caller, &request);
                self.serve_large(caller, request);
            }
            Request::Acknowledge { marks } => {
                // It has no answer; each of its marks is in flight until it is taken, or refused by itself.
                if let Some(connection) = self.connections.find_mut(key) {
                    connection.in_flight += u32::try_from(marks.len()).expect("a frame has less");
                }
                for mark in marks {
                    let (received, read) = (mark.received, mark.read);
                    self.enqueue(mark.group, Task::Mark { caller: caller.clone(), received, read });
                }
                self.finish_request(key, 0, None);
            }
            Request::Feed { position } => self.begin_feed(caller, position),
            Request::Stats => self.stats(caller),
            Request::Connections { after, count_max } => {
                self.audit(&caller, &request);
                self.list_connections(&caller, after, count_max);
            }
            Request::Kick { ref user } => {
                self.audit(&caller, &request);
                self.kick(&caller, user);
            }
            Request::Backup { ref path } => {
                self.audit(&caller, &request);
                self.backup(caller, path.clone());
            }
            Request::Hello(_) | Request::Ping => unreachable!("taken before"),
        }
    }

    fn ask_change(&mut self, group: GroupId, caller: Caller, key: OperationKey, kind: Kind, act: Act) {
        self.enqueue(group, Task::Change { caller, key, kind, act });
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
            Request::Readers { group, seq } => self.enqueue(group, Task::Readers { caller, seq }),
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

fn decode(frame: Frame<'_>) -> Result<Asked, Bad> {
    if frame.header.flags & !flags::AS_USER != 0 {
        return Err(Bad::Unserved);
    }
    let kind = Kind::from_number(frame.header.kind).ok_or(Bad::Unserved)?;
    if !is_served(kind) {
        return Err(if Request::decode(kind, &[]).is_some() { Bad::Unserved } else { Bad::OutOfPlace });
    }
    let (as_user, body) = if frame.header.flags & flags::AS_USER != 0 {
        let (user, body) = Request::split_user(frame.body).map_err(Bad::Malformed)?;
        (Some(user), body)
    } else {
        (None, frame.body)
    };
    let request = Request::decode(kind, body).ok_or(Bad::OutOfPlace)?.map_err(Bad::Malformed)?;
    Ok(Asked { request, kind, as_user })
}

/// The requests of this version; `docs/protocol.md` has the same list.
fn is_served(kind: Kind) -> bool {
    sort_of(kind).is_some() || matches!(kind, Kind::Hello | Kind::Ping)
}
