//! A connection as a state machine: bytes in, events and replies out; requests in, bytes out. No socket, no clock.
//!
//! Time comes in as milliseconds of any clock that never goes back. The layouts are in `docs/protocol.md`.

use std::collections::{BTreeMap, VecDeque};

use super::event::Event;
use super::groups::{GroupView, Groups};
use crate::codec::DecodeError;
use crate::ids::GroupId;
use crate::limits::{GROUPS_PER_FRAME_MAX, IN_FLIGHT_MAX};
use crate::wire::{
    Attach, Deframer, ErrorBody, FrameCaps, FrameError, GroupSeq, Hello, HistoryRequest, Kind, Push, Reply, Request,
    VERSION, Welcome, encode_frame,
};

/// Requests that a session makes of its own accord, at once: the caller's own always find room.
const OWN_REQUESTS_MAX: usize = IN_FLIGHT_MAX / 8;

/// The number of a request, unique among those without an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct RequestId(u32);

/// Why a connection cannot go on. Events and replies from before it can still be taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum SessionError {
    /// The stream is not one of frames.
    Frame(FrameError),
    /// A good frame with a body that is not what its kind asks for.
    Body {
        /// The kind's number.
        kind: u16,
        /// What is wrong with the body.
        error: DecodeError,
    },
    /// A frame that no server sends: a request, an unknown reply, reserved flags, another protocol version.
    Unexpected {
        /// The kind's number.
        kind: u16,
    },
    /// A page of history brought nothing of what it was asked for.
    NoProgress,
    /// Nothing was heard for 2.5 heartbeats.
    Silent,
}

impl std::fmt::Display for SessionError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Frame(FrameError::Magic) => f.write_str("what answers there does not speak this protocol"),
            Self::Frame(FrameError::Version) => f.write_str("the server speaks another version of the protocol"),
            Self::Frame(FrameError::Crc) => f.write_str("a frame came damaged"),
            Self::Frame(FrameError::TooLarge { max }) => write!(f, "a frame is larger than {max} bytes"),
            Self::Body { kind, error } => write!(f, "a frame of kind {kind:#06x} cannot be read: {error}"),
            Self::Unexpected { kind } => write!(f, "a frame of kind {kind:#06x} is out of place"),
            Self::NoProgress => f.write_str("a page of history brought nothing of what was asked for"),
            Self::Silent => f.write_str("the server has not been heard for too long"),
        }
    }
}

impl std::error::Error for SessionError {}

/// A request that is larger than a server takes. Nothing was sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TooLarge {
    /// The largest frame of this kind, in bytes, header included.
    pub max: usize,
}

/// What a request without an answer is for.
#[derive(Debug)]
enum Pending {
    Caller,
    History(Vec<GroupSeq>),
    Record,
    Heartbeat,
}

/// One connection of a client.
///
/// It closes gaps by itself: what the server says is missing is asked for, page by page, while bytes are handed in.
#[derive(Debug)]
pub struct Session {
    deframer: Deframer,
    output: Vec<u8>,
    last_request: u32,
    pending: BTreeMap<u32, Pending>,
    replies: VecDeque<(RequestId, Reply)>,
    groups: Groups,
    welcome: Option<Welcome>,
    closing: Option<ErrorBody>,
    now_ms: u64,
    heard_ms: u64,
    sent_ms: u64,
}

impl Session {
    /// A connection that was just made, at this time.
    pub fn new(now_ms: u64) -> Self {
        Self {
            deframer: Deframer::default(),
            output: Vec::new(),
            last_request: 0,
            pending: BTreeMap::new(),
            replies: VecDeque::new(),
            groups: Groups::default(),
            welcome: None,
            closing: None,
            now_ms,
            heard_ms: now_ms,
            sent_ms: now_ms,
        }
    }

    /// Says who the client is. Everything but a ping has to wait for the answer, a [`Reply::Welcome`].
    pub fn hello(&mut self, hello: Hello) -> Result<RequestId, TooLarge> {
        self.request(&Request::Hello(hello))
    }

    /// Queues a request. Its answer, if its kind has one, comes out of [`Self::poll_reply`] under the same number.
    pub fn request(&mut self, request: &Request) -> Result<RequestId, TooLarge> {
        self.enqueue(request, Pending::Caller)
    }

    /// Goes on line with what this device has: the highest seq of each group that it knows. Returns the request whose
    /// answer says that it is on line.
    pub fn attach_device(&mut self, groups: &[GroupSeq]) -> Result<RequestId, TooLarge> {
        self.groups.resume(groups);
        let mut chunks: Vec<&[GroupSeq]> = groups.chunks(GROUPS_PER_FRAME_MAX).collect();
        let last = chunks.pop().unwrap_or_default();
        for chunk in chunks {
            self.request(&Request::Attach(Attach::Device { more: true, groups: chunk.to_vec() }))?;
        }
        self.request(&Request::Attach(Attach::Device { more: false, groups: last.to_vec() }))
    }

