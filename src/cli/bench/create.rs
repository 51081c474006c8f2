//! `bench create`: how long until the last member has a new group, and how many can be made in a second.

use clap::Args;
use serde_json::json;

use super::answers::Answered;
use super::closed::{Bound, Clocked, Closed};
use super::field::Field;
use super::options::{Repeat, RunOptions};
use super::peers::{Load, Task};
use super::report::{CREATE, Headline, Report};
use super::run::{Measured, in_turns};
use crate::cli::failure::Failure;
use crate::cli::output::Output;

const MEMBERS_ONLINE: u32 = 100;
const MEMBERS_OFFLINE: u32 = 8;
const COUNT_ONLINE: u32 = 200;
const COUNT_OFFLINE: u32 = 20_000;
/// Everybody on line is in each group of a round, and a user may be in so many.
const COUNT_ONLINE_MAX: u32 = 1_500;

/// Make groups: until the last member on line has it, or as many as possible
#[derive(Args, Clone)]
#[command(
    after_help = "Examples:\n  roundtable bench create --members 1000\n  roundtable bench create --offline --clients 64 \
                  --peer redis\n\nWith members on line one group is made after the other, of all of them; measured: the \
                  time from writing the request until the last member has the whole packet, in microseconds. With \
                  --offline each client makes one group after the other and waits for each answer; measured: creates a \
                  second, and the time until the answer. Everything is durable before anything is said. ratio_to_raw: \
                  the median time, ours divided by the raw limit's; with --offline the creates a second."
)]
pub(super) struct Create {
    /// Members of each group [default: 100 on line, 8 off line]
    #[arg(long, value_parser = clap::value_parser!(u32).range(1..=9_999))]
    pub(super) members: Option<u32>,
    /// Members are off line: nothing but storing and answering is measured
    #[arg(long)]
    pub(super) offline: bool,
    /// Clients, each waiting for its answer
    #[arg(long, default_value_t = 64, requires = "offline", value_parser = clap::value_parser!(u32).range(1..=1_024))]
    pub(super) clients: u32,
    /// Creates in each turn [default: 200 on line, 20000 off line]
    #[arg(long, value_parser = clap::value_parser!(u32).range(1..=10_000_000))]
    pub(super) count: Option<u32>,
    #[command(flatten)]
    pub(super) repeat: Repeat,
    #[command(flatten)]
    pub(super) run: RunOptions,
}

impl Create {
    pub(super) fn run(self, output: &mut Output) -> Result<(), Failure> {
        let measured = self.measure()?;
        self.report().print(&measured, output)
    }

    fn members(&self) -> u32 {
        self.members.unwrap_or(if self.offline { MEMBERS_OFFLINE } else { MEMBERS_ONLINE })
    }

    fn count(&self) -> u32 {
        self.count.unwrap_or(if self.offline { COUNT_OFFLINE } else { COUNT_ONLINE })
    }

    pub(super) fn measure(&self) -> Result<Measured, Failure> {
        if self.offline { self.measure_offline() } else { self.measure_online() }
    }

    fn measure_online(&self) -> Result<Measured, Failure> {
        if self.count() > COUNT_ONLINE_MAX {
            return Err(Failure::usage(format!(
                "--count is at most {COUNT_ONLINE_MAX} with members on line: all are in each group, and a user is in 2000 \
                 at most; take more --rounds"
            )));
        }
        let load = Load { task: Task::CreateOnline, senders: 1, groups: 0, members: self.members() as usize, bytes: 0 };
        let closed = Closed {
            window: 1,
            warm_up: Bound::Count(u64::from(self.count() / 10 + 1)),
            bound: Bound::Count(u64::from(self.count())),
            clocked: Clocked::Last,
        };
        in_turns(&self.run, self.repeat, &load, &mut |peer, round, interrupt| {
            closed.run(&mut Field::open(peer, &load, round, interrupt)?)
        })
    }

    fn measure_offline(&self) -> Result<Measured, Failure> {
        let (members, senders) = (self.members() as usize, self.clients as usize);
        let load = Load { task: Task::CreateOffline, senders, groups: 0, members, bytes: 0 };
        let bound = Bound::Count(u64::from(self.count()));
        let answered = Answered { warm_up: Bound::Count(u64::from(self.clients)), bound };
        in_turns(&self.run, self.repeat, &load, &mut |peer, round, interrupt| {
            answered.run(&mut Field::open(peer, &load, round, interrupt)?)
        })
    }

    pub(super) fn report(&self) -> Report {
        let (members, count, rounds, clients) = (self.members(), self.count(), self.repeat.rounds, self.clients);
        let (title, headline) = if self.offline {
            let title = format!("{clients} clients make groups of {members} members off line");
            (title, Headline::Rate)
        } else {
            (format!("a create until the last of {members} members on line has it"), Headline::Latency)
        };
        Report {
            title: format!("{title}; {rounds} rounds of {count} in turns"),
            parameters: json!({
                "bench": "create", "members": members, "offline": self.offline, "count": count, "rounds": rounds,
                "clients": if self.offline { clients } else { 1 },
            }),
            unit: CREATE,
            headline,
        }
    }
}
