//! A connection as a state machine: bytes in, events and replies out; requests in, bytes out. No socket, no clock.
//!
//! Time comes in as milliseconds of any clock that never goes back. The layouts are in `docs/protocol.md`.

use std::collections::{BTreeMap, VecDeque};

use super::error::{SessionError, TooLarge};
use super::event::Event;
use super::groups::{Batch, Groups};
use super::tracked::GroupView;
use crate::ids::{GroupId, UserId};
use crate::limits::{GROUPS_PER_FRAME_MAX, IN_FLIGHT_MAX};
use crate::wire::{
    Attach, Deframer, ErrorBody, ErrorCode, FrameCaps, FrameError, GroupSeq, Hello, HistoryRequest, Kind, Push, Reply,
    Request, VERSION, Welcome, encode_frame,
};

/// Requests that a session makes of its own accord, at once: the caller's own always find room.
const OWN_REQUESTS_MAX: usize = IN_FLIGHT_MAX / 8;

/// The number of a request, unique among those without an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct RequestId(u32);

/// What a request without an answer is for.
#[derive(Debug)]
enum Pending {
    Caller,
    History(Batch),
    Record(GroupId),
    Heartbeat,
}

/// By what a client went on line, and does so again on another connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Basis {
    Device,
    Marks,
}

/// A client on one connection, or on one connection after another.
///
/// It closes gaps by itself: what the server says is missing is asked for, page by page, while bytes are handed in.
#[derive(Debug)]
pub struct Session {
    deframer: Deframer,
    output: Vec<u8>,
    last_request: u32,
    pending: BTreeMap<u32, Pending>,
    signals: VecDeque<(u32, GroupId)>,
    replies: VecDeque<(RequestId, Reply)>,
    groups: Groups,
    welcome: Option<Welcome>,
    closing: Option<ErrorBody>,
    basis: Option<Basis>,
    now_ms: u64,
    heard_ms: u64,
    sent_ms: u64,
    expires_at_ms: Option<u64>,
    feed: Option<u64>,
    /// The server asked for a pause: until then the session asks for nothing by itself.
    paused_until_ms: u64,
}

impl Session {
    /// A connection that was just made, at this time.
    pub fn new(now_ms: u64) -> Self {
        Self {
            deframer: Deframer::default(),
            output: Vec::new(),
            last_request: 0,
            pending: BTreeMap::new(),
            signals: VecDeque::new(),
            replies: VecDeque::new(),
            groups: Groups::default(),
            welcome: None,
            closing: None,
            basis: None,
            now_ms,
            heard_ms: now_ms,
            sent_ms: now_ms,
            expires_at_ms: None,
            feed: None,
            paused_until_ms: 0,
        }
    }

    /// The connection was lost and another one is made, at this time: begins again with a hello, and keeps the groups
    /// and the events that were not taken yet. Requests without an answer are forgotten: whoever made them says them
    /// again ([`super::Conversation`] does). [`Self::attach_again`] goes on from here.
    pub fn reconnect(&mut self, now_ms: u64) {
        self.deframer = Deframer::default();
        self.output.clear();
        self.pending.clear();
        self.signals.clear();
        self.replies.clear();
        self.groups.handle_disconnected();
        self.welcome = None;
        self.closing = None;
        self.expires_at_ms = None;
        (self.now_ms, self.heard_ms, self.sent_ms, self.paused_until_ms) = (now_ms, now_ms, now_ms, 0);
    }

    /// Says who the client is. Everything but a ping has to wait for the answer, a [`Reply::Welcome`].
    pub fn hello(&mut self, hello: Hello) -> Result<RequestId, TooLarge> {
        self.request(&Request::Hello(hello))
    }

    /// Queues a request. Its answer, if its kind has one, comes out of [`Self::poll_reply`] under the same number.
    pub fn request(&mut self, request: &Request) -> Result<RequestId, TooLarge> {
        self.request_as(request, None)
    }

    /// The same by a service that acts for a user.
    pub fn request_as(&mut self, request: &Request, user: Option<&UserId>) -> Result<RequestId, TooLarge> {
        self.enqueue(request, user, Pending::Caller)
    }

