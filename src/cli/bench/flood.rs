//! `bench flood`: what small groups notice of a large one that is flooded.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use clap::Args;
use serde_json::{Map, Value, json};

use super::field::Field;
use super::flooder::{Flood, Flooded, Plan};
use super::open::Open;
use super::options::{Repeat, Seconds, ServerOptions};
use super::peers::raw::RawLimit;
use super::peers::roundtable::Roundtable;
use super::peers::{Load, Peer};
use super::report::{Figures, Ratios, machine, number, range, round, with_range};
use super::run::{Bar, Rounds, in_a_place};
use super::sample::{Sample, Spread};
use super::server::Server;
use crate::cli::failure::Failure;
use crate::cli::interrupt::Interrupt;
use crate::cli::output::{Output, Paint};

/// Flood one large group, and measure how long messages to small ones take meanwhile
#[derive(Args, Clone)]
#[command(
    after_help = "Examples:\n  roundtable bench flood\n  roundtable bench flood --large 1000 --window 256 --stored \
                  --json\n\nOf each round three turns, all on the same server and with the same connections. In each, \
                  messages to the small groups are due at fixed times, as in `bench latency`. Quiet: nothing else. Flooded: \
                  meanwhile a process of its own floods the large group; the next message is sent when the slowest \
                  member has the oldest of the window. Raw flood: meanwhile the raw limit, a third process, floods as many sockets \
                  with the same bytes, and the small groups still run on the server.\n\nMeasured: the time from when a message \
                  to a small group was due until a member has it, in microseconds; deliveries a second to the large \
                  group. ratio_to_quiet: p99 flooded, divided by p99 quiet. What the flood's receivers take of the machine is in \
                  it, and on two cores they compete with the server and with what measures: p99_to_raw_flood, the same divided by p99 of the turn with the raw \
                  flood, is what the server itself adds to a machine that is as busy."
)]
pub(super) struct FloodBench {
    /// Members of the large group, all on line
    #[arg(long, default_value_t = 9_999, value_parser = clap::value_parser!(u32).range(1..=9_999))]
    pub(super) large: u32,
    /// Messages to the large group on their way at once
    #[arg(long, default_value_t = 64, value_parser = clap::value_parser!(u32).range(1..=1_024))]
    pub(super) window: u32,
    /// Small groups
    #[arg(long, default_value_t = 100, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    pub(super) groups: u32,
    /// Members of each small group, all on line
    #[arg(long, default_value_t = 10, value_parser = clap::value_parser!(u32).range(1..=9_999))]
    pub(super) members: u32,
    /// Deliveries a second to the small groups
    #[arg(long, default_value_t = 2_000, value_parser = clap::value_parser!(u32).range(1..=10_000_000))]
    pub(super) rate: u32,
    /// Messages to all groups are durable before they are delivered; otherwise signals, which are never stored
    #[arg(long)]
    pub(super) stored: bool,
    /// Bytes of a message
    #[arg(long, default_value_t = 200, value_parser = clap::value_parser!(u32).range(1..=65_536))]
    pub(super) bytes: u32,
    #[command(flatten)]
    pub(super) seconds: Seconds,
    #[command(flatten)]
    pub(super) repeat: Repeat,
    #[command(flatten)]
    pub(super) server: ServerOptions,
    /// Where throw-away directories are made: the disk that is measured [default: the system's temporary directory]
    #[arg(long, value_name = "DIR")]
    pub(super) directory: Option<PathBuf>,
}

/// All rounds of the three turns, and what the floods delivered in a second.
pub(super) struct Beside {
    quiet: Rounds,
    flooded: Rounds,
    raw_flood: Rounds,
    flood_rates: Vec<f64>,
    raw_flood_rates: Vec<f64>,
}

