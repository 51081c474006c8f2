//! `bench`, short: that it measures what it says, beside the raw limit, and takes everything away. No times are held.

use std::path::Path;
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::program::{Outcome, Server, finish, program, run};

/// Every kind of load, and the one command over all of them.
pub(crate) const BENCHES: &[&str] = &["fanout", "create", "send", "latency", "flood", "idle", "targets"];

fn positive(value: &Value) -> bool {
    value.as_f64().is_some_and(|value| value > 0.0 && value.is_finite())
}

/// Runs a bench in a directory of its own, which has to be empty afterwards.
fn bench(arguments: &str) -> Value {
    let directory = tempfile::tempdir().expect("a directory");
    let place = directory.path().to_str().expect("a plain path");
    let mut words: Vec<&str> = vec!["bench"];
    words.extend(arguments.split_whitespace());
    words.extend(["--directory", place, "--json"]);
    let outcome = run(&words);
    assert!(is_empty(directory.path()), "it left something behind: {outcome:?}");
    outcome.object()
}

fn is_empty(directory: &Path) -> bool {
    std::fs::read_dir(directory).expect("a directory").next().is_none()
}

/// The figures that every load has, by the name of what it counts.
fn check_shape(object: &Value, one: &str, many: &str) {
    let names = [
        format!("{many}_per_second"),
        format!("server_cpu_us_per_{one}"),
        format!("raw_cpu_us_per_{one}"),
        format!("{many}_per_server_cpu_second"),
        "ratio_to_raw".to_owned(),
    ];
    for name in &names {
        assert!(positive(&object[name]), "{name} in {object}");
    }
    for quantile in ["p50", "p99", "p99_9"] {
        assert!(positive(&object["latency_us"][quantile]), "{quantile} in {object}");
        assert!(positive(&object["raw"]["latency_us"][quantile]), "{quantile} of raw in {object}");
    }
    assert!(object["latency_us"]["p99"].as_f64() >= object["latency_us"]["p50"].as_f64(), "{object}");
    for quantile in ["p50", "p99", "p99_9"] {
        let (figure, range) = (object["latency_us"][quantile].as_f64(), &object["spread"]["latency_us"][quantile]);
        assert!(range[0].as_f64() <= figure && figure <= range[1].as_f64(), "{quantile}: {figure:?} within {range}");
    }
    for name in [&names[0], &names[1], &names[2], &names[4]] {
        let (spread, median) = (&object["spread"][name], object[name].as_f64().expect("a figure"));
        let (lowest, highest) = (spread[0].as_f64().expect("a figure"), spread[1].as_f64().expect("a figure"));
        assert!(lowest <= median && median <= highest, "{name}: {median} within {spread}");
    }
    for ratio in ["rate", "cpu", "per_cpu_second", "p50", "p99"] {
        assert!(positive(&object["ratios_to_raw"][ratio]), "{ratio} in {object}");
    }
}

#[test]
fn fan_out_is_measured_beside_the_raw_limit() {
    for arguments in ["--window 4", "--window 1", "--window 8 --stored"] {
        let object = bench(&format!("fanout --members 7 --seconds 0.05 --rounds 2 {arguments}"));
        check_shape(&object, "delivery", "deliveries");
        assert_eq!((&object["bench"], &object["members"]), (&"fanout".into(), &7.into()));
        assert_eq!(object["stored"], arguments.contains("--stored"));
    }
}

#[test]
fn creates_are_measured_beside_the_raw_limit() {
    let online = bench("create --members 5 --count 10 --rounds 2");
    check_shape(&online, "create", "creates");
    let offline = bench("create --offline --clients 3 --count 60 --rounds 2");
    check_shape(&offline, "create", "creates");
    assert_eq!((&online["members"], &offline["members"]), (&5.into(), &8.into()));
    assert_eq!((&online["clients"], &offline["clients"]), (&1.into(), &3.into()));
}

