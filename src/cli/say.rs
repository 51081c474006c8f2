//! Commands that say something in a group: `send`, `whisper`, `signal`.

use std::io::{self, Read};
use std::time::Duration;

use clap::Args;
use roundtable::client::{ClientError, Event};
use roundtable::ids::{GroupId, UserId};
use roundtable::limits::BODY_BYTES_MAX;
use serde_json::json;

use super::change::ChangeArgs;
use super::connect::IdentityArgs;
use super::failure::Failure;
use super::output::Output;

/// Send a message to a group; prints its seq
#[derive(Args)]
#[command(after_help = "Examples:\n  roundtable send --as alice GROUP 'noon?'\n  \
                        date | roundtable send --as alice GROUP -")]
pub(crate) struct Send {
    #[command(flatten)]
    change: ChangeArgs,
    /// The group
    group: GroupId,
    /// The message, at most 64 KiB; `-` reads it from standard input
    #[arg(value_name = "TEXT|-", allow_hyphen_values = true)]
    text: String,
}

impl Send {
    pub(crate) fn run(self, output: &mut Output) -> Result<(), Failure> {
        let body = body(self.text)?;
        self.change.run(output, |client, operation| client.send_with(operation, self.group, body))
    }
}

/// Send a message to some members of a group; prints its seq
#[derive(Args)]
#[command(after_help = "Examples:\n  roundtable whisper --as alice GROUP --to bob,carol 'cake at noon'\n  \
                        roundtable whisper --as alice GROUP --to 'Smith, J.' --to bob 'cake at noon'\n\nThe others \
                        see that something was said, and nothing more. `--to` with a comma in it is one member if \
                        given more than once, or else a list.")]
pub(crate) struct Whisper {
    #[command(flatten)]
    change: ChangeArgs,
    /// The group
    group: GroupId,
    /// The members to tell it to
    #[arg(long, value_name = "A,B", required = true)]
    to: Vec<String>,
    /// The message, at most 64 KiB; `-` reads it from standard input
    #[arg(value_name = "TEXT|-", allow_hyphen_values = true)]
    text: String,
}

impl Whisper {
    pub(crate) fn run(self, output: &mut Output) -> Result<(), Failure> {
        let to = addressees(&self.to)?;
        let body = body(self.text)?;
        self.change.run(output, |client, operation| client.whisper_with(operation, self.group, &to, body))
    }
}

/// Tell the members who are on line something that is not kept: typing and the like
#[derive(Args)]
#[command(after_help = "Example:\n  roundtable signal --as alice GROUP typing")]
pub(crate) struct Signal {
    #[command(flatten)]
    identity: IdentityArgs,
    /// The group
    group: GroupId,
    /// What to tell, at most 64 KiB; `-` reads it from standard input
    #[arg(value_name = "TEXT|-", allow_hyphen_values = true)]
    text: String,
}

impl Signal {
    pub(crate) fn run(self, output: &mut Output) -> Result<(), Failure> {
        let body = body(self.text)?;
        let mut client = self.identity.connect()?;
        client.signal(self.group, body)?;
        // A signal has no answer. What is asked about the same group next is answered behind it, so that it was taken
        // is known then, and why not if it was refused.
        client.group_if_newer(self.group, u64::MAX)?;
        while let Some(event) = client.next_event(Some(Duration::ZERO))? {
            if let Event::SignalRefused { error, .. } = event {
                return Err(ClientError::Refused(error).into());
            }
        }
        let group = self.group.to_string();
        output.line(|paint| paint.faint("told"), || json!({"group": group}))?;
        Ok(())
    }
}

/// Names given one by one, or one list with commas. Any text is a legal name, so a name with a comma in it can be given
/// only beside another `--to`.
fn addressees(given: &[String]) -> Result<Vec<UserId>, Failure> {
    let names: Vec<&str> = match given {
        [list] => list.split(',').map(str::trim).filter(|name| !name.is_empty()).collect(),
        names => names.iter().map(String::as_str).collect(),
    };
    if names.is_empty() {
        return Err(Failure::usage("to whom? say --to A,B"));
    }
    let user = |name: &str| UserId::new(name).map_err(|error| Failure::usage(format!("--to: {error}")));
    names.into_iter().map(user).collect()
}

fn body(text: String) -> Result<Vec<u8>, Failure> {
    let body = if text == "-" { body_from_stdin()? } else { text.into_bytes() };
    if body.len() > BODY_BYTES_MAX {
        return Err(Failure::usage(format!("a message has at most {BODY_BYTES_MAX} bytes: send it in parts")));
    }
    Ok(body)
}

/// One byte more than a message may have is enough to know that it is too long.
fn body_from_stdin() -> Result<Vec<u8>, Failure> {
    let mut body = Vec::new();
    let limit = u64::try_from(BODY_BYTES_MAX).unwrap_or(u64::MAX).saturating_add(1);
    io::stdin()
        .lock()
        .take(limit)
        .read_to_end(&mut body)
        .map_err(|error| Failure::usage(format!("cannot read standard input: {error}")))?;
    Ok(body)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addressees_are_a_list_or_named_one_by_one() {
        let read = |given: &[&str]| {
            let given: Vec<String> = given.iter().map(|name| (*name).to_owned()).collect();
            addressees(&given).map(|users| users.iter().map(|user| user.as_str().to_owned()).collect::<Vec<_>>())
        };
        assert_eq!(read(&["bob, carol"]).unwrap(), ["bob", "carol"]);
        assert_eq!(read(&["Smith, J.", "bob"]).unwrap(), ["Smith, J.", "bob"]);
        assert!(read(&[" , "]).is_err());
        assert!(read(&[&"x".repeat(65)]).is_err());
    }
}
