//! The real server over one data directory: started, asked, stopped, killed.

use std::net::SocketAddr;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use roundtable::client::{Client, ConnectOptions};
use roundtable::ids::{Role, UserId};
use roundtable::limits::SEGMENT_BYTES_DEFAULT;

use crate::process::Process;

/// Between two questions whether the index has everything.
const SETTLE_PAUSE: Duration = Duration::from_millis(500);
/// CPU that it may take in such a pause when it does nothing, in microseconds.
const AT_REST_US: f64 = 1_000.0;
/// How long the index may take to have everything, and an answer may wait behind that.
const PATIENCE: Duration = Duration::from_secs(1_800);

/// A server; killed when it is dropped.
pub(crate) struct Server {
    process: Process,
    pub(crate) data: PathBuf,
    pub(crate) started: Instant,
    pub(crate) until_listening: Duration,
}

/// What a server that has folded everything holds, in bytes but for the packets of its journal.
pub(crate) struct Held {
    pub(crate) packets: u64,
    pub(crate) journal: u64,
    pub(crate) index: u64,
    pub(crate) resident: u64,
    pub(crate) private: u64,
}

impl Server {
    /// Starts one on a data directory and waits until it listens.
    pub(crate) fn start(data: &Path) -> Self {
        let started = Instant::now();
        let process = Process::start(data);
        Self { process, data: data.to_owned(), started, until_listening: started.elapsed() }
    }

    pub(crate) fn address(&self) -> SocketAddr {
        self.process.address
    }

    pub(crate) fn process(&self) -> u32 {
        self.process.child.id()
    }

    /// A connection of somebody.
    pub(crate) fn client(&self, name: &str, role: Role) -> Client {
        let token = self.process.token(&UserId::new(name).expect("legal"), role);
        let mut options = ConnectOptions::new(self.address().to_string(), token);
        options.timeout = PATIENCE;
        Client::connect(options).expect("it answers")
    }

    /// CPU of all its threads so far, in microseconds.
    pub(crate) fn cpu_us(&self) -> f64 {
        let threads = std::fs::read_dir(format!("/proc/{}/task", self.process())).expect("it runs").flatten();
        let text = |thread: std::fs::DirEntry| std::fs::read_to_string(thread.path().join("schedstat")).ok();
        let nanoseconds = |text: String| text.split_whitespace().next()?.parse::<f64>().ok();
        threads.filter_map(text).filter_map(nanoseconds).sum::<f64>() / 1e3
    }

    /// Waits until it does nothing: behind a start it makes a segment ready and looks what is to be cleaned.
    pub(crate) fn rest(&self) {
        let mut operator = self.client("root", Role::Operator);
        let begun = Instant::now();
        let mut used = self.cpu_us();
        loop {
            assert!(begun.elapsed() < PATIENCE, "it never rests");
            operator.next_event(Some(SETTLE_PAUSE)).expect("it runs");
            let now_used = self.cpu_us();
            if now_used - used < AT_REST_US {
                return;
            }
            used = now_used;
        }
    }

    /// Written bytes of the journal, as it says itself.
    fn journal_bytes(operator: &mut Client) -> u64 {
        (stat(operator, "journal_segment_count") - 1) * SEGMENT_BYTES_DEFAULT
            + stat(operator, "journal_end_offset_bytes")
    }

    /// Waits until the index has everything on the disk, and says what all of it takes.
    pub(crate) fn settle(&self) -> Held {
        let mut operator = self.client("root", Role::Operator);
        let begun = Instant::now();
        while stat(&mut operator, "index_dirty_bytes") + stat(&mut operator, "index_backlog_bytes") > 0 {
            assert!(begun.elapsed() < PATIENCE, "the index never has everything");
            // This only paces the questions: the index flushes by itself when nothing has come for a while.
            operator.next_event(Some(SETTLE_PAUSE)).expect("it runs");
        }
        Held {
            journal: Self::journal_bytes(&mut operator),
            packets: stat(&mut operator, "journal_indexed_lsn"),
            index: bytes_below(&self.data.join("index")),
            resident: self.memory("status", "VmRSS:"),
            private: self.memory("smaps_rollup", "Private_Dirty:"),
        }
    }

    fn memory(&self, file: &str, name: &str) -> u64 {
        let text = std::fs::read_to_string(format!("/proc/{}/{file}", self.process())).expect("it runs");
        let line = text.lines().find_map(|line| line.strip_prefix(name)).expect("the kernel says it");
        line.trim().trim_end_matches(" kB").parse::<u64>().expect("a number") * 1024
    }

    /// SIGTERM, and waits for the end.
    pub(crate) fn stop(mut self) {
        let process = rustix::process::Pid::from_child(&self.process.child);
        rustix::process::kill_process(process, rustix::process::Signal::TERM).expect("it is there");
        assert!(self.process.child.wait().expect("it ends").success(), "a clean stop");
    }

    /// SIGKILL.
    pub(crate) fn kill(mut self) {
        self.process.child.kill().expect("it is there");
        self.process.child.wait().expect("it ends");
    }
}

fn stat(operator: &mut Client, name: &str) -> u64 {
    let stats = operator.stats().expect("an operator may ask");
    stats.iter().find(|stat| stat.name == name).map(|stat| stat.value).expect("the server counts it")
}

/// Bytes that all files below a directory take on the disk.
fn bytes_below(directory: &Path) -> u64 {
    let items = std::fs::read_dir(directory).expect("a directory").flatten().map(|item| item.path());
    // sled renames and removes files while they are counted.
    items
        .filter_map(|path| Some((std::fs::metadata(&path).ok()?, path)))
        .map(|(metadata, path)| if metadata.is_dir() { bytes_below(&path) } else { metadata.blocks() * 512 })
        .sum()
}
