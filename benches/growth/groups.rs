//! What it costs, holds and takes to start, with more and more groups on the disk.

use std::collections::HashSet;
use std::path::Path;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use rand::rngs::StdRng;
use rand::{Rng as _, SeedableRng as _};
use roundtable::client::Client;
use roundtable::ids::{GroupId, Role, UserId};
use roundtable::wire::GroupShown;

use crate::figure::{Figure, Picture};
use crate::load::{Endless, bench};
use crate::server::Server;
use crate::{ROUNDS, say};

const STEPS: [u32; 3] = [10_000, 100_000, 1_000_000];
/// Of each group, beside the user who makes it: groups of 8.
const MEMBERS: u32 = 7;
/// Users of whom `bench create --offline` makes groups.
const USERS: u64 = 200_000;
/// Creates that are measured with what the index does behind them, in one go, and as many again until their answers, in
/// all rounds: of so many groups at most. Each turn warms up by one a client.
const CREATES_MAX: u32 = 50_000;
const CLIENTS: u32 = 16;
/// The clients of what only fills.
const FILL_CLIENTS: u32 = 64;
/// Look-ups of a round.
const LOOK_UPS: usize = 1_000;
/// CPU that a load has taken when the server is killed in the middle of it: some hundred creates.
const LOAD_CPU_US: f64 = 100_000.0;
/// What a target says: with a million groups it costs at most so much as with ten thousand.
const GROWTH_MAX: Option<f64> = Some(1.3);
/// How many groups have to be made before what a second brings is called sustained.
const SUSTAINED_FROM: u32 = 50_000;

/// The pictures of this section.
struct Pictures {
    cpu: Picture,
    memory: Picture,
    disk: Picture,
    rate: Picture,
    start: Picture,
}

impl Pictures {
    fn new() -> Self {
        let picture = |name, title, y_label, y_is_logarithmic| Picture {
            name,
            title,
            x_label: "groups of 8 on the disk",
            y_label,
            y_is_logarithmic,
            series: Vec::new(),
        };
        Self {
            cpu: picture("cpu", "CPU of the server for one request", "microseconds", true),
            memory: picture("memory", "Memory of the server", "MiB", false),
            disk: picture("disk", "Bytes on the disk for one group", "bytes", false),
            rate: picture("rate", "Creates until the index has caught up", "a second", false),
            start: picture(
                "start",
                "From the start of the process until it listens, until it shows a group",
                "seconds",
                false,
            ),
        }
    }

    /// Those of which anything is measured.
    fn all(&self) -> Vec<&Picture> {
        let Self { cpu, memory, disk, rate, start } = self;
        [cpu, memory, disk, rate, start].into_iter().filter(|picture| !picture.series.is_empty()).collect()
    }
}

/// One data directory, and what is in it.
struct Run<'a> {
    data: &'a Path,
    groups: u32,
    journal_bytes: u64,
    pictures: Pictures,
}

/// Fills one directory in steps up to a number of groups, and measures at each; `show` gets the pictures so far.
pub(crate) fn measure(data: &Path, groups_max: u32, show: &mut dyn FnMut(&[&Picture])) {
    let mut run = Run { data, groups: 0, journal_bytes: 0, pictures: Pictures::new() };
    let mut server = Server::start(data);
    for groups in steps(groups_max) {
        run.grow(&server, groups);
        run.requests(&server, groups);
        let shown = some_groups(&server);
        server = run.starts(server, groups, &shown);
        show(&run.pictures.all());
    }
    server.stop();
}

/// The usual ones below the last, and the last.
fn steps(groups_max: u32) -> impl Iterator<Item = u32> {
    STEPS.into_iter().filter(move |groups| *groups < groups_max).chain([groups_max])
}

