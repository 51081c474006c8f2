//! What the head guarantees, on the simulated disk.

use super::head::{self, HEAD_FILE, Head};
use super::segment::segment_path;
use super::tests::{NOW, append, message, new_disk, open, recovered, refusal, three_segments, up_to};
use crate::store::OpenError;
use crate::store::disk::Disk as _;
use crate::store::disk::simulated::{Fault, SimulatedDisk};

const PATH: &str = "journal/HEAD";
const DIRECTORY: [u8; 16] = [9; 16];

fn newest(disk: &SimulatedDisk) -> u32 {
    let files = disk.list("journal").unwrap();
    files.iter().filter_map(|file| super::segment::segment_number(&file.name)).max().unwrap()
}

fn is_missed(disk: &SimulatedDisk, number: u32) {
    let bad = disk.fork();
    bad.remove(&segment_path(number)).unwrap();
    assert_eq!(refusal(&bad), (segment_path(number), "the segment is missing".to_owned()));
}

#[test]
fn a_last_segment_that_is_lost_whole_is_missed() {
    let disk = three_segments();
    is_missed(&disk, 3);
    // One that recovery has made, and one that nothing was written to.
    open(&disk).unwrap();
    assert_eq!(newest(&disk), 4);
    is_missed(&disk, 4);
    let empty = new_disk();
    is_missed(&empty, 1);
}

#[test]
fn a_segment_is_missed_from_its_first_acknowledgement_on_whatever_operation_the_power_goes_at() {
    let mut rolled = false;
    for nth in 1.. {
        let disk = new_disk();
        disk.split_writes(16);
        let mut opened = open(&disk).unwrap();
        let before = disk.operations();
        disk.fail(nth, Fault::FromThenOn);
        let (mut seq, mut acknowledged_in) = (0, 0);
        while acknowledged_in < 3 {
            let Ok(placed) = opened.writer.append_batch(&[message(seq + 1, "a body to fill it")], NOW) else { break };
            seq += 1;
            acknowledged_in = placed[0].position.segment;
        }
        let complete = disk.operations() - before < nth;
        for keep in 0..4_usize {
            let cut = disk.fork();
            cut.crash(|pending| keep == 3 || (keep > 0 && pending % 2 == keep - 1));
            rolled |= acknowledged_in > 1;
            if acknowledged_in == newest(&cut) {
                is_missed(&cut, acknowledged_in);
            }
            // A head that is one behind, or torn, is as good.
            let seqs = recovered(&cut);
            assert!(seqs.len() as u64 >= seq, "operation {nth}, keep {keep}");
            is_missed(&cut, newest(&cut));
        }
        if complete {
            break;
        }
    }
    assert!(rolled);
}

#[test]
fn two_recoveries_in_a_row_cut_at_any_two_operations_find_a_head_that_fits() {
    let mut cuts = 0;
    for first in 1.. {
        let mut first_is_whole = false;
        for second in 1.. {
            let disk = new_disk();
            disk.split_writes(16);
            append(&mut open(&disk).unwrap().writer, 1..=3);
            disk.kill();
            disk.fail(first, Fault::FromThenOn);
            first_is_whole = open(&disk).is_ok();
            // What a kill leaves, and what a power cut leaves.
            if second % 2 == 0 {
                disk.kill();
            } else {
                disk.crash(|pending| pending % 2 == 0);
            }
            disk.fail(second, Fault::FromThenOn);
            let second_is_whole = open(&disk).is_ok();
            disk.crash(|pending| pending % 2 == 1);
            assert_eq!(recovered(&disk), up_to(3), "cut at operations {first} and {second}");
            is_missed(&disk, newest(&disk));
            cuts += 1;
            if second_is_whole {
                break;
            }
        }
        if first_is_whole {
            break;
        }
    }
    assert!(cuts > 50, "{cuts}");
}

#[test]
fn every_flipped_bit_of_the_head_is_harmless() {
    let disk = three_segments();
    for bit in 0..8192 * 8 {
        // Beyond the slots there is nothing; a part of it is enough.
        if bit % (4096 * 8) > 40 * 8 && bit % 4099 != 0 {
            continue;
        }
        let bad = disk.fork();
        bad.tamper(PATH, |content| content[bit / 8] ^= 1 << (bit % 8));
        open(&bad).unwrap_or_else(|error| panic!("bit {bit}: {error}"));
        is_missed(&bad, newest(&bad));
    }
}

#[test]
fn a_head_that_is_missing_or_damaged_as_a_whole_is_named() {
    let disk = three_segments();
    let refused = |change: &dyn Fn(&SimulatedDisk)| {
        let bad = disk.fork();
        change(&bad);
        let (file, reason) = refusal(&bad);
        assert_eq!(file, PATH);
        reason
    };
    assert_eq!(refused(&|bad| bad.remove(PATH).unwrap()), "it is missing");
    assert_eq!(refused(&|bad| bad.tamper(PATH, |content| content.fill(0))), "neither of its slots is whole");
    assert_eq!(refused(&|bad| bad.tamper(PATH, |content| content.truncate(36))), "it has 36 bytes instead of 8192");
    let foreign = |bad: &SimulatedDisk| {
        head::record(bad, [8; 16], Head { newest: 2, first: 1 }).unwrap();
        head::record(bad, [8; 16], Head { newest: 3, first: 1 }).unwrap();
    };
    assert_eq!(refused(&foreign), "it belongs to another data directory");
    let older = |bad: &SimulatedDisk| {
        bad.remove(PATH).unwrap();
        head::create(bad, DIRECTORY).unwrap();
    };
    assert_eq!(refused(&older), "it names segment 0 as the newest, and there are 3");
    let newer = disk.fork();
    newer.tamper(PATH, |content| {
        content[11] = 3;
        let crc = crc32fast::hash(&content[..36]);
        content[36..40].copy_from_slice(&crc.to_be_bytes());
    });
    assert!(matches!(open(&newer).err(), Some(OpenError::NewerFormat { found: 3, .. })));
}

#[test]
fn a_head_has_the_documented_bytes() {
    let disk = new_disk();
    let content = disk.content(&format!("journal/{HEAD_FILE}"));
    assert_eq!(content.len(), 8192);
    for (slot, number) in [(0, 0), (4096, 1)] {
        assert_eq!(
            content[slot..slot + 16],
            [b'R', b'T', b'J', b'R', b'H', b'E', b'A', b'D', 0, 0, 0, 2, 0, 0, 0, number]
        );
        assert_eq!(content[slot + 16..slot + 32], DIRECTORY);
        assert_eq!(content[slot + 32..slot + 36], [0, 0, 0, 1]);
        assert_eq!(content[slot + 36..slot + 40], crc32fast::hash(&content[slot..slot + 36]).to_be_bytes());
    }
}
