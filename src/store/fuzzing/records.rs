//! Everything that stands on disk, record by record: what is read from it, written again, is the same bytes.
//!
//! ```text
//! u8  which: 0 a packet, 1 a value of the index, 2 a segment's header, 3 HEAD, 4 FORMAT
//! …   the record; its CRC is put right
//! ```

use super::forge::Forged;
use crate::store::directory::{read_format, write_format};
use crate::store::disk::simulated::SimulatedDisk;
use crate::store::disk::{Disk as _, DiskFile as _};
use crate::store::journal::head;
use crate::store::journal::packet::{Body, Content, Packet, encode};
use crate::store::journal::segment::{JOURNAL_DIRECTORY, SEGMENT_HEADER_BYTES, SegmentHeader};
use crate::store::journal::writer::{carried_bytes, change_bytes};
use crate::store::tables::{Stored, VERSION};
use crate::store::{Change, OpenError};

const SALT: u32 = 0x5a17_5a17;
const DIRECTORY: [u8; 16] = [9; 16];

/// Each record is refused, or has one form only.
pub(crate) fn records(data: &[u8]) {
    let Some((which, rest)) = data.split_first() else { return };
    match which % 5 {
        0 => packet(rest),
        1 => value(rest),
        2 => segment_header(rest),
        3 => head_slots(rest),
        _ => format(rest),
    }
}

/// `u8 kind, u8 version, body`
fn packet(data: &[u8]) {
    let Some((tags, body)) = data.split_first_chunk::<2>() else { return };
    let [kind, version] = *tags;
    let forged = Forged { kind, version, lsn: 7, previous_crc: 3, body };
    let (bytes, crc) = forged.encode(SALT);
    let Ok(packet) = Packet::decode(&bytes, SALT) else {
        // Kind 0 is none, so that zeros are no packet.
        assert_eq!(kind, 0, "a packet under a right CRC is a packet");
        return;
    };
    assert_eq!((packet.lsn, packet.previous_crc, packet.crc, packet.bytes as usize), (7, 3, crc, bytes.len()));
    let again = |body: &Body<'_>| {
        let mut out = Vec::new();
        assert_eq!(encode(&mut out, SALT, 7, 3, body), crc_of(&out));
        out
    };
    assert_eq!(again(&Body::Again(&packet)), bytes, "copied");
    let Ok(content) = packet.content() else { return };
    let written = match content {
        Content::Effect(effect) => of_change(&Change::Effect(effect), again),
        Content::Marks(marks) => of_change(&Change::Marks(marks), again),
        Content::Watermark(watermark) => again(&Body::Watermark(watermark)),
        Content::Carried(carried) => {
            let written = again(&Body::Carried(&carried));
            assert_eq!(carried_bytes(&carried), written.len(), "what is counted is what it takes");
            written
        }
    };
    assert_eq!(written, bytes, "each value has one form");
}

fn of_change(change: &Change, again: impl Fn(&Body<'_>) -> Vec<u8>) -> Vec<u8> {
    let written = again(&Body::Change(change));
    assert_eq!(change_bytes(change), written.len(), "what is granted is what it takes");
    written
}

fn crc_of(packet: &[u8]) -> u32 {
    u32::from_be_bytes([packet[20], packet[21], packet[22], packet[23]])
}

/// `u8 length of the key, key, fields from the LSN on`
fn value(data: &[u8]) {
    let Some((length, rest)) = data.split_first() else { return };
    let Some((key, fields)) = rest.split_at_checked(usize::from(*length)) else { return };
    let mut hasher = crc32fast::Hasher::new();
    hasher.update(key);
    hasher.update(fields);
    let mut bytes = vec![VERSION];
    bytes.extend_from_slice(&hasher.finalize().to_be_bytes());
    bytes.extend_from_slice(fields);
    let Ok(stored) = Stored::decode(key, &bytes) else { return };
    assert_eq!(stored.encode(key), bytes, "each value has one form");
    let other = [key, &[0]].concat();
    assert!(Stored::decode(&other, &bytes).is_err(), "a value is bound to its key");
}

fn segment_header(data: &[u8]) {
    let mut bytes = data.to_vec();
    bytes.resize(SEGMENT_HEADER_BYTES as usize, 0);
    let crc = crc32fast::hash(&bytes[..508]);
    bytes[508..].copy_from_slice(&crc.to_be_bytes());
    let Ok(header) = SegmentHeader::decode(&bytes) else { return };
    let written = header.encode();
    assert_eq!(written[..72], bytes[..72], "each header has one form");
    assert_eq!(SegmentHeader::decode(&written), Ok(header));
}

/// `slot 40 bytes, slot 40 bytes`; a slot's CRC is put right unless its first byte says otherwise.
fn head_slots(data: &[u8]) {
    let disk = SimulatedDisk::new();
    disk.create_directory(JOURNAL_DIRECTORY).unwrap();
    head::create(&disk, DIRECTORY).unwrap();
    let mut slots = data.to_vec();
    slots.resize(80, 0);
    for (slot, at) in slots.chunks_mut(40).zip([0, 4096]) {
        let covered = if slot[8..12] == [0, 0, 0, 1] { 32 } else { 36 };
        if slot[0] == b'R' {
            let crc = crc32fast::hash(&slot[..covered]);
            slot[covered..covered + 4].copy_from_slice(&crc.to_be_bytes());
        }
        disk.tamper("journal/HEAD", |content| content[at..at + 40].copy_from_slice(slot));
    }
    match head::read(&disk, DIRECTORY) {
        Ok(found) => {
            head::record(&disk, DIRECTORY, found).unwrap();
            assert_eq!(head::read(&disk, DIRECTORY).unwrap(), found, "written again, it says the same");
        }
        Err(OpenError::Corrupt { .. } | OpenError::NewerFormat { .. }) => {}
        Err(other) => panic!("{other}"),
    }
}

/// The text above the CRC; a first byte of 0 stands for text with a CRC of its own.
fn format(data: &[u8]) {
    let disk = SimulatedDisk::new();
    let file = disk.create("FORMAT").unwrap();
    let text = match data.split_first() {
        Some((0, raw)) => raw.to_vec(),
        _ => [data, format!("crc {:08x}\n", crc32fast::hash(data)).as_bytes()].concat(),
    };
    file.write_at(0, &text).unwrap();
    match read_format(&disk) {
        Ok(Some(found)) => {
            write_format(&disk, found).unwrap();
            assert_eq!(read_format(&disk).unwrap(), Some(found), "written again, it says the same");
        }
        Ok(None) => panic!("there is one"),
        Err(OpenError::Corrupt { .. } | OpenError::NewerFormat { .. }) => {}
        Err(other) => panic!("{other}"),
    }
}
