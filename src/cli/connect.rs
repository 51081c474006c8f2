//! How commands reach a server: which one, as whom, with which token.

use std::net::{SocketAddr, TcpStream, ToSocketAddrs};
use std::path::PathBuf;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use base64::Engine;
use clap::Args;
use roundtable::client::{Client, ClientError, ConnectOptions, RetryPolicy, TokenSource};
use roundtable::config::{CLUSTER_DEFAULT, DATA_DEFAULT, LISTEN_DEFAULT};
use roundtable::ids::{DeviceId, Role, UserId};
use roundtable::token::{Grant, LocalKey, mint, subject_unverified};

use super::failure::{Exit, Failure};

/// How long a token lives that a command makes for itself: one that stays makes itself another in time.
const TTL: Duration = Duration::from_secs(5 * 60);
const TIMEOUT: Duration = Duration::from_secs(10);

/// Which server.
#[derive(Args, Clone)]
pub(crate) struct ServerArgs {
    /// The server
    #[arg(
        long,
        value_name = "HOST:PORT",
        env = "ROUNDTABLE_SERVER",
        default_value = LISTEN_DEFAULT,
        value_parser = server_address
    )]
    pub(crate) server: String,
}

/// A name or an address, and a port. Whether there is such a host is found out on connecting.
fn server_address(text: &str) -> Result<String, String> {
    let example = format!("say HOST:PORT, as {LISTEN_DEFAULT}");
    match text.rsplit_once(':') {
        None | Some((_, "")) => Err(format!("the port is missing: {example}")),
        Some((host, _)) if host.contains(':') && !host.starts_with('[') => {
            Err(format!("an address with colons stands in brackets, with a port behind them: {example} or [::1]:7400"))
        }
        Some((host, _)) if host.starts_with('[') && !host.ends_with(']') => {
            Err(format!("the port is missing: {example}"))
        }
        Some(("", _)) => Err(format!("the host is missing: {example}")),
        Some((_, port)) if port.parse::<u16>().is_err() => Err(format!("`{port}` is no port: {example}")),
        Some(_) => Ok(text.to_owned()),
    }
}

/// Where tokens come from.
#[derive(Args, Clone)]
pub(crate) struct KeyArgs {
    /// The server's data directory: its key makes a token where none is given
    #[arg(long, value_name = "DIR", env = "ROUNDTABLE_DATA", default_value = DATA_DEFAULT)]
    pub(crate) data: PathBuf,
    /// The cluster that tokens are made for
    #[arg(long, value_name = "NAME", env = "ROUNDTABLE_CLUSTER", default_value = CLUSTER_DEFAULT)]
    pub(crate) cluster: String,
}

/// As whom.
#[derive(Args, Clone)]
pub(crate) struct IdentityArgs {
    #[command(flatten)]
    pub(crate) server: ServerArgs,
    /// A token, from `roundtable token`; without one the command makes its own, for a server on this machine
    #[arg(long, value_name = "TOKEN", env = "ROUNDTABLE_TOKEN", hide_env_values = true)]
    pub(crate) token: Option<String>,
    #[command(flatten)]
    pub(crate) key: KeyArgs,
    /// The user to act as; the token's subject if there is a token
    #[arg(long = "as", value_name = "USER")]
    pub(crate) user: Option<UserId>,
}

impl IdentityArgs {
    /// Connects as the user, or as a service for the user, for a request or a few.
    pub(crate) fn connect(&self) -> Result<Client, Failure> {
        let token = self.token(Role::User, None)?;
        let serves = self.token.is_some() && Claims::of(&token).role() == Some(Role::Service);
        if serves && self.user.is_none() {
            return Err(Failure::usage("for whom? the token is a service's, which acts for users: say --as USER"));
        }
        let mut client = Client::connect(self.options(token, None))?;
        client.act_for(self.user.clone().filter(|_| serves));
        Ok(client)
    }

    /// Connects as the user's device, to stay: the one that was asked for, or else the token's, or else `own`. Lost
    /// connections are made again for as long as it takes.
    pub(crate) fn connect_to_stay(&self, asked: Option<&DeviceId>, own: DeviceId) -> Result<Client, Failure> {
        let token = self.token(Role::User, None)?;
        if Claims::of(&token).role().is_some_and(|role| role != Role::User) {
            return Err(Failure::usage("only a user's own token goes on line: get one with `roundtable token USER`"));
        }
        let device = match (asked, Claims::of(&token).device()) {
            (Some(asked), Some(claimed)) if *asked != claimed => {
                return Err(Failure::usage(format!(
                    "the token is for the device {}, not for {}: leave --device away, or get another token",
                    claimed.as_str(),
                    asked.as_str()
                )));
            }
            (Some(device), _) => device.clone(),
            (None, claimed) => claimed.unwrap_or(own),
        };
        let mut options = self.options(token, Some(device)).with_retry(RetryPolicy::default().for_ever());
        if self.token.is_none() {
            let again = self.clone();
            // If the key is gone by then, the server says what an empty token is worth.
            options =
                options.with_token_source(TokenSource::new(move || again.token(Role::User, None).unwrap_or_default()));
        }
        Ok(Client::connect(options)?)
    }

