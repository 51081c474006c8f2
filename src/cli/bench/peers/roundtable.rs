//! roundtable itself, by its own wire format.
//!
//! Senders are connections of one service that acts for users, as the backends of a cluster do: rates that bound what
//! one person may send do not hold for them. Users are new in each round of each run, so no group of an earlier one is
//! theirs, on a server that runs already either.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use roundtable::client::{Client, ConnectOptions};
use roundtable::group::{Entry, Event};
use roundtable::ids::{DeviceId, GroupId, OperationId, Role, UserId};
use roundtable::limits::{HEADER_BYTES, HEARTBEAT_S_MAX};
use roundtable::token::{LocalKey, mint};
use roundtable::wire::{
    Attach, Changed, Created, ErrorBody, GroupPacket, Header, Hello, Kind, LogEntry, Push, Reply, Request, features,
};

use super::super::server::Server;
use super::{Cut, Item, Load, Peer, Seat, Task};
use crate::cli::connect::{KeyArgs, grant};
use crate::cli::failure::Failure;
use crate::cli::interrupt::Interrupt;

const TITLE: &str = "bench";
const SERVICE: &str = "bench";
const OPERATOR: &str = "operator";
/// Users of whom groups off line are made: so many that nobody comes near the quota of groups.
pub(super) const POOL_USERS: u64 = 200_000;
/// Marks of rounds, of four letters and digits.
const MARKS: usize = 36_usize.pow(4);
/// What the index has still to do, by the names of the server's statistics.
const INDEX_WORK: [&str; 2] = ["index_backlog_bytes", "index_dirty_bytes"];
/// Pause between two questions whether there is any.
const REST_PAUSE: Duration = Duration::from_millis(50);
/// How long is waited for it: a server that runs already may have others to serve.
const REST_MAX: Duration = Duration::from_secs(30);
/// More rounds than there can be.
const ROUNDS_MAX: usize = 10_000;
const TOKEN_TTL: Duration = Duration::from_secs(12 * 60 * 60);

pub(in crate::cli::bench) struct Roundtable {
    server: Server,
    load: Load,
    /// What the rounds of this run are counted from, below `MARKS / 2`; random.
    first_round: usize,
    round: usize,
    key: LocalKey,
    key_args: KeyArgs,
    service_token: String,
    groups: Vec<GroupId>,
    /// A request that is the same each time, and who it is for.
    signals: Vec<Vec<u8>>,
    /// The first eight bytes of operation ids, random for each run; the others count.
    operations: u64,
    operation: u64,
    dice: u64,
    /// Lengths that the raw limit works with.
    lengths: Lengths,
}

/// Of frames, in bytes; what is not in a task has none.
struct Lengths {
    request: usize,
    push: usize,
}

impl Roundtable {
    pub(in crate::cli::bench) fn new(server: Server, load: Load) -> Result<Self, Failure> {
        let (key, key_args) = server.key()?;
        let service = grant(&key_args, user(SERVICE), Role::Service, None, TOKEN_TTL);
        let service_token = mint(&key, &service);
        let operations = OperationId::random().as_bytes().first_chunk().map_or(1, |bytes| u64::from_be_bytes(*bytes));
        let first_round = usize::try_from(operations).unwrap_or(0) % (MARKS / 2 - ROUNDS_MAX);
        let frames = Frames::of(&load);
        let lengths = Lengths { request: frames.request.len(), push: frames.push.len() };
        Ok(Self {
            lengths,
            server,
            load,
            first_round,
            round: first_round,
            key,
            key_args,
            service_token,
            groups: Vec::new(),
            signals: Vec::new(),
            operations,
            operation: 0,
            dice: operations | 1,
        })
    }

    /// Its users are others than those of any that is not apart, whatever the rounds.
    pub(in crate::cli::bench) fn apart(mut self) -> Self {
        self.first_round += MARKS / 2;
        self
    }

