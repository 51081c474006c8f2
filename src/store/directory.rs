//! The data directory: its lock, and the `FORMAT` file that says what is in it.
//!
//! `FORMAT` is text, so that an operator can read it:
//!
//! ```text
//! roundtable 1                                  the format of the directory
//! segment_bytes 67108864                        the size of every segment of the journal
//! directory 0123456789abcdef0123456789abcdef    a random id: segments and index belong to it
//! crc 89abcdef                                  CRC-32 (IEEE) of the lines above, in hexadecimal
//! ```
//!
//! `FORMAT` is written last when a directory is made: without it, an empty journal is an interrupted first start, and
//! anything else is damage.

use std::io::{Read, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::Path;

use super::disk::{Disk, DiskError, DiskErrorKind, DiskFile};
use super::error::OpenError;
use super::journal::DirectoryId;

/// The format that this program writes, and the newest that it reads.
pub(crate) const DIRECTORY_FORMAT: u32 = 1;
const FORMAT_FILE: &str = "FORMAT";
const FORMAT_UNFINISHED: &str = "FORMAT.tmp";
const LOCK_FILE: &str = "LOCK";

/// What `FORMAT` says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Format {
    pub(crate) segment_bytes: u32,
    pub(crate) directory: DirectoryId,
}

impl Format {
    fn to_text(self) -> String {
        let Self { segment_bytes, directory } = self;
        let directory = u128::from_be_bytes(directory);
        let text =
            format!("roundtable {DIRECTORY_FORMAT}\nsegment_bytes {segment_bytes}\ndirectory {directory:032x}\n");
        let crc = crc32fast::hash(text.as_bytes());
        format!("{text}crc {crc:08x}\n")
    }

    fn parse(text: &str) -> Result<Self, OpenError> {
        let first = text.lines().next().and_then(|line| line.strip_prefix("roundtable ")).unwrap_or_default();
        let found: u32 = first.parse().map_err(|_| damaged("its first line is not `roundtable` and a number"))?;
        if found > DIRECTORY_FORMAT {
            return Err(OpenError::NewerFormat { file: FORMAT_FILE.to_owned(), found, supported: DIRECTORY_FORMAT });
        }
        let (covered, crc) = text.rsplit_once("crc ").ok_or_else(|| damaged("it has no CRC"))?;
        if crc != format!("{:08x}\n", crc32fast::hash(covered.as_bytes())) {
            return Err(damaged("its CRC does not fit"));
        }
        let field = |name: &str| covered.lines().find_map(|line| line.strip_prefix(name)).unwrap_or_default();
        let segment_bytes = field("segment_bytes ").parse().map_err(|_| damaged("it has no segment size"))?;
        let directory = u128::from_str_radix(field("directory "), 16).map_err(|_| damaged("it has no directory id"))?;
        Ok(Self { segment_bytes, directory: directory.to_be_bytes() })
    }
}

fn damaged(reason: &str) -> OpenError {
    OpenError::Corrupt { file: FORMAT_FILE.to_owned(), offset: 0, reason: reason.to_owned() }
}

/// Reads `FORMAT`; `None` where there is none.
pub(crate) fn read_format<D: Disk>(disk: &D) -> Result<Option<Format>, OpenError> {
    let file = match disk.open(FORMAT_FILE) {
        Ok(file) => file,
        Err(DiskError { kind: DiskErrorKind::NotFound, .. }) => return Ok(None),
        Err(error) => return Err(error.into()),
    };
    let mut bytes = vec![0; usize::try_from(file.size()?.min(4096)).unwrap_or(4096)];
    file.read_at(0, &mut bytes)?;
    let text = String::from_utf8(bytes).map_err(|_| damaged("it is not text"))?;
    Format::parse(&text).map(Some)
}

/// Writes `FORMAT`, durably.
pub(crate) fn write_format<D: Disk>(disk: &D, format: Format) -> Result<(), OpenError> {
    if disk.exists(FORMAT_UNFINISHED)? {
        disk.remove(FORMAT_UNFINISHED)?;
    }
    let file = disk.create(FORMAT_UNFINISHED)?;
    file.write_at(0, format.to_text().as_bytes())?;
    file.sync()?;
    disk.rename(FORMAT_UNFINISHED, FORMAT_FILE)?;
    disk.sync_directory("")?;
    Ok(())
}

/// The lock of a data directory; given back when it is dropped, or when the process dies.
#[derive(Debug)]
pub(crate) struct Lock {
    file: std::fs::File,
}

impl Drop for Lock {
    /// Says so, instead of leaving it to the closing of the file: a child that this process is just starting shares
    /// the open file until its `exec`, and would hold the lock for as long.
    fn drop(&mut self) {
        let _ = rustix::fs::flock(&self.file, rustix::fs::FlockOperation::Unlock);
    }
}

/// Makes the directory if it is missing (mode 0700), and locks it.
pub(crate) fn lock(directory: &Path) -> Result<Lock, OpenError> {
    make(directory).map_err(|error| failed("create", directory, &error))?;
    lock_existing(directory)
}

