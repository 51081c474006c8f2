//! What a delivery costs and how long it takes, to more and more members, and beside more and more connections.

use std::path::Path;

use crate::figure::Picture;
use crate::groups::fill;
use crate::load::{Found, bench};
use crate::server::Server;
use crate::{ROUNDS, say};

/// Groups on the disk meanwhile.
const GROUPS: u32 = 10_000;
const MEMBERS: [u32; 4] = [10, 100, 1_000, 9_999];
/// All in groups of 10.
const CONNECTIONS: [u32; 3] = [100, 1_000, 10_000];

/// Measures on a directory of its own; `show` gets the pictures.
pub(crate) fn measure(data: &Path, show: &mut dyn FnMut(&[&Picture])) {
    let server = Server::start(data);
    say(&format!("making {GROUPS} groups"));
    fill(&server, GROUPS);
    server.settle();
    show(&by_members(&server).each_ref());
    show(&by_connections(&server).each_ref());
    server.stop();
}

fn by_members(server: &Server) -> [Picture; 2] {
    let x_label = "members of the group, all on line";
    let mut cpu = cpu_picture("members", "CPU of the server for one delivery of a signal", x_label);
    cpu.y_is_logarithmic = true;
    let mut latency = latency_picture("members-latency", "Time of a delivery, one signal at a time", x_label);
    for members in MEMBERS {
        say(&format!("a group of {members}"));
        let load = |window: u32| {
            bench(server, &format!("fanout --members {members} --window {window} --seconds 1 --rounds {ROUNDS}"))
        };
        let (one, many) = (load(1), load(64));
        cpu.put("one at a time", members, one.cpu_us("server", "delivery"));
        cpu.put("one at a time, raw limit", members, one.cpu_us("raw", "delivery"));
        cpu.put("64 on their way", members, many.cpu_us("server", "delivery"));
        cpu.put("64 on their way, raw limit", members, many.cpu_us("raw", "delivery"));
        put_latency(&mut latency, members, &one);
    }
    [cpu, latency]
}

fn by_connections(server: &Server) -> [Picture; 2] {
    let x_label = "connections, in groups of 10";
    let mut cpu = cpu_picture("connections", "CPU of one delivery, 20,000 deliveries of signals a second", x_label);
    let mut latency =
        latency_picture("connections-latency", "Time of a delivery, 20,000 deliveries of signals a second", x_label);
    for connections in CONNECTIONS {
        say(&format!("{connections} connections"));
        let groups = connections / 10;
        let found = bench(
            server,
            &format!("latency --members 10 --groups {groups} --rate 20000 --seconds 1 --rounds {ROUNDS}"),
        );
        cpu.put("roundtable", connections, found.cpu_us("server", "delivery"));
        cpu.put("raw limit", connections, found.cpu_us("raw", "delivery"));
        put_latency(&mut latency, connections, &found);
    }
    [cpu, latency]
}

fn cpu_picture(name: &'static str, title: &'static str, x_label: &'static str) -> Picture {
    Picture { name, title, x_label, y_label: "microseconds", y_is_logarithmic: false, series: Vec::new() }
}

fn latency_picture(name: &'static str, title: &'static str, x_label: &'static str) -> Picture {
    Picture { name, title, x_label, y_label: "microseconds", y_is_logarithmic: true, series: Vec::new() }
}

fn put_latency(picture: &mut Picture, x: u32, found: &Found) {
    picture.put("p50", x, found.latency_us("p50"));
    picture.put("p99", x, found.latency_us("p99"));
}