    fn next_operation(&mut self) -> OperationId {
        self.operation += 1;
        let mut bytes = [0; 16];
        bytes[..8].copy_from_slice(&self.operations.to_be_bytes());
        bytes[8..].copy_from_slice(&self.operation.to_be_bytes());
        OperationId::from_bytes(bytes).expect("it counts from 1")
    }

    /// The users of a group that is made before the load.
    fn members_of(&self, group: usize) -> Vec<UserId> {
        let first = group * self.load.members;
        (first..first + self.load.members).map(|number| member(self.round, number)).collect()
    }

    fn pooled(&mut self) -> UserId {
        // Xorshift (Marsaglia 2003): who is drawn does not matter, the cost of drawing does.
        self.dice ^= self.dice << 13;
        self.dice ^= self.dice >> 7;
        self.dice ^= self.dice << 17;
        user(&format!("pool-{:06}", self.dice % POOL_USERS))
    }

    fn create(&mut self, creator: &UserId, members: Vec<UserId>, out: &mut Vec<u8>) {
        let operation = self.next_operation();
        Request::Create { operation, title: TITLE.into(), members }.encode_frame_as(out, 1, Some(creator));
    }
}

fn user(name: &str) -> UserId {
    UserId::new(name).expect("short names are legal")
}

fn member(round: usize, number: usize) -> UserId {
    user(&format!("member-{}-{number:06}", mark(round)))
}

/// Four letters and digits that tell rounds apart.
fn mark(round: usize) -> String {
    let digit = |power: u32| char::from_digit(u32::try_from(round / 36_usize.pow(power) % 36).unwrap_or(0), 36);
    (0..4).rev().filter_map(digit).collect()
}

/// The member of a group who sends, off line itself.
fn speaker(round: usize, group: usize) -> UserId {
    user(&format!("sender-{}-{group:05}", mark(round)))
}

fn body(bytes: usize) -> Vec<u8> {
    vec![b'x'; bytes]
}

impl Peer for Roundtable {
    fn name(&self) -> &'static str {
        "roundtable"
    }

    fn process(&self) -> Option<u32> {
        self.server.process()
    }

    fn address(&self) -> SocketAddr {
        self.server.address()
    }

    fn begin(&mut self, round: usize) {
        self.round = self.first_round + round;
        self.groups.clear();
        self.signals.clear();
    }

    fn opening(&mut self, seat: Seat, number: usize) -> Vec<u8> {
        let idles = self.load.task == Task::Idle;
        let token = match seat {
            Seat::Sender if !idles => self.service_token.clone(),
            Seat::Sender | Seat::Member => {
                mint(&self.key, &grant(&self.key_args, member(self.round, number), Role::User, None, TOKEN_TTL))
            }
        };
        let device = DeviceId::new("bench").expect("a short name is legal");
        let features = features::WHISPER | features::SERVICE;
        let mut out = Vec::new();
        Request::Hello(Hello { version_min: 1, version_max: 1, features, heartbeat_s: HEARTBEAT_S_MAX, device, token })
            .encode_frame(&mut out, 1);
        if seat == Seat::Member || idles {
            Request::Attach(Attach::Marks).encode_frame(&mut out, 2);
        }
        out
    }

    fn preparations(&mut self) -> Vec<Vec<u8>> {
        let groups = self.load.groups;
        let make = |group: usize| {
            let mut out = Vec::new();
            let members = self.members_of(group);
            self.create(&speaker(self.round, group), members, &mut out);
            out
        };
        (0..groups).map(make).collect()
    }

    fn learn(&mut self, answer: &[u8]) -> Result<(), String> {
        let body = answer.get(HEADER_BYTES..).unwrap_or_default();
        let Some(Ok(Reply::Created(Created { group, .. }))) = Reply::decode(Kind::Created, body) else {
            return Err("a create was answered with something else".to_owned());
        };
        if self.load.task == Task::Signal {
            let sender = speaker(self.round, self.groups.len());
            let mut frame = Vec::new();
            Request::Signal { group, body: body_of(&self.load) }.encode_frame_as(&mut frame, 1, Some(&sender));
            self.signals.push(frame);
        }
        self.groups.push(group);
        Ok(())
    }

    fn request(&mut self, sender: usize, group: usize, out: &mut Vec<u8>) {
        let start = out.len();
        self.put_request(sender, group, out);
        assert_eq!(out.len() - start, self.lengths.request, "the raw limit reads requests of the same length");
    }

    /// The index flushes what it has folded when it has been quiet for two seconds.
    fn rest(&mut self, interrupt: &Interrupt) -> Result<(), Failure> {
        if !self.load.is_durable() {
            return Ok(());
        }
        let token = mint(&self.key, &grant(&self.key_args, user(OPERATOR), Role::Operator, None, TOKEN_TTL));
        let mut operator = Client::connect(ConnectOptions::new(self.address().to_string(), token))?;
        let begun = Instant::now();
        while begun.elapsed() < REST_MAX {
            interrupt.check()?;
            let left = operator.stats()?.iter().any(|stat| INDEX_WORK.contains(&&*stat.name) && stat.value > 0);
            if !left {
                return Ok(());
            }
            operator.next_event(Some(REST_PAUSE))?;
        }
        Ok(())
    }

    fn cut(&self, seat: Seat, bytes: &[u8]) -> Result<Option<Cut>, String> {
        let cut = cut(self.load.task, seat, bytes)?;
        match cut {
            Some(Cut { bytes, item: Item::Delivery }) if bytes != self.lengths.push => {
                let sent = self.lengths.push;
                Err(format!("it delivers {bytes} bytes, the raw limit {sent}: they cannot be compared"))
            }
            _ => Ok(cut),
        }
    }
}

