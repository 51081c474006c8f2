//! `bench idle`: what connections cost that do nothing but stay.

use std::fmt::Write as _;
use std::time::{Duration, Instant};

use clap::Args;
use serde_json::{Map, Value, json};

use super::cpu::private_dirty_bytes;
use super::field::Field;
use super::open::nanoseconds;
use super::options::{Repeat, RunOptions, Seconds};
use super::peers::{Item, Load, Peer, Task};
use super::report::{absent_lines, absent_words, machine, number, round};
use super::run::{Measured, Rounds, in_turns};
use super::sample::{count, float};
use crate::cli::failure::Failure;
use crate::cli::interrupt::Interrupt;
use crate::cli::output::{Output, Paint};

/// Hold connections that do nothing but answer heartbeats
#[derive(Args, Clone)]
#[command(
    after_help = "Examples:\n  roundtable bench idle --connections 10000 --peer mosquitto\n  roundtable bench idle --json\n\n\
                  Measured: memory of the server's process for one connection that is authenticated and on line, in \
                  bytes (private pages that were written to, growth over the empty server, without what the kernel \
                  holds), and the part of one core that the server uses while each connection sends its heartbeat. \
                  ratio_to_raw: that CPU, ours divided by that of a loop that only reads and answers."
)]
pub(super) struct Idle {
    /// Connections
    #[arg(long, default_value_t = 1_000, value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    pub(super) connections: u32,
    /// Seconds between two heartbeats of a connection
    #[arg(long, default_value_t = 30, value_parser = clap::value_parser!(u32).range(1..=300))]
    pub(super) heartbeat: u32,
    #[command(flatten)]
    pub(super) seconds: Seconds,
    #[command(flatten)]
    pub(super) run: RunOptions,
}

/// What one system's connections cost.
#[derive(Clone, Copy)]
pub(super) struct Cost {
    pub(super) bytes_per_connection: Option<f64>,
    /// Of one core.
    pub(super) cpu_percent: Option<f64>,
}

impl Idle {
    pub(super) fn run(self, output: &mut Output) -> Result<(), Failure> {
        let measured = self.measure()?;
        output.line(|paint| self.table(&measured, paint), || self.object(&measured))?;
        Ok(())
    }

    /// One round: a second one would find memory that the first has left behind.
    pub(super) fn measure(&self) -> Result<Measured<Cost>, Failure> {
        let load = Load { task: Task::Idle, senders: self.connections as usize, groups: 0, members: 0, bytes: 0 };
        in_turns(&self.run, Repeat { rounds: 1 }, &load, &mut |peer, _, interrupt| self.cost(peer, &load, interrupt))
    }

    fn cost(&self, peer: &mut dyn Peer, load: &Load, interrupt: &Interrupt) -> Result<Cost, Failure> {
        let process = peer.process();
        let memory = || process.and_then(private_dirty_bytes);
        let before = memory();
        let mut field = Field::open(peer, load, 0, interrupt)?;
        let grown = before.zip(memory()).map(|(before, after)| after.saturating_sub(before));
        let ((), elapsed, cpu_ns) = field.timed(|field| self.beat(field))?;
        let elapsed_ns = elapsed.as_secs_f64() * 1e9;
        Ok(Cost {
            bytes_per_connection: grown.map(|bytes| float(bytes) / f64::from(self.connections)),
            cpu_percent: cpu_ns.map(|ns| float(ns) / elapsed_ns * 100.0),
        })
    }

    /// Heartbeats, spread evenly over the interval; each is answered before this returns.
    fn beat(&self, field: &mut Field) -> Result<(), Failure> {
        let period_ns = u128::from(self.heartbeat) * 1_000_000_000 / u128::from(self.connections);
        let beats = u64::try_from(self.seconds.duration().as_nanos() / period_ns.max(1)).unwrap_or(u64::MAX);
        let begun = Instant::now();
        let due = |beat: u64| begun + nanoseconds(period_ns * u128::from(beat));
        let (mut sent, mut answered, mut out) = (0, 0, Vec::new());
        while answered < sent || sent < beats || begun.elapsed() < self.seconds.duration() {
            while sent < beats && due(sent) <= Instant::now() {
                out.clear();
                let connection = usize::try_from(sent % count(field.senders)).unwrap_or(0);
                field.peer.request(connection, 0, &mut out);
                field.send(connection, &out)?;
                sent += 1;
            }
            let end = begun + self.seconds.duration();
            let next = if sent < beats { due(sent) } else { end.max(Instant::now() + Duration::from_millis(1)) };
            field.crowd.wake_at(next)?;
            field.turn(&mut |_, item| {
                // The answer to a heartbeat is what ended the first words, for some.
                answered += u64::from(matches!(item, Item::Answer | Item::Ready));
                Ok(())
            })?;
        }
        Ok(())
    }

    fn object(&self, measured: &Measured<Cost>) -> Value {
        let (ours, raw) = (cost_of(measured.ours()), cost_of(measured.raw()));
        let ratio = ours.cpu_percent.zip(raw.cpu_percent).map(|(ours, raw)| round(ours / raw));
        let mut peers: Map<String, Value> =
            measured.peers().iter().map(|rounds| (rounds.name.to_owned(), shape(cost_of(rounds)))).collect();
        peers.extend(absent_words(&measured.absent));
        let mut object = json!({
            "bench": "idle",
            "connections": self.connections,
            "heartbeat_s": self.heartbeat,
            "seconds": self.seconds.seconds,
        });
        if let (Some(fields), Value::Object(figures)) = (object.as_object_mut(), shape(ours)) {
            fields.extend(figures);
            fields.insert("raw_cpu_percent".to_owned(), json!(raw.cpu_percent.map(round)));
            fields.insert("ratio_to_raw".to_owned(), json!(ratio));
            fields.insert("raw".to_owned(), shape(raw));
            fields.insert("peers".to_owned(), Value::Object(peers));
            fields.insert("machine".to_owned(), machine());
        }
        object
    }

    fn table(&self, measured: &Measured<Cost>, paint: &Paint) -> String {
        let Self { connections, heartbeat, seconds, .. } = self;
        let title =
            format!("{connections} idle connections, a heartbeat each {heartbeat} s, for {} s", seconds.seconds);
        let mut text = paint.bold(&title);
        let head = format!("{:<11} {:>20}  {:>18}", "", "bytes a connection", "CPU, % of a core");
        let _ = write!(text, "\n{}", paint.faint(&head));
        for rounds in &measured.systems {
            let shown = |value: Option<f64>| value.map_or_else(|| "unknown".to_owned(), number);
            let Cost { bytes_per_connection, cpu_percent } = cost_of(rounds);
            let (bytes, cpu) = (shown(bytes_per_connection), shown(cpu_percent));
            let _ = write!(text, "\n{:<11} {bytes:>20}  {cpu:>18}", rounds.name);
        }
        text + &absent_lines(&measured.absent, paint)
    }
}

pub(super) fn cost_of(rounds: &Rounds<Cost>) -> Cost {
    *rounds.samples.first().expect("there is one round")
}

fn shape(cost: Cost) -> Value {
    json!({
        "memory_bytes_per_connection": cost.bytes_per_connection.map(round),
        "cpu_percent": cost.cpu_percent.map(round),
    })
}
