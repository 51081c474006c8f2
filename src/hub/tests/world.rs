//! A hub, what stands around it, and peers that speak the wire.

pub(super) mod requests;

use std::collections::{BTreeMap, VecDeque};
use std::hash::{DefaultHasher, Hash, Hasher};

use super::audit::Audit;
use super::model::Model;
use crate::hub::{Authenticator, ConnectionKey, Hub, Now, Policy, Seed};
use crate::ids::{DeviceId, GroupId, Identity, Role, TokenError, UserId};
use crate::store::{Event, Request as StoreRequest, Ticket};
use crate::wire::{
    Attach, Deframer, ErrorBody, FrameCaps, GroupPacket, GroupSeq, Hello, Kind, Push, Reply, Request, flags,
};

const START: Now = Now { monotonic_ms: 1_000, wall_ms: 1_760_000_000_000 };

/// Reads tokens like `user:alice`, `user:alice/phone` (for one device), `service:s`, `operator:o`, `short:alice` (ends
/// in a minute), `expired`; nothing else is accepted.
struct Tokens;

impl Authenticator for Tokens {
    fn authenticate(&self, token: &str, wall_ms: u64) -> Result<Identity, TokenError> {
        if token == "expired" {
            return Err(TokenError::Expired);
        }
        let (role, name) = token.split_once(':').ok_or(TokenError::Rejected)?;
        let (name, device) = name.split_once('/').map_or((name, None), |(name, device)| (name, Some(device)));
        Ok(Identity {
            user: UserId::new(name).map_err(|_| TokenError::Rejected)?,
            role: match role {
                "user" | "short" => Role::User,
                "service" => Role::Service,
                "operator" => Role::Operator,
                _ => return Err(TokenError::Rejected),
            },
            device: device.map(DeviceId::new).transpose().map_err(|_| TokenError::Rejected)?,
            expires_at_ms: wall_ms + if role == "short" { 60_000 } else { 365 * 86_400_000 },
        })
    }
}

pub(super) fn user(name: &str) -> UserId {
    UserId::new(name).unwrap()
}

pub(super) fn users(names: &[&str]) -> Vec<UserId> {
    names.iter().copied().map(user).collect()
}

pub(super) fn hello(token: &str, device: &str) -> Request {
    let device = DeviceId::new(device).unwrap();
    Request::Hello(Hello {
        version_min: 1,
        version_max: 1,
        features: 0,
        heartbeat_s: 0,
        device,
        token: token.to_owned(),
    })
}

/// One frame as a peer got it.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Got {
    Reply(u32, Reply),
    Push(Push),
}

/// How a peer takes what the hub has for it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Reading {
    Everything,
    /// So many bytes at a time, as often as it is asked.
    Chunks(usize),
    Nothing,
}

/// A test's name of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Peer(pub(super) usize);

pub(super) struct Line {
    pub(super) key: ConnectionKey,
    pub(super) open: bool,
    pub(super) audit: Audit,
    reading: Reading,
    from_hub: Deframer,
    to_hub: Deframer,
    last_request: u32,
    got: VecDeque<Got>,
    /// The bytes of the group packets that came.
    packets: Vec<Vec<u8>>,
}

pub(super) struct World {
    pub(super) hub: Hub,
    pub(super) model: Model,
    pub(super) now: Now,
    /// Whether what is committed becomes durable, and is reported, at once.
    pub(super) synced: bool,
    /// Whether look-ups wait for [`World::answer_one`].
    pub(super) loads_held: bool,
    pub(super) lines: Vec<Line>,
    peers: BTreeMap<ConnectionKey, Peer>,
    held: VecDeque<StoreRequest>,
    unreported: VecDeque<(Ticket, u64)>,
    operations: u64,
    /// Every request to storage and every byte of output, in order.
    trace: DefaultHasher,
}

impl World {
    /// With a disk that is at once done.
    pub(super) fn new() -> Self {
        Self::over(Model::default())
    }

    /// With a disk that is done when the test says so.
    pub(super) fn slow() -> Self {
        let mut world = Self::new();
        world.synced = false;
        world
    }

    /// A server that starts on what another one has left.
    pub(super) fn over(mut model: Model) -> Self {
        model.forget_queued();
        let seed = Seed { hash: [1, 2, 3, 4], ids: [7; 32] };
        let mut world = Self {
            hub: Hub::new(seed, Policy::default(), Box::new(Tokens), START),
            model,
            now: START,
            synced: true,
            loads_held: false,
            lines: Vec::new(),
            peers: BTreeMap::new(),
            held: VecDeque::new(),
            unreported: VecDeque::new(),
            operations: 0,
            trace: DefaultHasher::new(),
        };
        world.storage(Event::Ready);
        world.storage(Event::Credit { bytes_total: u64::MAX / 4 });
        world
    }

