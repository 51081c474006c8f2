//! The systems under load: roundtable, the raw limit, and peers that are installed. One trait tells how each is
//! spoken to; the same sockets and the same loops serve all of them, so a client library measures nobody.

mod mosquitto;
mod nats;
mod process;
pub(super) mod raw;
pub(super) mod redis;
pub(super) mod roundtable;

use std::net::SocketAddr;
use std::path::Path;

use clap::ValueEnum;

use super::failed;
use super::run::Absent;
use crate::cli::failure::Failure;
use crate::cli::interrupt::Interrupt;

/// What a system is asked to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Task {
    /// Fans a message out to all members on line; nothing is stored.
    Signal,
    /// The same, stored first.
    Message,
    /// Makes a group of all members, who are on line.
    CreateOnline,
    /// Makes groups of members who are off line.
    CreateOffline,
    /// Takes messages to groups whose members are off line.
    Send,
    /// Holds connections and answers their heartbeats.
    Idle,
}

/// How much of it.
#[derive(Clone, Debug)]
pub(super) struct Load {
    pub(super) task: Task,
    /// Connections that send.
    pub(super) senders: usize,
    /// Groups that are made before the load begins.
    pub(super) groups: usize,
    /// Members of each group, beside the one who makes it or sends to it; on line unless the task says otherwise.
    pub(super) members: usize,
    /// Bytes of a message's body.
    pub(super) bytes: usize,
}

impl Load {
    /// Whether something is stored before it is answered.
    fn is_durable(&self) -> bool {
        !matches!(self.task, Task::Signal | Task::Idle)
    }

    /// Whether nothing is measured but storing: what a peer without a disk cannot do. Stored messages are compared with
    /// peers that store nothing, which is harder on us.
    fn is_durable_alone(&self) -> bool {
        match self.task {
            Task::CreateOnline | Task::CreateOffline | Task::Send => true,
            Task::Signal | Task::Message | Task::Idle => false,
        }
    }

    /// Connections of members that are on line.
    pub(super) fn receivers(&self) -> usize {
        match self.task {
            Task::Signal | Task::Message => self.groups * self.members,
            Task::CreateOnline => self.members,
            Task::CreateOffline | Task::Send | Task::Idle => 0,
        }
    }
}

/// Which side of the load a connection is on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Seat {
    Sender,
    Member,
}

/// What a system says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Item {
    /// The connection is as its first words asked.
    Ready,
    /// What a member is to get.
    Delivery,
    /// An answer to a request.
    Answer,
    /// Nothing that counts.
    Other,
}

/// One item at the front of a stream, and its length, which may reach beyond what has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Cut {
    pub(super) bytes: usize,
    pub(super) item: Item,
}

/// One system.
pub(super) trait Peer {
    /// Its name, in tables and objects.
    fn name(&self) -> &'static str;

    /// Its process, if its CPU is to be counted.
    fn process(&self) -> Option<u32>;

    /// Where it listens.
    fn address(&self) -> SocketAddr;

    /// A new round begins: nothing of the last one may matter in it.
    fn begin(&mut self, round: usize);

    /// What a connection says first; `Ready` comes when it is done. Nothing if there is nothing to say.
    fn opening(&mut self, seat: Seat, number: usize) -> Vec<u8>;

    /// What the first sender asks before members come; each is answered, and the answers go to `learn`.
    fn preparations(&mut self) -> Vec<Vec<u8>> {
        Vec::new()
    }

    /// The bytes that came behind a preparation, up to the end of its answer.
    fn learn(&mut self, _answer: &[u8]) -> Result<(), String> {
        Ok(())
    }

    /// Appends one request of a sender, to a group where there are several.
    fn request(&mut self, sender: usize, group: usize, out: &mut Vec<u8>);

    /// What stands at the front of `bytes`, which are not empty; `None` if more is needed to know. An error is what the
    /// system complains of.
    fn cut(&self, seat: Seat, bytes: &[u8]) -> Result<Option<Cut>, String>;

    /// Waits until nothing is left to do behind what was answered: the next system's turn would pay for it.
    fn rest(&mut self, _interrupt: &Interrupt) -> Result<(), Failure> {
        Ok(())
    }

    /// A failure of this system.
    fn failed(&self, what: &str) -> Failure {
        failed(format!("{}: {what}", self.name()))
    }
}

/// A peer by name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum PeerName {
    /// Redis: pub/sub, scripts, `appendfsync always`
    Redis,
    /// NATS: its core, which stores nothing
    Nats,
    /// Mosquitto: MQTT 3.1.1, nothing acknowledged
    Mosquitto,
    /// The raw limit with its sync on a thread of its own, as where a slow disk must not stop the connections
    RawThread,
}

/// What came of starting a peer.
pub(super) enum Started {
    Peer(Box<dyn Peer>),
    Absent(Absent),
}

impl PeerName {
    /// In tables and objects.
    pub(super) fn word(self) -> &'static str {
        match self {
            Self::Redis => "redis",
            Self::Nats => "nats",
            Self::Mosquitto => "mosquitto",
            Self::RawThread => "raw-thread",
        }
    }

    /// Starts it, ready for a load, with its files below `directory`.
    pub(super) fn start(self, load: &Load, directory: &Path) -> Result<Started, Failure> {
        match self {
            Self::Redis => redis::Redis::start(load, directory),
            Self::Nats | Self::Mosquitto if load.is_durable_alone() => Ok(Started::Absent(Absent::NotComparable(
                "it fans out and stores nothing, and here storing is what is measured",
            ))),
            Self::Nats => nats::Nats::start(load, directory),
            Self::Mosquitto => mosquitto::Mosquitto::start(load, directory),
            Self::RawThread => raw::RawLimit::start_beside(load, directory),
        }
    }
}

impl Absent {
    /// For people.
    pub(super) fn sentence(&self) -> String {
        match self {
            Self::Missing(how) => format!("is not installed: {how}"),
            Self::NotComparable(why) => format!("was not measured: {why}"),
        }
    }
}
