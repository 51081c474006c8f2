//! This executable again, as another process that embeds an engine.

use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};

use super::{kills, many, try_open};

const ROLE: &str = "ROUNDTABLE_ENGINE_ROLE";
const DIRECTORY: &str = "ROUNDTABLE_ENGINE_DIRECTORY";
const NUMBER: &str = "ROUNDTABLE_ENGINE_NUMBER";
/// What a line begins with that is not the test harness's.
const MARK: &str = "> ";

/// A process that runs one role. Killed when it is dropped.
pub(crate) struct Process {
    child: Child,
    input: Option<ChildStdin>,
    output: BufReader<ChildStdout>,
}

impl Process {
    pub(crate) fn start(role: &str, directory: &Path, number: u64) -> Self {
        let mut command = Command::new(std::env::current_exe().expect("this test has a file"));
        command.args(["--exact", "child::process", "--ignored", "--nocapture"]);
        command.env(ROLE, role).env(DIRECTORY, directory).env(NUMBER, number.to_string());
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::inherit());
        let mut child = command.spawn().expect("it runs");
        let output = BufReader::new(child.stdout.take().expect("piped"));
        Self { input: child.stdin.take(), output, child }
    }

    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// The next line that it says; `None` once it has ended. A line that a kill cut short is none.
    pub(crate) fn line(&mut self) -> Option<String> {
        loop {
            let mut line = String::new();
            self.output.read_line(&mut line).expect("text");
            let line = line.strip_suffix('\n')?;
            // The harness ends a line of its own only after the test.
            if let Some((_, said)) = line.split_once(MARK) {
                return Some(said.to_owned());
            }
        }
    }

    /// Lets a process that waits for it end, and says whether it ended well.
    pub(crate) fn finish(mut self) -> bool {
        self.input = None;
        while self.line().is_some() {}
        self.child.wait().expect("it ends").success()
    }

    /// SIGKILL; gives what it had said and nobody had read.
    pub(crate) fn kill(mut self) -> Vec<String> {
        self.child.kill().expect("it is killed");
        self.child.wait().expect("it ends");
        std::iter::from_fn(|| self.line()).collect()
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Says a line to whoever started this process, in one write: a kill leaves it whole or not said.
pub(crate) fn say(line: &str) {
    let text = format!("{MARK}{line}\n");
    std::io::stdout().lock().write_all(text.as_bytes()).expect("somebody reads");
}

fn wait_for_the_end_of_input() {
    std::io::stdin().lock().lines().for_each(drop);
}

/// What the other tests start. By itself it has nothing to do.
#[test]
#[ignore = "the process that other tests start"]
fn process() {
    let Ok(role) = std::env::var(ROLE) else { return };
    let directory = std::env::var_os(DIRECTORY).expect("it is named");
    let directory = Path::new(&directory);
    let number: u64 = std::env::var(NUMBER).expect("it is given").parse().expect("a number");
    match role.as_str() {
        "load" => kills::load(directory, number),
        "make" => many::make(directory, number),
        "iterate" => many::iterate(directory, number),
        "hold" => {
            let engine = try_open(directory);
            say(&engine.as_ref().map_or_else(|error| format!("{error:?}"), |_| "open".to_owned()));
            wait_for_the_end_of_input();
        }
        other => panic!("no role: {other}"),
    }
}
