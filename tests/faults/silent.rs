//! Peers that hold a connection and say nothing, or nothing whole: each is told `TIMEOUT` and closed in its time.
//!
//! The normal run has those that are not authenticated, whose time is 5 s; the run of a milestone those too whose time is
//! longer, and looks at the times. An honest peer beside them is never closed.

use std::time::{Duration, Instant};

use roundtable::wire::{ErrorCode, Request};

use crate::kills::Run;
use crate::ledger::user;
use crate::peer::{Heard, Peer};
use crate::server::{PATIENCE, Server};
use crate::table::{Seen, Skipped, Stage};

/// Between two bytes of those who say one at a time.
const DRIP: Duration = Duration::from_secs(1);
/// Longer than anything takes; only a run that fails waits so long.
const AT_MOST: Duration = Duration::from_secs(200);
/// What the machine may add to a time.
const SLACK: Duration = Duration::from_secs(5);

/// A way to say nothing.
#[derive(Clone, Copy, Debug)]
struct Silence {
    name: &'static str,
    /// The heartbeat of one that is authenticated.
    heartbeat_s: Option<u16>,
    /// Bytes of a request that are said at once.
    first: usize,
    /// Whether the rest comes byte by byte.
    drips: bool,
    /// The time after which it is closed.
    limit: Duration,
}

const fn seconds(milliseconds: u64) -> Duration {
    Duration::from_millis(milliseconds)
}

const SHORT: [Silence; 4] = [
    Silence { name: "no hello", heartbeat_s: None, first: 0, drips: false, limit: seconds(5_000) },
    Silence { name: "half a header", heartbeat_s: None, first: 12, drips: false, limit: seconds(5_000) },
    Silence { name: "a header alone", heartbeat_s: None, first: 24, drips: false, limit: seconds(5_000) },
    Silence { name: "a byte a second", heartbeat_s: None, first: 1, drips: true, limit: seconds(5_000) },
];

const LONG: [Silence; 4] = [
    Silence {
        name: "a header alone, entered",
        heartbeat_s: Some(300),
        first: 24,
        drips: false,
        limit: seconds(30_000),
    },
    Silence { name: "a byte a second, entered", heartbeat_s: Some(300), first: 1, drips: true, limit: seconds(30_000) },
    Silence { name: "silent, heartbeat 15 s", heartbeat_s: Some(15), first: 0, drips: false, limit: seconds(37_500) },
    Silence { name: "silent, heartbeat 30 s", heartbeat_s: Some(30), first: 0, drips: false, limit: seconds(75_000) },
];

pub(crate) fn run(stage: &Stage) -> Result<Seen, Skipped> {
    let each = stage.scale(5, 50);
    let run = Run::new(stage.seed);
    let server = Server::start(&run.data());
    let mut kinds = SHORT.to_vec();
    if stage.is_milestone {
        kinds.extend(LONG);
    }
    // It pings between the ends of the others, which are up to 38 s apart.
    let mut honest = Peer::enter(&server, &user("honest"), 60);
    let took = std::thread::scope(|scope| {
        let server = &server;
        let start = |kind: &Silence, number: u64| {
            let kind = *kind;
            scope.spawn(move || (kind, kind.suffer(server, number)))
        };
        let all: Vec<_> = kinds.iter().flat_map(|kind| (0..each).map(move |number| start(kind, number))).collect();
        let count = all.len() as u64;
        let wait = |(place, one): (u64, std::thread::ScopedJoinHandle<'_, (Silence, Duration)>)| {
            // Beside all of them one that behaves.
            assert!(honest.pings(PATIENCE), "an honest peer is closed");
            let done = one.join().expect("no panic");
            stage.show(place, count, done.0.name);
            done
        };
        (1..).zip(all).map(wait).collect::<Vec<_>>()
    });
    assert!(honest.pings(PATIENCE), "control: an honest peer is closed");
    let mut longest = String::new();
    for kind in &kinds {
        let times = took.iter().filter(|(of, _)| of.name == kind.name).map(|(_, time)| *time);
        let (least, most) =
            times.fold((AT_MOST, Duration::ZERO), |(least, most), time| (least.min(time), most.max(time)));
        assert!(least + Duration::from_millis(100) >= kind.limit, "{}: closed after {least:?}", kind.name);
        assert!(!stage.is_milestone || most <= kind.limit + SLACK, "{}: closed after {most:?}", kind.name);
        longest =
            format!("{longest}{}{} {:.1} s", if longest.is_empty() { "" } else { ", " }, kind.name, most.as_secs_f64());
    }
    let (status, _) = server.terminate();
    assert_eq!(status.code(), Some(0));
    Ok(Seen {
        count: format!("{} kinds, {each} each", kinds.len()),
        observed: format!("all told TIMEOUT and closed; at the latest: {longest}"),
        control: "a peer that pings, beside them: not closed".to_owned(),
    })
}

impl Silence {
    /// Says so little, and gives how long it was until it was closed for that.
    fn suffer(self, server: &Server, number: u64) -> Duration {
        let mut peer = match self.heartbeat_s {
            Some(heartbeat_s) => {
                let name = format!("{}-{number}", self.name.replace([' ', ','], "-"));
                Peer::enter(server, &user(&name), heartbeat_s)
            }
            None => Peer::connect(&server.address),
        };
        let mut frame = Vec::new();
        Request::Backup { path: "x".repeat(2_000) }.encode_frame(&mut frame, 1);
        let (first, rest) = frame.split_at(self.first);
        let from = Instant::now();
        peer.say(first);
        let mut rest = rest.iter();
        loop {
            let patience = if self.drips { DRIP } else { AT_MOST };
            match peer.hear(patience) {
                Heard::Nothing if self.drips => peer.say(std::slice::from_ref(rest.next().expect("there is more"))),
                heard => {
                    assert_eq!(
                        heard.code(),
                        Some(ErrorCode::Timeout),
                        "{self:?}: {heard:?} after {:?}",
                        from.elapsed()
                    );
                    break;
                }
            }
        }
        assert_eq!(peer.hear(PATIENCE), Heard::Closed, "{self:?}");
        from.elapsed()
    }
}
