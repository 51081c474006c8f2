//! A peer's process: on a free port of the loopback, its files in a directory of ours, killed at the end.

use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use super::super::child::{Child, NotStarted};
use super::super::failed;
use super::super::run::Absent;
use super::{Peer, Started};
use crate::cli::failure::Failure;

/// Another process may take the port between looking for it and listening on it.
const TRIES: usize = 3;

/// Where a peer says that it is ready.
#[derive(Clone, Copy)]
pub(super) enum Speaks {
    Out,
    Err,
}

/// How a peer is started.
pub(super) struct Recipe {
    pub(super) program: &'static str,
    /// How to get the program.
    pub(super) package: &'static str,
    /// The text of its configuration file, for a port.
    pub(super) configuration: fn(u16, &Path) -> String,
    /// What stands before the configuration file on its command line.
    pub(super) arguments: &'static [&'static str],
    pub(super) speaks: Speaks,
    /// Part of the line that says that it is ready.
    pub(super) ready: &'static str,
}

pub(super) struct Process {
    pub(super) child: Child,
    pub(super) address: SocketAddr,
}

impl Recipe {
    /// Starts it, if it is installed; `peer` says how it is spoken to.
    pub(super) fn start(
        &self,
        directory: &Path,
        peer: impl FnOnce(Process) -> Box<dyn Peer>,
    ) -> Result<Started, Failure> {
        let mut tries = 0;
        loop {
            tries += 1;
            match self.try_start(directory) {
                Ok(process) => return Ok(Started::Peer(peer(process))),
                Err(NotStarted::Missing) => return Ok(Started::Absent(Absent::Missing(self.package))),
                Err(NotStarted::Failed(_)) if tries < TRIES => {}
                Err(NotStarted::Failed(failure)) => return Err(failure),
            }
        }
    }

    fn try_start(&self, directory: &Path) -> Result<Process, NotStarted> {
        let address = free_address()?;
        let file = self.configure(address.port(), directory)?;
        let mut command = Command::new(self.program);
        command.args(self.arguments).arg(file).current_dir(directory).stdin(Stdio::null());
        match self.speaks {
            Speaks::Out => command.stdout(Stdio::piped()).stderr(Stdio::null()),
            Speaks::Err => command.stderr(Stdio::piped()).stdout(Stdio::null()),
        };
        let ready = self.ready;
        let (child, _) = Child::start(self.program, command, move |line| line.contains(ready))?;
        Ok(Process { child, address })
    }

    fn configure(&self, port: u16, directory: &Path) -> Result<PathBuf, Failure> {
        let file = directory.join(format!("{}.conf", self.program));
        std::fs::write(&file, (self.configuration)(port, directory))
            .map_err(|error| failed(format!("cannot write {}: {error}", file.display())))?;
        Ok(file)
    }
}

fn free_address() -> Result<SocketAddr, Failure> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).and_then(|listener| listener.local_addr());
    listener.map_err(|error| failed(format!("no free port: {error}")))
}