impl Run<'_> {
    /// Makes groups until there are so many: the last of them are the creates that are measured with all that follows. Those
    /// that are measured until their answers come on top.
    fn grow(&mut self, server: &Server, groups: u32) {
        let creates = (groups / 4 * 3).min(CREATES_MAX);
        let measured = creates + CLIENTS;
        let others = groups.saturating_sub(self.groups + measured);
        let begun = Instant::now();
        if others > 0 {
            say(&format!("{groups} groups: making {others}"));
            fill(server, others);
        }
        server.settle();
        if others >= SUSTAINED_FROM {
            let rate = f64::from(others) / begun.elapsed().as_secs_f64();
            self.pictures.rate.put("64 clients, each waiting for its answer", groups, Figure::once(rate));
        }
        say(&format!("{groups} groups: creates"));
        let create = |count: u32, rounds: u32| {
            let arguments = format!("--members {MEMBERS} --clients {CLIENTS} --count {count} --rounds {rounds}");
            bench(server, &format!("create --offline {arguments}"))
        };
        let used = server.cpu_us();
        create(creates, 1);
        let bytes = server.settle();
        let behind = (server.cpu_us() - used) / f64::from(measured);
        let found = create(creates / ROUNDS, ROUNDS);
        let Pictures { cpu, memory, disk, .. } = &mut self.pictures;
        cpu.put_bounded("create, until its answer", GROWTH_MAX, groups, found.cpu_us("server", "create"));
        cpu.put("create, raw limit", groups, found.cpu_us("raw", "create"));
        cpu.put_bounded("create, with all that the index does behind it", GROWTH_MAX, groups, Figure::once(behind));
        memory.put("resident", groups, Figure::once(mebibytes(bytes.resident)));
        memory.put("private, written to", groups, Figure::once(mebibytes(bytes.private)));
        let made = f64::from(groups.checked_sub(self.groups).expect("steps are further apart than kills add"));
        disk.put(
            "journal, of the groups of the step",
            groups,
            Figure::once(float(bytes.journal - self.journal_bytes) / made),
        );
        disk.put("index, of all groups", groups, Figure::once(float(bytes.index) / f64::from(groups)));
        self.groups = groups + creates + ROUNDS * CLIENTS;
    }

    fn requests(&mut self, server: &Server, groups: u32) {
        say(&format!("{groups} groups: messages and signals"));
        let cpu = &mut self.pictures.cpu;
        let found = bench(server, &format!("send --senders 64 --seconds 0.5 --rounds {ROUNDS}"));
        cpu.put_bounded("stored message", GROWTH_MAX, groups, found.cpu_us("server", "message"));
        cpu.put("stored message, raw limit", groups, found.cpu_us("raw", "message"));
        let found = bench(server, &format!("fanout --members 100 --window 64 --seconds 0.5 --rounds {ROUNDS}"));
        cpu.put_bounded("delivery of a signal", GROWTH_MAX, groups, found.cpu_us("server", "delivery"));
        cpu.put("delivery of a signal, raw limit", groups, found.cpu_us("raw", "delivery"));
    }

    /// Stops and starts it, and looks groups up while none is in memory; then kills it under load and starts it.
    fn starts(&mut self, mut server: Server, groups: u32, shown: &[(UserId, GroupId)]) -> Server {
        let mut times = Times::default();
        for round in 1..=ROUNDS {
            say(&format!("{groups} groups: start {round} after a stop"));
            server.settle();
            server.stop();
            server = Server::start(self.data);
            times.put(&server, &shown[0]);
        }
        times.draw(&mut self.pictures.start, groups, ["listens after a stop", "answers after a stop"]);
        say(&format!("{groups} groups: look-ups"));
        server.rest();
        let looked_up = Figure::of(shown[1..].chunks_exact(LOOK_UPS).map(|part| look_up(&server, part)).collect());
        self.pictures.cpu.put_bounded("look-up of a group that is not in memory", GROWTH_MAX, groups, looked_up);
        let before = server.settle();
        let mut times = Times::default();
        for round in 1..=ROUNDS {
            say(&format!("{groups} groups: start {round} after a kill"));
            server = kill_under_load(server);
            times.put(&server, &shown[0]);
        }
        times.draw(&mut self.pictures.start, groups, ["listens after a kill", "answers after a kill"]);
        let after = server.settle();
        self.journal_bytes = after.journal;
        // So many creates came through before the kills: each is a packet, and there are few others.
        self.groups += u32::try_from(after.packets - before.packets).expect("some thousands");
        server
    }
}

