//! Commands that change something: `create`, `send`, `leave`.

use std::io::{self, BufRead, IsTerminal, Read, Write};
use std::path::PathBuf;

use clap::Args;
use roundtable::ids::{GroupId, OperationId, UserId};
use roundtable::limits::{BODY_BYTES_MAX, FRAME_BYTES_MAX_LIST};
use roundtable::wire::Changed;
use serde_json::Value;

use super::connect::IdentityArgs;
use super::failure::{Failure, Format, Undelivered, notice, tell};
use super::output::Output;
use super::{json, text};

/// What every command that changes something takes.
#[derive(Args, Clone)]
struct OperationArgs {
    /// The same id again gives the same answer and changes nothing; one is made if none is given
    #[arg(long, value_name = "UUID")]
    operation_id: Option<OperationId>,
}

impl OperationArgs {
    fn id(&self) -> OperationId {
        self.operation_id.unwrap_or_else(OperationId::random)
    }
}

/// Make a group of yourself and some members, with one request; prints its id
#[derive(Args)]
#[command(after_help = "Examples:\n  roundtable create --as alice --title lunch bob carol\n  \
                        roundtable create --as alice --members-from names.txt")]
pub(crate) struct Create {
    #[command(flatten)]
    identity: IdentityArgs,
    #[command(flatten)]
    operation: OperationArgs,
    /// The title, at most 256 bytes
    #[arg(long, default_value = "")]
    title: String,
    /// Take members from a file, one a line; white space around a name and empty lines do not count; `-` is standard
    /// input
    #[arg(long, value_name = "FILE|-")]
    members_from: Option<PathBuf>,
    /// The members, besides yourself
    #[arg(value_name = "MEMBER")]
    members: Vec<UserId>,
}

impl Create {
    pub(crate) fn run(mut self, output: &mut Output) -> Result<(), Failure> {
        self.gather(output.format())?;
        let mut client = self.identity.connect()?;
        let operation = self.operation.id();
        let created = client.create_with(operation, &self.title, &self.members)?;
        // The id alone on standard output, so that `GROUP=$(roundtable create …)` works.
        deliver(output, operation, ("group", created.group.to_string()), json::created(&created))?;
        if output.format() == Format::Human && io::stderr().is_terminal() {
            let noun = if created.members == 1 { "member" } else { "members" };
            tell(&format!(
                "{} {noun}; {} have it already, {} get it when they connect",
                created.members, created.pushed, created.queued
            ));
        }
        Ok(())
    }

    /// The members from wherever they are to come.
    fn gather(&mut self, format: Format) -> Result<(), Failure> {
        for member in self.members.iter().filter(|member| member.as_str().contains(',')) {
            let name = text::escape(member.as_str());
            notice(format, &format!("`{name}` is one user, comma and all: members are separated by spaces"));
        }
        if let Some(path) = &self.members_from {
            self.members.extend(members_from(path)?);
        } else if self.members.is_empty() && io::stdin().is_terminal() {
            self.members = ask_for_members()?;
        }
        Ok(())
    }
}

/// Send a message to a group; prints its seq
#[derive(Args)]
#[command(after_help = "Examples:\n  roundtable send --as alice GROUP 'noon?'\n  \
                        date | roundtable send --as alice GROUP -")]
pub(crate) struct Send {
    #[command(flatten)]
    identity: IdentityArgs,
    #[command(flatten)]
    operation: OperationArgs,
    /// The group
    group: GroupId,
    /// The message, at most 64 KiB; `-` reads it from standard input
    #[arg(value_name = "TEXT|-", allow_hyphen_values = true)]
    text: String,
}

impl Send {
    pub(crate) fn run(self, output: &mut Output) -> Result<(), Failure> {
        let body = if self.text == "-" { body_from_stdin()? } else { self.text.into_bytes() };
        let mut client = self.identity.connect()?;
        let operation = self.operation.id();
        let changed = client.send_with(operation, self.group, body)?;
        print(output, operation, &changed)
    }
}

/// Leave a group; prints the seq
#[derive(Args)]
#[command(after_help = "Example:\n  roundtable leave --as bob GROUP")]
pub(crate) struct Leave {
    #[command(flatten)]
    identity: IdentityArgs,
    #[command(flatten)]
    operation: OperationArgs,
    /// The group
    group: GroupId,
}

impl Leave {
    pub(crate) fn run(self, output: &mut Output) -> Result<(), Failure> {
        let mut client = self.identity.connect()?;
        let operation = self.operation.id();
        let changed = client.leave_with(operation, self.group)?;
        print(output, operation, &changed)
    }
}

fn print(output: &mut Output, operation: OperationId, changed: &Changed) -> Result<(), Failure> {
    deliver(output, operation, ("seq", changed.seq.to_string()), json::changed(changed))
}

