//! `verify`: is everything on disk what was written?

use clap::Args;
use roundtable::store::{Verified, verify};
use serde_json::json;

use super::{Bar, DataArgs, cannot_open, count, print_findings, scratch};
use crate::cli::failure::{Exit, Failure};
use crate::cli::output::Output;

/// Check every byte of a data directory; changes nothing
#[derive(Args)]
#[command(
    after_help = "Example:\n  roundtable verify --data ./roundtable-data\n\nEvery packet of the journal is read, the \
                  index is compared with it, and whatever is wrong is named with file and offset. Exit code 0: whole; \
                  4: damaged. No server may run on the directory. Room for two copies of index/ is needed where \
                  TMPDIR says."
)]
pub(crate) struct Verify {
    #[command(flatten)]
    data: DataArgs,
}

impl Verify {
    pub(crate) fn run(self, output: &mut Output) -> Result<(), Failure> {
        let scratch = scratch()?;
        let mut bar = Bar::new();
        let verified = verify(&self.data.data, scratch.path(), &mut |progress| bar.show(progress));
        bar.clear();
        let verified = verified.map_err(cannot_open)?;
        print_findings(output, &verified.findings)?;
        summarise(output, &verified)?;
        let damages = verified.findings.iter().filter(|finding| finding.is_damage()).count();
        if damages == 0 {
            return Ok(());
        }
        output.flush()?;
        let data = self.data.data.display();
        let message = format!(
            "{data} is damaged ({}): `roundtable repair --dry-run --data {data}` says what a repair would save and \
             lose; a backup may have more",
            count(damages as u64, "finding")
        );
        Err(Failure::new(Exit::Damaged, "DATA_DAMAGED", message))
    }
}

fn summarise(output: &mut Output, verified: &Verified) -> Result<(), Failure> {
    output.line(
        |paint| {
            let state = if verified.is_damaged() { paint.bad("damaged") } else { paint.good("whole") };
            let Verified { segments, packets, index_values, groups, entries, users, .. } = verified;
            let read = format!("{} with {}", count(*segments, "segment"), count(*packets, "packet"));
            let compared = [count(*groups, "group"), count(*users, "user")].join(", ");
            let entries = if *entries == 1 { "1 entry".to_owned() } else { format!("{entries} entries") };
            format!("{state}    {read}; {}; {compared}, {entries}", count(*index_values, "index value"))
        },
        || {
            json!({
                "kind": "summary",
                "damaged": verified.is_damaged(),
                "findings": verified.findings.len(),
                "segments": verified.segments,
                "packets": verified.packets,
                "packets_lost": verified.losses.iter().filter_map(|loss| loss.packets).sum::<u64>(),
                "index_values": verified.index_values,
                "groups": verified.groups,
                "entries": verified.entries,
                "users": verified.users,
            })
        },
    )?;
    Ok(())
}
