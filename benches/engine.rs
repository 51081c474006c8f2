//! The embedded engine, beside the raw limit of the same bytes.
//!
//! First criterion: one `group` (loaded), `create` and `append`, from 1 thread and from 8. Then ratios: a change, and
//! `pwrite` + `fdatasync` of as many bytes into a file that was filled with zeros before, take turns in one run, because
//! the disk has several speeds that change by the minute. For 8 threads the raw limit writes 8 changes at once and
//! syncs once for them: what no group commit can go below.
//!
//! `cargo bench --bench engine`; `ROUNDTABLE_ROUNDS` sets the rounds of the ratios (default 1,000).

#[path = "common/raw_file.rs"]
mod raw_file;
#[path = "common/turns.rs"]
mod turns;

use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use criterion::{Criterion, Throughput};
use raw_file::RawFile;
use roundtable::Engine;
use roundtable::ids::{GroupId, UserId};
use turns::Turns;

const THREADS: usize = 8;
const MEMBERS: usize = 8;
const BODY_BYTES: usize = 100;

fn user(number: usize) -> UserId {
    UserId::new(&format!("user-{number:06}")).expect("a legal name")
}

/// An engine with a group for each thread.
struct Scene {
    _home: tempfile::TempDir,
    engine: Engine,
    members: Vec<UserId>,
    groups: Vec<GroupId>,
    body: std::sync::Arc<[u8]>,
}

impl Scene {
    fn new() -> Self {
        let home = tempfile::tempdir().expect("a directory");
        let engine = Engine::open(home.path().join("data")).expect("it opens");
        let members: Vec<_> = (0..MEMBERS).map(user).collect();
        let make = |_| engine.acting(&members[0]).create("bench", &members).expect("it is made").group;
        let groups = (0..THREADS).map(make).collect();
        Self { _home: home, engine, members, groups, body: vec![0x5a; BODY_BYTES].into() }
    }

    fn get(&self, thread: usize) {
        std::hint::black_box(self.engine.group(self.groups[thread]).expect("it is there"));
    }

    fn create(&self, _thread: usize) {
        self.engine.acting(&self.members[0]).create("bench", &self.members).expect("it is made");
    }

    fn append(&self, thread: usize) {
        self.engine.acting(&self.members[0]).append(self.groups[thread], self.body.clone()).expect("it is appended");
    }

    /// Bytes that a call takes in the journal, as the engine counts them.
    fn bytes(&self, call: impl Fn(&Self)) -> usize {
        let committed = || {
            let stats = self.engine.stats().expect("it is open");
            stats.iter().find(|(name, _)| name == "committed_bytes_total").map_or(0, |(_, bytes)| *bytes)
        };
        let before = committed();
        call(self);
        usize::try_from(committed() - before).expect("small")
    }
}

/// So many calls in all, from several threads.
fn shared(threads: usize, calls: usize, call: impl Fn(usize) + Sync) -> Duration {
    let left = AtomicUsize::new(calls);
    let from = Instant::now();
    std::thread::scope(|scope| {
        for thread in 0..threads {
            let (left, call) = (&left, &call);
            scope.spawn(move || {
                while left.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| left.checked_sub(1)).is_ok() {
                    call(thread);
                }
            });
        }
    });
    from.elapsed()
}

type Call = fn(&Scene, usize);

fn measure(criterion: &mut Criterion) {
    let calls: [(&str, Call); 3] = [("get", Scene::get), ("create", Scene::create), ("append", Scene::append)];
    for (name, call) in calls {
        let scene = Scene::new();
        let mut group = criterion.benchmark_group(format!("engine/{name}"));
        group.throughput(Throughput::Elements(1));
        for threads in [1, THREADS] {
            group.bench_function(format!("{threads} threads"), |bencher| {
                bencher.iter_custom(|calls| {
                    shared(threads, usize::try_from(calls).expect("few"), |thread| call(&scene, thread))
                });
            });
        }
        group.finish();
    }
}

fn ratios(rounds: usize) {
    println!("\na call, and the raw limit of its bytes, in turns, {rounds} rounds");
    println!(
        "{:>8} {:>8} {:>6} {:>11} {:>11} {:>11} {:>11} {:>7} {:>10}",
        "call", "threads", "bytes", "median", "p99", "raw median", "raw p99", "ratio", "spread"
    );
    let calls: [(&str, Call); 2] = [("create", Scene::create), ("append", Scene::append)];
    for (name, call) in calls {
        let scene = Scene::new();
        let bytes = scene.bytes(|scene| call(scene, 0));
        let home = tempfile::tempdir().expect("a directory");
        let mut raw = RawFile::new(&home.path().join("raw"));
        let content = vec![0xa5; bytes];
        let turns = |_| {
            let from = Instant::now();
            call(&scene, 0);
            let ours = from.elapsed();
            let from = Instant::now();
            raw.write(&content);
            (ours, from.elapsed())
        };
        report(name, 1, bytes, 1, &Turns::take(rounds, turns));

        // Eight threads, 64 calls a turn; the raw limit does as many in batches of eight: one write, one sync.
        let batch = vec![0xa5; bytes * THREADS];
        let calls = 8 * THREADS;
        let turns = |_| {
            let ours = shared(THREADS, calls, |thread| call(&scene, thread));
            let from = Instant::now();
            for _ in 0..calls / THREADS {
                raw.write(&batch);
            }
            (ours, from.elapsed())
        };
        report(name, THREADS, bytes, calls, &Turns::take(rounds / 4, turns));
    }
}

fn report(name: &str, threads: usize, bytes: usize, calls: usize, turns: &Turns) {
    let each =
        |time: Duration| format!("{:.1} us", time.as_secs_f64() * 1e6 / f64::from(u32::try_from(calls).expect("few")));
    let spread = format!("{:.2}-{:.2}", turns.ratio(25), turns.ratio(75));
    println!(
        "{name:>8} {threads:>8} {bytes:>6} {:>11} {:>11} {:>11} {:>11} {:>7.2} {spread:>10}",
        each(turns.ours(50)),
        each(turns.ours(99)),
        each(turns.raw(50)),
        each(turns.raw(99)),
        turns.ratio(50),
    );
}

/// What the size of a group costs who appends to it.
fn sizes() {
    println!("\nan append to a group of so many members, by the last of them");
    for count in [8, 100, 1_000, 10_000] {
        let home = tempfile::tempdir().expect("a directory");
        let engine = Engine::open(home.path()).expect("it opens");
        let members: Vec<_> = (0..count).map(user).collect();
        let group = engine.acting(&members[0]).create("sized", &members).expect("it is made").group;
        let last = &members[count - 1];
        let mut times: Vec<_> = (0..300)
            .map(|_| {
                let from = Instant::now();
                engine.acting(last).append(group, *b"x").expect("it is appended");
                from.elapsed()
            })
            .collect();
        times.sort();
        let decide = {
            let record = engine.group(group).expect("it is there").record;
            let from = Instant::now();
            for _ in 0..100 {
                std::hint::black_box(record.has(std::hint::black_box(last)));
            }
            from.elapsed() / 100
        };
        println!("{count:>8} members: median {:?}; of it the look for the sender {decide:?}", times[150]);
    }
}

fn main() {
    let mut criterion = Criterion::default().configure_from_args();
    measure(&mut criterion);
    criterion.final_summary();
    // `cargo test` runs benches too, to see that they run.
    if std::env::args().any(|argument| argument == "--bench") {
        ratios(std::env::var("ROUNDTABLE_ROUNDS").ok().and_then(|text| text.parse().ok()).unwrap_or(1_000));
        sizes();
    }
}