impl Roundtable {
    fn put_request(&mut self, sender: usize, group: usize, out: &mut Vec<u8>) {
        match self.load.task {
            Task::Signal => out.extend_from_slice(&self.signals[group]),
            Task::Message | Task::Send => {
                let group = if self.load.task == Task::Send { sender } else { group };
                let (operation, speaker) = (self.next_operation(), speaker(self.round, group));
                let body = body_of(&self.load);
                Request::Send { operation, group: self.groups[group], body }.encode_frame_as(out, 1, Some(&speaker));
            }
            Task::CreateOnline => {
                let members = self.members_of(0);
                self.create(&member(self.round, 0), members, out);
            }
            Task::CreateOffline => {
                let creator = self.pooled();
                let members = (0..self.load.members).map(|_| self.pooled()).collect();
                self.create(&creator, members, out);
            }
            Task::Idle => Request::Ping.encode_frame(out, 1),
        }
    }
}

fn body_of(load: &Load) -> std::sync::Arc<[u8]> {
    body(load.bytes).into()
}

/// What a frame is in a task. The body's CRC is not checked: that would cost more than the rest of receiving.
pub(in crate::cli::bench) fn cut(task: Task, seat: Seat, bytes: &[u8]) -> Result<Option<Cut>, String> {
    let Some(header) = bytes.first_chunk::<HEADER_BYTES>() else { return Ok(None) };
    let header = Header::decode(header).map_err(|error| format!("no frame: {error:?}"))?;
    let length = HEADER_BYTES.saturating_add(usize::try_from(header.body_bytes).unwrap_or(usize::MAX));
    let item = match Kind::from_number(header.kind) {
        Some(Kind::Ready) => Item::Ready,
        Some(Kind::Welcome) if seat == Seat::Sender && task != Task::Idle => Item::Ready,
        Some(Kind::SignalPush) if task == Task::Signal => Item::Delivery,
        Some(Kind::Entry) if task == Task::Message => Item::Delivery,
        Some(Kind::GroupPacket) if task == Task::CreateOnline => Item::Delivery,
        Some(Kind::Created | Kind::SendDone | Kind::Pong) => Item::Answer,
        Some(Kind::Error) => {
            let Some(body) = bytes.get(HEADER_BYTES..length) else { return Ok(None) };
            return Err(refusal(body));
        }
        Some(kind @ (Kind::Behind | Kind::TakenOver | Kind::GoingAway)) => {
            return Err(format!("it said {}", kind.name()));
        }
        _ => Item::Other,
    };
    Ok(Some(Cut { bytes: length, item }))
}

