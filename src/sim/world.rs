//! A server, its disk, its clients and what lies between them, in virtual time, driven by one seed.
//!
//! Every step something happens that could happen next: a machine of storage takes a step, the loop turns, some bytes
//! move, a client acts, a fault comes. What is drawn late has taken long: that is all there is of delay.

mod life;
mod network;

use std::collections::BTreeMap;
use std::hash::{DefaultHasher, Hash, Hasher};

use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

use super::audit::Audit;
use super::device::Device;
use super::manner::Manner;
use super::plan::{Cuts, Fault, Plan};
use super::server::{self, Server};
use super::truth::Truth;
use crate::client::Standing;
use crate::hub::{ConnectionKey, Now};
use crate::ids::UserId;
use crate::store::stepped::{Disk as _, Fault as DiskFault, MemoryHome, SimulatedDisk};

const START: Now = Now { monotonic_ms: 1_000, wall_ms: 1_760_000_000_000 };
const USERS: [&str; 4] = ["alice", "bob", "carol", "dave"];
/// What a socket takes before somebody reads from the other end.
const WINDOW_BYTES: usize = 200_000;
/// Time that a stop gives to what was begun.
const DRAIN_MS: u64 = 10_000;
/// Rounds after which a run without faults must have come to rest.
const QUIET_ROUNDS_MAX: usize = 3_000;

/// A connection.
pub(super) struct Line {
    pub(super) number: usize,
    /// How the server knows it, while it does.
    pub(super) key: Option<ConnectionKey>,
    /// Whose it is; nobody's once its client is gone without a word, or has never been an honest one.
    pub(super) device: Option<usize>,
    /// Whether it never was an honest one's.
    pub(super) is_hostile: bool,
    /// Bytes on their way to the client, and to the server where no session keeps them.
    down: Vec<u8>,
    pub(super) up: Vec<u8>,
    window_bytes: usize,
    stalled_until_ms: u64,
    audit: Audit,
}

/// Everything.
pub(super) struct World {
    pub(super) random: StdRng,
    pub(super) plan: Plan,
    pub(super) now: Now,
    disk: SimulatedDisk,
    home: MemoryHome,
    pub(super) server: Option<Server>,
    start_at_ms: u64,
    /// While the server stops: when it ends at the latest.
    drain_until_ms: Option<u64>,
    pub(super) lines: Vec<Line>,
    lines_made: usize,
    pub(super) devices: Vec<Device>,
    pub(super) users: Vec<UserId>,
    pub(super) truth: Truth,
    pub(super) operations: u64,
    pub(super) rare: BTreeMap<&'static str, u64>,
    pub(super) events: u64,
    trace: DefaultHasher,
    full_until_ms: u64,
    quiet: bool,
    /// What happened, for people; nothing where nobody wants to read it.
    pub(super) story: Option<Vec<String>>,
}

impl World {
    pub(super) fn new(seed: u64, cuts: &Cuts, tells: bool) -> Self {
        let plan = Plan::draw(seed, cuts);
        let disk = SimulatedDisk::new();
        disk.create_directory("").expect("a directory");
        disk.split_writes(512);
        let users: Vec<UserId> = USERS[..plan.users].iter().map(|name| UserId::new(name).expect("a name")).collect();
        let device = |at: usize| {
            let name = ["phone", "tablet", "laptop"][at / users.len() % 3];
            let manner = if at.is_multiple_of(4) { Manner::Marks } else { Manner::Keeps };
            Device::new(users[at % users.len()].clone(), name, manner)
        };
        let mut devices: Vec<Device> = (0..plan.clients).map(device).collect();
        let other = |name, manner| Device::new(UserId::new(name).expect("a name"), "rack", manner);
        devices.extend(plan.has_service.then(|| other("gateway", Manner::Service)));
        devices.extend(plan.has_operator.then(|| other("root", Manner::Operator)));
        let mut random = StdRng::seed_from_u64(seed);
        if random.random_range(0..10_000) < plan.rate(Fault::ShortWrite) {
            disk.shorten_writes();
        }
        Self {
            random,
            plan,
            now: START,
            disk,
            home: MemoryHome::default(),
            server: None,
            start_at_ms: 0,
            drain_until_ms: None,
            lines: Vec::new(),
            lines_made: 0,
            devices,
            users,
            truth: Truth::default(),
            operations: 0,
            rare: BTreeMap::new(),
            events: 0,
            trace: DefaultHasher::new(),
            full_until_ms: 0,
            quiet: false,
            story: tells.then(Vec::new),
        }
    }

