//! Power cuts at each operation of a commit; and a kill, a start that goes on, then a power cut: what a start finds may
//! be in memory only, names too.

use super::segment::segment_path;
use super::tests::{NOW, append, message, new_disk, open, recovered, up_to};
use crate::store::disk::Disk as _;
use crate::store::disk::simulated::{Fault, SimulatedDisk};

/// Starts, acknowledges one more, and cuts the power.
fn go_on_and_cut(disk: &SimulatedDisk, acknowledged: u64, when: &str) {
    disk.kill();
    let mut opened = open(disk).unwrap();
    let before = super::tests::seqs(disk, opened.end);
    assert!(before.len() as u64 >= acknowledged, "{when}: {before:?}");
    let next = before.len() as u64 + 1;
    append(&mut opened.writer, next..=next);
    disk.crash(|_| false);
    assert_eq!(recovered(disk), up_to(next), "{when}");
}

#[test]
fn a_commit_and_its_marker_cut_by_power_at_any_operation_lose_nothing_acknowledged() {
    for nth in 1.. {
        let disk = new_disk();
        disk.split_writes(16);
        let mut opened = open(&disk).unwrap();
        let before = disk.operations();
        disk.fail(nth, Fault::FromThenOn);
        let mut acknowledged = 0;
        for batch in [1..=1, 2..=3] {
            let changes: Vec<_> = batch.clone().map(|seq| message(seq, "a body")).collect();
            if opened.writer.append_batch(&changes, NOW).is_err() {
                break;
            }
            acknowledged = *batch.end();
            if opened.writer.mark(NOW).is_err() {
                break;
            }
        }
        let complete = disk.operations() - before < nth;
        for keep in 0..4_usize {
            let cut = disk.fork();
            cut.crash(|pending| keep == 3 || (keep > 0 && pending % 2 == keep - 1));
            let seqs = recovered(&cut);
            assert!(seqs.len() as u64 >= acknowledged, "operation {nth}, keep {keep}: {acknowledged} > {seqs:?}");
            assert_eq!(seqs, up_to(seqs.len() as u64));
            cut.crash(|_| false);
            assert_eq!(recovered(&cut), seqs, "what a start has shown is durable");
        }
        if complete {
            assert_eq!(acknowledged, 3);
            break;
        }
    }
}

#[test]
fn what_is_acknowledged_after_a_kill_in_a_roll_survives_the_power_cut_that_follows() {
    for nth in 1.. {
        let disk = new_disk();
        let mut opened = open(&disk).unwrap();
        let before = disk.operations();
        disk.fail(nth, Fault::FromThenOn);
        let mut acknowledged = 0;
        for seq in 1..=30 {
            if opened.writer.append_batch(&[message(seq, "a body of some length to fill it")], NOW).is_err() {
                break;
            }
            acknowledged = seq;
        }
        let complete = disk.operations() - before < nth;
        go_on_and_cut(&disk, acknowledged, &format!("operation {nth}"));
        if complete {
            break;
        }
    }
}

#[test]
fn what_is_acknowledged_after_a_kill_in_a_recovery_survives_the_power_cut_that_follows() {
    for nth in 1.. {
        let disk = new_disk();
        append(&mut open(&disk).unwrap().writer, 1..=3);
        disk.kill();
        disk.fail(nth, Fault::FromThenOn);
        let whole = open(&disk).is_ok();
        go_on_and_cut(&disk, 3, &format!("operation {nth}"));
        if whole {
            break;
        }
    }
}

#[test]
fn a_recovery_that_is_killed_at_any_operation_and_again_spends_one_segment() {
    for nth in 1.. {
        let disk = new_disk();
        append(&mut open(&disk).unwrap().writer, 1..=3);
        disk.kill();
        let mut whole = false;
        for _ in 0..3 {
            disk.fail(nth, Fault::FromThenOn);
            whole = open(&disk).is_ok();
            disk.kill();
        }
        assert_eq!(recovered(&disk), up_to(3));
        assert!(disk.exists(&segment_path(2)).unwrap());
        assert!(!disk.exists(&segment_path(3)).unwrap(), "operation {nth}");
        if whole {
            break;
        }
    }
}
