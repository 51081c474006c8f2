//! A data directory with content in four segments, what is in it, and servers on copies of it.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Read};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::OnceLock;
use std::time::Duration;

use roundtable::client::{Client, ConnectOptions};
use roundtable::ids::{GroupId, Role, UserId};
use roundtable::token::{Grant, LocalKey, mint};
use roundtable::wire::{LogEntry, Mark};
use serde_json::Value;

/// How long anything may take before a test gives up.
const PATIENCE: Duration = Duration::from_secs(60);
/// Everybody is in every group.
pub(crate) const ALICE: &str = "alice";
pub(crate) const BOB: &str = "bob";

/// The whole logs of all groups.
pub(crate) type Logs = BTreeMap<GroupId, Vec<LogEntry>>;

/// The directory that all tests copy, with what is in it.
pub(crate) struct Site {
    directory: tempfile::TempDir,
    pub(crate) logs: Logs,
}

/// Made once in a run.
pub(crate) fn site() -> &'static Site {
    static SITE: OnceLock<Site> = OnceLock::new();
    SITE.get_or_init(Site::make)
}

impl Site {
    fn make() -> Self {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let data = directory.path().join("data");
        let server = Server::start(&data);
        let mut alice = server.connect(ALICE, Role::User);
        fill(&mut alice);
        let logs = server.logs();
        server.stop();
        assert!(segments(&data).len() >= 4, "the journal has several segments");
        Self { directory, logs }
    }

    pub(crate) fn data(&self) -> PathBuf {
        self.directory.path().join("data")
    }

    /// A copy of its own.
    pub(crate) fn copy(&self) -> (tempfile::TempDir, PathBuf) {
        let copy = tempfile::tempdir().expect("a temporary directory");
        let data = copy.path().join("data");
        copy_tree(&self.data(), &data);
        (copy, data)
    }
}

/// Groups that live in the beginning, all the time, and at the end: messages of all sizes, one after the other.
fn fill(alice: &mut Client) {
    let bob = [user(BOB)];
    let create = |alice: &mut Client, title: &str| alice.create(title, &bob).expect("created").group;
    let mut groups = vec![create(alice, "early"), create(alice, "always"), create(alice, "always too")];
    for number in 0_usize..500 {
        if number == 80 {
            groups.remove(0);
        }
        if number == 450 {
            groups.push(create(alice, "late"));
        }
        let group = groups[number % groups.len()];
        let body = vec![u8::try_from(number % 251).expect("small"); [20, 60_000, 48_000, 1][number % 4]];
        let seq = alice.send(group, body).expect("sent").seq;
        if number % 10 == 0 {
            alice.acknowledge(&[Mark { group, received: seq, read: seq }]).expect("acknowledged");
        }
    }
    alice.ping().expect("it has taken everything");
}

pub(crate) fn user(name: &str) -> UserId {
    UserId::new(name).expect("a legal name")
}

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
    /// All objects that it printed, whatever its exit code.
    pub(crate) fn objects(&self) -> Vec<Value> {
        self.stdout.lines().map(|line| serde_json::from_str(line).expect("one object a line")).collect()
    }
}

/// Runs a command on a data directory to its end.
pub(crate) fn run(data: &Path, arguments: &[&str]) -> Outcome {
    finish(program(arguments).arg("--data").arg(data))
}

/// Runs a command to its end.
pub(crate) fn finish(command: &mut Command) -> Outcome {
    let output = command.output().expect("the program runs");
    Outcome {
        code: output.status.code().expect("it exits by itself"),
        stdout: String::from_utf8(output.stdout).expect("text"),
        stderr: String::from_utf8(output.stderr).expect("text"),
    }
}

/// A running server; killed when it is dropped.
pub(crate) struct Server {
    child: Child,
    pub(crate) address: String,
    data: PathBuf,
}

impl Server {
    pub(crate) fn start(data: &Path) -> Self {
        Self::try_start(data).unwrap_or_else(|refused| panic!("it did not start: {refused:?}"))
    }

    /// Starts one, or says why it did not start.
    pub(crate) fn try_start(data: &Path) -> Result<Self, Outcome> {
        Self::try_start_with(data, &[])
    }

