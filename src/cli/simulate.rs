//! `simulate`: the server over a simulated disk, network and clock, by seeds.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use clap::Args;
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use roundtable::sim::{self, Cuts, Outcome, PLANTED, Shrunk};
use serde_json::json;

use super::failure::{Exit, Failure};
use super::output::Output;

/// Violations of which the words are printed.
const VIOLATIONS_SHOWN: usize = 10;

/// Play seeds of the simulator, or tell the story of one
#[derive(Args)]
#[command(after_help = "Examples:\n  roundtable simulate --seeds 10000\n  roundtable simulate --seed 4711\n  \
                  roundtable simulate --planted all --seeds 1000\n\nExit code 0: every promise was kept; 1: one was broken.")]
pub(crate) struct Simulate {
    /// Play so many seeds
    #[arg(long, default_value_t = 1_000)]
    seeds: u64,
    /// Begin with this one
    #[arg(long, default_value_t = 0)]
    from: u64,
    /// Play this one alone; if it fails, shrink it and tell what happens
    #[arg(long, conflicts_with_all = ["seeds", "from"])]
    seed: Option<u64>,
    /// Plant this fault first and say how many seeds it takes to find it; `all`: one after the other
    #[arg(long)]
    planted: Option<String>,
    /// Threads; 0: one for each core
    #[arg(long, default_value_t = 0)]
    threads: usize,
}

/// What many runs came to.
#[derive(Default)]
struct Tally {
    seeds: u64,
    events: u64,
    violations: Vec<(u64, String)>,
    rare: BTreeMap<&'static str, u64>,
}

impl Tally {
    fn add(&mut self, seed: u64, outcome: Outcome) {
        self.seeds += 1;
        self.events += outcome.events;
        self.violations.extend(outcome.violation.map(|violation| (seed, violation)));
        for (what, count) in outcome.rare {
            *self.rare.entry(what).or_default() += count;
        }
    }
}

impl Simulate {
    pub(crate) fn run(self, output: &mut Output) -> Result<(), Failure> {
        // What breaks a promise panics; it is reported below, with its seed.
        std::panic::set_hook(Box::new(|_| {}));
        match (&self.planted, self.seed) {
            (Some(name), _) => self.find_planted(name, output),
            (None, Some(seed)) => tell_story(seed, output),
            (None, None) => self.play(output),
        }
    }

    fn threads(&self) -> usize {
        match self.threads {
            0 => std::thread::available_parallelism().map_or(1, std::num::NonZero::get),
            threads => threads,
        }
    }

    fn play(&self, output: &mut Output) -> Result<(), Failure> {
        let (next, tally) = (AtomicU64::new(0), Mutex::new(Tally::default()));
        let bar = bar(self.seeds);
        let begun = Instant::now();
        let work = || loop {
            let number = next.fetch_add(1, Ordering::Relaxed);
            if number >= self.seeds {
                return;
            }
            let seed = self.from.wrapping_add(number);
            let outcome = sim::run(seed, &Cuts::default());
            bar.inc(1);
            if let Ok(mut tally) = tally.lock() {
                tally.add(seed, outcome);
            }
        };
        std::thread::scope(|scope| (0..self.threads()).for_each(|_| _ = scope.spawn(work)));
        let took_s = begun.elapsed().as_secs_f64();
        bar.finish_and_clear();
        let mut tally = tally.into_inner().unwrap_or_default();
        tally.violations.sort();
        #[expect(clippy::cast_precision_loss, clippy::cast_possible_truncation, clippy::cast_sign_loss)]
        let rate = (tally.seeds as f64 * 60.0 / took_s) as u64;
        report(&tally, rate, output)
    }

