//! The mio loop: owns every socket and the hub, never touches the disk, and blocks only in `poll`.
//!
//! It moves bytes and knows no message. One turn: take what happened (readiness, storage, signals), read each ready
//! connection once, let the hub think, hand its requests to storage, write each connection with output once, close
//! what is to be closed. A connection that has more than one read's worth waits for the next turn, so one peer cannot
//! hold up the others; nothing is polled while nothing happens.

mod listener;
mod peer;
mod signals;
mod standstill;
mod transport;
mod turn;

use std::fmt;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use mio::{Poll, Token, Waker};
use rand::RngCore;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

pub use crate::hub::Policy;
use crate::hub::{Authenticator, Hub, Seed};
use crate::ids::{Identity, TokenError};
use crate::store::{GroupQuota, OpenError, Retention, Storage, StorageOptions};
use crate::token::{KeyError, LocalKey, Verifier};
use listener::Listener;
use turn::{Clock, Loop};

const LISTENER: Token = Token(0);
const WAKER: Token = Token(1);
const SIGNALS: Token = Token(2);
/// Connections have the tokens from here on, by slot.
const FIRST_PEER: usize = 3;

/// What a server needs to know.
#[derive(Clone, Debug)]
pub struct ServerOptions {
    /// Where it listens; port 0 lets the system choose.
    pub listen: SocketAddr,
    /// The data directory; made if it is missing.
    pub data: PathBuf,
    /// The cluster's name, which tokens must carry.
    pub cluster: String,
    /// Bytes of a journal segment, for a directory that is made new.
    pub segment_bytes: u64,
    /// Who may make groups and add members.
    pub policy: Policy,
    /// How much of each group's log is kept.
    pub retention: Retention,
    /// In how many groups users may be.
    pub quota: GroupQuota,
}

impl ServerOptions {
    /// What is usual, but for where it listens and where its data are.
    pub fn new(listen: SocketAddr, data: PathBuf) -> Self {
        let cluster = crate::config::CLUSTER_DEFAULT.to_owned();
        let segment_bytes = crate::limits::SEGMENT_BYTES_DEFAULT;
        let (policy, retention, quota) = (Policy::default(), Retention::default(), GroupQuota::default());
        Self { listen, data, cluster, segment_bytes, policy, retention, quota }
    }
}

/// Why a server did not start. Nothing was changed.
#[derive(Debug)]
pub enum StartError {
    /// The data directory cannot be opened.
    Storage(OpenError),
    /// The local key can neither be read nor made.
    Key(KeyError),
    /// The address cannot be listened on.
    Listen(SocketAddr, std::io::Error),
    /// The system refuses something that every server needs.
    System(std::io::Error),
}

impl StartError {
    /// Whether data is damaged, so that starting again changes nothing.
    pub fn is_damage(&self) -> bool {
        matches!(self, Self::Storage(error) if error.is_damage())
    }
}

impl StartError {
    /// The name that scripts see; `docs/protocol.md` has the table.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Storage(OpenError::Locked { .. }) => "LOCKED",
            Self::Storage(OpenError::NewerFormat { .. }) => "NEWER_FORMAT",
            Self::Storage(OpenError::Corrupt { .. }) => "DATA_DAMAGED",
            Self::Listen(_, error) if error.kind() == std::io::ErrorKind::AddrInUse => "PORT_IN_USE",
            Self::Storage(OpenError::Disk(_) | OpenError::Full { .. } | OpenError::Index(_))
            | Self::Key(_)
            | Self::Listen(..)
            | Self::System(_) => "CANNOT_START",
        }
    }
}

impl fmt::Display for StartError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Storage(error) => error.fmt(f),
            Self::Key(error) => error.fmt(f),
            Self::Listen(address, error) if error.kind() == std::io::ErrorKind::AddrInUse => {
                write!(f, "{address} is in use: stop what listens there, or choose another port with --listen")
            }
            Self::Listen(address, error) => {
                write!(f, "cannot listen on {address} ({error}): choose another address with --listen")
            }
            Self::System(error) => write!(f, "the system refuses what a server needs: {error}"),
        }
    }
}

