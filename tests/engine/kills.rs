//! A process that embeds the engine, killed at any moment under load from several threads: what it was told is there.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::time::{Duration, Instant};

use rand::rngs::StdRng;
use rand::{Rng, RngCore, SeedableRng};
use roundtable::Engine;
use roundtable::group::Act;
use roundtable::ids::{GroupId, OperationId, UserId};

use super::child::{Process, say};
use super::ledger::{Answer, Found, Ledger, Operation, Outcome, Wish};
use super::{number_from, open, seed, user};

const ROUNDS_DEFAULT: u64 = 12;
const THREADS: u64 = 4;
/// Most answers until a kill.
const ANSWERS_MAX: u64 = 400;
/// Groups that a process goes on with.
const GROUPS_KEPT: usize = 24;
/// Longer than a start takes here.
const START_MAX_US: u64 = 60_000;

pub(crate) fn users() -> Vec<UserId> {
    (1..=8).map(|number| user(&format!("u{number}"))).collect()
}

// ---- in the process that is killed ---------------------------------------------------------------------------------

/// Random calls from several threads, each said before and after it, until somebody kills this process.
pub(crate) fn load(directory: &Path, seed: u64) {
    let engine = open(directory);
    let living = engine.groups().map(|group| group.expect("a group")).filter(|group| !group.record.dissolved);
    let mut known: Vec<GroupId> = living.map(|group| group.record.group).collect();
    let known = Mutex::new(known.split_off(known.len().saturating_sub(GROUPS_KEPT)));
    std::thread::scope(|scope| {
        for thread in 0..THREADS {
            let (engine, known) = (&engine, &known);
            scope.spawn(move || {
                let mut random = StdRng::seed_from_u64(seed ^ thread << 32);
                loop {
                    act(engine, known, &mut random);
                }
            });
        }
    });
}

fn act(engine: &Engine, known: &Mutex<Vec<GroupId>>, random: &mut StdRng) {
    let mut bytes = [0; 16];
    random.fill_bytes(&mut bytes);
    let id = OperationId::from_bytes(bytes).expect("not nil");
    let line = {
        let known = known.lock().expect("nobody panicked");
        random_wish(&known, random)
    };
    let operation = parse_operation(id, &line, 0).expect("a legal line");
    say(&format!("try {id} {line}"));
    match operation.perform(engine, id) {
        Ok(answer) => {
            say(&format!("ok {id} {} {} {} {}", answer.group, answer.seq, answer.version, u8::from(answer.repeated)));
            if matches!(operation.wish, Wish::Create(_)) {
                let mut known = known.lock().expect("nobody panicked");
                if known.len() >= GROUPS_KEPT {
                    known.remove(0);
                }
                known.push(answer.group);
            }
        }
        Err(error) => say(&format!("no {id} {error}")),
    }
}

fn random_wish(known: &[GroupId], random: &mut StdRng) -> String {
    let users = users();
    let mut one = || users[random.random_range(0..users.len())].to_string();
    let (who, first, second) = (one(), one(), one());
    if known.is_empty() || random.random_range(0..10) == 0 {
        return format!("{who} create {first} {second}");
    }
    let group = known[random.random_range(0..known.len())];
    match random.random_range(0..20) {
        0..3 => format!("{who} add {group} {first} {second}"),
        3 => format!("{who} remove {group} {first}"),
        4 => format!("{who} leave {group}"),
        5 | 6 => format!("{who} rename {group}"),
        7 => format!("{who} transfer {group} {first}"),
        8 if random.random_range(0..8) == 0 => format!("{who} dissolve {group}"),
        9 | 10 => format!("{who} mark {group} {}", random.random_range(1..20)),
        _ => format!("{who} send {group} {}", 1 << random.random_range(0..11)),
    }
}

// ---- outside of it -------------------------------------------------------------------------------------------------

