//! `serve`: the server.

use std::net::SocketAddr;
use std::path::PathBuf;

use clap::Args;
use roundtable::config::{Config, Settings};
use roundtable::net::{Policy, Server, ServerOptions, StartError};
use roundtable::store::{GroupQuota, Retention};
use serde_json::json;
use tracing_subscriber::EnvFilter;

use super::failure::{Exit, Failure};
use super::output::Output;

/// Run the server
#[derive(Args)]
#[command(
    after_help = "Example:\n  roundtable serve --data ./roundtable-data --listen 127.0.0.1:7400\n\nIt prints one line \
                  when it is ready; its log goes to standard error (ROUNDTABLE_LOG=debug says more). SIGTERM and \
                  SIGINT stop it cleanly."
)]
pub(crate) struct Serve {
    /// The data directory; made at the first start [default: ./roundtable-data]
    #[arg(long, value_name = "DIR", env = "ROUNDTABLE_DATA")]
    data: Option<PathBuf>,
    /// Address and port; port 0 lets the system choose [default: 127.0.0.1:7400]
    #[arg(long, value_name = "ADDRESS:PORT")]
    listen: Option<SocketAddr>,
    /// A configuration file (TOML); flags win over it
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// The cluster's name, which tokens must carry [default: roundtable]
    #[arg(long, value_name = "NAME", env = "ROUNDTABLE_CLUSTER")]
    cluster: Option<String>,
    /// Size of a journal segment of a new data directory, in MiB [default: 64]
    #[arg(long, value_name = "MIB")]
    segment_mib: Option<u64>,
    /// Listen beyond this machine although nothing is encrypted: whoever is on the way can read and change everything
    #[arg(long)]
    insecure_without_tls: bool,
}

impl Serve {
    pub(crate) fn run(self, output: &mut Output) -> Result<(), Failure> {
        let config = self.config()?;
        log_to_stderr();
        let options = ServerOptions {
            cluster: config.cluster,
            segment_bytes: config.segment_bytes,
            policy: Policy { create: config.create, add: config.add },
            quota: GroupQuota { groups_max: config.groups_per_user, groups_max_of: config.groups_of },
            retention: Retention {
                entries_max: config.retention_entries,
                bytes_max: config.retention_bytes,
                age_ms_max: config.retention_age_ms,
            },
            ..ServerOptions::new(config.listen, config.data)
        };
        let server = Server::start(options).map_err(|error| cannot_start(&error))?;
        let address = server.local_address().to_string();
        let announced = output
            .line(|_| format!("listening on {address}"), || json!({"listening": address}))
            .and_then(|()| output.flush());
        if let Err(error) = announced {
            // Whoever started it may have closed the pipe: the server is for its clients.
            tracing::warn!("listening on {address}; standard output cannot be written: {error}");
        }
        server.run().map_err(|error| Failure::new(Exit::NoStart, "STOPPED", error))
    }

    fn config(&self) -> Result<Config, Failure> {
        let file = match &self.config {
            Some(path) => Settings::from_file(path).map_err(|error| Failure::usage(error.to_string()))?,
            None => Settings::default(),
        };
        let flags = Settings {
            listen: self.listen,
            data: self.data.clone(),
            cluster: self.cluster.clone(),
            segment_mib: self.segment_mib,
            insecure_without_tls: self.insecure_without_tls.then_some(true),
            ..Settings::default()
        };
        flags.over(file).into_config().map_err(|error| Failure::usage(error.to_string()))
    }
}

pub(crate) fn cannot_start(error: &StartError) -> Failure {
    let exit = if error.is_damage() { Exit::Damaged } else { Exit::NoStart };
    Failure::new(exit, error.name(), error.to_string())
}

fn log_to_stderr() {
    let filter = EnvFilter::try_from_env("ROUNDTABLE_LOG").unwrap_or_else(|_| EnvFilter::new("info"));
    let coloured = std::io::IsTerminal::is_terminal(&std::io::stderr()) && std::env::var_os("NO_COLOR").is_none();
    tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).with_ansi(coloured).init();
}
