//! How long one `fdatasync` takes on the disk that is measured.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::time::Instant;

use super::failed;
use super::sample::{Latency, count};
use crate::cli::failure::Failure;

const SYNCS: u64 = 200;
/// About a message in the journal.
const RECORD: [u8; 320] = [b'x'; 320];

/// The median of many, each of a small record behind the last, in a file that was filled before; in microseconds.
pub(super) fn sync_time_us(directory: Option<&Path>) -> Result<f64, Failure> {
    let place = directory.map_or_else(std::env::temp_dir, Path::to_path_buf);
    let measure = || {
        let file: File = tempfile::tempfile_in(&place)?;
        file.write_all_at(&vec![0; 1 << 20], 0)?;
        file.sync_all()?;
        let mut latency = Latency::new();
        for number in 0..SYNCS {
            let begun = Instant::now();
            file.write_all_at(&RECORD, number * count(RECORD.len()))?;
            file.sync_data()?;
            latency.record(begun.elapsed());
        }
        Ok(latency.p50_us())
    };
    measure().map_err(|error: std::io::Error| failed(format!("cannot sync a file in {}: {error}", place.display())))
}
