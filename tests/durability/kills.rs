//! Round after round on one directory: load, SIGKILL, start again, compare.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use roundtable::ids::GroupId;
use roundtable::wire::GroupSeq;

use super::checker::{Index, losses};
use super::found::{Eyes, Found};
use super::ledger::{Answer, Ledger, Operation, Outcome, Wish, users};
use super::load::{Known, Load, say};
use super::server::{Server, bytes_below, copy, segments, spin};

/// Rounds of a usual run of the tests.
const ROUNDS_DEFAULT: u64 = 12;
/// Most acknowledgements until a kill.
const ACKNOWLEDGED_MAX: u64 = 400;
/// Every so many rounds, and at the end, everything is read back; in between what is in use, and a part of the rest.
const ALL_EVERY: u64 = 10;
/// A data directory above this is left, after a look at all of it, for a new one.
const DIRECTORY_BYTES_MAX: u64 = 1 << 30;
/// Of the operations of a user, the newest of which are said again; the server remembers 1,024.
const SAID_AGAIN_FROM: usize = 500;

#[derive(Debug, Default)]
struct Totals {
    kills: u64,
    kills_while_starting: u64,
    acknowledged: u64,
    refused: u64,
    seen: u64,
    applied: u64,
    absent: u64,
    said_again: u64,
    entries_read: u64,
    lost: u64,
    directories: u64,
    segments: u64,
    starts: Vec<Duration>,
}

/// One run.
pub(crate) struct Run {
    seed: u64,
    random: StdRng,
    directory: tempfile::TempDir,
    data: PathBuf,
    pub(crate) ledger: Ledger,
    totals: Totals,
    round: u64,
    known: Known,
}

impl Run {
    pub(crate) fn new(seed: u64) -> Self {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let data = directory.path().join("data");
        Self::over(directory, data, seed)
    }

    /// One whose data are somewhere else.
    pub(crate) fn on(data: PathBuf, seed: u64) -> Self {
        Self::over(tempfile::tempdir().expect("a temporary directory"), data, seed)
    }

    fn over(directory: tempfile::TempDir, data: PathBuf, seed: u64) -> Self {
        Self {
            seed,
            random: StdRng::seed_from_u64(seed),
            directory,
            data,
            ledger: Ledger::default(),
            totals: Totals { directories: 1, ..Totals::default() },
            round: 0,
            known: users().into_iter().map(|user| (user, Vec::new())).collect(),
        }
    }

    pub(crate) fn data(&self) -> PathBuf {
        self.data.clone()
    }

    pub(crate) fn acknowledged(&self) -> u64 {
        self.totals.acknowledged
    }

    /// Everything that a look at all of it finds wrong.
    pub(crate) fn losses(&self, server: &Server) -> Vec<String> {
        let found = Eyes::open(server, &users()).look(&self.ledger.groups(), |_| true);
        losses(&self.ledger, &found, |_| true)
    }

    pub(crate) fn start(&mut self) -> Server {
        let from = Instant::now();
        let server = Server::start(&self.data());
        self.totals.starts.push(from.elapsed());
        server
    }

    /// Load until a random moment; the server is handed back for whatever is to happen to it.
    pub(crate) fn load(&mut self, server: &Server) -> Load {
        self.round += 1;
        let load = Load::begin(server, self.seed, self.round, &self.known);
        // Now and then while the first are still connecting.
        let count =
            if self.random.random_range(0..10) == 0 { 0 } else { self.random.random_range(1..ACKNOWLEDGED_MAX) };
        load.wait(count);
        spin(Duration::from_micros(self.random.random_range(0..3_000)));
        load
    }

    /// Takes an operation into the ledger.
    pub(crate) fn note(&mut self, operation: Operation) {
        match operation.outcome {
            Outcome::Acknowledged(_) => self.totals.acknowledged += 1,
            Outcome::Refused => self.totals.refused += 1,
            Outcome::Unknown => {}
        }
        self.ledger.operations.push(operation);
    }