fn parse_operation(id: OperationId, line: &str, round: u64) -> Option<Operation> {
    let words: Vec<&str> = line.split(' ').collect();
    let [who, verb, rest @ ..] = &words[..] else { return None };
    let users = |names: &[&str]| names.iter().map(|name| user(name)).collect::<Vec<_>>();
    let wish = match (*verb, rest) {
        ("create", members) => Wish::Create(users(members)),
        ("mark", [group, seq]) => Wish::Mark(group.parse().ok()?, seq.parse().ok()?),
        (verb, [group, rest @ ..]) => Wish::Act(group.parse().ok()?, parse_act(id, verb, rest, users(rest))?),
        _ => return None,
    };
    Some(Operation { user: user(who), wish, outcome: Outcome::Unknown, round })
}

fn parse_act(id: OperationId, verb: &str, rest: &[&str], members: Vec<UserId>) -> Option<Act> {
    Some(match verb {
        "add" => Act::Add { members },
        "remove" => Act::Remove { members },
        "leave" => Act::Leave,
        "rename" => Act::Rename { title: id.to_string().into() },
        "transfer" => Act::Transfer { owner: members.into_iter().next()? },
        "dissolve" => Act::Dissolve,
        "send" => Act::Send { body: id.to_string().repeat(rest.first()?.parse().ok()?).into_bytes().into() },
        _ => return None,
    })
}

/// One run.
pub(crate) struct Run {
    pub(crate) seed: u64,
    random: StdRng,
    home: tempfile::TempDir,
    pub(crate) ledger: Ledger,
    round: u64,
    pub(crate) totals: BTreeMap<&'static str, u64>,
}

impl Run {
    pub(crate) fn new(seed: u64) -> Self {
        let (random, home) = (StdRng::seed_from_u64(seed), tempfile::tempdir().expect("a directory"));
        Self { seed, random, home, ledger: Ledger::default(), round: 0, totals: BTreeMap::new() }
    }

    pub(crate) fn data(&self) -> PathBuf {
        self.home.path().join("data")
    }

    fn count(&mut self, what: &'static str, count: usize) {
        *self.totals.entry(what).or_default() += count as u64;
    }

    /// So often; a round may be killed before anything was.
    pub(crate) fn total(&self, what: &str) -> u64 {
        self.totals.get(what).copied().unwrap_or(0)
    }

    /// Load until a random moment, and SIGKILL; now and then while it is still opening.
    pub(crate) fn killed_round(&mut self) {
        self.round += 1;
        let mut process = Process::start("load", &self.data(), self.random.random());
        let answers = match self.random.random_range(0..8) {
            0 => 0,
            _ => self.random.random_range(1..ANSWERS_MAX),
        };
        let mut answered = 0;
        while answered < answers {
            let line = process.line().expect("it runs until it is killed");
            answered += u64::from(!line.starts_with("try "));
            self.take(&line);
        }
        let latest = if answers == 0 { START_MAX_US } else { 3_000 };
        spin(Duration::from_micros(self.random.random_range(0..latest)));
        for line in process.kill() {
            self.take(&line);
        }
        self.count("kills", 1);
    }

    fn take(&mut self, line: &str) {
        let (verb, rest) = line.split_once(' ').expect("two words");
        let (id, rest) = rest.split_once(' ').expect("three words");
        let id: OperationId = id.parse().expect("an operation id");
        match verb {
            "try" => {
                let operation = parse_operation(id, rest, self.round).unwrap_or_else(|| panic!("a legal line: {line}"));
                self.ledger.try_operation(id, operation);
            }
            "no" => {
                self.count("refused", 1);
                self.ledger.end_operation(id, Outcome::Refused);
            }
            "ok" => {
                let words: Vec<&str> = rest.split(' ').collect();
                let [group, seq, version, repeated] = words[..] else { panic!("four words: {line}") };
                let number = |text: &str| text.parse().expect("a number");
                let (group, repeated) = (group.parse().expect("a group"), repeated == "1");
                assert!(!repeated, "an id is used once: {line}");
                let answer = Answer { group, seq: number(seq), version: number(version), repeated };
                self.count("acknowledged", 1);
                self.ledger.end_operation(id, Outcome::Acknowledged(answer));
            }
            _ => panic!("an unknown line: {line}"),
        }
    }

