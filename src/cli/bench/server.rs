//! The roundtable server under load: a throw-away one in a process of its own, or one that runs already.

use std::net::{SocketAddr, ToSocketAddrs};
use std::path::Path;
use std::process::{Command, Stdio};

use roundtable::config::CLUSTER_DEFAULT;
use roundtable::token::LocalKey;

use super::child::Child;
use super::failed;
use super::options::ServerOptions;
use crate::cli::connect::KeyArgs;
use crate::cli::failure::{Exit, Failure};

pub(super) struct Server {
    address: SocketAddr,
    process: Option<u32>,
    key: KeyArgs,
    /// Killed when this is dropped; none if it was there before.
    _child: Option<Child>,
}

impl Server {
    /// The one that is named, or else a new one whose data are below `directory`.
    pub(super) fn open(options: &ServerOptions, directory: &Path) -> Result<Self, Failure> {
        match &options.server {
            Some(name) => Self::running(name, options),
            None => Self::throw_away(&directory.join("roundtable")),
        }
    }

    /// One that runs already.
    pub(super) fn running(name: &str, options: &ServerOptions) -> Result<Self, Failure> {
        let resolved = name.to_socket_addrs().ok().and_then(|mut addresses| addresses.next());
        let address =
            resolved.ok_or_else(|| Failure::usage(format!("--server {name} is no address: say HOST:PORT")))?;
        Ok(Self { address, process: options.server_pid, key: options.key.clone(), _child: None })
    }

    fn throw_away(data: &Path) -> Result<Self, Failure> {
        let program = std::env::current_exe().map_err(|error| failed(format!("where is this program? {error}")))?;
        let mut command = Command::new(program);
        command
            .args(["serve", "--listen", "127.0.0.1:0", "--cluster", CLUSTER_DEFAULT, "--data"])
            .arg(data)
            .env("ROUNDTABLE_LOG", "error")
            .stdin(Stdio::null())
            .stdout(Stdio::piped());
        let (child, line) = Child::start("roundtable", command, |line| line.starts_with("listening on "))?;
        let address = line.trim().rsplit(' ').next().and_then(|text| text.parse().ok());
        let address = address.ok_or_else(|| failed(format!("the server says no address: {line}")))?;
        let key = KeyArgs { data: data.to_owned(), cluster: CLUSTER_DEFAULT.to_owned() };
        Ok(Self { address, process: Some(child.id()), key, _child: Some(child) })
    }

    pub(super) fn address(&self) -> SocketAddr {
        self.address
    }

    pub(super) fn process(&self) -> Option<u32> {
        self.process
    }

    /// The key that makes tokens for all its users.
    pub(super) fn key(&self) -> Result<(LocalKey, KeyArgs), Failure> {
        let key = LocalKey::open(&self.key.data.join("keys")).map_err(|error| {
            let place = self.key.data.display();
            let message = format!(
                "no key in {place} to make tokens with ({error}): a load needs many users, so name the server's data \
                 directory with --data"
            );
            Failure::new(Exit::Usage, "NO_TOKEN", message)
        })?;
        Ok((key, self.key.clone()))
    }
}
