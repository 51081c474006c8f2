//! What no durable change can go below: one write and one `fdatasync` of its bytes.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::Path;

/// A file that was filled with zeros beforehand, and is written from its beginning again when it ends: so that a sync
/// changes no metadata.
pub(crate) struct RawFile {
    file: File,
    written: u64,
}

impl RawFile {
    const BYTES: u64 = 64 << 20;
    /// Of one write at most.
    const WRITE_BYTES_MAX: u64 = 1 << 20;

    pub(crate) fn new(path: &Path) -> Self {
        let file = File::create(path).expect("a file");
        file.write_all_at(&vec![0; usize::try_from(Self::BYTES).expect("it fits")], 0).expect("room");
        file.sync_all().expect("a disk");
        Self { file, written: 0 }
    }

    /// `pwrite` and `fdatasync`.
    pub(crate) fn write(&mut self, bytes: &[u8]) {
        self.file.write_all_at(bytes, self.written % (Self::BYTES - Self::WRITE_BYTES_MAX)).expect("room");
        self.written += bytes.len() as u64;
        self.file.sync_data().expect("a disk");
    }
}
