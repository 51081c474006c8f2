//! What the index alone takes to follow created groups of 8 and to find them again, in sled, beside sled itself.
//!
//! Following: each round folds [`GROUPS`] groups, of members drawn from [`USERS`] users, and flushes them. The raw limit
//! puts one item for each group into a sled of its own that is set up alike, with an id as its key and as many bytes as
//! the group takes in the journal, and syncs as often by bytes. Both grow from round to round. Finding: a group that is
//! folded and not flushed, a group that is in sled, and `get` of such an item; in random order. No journal, no
//! threads, no queue.
//!
//! `cargo bench --features benching --bench index`; `ROUNDTABLE_ROUNDS` sets the rounds of the first (default 5).

#[path = "common/turns.rs"]
mod turns;

use std::collections::BTreeSet;
use std::fs::File;
use std::hint::black_box;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use criterion::Criterion;
use rand::rngs::StdRng;
use rand::seq::SliceRandom;
use rand::{Rng, SeedableRng};
use roundtable::group::{Entry, Event};
use roundtable::ids::{GroupId, OperationId, Principal, UserId};
use roundtable::store::benching::{IndexAlone, Packets};
use roundtable::store::{Change, Effect, change_bytes};
use turns::Turns;

const GROUPS: u32 = 8_000;
const USERS: usize = 40_000;
const MEMBERS: usize = 8;
const AT_MS: u64 = 1_758_800_000_000;

fn main() {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let mut scene = Scene::new(directory.path());
    let rounds = std::env::var("ROUNDTABLE_ROUNDS").ok().and_then(|text| text.parse().ok()).unwrap_or(5);
    scene.follow(rounds);
    let mut criterion = Criterion::default()
        .warm_up_time(Duration::from_millis(500))
        .measurement_time(Duration::from_secs(2))
        .nresamples(10_000)
        .configure_from_args();
    scene.find(&mut criterion);
    criterion.final_summary();
}

/// The index and the raw sled, with the same groups.
struct Scene {
    random: StdRng,
    users: Vec<UserId>,
    index: IndexAlone,
    raw: RawSled,
    /// Of those that are in sled.
    ids: Vec<GroupId>,
}

impl Scene {
    fn new(directory: &Path) -> Self {
        let user = |number| UserId::new(&format!("user-{number:06}")).expect("a legal user id");
        Self {
            random: StdRng::seed_from_u64(1),
            users: (0..USERS).map(user).collect(),
            index: IndexAlone::create(directory),
            raw: RawSled::create(&directory.join("raw")),
            ids: Vec::new(),
        }
    }

    /// New groups, each with as many bytes as it takes in the journal.
    fn groups(&mut self, count: u32) -> (Vec<(GroupId, Vec<u8>)>, Packets) {
        let changes: Vec<Effect> = (0..count).map(|_| self.created()).collect();
        let item = |effect: &Effect| (effect.group, vec![0x5a; change_bytes(&Change::Effect(effect.clone()))]);
        let items = changes.iter().map(item).collect();
        (items, self.index.place(changes.into_iter().map(Change::Effect).collect()))
    }

    /// A group whose id is later than those before, as those that the server makes.
    fn created(&mut self) -> Effect {
        let mut members = BTreeSet::new();
        while members.len() < MEMBERS {
            members.insert(self.random.random_range(0..USERS));
        }
        let members: Vec<_> = members.into_iter().map(|at| self.users[at].clone()).collect();
        let service = format!("service-{}", self.random.random_range(0..4));
        let at_ms = AT_MS + u64::try_from(self.ids.len()).expect("64 bits");
        Effect {
            principal: Principal::Service(UserId::new(&service).expect("a legal user id")),
            operation: OperationId::random(),
            fingerprint: 7,
            group: GroupId::generate(at_ms, &self.random.random()),
            entry: Arc::new(Entry {
                seq: 1,
                version: 1,
                at_ms,
                sender: members[0].clone(),
                by: None,
                event: Event::Created { title: "title".into(), members },
            }),
        }
    }

