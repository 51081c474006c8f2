//! What the journal guarantees, on the simulated disk.

#![allow(clippy::cast_possible_truncation, clippy::format_push_string, clippy::large_stack_arrays)]

use std::sync::Arc;

use super::packet::{Body, Packet, PacketError, WATERMARK_BYTES, encode};
use super::recovery;
use super::segment::{SEGMENT_HEADER_BYTES, segment_path};
use super::writer::{Journal, change_bytes};
use super::*;
use crate::group::{Entry, Event, Succession};
use crate::ids::{GroupId, OperationId, Principal, UserId};
use crate::store::disk::DiskFile as _;
use crate::store::disk::simulated::{Fault, SimulatedDisk};
use crate::store::disk::{Disk as _, DiskErrorKind};
use crate::store::{Change, Effect, Mark, OpenError};

pub(super) const SEGMENT_BYTES: u32 = 4096;
pub(super) const NOW: Now = Now { running_ms: 5, wall_ms: 7 };

pub(crate) fn user(text: &str) -> UserId {
    UserId::new(text).unwrap()
}

pub(crate) fn group(number: u8) -> GroupId {
    GroupId::from_bytes([number; 16]).unwrap()
}

pub(crate) fn effect(group: GroupId, seq: u64, version: u64, sender: &str, event: Event) -> Change {
    let mut operation = [1; 16];
    operation[..8].copy_from_slice(&seq.to_be_bytes());
    operation[8..].copy_from_slice(&group.as_bytes()[..8]);
    Change::Effect(Effect {
        principal: Principal::User(user(sender)),
        operation: OperationId::from_bytes(operation).unwrap(),
        fingerprint: seq * 31,
        group,
        entry: Arc::new(Entry { seq, version, at_ms: 1000 + seq, sender: user(sender), by: None, event }),
    })
}

pub(crate) fn message(seq: u64, body: &str) -> Change {
    effect(group(1), seq, 1, "49", Event::Message { body: body.as_bytes().into() })
}

pub(super) fn journal(disk: &SimulatedDisk) -> Journal<SimulatedDisk> {
    let mut salt = 0x5a17_0000;
    let salts = Box::new(move || {
        salt += 1;
        salt
    });
    Journal { disk: disk.clone(), directory: [9; 16], segment_bytes: SEGMENT_BYTES, salts }
}

pub(super) fn new_disk() -> SimulatedDisk {
    let disk = SimulatedDisk::new();
    recovery::create(&mut journal(&disk)).unwrap();
    disk
}

pub(super) fn open(disk: &SimulatedDisk) -> Result<Opened<SimulatedDisk>, OpenError> {
    recovery::open(journal(disk), None)
}

/// The seqs of all effects in the journal, as a reader sees them.
pub(super) fn seqs(disk: &SimulatedDisk, end: Position) -> Vec<u64> {
    let mut seqs = Vec::new();
    let mut last = 0;
    let start = Position { segment: 1, offset: SEGMENT_HEADER_BYTES };
    JournalReader::new(disk.clone(), SEGMENT_BYTES)
        .walk::<ReadError>(start, end, |packet| {
            assert_eq!(packet.placed.lsn, last + 1, "LSNs have no gap");
            last = packet.placed.lsn;
            if let Content::Effect(effect) = packet.content {
                seqs.push(effect.entry.seq);
            }
            Ok(())
        })
        .unwrap();
    seqs
}

pub(super) fn recovered(disk: &SimulatedDisk) -> Vec<u64> {
    let end = open(disk).map(|opened| opened.end).unwrap();
    seqs(disk, end)
}

pub(super) fn append(writer: &mut Writer<SimulatedDisk>, seqs: std::ops::RangeInclusive<u64>) -> Vec<Placed> {
    let changes: Vec<Change> = seqs.map(|seq| message(seq, "hello")).collect();
    writer.append_batch(&changes, NOW).unwrap()
}

pub(super) fn up_to(last: u64) -> Vec<u64> {
    (1..=last).collect()
}