    pub(crate) fn take(&mut self, load: Load) {
        let (operations, sights) = load.end();
        for operation in operations {
            self.note(operation);
        }
        for sight in sights {
            self.ledger.witness(sight);
        }
        self.totals.seen = self.ledger.seen;
    }

    /// Load, a kill, and now and then kills of the starts that follow.
    pub(crate) fn killed_round(&mut self, server: Server) -> Server {
        let load = self.load(&server);
        server.kill();
        self.totals.kills += 1;
        self.take(load);
        if self.random.random_range(0..4) == 0 {
            for _ in 0..self.random.random_range(1..4) {
                Server::start_and_kill(&self.data(), Duration::from_micros(self.random.random_range(0..60_000)));
                self.totals.kills_while_starting += 1;
            }
        }
        self.start()
    }

    /// Compares, says what is to be said again, and compares again. Panics with all that is wrong.
    pub(crate) fn check(&mut self, server: &Server, all: bool) {
        let mut eyes = Eyes::open(server, &users());
        let mut used: BTreeSet<GroupId> = self.in_use();
        let share = self.random.random_range(0..8);
        let established = self.ledger.established.keys().copied().collect::<BTreeSet<_>>();
        let part = |group: GroupId| group.as_bytes()[15] % 8 == share;
        let found = eyes.look(&self.ledger.groups(), |group| {
            all || used.contains(&group) || part(group) || !established.contains(&group)
        });
        used.extend(found.groups.keys());
        self.demand_none(&found, |group| all || used.contains(&group), "after the start");

        let again = self.said_again(&found, &mut eyes);
        used.extend(again);
        let found = eyes.look(&self.ledger.groups(), |group| all || used.contains(&group));
        self.demand_none(&found, |group| all || used.contains(&group), "after saying it again");
        self.establish(found);
    }

    /// Groups that this round touched.
    fn in_use(&self) -> BTreeSet<GroupId> {
        let this_round = self.ledger.operations.iter().rev().take_while(|operation| operation.round == self.round);
        let mut used: BTreeSet<GroupId> = this_round
            .filter_map(|operation| match (&operation.wish, operation.outcome) {
                (Wish::Send { group, .. } | Wish::Leave { group }, _) => Some(*group),
                (Wish::Create { .. }, Outcome::Acknowledged(answer)) => Some(answer.group),
                (Wish::Create { .. }, _) => None,
            })
            .collect();
        used.extend(self.ledger.seen_entries.iter().map(|(_, group, _)| *group));
        used.extend(self.ledger.seen_packets.iter().map(|(_, packet)| packet.group));
        used
    }

    fn demand_none(&mut self, found: &Found, wanted: impl Fn(GroupId) -> bool, when: &str) {
        self.totals.entries_read += found.groups.values().map(|group| group.entries.len() as u64).sum::<u64>();
        let losses = losses(&self.ledger, found, wanted);
        if losses.is_empty() {
            return;
        }
        self.totals.lost += losses.len() as u64;
        let kept = self.directory.path().with_extension("kept");
        copy(&self.data, &kept);
        let first = losses.iter().take(10).cloned().collect::<Vec<_>>().join("\n  ");
        panic!(
            "seed {} round {} {when}: {} things are wrong, a copy is in {}\n  {first}",
            self.seed,
            self.round,
            losses.len(),
            kept.display()
        );
    }

