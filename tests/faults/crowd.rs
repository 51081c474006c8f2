//! Very many idle peers, many hostile ones, and some that talk: those that talk do not notice.
//!
//! Honest users, ten to a group, talk at a steady pace, first alone and then beside the others. The normal run asserts
//! that everything comes, in order, and that nobody else is closed; times and memory are asserted at a milestone.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use roundtable::client::Event;
use roundtable::group::Event as LogEvent;
use roundtable::ids::{GroupId, OperationId, UserId};
use roundtable::wire::{LogEntry, Reply, Request};

use crate::ledger::user;
use crate::peer::{Peer, memory_bytes};
use crate::server::{PATIENCE, Server};
use crate::swarm::Swarm;
use crate::table::{Seen, Skipped, Stage};

/// Honest users of one group.
const GROUP: usize = 10;
/// Not all at once: the server bounds how many are not authenticated yet.
const AT_ONCE: usize = 64;
/// p99 beside the crowd, in times of that without it.
const RATIO_MAX: f64 = 2.0;
const MEMORY_MAX: u64 = 200 << 20;
/// How long a stop of the process is, for the control.
const STOP: Duration = Duration::from_millis(500);
/// How often each hostile peer does something.
const ACT: Duration = Duration::from_secs(1);

/// All that talk.
struct Talk<'s> {
    server: &'s Server,
    swarm: Swarm,
    honest: usize,
    groups: Vec<GroupId>,
    /// The next seq of each honest user.
    next: Vec<u64>,
    /// The last seq sent to each group.
    sent: Vec<u64>,
    delays_ns: Vec<u64>,
}

pub(crate) fn run(stage: &Stage) -> Result<Seen, Skipped> {
    let _ = rustix::process::setrlimit(rustix::process::Resource::Nofile, {
        let limit = rustix::process::getrlimit(rustix::process::Resource::Nofile);
        rustix::process::Rlimit { current: limit.maximum, maximum: limit.maximum }
    });
    let (idle, hostile, honest) = if stage.is_milestone { (10_000, 1_000, 100) } else { (200, 40, 10) };
    let time = Duration::from_secs(stage.scale(2, 30));
    let home = tempfile::tempdir().expect("a temporary directory");
    let server = Server::start(&home.path().join("data"));
    let mut talk = Talk::begin(&server, honest);
    let quiet = talk.talk(time, per_second(stage), || {});
    stage.show(1, 4, "quiet");
    talk.add_idle(idle);
    stage.show(2, 4, "idle peers are there");
    let (stop, acts) = (AtomicBool::new(false), AtomicU64::new(0));
    let address = server.address.parse().expect("an address");
    let loud = std::thread::scope(|scope| {
        scope.spawn(|| be_hostile(address, hostile, stage.random(1), &stop, &acts));
        let began = Instant::now();
        while acts.load(Ordering::Relaxed) < hostile as u64 {
            assert!(began.elapsed() < PATIENCE, "hostile peers are there");
            talk.turn(Duration::from_millis(10));
        }
        let loud = talk.talk(time, per_second(stage), || {});
        stop.store(true, Ordering::Relaxed);
        loud
    });
    stage.show(3, 4, "loud");
    let memory = memory_bytes(server.pid());
    talk.demand_nobody_was_closed();
    let ratio = loud.p99 / quiet.p99;
    assert!(
        !stage.is_milestone || ratio <= RATIO_MAX,
        "p99 {:.2} ms beside {:.2} ms: {ratio:.2} times",
        loud.p99,
        quiet.p99
    );
    assert!(memory <= MEMORY_MAX, "{} MiB", memory >> 20);
    let stopped = talk.stopped(time, per_second(stage));
    let acts = acts.into_inner();
    drop(talk);
    let (status, _) = server.terminate();
    assert_eq!(status.code(), Some(0));
    Ok(Seen {
        count: format!("{idle} idle, {hostile} hostile ({acts} acts), {honest} honest"),
        observed: format!(
            "honest p50 {:.2}, p99 {:.2} ms; without the others {:.2}, {:.2}; {ratio:.2} times; {} MiB",
            loud.p50,
            loud.p99,
            quiet.p50,
            quiet.p99,
            memory >> 20
        ),
        control: format!("process stopped for {} ms meanwhile: p99 {:.0} ms", STOP.as_millis(), stopped.p99),
    })
}

