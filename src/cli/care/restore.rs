//! `restore`: makes a data directory of a backup.

use std::path::PathBuf;

use clap::Args;
use roundtable::store::restore;
use serde_json::json;

use super::{Bar, cannot_open, count};
use crate::cli::failure::Failure;
use crate::cli::output::Output;
use crate::cli::text::{escape, time};

/// Make a data directory of a backup
#[derive(Args)]
#[command(
    after_help = "Example:\n  roundtable restore /backups/2026-11-23 --data ./restored\n  roundtable serve --data \
                  ./restored\n\nThe directory must be empty or absent. Every byte is compared with what the backup's \
                  manifest says. Never let two servers run on copies of one directory for the same clients: each \
                  would go on by itself. The backup has no keys: the first start makes one, or copy keys/ from the \
                  old directory, so that tokens of before stay valid."
)]
pub(crate) struct Restore {
    /// The directory of the backup
    backup: PathBuf,
    /// The data directory to make
    #[arg(long, value_name = "DIR", env = "ROUNDTABLE_DATA")]
    data: PathBuf,
}

impl Restore {
    pub(crate) fn run(self, output: &mut Output) -> Result<(), Failure> {
        let mut bar = Bar::new();
        let restored = restore(&self.backup, &self.data, &mut |progress| bar.show(progress));
        bar.clear();
        let restored = restored.map_err(cannot_open)?;
        let data = self.data.display().to_string();
        output.line(
            |paint| {
                let what = format!("{} with {} bytes", count(restored.files, "file"), restored.bytes);
                let (good, at, data) = (paint.good("restored"), time(restored.made_at_ms), escape(&data));
                format!("{good}  {what}, as it was {at} UTC; start it with `roundtable serve --data {data}`")
            },
            || {
                json!({
                    "data": data,
                    "files": restored.files,
                    "bytes": restored.bytes,
                    "last_lsn": restored.last_lsn,
                    "made_at": restored.made_at_ms,
                })
            },
        )?;
        Ok(())
    }
}
