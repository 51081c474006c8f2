//! A process that is stopped for a while (SIGSTOP, a virtual machine that is moved, a laptop that sleeps) and goes on:
//! nobody is thrown out for what only the server did not hear, and nothing is lost.
//!
//! Peers go on with their heartbeats while it stands still. What they said waits in their sockets, and is heard before
//! anybody is found to have been silent.

use std::time::{Duration, Instant};

use rand::Rng;
use roundtable::ids::UserId;
use roundtable::wire::Request;

use crate::kills::Run;
use crate::ledger::user;
use crate::peer::Peer;
use crate::server::PATIENCE;
use crate::table::{Seen, Skipped, Stage};

/// The shortest heartbeat that is granted: after 37.5 s of silence a peer is gone.
const HEARTBEAT_S: u16 = 15;
/// How often peers say that they live while the server does not hear them.
const BEAT: Duration = Duration::from_secs(5);

pub(crate) fn run(stage: &Stage) -> Result<Seen, Skipped> {
    let stop = Duration::from_millis(stage.scale(1_500, 60_000));
    let peers = stage.scale(50, 500);
    let mut random = stage.random(1);
    let mut run = Run::new(random.random());
    let server = run.start();
    let named = |number: u64| -> UserId { user(&format!("peer-{number}")) };
    let mut crowd: Vec<Peer> = (0..peers).map(|number| Peer::enter(&server, &named(number), HEARTBEAT_S)).collect();
    for peer in &mut crowd {
        assert!(peer.pings(PATIENCE));
    }
    let mut group = server.connect(&user("writer"), "writer").expect("it takes a client");
    let written = group.create("before", &[]).expect("made").group;

    let load = run.load(&server);
    server.signal(rustix::process::Signal::STOP);
    let from = Instant::now();
    while from.elapsed() < stop {
        for peer in &mut crowd {
            peer.ask(&Request::Ping);
        }
        let left = stop.saturating_sub(from.elapsed());
        // The fault itself: for so long nothing is heard.
        std::thread::sleep(left.min(BEAT));
        stage.show(from.elapsed().as_secs(), stop.as_secs(), "s stopped");
    }
    server.signal(rustix::process::Signal::CONT);
    let alive = count_alive(&mut crowd);
    assert_eq!(alive, peers, "nobody is thrown out for what the server did not hear");
    assert_eq!(group.send(written, "after").expect("the same connection goes on").seq, 2);
    // Its clients wait up to 30 s for an answer: those of a long stop have given up, and nothing else.
    if !stage.is_milestone {
        load.wait(20);
    }
    // One that is gone is seen to be gone.
    crowd[0].socket.shutdown(std::net::Shutdown::Both).expect("it was connected");
    let without_one = count_alive(&mut crowd);
    assert_eq!(without_one, peers - 1, "control: a connection that is gone counts as there");
    server.kill();
    run.take(load);
    let server = run.start();
    // Only looked at: in a long run users have asked for more than the server remembers of them.
    let lost = run.losses(&server);
    assert!(lost.is_empty(), "{lost:?}");
    server.terminate();
    Ok(Seen {
        count: format!("1 stop of {:.1} s", stop.as_secs_f64()),
        observed: format!("{alive} of {peers} peers still there; {} acknowledged", run.acknowledged()),
        control: format!("one connection cut: {without_one} of {peers} counted"),
    })
}

fn count_alive(crowd: &mut [Peer]) -> u64 {
    crowd.iter_mut().map(|peer| u64::from(peer.pings(PATIENCE))).sum()
}