fn per_second(stage: &Stage) -> u64 {
    stage.scale(50, 200)
}

/// In milliseconds.
struct Times {
    p50: f64,
    p99: f64,
}

impl<'s> Talk<'s> {
    /// Everybody honest comes on line and has a group.
    fn begin(server: &'s Server, honest: usize) -> Self {
        let swarm = Swarm::new(server.address.parse().expect("an address"));
        let next = vec![0; honest];
        let mut talk =
            Self { server, swarm, honest, groups: Vec::new(), next, sent: Vec::new(), delays_ns: Vec::new() };
        talk.add(honest, "honest");
        for first in (0..honest).step_by(GROUP) {
            let members: Vec<UserId> =
                (first + 1..first + GROUP).map(|number| user(&format!("honest-{number}"))).collect();
            let before = talk.groups.len();
            talk.ask(first, &Request::Create { operation: OperationId::random(), title: "".into(), members });
            talk.until("the group is there", |talk| talk.groups.len() > before);
        }
        talk.sent = vec![1; talk.groups.len()];
        talk.until("everybody has a group", |talk| talk.next.iter().all(|next| *next == 2));
        talk
    }

    fn add(&mut self, count: usize, name: &str) {
        let before = self.swarm.peers.len();
        for number in 0..count {
            let token = self.server.options(&user(&format!("{name}-{number}")), "swarm").token;
            self.swarm.add(token, true);
            if (number + 1) % AT_ONCE == 0 || number + 1 == count {
                let all = before + number + 1;
                self.until("they are on line", |talk| {
                    talk.swarm.peers[before..all].iter().all(|peer| peer.session.welcome().is_some())
                });
            }
        }
    }

    fn add_idle(&mut self, count: usize) {
        self.add(count, "idle");
    }

    fn ask(&mut self, slot: usize, request: &Request) {
        self.swarm.peers[slot].session.request(request).expect("small");
        self.swarm.flush(slot);
    }

    /// Messages at a steady pace; gives how long they took to each member.
    fn talk(&mut self, time: Duration, per_second: u64, mut meanwhile: impl FnMut()) -> Times {
        self.delays_ns.clear();
        let (from, mut sent) = (Instant::now(), 0);
        while from.elapsed() < time {
            let due = u64::try_from(from.elapsed().as_micros()).expect("short") * per_second / 1_000_000 + 1;
            while sent < due {
                let group = usize::try_from(sent).expect("few") % self.groups.len();
                let body = self.swarm.now_ns().to_be_bytes().to_vec();
                let (operation, id) = (OperationId::random(), self.groups[group]);
                self.ask(group * GROUP, &Request::Send { operation, group: id, body: body.into() });
                self.sent[group] += 1;
                sent += 1;
            }
            meanwhile();
            self.turn(Duration::from_millis(1));
        }
        self.until("everything has come", |talk| {
            talk.next.iter().enumerate().all(|(slot, next)| *next == talk.sent[slot / GROUP] + 1)
        });
        self.delays_ns.sort_unstable();
        let at = |share: usize| self.delays_ns[self.delays_ns.len() * share / 100];
        let ms = |nanoseconds: u64| Duration::from_nanos(nanoseconds).as_secs_f64() * 1e3;
        Times { p50: ms(at(50)), p99: ms(at(99)) }
    }

    /// The same, with the process stopped for a while: what is measured has to show it.
    fn stopped(&mut self, time: Duration, per_second: u64) -> Times {
        let (server, from) = (self.server, Instant::now());
        let (mut is_stopped, mut is_over) = (false, false);
        let times = self.talk(time, per_second, || {
            let now = from.elapsed();
            if !is_stopped && now > time / 2 {
                server.signal(rustix::process::Signal::STOP);
                is_stopped = true;
            }
            if is_stopped && !is_over && now > time / 2 + STOP {
                server.signal(rustix::process::Signal::CONT);
                is_over = true;
            }
        });
        assert!(times.p99 >= STOP.as_secs_f64() * 1e3 / 4.0, "control: p99 {} ms beside a stop", times.p99);
        times
    }

