//! Clients under load: each records what it asked for, what it was answered, and what it saw.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use roundtable::client::{Client, ClientError, RequestId, Session};
use roundtable::ids::{GroupId, OperationId, UserId};
use roundtable::wire::{GroupSeq, Hello, Reply, Request, VERSION, features};

use super::ledger::{Answer, Operation, Outcome, Sight, Wish, users};
use super::server::{PATIENCE, Server};

/// Of eight users, those from here on send many requests before they wait for an answer.
const PIPELINED_FROM: usize = 5;
/// Requests that such a user has under way.
const WINDOW: usize = 16;
/// Groups of earlier rounds that a user goes on with.
const GROUPS_KEPT: usize = 12;

/// Groups that were made just now, for their other members to use.
type Board = Arc<Mutex<Vec<(GroupId, Vec<UserId>)>>>;

/// All clients of one round.
pub(crate) struct Load {
    /// One message for each acknowledged operation; ends when all clients have.
    pub(crate) acknowledged: Receiver<()>,
    workers: Vec<JoinHandle<Vec<Operation>>>,
    watchers: Vec<JoinHandle<Sight>>,
}

/// What a user knows at the start: the groups it is in, with the last seq of each.
pub(crate) type Known = Vec<(UserId, Vec<GroupSeq>)>;

impl Load {
    /// Lets all users begin, each with a watcher that is on line before.
    pub(crate) fn begin(server: &Server, seed: u64, round: u64, known: &Known) -> Self {
        let watchers = known.iter().map(|(user, groups)| watch(server, user, groups)).collect();
        let board = Board::default();
        let (sender, acknowledged) = channel();
        let mut workers = Vec::new();
        for (number, (user, groups)) in known.iter().enumerate() {
            let recent = groups.iter().rev().take(GROUPS_KEPT).map(|at| at.group).collect();
            let will = Will {
                random: StdRng::seed_from_u64(seed ^ round << 8 ^ number as u64),
                user: user.clone(),
                round,
                groups: recent,
                taken: 0,
                board: board.clone(),
                operations: Vec::new(),
                acknowledged: sender.clone(),
            };
            let options = server.options(user, "worker");
            workers.push(std::thread::spawn(move || {
                if number < PIPELINED_FROM {
                    Client::connect(options).map_or(Vec::new(), |client| one_at_a_time(will, client))
                } else {
                    pipelined(will, &options.server, options.token.clone()).unwrap_or_else(|operations| operations)
                }
            }));
        }
        Self { acknowledged, workers, watchers }
    }

    /// Waits for so many acknowledgements.
    pub(crate) fn wait(&self, count: u64) {
        for _ in 0..count {
            self.acknowledged.recv_timeout(PATIENCE).expect("the server answers");
        }
    }

    /// What came of it, once the server is gone.
    pub(crate) fn end(self) -> (Vec<Operation>, Vec<Sight>) {
        drop(self.acknowledged);
        let operations = self.workers.into_iter().flat_map(|worker| worker.join().expect("no panic")).collect();
        let sights = self.watchers.into_iter().map(|watcher| watcher.join().expect("no panic")).collect();
        (operations, sights)
    }
}

fn watch(server: &Server, user: &UserId, groups: &[GroupSeq]) -> JoinHandle<Sight> {
    let mut client = server.connect(user, "watch").expect("the server takes a watcher");
    client.attach_device(groups).expect("it goes on line");
    let user = user.clone();
    std::thread::spawn(move || {
        let mut events = Vec::new();
        while let Ok(event) = client.next_event(Some(Duration::from_secs(1))) {
            events.extend(event);
        }
        Sight { user, events }
    })
}

/// What one user does next, and what it has done.
struct Will {
    random: StdRng,
    user: UserId,
    round: u64,
    groups: Vec<GroupId>,
    /// How much of the board it has taken.
    taken: usize,
    board: Board,
    operations: Vec<Operation>,
    acknowledged: Sender<()>,
}

impl Will {
    /// The next request; noted before it is sent.
    fn next(&mut self) -> (usize, Request) {
        self.take_from_board();
        let mut id = [0; 16];
        self.random.fill(&mut id);
        let id = OperationId::from_bytes(id).expect("not zero");
        let dice = self.random.random_range(0..100);
        let wish = match self.pick() {
            Some(place) if dice < 6 => Wish::Leave { group: self.groups.swap_remove(place) },
            Some(place) if dice < 88 => Wish::Send { group: self.groups[place], body: self.body(id) },
            _ => Wish::Create { title: format!("{id}"), members: self.members() },
        };
        self.operations.push(Operation {
            id,
            user: self.user.clone(),
            wish: wish.clone(),
            outcome: Outcome::Unknown,
            round: self.round,
        });
        (self.operations.len() - 1, request_of(id, wish))
    }

