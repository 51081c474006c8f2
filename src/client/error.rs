//! Why a connection cannot go on, and why a request has no answer.

use std::fmt;
use std::io;

use crate::codec::DecodeError;
use crate::ids::OperationId;
use crate::wire::{ErrorBody, FrameError};

/// Why a connection cannot go on. Events and replies from before it can still be taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum SessionError {
    /// The stream is not one of frames.
    Frame(FrameError),
    /// A good frame with a body that is not what its kind asks for.
    Body {
        /// The kind's number.
        kind: u16,
        /// What is wrong with the body.
        error: DecodeError,
    },
    /// A frame that no server sends: a request, an unknown reply, reserved flags, another protocol version.
    Unexpected {
        /// The kind's number.
        kind: u16,
    },
    /// A page of history brought nothing of what it was asked for.
    NoProgress,
    /// Nothing was heard for 2.5 heartbeats.
    Silent,
}

impl fmt::Display for SessionError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Frame(FrameError::Magic) => f.write_str("what answers there does not speak this protocol"),
            Self::Frame(FrameError::Version) => f.write_str("the server speaks another version of the protocol"),
            Self::Frame(FrameError::Crc) => f.write_str("a frame came damaged"),
            Self::Frame(FrameError::TooLarge { max }) => write!(f, "a frame is larger than {max} bytes"),
            Self::Body { kind, error } => write!(f, "a frame of kind {kind:#06x} cannot be read: {error}"),
            Self::Unexpected { kind } => write!(f, "a frame of kind {kind:#06x} is out of place"),
            Self::NoProgress => f.write_str("a page of history brought nothing of what was asked for"),
            Self::Silent => f.write_str("the server has not been heard for too long"),
        }
    }
}

impl std::error::Error for SessionError {}

/// A request that is larger than a server takes. Nothing was sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TooLarge {
    /// The largest frame of this kind, in bytes, header included.
    pub max: usize,
}

/// Why there is no answer. What could be tried again was, as far as the [`super::RetryPolicy`] allows.
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
    /// No connection could be made. Nothing was changed.
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
