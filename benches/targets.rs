//! The table of all targets, with what this machine reaches, in one run.
//!
//! `cargo bench --features benching --bench targets`, 16 minutes on two cores. It runs `roundtable bench targets`, which has
//! most rows, then the journal alone and growth, which are benches of their own, and puts their figures into one table.
//! What stands behind `--` goes to the first (`-- --rounds 3 --seconds 0.5`); `ROUNDTABLE_GROUPS` sets where growth ends, and
//! `ROUNDTABLE_PICTURES` where its pictures are left, which are taken away otherwise. Peers that are not installed are named.

#[path = "common/process.rs"]
#[expect(dead_code)] // servers are started by those that it runs
mod process;

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use serde_json::Value;

/// One line.
struct Row {
    what: String,
    target: String,
    reached: String,
    holds: Option<bool>,
}

#[derive(Clone, Copy)]
enum Bound {
    AtMost(f64),
    AtLeast(f64),
}

impl Row {
    fn of(what: String, bound: Bound, unit: &str, figure: f64) -> Self {
        let (target, holds) = match bound {
            Bound::AtMost(most) => (format!("at most {most}{unit}"), figure <= most),
            Bound::AtLeast(least) => (format!("at least {least}{unit}"), figure >= least),
        };
        Self { what, target, reached: format!("{figure:.2}"), holds: Some(holds) }
    }

    /// As soon as it is there: all of them take a while.
    fn print(self) {
        let Self { what, target, reached, holds } = self;
        let verdict = match holds {
            Some(true) => "holds",
            Some(false) => "does not hold",
            None => "cannot be said",
        };
        println!("{what:<82} {target:>16} {reached:>10}  {verdict}");
    }
}

fn main() {
    let home = tempfile::tempdir().expect("a temporary directory");
    let arguments: Vec<String> = std::env::args().skip(1).filter(|argument| argument != "--bench").collect();
    println!("{:<82} {:>16} {:>10}", "what", "target", "reached");

    let said = output(process::program().args(["bench", "targets", "--json"]).args(arguments));
    let targets: Value = serde_json::from_str(&said).expect("one object");
    list(&targets["targets"]).iter().map(measured_by_the_program).for_each(Row::print);

    let said = output(&mut bench("journal", &["--json"]));
    let journal = said.lines().filter_map(|line| journal_alone(&serde_json::from_str(line).expect("an object")));
    journal.for_each(Row::print);

    let pictures = std::env::var_os("ROUNDTABLE_PICTURES").map_or_else(|| home.path().to_owned(), PathBuf::from);
    output(bench("growth", &["groups"]).env("ROUNDTABLE_PICTURES", &pictures));
    growth(&pictures).into_iter().for_each(Row::print);

    for (peer, why) in targets["peers"].as_object().into_iter().flatten() {
        println!("{peer}: {}", text(why));
    }
    println!("{}", targets["machine"]);
}

/// Another bench of this package, with its features.
fn bench(name: &str, arguments: &[&str]) -> Command {
    let mut command = Command::new(std::env::var_os("CARGO").expect("cargo runs this"));
    command.current_dir(env!("CARGO_MANIFEST_DIR")).args(["bench", "--features", "benching", "--bench", name, "--"]);
    command.args(arguments).stdin(Stdio::null());
    command
}

/// What a command prints; its progress goes on being seen.
fn output(command: &mut Command) -> String {
    let output = command.stderr(Stdio::inherit()).output().expect("it runs");
    assert!(output.status.success(), "{command:?}: {}", output.status);
    String::from_utf8(output.stdout).expect("text")
}

fn measured_by_the_program(row: &Value) -> Row {
    let reached = row["reached"].as_f64().map_or_else(|| "-".to_owned(), |figure| format!("{figure:.2}"));
    Row { what: text(&row["what"]), target: text(&row["target"]), reached, holds: row["holds"].as_bool() }
}

/// A target has the journal alone from 64 outstanding on.
fn journal_alone(line: &Value) -> Option<Row> {
    let outstanding = line["outstanding"].as_u64().expect("a number");
    let what = format!("the journal alone, {outstanding} outstanding: appends a second against raw");
    (outstanding >= 64).then(|| Row::of(what, Bound::AtLeast(0.8), "×", number(&line["ratio_to_raw"])))
}

/// What the pictures of growth say at their last step.
fn growth(pictures: &Path) -> Vec<Row> {
    let series = |name: &str| {
        let text = std::fs::read_to_string(pictures.join(name)).unwrap_or_else(|_| r#"{"series": []}"#.to_owned());
        let picture: Value = serde_json::from_str(&text).expect("an object");
        list(&picture["series"]).to_vec()
    };
    let ends = |series: &Value| {
        let points = list(&series["points"]);
        let (first, last) = (points.first().expect("a step"), points.last().expect("a step"));
        (number(&first["median"]), number(&last["median"]), number(&last["x"]))
    };
    let mut rows = Vec::new();
    for rate in series("rate.json") {
        let (_, reached, groups) = ends(&rate);
        let what = format!("creates sustained until the index has caught up with {groups} groups");
        rows.push(Row::of(what, Bound::AtLeast(4_000.0), "/s", reached));
    }
    for cost in series("cpu.json") {
        // One step alone has not grown.
        let (Some(most), 2..) = (cost["growth_max"].as_f64(), list(&cost["points"]).len()) else { continue };
        let (first, last, groups) = ends(&cost);
        let what = format!("{}: CPU with {groups} groups against 10000", text(&cost["name"]));
        rows.push(Row::of(what, Bound::AtMost(most), "×", last / first));
    }
    for start in series("start.json") {
        let (_, reached, groups) = ends(&start);
        let name = text(&start["name"]);
        let most = if name.starts_with("listens") { 1.0 } else { 5.0 };
        rows.push(Row::of(format!("with {groups} groups: {name}"), Bound::AtMost(most), " s", reached));
    }
    rows
}

fn list(value: &Value) -> &[Value] {
    value.as_array().expect("a list")
}

fn number(value: &Value) -> f64 {
    value.as_f64().expect("a number")
}

fn text(value: &Value) -> String {
    value.as_str().expect("a text").to_owned()
}