impl std::error::Error for StartError {}

/// A server that is ready to run.
pub struct Server {
    address: SocketAddr,
    stopper: Stopper,
    turns: Loop,
}

/// Stops a running server from another thread, as SIGTERM would.
#[derive(Clone, Debug)]
pub struct Stopper {
    asked: Arc<AtomicBool>,
    waker: Arc<Waker>,
}

impl Stopper {
    /// Asks the server to stop: it finishes what it has begun, and `run` returns.
    pub fn stop(&self) {
        self.asked.store(true, Ordering::Release);
        // The waker of a loop that has ended wakes nobody.
        let _ = self.waker.wake();
    }
}

impl Server {
    /// Listens, and opens the data directory. Connections are accepted once [`Server::run`] is called.
    pub fn start(options: ServerOptions) -> Result<Self, StartError> {
        // The port first: it costs nothing to give back, and opening storage may take a while.
        let listener = Listener::bind(options.listen).map_err(|error| StartError::Listen(options.listen, error))?;
        let address = listener.address().map_err(StartError::System)?;
        let poll = Poll::new().map_err(StartError::System)?;
        let waker = Arc::new(Waker::new(poll.registry(), WAKER).map_err(StartError::System)?);
        let wake = waker.clone();
        let storage_options = StorageOptions {
            directory: options.data.clone(),
            segment_bytes: options.segment_bytes,
            retention: options.retention,
            quota: options.quota,
        };
        let wake_loop = Arc::new(move || {
            // Storage outlives the loop by the time that it takes to stop; then there is nobody to wake.
            let _ = wake.wake();
        });
        let storage = Storage::start(&storage_options, wake_loop).map_err(StartError::Storage)?;
        let key = LocalKey::open_or_create(&options.data.join("keys")).map_err(StartError::Key)?;
        let tokens = Tokens(Verifier::local(options.cluster, &key));
        let stopper = Stopper { asked: Arc::new(AtomicBool::new(false)), waker };
        let clock = Clock::start();
        let hub = Hub::new(seed(), options.policy, Box::new(tokens), clock.now());
        let turns = Loop::new(poll, listener, hub, storage, clock, descriptors(), stopper.asked.clone())
            .map_err(StartError::System)?;
        Ok(Self { address, stopper, turns })
    }

    /// Where it listens.
    pub fn local_address(&self) -> SocketAddr {
        self.address
    }

    /// What stops it.
    pub fn stopper(&self) -> Stopper {
        self.stopper.clone()
    }

    /// Serves until SIGTERM, SIGINT or [`Stopper::stop`], then finishes what was begun and closes the data directory.
    /// An error says why it had to stop: nothing was acknowledged that is not on disk.
    pub fn run(self) -> Result<(), String> {
        self.turns.run()
    }
}

struct Tokens(Verifier);

impl Authenticator for Tokens {
    fn authenticate(&self, token: &str, wall_ms: u64) -> Result<Identity, TokenError> {
        self.0.verify(token, wall_ms)
    }
}

fn seed() -> Seed {
    let mut random = rand::rngs::OsRng;
    let mut ids = [0; 32];
    rand::TryRngCore::unwrap_mut(&mut random).fill_bytes(&mut ids);
    let mut next = || rand::TryRngCore::unwrap_mut(&mut random).next_u64();
    Seed { hash: [next(), next(), next(), next()], ids }
}

/// Raises the limit of descriptors as far as the system lets it, and says what it is.
fn descriptors() -> usize {
    let Rlimit { current, maximum } = getrlimit(Resource::Nofile);
    let raised = setrlimit(Resource::Nofile, Rlimit { current: maximum, maximum }).map(|()| maximum);
    let limit = raised.unwrap_or(current);
    limit.and_then(|limit| usize::try_from(limit).ok()).unwrap_or(usize::MAX)
}
