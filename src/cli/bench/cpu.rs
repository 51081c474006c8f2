//! What a process has used, as the kernel counts it: CPU in nanoseconds, memory in bytes.

use std::fs;

/// CPU time of a process so far, in nanoseconds: the sum over its threads of the first field of `schedstat`
/// (Documentation/scheduler/sched-stats.rst). Clock ticks of 10 ms would be too coarse for a round of a second. What
/// threads used that have ended is not in it. `None` where the kernel does not say, or there is no such process.
pub(super) fn cpu_ns(process: u32) -> Option<u64> {
    let threads = fs::read_dir(format!("/proc/{process}/task")).ok()?;
    let mut sum_ns = 0_u64;
    let mut counted = false;
    for thread in threads {
        // A thread may end between the two look-ups.
        let Ok(text) = fs::read_to_string(thread.ok()?.path().join("schedstat")) else { continue };
        sum_ns = sum_ns.saturating_add(text.split_whitespace().next()?.parse().ok()?);
        counted = true;
    }
    counted.then_some(sum_ns)
}

/// Memory that a process alone has and has written to, in bytes: `Private_Dirty` of `smaps_rollup`. The program's own
/// text, and pages that are shared with others, are not in it.
pub(super) fn private_dirty_bytes(process: u32) -> Option<u64> {
    let text = fs::read_to_string(format!("/proc/{process}/smaps_rollup")).ok()?;
    let line = text.lines().find_map(|line| line.strip_prefix("Private_Dirty:"))?;
    let kib: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    kib.checked_mul(1024)
}

#[cfg(test)]
mod tests {
    use std::hint::black_box;
    use std::time::{Duration, Instant};

    use super::*;

    #[test]
    fn cpu_grows_by_what_was_computed() {
        let own = std::process::id();
        let before = cpu_ns(own).expect("the kernel counts");
        let begun = Instant::now();
        let mut sum = 0_u64;
        while begun.elapsed() < Duration::from_millis(30) {
            sum = black_box(sum.wrapping_mul(31).wrapping_add(7));
        }
        // At least one tick of the scheduler, however busy the machine is.
        assert!(cpu_ns(own).expect("still") > before + 1_000_000);
    }

    #[test]
    fn memory_grows_by_what_was_written() {
        let own = std::process::id();
        let before = private_dirty_bytes(own).expect("the kernel counts");
        let written = black_box(vec![1_u8; 32 << 20]);
        let after = private_dirty_bytes(own).expect("still");
        assert!(after >= before + (24 << 20), "{before} and then {after} with {} written", written.len());
    }

    #[test]
    fn nothing_is_made_up_for_a_process_that_is_not_there() {
        assert_eq!((cpu_ns(0), private_dirty_bytes(0)), (None, None));
    }
}
