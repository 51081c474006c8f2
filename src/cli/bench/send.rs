//! `bench send`: durable messages, by senders that each wait for the answer.

use clap::Args;
use serde_json::json;

use super::answers::Answered;
use super::closed::Bound;
use super::field::Field;
use super::options::{Repeat, RunOptions, Seconds};
use super::peers::{Load, Task};
use super::report::{Headline, MESSAGE, Report};
use super::run::{Measured, in_turns};
use crate::cli::failure::Failure;
use crate::cli::output::Output;

/// Members of each group, all off line.
const MEMBERS: usize = 8;

/// Send durable messages, each sender waiting for its answer
#[derive(Args, Clone)]
#[command(
    after_help = "Examples:\n  roundtable bench send --senders 64 --peer redis\n  roundtable bench send --senders 1 \
                        --json\n\nEach sender has a group of its own, whose 8 other members are off line: what is measured \
                        is storing and answering. Measured: messages a second; the time until the answer, in microseconds; \
                        CPU of the server for one message. ratio_to_raw: messages a second, ours divided by the raw \
                        limit's."
)]
pub(super) struct Send {
    /// Senders, each with a connection
    #[arg(long, default_value_t = 64, value_parser = clap::value_parser!(u32).range(1..=1_024))]
    pub(super) senders: u32,
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

impl Send {
    pub(super) fn run(self, output: &mut Output) -> Result<(), Failure> {
        let measured = self.measure()?;
        self.report().print(&measured, output)
    }

    pub(super) fn measure(&self) -> Result<Measured, Failure> {
        let senders = self.senders as usize;
        let load = Load { task: Task::Send, senders, groups: senders, members: MEMBERS, bytes: self.bytes as usize };
        let warm_up = Bound::Time(self.seconds.warm_up());
        let answered = Answered { warm_up, bound: Bound::Time(self.seconds.duration()) };
        in_turns(&self.run, self.repeat, &load, &mut |peer, round, interrupt| {
            answered.run(&mut Field::open(peer, &load, round, interrupt)?)
        })
    }

    pub(super) fn report(&self) -> Report {
        let Self { senders, bytes, repeat, seconds, .. } = self;
        let (rounds, seconds) = (repeat.rounds, seconds.seconds);
        Report {
            title: format!(
                "{senders} senders of durable messages of {bytes} B; {rounds} rounds of {seconds} s in turns"
            ),
            parameters: json!({
                "bench": "send", "senders": senders, "bytes": bytes, "seconds": seconds, "rounds": rounds,
            }),
            unit: MESSAGE,
            headline: Headline::Rate,
        }
    }
}
