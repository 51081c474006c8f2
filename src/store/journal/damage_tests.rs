//! What the journal makes of damage: what was synced is refused and named, never cut and never believed.

#![allow(clippy::cast_possible_truncation)]

use super::head::{self, Head};
use super::packet::{Body, Packet, PacketError, encode};
use super::recovery::{self, Applied};
use super::segment::{SEGMENT_HEADER_BYTES, SegmentHeader, segment_path};
use super::tests::{
    NOW, SEGMENT_BYTES, append, journal, message, new_disk, open, recovered, refusal, seqs, three_segments, up_to,
};
use super::writer::{Journal, Tail, change_bytes};
use super::*;
use crate::store::disk::Disk as _;
use crate::store::disk::simulated::SimulatedDisk;
use crate::store::{Change, OpenError};

/// Fills a segment behind its tail to the last byte, where a writer would leave room for a marker.
fn overfill(disk: &SimulatedDisk, mut tail: Tail) {
    let start = tail.offset as usize;
    let mut bytes = Vec::new();
    let room = |bytes: &Vec<u8>| SEGMENT_BYTES as usize - start - bytes.len();
    while room(&bytes) > 0 {
        let fill = "x".repeat(room(&bytes).min(200));
        let taken = change_bytes(&message(1, &fill));
        let body = if taken > room(&bytes) { &fill[..fill.len() - (taken - room(&bytes))] } else { &fill };
        let Some(rest) = room(&bytes).checked_sub(change_bytes(&message(1, body))) else { break };
        if rest > 0 && rest < 120 {
            // The last packet takes all that is left.
            let body = "x".repeat(body.len() + rest);
            recovery::push(&mut bytes, &mut tail, &Body::Change(&message(1, &body)));
        } else {
            recovery::push(&mut bytes, &mut tail, &Body::Change(&message(1, body)));
        }
    }
    assert_eq!(room(&bytes), 0, "full to the last byte");
    disk.tamper(&segment_path(tail.segment), |content| content[start..].copy_from_slice(&bytes));
    disk.kill();
}

/// Found by fuzzing: recovery wrote it again into a segment of 4,144 bytes, which the next start refused.
#[test]
fn a_segment_without_room_for_a_marker_is_refused_and_not_written_again() {
    let disk = new_disk();
    let tail = open(&disk).unwrap().writer.tail();
    overfill(&disk, tail);
    assert!(refusal(&disk).1.contains("more stands in the segment"));
}

/// Found by fuzzing: what the head calls cleaned was removed first, and then the journal was refused.
#[test]
fn a_refused_journal_keeps_the_segments_that_its_head_calls_cleaned() {
    let disk = three_segments();
    let header = SegmentHeader::decode(&disk.content(&segment_path(3))).unwrap();
    let tail = recovery::first_tail(&header);
    overfill(&disk, tail);
    // Cut in the middle of a cleaning.
    head::record(&disk, journal(&disk).directory, Head { newest: tail.segment, first: 2 }).unwrap();
    assert!(refusal(&disk).1.contains("more stands in the segment"));
    assert!(disk.exists(&segment_path(1)).unwrap());
}

/// A forged or a later one: neither is read as something that this version knows.
#[test]
fn a_reserved_byte_and_a_length_over_the_largest_are_refused_under_a_right_crc() {
    let sealed = |mut packet: Vec<u8>| {
        let crc = crc32(&packet, 1);
        packet[20..24].copy_from_slice(&crc.to_be_bytes());
        packet
    };
    let mut small = Vec::new();
    encode(&mut small, 1, 2, 3, &Body::Change(&Change::Marks(Vec::new())));
    assert!(Packet::decode(&sealed(small.clone()), 1).is_ok());
    for reserved in [6, 7] {
        let mut packet = small.clone();
        packet[reserved] = 1;
        assert_eq!(Packet::decode(&sealed(packet), 1).err(), Some(PacketError::BadLength));
    }
    let largest = crate::limits::PACKET_BYTES_MAX;
    for (bytes, accepted) in [(largest, true), (largest + 8, false)] {
        let mut packet = small.clone();
        packet[..4].copy_from_slice(&u32::try_from(bytes - 24).unwrap().to_be_bytes());
        packet.resize(bytes, 0);
        assert_eq!(Packet::decode(&sealed(packet), 1).is_ok(), accepted, "{bytes} bytes");
    }
}