    fn pick(&mut self) -> Option<usize> {
        (!self.groups.is_empty()).then(|| self.random.random_range(0..self.groups.len()))
    }

    fn body(&mut self, id: OperationId) -> Vec<u8> {
        let bytes = match self.random.random_range(0..100) {
            0 => self.random.random_range(0..65_500),
            1..10 => self.random.random_range(0..4_000),
            _ => self.random.random_range(0..200),
        };
        let mut body = id.as_bytes().to_vec();
        body.resize(16 + bytes, u8::try_from(bytes % 251).expect("small"));
        body
    }

    fn members(&mut self) -> Vec<UserId> {
        let mut members = users();
        members.retain(|_| self.random.random_range(0..2) == 0);
        members
    }

    fn take_from_board(&mut self) {
        let board = self.board.lock().unwrap_or_else(PoisonError::into_inner);
        for (group, members) in board.iter().skip(self.taken) {
            if members.contains(&self.user) {
                self.groups.push(*group);
            }
        }
        self.taken = board.len();
    }

    fn note(&mut self, place: usize, outcome: Outcome) {
        let operation = &mut self.operations[place];
        operation.outcome = outcome;
        let Outcome::Acknowledged(answer) = outcome else { return };
        if let Wish::Create { members, .. } = &operation.wish {
            let mut members = members.clone();
            members.retain(|user| *user != self.user);
            members.push(self.user.clone());
            self.board.lock().unwrap_or_else(PoisonError::into_inner).push((answer.group, members));
        }
        // Nobody counts any more once the server is to be killed.
        let _ = self.acknowledged.send(());
    }
}

fn request_of(operation: OperationId, wish: Wish) -> Request {
    match wish {
        Wish::Create { title, members } => Request::Create { operation, title: title.as_str().into(), members },
        Wish::Send { group, body } => Request::Send { operation, group, body: body.into() },
        Wish::Leave { group } => Request::Leave { operation, group },
    }
}

/// Says a wish, with its operation id.
pub(crate) fn say(client: &mut Client, operation: &Operation) -> Result<Answer, ClientError> {
    let id = operation.id;
    match &operation.wish {
        Wish::Create { title, members } => client.create_with(id, title, members).map(Answer::from),
        Wish::Send { group, body } => client.send_with(id, *group, body).map(Answer::from),
        Wish::Leave { group } => client.leave_with(id, *group).map(Answer::from),
    }
}

fn one_at_a_time(mut will: Will, mut client: Client) -> Vec<Operation> {
    loop {
        let (place, _) = will.next();
        match say(&mut client, &will.operations[place]) {
            Ok(answer) => will.note(place, Outcome::Acknowledged(answer)),
            Err(ClientError::Refused(_)) => will.note(place, Outcome::Refused),
            Err(ClientError::OutcomeUnknown { .. } | ClientError::Closed { .. }) => return will.operations,
            Err(error) => panic!("{error}"),
        }
    }
}

/// Many requests under way on one connection: more of them without an answer at the kill.
fn pipelined(mut will: Will, server: &str, token: String) -> Result<Vec<Operation>, Vec<Operation>> {
    let Ok(mut stream) = TcpStream::connect(server) else { return Err(will.operations) };
    stream.set_read_timeout(Some(PATIENCE)).expect("a socket");
    let mut session = Session::new(0);
    let hello = Hello {
        version_min: VERSION,
        version_max: VERSION,
        features: features::SERVED,
        heartbeat_s: 300,
        device: roundtable::ids::DeviceId::new("worker").expect("legal"),
        token,
    };
    session.hello(hello).expect("small");
    let mut under_way: Vec<(RequestId, usize)> = Vec::new();
    let mut bytes = vec![0; 64 * 1024];
    loop {
        while session.welcome().is_some() && under_way.len() < WINDOW {
            let (place, request) = will.next();
            under_way.push((session.request(&request).expect("small"), place));
        }
        let written = session.output().len();
        let sent = stream.write_all(session.output());
        session.consume_output(written);
        // What a dying server has answered is read all the same.
        let read = stream.read(&mut bytes);
        let Ok(count @ 1..) = read else { return Err(will.operations) };
        session.receive(0, &bytes[..count]).expect("the server follows the protocol");
        while let Some((request, reply)) = session.poll_reply() {
            let Some(at) = under_way.iter().position(|(asked, _)| *asked == request) else { continue };
            let (_, place) = under_way.swap_remove(at);
            let outcome = match reply {
                Reply::Created(created) => Outcome::Acknowledged(created.into()),
                Reply::Changed(_, changed) => Outcome::Acknowledged(changed.into()),
                Reply::Error(_) => Outcome::Refused,
                other => panic!("{other:?}"),
            };
            will.note(place, outcome);
        }
        if sent.is_err() && under_way.is_empty() {
            return Ok(will.operations);
        }
    }
}