    /// Goes on line with what this device has: the highest seq of each group that it knows. Returns the request whose
    /// answer says that it is on line.
    pub fn attach_device(&mut self, groups: &[GroupSeq]) -> Result<RequestId, TooLarge> {
        self.prepare_device(groups);
        Ok(self.attach_with(groups))
    }

    /// Goes on line with the user's received marks: for a client that keeps nothing.
    pub fn attach_marks(&mut self) -> Result<RequestId, TooLarge> {
        self.prepare_marks();
        self.request(&Request::Attach(Attach::Marks))
    }

    /// Takes down what [`Self::attach_again`] is to begin with.
    pub(super) fn prepare_device(&mut self, groups: &[GroupSeq]) {
        self.basis = Some(Basis::Device);
        self.groups.resume(groups);
    }

    /// The same.
    pub(super) fn prepare_marks(&mut self) {
        self.basis = Some(Basis::Marks);
    }

    /// Goes on line again after [`Self::reconnect`], in the way of the last time and with what is here by now. `None`
    /// if it never was on line.
    pub fn attach_again(&mut self) -> Option<RequestId> {
        match self.basis? {
            Basis::Device => {
                let held = self.groups.held();
                Some(self.attach_with(&held))
            }
            Basis::Marks => {
                // The marks may be above what was told here: another device of the user has set them.
                self.groups.doubt_all();
                Some(self.request(&Request::Attach(Attach::Marks)).expect("it has no list"))
            }
        }
    }

    fn attach_with(&mut self, groups: &[GroupSeq]) -> RequestId {
        let mut chunks: Vec<&[GroupSeq]> = groups.chunks(GROUPS_PER_FRAME_MAX).collect();
        let last = chunks.pop().unwrap_or_default();
        let frames = chunks.into_iter().map(|chunk| (true, chunk)).chain([(false, last)]);
        let attach = |(more, groups): (bool, &[GroupSeq])| Attach::Device { more, groups: groups.to_vec() };
        let requests = frames
            .map(attach)
            .map(|attach| self.request(&Request::Attach(attach)).expect("so many groups fit one frame"));
        requests.last().expect("there is a last frame")
    }

    /// How far each group was told in the events that were taken: what the device has, for the next
    /// [`Self::attach_device`]. Exact at any moment, in the middle of catching up too.
    pub fn positions(&self) -> Vec<GroupSeq> {
        self.groups.positions()
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
        self.ask_for_what_is_missing();
        Ok(())
    }

