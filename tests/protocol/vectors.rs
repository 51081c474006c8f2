//! The vectors of the page: encoded, decoded, explained, and none missing.

use std::collections::BTreeSet;
use std::fmt::Write as _;

use roundtable::limits::HEADER_BYTES;
use roundtable::wire::{Deframer, FrameCaps, Kind, LogEntry, Push};

use crate::page::{self, Vector};
use crate::values::{self, Message};

#[test]
fn every_vector_on_the_page_is_what_the_code_writes_and_reads() {
    let vectors = page::vectors(&page::text());
    for (name, message) in values::all() {
        let vector = find(&vectors, name);
        assert_eq!(message.frame(), vector.bytes, "{name}: encoded as on the page");
        let mut deframer = Deframer::default();
        deframer.feed(&vector.bytes);
        let frame = deframer.next_frame(FrameCaps::Server).expect("a good frame").expect("a whole frame");
        assert_eq!(Kind::from_number(frame.header.kind), Some(message.kind()), "{name}");
        assert_eq!(frame.header.request_id, message.request_id(), "{name}");
        assert_eq!(frame.header.flags, 0, "{name}");
        assert_eq!(Message::decode(message.kind(), frame.body), Ok(message), "{name}: decoded from the page");
    }
}

fn find<'v>(vectors: &'v [Vector], name: &str) -> &'v Vector {
    vectors.iter().find(|vector| vector.name == name).unwrap_or_else(|| panic!("no vector `{name}` on the page"))
}

#[test]
fn every_vector_on_the_page_is_tested_once() {
    let on_page: Vec<String> = page::vectors(&page::text()).into_iter().map(|vector| vector.name).collect();
    let tested: BTreeSet<String> = values::all().into_iter().map(|(name, _)| name.to_owned()).collect();
    assert_eq!(on_page.iter().cloned().collect::<BTreeSet<_>>(), tested);
    assert_eq!(on_page.len(), tested.len(), "a name stands on the page twice");
}

#[test]
fn every_kind_has_a_vector_and_is_named_after_it() {
    let all = values::all();
    for kind in Kind::ALL {
        assert!(all.iter().any(|(_, message)| message.kind() == *kind), "{} has no vector", kind.name());
    }
    for (name, message) in all {
        assert_eq!(name.split('/').next(), Some(message.kind().name()));
    }
}

#[test]
fn every_kind_of_entry_has_a_vector() {
    let first_bytes: BTreeSet<u8> = values::all()
        .into_iter()
        .filter(|(_, message)| matches!(message, Message::Push(Push::Entry { .. })))
        .map(|(_, message)| message.frame()[HEADER_BYTES + 16])
        .collect();
    assert_eq!(first_bytes, (0..=9).collect());
    assert!(matches!(
        values::all().iter().find(|(name, _)| *name == "Entry/hidden"),
        Some((_, Message::Push(Push::Entry { entry: LogEntry::Hidden { .. }, .. })))
    ));
}

/// The layouts of the page explain each byte of each vector, and what stands behind `#` is that explanation. With
/// `ROUNDTABLE_WRITE_VECTORS=1` the blocks are written instead: for a new vector, never to change one that was
/// released.
#[test]
fn the_layouts_on_the_page_explain_every_byte() {
    let page = page::text();
    let layouts = page::layouts(&page);
    let explained = |name: &str| {
        let (_, message) = values::all().into_iter().find(|(known, _)| *known == name)?;
        Some(explain(&message, &layouts))
    };
    if std::env::var_os("ROUNDTABLE_WRITE_VECTORS").is_some() {
        std::fs::write(page::path(), with_blocks(&page, explained)).expect("docs/protocol.md can be written");
        return;
    }
    for vector in page::vectors(&page) {
        assert_eq!(Some(vector.lines), explained(&vector.name), "{}", vector.name);
    }
}

fn with_blocks(page: &str, block: impl Fn(&str) -> Option<String>) -> String {
    let mut out = String::new();
    let mut lines = page.lines();
    while let Some(line) = lines.next() {
        out.push_str(line);
        out.push('\n');
        let Some(name) = line.strip_prefix("```vector ") else { continue };
        lines.by_ref().take_while(|line| *line != "```").for_each(drop);
        out.push_str(&block(name.trim()).unwrap_or_else(|| panic!("no value for the vector `{name}`")));
        out.push_str("```\n");
    }
    out
}

/// The lines of a vector: the header, then each field with what it is.
fn explain(message: &Message, layouts: &std::collections::BTreeMap<String, Vec<page::Field>>) -> String {
    let frame = message.frame();
    let (header, body) = frame.split_at(HEADER_BYTES);
    let kind = message.kind();
    let mut text = String::new();
    for (at, what) in [
        (0..4, "magic"),
        (4..5, "version 1"),
        (5..6, "flags"),
        (6..8, &*format!("kind {}", kind.name())),
        (8..12, &*format!("body of {} bytes", body.len())),
        (12..16, &*format!("request id {}", message.request_id())),
        (16..20, "CRC of the body"),
        (20..24, "CRC of the header"),
    ] {
        line(&mut text, &header[at], what);
    }
    for (bytes, what) in page::explain(layouts, kind.name(), body) {
        line(&mut text, &bytes, &what);
    }
    text
}

fn line(text: &mut String, bytes: &[u8], what: &str) {
    let hex = bytes.iter().fold(String::new(), |mut hex, byte| {
        let _ = write!(hex, "{byte:02x}");
        hex
    });
    let _ = writeln!(text, "{hex:<32}  # {what}");
}
