//! A server in this process, and the clients that talk to it.

use std::net::SocketAddr;
use std::path::Path;
use std::thread::JoinHandle;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use roundtable::client::{Client, ConnectOptions, Event};
use roundtable::ids::{Role, UserId};
use roundtable::net::{Server, ServerOptions, Stopper};
use roundtable::token::{Grant, LocalKey, mint};

/// How long a test waits for what has to come. Only a test that fails waits so long.
pub(crate) const PATIENCE: Duration = Duration::from_secs(30);

pub(crate) fn user(name: &str) -> UserId {
    UserId::new(name).unwrap()
}

/// A server on a thread; stopped cleanly when it is dropped.
pub(crate) struct Running {
    pub(crate) address: SocketAddr,
    pub(crate) directory: tempfile::TempDir,
    stopper: Stopper,
    thread: Option<JoinHandle<Result<(), String>>>,
}

impl Running {
    pub(crate) fn start() -> Self {
        Self::start_with(|_| {})
    }

    /// With options of the test's own.
    pub(crate) fn start_with(change: impl FnOnce(&mut ServerOptions)) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let mut options = ServerOptions {
            segment_bytes: 4 << 20,
            ..ServerOptions::new("127.0.0.1:0".parse().unwrap(), directory.path().join("data"))
        };
        change(&mut options);
        Self::over(Server::start(options).unwrap(), directory)
    }

    /// A server that was started already, on data in this directory.
    pub(crate) fn over(server: Server, directory: tempfile::TempDir) -> Self {
        let (address, stopper) = (server.local_address(), server.stopper());
        let thread = std::thread::spawn(move || server.run());
        Self { address, directory, stopper, thread: Some(thread) }
    }

    pub(crate) fn token(&self, name: &str, role: Role) -> String {
        token(&self.directory.path().join("data"), name, role)
    }

    /// A client that is authenticated and not on line.
    pub(crate) fn connect(&self, name: &str) -> Client {
        let options = ConnectOptions::new(self.address.to_string(), self.token(name, Role::User)).with_device(device());
        Client::connect(options).unwrap()
    }

    /// A client that is on line and was told all that it lacked.
    pub(crate) fn attach(&self, name: &str) -> Client {
        let mut client = self.connect(name);
        client.attach_marks().unwrap();
        loop {
            if matches!(next(&mut client), Event::Ready) {
                return client;
            }
        }
    }

    /// One gauge or counter of the server.
    pub(crate) fn stat(&self, name: &str) -> u64 {
        let options =
            ConnectOptions::new(self.address.to_string(), self.token("root", Role::Operator)).with_device(device());
        let stats = Client::connect(options).unwrap().stats().unwrap();
        stats.iter().find(|stat| stat.name == name).unwrap_or_else(|| panic!("{name} in {stats:?}")).value
    }

    /// Stops it and keeps its data: where they are, and what deletes them in the end.
    pub(crate) fn stop_and_keep(mut self) -> (std::path::PathBuf, tempfile::TempDir) {
        self.stopper.stop();
        self.thread.take().unwrap().join().unwrap().unwrap();
        let directory = std::mem::replace(&mut self.directory, tempfile::tempdir().unwrap());
        (directory.path().join("data"), directory)
    }

    pub(crate) fn stop(mut self) -> Result<(), String> {
        self.stopper.stop();
        self.thread.take().unwrap().join().unwrap()
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.stopper.stop();
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

fn device() -> roundtable::ids::DeviceId {
    roundtable::ids::DeviceId::new("test").unwrap()
}

/// A token of the server's own key.
pub(crate) fn token(data: &Path, name: &str, role: Role) -> String {
    let now_ms = u64::try_from(SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_millis()).unwrap();
    let key = LocalKey::open(&data.join("keys")).unwrap();
    let cluster = "roundtable".to_owned();
    let (valid_from_ms, expires_at_ms) = (now_ms - 1_000, now_ms + 3_600_000);
    mint(&key, &Grant { user: user(name), role, device: None, cluster, valid_from_ms, expires_at_ms })
}

/// The next event, which has to come.
pub(crate) fn next(client: &mut Client) -> Event {
    client.next_event(Some(PATIENCE)).unwrap().expect("an event comes in time")
}

/// A number that the environment gives for a longer run.
pub(crate) fn number_from(name: &str) -> Option<u64> {
    let text = std::env::var(name).ok()?;
    Some(text.parse().unwrap_or_else(|_| panic!("{name} is no number: {text}")))
}
