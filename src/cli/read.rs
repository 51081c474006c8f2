//! Commands that only read: `show`, `groups`, `history`.

use clap::Args;
use roundtable::client::HistoryPart;
use roundtable::ids::GroupId;
use roundtable::wire::GroupShown;

use super::connect::IdentityArgs;
use super::failure::Failure;
use super::json;
use super::output::{Output, entry_line, record_lines, summary_line};

/// Show a group: members, version, owner, head
#[derive(Args)]
#[command(after_help = "Example:\n  roundtable show --as alice GROUP")]
pub(crate) struct Show {
    #[command(flatten)]
    identity: IdentityArgs,
    /// The group
    group: GroupId,
}

impl Show {
    pub(crate) fn run(self, output: &mut Output) -> Result<(), Failure> {
        let mut client = self.identity.connect()?;
        if let GroupShown::Record { head, floor, record } = client.group(self.group)? {
            output.line(|paint| record_lines(paint, &record, head, floor), || json::shown(&record, head, floor))?;
        }
        Ok(())
    }
}

/// List the groups that you are in
#[derive(Args)]
#[command(after_help = "Example:\n  roundtable groups --as bob")]
pub(crate) struct Groups {
    #[command(flatten)]
    identity: IdentityArgs,
}

impl Groups {
    pub(crate) fn run(self, output: &mut Output) -> Result<(), Failure> {
        let mut client = self.identity.connect()?;
        let groups = client.list_groups()?;
        if groups.is_empty() {
            let user = client.user().clone();
            output.say(|paint| paint.faint(&format!("{} is in no group yet", super::text::escape(user.as_str()))))?;
        }
        for group in &groups {
            output.line(|paint| summary_line(paint, group), || json::summary(group))?;
        }
        Ok(())
    }
}

/// Print the log of a group
#[derive(Args)]
#[command(after_help = "Examples:\n  roundtable history --as alice GROUP\n  \
                        roundtable history --as alice GROUP --from 100 --limit 20 --json")]
pub(crate) struct History {
    #[command(flatten)]
    identity: IdentityArgs,
    /// The group
    group: GroupId,
    /// The first entry wanted; the lowest that there is if it is not said
    #[arg(long, value_name = "SEQ", value_parser = clap::value_parser!(u64).range(1..))]
    from: Option<u64>,
    /// At most so many entries; all if it is not said
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    limit: Option<u64>,
}

impl History {
    pub(crate) fn run(self, output: &mut Output) -> Result<(), Failure> {
        let mut client = self.identity.connect()?;
        let mut from = match self.from {
            Some(from) => from,
            None => self.first(&mut client)?,
        };
        let mut left = self.limit.unwrap_or(u64::MAX);
        while left > 0 {
            let page = client.history(self.group, from, u32::try_from(left).unwrap_or(0))?;
            let HistoryPart { head, entries, .. } = page;
            let Some(last) = entries.last() else { break };
            from = last.seq().saturating_add(1);
            left = left.saturating_sub(u64::try_from(entries.len()).unwrap_or(u64::MAX));
            for entry in &entries {
                output.line(|paint| entry_line(paint, entry), || json::entry(self.group, entry))?;
            }
            if from > head {
                break;
            }
        }
        Ok(())
    }

    /// Whoever joined late, or reads a group whose beginning is deleted, asks for what there is, not for an error.
    fn first(&self, client: &mut roundtable::client::Client) -> Result<u64, Failure> {
        let user = client.user().clone();
        match client.group(self.group)? {
            GroupShown::Record { floor, record, .. } => {
                Ok(floor.max(record.member(&user).map_or(1, |member| member.joined)).max(1))
            }
            GroupShown::Unchanged { .. } => Ok(1),
        }
    }
}
