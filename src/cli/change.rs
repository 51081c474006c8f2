//! Commands that change something: `create`, `send`, `leave`.

use std::io::{self, BufRead, IsTerminal, Read, Write};
use std::path::PathBuf;

use clap::Args;
use roundtable::ids::{GroupId, OperationId, UserId};
use roundtable::limits::BODY_BYTES_MAX;
use roundtable::wire::Changed;

use super::connect::IdentityArgs;
use super::failure::Failure;
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
    /// Take members from a file, one a line; `-` is standard input
    #[arg(long, value_name = "FILE|-")]
    members_from: Option<PathBuf>,
    /// The members, besides yourself
    #[arg(value_name = "MEMBER")]
    members: Vec<UserId>,
}

impl Create {
    pub(crate) fn run(mut self, output: &mut Output) -> Result<(), Failure> {
        if let Some(path) = &self.members_from {
            self.members.extend(members_from(path)?);
        } else if self.members.is_empty() && io::stdin().is_terminal() {
            self.members = ask_for_members()?;
        }
        let mut client = self.identity.connect()?;
        let created = client.create_with(self.operation.id(), &self.title, &self.members)?;
        // The id alone on standard output, so that `GROUP=$(roundtable create …)` works.
        output.line(|_| created.group.to_string(), || json::created(&created))?;
        if output.format() == super::failure::Format::Human && io::stderr().is_terminal() {
            eprintln!(
                "{} members; {} have it already, {} get it when they connect",
                created.members, created.pushed, created.queued
            );
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
        let changed = client.send_with(self.operation.id(), self.group, body)?;
        print(output, &changed)
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
        let changed = client.leave_with(self.operation.id(), self.group)?;
        print(output, &changed)
    }
}

fn print(output: &mut Output, changed: &Changed) -> Result<(), Failure> {
    output.line(|_| changed.seq.to_string(), || json::changed(changed))?;
    Ok(())
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
    let name = path.display();
    let unreadable = |error: io::Error| Failure::usage(format!("cannot read the members from {name}: {error}"));
    let text = if path.as_os_str() == "-" {
        io::read_to_string(io::stdin()).map_err(unreadable)?
    } else {
        std::fs::read_to_string(path).map_err(unreadable)?
    };
    // Any text is a legal id, spaces included: a line is taken as it stands.
    let lines = text.lines().enumerate().filter(|(_, line)| !line.is_empty());
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
    io::stdin().lock().read_line(&mut line).map_err(|error| Failure::usage(error.to_string()))?;
    let names = line.split([' ', ',', '\t', '\n', '\r']).filter(|name| !name.is_empty());
    names
        .map(|name| UserId::new(name).map_err(|error| Failure::usage(format!("{}: {error}", text::escape(name)))))
        .collect()
}
