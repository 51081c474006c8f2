//! Why a command did not do what it was asked, as one line on standard error and as an exit code.

use std::io::{self, IsTerminal, Write};
use std::process::ExitCode;

use roundtable::client::{ClientError, SessionError};
use roundtable::ids::OperationId;
use roundtable::wire::{ErrorBody, ErrorCode};

use crate::cli::text::{escape, json_line};

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
    /// A signal ended it early; whoever sent that knows.
    Interrupted { signal: u8 },
    /// A change was made, and whoever asked for it was not told on standard output.
    Undelivered(Box<Undelivered>),
}

/// What was done, and why it could not be said.
#[derive(Debug)]
pub(crate) struct Undelivered {
    pub(crate) operation: OperationId,
    /// The result for people: what it is, then the value.
    pub(crate) shown: String,
    /// The result for programs.
    pub(crate) result: serde_json::Value,
    pub(crate) cause: io::Error,
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
            // As a shell names a process that a signal ended.
            Self::Interrupted { signal } => ExitCode::from(128 | signal),
            Self::Told { exit, name, message } => {
                match format {
                    Format::Json => {
                        tell(&json_line(&serde_json::json!({"error": name, "message": message})));
                    }
                    Format::Human => tell(&format!("{} {}", error_word(), escape(&message))),
                }
                ExitCode::from(exit as u8)
            }
            Self::Undelivered(undelivered) => {
                let Undelivered { operation, shown, result, cause } = *undelivered;
                let message = format!(
                    "it was done ({shown}), but the result cannot be written to standard output ({cause}): saying the \
                     same again with --operation-id {operation} prints it and never does it twice"
                );
                match format {
                    Format::Json => tell(&json_line(&serde_json::json!({
                        "error": "UNDELIVERED",
                        "message": message,
                        "operation_id": operation.to_string(),
                        "result": result,
                    }))),
                    Format::Human => tell(&format!("{} {}", error_word(), escape(&message))),
                }
                ExitCode::from(Exit::OutcomeUnknown as u8)
            }
        }
    }
}

/// One line on standard error. Where that cannot be written either, there is nobody left to tell.
pub(crate) fn tell(line: &str) {
    let _ = writeln!(io::stderr(), "{line}");
}

/// Something that is worth knowing and stops nothing.
pub(crate) fn notice(format: Format, text: &str) {
    match format {
        Format::Human => tell(text),
        Format::Json => tell(&json_line(&serde_json::json!({"notice": text}))),
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
                "the connection to the server broke: try again, or look into the server's log",
            ),
            ClientError::TimedOut | ClientError::Protocol(SessionError::Silent) => {
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
    let message = match ErrorCode::from_number(body.code) {
        // Here the server's own words carry a number.
        Some(ErrorCode::Truncated) => format!("{}: read on from the floor with --from", body.message),
        code => match code.and_then(instead) {
            Some(sentence) => sentence.to_owned(),
            None if body.message.is_empty() => body.name().to_owned(),
            None => body.message.clone(),
        },
    };
    Failure::new(Exit::Refused, body.name(), message)
}

/// What is said in place of the server's words: the same, and what can be done about it here.
fn instead(code: ErrorCode) -> Option<&'static str> {
    Some(match code {
        ErrorCode::NotFound => {
            "there is no such group, or you are not in it; `roundtable groups --as USER` lists those of a user"
        }
        ErrorCode::AuthFailed => {
            "the server does not accept this token; make one with `roundtable token USER` on the server's own --data \
             and --cluster"
        }
        ErrorCode::TokenExpired => "the token has expired or is not valid yet; make one with `roundtable token USER`",
        ErrorCode::IdReused => "this operation id was used for something else; leave --operation-id away",
        ErrorCode::StorageFull => "the server's disk is full; nothing was changed",
        ErrorCode::Damaged => "the server's data is damaged at this place; look into its log",
        ErrorCode::UnknownKind => "this server does not serve that",
        ErrorCode::TooMany => "the server has too many connections; try again later",
        ErrorCode::GoingAway => "the server is stopping; try again when it is back",
        _ => return None,
    })
}
