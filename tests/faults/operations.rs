//! The n-th operation of the disk fails, once or from then on, for each n until a whole life of a server passes.
//!
//! A life: a first start, groups and messages one at a time, a clean stop. Whatever fails in it, the server refuses to
//! start, stops by itself, or goes on, but it never hangs and never panics; what it acknowledged is there when the disk
//! works again, and is still there after a power cut behind that. A failing sync drops what it covered, as on Linux:
//! then nothing may be acknowledged any more, and the process has to end.

use rand::Rng;
use rand::rngs::StdRng;
use roundtable::client::ClientError;
use roundtable::ids::OperationId;

use crate::disk::{Act, Disk, Failure, Fault, Lasting};
use crate::kills::Run;
use crate::ledger::{Operation, Outcome, Wish, user};
use crate::load::say;
use crate::server::{PATIENCE, Server};
use crate::table::{Seen, Skipped, Stage};

/// What one user does in a life.
const GROUPS: usize = 2;
const MESSAGES: usize = 6;
/// A life that needs more operations than that never passes.
const NTH_MAX: u64 = 5_000;
/// The exit code of a process that panicked.
const PANICKED: Option<i32> = Some(101);

/// What a server did about a failing disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Reaction {
    /// Nothing failed: the life passed.
    Passed,
    RefusedToStart,
    /// It ended by itself, or its stop said that something is wrong.
    Stopped,
    WentOn,
}

#[derive(Default)]
struct Tally {
    lives: u64,
    refused: u64,
    stopped: u64,
    went_on: u64,
    acknowledged: u64,
}

impl Tally {
    fn add(&mut self, reaction: Reaction, acknowledged: u64) {
        self.lives += 1;
        self.acknowledged += acknowledged;
        match reaction {
            Reaction::Passed => {}
            Reaction::RefusedToStart => self.refused += 1,
            Reaction::Stopped => self.stopped += 1,
            Reaction::WentOn => self.went_on += 1,
        }
    }

    fn seen(&self, control: String, of: &str) -> Seen {
        let Self { lives, refused, stopped, went_on, acknowledged } = self;
        assert!(refused + stopped + went_on > 0, "something failed");
        Seen {
            count: format!("{lives} lives, {of}"),
            observed: format!(
                "{refused} starts refused, {stopped} servers stopped, {went_on} went on; {acknowledged} acknowledged"
            ),
            control,
        }
    }
}

pub(crate) fn failing(stage: &Stage) -> Result<Seen, Skipped> {
    let kinds = [Failure::InputOutput, Failure::NoSpace, Failure::ShortWrite];
    let mut tally = Tally::default();
    for failure in kinds {
        for lasting in [Lasting::Once, Lasting::ForGood] {
            sweep(stage, failure, lasting, 2, &mut tally)?;
        }
    }
    let control = control(stage, Failure::HiddenWrite, "writes that are answered and not done")?;
    Ok(tally.seen(control, "EIO, ENOSPC and short writes, once and for good"))
}

pub(crate) fn failing_syncs(stage: &Stage) -> Result<Seen, Skipped> {
    let mut tally = Tally::default();
    for lasting in [Lasting::Once, Lasting::ForGood] {
        sweep(stage, Failure::Sync, lasting, 2, &mut tally)?;
    }
    let control = control(stage, Failure::HiddenSync, "failed syncs that are answered as good")?;
    Ok(tally.seen(control, "once and for good"))
}

/// Every n until a life passes; in the normal run a few of them, drawn from as many as a life has.
fn sweep(stage: &Stage, failure: Failure, lasting: Lasting, few: u64, tally: &mut Tally) -> Result<(), Skipped> {
    let what = format!("{failure:?} {lasting:?}");
    let mut random = stage.random(failure as u64);
    let all = operations_of_a_life(failure, lasting, &mut random)?;
    if stage.is_milestone {
        for nth in 1..NTH_MAX {
            stage.show(nth.min(all), all, &what);
            if life(stage, Fault { failure, nth, lasting }, tally)? == Reaction::Passed {
                return Ok(());
            }
        }
        panic!("{what}: no life passes");
    }
    for number in 1..=few {
        // Every other one behind the first start, among changes.
        let least = if number % 2 == 0 { all / 2 } else { 1 };
        let nth = random.random_range(least..=all);
        stage.show(number, few, &what);
        life(stage, Fault { failure, nth, lasting }, tally)?;
    }
    Ok(())
}

/// How many operations of a life in which nothing fails the failure would concern.
fn operations_of_a_life(failure: Failure, lasting: Lasting, random: &mut StdRng) -> Result<u64, Skipped> {
    let disk = Disk::mount().map_err(Skipped)?;
    disk.set_fault(Some(Fault { failure, nth: u64::MAX, lasting }));
    let mut run = Run::on(disk.data(), 0);
    let server = run.start();
    assert!(act(&server, &mut run, random), "nothing fails");
    server.terminate();
    let all = disk.counted();
    assert!(all > 0, "a life has operations that {failure:?} concerns");
    Ok(all)
}

