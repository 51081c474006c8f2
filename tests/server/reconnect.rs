//! Clients whose connections break all the time: nothing is lost, nothing is done twice, and nobody has to care.

use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use roundtable::client::{Client, ClientError, ConnectOptions, Event, RetryPolicy, TokenSource};
use roundtable::ids::{DeviceId, GroupId, OperationId, Role};
use roundtable::token::{Grant, LocalKey, mint};
use roundtable::wire::{GroupSeq, LogEntry};

use crate::support::{PATIENCE, Running, user};

/// What becomes of a connection.
#[derive(Clone, Copy)]
enum Fate {
    /// Cut once so many bytes went up, or so many came down.
    Cut { up: u64, down: u64 },
    /// Accepted, and never answered.
    Silent,
    /// Refused at once.
    Closed,
    /// Left alone.
    Kept,
}

/// Stands between clients and a server, and decides the fate of each connection, by its number.
struct Between {
    address: SocketAddr,
    connections: Arc<AtomicU64>,
}

impl Between {
    fn start(server: SocketAddr, fate: impl Fn(u64) -> Fate + Send + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let connections = Arc::new(AtomicU64::new(0));
        let count = Arc::clone(&connections);
        thread::spawn(move || {
            let mut kept = Vec::new();
            for stream in listener.incoming() {
                let stream = stream.unwrap();
                match fate(count.fetch_add(1, Ordering::Relaxed)) {
                    Fate::Closed => drop(stream),
                    Fate::Silent => kept.push(stream),
                    Fate::Kept => join(&stream, server, u64::MAX, u64::MAX),
                    Fate::Cut { up, down } => join(&stream, server, up, down),
                }
            }
        });
        Self { address, connections }
    }

    fn options(&self, server: &Running, name: &str) -> ConnectOptions {
        let mut options = ConnectOptions::new(self.address.to_string(), server.token(name, Role::User))
            .with_device(DeviceId::new("phone").unwrap());
        options.retry.delay_max_ms = 50;
        options
    }
}

fn join(client: &TcpStream, server: SocketAddr, up: u64, down: u64) {
    let server = TcpStream::connect(server).unwrap();
    for (mut from, mut to, limit) in [
        (client.try_clone().unwrap(), server.try_clone().unwrap(), up),
        (server.try_clone().unwrap(), client.try_clone().unwrap(), down),
    ] {
        let both = [client.try_clone().unwrap(), server.try_clone().unwrap()];
        thread::spawn(move || {
            let mut left = limit;
            let mut bytes = [0; 4096];
            while left > 0 {
                let room = usize::try_from(left.min(4096)).unwrap();
                let Ok(count @ 1..) = from.read(&mut bytes[..room]) else { break };
                if to.write_all(&bytes[..count]).is_err() {
                    break;
                }
                left -= count as u64;
            }
            for stream in both {
                let _ = stream.shutdown(Shutdown::Both);
            }
        });
    }
}

/// Cuts each connection after a few requests, or in the middle of one; some live long enough for a page of history,
/// which comes whole or not at all.
fn cutting(seed: u64) -> impl Fn(u64) -> Fate + Send {
    move |number| {
        let mut random = StdRng::seed_from_u64(seed ^ number << 32);
        let down = if random.random_bool(0.3) { 30_000 } else { 3_000 };
        Fate::Cut { up: random.random_range(300..2_500), down: random.random_range(300..down) }
    }
}