    fn until(&mut self, what: &str, is_so: impl Fn(&Self) -> bool) {
        let from = Instant::now();
        while !is_so(self) {
            self.turn(Duration::from_millis(100));
            assert!(from.elapsed() < PATIENCE, "it never comes that {what}");
        }
    }

    fn turn(&mut self, limit: Duration) {
        for slot in self.swarm.turn(limit) {
            while let Some((_, reply)) = self.swarm.peers[slot].session.poll_reply() {
                match reply {
                    Reply::Created(created) => self.groups.push(created.group),
                    Reply::Error(error) => panic!("{error:?}"),
                    _ => {}
                }
            }
            while let Some(event) = self.swarm.peers[slot].session.poll_event() {
                self.take(slot, &event);
            }
        }
    }

    fn take(&mut self, slot: usize, event: &Event) {
        match event {
            Event::Group { .. } => self.next[slot] = 2,
            Event::Entry { entry: LogEntry::Shown(entry), .. } => {
                assert_eq!(entry.seq, self.next[slot], "{slot} gets the next one, and no other");
                self.next[slot] += 1;
                let LogEvent::Message { body } = &entry.event else { panic!("{entry:?}") };
                let sent_ns = u64::from_be_bytes(*body.first_chunk().expect("a time"));
                self.delays_ns.push(self.swarm.now_ns() - sent_ns);
            }
            Event::Ready => {}
            other => panic!("{slot}: {other:?}"),
        }
    }

    fn demand_nobody_was_closed(&self) {
        let closed = self.swarm.peers.iter().filter(|peer| peer.closed).count();
        assert_eq!(closed, 0, "honest and idle peers stay; {} are honest", self.honest);
    }
}

/// So many at once, each doing something wrong every now and then, and coming back when it was closed.
fn be_hostile(address: SocketAddr, count: usize, random: StdRng, stop: &AtomicBool, acts: &AtomicU64) {
    let mut random = StdRng::from_rng(&mut { random });
    let mut peers: Vec<Peer> = (0..count).map(|_| Peer::connect(&address.to_string())).collect();
    let from = Instant::now();
    let mut done = 0;
    while !stop.load(Ordering::Relaxed) {
        let due = from.elapsed().as_millis() * count as u128 / ACT.as_millis() + 1;
        while u128::from(done) < due && !stop.load(Ordering::Relaxed) {
            let peer = &mut peers[random.random_range(0..count)];
            do_harm(peer, &mut random);
            if random.random_range(0..3) > 0 {
                *peer = Peer::connect(&address.to_string());
            }
            done += 1;
            acts.store(done, Ordering::Relaxed);
        }
        std::thread::park_timeout(Duration::from_millis(1));
    }
}

fn do_harm(peer: &mut Peer, random: &mut StdRng) {
    // What it is sent is not read, and what it says may not be taken: it never waits.
    peer.socket.set_nonblocking(true).expect("a socket");
    let mut ping = Vec::new();
    Request::Ping.encode_frame(&mut ping, 1);
    let bytes = match random.random_range(0..6) {
        0 => (0..random.random_range(1..4_000)).map(|_| random.random()).collect(),
        1 => ping[..random.random_range(1..ping.len())].to_vec(),
        2 => ping.repeat(100),
        3 => {
            let at = random.random_range(0..ping.len());
            ping[at] ^= 1 << random.random_range(0..8);
            ping
        }
        4 => b"GET / HTTP/1.1\r\n\r\n".to_vec(),
        _ => {
            let mut stats = Vec::new();
            Request::Stats.encode_frame(&mut stats, 1);
            stats
        }
    };
    peer.say(&bytes);
}
