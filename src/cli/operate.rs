//! Commands for operators: `token`, `ping`, `stats`, `connections`, `kick`.

use std::time::Duration;

use clap::{Args, ValueEnum};
use roundtable::client;
use roundtable::ids::{DeviceId, Role, UserId};
use roundtable::token::{LocalKey, mint};
use serde_json::json;

use super::connect::{IdentityArgs, KeyArgs, ServerArgs, grant};
use super::failure::{Exit, Failure};
use super::output::{Output, connection_line, connection_titles};
use super::text::duration;
use super::{json as shapes, text};

const PING_TIMEOUT: Duration = Duration::from_secs(5);

/// What a token allows.
#[derive(Clone, Copy, ValueEnum)]
enum RoleName {
    User,
    Service,
    Operator,
}

/// Make a token with the key of a data directory
#[derive(Args)]
#[command(after_help = "Example:\n  roundtable token alice --ttl 12h")]
pub(crate) struct Token {
    /// Whom it is for
    user: UserId,
    /// How long it is valid: 90s, 15m, 12h, 7d
    #[arg(long, default_value = "15m", value_parser = duration)]
    ttl: Duration,
    /// What it allows
    #[arg(long, value_enum, default_value = "user")]
    role: RoleName,
    /// The one device that it is for
    #[arg(long, value_parser = DeviceId::new)]
    device: Option<DeviceId>,
    #[command(flatten)]
    key: KeyArgs,
}

impl Token {
    pub(crate) fn run(self, output: &mut Output) -> Result<(), Failure> {
        let key = LocalKey::open(&self.key.data.join("keys")).map_err(|error| {
            Failure::new(
                Exit::Usage,
                "NO_KEY",
                format!(
                    "no key in {} ({error}): name the server's data directory with --data; `roundtable serve` makes \
                     the key at its first start",
                    self.key.data.display()
                ),
            )
        })?;
        let role = match self.role {
            RoleName::User => Role::User,
            RoleName::Service => Role::Service,
            RoleName::Operator => Role::Operator,
        };
        let grant = grant(&self.key, self.user, role, self.device, self.ttl);
        let token = mint(&key, &grant);
        let expires_at = grant.expires_at_ms / 1000 * 1000;
        let user = grant.user.as_str();
        output.line(
            |_| token.clone(),
            || json!({"token": token, "user": user, "role": role.name(), "expires_at": expires_at}),
        )?;
        Ok(())
    }
}

/// Ask whether the server is ready; exit 0 when it is
#[derive(Args)]
#[command(after_help = "Example:\n  roundtable ping --server 127.0.0.1:7400")]
pub(crate) struct Ping {
    #[command(flatten)]
    server: ServerArgs,
}

impl Ping {
    pub(crate) fn run(self, output: &mut Output) -> Result<(), Failure> {
        let server = self.server.server;
        let pong = client::ping(&server, PING_TIMEOUT)?;
        let micros = u64::try_from(pong.round_trip.as_micros()).unwrap_or(u64::MAX);
        output.line(
            |paint| {
                let word = if pong.ready { paint.good("ready") } else { "not ready yet".to_owned() };
                format!("{server} is {word}, {}.{:03} ms", micros / 1000, micros % 1000)
            },
            || {
                json!({
                    "ready": pong.ready,
                    "server_time": pong.server_time_ms,
                    "round_trip_us": micros,
                })
            },
        )?;
        if pong.ready {
            return Ok(());
        }
        output.flush()?;
        Err(Failure::new(Exit::Refused, "NOT_READY", "the server is there but not ready: try again in a moment"))
    }
}

/// Print the server's counters and gauges
#[derive(Args)]
#[command(after_help = "Example:\n  roundtable stats --json")]
pub(crate) struct Stats {
    #[command(flatten)]
    identity: IdentityArgs,
}

impl Stats {
    pub(crate) fn run(self, output: &mut Output) -> Result<(), Failure> {
        let stats = self.identity.connect_as_operator()?.stats()?;
        let width = stats.iter().map(|stat| stat.name.chars().count()).max().unwrap_or(0);
        output.line(
            |_| {
                let lines: Vec<String> = stats
                    .iter()
                    .map(|stat| format!("{:<width$}  {:>12}", text::escape(&stat.name), stat.value))
                    .collect();
                lines.join("\n")
            },
            || shapes::stats(&stats),
        )?;
        Ok(())
    }
}

/// List the connections of the server; for operators
#[derive(Args)]
#[command(
    after_help = "Examples:\n  roundtable connections\n  roundtable connections --json\n\nThe number, since when \
                        (UTC), bytes of output that wait, groups that are behind, the user and its device."
)]
pub(crate) struct Connections {
    #[command(flatten)]
    identity: IdentityArgs,
}

impl Connections {
    pub(crate) fn run(self, output: &mut Output) -> Result<(), Failure> {
        let connections = self.identity.connect_as_operator()?.connections()?;
        output.say(connection_titles)?;
        for row in &connections {
            output.line(|paint| connection_line(paint, row), || shapes::connection(row))?;
        }
        Ok(())
    }
}

/// Close all connections of a user; for operators
#[derive(Args)]
#[command(
    after_help = "Example:\n  roundtable kick mallory\n\nPrints how many there were. Nothing keeps the user from \
                        coming back with a token that is still valid."
)]
pub(crate) struct Kick {
    #[command(flatten)]
    identity: IdentityArgs,
    /// Whose connections
    #[arg(value_name = "USER")]
    whom: UserId,
}

impl Kick {
    pub(crate) fn run(self, output: &mut Output) -> Result<(), Failure> {
        let connections = self.identity.connect_as_operator()?.kick(&self.whom)?;
        let whom = self.whom.as_str();
        output.line(|_| connections.to_string(), || json!({"user": whom, "connections": connections}))?;
        Ok(())
    }
}
