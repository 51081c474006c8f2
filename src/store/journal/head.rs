//! The head: `journal/HEAD` says durably which segment is the newest, so that one that is lost whole is missed.
//!
//! ```text
//!    0  slot of the even segment numbers
//! 4096  slot of the odd ones
//! 8192  end
//!
//! a slot:
//!   0  magic            8 bytes  "RTJRHEAD"
//!   8  format           u32      1
//!  12  number           u32      a segment that has its name, durably; 0 in a new journal
//!  16  directory id     16 bytes the data directory that it belongs to
//!  32  CRC              u32      CRC-32 (IEEE) of the bytes before
//!  36  zeros
//! ```
//!
//! A slot is written and synced after its segment's name is durable, and before anything in the segment is
//! acknowledged. The two take turns: a torn write leaves the one before, which is one behind. So the newest segment is
//! the one that the head names or, after a crash between the two steps, its successor; anything else is damage.

#![cfg_attr(not(test), deny(clippy::indexing_slicing, clippy::arithmetic_side_effects, clippy::as_conversions))]

use super::segment::{DirectoryId, JOURNAL_DIRECTORY};
use crate::codec::{Reader, Writer};
use crate::store::OpenError;
use crate::store::disk::{Disk, DiskError, DiskErrorKind, DiskFile};

/// The file's name in the journal's directory.
pub(crate) const HEAD_FILE: &str = "HEAD";

const MAGIC: [u8; 8] = *b"RTJRHEAD";
const FORMAT: u32 = 1;
const CRC_OFFSET: usize = 32;
const SLOT_BYTES: usize = 36;
/// Slots lie in blocks of their own: a torn write damages one.
const SLOT_DISTANCE: u16 = 4096;
const FILE_BYTES: u16 = 8192;

/// Makes the head of a new journal. Its name is durable with that of the first segment.
pub(crate) fn create<D: Disk>(disk: &D, directory: DirectoryId) -> Result<(), DiskError> {
    let file = disk.create(&path())?;
    file.write_at(0, &vec![0; usize::from(FILE_BYTES)])?;
    file.write_at(0, &encode(0, directory))?;
    file.sync()
}

/// Says durably that this segment has its name.
pub(crate) fn record<D: Disk>(disk: &D, directory: DirectoryId, number: u32) -> Result<(), DiskError> {
    let file = disk.open(&path())?;
    file.write_at(u64::from(slot_offset(number)), &encode(number, directory))?;
    file.sync()
}

/// The newest segment that it names.
pub(crate) fn read<D: Disk>(disk: &D, directory: DirectoryId) -> Result<u32, OpenError> {
    let file = match disk.open(&path()) {
        Ok(file) => file,
        Err(DiskError { kind: DiskErrorKind::NotFound, .. }) => return Err(damaged(0, "it is missing")),
        Err(error) => return Err(error.into()),
    };
    let size = file.size()?;
    if size != u64::from(FILE_BYTES) {
        return Err(damaged(size.min(u64::from(FILE_BYTES)), &format!("it has {size} bytes instead of {FILE_BYTES}")));
    }
    let mut newest = None;
    for slot in [0, SLOT_DISTANCE] {
        let mut bytes = [0; SLOT_BYTES];
        file.read_at(u64::from(slot), &mut bytes)?;
        let Some(found) = decode(&bytes) else { continue };
        if found.format != FORMAT {
            return Err(OpenError::NewerFormat { file: path(), found: found.format, supported: FORMAT });
        }
        if found.directory != directory {
            return Err(damaged(u64::from(slot), "it belongs to another data directory"));
        }
        newest = newest.max(Some(found.number));
    }
    newest.ok_or_else(|| damaged(0, "neither of its slots is whole"))
}

/// It names a segment before the last but one: what it said later was lost.
pub(crate) fn behind(named: u32, last: u32) -> OpenError {
    damaged(0, &format!("it names segment {named} as the newest, and there are {last}"))
}

fn path() -> String {
    format!("{JOURNAL_DIRECTORY}/{HEAD_FILE}")
}

fn slot_offset(number: u32) -> u16 {
    if number.is_multiple_of(2) { 0 } else { SLOT_DISTANCE }
}

struct Slot {
    format: u32,
    number: u32,
    directory: DirectoryId,
}

fn encode(number: u32, directory: DirectoryId) -> Vec<u8> {
    let mut bytes = Vec::new();
    let mut writer = Writer::new(&mut bytes);
    writer.raw(&MAGIC);
    writer.u32(FORMAT);
    writer.u32(number);
    writer.raw(&directory);
    let crc = crc32fast::hash(&bytes);
    Writer::new(&mut bytes).u32(crc);
    bytes
}

/// A slot, or nothing where its bytes are not whole.
fn decode(bytes: &[u8]) -> Option<Slot> {
    let (covered, crc) = bytes.split_at_checked(CRC_OFFSET)?;
    if crc != crc32fast::hash(covered).to_be_bytes() {
        return None;
    }
    let mut reader = Reader::new(covered);
    if reader.take(MAGIC.len()).ok()? != MAGIC {
        return None;
    }
    let (format, number) = (reader.u32().ok()?, reader.u32().ok()?);
    Some(Slot { format, number, directory: *reader.take(16).ok()?.first_chunk()? })
}

fn damaged(offset: u64, reason: &str) -> OpenError {
    OpenError::Corrupt { file: path(), offset, reason: reason.to_owned() }
}
