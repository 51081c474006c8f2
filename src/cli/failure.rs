//! Why a command did not do what it was asked, as one line on standard error and as an exit code.

use std::io::{self, IsTerminal};
use std::process::ExitCode;

use roundtable::client::ClientError;
use roundtable::wire::{ErrorBody, ErrorCode};

use crate::cli::text::escape;

/// Exit codes, as they stand in the README. 0 is success.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum Exit {
    Refused = 1,
    Usage = 2,
    NoConnection = 3,
    Damaged = 4,
    OutcomeUnknown = 5,
    NoStart = 6,
}

/// One failure.
#[derive(Debug)]
pub(crate) enum Failure {
    /// To be told, with the name that scripts match on.
    Told { exit: Exit, name: &'static str, message: String },
    /// Whoever read the output is gone: nothing to tell, nobody to tell it to.
    OutputClosed,
}

impl Failure {
    pub(crate) fn new(exit: Exit, name: &'static str, message: impl Into<String>) -> Self {
        Self::Told { exit, name, message: message.into() }
    }

    pub(crate) fn usage(message: impl Into<String>) -> Self {
        Self::new(Exit::Usage, "USAGE", message)
    }

    /// Tells it on standard error and gives the exit code.
    pub(crate) fn report(self, format: Format) -> ExitCode {
        match self {
            Self::OutputClosed => ExitCode::SUCCESS,
            Self::Told { exit, name, message } => {
                match format {
                    Format::Json => eprintln!("{}", serde_json::json!({"error": name, "message": message})),
                    Format::Human => eprintln!("{} {}", error_word(), escape(&message)),
                }
                ExitCode::from(exit as u8)
            }
        }
    }
}

/// For whom the output is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Format {
    /// People.
    Human,
    /// Programs: one JSON object a line.
    Json,
}

fn error_word() -> &'static str {
    let coloured = io::stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none();
    if coloured { "\x1b[1;31merror:\x1b[0m" } else { "error:" }
}

impl From<io::Error> for Failure {
    /// Of writing the output, which is the only thing that commands do with files and pipes without saying more.
    fn from(error: io::Error) -> Self {
        match error.kind() {
            io::ErrorKind::BrokenPipe => Self::OutputClosed,
            _ => Self::new(Exit::Refused, "OUTPUT", format!("cannot write the output: {error}")),
        }
    }
}

impl From<ClientError> for Failure {
    fn from(error: ClientError) -> Self {
        match error {
            ClientError::Refused(body) | ClientError::Closed { reason: Some(body) } => refused(&body),
            ClientError::TooLarge { max } => Self::new(
                Exit::Refused,
                ErrorCode::TooLarge.name(),
                format!("the request is larger than the {max} bytes that a server takes: send less at once"),
            ),
            ClientError::Connect { server, error } => Self::new(
                Exit::NoConnection,
                "CANNOT_CONNECT",
                format!("no server at {server} ({error}): start one with `roundtable serve`, or name it with --server"),
            ),
            ClientError::Closed { reason: None } => Self::new(
                Exit::NoConnection,
                "CLOSED",
                "the server closed the connection: is it stopping? try again, or look into its log",
            ),
            ClientError::TimedOut => {
                Self::new(Exit::NoConnection, "TIMED_OUT", "the server did not answer in time: look into its log")
            }
            ClientError::OutcomeUnknown { operation, .. } => Self::new(
                Exit::OutcomeUnknown,
                "OUTCOME_UNKNOWN",
                format!(
                    "the connection broke before the answer came, so it may have happened or not: say the same again \
                     with --operation-id {operation}, which never does it twice"
                ),
            ),
            ClientError::Protocol(error) => Self::new(
                Exit::NoConnection,
                "NOT_ROUNDTABLE",
                format!("{error}: is --server the address of a roundtable server of this version?"),
            ),
            other => Self::new(Exit::Refused, "FAILED", other.to_string()),
        }
    }
}

/// A refusal of the server, with what can be done about it.
fn refused(body: &ErrorBody) -> Failure {
    let hint = ErrorCode::from_number(body.code).and_then(hint);
    let message = match hint {
        Some(hint) if body.message.is_empty() => hint.to_owned(),
        Some(hint) => format!("{}: {hint}", body.message),
        None if body.message.is_empty() => body.name().to_owned(),
        None => body.message.clone(),
    };
    Failure::new(Exit::Refused, body.name(), message)
}

fn hint(code: ErrorCode) -> Option<&'static str> {
    Some(match code {
        ErrorCode::NotFound => {
            "there is no such group, or you are not in it; `roundtable groups --as USER` lists those of a user"
        }
        ErrorCode::AuthFailed => {
            "the server does not accept this token; make one with `roundtable token USER` on the server's own --data \
             and --cluster"
        }
        ErrorCode::TokenExpired => "the token has expired or is not valid yet; make one with `roundtable token USER`",
        ErrorCode::Forbidden => "this needs another role; see `roundtable token --help`",
        ErrorCode::IdReused => "this operation id was used for something else; leave --operation-id away",
        ErrorCode::StorageFull => "the server's disk is full; nothing was changed",
        ErrorCode::Damaged => "the server's data is damaged at this place; look into its log",
        ErrorCode::UnknownKind => "this server does not serve that",
        ErrorCode::TooMany => "the server has too many connections; try again later",
        ErrorCode::GoingAway => "the server is stopping; try again when it is back",
        ErrorCode::Truncated => "older entries are deleted; read on from the floor with --from",
        _ => return None,
    })
}
