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

use std::io::{ErrorKind, Read, Write};
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

/// Makes the directory if it is missing (mode 0700), and locks it. Until it has a `FORMAT` its name may be in memory only,
/// and the names of those above it, whoever made them: all are synced, or a power cut could take the whole of it.
pub(crate) fn lock(directory: &Path) -> Result<Lock, OpenError> {
    let made = std::fs::DirBuilder::new().recursive(true).mode(0o700).create(directory);
    made.map_err(|error| failed("create", directory, &error))?;
    let lock = lock_existing(directory)?;
    if !directory.join(FORMAT_FILE).exists() {
        sync_above(directory)?;
    }
    Ok(lock)
}

/// Syncs each directory above one, as far as this process may: whoever made it, its name is durable then.
pub(crate) fn sync_above(directory: &Path) -> Result<(), OpenError> {
    sync_each_above(directory, &mut |above| rustix::fs::fsync(std::fs::File::open(above)?).map_err(Into::into))
}

fn sync_each_above(directory: &Path, sync: &mut dyn FnMut(&Path) -> std::io::Result<()>) -> Result<(), OpenError> {
    let whole = directory.canonicalize().map_err(|error| failed("find", directory, &error))?;
    for above in whole.ancestors().skip(1) {
        match sync(above) {
            Ok(()) => {}
            // Who may not read it has made nothing in it, and some file systems know nothing to sync there.
            Err(error) if matches!(error.kind(), ErrorKind::PermissionDenied | ErrorKind::InvalidInput) => {}
            Err(error) => return Err(failed("sync", above, &error)),
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
        ErrorKind::NotFound => DiskErrorKind::NotFound,
        ErrorKind::StorageFull => DiskErrorKind::NoSpace,
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
    fn the_names_of_all_directories_above_a_new_one_are_synced_as_far_as_that_is_allowed() {
        let place = tempfile::tempdir().unwrap();
        let data = place.path().join("a/b/data");
        std::fs::create_dir_all(&data).unwrap();
        let mut synced = Vec::new();
        sync_each_above(&data, &mut |above| {
            synced.push(above.to_owned());
            if synced.len() == 2 { Err(ErrorKind::PermissionDenied.into()) } else { Ok(()) }
        })
        .unwrap();
        let whole = place.path().canonicalize().unwrap();
        assert_eq!(synced[..3], [whole.join("a/b"), whole.join("a"), whole]);
        assert_eq!(synced.last().unwrap(), Path::new("/"));
        assert!(sync_each_above(&data, &mut |_| Err(ErrorKind::Other.into())).is_err());
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