    /// From the beginning to the quiet end.
    pub(super) fn run(&mut self) {
        for _ in 0..self.plan.steps {
            self.step();
        }
        self.come_to_rest();
    }

    pub(super) fn trace(&self) -> u64 {
        self.trace.finish()
    }

    pub(super) fn count(&mut self, what: &'static str) {
        *self.rare.entry(what).or_default() += 1;
    }

    pub(super) fn tell(&mut self, text: impl FnOnce() -> String) {
        if let Some(story) = &mut self.story {
            let (s, ms) = (self.now.monotonic_ms / 1_000, self.now.monotonic_ms % 1_000);
            story.push(format!("{s:>5}.{ms:03} s  {}", text()));
        }
    }

    fn happens(&mut self, fault: Fault) -> bool {
        let rate = self.plan.rate(fault);
        rate > 0 && !self.quiet && self.random.random_range(0..10_000) < rate
    }

    // ---- steps -------------------------------------------------------------------------------------------------

    fn step(&mut self) {
        self.events += 1;
        let passed_ms = match self.random.random_range(0..100_u32) {
            0 => match self.random.random_range(0..12_u32) {
                0 => self.random.random_range(0..20_000),
                _ => self.random.random_range(0..1_500),
            },
            1..10 => self.random.random_range(0..60),
            _ => self.random.random_range(0..3),
        };
        self.pass(passed_ms);
        self.step_faults();
        let is_slow = self.plan.rate(Fault::SlowStorage) > 0 && self.happens(Fault::SlowStorage);
        match self.random.random_range(0..100_u32) {
            18..29 if !is_slow => self.step_storage(Machine::Journal),
            29..41 if !is_slow => self.step_storage(Machine::Index),
            41..45 if !is_slow => self.step_storage(Machine::Spare),
            // Slow storage leaves its turn to the loop.
            0..45 => _ = self.turn(),
            45..74 => self.move_bytes(),
            _ => self.act(),
        }
        if self.events.is_multiple_of(128)
            && let Some(server) = &self.server
        {
            server.hub.check_invariants();
        }
    }

    fn pass(&mut self, ms: u64) {
        self.now.monotonic_ms += ms;
        self.now.wall_ms += ms;
        if self.server.is_none() && self.now.monotonic_ms >= self.start_at_ms {
            self.start();
        }
    }

    fn step_faults(&mut self) {
        if self.happens(Fault::CutWithin) {
            let nth = self.random.random_range(1..24);
            self.disk.fail(nth, DiskFault::Death);
        } else if self.happens(Fault::DiskError) {
            let nth = self.random.random_range(1..12);
            self.disk.fail(nth, DiskFault::Once);
        }
        if self.happens(Fault::FullDisk) {
            let spare = u64::from(self.plan.segment_bytes) * self.random.random_range(0..5_u64);
            self.disk.set_capacity(Some(self.disk.used_bytes() + spare));
            self.full_until_ms = self.now.monotonic_ms + self.random.random_range(0..4_000);
            self.tell(|| format!("the disk has {spare} bytes left"));
        } else if self.full_until_ms > 0 && self.now.monotonic_ms >= self.full_until_ms {
            self.full_until_ms = 0;
            self.disk.set_capacity(None);
        }
        if self.happens(Fault::ClockJump) {
            let jump = self.random.random_range(0..20 * 365 * 86_400_000_u64);
            self.now.wall_ms = START.wall_ms - 10 * 365 * 86_400_000 + jump;
            self.tell(|| "the wall clock jumps".to_owned());
        }
        if self.happens(Fault::PowerCut) {
            self.end_life(true);
        } else if self.happens(Fault::Kill) {
            self.end_life(false);
        } else if self.happens(Fault::Stop) {
            self.begin_stop();
        }
        if self.happens(Fault::SpuriousTurn) {
            self.turn();
        }
        self.step_network_faults();
        if self.happens(Fault::Hostile) {
            self.step_hostile();
        }
    }

