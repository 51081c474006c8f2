//! Runs rows, shows how far they are, and prints the table.

use std::fmt::Write as _;
use std::panic::AssertUnwindSafe;
use std::process::ExitCode;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use indicatif::{MultiProgress, ProgressBar, ProgressDrawTarget, ProgressStyle};
use rand::SeedableRng;
use rand::rngs::StdRng;

/// Rows that run at once where times do not matter: most of them wait most of the time.
const ROWS_AT_ONCE: usize = 4;

/// One fault.
pub(crate) struct Row {
    pub(crate) name: &'static str,
    pub(crate) fault: &'static str,
    pub(crate) run: fn(&Stage) -> Result<Seen, Skipped>,
}

/// Why a row could not be tried here.
pub(crate) struct Skipped(pub(crate) String);

/// What a row has done and seen. That nothing was wrong needs no words: a row that sees something wrong panics.
pub(crate) struct Seen {
    /// How often, of what.
    pub(crate) count: String,
    /// What happened.
    pub(crate) observed: String,
    /// What the control did, and how it was seen to fail.
    pub(crate) control: String,
}

/// What a row runs on.
pub(crate) struct Stage {
    /// Whether the counts of a milestone are asked for, and times may be asserted.
    pub(crate) is_milestone: bool,
    pub(crate) seed: u64,
    bar: ProgressBar,
    name: &'static str,
}

impl Stage {
    /// One count of two.
    pub(crate) fn scale(&self, normal: u64, milestone: u64) -> u64 {
        if self.is_milestone { milestone } else { normal }
    }

    /// Randomness of its own for each part of a row.
    pub(crate) fn random(&self, part: u64) -> StdRng {
        StdRng::seed_from_u64(self.seed ^ part.rotate_left(32))
    }

    /// Shows how far it is.
    pub(crate) fn show(&self, done: u64, all: u64, what: &str) {
        self.bar.set_length(all);
        self.bar.set_position(done);
        self.bar.set_message(what.to_owned());
        let tenth = |done: u64| done * 10 / all.max(1);
        if self.bar.is_hidden() && done > 0 && tenth(done) > tenth(done - 1) {
            println!("  {}: {done} of {all} {what}", self.name);
        }
    }
}

/// The words behind the program's name, as far as libtest has the same.
#[derive(Default)]
struct Arguments {
    wanted: Vec<String>,
    unwanted: Vec<String>,
    is_exact: bool,
    only_lists: bool,
    only_ignored: bool,
}

impl Arguments {
    fn read() -> Self {
        let mut read = Self::default();
        let mut words = std::env::args().skip(1);
        while let Some(word) = words.next() {
            match word.as_str() {
                "--list" => read.only_lists = true,
                "--exact" => read.is_exact = true,
                "--ignored" => read.only_ignored = true,
                "--skip" => read.unwanted.extend(words.next()),
                "--test-threads" | "--format" | "--color" | "--logfile" => drop(words.next()),
                word if word.starts_with('-') => {}
                word => read.wanted.push(word.to_owned()),
            }
        }
        read
    }

    fn wants(&self, row: &Row) -> bool {
        let fits = |word: &String| if self.is_exact { row.name == word } else { row.name.contains(word.as_str()) };
        (self.wanted.is_empty() || self.wanted.iter().any(fits)) && !self.unwanted.iter().any(fits)
    }
}

struct Done<'r> {
    row: &'r Row,
    result: Result<Result<Seen, Skipped>, String>,
    took: Duration,
}

