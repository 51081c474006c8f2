//! The head: `journal/HEAD` says durably which segment is the newest and with which the log begins, so that one that is
//! lost whole is missed, and one that was cleaned is not.
//!
//! ```text
//!    0  slot of the even segment numbers
//! 4096  slot of the odd ones
//! 8192  end
//!
//! a slot:
//!   0  magic            8 bytes  "RTJRHEAD"
//!   8  format           u32      2
//!  12  number           u32      a segment that has its name, durably; 0 in a new journal
//!  16  directory id     16 bytes the data directory that it belongs to
//!  32  first            u32      the segment with which the log begins; those before it are cleaned
//!  36  CRC              u32      CRC-32 (IEEE) of the bytes before
//!  40  zeros
//! ```
//!
//! Format 1 had no `first` (it is 1 there) and the CRC in its place; it is read, and written as format 2.
//!
//! A slot is written and synced after its segment's name is durable, and before anything in the segment is
//! acknowledged. The two take turns: a torn write leaves the one before, which is one behind. So the newest segment is
//! the one that the head names or, after a crash between the two steps, its successor; anything else is damage.
//!
//! The log begins with the higher `first` of the two. Before a cleaned segment is removed both slots say so, one after
//! the other, each synced: from then on either of them alone is enough, whatever becomes of the other.

#![cfg_attr(not(test), deny(clippy::indexing_slicing, clippy::arithmetic_side_effects, clippy::as_conversions))]

use super::segment::{DirectoryId, JOURNAL_DIRECTORY};
use crate::codec::{Reader, Writer};
use crate::store::OpenError;
use crate::store::disk::{Disk, DiskError, DiskErrorKind, DiskFile};

/// The file's name in the journal's directory.
pub(crate) const HEAD_FILE: &str = "HEAD";

const MAGIC: [u8; 8] = *b"RTJRHEAD";
const FORMAT: u32 = 2;
const FORMAT_WITHOUT_FIRST: u32 = 1;
const CRC_OFFSET: usize = 36;
const SLOT_BYTES: usize = 40;
/// Slots lie in blocks of their own: a torn write damages one.
const SLOT_DISTANCE: u16 = 4096;
const FILE_BYTES: u16 = 8192;

/// What the head says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Head {
    /// The newest segment, or the one before it.
    pub(crate) newest: u32,
    /// The segment with which the log begins.
    pub(crate) first: u32,
}

/// Makes the head of a new journal. Its name is durable with that of the first segment.
pub(crate) fn create<D: Disk>(disk: &D, directory: DirectoryId) -> Result<(), DiskError> {
    let file = disk.create(&path())?;
    file.write_at(0, &vec![0; usize::from(FILE_BYTES)])?;
    file.write_at(0, &encode(Head { newest: 0, first: 1 }, directory))?;
    file.sync()
}

/// Says durably that the newest segment has its name, in the slot that is its turn.
pub(crate) fn record<D: Disk>(disk: &D, directory: DirectoryId, head: Head) -> Result<(), DiskError> {
    let file = disk.open(&path())?;
    file.write_at(u64::from(slot_offset(head.newest)), &encode(head, directory))?;
    file.sync()
}

/// What its slots say together.
pub(crate) fn read<D: Disk>(disk: &D, directory: DirectoryId) -> Result<Head, OpenError> {
    let file = match disk.open(&path()) {
        Ok(file) => file,
        Err(DiskError { kind: DiskErrorKind::NotFound, .. }) => return Err(damaged(0, "it is missing")),
        Err(error) => return Err(error.into()),
    };
    let size = file.size()?;
    if size != u64::from(FILE_BYTES) {
        return Err(damaged(size.min(u64::from(FILE_BYTES)), &format!("it has {size} bytes instead of {FILE_BYTES}")));
    }
    let mut head: Option<Head> = None;
    for slot in [0, SLOT_DISTANCE] {
        let mut bytes = [0; SLOT_BYTES];
        file.read_at(u64::from(slot), &mut bytes)?;
        let Some(found) = decode(&bytes) else { continue };
        if found.format != FORMAT && found.format != FORMAT_WITHOUT_FIRST {
            return Err(OpenError::NewerFormat { file: path(), found: found.format, supported: FORMAT });
        }
        if found.directory != directory {
            return Err(damaged(u64::from(slot), "it belongs to another data directory"));
        }
        let Head { newest, first } = head.unwrap_or(found.head);
        head = Some(Head { newest: newest.max(found.head.newest), first: first.max(found.head.first) });
    }
    head.ok_or_else(|| damaged(0, "neither of its slots is whole"))
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
    head: Head,
    directory: DirectoryId,
}

fn encode(head: Head, directory: DirectoryId) -> Vec<u8> {
    let mut bytes = Vec::new();
    let mut writer = Writer::new(&mut bytes);
    writer.raw(&MAGIC);
    writer.u32(FORMAT);
    writer.u32(head.newest);
    writer.raw(&directory);
    writer.u32(head.first);
    let crc = crc32fast::hash(&bytes);
    Writer::new(&mut bytes).u32(crc);
    bytes
}

/// A slot, or nothing where its bytes are not whole.
fn decode(bytes: &[u8]) -> Option<Slot> {
    let mut reader = Reader::new(bytes);
    if reader.take(MAGIC.len()).ok()? != MAGIC {
        return None;
    }
    let (format, newest) = (reader.u32().ok()?, reader.u32().ok()?);
    let directory = *reader.take(16).ok()?.first_chunk()?;
    let (first, covered) = match format {
        FORMAT_WITHOUT_FIRST => (1, CRC_OFFSET.checked_sub(4)?),
        _ => (reader.u32().ok()?, CRC_OFFSET),
    };
    if reader.u32().ok()? != crc32fast::hash(bytes.get(..covered)?) {
        return None;
    }
    Some(Slot { format, head: Head { newest, first }, directory })
}

fn damaged(offset: u64, reason: &str) -> OpenError {
    OpenError::Corrupt { file: path(), offset, reason: reason.to_owned() }
}
