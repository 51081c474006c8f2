//! A small file system, which can be full.
//!
//! It is a tmpfs, which needs the right to mount. Where that is missing the tests say so and check nothing.

use std::fs::File;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::Command;

pub(crate) const MIB: u64 = 1 << 20;

/// A small file system; gone when it is dropped.
pub(crate) struct Disk {
    place: tempfile::TempDir,
}

impl Disk {
    /// One of so many bytes; nothing where it cannot be mounted, and then it was said why.
    pub(crate) fn mount(bytes: u64) -> Option<Self> {
        let place = tempfile::tempdir().expect("a temporary directory");
        let size = format!("size={bytes}");
        let mounted = Command::new("mount").args(["-t", "tmpfs", "-o", &size, "small-disk"]).arg(place.path()).output();
        let why = match mounted {
            Ok(output) if output.status.success() => return Some(Self { place }),
            Ok(output) => String::from_utf8_lossy(&output.stderr).trim().to_owned(),
            Err(error) => error.to_string(),
        };
        println!("SKIPPED, nothing was checked: a tmpfs cannot be mounted here: {why}");
        None
    }

    /// Gives it another size.
    pub(crate) fn resize(&self, bytes: u64) {
        let size = format!("remount,size={bytes}");
        let mounted = Command::new("mount").args(["-o", &size]).arg(self.place.path()).status();
        assert!(mounted.expect("mount runs").success(), "it can be mounted, so it can be mounted again");
    }

    pub(crate) fn place(&self) -> &Path {
        self.place.path()
    }

    pub(crate) fn data(&self) -> PathBuf {
        self.place.path().join("data")
    }

    pub(crate) fn free_bytes(&self) -> u64 {
        let state = rustix::fs::statvfs(self.place.path()).expect("its state");
        state.f_bavail * state.f_frsize
    }

    /// Somebody else's file; it takes space until so much is free.
    pub(crate) fn take_until(&self, free_bytes: u64) {
        let mut file = File::options().append(true).create(true).open(self.foreign()).expect("a file");
        let zeros = vec![0; 64 * 1024];
        while self.free_bytes() > free_bytes + zeros.len() as u64 {
            file.write_all(&zeros).expect("there is space");
        }
    }

    /// The same, to the last byte.
    pub(crate) fn take_all(&self) {
        let mut file = File::options().append(true).create(true).open(self.foreign()).expect("a file");
        let zeros = vec![0; 4096];
        while file.write_all(&zeros).is_ok() {}
        assert_eq!(self.free_bytes(), 0);
    }

    pub(crate) fn give_back(&self) {
        std::fs::remove_file(self.foreign()).expect("it is there");
    }

    fn foreign(&self) -> PathBuf {
        self.place.path().join("foreign")
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg(self.place.path()).status();
    }
}
