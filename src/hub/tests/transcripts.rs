//! The transcripts on `docs/protocol.md`, held to the hub byte by byte.
//!
//! A transcript is a fenced block whose info string is `transcript NAME`; what its lines mean stands on the page under
//! "Transcripts". Here each is replayed: what clients do and say is taken from the page, and what the server does is
//! compared with it. With `ROUNDTABLE_WRITE_TRANSCRIPTS=1` the blocks are written from `scripts` instead.

// The reader of the page that the vectors are tested with: std and uuid, nothing of the crate.
#[allow(dead_code)]
#[path = "../../../tests/protocol/page.rs"]
mod page;
mod reader;
mod scripts;
mod stage;

use reader::Reader;
use scripts::Script;
use stage::{Stage, Step};

/// The lines of each transcript by name, in the order of the page.
fn transcripts(text: &str) -> Vec<(String, Vec<String>)> {
    let mut found = Vec::new();
    let mut lines = text.lines();
    while let Some(line) = lines.next() {
        if let Some(name) = line.strip_prefix("```transcript ") {
            let block = lines.by_ref().take_while(|line| *line != "```").map(str::to_owned).collect();
            found.push((name.to_owned(), block));
        }
    }
    found
}

/// Does what the clients do on the page; where the server does something else, says what.
fn replay(reader: &Reader, page: &[String]) -> Result<(), String> {
    let mut stage = Stage::new(reader);
    for step in page.iter().filter_map(|line| line.parse::<Step>().ok()) {
        stage.perform(&step);
    }
    compare(page, stage.lines())
}

fn compare(page: &[String], lines: &[String]) -> Result<(), String> {
    let same = page.iter().zip(lines).take_while(|(page, line)| page == line).count();
    if same == page.len() && same == lines.len() {
        return Ok(());
    }
    let at = |lines: &[String]| lines.get(same).map_or("nothing".to_owned(), Clone::clone);
    Err(format!("line {} of the transcript\non the page: {}\nin truth:    {}", same + 1, at(page), at(lines)))
}

#[test]
fn every_transcript_on_the_page_is_what_the_server_does() {
    let text = page::text();
    let reader = Reader::new(&text);
    if std::env::var_os("ROUNDTABLE_WRITE_TRANSCRIPTS").is_some() {
        std::fs::write(page::path(), with_transcripts(&text, &reader)).expect("docs/protocol.md can be written");
        return;
    }
    let transcripts = transcripts(&text);
    let names: Vec<&str> = transcripts.iter().map(|(name, _)| &**name).collect();
    assert_eq!(names, scripts::ALL.map(|(name, _)| name), "each stands on the page once");
    for (name, lines) in transcripts {
        if let Err(difference) = replay(&reader, &lines) {
            panic!("{name}: {difference}");
        }
    }
}

/// What is on the page is what `scripts` would write: else nobody could change a transcript any more.
#[test]
fn every_transcript_on_the_page_can_be_written_again() {
    let text = page::text();
    let reader = Reader::new(&text);
    for ((name, lines), (_, play)) in transcripts(&text).iter().zip(scripts::ALL) {
        if let Err(difference) = compare(lines, &Script::lines(&reader, play)) {
            panic!("{name}: {difference}");
        }
    }
}

/// The control: one wrong digit anywhere, or a line of the server that is missing or there twice, is seen.
#[test]
fn control_whatever_is_changed_on_a_transcript_is_seen() {
    let text = page::text();
    let reader = Reader::new(&text);
    for (name, lines) in transcripts(&text) {
        for at in 0..lines.len() {
            if let Some(mut line) = lines[at].contains(" | ").then(|| lines[at].clone()) {
                // Runs have a CRC of their own, so a digit before them is taken.
                let digit = line.split_once(" | ").map_or(0, |(words, _)| words.len() + 3 + 40);
                let other = if line[digit..].starts_with('0') { "1" } else { "0" };
                line.replace_range(digit..=digit, other);
                // What comes behind would be said by a client that does not know what has happened.
                let wrong = [&lines[..at], &[line]].concat();
                let difference = replay(&reader, &wrong).expect_err("a wrong digit is seen");
                assert!(difference.starts_with(&format!("line {} ", at + 1)), "{name}: {difference}");
            }
            if lines[at].starts_with("server ") {
                let less = [&lines[..at], &lines[at + 1..]].concat();
                assert!(replay(&reader, &less).is_err(), "{name}: without line {}", at + 1);
                let more = [&lines[..=at], &lines[at..]].concat();
                assert!(replay(&reader, &more).is_err(), "{name}: line {} twice", at + 1);
            }
        }
    }
}

fn with_transcripts(text: &str, reader: &Reader) -> String {
    let mut out = String::new();
    let mut lines = text.lines();
    while let Some(line) = lines.next() {
        out.push_str(line);
        out.push('\n');
        let Some(name) = line.strip_prefix("```transcript ") else { continue };
        lines.by_ref().take_while(|line| *line != "```").for_each(drop);
        let (_, play) = scripts::ALL.into_iter().find(|(known, _)| *known == name).expect("a transcript with a script");
        for line in Script::lines(reader, play) {
            out.push_str(&line);
            out.push('\n');
        }
        out.push_str("```\n");
    }
    out
}
