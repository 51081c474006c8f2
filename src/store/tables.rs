//! Keys and values of the index.
//!
//! One ordered map; the first byte of a key is its table. `user` is one byte of length and the text, as in
//! `record.rs`; a position is u32 segment, u32 offset. Integers are big-endian, but for those that are in unsigned
//! LEB128, because there are many of them and most are small: memberships are most of an index.
//!
//! ```text
//! key                                       value's fields
//! 00                                        applied: lsn u64, end position, directory id 16, running_ms u64,
//!                                           live_bytes u64 (estimated), rebuilding u8
//! 10 group 16                               group: group 16, title text, owner user, creator user, created_at_ms u64,
//!                                           version u64, dissolved u8, member count u32, version in the last key of
//!                                           changes u64, base position, members u8: 1 list of (user, joined leb128);
//!                                           0 too many for a value: read from the journal. The base is the newest
//!                                           packet that has the whole record: the created one or a carried one
//! 20 group 16, first version u64            changes: list of (version u64, position) of the packets that changed the
//!                                           record after its base, 200 a key
//! 30 group 16                               state: head u64, floor u64, last_at_ms u64, last key of extents u64,
//!                                           log_bytes u64 (what the entries from the floor on take when carried)
//! 40 principal u8, user, !first LSN u64     operations: how many stand in older values u64, list of (LSN u64,
//!                                           operation 16, fingerprint u64, group 16, seq u64, version u64, members
//!                                           u32) in the order of LSNs, 48 a key
//! 50 group 16, first seq u64                extents: list of (first seq u64, count u32, position, bytes u32, own
//!                                           bytes u32), 100 a key; an extent is where `count` entries of the group
//!                                           stand; own bytes are what those take when they are carried; holds the
//!                                           seqs from the key's own up to the next key's
//! 58 group 16, user                         former: until u64; a membership that has ended and is still kept
//! 60 user, first group 16                   memberships: list of (group 16, joined leb128, until leb128 or 0, received
//!                                           leb128, read leb128), up to 32 a key, in the order of group ids; holds the groups
//!                                           from the key's own up to the next key's
//! 68 user                                   crowd: groups u32, last group 16: how many groups a user is in, and the
//!                                           group of its last key of memberships, which new ones mostly go to; there
//!                                           for each user whose memberships ever filled more than one value. Counted
//!                                           anew whenever one is divided; what changes in the last value since then is
//!                                           in it only of a user who is nearly full. Without it, all memberships stand
//!                                           in the first value
//! ```
//!
//! A value is a packet of its own:
//!
//! ```text
//! 0  version  u8   5
//! 1  CRC      u32  CRC-32 (IEEE) of the key, then of everything behind this field
//! 5  LSN      u64  of the last packet that changed this value: one that is not newer changes nothing
//! 13 fields
//! ```
//!
//! Dirty values are flushed in the descending order of their keys, those of tables 60 and 68 user by user, the applied LSN
//! last. The order of tables and the complement `!n` make every prefix of a flush one that replay completes: see
//! `overlay.rs`.

#![cfg_attr(not(test), deny(clippy::indexing_slicing, clippy::arithmetic_side_effects, clippy::as_conversions))]

mod keys;

pub(crate) use keys::{
    Key, applied_key, changes_key, crowd_ends, crowd_key, crowd_user, extents_first, extents_key, former_ends,
    former_group, former_key, former_table_ends, former_user, group_key, group_key_of, memberships_ends,
    memberships_first, memberships_key, memberships_user, operations_key, operations_principal, state_group, state_key,
    state_key_of,
};

use super::index::ITEM_BYTES_MAX;
use super::journal::{DirectoryId, Position};
use super::record::ended;
use super::{Membership, Operation};
use crate::codec::{DecodeError, Reader, Writer};
use crate::group::{Member, Record};
use crate::ids::GroupId;
use crate::limits::{GROUP_MEMBERS_MAX, TITLE_BYTES_MAX};

/// Memberships in one value.
pub(crate) const MEMBERSHIPS_PER_VALUE: usize = 32;
/// Operations in one value.
pub(crate) const OPERATIONS_PER_VALUE: usize = 48;
/// Extents in one value.
pub(crate) const EXTENTS_PER_VALUE: usize = 100;
/// Changes in one value.
pub(crate) const CHANGES_PER_VALUE: usize = 200;
/// Journal that one extent covers, unless its first packet alone is larger.
pub(crate) const EXTENT_BYTES_MAX: u32 = 64 * 1024;
/// A value has at most so many bytes: the longest key has 82.
pub(crate) const VALUE_BYTES_MAX: usize = ITEM_BYTES_MAX - 96;