/// How long starts took, in seconds.
#[derive(Default)]
struct Times {
    until_listening: Vec<f64>,
    until_answer: Vec<f64>,
}

impl Times {
    fn put(&mut self, server: &Server, (user, group): &(UserId, GroupId)) {
        let mut service = server.client("growth", Role::Service);
        let shown = service.acting_for(user).group(*group).expect("it is there");
        assert!(matches!(shown, GroupShown::Record { .. }), "{shown:?}");
        self.until_answer.push(server.started.elapsed().as_secs_f64());
        self.until_listening.push(server.until_listening.as_secs_f64());
    }

    fn draw(self, picture: &mut Picture, groups: u32, [listens, answers]: [&'static str; 2]) {
        picture.put(listens, groups, Figure::of(self.until_listening));
        picture.put(answers, groups, Figure::of(self.until_answer));
    }
}

/// Groups of 8, without measuring: by services that act for the user who makes a group and wait for each answer.
pub(crate) fn fill(server: &Server, count: u32) {
    let made = AtomicU32::new(0);
    std::thread::scope(|scope| {
        for number in 0..FILL_CLIENTS {
            let (made, mut service) = (&made, server.client(&format!("fill-{number:02}"), Role::Service));
            scope.spawn(move || {
                let mut random = StdRng::seed_from_u64(u64::from(number));
                while made.fetch_add(1, Ordering::Relaxed) < count {
                    let mut users = (0..=MEMBERS).map(|_| pool_user(random.random_range(0..USERS)));
                    let creator = users.next().expect("there is one more than members");
                    let members: Vec<UserId> = users.collect();
                    service.acting_for(&creator).create("growth", &members).expect("it is made");
                }
            });
        }
    });
}

/// One of those of whom `bench create --offline` makes groups.
fn pool_user(number: u64) -> UserId {
    UserId::new(&format!("pool-{number:06}")).expect("legal")
}

/// The CPU of one look-up in microseconds.
fn look_up(server: &Server, groups: &[(UserId, GroupId)]) -> f64 {
    let mut service = server.client("growth", Role::Service);
    let used = server.cpu_us();
    for (user, group) in groups {
        let shown = service.acting_for(user).group(*group).expect("it is there");
        assert!(matches!(shown, GroupShown::Record { .. }), "{shown:?}");
    }
    (server.cpu_us() - used) / float(groups.len() as u64)
}

/// So many different groups as all look-ups need, each with a member; one more for starts.
fn some_groups(server: &Server) -> Vec<(UserId, GroupId)> {
    let wanted = 1 + ROUNDS as usize * LOOK_UPS;
    let (mut service, mut seen, mut groups) = (server.client("growth", Role::Service), HashSet::new(), Vec::new());
    // All over the index, the same in each run: the step has no divisor in common with the number of users.
    for number in (0..USERS).map(|place| place * 7_919 % USERS) {
        let user = pool_user(number);
        let listed = service.acting_for(&user).list_groups().expect("a service may ask");
        if let Some(summary) = listed.into_iter().find(|summary| seen.insert(summary.group)) {
            groups.push((user, summary.group));
        }
        if groups.len() == wanted {
            return groups;
        }
    }
    panic!("{} groups are too few", groups.len());
}

/// Kills the server while creates are on their way, and starts it again.
fn kill_under_load(server: Server) -> Server {
    let mut operator: Client = server.client("root", Role::Operator);
    let before = server.cpu_us();
    let load = Endless::start(
        &server,
        &format!("create --offline --members {MEMBERS} --clients {FILL_CLIENTS} --count 1000000 --rounds 1"),
    );
    while server.cpu_us() < before + LOAD_CPU_US {
        // This only paces the looking. The server is not asked: that would wait for the index.
        operator.next_event(Some(Duration::from_millis(5))).expect("it runs");
    }
    let data = server.data.clone();
    server.kill();
    drop(load);
    Server::start(&data)
}

fn mebibytes(bytes: u64) -> f64 {
    float(bytes >> 10) / 1024.0
}

#[expect(clippy::cast_precision_loss)] // exact far beyond any of these
fn float(count: u64) -> f64 {
    count as f64
}
