//! Packets: the unit of the journal. One packet is there wholly or not at all.
//!
//! ```text
//!  0  body length   u32   without header and padding
//!  4  kind          u8    0x01 effect, 0x02 marks, 0x03 watermark, 0x10 to 0x16 what cleaning carries
//!  5  version       u8    of the body's format, 1
//!  6  reserved      u16   0
//!  8  LSN           u64   one more than the packet before, in the whole journal
//! 16  previous CRC  u32   the CRC of the packet before: the chain
//! 20  CRC           u32   CRC-32 (IEEE) that starts from the segment's salt, over bytes 0..20, body and padding
//! 24  body, then zeros up to a multiple of 8
//! ```
//!
//! The salt is random and never leaves the disk, so no bytes that a client sends can pose as a packet; that is what
//! makes it safe to look for packets behind a damaged one. Effects and marks are specified in `store/record.rs`, what
//! cleaning carries in `store/carried.rs`.
//!
//! ```text
//! Watermark (kind 0x03, version 1)
//!   watermark   u32 segment, u32 offset: everything before it was known to be synced when this was written
//!   running_ms  u64  time that servers on this directory have been running; ages are counted in it
//!   wall_ms     u64  the wall clock, milliseconds since 1970
//! ```
//!
//! Each batch begins with a watermark; one with nothing behind it is a *marker*.

#![cfg_attr(not(test), deny(clippy::indexing_slicing, clippy::arithmetic_side_effects, clippy::as_conversions))]

use crate::codec::{DecodeError, Reader, Writer};
use crate::limits::PACKET_BYTES_MAX;
use crate::store::carried::Carried;
use crate::store::record::{decode_effect, decode_marks, ended};
use crate::store::{Change, Effect, Mark};

/// Bytes of a packet's header.
pub(crate) const PACKET_HEADER_BYTES: usize = 24;
/// Bytes of a watermark packet, header included.
pub(crate) const WATERMARK_BYTES: usize = PACKET_HEADER_BYTES + WATERMARK_BODY_BYTES;
const WATERMARK_BODY_BYTES: usize = 24;
const CRC_OFFSET: usize = 20;
/// The one version of each body so far.
const BODY_VERSION: u8 = 1;

const EFFECT: u8 = 0x01;
const MARKS: u8 = 0x02;
const WATERMARK: u8 = 0x03;

/// A place in the journal.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Position {
    /// The number of the segment, from 1.
    pub(crate) segment: u32,
    /// Bytes from the beginning of the segment's file.
    pub(crate) offset: u32,
}

impl Position {
    /// Reads it as it stands on disk.
    pub(crate) fn decode(reader: &mut Reader<'_>) -> Result<Self, DecodeError> {
        Ok(Self { segment: reader.u32()?, offset: reader.u32()? })
    }

    /// Appends it as it stands on disk.
    pub(crate) fn encode(self, writer: &mut Writer<'_>) {
        writer.u32(self.segment);
        writer.u32(self.offset);
    }
}

/// What a watermark packet says.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Watermark {
    /// Everything before it was known to be synced.
    pub(crate) synced: Position,
    /// Running time of all servers on this directory.
    pub(crate) running_ms: u64,
    /// The wall clock.
    pub(crate) wall_ms: u64,
}

/// What a packet says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Content {
    Effect(Effect),
    Marks(Vec<Mark>),
    Watermark(Watermark),
    Carried(Carried),
}

impl From<Change> for Content {
    fn from(change: Change) -> Self {
        match change {
            Change::Effect(effect) => Self::Effect(effect),
            Change::Marks(marks) => Self::Marks(marks),
        }
    }
}

impl From<Carried> for Content {
    fn from(carried: Carried) -> Self {
        match carried {
            Carried::Marks(marks) => Self::Marks(marks),
            carried => Self::Carried(carried),
        }
    }
}

