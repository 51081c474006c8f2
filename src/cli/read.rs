//! Commands that only read: `show`, `groups`, `history`, `readers`.

use clap::Args;
use roundtable::client::{Client, ClientError, HistoryPart};
use roundtable::ids::{GroupId, UserId};
use roundtable::wire::{ErrorCode, GroupShown};

use super::connect::IdentityArgs;
use super::failure::Failure;
use super::json;
use super::output::{Output, entry_line, reader_line, reader_titles, record_lines, summary_line};
use super::text::escape;

/// Show a group: members, version, owner, head
#[derive(Args)]
#[command(after_help = "Examples:\n  roundtable show --as alice GROUP\n  roundtable show GROUP\n\nWithout --as, and \
                        with an operator's token, any group is shown, to its operator.")]
pub(crate) struct Show {
    #[command(flatten)]
    identity: IdentityArgs,
    /// The group
    group: GroupId,
}

impl Show {
    pub(crate) fn run(self, output: &mut Output) -> Result<(), Failure> {
        let mut client =
            if self.identity.is_operator() { self.identity.connect_as_operator()? } else { self.identity.connect()? };
        if let GroupShown::Record { head, floor, record } = client.group(self.group)? {
            output.line(|paint| record_lines(paint, &record, head, floor), || json::shown(&record, head, floor))?;
        }
        Ok(())
    }
}

/// List the groups that you are in
#[derive(Args)]
#[command(after_help = "Examples:\n  roundtable groups --as bob\n  roundtable groups --user bob\n\nWith --user it is \
                        an operator who asks.")]
pub(crate) struct Groups {
    #[command(flatten)]
    identity: IdentityArgs,
    /// List the groups of somebody else; for operators
    #[arg(long = "user", id = "user_of", value_name = "USER", conflicts_with = "user")]
    user_of: Option<UserId>,
}

impl Groups {
    pub(crate) fn run(self, output: &mut Output) -> Result<(), Failure> {
        let mut client = match &self.user_of {
            Some(user) => {
                let mut client = self.identity.connect_as_operator()?;
                client.act_for(Some(user.clone()));
                client
            }
            None => self.identity.connect()?,
        };
        let groups = client.list_groups()?;
        if groups.is_empty() {
            let user = client.acting_user().clone();
            output.say(|paint| paint.faint(&format!("{} is in no group yet", escape(user.as_str()))))?;
        }
        for group in &groups {
            output.line(|paint| summary_line(paint, group), || json::summary(group))?;
        }
        Ok(())
    }
}

/// Show how far the members of a group have received and read it
#[derive(Args)]
#[command(after_help = "Examples:\n  roundtable readers --as alice GROUP\n  \
                        roundtable readers --as alice GROUP --seq 7")]
pub(crate) struct Readers {
    #[command(flatten)]
    identity: IdentityArgs,
    /// The group
    group: GroupId,
    /// Only those who have read up to this entry
    #[arg(long, value_name = "SEQ", value_parser = clap::value_parser!(u64).range(1..))]
    seq: Option<u64>,
}

impl Readers {
    pub(crate) fn run(self, output: &mut Output) -> Result<(), Failure> {
        let readers = self.identity.connect()?.readers(self.group, self.seq.unwrap_or(0))?;
        output.say(reader_titles)?;
        for reader in &readers {
            output.line(|paint| reader_line(paint, reader), || json::reader(self.group, reader))?;
        }
        Ok(())
    }
}

/// Print the log of a group
#[derive(Args)]
#[command(after_help = "Examples:\n  roundtable history --as alice GROUP\n  \
                        roundtable history --as alice GROUP --from 100 --limit 20 --json\n\nWho has left a group \
                        reads up to its leaving, for a while.")]
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
        let mut left = self.limit.unwrap_or(u64::MAX);
        let mut page = self.first_page(&mut client, left)?;
        loop {
            let HistoryPart { head, entries, .. } = page;
            for entry in &entries {
                output.line(|paint| entry_line(paint, entry), || json::entry(self.group, entry))?;
            }
            left = left.saturating_sub(u64::try_from(entries.len()).unwrap_or(u64::MAX));
            match entries.last() {
                Some(last) if left > 0 && last.seq() < head => {
                    page = client.history(self.group, last.seq().saturating_add(1), limit(left))?;
                }
                _ => return Ok(()),
            }
        }
    }

    /// Whoever joined late, or reads a group whose beginning is deleted, asks for what there is, not for an error.
    fn first_page(&self, client: &mut Client, left: u64) -> Result<HistoryPart, Failure> {
        match client.history(self.group, self.from.unwrap_or(1), limit(left)) {
            Err(ClientError::Refused(refusal))
                if self.from.is_none() && refusal.code == ErrorCode::Truncated.number() =>
            {
                Ok(client.history(self.group, refusal.detail, limit(left))?)
            }
            page => Ok(page?),
        }
    }
}

/// So many entries, or as many as the server puts into a page.
fn limit(left: u64) -> u32 {
    u32::try_from(left).unwrap_or(0)
}
