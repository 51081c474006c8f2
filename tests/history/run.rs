//! A run: clients and nemesis against the real program, then the last reads, then the checker.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::{Duration, Instant};

use rand::rngs::StdRng;
use rand::{Rng as _, SeedableRng as _};

use super::checker::{Verdict, check};
use super::clients::Clients;
use super::device::{Device, Manner};
use super::disk::Disk;
use super::format::{Begin, Line, What};
use super::nemesis::{self, Field, Whistle};
use super::proxy::Proxy;
use super::read_back::Reader;
use super::recorder::{Recorder, read};
use super::server::{Server, Site};
use super::tally::{Counts, Tally, count};
use super::wishes::{Board, KEEPER};

/// Newest entries of a group that the server keeps: few, so that floors pass those who are away.
const RETENTION_ENTRIES: u64 = 300;
/// Of the operations of a user (`docs/protocol.md`).
const OPERATIONS_REMEMBERED: u64 = 1_024;
const DISK_MIB: u64 = 160;
/// How long everything may take to come to rest.
const REST: Duration = Duration::from_secs(60);
/// A user that is not the keeper reads so many of the newest entries of each group back.
const NEWEST_READ_BACK: u64 = 30;

/// What a run is to be.
#[derive(Clone, Debug)]
pub(crate) struct Plan {
    pub(crate) seed: u64,
    pub(crate) time: Duration,
    pub(crate) clients: usize,
    /// Between two wishes of a client, on average.
    pub(crate) mean_pause: Duration,
    pub(crate) is_long: bool,
    pub(crate) has_nemesis: bool,
}

/// What came of it.
#[derive(Debug)]
pub(crate) struct Run {
    pub(crate) lines: Vec<Line>,
    pub(crate) faults: BTreeMap<&'static str, u64>,
}

fn number_from(variable: &str) -> Option<u64> {
    let text = std::env::var(variable).ok()?;
    Some(text.parse().unwrap_or_else(|_| panic!("{variable} is no number: {text}")))
}

pub(crate) fn seed() -> u64 {
    number_from("ROUNDTABLE_SEED").unwrap_or_else(|| StdRng::from_os_rng().random())
}

/// Users with one to three devices each, in the three manners; and the keeper.
fn devices(plan: &Plan, site: &Site) -> (Vec<Device>, Vec<String>) {
    let mut random = StdRng::seed_from_u64(plan.seed);
    let mut devices = vec![Device::new(KEEPER, "keeper", Manner::Keeps, site.token(KEEPER), plan.mean_pause)];
    let mut users = Vec::new();
    while devices.len() < plan.clients {
        let user = format!("user-{}", users.len());
        let token = site.token(&user);
        for _ in 0..random.random_range(1..=3).min(plan.clients - devices.len()) {
            let manner = match random.random_range(0..4) {
                0 | 1 => Manner::Keeps,
                2 => Manner::ByMarks,
                _ => Manner::Visits,
            };
            let name = format!("device-{}", devices.len());
            devices.push(Device::new(&user, &name, manner, token.clone(), plan.mean_pause));
        }
        users.push(user);
    }
    (devices, users)
}

/// Makes a history. `path` is where it is written.
pub(crate) fn run(plan: &Plan, path: &Path) -> Run {
    let disk = Disk::make(DISK_MIB);
    let log = path.with_extension("log");
    let site = Site::new(disk.path(), &log, RETENTION_ENTRIES);
    let recorder = Recorder::create(path);
    recorder.say(What::Begin(Begin {
        seed: plan.seed,
        retention_entries: RETENTION_ENTRIES,
        operations_remembered: OPERATIONS_REMEMBERED,
        disk_may_be_full: disk.is_small,
    }));
    let server = site.start();
    let (devices, users) = devices(plan, &site);
    let proxy = Proxy::start();
    proxy.lead_to(Some(server.address));
    let flood = Arc::new(AtomicBool::new(false));
    let board = Board::new(plan.seed, users.clone(), flood.clone());
    let mut clients = Clients::new(proxy.address, board, devices, recorder.clone());
    let (tally, whistle) = (Tally::default(), Whistle::default());
    let server = std::thread::scope(|scope| {
        let field = Field {
            site: &site,
            server: Some(server),
            proxy: &proxy,
            disk: &disk,
            recorder: &recorder,
            tally: &tally,
            whistle: &whistle,
            flood,
            random: StdRng::seed_from_u64(plan.seed ^ 1),
        };
        let all = if plan.has_nemesis { nemesis::all(&disk, plan.is_long) } else { Vec::new() };
        let plague = scope.spawn(move || nemesis::plague(field, all));
        let harass = scope.spawn(|| {
            if plan.has_nemesis {
                nemesis::harass(&proxy, &tally, &whistle, plan.seed ^ 2);
            }
        });
        work(&mut clients, plan, &recorder, &tally, || plague.is_finished());
        whistle.blow();
        while !plague.is_finished() || !harass.is_finished() {
            clients.turn();
        }
        plague.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    });
    recorder.say(What::Quiet);
    finish(&mut clients, &server, &site, &users, &recorder);
    recorder.say(What::Finish);
    recorder.flush();
    server.kill();
    Run { lines: read(path), faults: tally.faults() }
}

