//! The end of storage whose threads panic or are stuck: it comes in time, and says which thread it was.

use std::sync::Mutex;
use std::sync::mpsc::{Sender, channel};

use super::tests::{Waiting, parts};
use super::*;
use crate::group::Event as GroupEvent;
use crate::store::disk::simulated::SimulatedDisk;
use crate::store::index::memory::MemoryHome;
use crate::store::journal::tests::{effect, group, user};

/// What happens to a thread of storage the next time that it says something.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Mishap {
    Panic,
    /// Until the sender that the test holds is dropped.
    Stuck,
}

/// Storage with one group whose thread `name` meets with a mishap once `armed` is set.
struct Unlucky {
    storage: Waiting,
    disk: SimulatedDisk,
    armed: Arc<AtomicBool>,
    release: Option<Sender<()>>,
}

impl Unlucky {
    fn new(name: &'static str, mishap: Mishap) -> Self {
        let (disk, armed) = (SimulatedDisk::new(), Arc::new(AtomicBool::new(false)));
        let (release, released) = channel::<()>();
        let (released, armed_) = (Mutex::new(released), armed.clone());
        let mut storage = Waiting::start(|wake| {
            let wake: Wake = Arc::new(move || {
                wake();
                let is_it = std::thread::current().name() == Some(name);
                if is_it && armed_.swap(false, Ordering::SeqCst) {
                    match mishap {
                        Mishap::Panic => panic!("as the test wants it"),
                        Mishap::Stuck => {
                            let _ = released.lock().unwrap().recv();
                        }
                    }
                }
            });
            parts(&disk, &MemoryHome::default()).start(wake)
        });
        let members = vec![user("alice")];
        let created = effect(group(1), 1, 1, "alice", GroupEvent::Created { title: "t".into(), members });
        let ticket = storage.commit(created);
        storage.wait_durable(ticket);
        Self { storage, disk, armed, release: Some(release) }
    }

    /// Has a message reported durable, then makes the journal's thread and the index's thread say something.
    fn ask(&mut self) {
        let message = |seq| effect(group(1), seq, 1, "alice", GroupEvent::Message { body: b"m"[..].into() });
        let ticket = self.storage.commit(message(2));
        self.storage.wait_durable(ticket);
        // A grant may still come behind the report, and be what the thread says.
        self.armed.store(true, Ordering::SeqCst);
        self.storage.commit(message(3));
        self.storage.storage.submit(Request::LoadGroup { group: group(1) });
    }

    /// What the next start finds.
    fn head(&self) -> u64 {
        // Of its own: what was stuck goes on with the other.
        let disk = self.disk.fork();
        let mut storage = Waiting::start(|wake| parts(&disk, &MemoryHome::default()).start(wake));
        storage.storage.submit(Request::LoadGroup { group: group(1) });
        storage.wait(|event| match event {
            Event::GroupLoaded { state, .. } => Some(state.unwrap().unwrap().head),
            _ => None,
        })
    }
}

#[test]
fn a_panic_of_the_journal_or_the_index_thread_is_told_and_named_and_the_stop_ends() {
    for name in [JOURNAL, INDEX] {
        let mut unlucky = Unlucky::new(name, Mishap::Panic);
        unlucky.ask();
        let message = unlucky.storage.wait(|event| match event {
            Event::Failed { message } => Some(message),
            _ => None,
        });
        assert_eq!(message, format!("the {name} thread panicked: as the test wants it"));
        // As the index's thread would otherwise be waited for when the journal's is gone, and the other way round.
        let from = Instant::now();
        let Unlucky { storage, .. } = unlucky;
        assert_eq!(storage.storage.stop(), Err(message));
        assert!(from.elapsed() < Duration::from_millis(STOP_MS), "it did not wait for what cannot come");
    }
}

#[test]
fn a_stop_does_not_wait_for_a_thread_that_is_stuck_and_names_it() {
    for name in [JOURNAL, INDEX] {
        let mut unlucky = Unlucky::new(name, Mishap::Stuck);
        unlucky.ask();
        // The mishap has begun when the flag is taken back.
        while unlucky.armed.load(Ordering::SeqCst) {
            std::thread::yield_now();
        }
        let Waiting { storage, .. } = std::mem::replace(&mut unlucky.storage, idle());
        let stopped = storage.stop_within(Duration::from_millis(50));
        assert_eq!(stopped, Err(format!("the {name} thread did not end within 50 ms: does the disk answer?")));
        assert!(unlucky.head() >= 2, "what was reported is there");
        drop(unlucky.release.take());
    }
}

#[test]
fn a_directory_whose_thread_is_stuck_stays_locked_for_others() {
    let directory = tempfile::tempdir().unwrap();
    let (release, released) = channel::<()>();
    let released = Mutex::new(released);
    let options = StorageOptions { segment_bytes: SEGMENT_BYTES_MIN, ..StorageOptions::new(directory.path()) };
    let mut storage = Waiting::start(|wake| {
        let wake: Wake = Arc::new(move || {
            wake();
            if std::thread::current().name() == Some(INDEX) {
                let _ = released.lock().unwrap().recv();
            }
        });
        Storage::start(&options, wake)
    });
    storage.wait(|event| matches!(event, Event::Ready).then_some(()));
    let Waiting { storage, .. } = storage;
    assert!(storage.stop_within(Duration::from_millis(50)).is_err());
    let second = Storage::start(&options, Arc::new(|| {}));
    assert!(matches!(second, Err(OpenError::Locked { .. })));
    drop(release);
}

fn idle() -> Waiting {
    Waiting::start(|wake| parts(&SimulatedDisk::new(), &MemoryHome::default()).start(wake))
}