    /// Connects as an operator; the name matters to nobody but the server's log.
    pub(crate) fn connect_as_operator(&self) -> Result<Client, Failure> {
        let token = self.token(Role::Operator, Some("operator"))?;
        Ok(Client::connect(self.options(token, None))?)
    }

    /// Whether it is an operator who asks: by its token, or because nobody is named to ask as.
    pub(crate) fn is_operator(&self) -> bool {
        match &self.token {
            Some(token) => Claims::of(token).role() == Some(Role::Operator),
            None => self.user.is_none(),
        }
    }

    fn options(&self, token: String, device: Option<DeviceId>) -> ConnectOptions {
        let mut options = ConnectOptions::new(&self.server.server, token);
        options.timeout = TIMEOUT;
        // A token for one device is refused from any other.
        options.device = device.or_else(|| Claims::of(&options.token).device()).unwrap_or(options.device);
        options
    }

    fn token(&self, role: Role, name: Option<&str>) -> Result<String, Failure> {
        match &self.token {
            Some(token) => self.given(token),
            None => self.made(role, name, TTL),
        }
    }

    /// A token that was given names its user itself, unless it is a service's.
    fn given(&self, token: &str) -> Result<String, Failure> {
        let serves = Claims::of(token).role() == Some(Role::Service);
        match (&self.user, subject_unverified(token)) {
            (Some(user), Some(subject)) if *user != subject && !serves => Err(Failure::usage(format!(
                "the token is for {subject}, not for {user}: leave --as away, get a token with `roundtable token \
                 {user}`, or use a service's (`roundtable token NAME --role service`)"
            ))),
            _ => Ok(token.to_owned()),
        }
    }

    /// Makes a token with the server's own key: only for a server on this machine, whose key this is likely to be.
    fn made(&self, role: Role, name: Option<&str>, ttl: Duration) -> Result<String, Failure> {
        let user = match (&self.user, name) {
            (Some(user), _) => user.clone(),
            (None, Some(name)) => UserId::new(name).map_err(|error| Failure::usage(error.to_string()))?,
            (None, None) => {
                return Err(Failure::usage("as whom? say --as USER, or give a --token (`roundtable token USER`)"));
            }
        };
        let addresses = self.addresses()?;
        if !addresses.iter().all(|address| address.ip().is_loopback()) {
            return Err(Failure::usage(format!(
                "{} is another machine: give a --token, made there with `roundtable token {user}`",
                self.server.server
            )));
        }
        let key = LocalKey::open(&self.key.data.join("keys")).map_err(|error| {
            // Without a server there is often no key either: say the first thing that is wrong.
            self.unreachable(&addresses).unwrap_or_else(|| no_key(&self.key, &error, &user))
        })?;
        Ok(mint(&key, &grant(&self.key, user, role, None, ttl)))
    }

    fn addresses(&self) -> Result<Vec<SocketAddr>, Failure> {
        let server = &self.server.server;
        let addresses = server.to_socket_addrs().map_err(|error| {
            Failure::usage(format!("--server {server} is no address ({error}): say HOST:PORT, as {LISTEN_DEFAULT}"))
        })?;
        Ok(addresses.collect())
    }

    fn unreachable(&self, addresses: &[SocketAddr]) -> Option<Failure> {
        let error = addresses.iter().find_map(|address| TcpStream::connect_timeout(address, TIMEOUT).err())?;
        Some(ClientError::Connect { server: self.server.server.clone(), error }.into())
    }
}

/// What a token says of itself: nothing is checked, and the server checks all.
struct Claims(serde_json::Value);

impl Claims {
    fn of(token: &str) -> Self {
        let payload = token.split('.').nth(1).unwrap_or_default();
        let bytes = base64::engine::general_purpose::URL_SAFE_NO_PAD.decode(payload).unwrap_or_default();
        Self(serde_json::from_slice(&bytes).unwrap_or_default())
    }

    fn device(&self) -> Option<DeviceId> {
        DeviceId::new(self.0.get("device")?.as_str()?).ok()
    }

    fn role(&self) -> Option<Role> {
        let name = self.0.get("role")?.as_str()?;
        [Role::User, Role::Service, Role::Operator].into_iter().find(|role| role.name() == name)
    }
}

fn no_key(key: &KeyArgs, error: &impl std::fmt::Display, user: &UserId) -> Failure {
    let data = key.data.display();
    Failure::new(
        Exit::Usage,
        "NO_TOKEN",
        format!(
            "no token, and no key in {data} to make one with ({error}): name the server's data directory with --data, \
             or give a --token (`roundtable token {user}`)"
        ),
    )
}

/// What a token says that begins now.
pub(crate) fn grant(key: &KeyArgs, user: UserId, role: Role, device: Option<DeviceId>, ttl: Duration) -> Grant {
    let valid_from_ms = wall_ms();
    let ttl_ms = u64::try_from(ttl.as_millis()).unwrap_or(u64::MAX);
    let expires_at_ms = valid_from_ms.saturating_add(ttl_ms);
    Grant { user, role, device, cluster: key.cluster.clone(), valid_from_ms, expires_at_ms }
}

fn wall_ms() -> u64 {
    let since_1970 = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since_1970.as_millis()).unwrap_or(u64::MAX)
}