pub(crate) fn main(rows: &'static [Row]) -> ExitCode {
    let arguments = Arguments::read();
    let rows: Vec<&Row> = rows.iter().filter(|row| arguments.wants(row) && !arguments.only_ignored).collect();
    if arguments.only_lists {
        for row in rows {
            println!("{}: test", row.name);
        }
        return ExitCode::SUCCESS;
    }
    if rows.is_empty() {
        return ExitCode::SUCCESS;
    }
    let is_milestone = match std::env::var("ROUNDTABLE_FAULTS").as_deref() {
        Ok("milestone") => true,
        Ok("") | Err(_) => false,
        Ok(other) => panic!("ROUNDTABLE_FAULTS is milestone or not set, and not {other}"),
    };
    let from = Instant::now();
    let done = run(&rows, is_milestone, crate::kills::seed());
    print_table(&done, is_milestone, from.elapsed());
    if done.iter().all(|done| done.result.is_ok()) { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn run<'r>(rows: &[&'r Row], is_milestone: bool, seed: u64) -> Vec<Done<'r>> {
    println!("faults: {} rows, {}, seed {seed}", rows.len(), counts(is_milestone));
    let bars = Arc::new(MultiProgress::with_draw_target(ProgressDrawTarget::stderr()));
    let (next, done) = (AtomicUsize::new(0), Mutex::new(Vec::new()));
    let work = || {
        while let Some((place, row)) = rows.get(next.fetch_add(1, Ordering::Relaxed)).map(|row| (row.name, *row)) {
            let bar = bars.add(ProgressBar::new(0).with_prefix(place));
            let style = ProgressStyle::with_template("{prefix:16} {wide_bar} {pos}/{len} {msg}");
            bar.set_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()));
            let stage = Stage { is_milestone, seed: seed ^ name_number(row.name), bar, name: row.name };
            let from = Instant::now();
            let result = std::panic::catch_unwind(AssertUnwindSafe(|| (row.run)(&stage)));
            let result = result.map_err(|panic| words_of(&*panic));
            stage.bar.finish_and_clear();
            let finished = Done { row, result, took: from.elapsed() };
            bars.suspend(|| println!("{}: {} in {:.1} s", row.name, verdict(&finished), finished.took.as_secs_f64()));
            done.lock().unwrap_or_else(PoisonError::into_inner).push(finished);
        }
    };
    // What is measured is measured alone.
    let workers = if is_milestone { 1 } else { ROWS_AT_ONCE };
    std::thread::scope(|scope| (0..workers).for_each(|_| drop(scope.spawn(work))));
    let mut done = done.into_inner().unwrap_or_else(PoisonError::into_inner);
    done.sort_by_key(|done| rows.iter().position(|row| row.name == done.row.name));
    done
}

fn counts(is_milestone: bool) -> &'static str {
    if is_milestone { "counts of a milestone" } else { "small counts" }
}

/// So that a row alone makes the choices that it makes among all.
fn name_number(name: &str) -> u64 {
    name.bytes().fold(0, |number, byte| number.wrapping_mul(31).wrapping_add(u64::from(byte)))
}

fn words_of(panic: &(dyn std::any::Any + Send)) -> String {
    let text = panic.downcast_ref::<String>().map(String::as_str);
    text.or_else(|| panic.downcast_ref::<&str>().copied()).unwrap_or("a panic without words").to_owned()
}

fn verdict(done: &Done) -> String {
    match &done.result {
        Ok(Ok(_)) => "held".to_owned(),
        Ok(Err(Skipped(why))) => format!("SKIPPED, nothing was checked: {why}"),
        Err(why) => format!("FAILED: {why}"),
    }
}

fn print_table(done: &[Done], is_milestone: bool, took: Duration) {
    let mut text = String::from("\n| fault | count | seen | lost | verdict | control |\n|---|---|---|---|---|---|\n");
    for done in done {
        let Row { fault, name, .. } = done.row;
        let (count, seen, lost, control) = match &done.result {
            Ok(Ok(Seen { count, observed, control })) => (count.as_str(), observed.as_str(), "0", control.as_str()),
            Ok(Err(_)) => ("0", "", "", ""),
            Err(_) => ("", "", "?", ""),
        };
        let verdict = verdict(done).lines().next().unwrap_or_default().replace('|', "/");
        let _ = writeln!(text, "| {fault} (`{name}`) | {count} | {seen} | {lost} | {verdict} | {control} |");
    }
    println!("{text}\n{}, {:.0} s", counts(is_milestone), took.as_secs_f64());
}