/// Prints what a change brought. It is made by now: if the result cannot be printed, it must not look as if nothing
/// had happened, and must not be lost.
fn deliver(
    output: &mut Output,
    operation: OperationId,
    (name, human): (&str, String),
    result: Value,
) -> Result<(), Failure> {
    let printed = output.line(|_| human.clone(), || result.clone()).and_then(|()| output.flush());
    printed.map_err(|cause| {
        let shown = format!("{name} {human}");
        Failure::Undelivered(Box::new(Undelivered { operation, shown, result, cause }))
    })
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
    if body.len() > BODY_BYTES_MAX {
        return Err(Failure::usage(format!("a message has at most {BODY_BYTES_MAX} bytes: send it in parts")));
    }
    Ok(body)
}

fn members_from(path: &std::path::Path) -> Result<Vec<UserId>, Failure> {
    let name = path.display().to_string();
    let unreadable = |error: io::Error| Failure::usage(format!("cannot read the members from {name}: {error}"));
    let text = if path.as_os_str() == "-" {
        read_list(io::stdin().lock())
    } else {
        std::fs::File::open(path).and_then(read_list)
    };
    members_of(&text.map_err(unreadable)?, &name)
}

/// Reads a text of at most what one request can carry: `/dev/zero` is no list of members.
fn read_list(source: impl Read) -> io::Result<String> {
    let limit = u64::try_from(FRAME_BYTES_MAX_LIST).unwrap_or(u64::MAX);
    let mut text = String::new();
    let mut source = source.take(limit.saturating_add(1));
    source.read_to_string(&mut text)?;
    if text.len() > FRAME_BYTES_MAX_LIST {
        let message = format!("it has more than the {FRAME_BYTES_MAX_LIST} bytes that a request may have");
        return Err(io::Error::new(io::ErrorKind::FileTooLarge, message));
    }
    Ok(text)
}

/// One member a line. Any text is a legal id, spaces inside of it included; what editors and other systems put around
/// lines is none of it.
fn members_of(text: &str, name: &str) -> Result<Vec<UserId>, Failure> {
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    let lines = text.lines().map(str::trim).enumerate().filter(|(_, line)| !line.is_empty());
    lines
        .map(|(index, line)| {
            UserId::new(line).map_err(|error| Failure::usage(format!("{name}, line {}: {error}", index + 1)))
        })
        .collect()
}

fn ask_for_members() -> Result<Vec<UserId>, Failure> {
    let mut terminal = io::stderr();
    write!(terminal, "Who else is in it? Names, separated by spaces or commas: ")?;
    terminal.flush()?;
    let mut line = String::new();
    let count = io::stdin().lock().read_line(&mut line).map_err(|error| Failure::usage(error.to_string()))?;
    if count == 0 {
        // Nobody pressed return: what follows begins a line of its own.
        tell("");
    }
    members_answered(&line)
}

fn members_answered(line: &str) -> Result<Vec<UserId>, Failure> {
    let names: Vec<&str> =
        line.split(|c: char| c == ',' || c.is_whitespace()).filter(|name| !name.is_empty()).collect();
    if names.is_empty() {
        return Err(Failure::usage(
            "no members named: say who else is in it; a group of one is made with `--members-from /dev/null`",
        ));
    }
    names
        .into_iter()
        .map(|name| UserId::new(name).map_err(|error| Failure::usage(format!("{}: {error}", text::escape(name)))))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ids(names: &[&str]) -> Vec<UserId> {
        names.iter().map(|name| UserId::new(name).unwrap()).collect()
    }

    #[test]
    fn no_answer_to_the_question_makes_no_group() {
        for empty in ["", "\n", " , \r\n"] {
            assert!(
                members_answered(empty).is_err_and(|failure| format!("{failure:?}").contains("USAGE")),
                "{empty:?}"
            );
        }
        assert_eq!(members_answered("bob, carol\n").unwrap(), ids(&["bob", "carol"]));
    }

    #[test]
    fn what_editors_put_around_lines_is_not_part_of_a_name() {
        let text = "\u{feff}bob\r\n\r\n\t Ms. Carol \r\n\ndave";
        assert_eq!(members_of(text, "-").unwrap(), ids(&["bob", "Ms. Carol", "dave"]));
        let long = format!("bob\n\n{}", "x".repeat(65));
        assert!(members_of(&long, "names").is_err_and(|failure| format!("{failure:?}").contains("line 3")));
    }

    #[test]
    fn a_list_of_members_has_an_end() {
        let at_limit = vec![b'\n'; FRAME_BYTES_MAX_LIST];
        assert!(read_list(&at_limit[..]).is_ok());
        assert!(read_list(io::repeat(0)).is_err());
    }
}
