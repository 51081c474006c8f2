//! Syncs that take long: whoever waits for one waits alone.
//!
//! The normal run holds a sync until it has seen enough: while it is under way pings and reads are answered, and the
//! change that it is to make durable is not acknowledged; afterwards it is. No time is looked at. The run of a milestone
//! lets each sync take 2 s under load, and measures pings.

use std::sync::mpsc::{TryRecvError, channel};
use std::time::{Duration, Instant};

use rand::Rng;

use crate::disk::{Disk, Syncs};
use crate::kills::Run;
use crate::ledger::user;
use crate::peer::Peer;
use crate::server::{PATIENCE, Server};
use crate::table::{Seen, Skipped, Stage};

/// Pings while one sync is held.
const PINGS: u64 = 50;
/// What a sync takes in the run of a milestone, and for how long pings are measured.
const SLOW: Duration = Duration::from_secs(2);
const MEASURED: Duration = Duration::from_secs(60);
/// What promises.md says of pings beside such syncs.
const PING_P99_MAX: Duration = Duration::from_millis(50);
/// A stopped process answers nothing, however long one waits.
const A_WHILE: Duration = Duration::from_millis(200);

pub(crate) fn run(stage: &Stage) -> Result<Seen, Skipped> {
    let rounds = stage.scale(3, 20);
    let mut held = 0;
    for round in 1..=rounds {
        held_sync()?;
        held += 1;
        stage.show(round, rounds, "syncs held");
    }
    let measured = if stage.is_milestone { measure(stage)? } else { String::new() };
    Ok(Seen {
        count: format!("{held} held"),
        observed: format!("{PINGS} pings and a read each answered meanwhile, the change only afterwards{measured}"),
        control: control()?,
    })
}

/// One sync that is held.
fn held_sync() -> Result<(), Skipped> {
    let disk = Disk::mount().map_err(Skipped)?;
    let run = Run::on(disk.data(), 0);
    let server = Server::start(&run.data());
    let _releasing = disk.releasing();
    let mut alice = server.connect(&user("alice"), "writer").expect("it takes a client");
    let group = alice.create("slow", &[user("bob")]).expect("made").group;
    let other = alice.create("other", &[user("bob")]).expect("made").group;
    let mut bob = server.connect(&user("bob"), "reader").expect("it takes a client");
    let mut peer = Peer::enter(&server, &user("bob"), 30);

    disk.set_syncs(Syncs::Held);
    let (sender, answered) = channel();
    let writer = std::thread::spawn(move || {
        let sent = alice.send(group, "slowly");
        let _ = sender.send(sent.map(|changed| changed.seq));
    });
    assert!(disk.wait_for_held_sync(PATIENCE), "what is sent is synced");
    for number in 0..PINGS {
        assert!(peer.pings(PATIENCE), "ping {number} beside a sync");
    }
    // A read of the same group would wait for the change before it.
    assert_eq!(bob.history(other, 1, 0).expect("reads go on").head, 1);
    assert!(disk.has_held_sync(), "all that was beside it");
    assert!(matches!(answered.try_recv(), Err(TryRecvError::Empty)), "acknowledged before it was durable");
    disk.let_syncs_go();
    let seq = answered.recv_timeout(PATIENCE).expect("it is answered").expect("it is done");
    assert_eq!(seq, 2);
    writer.join().expect("no panic");
    let (status, _) = server.terminate();
    assert_eq!(status.code(), Some(0));
    Ok(())
}

/// Pings while each sync takes 2 s and clients are at work.
fn measure(stage: &Stage) -> Result<String, Skipped> {
    let disk = Disk::mount().map_err(Skipped)?;
    let mut run = Run::on(disk.data(), stage.random(1).random());
    let server = run.start();
    let _releasing = disk.releasing();
    let load = run.load(&server);
    let mut peer = Peer::enter(&server, &user("pinging"), 30);
    disk.set_syncs(Syncs::Slow(SLOW));
    let (from, mut times) = (Instant::now(), Vec::new());
    while from.elapsed() < MEASURED {
        let asked = Instant::now();
        assert!(peer.pings(PATIENCE), "a ping beside slow syncs");
        times.push(asked.elapsed());
    }
    load.wait(8);
    disk.set_syncs(Syncs::Done);
    server.kill();
    run.take(load);
    let server = run.start();
    run.check(&server, true);
    server.kill();
    times.sort_unstable();
    let p99 = times[times.len() * 99 / 100];
    assert!(p99 <= PING_P99_MAX, "p99 of {} pings beside syncs of 2 s: {p99:?}", times.len());
    Ok(format!("; syncs of 2 s under load: p99 of {} pings {:.1} ms", times.len(), p99.as_secs_f64() * 1e3))
}

/// A disk that answers at once and does nothing is not waited for, and a loop that stands still answers no ping.
fn control() -> Result<String, Skipped> {
    let disk = Disk::mount().map_err(Skipped)?;
    let run = Run::on(disk.data(), 0);
    let server = Server::start(&run.data());
    let mut alice = server.connect(&user("alice"), "writer").expect("it takes a client");
    let group = alice.create("quick", &[]).expect("made").group;
    disk.set_syncs(Syncs::Ignored);
    alice.send(group, "quickly").expect("acknowledged without being durable");
    let mut peer = Peer::enter(&server, &user("bob"), 30);
    server.signal(rustix::process::Signal::STOP);
    let answered = peer.pings(A_WHILE);
    server.signal(rustix::process::Signal::CONT);
    assert!(!answered, "control: a process that stands still answers");
    server.kill();
    Ok("syncs switched off: acknowledged at once; a stopped process: no ping answered".to_owned())
}
