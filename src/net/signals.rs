//! SIGTERM and SIGINT, as bytes in a pipe that the loop polls.

use std::io::{self, Read};

use mio::net::UnixStream;
use mio::{Interest, Registry};
use signal_hook::SigId;
use signal_hook::consts::{SIGINT, SIGTERM};

use super::SIGNALS;

/// Catches the signals as long as it lives.
pub(super) struct Signals {
    pipe: UnixStream,
    registered: Vec<SigId>,
}

impl Signals {
    pub(super) fn register(registry: &Registry) -> io::Result<Self> {
        let (receiver, sender) = std::os::unix::net::UnixStream::pair()?;
        receiver.set_nonblocking(true)?;
        let mut registered = Vec::new();
        for signal in [SIGTERM, SIGINT] {
            registered.push(signal_hook::low_level::pipe::register(signal, sender.try_clone()?)?);
        }
        let mut pipe = UnixStream::from_std(receiver);
        registry.register(&mut pipe, SIGNALS, Interest::READABLE)?;
        Ok(Self { pipe, registered })
    }

    /// Whether a signal has come since the last call.
    pub(super) fn take(&mut self) -> bool {
        let mut bytes = [0; 16];
        matches!(self.pipe.read(&mut bytes), Ok(1..))
    }
}

impl Drop for Signals {
    fn drop(&mut self) {
        for id in self.registered.drain(..) {
            signal_hook::low_level::unregister(id);
        }
    }
}
