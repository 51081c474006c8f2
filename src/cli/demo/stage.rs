//! What the demo plays on: a server in a process of its own, over a directory that is gone afterwards.

use std::io::{BufRead, BufReader};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use roundtable::client::{Client, ClientError, ConnectOptions, Event};
use roundtable::config::CLUSTER_DEFAULT;
use roundtable::ids::{Role, UserId};
use roundtable::token::{LocalKey, mint};

use super::super::connect::{KeyArgs, grant};
use super::super::failure::{Exit, Failure};

const PATIENCE: Duration = Duration::from_secs(5);
const TOKEN_TTL: Duration = Duration::from_secs(300);

/// Something was not as the demo promises.
pub(super) fn unexpected(what: impl std::fmt::Display) -> Failure {
    Failure::new(Exit::Refused, "DEMO_FAILED", format!("the demo did not go as it should: {what}"))
}

/// Fails unless the two are equal; `promise` says what should be.
pub(super) fn expect_same<T: PartialEq + ?Sized>(seen: &T, promised: &T, promise: &str) -> Result<(), Failure> {
    if seen == promised { Ok(()) } else { Err(unexpected(promise)) }
}

/// A running server and its directory. Dropping it kills the one and removes the other.
pub(super) struct Stage {
    directory: tempfile::TempDir,
    server: Child,
    address: String,
}

impl Stage {
    pub(super) fn open() -> Result<Self, Failure> {
        let directory = tempfile::tempdir().map_err(|error| unexpected(format!("no temporary directory: {error}")))?;
        let (server, address) = start(&directory.path().join("data"))?;
        Ok(Self { directory, server, address })
    }

    pub(super) fn address(&self) -> &str {
        &self.address
    }

    pub(super) fn process(&self) -> u32 {
        self.server.id()
    }

    pub(super) fn data(&self) -> PathBuf {
        self.directory.path().join("data")
    }

    /// Kills the server with SIGKILL: it has no chance to write anything more.
    pub(super) fn kill(&mut self) -> Result<(), Failure> {
        self.server.kill().and_then(|()| self.server.wait()).map(|_| ()).map_err(unexpected)
    }

    /// Starts it again on the same directory.
    pub(super) fn restart(&mut self) -> Result<(), Failure> {
        (self.server, self.address) = start(&self.data())?;
        Ok(())
    }

    /// Connects a user, without going on line.
    pub(super) fn connect(&self, name: &str) -> Result<Client, Failure> {
        let key = KeyArgs { data: self.data(), cluster: CLUSTER_DEFAULT.to_owned() };
        let local = LocalKey::open(&key.data.join("keys")).map_err(unexpected)?;
        let user = UserId::new(name).map_err(unexpected)?;
        let token = mint(&local, &grant(&key, user, Role::User, None, TOKEN_TTL));
        let mut options = ConnectOptions::new(&self.address, token);
        options.timeout = PATIENCE;
        Client::connect(options).map_err(broken)
    }

    /// Connects a user and goes on line.
    pub(super) fn enter(&self, name: &str) -> Result<Client, Failure> {
        let mut client = self.connect(name)?;
        client.attach_marks().map_err(broken)?;
        Ok(client)
    }
}

impl Drop for Stage {
    fn drop(&mut self) {
        let _ = self.server.kill();
        let _ = self.server.wait();
    }
}

/// Any failure of a client is one of the demo.
pub(super) fn broken(error: ClientError) -> Failure {
    unexpected(error)
}

/// The next event of a client that is not `Ready`.
pub(super) fn next(client: &mut Client) -> Result<Event, Failure> {
    loop {
        match client.next_event(Some(PATIENCE)).map_err(broken)? {
            Some(Event::Ready | Event::Behind { .. }) => {}
            Some(event) => return Ok(event),
            None => return Err(unexpected(format!("{} was told nothing", client.user()))),
        }
    }
}

/// Waits until a client has been told all that it lacked.
pub(super) fn await_ready(client: &mut Client) -> Result<(), Failure> {
    match client.next_event(Some(PATIENCE)).map_err(broken)? {
        Some(Event::Ready) => Ok(()),
        other => Err(unexpected(format!("{} should be ready, but got {other:?}", client.user()))),
    }
}

fn start(data: &std::path::Path) -> Result<(Child, String), Failure> {
    let program = std::env::current_exe().map_err(unexpected)?;
    let mut server = Command::new(program)
        .args(["serve", "--listen", "127.0.0.1:0", "--segment-mib", "4", "--cluster", CLUSTER_DEFAULT, "--data"])
        .arg(data)
        .env("ROUNDTABLE_LOG", "error")
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .spawn()
        .map_err(|error| unexpected(format!("no server: {error}")))?;
    let mut line = String::new();
    if let Some(stdout) = server.stdout.take() {
        BufReader::new(stdout).read_line(&mut line).map_err(unexpected)?;
    }
    if let Some(address) = line.trim_end().strip_prefix("listening on ") {
        return Ok((server, address.to_owned()));
    }
    let _ = server.kill();
    let _ = server.wait();
    Err(unexpected("the server did not start"))
}
