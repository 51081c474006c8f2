//! Where one thread waits for one value of another.

use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::Instant;

/// A value that comes once. Whoever fills it never waits.
#[derive(Debug)]
pub(super) struct Slot<T> {
    value: Mutex<Option<T>>,
    filled: Condvar,
}

impl<T> Slot<T> {
    pub(super) fn new() -> Arc<Self> {
        Arc::new(Self { value: Mutex::new(None), filled: Condvar::new() })
    }

    pub(super) fn fill(&self, value: T) {
        *self.value.lock().unwrap_or_else(PoisonError::into_inner) = Some(value);
        self.filled.notify_one();
    }

    pub(super) fn wait(&self) -> T {
        let mut value = self.value.lock().unwrap_or_else(PoisonError::into_inner);
        loop {
            if let Some(value) = value.take() {
                return value;
            }
            value = self.filled.wait(value).unwrap_or_else(PoisonError::into_inner);
        }
    }

    /// `None` if nothing came until the deadline.
    pub(super) fn wait_until(&self, deadline: Instant) -> Option<T> {
        let left = deadline.saturating_duration_since(Instant::now());
        let value = self.value.lock().unwrap_or_else(PoisonError::into_inner);
        let waited = self.filled.wait_timeout_while(value, left, |value| value.is_none());
        waited.unwrap_or_else(PoisonError::into_inner).0.take()
    }
}

/// Says that there is news for the dispatcher, or that it is to end.
#[derive(Debug, Default)]
pub(super) struct Signal {
    said: Mutex<(bool, bool)>,
    changed: Condvar,
}

impl Signal {
    /// There is an event to poll.
    pub(super) fn wake(&self) {
        self.said.lock().unwrap_or_else(PoisonError::into_inner).0 = true;
        self.changed.notify_one();
    }

    /// There will be no more.
    pub(super) fn end(&self) {
        self.said.lock().unwrap_or_else(PoisonError::into_inner).1 = true;
        self.changed.notify_one();
    }

    /// Waits for news; says `false` once there will be none.
    pub(super) fn wait(&self) -> bool {
        let said = self.said.lock().unwrap_or_else(PoisonError::into_inner);
        let waited = self.changed.wait_while(said, |(woken, ended)| !*woken && !*ended);
        let mut said = waited.unwrap_or_else(PoisonError::into_inner);
        said.0 = false;
        !said.1
    }
}