#[test]
fn bodies_read_back_and_take_the_bytes_that_are_counted() {
    let (a, b) = (user("алиса"), user("b"));
    let members = vec![a.clone(), b.clone()];
    let events = vec![
        Event::Created { title: "t".into(), members: members.clone() },
        Event::Added { members: members.clone() },
        Event::Removed { members: members.clone() },
        Event::Left { succession: Succession::Unchanged },
        Event::Left { succession: Succession::Passed { owner: b.clone() } },
        Event::Left { succession: Succession::Dissolved },
        Event::Renamed { title: "".into() },
        Event::Transferred { owner: a.clone() },
        Event::Dissolved,
        Event::Message { body: vec![0, 255].into() },
        Event::Whisper { to: members, body: vec![1; 65_536].into() },
    ];
    let mut changes: Vec<Change> = events.into_iter().map(|event| effect(group(3), 9, 9, "s", event)).collect();
    if let Some(Change::Effect(by_service)) = changes.first().cloned().as_mut() {
        by_service.principal = crate::ids::Principal::Service(b.clone());
        Arc::make_mut(&mut by_service.entry).by = Some(b.clone());
        changes.push(Change::Effect(by_service.clone()));
    }
    changes.push(Change::Marks(vec![Mark { user: a, group: group(2), received: 7, read: 3 }; 5]));
    for change in &changes {
        let mut bytes = Vec::new();
        encode(&mut bytes, 1, 2, 3, &Body::Change(change));
        assert_eq!(bytes.len(), change_bytes(change));
        let mut body = Vec::new();
        crate::store::record::encode_change(&mut crate::codec::Writer::new(&mut body), change);
        assert_eq!(body.len(), crate::store::record::change_body_bytes(change), "to the byte, padding aside");
        let content = Packet::decode(&bytes, 1).unwrap().content().unwrap();
        match (change, content) {
            (Change::Effect(written), Content::Effect(read)) => assert_eq!(*written, read),
            (Change::Marks(written), Content::Marks(read)) => assert_eq!(*written, read),
            (change, content) => panic!("{change:?} was read as {content:?}"),
        }
    }
}

#[test]
fn a_packet_has_the_documented_bytes() {
    let mut bytes = Vec::new();
    encode(&mut bytes, 0xdead_beef, 7, 0x0102_0304, &Body::Change(&Change::Marks(Vec::new())));
    assert_eq!(bytes.len(), 32);
    assert_eq!(bytes[..20], [0, 0, 0, 4, 2, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 7, 1, 2, 3, 4]);
    assert_eq!(bytes[24..], [0; 8]);
    assert_eq!(Packet::decode(&bytes, 0xdead_beee).err(), Some(PacketError::BadCrc), "the salt is part of the CRC");
    assert_eq!(Packet::decode(&[0; 64], 1).err(), Some(PacketError::Empty));
}

#[test]
fn acknowledged_effect_survives_crash_before_next_sync() {
    let disk = new_disk();
    let mut opened = open(&disk).unwrap();
    append(&mut opened.writer, 1..=3);
    append(&mut opened.writer, 4..=4);
    disk.crash(|_| false);
    assert_eq!(recovered(&disk), up_to(4));
}

#[test]
fn control_without_syncs_the_power_cut_loses() {
    let disk = new_disk();
    let mut opened = open(&disk).unwrap();
    disk.ignore_syncs();
    append(&mut opened.writer, 1..=3);
    disk.crash(|_| false);
    assert_eq!(recovered(&disk), up_to(0), "this is what a test on this disk can see");
}

#[test]
fn a_marker_is_written_once_and_an_idle_journal_goes_on_in_place() {
    let disk = new_disk();
    let mut opened = open(&disk).unwrap();
    append(&mut opened.writer, 1..=2);
    assert!(opened.writer.needs_mark());
    let before = opened.writer.end();
    opened.writer.mark(NOW).unwrap();
    opened.writer.mark(NOW).unwrap();
    assert_eq!(opened.writer.end().offset - before.offset, WATERMARK_BYTES as u32);
    disk.kill();
    let mut opened = open(&disk).unwrap();
    assert_eq!(opened.end.segment, 1, "nothing to write again, no new segment");
    assert_eq!(opened.last, NOW);
    append(&mut opened.writer, 3..=3);
    disk.crash(|_| false);
    assert_eq!(recovered(&disk), up_to(3));
}

#[test]
fn recovery_twice_is_recovery_once() {
    let disk = new_disk();
    let mut opened = open(&disk).unwrap();
    append(&mut opened.writer, 1..=3);
    disk.kill();
    let first = open(&disk).unwrap().end;
    assert_eq!(first.segment, 2, "what was above the watermark was written again");
    let content = disk.content(&segment_path(2));
    disk.kill();
    assert_eq!(open(&disk).unwrap().end, first);
    assert_eq!(disk.content(&segment_path(2)), content);
    assert_eq!(seqs(&disk, first), up_to(3));
}

#[test]
fn a_journal_that_goes_on_in_place_keeps_its_space() {
    let disk = SimulatedDisk::new();
    let large = || Journal { segment_bytes: 16 * SEGMENT_BYTES, ..journal(&disk) };
    recovery::create(&mut large()).unwrap();
    let mut opened = recovery::open(large(), None).unwrap();
    append(&mut opened.writer, 1..=2);
    opened.writer.mark(NOW).unwrap();
    disk.kill();
    assert_eq!(recovery::open(large(), None).unwrap().end.segment, 1);
    assert_eq!(disk.released_bytes(), 0, "what is written next needs no space");
}

