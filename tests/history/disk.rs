//! Where the data lies: a small file system of its own with a foreign file beside the data, if one can be mounted.

use std::fs::File;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::Command;

const MIB: u64 = 1 << 20;
/// Less than a server of 4 MiB segments wants free for another one, and enough for its index.
const LEFT_BYTES: u64 = 10 * MIB;

/// Gone when it is dropped.
#[derive(Debug)]
pub(crate) struct Disk {
    place: tempfile::TempDir,
    /// It has a size, and can be full.
    pub(crate) is_small: bool,
}

impl Disk {
    /// A tmpfs of so many MiB; without the right to mount a plain directory, and that is said.
    pub(crate) fn make(mib: u64) -> Self {
        let place = tempfile::tempdir().expect("a temporary directory");
        let size = format!("size={mib}m");
        let mounted = Command::new("mount").args(["-t", "tmpfs", "-o", &size, "history"]).arg(place.path()).output();
        let why = match mounted {
            Ok(output) if output.status.success() => return Self { place, is_small: true },
            Ok(output) => String::from_utf8_lossy(&output.stderr).trim().to_owned(),
            Err(error) => error.to_string(),
        };
        println!("SKIPPED: full disks, because a tmpfs cannot be mounted here: {why}");
        Self { place, is_small: false }
    }

    pub(crate) fn path(&self) -> &Path {
        self.place.path()
    }

    fn free_bytes(&self) -> u64 {
        let state = rustix::fs::statvfs(self.place.path()).expect("its state");
        state.f_bavail * state.f_frsize
    }

    /// A foreign file takes what is left, but for what lets a server start: from there on changes are refused.
    pub(crate) fn fill(&self) {
        let mut file = File::options().append(true).create(true).open(self.foreign()).expect("a file");
        let zeros = vec![0; 64 * 1024];
        // The server takes and gives back at the same time.
        while self.free_bytes() > LEFT_BYTES + zeros.len() as u64 && file.write_all(&zeros).is_ok() {}
    }

    /// The same, to the last byte.
    pub(crate) fn fill_to_the_last_byte(&self) {
        self.fill();
        let mut file = File::options().append(true).create(true).open(self.foreign()).expect("a file");
        while file.write_all(&[0; 4096]).is_ok() {}
    }

    /// The foreign file is gone.
    pub(crate) fn give_back(&self) {
        let _ = std::fs::remove_file(self.foreign());
    }

    fn foreign(&self) -> PathBuf {
        self.place.path().join("foreign")
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        if self.is_small {
            let _ = Command::new("umount").arg("-l").arg(self.place.path()).status();
        }
    }
}
