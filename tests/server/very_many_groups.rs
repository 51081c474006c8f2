//! Groups without number, made through the real program: how fast, how large, and how long until it answers again.
//!
//! `ROUNDTABLE_GROUPS=1000000 cargo test --release --test server very_many_groups -- --nocapture` is the long run; the
//! normal one makes a few thousand and asserts the same. Four services act for users who make groups of 8, with 64
//! requests on their way. Then the server is stopped, killed in the middle of more, and started again, also without
//! its index; each start is measured until the first group is shown.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::time::{Duration, Instant};

use roundtable::client::RequestId;
use roundtable::ids::{GroupId, OperationId, Role, UserId};
use roundtable::limits::{
    CACHE_BYTES_MAX, DRAIN_MS, INDEX_BACKLOG_BYTES_MAX, PENDING_BYTES_MAX, SEGMENT_BYTES_DEFAULT,
};
use roundtable::wire::{GroupShown, Reply, Request};

use crate::process::{Process, bytes_below};
use crate::support::{number_from, user};
use crate::swarm::Swarm;

const GROUPS_DEFAULT: u64 = 4_000;
const MEMBERS: usize = 8;
const SERVICES: usize = 4;
const IN_FLIGHT: usize = 64;
/// Parts that the making is reported in.
const PARTS: u64 = 10;
/// Groups that are looked at after each start.
const LOOKED_AT: u64 = 200;
/// How often the server is asked for its figures.
const SAMPLE: Duration = Duration::from_millis(200);
/// Between two questions whether the index has everything.
const SETTLE_PAUSE: Duration = Duration::from_millis(500);
/// How long a start may take after a kill, before it replays (issue 3).
const OPEN_MAX: Duration = Duration::from_secs(5);
/// How long a stop may take (P11), whatever is behind.
const STOP_MAX: Duration = Duration::from_millis(DRAIN_MS + 2_000);
/// How long everybody may wait while changes pile up: what a client waits for an answer before it tries again.
const SILENCE_MAX: Duration = Duration::from_secs(10);
/// How long a start may take in all: only a run that fails waits so long.
const START_MAX: Duration = Duration::from_secs(1_800);

#[test]
fn very_many_groups_are_made_kept_and_found_again_within_bounds() {
    let groups = number_from("ROUNDTABLE_GROUPS").unwrap_or(GROUPS_DEFAULT);
    let home = tempfile::tempdir().unwrap();
    let server = Process::start(home.path());
    let mut run = Run { home: home.path(), users: (groups / 5).max(100), made: BTreeMap::new(), broken: Vec::new() };
    println!("         an empty server: memory {} MiB", server.memory_bytes() >> 20);

    run.make(&server, 0..groups, u64::MAX);
    run.stop("at once after the last create", server);

    let server = run.start("after that stop");
    run.settle(&server);
    // In the middle of it: what has no answer may be there or not.
    run.make(&server, groups..groups + groups / 10, groups / 20);
    server.kill();

    let server = run.start("after SIGKILL under load");
    if server.until_listening > OPEN_MAX {
        run.broken.push(format!("opening after SIGKILL took {:?} before the replay", server.until_listening));
    }
    run.settle(&server);
    run.stop("when it was idle", server);
    let server = run.start("after a stop when it was idle");
    run.stop("when it was idle", server);

    std::fs::remove_dir_all(home.path().join("data/index")).unwrap();
    let server = run.start("without its index");
    run.settle(&server);
    run.stop("when it was idle", server);
    assert!(run.broken.is_empty(), "{:?}", run.broken);
}

/// One data directory, and what has to be in it.
struct Run<'a> {
    home: &'a Path,
    users: u64,
    /// By the group's number, which says who its members are.
    made: BTreeMap<u64, GroupId>,
    /// Promises that did not hold: the whole is measured all the same.
    broken: Vec<String>,
}

/// What the server said of itself while it worked: the most of each figure, and how long such a question waited. It
/// is answered by the thread of the index, as every look-up of a group that is not in memory.
#[derive(Default)]
struct Most {
    values: BTreeMap<String, u64>,
    asked: Option<Instant>,
    waited: Duration,
}

impl Most {
    /// Asks, unless the last question has no answer yet or is young.
    fn ask(&mut self, swarm: &mut Swarm, operator: usize) {
        if self.asked.is_none() {
            self.asked = Some(Instant::now());
            swarm.peers[operator].session.request(&Request::Stats).unwrap();
            swarm.flush(operator);
        }
    }

    fn take(&mut self, reply: Reply) {
        let Reply::StatsListed { stats } = reply else { panic!("{reply:?}") };
        self.waited = self.waited.max(self.asked.take().map_or(Duration::ZERO, |asked| asked.elapsed()));
        let value = |name: &str| stats.iter().find(|stat| stat.name == name).unwrap().value;
        // The files have their full size from the beginning; this is what is written of them, as far as it is folded.
        let journal = (value("journal_segment_count") - 1) * SEGMENT_BYTES_DEFAULT + value("journal_end_offset_bytes");
        self.values.insert("journal_bytes".to_owned(), journal);
        for stat in stats {
            let most = self.values.entry(stat.name).or_default();
            *most = stat.value.max(*most);
        }
    }

