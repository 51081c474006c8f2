//! SIGTERM at random instants under load: the server ends well and in time, and what it acknowledged is there.

use std::time::Duration;

use rand::Rng;

use crate::kills::Run;
use crate::server::{copy, spin};
use crate::table::{Seen, Skipped, Stage};

/// The promise of a clean stop (P11).
const STOP_MAX: Duration = Duration::from_secs(10);

pub(crate) fn run(stage: &Stage) -> Result<Seen, Skipped> {
    let stops = stage.scale(3, 50);
    let mut random = stage.random(1);
    let mut run = Run::new(random.random());
    let mut server = run.start();
    let mut longest = Duration::ZERO;
    for round in 1..=stops {
        let load = run.load(&server);
        spin(Duration::from_micros(random.random_range(0..20_000)));
        let (status, took) = server.terminate();
        run.take(load);
        assert_eq!(status.code(), Some(0), "stop {round}");
        assert!(took < STOP_MAX, "stop {round} took {took:?}");
        longest = longest.max(took);
        server = run.start();
        run.check(&server, round % 10 == 0 || round == stops);
        stage.show(round, stops, "stops");
    }
    let (acknowledged, control) = (run.acknowledged(), control(&mut run, server));
    Ok(Seen {
        count: format!("{stops} stops"),
        observed: format!("exit code 0 each, the longest took {} ms; {acknowledged} acknowledged", longest.as_millis()),
        control,
    })
}

/// The directory as it was before the last load.
fn control(run: &mut Run, server: crate::server::Server) -> String {
    server.terminate();
    let older = tempfile::tempdir().expect("a temporary directory");
    copy(&run.data(), older.path());
    let server = run.start();
    let before = run.acknowledged();
    let load = run.load(&server);
    load.wait(50);
    server.terminate();
    run.take(load);
    let acknowledged = run.acknowledged() - before;
    std::fs::remove_dir_all(run.data()).expect("it is there");
    copy(older.path(), &run.data());
    let server = run.start();
    let lost = run.losses(&server).len();
    server.terminate();
    assert!(lost >= 50, "control: {acknowledged} acknowledged, and {lost} things are wrong");
    format!("an older copy put back: {acknowledged} acknowledged, {lost} things found wrong")
}