#[test]
fn a_flipped_bit_is_refused_below_the_watermark_and_never_wrong_above() {
    let disk = new_disk();
    let mut opened = open(&disk).unwrap();
    let first = append(&mut opened.writer, 1..=2)[0];
    let last = append(&mut opened.writer, 3..=3)[0];
    disk.kill();
    let flips = |placed: Placed| (placed.position.offset * 8)..(placed.end().offset * 8);
    for bit in flips(first) {
        let bad = disk.fork();
        bad.tamper(&segment_path(1), |content| content[bit as usize / 8] ^= 1 << (bit % 8));
        let error = open(&bad).err().unwrap_or_else(|| panic!("bit {bit} was not noticed"));
        let OpenError::Corrupt { file, offset, .. } = &error else { panic!("{error}") };
        assert_eq!((file.as_str(), *offset), ("journal/00000001.seg", u64::from(first.position.offset)));
        assert!(error.is_damage());
    }
    for bit in flips(last) {
        let bad = disk.fork();
        bad.tamper(&segment_path(1), |content| content[bit as usize / 8] ^= 1 << (bit % 8));
        assert_eq!(recovered(&bad), up_to(2), "bit {bit}: the unmarked last batch looks torn");
    }
}

#[test]
fn after_the_marker_every_flipped_bit_of_the_file_is_refused_or_harmless() {
    let disk = new_disk();
    let mut opened = open(&disk).unwrap();
    append(&mut opened.writer, 1..=3);
    opened.writer.mark(NOW).unwrap();
    disk.kill();
    let mut refused = 0;
    let bits = opened.writer.end().offset * 8 + 64;
    for bit in 0..bits {
        let bad = disk.fork();
        bad.tamper(&segment_path(1), |content| content[bit as usize / 8] ^= 1 << (bit % 8));
        match open(&bad) {
            Ok(opened) => assert_eq!(seqs(&bad, opened.end), up_to(3), "bit {bit}"),
            Err(OpenError::Corrupt { .. }) => refused += 1,
            Err(error) => panic!("bit {bit}: {error}"),
        }
    }
    assert!(refused > 512 * 8, "the header and all packets but the marker: {refused}");
}

#[test]
fn a_journal_truncated_at_any_length_is_refused() {
    let disk = new_disk();
    append(&mut open(&disk).unwrap().writer, 1..=3);
    disk.kill();
    for length in 0..SEGMENT_BYTES as usize {
        let short = disk.fork();
        short.tamper(&segment_path(1), |content| content.truncate(length));
        assert!(open(&short).is_err_and(|error| error.is_damage()), "length {length}");
    }
}

#[test]
fn zeros_in_place_of_anything_synced_are_refused_once_it_is_marked() {
    let disk = new_disk();
    let mut opened = open(&disk).unwrap();
    append(&mut opened.writer, 1..=3);
    let end = opened.writer.end().offset as usize;
    opened.writer.mark(NOW).unwrap();
    disk.kill();
    for start in (SEGMENT_HEADER_BYTES as usize..end).step_by(8) {
        let bad = disk.fork();
        bad.tamper(&segment_path(1), |content| content[start..end].fill(0));
        assert!(open(&bad).is_err_and(|error| error.is_damage()), "zeros from {start}");
    }
}

#[test]
fn missing_swapped_and_foreign_segments_are_refused() {
    let disk = three_segments();
    for (number, named) in [(1, 1), (2, 2)] {
        let bad = disk.fork();
        bad.remove(&segment_path(number)).unwrap();
        assert_eq!(refusal(&bad), (segment_path(named), "the segment is missing".to_owned()));
    }
    let bad = disk.fork();
    let (one, two) = (disk.content(&segment_path(1)), disk.content(&segment_path(2)));
    bad.tamper(&segment_path(1), |content| *content = two.clone());
    bad.tamper(&segment_path(2), |content| *content = one);
    assert_eq!(refusal(&bad).0, segment_path(1));
    let bad = disk.fork();
    bad.tamper(&segment_path(3), |content| *content = two);
    assert_eq!(refusal(&bad), (segment_path(3), "the segment has another number than its name".to_owned()));

    let foreign = Journal { directory: [8; 16], ..journal(&disk) };
    let error = recovery::open(foreign, None).err().unwrap();
    assert!(error.to_string().contains("another data directory"), "{error}");
}