/// Why bytes are no packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum PacketError {
    /// Nothing was ever written here.
    Empty,
    /// The packet would end behind the segment, or be larger than any.
    BadLength,
    /// The CRC does not fit the bytes.
    BadCrc,
}

/// Why the content of a whole packet cannot be understood.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ContentError {
    /// A later version of the program wrote it.
    Newer,
    /// It is no value.
    Malformed(DecodeError),
}

/// A packet whose CRC fits, in the bytes of its segment.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Packet<'a> {
    kind: u8,
    version: u8,
    /// Its number in the journal.
    pub(crate) lsn: u64,
    /// The CRC of the packet before.
    pub(crate) previous_crc: u32,
    /// Its own.
    pub(crate) crc: u32,
    body: &'a [u8],
    /// Bytes that it takes, header and padding included.
    pub(crate) bytes: u32,
}

impl<'a> Packet<'a> {
    /// Reads the packet at the front of `bytes`, which reach to the end of its segment.
    pub(crate) fn decode(bytes: &'a [u8], salt: u32) -> Result<Self, PacketError> {
        let header = bytes.get(..PACKET_HEADER_BYTES).ok_or(PacketError::BadLength)?;
        let [length, tags, lsn_high, lsn_low, previous_crc, crc] = words(header).ok_or(PacketError::BadLength)?;
        let [kind, version, reserved @ ..] = tags.to_be_bytes();
        let lsn = (u64::from(lsn_high) << 32) | u64::from(lsn_low);
        if kind == 0 {
            let empty = header.iter().all(|byte| *byte == 0);
            return Err(if empty { PacketError::Empty } else { PacketError::BadCrc });
        }
        let length = usize::try_from(length).map_err(|_| PacketError::BadLength)?;
        let whole = padded(length);
        if whole > PACKET_BYTES_MAX || reserved != [0; 2] {
            return Err(PacketError::BadLength);
        }
        let packet = bytes.get(..whole).ok_or(PacketError::BadLength)?;
        if packet_crc(packet, salt) != crc && !planted!("recovery: a packet's CRC is not checked") {
            return Err(PacketError::BadCrc);
        }
        let body = packet.get(PACKET_HEADER_BYTES..).and_then(|rest| rest.get(..length));
        let body = body.ok_or(PacketError::BadLength)?;
        let bytes = u32::try_from(whole).map_err(|_| PacketError::BadLength)?;
        Ok(Self { kind, version, lsn, previous_crc, crc, body, bytes })
    }

    /// What it says.
    pub(crate) fn content(&self) -> Result<Content, ContentError> {
        if self.version != BODY_VERSION {
            return Err(ContentError::Newer);
        }
        match self.kind {
            EFFECT => decode_effect(self.body).map(Content::Effect).map_err(ContentError::Malformed),
            MARKS => decode_marks(self.body).map(Content::Marks).map_err(ContentError::Malformed),
            WATERMARK => decode_watermark(self.body).map(Content::Watermark).map_err(ContentError::Malformed),
            kind => match Carried::decode(kind, self.body) {
                Ok(Some(carried)) => Ok(Content::Carried(carried)),
                Ok(None) => Err(ContentError::Newer),
                Err(error) => Err(ContentError::Malformed(error)),
            },
        }
    }

    /// Whether it is a watermark of this version.
    pub(crate) fn is_watermark(&self) -> bool {
        self.kind == WATERMARK && self.version == BODY_VERSION
    }
}

/// The header, in words of four bytes.
fn words(header: &[u8]) -> Option<[u32; 6]> {
    let mut reader = Reader::new(header);
    let mut words = [0; 6];
    for word in &mut words {
        *word = reader.u32().ok()?;
    }
    Some(words)
}