/// Of every value. An index with another one is made anew from the journal.
pub(crate) const VERSION: u8 = 5;
const _: () = assert!(13 + 4 + MEMBERSHIPS_PER_VALUE * 48 <= VALUE_BYTES_MAX);
const _: () = assert!(13 + 4 + 8 + OPERATIONS_PER_VALUE * 68 <= VALUE_BYTES_MAX);
const _: () = assert!(13 + 4 + EXTENTS_PER_VALUE * 28 <= VALUE_BYTES_MAX);
const _: () = assert!(13 + 4 + CHANGES_PER_VALUE * 16 <= VALUE_BYTES_MAX);

/// A value with the LSN of its last change.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Stored {
    pub(crate) lsn: u64,
    pub(crate) value: Value,
}

/// The values of all tables.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Value {
    Applied(AppliedValue),
    Changes(Vec<(u64, Position)>),
    /// By far the largest, and apart, so that the others take less memory.
    Group(Box<GroupValue>),
    State(StateValue),
    Operations(OperationsValue),
    Extents(Vec<Extent>),
    Memberships(Vec<MembershipValue>),
    /// The seq that ended it.
    Former(u64),
    Crowd(CrowdValue),
}

/// Up to where the journal has been applied.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct AppliedValue {
    pub(crate) lsn: u64,
    pub(crate) end: Position,
    pub(crate) directory: DirectoryId,
    pub(crate) running_ms: u64,
    /// Bytes of the journal that cleaning would carry; estimated.
    pub(crate) live_bytes: u64,
    /// Whether it is being made anew: packets may tell of groups whose record comes later.
    pub(crate) rebuilding: bool,
}

/// A group's record; `record.members` is empty where they are too many for a value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct GroupValue {
    pub(crate) record: Record,
    pub(crate) members_count: u32,
    /// The version in the last key of changes; 0 where there is none.
    pub(crate) changes_last: u64,
    /// The newest packet that has the whole record.
    pub(crate) base: Position,
    pub(crate) members_at: MembersAt,
}

/// Where the member list of a group stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum MembersAt {
    /// In the value.
    Value,
    /// In the journal: the base and the changes.
    Journal,
}

/// Of a user whose memberships fill more than one value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct CrowdValue {
    /// The groups that it is in.
    pub(crate) groups: u32,
    /// The group in the last key of its memberships, unless that value is gone or was not flushed.
    pub(crate) last: [u8; 16],
}

/// What every entry of a group changes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct StateValue {
    pub(crate) head: u64,
    pub(crate) floor: u64,
    pub(crate) last_at_ms: u64,
    /// The seq in the last key of extents; 0 where there is none.
    pub(crate) extents_last: u64,
    /// What the entries from the floor on take when they are carried.
    pub(crate) log_bytes: u64,
}

/// Some of the operations of a principal, in the order of their LSNs.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct OperationsValue {
    /// How many stand in older values; kept in the newest value only.
    pub(crate) older: u64,
    /// Each with the LSN of the packet that took effect.
    pub(crate) list: Vec<(u64, Operation)>,
}

/// A stretch of journal with entries of one group.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Extent {
    pub(crate) first_seq: u64,
    pub(crate) count: u32,
    pub(crate) position: Position,
    pub(crate) bytes: u32,
    /// What the entries themselves take when they are carried.
    pub(crate) own_bytes: u32,
}

impl Extent {
    /// The first seq behind it.
    pub(crate) fn end(&self) -> u64 {
        self.first_seq.saturating_add(u64::from(self.count))
    }
}

/// A user's place in one group, without what belongs to the group.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct MembershipValue {
    pub(crate) group: GroupId,
    pub(crate) joined: u64,
    pub(crate) until: Option<u64>,
    pub(crate) received: u64,
    pub(crate) read: u64,
}

impl MembershipValue {
    /// With the group's head.
    pub(crate) fn with_head(self, head: u64) -> Membership {
        let Self { group, joined, until, received, read } = self;
        Membership { group, joined, until, received, read, head }
    }
}

impl Stored {
    /// The bytes under `key`.
    pub(crate) fn encode(&self, key: &[u8]) -> Vec<u8> {
        let mut fields = Vec::new();
        let mut writer = Writer::new(&mut fields);
        writer.u64(self.lsn);
        self.value.encode(&mut writer);
        let mut bytes = Vec::with_capacity(fields.len().saturating_add(5));
        let mut writer = Writer::new(&mut bytes);
        writer.u8(VERSION);
        writer.u32(value_crc(key, &fields));
        writer.raw(&fields);
        bytes
    }

