//! Runs the program: a server on port 0, commands to their end, and commands that go on printing lines.

use std::io::{BufRead, BufReader, Read};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStderr, ChildStdout, Command, Stdio};

use serde_json::Value;

/// The program, without anything of the environment that it listens to.
pub(crate) fn program(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_roundtable"));
    command.args(arguments).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    for name in ["SERVER", "TOKEN", "DATA", "CLUSTER", "LOG"] {
        command.env_remove(format!("ROUNDTABLE_{name}"));
    }
    command
}

/// What a command left behind.
#[derive(Debug)]
pub(crate) struct Outcome {
    pub(crate) code: i32,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

impl Outcome {
    /// The one object that it printed.
    pub(crate) fn object(&self) -> Value {
        assert_eq!(self.code, 0, "{self:?}");
        serde_json::from_str(self.stdout.trim_end()).unwrap_or_else(|_| panic!("one object: {self:?}"))
    }

    /// All objects that it printed.
    pub(crate) fn objects(&self) -> Vec<Value> {
        assert_eq!(self.code, 0, "{self:?}");
        self.stdout.lines().map(|line| serde_json::from_str(line).expect("one object a line")).collect()
    }
}

/// Runs a command to its end.
pub(crate) fn run(arguments: &[&str]) -> Outcome {
    finish(program(arguments))
}

/// The same for a command that was prepared. A server that should not have started is killed, not waited for.
pub(crate) fn finish(mut command: Command) -> Outcome {
    let mut child = command.spawn().expect("the program runs");
    let mut reader = BufReader::new(child.stdout.take().expect("piped"));
    let mut stdout = String::new();
    reader.read_line(&mut stdout).expect("text");
    if stdout.starts_with("listening on") || stdout.starts_with("{\"listening\"") {
        child.kill().expect("it is killed");
        child.wait().expect("it ends");
        panic!("a server started that should not have: {stdout}");
    }
    reader.read_to_string(&mut stdout).expect("text");
    let output = child.wait_with_output().expect("it ends");
    Outcome {
        code: output.status.code().expect("it exits by itself"),
        stdout,
        stderr: String::from_utf8(output.stderr).expect("text"),
    }
}

/// A server that is killed when it is dropped.
pub(crate) struct Server {
    child: Child,
    directory: tempfile::TempDir,
    pub(crate) address: String,
}

impl Server {
    pub(crate) fn start() -> Self {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let (child, address) = spawn(&directory.path().join("data"), "127.0.0.1:0");
        Self { child, directory, address }
    }

    pub(crate) fn data(&self) -> PathBuf {
        self.directory.path().join("data")
    }

    pub(crate) fn process(&self) -> u32 {
        self.child.id()
    }

    /// SIGKILL, then the same directory again.
    pub(crate) fn crash_and_restart(&mut self) {
        self.kill();
        self.restart_at("127.0.0.1:0");
    }

    /// Starts it on the same directory; with the address of before, clients find it again.
    pub(crate) fn restart_at(&mut self, address: &str) {
        (self.child, self.address) = spawn(&self.data(), address);
    }

    pub(crate) fn kill(&mut self) {
        self.child.kill().expect("it is killed");
        self.child.wait().expect("it ends");
    }

    /// Runs a command against it.
    pub(crate) fn run(&self, arguments: &[&str]) -> Outcome {
        finish(self.command(arguments))
    }

    pub(crate) fn command(&self, arguments: &[&str]) -> Command {
        let mut command = program(arguments);
        command.env("ROUNDTABLE_SERVER", &self.address).env("ROUNDTABLE_DATA", self.data());
        command
    }

    /// Starts a `watch` and waits until it says that it is ready.
    pub(crate) fn watch(&self, arguments: &[&str]) -> Watch {
        let mut child = self.command(arguments).spawn().expect("watch runs");
        let mut stderr = BufReader::new(child.stderr.take().expect("piped"));
        let mut line = String::new();
        stderr.read_line(&mut line).expect("a line");
        assert!(line.contains("ready"), "{line}");
        let stdout = BufReader::new(child.stdout.take().expect("piped"));
        Watch { child, stdout, stderr }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn spawn(data: &Path, address: &str) -> (Child, String) {
    let data = data.to_str().expect("a plain path");
    let mut command = program(&["serve", "--listen", address, "--segment-mib", "4", "--data", data]);
    let mut child = command.stderr(Stdio::inherit()).env("ROUNDTABLE_LOG", "error").spawn().expect("serve runs");
    let mut line = String::new();
    BufReader::new(child.stdout.take().expect("piped")).read_line(&mut line).expect("a line");
    let address = line.trim_end().strip_prefix("listening on ").unwrap_or_else(|| panic!("no server: {line:?}"));
    (child, address.to_owned())
}

/// A `watch` that runs.
pub(crate) struct Watch {
    child: Child,
    stdout: BufReader<ChildStdout>,
    stderr: BufReader<ChildStderr>,
}

impl Watch {
    /// The next line, as an object.
    pub(crate) fn next(&mut self) -> Value {
        let mut line = String::new();
        self.stdout.read_line(&mut line).expect("a line");
        serde_json::from_str(&line).unwrap_or_else(|_| panic!("an object: {line:?}"))
    }

    /// Waits until it ends by itself.
    pub(crate) fn finish(&mut self) -> Outcome {
        let code = self.child.wait().expect("it ends").code().expect("by itself");
        let (mut stdout, mut stderr) = (String::new(), String::new());
        self.stdout.read_to_string(&mut stdout).expect("text");
        self.stderr.read_to_string(&mut stderr).expect("text");
        Outcome { code, stdout, stderr }
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
