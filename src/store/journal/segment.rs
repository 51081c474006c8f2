//! Segments: the files of the journal, `journal/00000001.seg` and on, all of one size.
//!
//! ```text
//!   0  magic            8 bytes  "RTJOURNL"
//!   8  format           u32      1
//!  12  number           u32      as in the file's name
//!  16  directory id     16 bytes the data directory that it belongs to
//!  32  segment bytes    u64      the size of the file
//!  40  salt             u32      random; every packet's CRC starts from it
//!  44  previous CRC     u32      the CRC of the predecessor's last packet, 0 where there is none
//!  48  first LSN        u64      the LSN of the first packet, if there is one; below 2^63
//!  56  previous end     u32, u32 segment and offset where the predecessor ends; what stands behind it counts for nothing
//!  64  running_ms       u64      running time of the servers on this directory when it was begun
//!  72  zeros
//! 508  CRC              u32      CRC-32 (IEEE) of the bytes before
//! 512  packets
//! ```
//!
//! A segment gets its name only when its header is durable, and is never reused.

#![cfg_attr(not(test), deny(clippy::indexing_slicing, clippy::arithmetic_side_effects, clippy::as_conversions))]

use super::packet::Position;
use crate::codec::{DecodeError, Reader, Writer};

/// Bytes of a segment's header; the first packet stands behind it.
pub(crate) const SEGMENT_HEADER_BYTES: u32 = 512;
/// The format of segments that this program writes, and the newest that it reads.
pub(crate) const SEGMENT_FORMAT: u32 = 1;
/// The directory of the journal.
pub(crate) const JOURNAL_DIRECTORY: &str = "journal";

/// No journal gets there: a million packets a second for 290,000 years. So counting on from a header never overflows.
const LSN_MAX: u64 = u64::MAX >> 1;

const MAGIC: [u8; 8] = *b"RTJOURNL";
const CRC_OFFSET: usize = 508;

/// The random id of a data directory.
pub(crate) type DirectoryId = [u8; 16];

/// What a segment's header says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct SegmentHeader {
    pub(crate) number: u32,
    pub(crate) directory: DirectoryId,
    pub(crate) segment_bytes: u64,
    pub(crate) salt: u32,
    pub(crate) previous_crc: u32,
    pub(crate) first_lsn: u64,
    pub(crate) previous_end: Position,
    pub(crate) running_ms: u64,
}

/// Why bytes are no header of a segment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum HeaderError {
    /// Not even the magic is right.
    NotASegment,
    /// The CRC does not fit.
    BadCrc,
    /// A later version of the program wrote it.
    Newer(u32),
    /// It is no value.
    Malformed(DecodeError),
}

impl SegmentHeader {
    /// Its bytes.
    pub(crate) fn encode(&self) -> Vec<u8> {
        let mut bytes = Vec::new();
        let mut writer = Writer::new(&mut bytes);
        writer.raw(&MAGIC);
        writer.u32(SEGMENT_FORMAT);
        writer.u32(self.number);
        writer.raw(&self.directory);
        writer.u64(self.segment_bytes);
        writer.u32(self.salt);
        writer.u32(self.previous_crc);
        writer.u64(self.first_lsn);
        self.previous_end.encode(&mut writer);
        writer.u64(self.running_ms);
        bytes.resize(CRC_OFFSET, 0);
        let crc = crc32fast::hash(&bytes);
        Writer::new(&mut bytes).u32(crc);
        bytes
    }

    /// Reads it from the first [`SEGMENT_HEADER_BYTES`] of a file.
    pub(crate) fn decode(bytes: &[u8]) -> Result<Self, HeaderError> {
        let mut reader = Reader::new(bytes);
        if reader.take(MAGIC.len()) != Ok(&MAGIC[..]) {
            return Err(HeaderError::NotASegment);
        }
        let covered = bytes.get(..CRC_OFFSET).ok_or(HeaderError::NotASegment)?;
        let stored = bytes.get(CRC_OFFSET..).and_then(|tail| tail.first_chunk::<4>());
        if stored != Some(&crc32fast::hash(covered).to_be_bytes()) {
            return Err(HeaderError::BadCrc);
        }
        let format = reader.u32().map_err(HeaderError::Malformed)?;
        if format != SEGMENT_FORMAT {
            return Err(HeaderError::Newer(format));
        }
        Self::decode_fields(&mut reader).map_err(HeaderError::Malformed)
    }

    fn decode_fields(reader: &mut Reader<'_>) -> Result<Self, DecodeError> {
        Ok(Self {
            number: reader.u32()?,
            directory: *reader.take(16)?.first_chunk().ok_or(DecodeError::Truncated)?,
            segment_bytes: reader.u64()?,
            salt: reader.u32()?,
            previous_crc: reader.u32()?,
            first_lsn: Some(reader.u64()?).filter(|lsn| *lsn <= LSN_MAX).ok_or(DecodeError::BadValue)?,
            previous_end: Position::decode(reader)?,
            running_ms: reader.u64()?,
        })
    }
}

/// The path of a segment.
pub(crate) fn segment_path(number: u32) -> String {
    format!("{JOURNAL_DIRECTORY}/{number:08}.seg")
}

/// The number in a segment's file name.
pub(crate) fn segment_number(name: &str) -> Option<u32> {
    let digits = name.strip_suffix(".seg")?;
    (digits.len() >= 8).then(|| digits.parse().ok()).flatten()
}
