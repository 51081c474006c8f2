//! What only the crate itself can reach; everything else of the protocol is tested in `tests/protocol`.

use super::entry::LogEntry;
use super::push::{Push, encode_entry_push};
use super::reply::{GroupHistory, HistoryOutcome, Reply};
use super::{Header, HeaderError, Kind, MAGIC, flags};
use crate::group::{Entry, Event};
use crate::ids::{GroupId, UserId};
use crate::limits::HEADER_BYTES;

fn group() -> GroupId {
    GroupId::generate(1_758_800_000_000, &[7; 10])
}

fn entries() -> Vec<Entry> {
    let user = |name| UserId::new(name).unwrap();
    let entry = |event| Entry { seq: 5, version: 5, at_ms: 1, sender: user("alice"), by: Some(user("gateway")), event };
    vec![
        entry(Event::Message { body: b"hi"[..].into() }),
        entry(Event::Created { title: "lunch".into(), members: vec![user("alice"), user("bob")] }),
        entry(Event::Dissolved),
    ]
}

#[test]
fn the_short_way_to_an_entry_push_gives_the_same_bytes() {
    for entry in entries() {
        let mut short = b"before".to_vec();
        encode_entry_push(&mut short, group(), &entry);
        let mut long = b"before".to_vec();
        Push::Entry { group: group(), entry: LogEntry::Shown(entry) }.encode_frame(&mut long);
        assert_eq!(short, long);
    }
}

#[test]
fn a_page_of_history_grows_by_no_more_than_an_entry_is_counted_for() {
    let page = |entries: Vec<LogEntry>| {
        let outcome = HistoryOutcome::Entries { head: 9, floor: 1, entries };
        let mut frame = Vec::new();
        Reply::HistoryPage { groups: vec![GroupHistory { group: group(), outcome }] }.encode_frame(&mut frame, 7);
        frame.len()
    };
    for entry in entries() {
        let bytes_max = entry.memory_bytes();
        assert!(page(vec![LogEntry::Shown(entry)]) <= page(vec![]) + 4 + bytes_max);
    }
}

#[test]
fn a_header_reads_back_with_its_flags() {
    let mut frame = vec![0; HEADER_BYTES];
    frame.extend_from_slice(b"body");
    Header::seal(&mut frame, 0, Kind::Send, flags::AS_USER, 0xfedc_ba98);
    let header = Header::decode(frame.first_chunk().unwrap()).unwrap();
    assert_eq!((header.flags, header.kind), (flags::AS_USER, Kind::Send.number()));
    assert_eq!((header.body_bytes, header.request_id), (4, 0xfedc_ba98));
    assert_eq!(header.body_crc, crc32fast::hash(b"body"));
    assert_eq!(&frame[..4], &MAGIC);
    assert_eq!(Header::decode(&[0; HEADER_BYTES]), Err(HeaderError::Magic));
}

#[test]
fn the_answer_to_a_change_has_its_kind_with_the_highest_bit_set() {
    for kind in Kind::ALL {
        assert_eq!(Kind::from_number(kind.number()), Some(*kind));
        if let Some(done) = kind.done() {
            assert_eq!(done.number(), kind.number() | 0x8000);
            assert_eq!(done.name(), format!("{}Done", kind.name()));
        }
    }
    assert_eq!(Kind::ALL.iter().filter(|kind| kind.done().is_some()).count(), 8);
}
