//! The program as its users run it, and a server of it.

use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{SystemTime, UNIX_EPOCH};

use roundtable::ids::{Role, UserId};
use roundtable::token::{Grant, LocalKey, mint};

const CLUSTER: &str = "roundtable";
const TOKEN_MS: u64 = 12 * 3_600_000;

/// A server on a port of its own; killed when it is dropped.
pub(crate) struct Process {
    pub(crate) child: Child,
    pub(crate) address: SocketAddr,
    key: LocalKey,
}

impl Process {
    /// Starts one on a data directory, and waits until it listens.
    pub(crate) fn start(data: &Path) -> Self {
        let mut command = program();
        command.args(["serve", "--listen", "127.0.0.1:0", "--data"]).arg(data).env("ROUNDTABLE_LOG", "error");
        let mut child = command.stdout(Stdio::piped()).spawn().expect("the server starts");
        let mut line = String::new();
        BufReader::new(child.stdout.take().expect("piped")).read_line(&mut line).expect("it says where it listens");
        let address = line.trim().rsplit(' ').next().and_then(|text| text.parse().ok()).expect("an address");
        let key = LocalKey::open(&data.join("keys")).expect("the server made its key");
        Self { child, address, key }
    }

    /// A token for somebody, by the server's own key.
    pub(crate) fn token(&self, user: &UserId, role: Role) -> String {
        let now_ms = SystemTime::now().duration_since(UNIX_EPOCH).expect("after 1970").as_secs() * 1_000;
        let grant = Grant {
            user: user.clone(),
            role,
            device: None,
            cluster: CLUSTER.to_owned(),
            valid_from_ms: now_ms - 1_000,
            expires_at_ms: now_ms + TOKEN_MS,
        };
        mint(&self.key, &grant)
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The program, told nothing by the environment.
pub(crate) fn program() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_roundtable"));
    for name in ["SERVER", "TOKEN", "DATA", "CLUSTER"] {
        command.env_remove(format!("ROUNDTABLE_{name}"));
    }
    command.stdin(Stdio::null());
    command
}
