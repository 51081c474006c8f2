//! `bench targets`: every target that this program can measure by itself, in one run, with what was reached.
//!
//! A command and not a script: it is there wherever the server is, and the rows are made of the same loads as the other
//! commands, without a text in between that would have to be parsed.

use std::fmt::Write as _;
use std::path::Path;

use clap::Args;
use serde_json::{Value, json};

use super::create::Create;
use super::fanout::Fanout;
use super::flood::FloodBench;
use super::idle::{Cost, Idle, cost_of};
use super::latency::Latency;
use super::options::{Repeat, RunOptions, Seconds};
use super::peers::PeerName;
use super::report::{Figures, Ratios, absent_lines, absent_words, machine, number, round};
use super::run::{Absent, Measured, Rounds};
use super::send::Send;
use super::sync::sync_time_us;
use crate::cli::failure::Failure;
use crate::cli::output::{Output, Paint};

/// Members of the groups in most rows.
const SIZES: [u32; 3] = [10, 100, 1_000];
/// Creates of the burst, over all rounds.
const BURST: u32 = 100_000;

/// What is measured elsewhere: from the sources, where `cargo bench --features benching --bench targets` puts it and all
/// of this into one table.
const ELSEWHERE: [(&str, &str); 4] = [
    ("sustained creates until the index has caught up with a million groups", "cargo bench --bench growth"),
    ("the journal alone, 64 and 1,024 outstanding", "cargo bench --features benching --bench journal"),
    ("cost with a million groups against ten thousand", "cargo bench --bench growth"),
    ("open with a million groups", "cargo bench --bench growth"),
];

/// Measure everything that has a target, and print what was reached
#[derive(Args, Clone)]
#[command(
    after_help = "Examples:\n  roundtable bench targets\n  roundtable bench targets --seconds 0.5 --rounds 3 --json\n\nRuns the \
                  other benches one after the other, with all peers that are installed; about a quarter of an hour. Each \
                  row: what, the target, what was reached (the median of the rounds), and whether it holds. Peers that \
                  are not there are named, with how to get them."
)]
pub(super) struct Targets {
    #[command(flatten)]
    seconds: TargetSeconds,
    #[command(flatten)]
    repeat: Repeat,
    /// Connections of the row about idle ones
    #[arg(long, default_value_t = 10_000, value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    connections: u32,
    /// Leave out groups with more members than this
    #[arg(long, default_value_t = 9_999, value_parser = clap::value_parser!(u32).range(10..=9_999))]
    members_max: u32,
    #[command(flatten)]
    run: RunOptions,
}

/// Shorter than that of one bench alone: there are many.
#[derive(Args, Clone, Copy)]
struct TargetSeconds {
    /// Seconds of each turn, without warming up
    #[arg(long, default_value_t = 2.0, value_parser = super::options::seconds)]
    seconds: f64,
}

/// One line of the table.
struct Row {
    what: String,
    target: String,
    reached: String,
    figure: Option<f64>,
    /// None if it cannot be said here.
    holds: Option<bool>,
}

impl Row {
    /// A figure that may be at most, or has to be at least, so much.
    fn of(what: String, bound: Bound, unit: &str, figure: Option<f64>) -> Self {
        let holds = figure.map(|figure| match bound {
            Bound::AtMost(most) => figure <= most,
            Bound::AtLeast(least) => figure >= least,
        });
        let target = match bound {
            Bound::AtMost(most) => format!("at most {}{unit}", number(most)),
            Bound::AtLeast(least) => format!("at least {}{unit}", number(least)),
        };
        let reached = figure.map_or_else(|| "not measured".to_owned(), |figure| format!("{}{unit}", number(figure)));
        Self { what, target, reached, figure, holds }
    }
}

#[derive(Clone, Copy)]
enum Bound {
    AtMost(f64),
    AtLeast(f64),
}

/// What has been measured so far.
struct Table {
    rows: Vec<Row>,
    absent: Vec<(PeerName, Absent)>,
}

impl Targets {
    pub(super) fn run(self, output: &mut Output) -> Result<(), Failure> {
        let mut table = Table { rows: Vec::new(), absent: Vec::new() };
        self.fan_out(&mut table)?;
        self.one_at_a_time(&mut table)?;
        self.latency(&mut table)?;
        self.flood(&mut table)?;
        self.create(&mut table)?;
        self.durable(&mut table)?;
        self.idle(&mut table)?;
        output.line(|paint| table.text(paint), || table.object())?;
        Ok(())
    }

