//! The real program as a process: started, killed, stopped and let go on.

use std::fs::File;
use std::io::{BufRead as _, BufReader};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};

use roundtable::ids::{Role, UserId};
use roundtable::token::{Grant, LocalKey, mint};
use rustix::process::{Pid, Signal, kill_process};

/// Where a server lives, running or not.
#[derive(Clone, Debug)]
pub(crate) struct Site {
    home: PathBuf,
    log: PathBuf,
}

/// A running server. Killed when it is dropped.
#[derive(Debug)]
pub(crate) struct Server {
    child: Child,
    pub(crate) address: SocketAddr,
}

impl Site {
    /// Below `home` lie the data and the configuration; what the server logs goes to a file elsewhere, for it must not
    /// be lost with the disk.
    pub(crate) fn new(home: &Path, log: &Path, retention_entries: u64) -> Self {
        let config = format!("retention_entries = {retention_entries}\n");
        std::fs::write(home.join("config.toml"), config).expect("a configuration");
        Self { home: home.to_owned(), log: log.to_owned() }
    }

    fn data(&self) -> PathBuf {
        self.home.join("data")
    }

    /// Starts the server and waits until it listens, or until it has refused to start.
    pub(crate) fn try_start(&self) -> Result<Server, ExitStatus> {
        let mut child = self.spawn();
        let mut line = String::new();
        BufReader::new(child.stdout.take().expect("piped")).read_line(&mut line).expect("text");
        match line.trim_end().strip_prefix("listening on ").and_then(|address| address.parse().ok()) {
            Some(address) => Ok(Server { child, address }),
            None => Err(child.wait().expect("it ends")),
        }
    }

    pub(crate) fn start(&self) -> Server {
        self.try_start().unwrap_or_else(|status| panic!("the server did not start, {status}:\n{}", self.last_words()))
    }

    fn spawn(&self) -> Child {
        let log = File::options().create(true).append(true).open(&self.log).expect("a log");
        let mut command = Command::new(env!("CARGO_BIN_EXE_roundtable"));
        command.args(["serve", "--listen", "127.0.0.1:0", "--segment-mib", "4", "--data"]).arg(self.data());
        command.arg("--config").arg(self.home.join("config.toml"));
        for name in ["SERVER", "TOKEN", "DATA", "CLUSTER"] {
            command.env_remove(format!("ROUNDTABLE_{name}"));
        }
        command.env("ROUNDTABLE_LOG", "warn").stdin(Stdio::null()).stdout(Stdio::piped()).stderr(log);
        command.spawn().expect("serve runs")
    }

    /// Starts one that is to be killed while it opens its data.
    pub(crate) fn begin_start(&self) -> Starting {
        Starting(self.spawn())
    }

    /// The end of what servers logged.
    pub(crate) fn last_words(&self) -> String {
        let text = std::fs::read_to_string(&self.log).unwrap_or_default();
        let lines: Vec<&str> = text.lines().collect();
        lines[lines.len().saturating_sub(20)..].join("\n")
    }

    /// A token of a user; the server has made its key by then.
    pub(crate) fn token(&self, user: &str) -> String {
        let key = LocalKey::open(&self.data().join("keys")).expect("the server made its key");
        let grant = Grant {
            user: UserId::new(user).expect("legal"),
            role: Role::User,
            device: None,
            cluster: "roundtable".to_owned(),
            valid_from_ms: 0,
            expires_at_ms: 4_000_000_000_000,
        };
        mint(&key, &grant)
    }
}

/// A server that may not listen yet. Killed when it is dropped.
#[derive(Debug)]
pub(crate) struct Starting(Child);

impl Drop for Starting {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

impl Server {
    /// SIGKILL.
    pub(crate) fn kill(mut self) {
        self.child.kill().expect("it is killed");
        self.child.wait().expect("it ends");
    }

    /// SIGSTOP.
    pub(crate) fn stop(&self) {
        kill_process(self.pid(), Signal::STOP).expect("it is there");
    }

    /// SIGCONT.
    pub(crate) fn go_on(&self) {
        kill_process(self.pid(), Signal::CONT).expect("it is there");
    }

    /// How it ended, if it did so by itself.
    pub(crate) fn ended(&mut self) -> Option<ExitStatus> {
        self.child.try_wait().expect("a child")
    }

    fn pid(&self) -> Pid {
        i32::try_from(self.child.id()).ok().and_then(Pid::from_raw).expect("a pid")
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
