//! Commands that change a group: `create`, `add`, `remove`, `leave`, `rename`, `transfer`, `dissolve`.

use std::io::{self, IsTerminal};

use clap::Args;
use roundtable::client::{Client, ClientError};
use roundtable::ids::{GroupId, OperationId, UserId};
use roundtable::limits::TITLE_BYTES_MAX;
use roundtable::wire::Changed;
use serde_json::Value;

use super::connect::IdentityArgs;
use super::failure::{Failure, Format, Undelivered, tell};
use super::json;
use super::members::MemberArgs;
use super::output::Output;

/// What every command that changes a group takes.
#[derive(Args, Clone)]
pub(crate) struct ChangeArgs {
    #[command(flatten)]
    identity: IdentityArgs,
    /// The same id again gives the same answer and changes nothing; one is made if none is given
    #[arg(long, value_name = "UUID")]
    operation_id: Option<OperationId>,
}

impl ChangeArgs {
    /// Makes a change and prints its seq. It may take several connections; the operation stays the same.
    pub(crate) fn run(
        &self,
        output: &mut Output,
        change: impl FnOnce(&mut Client, OperationId) -> Result<Changed, ClientError>,
    ) -> Result<(), Failure> {
        let mut client = self.identity.connect()?;
        let operation = self.operation();
        let changed = change(&mut client, operation)?;
        deliver(output, operation, ("seq", changed.seq.to_string()), json::changed(&changed))
    }

    fn operation(&self) -> OperationId {
        self.operation_id.unwrap_or_else(OperationId::random)
    }
}

/// Make a group of yourself and some members, with one request; prints its id
#[derive(Args)]
#[command(after_help = "Examples:\n  roundtable create --as alice --title lunch bob carol\n  \
                        roundtable create --as alice --members-from names.txt")]
pub(crate) struct Create {
    #[command(flatten)]
    change: ChangeArgs,
    /// The title, at most 256 bytes
    #[arg(long, default_value = "", value_parser = title)]
    title: String,
    #[command(flatten)]
    members: MemberArgs,
}

impl Create {
    pub(crate) fn run(self, output: &mut Output) -> Result<(), Failure> {
        let members = self.members.gather("Who else is in it?", output.format())?;
        let mut client = self.change.identity.connect()?;
        let operation = self.change.operation();
        let created = client.create_with(operation, &self.title, &members)?;
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
}

/// Add members to a group; prints the seq
#[derive(Args)]
#[command(after_help = "Examples:\n  roundtable add --as alice GROUP dave erin\n  \
                        roundtable add --as alice GROUP --members-from names.txt\n\nAny member may. Who is a member \
                        already stays where it is.")]
pub(crate) struct Add {
    #[command(flatten)]
    change: ChangeArgs,
    /// The group
    group: GroupId,
    #[command(flatten)]
    members: MemberArgs,
}

impl Add {
    pub(crate) fn run(self, output: &mut Output) -> Result<(), Failure> {
        let members = named(self.members.gather("Who is to be in it?", output.format())?)?;
        self.change.run(output, |client, operation| client.add_with(operation, self.group, &members))
    }
}

/// Remove members from a group; prints the seq
#[derive(Args)]
#[command(after_help = "Examples:\n  roundtable remove --as alice GROUP dave\n  \
                        roundtable remove --as alice GROUP --members-from names.txt\n\nThe owner may. Who is no \
                        member is ignored.")]
pub(crate) struct Remove {
    #[command(flatten)]
    change: ChangeArgs,
    /// The group
    group: GroupId,
    #[command(flatten)]
    members: MemberArgs,
}

impl Remove {
    pub(crate) fn run(self, output: &mut Output) -> Result<(), Failure> {
        let members = named(self.members.gather("Who is to leave it?", output.format())?)?;
        self.change.run(output, |client, operation| client.remove_with(operation, self.group, &members))
    }
}

/// Leave a group; prints the seq
#[derive(Args)]
#[command(after_help = "Example:\n  roundtable leave --as bob GROUP\n\nWhen the owner leaves, the longest-standing \
                        member becomes owner; when the last member leaves, the group is dissolved.")]
pub(crate) struct Leave {
    #[command(flatten)]
    change: ChangeArgs,
    /// The group
    group: GroupId,
}

impl Leave {
    pub(crate) fn run(self, output: &mut Output) -> Result<(), Failure> {
        self.change.run(output, |client, operation| client.leave_with(operation, self.group))
    }
}

/// Give a group another title; prints the seq
#[derive(Args)]
#[command(after_help = "Examples:\n  roundtable rename --as alice GROUP 'lunch on Friday'\n  \
                        roundtable rename --as alice GROUP ''\n\nThe owner may. With an empty title, clients show \
                        the members.")]
pub(crate) struct Rename {
    #[command(flatten)]
    change: ChangeArgs,
    /// The group
    group: GroupId,
    /// The title, at most 256 bytes
    #[arg(value_parser = title, allow_hyphen_values = true)]
    title: String,
}

impl Rename {
    pub(crate) fn run(self, output: &mut Output) -> Result<(), Failure> {
        self.change.run(output, |client, operation| client.rename_with(operation, self.group, &self.title))
    }
}

/// Make another member the owner of a group; prints the seq
#[derive(Args)]
#[command(after_help = "Example:\n  roundtable transfer --as alice GROUP bob\n\nThe owner may.")]
pub(crate) struct Transfer {
    #[command(flatten)]
    change: ChangeArgs,
    /// The group
    group: GroupId,
    /// The new owner
    member: UserId,
}

impl Transfer {
    pub(crate) fn run(self, output: &mut Output) -> Result<(), Failure> {
        self.change.run(output, |client, operation| client.transfer_with(operation, self.group, &self.member))
    }
}

/// End a group for all its members; prints the seq
#[derive(Args)]
#[command(after_help = "Example:\n  roundtable dissolve --as alice GROUP\n\nThe owner may. There is no way back.")]
pub(crate) struct Dissolve {
    #[command(flatten)]
    change: ChangeArgs,
    /// The group
    group: GroupId,
}

impl Dissolve {
    pub(crate) fn run(self, output: &mut Output) -> Result<(), Failure> {
        self.change.run(output, |client, operation| client.dissolve_with(operation, self.group))
    }
}

/// A title that a group may have.
fn title(text: &str) -> Result<String, String> {
    if text.len() > TITLE_BYTES_MAX {
        return Err(format!("a title has at most {TITLE_BYTES_MAX} bytes, this one has {}", text.len()));
    }
    Ok(text.to_owned())
}

/// A list of nobody would change nothing, and was surely not meant.
fn named(members: Vec<UserId>) -> Result<Vec<UserId>, Failure> {
    if members.is_empty() {
        return Err(Failure::usage("no members named: say who, as arguments or with --members-from FILE"));
    }
    Ok(members)
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