    /// 0 before the first answer.
    fn of(&self, name: &str) -> u64 {
        self.values.get(name).copied().unwrap_or(0)
    }
}

/// The making of groups: what is on its way, and what came back.
struct Making {
    swarm: Swarm,
    services: Vec<usize>,
    operator: usize,
    on_their_way: BTreeMap<(usize, RequestId), (u64, Instant)>,
    next: u64,
    answered: u64,
    took: Vec<Duration>,
    most: Most,
}

impl Making {
    fn new(server: &Process, next: u64) -> Self {
        let mut swarm = Swarm::new(server.address);
        let service = |n: usize| server.token(&format!("backend-{n}"), Role::Service);
        let services = (0..SERVICES).map(|n| swarm.add(service(n), false)).collect();
        let operator = swarm.add(server.token("root", Role::Operator), false);
        let (on_their_way, most) = (BTreeMap::new(), Most::default());
        Self { swarm, services, operator, on_their_way, next, answered: 0, took: Vec::new(), most }
    }

    fn create(&mut self, members: Vec<UserId>) {
        let service = self.services[usize::try_from(self.next).unwrap() % SERVICES];
        let creator = members[0].clone();
        let create = Request::Create { operation: OperationId::random(), title: "".into(), members };
        let request = self.swarm.peers[service].session.request_as(&create, Some(&creator)).unwrap();
        self.on_their_way.insert((service, request), (self.next, Instant::now()));
        self.next += 1;
        self.swarm.flush(service);
    }

    /// Takes what has come; gives whether anything has.
    fn turn(&mut self, made: &mut BTreeMap<u64, GroupId>) -> bool {
        let mut heard = false;
        for slot in self.swarm.turn(SAMPLE) {
            let peer = &mut self.swarm.peers[slot];
            assert!(!peer.closed, "{:?}", peer.session.closing());
            while let Some((request, reply)) = peer.session.poll_reply() {
                heard = true;
                match reply {
                    Reply::Welcome(_) => {}
                    Reply::Created(created) => {
                        assert_eq!((created.members, created.repeated), (8, false));
                        let (number, asked) = self.on_their_way.remove(&(slot, request)).unwrap();
                        self.took.push(asked.elapsed());
                        made.insert(number, created.group);
                        self.answered += 1;
                    }
                    stats => self.most.take(stats),
                }
            }
        }
        heard
    }
}

