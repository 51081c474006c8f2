//! A server and connections with names; everything that happens between them is written down as lines.

use std::str::FromStr;

use super::super::world::{Peer, Reading, World};
use super::reader::{Reader, bytes_of, frame_bytes, hex_of};

/// What somebody other than the server does.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Step {
    Connects(String),
    Says(String, Vec<u8>),
    StopsReading(String),
    ReadsOn(String),
    Closes(String),
    /// Milliseconds.
    Passes(u64),
}

/// A line that is no step: it says what the server does.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Server;

impl FromStr for Step {
    type Err = Server;

    fn from_str(line: &str) -> Result<Self, Server> {
        if line.starts_with("server ") {
            return Err(Server);
        }
        if let Some((who, rest)) = line.split_once(" → server: ") {
            let (_, hex) = rest.rsplit_once(" | ").expect("the bytes stand behind a bar");
            return Ok(Self::Says(who.to_owned(), bytes_of(hex)));
        }
        if let Some(ms) = line.strip_suffix(" ms pass") {
            return Ok(Self::Passes(ms.parse().expect("a number of milliseconds")));
        }
        let (who, what) = line.split_once(' ').expect("somebody does something");
        let who = who.to_owned();
        Ok(match what {
            "connects" => Self::Connects(who),
            "stops reading" => Self::StopsReading(who),
            "reads on" => Self::ReadsOn(who),
            "closes" => Self::Closes(who),
            other => panic!("no step of a transcript: {other}"),
        })
    }
}

/// A connection by its name.
struct Actor {
    name: String,
    peer: Peer,
    reads: bool,
    open: bool,
}

pub(super) struct Stage<'r> {
    reader: &'r Reader,
    world: World,
    /// In the order in which they connected.
    actors: Vec<Actor>,
    lines: Vec<String>,
}

impl<'r> Stage<'r> {
    /// A new server on an empty directory.
    pub(super) fn new(reader: &'r Reader) -> Self {
        Self { reader, world: World::new(), actors: Vec::new(), lines: Vec::new() }
    }

    /// Does a step, and writes down what follows from it.
    pub(super) fn perform(&mut self, step: &Step) {
        let line = match step {
            Step::Connects(who) => {
                let peer = self.world.connect();
                // Output is taken here, so that its bytes can be written down.
                self.world.set_reading(peer, Reading::Nothing);
                self.actors.push(Actor { name: who.clone(), peer, reads: true, open: true });
                format!("{who} connects")
            }
            Step::Says(who, bytes) => {
                let peer = self.actor(who).peer;
                self.world.send_bytes(peer, bytes);
                format!("{who} → server: {} | {}", self.reader.words(bytes), hex_of(bytes))
            }
            Step::StopsReading(who) => {
                self.actor(who).reads = false;
                format!("{who} stops reading")
            }
            Step::ReadsOn(who) => {
                self.actor(who).reads = true;
                format!("{who} reads on")
            }
            Step::Closes(who) => {
                let actor = self.actor(who);
                actor.open = false;
                let peer = actor.peer;
                self.world.disconnect(peer);
                format!("{who} closes")
            }
            Step::Passes(ms) => {
                self.world.advance(*ms);
                format!("{ms} ms pass")
            }
        };
        self.lines.push(line);
        while self.take_output() {}
    }

    fn actor(&mut self, name: &str) -> &mut Actor {
        let found = self.actors.iter_mut().find(|actor| actor.name == name);
        found.unwrap_or_else(|| panic!("{name} is not connected"))
    }

    /// Takes what waits for those who read, connection by connection. Says whether there was something.
    fn take_output(&mut self) -> bool {
        let mut busy = false;
        for actor in self.actors.iter_mut().filter(|actor| actor.reads && actor.open) {
            let bytes = self.world.take_bytes(actor.peer, usize::MAX);
            busy |= !bytes.is_empty();
            let mut rest = &bytes[..];
            while !rest.is_empty() {
                let (frame, behind) = rest.split_at(frame_bytes(rest));
                rest = behind;
                let words = self.reader.words(frame);
                self.lines.push(format!("server → {}: {words} | {}", actor.name, hex_of(frame)));
            }
            self.world.turn();
            if !self.world.is_open(actor.peer) {
                actor.open = false;
                busy = true;
                self.lines.push(format!("server closes {}", actor.name));
            }
        }
        busy
    }

    /// How many bytes wait for somebody.
    pub(super) fn waiting(&mut self, who: &str) -> usize {
        let peer = self.actor(who).peer;
        self.world.waiting(peer)
    }

    pub(super) fn lines(&self) -> &[String] {
        &self.lines
    }
}