    /// Goes on line with the user's received marks: for a client that keeps nothing.
    pub fn attach_marks(&mut self) -> Result<RequestId, TooLarge> {
        self.request(&Request::Attach(Attach::Marks))
    }

    /// Takes bytes as they came from the socket, cut anywhere.
    pub fn receive(&mut self, now_ms: u64, bytes: &[u8]) -> Result<(), SessionError> {
        self.now_ms = now_ms;
        self.heard_ms = now_ms;
        self.deframer.feed(bytes);
        // Taken out for the loop: a frame borrows it, and handling a frame needs the rest of the session.
        let mut deframer = std::mem::take(&mut self.deframer);
        let outcome = self.handle_frames(&mut deframer);
        self.deframer = deframer;
        self.ask_for_what_is_missing();
        outcome
    }

    /// Tells the time. Sends a ping when the heartbeat asks for one.
    pub fn handle_time(&mut self, now_ms: u64) -> Result<(), SessionError> {
        self.now_ms = now_ms;
        let Some(heartbeat_ms) = self.heartbeat_ms() else { return Ok(()) };
        let pinged = self.pending.values().any(|pending| matches!(pending, Pending::Heartbeat));
        if pinged && now_ms.saturating_sub(self.heard_ms) >= heartbeat_ms.saturating_mul(5) / 2 {
            return Err(SessionError::Silent);
        }
        if now_ms.saturating_sub(self.sent_ms) >= heartbeat_ms {
            self.enqueue_own(&Request::Ping, Pending::Heartbeat);
        }
        Ok(())
    }

    /// When [`Self::handle_time`] wants to be called at the latest.
    pub fn deadline_ms(&self) -> Option<u64> {
        self.heartbeat_ms().map(|heartbeat_ms| self.sent_ms.saturating_add(heartbeat_ms))
    }

    /// Bytes to be written to the socket.
    pub fn output(&self) -> &[u8] {
        &self.output
    }

    /// The first `count` bytes of the output were written.
    pub fn consume_output(&mut self, count: usize) {
        self.output.drain(..count.min(self.output.len()));
    }

    /// The next answer to a request of the caller.
    pub fn poll_reply(&mut self) -> Option<(RequestId, Reply)> {
        self.replies.pop_front()
    }

    /// The next thing that the server told unasked.
    pub fn poll_event(&mut self) -> Option<Event> {
        self.groups.poll_event()
    }