#[test]
fn a_log_that_ends_before_what_the_index_has_applied_is_refused() {
    let disk = new_disk();
    let mut opened = open(&disk).unwrap();
    append(&mut opened.writer, 1..=1);
    let placed = append(&mut opened.writer, 2..=2)[0];
    let applied = Applied { lsn: placed.lsn, end: placed.end() };
    disk.kill();
    let good = disk.fork();
    let opened = recovery::open(journal(&good), Some(applied)).unwrap();
    assert!(opened.index_agrees);
    assert_eq!(opened.end.segment, 1, "what the index has applied was synced");
    disk.tamper(&segment_path(1), |content| content[placed.position.offset as usize] ^= 1);
    let error = recovery::open(journal(&disk), Some(applied)).err().unwrap();
    assert!(error.to_string().contains("which the index has applied"), "{error}");
    let elsewhere = Applied { lsn: 1, end: Position { segment: 1, offset: 520 } };
    assert!(!recovery::open(journal(&good), Some(elsewhere)).unwrap().index_agrees);
}

#[test]
fn what_the_index_alone_knows_to_be_synced_is_marked_at_the_next_start() {
    let disk = new_disk();
    let mut opened = open(&disk).unwrap();
    append(&mut opened.writer, 1..=1);
    let placed = append(&mut opened.writer, 2..=2)[0];
    disk.kill();
    let applied = Applied { lsn: placed.lsn, end: placed.end() };
    assert_eq!(recovery::open(journal(&disk), Some(applied)).unwrap().end.segment, 1, "it goes on in place");
    disk.kill();
    assert_eq!(recovered(&disk.fork()), up_to(2));
    // The index is lost, and a bit flips in what was acknowledged long ago.
    disk.tamper(&segment_path(1), |content| content[placed.position.offset as usize] ^= 1);
    let Err(OpenError::Corrupt { file, .. }) = open(&disk) else { panic!("it looks torn") };
    assert_eq!(file, segment_path(1));
}

/// Found by fuzzing: recovery counted on from such a header and overflowed.
#[test]
fn a_first_lsn_that_cannot_be_counted_on_is_refused() {
    let disk = new_disk();
    let header = SegmentHeader::decode(&disk.content(&segment_path(1))[..SEGMENT_HEADER_BYTES as usize]).unwrap();
    for (first_lsn, accepted) in [(u64::MAX >> 1, true), ((u64::MAX >> 1) + 1, false), (u64::MAX, false)] {
        let other = disk.fork();
        let bytes = SegmentHeader { first_lsn, ..header }.encode();
        other.tamper(&segment_path(1), |content| content[..bytes.len()].copy_from_slice(&bytes));
        assert_eq!(open(&other).is_ok(), accepted, "{first_lsn:#x}");
    }
}

#[test]
fn a_packet_of_a_newer_version_is_named_and_not_cut() {
    let disk = new_disk();
    let mut opened = open(&disk).unwrap();
    let tail = opened.writer.tail();
    let mut bytes = Vec::new();
    let crc =
        encode(&mut bytes, tail.salt, tail.next_lsn, tail.previous_crc, &Body::Watermark(packet::Watermark::default()));
    // Kind 0x17 under the same CRC: a later version's.
    let old = crc32(&bytes, tail.salt);
    assert_eq!(old, crc);
    bytes[4] = 0x17;
    let new = crc32(&bytes, tail.salt);
    bytes[20..24].copy_from_slice(&new.to_be_bytes());
    disk.tamper(&segment_path(1), |content| {
        content[tail.offset as usize..tail.offset as usize + bytes.len()].copy_from_slice(&bytes);
    });
    disk.kill();
    assert!(matches!(open(&disk).err(), Some(OpenError::NewerFormat { .. })));
    assert!(opened.writer.append_batch(&[], NOW).unwrap().is_empty());
}

fn crc32(packet: &[u8], salt: u32) -> u32 {
    let mut hasher = crc32fast::Hasher::new_with_initial(salt);
    hasher.update(&packet[..20]);
    hasher.update(&packet[24..]);
    hasher.finalize()
}