    /// Opens, compares, says everything of this round again, and compares again.
    pub(crate) fn check(&mut self) {
        let engine = open(&self.data());
        let found = Found::in_engine(&engine, &users());
        self.demand_none(&found, false, "after the start");
        self.say_again(&engine);
        let found = Found::in_engine(&engine, &users());
        self.demand_none(&found, true, "after saying it again");
        self.count("entries read", found.entries());
        self.ledger.establish(found);
        engine.close().expect("it closes");
    }

    fn demand_none(&mut self, found: &Found, complete: bool, when: &str) {
        let losses = self.ledger.losses(found, complete);
        let first: Vec<_> = losses.iter().take(10).cloned().collect();
        assert!(
            losses.is_empty(),
            "seed {} round {} {when}: {} losses\n{}",
            self.seed,
            self.round,
            losses.len(),
            first.join("\n")
        );
    }

    fn say_again(&mut self, engine: &Engine) {
        let newest = self.ledger.order.iter().rev();
        let of_round: Vec<_> =
            newest.take_while(|id| self.ledger.operations[*id].round == self.round).copied().collect();
        for id in of_round.into_iter().rev() {
            let operation = self.ledger.operations[&id].clone();
            if matches!(operation.wish, Wish::Mark(..)) {
                continue;
            }
            match operation.outcome {
                Outcome::Acknowledged(before) if self.ledger.is_effective(id) => {
                    let again = operation.perform(engine, id);
                    assert_eq!(again, Ok(Answer { repeated: true, ..before }), "seed {}: {operation:?}", self.seed);
                    self.count("said again", 1);
                }
                // Nothing was changed, and nothing is remembered.
                Outcome::Acknowledged(_) | Outcome::Refused => {}
                Outcome::Unknown => {
                    let outcome = operation.perform(engine, id).map_or(Outcome::Refused, Outcome::Acknowledged);
                    let applied = matches!(outcome, Outcome::Acknowledged(answer) if answer.repeated);
                    self.count(if applied { "unknown, applied" } else { "unknown, absent" }, 1);
                    self.ledger.end_operation(id, outcome);
                }
            }
        }
    }
}

/// Too short for a timer, and to the point: a kill at any instant.
fn spin(time: Duration) {
    let from = Instant::now();
    while from.elapsed() < time {
        std::hint::spin_loop();
    }
}

#[test]
fn whatever_was_acknowledged_survives_every_kill() {
    let rounds = number_from("ROUNDTABLE_ROUNDS").unwrap_or(ROUNDS_DEFAULT);
    let mut run = Run::new(seed());
    for _ in 0..rounds {
        run.killed_round();
        run.check();
    }
    println!("{rounds} rounds, lost 0: {:?}; seed {}", run.totals, run.seed);
    assert!(run.total("acknowledged") > 10 * rounds, "there was something to lose");
    assert!(run.total("said again") > rounds && run.ledger.users().len() == 8, "{:?}", run.totals);
}

#[test]
fn control_an_older_copy_of_the_directory_is_seen_as_a_loss() {
    let mut run = Run::new(seed());
    run.killed_round();
    run.check();
    let older = run.home.path().join("older");
    copy(&run.data(), &older);
    let before = run.total("acknowledged");
    while run.total("acknowledged") < before + 50 {
        run.killed_round();
    }
    std::fs::remove_dir_all(run.data()).expect("it is there");
    copy(&older, &run.data());
    let found = Found::in_engine(&open(&run.data()), &users());
    let losses = run.ledger.losses(&found, false);
    assert!(losses.len() >= 20, "seed {}: {losses:?}", run.seed);
}

pub(crate) fn copy(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).expect("a directory");
    for item in std::fs::read_dir(from).expect("a directory") {
        let item = item.expect("an item");
        let target = to.join(item.file_name());
        if item.path().is_dir() {
            copy(&item.path(), &target);
        } else {
            std::fs::copy(item.path(), target).expect("it is copied");
        }
    }
}