    /// The same server after a restart: what was durable is there, nothing else.
    pub(super) fn restarted(self) -> Self {
        let mut world = Self::over(self.model);
        world.operations = self.operations;
        world.hub.random = self.hub.random;
        world
    }

    // ---- the loop ----------------------------------------------------------------------------------------------

    /// Does what the loop does until nothing is left to do.
    pub(super) fn turn(&mut self) {
        loop {
            let mut busy = self.submit();
            while self.synced && self.sync_one() {
                busy = true;
            }
            while let Some(key) = self.hub.poll_resumed() {
                busy = true;
                self.hub.handle_resumed(key, self.now);
            }
            for _ in 0..self.hub.dirty_count() {
                let Some(key) = self.hub.poll_dirty() else { break };
                let peer = self.peers[&key];
                match self.lines[peer.0].reading {
                    Reading::Everything => busy |= self.take(peer, usize::MAX) > 0,
                    Reading::Chunks(bytes) => busy |= self.take(peer, bytes) > 0,
                    Reading::Nothing => self.hub.handle_blocked(key, self.now),
                }
            }
            // What a peer does that sees the end: it closes, too.
            while let Some(key) = self.hub.poll_finished() {
                busy = true;
                let peer = self.peers[&key];
                self.lines[peer.0].open = false;
                self.hub.handle_closed(key, self.now);
            }
            while let Some(key) = self.hub.poll_closed() {
                busy = true;
                let peer = self.peers[&key];
                self.lines[peer.0].open = false;
            }
            if self.hub.releases.has_durable() {
                busy = true;
                self.hub.handle_time(self.now);
            }
            self.hub.check_invariants();
            if !busy {
                return;
            }
        }
    }

    fn submit(&mut self) -> bool {
        let mut busy = false;
        while let Some(request) = self.hub.poll_request() {
            busy = true;
            format!("{request:?}").hash(&mut self.trace);
            match request {
                StoreRequest::Commit { ticket, change } => self.model.commit(ticket, change),
                load if self.loads_held => self.held.push_back(load),
                load => {
                    let event = self.model.answer(&load);
                    self.hub.handle_storage(event, self.now);
                }
            }
        }
        busy
    }

    pub(super) fn storage(&mut self, event: Event) {
        self.hub.handle_storage(event, self.now);
        self.turn();
    }

    /// Everything so far is on disk, and the hub is told.
    pub(super) fn sync(&mut self) {
        self.turn();
        while self.sync_one() {}
        self.turn();
    }

    /// The oldest change that the hub was not told of is on disk, and now it is told.
    pub(super) fn sync_one(&mut self) -> bool {
        if self.unreported.is_empty() {
            self.apply_one();
        }
        let Some((ticket, lsn)) = self.unreported.pop_front() else { return false };
        self.hub.handle_storage(Event::Durable { ticket, lsns: vec![lsn] }, self.now);
        true
    }

    /// The oldest change is on disk and look-ups see it; the hub is not told yet.
    pub(super) fn apply_one(&mut self) {
        let ticket = self.model.apply_next();
        self.unreported.extend(ticket);
    }

    /// Storage answers the oldest look-up.
    pub(super) fn answer_one(&mut self) -> bool {
        let Some(load) = self.held.pop_front() else { return false };
        let event = self.model.answer(&load);
        self.storage(event);
        true
    }

    /// Computes the answer to the oldest look-up now, to be handed over later.
    pub(super) fn take_answer(&mut self) -> Event {
        let load = self.held.pop_front().expect("a look-up is under way");
        self.model.answer(&load)
    }

    /// The oldest look-up is overtaken by the others.
    pub(super) fn rotate_loads(&mut self) {
        self.held.rotate_left(1);
    }

    pub(super) fn held_loads(&self) -> usize {
        self.held.len()
    }

    /// Storage answers all look-ups, those that follow from them too, and no longer waits.
    pub(super) fn answer_all(&mut self) {
        self.loads_held = false;
        while self.answer_one() {}
    }

    /// Time passes; every deadline on the way is kept.
    pub(super) fn advance(&mut self, ms: u64) {
        let end_ms = self.now.monotonic_ms + ms;
        while let Some(due_ms) = self.hub.next_deadline_ms().filter(|due_ms| *due_ms <= end_ms) {
            self.set_time(due_ms.max(self.now.monotonic_ms));
            assert!(self.hub.next_deadline_ms() > Some(due_ms) || self.hub.next_deadline_ms().is_none());
        }
        self.set_time(end_ms);
    }

    fn set_time(&mut self, monotonic_ms: u64) {
        self.now.wall_ms += monotonic_ms - self.now.monotonic_ms;
        self.now.monotonic_ms = monotonic_ms;
        self.hub.handle_time(self.now);
        self.turn();
    }