#[test]
fn recovery_gives_the_zeros_of_the_ended_segment_back_and_changes_no_byte_of_it() {
    const LARGE: u32 = 16 * SEGMENT_BYTES;
    let large = |disk: &SimulatedDisk| Journal { segment_bytes: LARGE, ..journal(disk) };
    let disk = SimulatedDisk::new();
    recovery::create(&mut large(&disk)).unwrap();
    let mut opened = recovery::open(large(&disk), None).unwrap();
    append(&mut opened.writer, 1..=3);
    // Not what the disk left of a write, but as far behind.
    let torn = opened.writer.end().offset as usize + 2 * SEGMENT_BYTES as usize;
    disk.tamper(&segment_path(1), |content| content[torn] = 1);
    let before = disk.content(&segment_path(1));
    for nth in 1.. {
        let cut = disk.fork();
        cut.kill();
        let operations = cut.operations();
        cut.fail(nth, Fault::Once);
        let whole = recovery::open(large(&cut), None).is_ok();
        assert_eq!(cut.content(&segment_path(1)), before, "the torn tail is left for whoever looks");
        cut.kill();
        let end = recovery::open(large(&cut), None).unwrap().end;
        assert_eq!(cut.content(&segment_path(1)), before);
        // Whichever start it was: the one that ended the segment, or the one after a kill in between.
        let rest_min = u64::from(LARGE) - 4 * u64::from(SEGMENT_BYTES);
        assert!(cut.released_bytes() >= u64::from(end.segment - 1) * rest_min, "operation {nth}");
        assert!((2..=3).contains(&end.segment));
        if whole && cut.operations() - operations < nth {
            break;
        }
    }
}

#[test]
fn recovery_cut_by_power_at_any_operation_loses_nothing() {
    for nth in 1.. {
        let disk = new_disk();
        let mut opened = open(&disk).unwrap();
        append(&mut opened.writer, 1..=3);
        disk.kill();
        let before = disk.operations();
        disk.fail(nth, Fault::FromThenOn);
        let failed = open(&disk).is_err();
        let operations = disk.operations() - before;
        disk.crash(|pending| pending % 2 == 0);
        assert_eq!(recovered(&disk), up_to(3), "cut at operation {nth}");
        if !failed && operations < nth {
            break;
        }
    }
}

#[test]
fn every_subset_of_pending_writes_leaves_a_prefix() {
    let disk = new_disk();
    let mut opened = open(&disk).unwrap();
    append(&mut opened.writer, 1..=2);
    disk.split_writes(48);
    let file = disk.open(&segment_path(1)).unwrap();
    // The next batch reaches the file, and the power goes before the sync returns.
    let start = opened.writer.end().offset;
    let twin = disk.fork();
    let mut writer = open_without_recovery(&twin, &opened.writer);
    append(&mut writer, 3..=4);
    let content = twin.content(&segment_path(1));
    let end = writer.end().offset;
    file.write_at(u64::from(start), &content[start as usize..end as usize]).unwrap();
    let pending = disk.pending();
    assert!((5..=10).contains(&pending), "{pending} writes are pending");
    for subset in 0..1_u32 << pending {
        let cut = disk.fork();
        cut.crash(|write| subset >> write & 1 == 1);
        let seqs = recovered(&cut);
        assert!(seqs.len() >= 2 && seqs == up_to(seqs.len() as u64), "subset {subset:b} gave {seqs:?}");
        assert!(subset + 1 != 1 << pending || seqs.len() == 4);
        cut.kill();
        assert_eq!(recovered(&cut), seqs, "and the same again");
    }
}

/// A writer that goes on where another stands, on a copy of its disk.
fn open_without_recovery(disk: &SimulatedDisk, writer: &Writer<SimulatedDisk>) -> Writer<SimulatedDisk> {
    Writer::new(journal(disk), disk.open(&segment_path(writer.end().segment)).unwrap(), writer.tail(), 1)
}

#[test]
fn every_byte_prefix_of_the_last_batch_is_cut_to_whole_packets() {
    let disk = new_disk();
    let mut opened = open(&disk).unwrap();
    append(&mut opened.writer, 1..=2);
    let start = opened.writer.end().offset as usize;
    append(&mut opened.writer, 3..=4);
    let end = opened.writer.end().offset as usize;
    disk.kill();
    for garbage in [0x00, 0xff] {
        for cut in start..=end {
            let torn = disk.fork();
            torn.tamper(&segment_path(1), |content| content[cut..end].fill(garbage));
            let seqs = recovered(&torn);
            assert!(seqs.len() >= 2 && seqs == up_to(seqs.len() as u64), "cut at {cut}: {seqs:?}");
        }
    }
}