    fn seconds(&self) -> Seconds {
        Seconds { seconds: self.seconds.seconds }
    }

    fn with(&self, peers: &[PeerName]) -> RunOptions {
        RunOptions { peer: peers.to_vec(), ..self.run.clone() }
    }

    fn sizes(&self) -> impl Iterator<Item = u32> {
        let most = self.members_max;
        SIZES.into_iter().filter(move |members| *members <= most)
    }

    fn fan_out(&self, table: &mut Table) -> Result<(), Failure> {
        let members = self.members_max.min(1_000);
        for stored in [false, true] {
            let peers: &[PeerName] = if stored { &[PeerName::Redis] } else { &[PeerName::Redis, PeerName::Nats] };
            let bench = Fanout {
                members,
                window: 64,
                stored,
                bytes: 200,
                seconds: self.seconds(),
                repeat: self.repeat,
                run: self.with(peers),
            };
            let measured = bench.measure()?;
            let what = if stored { "stored messages" } else { "signals" };
            for (name, least) in [("redis", if stored { 1.5 } else { 2.0 }), ("nats", 4.0)] {
                if stored && name == "nats" {
                    continue;
                }
                let ratio = peer(&measured, name).and_then(|other| Ratios::of(measured.ours(), other).per_cpu_second());
                let what = format!("{what} to {members}, window 64: deliveries per CPU second against {name}");
                table.rows.push(Row::of(what, Bound::AtLeast(least), "×", ratio));
            }
            table.note(measured.absent);
        }
        Ok(())
    }

    fn one_at_a_time(&self, table: &mut Table) -> Result<(), Failure> {
        for members in self.sizes() {
            let (seconds, repeat) = (self.seconds(), self.repeat);
            let bench = Fanout { members, window: 1, stored: false, bytes: 200, seconds, repeat, run: self.with(&[]) };
            let measured = bench.measure()?;
            let ratio = Ratios::of(measured.ours(), measured.raw()).cpu.map(|spread| spread.median);
            let what = format!("one signal at a time to {members}: CPU a delivery against raw");
            table.rows.push(Row::of(what, Bound::AtMost(1.15), "×", ratio));
        }
        Ok(())
    }

    fn latency(&self, table: &mut Table) -> Result<(), Failure> {
        for members in self.sizes() {
            for stored in [false, true] {
                let bench = Latency {
                    members,
                    groups: None,
                    rate: 20_000,
                    stored,
                    bytes: 200,
                    seconds: self.seconds(),
                    repeat: self.repeat,
                    run: self.with(&[PeerName::Redis]),
                };
                let sync_us = if stored { sync_time_us(self.directory())? } else { 0.0 };
                let measured = bench.measure()?;
                let ours = Figures::of(measured.ours());
                let theirs = peer(&measured, "redis").map(Figures::of);
                let what = if stored { "stored messages" } else { "signals" };
                for (quantile, place, syncs) in [("p50", 0, 1.5), ("p99", 1, 2.0)] {
                    let what = format!("{what} at 20,000 deliveries/s to groups of {members}: {quantile}");
                    let reached = ours.latency_us[place].median;
                    let most = theirs.as_ref().map(|other| other.latency_us[place].median + syncs * sync_us);
                    table.rows.push(Row {
                        what,
                        target: most.map_or_else(|| "Redis'".to_owned(), |most| format!("at most {} µs", number(most))),
                        reached: format!("{} µs", number(reached)),
                        figure: Some(reached),
                        holds: most.map(|most| reached <= most),
                    });
                }
                table.note(measured.absent);
            }
        }
        Ok(())
    }

    fn flood(&self, table: &mut Table) -> Result<(), Failure> {
        let large = self.members_max;
        let bench = FloodBench {
            large,
            window: 64,
            groups: 100,
            members: 10,
            rate: 2_000,
            stored: false,
            bytes: 200,
            seconds: self.seconds(),
            repeat: self.repeat,
            server: self.run.server.clone(),
            directory: self.run.directory.clone(),
        };
        let ratio = bench.measure()?.p99_to_quiet().median;
        let what = format!("signals to groups of 10 while one of {large} is flooded: p99 against quiet");
        table.rows.push(Row::of(what, Bound::AtMost(2.0), "×", Some(ratio)));
        Ok(())
    }