    /// Reads the value of `key`.
    pub(crate) fn decode(key: &[u8], bytes: &[u8]) -> Result<Self, DecodeError> {
        let mut reader = Reader::new(bytes);
        if reader.u8()? != VERSION {
            return Err(DecodeError::BadValue);
        }
        let crc = reader.u32()?;
        let fields = reader.take(reader.remaining())?;
        if value_crc(key, fields) != crc {
            return Err(DecodeError::BadValue);
        }
        let mut reader = Reader::new(fields);
        let stored = Self { lsn: reader.u64()?, value: Value::decode(*key.first().unwrap_or(&0xff), &mut reader)? };
        ended(&reader)?;
        Ok(stored)
    }
}

fn value_crc(key: &[u8], fields: &[u8]) -> u32 {
    let mut hasher = crc32fast::Hasher::new();
    hasher.update(key);
    hasher.update(fields);
    hasher.finalize()
}

fn encode_list<T>(writer: &mut Writer<'_>, items: &[T], mut item: impl FnMut(&mut Writer<'_>, &T)) {
    writer.count(items.len());
    for each in items {
        item(writer, each);
    }
}

impl Value {
    fn encode(&self, writer: &mut Writer<'_>) {
        match self {
            Self::Applied(applied) => {
                writer.u64(applied.lsn);
                applied.end.encode(writer);
                writer.raw(&applied.directory);
                writer.u64(applied.running_ms);
                writer.u64(applied.live_bytes);
                writer.u8(u8::from(applied.rebuilding));
            }
            Self::Changes(changes) => encode_list(writer, changes, |writer, (version, position)| {
                writer.u64(*version);
                position.encode(writer);
            }),
            Self::Group(group) => group.encode(writer),
            Self::State(state) => {
                writer.u64(state.head);
                writer.u64(state.floor);
                writer.u64(state.last_at_ms);
                writer.u64(state.extents_last);
                writer.u64(state.log_bytes);
            }
            Self::Operations(operations) => {
                writer.u64(operations.older);
                encode_list(writer, &operations.list, |writer, (lsn, operation)| {
                    writer.u64(*lsn);
                    encode_operation(writer, operation);
                });
            }
            Self::Extents(extents) => encode_list(writer, extents, |writer, extent| {
                writer.u64(extent.first_seq);
                writer.u32(extent.count);
                extent.position.encode(writer);
                writer.u32(extent.bytes);
                writer.u32(extent.own_bytes);
            }),
            Self::Memberships(memberships) => encode_list(writer, memberships, |writer, membership| {
                writer.group(membership.group);
                writer.leb128(membership.joined);
                writer.leb128(membership.until.unwrap_or(0));
                writer.leb128(membership.received);
                writer.leb128(membership.read);
            }),
            Self::Former(until) => writer.u64(*until),
            Self::Crowd(crowd) => {
                writer.u32(crowd.groups);
                writer.raw(&crowd.last);
            }
        }
    }

    fn decode(table: u8, reader: &mut Reader<'_>) -> Result<Self, DecodeError> {
        Ok(match table {
            0x00 => Self::Applied(AppliedValue {
                lsn: reader.u64()?,
                end: Position::decode(reader)?,
                directory: *reader.take(16)?.first_chunk().ok_or(DecodeError::Truncated)?,
                running_ms: reader.u64()?,
                live_bytes: reader.u64()?,
                rebuilding: decode_flag(reader)?,
            }),
            0x20 => Self::Changes(
                reader.list(CHANGES_PER_VALUE, 16, |reader| Ok((reader.u64()?, Position::decode(reader)?)))?,
            ),
            0x10 => Self::Group(Box::new(GroupValue::decode(reader)?)),
            0x30 => Self::State(StateValue {
                head: reader.u64()?,
                floor: reader.u64()?,
                last_at_ms: reader.u64()?,
                extents_last: reader.u64()?,
                log_bytes: reader.u64()?,
            }),
            0x40 => Self::Operations(OperationsValue {
                older: reader.u64()?,
                list: reader.list(OPERATIONS_PER_VALUE, 68, |reader| Ok((reader.u64()?, decode_operation(reader)?)))?,
            }),
            0x50 => Self::Extents(reader.list(EXTENTS_PER_VALUE, 28, decode_extent)?),
            0x60 => Self::Memberships(reader.list(MEMBERSHIPS_PER_VALUE, 20, decode_membership)?),
            0x58 => Self::Former(reader.u64()?),
            0x68 => Self::Crowd(CrowdValue {
                groups: reader.u32()?,
                last: *reader.take(16)?.first_chunk().ok_or(DecodeError::Truncated)?,
            }),
            _ => return Err(DecodeError::BadValue),
        })
    }
}