    fn step_network_faults(&mut self) {
        if self.happens(Fault::Stall)
            && let Some(at) = self.some_line()
        {
            let until = self.now.monotonic_ms + self.random.random_range(0..3_000);
            self.lines[at].stalled_until_ms = until;
        }
        if self.happens(Fault::Reset)
            && let Some(at) = self.some_line()
        {
            self.count("reset");
            self.drop_line(at, true);
        }
        if self.happens(Fault::HalfOpen)
            && let Some(at) = self.some_line()
            && let Some(device) = self.lines[at].device.take()
        {
            self.count("half open");
            self.lines[at].stalled_until_ms = u64::MAX;
            self.leave_line(device);
        }
        if self.happens(Fault::DeviceRestart) {
            let at = self.random.random_range(0..self.devices.len());
            if let Some(number) = self.devices[at].line
                && let Some(line) = self.lines.iter().position(|line| line.number == number)
            {
                self.drop_line(line, true);
            }
            let title = self.devices[at].title();
            self.tell(|| format!("{title} is started again"));
            self.devices[at].take(&mut self.truth);
            self.devices[at].restart();
        }
    }

    fn some_line(&mut self) -> Option<usize> {
        (!self.lines.is_empty()).then(|| self.random.random_range(0..self.lines.len()))
    }

    fn step_storage(&mut self, machine: Machine) {
        let Some(server) = &mut self.server else { return };
        server.set_time(self.now);
        let stepped = match machine {
            Machine::Journal => server.storage.step_journal(),
            Machine::Index => server.storage.step_index(),
            Machine::Spare => {
                server.storage.step_spare();
                Ok(())
            }
        };
        if let Err(message) = stepped {
            self.fail(&message);
        } else if self.disk.is_dead() {
            self.end_process();
        }
    }

    /// One turn of the loop.
    pub(super) fn turn(&mut self) -> bool {
        let Some(server) = &mut self.server else { return false };
        server.set_time(self.now);
        let heard = match server.hear_storage(&self.disk, &mut self.truth, self.now) {
            Ok(heard) => heard,
            Err(message) => {
                self.fail(&message);
                return true;
            }
        };
        server.hub.handle_time(self.now);
        let mut moved = heard + server.submit();
        while let Some(key) = server.hub.poll_resumed() {
            server.hub.handle_resumed(key, self.now);
        }
        moved += self.write();
        for what in std::mem::take(&mut self.truth.rare) {
            self.count(what);
        }
        self.close();
        moved += self.server.as_mut().map_or(0, Server::submit);
        self.end_stop_if_due();
        moved > 0
    }

    fn write(&mut self) -> usize {
        let Some(server) = &mut self.server else { return 0 };
        let mut moved = 0;
        for _ in 0..server.hub.dirty_count() {
            let Some(key) = server.hub.poll_dirty() else { break };
            let Some(line) = self.lines.iter_mut().find(|line| line.key == Some(key)) else {
                server.hub.handle_closed(key, self.now);
                continue;
            };
            let room = line.window_bytes.saturating_sub(line.down.len());
            let before = line.down.len();
            line.down.extend(server.hub.output(key).flatten().copied().take(room));
            let written = line.down.len() - before;
            if written > 0 {
                line.audit.listen(&line.down[before..], &mut self.truth);
                (line.number, &line.down[before..]).hash(&mut self.trace);
                server.hub.handle_written(key, written, self.now);
                moved += written;
            } else {
                server.hub.handle_blocked(key, self.now);
            }
        }
        moved
    }