/// The clients work until the time is up; a line says how far they are. Stops early if the nemesis has failed.
fn work(clients: &mut Clients, plan: &Plan, recorder: &Recorder, tally: &Tally, over: impl Fn() -> bool) {
    let began = Instant::now();
    let mut told = began;
    while began.elapsed() < plan.time && !over() {
        clients.turn();
        if plan.is_long && told.elapsed() > Duration::from_secs(10) {
            told = Instant::now();
            let (groups, lines) = (clients.board.groups.len(), recorder.lines());
            println!("{:>4} s: {lines} lines, {groups} groups, faults {:?}", began.elapsed().as_secs(), tally.faults());
        }
    }
}

/// Everything comes to rest, all is read back, and everybody hears all there is.
fn finish(clients: &mut Clients, server: &Server, site: &Site, users: &[String], recorder: &Recorder) {
    clients.busy = false;
    turn_until(clients, "unanswered", Clients::are_settled);
    clients.say_all_again();
    turn_until(clients, "said again", Clients::are_settled);
    let known: BTreeMap<String, u64> =
        clients.board.groups.iter().map(|(group, sketch)| (group.clone(), sketch.head)).collect();
    let mut heads = BTreeMap::new();
    for user in users.iter().map(String::as_str).chain([KEEPER]) {
        let conn = clients.next_connection();
        let mut reader = Reader::connect(server.address, conn, user, site.token(user), recorder);
        let newest = (user != KEEPER).then_some(NEWEST_READ_BACK);
        heads.insert(user.to_owned(), reader.read_all(&known, newest));
    }
    turn_until(clients, "delivered", |clients| clients.have_all(&heads));
}

/// What is not so in time is left to the checker, which has the words for it.
fn turn_until(clients: &mut Clients, what: &str, is_so: impl Fn(&Clients) -> bool) {
    let began = Instant::now();
    while !is_so(clients) {
        if began.elapsed() > REST {
            println!("not {what} after {} s", REST.as_secs());
            return;
        }
        clients.turn();
    }
}

/// Where a history stays if there is something wrong with it.
fn keep(path: &Path, seed: u64) -> PathBuf {
    let kept = std::env::temp_dir().join(format!("roundtable-history-{seed}.jsonl"));
    std::fs::copy(path, &kept).expect("it is copied");
    kept
}

/// No anomaly, or a panic with the first of them and where the history is kept.
pub(crate) fn demand_none(verdict: &Verdict, path: &Path, seed: u64) {
    if verdict.anomalies.is_empty() {
        return;
    }
    let kinds: BTreeSet<_> = verdict.anomalies.iter().map(|anomaly| anomaly.promise).collect();
    let first = verdict.anomalies.iter().take(10).map(ToString::to_string).collect::<Vec<_>>();
    let first = first.join("\n  ");
    let kept = keep(path, seed);
    let count = verdict.anomalies.len();
    panic!("seed {seed}: {count} anomalies of {kinds:?}; the history is kept in {}\n  {first}", kept.display());
}

