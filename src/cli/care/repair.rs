//! `repair`: makes the best of a damaged data directory, says what is lost, keeps the original.

use std::io::{self, IsTerminal, Write};

use clap::Args;
use roundtable::store::{GroupLoss, Loss, Repair as Plan};
use serde_json::{Value, json};

use super::{Bar, DataArgs, cannot_open, count, print_findings, scratch};
use crate::cli::failure::{Exit, Failure, Format};
use crate::cli::output::{Output, Paint};
use crate::cli::text::escape;

/// Save what can be saved of a damaged data directory
#[derive(Args)]
#[command(
    after_help = "Examples:\n  roundtable repair --dry-run --data ./roundtable-data\n  roundtable repair --yes --data \
                  ./roundtable-data\n\nWhat is lost is listed first. A group of which an entry is lost ends before \
                  that entry; all other groups keep everything. The originals are moved to damaged-N/ in the \
                  directory, which may be deleted when nothing of them is missed. The part of the journal from the \
                  first damage on is written again: there must be room for it. If you have a backup, look there first."
)]
pub(crate) struct Repair {
    #[command(flatten)]
    data: DataArgs,
    /// Say what would be saved and lost, and change nothing
    #[arg(long)]
    dry_run: bool,
    /// Do it without asking
    #[arg(long)]
    yes: bool,
}

impl Repair {
    pub(crate) fn run(self, output: &mut Output) -> Result<(), Failure> {
        let scratch = scratch()?;
        let mut bar = Bar::new();
        let plan = Plan::plan(&self.data.data, scratch.path(), &mut |progress| bar.show(progress));
        bar.clear();
        let plan = plan.map_err(cannot_open)?;
        print_findings(output, &plan.verified.findings)?;
        if !plan.is_needed() {
            output.line(
                |paint| format!("{}    there is nothing to repair", paint.good("whole")),
                || json!({"kind": "repair", "needed": false}),
            )?;
            return Ok(());
        }
        print_losses(output, &plan)?;
        if self.dry_run {
            output.say(|_| "nothing was changed: this was a dry run".to_owned())?;
            return Ok(());
        }
        output.flush()?;
        self.confirm(output.format())?;
        let (packets, groups) = (packets_lost(&plan), plan.groups.len());
        let repaired = plan.run(&mut |progress| bar.show(progress)).map_err(cannot_open)?;
        bar.clear();
        let kept = self.data.data.join(&repaired.kept);
        output.line(
            |paint| {
                format!(
                    "{}  {} written again; the originals are in {}; start the server with `roundtable serve`",
                    paint.good("repaired"),
                    count(repaired.segments_written, "segment"),
                    escape(&kept.display().to_string())
                )
            },
            || {
                json!({
                    "kind": "repair",
                    "needed": true,
                    "kept": kept.display().to_string(),
                    "segments_written": repaired.segments_written,
                    "packets_lost": packets,
                    "groups_cut": groups,
                })
            },
        )?;
        Ok(())
    }

    /// Asks, where there is somebody to ask.
    fn confirm(&self, format: Format) -> Result<(), Failure> {
        if self.yes {
            return Ok(());
        }
        if format == Format::Json || !io::stdin().is_terminal() || !io::stderr().is_terminal() {
            return Err(Failure::usage(
                "nothing was changed: say --yes to repair, or --dry-run to see only what it would do",
            ));
        }
        let asked = write!(io::stderr(), "Repair it? What is listed as lost is lost then. [y/N] ");
        asked.and_then(|()| io::stderr().flush())?;
        let mut answer = String::new();
        io::stdin().read_line(&mut answer)?;
        match answer.trim() {
            "y" | "Y" | "yes" => Ok(()),
            _ => Err(Failure::new(Exit::Refused, "NOT_CONFIRMED", "nothing was changed")),
        }
    }
}

/// As far as it is known; `None` where the end of the journal is lost and nothing says how much that was.
fn packets_lost(plan: &Plan) -> Option<u64> {
    plan.verified.losses.iter().map(|loss| loss.packets).sum()
}

fn print_losses(output: &mut Output, plan: &Plan) -> Result<(), Failure> {
    for loss in &plan.verified.losses {
        output.line(|paint| loss_line(paint, loss), || loss_object(loss))?;
    }
    for group in &plan.groups {
        print_group(output, group)?;
    }
    let (losses, groups) = (plan.verified.losses.is_empty(), plan.groups.is_empty());
    output.say(|paint| match (losses, groups) {
        (true, true) => paint.good("nothing of what was written is lost"),
        (false, true) => {
            "No group has a gap, and nothing says that one was longer. Lost packets may be markers, marks of readers, \
             the last entries of groups, or former memberships and remembered operations that cleaning had carried."
                .to_owned()
        }
        _ => "A lost packet may also be a marker, marks of readers, the last entry of a group that is not listed, or \
              former memberships and remembered operations that cleaning had carried."
            .to_owned(),
    })?;
    Ok(())
}

fn loss_line(paint: &Paint, loss: &Loss) -> String {
    let what = match loss.packets {
        Some(packets) => format!("{} from LSN {} on", count(packets, "packet"), loss.first_lsn),
        None if loss.first_lsn == 0 => "everything from the beginning of the journal up to the next segment".to_owned(),
        None => format!("everything from LSN {} on", loss.first_lsn),
    };
    format!("{}     {} at offset {}: {what}", paint.bad("lost"), escape(&loss.file), loss.offset)
}

fn loss_object(loss: &Loss) -> Value {
    json!({
        "kind": "lost_packets",
        "file": loss.file,
        "offset": loss.offset,
        "first_lsn": loss.first_lsn,
        "packets": loss.packets,
    })
}

/// A group may lose entries before those that stay, behind them, or both: one line each.
fn print_group(output: &mut Output, loss: &GroupLoss) -> Result<(), Failure> {
    let GroupLoss { group, lost_from, kept_from, kept_through, lost_through, whole_behind } = *loss;
    let kept = match kept_through {
        0 => "nothing of it stays".to_owned(),
        last if last < kept_from => "its record stays, and no entry".to_owned(),
        last => format!("{kept_from} to {last} stay"),
    };
    let mut stretch = |kind: &str, first: u64, last: u64, whole: u64| {
        let behind = match whole {
            0 => String::new(),
            count => format!("; {count} of them are whole, but stand behind the gap"),
        };
        output.line(
            |paint| format!("{}     group {group}: entries {first} to {last}; {kept}{behind}", paint.bad("lost")),
            || json!({"kind": kind, "group": group.to_string(), "first": first, "last": last, "whole_behind": whole}),
        )
    };
    if lost_from < kept_from {
        stretch("lost_first_entries", lost_from, kept_from - 1, 0)?;
    }
    if kept_through < lost_through {
        stretch("lost_entries", kept_through + 1, lost_through, whole_behind)?;
    }
    Ok(())
}
