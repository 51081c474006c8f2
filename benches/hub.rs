//! What fan-out costs in the hub alone: no sockets, no disk, no clock.
//!
//! A hub with N members of one group on line, driven as the loop does it: the request's bytes go in, storage says at
//! once that what is committed is durable, and then each connection with output is asked for it and told that all of it
//! was written. A signal goes to N - 1 of them, a stored message to all N, the packet of a created group to all N; the
//! sender of the last two gets an answer besides. Measured is all of that: decoding, checks, the change of the
//! group, encoding once, N buffers, N drained. The raw limit is a copy of the same frame into as many buffers, which
//! are there already. Frames for more than 16 are shared between buffers, so for large ones the hub may be faster.
//!
//! `cargo bench --bench hub`.

use std::hint::black_box;
use std::time::{Duration, Instant};

use criterion::measurement::WallTime;
use criterion::{BatchSize, BenchmarkGroup, BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use roundtable::hub::{Authenticator, ConnectionKey, Hub, Now, Policy, Seed};
use roundtable::ids::{DeviceId, GroupId, Identity, OperationId, Role, TokenError, UserId};
use roundtable::store::{Change, Event, Request as StoreRequest};
use roundtable::wire::{Attach, Hello, Request};

/// Time stands still: no deadline comes up.
const NOW: Now = Now { monotonic_ms: 1_000, wall_ms: 1_758_800_000_000 };
const BODY_BYTES: usize = 100;
/// Groups that are made in one hub: what was made stays, and would be measured with time.
const CREATES_PER_STAGE: usize = 64;

/// A token is the name of its user.
struct Names;

impl Authenticator for Names {
    fn authenticate(&self, token: &str, wall_ms: u64) -> Result<Identity, TokenError> {
        let user = UserId::new(token).map_err(|_| TokenError::Rejected)?;
        Ok(Identity { user, role: Role::User, device: None, expires_at_ms: wall_ms + 86_400_000 })
    }
}

fn user(number: usize) -> UserId {
    UserId::new(&format!("user-{number:06}")).expect("a legal user id")
}

fn frame_of(request: &Request) -> Vec<u8> {
    let mut frame = Vec::new();
    request.encode_frame(&mut frame, 1);
    frame
}

fn create(members: usize) -> Vec<u8> {
    let (operation, members) = (OperationId::random(), (0..members).map(user).collect());
    frame_of(&Request::Create { operation, title: "lunch".into(), members })
}

fn signal(group: GroupId) -> Vec<u8> {
    frame_of(&Request::Signal { group, body: vec![0x5a; BODY_BYTES].into() })
}

fn message(group: GroupId) -> Vec<u8> {
    frame_of(&Request::Send { operation: OperationId::random(), group, body: vec![0x5a; BODY_BYTES].into() })
}

/// A hub and the connections of its users; the first one sends.
struct Stage {
    hub: Hub,
    connections: Vec<ConnectionKey>,
    lsn: u64,
    /// The group of the last change.
    group: Option<GroupId>,
}

impl Stage {
    /// So many users on line, who have made a group.
    fn new(members: usize) -> Self {
        let seed = Seed { hash: [1, 2, 3, 4], ids: [7; 32] };
        let hub = Hub::new(seed, Policy::default(), Box::new(Names), NOW);
        let mut stage = Self { hub, connections: Vec::new(), lsn: 0, group: None };
        stage.hub.handle_storage(Event::Ready, NOW);
        stage.hub.handle_storage(Event::Credit { bytes_total: u64::MAX / 4 }, NOW);
        for number in 0..members {
            let key = stage.hub.handle_accepted(NOW);
            stage.connections.push(key);
            let device = DeviceId::new("bench").expect("legal");
            let token = user(number).as_str().to_owned();
            let hello = Hello { version_min: 1, version_max: 1, features: 0, heartbeat_s: 0, device, token };
            stage.hub.handle_bytes(key, &frame_of(&Request::Hello(hello)), NOW);
            stage.hub.handle_bytes(key, &frame_of(&Request::Attach(Attach::Marks)), NOW);
            stage.work();
        }
        assert_eq!(stage.ask(&create(members)), members, "everybody gets the packet");
        stage
    }

    /// A request of the first user; gives how many connections were written.
    fn ask(&mut self, frame: &[u8]) -> usize {
        self.hub.handle_bytes(self.connections[0], frame, NOW);
        self.work()
    }

    /// The frame that a request makes for each of the others.
    fn frame_for_others(&mut self, frame: &[u8]) -> Vec<u8> {
        self.hub.handle_bytes(self.connections[0], frame, NOW);
        while self.submit() {}
        let last = *self.connections.last().expect("there are some");
        let frame = self.hub.output(last).flatten().copied().collect();
        self.work();
        frame
    }

    /// Does what the loop does until nothing is left to do.
    fn work(&mut self) -> usize {
        let mut written = 0;
        while self.hub.has_work() {
            self.hub.handle_time(NOW);
            self.submit();
            written += self.drain();
            while let Some(key) = self.hub.poll_resumed() {
                self.hub.handle_resumed(key, NOW);
            }
            assert!(self.hub.poll_finished().is_none() && self.hub.poll_closed().is_none(), "everybody stays");
        }
        written
    }

    /// Storage that is at once done.
    fn submit(&mut self) -> bool {
        let mut any = false;
        while let Some(request) = self.hub.poll_request() {
            any = true;
            let event = match request {
                StoreRequest::Commit { ticket, change } => {
                    self.lsn += 1;
                    if let Change::Effect(effect) = change {
                        self.group = Some(effect.group);
                    }
                    Event::Durable { ticket, lsns: vec![self.lsn] }
                }
                StoreRequest::LoadUser { read, .. } => Event::UserLoaded { read, memberships: Vec::new() },
                StoreRequest::LoadOperations { principal } => {
                    Event::OperationsLoaded { principal, operations: Vec::new() }
                }
                other => panic!("nobody has asked for {other:?}"),
            };
            self.hub.handle_storage(event, NOW);
        }
        any
    }

    fn drain(&mut self) -> usize {
        let mut written = 0;
        while let Some(key) = self.hub.poll_dirty() {
            let bytes = self.hub.output(key).map(|piece| black_box(piece).len()).sum();
            self.hub.handle_written(key, bytes, NOW);
            written += 1;
        }
        written
    }
}

/// A copy of a frame into each of so many buffers.
struct Raw {
    buffers: Vec<Vec<u8>>,
    frame: Vec<u8>,
}

impl Raw {
    fn new(frame: Vec<u8>, copies: usize) -> Self {
        let buffers = (0..copies).map(|_| Vec::with_capacity(frame.len())).collect();
        Self { buffers, frame }
    }

    fn fan_out(&mut self) {
        for buffer in &mut self.buffers {
            buffer.clear();
            buffer.extend_from_slice(black_box(&self.frame));
            black_box(buffer.as_slice());
        }
    }
}

type Make = fn(GroupId) -> Vec<u8>;

fn fan_out(criterion: &mut Criterion) {
    let kinds: [(&str, Make, usize); 2] = [("signal", signal, 1), ("message", message, 0)];
    for (name, make, senders) in kinds {
        let mut group = quick(criterion, &format!("hub/{name}"));
        for members in [10, 100, 1_000, 10_000] {
            let mut stage = Stage::new(members);
            let target = stage.group.expect("it was made");
            let pushed = stage.frame_for_others(&make(target));
            let takers = members - senders;
            assert_eq!(stage.ask(&make(target)), takers, "everybody gets it");
            group.throughput(Throughput::Elements(u64::try_from(takers).expect("few")));
            group.bench_function(BenchmarkId::new("hub", members), |bench| {
                bench.iter_batched(|| make(target), |frame| stage.ask(&frame), BatchSize::SmallInput);
            });
            let mut raw = Raw::new(pushed, takers);
            group.bench_function(BenchmarkId::new("raw", members), |bench| bench.iter(|| raw.fan_out()));
        }
        group.finish();
    }
}

fn creates(criterion: &mut Criterion) {
    let mut group = quick(criterion, "hub/create");
    for members in [10, 100, 1_000] {
        let packet = Stage::new(members).frame_for_others(&create(members));
        group.throughput(Throughput::Elements(u64::try_from(members).expect("few")));
        group.bench_function(BenchmarkId::new("hub", members), |bench| {
            bench.iter_custom(|count| {
                let count = usize::try_from(count).expect("few");
                (0..count).step_by(CREATES_PER_STAGE).map(|done| made(members, count - done)).sum()
            });
        });
        let mut raw = Raw::new(packet, members);
        group.bench_function(BenchmarkId::new("raw", members), |bench| bench.iter(|| raw.fan_out()));
    }
    group.finish();
}

/// The time of so many creates in a new hub, or of the first [`CREATES_PER_STAGE`].
fn made(members: usize, creates: usize) -> Duration {
    let mut stage = Stage::new(members);
    let frames: Vec<_> = (0..creates.min(CREATES_PER_STAGE)).map(|_| create(members)).collect();
    let from = Instant::now();
    for frame in &frames {
        black_box(stage.ask(frame));
    }
    from.elapsed()
}

fn quick<'c>(criterion: &'c mut Criterion, name: &str) -> BenchmarkGroup<'c, WallTime> {
    let mut group = criterion.benchmark_group(name);
    group.warm_up_time(Duration::from_millis(500)).measurement_time(Duration::from_secs(2));
    group.sample_size(50).nresamples(10_000);
    group
}

criterion_group!(benches, fan_out, creates);
criterion_main!(benches);
