//! The client killed between its request and the answer, and started again: one group, not two; one message, not two.
//! Also with the server killed under it.
//!
//! `ROUNDTABLE_ROUNDS=1000 cargo test --release --test durability retries -- --nocapture` is the long run.

use std::path::PathBuf;
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use roundtable::ids::{GroupId, OperationId, UserId};
use serde_json::Value;

use super::server::{Server, spin};

/// Rounds of the normal run.
const ROUNDS: u64 = 50;
/// Rounds within which kills must have fallen into each of the moments that matter, however fast this machine is.
const ROUNDS_MAX: u64 = 1_000;
/// Kills of one command, at most, before it is left alone.
const KILLS_MAX: u32 = 3;
/// Rounds within which commands without an operation id must have done something twice.
const CONTROL_ROUNDS_MAX: u64 = 500;

/// Whether commands are started again under the operation id of before.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Id {
    Same,
    None,
}

/// What is done in a round.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Deed {
    Create,
    Send,
}

/// What the kills came to.
#[derive(Debug, Default)]
struct Tally {
    kills: u32,
    /// Kills after which the next start heard that it had happened already, although nothing had been printed.
    between: u32,
    servers_killed: u32,
    /// Commands that were running when their server was killed, and ended well with the next one, by themselves.
    survived: u32,
}

impl Tally {
    /// Whether some kill fell between request and answer, and some command outlived its server.
    fn is_complete(&self) -> bool {
        self.between > 0 && self.survived > 0
    }
}

struct Play {
    data: PathBuf,
    server: Option<Server>,
    address: String,
    random: StdRng,
    group: GroupId,
    /// How long a command takes that is left alone: the median of a few.
    usual: Duration,
    tally: Tally,
}

impl Play {
    fn begin(data: PathBuf, seed: u64) -> Self {
        let server = Server::start(&data);
        let address = server.address.clone();
        let group =
            server.connect(&alice(), "maker").expect("it connects").create("all", &[]).expect("it is made").group;
        let mut play = Self {
            data,
            server: Some(server),
            address,
            random: StdRng::seed_from_u64(seed),
            group,
            usual: Duration::ZERO,
            tally: Tally::default(),
        };
        let mut times: Vec<Duration> = (0..5).map(|number| play.time_one(number)).collect();
        times.sort_unstable();
        play.usual = times[times.len() / 2];
        play
    }

    fn time_one(&self, number: u64) -> Duration {
        let began = Instant::now();
        let output = finish(self.start(Deed::Send, &format!("warm {number}"), None));
        assert!(output.status.success(), "{output:?}");
        began.elapsed()
    }

    /// Starts the real program on a deed that can be told from all others by its mark.
    fn start(&self, deed: Deed, mark: &str, operation: Option<OperationId>) -> Child {
        let mut command = Command::new(env!("CARGO_BIN_EXE_roundtable"));
        match deed {
            Deed::Create => command.args(["create", "--as", "alice", "--title", mark, "bob"]),
            Deed::Send => command.args(["send", "--as", "alice", &self.group.to_string(), mark]),
        };
        command.arg("--json").args(operation.map(|id| format!("--operation-id={id}")));
        command.env_remove("ROUNDTABLE_TOKEN").env_remove("ROUNDTABLE_CLUSTER");
        command.env("ROUNDTABLE_SERVER", &self.address).env("ROUNDTABLE_DATA", &self.data);
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("it runs")
    }

    /// Does something, however often whoever does it is killed.
    fn round(&mut self, mark: &str, id: Id) {
        let deed = if self.random.random_bool(0.5) { Deed::Create } else { Deed::Send };
        let mut bytes = [0; 16];
        self.random.fill(&mut bytes);
        let operation = OperationId::from_bytes(bytes).filter(|_| id == Id::Same);
        let mut unheard = 0;
        for _ in 0..self.random.random_range(1..=KILLS_MAX) {
            let child = self.start(deed, mark, operation);
            let output = if id == Id::Same && self.random.random_bool(0.3) {
                self.kill_server_under(child)
            } else {
                self.kill(child)
            };
            match output.status.code() {
                Some(0) => return self.check_answer(&output, &mut unheard),
                // Killed, the server not reached, or the outcome unknown: it is asked again, as people would.
                None => {
                    self.tally.kills += 1;
                    unheard += u32::from(output.stdout.is_empty());
                }
                Some(3 | 5) => {}
                Some(_) => panic!("{output:?}"),
            }
        }
        let output = finish(self.start(deed, mark, operation));
        assert!(output.status.success(), "{output:?}");
        self.check_answer(&output, &mut unheard);
    }