    fn close(&mut self) {
        let Some(server) = &mut self.server else { return };
        // A peer that sees the end closes, too.
        while let Some(key) = server.hub.poll_finished() {
            server.hub.handle_closed(key, self.now);
            self.lines.iter_mut().filter(|line| line.key == Some(key)).for_each(|line| line.key = None);
        }
        while let Some(key) = server.hub.poll_closed() {
            self.lines.iter_mut().filter(|line| line.key == Some(key)).for_each(|line| line.key = None);
        }
        self.lines.retain(|line| line.key.is_some() || line.device.is_some());
    }

    // ---- the end -----------------------------------------------------------------------------------------------

    /// No fault any more: everything that waits must get what it waits for.
    fn come_to_rest(&mut self) {
        self.quiet = true;
        self.disk.heal();
        if self.disk.is_dead() {
            self.end_life(true);
        }
        self.disk.set_capacity(None);
        self.tell(|| "no more faults".to_owned());
        let orphans: Vec<usize> = (0..self.lines.len()).rev().filter(|at| self.lines[*at].device.is_none()).collect();
        for at in orphans {
            self.drop_line(at, true);
        }
        for line in &mut self.lines {
            line.window_bytes = WINDOW_BYTES;
            line.stalled_until_ms = 0;
        }
        let mut still = 0;
        for _ in 0..QUIET_ROUNDS_MAX {
            still = if self.quiet_round() { 0 } else { still + 1 };
            if still > 14 && self.is_at_rest() {
                return self.check_at_rest();
            }
        }
        let waiting: Vec<String> =
            self.devices.iter().filter(|d| d.conversation.unanswered() > 0).map(Device::title).collect();
        panic!("it never comes to rest; without all answers: {waiting:?}");
    }

    /// Whether something moved.
    fn quiet_round(&mut self) -> bool {
        self.events += 1;
        let passed_ms = if self.random.random_bool(0.5) { 1 } else { 120 };
        self.pass(passed_ms);
        for at in 0..self.devices.len() {
            self.tend(at);
        }
        let mut moved = self.turn();
        self.step_storage(Machine::Journal);
        for _ in 0..8 {
            self.step_storage(Machine::Index);
        }
        self.step_storage(Machine::Spare);
        moved |= self.turn();
        for at in (0..self.lines.len()).rev() {
            if at < self.lines.len() {
                moved |= self.move_up(at, usize::MAX);
            }
            if at < self.lines.len() {
                moved |= self.move_down(at, usize::MAX);
            }
        }
        moved
    }

    fn is_at_rest(&self) -> bool {
        self.server.as_ref().is_some_and(|server| server.storage.is_idle())
            && self.devices.iter().all(|device| *device.conversation.standing() == Standing::Up)
    }

    fn check_at_rest(&mut self) {
        let Some(server) = &mut self.server else { return };
        server.hub.check_invariants();
        server.hub.check_idle();
        self.truth.follow(&self.disk);
        assert_eq!(server.storage.renewals(), 0, "the index never fails by itself");
        let account = server::account(&mut server.storage, &self.truth, &self.users);
        server::check_account(&account, &self.truth);
        let anew = server::account_anew(&self.disk, &MemoryHome::default(), &self.plan, &self.truth, &self.users);
        check_same(anew, &account, "an index made anew is the one that was kept");
        let lines: Vec<usize> = self.lines.iter().filter(|line| line.key.is_some()).map(|line| line.number).collect();
        for device in &self.devices {
            device.check_at_rest(&self.truth);
            device.check_duties(&self.truth, &lines);
        }
        let cleaned = self.truth.groups.values().any(|kept| kept.floor > 1);
        if cleaned {
            self.count("log let go of its beginning");
        }
        if self.truth.groups.values().any(|kept| kept.record.dissolved) {
            self.count("group dissolved");
        }
    }
}

/// Accounts are compared as values that are printed: events have no equality of their own.
fn check_same(anew: Result<Vec<crate::store::Event>, String>, kept: &[crate::store::Event], what: &str) {
    let anew = anew.unwrap_or_else(|error| panic!("{what}: {error}"));
    for (anew, kept) in anew.iter().zip(kept) {
        assert_eq!(format!("{anew:?}"), format!("{kept:?}"), "{what}");
    }
}

#[derive(Clone, Copy)]
enum Machine {
    Journal,
    Index,
    Spare,
}
