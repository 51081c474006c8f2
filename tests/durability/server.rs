//! The server as a process: started, killed, asked to stop, refused.

use std::io::{BufRead, BufReader, Read};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use roundtable::client::{Client, ClientError, ConnectOptions, RetryPolicy};
use roundtable::ids::{DeviceId, Role, UserId};
use roundtable::token::{Grant, LocalKey, mint};

/// How long anything may take before a test gives up.
pub(crate) const PATIENCE: Duration = Duration::from_secs(30);
const CLUSTER: &str = "roundtable";

/// A running server. Killed when it is dropped.
#[derive(Debug)]
pub(crate) struct Server {
    child: Child,
    pub(crate) address: String,
    data: PathBuf,
}

/// A start that came to nothing.
#[derive(Debug)]
pub(crate) struct Refused {
    pub(crate) code: Option<i32>,
    pub(crate) stderr: String,
}

impl Server {
    /// Starts one and waits until it listens.
    pub(crate) fn start(data: &Path) -> Self {
        Self::try_start(data).unwrap_or_else(|refused| panic!("the server did not start: {refused:?}"))
    }

    /// The same where it may be refused.
    pub(crate) fn try_start(data: &Path) -> Result<Self, Refused> {
        Self::try_start_at(data, "127.0.0.1:0")
    }

    /// Starts one at an address that its clients know already.
    pub(crate) fn start_at(data: &Path, address: &str) -> Self {
        Self::try_start_at(data, address).unwrap_or_else(|refused| panic!("the server did not start: {refused:?}"))
    }

    fn try_start_at(data: &Path, address: &str) -> Result<Self, Refused> {
        Self::announced(Self::spawn(data, address), data)
    }

    /// Starts one in an environment of its own.
    pub(crate) fn try_start_under(data: &Path, environment: &[(&str, &Path)]) -> Result<Self, Refused> {
        let mut command = Self::command(data, "127.0.0.1:0");
        let child = command.envs(environment.iter().copied()).spawn().expect("serve runs");
        Self::announced(child, data)
    }

    /// Waits until it listens.
    fn announced(mut child: Child, data: &Path) -> Result<Self, Refused> {
        let mut line = String::new();
        BufReader::new(child.stdout.take().expect("piped")).read_line(&mut line).expect("text");
        let Some(address) = line.trim_end().strip_prefix("listening on ") else {
            let mut stderr = String::new();
            child.stderr.take().expect("piped").read_to_string(&mut stderr).expect("text");
            return Err(Refused { code: child.wait().expect("it ends").code(), stderr });
        };
        // Nobody reads on; the server says errors only, and few of them.
        let address = address.to_owned();
        Ok(Self { child, address, data: data.to_owned() })
    }

    /// Starts one and kills it while it opens its data, after a while that the caller has chosen at random.
    pub(crate) fn start_and_kill(data: &Path, after: Duration) {
        let mut child = Self::spawn(data, "127.0.0.1:0");
        spin(after);
        child.kill().expect("it is killed");
        child.wait().expect("it ends");
    }

    pub(crate) fn spawn(data: &Path, address: &str) -> Child {
        Self::command(data, address).spawn().expect("serve runs")
    }

    fn command(data: &Path, address: &str) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_roundtable"));
        command.args(["serve", "--listen", address, "--segment-mib", "4", "--data"]).arg(data);
        for name in ["SERVER", "TOKEN", "DATA", "CLUSTER"] {
            command.env_remove(format!("ROUNDTABLE_{name}"));
        }
        command.env("ROUNDTABLE_LOG", "off").stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        command
    }

    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// SIGKILL.
    pub(crate) fn kill(self) {
        self.kill_and(|| {});
    }

    /// SIGKILL, and something that has to happen before it can end.
    pub(crate) fn kill_and(mut self, then: impl FnOnce()) {
        self.child.kill().expect("it is killed");
        then();
        self.child.wait().expect("it ends");
    }

    /// SIGTERM; gives how it ended and how long that took.
    pub(crate) fn terminate(mut self) -> (ExitStatus, Duration) {
        let from = Instant::now();
        self.signal(rustix::process::Signal::TERM);
        let status = self.child.wait().expect("it ends");
        (status, from.elapsed())
    }

    pub(crate) fn signal(&self, signal: rustix::process::Signal) {
        let pid = i32::try_from(self.child.id()).ok().and_then(rustix::process::Pid::from_raw).expect("a pid");
        rustix::process::kill_process(pid, signal).expect("it is there");
    }

    /// Waits until it has ended by itself; gives how, or nothing if it was still there after a while.
    pub(crate) fn wait_until_it_ends(mut self) -> Option<Refused> {
        let mut stderr = self.child.stderr.take().expect("piped");
        let (sender, ended) = std::sync::mpsc::channel();
        std::thread::spawn(move || {
            let mut text = String::new();
            // The pipe ends with the process.
            let _ = stderr.read_to_string(&mut text);
            let _ = sender.send(text);
        });
        let stderr = ended.recv_timeout(PATIENCE).ok()?;
        Some(Refused { code: self.child.wait().expect("it ends").code(), stderr })
    }

    /// Connects as a user.
    pub(crate) fn connect(&self, user: &UserId, device: &str) -> Result<Client, ClientError> {
        Client::connect(self.options(user, device))
    }

    pub(crate) fn options(&self, user: &UserId, device: &str) -> ConnectOptions {
        // What has no answer is to be seen as that: the test says it again by itself.
        let mut options = ConnectOptions::new(self.address.clone(), token(&self.data, user))
            .with_device(DeviceId::new(device).expect("a legal name"))
            .with_retry(RetryPolicy::NONE);
        options.timeout = PATIENCE;
        options
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn token(data: &Path, user: &UserId) -> String {
    let key = LocalKey::open(&data.join("keys")).expect("the server made its key");
    let grant = Grant {
        user: user.clone(),
        role: Role::User,
        device: None,
        cluster: CLUSTER.to_owned(),
        valid_from_ms: 0,
        expires_at_ms: 4_000_000_000_000,
    };
    mint(&key, &grant)
}

/// A wait that is a fault's moment, not synchronisation: finer than the scheduler's for short ones.
pub(crate) fn spin(time: Duration) {
    let from = Instant::now();
    while from.elapsed() < time {
        std::hint::spin_loop();
        if time > Duration::from_millis(2) {
            std::thread::yield_now();
        }
    }
}

/// Bytes that all files below a directory take on the disk.
pub(crate) fn bytes_below(directory: &Path) -> u64 {
    let inside = std::fs::read_dir(directory).expect("a directory");
    let bytes = inside.map(|item| {
        let path = item.expect("an item").path();
        if path.is_dir() { bytes_below(&path) } else { path.metadata().map_or(0, |metadata| metadata.blocks() * 512) }
    });
    bytes.sum()
}

/// Copies a directory with everything in it.
pub(crate) fn copy(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).expect("a directory");
    for item in std::fs::read_dir(from).expect("a directory") {
        let path = item.expect("an item").path();
        let target = to.join(path.file_name().expect("a name"));
        if path.is_dir() {
            copy(&path, &target);
        } else {
            std::fs::copy(&path, &target).expect("it is copied");
        }
    }
}

/// The segments of the journal, oldest first.
pub(crate) fn segments(data: &Path) -> Vec<PathBuf> {
    let inside = std::fs::read_dir(data.join("journal")).expect("a journal");
    let mut paths: Vec<PathBuf> = inside.map(|item| item.expect("an item").path()).collect();
    paths.retain(|path| path.extension().is_some_and(|extension| extension == "seg"));
    paths.sort();
    paths
}