    /// The groups that the user is in, as far as this connection was told of them, oldest first.
    pub fn groups(&self) -> impl Iterator<Item = GroupView<'_>> {
        self.groups.views()
    }

    /// One of them.
    pub fn group(&self, group: GroupId) -> Option<GroupView<'_>> {
        self.groups.view(group)
    }

    /// What the server granted, once it has answered the hello.
    pub fn welcome(&self) -> Option<&Welcome> {
        self.welcome.as_ref()
    }

    /// Why the server closes the connection, if it said so.
    pub fn closing(&self) -> Option<&ErrorBody> {
        self.closing.as_ref()
    }

    fn heartbeat_ms(&self) -> Option<u64> {
        self.welcome.as_ref().map(|welcome| u64::from(welcome.heartbeat_s.max(1)).saturating_mul(1000))
    }

    fn enqueue(&mut self, request: &Request, pending: Pending) -> Result<RequestId, TooLarge> {
        let id = self.next_request_id();
        let start = self.output.len();
        request.encode_frame(&mut self.output, id);
        let max = FrameCaps::Client.frame_bytes_max(request.kind().number());
        if self.output.len().saturating_sub(start) > max {
            self.output.truncate(start);
            return Err(TooLarge { max });
        }
        self.sent_ms = self.now_ms;
        if !matches!(request, Request::Signal { .. } | Request::Acknowledge { .. }) {
            self.pending.insert(id, pending);
        }
        Ok(RequestId(id))
    }

    /// A request of the session's own: a page of history, a record, a ping. All of them are small.
    fn enqueue_own(&mut self, request: &Request, pending: Pending) {
        self.enqueue(request, pending).expect("64 groups and a ping fit one frame");
    }

    fn next_request_id(&mut self) -> u32 {
        loop {
            self.last_request = self.last_request.wrapping_add(1);
            // 0 is for pushes.
            if self.last_request != 0 && !self.pending.contains_key(&self.last_request) {
                return self.last_request;
            }
        }
    }

    fn handle_frames(&mut self, deframer: &mut Deframer) -> Result<(), SessionError> {
        while let Some(frame) = deframer.next_frame(FrameCaps::Server).map_err(SessionError::Frame)? {
            let number = frame.header.kind;
            if frame.header.flags != 0 {
                return Err(SessionError::Unexpected { kind: number });
            }
            match Kind::from_number(number) {
                Some(kind) => self.handle_frame(kind, frame.header.request_id, frame.body)?,
                // A push of a later version is nothing to this one; an unknown answer would be waited for for ever.
                None if frame.header.request_id == 0 => {}
                None => return Err(SessionError::Unexpected { kind: number }),
            }
        }
        Ok(())
    }

    fn handle_frame(&mut self, kind: Kind, request_id: u32, body: &[u8]) -> Result<(), SessionError> {
        let unreadable = |error| SessionError::Body { kind: kind.number(), error };
        if let Some(reply) = Reply::decode(kind, body) {
            return self.handle_reply(request_id, reply.map_err(unreadable)?);
        }
        let push = Push::decode(kind, body).ok_or(SessionError::Unexpected { kind: kind.number() })?;
        self.handle_push(push.map_err(unreadable)?, body);
        Ok(())
    }

    fn handle_push(&mut self, push: Push, body: &[u8]) {
        match push {
            Push::GroupPacket(packet) => {
                // The deframer found both CRCs right, so these are the bytes as they came.
                let mut frame = Vec::new();
                encode_frame(&mut frame, Kind::GroupPacket, 0, 0, |writer| writer.raw(body));
                self.groups.handle_packet(packet, frame);
            }
            Push::Entry { group, entry } => self.groups.handle_entry(group, entry),
            Push::Signal { group, sender, by, body } => {
                self.groups.tell(Event::Signal { group, sender, by, body });
            }
            Push::Behind { group, from, head } => self.groups.handle_behind(group, from, head),
            Push::Gone { group, until } => self.groups.handle_gone(group, until),
            Push::Ready => self.groups.tell(Event::Ready),
            Push::AuthenticateSoon { expires_at_ms } => self.groups.tell(Event::AuthenticateSoon { expires_at_ms }),
            Push::TakenOver => self.groups.tell(Event::TakenOver),
            Push::GoingAway { within_ms } => self.groups.tell(Event::GoingAway { within_ms }),
            // For services, which this session is not.
            Push::FeedItem { .. } => {}
        }
    }

    fn handle_reply(&mut self, request_id: u32, reply: Reply) -> Result<(), SessionError> {
        if request_id == 0 {
            if let Reply::Error(error) = reply {
                self.closing = Some(error);
            }
            return Ok(());
        }
        match self.pending.remove(&request_id) {
            Some(Pending::Caller) => self.handle_answer(RequestId(request_id), reply),
            Some(Pending::History(asked)) => match reply {
                Reply::HistoryPage { groups } => self.groups.handle_history(&asked, groups),
                Reply::Error(error) => {
                    self.groups.handle_history_refused(&asked, &error);
                    Ok(())
                }
                other => Err(SessionError::Unexpected { kind: other.kind().number() }),
            },
            Some(Pending::Record) => {
                // Refused: the user is no longer in it, which the server tells anyway.
                if let Reply::GroupShown(shown) = reply {
                    self.groups.handle_record(shown);
                }
                Ok(())
            }
            // Answers that nobody waits for: a pong, a refused acknowledgement.
            Some(Pending::Heartbeat) | None => Ok(()),
        }
    }

    fn handle_answer(&mut self, request: RequestId, reply: Reply) -> Result<(), SessionError> {
        if let Reply::Welcome(welcome) = &reply {
            if welcome.version != VERSION {
                return Err(SessionError::Frame(FrameError::Version));
            }
            self.groups.set_user(welcome.user.clone());
            self.welcome = Some(welcome.clone());
        }
        self.replies.push_back((request, reply));
        Ok(())
    }

    fn ask_for_what_is_missing(&mut self) {
        let mut under_way = self.pending.values().filter(|pending| !matches!(pending, Pending::Caller)).count();
        while under_way < OWN_REQUESTS_MAX {
            if let Some(asked) = self.groups.next_history() {
                let request = HistoryRequest { groups: asked.clone(), entries_max: 0, bytes_max: 0 };
                self.enqueue_own(&Request::History(request), Pending::History(asked));
            } else if let Some((group, newer_than)) = self.groups.next_record() {
                self.enqueue_own(&Request::GetGroup { group, newer_than }, Pending::Record);
            } else {
                return;
            }
            under_way += 1;
        }
    }
}

#[cfg(test)]
#[path = "session_tests.rs"]
mod tests;
