//! How to connect.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use crate::client::RetryPolicy;
use crate::ids::DeviceId;

/// How long the socket may refuse to take output, and how long an answer may take, if nothing else is said.
const TIMEOUT_DEFAULT: Duration = Duration::from_secs(10);
/// The device of a client that does not name one.
const DEVICE_DEFAULT: &str = "default";

/// How to connect.
#[derive(Clone, Debug)]
pub struct ConnectOptions {
    /// The server as `HOST:PORT`.
    pub server: String,
    /// Who the client is.
    pub token: String,
    /// Makes another token when the server says that the present one ends, or has ended. Without one the client ends
    /// with its token.
    pub token_source: Option<TokenSource>,
    /// Which installation of the user it is; the newest connection of a device takes the older one's place.
    pub device: DeviceId,
    /// The heartbeat interval to ask for, in seconds; 0 for the server's default.
    pub heartbeat_s: u16,
    /// How long to wait for a connection, and for an answer on one connection before that is taken for dead.
    pub timeout: Duration,
    /// What is done about connections that break.
    pub retry: RetryPolicy,
}

impl ConnectOptions {
    /// With the device `default`, the server's heartbeat, ten seconds for each answer, and the default policy of
    /// trying again.
    pub fn new(server: impl Into<String>, token: impl Into<String>) -> Self {
        Self {
            server: server.into(),
            token: token.into(),
            token_source: None,
            device: DeviceId::new(DEVICE_DEFAULT).expect("the default is legal"),
            heartbeat_s: 0,
            timeout: TIMEOUT_DEFAULT,
            retry: RetryPolicy::default(),
        }
    }

    /// With another device.
    #[must_use]
    pub fn with_device(mut self, device: DeviceId) -> Self {
        self.device = device;
        self
    }

    /// With another policy of trying again.
    #[must_use]
    pub fn with_retry(mut self, retry: RetryPolicy) -> Self {
        self.retry = retry;
        self
    }

    /// With something that makes new tokens.
    #[must_use]
    pub fn with_token_source(mut self, source: TokenSource) -> Self {
        self.token_source = Some(source);
        self
    }
}

/// Makes tokens for a client that lives longer than one of them.
#[derive(Clone)]
pub struct TokenSource(Arc<dyn Fn() -> String + Send + Sync>);

impl TokenSource {
    /// From a function; it is called by the client's methods and should not take long.
    pub fn new(make: impl Fn() -> String + Send + Sync + 'static) -> Self {
        Self(Arc::new(make))
    }

    pub(super) fn token(&self) -> String {
        (self.0)()
    }
}

impl fmt::Debug for TokenSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("TokenSource")
    }
}