    fn find_planted(&self, name: &str, output: &mut Output) -> Result<(), Failure> {
        let mut missed = 0;
        for planted in PLANTED.iter().filter(|planted| name == "all" || **planted == name) {
            let found = sim::find_planted(planted, self.from, self.seeds);
            missed += u64::from(found.is_none());
            let (seeds, violation) = found.unzip();
            output.line(
                |paint| match (seeds, &violation) {
                    (Some(seeds), Some(text)) => format!("{seeds:>5}  {planted}  {}", paint.faint(&first_line(text))),
                    _ => format!("{}  {planted}", paint.bad("never")),
                },
                || json!({"kind": "planted", "name": planted, "seeds": seeds, "violation": violation}),
            )?;
        }
        output.flush()?;
        if missed == 0 {
            return Ok(());
        }
        Err(Failure::new(Exit::Refused, "NOT_FOUND", format!("{missed} planted faults were not found")))
    }
}

fn report(tally: &Tally, seeds_per_minute: u64, output: &mut Output) -> Result<(), Failure> {
    let Tally { seeds, events, violations, rare } = tally;
    output.line(
        |paint| {
            let state = if violations.is_empty() { paint.good("kept") } else { paint.bad("broken") };
            let mut text = format!(
                "{state}    {seeds} seeds, {events} events, {} violations; {seeds_per_minute} seeds a minute",
                violations.len()
            );
            for (seed, violation) in violations.iter().take(VIOLATIONS_SHOWN) {
                let _ = write!(text, "\n  seed {seed}: {}", first_line(violation));
            }
            for (what, count) in rare {
                let _ = write!(text, "\n{count:>10}  {what}");
            }
            text
        },
        || {
            let broken: Vec<_> = violations
                .iter()
                .take(VIOLATIONS_SHOWN)
                .map(|(seed, text)| json!({"seed": seed, "text": text}))
                .collect();
            json!({
                "seeds": seeds,
                "events": events,
                "violations": violations.len(),
                "seeds_per_minute": seeds_per_minute,
                "rare_states": rare,
                "broken": broken,
            })
        },
    )?;
    output.flush()?;
    match violations.first() {
        None => Ok(()),
        Some((seed, _)) => {
            let message = format!("a promise was broken: `roundtable simulate --seed {seed}` tells how");
            Err(Failure::new(Exit::Refused, "VIOLATION", message))
        }
    }
}

fn tell_story(seed: u64, output: &mut Output) -> Result<(), Failure> {
    let Some(Shrunk { cuts, outcome, faults, runs }) = sim::shrink(seed) else {
        output.line(
            |paint| format!("{}    seed {seed} keeps every promise", paint.good("kept")),
            || json!({"seed": seed, "violation": null}),
        )?;
        return Ok(output.flush()?);
    };
    let violation = outcome.violation.unwrap_or_default();
    output.line(
        |paint| {
            let mut text = format!("seed {seed}, shrunk in {runs} runs; faults left: {faults:?}\n");
            for line in &outcome.story {
                let _ = writeln!(text, "  {line}");
            }
            text.push_str(&paint.bad(&violation));
            text
        },
        || {
            let steps = (cuts.steps_max < u64::MAX).then_some(cuts.steps_max);
            let faults: Vec<String> = faults.iter().map(|fault| format!("{fault:?}")).collect();
            json!({"seed": seed, "violation": violation, "faults": faults, "steps": steps, "story": outcome.story})
        },
    )?;
    output.flush()?;
    Err(Failure::new(Exit::Refused, "VIOLATION", format!("seed {seed} breaks a promise")))
}

fn bar(seeds: u64) -> ProgressBar {
    let style = ProgressStyle::with_template("{wide_bar} {pos}/{len} seeds, {per_sec}, {eta} left");
    let bar = ProgressBar::with_draw_target(Some(seeds), ProgressDrawTarget::stderr_with_hz(4));
    bar.set_style(style.expect("a template of our own"));
    bar
}

fn first_line(text: &str) -> String {
    text.lines().take(3).collect::<Vec<_>>().join(" ").chars().take(240).collect()
}