    fn create(&self, table: &mut Table) -> Result<(), Failure> {
        for members in self.sizes().chain((self.members_max == 9_999).then_some(9_999)) {
            let count = Some(if members > 1_000 { 10 } else { 100 });
            let (repeat, run) = (self.repeat, self.with(&[]));
            let bench = Create { members: Some(members), offline: false, clients: 1, count, repeat, run };
            let measured = bench.measure()?;
            let ratio = Ratios::of(measured.ours(), measured.raw()).p50.median;
            let what = format!("create until the last of {members} on line has it: time against raw");
            table.rows.push(Row::of(what, Bound::AtMost(1.25), "×", Some(ratio)));
        }
        Ok(())
    }

    fn durable(&self, table: &mut Table) -> Result<(), Failure> {
        let (seconds, repeat, run) = (self.seconds(), self.repeat, self.with(&[PeerName::Redis]));
        let count = Some((BURST / repeat.rounds).max(1));
        let creates =
            Create { members: Some(8), offline: true, clients: 64, count, repeat, run: run.clone() }.measure()?;
        table.against_redis_and_raw("durable creates a second, 64 clients", creates);
        let sends = Send { senders: 64, bytes: 200, seconds, repeat, run }.measure()?;
        table.against_redis_and_raw("durable messages a second, 64 senders", sends);
        Ok(())
    }

    fn idle(&self, table: &mut Table) -> Result<(), Failure> {
        let connections = self.connections;
        let seconds = Seconds { seconds: (5.0 * self.seconds.seconds).max(1.0) };
        let run = self.with(&[]);
        let measured = Idle { connections, heartbeat: 30, seconds, run }.measure()?;
        let Cost { bytes_per_connection, cpu_percent } = cost_of(measured.ours());
        let what = format!("memory of each of {connections} idle connections");
        table.rows.push(Row::of(what, Bound::AtMost(512.0), " B", bytes_per_connection));
        let what = format!("CPU of {connections} idle connections with heartbeats, of a core");
        table.rows.push(Row::of(what, Bound::AtMost(1.0), " %", cpu_percent));
        Ok(())
    }

    fn directory(&self) -> Option<&Path> {
        self.run.directory.as_deref()
    }
}

fn peer<'m>(measured: &'m Measured, name: &str) -> Option<&'m Rounds> {
    measured.peers().iter().find(|rounds| rounds.name == name)
}

impl Table {
    fn against_redis_and_raw(&mut self, what: &str, measured: Measured) {
        let rate = |other: &Rounds| Ratios::of(measured.ours(), other).rate.median;
        let (redis, raw) = (peer(&measured, "redis").map(rate), rate(measured.raw()));
        self.rows.push(Row::of(format!("{what}: against redis"), Bound::AtLeast(3.0), "×", redis));
        self.rows.push(Row::of(format!("{what}: against raw"), Bound::AtLeast(0.7), "×", Some(raw)));
        self.note(measured.absent);
    }

    /// Each peer that is not there is named once.
    fn note(&mut self, absent: Vec<(PeerName, Absent)>) {
        for (name, why) in absent {
            if !self.absent.iter().any(|(noted, _)| *noted == name) {
                self.absent.push((name, why));
            }
        }
    }

    fn text(&self, paint: &Paint) -> String {
        let mut text = paint.bold(&format!("{:<78}  {:>18}  {:>14}", "target", "", "reached"));
        for row in &self.rows {
            let verdict = match row.holds {
                Some(true) => paint.good("holds"),
                Some(false) => paint.bad("does not hold"),
                None => "cannot be said".to_owned(),
            };
            let _ = write!(text, "\n{:<78}  {:>18}  {:>14}  {verdict}", row.what, row.target, row.reached);
        }
        text.push_str(&absent_lines(&self.absent, paint));
        text.push_str("\n\nnot measured by this command:");
        for (what, place) in ELSEWHERE {
            let _ = write!(text, "\n  {what}: {place}");
        }
        text
    }

    fn object(&self) -> Value {
        let rows: Vec<Value> = self
            .rows
            .iter()
            .map(|row| {
                json!({
                    "what": row.what, "target": row.target, "reached": row.figure.map(round), "holds": row.holds,
                })
            })
            .collect();
        let absent: serde_json::Map<String, Value> = absent_words(&self.absent).collect();
        let elsewhere: Vec<Value> =
            ELSEWHERE.iter().map(|(what, place)| json!({"what": what, "place": place})).collect();
        json!({
            "bench": "targets", "targets": rows, "peers": absent, "elsewhere": elsewhere, "machine": machine(),
        })
    }
}