#[test]
fn sends_are_measured_beside_the_raw_limit() {
    check_shape(&bench("send --senders 1 --seconds 0.05 --rounds 1"), "message", "messages");
    check_shape(&bench("send --senders 4 --bytes 9 --seconds 0.05 --rounds 1"), "message", "messages");
}

#[test]
fn latency_is_measured_at_the_rate_that_was_asked_for() {
    for stored in ["", "--stored"] {
        let object = bench(&format!("latency --members 3 --groups 2 --rate 600 --seconds 0.2 --rounds 1 {stored}"));
        check_shape(&object, "delivery", "deliveries");
        let rate = object["deliveries_per_second"].as_f64().expect("a figure");
        // Never faster: that is what an open loop is. Slower than asked, on a busy machine.
        assert!(rate <= 600.0 * 1.2, "{object}");
    }
}

#[test]
fn small_groups_are_measured_with_and_without_a_flood() {
    let sizes = "--large 20 --window 4 --groups 2 --members 3";
    for stored in ["", "--stored"] {
        let object = bench(&format!("flood {sizes} --rate 600 --seconds 0.1 --rounds 2 {stored}"));
        assert_eq!((&object["large"], &object["stored"]), (&20.into(), &(!stored.is_empty()).into()));
        for turn in ["quiet", "flooded", "raw_flood"] {
            for quantile in ["p50", "p99", "p99_9"] {
                assert!(positive(&object[turn]["latency_us"][quantile]), "{turn} {quantile} in {object}");
            }
        }
        for turn in ["flooded", "raw_flood"] {
            assert!(positive(&object[turn]["flood_deliveries_per_second"]), "{object}");
            for quantile in ["p50", "p99", "p99_9"] {
                assert!(positive(&object[turn]["ratios_to_quiet"][quantile]), "{turn} {quantile} in {object}");
            }
        }
        for name in ["ratio_to_quiet", "p99_to_raw_flood"] {
            let (figure, range) = (object[name].as_f64(), &object["spread"][name]);
            assert!(range[0].as_f64() <= figure && figure <= range[1].as_f64(), "{name}: {figure:?} within {range}");
        }
    }
}

#[test]
fn idle_connections_are_measured_beside_the_raw_limit() {
    let object = bench("idle --connections 300 --heartbeat 1 --seconds 0.5");
    for name in ["memory_bytes_per_connection", "cpu_percent", "raw_cpu_percent", "ratio_to_raw"] {
        assert!(positive(&object[name]), "{name} in {object}");
    }
}

#[test]
fn a_peer_that_is_missing_is_named_and_the_others_go_on() {
    let arguments = ["fanout", "--members", "2", "--seconds", "0.05", "--rounds", "1", "--peer", "redis"];
    let with = |more: &[&str]| {
        let mut command = program(&["bench"]);
        command.args(arguments).args(["--peer", "nats", "--peer", "mosquitto"]).args(more).env("PATH", "");
        finish(command)
    };
    let object = with(&["--json"]).object();
    for name in ["redis", "nats", "mosquitto"] {
        assert_eq!(object["peers"][name], "missing", "{object}");
    }
    check_shape(&object, "delivery", "deliveries");
    let told = with(&[]);
    for package in ["redis-server", "nats-server", "mosquitto"] {
        assert!(told.stdout.contains(&format!("apt install {package}")), "{told:?}");
    }
}

#[test]
fn what_a_peer_does_not_do_is_not_compared() {
    let object = bench("send --senders 1 --seconds 0.05 --rounds 1 --peer nats");
    assert_eq!(object["peers"]["nats"], "not_comparable");
    let object = bench("fanout --members 2 --seconds 0.05 --rounds 1 --peer raw-thread");
    assert_eq!(object["peers"]["raw-thread"], "not_comparable");
}

