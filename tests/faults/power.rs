//! Power cuts: what was not synced is gone, in any part; what was acknowledged or seen is there.
//!
//! The power goes before a random operation of the disk while clients are at work, or while the server starts. From then
//! on nothing reaches the disk and nothing is answered; the process is killed, and started again on what is left.

use std::io::{BufRead, BufReader};

use rand::Rng;
use rand::rngs::StdRng;

use crate::disk::{Disk, Syncs};
use crate::kills::Run;
use crate::server::{PATIENCE, Server};
use crate::table::{Seen, Skipped, Stage};

/// Cuts of one disk; then another one, so that reading all of it back stays quick.
const CUTS_PER_DISK: u64 = 20;
/// Operations of the disk under load, before one of which the power goes.
const OPERATIONS_MAX: u64 = 60;
/// The same for a start: a first one, with two segments to fill, needs about that many.
const OPERATIONS_OF_A_START: u64 = 80;
/// How much of what was not synced survives: all or nothing, little, half, most.
const SHARES: [f64; 5] = [0.0, 0.1, 0.5, 0.9, 1.0];

#[derive(Default)]
struct Tally {
    cuts: u64,
    cuts_in_starts: u64,
    acknowledged: u64,
    kept: u64,
    lost: u64,
}

impl Tally {
    fn come_back(&mut self, disk: &mut Disk, share: f64, random: &mut StdRng) {
        let (kept, lost) = disk.come_back(share, random);
        (self.kept, self.lost) = (self.kept + kept, self.lost + lost);
    }
}

pub(crate) fn run(stage: &Stage) -> Result<Seen, Skipped> {
    let cuts = stage.scale(6, 200);
    let mut tally = Tally::default();
    let mut part = 0;
    while tally.cuts < cuts {
        part += 1;
        one_disk(stage, part, cuts, &mut tally)?;
    }
    let Tally { cuts, cuts_in_starts, acknowledged, kept, lost } = tally;
    assert!(acknowledged > cuts && lost > 0, "there was something to lose: {acknowledged} and {lost} pieces");
    Ok(Seen {
        count: format!("{cuts} under load, {cuts_in_starts} in starts"),
        observed: format!(
            "{acknowledged} acknowledged; of what was not synced {kept} pieces survived, {lost} were lost"
        ),
        control: control(stage)?,
    })
}

fn one_disk(stage: &Stage, part: u64, cuts: u64, tally: &mut Tally) -> Result<(), Skipped> {
    let mut random = stage.random(part);
    let mut disk = Disk::mount().map_err(Skipped)?;
    let mut run = Run::on(disk.data(), random.random());
    // Every other disk is cut first of all when it is in full use: what the first start should have synced is gone then.
    if part.is_multiple_of(2) {
        cut_starts(&mut disk, &mut random, tally);
    }
    let mut server = run.start();
    for round in 1..=CUTS_PER_DISK.min(cuts - tally.cuts) {
        let releasing = disk.releasing();
        let load = run.load(&server);
        disk.cut_at(random.random_range(1..OPERATIONS_MAX));
        assert!(disk.wait_until_off(PATIENCE), "the disk is used under load");
        server.kill_and(|| disk.let_the_dead_go());
        drop(releasing);
        run.take(load);
        tally.cuts += 1;
        let share = if round == 1 { 0.0 } else { share(&mut random) };
        tally.come_back(&mut disk, share, &mut random);
        if random.random_range(0..3) == 0 {
            cut_starts(&mut disk, &mut random, tally);
        }
        server = run.start();
        run.check(&server, round % 10 == 0 || round == CUTS_PER_DISK || tally.cuts == cuts);
        stage.show(tally.cuts, cuts, "power cuts, nothing lost");
    }
    tally.acknowledged += run.acknowledged();
    server.kill();
    Ok(())
}

fn share(random: &mut StdRng) -> f64 {
    SHARES[random.random_range(0..SHARES.len())]
}

/// Starts in which the power goes, one behind the other.
fn cut_starts(disk: &mut Disk, random: &mut StdRng, tally: &mut Tally) {
    for _ in 0..random.random_range(1..4) {
        disk.cut_at(random.random_range(1..OPERATIONS_OF_A_START));
        let mut child = Server::spawn(&disk.data(), "127.0.0.1:0");
        let stdout = child.stdout.take().expect("piped");
        let switch = disk.switch();
        // A start that needs fewer operations is cut when it is done.
        let announced = std::thread::spawn(move || {
            let mut line = String::new();
            let _ = BufReader::new(stdout).read_line(&mut line);
            switch();
        });
        assert!(disk.wait_until_off(PATIENCE), "a start ends in time");
        child.kill().expect("it is killed");
        disk.let_the_dead_go();
        child.wait().expect("it ends");
        announced.join().expect("no panic");
        tally.cuts_in_starts += 1;
        let share = share(random);
        tally.come_back(disk, share, random);
    }
}

/// Syncs that do nothing: the same check has to see the loss.
fn control(stage: &Stage) -> Result<String, Skipped> {
    let mut random = stage.random(0);
    let mut disk = Disk::mount().map_err(Skipped)?;
    let mut run = Run::on(disk.data(), random.random());
    let server = run.start();
    disk.set_syncs(Syncs::Ignored);
    let load = run.load(&server);
    load.wait(100);
    server.kill();
    run.take(load);
    disk.come_back(0.0, &mut random);
    disk.set_syncs(Syncs::Done);
    let acknowledged = run.acknowledged();
    let server = run.start();
    let lost = run.losses(&server).len();
    server.terminate();
    assert!(
        lost as u64 >= 100,
        "control: {acknowledged} acknowledged without a sync, and only {lost} things are wrong"
    );
    Ok(format!("syncs switched off: {acknowledged} acknowledged, {lost} things found wrong"))
}