/// Enough for the first connection, which is not tried again.
fn kept_first(fate: impl Fn(u64) -> Fate + Send + 'static) -> impl Fn(u64) -> Fate + Send + 'static {
    move |number| if number == 0 { Fate::Cut { up: 600, down: 600 } } else { fate(number) }
}

#[test]
fn what_is_asked_over_breaking_connections_is_done_once_and_seen_once() {
    const HEAD: u64 = 300;
    let server = Running::start();
    let group = server.connect("alice").create("lunch", &[user("bob")]).unwrap().group;
    let sends = Between::start(server.address, kept_first(cutting(1)));
    let listens = Between::start(server.address, kept_first(cutting(2)));
    let mut bob = Client::connect(listens.options(&server, "bob")).unwrap();
    bob.attach_device(&[GroupSeq { group, seq: 1 }]).unwrap();
    let listening = thread::spawn(move || listen(&mut bob, group, HEAD));
    let mut alice = Client::connect(sends.options(&server, "alice")).unwrap();
    let mut repeated = 0;
    for number in 2..=HEAD {
        let sent = alice.send(group, number.to_string()).unwrap();
        assert_eq!(sent.seq, number, "each once, in order");
        repeated += u32::from(sent.repeated);
    }
    let resumed = listening.join().unwrap();
    assert!(repeated > 0, "some answers were lost on the way, and heard in the end");
    assert!(resumed > 3, "the listener's connections broke as well: {resumed}");
    assert!(sends.connections.load(Ordering::Relaxed) > 10);
    assert_eq!(server.connect("alice").history(group, HEAD, 0).unwrap().head, HEAD);
}

/// Takes all entries of a group up to its head; gives how many connections that took beyond the first.
fn listen(client: &mut Client, group: GroupId, head: u64) -> u32 {
    let (mut next, mut resumed) = (2, 0);
    while next <= head {
        match client.next_event(Some(PATIENCE)).unwrap().expect("in time") {
            Event::Entry { entry, .. } => {
                assert_eq!(entry.seq(), next, "ascending, each once, without a gap");
                assert_eq!(client.positions(), [GroupSeq { group, seq: next }]);
                next += 1;
            }
            Event::Resumed => resumed += 1,
            _ => {}
        }
    }
    resumed
}

#[test]
fn a_connection_that_says_nothing_is_given_up_for_another() {
    let server = Running::start();
    let group = server.connect("alice").create("lunch", &[]).unwrap().group;
    let between = Between::start(server.address, |number| match number {
        0 => Fate::Cut { up: 500, down: 500 },
        1 | 2 => Fate::Silent,
        3 => Fate::Closed,
        _ => Fate::Kept,
    });
    let mut options = between.options(&server, "alice");
    options.timeout = Duration::from_millis(300);
    let mut alice = Client::connect(options).unwrap();
    while between.connections.load(Ordering::Relaxed) < 5 {
        alice.send(group, "x").unwrap();
    }
    let head = server.connect("alice").history(group, 1, 0).unwrap().head;
    assert_eq!(alice.send(group, "last").unwrap().seq, head + 1);
}

#[test]
fn when_the_time_is_up_a_change_that_was_sent_is_unknown_and_one_that_was_not_surely_did_not_happen() {
    let server = Running::start();
    let group = server.connect("alice").create("lunch", &[]).unwrap().group;
    // The answers to the hello and to little more come through.
    let between =
        Between::start(
            server.address,
            |number| if number == 0 { Fate::Cut { up: 600, down: 200 } } else { Fate::Closed },
        );
    let mut options = between.options(&server, "alice");
    options.timeout = Duration::from_millis(200);
    options.retry.total_ms = 400;
    let mut alice = Client::connect(options).unwrap();
    let operation = OperationId::random();
    let sent = loop {
        match alice.send_with(operation, group, "x") {
            Ok(_) => {}
            Err(error) => break error,
        }
    };
    let ClientError::OutcomeUnknown { operation: unknown, .. } = sent else { panic!("{sent:?}") };
    assert_eq!(unknown, operation);
    let began = Instant::now();
    let unsent = alice.send(group, "y").unwrap_err();
    assert!(matches!(unsent, ClientError::Closed { .. } | ClientError::TimedOut), "{unsent:?}");
    assert!(began.elapsed() >= Duration::from_millis(100), "it was tried");
    assert_eq!(server.connect("alice").send_with(operation, group, "x").unwrap().seq, 2, "asked again, it is one");
}

#[test]
fn without_retries_the_first_break_is_the_answer() {
    let server = Running::start();
    let group = server.connect("alice").create("lunch", &[]).unwrap().group;
    let between = Between::start(server.address, |_| Fate::Cut { up: 500, down: 500 });
    let options = between.options(&server, "alice").with_retry(RetryPolicy::NONE);
    let mut alice = Client::connect(options).unwrap();
    let error = (0..100).find_map(|_| alice.send(group, "x").err()).expect("it breaks");
    assert!(matches!(error, ClientError::OutcomeUnknown { .. }), "{error:?}");
    assert_eq!(between.connections.load(Ordering::Relaxed), 1);
    assert!(matches!(alice.ping().unwrap_err(), ClientError::Closed { .. }));
}

#[test]
fn who_is_pushed_out_by_another_connection_of_its_device_stays_out() {
    let server = Running::start();
    let mut first = server.attach("alice");
    let _second = server.attach("alice");
    let error = loop {
        match first.next_event(Some(PATIENCE)) {
            Ok(event) => assert!(event.is_some(), "it is told in time"),
            Err(error) => break error,
        }
    };
    let ClientError::Closed { reason: Some(reason) } = error else { panic!("{error:?}") };
    assert_eq!(reason.name(), "TAKEN_OVER");
    assert!(!first.is_connected());
}

#[test]
fn a_service_acts_for_one_user_after_another() {
    let server = Running::start();
    let token = server.token("gateway", Role::Service);
    let mut service = Client::connect(ConnectOptions::new(server.address.to_string(), token)).unwrap();
    let (alice, bob) = (user("alice"), user("bob"));
    let group = service.acting_for(&alice).create("lunch", std::slice::from_ref(&bob)).unwrap().group;
    service.acting_for(&bob).send(group, "hi").unwrap();
    let refused = service.acting_for(&user("mallory")).send(group, "hi").unwrap_err();
    assert!(matches!(&refused, ClientError::Refused(body) if body.name() == "NOT_FOUND"), "{refused:?}");
    let refused = service.send(group, "hi").unwrap_err();
    assert!(matches!(&refused, ClientError::Refused(body) if body.name() == "FORBIDDEN"), "{refused:?}");
    let page = server.connect("alice").history(group, 1, 0).unwrap();
    let authors: Vec<_> = page
        .entries
        .iter()
        .map(|entry| match entry {
            LogEntry::Shown(entry) => (entry.sender.clone(), entry.by.clone()),
            LogEntry::Hidden { .. } => panic!("{entry:?}"),
        })
        .collect();
    assert_eq!(authors, [(alice, Some(user("gateway"))), (bob, Some(user("gateway")))]);
}

/// A token that has ended already, and is taken for a while all the same.
fn ending(server: &Running) -> String {
    let now_ms = u64::try_from(SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_millis()).unwrap();
    let key = LocalKey::open(&server.directory.path().join("data/keys")).unwrap();
    let (valid_from_ms, expires_at_ms) = (now_ms - 60_000, now_ms - 10_000);
    let (user, cluster) = (user("alice"), "roundtable".to_owned());
    mint(&key, &Grant { user, role: Role::User, device: None, cluster, valid_from_ms, expires_at_ms })
}

/// A client whose token ends, with something that makes it new ones; and how often it was asked for one.
fn with_source(server: &Running, token: String) -> (Client, Arc<AtomicU64>) {
    let calls = Arc::new(AtomicU64::new(0));
    let count = Arc::clone(&calls);
    let source = TokenSource::new(move || {
        count.fetch_add(1, Ordering::Relaxed);
        token.clone()
    });
    let options = ConnectOptions::new(server.address.to_string(), ending(server)).with_token_source(source);
    (Client::connect(options).unwrap(), calls)
}

#[test]
fn when_its_token_ends_a_client_authenticates_again_in_place() {
    let server = Running::start();
    let (mut alice, calls) = with_source(&server, server.token("alice", Role::User));
    while calls.load(Ordering::Relaxed) == 0 {
        alice.ping().unwrap();
    }
    let group = alice.create("lunch", &[]).unwrap().group;
    assert_eq!(alice.send(group, "still here").unwrap().seq, 2);
    assert_eq!(alice.next_event(Some(Duration::ZERO)).unwrap(), None, "the connection was never interrupted");
    assert_eq!(calls.load(Ordering::Relaxed), 1);
}

#[test]
fn the_token_of_the_source_is_what_counts() {
    let server = Running::start();
    let (mut alice, _) = with_source(&server, "garbage".to_owned());
    let error = loop {
        if let Err(error) = alice.next_event(Some(PATIENCE)) {
            break error;
        }
    };
    assert!(matches!(&error, ClientError::Closed { reason: Some(body) } if body.name() == "AUTH_FAILED"), "{error:?}");
}

#[test]
fn the_feed_goes_on_over_breaking_connections() {
    const HEAD: u64 = 200;
    let server = Running::start();
    let between = Between::start(server.address, kept_first(cutting(3)));
    let mut options = between.options(&server, "unused");
    options.token = server.token("gateway", Role::Service);
    let mut service = Client::connect(options).unwrap();
    service.feed(0).unwrap();
    let mut alice = server.connect("alice");
    let group = alice.create("lunch", &[user("bob")]).unwrap().group;
    let sending = thread::spawn(move || (2..=HEAD).for_each(|_| _ = alice.send(group, "x").unwrap()));
    let (mut next, mut last, mut resumed) = (1, 0, 0);
    while next <= HEAD {
        match service.next_event(Some(PATIENCE)).unwrap().expect("in time") {
            Event::Feed { position, seq, sender, .. } => {
                assert!(position > last, "positions ascend");
                assert_eq!((seq, sender.as_str()), (next, "alice"), "each entry once, in order");
                (next, last) = (seq + 1, position);
            }
            Event::Resumed => resumed += 1,
            _ => {}
        }
    }
    sending.join().unwrap();
    assert!(resumed > 0, "its connections broke: {resumed}");
}
