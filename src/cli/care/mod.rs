//! Commands that look after a data directory while no server runs on it.

mod backup;
mod export;
mod import;
mod parse;
mod repair;
mod restore;
mod verify;

use std::path::PathBuf;

use clap::Args;
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use roundtable::config::DATA_DEFAULT;
use roundtable::net::StartError;
use roundtable::store::{Finding, OpenError, Progress, Severity};
use serde_json::{Value, json};

use super::failure::{Exit, Failure};
use super::output::{Output, Paint};
use super::serve::cannot_start;
use super::text::escape;

pub(crate) use backup::Backup;
pub(crate) use export::Export;
pub(crate) use import::Import;
pub(crate) use repair::Repair;
pub(crate) use restore::Restore;
pub(crate) use verify::Verify;

/// Which data directory.
#[derive(Args, Clone)]
pub(crate) struct DataArgs {
    /// The data directory; no server may run on it
    #[arg(long, value_name = "DIR", env = "ROUNDTABLE_DATA", default_value = DATA_DEFAULT)]
    data: PathBuf,
}

/// A bar on standard error while something takes long; nothing where that is no terminal.
struct Bar {
    bar: ProgressBar,
    stage: &'static str,
}

impl Bar {
    fn new() -> Self {
        // `indicatif` itself draws nothing where standard error is no terminal.
        let bar = ProgressBar::with_draw_target(Some(0), ProgressDrawTarget::stderr());
        Self { bar, stage: "" }
    }

    fn show(&mut self, progress: Progress) {
        if self.stage != progress.stage {
            self.stage = progress.stage;
            let template = if progress.all > 0 { "{msg} {wide_bar} {pos}/{len}" } else { "{msg} {spinner} {pos}" };
            self.bar.set_style(ProgressStyle::with_template(template).expect("a template of our own"));
            self.bar.set_message(progress.stage);
        }
        self.bar.set_length(progress.all);
        self.bar.set_position(progress.done);
    }

    fn clear(&self) {
        self.bar.finish_and_clear();
    }
}

impl Drop for Bar {
    fn drop(&mut self) {
        self.clear();
    }
}

/// Prints what was found: one line, or one object, for each.
fn print_findings(output: &mut Output, findings: &[Finding]) -> Result<(), Failure> {
    for finding in findings {
        output.line(|paint| finding_line(paint, finding), || finding_object(finding))?;
    }
    Ok(())
}

fn finding_line(paint: &Paint, finding: &Finding) -> String {
    let word = match finding.severity {
        Severity::Damage => paint.bad("damage "),
        Severity::Warning => paint.bold("warning"),
        Severity::Note => paint.faint("note   "),
    };
    format!("{word}  {}", escape(&finding.to_string()))
}

fn finding_object(finding: &Finding) -> Value {
    let severity = match finding.severity {
        Severity::Damage => "damage",
        Severity::Warning => "warning",
        Severity::Note => "note",
    };
    json!({
        "kind": "finding",
        "severity": severity,
        "file": finding.file,
        "offset": finding.offset,
        "what": finding.what,
    })
}

/// An empty directory for what is only needed while a command runs.
fn scratch() -> Result<tempfile::TempDir, Failure> {
    tempfile::tempdir()
        .map_err(|error| Failure::new(Exit::NoStart, "CANNOT_START", format!("no temporary directory: {error}")))
}

/// Why a directory cannot be opened, in the words and with the exit code of `serve`.
fn cannot_open(error: OpenError) -> Failure {
    cannot_start(&StartError::Storage(error))
}

/// `1 segment`, `2 segments`.
fn count(number: u64, one: &str) -> String {
    if number == 1 { format!("1 {one}") } else { format!("{number} {one}s") }
}