    /// Says every operation of this round again, those without an answer too, and some older ones. Gives the groups
    /// that came of it.
    fn said_again(&mut self, found: &Found, eyes: &mut Eyes) -> Vec<GroupId> {
        let index = Index::of(found);
        let left = self.ledger.left_by_all();
        let over = |operation: &Operation, found: &Found| match operation.wish {
            Wish::Create { .. } => false,
            Wish::Send { group, .. } | Wish::Leave { group } => {
                left.contains(&group) && !found.groups.contains_key(&group)
            }
        };
        let mut groups = Vec::new();
        for place in self.places_to_say_again() {
            let operation = &self.ledger.operations[place];
            let (seed, client) = (self.seed, eyes.clients.get_mut(&operation.user).expect("each user has eyes"));
            let mut ask = |expected: Option<Answer>, repeated: Option<bool>| {
                let answer = say(client, operation);
                let answer = answer.unwrap_or_else(|error| panic!("seed {seed}: {error} to {operation:?}"));
                let same = expected.is_none_or(|before| Answer { repeated: answer.repeated, ..before } == answer);
                assert!(same, "seed {seed}: {answer:?} instead of {expected:?} to {operation:?}");
                assert!(repeated.is_none_or(|repeated| answer.repeated == repeated), "seed {seed}: {operation:?}");
                answer
            };
            let answer = match operation.outcome {
                Outcome::Acknowledged(before) => ask(Some(before), Some(true)),
                Outcome::Unknown => {
                    // In a group that all have left, everything that its members had asked for before was done.
                    let applied = !index.effects(operation).is_empty() || over(operation, found);
                    *(if applied { &mut self.totals.applied } else { &mut self.totals.absent }) += 1;
                    let answer = ask(None, Some(applied));
                    ask(Some(answer), Some(true))
                }
                // While it stopped: nothing was changed, and nothing is remembered.
                Outcome::Refused => {
                    let answer = ask(None, Some(false));
                    ask(Some(answer), Some(true))
                }
            };
            self.totals.said_again += 1;
            groups.push(answer.group);
            self.ledger.operations[place].outcome = Outcome::Acknowledged(answer);
        }
        groups
    }

    fn places_to_say_again(&mut self) -> Vec<usize> {
        let operations = &self.ledger.operations;
        let this_round = operations.iter().rposition(|operation| operation.round < self.round).map_or(0, |at| at + 1);
        let mut places: Vec<usize> = Vec::new();
        for user in users() {
            let of_user = |place: &usize| {
                let Operation { user: whose, outcome, .. } = &operations[*place];
                *whose == user && matches!(outcome, Outcome::Acknowledged(_))
            };
            let newest: Vec<usize> = (0..this_round).rev().filter(of_user).take(SAID_AGAIN_FROM / 2).collect();
            for _ in 0..newest.len().min(4) {
                places.push(newest[self.random.random_range(0..newest.len())]);
            }
        }
        places.extend(this_round..operations.len());
        places
    }

    /// What was read is what must be there from now on.
    fn establish(&mut self, found: Found) {
        for (id, group) in found.groups {
            self.ledger.established.insert(id, group.entries);
        }
        self.ledger.seen_entries.clear();
        self.ledger.seen_packets.clear();
        let heads = found.lists.into_iter().map(|(user, list)| {
            let groups = list.into_iter().map(|summary| GroupSeq { group: summary.group, seq: summary.head });
            (user, groups.collect())
        });
        self.known = heads.collect();
    }

    /// A new directory where the old one has grown large.
    fn bound_disk_use(&mut self, server: Server) -> Server {
        if bytes_below(&self.data()) < DIRECTORY_BYTES_MAX {
            return server;
        }
        self.check(&server, true);
        server.kill();
        self.totals.segments += segments(&self.data()).len() as u64;
        self.totals.directories += 1;
        self.directory = tempfile::tempdir().expect("a temporary directory");
        self.data = self.directory.path().join("data");
        self.ledger = Ledger { seen: self.ledger.seen, ..Ledger::default() };
        self.known = users().into_iter().map(|user| (user, Vec::new())).collect();
        self.start()
    }

