//! `backup`: of a running server, or of a directory that no server runs on.

use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use clap::Args;
use roundtable::client::ClientError;
use roundtable::store::{BackupError, OfflineError, backup_offline};
use roundtable::wire::{ErrorBody, ErrorCode};
use serde_json::json;

use super::{Bar, cannot_open, count};
use crate::cli::connect::IdentityArgs;
use crate::cli::failure::{Exit, Failure};
use crate::cli::output::Output;
use crate::cli::text::escape;

/// Back up a running server
#[derive(Args)]
#[command(after_help = "Examples:\n  roundtable backup /backups/2026-11-23\n  roundtable backup --offline --data \
                  ./roundtable-data /backups/2026-11-23\n\nThe server makes it, in a directory of its own machine that \
                  is empty or absent. Everything that was acknowledged before is in it; clients are served meanwhile. \
                  On the same file system it consists of hard links: copy it to another disk or machine to be safe \
                  from the loss of this one. Keys and index are not in it. `roundtable restore` makes a data \
                  directory of it.")]
pub(crate) struct Backup {
    /// The directory for the backup, from the root on; on the server's machine
    directory: PathBuf,
    /// Back up --data itself, on which no server may run
    #[arg(long)]
    offline: bool,
    #[command(flatten)]
    identity: IdentityArgs,
}

impl Backup {
    pub(crate) fn run(self, output: &mut Output) -> Result<(), Failure> {
        let shown = self.directory.display().to_string();
        let (files, bytes) = if self.offline { self.make_offline()? } else { self.ask_server(&shown)? };
        output.line(
            |paint| {
                let words = format!("{} with {bytes} bytes in {}", count(files, "file"), escape(&shown));
                format!("{}  {words}; `roundtable restore` makes a data directory of it", paint.good("backed up"))
            },
            || json!({"directory": shown, "files": files, "bytes": bytes}),
        )?;
        Ok(())
    }

    fn ask_server(&self, path: &str) -> Result<(u64, u64), Failure> {
        let mut client = self.identity.connect_as_operator()?;
        client.backup(path).map_err(|error| match error {
            // The server's own words name the place.
            ClientError::Refused(body) => refused(&body),
            other => other.into(),
        })
    }

    fn make_offline(&self) -> Result<(u64, u64), Failure> {
        let mut bar = Bar::new();
        let target = std::path::absolute(&self.directory)
            .map_err(|error| Failure::usage(format!("{} is no path: {error}", self.directory.display())))?;
        let made = backup_offline(&self.identity.key.data, &target, wall_ms(), &mut |progress| bar.show(progress));
        bar.clear();
        let summary = made.map_err(|error| match error {
            OfflineError::Open(error) => cannot_open(error),
            OfflineError::Backup(error) => not_made(&error, &target),
        })?;
        Ok((summary.files, summary.bytes))
    }
}

fn refused(body: &ErrorBody) -> Failure {
    let exit = if body.code == ErrorCode::Damaged.number() { Exit::Damaged } else { Exit::Refused };
    Failure::new(exit, body.name(), format!("there is no backup: {}", body.message))
}

fn not_made(error: &BackupError, target: &Path) -> Failure {
    let message = format!("there is no backup in {}: {error}", target.display());
    match error {
        BackupError::Damaged(_) => Failure::new(Exit::Damaged, "DATA_DAMAGED", message),
        BackupError::Place(_)
        | BackupError::NoSpace(_)
        | BackupError::Busy
        | BackupError::Stopping
        | BackupError::Failed(_) => Failure::new(Exit::Refused, "BACKUP", message),
    }
}

fn wall_ms() -> u64 {
    let since_1970 = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since_1970.as_millis()).unwrap_or(u64::MAX)
}