#[test]
fn the_raw_limit_may_sync_on_a_thread_of_its_own() {
    for load in
        ["send --senders 4", "fanout --members 7 --window 8 --stored", "latency --members 3 --groups 2 --stored"]
    {
        let object = bench(&format!("{load} --seconds 0.05 --rounds 2 --peer raw-thread"));
        for name in ["rate", "p50"] {
            assert!(positive(&object["peers"]["raw-thread"]["ratios"][name]), "{name} in {object}");
        }
    }
}

#[test]
fn all_targets_are_in_one_table_whoever_is_missing() {
    let mut command = program(&["bench", "targets", "--seconds", "0.02", "--rounds", "1", "--json"]);
    command.args(["--connections", "50", "--members-max", "10"]).env("PATH", "");
    let object = finish(command).object();
    let rows = object["targets"].as_array().expect("rows");
    for what in
        ["signals to 10", "stored messages to 10", "one signal at a time", "flooded", "create until", "idle", "p99"]
    {
        assert!(rows.iter().any(|row| row["what"].as_str().is_some_and(|text| text.contains(what))), "{what}");
    }
    for row in rows {
        let (against_peer, reached) = (row["what"].as_str().expect("text").contains("against redis"), &row["reached"]);
        let named = row["what"].as_str().expect("text").contains("against nats");
        assert_eq!(reached.is_null(), against_peer || named, "{row}");
        assert_eq!(row["holds"].is_null(), reached.is_null() || row["target"] == "Redis'", "{row}");
    }
    assert_eq!(object["peers"]["redis"], "missing");
}

#[test]
fn a_server_that_runs_is_measured_and_its_cpu_if_its_process_is_named() {
    let server = Server::start();
    let bench = |more: &[&str]| {
        let mut command = server.command(&["bench", "fanout", "--members", "3", "--seconds", "0.05", "--rounds", "1"]);
        command.args(["--json", "--server", &server.address]).args(more);
        finish(command)
    };
    let object = bench(&[]).object();
    assert!(positive(&object["deliveries_per_second"]) && positive(&object["raw_cpu_us_per_delivery"]), "{object}");
    assert!(object["server_cpu_us_per_delivery"].is_null() && object["ratio_to_raw"].is_null(), "{object}");
    check_shape(&bench(&["--server-pid", &server.process().to_string()]).object(), "delivery", "deliveries");

    let refused = bench(&["--data", "/proc/nothing"]);
    assert_eq!((refused.code, refused.stderr.contains("--data")), (2, true), "{refused:?}");
    assert_eq!(server.run(&["ping"]).code, 0, "it is not killed at the end");
}

#[test]
fn a_turn_ends_when_nothing_is_left_to_do_behind_its_answers() {
    let server = Server::start();
    let create = ["bench", "create", "--offline", "--clients", "3", "--count", "60", "--rounds", "1", "--json"];
    let mut command = server.command(&create);
    command.args(["--server", &server.address]);
    assert_eq!(finish(command).code, 0);
    let stats = server.run(&["stats", "--json"]).object();
    assert_eq!((&stats["index_backlog_bytes"], &stats["index_dirty_bytes"]), (&0.into(), &0.into()), "{stats}");
}

#[test]
fn wrong_use_is_refused_before_anything_is_started() {
    let refused = |arguments: &[&str]| run(&[&["bench"], arguments].concat());
    let code = |outcome: &Outcome| (outcome.code, outcome.stderr.lines().count());
    for arguments in [
        &["fanout", "--members", "0"][..],
        &["fanout", "--seconds", "0"],
        &["fanout", "--peer", "kafka"],
        &["fanout", "--server-pid", "1"],
        &["create", "--clients", "2"],
        &["create", "--count", "5000"],
        &["latency", "--rate", "0"],
        &["flood", "--large", "10000"],
        &["flood", "--groups", "10000", "--members", "9999"],
        &["flood", "--window", "0"],
        &["flood", "--peer", "redis"],
        &["idle", "--connections", "1000000"],
        &["nothing"],
    ] {
        let outcome = refused(arguments);
        assert_eq!(code(&outcome), (2, 1), "{arguments:?}: {outcome:?}");
    }
}

