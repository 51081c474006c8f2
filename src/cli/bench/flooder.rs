//! A flood of one large group, from a process of its own: whoever reads thousands of sockets would charge its own
//! delay to what it measures beside them.
//!
//! Its input is a plan, then orders, one a line, which it answers with a line each: [`Flood`] is who gives them. It
//! ends with its input.

use std::io::{self, BufRead, Write};
use std::net::SocketAddr;
use std::process::ChildStdin;
use std::sync::mpsc;
use std::time::Duration;

use clap::Args;
use serde::{Deserialize, Serialize};

use super::child::{Child, Said};
use super::closed::{Bound, Clocked, Closed};
use super::failed;
use super::field::Field;
use super::options::ServerOptions;
use super::peers::raw::RawLimit;
use super::peers::roundtable::Roundtable;
use super::peers::{Load, Peer, Task};
use super::server::Server;
use crate::cli::connect::KeyArgs;
use crate::cli::failure::Failure;
use crate::cli::interrupt::Interrupt;

/// How long an order may take: ten thousand members come on line within one.
const PATIENCE: Duration = Duration::from_secs(120);

const OPEN: &str = "open";
const FLOOD: &str = "flood";
const REST: &str = "rest";

/// Who is flooded.
#[derive(Clone, Serialize, Deserialize)]
pub(super) enum Flooded {
    /// A server whose users' tokens are made with the key of a data directory.
    Roundtable { data: std::path::PathBuf, cluster: String },
    /// The raw limit, started for the same load.
    Raw,
}

/// What it does: one line of JSON on its standard input.
#[derive(Clone, Serialize, Deserialize)]
pub(super) struct Plan {
    pub(super) flooded: Flooded,
    pub(super) address: SocketAddr,
    /// Of the one group, all on line.
    pub(super) members: usize,
    /// Messages on their way at once.
    pub(super) window: u64,
    pub(super) stored: bool,
    /// Of a message.
    pub(super) bytes: usize,
}

impl Plan {
    pub(super) fn load(&self) -> Load {
        let task = if self.stored { Task::Message } else { Task::Signal };
        Load { task, senders: 1, groups: 1, members: self.members, bytes: self.bytes }
    }

    fn peer(&self) -> Result<Box<dyn Peer>, Failure> {
        let Flooded::Roundtable { data, cluster } = self.flooded.clone() else {
            return Ok(Box::new(RawLimit::running(&self.load(), self.address)));
        };
        let key = KeyArgs { data, cluster };
        let options = ServerOptions { server: Some(self.address.to_string()), server_pid: None, key };
        let server = Server::running(&self.address.to_string(), &options)?;
        Ok(Box::new(Roundtable::new(server, self.load())?.apart()))
    }
}

/// What came of a flood.
#[derive(Serialize, Deserialize)]
struct Outcome {
    deliveries_per_second: f64,
}

/// The flood of `bench flood`, in a process of its own
#[derive(Args)]
pub(super) struct Flooder {}

impl Flooder {
    #[allow(clippy::unused_self)] // every command has this shape
    pub(super) fn run(self) -> Result<(), Failure> {
        let interrupt = Interrupt::catch()?;
        let (plan, orders) = read().map_err(|error| failed(format!("the flood: {error}")))?;
        let closed = Closed {
            window: plan.window,
            warm_up: Bound::Count(plan.window),
            bound: Bound::Count(0),
            clocked: Clocked::Last,
        };
        let (load, mut peer) = (plan.load(), plan.peer()?);
        expect(&orders, OPEN)?;
        for round in 0.. {
            let mut field = Field::open(&mut *peer, &load, round, &interrupt)?;
            say(OPEN)?;
            expect(&orders, FLOOD)?;
            // The next order ends it.
            let mut is_over = false;
            let sample = closed.run_until(&mut field, || say(FLOOD), &mut || {
                is_over |= orders.try_recv().is_ok();
                is_over
            })?;
            let outcome = Outcome { deliveries_per_second: sample.per_second() };
            say(&serde_json::to_string(&outcome).map_err(|error| failed(error.to_string()))?)?;
            // The members stay on line until the next round: what is measured meanwhile has the same connections.
            expect(&orders, OPEN)?;
        }
        Ok(())
    }
}

/// The plan, and the orders that come behind it. Whoever gives them may be killed at any time: then it ends.
fn read() -> io::Result<(Plan, mpsc::Receiver<String>)> {
    let mut line = String::new();
    io::stdin().lock().read_line(&mut line)?;
    let plan = serde_json::from_str(&line)?;
    let (gives, orders) = mpsc::channel();
    std::thread::spawn(move || {
        io::stdin().lock().lines().map_while(Result::ok).for_each(|order| _ = gives.send(order));
        std::process::exit(0);
    });
    Ok((plan, orders))
}

fn expect(orders: &mpsc::Receiver<String>, awaited: &str) -> Result<(), Failure> {
    match orders.recv() {
        Ok(order) if order == awaited => Ok(()),
        other => Err(failed(format!("the flood was told {other:?} where it waits for {awaited}"))),
    }
}

fn say(line: &str) -> Result<(), Failure> {
    let mut out = io::stdout().lock();
    writeln!(out, "{line}").and_then(|()| out.flush()).map_err(|error| failed(format!("the flood: {error}")))
}

/// The process of a flood, as whoever measures beside it sees it.
pub(super) struct Flood {
    _child: Child,
    input: ChildStdin,
    said: Said,
}

impl Flood {
    pub(super) fn start(plan: &Plan) -> Result<Self, Failure> {
        let (child, input, said) = Child::own("flooder", plan, |_| true)?;
        Ok(Self { _child: child, input, said })
    }

    /// Makes the group and brings its members on line; those of an earlier round go.
    pub(super) fn open(&mut self) -> Result<(), Failure> {
        self.order(OPEN).map(drop)
    }

    /// Returns once it flows: the first messages have reached every member.
    pub(super) fn begin(&mut self) -> Result<(), Failure> {
        self.order(FLOOD).map(drop)
    }

    /// Returns once everything has arrived; gives deliveries a second.
    pub(super) fn end(&mut self) -> Result<f64, Failure> {
        let line = self.order(REST)?;
        let outcome: Outcome = serde_json::from_str(&line).map_err(|error| failed(format!("{line}: {error}")))?;
        Ok(outcome.deliveries_per_second)
    }

    fn order(&mut self, order: &str) -> Result<String, Failure> {
        let given = writeln!(self.input, "{order}");
        given.map_err(|error| failed(format!("the flood takes no orders: {error}")))?;
        self.said.await_ready(PATIENCE)
    }
}