#[test]
fn rolling_keeps_everything_whatever_operation_the_power_goes_at() {
    let mut rolled = false;
    for nth in 1.. {
        let disk = new_disk();
        let mut opened = open(&disk).unwrap();
        let before = disk.operations();
        disk.fail(nth, Fault::FromThenOn);
        let mut acknowledged = 0;
        for seq in 1..=40 {
            if opened.writer.append_batch(&[message(seq, "a body of some length to fill it")], NOW).is_err() {
                break;
            }
            acknowledged = seq;
        }
        rolled |= opened.writer.end().segment > 2;
        let complete = disk.operations() - before < nth;
        for keep in 0..4_usize {
            let cut = disk.fork();
            cut.crash(|pending| keep == 3 || (keep > 0 && pending % 2 == keep - 1));
            let seqs = recovered(&cut);
            assert!(seqs.len() as u64 >= acknowledged, "operation {nth}, keep {keep}: {acknowledged} > {seqs:?}");
            assert_eq!(seqs, up_to(seqs.len() as u64));
        }
        if complete {
            break;
        }
    }
    assert!(rolled);
}

#[test]
fn a_torn_tail_right_behind_a_roll_is_cut() {
    let disk = new_disk();
    let mut opened = open(&disk).unwrap();
    let mut seq = 0;
    let place = loop {
        seq += 1;
        let place = append(&mut opened.writer, seq..=seq)[0];
        if place.position.segment == 2 {
            break place;
        }
    };
    disk.kill();
    disk.tamper(&segment_path(2), |content| content[place.position.offset as usize + 30] ^= 1);
    assert_eq!(recovered(&disk), up_to(seq - 1));
    disk.kill();
    let opened = open(&disk).unwrap();
    assert_eq!(opened.end.segment, 3);
}

#[test]
fn a_failed_write_or_sync_poisons_the_writer() {
    for nth in [1, 2] {
        let disk = new_disk();
        let mut opened = open(&disk).unwrap();
        append(&mut opened.writer, 1..=1);
        disk.fail(nth, Fault::Once);
        let error = opened.writer.append_batch(&[message(2, "x")], NOW).unwrap_err();
        assert_eq!(opened.writer.append_batch(&[message(2, "x")], NOW), Err(error), "no retry, the same answer");
        assert!(opened.writer.mark(NOW).is_ok() || !opened.writer.needs_mark());
        disk.crash(|_| true);
        assert!(recovered(&disk).starts_with(&[1]));
    }
}

#[test]
fn what_a_failed_sync_left_in_memory_is_synced_again_before_it_counts() {
    let disk = new_disk();
    let mut opened = open(&disk).unwrap();
    append(&mut opened.writer, 1..=1);
    disk.fail(2, Fault::Once);
    opened.writer.append_batch(&[message(2, "x")], NOW).unwrap_err();
    disk.kill();
    let accepted = recovered(&disk);
    disk.crash(|_| false);
    assert_eq!(recovered(&disk), accepted, "what one start showed, the next one shows too");
}

pub(super) fn three_segments() -> SimulatedDisk {
    let disk = new_disk();
    let mut opened = open(&disk).unwrap();
    let mut seq = 0;
    while opened.writer.end().segment < 3 {
        seq += 1;
        append(&mut opened.writer, seq..=seq);
    }
    disk.kill();
    disk
}

pub(super) fn refusal(disk: &SimulatedDisk) -> (String, String) {
    match open(disk).err().unwrap() {
        OpenError::Corrupt { file, reason, .. } => (file, reason),
        error => panic!("{error}"),
    }
}

#[test]
fn a_first_start_cut_by_power_at_any_operation_is_begun_again() {
    for nth in 1..40 {
        let disk = SimulatedDisk::new();
        disk.fail(nth, Fault::FromThenOn);
        let made = recovery::create(&mut journal(&disk));
        disk.crash(|pending| pending % 2 == 1);
        assert!(recovery::is_unused(&disk).unwrap(), "operation {nth}");
        if made.is_ok() {
            return;
        }
    }
    panic!("it never succeeded");
}

#[test]
fn a_full_disk_at_a_roll_is_a_failure_and_not_an_acknowledgement() {
    let disk = new_disk();
    let mut opened = open(&disk).unwrap();
    disk.set_capacity(Some(u64::from(SEGMENT_BYTES) + 100));
    let mut seq = 0;
    let error = loop {
        seq += 1;
        if let Err(error) = opened.writer.append_batch(&[message(seq, "x")], NOW) {
            break error;
        }
    };
    assert_eq!(error.kind, DiskErrorKind::NoSpace);
    disk.set_capacity(None);
    disk.crash(|_| false);
    assert_eq!(recovered(&disk), up_to(seq - 1));
}
