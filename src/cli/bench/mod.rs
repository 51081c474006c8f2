//! `bench`: how fast it is, beside the raw limit of the same machine and beside peers.
//!
//! Each load runs in rounds; in each round every system has its turn: roundtable, the raw limit ([`raw`]), and the peers
//! that were asked for. The same sockets and the same loop serve all of them ([`crowd`], [`field`]); what differs is
//! how each is spoken to ([`peers`]). How it is measured, and why so, stands in `docs/benchmarks.md`.

mod answers;
mod child;
mod closed;
mod cpu;
mod create;
mod crowd;
mod cutter;
mod fanout;
mod field;
mod flood;
mod flooder;
mod idle;
mod latency;
mod open;
mod options;
mod peers;
mod raw;
mod report;
mod run;
mod sample;
mod send;
mod server;
mod sync;
mod targets;

use clap::{Args, Subcommand};

use super::failure::{Exit, Failure};
use super::output::Output;

/// Measure a server beside the raw limit of this machine, and beside peers
#[derive(Args)]
#[command(after_help = "Examples:\n  roundtable bench fanout --members 1000 --window 64 --peer redis --peer nats\n  \
                  roundtable bench create --members 100\n\nWithout --server a throw-away server is started, and killed \
                  at the end. The raw limit is a process that does only the system calls that nobody can avoid; it runs \
                  in turns with the server, and ratios are taken within a turn. `ratio_to_raw` is the server's figure \
                  divided by that of the raw limit.\n\nAll run on one machine: the load needs a core of its own, so \
                  the CPU that the server used says more than what came through in a second.")]
pub(crate) struct Bench {
    #[command(subcommand)]
    kind: Kind,
}

#[derive(Subcommand)]
enum Kind {
    Fanout(fanout::Fanout),
    Create(create::Create),
    Send(send::Send),
    Latency(latency::Latency),
    Flood(flood::FloodBench),
    Idle(idle::Idle),
    Targets(targets::Targets),
    #[command(hide = true)]
    Raw(raw::Raw),
    #[command(hide = true)]
    Flooder(flooder::Flooder),
}

impl Bench {
    pub(crate) fn run(self, output: &mut Output) -> Result<(), Failure> {
        match self.kind {
            Kind::Fanout(command) => command.run(output),
            Kind::Create(command) => command.run(output),
            Kind::Send(command) => command.run(output),
            Kind::Latency(command) => command.run(output),
            Kind::Flood(command) => command.run(output),
            Kind::Idle(command) => command.run(output),
            Kind::Targets(command) => command.run(output),
            Kind::Raw(command) => command.run(),
            Kind::Flooder(command) => command.run(),
        }
    }
}

/// Something of the measurement itself did not work.
fn failed(what: impl std::fmt::Display) -> Failure {
    Failure::new(Exit::Refused, "BENCH_FAILED", what.to_string())
}
