//! `import`: reads what `export` wrote into a data directory.

use std::fs::File;
use std::io::{self, BufRead, BufReader, Seek, SeekFrom};
use std::path::{Path, PathBuf};

use clap::Args;
use roundtable::config::DATA_DEFAULT;
use roundtable::store::{Archive, ImportError, Imported, Importer, Pass, Progress};
use serde_json::json;

use super::parse::{Line, line};
use super::{Bar, cannot_open, count};
use crate::cli::failure::{Exit, Failure};
use crate::cli::output::Output;

/// A line of an export has one record of 10,000 members or one body at most; more is no export.
const LINE_BYTES_MAX: u64 = 4 * 1024 * 1024;
/// Lines between two steps of the progress bar.
const SHOWN_EVERY: u64 = 1_000;

/// Read groups from JSON lines into a data directory
#[derive(Args)]
#[command(
    after_help = "Example:\n  roundtable import groups.jsonl --data ./new\n\nGroups keep their ids, entries their \
                  numbers, versions and times, users their marks. The directory may be new, or one without these \
                  groups. Everything is checked first: a malformed line is named, and then nothing is changed. An \
                  import that was interrupted is completed by running it again: what is there already must be the \
                  same. No server may run on the directory."
)]
pub(crate) struct Import {
    /// What `roundtable export` wrote; - for standard input
    #[arg(default_value = "-")]
    file: PathBuf,
    /// The data directory; made if it is missing. No server may run on it
    #[arg(long, value_name = "DIR", env = "ROUNDTABLE_DATA", default_value = DATA_DEFAULT)]
    data: PathBuf,
}

impl Import {
    pub(crate) fn run(self, output: &mut Output) -> Result<(), Failure> {
        let mut file = self.open()?;
        let mut bar = Bar::new();
        let mut archive = Archive::open_or_make(&self.data, &mut |progress| bar.show(progress)).map_err(cannot_open)?;
        pass(&mut archive, &mut file, Pass::Check, &mut bar)?;
        file.seek(SeekFrom::Start(0)).map_err(|error| unreadable(&self.file, &error))?;
        let imported = pass(&mut archive, &mut file, Pass::Write, &mut bar)?;
        archive.close().map_err(cannot_open)?;
        bar.clear();
        output.line(
            |paint| {
                let Imported { groups, groups_unchanged, entries, marks } = imported;
                let unchanged = match groups_unchanged {
                    0 => String::new(),
                    some => format!("; {some} were there already"),
                };
                let entries = if entries == 1 { "1 entry".to_owned() } else { format!("{entries} entries") };
                let what = [count(groups, "group"), entries, count(marks, "membership")].join(", ");
                format!("{}  {what}{unchanged}", paint.good("imported"))
            },
            || {
                json!({
                    "groups": imported.groups,
                    "groups_unchanged": imported.groups_unchanged,
                    "entries": imported.entries,
                    "memberships": imported.marks,
                })
            },
        )?;
        Ok(())
    }

    /// The lines, in a file that can be read twice.
    fn open(&self) -> Result<BufReader<File>, Failure> {
        let opened = if self.file == Path::new("-") {
            tempfile::tempfile().and_then(|mut file| {
                io::copy(&mut io::stdin().lock(), &mut file)?;
                file.rewind()?;
                Ok(file)
            })
        } else {
            File::open(&self.file)
        };
        opened.map(BufReader::new).map_err(|error| unreadable(&self.file, &error))
    }
}

fn unreadable(path: &Path, error: &io::Error) -> Failure {
    Failure::usage(format!("{} cannot be read: {error}", path.display()))
}

/// Goes through all lines once.
fn pass(archive: &mut Archive, file: &mut BufReader<File>, pass: Pass, bar: &mut Bar) -> Result<Imported, Failure> {
    let stage = match pass {
        Pass::Check => "checking lines",
        Pass::Write => "writing lines",
    };
    let mut importer = Importer::new(archive, pass);
    let (mut number, mut text) = (0_u64, Vec::new());
    loop {
        text.clear();
        number += 1;
        let read = io::Read::take(&mut *file, LINE_BYTES_MAX).read_until(b'\n', &mut text);
        if read.map_err(|error| at(number, &error.to_string()))? == 0 {
            break;
        }
        let text = std::str::from_utf8(&text).map_err(|_| at(number, "it is not UTF-8"))?;
        if text.trim().is_empty() {
            continue;
        }
        let taken = match line(text).map_err(|error| at(number, &error))? {
            Line::Group(state) => importer.group(state),
            Line::Entry(group, entry) => importer.entry(group, entry),
            Line::Membership(user, membership) => importer.membership(user, &membership),
        };
        taken.map_err(|error| failed(number, error))?;
        if number.is_multiple_of(SHOWN_EVERY) {
            bar.show(Progress { stage, done: number, all: 0 });
        }
    }
    importer.finish().map_err(|error| failed(number, error))
}

fn failed(number: u64, error: ImportError) -> Failure {
    match error {
        ImportError::Wrong(what) => at(number, &what),
        ImportError::Open(error) => cannot_open(error),
    }
}

/// What is wrong with a line. Nothing was changed: everything is checked before anything is written.
fn at(number: u64, what: &str) -> Failure {
    let message = format!("line {number}: {what}; nothing was imported");
    Failure::new(Exit::Refused, "BAD_IMPORT", message)
}
