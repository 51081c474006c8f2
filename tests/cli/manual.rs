//! Completions and man pages: there for each shell and each command, and fit for the programs that read them.

use std::io::Write;
use std::process::{Command, Stdio};

use crate::bench::BENCHES;
use crate::program::run;
use crate::wrong_use::COMMANDS;

/// Whether a program of this name can be run here.
fn is_there(name: &str) -> bool {
    Command::new(name).arg("--version").stdout(Stdio::null()).stderr(Stdio::null()).status().is_ok()
}

/// Feeds a text to a program; gives whether it was content, and what it said.
fn feed(program: &str, arguments: &[&str], text: &str) -> (bool, String) {
    let mut child = Command::new(program)
        .args(arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .expect("it runs");
    child.stdin.take().expect("piped").write_all(text.as_bytes()).expect("it reads");
    let output = child.wait_with_output().expect("it ends");
    (output.status.success(), String::from_utf8_lossy(&output.stderr).into_owned())
}

#[test]
fn every_shell_has_completions_that_know_every_command() {
    for shell in ["bash", "zsh", "fish", "elvish", "powershell"] {
        let script = run(&["completions", shell]);
        assert_eq!(script.code, 0, "{script:?}");
        for command in COMMANDS {
            assert!(script.stdout.contains(command), "{command} for {shell}");
        }
    }
    assert_eq!(run(&["completions", "tcsh"]).code, 2);
    assert_eq!(run(&["completions", "bash", "--json"]).object()["shell"], "bash");
}

#[test]
fn bash_takes_its_completions_and_completes() {
    let script = run(&["completions", "bash"]).stdout;
    assert_eq!(feed("bash", &["-n"], &script), (true, String::new()));
    let ask = "\nCOMP_WORDS=(roundtable disso); COMP_CWORD=1; _roundtable roundtable disso roundtable\n\
               [ \"${COMPREPLY[*]}\" = dissolve ] || { echo \"got ${COMPREPLY[*]}\" >&2; exit 1; }\n";
    assert_eq!(feed("bash", &["--norc"], &format!("{script}{ask}")), (true, String::new()));
}

#[test]
fn there_is_a_man_page_for_each_command_with_its_example() {
    let directory = tempfile::tempdir().expect("a directory");
    let place = directory.path().join("man1");
    let written = run(&["man", "--output", place.to_str().expect("a plain path")]);
    assert_eq!(written.stdout.lines().count(), COMMANDS.len() + BENCHES.len() + 1, "{written:?}");
    let page = |name: &str| std::fs::read_to_string(place.join(name)).expect("it was written");
    assert_eq!(page("roundtable.1").trim_end(), run(&["man"]).stdout.trim_end(), "the program's own is printed");
    let benches = BENCHES.iter().map(|bench| format!("bench {bench}"));
    for command in COMMANDS.iter().map(|command| (*command).to_owned()).chain(benches) {
        let text = page(&format!("roundtable-{}.1", command.replace(' ', "-")));
        assert!(text.contains(&format!("roundtable {command}")), "an example: {text}");
        if is_there("groff") {
            let (done, said) = feed("groff", &["-Kutf8", "-man", "-Tutf8", "-ww", "-z"], &text);
            assert!(done && said.is_empty(), "{command}: {said}");
        }
    }
}

#[test]
fn a_directory_that_cannot_be_made_is_named() {
    let refused = run(&["man", "--output", "/proc/nothing"]);
    assert_eq!((refused.code, refused.stderr.lines().count()), (1, 1), "{refused:?}");
    assert!(refused.stderr.contains("/proc/nothing"), "{refused:?}");
}
