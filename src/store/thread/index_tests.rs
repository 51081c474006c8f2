//! What a stop costs the index: everything is flushed where there is time, and nothing is waited for where there is none.

use std::sync::mpsc::channel;

use super::*;
use crate::store::disk::simulated::SimulatedDisk;
use crate::store::index::memory::MemoryHome;
use crate::store::journal::recovery;
use crate::store::journal::tests::{group, message, user};
use crate::store::journal::writer::{Journal, Now, Writer};
use crate::store::{Change, ReadId};

const SEGMENT_BYTES: u32 = 256 * 1024;
const DIRECTORY: DirectoryId = [9; 16];

/// A journal, and the place of the index behind it.
struct Bench {
    disk: SimulatedDisk,
    home: MemoryHome,
    writer: Writer<SimulatedDisk>,
    backlog: Arc<Backlog>,
    stopping: Arc<AtomicBool>,
}

impl Bench {
    fn new() -> Self {
        let disk = SimulatedDisk::new();
        let mut journal =
            Journal { disk: disk.clone(), directory: DIRECTORY, segment_bytes: SEGMENT_BYTES, salts: Box::new(|| 7) };
        recovery::create(&mut journal).unwrap();
        let writer = recovery::open(journal, None).unwrap().writer;
        let backlog = Arc::new(Backlog::new(u64::from(SEGMENT_BYTES)));
        Self { disk, home: MemoryHome::default(), writer, backlog, stopping: Arc::default() }
    }

    /// Writes messages, and gives what the journal's thread says of them.
    fn written(&mut self, seqs: std::ops::Range<u64>) -> Message {
        let members = vec![user("49")];
        let title = "t".into();
        let first =
            crate::store::journal::tests::effect(group(1), 1, 1, "49", crate::group::Event::Created { title, members });
        let changes: Vec<Change> = seqs.map(|seq| if seq == 1 { first.clone() } else { message(seq, "hi") }).collect();
        let placed = self.writer.append_batch(&changes, Now { running_ms: 1, wall_ms: 1 }).unwrap();
        let packets: Vec<_> = placed.into_iter().zip(changes.into_iter().map(Content::from)).collect();
        self.backlog.add(packets_bytes(&packets));
        Message::Packets { packets, running_ms: 1, carrying: None, origin: Origin::Journal }
    }

    fn indexer(&self) -> Indexer<SimulatedDisk> {
        let reader = JournalReader::new(self.disk.clone(), SEGMENT_BYTES);
        Indexer::new(self.home.open().unwrap(), reader, DIRECTORY).unwrap()
    }

    /// Runs the index thread, here, over what is in its queue; storage begins to stop when it has said `stop_behind`
    /// events. Gives how many it said.
    fn run(&self, end: Position, queue: Vec<Message>, stop_behind: usize, stop_at: Option<Instant>) -> usize {
        let (events, said) = channel();
        let (journal, _journal_queue) = channel();
        let (stopping, count) = (self.stopping.clone(), std::sync::atomic::AtomicUsize::new(0));
        let wake: super::super::Wake = Arc::new(move || {
            if count.fetch_add(1, Ordering::SeqCst) + 1 == stop_behind {
                stopping.store(true, Ordering::SeqCst);
            }
        });
        let links = Links {
            report: Report { events, wake },
            journal,
            backlog: self.backlog.clone(),
            clock: Clock::new(Now::default()),
            stopping: self.stopping.clone(),
        };
        let retention = Retention::default();
        let start = Start {
            indexer: self.indexer(),
            rebuilding: false,
            reader: JournalReader::new(self.disk.clone(), SEGMENT_BYTES),
            cleaner: Cleaner::new(retention, u64::from(SEGMENT_BYTES), Vec::new(), end),
            retention,
            quota: GroupQuota::default(),
        };
        let format = Format { segment_bytes: SEGMENT_BYTES, directory: DIRECTORY };
        let mut thread = IndexThread::new(start, Box::new(self.home.clone()), format, end, links);
        thread.stop_at = stop_at;
        let (sender, _packets, receiver) = Queue::new();
        for message in queue {
            sender.send(message).unwrap();
        }
        thread.run(&receiver).unwrap();
        said.try_iter().count()
    }

    /// The LSN that the next start finds in the index.
    fn flushed_lsn(&self) -> u64 {
        self.indexer().folded().map_or(0, |folded| folded.lsn)
    }

    fn head_after_replay(&self) -> u64 {
        let mut indexer = self.indexer();
        indexer.replay(1, self.writer.end(), |_| true).unwrap();
        indexer.load_group(group(1)).unwrap().unwrap().unwrap().head
    }
}

fn look_up() -> Message {
    Message::LookUp(Request::ReadMarks { read: ReadId(1), group: group(1) })
}

/// Storage stops between two batches: behind `Ready` and one answer.
fn stopped_between_batches(stop_at: Option<Instant>) -> (Bench, u64) {
    let mut bench = Bench::new();
    let end = bench.writer.end();
    let before = bench.written(1..100);
    let behind = bench.written(100..200);
    let last_lsn = bench.writer.next_lsn() - 1;
    let said = bench.run(end, vec![before, look_up(), behind, look_up(), Message::Stop], 2, stop_at);
    assert_eq!(said, 3, "look-ups are answered to the end");
    assert_eq!(bench.backlog.bytes(), 0, "the journal's thread waits for nothing");
    (bench, last_lsn)
}

#[test]
fn a_stop_without_time_left_flushes_nothing_more_and_the_next_start_replays_it() {
    let (bench, _) = stopped_between_batches(Some(Instant::now()));
    assert_eq!(bench.flushed_lsn(), 0);
    assert_eq!(bench.head_after_replay(), 199);
}

#[test]
fn control_a_stop_with_time_left_flushes_all_of_it() {
    let an_hour = Instant::now() + Duration::from_secs(3600);
    let (bench, last_lsn) = stopped_between_batches(Some(an_hour));
    assert_eq!(bench.flushed_lsn(), last_lsn);
    assert_eq!(bench.head_after_replay(), 199);
}

#[test]
fn a_stop_while_the_journal_is_replayed_is_not_held_up_by_the_rest_of_it() {
    let mut bench = Bench::new();
    drop(bench.written(1..200));
    bench.stopping.store(true, Ordering::SeqCst);
    assert_eq!(bench.run(bench.writer.end(), vec![Message::Stop], 0, None), 0, "it never says that it is ready");
    assert_eq!(bench.flushed_lsn(), 0);
    assert_eq!(bench.head_after_replay(), 199);
}
