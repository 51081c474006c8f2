//! `bench fanout`: one sender, a group, and how much it costs to reach all of it.

use clap::Args;
use serde_json::json;

use super::closed::{Bound, Clocked, Closed};
use super::field::Field;
use super::options::{Repeat, RunOptions, Seconds};
use super::peers::{Load, Task};
use super::report::{DELIVERY, Headline, Report};
use super::run::{Measured, in_turns};
use crate::cli::failure::Failure;
use crate::cli::output::Output;

/// Fan messages out to a group whose members are all on line
#[derive(Args, Clone)]
#[command(
    after_help = "Examples:\n  roundtable bench fanout --members 1000 --window 64 --peer redis\n  roundtable bench fanout \
                  --members 100 --window 1\n  roundtable bench fanout --members 1000 --window 64 --stored \
                  --json\n\nMeasured: deliveries (one message to one member) a second; CPU of the server for one delivery, in \
                  microseconds; the time from writing a message until a member has it, in microseconds. The window is \
                  how many messages of the one sender are on their way at once: the next is sent when the slowest \
                  member has the oldest. ratio_to_raw: CPU of a delivery, ours divided by the raw limit's."
)]
pub(super) struct Fanout {
    /// Members on line
    #[arg(long, default_value_t = 100, value_parser = clap::value_parser!(u32).range(1..=9_999))]
    pub(super) members: u32,
    /// Messages on their way at once; 1: one at a time
    #[arg(long, default_value_t = 64, value_parser = clap::value_parser!(u32).range(1..=1_024))]
    pub(super) window: u32,
    /// Messages that are durable before they are delivered; otherwise signals, which are never stored
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
    pub(super) run: RunOptions,
}

impl Fanout {
    pub(super) fn run(self, output: &mut Output) -> Result<(), Failure> {
        let measured = self.measure()?;
        self.report().print(&measured, output)
    }

    pub(super) fn measure(&self) -> Result<Measured, Failure> {
        let load = Load {
            task: if self.stored { Task::Message } else { Task::Signal },
            senders: 1,
            groups: 1,
            members: self.members as usize,
            bytes: self.bytes as usize,
        };
        let closed = Closed {
            window: u64::from(self.window),
            warm_up: Bound::Time(self.seconds.warm_up()),
            bound: Bound::Time(self.seconds.duration()),
            clocked: Clocked::Each,
        };
        in_turns(&self.run, self.repeat, &load, &mut |peer, round, interrupt| {
            closed.run(&mut Field::open(peer, &load, round, interrupt)?)
        })
    }

    pub(super) fn report(&self) -> Report {
        let Self { members, window, stored, bytes, repeat, .. } = self;
        let (rounds, seconds) = (repeat.rounds, self.seconds.seconds);
        let what = if *stored { "stored messages" } else { "signals" };
        Report {
            title: format!(
                "fan-out of {what} of {bytes} B to {members} members, window {window}; {rounds} rounds of {seconds} s in \
                 turns"
            ),
            parameters: json!({
                "bench": "fanout", "members": members, "window": window, "stored": stored, "bytes": bytes,
                "seconds": seconds, "rounds": rounds,
            }),
            unit: DELIVERY,
            headline: Headline::Cpu,
        }
    }
}