    pub(super) fn trace(&self) -> u64 {
        self.trace.finish()
    }

    // ---- peers -------------------------------------------------------------------------------------------------

    pub(super) fn connect(&mut self) -> Peer {
        let key = self.hub.handle_accepted(self.now);
        let peer = Peer(self.lines.len());
        self.peers.insert(key, peer);
        self.lines.push(Line {
            key,
            open: true,
            audit: Audit::default(),
            reading: Reading::Everything,
            from_hub: Deframer::default(),
            to_hub: Deframer::default(),
            last_request: 0,
            got: VecDeque::new(),
            packets: Vec::new(),
        });
        self.turn();
        peer
    }

    /// An authenticated connection that is not on line.
    pub(super) fn open(&mut self, name: &str, device: &str) -> Peer {
        let peer = self.connect();
        let id = self.ask(peer, &hello(&format!("user:{name}"), device));
        assert!(matches!(self.reply(peer, id), Reply::Welcome(_)));
        peer
    }

    /// A connection on line whose device has nothing. What it is told stays to be looked at.
    pub(super) fn attach(&mut self, name: &str, device: &str, groups: &[(GroupId, u64)]) -> Peer {
        let peer = self.open(name, device);
        let groups = groups.iter().map(|(group, seq)| GroupSeq { group: *group, seq: *seq }).collect();
        let id = self.ask(peer, &Request::Attach(Attach::Device { more: false, groups }));
        assert_eq!(self.reply(peer, id), Reply::Attached);
        peer
    }

    pub(super) fn attach_marks(&mut self, name: &str, device: &str) -> Peer {
        let peer = self.open(name, device);
        let id = self.ask(peer, &Request::Attach(Attach::Marks));
        assert_eq!(self.reply(peer, id), Reply::Attached);
        peer
    }

    /// A connection on line that has nothing and lacks nothing.
    pub(super) fn online(&mut self, name: &str, device: &str) -> Peer {
        let peer = self.attach(name, device, &[]);
        assert_eq!(self.pushes(peer), [Push::Ready]);
        peer
    }

    pub(super) fn disconnect(&mut self, peer: Peer) {
        self.lines[peer.0].open = false;
        self.hub.handle_closed(self.lines[peer.0].key, self.now);
        self.turn();
    }

    pub(super) fn key(&self, peer: Peer) -> ConnectionKey {
        self.lines[peer.0].key
    }

    pub(super) fn is_open(&self, peer: Peer) -> bool {
        self.lines[peer.0].open
    }

    pub(super) fn set_reading(&mut self, peer: Peer, reading: Reading) {
        self.lines[peer.0].reading = reading;
        self.hub.handle_writable(self.lines[peer.0].key);
        self.turn();
    }

    /// How many bytes wait for a peer.
    pub(super) fn waiting(&self, peer: Peer) -> usize {
        self.hub.output(self.key(peer)).map(<[u8]>::len).sum()
    }

    /// A peer takes up to so many bytes now. Returns how many there were.
    pub(super) fn take(&mut self, peer: Peer, bytes_max: usize) -> usize {
        let bytes = self.take_bytes(peer, bytes_max);
        bytes.len()
    }

    pub(super) fn take_bytes(&mut self, peer: Peer, bytes_max: usize) -> Vec<u8> {
        let key = self.key(peer);
        let bytes: Vec<u8> = self.hub.output(key).flatten().copied().take(bytes_max).collect();
        (peer.0, &bytes).hash(&mut self.trace);
        let line = &mut self.lines[peer.0];
        line.from_hub.feed(&bytes);
        while let Some(frame) = line.from_hub.next_frame(FrameCaps::Server).expect("the hub speaks the protocol") {
            let kind = Kind::from_number(frame.header.kind).expect("a known kind");
            let got = match Reply::decode(kind, frame.body) {
                Some(reply) => Got::Reply(frame.header.request_id, reply.unwrap()),
                None => Got::Push(Push::decode(kind, frame.body).expect("a push").unwrap()),
            };
            match &got {
                Got::Reply(0, Reply::Error(_)) => {}
                Got::Reply(id, reply) => line.audit.replied(*id, reply),
                Got::Push(push) => line.audit.pushed(push),
            }
            if kind == Kind::GroupPacket {
                let mut bytes = Vec::new();
                crate::wire::encode_frame(&mut bytes, kind, 0, frame.header.request_id, |writer| {
                    writer.raw(frame.body);
                });
                line.packets.push(bytes);
            }
            line.got.push_back(got);
        }
        self.hub.handle_written(key, bytes.len(), self.now);
        bytes
    }

