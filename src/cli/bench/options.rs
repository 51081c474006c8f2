//! What all kinds of load may be told.

use std::path::PathBuf;
use std::time::Duration;

use clap::Args;

use super::peers::PeerName;
use crate::cli::connect::KeyArgs;

/// Which server.
#[derive(Args, Clone)]
pub(super) struct ServerOptions {
    /// A server that runs already; without it a throw-away one is started and killed at the end
    // Not from ROUNDTABLE_SERVER: nobody floods the server of every day without naming it.
    #[arg(long, value_name = "HOST:PORT")]
    pub(super) server: Option<String>,
    /// The process of that server, on this machine: only then its CPU can be counted
    #[arg(long, value_name = "PID", requires = "server")]
    pub(super) server_pid: Option<u32>,
    #[command(flatten)]
    pub(super) key: KeyArgs,
}

/// How it is run.
#[derive(Args, Clone)]
pub(super) struct RunOptions {
    #[command(flatten)]
    pub(super) server: ServerOptions,
    /// Where throw-away directories are made: the disk that is measured [default: the system's temporary directory]
    #[arg(long, value_name = "DIR")]
    pub(super) directory: Option<PathBuf>,
    /// Put the same load on this peer, in turns; it has to be installed
    #[arg(long, value_enum, value_name = "NAME")]
    pub(super) peer: Vec<PeerName>,
}

/// How often.
#[derive(Args, Clone, Copy)]
pub(super) struct Repeat {
    /// Rounds: in each, every system has its turn
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..=1_000))]
    pub(super) rounds: u32,
}

/// How long a turn is, where it is bounded by time.
#[derive(Args, Clone, Copy)]
pub(super) struct Seconds {
    /// Seconds of each turn, without warming up
    #[arg(long, default_value_t = 5.0, value_parser = seconds)]
    pub(super) seconds: f64,
}

impl Seconds {
    pub(super) fn duration(self) -> Duration {
        Duration::from_secs_f64(self.seconds)
    }

    /// A part of it goes before, so that caches are warm and buffers have grown.
    pub(super) fn warm_up(self) -> Duration {
        self.duration().mul_f64(0.1).min(Duration::from_millis(500))
    }
}

/// A length of time that a turn may have.
pub(super) fn seconds(text: &str) -> Result<f64, String> {
    match text.parse::<f64>() {
        Ok(seconds) if (0.01..=3_600.0).contains(&seconds) => Ok(seconds),
        _ => Err("say seconds between 0.01 and 3600".to_owned()),
    }
}