/// What has to come in a long run: otherwise it did not test what it says.
fn demand_all_kinds(counts: &Counts, faults: &BTreeMap<&'static str, u64>, verdict: &Verdict, disk_is_small: bool) {
    let mut missing = Vec::new();
    let changes = ["create", "add", "remove", "leave", "rename", "transfer", "dissolve", "send", "whisper"];
    for kind in changes {
        let calls = counts.calls.get(kind).copied().unwrap_or_default();
        for (what, count) in [("answered", calls.answered), ("repeated", calls.repeated), ("unknown", calls.unknown)] {
            if count == 0 {
                missing.push(format!("{kind} {what}"));
            }
        }
    }
    for kind in ["attach", "attach marks", "get", "list", "history"] {
        if counts.calls.get(kind).is_none_or(|calls| calls.answered == 0) {
            missing.push(kind.to_owned());
        }
    }
    let mut wanted = vec!["kill", "kill while starting", "stop", "cut", "reset", "stall"];
    let mut codes = vec!["NOT_FOUND", "FORBIDDEN", "NOT_A_MEMBER", "ID_REUSED", "TRUNCATED (page)", "NOT_FOUND (page)"];
    if disk_is_small {
        wanted.extend(["full", "full to the last byte", "kill on a full disk"]);
        codes.push("STORAGE_FULL");
    }
    missing.extend(wanted.iter().filter(|name| !faults.contains_key(*name)).map(|name| format!("fault: {name}")));
    missing.extend(
        codes.iter().filter(|code| !counts.refusals.contains_key(**code)).map(|code| format!("refused: {code}")),
    );
    for kind in ["entry", "packet", "behind", "gone", "ready"] {
        if !counts.pushes.contains_key(kind) {
            missing.push(format!("push: {kind}"));
        }
    }
    for kind in ["said again", "said again with other content", "effects without an answer", "entries read back"] {
        if !verdict.checked.contains_key(kind) {
            missing.push(format!("checked: {kind}"));
        }
    }
    assert!(missing.is_empty(), "never happened: {missing:?}");
}

#[test]
fn what_clients_saw_under_a_nemesis_can_be_true() {
    let minutes = number_from("ROUNDTABLE_MINUTES");
    let clients = number_from("ROUNDTABLE_CLIENTS")
        .map_or(if minutes.is_some() { 50 } else { 8 }, |count| usize::try_from(count).expect("few"));
    let plan = Plan {
        seed: seed(),
        time: minutes.map_or(Duration::from_secs(10), |minutes| Duration::from_secs(60 * minutes)),
        clients,
        mean_pause: Duration::from_millis(if minutes.is_some() { 120 } else { 30 }),
        is_long: minutes.is_some(),
        has_nemesis: true,
    };
    let directory = tempfile::tempdir().expect("a temporary directory");
    let path = directory.path().join("history.jsonl");
    println!("history: seed {}, {} clients", plan.seed, plan.clients);
    let Run { lines, faults } = run(&plan, &path);
    let began = Instant::now();
    let verdict = check(&lines);
    let took = began.elapsed();
    let counts = count(&lines);
    let bytes = std::fs::metadata(&path).map_or(0, |metadata| metadata.len());
    println!("history: {} s, {} clients, {} lines, {} MiB", plan.time.as_secs(), clients, lines.len(), bytes >> 20);
    println!("  faults: {faults:?}\n{}  checked in {took:?}: {:?}", counts.summary(), verdict.checked);
    println!("  anomalies: {}; seed {}", verdict.anomalies.len(), plan.seed);
    demand_none(&verdict, &path, plan.seed);
    assert!(faults.contains_key("kill") && faults.contains_key("cut"), "there were faults: {faults:?}");
    if plan.is_long {
        let Some(What::Begin(begin)) = lines.first().map(|line| &line.what) else { panic!("it begins") };
        demand_all_kinds(&counts, &faults, &verdict, begin.disk_may_be_full);
    }
}

#[test]
#[ignore = "checks the file that ROUNDTABLE_HISTORY names"]
fn a_history_that_was_kept_is_consistent() {
    let path = PathBuf::from(std::env::var("ROUNDTABLE_HISTORY").expect("ROUNDTABLE_HISTORY names a file"));
    let lines = read(&path);
    let verdict = check(&lines);
    println!("{}  checked: {:?}", count(&lines).summary(), verdict.checked);
    for anomaly in verdict.anomalies.iter().take(40) {
        println!("  {anomaly}");
    }
    assert!(verdict.anomalies.is_empty(), "{} anomalies", verdict.anomalies.len());
}