    fn follow(&mut self, rounds: usize) {
        let mut folding = Duration::ZERO;
        let turns = Turns::take(rounds, |_| {
            let (items, packets) = self.groups(GROUPS);
            self.ids.extend(items.iter().map(|(id, _)| *id));
            let from = Instant::now();
            self.index.fold(&packets);
            folding += from.elapsed();
            self.index.flush();
            let ours = from.elapsed();
            let from = Instant::now();
            self.raw.put(items);
            (ours, from.elapsed())
        });
        let each = |time: Duration| time.as_secs_f64() * 1e6 / f64::from(GROUPS);
        let rounds = u32::try_from(rounds).expect("few");
        println!("created groups of {MEMBERS} into sled, {rounds} rounds of {GROUPS}, in turns with the raw limit");
        println!(
            "a group {:.0} us (folded after {:.0}), raw {:.0} us, ratio {:.1} ({:.1}-{:.1})",
            each(turns.ours(50)),
            each(folding / rounds),
            each(turns.raw(50)),
            turns.ratio(50),
            turns.ratio(0),
            turns.ratio(100),
        );
    }

    fn find(&mut self, criterion: &mut Criterion) {
        let (items, packets) = self.groups(1_000);
        self.index.fold(&packets);
        let mut folded: Vec<GroupId> = items.into_iter().map(|(id, _)| id).collect();
        folded.shuffle(&mut self.random);
        let mut flushed = self.ids.clone();
        flushed.shuffle(&mut self.random);
        let mut group = criterion.benchmark_group("index/find");
        for (name, ids) in [("folded", &folded), ("in sled", &flushed)] {
            let mut next = ids.iter().cycle();
            group.bench_function(name, |bench| {
                bench.iter(|| {
                    let id = *next.next().expect("a cycle");
                    let state = self.index.group(black_box(id)).expect("it is there");
                    assert_eq!(state.record.members.len(), MEMBERS);
                    state
                });
            });
        }
        let mut next = flushed.iter().cycle();
        group.bench_function("raw", |bench| {
            bench.iter(|| self.raw.find(*black_box(next.next().expect("a cycle"))));
        });
        group.finish();
    }
}

/// Sled as the index sets it up, and its log, which nothing but the index's own `fdatasync` makes durable.
struct RawSled {
    database: sled::Db,
    log: File,
    unsynced_bytes: usize,
}

impl RawSled {
    const SEGMENT_BYTES: usize = 8 << 20;
    /// Bytes between two syncs: a twelfth of a segment, as in `src/store/index/sled.rs`.
    const CHECKPOINT_BYTES: usize = Self::SEGMENT_BYTES / 2 / 6;

    fn create(directory: &Path) -> Self {
        let config = sled::Config::new().path(directory).segment_size(Self::SEGMENT_BYTES).flush_every_ms(None);
        let database = config.cache_capacity(128 << 20).open().expect("a new database");
        let log = File::options().read(true).write(true).open(directory.join("db")).expect("sled's log");
        Self { database, log, unsynced_bytes: 0 }
    }

    fn put(&mut self, items: Vec<(GroupId, Vec<u8>)>) {
        for (id, bytes) in items {
            if self.unsynced_bytes + bytes.len() > Self::CHECKPOINT_BYTES {
                self.sync();
            }
            self.unsynced_bytes += bytes.len();
            self.database.insert(id.as_bytes(), bytes).expect("sled works");
        }
        self.sync();
    }

    fn sync(&mut self) {
        self.database.flush().expect("sled works");
        self.log.sync_data().expect("a disk");
        self.unsynced_bytes = 0;
    }

    fn find(&self, id: GroupId) -> Vec<u8> {
        self.database.get(id.as_bytes()).expect("sled works").expect("it is there").to_vec()
    }
}
