//! A process of our own: started, waited for until it says that it is ready, and killed at the end, whatever happens.

use std::io::{BufRead, BufReader, ErrorKind, Read, Write};
use std::process::{ChildStdin, Command, Stdio};
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use serde::Serialize;

use super::failed;
use crate::cli::failure::Failure;

/// How long a process may say nothing before it is ready.
pub(super) const PATIENCE: Duration = Duration::from_secs(30);

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
        let line = said.await_ready(PATIENCE).map_err(NotStarted::Failed)?;
        Ok((child, line))
    }

    /// The same for one that has to be told something before it can be ready.
    fn begin(
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

    /// This program once more, as a hidden command of `bench` that reads a plan as the first line of its input, and
    /// lives for as long as that is open.
    pub(super) fn own(
        command: &'static str,
        plan: &impl Serialize,
        is_ready: impl Fn(&str) -> bool + Send + 'static,
    ) -> Result<(Self, ChildStdin, Said), Failure> {
        let program = std::env::current_exe().map_err(|error| failed(format!("where is this program? {error}")))?;
        let mut line = serde_json::to_string(plan).map_err(|error| failed(error.to_string()))?;
        line.push('\n');
        let mut process = Command::new(program);
        process.args(["bench", command]).stdin(Stdio::piped()).stdout(Stdio::piped());
        let (mut child, said) = Self::begin(command, process, is_ready)?;
        let mut input = child.input().ok_or_else(|| failed(format!("{command} has no input")))?;
        input.write_all(line.as_bytes()).map_err(|error| failed(format!("{command} reads nothing: {error}")))?;
        Ok((child, input, said))
    }

    pub(super) fn id(&self) -> u32 {
        self.process.id()
    }

    /// Its standard input, once.
    fn input(&mut self) -> Option<ChildStdin> {
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
    /// The next line that says that it is ready.
    pub(super) fn await_ready(&self, patience: Duration) -> Result<String, Failure> {
        let mut last = String::new();
        while let Ok((ready, line)) = self.lines.recv_timeout(patience) {
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