impl Run<'_> {
    /// The members of a group; the first is its creator.
    fn members(&self, number: u64) -> Vec<UserId> {
        let mut chosen = BTreeSet::new();
        let mut members = Vec::new();
        let mut state = number;
        while members.len() < MEMBERS {
            state = scrambled(state);
            if chosen.insert(state % self.users) {
                members.push(user(&format!("user-{:07}", state % self.users)));
            }
        }
        members
    }

    /// Makes groups with 64 creates on their way, until all are answered, or so many are.
    fn make(&mut self, server: &Process, numbers: std::ops::Range<u64>, enough: u64) {
        let mut making = Making::new(server, numbers.start);
        let count = numbers.end - numbers.start;
        let enough = count.min(enough);
        let part = count.div_ceil(PARTS).min(enough);
        let (mut reported, mut from, mut heard, mut sampled) = (0, Instant::now(), Instant::now(), None);
        let mut silent = Duration::ZERO;
        while making.answered < enough {
            while making.next < numbers.end && making.on_their_way.len() < IN_FLIGHT {
                making.create(self.members(making.next));
            }
            if sampled.is_none_or(|at: Instant| at.elapsed() >= SAMPLE) {
                sampled = Some(Instant::now());
                making.most.ask(&mut making.swarm, making.operator);
            }
            let anything = making.turn(&mut self.made);
            silent = silent.max(heard.elapsed());
            assert!(silent < START_MAX, "the server answers nothing any more");
            if anything {
                heard = Instant::now();
            }
            if making.answered >= reported + part {
                self.report_making(server, from.elapsed(), &mut making);
                (reported, from) = (making.answered, Instant::now());
            }
        }
        if silent > SILENCE_MAX {
            self.broken.push(format!("nothing was answered for {silent:?} while groups were made"));
        }
        let most = making.most;
        assert!(most.of("index_backlog_bytes") <= INDEX_BACKLOG_BYTES_MAX + (1 << 20), "the index is too far behind");
        assert!(most.of("commits_pending_bytes") <= PENDING_BYTES_MAX as u64, "changes pile up");
        // The bound holds at the end of a turn, and a turn in which this is asked may have loaded some before.
        let cache_bytes = most.of("cache_bytes");
        assert!(cache_bytes <= CACHE_BYTES_MAX as u64 + (1 << 20), "loaded groups pile up: {cache_bytes} B");
    }

    fn report_making(&self, server: &Process, time: Duration, making: &mut Making) {
        let mut took = std::mem::take(&mut making.took);
        took.sort();
        let at = |share: usize| took[(took.len() * share / 100).min(took.len() - 1)].as_secs_f64() * 1e3;
        let (groups, most) = (self.made.len() as u64, &making.most);
        println!(
            "{groups:>8} groups: {:.0}/s, create p50 {:.1} p99 {:.1} max {:.0} ms; folded journal {} B, index {} B a group; \
             memory {} MiB, peak {}; most: index backlog {} KiB, dirty {}, commits pending {} KiB, group cache {} MiB, \
             look-up {:.1} s",
            f64::from(u32::try_from(took.len()).unwrap()) / time.as_secs_f64(),
            at(50),
            at(99),
            at(100),
            most.of("journal_bytes") / groups,
            bytes_below(&self.home.join("data/index")) / groups,
            server.memory_bytes() >> 20,
            server.memory_bytes_peak() >> 20,
            most.of("index_backlog_bytes") >> 10,
            most.of("index_dirty_bytes"),
            most.of("commits_pending_bytes") >> 10,
            most.of("cache_bytes") >> 20,
            most.waited.max(most.asked.map_or(Duration::ZERO, |asked| asked.elapsed())).as_secs_f64(),
        );
    }

    /// Waits until the index has everything, and says how long that took.
    fn settle(&self, server: &Process) {
        let mut swarm = Swarm::new(server.address);
        let operator = swarm.add(server.token("root", Role::Operator), false);
        let from = Instant::now();
        loop {
            let mut most = Most::default();
            most.take(ask(&mut swarm, operator, &Request::Stats, None, START_MAX));
            if most.of("index_dirty_bytes") == 0 && most.of("index_backlog_bytes") == 0 {
                let groups = self.made.len() as u64;
                let index = bytes_below(&self.home.join("data/index")) / groups;
                println!("         journal {} B and index {index} B a group", most.of("journal_bytes") / groups);
                break;
            }
            assert!(from.elapsed() < START_MAX, "the index never has everything");
            // This only paces the questions: the index flushes by itself when nothing has come for a while.
            let asked = Instant::now();
            while let Some(rest) = SETTLE_PAUSE.checked_sub(asked.elapsed()) {
                swarm.turn(rest);
            }
        }
        println!("         the index had everything after {:.1} s more", from.elapsed().as_secs_f64());
    }

    fn stop(&mut self, when: &str, server: Process) {
        let (status, took) = server.terminate();
        println!("         stopped {when}: {:.2} s", took.as_secs_f64());
        assert!(status.success(), "{status}: see the log");
        if took > STOP_MAX {
            self.broken.push(format!("stopping {when} took {took:?}"));
        }
    }

    /// Starts the server and asks for groups of all ages.
    fn start(&self, when: &str) -> Process {
        let server = Process::start(self.home);
        let mut swarm = Swarm::new(server.address);
        let service = swarm.add(server.token("backend-0", Role::Service), false);
        let mut first = None;
        let groups = self.made.len() as u64;
        for (number, group) in self.made.iter().step_by(usize::try_from(groups.div_ceil(LOOKED_AT)).unwrap()) {
            let members = self.members(*number);
            let get = Request::GetGroup { group: *group, newer_than: 0 };
            let reply = ask(&mut swarm, service, &get, Some(&members[MEMBERS - 1]), START_MAX);
            first.get_or_insert_with(|| server.started.elapsed());
            let Reply::GroupShown(GroupShown::Record { head: 1, record, .. }) = reply else { panic!("{reply:?}") };
            assert!(record.members.iter().map(|member| &member.user).eq(&members), "group {number}");
        }
        println!(
            "         started {when}: listens after {:.2} s, shows a group after {:.2} s; memory {} MiB, peak {}",
            server.until_listening.as_secs_f64(),
            first.unwrap().as_secs_f64(),
            server.memory_bytes() >> 20,
            server.memory_bytes_peak() >> 20,
        );
        server
    }
}

/// One request and its answer.
fn ask(swarm: &mut Swarm, slot: usize, request: &Request, user: Option<&UserId>, limit: Duration) -> Reply {
    let asked = swarm.peers[slot].session.request_as(request, user).unwrap();
    swarm.flush(slot);
    let from = Instant::now();
    loop {
        swarm.turn(Duration::from_millis(100));
        assert!(!swarm.peers[slot].closed, "{:?}", swarm.peers[slot].session.closing());
        while let Some((answered, reply)) = swarm.peers[slot].session.poll_reply() {
            if answered == asked {
                return reply;
            }
        }
        assert!(from.elapsed() < limit, "{request:?} is never answered");
    }
}

/// splitmix64: the members of a group are the same in each run.
fn scrambled(state: u64) -> u64 {
    let mut mixed = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
    mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    mixed ^ (mixed >> 31)
}
