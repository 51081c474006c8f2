//! Encoding, decoding and framing, each beside the raw limit of the same bytes: one copy and one CRC-32 of them, which
//! no implementation of this protocol can go below.

use std::hint::black_box;

use criterion::measurement::WallTime;
use criterion::{Bencher, BenchmarkGroup, BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use roundtable::group::{Entry, Event};
use roundtable::ids::{GroupId, UserId};
use roundtable::limits::{HEADER_BYTES, READ_BYTES_PER_TURN};
use roundtable::wire::{Deframer, FrameCaps, GroupPacket, Kind, LogEntry, Push};

const AT_MS: u64 = 1_758_800_000_000;

fn group() -> GroupId {
    GroupId::generate(AT_MS, &[7; 10])
}

fn user(number: usize) -> UserId {
    UserId::new(&format!("user-{number:06}")).expect("a legal user id")
}

fn packet(members: usize) -> Push {
    Push::GroupPacket(GroupPacket {
        from: 2,
        group: group(),
        version: 1,
        head: 1,
        created_at_ms: AT_MS,
        owner: user(0),
        creator: user(0),
        title: "lunch".into(),
        members: (0..members).map(user).collect(),
    })
}

fn message(body_bytes: usize) -> Push {
    let event = Event::Message { body: vec![0x5a; body_bytes].into() };
    let entry = Entry { seq: 2, version: 1, at_ms: AT_MS, sender: user(0), by: None, event };
    Push::Entry { group: group(), entry: LogEntry::Shown(entry) }
}

fn frame_of(push: &Push) -> Vec<u8> {
    let mut frame = Vec::new();
    push.encode_frame(&mut frame);
    frame
}

/// One copy and one CRC of these bytes.
fn raw_limit(bench: &mut Bencher<'_>, bytes: &[u8]) {
    let mut copy = Vec::with_capacity(bytes.len());
    bench.iter(|| {
        copy.clear();
        copy.extend_from_slice(black_box(bytes));
        crc32fast::hash(black_box(&copy))
    });
}

fn encode_and_decode(group: &mut BenchmarkGroup<'_, WallTime>, name: &str, push: &Push) {
    let frame = frame_of(push);
    let bytes = u64::try_from(frame.len()).expect("64 bits");
    group.throughput(Throughput::Bytes(bytes));
    group.bench_function(BenchmarkId::new("encode", name), |bench| {
        let mut out = Vec::with_capacity(frame.len());
        bench.iter(|| {
            out.clear();
            black_box(push).encode_frame(&mut out);
            out.len()
        });
    });
    let body = &frame[HEADER_BYTES..];
    group.bench_function(BenchmarkId::new("decode", name), |bench| {
        bench.iter(|| Push::decode(push.kind(), black_box(body)).expect("a push").expect("a good body"));
    });
    group.bench_function(BenchmarkId::new("raw", name), |bench| raw_limit(bench, &frame));
}

fn pushes(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("group_packet");
    for members in [3, 100, 10_000] {
        encode_and_decode(&mut group, &members.to_string(), &packet(members));
    }
    group.finish();
    let mut group = criterion.benchmark_group("entry_push");
    for body_bytes in [16, 1_024, 65_536] {
        encode_and_decode(&mut group, &body_bytes.to_string(), &message(body_bytes));
    }
    group.finish();
}

/// What one turn of the loop may read of one connection, full of messages.
fn deframer(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("deframer");
    for body_bytes in [16, 1_024] {
        let frame = frame_of(&message(body_bytes));
        let count = READ_BYTES_PER_TURN / frame.len();
        let bytes = frame.repeat(count);
        group.throughput(Throughput::Bytes(u64::try_from(bytes.len()).expect("64 bits")));
        group.bench_function(BenchmarkId::new("frames", body_bytes), |bench| {
            bench.iter(|| {
                let mut deframer = Deframer::default();
                deframer.feed(black_box(&bytes));
                let mut frames = 0;
                while let Some(frame) = deframer.next_frame(FrameCaps::Server).expect("good frames") {
                    frames += usize::from(frame.header.kind == Kind::Entry.number());
                }
                assert_eq!(frames, count);
            });
        });
        group.bench_function(BenchmarkId::new("raw", body_bytes), |bench| raw_limit(bench, &bytes));
    }
    group.finish();
}

criterion_group!(benches, pushes, deframer);
criterion_main!(benches);
