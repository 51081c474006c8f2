//! A process of our own: started, waited for until it says that it is ready, and killed at the end, whatever happens.

use std::io::{BufRead, BufReader, ErrorKind, Read};
use std::process::{ChildStdin, Command};
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use super::failed;
use crate::cli::failure::Failure;

const PATIENCE: Duration = Duration::from_secs(30);

pub(super) struct Child {
    process: std::process::Child,
}

/// Why there is no process.
pub(super) enum NotStarted {
    /// No program of this name is installed.
    Missing,
    /// Something else.
    Failed(Failure),
}

impl From<NotStarted> for Failure {
    fn from(error: NotStarted) -> Self {
        match error {
            NotStarted::Missing => failed("no such program"),
            NotStarted::Failed(failure) => failure,
        }
    }
}

impl Child {
    /// Starts a command, one of whose outputs is piped, and waits for the line of it that says that it is ready.
    pub(super) fn start(
        name: &'static str,
        command: Command,
        is_ready: impl Fn(&str) -> bool + Send + 'static,
    ) -> Result<(Self, String), NotStarted> {
        let (child, said) = Self::begin(name, command, is_ready)?;
        let line = said.await_ready().map_err(NotStarted::Failed)?;
        Ok((child, line))
    }

    /// The same for one that has to be told something before it can be ready.
    pub(super) fn begin(
        name: &'static str,
        mut command: Command,
        is_ready: impl Fn(&str) -> bool + Send + 'static,
    ) -> Result<(Self, Said), NotStarted> {
        let process = command.spawn().map_err(|error| match error.kind() {
            ErrorKind::NotFound | ErrorKind::PermissionDenied => NotStarted::Missing,
            _ => NotStarted::Failed(failed(format!("{name} does not start: {error}"))),
        })?;
        let mut child = Self { process };
        let output: Option<Box<dyn Read + Send>> = match (child.process.stdout.take(), child.process.stderr.take()) {
            (Some(output), _) => Some(Box::new(output)),
            (None, Some(output)) => Some(Box::new(output)),
            (None, None) => None,
        };
        let output = output.ok_or_else(|| NotStarted::Failed(failed(format!("{name} has no output"))))?;
        let (says, lines) = mpsc::channel();
        // Reads to the end: a pipe that is full would stop the process in the middle of a measurement.
        thread::spawn(move || {
            for line in BufReader::new(output).lines().map_while(Result::ok) {
                let _ = says.send((is_ready(&line), line));
            }
        });
        Ok((child, Said { name, lines }))
    }

    pub(super) fn id(&self) -> u32 {
        self.process.id()
    }

    /// Its standard input, once.
    pub(super) fn input(&mut self) -> Option<ChildStdin> {
        self.process.stdin.take()
    }
}

/// What a process says.
pub(super) struct Said {
    name: &'static str,
    /// Each line, and whether it says that the process is ready.
    lines: mpsc::Receiver<(bool, String)>,
}

impl Said {
    pub(super) fn await_ready(self) -> Result<String, Failure> {
        let mut last = String::new();
        while let Ok((ready, line)) = self.lines.recv_timeout(PATIENCE) {
            if ready {
                return Ok(line);
            }
            last = line;
        }
        Err(failed(format!("{} did not become ready; the last it said: {last}", self.name)))
    }
}

impl Drop for Child {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

impl From<Failure> for NotStarted {
    fn from(failure: Failure) -> Self {
        Self::Failed(failure)
    }
}
