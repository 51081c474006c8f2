//! The fuzz target of the command line. It belongs to the program, so `fuzz/targets/command_line.rs` compiles this
//! directory into itself.
//!
//! ```text
//! u8  0: the rest is arguments, each ends with a zero byte; 1: text of others; 2: a frame of the server, `kind u16, body`
//! …   the rest
//! ```

use clap::Parser;
use clap::error::ErrorKind;
use roundtable::client::Event;
use roundtable::wire::{GroupShown, HistoryOutcome, Kind, LogEntry, Push, Reply};

use super::output::{self, Paint};
use super::text::{body, duration, escape, json_line, time};
use super::{Cli, json, usage_line};

/// Wrong use is told in one line; nothing that others wrote drives a terminal; what is for programs means the same.
pub(crate) fn command_line(data: &[u8]) {
    let Some((which, rest)) = data.split_first() else { return };
    match which % 3 {
        0 => arguments(rest),
        1 => text_of_others(rest),
        _ => frame_of_a_server(rest),
    }
}

fn arguments(data: &[u8]) {
    use std::os::unix::ffi::OsStringExt;
    let words = data.split(|byte| *byte == 0).map(|word| std::ffi::OsString::from_vec(word.to_vec()));
    let arguments: Vec<_> = std::iter::once("roundtable".into()).chain(words).collect();
    let Err(error) = Cli::try_parse_from(&arguments) else { return };
    if !matches!(error.kind(), ErrorKind::DisplayHelp | ErrorKind::DisplayVersion) {
        let line = usage_line(&error, &arguments);
        assert!(line.contains(": see `roundtable"), "{line:?}");
        assert_harmless(&escape(&line));
    }
}

fn text_of_others(data: &[u8]) {
    assert_harmless(&body(data));
    let Ok(text) = std::str::from_utf8(data) else { return };
    let escaped = escape(text);
    assert_harmless(&escaped);
    assert_eq!(unescape(&escaped).as_deref(), Some(text), "what was escaped can be told from what was typed");
    assert_harmless_json(&serde_json::json!({text: [text]}));
    if let Ok(length) = duration(text) {
        assert!(length.as_secs() > 0);
    }
    if let Some(ms) = data.first_chunk::<8>() {
        let shown = time(u64::from_be_bytes(*ms));
        assert!(shown.len() >= 19 && shown.is_ascii(), "{shown}");
    }
}

/// Every line that is printed of what a server says, for people and for programs.
fn frame_of_a_server(data: &[u8]) {
    let Some((kind, body)) = data.split_first_chunk::<2>() else { return };
    let Some(kind) = Kind::from_number(u16::from_be_bytes(*kind)) else { return };
    let paint = Paint::plain();
    if let Some(Ok(reply)) = Reply::decode(kind, body) {
        show_reply(&paint, &reply);
    }
    let Some(Ok(push)) = Push::decode(kind, body) else { return };
    let event = match push {
        Push::GroupPacket(packet) => Event::Group { packet, frame: Vec::new() },
        Push::Entry { group, entry } => Event::Entry { group, entry },
        Push::Signal { group, sender, by, body } => Event::Signal { group, sender, by, body },
        Push::Gone { group, until } => Event::Gone { group, until },
        _ => return,
    };
    assert_harmless(&output::event_line(&paint, &event).expect("these are shown"));
    assert_harmless_json(&json::event(&event).expect("these are shown"));
}

fn show_reply(paint: &Paint, reply: &Reply) {
    match reply {
        Reply::GroupShown(GroupShown::Record { head, floor, record }) => {
            output::record_lines(paint, record, *head, *floor).split('\n').for_each(assert_harmless);
            assert_harmless_json(&json::shown(record, *head, *floor));
        }
        Reply::GroupsListed { groups, .. } => {
            for summary in groups {
                assert_harmless(&output::summary_line(paint, summary));
                assert_harmless_json(&json::summary(summary));
            }
        }
        Reply::HistoryPage { groups } => {
            for part in groups {
                let HistoryOutcome::Entries { entries, .. } = &part.outcome else { continue };
                for entry in entries {
                    show_entry(paint, part.group, entry);
                }
            }
        }
        Reply::ReadersListed { group, readers } => {
            for marks in readers {
                assert_harmless(&output::reader_line(paint, marks));
                assert_harmless_json(&json::reader(*group, marks));
            }
        }
        Reply::ConnectionsListed { connections, .. } => {
            for row in connections {
                assert_harmless(&output::connection_line(paint, row));
                assert_harmless_json(&json::connection(row));
            }
        }
        Reply::StatsListed { stats } => assert_harmless_json(&json::stats(stats)),
        _ => {}
    }
}

fn show_entry(paint: &Paint, group: roundtable::ids::GroupId, entry: &LogEntry) {
    assert_harmless(&output::entry_line(paint, entry));
    assert_harmless_json(&json::entry(group, entry));
}

/// One line, and nothing in it that a terminal obeys or that changes how its neighbours are read. Written down anew
/// here by the properties of Unicode, and not by the list of `text.rs`.
fn assert_harmless(line: &str) {
    let obeyed = |character: char| {
        let code = u32::from(character);
        code < 0x20 || (0x7f..0xa0).contains(&code) || is_invisible(code)
    };
    assert!(!line.contains(obeyed), "{line:?}");
}

/// Default-ignorable format characters, separators of lines, tags (UAX #44, `Cf`, `Zl`, `Zp`), but for the joiners of
/// scripts of their own.
fn is_invisible(code: u32) -> bool {
    matches!(code, 0x00ad | 0x061c | 0x180e | 0xfeff)
        || (0x200b..=0x200f).contains(&code)
        || (0x2028..=0x202e).contains(&code)
        || (0x2060..=0x206f).contains(&code)
        || (0xfff9..=0xfffb).contains(&code)
        || (0xe_0000..=0xe_007f).contains(&code)
}

fn assert_harmless_json(object: &serde_json::Value) {
    let line = json_line(object);
    assert_harmless(&line);
    assert_eq!(serde_json::from_str::<serde_json::Value>(&line).ok().as_ref(), Some(object), "it means the same");
}

/// The text that was escaped.
fn unescape(escaped: &str) -> Option<String> {
    let mut text = String::new();
    let mut rest = escaped;
    while let Some(at) = rest.find('\\') {
        text.push_str(&rest[..at]);
        let behind = &rest[at + 1..];
        let length = match behind.chars().next()? {
            '\\' => (text.push('\\'), 1).1,
            'n' => (text.push('\n'), 1).1,
            'r' => (text.push('\r'), 1).1,
            't' => (text.push('\t'), 1).1,
            'u' => {
                let end = behind.find('}')?;
                text.push(char::from_u32(u32::from_str_radix(behind.get(2..end)?, 16).ok()?)?);
                end + 1
            }
            _ => return None,
        };
        rest = &behind[length..];
    }
    text.push_str(rest);
    Some(text)
}

#[cfg(test)]
mod tests {
    #[test]
    fn nothing_that_others_wrote_drives_a_terminal_over_the_corpus() {
        let corpus = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus/command_line");
        let mut count = 0;
        for entry in std::fs::read_dir(corpus).unwrap() {
            let path = entry.unwrap().path();
            let bytes = std::fs::read(&path).unwrap();
            let outcome = std::panic::catch_unwind(|| super::command_line(&bytes));
            assert!(outcome.is_ok(), "{} fails; the panic is above", path.display());
            count += 1;
        }
        assert!(count > 0, "there is a corpus");
    }
}