/// The watermark that stands at the front of `bytes`, if one does. Cheap where there is none, whatever the bytes:
/// recovery asks at every 8 bytes behind a damaged place.
pub(crate) fn watermark_at(bytes: &[u8], salt: u32) -> Option<Watermark> {
    let bytes = bytes.get(..WATERMARK_BYTES)?;
    if bytes.get(4) != Some(&WATERMARK) || bytes.get(..4) != Some(&[0, 0, 0, 24]) {
        return None;
    }
    match Packet::decode(bytes, salt).ok()?.content().ok()? {
        Content::Watermark(watermark) => Some(watermark),
        Content::Effect(_) | Content::Marks(_) | Content::Carried(_) => None,
    }
}

fn decode_watermark(body: &[u8]) -> Result<Watermark, DecodeError> {
    let mut reader = Reader::new(body);
    let synced = Position::decode(&mut reader)?;
    let watermark = Watermark { synced, running_ms: reader.u64()?, wall_ms: reader.u64()? };
    ended(&reader)?;
    Ok(watermark)
}

/// What goes into a new packet.
pub(crate) enum Body<'a> {
    /// What the hub asked for.
    Change(&'a Change),
    /// The head of a batch, or a marker.
    Watermark(Watermark),
    /// What cleaning carries.
    Carried(&'a Carried),
    /// A packet again, under another salt and chain.
    Again(&'a Packet<'a>),
}

/// Appends a packet; gives its CRC, which the next one carries.
pub(crate) fn encode(out: &mut Vec<u8>, salt: u32, lsn: u64, previous_crc: u32, body: &Body<'_>) -> u32 {
    let start = out.len();
    let (kind, version) = match body {
        Body::Change(Change::Effect(_)) => (EFFECT, BODY_VERSION),
        Body::Change(Change::Marks(_)) => (MARKS, BODY_VERSION),
        Body::Watermark(_) => (WATERMARK, BODY_VERSION),
        Body::Carried(carried) => (carried.kind().unwrap_or(MARKS), BODY_VERSION),
        Body::Again(packet) => (packet.kind, packet.version),
    };
    let mut writer = Writer::new(out);
    writer.u32(0);
    writer.u8(kind);
    writer.u8(version);
    writer.u16(0);
    writer.u64(lsn);
    writer.u32(previous_crc);
    writer.u32(0);
    encode_body(&mut writer, body);
    let length = out.len().saturating_sub(start).saturating_sub(PACKET_HEADER_BYTES);
    out.resize(start.saturating_add(padded(length)), 0);
    let packet = out.get_mut(start..).unwrap_or_default();
    assert!(packet.len() <= PACKET_BYTES_MAX, "limits.rs bounds every change to one packet");
    put_u32(packet, 0, u32::try_from(length).expect("bounded just above"));
    let crc = packet_crc(packet, salt);
    put_u32(packet, CRC_OFFSET, crc);
    crc
}

fn encode_body(writer: &mut Writer<'_>, body: &Body<'_>) {
    match body {
        Body::Change(change) => crate::store::record::encode_change(writer, change),
        Body::Watermark(watermark) => {
            watermark.synced.encode(writer);
            writer.u64(watermark.running_ms);
            writer.u64(watermark.wall_ms);
        }
        Body::Carried(carried) => carried.encode(writer),
        Body::Again(packet) => writer.raw(packet.body),
    }
}

fn put_u32(bytes: &mut [u8], offset: usize, value: u32) {
    if let Some(slot) = bytes.get_mut(offset..).and_then(|tail| tail.first_chunk_mut::<4>()) {
        *slot = value.to_be_bytes();
    }
}

/// Bytes of a packet with a body of `length` bytes.
pub(crate) fn padded(length: usize) -> usize {
    PACKET_HEADER_BYTES.saturating_add(length).next_multiple_of(8)
}

/// The CRC of a packet under a salt; what stands in its place of the CRC does not count.
pub(crate) fn packet_crc(packet: &[u8], salt: u32) -> u32 {
    let mut hasher = crc32fast::Hasher::new_with_initial(salt);
    hasher.update(packet.get(..CRC_OFFSET).unwrap_or_default());
    hasher.update(packet.get(PACKET_HEADER_BYTES..).unwrap_or_default());
    hasher.finalize()
}
