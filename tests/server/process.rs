//! The server as a process of its own: its memory is its own, and it can be killed.

use std::fs::File;
use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use roundtable::ids::Role;

use crate::support::token;

/// The real program, serving. Killed when it is dropped.
pub(crate) struct Process {
    child: Child,
    pub(crate) address: SocketAddr,
    data: PathBuf,
    /// When it was started, and how long it took until it listened: until then it opens the index and the journal, and
    /// what it answers behind that waits for the index to catch up with the journal.
    pub(crate) started: Instant,
    pub(crate) until_listening: Duration,
}

impl Process {
    /// Starts one on `home/data` and waits until it listens. What it logs goes to `home/log`.
    pub(crate) fn start(home: &Path) -> Self {
        let data = home.join("data");
        let log = File::options().create(true).append(true).open(home.join("log")).unwrap();
        let mut command = Command::new(env!("CARGO_BIN_EXE_roundtable"));
        command.args(["serve", "--listen", "127.0.0.1:0", "--data"]).arg(&data);
        for name in ["SERVER", "TOKEN", "DATA", "CLUSTER"] {
            command.env_remove(format!("ROUNDTABLE_{name}"));
        }
        command.env("ROUNDTABLE_LOG", "info").stdin(Stdio::null()).stdout(Stdio::piped()).stderr(log);
        let started = Instant::now();
        let mut child = command.spawn().unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
        let until_listening = started.elapsed();
        let address = line.trim_end().strip_prefix("listening on ").and_then(|address| address.parse().ok());
        let address = address.unwrap_or_else(|| panic!("the server did not start: see {}", home.join("log").display()));
        Self { child, address, data, started, until_listening }
    }

    pub(crate) fn token(&self, name: &str, role: Role) -> String {
        token(&self.data, name, role)
    }

    /// SIGKILL.
    pub(crate) fn kill(mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    /// SIGTERM; gives how it ended and how long that took.
    pub(crate) fn terminate(mut self) -> (ExitStatus, Duration) {
        let from = Instant::now();
        let pid = i32::try_from(self.child.id()).ok().and_then(rustix::process::Pid::from_raw).unwrap();
        rustix::process::kill_process(pid, rustix::process::Signal::TERM).unwrap();
        let status = self.child.wait().unwrap();
        (status, from.elapsed())
    }

    /// Memory that it has now.
    pub(crate) fn memory_bytes(&self) -> u64 {
        self.status_bytes("VmRSS")
    }

    /// The most that it ever had.
    pub(crate) fn memory_bytes_peak(&self) -> u64 {
        self.status_bytes("VmHWM")
    }

    fn status_bytes(&self, name: &str) -> u64 {
        let text = std::fs::read_to_string(format!("/proc/{}/status", self.child.id())).unwrap();
        let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':')).unwrap();
        line.trim().trim_end_matches(" kB").parse::<u64>().unwrap() * 1024
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Bytes that all files below a directory take on the disk.
pub(crate) fn bytes_below(directory: &Path) -> u64 {
    let items = std::fs::read_dir(directory).unwrap().map(|item| item.unwrap().path());
    // sled and the journal rename and remove files while they are counted.
    items
        .filter_map(|path| Some((std::fs::metadata(&path).ok()?, path)))
        .map(|(metadata, path)| if metadata.is_dir() { bytes_below(&path) } else { metadata.blocks() * 512 })
        .sum()
}