impl Beside {
    fn new() -> Self {
        let rounds = |name| Rounds { name, samples: Vec::new() };
        Self {
            quiet: rounds("quiet"),
            flooded: rounds("flooded"),
            raw_flood: rounds("raw flood"),
            flood_rates: Vec::new(),
            raw_flood_rates: Vec::new(),
        }
    }

    /// p99 of small groups, flooded divided by quiet.
    pub(super) fn p99_to_quiet(&self) -> Spread {
        Ratios::of(&self.flooded, &self.quiet).p99
    }

    fn p99_to_raw_flood(&self) -> Spread {
        Ratios::of(&self.flooded, &self.raw_flood).p99
    }
}

/// Everything that runs.
struct Stage<'a> {
    small: Load,
    open: Open,
    server: Roundtable,
    flood: Flood,
    raw_flood: Flood,
    _raw: RawLimit,
    interrupt: &'a Interrupt,
}

impl FloodBench {
    pub(super) fn run(self, output: &mut Output) -> Result<(), Failure> {
        let beside = self.measure()?;
        output.line(|paint| self.table(&beside, paint), || self.object(&beside))?;
        Ok(())
    }

    pub(super) fn measure(&self) -> Result<Beside, Failure> {
        // The server has all of them.
        let connections = self.large + 1 + self.groups * self.members + 1;
        in_a_place(self.directory.as_deref(), connections as usize, |directory, interrupt| {
            let mut stage = self.start(directory, interrupt)?;
            let mut beside = Beside::new();
            let bar = Bar::new(3 * u64::from(self.repeat.rounds));
            for round in 0..self.repeat.rounds as usize {
                stage.round(round, &bar, &mut beside)?;
            }
            Ok(beside)
        })
    }

