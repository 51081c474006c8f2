//! Growth: what a server costs as the groups on its disk, the members of a group and the connections become more.
//!
//! `cargo bench --bench growth` fills one data directory by real creates to 10,000, 100,000 and 1,000,000 groups of 8
//! and measures at each step; then, on another with 10,000 groups, deliveries to larger groups and beside more
//! connections. `ROUNDTABLE_GROUPS=100000` sets the last step; `-- groups` or `-- online` behind the command is only one of
//! the two. The loads are those of `roundtable bench`, in rounds in
//! turns with the raw limit (`docs/benchmarks.md`). Directories are made where `TMPDIR` says.
//!
//! Writes the figures as `docs/growth/*.json` and their curves as `docs/growth/*.svg`, or to the directory that
//! `ROUNDTABLE_PICTURES` names, and prints a table.

mod chart;
mod figure;
mod groups;
mod load;
mod online;
#[path = "../common/process.rs"]
mod process;
mod server;

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Instant;

use serde_json::{Value, json};
use signal_hook::consts::{SIGINT, SIGTERM};

use figure::Picture;

/// Of everything that is measured more than once.
const ROUNDS: u32 = 5;
const GROUPS_DEFAULT: u32 = 1_000_000;

/// Whether a signal asked for the end.
static INTERRUPTED: OnceLock<Arc<AtomicBool>> = OnceLock::new();

fn main() {
    for signal in [SIGINT, SIGTERM] {
        let flag = Arc::clone(INTERRUPTED.get_or_init(Arc::default));
        signal_hook::flag::register(signal, flag).expect("signals can be caught");
    }
    let groups_max = std::env::var("ROUNDTABLE_GROUPS").map_or(GROUPS_DEFAULT, |text| {
        text.parse().ok().filter(|groups| *groups >= 10_000).expect("ROUNDTABLE_GROUPS is a number from 10000 on")
    });
    let begun = Instant::now();
    let home = tempfile::tempdir().expect("a temporary directory");
    let place = std::env::var_os("ROUNDTABLE_PICTURES")
        .map_or_else(|| Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/growth"), PathBuf::from);
    std::fs::create_dir_all(&place).expect("a directory");
    let run = Run { place, circumstances: circumstances() };
    let is_wanted = |part: &str| {
        let mut others = std::env::args().skip(1).filter(|argument| !argument.starts_with("--")).peekable();
        others.peek().is_none() || others.any(|wanted| wanted == part)
    };
    if is_wanted("groups") {
        let mut tables = String::new();
        // Each step as soon as it is there: the last takes the longest.
        groups::measure(&home.path().join("groups"), groups_max, &mut |pictures| tables = run.show(pictures));
        print!("{tables}");
    }
    if is_wanted("online") {
        online::measure(&home.path().join("online"), &mut |pictures| print!("{}", run.show(pictures)));
    }
    say(&format!("pictures are in {}", run.place.display()));
    println!("{:.0} s in all", begun.elapsed().as_secs_f64());
}

/// Where it writes to, and what belongs to every figure.
struct Run {
    place: PathBuf,
    circumstances: Value,
}

impl Run {
    /// Writes the pictures and their figures; gives them as tables.
    fn show(&self, pictures: &[&Picture]) -> String {
        for picture in pictures {
            let file = |ending: &str| self.place.join(format!("{}.{ending}", picture.name));
            let mut object = json!(picture);
            object["circumstances"] = self.circumstances.clone();
            let text = serde_json::to_string_pretty(&object).expect("figures are numbers");
            std::fs::write(file("json"), text + "\n").expect("it can be written");
            chart::draw(picture, &file("svg"));
        }
        pictures.iter().map(|picture| table(picture)).collect()
    }
}

/// What the figures were taken on.
fn circumstances() -> Value {
    let said = |program: &str, arguments: &[&str]| {
        let output = Command::new(program).args(arguments).output().ok()?;
        Some(String::from_utf8(output.stdout).ok()?.trim().to_owned())
    };
    json!({
        "cores": std::thread::available_parallelism().map_or(0, std::num::NonZero::get),
        "kernel": said("uname", &["-r"]),
        "commit": said("git", &["rev-parse", "--short", "HEAD"]),
        "date": said("date", &["-u", "+%F"]),
        "rounds": ROUNDS,
    })
}

/// A curve a line: the median of each point, with the lowest and the highest where they differ.
fn table(picture: &Picture) -> String {
    use std::fmt::Write as _;
    let Picture { title, x_label, y_label, .. } = picture;
    let mut text = format!("\n{title}, {y_label}; {x_label}\n");
    for series in &picture.series {
        let _ = write!(text, "  {}\n   ", series.label());
        for point in &series.points {
            let figure::Figure { median, lowest, highest } = point.figure;
            let _ = write!(text, " {}: {median:.2}", point.x);
            if lowest < highest {
                let _ = write!(text, " ({lowest:.2}–{highest:.2})");
            }
            text.push(';');
        }
        text.push('\n');
    }
    text
}

/// How far it is. Behind a signal it goes no further: servers, loads and directories go as the stack unwinds.
fn say(what: &str) {
    assert!(!INTERRUPTED.get().is_some_and(|flag| flag.load(Ordering::Relaxed)), "interrupted");
    eprintln!("growth: {what}");
}