    /// A peer sends bytes.
    pub(super) fn send_bytes(&mut self, peer: Peer, bytes: &[u8]) {
        let line = &mut self.lines[peer.0];
        line.to_hub.feed(bytes);
        while let Ok(Some(frame)) = line.to_hub.next_frame(FrameCaps::Client) {
            let body = match frame.header.flags {
                flags::AS_USER => Request::split_user(frame.body).map_or(frame.body, |(_, body)| body),
                _ => frame.body,
            };
            let request = Kind::from_number(frame.header.kind).and_then(|kind| Request::decode(kind, body));
            if let Some(Ok(request)) = request {
                line.audit.sent(frame.header.request_id, request);
            } else {
                line.audit.sent(frame.header.request_id, Request::Ping);
            }
        }
        self.hub.handle_bytes(line.key, bytes, self.now);
        self.turn();
    }

    pub(super) fn next_request_id(&mut self, peer: Peer) -> u32 {
        let line = &mut self.lines[peer.0];
        line.last_request += 1;
        line.last_request
    }

    /// A peer asks; its request's number.
    pub(super) fn ask(&mut self, peer: Peer, request: &Request) -> u32 {
        self.ask_all(peer, std::slice::from_ref(request))[0]
    }

    /// A service asks for a user.
    pub(super) fn ask_as(&mut self, peer: Peer, request: &Request, user: &UserId) -> u32 {
        let mut bytes = Vec::new();
        let id = self.next_request_id(peer);
        request.encode_frame_as(&mut bytes, id, Some(user));
        self.send_bytes(peer, &bytes);
        id
    }

    /// Several requests in one piece.
    pub(super) fn ask_all(&mut self, peer: Peer, requests: &[Request]) -> Vec<u32> {
        let mut bytes = Vec::new();
        let mut ids = Vec::new();
        for request in requests {
            let id = self.next_request_id(peer);
            request.encode_frame(&mut bytes, id);
            ids.push(id);
        }
        self.send_bytes(peer, &bytes);
        ids
    }

    /// Everything that a peer got and was not looked at yet.
    pub(super) fn got(&mut self, peer: Peer) -> Vec<Got> {
        self.lines[peer.0].got.drain(..).collect()
    }

    /// The bytes of the group packets that a peer got.
    pub(super) fn packet_bytes(&self, peer: Peer) -> &[Vec<u8>] {
        &self.lines[peer.0].packets
    }

    /// The answer to a request, which is there.
    pub(super) fn reply(&mut self, peer: Peer, id: u32) -> Reply {
        self.find_reply(peer, id).unwrap_or_else(|| panic!("no answer to {id}: {:?}", self.lines[peer.0].got))
    }

    pub(super) fn find_reply(&mut self, peer: Peer, id: u32) -> Option<Reply> {
        let got = &mut self.lines[peer.0].got;
        let at = got.iter().position(|got| matches!(got, Got::Reply(other, _) if *other == id))?;
        match got.remove(at) {
            Some(Got::Reply(_, reply)) => Some(reply),
            _ => unreachable!(),
        }
    }

    pub(super) fn refusal(&mut self, peer: Peer, id: u32) -> ErrorBody {
        match self.reply(peer, id) {
            Reply::Error(error) => error,
            other => panic!("not refused: {other:?}"),
        }
    }

    /// The pushes that a peer got and were not looked at yet.
    pub(super) fn pushes(&mut self, peer: Peer) -> Vec<Push> {
        let (pushes, replies) = self.got(peer).into_iter().partition(|got| matches!(got, Got::Push(_)));
        self.lines[peer.0].got = replies;
        pushes.into_iter().filter_map(|got: Got| if let Got::Push(push) = got { Some(push) } else { None }).collect()
    }

    /// The seqs of the entries that were pushed, and nothing else was.
    pub(super) fn pushed_seqs(&mut self, peer: Peer) -> Vec<u64> {
        let seq = |push| match push {
            Push::Entry { entry, .. } => entry.seq(),
            other => panic!("not an entry: {other:?}"),
        };
        self.pushes(peer).into_iter().map(seq).collect()
    }

    /// The one group packet that was pushed, and nothing else was but `Ready`.
    pub(super) fn packet(&mut self, peer: Peer) -> GroupPacket {
        let pushes: Vec<_> = self.pushes(peer).into_iter().filter(|push| *push != Push::Ready).collect();
        match &pushes[..] {
            [Push::GroupPacket(packet)] => packet.clone(),
            other => panic!("one group packet: {other:?}"),
        }
    }

    /// The last thing that a closed connection was told.
    pub(super) fn closed_with(&mut self, peer: Peer) -> &'static str {
        assert!(!self.is_open(peer), "it is closed");
        match self.lines[peer.0].got.pop_back() {
            Some(Got::Reply(_, Reply::Error(error))) => error.name(),
            other => panic!("no reason: {other:?}"),
        }
    }
}