    fn say_summary(&mut self) {
        let segments = self.totals.segments + segments(&self.data()).len() as u64;
        let Totals {
            kills,
            kills_while_starting,
            acknowledged,
            refused,
            seen,
            applied,
            absent,
            said_again,
            entries_read,
            lost,
            directories,
            ..
        } = self.totals;
        self.totals.starts.sort_unstable();
        let starts = &self.totals.starts;
        println!(
            "durability: {} rounds, {kills} kills under load, {kills_while_starting} while starting; {acknowledged} \
             acknowledged, {refused} refused, {seen} seen by watchers; without an answer: {applied} applied, {absent} \
             absent; {said_again} said again, {entries_read} entries read back; lost {lost}; {directories} directories, \
             {segments} segments of 4 MiB, the last directory takes {} MiB on \
             disk, {} of it its journal; start p50 {} ms, slowest {} ms; seed {}",
            self.round,
            bytes_below(&self.data()) >> 20,
            bytes_below(&self.data().join("journal")) >> 20,
            starts[starts.len() / 2].as_millis(),
            starts[starts.len() - 1].as_millis(),
            self.seed
        );
    }
}

fn number_from(variable: &str) -> Option<u64> {
    let text = std::env::var(variable).ok()?;
    Some(text.parse().unwrap_or_else(|_| panic!("{variable} is no number: {text}")))
}

pub(crate) fn seed() -> u64 {
    number_from("ROUNDTABLE_SEED").unwrap_or_else(|| StdRng::from_os_rng().random())
}

#[test]
fn whatever_was_acknowledged_or_seen_survives_every_kill() {
    let rounds = number_from("ROUNDTABLE_ROUNDS").unwrap_or(ROUNDS_DEFAULT);
    let mut run = Run::new(seed());
    let mut server = run.start();
    for round in 1..=rounds {
        server = run.killed_round(server);
        run.check(&server, round % ALL_EVERY == 0 || round == rounds);
        server = run.bound_disk_use(server);
        if round % ALL_EVERY == 0 {
            let Totals { acknowledged, applied, absent, .. } = run.totals;
            println!("round {round}: {acknowledged} acknowledged, {} unknown, lost 0", applied + absent);
        }
    }
    run.say_summary();
    assert!(run.totals.acknowledged > rounds, "there was something to lose");
    assert_eq!(run.totals.refused, 0, "nothing was refused on a disk with room");
}

/// How many losses the checker sees after `damage` was done between a kill and the start that follows.
fn losses_after(damage: impl FnOnce(&std::path::Path, &std::path::Path)) -> (usize, Run) {
    let mut run = Run::new(seed());
    let mut server = run.start();
    server = run.killed_round(server);
    run.check(&server, true);
    server.kill();
    let older = run.directory.path().join("older");
    copy(&run.data(), &older);
    let server = run.start();
    run.round += 1;
    let load = Load::begin(&server, run.seed, run.round, &run.known);
    load.wait(100);
    server.kill();
    run.take(load);
    damage(&run.data(), &older);
    let server = run.start();
    (run.losses(&server).len(), run)
}

#[test]
fn control_an_older_copy_of_the_directory_is_seen_as_a_loss() {
    let (lost, run) = losses_after(|data, older| {
        std::fs::remove_dir_all(data).expect("it is there");
        copy(older, data);
    });
    assert!(lost >= 100, "seed {}: at least what was acknowledged: {lost}", run.seed);
}

#[test]
fn control_zeros_over_the_newest_bytes_are_seen_as_a_loss() {
    let (lost, run) = losses_after(|data, _| {
        // The index knows better, and would refuse the journal.
        std::fs::remove_dir_all(data.join("index")).expect("it is there");
        let newest = segments(data).pop().expect("a segment");
        let mut bytes = std::fs::read(&newest).expect("it reads");
        let end = bytes.iter().rposition(|byte| *byte != 0).expect("it has packets") + 1;
        bytes[512..end].fill(0);
        std::fs::write(&newest, bytes).expect("it writes");
    });
    assert!(lost > 0, "seed {}: {lost}", run.seed);
}
