//! Rounds: in each, every system has its turn, so that what the machine does meanwhile happens to all of them.

use std::path::Path;

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use super::failed;
use super::options::{Repeat, RunOptions};
use super::peers::raw::RawLimit;
use super::peers::roundtable::Roundtable;
use super::peers::{Load, Peer, PeerName, Started};
use super::sample::{Sample, count};
use super::server::Server;
use crate::cli::failure::Failure;
use crate::cli::interrupt::Interrupt;

/// Descriptors that are not connections of the load.
const DESCRIPTORS_RESERVED: usize = 64;

/// Names of users are numbered with six digits.
const CONNECTIONS_MAX: usize = 1_000_000;

/// The rounds of one system.
pub(super) struct Rounds<S = Sample> {
    pub(super) name: &'static str,
    pub(super) samples: Vec<S>,
}

/// Peers that were asked for and have no rounds.
pub(super) enum Absent {
    /// Not installed; how to get it.
    Missing(&'static str),
    /// It does not do what is measured.
    NotComparable(&'static str),
}

/// Everything that was measured in one run: roundtable first, the raw limit second, then peers.
pub(super) struct Measured<S = Sample> {
    pub(super) systems: Vec<Rounds<S>>,
    pub(super) absent: Vec<(PeerName, Absent)>,
}

impl<S> Measured<S> {
    pub(super) fn ours(&self) -> &Rounds<S> {
        &self.systems[0]
    }

    pub(super) fn raw(&self) -> &Rounds<S> {
        &self.systems[1]
    }

    pub(super) fn peers(&self) -> &[Rounds<S>] {
        &self.systems[2..]
    }
}

/// What a system does when it has its turn: it is told the number of the round.
pub(super) type Turn<'t, S> = dyn FnMut(&mut dyn Peer, usize, &Interrupt) -> Result<S, Failure> + 't;

/// Starts every system, runs all rounds, and takes everything away again.
pub(super) fn in_turns<S>(
    options: &RunOptions,
    repeat: Repeat,
    load: &Load,
    turn: &mut Turn<'_, S>,
) -> Result<Measured<S>, Failure> {
    in_a_place(options.directory.as_deref(), load.senders + load.receivers(), |directory, interrupt| {
        rounds(start(options, load, directory)?, repeat, interrupt, turn)
    })
}

/// Measures in a directory of its own, with the descriptors that the connections need, and takes everything away again:
/// whatever is started must be gone when `measure` returns.
pub(super) fn in_a_place<T>(
    directory: Option<&Path>,
    connections: usize,
    measure: impl FnOnce(&Path, &Interrupt) -> Result<T, Failure>,
) -> Result<T, Failure> {
    let interrupt = Interrupt::catch()?;
    raise_descriptors(connections)?;
    let directory = directory.map_or_else(tempfile::tempdir, tempfile::tempdir_in);
    let directory = directory.map_err(|error| failed(format!("no temporary directory: {error}")))?;
    let outcome = measure(directory.path(), &interrupt);
    // The processes are gone by now, and the directory goes. What an interrupted step says is no news.
    interrupt.check().and(outcome)
}

fn rounds<S>(
    (mut systems, absent): Systems,
    repeat: Repeat,
    interrupt: &Interrupt,
    turn: &mut Turn<'_, S>,
) -> Result<Measured<S>, Failure> {
    let mut measured: Vec<Rounds<S>> =
        systems.iter().map(|system| Rounds { name: system.name(), samples: Vec::new() }).collect();
    let bar = Bar::new(u64::from(repeat.rounds) * count(systems.len()));
    for round in 0..repeat.rounds as usize {
        for (system, rounds) in systems.iter_mut().zip(&mut measured) {
            bar.say(round, system.name());
            rounds.samples.push(turn(&mut **system, round, interrupt)?);
            system.rest(interrupt)?;
            bar.step();
        }
    }
    Ok(Measured { systems: measured, absent })
}

type Systems = (Vec<Box<dyn Peer>>, Vec<(PeerName, Absent)>);

fn start(options: &RunOptions, load: &Load, directory: &Path) -> Result<Systems, Failure> {
    let server = Server::open(&options.server, directory)?;
    let mut systems: Vec<Box<dyn Peer>> =
        vec![Box::new(Roundtable::new(server, load.clone())?), Box::new(RawLimit::start(load, directory)?)];
    let mut absent = Vec::new();
    let mut asked: Vec<PeerName> = Vec::new();
    for name in &options.peer {
        if asked.contains(name) {
            continue;
        }
        asked.push(*name);
        match name.start(load, directory)? {
            Started::Peer(peer) => systems.push(peer),
            Started::Absent(why) => absent.push((*name, why)),
        }
    }
    Ok((systems, absent))
}

/// As many descriptors as the system lets a process have; an error if the load needs more.
fn raise_descriptors(connections: usize) -> Result<(), Failure> {
    let Rlimit { current, maximum } = getrlimit(Resource::Nofile);
    let raised = setrlimit(Resource::Nofile, Rlimit { current: maximum, maximum }).map(|()| maximum);
    let limit = raised.unwrap_or(current).and_then(|limit| usize::try_from(limit).ok()).unwrap_or(usize::MAX);
    if connections <= CONNECTIONS_MAX && connections + DESCRIPTORS_RESERVED <= limit {
        return Ok(());
    }
    Err(Failure::usage(format!(
        "{connections} connections are more than the {limit} descriptors that a process may have here, or than a million: take fewer, or \
         raise `ulimit -n`"
    )))
}

/// How far it is; drawn on a terminal only.
pub(super) struct Bar(ProgressBar);

impl Bar {
    pub(super) fn new(turns: u64) -> Self {
        let style = ProgressStyle::with_template("{wide_bar} {pos}/{len} turns, {msg}, {eta} left");
        let bar = ProgressBar::with_draw_target(Some(turns), ProgressDrawTarget::stderr_with_hz(4));
        bar.set_style(style.expect("a template of our own"));
        Self(bar)
    }

    pub(super) fn say(&self, round: usize, system: &'static str) {
        self.0.set_message(format!("round {}: {system}", round + 1));
        self.0.tick();
    }

    pub(super) fn step(&self) {
        self.0.inc(1);
    }
}

impl Drop for Bar {
    fn drop(&mut self) {
        self.0.finish_and_clear();
    }
}
