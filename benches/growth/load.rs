//! Loads, by `roundtable bench … --json` against a server that runs, and what they found.

use std::process::{Child, Stdio};

use serde_json::Value;

use crate::figure::Figure;
use crate::process::program;
use crate::server::Server;

/// Everything that one bench says.
pub(crate) struct Found(Value);

/// Runs a bench against a server, whose CPU it counts.
pub(crate) fn bench(server: &Server, arguments: &str) -> Found {
    let output = command(server, arguments).output().expect("the program runs");
    assert!(output.status.success(), "bench {arguments}: {}", String::from_utf8_lossy(&output.stderr));
    Found(serde_json::from_slice(&output.stdout).expect("one object"))
}

/// A load that goes on until the server, or this, is gone.
pub(crate) struct Endless(Child);

impl Endless {
    pub(crate) fn start(server: &Server, arguments: &str) -> Self {
        let mut command = command(server, arguments);
        Self(command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().expect("the program runs"))
    }
}

impl Drop for Endless {
    fn drop(&mut self) {
        // Not killed: it takes the raw limit and its directory away as it ends, which it does without its server.
        let process = rustix::process::Pid::from_child(&self.0);
        let _ = rustix::process::kill_process(process, rustix::process::Signal::TERM);
        let _ = self.0.wait();
    }
}

fn command(server: &Server, arguments: &str) -> std::process::Command {
    let mut command = program();
    command.arg("bench").args(arguments.split_whitespace()).arg("--json");
    command.args(["--server", &server.address().to_string(), "--server-pid", &server.process().to_string()]);
    command.arg("--data").arg(&server.data).arg("--directory").arg(server.data.parent().expect("below a directory"));
    command
}

impl Found {
    /// What one delivery, create or message took of the server's CPU, or of the raw limit's, in microseconds.
    pub(crate) fn cpu_us(&self, who: &str, item: &str) -> Figure {
        self.with_spread(&format!("{who}_cpu_us_per_{item}"))
    }

    /// In microseconds.
    pub(crate) fn latency_us(&self, quantile: &str) -> Figure {
        Figure::of_bench(&self.0["latency_us"][quantile], &self.0["spread"]["latency_us"][quantile])
    }

    fn with_spread(&self, name: &str) -> Figure {
        Figure::of_bench(&self.0[name], &self.0["spread"][name])
    }
}