fn refusal(body: &[u8]) -> String {
    match Reply::decode(Kind::Error, body) {
        Some(Ok(Reply::Error(ErrorBody { code, message, .. }))) => format!("it refused: {message} (code {code})"),
        _ => "it refused".to_owned(),
    }
}

/// Frames of the same lengths as those of a load, for the raw limit and for peers that carry them.
pub(in crate::cli::bench) struct Frames {
    pub(in crate::cli::bench) request: Vec<u8>,
    /// Empty where nothing is pushed.
    pub(in crate::cli::bench) push: Vec<u8>,
    /// Empty where nothing is answered.
    pub(in crate::cli::bench) answer: Vec<u8>,
}

impl Frames {
    pub(in crate::cli::bench) fn of(load: &Load) -> Self {
        let group = GroupId::generate(1, &[7; 10]);
        let operation = OperationId::random();
        let (speaker, by) = (speaker(0, 0), Some(user(SERVICE)));
        let users = |count: usize| (0..count).map(|number| member(0, number)).collect::<Vec<_>>();
        let (mut request, mut push, mut answer) = (Vec::new(), Vec::new(), Vec::new());
        let changed = Changed { group, seq: 2, version: 1, repeated: false };
        let created = Created { group, seq: 1, version: 1, members: 0, pushed: 0, queued: 0, repeated: false };
        match load.task {
            Task::Signal => {
                Request::Signal { group, body: body_of(load) }.encode_frame_as(&mut request, 1, Some(&speaker));
                Push::Signal { group, sender: speaker, by, body: body(load.bytes) }.encode_frame(&mut push);
            }
            Task::Message | Task::Send => {
                let body = body_of(load);
                let event = Event::Message { body: body.clone() };
                let entry = Entry { seq: 2, version: 1, at_ms: 1, sender: speaker.clone(), by, event };
                Request::Send { operation, group, body }.encode_frame_as(&mut request, 1, Some(&speaker));
                Push::Entry { group, entry: LogEntry::Shown(entry) }.encode_frame(&mut push);
                Reply::Changed(Kind::SendDone, changed).encode_frame(&mut answer, 1);
            }
            Task::CreateOnline | Task::CreateOffline => {
                let online = load.task == Task::CreateOnline;
                let pool = || vec![user("pool-000000"); load.members];
                let members = if online { users(load.members) } else { pool() };
                let creator = members[0].clone();
                let create = Request::Create { operation, title: TITLE.into(), members: members.clone() };
                create.encode_frame_as(&mut request, 1, Some(&creator));
                let owner = creator.clone();
                let (from, version, head, created_at_ms, title) = (2, 1, 1, 1, TITLE.to_owned());
                Push::GroupPacket(GroupPacket {
                    from,
                    group,
                    version,
                    head,
                    created_at_ms,
                    owner,
                    creator,
                    title,
                    members,
                })
                .encode_frame(&mut push);
                Reply::Created(created).encode_frame(&mut answer, 1);
            }
            Task::Idle => {
                Request::Ping.encode_frame(&mut request, 1);
                Reply::Pong { server_time_ms: 1, ready: true }.encode_frame(&mut answer, 1);
            }
        }
        if load.receivers() == 0 {
            push.clear();
        }
        Self { request, push, answer }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rounds_have_users_of_their_own_and_names_of_one_length() {
        let rounds = [0, 1, 35, 36, MARKS / 2 - 1, MARKS / 2, MARKS - 1];
        let names: std::collections::BTreeSet<_> = rounds.iter().map(|round| member(*round, 7)).collect();
        assert_eq!(names.len(), rounds.len());
        assert!(names.iter().all(|name| name.as_str().len() == member(0, 0).as_str().len()), "{names:?}");
        assert_eq!(member(MARKS - 1, 7).as_str(), "member-zzzz-000007");
    }
}