    fn check_answer(&mut self, output: &Output, unheard: &mut u32) {
        let answer: Value = serde_json::from_slice(&output.stdout).expect("an object");
        if answer["repeated"] == true && *unheard > 0 {
            self.tally.between += 1;
        }
    }

    /// Some moment of a command's life.
    fn moment(&mut self) -> Duration {
        self.usual.mul_f64(self.random.random_range(0.0..1.2))
    }

    fn kill(&mut self, mut child: Child) -> Output {
        spin(self.moment());
        child.kill().expect("it is killed");
        finish(child)
    }

    /// Kills the server at some moment of a command's life, in half of all cases the command as well, and starts the
    /// server again where it was.
    fn kill_server_under(&mut self, mut child: Child) -> Output {
        spin(self.moment());
        let lives = child.try_wait().expect("it can be asked").is_none();
        self.server.take().expect("it runs").kill();
        self.tally.servers_killed += 1;
        if self.random.random_bool(0.5) {
            child.kill().expect("it is killed");
        }
        self.server = Some(Server::start_at(&self.data, &self.address));
        let output = finish(child);
        self.tally.survived += u32::from(lives && output.status.success());
        output
    }

    /// How often each mark was done: as titles of groups, and as bodies of messages.
    fn done(&self) -> Vec<String> {
        let server = self.server.as_ref().expect("it runs");
        let mut client = server.connect(&alice(), "reader").expect("it connects");
        let mut marks: Vec<String> =
            client.list_groups().expect("they are listed").into_iter().map(|group| group.title).collect();
        let mut from = 2;
        loop {
            let page = client.history(self.group, from, 0).expect("it is read");
            for entry in &page.entries {
                let roundtable::wire::LogEntry::Shown(entry) = entry else { panic!("no whispers") };
                let roundtable::group::Event::Message { body } = &entry.event else { panic!("messages: {entry:?}") };
                marks.push(String::from_utf8(body.to_vec()).expect("text"));
            }
            from += page.entries.len() as u64;
            if from > page.head {
                return marks;
            }
        }
    }
}

fn alice() -> UserId {
    UserId::new("alice").expect("legal")
}

fn finish(child: Child) -> Output {
    child.wait_with_output().expect("it ends")
}

fn seed() -> u64 {
    let given = std::env::var("ROUNDTABLE_SEED").ok().map(|seed| seed.parse().expect("ROUNDTABLE_SEED is a number"));
    given.unwrap_or_else(|| StdRng::from_os_rng().random())
}

#[test]
fn a_client_that_is_killed_and_started_again_does_everything_once() {
    let wanted: u64 =
        std::env::var("ROUNDTABLE_ROUNDS").map_or(ROUNDS, |rounds| rounds.parse().expect("a number of rounds"));
    let (directory, seed) = (tempfile::tempdir().expect("a directory"), seed());
    println!("retries: seed {seed}");
    let mut play = Play::begin(directory.path().join("data"), seed);
    let mut rounds = 0;
    while rounds < wanted || (!play.tally.is_complete() && rounds < ROUNDS_MAX) {
        play.round(&format!("round {rounds}"), Id::Same);
        rounds += 1;
    }
    let done = play.done();
    for round in 0..rounds {
        let mark = format!("round {round}");
        let times = done.iter().filter(|done| **done == mark).count();
        assert_eq!(times, 1, "{mark} was done {times} times; seed {seed}");
    }
    println!("retries: {rounds} rounds, {:?}; a command takes {:?}; seed {seed}", play.tally, play.usual);
    assert!(play.tally.is_complete(), "kills fell into each of the moments that matter: {:?}", play.tally);
}

#[test]
fn control_without_an_operation_id_something_is_done_twice() {
    let directory = tempfile::tempdir().expect("a directory");
    let mut play = Play::begin(directory.path().join("data"), seed());
    for round in 0..CONTROL_ROUNDS_MAX {
        let mark = format!("round {round}");
        play.round(&mark, Id::None);
        // Looked at now and then: it costs as much as a round.
        let done = if round % 10 == 9 { play.done() } else { continue };
        if (0..=round).any(|round| done.iter().filter(|done| **done == format!("round {round}")).count() > 1) {
            println!("retries: done twice within {} rounds", round + 1);
            return;
        }
    }
    panic!("nothing was done twice in {CONTROL_ROUNDS_MAX} rounds: {:?}", play.tally);
}