/// Makes the directory and whatever is missing above it, and the names of all of them durable: else a power cut takes
/// the whole directory with everything that was synced in it. Its own name is synced at each start, because after a
/// kill in the first one it may be in memory only.
fn make(directory: &Path) -> std::io::Result<()> {
    let missing = directory.ancestors().take_while(|path| !path.as_os_str().is_empty() && !path.exists());
    let depth = missing.count();
    std::fs::DirBuilder::new().recursive(true).mode(0o700).create(directory)?;
    let directory = directory.canonicalize()?;
    for parent in directory.ancestors().skip(1).take(depth.max(1)) {
        let synced = std::fs::File::open(parent).and_then(|parent| parent.sync_all());
        match synced {
            // Whoever may not even list it did not make what is in it.
            Err(error) if depth == 0 && error.kind() == std::io::ErrorKind::PermissionDenied => {}
            synced => synced?,
        }
    }
    Ok(())
}

/// Locks a directory that is there. Nothing but `LOCK` is changed.
pub(crate) fn lock_existing(directory: &Path) -> Result<Lock, OpenError> {
    let path = directory.join(LOCK_FILE);
    let opened =
        std::fs::OpenOptions::new().read(true).write(true).create(true).truncate(false).mode(0o600).open(&path);
    let mut file = opened.map_err(|error| failed("open", &path, &error))?;
    if rustix::fs::flock(&file, rustix::fs::FlockOperation::NonBlockingLockExclusive).is_err() {
        let mut text = String::new();
        let pid = file.read_to_string(&mut text).ok().and_then(|_| text.trim().parse().ok());
        return Err(OpenError::Locked { path, pid });
    }
    // Only for the message that a second server prints, so not synced, and a failure to write it is none.
    let _ = file.set_len(0).and_then(|()| writeln!(file, "{}", std::process::id()));
    Ok(Lock { file })
}

fn failed(operation: &'static str, path: &Path, error: &std::io::Error) -> OpenError {
    let kind = match error.kind() {
        std::io::ErrorKind::NotFound => DiskErrorKind::NotFound,
        std::io::ErrorKind::StorageFull => DiskErrorKind::NoSpace,
        _ => DiskErrorKind::Other(error.to_string()),
    };
    OpenError::Disk(DiskError { operation, path: path.display().to_string(), kind })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::disk::simulated::SimulatedDisk;

    const FORMAT: Format = Format { segment_bytes: 4096, directory: [0x2a; 16] };

    #[test]
    fn format_reads_back_and_every_flipped_bit_of_it_is_noticed() {
        let disk = SimulatedDisk::new();
        assert_eq!(read_format(&disk), Ok(None));
        write_format(&disk, FORMAT).unwrap();
        assert_eq!(read_format(&disk), Ok(Some(FORMAT)));
        let bytes = disk.content("FORMAT");
        for bit in 0..bytes.len() * 8 {
            let mut flipped = bytes.clone();
            flipped[bit / 8] ^= 1 << (bit % 8);
            disk.tamper("FORMAT", |content| *content = flipped);
            assert!(read_format(&disk).is_err(), "bit {bit}");
        }
    }

    #[test]
    fn a_newer_format_is_named() {
        let disk = SimulatedDisk::new();
        write_format(&disk, FORMAT).unwrap();
        disk.tamper("FORMAT", |content| *content = b"roundtable 9\nwhatever\n".to_vec());
        let newer = OpenError::NewerFormat { file: "FORMAT".to_owned(), found: 9, supported: DIRECTORY_FORMAT };
        assert_eq!(read_format(&disk), Err(newer));
    }

    #[test]
    fn a_directory_is_made_with_whatever_is_missing_above_it() {
        let directory = tempfile::tempdir().unwrap();
        let deep = directory.path().join("a/b/c");
        drop(lock(&deep).unwrap());
        assert!(deep.join(LOCK_FILE).exists());
        drop(lock(&deep).unwrap());
        let file = directory.path().join("file");
        std::fs::write(&file, b"").unwrap();
        let refused = lock(&file.join("below")).unwrap_err().to_string();
        assert!(refused.contains("below"), "{refused}");
    }

    #[test]
    fn a_second_server_is_refused_and_told_the_first_ones_pid() {
        let directory = tempfile::tempdir().unwrap();
        let first = lock(directory.path()).unwrap();
        let path = directory.path().join("LOCK");
        assert_eq!(lock(directory.path()).unwrap_err(), OpenError::Locked { path, pid: Some(std::process::id()) });
        drop(first);
        lock(directory.path()).unwrap();
    }

    #[test]
    fn a_lock_is_given_back_although_a_child_that_is_being_started_still_shares_the_file() {
        let directory = tempfile::tempdir().unwrap();
        let first = lock(directory.path()).unwrap();
        let shared = first.file.try_clone().unwrap();
        drop(first);
        lock(directory.path()).unwrap();
        drop(shared);
    }
}