    /// The same with more arguments.
    pub(crate) fn try_start_with(data: &Path, arguments: &[&str]) -> Result<Self, Outcome> {
        let mut command = program(&["serve", "--listen", "127.0.0.1:0", "--segment-mib", "4", "--data"]);
        let mut child = command.arg(data).args(arguments).env("ROUNDTABLE_LOG", "off").spawn().expect("serve runs");
        let mut line = String::new();
        BufReader::new(child.stdout.take().expect("piped")).read_line(&mut line).expect("text");
        if let Some(address) = line.trim_end().strip_prefix("listening on ") {
            return Ok(Self { child, address: address.to_owned(), data: data.to_owned() });
        }
        let mut stderr = String::new();
        child.stderr.take().expect("piped").read_to_string(&mut stderr).expect("text");
        let code = child.wait().expect("it ends").code().expect("by itself");
        Err(Outcome { code, stdout: line, stderr })
    }

    pub(crate) fn connect(&self, name: &str, role: Role) -> Client {
        let mut options = ConnectOptions::new(self.address.clone(), token(&self.data, name, role));
        options.timeout = PATIENCE;
        Client::connect(options).expect("it takes a client")
    }

    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// The whole logs of all groups that bob is in.
    pub(crate) fn logs(&self) -> Logs {
        let mut bob = self.connect(BOB, Role::User);
        let groups = bob.list_groups().expect("listed");
        groups.into_iter().map(|summary| (summary.group, log(&mut bob, summary.group))).collect()
    }

    /// SIGKILL.
    pub(crate) fn kill(&mut self) {
        self.child.kill().expect("it is there");
        self.child.wait().expect("it ends");
    }

    /// Waits for its end, by itself.
    pub(crate) fn outcome(mut self) -> Outcome {
        let mut stderr = String::new();
        self.child.stderr.take().expect("piped").read_to_string(&mut stderr).expect("text");
        let code = self.child.wait().expect("it ends").code().expect("by itself");
        Outcome { code, stdout: String::new(), stderr }
    }

    /// SIGTERM; waits for the end.
    pub(crate) fn stop(mut self) {
        let pid = i32::try_from(self.child.id()).ok().and_then(rustix::process::Pid::from_raw).expect("a pid");
        rustix::process::kill_process(pid, rustix::process::Signal::TERM).expect("it is there");
        assert_eq!(self.child.wait().expect("it ends").code(), Some(0));
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn log(client: &mut Client, group: GroupId) -> Vec<LogEntry> {
    let mut entries: Vec<LogEntry> = Vec::new();
    loop {
        let part = client.history(group, entries.len() as u64 + 1, 0).expect("its log");
        entries.extend(part.entries);
        if entries.len() as u64 == part.head {
            return entries;
        }
    }
}

pub(crate) fn token(data: &Path, name: &str, role: Role) -> String {
    let key = LocalKey::open(&data.join("keys")).expect("the server made its key");
    let grant = Grant {
        user: user(name),
        role,
        device: None,
        cluster: "roundtable".to_owned(),
        valid_from_ms: 0,
        expires_at_ms: 4_000_000_000_000,
    };
    mint(&key, &grant)
}

/// The segments of a journal, oldest first.
pub(crate) fn segments(data: &Path) -> Vec<PathBuf> {
    let inside = std::fs::read_dir(data.join("journal")).expect("a journal");
    let mut paths: Vec<PathBuf> = inside.map(|item| item.expect("an item").path()).collect();
    paths.retain(|path| path.extension().is_some_and(|extension| extension == "seg"));
    paths.sort();
    paths
}

pub(crate) fn copy_tree(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).expect("a directory");
    for item in std::fs::read_dir(from).expect("a directory") {
        let item = item.expect("an item");
        let target = to.join(item.file_name());
        if item.file_type().expect("a type").is_dir() {
            copy_tree(&item.path(), &target);
        } else {
            std::fs::copy(item.path(), &target).expect("it copies");
        }
    }
}

/// Every file below a directory with its bytes, but for `LOCK`.
pub(crate) fn tree(directory: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    let mut files = BTreeMap::new();
    let mut left = vec![directory.to_owned()];
    while let Some(next) = left.pop() {
        for item in std::fs::read_dir(&next).expect("a directory") {
            let path = item.expect("an item").path();
            if path.is_dir() {
                left.push(path);
            } else if !path.ends_with("LOCK") {
                let bytes = std::fs::read(&path).expect("it reads");
                files.insert(path.strip_prefix(directory).expect("below").to_owned(), bytes);
            }
        }
    }
    files
}

/// Whether there is any segment.
pub(crate) fn has_segments(data: &Path) -> bool {
    data.join("journal").is_dir() && !segments(data).is_empty()
}