/// Appends what is remembered of an operation; the journal has it in the same form.
pub(crate) fn encode_operation(writer: &mut Writer<'_>, operation: &Operation) {
    writer.operation(operation.operation);
    writer.u64(operation.fingerprint);
    writer.group(operation.group);
    writer.u64(operation.seq);
    writer.u64(operation.version);
    writer.u32(operation.members);
}

/// Reads what [`encode_operation`] wrote: 60 bytes.
pub(crate) fn decode_operation(reader: &mut Reader<'_>) -> Result<Operation, DecodeError> {
    Ok(Operation {
        operation: reader.operation()?,
        fingerprint: reader.u64()?,
        group: reader.group()?,
        seq: reader.u64()?,
        version: reader.u64()?,
        members: reader.u32()?,
    })
}

fn decode_flag(reader: &mut Reader<'_>) -> Result<bool, DecodeError> {
    match reader.u8()? {
        0 => Ok(false),
        1 => Ok(true),
        _ => Err(DecodeError::BadValue),
    }
}

fn decode_extent(reader: &mut Reader<'_>) -> Result<Extent, DecodeError> {
    Ok(Extent {
        first_seq: reader.u64()?,
        count: reader.u32()?,
        position: Position::decode(reader)?,
        bytes: reader.u32()?,
        own_bytes: reader.u32()?,
    })
}

fn decode_membership(reader: &mut Reader<'_>) -> Result<MembershipValue, DecodeError> {
    Ok(MembershipValue {
        group: reader.group()?,
        joined: reader.leb128()?,
        until: Some(reader.leb128()?).filter(|until| *until != 0),
        received: reader.leb128()?,
        read: reader.leb128()?,
    })
}

impl GroupValue {
    /// Of a record that stands as a whole at `base`.
    pub(crate) fn new(record: Record, base: Position) -> Self {
        let members_count = u32::try_from(record.members.len()).unwrap_or(u32::MAX);
        let mut value = Self { record, members_count, changes_last: 0, base, members_at: MembersAt::Value };
        value.shrink();
        value
    }

    /// Forgets the members where the value would be too large with them: the journal has them.
    pub(crate) fn shrink(&mut self) {
        if self.members_at == MembersAt::Value && self.bytes() > VALUE_BYTES_MAX {
            self.members_at = MembersAt::Journal;
            self.record.members = Vec::new();
        }
    }

    fn bytes(&self) -> usize {
        let mut bytes = Vec::new();
        self.encode(&mut Writer::new(&mut bytes));
        bytes.len().saturating_add(13)
    }

    fn encode(&self, writer: &mut Writer<'_>) {
        let record = &self.record;
        writer.group(record.group);
        writer.text(&record.title);
        writer.user(&record.owner);
        writer.user(&record.creator);
        writer.u64(record.created_at_ms);
        writer.u64(record.version);
        writer.u8(u8::from(record.dissolved));
        writer.u32(self.members_count);
        writer.u64(self.changes_last);
        self.base.encode(writer);
        match self.members_at {
            MembersAt::Value => {
                writer.u8(1);
                encode_list(writer, &record.members, |writer, member| {
                    writer.user(&member.user);
                    writer.leb128(member.joined);
                });
            }
            MembersAt::Journal => writer.u8(0),
        }
    }

    fn decode(reader: &mut Reader<'_>) -> Result<Self, DecodeError> {
        let mut record = Record {
            group: reader.group()?,
            title: reader.text(TITLE_BYTES_MAX)?.into(),
            owner: reader.user()?,
            creator: reader.user()?,
            created_at_ms: reader.u64()?,
            members: Vec::new(),
            version: reader.u64()?,
            dissolved: decode_flag(reader)?,
        };
        let members_count = reader.u32()?;
        let changes_last = reader.u64()?;
        let base = Position::decode(reader)?;
        let members_at = match reader.u8()? {
            0 => MembersAt::Journal,
            1 => {
                record.members = reader.list(GROUP_MEMBERS_MAX, 3, |reader| {
                    Ok(Member { user: reader.user()?, joined: reader.leb128()? })
                })?;
                MembersAt::Value
            }
            _ => return Err(DecodeError::BadValue),
        };
        Ok(Self { record, members_count, changes_last, base, members_at })
    }
}
