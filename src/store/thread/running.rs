//! The threads of storage that run, and their end: each has a name, a panic of one is an error with that name, and
//! nobody waits for one that is stuck longer than he wants to.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::mpsc::{self, Receiver, Sender};
use std::thread::JoinHandle;
use std::time::Instant;

use crate::store::index::sled::panic_text;

type Outcome = Result<(), String>;

/// By how much a thread gives way whose work is mostly behind what people wait for: it gets a tenth of a core that
/// another thread wants whole.
const NICE: i32 = 10;

/// Threads, each until it was heard to end.
pub(super) struct Running {
    threads: Vec<(&'static str, JoinHandle<()>)>,
    end: Sender<(&'static str, Outcome)>,
    ended: Receiver<(&'static str, Outcome)>,
    /// The first error of those that have ended.
    outcome: Outcome,
}

/// Lets the present thread, and those that it starts, give way where there is more to do than there are cores.
pub(super) fn give_way() {
    // On Linux a priority belongs to a thread. Where the system refuses nothing is lost.
    let _ = rustix::process::nice(NICE);
}

impl Default for Running {
    fn default() -> Self {
        let (end, ended) = mpsc::channel();
        Self { threads: Vec::new(), end, ended, outcome: Ok(()) }
    }
}

impl Running {
    /// Runs something on a thread of its own. If it panics, `panicked` is told why, on that thread.
    pub(super) fn spawn(
        &mut self,
        name: &'static str,
        run: impl FnOnce() -> Outcome + Send + 'static,
        panicked: impl FnOnce(&str) + Send + 'static,
    ) {
        let end = self.end.clone();
        let body = move || {
            // What it holds, queues and files, is given back before its end is told.
            let outcome = catch_unwind(AssertUnwindSafe(run)).unwrap_or_else(|panic| {
                let message = format!("the {name} thread panicked: {}", panic_text(&*panic));
                tracing::error!("{message}");
                panicked(&message);
                Err(message)
            });
            // Nobody waits any more after a stop that took too long.
            let _ = end.send((name, outcome));
        };
        let thread = std::thread::Builder::new().name(name.to_owned()).spawn(body);
        self.threads.push((name, thread.expect("the system gives a thread at the start")));
    }

    /// Waits until a thread has ended, or until then; whether it has.
    pub(super) fn wait(&mut self, name: &str, until: Instant) -> bool {
        while self.threads.iter().any(|(running, _)| *running == name) {
            let left = until.saturating_duration_since(Instant::now());
            let Ok((ended, outcome)) = self.ended.recv_timeout(left) else { return false };
            let at = self.threads.iter().position(|(running, _)| *running == ended);
            let (_, thread) = self.threads.swap_remove(at.expect("a thread ends once"));
            // It has told its end, so this takes no time, and a panic of it was caught.
            let _ = thread.join();
            let before = std::mem::replace(&mut self.outcome, Ok(()));
            self.outcome = before.and(outcome);
        }
        true
    }

    /// The first error of those that have ended. Whoever still runs is left alone.
    pub(super) fn outcome(self) -> Outcome {
        self.outcome
    }
}