/// One life, and what is found when the disk works again: behind a start, and behind a power cut and a start.
fn life(stage: &Stage, fault: Fault, tally: &mut Tally) -> Result<Reaction, Skipped> {
    let mut random = stage.random(fault.nth);
    let mut disk = Disk::mount().map_err(Skipped)?;
    let mut run = Run::on(disk.data(), random.random());
    disk.set_fault(Some(fault));
    let reaction = live(&disk, &mut run, &mut random, fault);
    disk.set_fault(None);
    tally.add(reaction, run.acknowledged());
    let server = run.start();
    run.check(&server, true);
    server.kill();
    disk.come_back(0.0, &mut random);
    let server = run.start();
    run.check(&server, true);
    server.kill();
    Ok(reaction)
}

fn live(disk: &Disk, run: &mut Run, random: &mut StdRng, fault: Fault) -> Reaction {
    let server = match Server::try_start(&run.data()) {
        Ok(server) => server,
        Err(refused) => {
            assert!(!disk.failed().is_empty(), "{fault:?}: nothing failed, and {refused:?}");
            assert_ne!(refused.code, PANICKED, "{fault:?}: {refused:?}");
            let last = refused.stderr.lines().last().unwrap_or_default();
            assert!(last.starts_with("error"), "{fault:?}: a line that says why, and is the last: {refused:?}");
            return Reaction::RefusedToStart;
        }
    };
    let lived = act(&server, run, random);
    // A write or a sync of the journal that fails is the end; a stop must not hide it.
    let failed = disk.failed();
    let is_journal = |(act, name): &(Act, String)| act.is_sync() && is_segment(name);
    let must_stop = fault.failure == Failure::Sync && failed.iter().any(is_journal);
    if !lived || must_stop {
        let ended = server.wait_until_it_ends();
        let ended = ended.unwrap_or_else(|| panic!("{fault:?}: it does not end; failed: {failed:?}"));
        assert!(ended.code.is_some_and(|code| code != 0), "{fault:?}: {ended:?}; failed: {failed:?}");
        assert_ne!(ended.code, PANICKED, "{fault:?}: {ended:?}");
        return Reaction::Stopped;
    }
    let (status, took) = server.terminate();
    assert!(took < PATIENCE && status.code().is_some(), "{fault:?}: {status:?} after {took:?}");
    assert_ne!(status.code(), PANICKED, "{fault:?}");
    match (status.code(), disk.failed().is_empty()) {
        (Some(0), true) => Reaction::Passed,
        (_, true) => panic!("{fault:?}: nothing failed, and {status:?}"),
        (Some(0), false) => Reaction::WentOn,
        _ => Reaction::Stopped,
    }
}

/// Whether it is one that is written to, not one in the making.
fn is_segment(name: &str) -> bool {
    std::path::Path::new(name).extension().is_some_and(|extension| extension == "seg")
}

/// Groups and messages, one at a time, each noted with what came of it. Whether the server was there until the end.
fn act(server: &Server, run: &mut Run, random: &mut StdRng) -> bool {
    let alice = user("user-1");
    let Ok(mut client) = server.connect(&alice, "life") else { return false };
    let mut groups = Vec::new();
    for number in 0..GROUPS + MESSAGES {
        let id = OperationId::from_bytes(random.random()).expect("not zero");
        let wish = if number < GROUPS {
            Wish::Create { title: id.to_string(), members: vec![user("user-2"), user("user-3")] }
        } else if let Some(group) = groups.get(number % groups.len().max(1)) {
            Wish::Send { group: *group, body: id.as_bytes().to_vec() }
        } else {
            continue;
        };
        let mut operation = Operation { id, user: alice.clone(), wish, outcome: Outcome::Unknown, round: 0 };
        let answer = say(&mut client, &operation);
        let is_there = match answer {
            Ok(answer) => {
                groups.extend(matches!(operation.wish, Wish::Create { .. }).then_some(answer.group));
                operation.outcome = Outcome::Acknowledged(answer);
                true
            }
            Err(ClientError::Refused(_)) => {
                operation.outcome = Outcome::Refused;
                true
            }
            Err(ClientError::OutcomeUnknown { .. } | ClientError::Closed { .. }) => false,
            Err(error) => panic!("{error}"),
        };
        run.note(operation);
        if !is_there {
            return false;
        }
    }
    true
}

/// The same life on a disk that lies: what the server says is acknowledged is not there.
fn control(stage: &Stage, failure: Failure, words: &str) -> Result<String, Skipped> {
    let mut random = stage.random(u64::MAX);
    let mut disk = Disk::mount().map_err(Skipped)?;
    let mut run = Run::on(disk.data(), random.random());
    let server = run.start();
    disk.set_fault(Some(Fault { failure, nth: 1, lasting: Lasting::ForGood }));
    assert!(act(&server, &mut run, &mut random), "control: it notices nothing");
    server.kill();
    disk.set_fault(None);
    disk.come_back(0.0, &mut random);
    let acknowledged = run.acknowledged();
    let seen = match Server::try_start(&run.data()) {
        Ok(server) => format!("{} things found wrong", run.losses(&server).len()),
        Err(refused) => format!("the start was refused: {}", refused.stderr.trim()),
    };
    assert!(!seen.starts_with('0'), "control: {words}: {acknowledged} acknowledged, {seen}");
    Ok(format!("{words}: {acknowledged} acknowledged, {seen}"))
}