#[test]
fn every_bench_has_help_that_says_what_is_measured() {
    for bench in BENCHES {
        let help = run(&["bench", bench, "--help"]);
        assert_eq!(help.code, 0, "{help:?}");
        assert!(help.stdout.contains(&format!("roundtable bench {bench}")), "an example: {help:?}");
    }
    let listed = run(&["bench", "--help"]).stdout;
    for process in ["raw", "flooder"] {
        assert!(!listed.contains(&format!("\n  {process} ")), "a process of its own, not a command");
    }
}

#[test]
fn an_interrupt_takes_every_process_and_the_directory_away() {
    let directory = tempfile::tempdir().expect("a directory");
    let place = directory.path().to_str().expect("a plain path");
    let arguments = ["bench", "fanout", "--members", "3", "--seconds", "600", "--directory", place];
    let mut child = program(&arguments).spawn().expect("it runs");
    let deadline = Instant::now() + Duration::from_secs(60);
    // The server's command line names the directory, and so does its journal once it runs.
    while processes_of(place, child.id()).is_empty() {
        assert!(Instant::now() < deadline, "no server was started");
        std::thread::yield_now();
    }
    let own = rustix::process::Pid::from_child(&child);
    rustix::process::kill_process(own, rustix::process::Signal::INT).expect("it is there");
    assert_eq!(child.wait().expect("it ends").code(), Some(130));
    assert!(processes_of(place, child.id()).is_empty(), "a process was left behind");
    assert!(is_empty(directory.path()), "the directory was left behind");
}

#[test]
fn an_interrupt_of_a_flood_takes_all_its_processes_away() {
    let directory = tempfile::tempdir().expect("a directory");
    let place = directory.path().to_str().expect("a plain path");
    let arguments = ["bench", "flood", "--large", "5", "--groups", "2", "--seconds", "600", "--directory", place];
    let mut child = program(&arguments).spawn().expect("it runs");
    let deadline = Instant::now() + Duration::from_secs(60);
    // The server, the raw limit, and a flood of each.
    let mut processes = Vec::new();
    while processes.len() < 4 {
        assert!(Instant::now() < deadline, "not all were started: {processes:?}");
        std::thread::yield_now();
        processes = children_of(child.id());
    }
    let own = rustix::process::Pid::from_child(&child);
    rustix::process::kill_process(own, rustix::process::Signal::INT).expect("it is there");
    assert_eq!(child.wait().expect("it ends").code(), Some(130));
    let left: Vec<_> = processes.iter().filter(|process| Path::new(&format!("/proc/{process}")).exists()).collect();
    assert!(left.is_empty(), "left behind: {left:?}");
    assert!(is_empty(directory.path()), "the directory was left behind");
}

/// Processes that one has started.
fn children_of(process: u32) -> Vec<u32> {
    let threads = std::fs::read_dir(format!("/proc/{process}/task")).into_iter().flatten().flatten();
    let children = threads.filter_map(|thread| std::fs::read_to_string(thread.path().join("children")).ok());
    children.flat_map(|text| text.split_whitespace().filter_map(|id| id.parse().ok()).collect::<Vec<u32>>()).collect()
}

/// Processes other than the bench itself whose command line has this text.
fn processes_of(text: &str, bench: u32) -> Vec<u32> {
    let processes = std::fs::read_dir("/proc").expect("it is there").flatten();
    processes
        .filter_map(|entry| entry.file_name().to_str()?.parse().ok())
        .filter(|process| *process != bench)
        .filter(|process| {
            let line = std::fs::read(format!("/proc/{process}/cmdline")).unwrap_or_default();
            String::from_utf8_lossy(&line).contains(text)
        })
        .collect()
}
