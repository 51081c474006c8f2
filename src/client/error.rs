//! Why a request of a blocking client has no answer.

use std::fmt;
use std::io;

use super::session::SessionError;
use crate::ids::OperationId;
use crate::wire::ErrorBody;

/// Why there is no answer. Only [`ClientError::Refused`] and [`ClientError::TooLarge`] leave the client usable.
#[derive(Debug)]
#[non_exhaustive]
pub enum ClientError {
    /// The server refused the request; nothing was changed.
    Refused(ErrorBody),
    /// The request is larger than a server takes; it was not sent.
    TooLarge {
        /// The largest frame of its kind, in bytes.
        max: usize,
    },
    /// No connection could be made.
    Connect {
        /// The address, as it was given.
        server: String,
        /// What the system said.
        error: io::Error,
    },
    /// The connection ended. Nothing that changes anything was under way.
    Closed {
        /// What the server said about it, if it said anything.
        reason: Option<ErrorBody>,
    },
    /// The server did not answer in time. Nothing that changes anything was under way.
    TimedOut,
    /// The connection ended, or the time was up, after a change was sent and before its answer came: it may have
    /// happened or not. The same request with the same operation id finds out, and never does it twice.
    OutcomeUnknown {
        /// The id to ask again with.
        operation: OperationId,
        /// What the server said when it closed the connection, if it said anything.
        reason: Option<ErrorBody>,
    },
    /// What answered does not follow the protocol.
    Protocol(SessionError),
}

impl fmt::Display for ClientError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Refused(body) => write!(f, "refused: {} ({})", body.message, body.name()),
            Self::TooLarge { max } => write!(f, "the request is larger than the {max} bytes that a server takes"),
            Self::Connect { server, error } => write!(f, "cannot connect to {server}: {error}"),
            Self::Closed { reason: Some(body) } => {
                write!(f, "the server closed the connection: {} ({})", body.message, body.name())
            }
            Self::Closed { reason: None } => f.write_str("the server closed the connection"),
            Self::TimedOut => f.write_str("the server did not answer in time"),
            Self::OutcomeUnknown { operation, .. } => {
                write!(f, "the connection broke before the answer: ask again with operation id {operation}")
            }
            Self::Protocol(error) => write!(f, "{error}"),
        }
    }
}

impl std::error::Error for ClientError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Connect { error, .. } => Some(error),
            Self::Protocol(error) => Some(error),
            _ => None,
        }
    }
}
