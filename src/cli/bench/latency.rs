//! `bench latency`: how long a message takes at a rate that the system can bear.

use clap::Args;
use serde_json::json;

use super::field::Field;
use super::open::Open;
use super::options::{Repeat, RunOptions, Seconds};
use super::peers::{Load, Task};
use super::report::{DELIVERY, Headline, Report};
use super::run::{Measured, in_turns};
use crate::cli::failure::Failure;
use crate::cli::output::Output;

/// Members on line in all groups together, unless told otherwise.
const MEMBERS_TOGETHER: u32 = 1_000;

/// Deliver at a fixed rate, and measure how long each delivery takes
#[derive(Args, Clone)]
#[command(
    after_help = "Examples:\n  roundtable bench latency --members 10 --rate 20000 --peer redis\n  roundtable bench latency \
                  --members 100 --stored\n\nAn open loop: messages are due at fixed times, to all groups in turn, whatever has \
                  become of those before. Measured: the time from when a message was due until a member has it, in \
                  microseconds. ratio_to_raw: the median of that, ours divided by the raw limit's."
)]
pub(super) struct Latency {
    /// Members of each group, all on line
    #[arg(long, default_value_t = 100, value_parser = clap::value_parser!(u32).range(1..=9_999))]
    pub(super) members: u32,
    /// Groups [default: as many as have 1000 members together]
    #[arg(long, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    pub(super) groups: Option<u32>,
    /// Deliveries a second
    #[arg(long, default_value_t = 20_000, value_parser = clap::value_parser!(u32).range(1..=10_000_000))]
    pub(super) rate: u32,
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

impl Latency {
    pub(super) fn run(self, output: &mut Output) -> Result<(), Failure> {
        let measured = self.measure()?;
        self.report().print(&measured, output)
    }

    fn groups(&self) -> u32 {
        self.groups.unwrap_or_else(|| MEMBERS_TOGETHER.div_ceil(self.members))
    }

    pub(super) fn measure(&self) -> Result<Measured, Failure> {
        let (members, groups) = (self.members, self.groups());
        let load = Load {
            task: if self.stored { Task::Message } else { Task::Signal },
            senders: 1,
            groups: groups as usize,
            members: members as usize,
            bytes: self.bytes as usize,
        };
        let open = Open::at_rate(self.rate, groups, members, self.seconds);
        in_turns(&self.run, self.repeat, &load, &mut |peer, round, interrupt| {
            open.run(&mut Field::open(peer, &load, round, interrupt)?)
        })
    }

    pub(super) fn report(&self) -> Report {
        let Self { members, rate, stored, bytes, repeat, seconds, .. } = self;
        let (groups, rounds, seconds) = (self.groups(), repeat.rounds, seconds.seconds);
        let what = if *stored { "stored messages" } else { "signals" };
        Report {
            title: format!(
                "latency of {what} of {bytes} B at {rate} deliveries a second, {groups} groups of {members}; {rounds} \
                 rounds of {seconds} s in turns"
            ),
            parameters: json!({
                "bench": "latency", "members": members, "groups": groups, "rate": rate, "stored": stored,
                "bytes": bytes, "seconds": seconds, "rounds": rounds,
            }),
            unit: DELIVERY,
            headline: Headline::Latency,
        }
    }
}