    fn start<'a>(&self, directory: &Path, interrupt: &'a Interrupt) -> Result<Stage<'a>, Failure> {
        let server = Server::open(&self.server, directory)?;
        let (_, key) = server.key()?;
        let plan = Plan {
            flooded: Flooded::Roundtable { data: key.data, cluster: key.cluster },
            address: server.address(),
            members: self.large as usize,
            window: u64::from(self.window),
            stored: self.stored,
            bytes: self.bytes as usize,
        };
        let small = Load { groups: self.groups as usize, members: self.members as usize, ..plan.load() };
        let raw = RawLimit::start(&plan.load(), directory)?;
        Ok(Stage {
            open: Open::at_rate(self.rate, self.groups, self.members, self.seconds),
            server: Roundtable::new(server, small.clone())?,
            small,
            flood: Flood::start(&plan)?,
            raw_flood: Flood::start(&Plan { flooded: Flooded::Raw, address: raw.address(), ..plan })?,
            _raw: raw,
            interrupt,
        })
    }

    fn object(&self, beside: &Beside) -> Value {
        let Self { large, window, groups, members, rate, stored, bytes, repeat, seconds, .. } = self;
        let turn = |rounds: &Rounds, rates: &[f64]| {
            let ratios = Ratios::of(rounds, &beside.quiet);
            let ratio = |spread: Spread| round(spread.median);
            json!({
                "latency_us": Figures::of(rounds).latency(),
                "ratios_to_quiet": {"p50": ratio(ratios.p50), "p99": ratio(ratios.p99), "p99_9": ratio(ratios.p99_9)},
                "flood_deliveries_per_second": round(spread(rates).median),
            })
        };
        let (to_quiet, to_raw_flood) = (beside.p99_to_quiet(), beside.p99_to_raw_flood());
        let mut ranges = Map::new();
        ranges.insert("ratio_to_quiet".to_owned(), range(Some(to_quiet)));
        ranges.insert("p99_to_raw_flood".to_owned(), range(Some(to_raw_flood)));
        ranges.insert("flood_deliveries_per_second".to_owned(), range(Some(spread(&beside.flood_rates))));
        json!({
            "bench": "flood", "large": large, "window": window, "groups": groups, "members": members, "rate": rate,
            "stored": stored, "bytes": bytes, "seconds": seconds.seconds, "rounds": repeat.rounds,
            "ratio_to_quiet": round(to_quiet.median),
            "p99_to_raw_flood": round(to_raw_flood.median),
            "quiet": {"latency_us": Figures::of(&beside.quiet).latency()},
            "flooded": turn(&beside.flooded, &beside.flood_rates),
            "raw_flood": turn(&beside.raw_flood, &beside.raw_flood_rates),
            "spread": ranges,
            "machine": machine(),
        })
    }

    fn table(&self, beside: &Beside, paint: &Paint) -> String {
        let Self { large, window, groups, members, rate, stored, bytes, repeat, seconds, .. } = self;
        let (rounds, seconds) = (repeat.rounds, seconds.seconds);
        let what = if *stored { "stored messages" } else { "signals" };
        let mut text = paint.bold(&format!(
            "{what} of {bytes} B at {rate} deliveries a second to {groups} groups of {members}, while one of {large} is \
             flooded, window {window}; {rounds} rounds of {seconds} s in turns"
        ));
        let head = format!(
            "{:<11} {:>9}  {:>9}  {:>9}  {:>36}",
            "", "p50 µs", "p99 µs", "p99.9 µs", "deliveries a second to the large one"
        );
        let _ = write!(text, "\n{}", paint.faint(&head));
        let turns: [(&Rounds, &[f64]); 3] = [
            (&beside.quiet, &[]),
            (&beside.flooded, &beside.flood_rates),
            (&beside.raw_flood, &beside.raw_flood_rates),
        ];
        for (rounds, rates) in turns {
            let [p50, p99, p99_9] = Figures::of(rounds).latency_us.map(|spread| number(spread.median));
            let rate = if rates.is_empty() { String::new() } else { with_range(&spread(rates)) };
            let _ = write!(text, "\n{:<11} {p50:>9}  {p99:>9}  {p99_9:>9}  {rate:>36}", rounds.name);
        }
        for (rounds, other) in
            [(&beside.flooded, &beside.quiet), (&beside.raw_flood, &beside.quiet), (&beside.flooded, &beside.raw_flood)]
        {
            let ratios = Ratios::of(rounds, other);
            let [p50, p99, p99_9] = [ratios.p50, ratios.p99, ratios.p99_9].map(|spread| with_range(&spread));
            let _ = write!(text, "\n{} / {}  p50 {p50}, p99 {p99}, p99.9 {p99_9}", rounds.name, other.name);
        }
        text
    }
}

impl Stage<'_> {
    fn round(&mut self, round: usize, bar: &Bar, beside: &mut Beside) -> Result<(), Failure> {
        bar.say(round, beside.quiet.name);
        self.flood.open()?;
        self.raw_flood.open()?;
        let mut field = Field::open(&mut self.server, &self.small, round, self.interrupt)?;
        beside.quiet.samples.push(self.open.run(&mut field)?);
        bar.step();
        bar.say(round, beside.flooded.name);
        let (sample, rate) = under(&mut self.flood, &self.open, &mut field)?;
        beside.flooded.samples.push(sample);
        beside.flood_rates.push(rate);
        bar.step();
        bar.say(round, beside.raw_flood.name);
        let (sample, rate) = under(&mut self.raw_flood, &self.open, &mut field)?;
        beside.raw_flood.samples.push(sample);
        beside.raw_flood_rates.push(rate);
        bar.step();
        Ok(())
    }
}

/// The load on the small groups while the flood flows; gives what that delivered in a second too.
fn under(flood: &mut Flood, open: &Open, field: &mut Field) -> Result<(Sample, f64), Failure> {
    flood.begin()?;
    let sample = open.run(field)?;
    Ok((sample, flood.end()?))
}

fn spread(values: &[f64]) -> Spread {
    Spread::of(values.iter().copied().map(Some)).expect("there is at least one round")
}
