//! Signals that ask for the end, for commands that have something to take away first.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};

use super::failure::{Exit, Failure};

/// Whether a signal asked for the end. A command looks between two steps, and takes away what it made as it returns.
pub(crate) struct Interrupt {
    signal: Arc<AtomicUsize>,
}

impl Interrupt {
    pub(crate) fn catch() -> Result<Self, Failure> {
        let signal = Arc::new(AtomicUsize::new(0));
        for (number, value) in [(SIGHUP, 1), (SIGINT, 2), (SIGTERM, 15)] {
            signal_hook::flag::register_usize(number, Arc::clone(&signal), value)
                .map_err(|error| Failure::new(Exit::Refused, "SIGNALS", error.to_string()))?;
        }
        Ok(Self { signal })
    }

    pub(crate) fn check(&self) -> Result<(), Failure> {
        match u8::try_from(self.signal.load(Ordering::Relaxed)) {
            Ok(signal @ 1..) => Err(Failure::Interrupted { signal }),
            _ => Ok(()),
        }
    }
}
