//! `export`: groups, their logs and memberships as JSON lines.

use clap::Args;
use roundtable::ids::{GroupId, UserId};
use roundtable::store::{Archive, GroupState, Membership, Progress};
use roundtable::wire::LogEntry;
use serde_json::{Value, json};

use super::{Bar, DataArgs, cannot_open};
use crate::cli::failure::{Exit, Failure};
use crate::cli::json as shapes;
use crate::cli::output::Output;

/// Groups read in one step.
const PAGE: usize = 64;

/// Write groups as JSON lines to standard output
#[derive(Args)]
#[command(
    after_help = "Examples:\n  roundtable export --data ./roundtable-data > groups.jsonl\n  roundtable export --data \
                  ./roundtable-data GROUP\n\nOne line a group (its record), then one line an entry of its log, as \
                  `history --json` prints them, whispers and bodies included; at the end one line for each membership \
                  that has marks or has ended. Remembered operation ids are not exported. No server may run on the \
                  directory; back it up and restore it elsewhere to export while one runs."
)]
pub(crate) struct Export {
    /// The one group to write; all, if it is left away
    group: Option<GroupId>,
    #[command(flatten)]
    data: DataArgs,
}

impl Export {
    pub(crate) fn run(self, output: &mut Output) -> Result<(), Failure> {
        let mut bar = Bar::new();
        let mut archive = Archive::open(&self.data.data, &mut |progress| bar.show(progress)).map_err(cannot_open)?;
        match self.group {
            Some(group) => {
                let state = archive.group(group).map_err(cannot_open)?;
                let state = state.ok_or_else(|| {
                    Failure::new(Exit::Refused, "NOT_FOUND", format!("there is no group {group} in this directory"))
                })?;
                write_group(output, &mut archive, &state)?;
            }
            None => write_all(output, &mut archive, &mut bar)?,
        }
        write_memberships(output, &mut archive, self.group, &mut bar)?;
        bar.clear();
        archive.close().map_err(cannot_open)
    }
}

fn write_all(output: &mut Output, archive: &mut Archive, bar: &mut Bar) -> Result<(), Failure> {
    let (mut after, mut done) = (None, 0);
    loop {
        let (states, more) = archive.groups(after, PAGE).map_err(cannot_open)?;
        for state in &states {
            write_group(output, archive, state)?;
            done += 1;
            bar.show(Progress { stage: "writing groups", done, all: 0 });
        }
        after = states.last().map(|state| state.record.group);
        if !more || after.is_none() {
            return Ok(());
        }
    }
}

fn write_group(output: &mut Output, archive: &mut Archive, state: &GroupState) -> Result<(), Failure> {
    output.object(&group_object(state))?;
    let group = state.record.group;
    let mut next = state.floor;
    while next <= state.head {
        let entries = archive.entries(group, next).map_err(cannot_open)?;
        if entries.is_empty() {
            let message = format!("the log of group {group} has no entry {next}: see `roundtable verify`");
            return Err(Failure::new(Exit::Damaged, "DATA_DAMAGED", message));
        }
        next += entries.len() as u64;
        for entry in entries {
            output.object(&shapes::entry(group, &LogEntry::Shown(entry)))?;
        }
    }
    Ok(())
}

fn group_object(state: &GroupState) -> Value {
    let mut object = json!({"kind": "group"});
    let record = shapes::shown(&state.record, state.head, state.floor);
    if let (Some(fields), Some(record)) = (object.as_object_mut(), record.as_object()) {
        fields.extend(record.clone());
        fields.insert("last_at".to_owned(), json!(state.last_at_ms));
        fields.insert("dissolved".to_owned(), json!(state.record.dissolved));
    }
    object
}

/// Memberships that say more than the log: with marks, or ended.
fn write_memberships(
    output: &mut Output,
    archive: &mut Archive,
    only: Option<GroupId>,
    bar: &mut Bar,
) -> Result<(), Failure> {
    let (mut after, mut done): (Option<UserId>, u64) = (None, 0);
    while let Some(user) = archive.next_user(after.as_ref()).map_err(cannot_open)? {
        for membership in archive.memberships(&user).map_err(cannot_open)? {
            let says_more = membership.received.max(membership.read) > 0 || membership.until.is_some();
            if says_more && only.is_none_or(|only| only == membership.group) {
                output.object(&membership_object(&user, &membership))?;
            }
        }
        done += 1;
        bar.show(Progress { stage: "writing memberships", done, all: 0 });
        after = Some(user);
    }
    Ok(())
}

fn membership_object(user: &UserId, membership: &Membership) -> Value {
    let Membership { group, joined, until, received, read, head } = membership;
    json!({
        "kind": "membership",
        "group": group.to_string(),
        "user": user.as_str(),
        "joined": joined,
        "until": until,
        "received": received,
        "read": read,
        "head": head,
    })
}