    /// When [`Self::handle_time`] wants to be called at the latest.
    pub fn deadline_ms(&self) -> Option<u64> {
        let heartbeat_ms = self.heartbeat_ms()?;
        let pause_ms = Some(self.paused_until_ms).filter(|until_ms| *until_ms > self.now_ms);
        Some(self.sent_ms.saturating_add(heartbeat_ms).min(pause_ms.unwrap_or(u64::MAX)))
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

    pub(super) fn set_closing(&mut self, reason: ErrorBody) {
        self.closing = Some(reason);
    }

    /// Where the feed goes on, if there is one.
    pub(super) fn feed_position(&self) -> Option<u64> {
        self.feed
    }

    /// The feed cannot go on where it stood: it is not asked for again by itself.
    pub(super) fn end_feed(&mut self, error: ErrorBody) {
        self.feed = None;
        self.groups.tell(Event::FeedEnded { error });
    }

    pub(super) fn poll_expiry(&mut self) -> Option<u64> {
        self.expires_at_ms.take()
    }

    /// Tells the application something that no frame said.
    pub(super) fn tell(&mut self, event: Event) {
        self.groups.tell(event);
    }

    fn enqueue(&mut self, request: &Request, user: Option<&UserId>, pending: Pending) -> Result<RequestId, TooLarge> {
        let id = self.next_request_id();
        let start = self.output.len();
        request.encode_frame_as(&mut self.output, id, user);
        let max = FrameCaps::Client.frame_bytes_max(request.kind().number());
        if self.output.len().saturating_sub(start) > max {
            self.output.truncate(start);
            return Err(TooLarge { max });
        }
        self.sent_ms = self.now_ms;
        match request {
            Request::Signal { group, .. } => self.remember_signal(id, *group),
            Request::Acknowledge { .. } => {}
            _ => _ = self.pending.insert(id, pending),
        }
        Ok(RequestId(id))
    }

    /// A signal has no answer but a refusal, so nothing says when it can be forgotten: the last ones are kept.
    fn remember_signal(&mut self, id: u32, group: GroupId) {
        if self.signals.len() == IN_FLIGHT_MAX {
            self.signals.pop_front();
        }
        self.signals.push_back((id, group));
    }

    /// A request of the session's own: a page of history, a record, a ping. All of them are small.
    fn enqueue_own(&mut self, request: &Request, pending: Pending) {
        self.enqueue(request, None, pending).expect("64 groups and a ping fit one frame");
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
            Push::Ready => self.groups.handle_ready(),
            Push::AuthenticateSoon { expires_at_ms } => {
                self.expires_at_ms = Some(expires_at_ms);
                self.groups.tell(Event::AuthenticateSoon { expires_at_ms });
            }
            Push::TakenOver => {
                let reason = || ErrorBody::new(ErrorCode::TakenOver, 0, "a newer connection took this one's place");
                self.closing.get_or_insert_with(reason);
                self.groups.tell(Event::TakenOver);
            }
            Push::GoingAway { within_ms } => self.groups.tell(Event::GoingAway { within_ms }),
            // Items that came over the last connection may come again.
            Push::FeedItem { position, .. } if self.feed.is_some_and(|told| position <= told) => {}
            Push::FeedItem { position, group, seq, sender, offline } => {
                self.feed = Some(position);
                self.groups.tell(Event::Feed { position, group, seq, sender, offline });
            }
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
            Some(Pending::History(batch)) => self.handle_history(&batch, reply),
            Some(Pending::Record(group)) => {
                match reply {
                    Reply::GroupShown(shown) => self.groups.handle_record(shown),
                    Reply::Error(error) if self.pauses(&error) => self.groups.want_record_again(group),
                    // Refused: the user is no longer in it, which the server tells anyway.
                    _ => {}
                }
                Ok(())
            }
            // Answers that nobody waits for: a pong, a refused acknowledgement.
            Some(Pending::Heartbeat) => Ok(()),
            None => {
                let refused = self.signals.iter().find(|(id, _)| *id == request_id);
                if let (Some((_, group)), Reply::Error(error)) = (refused, reply) {
                    self.groups.tell(Event::SignalRefused { group: *group, error });
                }
                Ok(())
            }
        }
    }

    fn handle_history(&mut self, batch: &Batch, reply: Reply) -> Result<(), SessionError> {
        match reply {
            Reply::HistoryPage { groups } => return self.groups.handle_history(batch, groups),
            Reply::Error(error) if self.pauses(&error) => self.groups.want_history_again(batch),
            Reply::Error(error) => self.groups.handle_history_refused(batch, &error),
            other => return Err(SessionError::Unexpected { kind: other.kind().number() }),
        }
        Ok(())
    }

    /// Whether an error asks for a pause, which begins now.
    fn pauses(&mut self, error: &ErrorBody) -> bool {
        let pauses = error.code == ErrorCode::SlowDown.number();
        if pauses {
            self.paused_until_ms = self.now_ms.saturating_add(error.detail.max(1));
        }
        pauses
    }

    fn handle_answer(&mut self, request: RequestId, reply: Reply) -> Result<(), SessionError> {
        if let Reply::Welcome(welcome) = &reply {
            if welcome.version != VERSION {
                return Err(SessionError::Frame(FrameError::Version));
            }
            self.groups.set_user(welcome.user.clone());
            self.welcome = Some(welcome.clone());
        }
        if let Reply::FeedBegun { position } = &reply {
            self.feed = self.feed.max(Some(*position));
        }
        self.replies.push_back((request, reply));
        Ok(())
    }

    fn ask_for_what_is_missing(&mut self) {
        if self.now_ms < self.paused_until_ms || self.welcome.is_none() {
            return;
        }
        let mut under_way = self.pending.values().filter(|pending| !matches!(pending, Pending::Caller)).count();
        while under_way < OWN_REQUESTS_MAX {
            if let Some(batch) = self.groups.next_history() {
                let request = HistoryRequest { groups: batch.asked.clone(), entries_max: 0, bytes_max: 0 };
                self.enqueue_own(&Request::History(request), Pending::History(batch));
            } else if let Some((group, newer_than)) = self.groups.next_record() {
                self.enqueue_own(&Request::GetGroup { group, newer_than }, Pending::Record(group));
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
