//! What goes wrong while the clients work.
//!
//! Each fault is a [`Nemesis`]: it begins, lasts, and is over when `strike` returns. Those that concern the server take
//! turns on one thread, in an order drawn anew for each round, so that each of them comes; connections are harmed on
//! another one, beside everything else. To add a fault, write its `strike` and put it into [`all`].

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::{Duration, Instant};

use rand::rngs::StdRng;
use rand::seq::SliceRandom as _;
use rand::{Rng as _, SeedableRng as _};

use super::disk::Disk;
use super::format::What;
use super::proxy::{Harm, Proxy, Way};
use super::recorder::Recorder;
use super::server::{Server, Site};
use super::tally::Tally;

/// A kind of fault.
pub(crate) trait Nemesis: Send {
    /// As it stands in the history and in the tally.
    fn name(&self) -> &'static str;

    /// Begins and ends it.
    fn strike(&self, field: &mut Field<'_>);
}

/// Tells the threads of the nemesis that it is over, and lets them wait until then.
#[derive(Debug, Default)]
pub(crate) struct Whistle {
    blown: Mutex<bool>,
    changed: Condvar,
}

impl Whistle {
    pub(crate) fn blow(&self) {
        *self.blown.lock().unwrap_or_else(PoisonError::into_inner) = true;
        self.changed.notify_all();
    }

    /// Waits so long, or until it is over; says whether it is. The time is that of a fault, or between two.
    pub(crate) fn wait(&self, time: Duration) -> bool {
        let blown = self.blown.lock().unwrap_or_else(PoisonError::into_inner);
        let end = Instant::now() + time;
        let left = end.saturating_duration_since(Instant::now());
        let waited = self.changed.wait_timeout_while(blown, left, |blown| !*blown);
        *waited.unwrap_or_else(PoisonError::into_inner).0
    }
}

/// What a nemesis has power over.
pub(crate) struct Field<'a> {
    pub(crate) site: &'a Site,
    pub(crate) server: Option<Server>,
    pub(crate) proxy: &'a Proxy,
    pub(crate) disk: &'a Disk,
    pub(crate) recorder: &'a Recorder,
    pub(crate) tally: &'a Tally,
    pub(crate) whistle: &'a Whistle,
    pub(crate) flood: Arc<AtomicBool>,
    pub(crate) random: StdRng,
}

impl Field<'_> {
    fn say(&self, fault: impl Into<String>) {
        self.recorder.say(What::Fault(fault.into()));
    }

    fn lasts(&mut self, from_ms: u64, to_ms: u64) {
        let time = Duration::from_millis(self.random.random_range(from_ms..to_ms));
        self.whistle.wait(time);
    }

    fn kill(&mut self) {
        self.proxy.lead_to(None);
        if let Some(server) = self.server.take() {
            server.kill();
        }
    }

    fn start(&mut self) {
        let server = self.site.start();
        self.proxy.lead_to(Some(server.address));
        self.server = Some(server);
    }

    /// A server that ends by itself is none that degrades.
    pub(crate) fn demand_alive(&mut self) {
        if let Some(status) = self.server.as_mut().and_then(Server::ended) {
            panic!("the server ended by itself, {status}:\n{}", self.site.last_words());
        }
    }
}

/// SIGKILL, now and then while it opens its data as well, and a start.
struct Kill;

impl Nemesis for Kill {
    fn name(&self) -> &'static str {
        "kill"
    }

    fn strike(&self, field: &mut Field<'_>) {
        field.kill();
        for _ in 0..field.random.random_range(0..3_u32).saturating_sub(1) {
            let starting = field.site.begin_start();
            field.lasts(0, 60);
            drop(starting);
            field.tally.fault("kill while starting");
        }
        field.start();
    }
}

/// SIGSTOP, and after a while SIGCONT.
struct Stop {
    to_ms: u64,
}

impl Nemesis for Stop {
    fn name(&self) -> &'static str {
        "stop"
    }

    fn strike(&self, field: &mut Field<'_>) {
        let Some(server) = &field.server else { return };
        server.stop();
        field.lasts(50, self.to_ms);
        if let Some(server) = &field.server {
            server.go_on();
        }
    }
}

/// A foreign file takes the room on the disk and goes away again; in one case of three the server is killed meanwhile.
struct Full {
    to_the_last_byte: bool,
    to_ms: u64,
}

impl Nemesis for Full {
    fn name(&self) -> &'static str {
        if self.to_the_last_byte { "full to the last byte" } else { "full" }
    }

    fn strike(&self, field: &mut Field<'_>) {
        if self.to_the_last_byte {
            field.disk.fill_to_the_last_byte();
        } else {
            field.disk.fill();
        }
        field.flood.store(true, Ordering::Relaxed);
        field.lasts(self.to_ms / 2, self.to_ms);
        field.flood.store(false, Ordering::Relaxed);
        field.demand_alive();
        let kills = field.random.random_range(0..3) == 0;
        if kills {
            field.kill();
            field.tally.fault("kill on a full disk");
        }
        field.disk.give_back();
        if kills {
            field.start();
        }
    }
}

/// The faults that concern the server, for a run of this length.
pub(crate) fn all(disk: &Disk, is_long: bool) -> Vec<Box<dyn Nemesis>> {
    let to_ms = if is_long { 4_000 } else { 1_500 };
    let mut all: Vec<Box<dyn Nemesis>> = vec![Box::new(Kill), Box::new(Stop { to_ms }), Box::new(Kill)];
    if disk.is_small {
        all.push(Box::new(Full { to_the_last_byte: false, to_ms: 2 * to_ms }));
        all.push(Box::new(Full { to_the_last_byte: true, to_ms: 2 * to_ms }));
    }
    println!("SKIPPED: slow disk, which needs a file system of its own (tests/faults)");
    all
}

/// Strikes until the whistle is blown; then the server is killed once more, and started for the last time.
pub(crate) fn plague(mut field: Field<'_>, mut all: Vec<Box<dyn Nemesis>>) -> Server {
    'run: loop {
        all.shuffle(&mut field.random);
        for nemesis in &all {
            let pause = field.random.random_range(100..1_200);
            if field.whistle.wait(Duration::from_millis(pause)) {
                break 'run;
            }
            field.demand_alive();
            field.say(format!("{} begins", nemesis.name()));
            nemesis.strike(&mut field);
            field.say(format!("{} ends", nemesis.name()));
            field.tally.fault(nemesis.name());
        }
    }
    field.demand_alive();
    field.kill();
    field.start();
    field.server.expect("it was started")
}

/// Harms connections until the whistle is blown.
pub(crate) fn harass(proxy: &Proxy, tally: &Tally, whistle: &Whistle, seed: u64) {
    let mut random = StdRng::seed_from_u64(seed);
    while !whistle.wait(Duration::from_millis(random.random_range(10..300))) {
        let way = if random.random_range(0..2) == 0 { Way::Up } else { Way::Down };
        let (name, harm) = match random.random_range(0..10) {
            0..5 => ("cut", Harm::Cut { way, after_bytes: random.random_range(0..2_000) }),
            5..7 => ("reset", Harm::Reset),
            _ => ("stall", Harm::Stall { way, time: Duration::from_millis(random.random_range(50..3_000)) }),
        };
        if proxy.harm(random.random_range(0..1_000_000), harm) {
            tally.fault(name);
        }
    }
}
