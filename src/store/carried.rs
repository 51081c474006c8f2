//! What cleaning carries from the oldest segment to the end of the journal, as values and as bytes.
//!
//! Each is a statement that is true at its place in the journal: whoever replays from there on, or from anywhere
//! before, comes to the same state. So what was said before, in segments that are gone, is not missed.
//!
//! Fields as in `record.rs`. All have version 1.
//!
//! ```text
//! Carried record (kind 0x10)       the whole record of a group, and where its log stands
//!   head u64, floor u64, last_at_ms u64, group 16, title text, owner user, creator user, created_at_ms u64,
//!   version u64, dissolved u8, members list of (user, joined u64)
//! Carried memberships (kind 0x11)  memberships of one group that have ended and are kept
//!   group 16, list of (user, joined u64, until u64, received u64, read u64)
//! Carried operations (kind 0x12)   remembered operations, each with the LSN at which it took effect
//!   list of: principal u8 (1 user, 2 service), user, LSN u64, operation 16, fingerprint u64, group 16, seq u64,
//!   version u64, members u32
//! Carried entry (kind 0x13)        an entry, and the running time at which it was first written
//!   group 16, running_ms u64, entry
//! Floors (kind 0x14)               the lowest seqs that logs still have
//!   list of: group 16, floor u64
//! Log start (kind 0x16)            everything before this segment is carried; ends each cleaning
//!   segment u32
//! ```
//!
//! Carried marks are an ordinary packet of marks. 0x15 is not used: a group that is gone needs no tombstone, because
//! nothing that is said of it stands behind what ended it.

#![cfg_attr(not(test), deny(clippy::indexing_slicing, clippy::arithmetic_side_effects, clippy::as_conversions))]

use std::collections::VecDeque;

use super::record::{
    decode_entry, decode_principal, encode_entry, encode_marks, encode_principal, ended, entry_bytes, user_bytes,
};
use super::tables::{decode_operation, encode_operation};
use super::{Change, GroupState, Mark, Operation};
use crate::codec::{DecodeError, Reader, Writer};
use crate::group::{Entry, Member, Record};
use crate::ids::{GroupId, Principal, UserId};
use crate::limits::{GROUP_MEMBERS_MAX, PACKET_BYTES_MAX, TITLE_BYTES_MAX};

pub(crate) const CARRIED_RECORD: u8 = 0x10;
pub(crate) const CARRIED_MEMBERSHIPS: u8 = 0x11;
pub(crate) const CARRIED_OPERATIONS: u8 = 0x12;
pub(crate) const CARRIED_ENTRY: u8 = 0x13;
pub(crate) const FLOORS: u8 = 0x14;
pub(crate) const LOG_START: u8 = 0x16;

/// Items of a list in one packet, so that each packet fits whatever the names.
pub(crate) const CARRIED_LIST_MAX: usize = 4_000;
const _: () = assert!(64 + CARRIED_LIST_MAX * (66 + 8 + 60) <= PACKET_BYTES_MAX);
const _: () = assert!(1024 + GROUP_MEMBERS_MAX * (65 + 8) <= PACKET_BYTES_MAX);

/// One packet that cleaning writes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Carried {
    Record(GroupState),
    Memberships { group: GroupId, members: Vec<FormerMember> },
    Operations(Vec<CarriedOperation>),
    Entry(CarriedEntry),
    Floors(Vec<(GroupId, u64)>),
    LogStart { segment: u32 },
    Marks(Vec<Mark>),
}

/// A membership that has ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct FormerMember {
    pub(crate) user: UserId,
    pub(crate) joined: u64,
    pub(crate) until: u64,
    pub(crate) received: u64,
    pub(crate) read: u64,
}

/// A remembered operation with its place in the order of its principal.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct CarriedOperation {
    pub(crate) principal: Principal,
    pub(crate) lsn: u64,
    pub(crate) operation: Operation,
}

/// An entry with its age.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct CarriedEntry {
    pub(crate) group: GroupId,
    pub(crate) running_ms: u64,
    pub(crate) entry: Entry,
}

/// Bytes of the body of a carried entry: what an entry counts for in the retention by bytes, wherever it stands.
pub(crate) fn carried_entry_bytes(entry: &Entry) -> usize {
    entry_bytes(entry).saturating_add(16 + 8)
}

impl Carried {
    /// The kind of its packet; marks have the ordinary one.
    pub(crate) fn kind(&self) -> Option<u8> {
        match self {
            Self::Record(_) => Some(CARRIED_RECORD),
            Self::Memberships { .. } => Some(CARRIED_MEMBERSHIPS),
            Self::Operations(_) => Some(CARRIED_OPERATIONS),
            Self::Entry(_) => Some(CARRIED_ENTRY),
            Self::Floors(_) => Some(FLOORS),
            Self::LogStart { .. } => Some(LOG_START),
            Self::Marks(_) => None,
        }
    }

    /// The bytes of its body.
    pub(crate) fn body_bytes(&self) -> usize {
        let names = |users: &mut dyn Iterator<Item = &UserId>| users.map(user_bytes).sum::<usize>();
        match self {
            Self::Record(state) => {
                let record = &state.record;
                let members = names(&mut record.members.iter().map(|member| &member.user));
                let fixed = 8 + 8 + 8 + 16 + 2 + 8 + 8 + 1 + 4;
                let texts = [record.title.len(), user_bytes(&record.owner), user_bytes(&record.creator)];
                [fixed, texts.iter().sum(), members, record.members.len().saturating_mul(8)].iter().sum()
            }
            Self::Memberships { members, .. } => {
                let users = names(&mut members.iter().map(|member| &member.user));
                [16 + 4, users, members.len().saturating_mul(32)].iter().sum()
            }
            Self::Operations(operations) => {
                let principal =
                    |carried: &CarriedOperation| user_bytes(super::record::principal_parts(&carried.principal).1);
                let users = operations.iter().map(principal).sum::<usize>();
                [4, users, operations.len().saturating_mul(1 + 8 + 60)].iter().sum()
            }
            Self::Entry(carried) => carried_entry_bytes(&carried.entry),
            Self::Floors(floors) => floors.len().saturating_mul(24).saturating_add(4),
            Self::LogStart { .. } => 4,
            Self::Marks(marks) => {
                let users = names(&mut marks.iter().map(|mark| &mark.user));
                [4, users, marks.len().saturating_mul(16 + 8 + 8)].iter().sum()
            }
        }
    }

    /// Appends its body.
    pub(crate) fn encode(&self, writer: &mut Writer<'_>) {
        match self {
            Self::Record(state) => encode_state(writer, state),
            Self::Memberships { group, members } => {
                writer.group(*group);
                writer.count(members.len());
                for member in members {
                    writer.user(&member.user);
                    for field in [member.joined, member.until, member.received, member.read] {
                        writer.u64(field);
                    }
                }
            }
            Self::Operations(operations) => {
                writer.count(operations.len());
                for CarriedOperation { principal, lsn, operation } in operations {
                    encode_principal(writer, principal);
                    writer.u64(*lsn);
                    encode_operation(writer, operation);
                }
            }
            Self::Entry(carried) => {
                writer.group(carried.group);
                writer.u64(carried.running_ms);
                encode_entry(writer, &carried.entry);
            }
            Self::Floors(floors) => {
                writer.count(floors.len());
                for (group, floor) in floors {
                    writer.group(*group);
                    writer.u64(*floor);
                }
            }
            Self::LogStart { segment } => writer.u32(*segment),
            Self::Marks(marks) => encode_marks(writer, marks),
        }
    }

    /// Reads the body of a packet of one of these kinds; `None` for another kind.
    pub(crate) fn decode(kind: u8, body: &[u8]) -> Result<Option<Self>, DecodeError> {
        let mut reader = Reader::new(body);
        let carried = match kind {
            CARRIED_RECORD => Self::Record(decode_state(&mut reader)?),
            CARRIED_MEMBERSHIPS => {
                Self::Memberships { group: reader.group()?, members: reader.list(CARRIED_LIST_MAX, 34, decode_former)? }
            }
            CARRIED_OPERATIONS => Self::Operations(reader.list(CARRIED_LIST_MAX, 71, |reader| {
                let principal = decode_principal(reader)?;
                Ok(CarriedOperation { principal, lsn: reader.u64()?, operation: decode_operation(reader)? })
            })?),
            CARRIED_ENTRY => Self::Entry(CarriedEntry {
                group: reader.group()?,
                running_ms: reader.u64()?,
                entry: decode_entry(&mut reader)?,
            }),
            FLOORS => Self::Floors(reader.list(CARRIED_LIST_MAX, 24, |reader| Ok((reader.group()?, reader.u64()?)))?),
            LOG_START => Self::LogStart { segment: reader.u32()? },
            _ => return Ok(None),
        };
        ended(&reader)?;
        Ok(Some(carried))
    }
}

fn encode_state(writer: &mut Writer<'_>, state: &GroupState) {
    writer.u64(state.head);
    writer.u64(state.floor);
    writer.u64(state.last_at_ms);
    let record = &state.record;
    writer.group(record.group);
    writer.text(&record.title);
    writer.user(&record.owner);
    writer.user(&record.creator);
    writer.u64(record.created_at_ms);
    writer.u64(record.version);
    writer.u8(u8::from(record.dissolved));
    writer.count(record.members.len());
    for member in &record.members {
        writer.user(&member.user);
        writer.u64(member.joined);
    }
}

fn decode_state(reader: &mut Reader<'_>) -> Result<GroupState, DecodeError> {
    let (head, floor, last_at_ms) = (reader.u64()?, reader.u64()?, reader.u64()?);
    let record = Record {
        group: reader.group()?,
        title: reader.text(TITLE_BYTES_MAX)?.into(),
        owner: reader.user()?,
        creator: reader.user()?,
        created_at_ms: reader.u64()?,
        version: reader.u64()?,
        dissolved: match reader.u8()? {
            0 => false,
            1 => true,
            _ => return Err(DecodeError::BadValue),
        },
        members: reader
            .list(GROUP_MEMBERS_MAX, 10, |reader| Ok(Member { user: reader.user()?, joined: reader.u64()? }))?,
    };
    Ok(GroupState { record, head, floor, last_at_ms })
}

fn decode_former(reader: &mut Reader<'_>) -> Result<FormerMember, DecodeError> {
    Ok(FormerMember {
        user: reader.user()?,
        joined: reader.u64()?,
        until: reader.u64()?,
        received: reader.u64()?,
        read: reader.u64()?,
    })
}

/// What one step of cleaning wants written.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Slice {
    /// It was computed from everything up to this LSN.
    pub(crate) basis_lsn: u64,
    /// In this order.
    pub(crate) carried: Vec<Carried>,
}

/// What became of a slice.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Carrying {
    /// All of it was written.
    Done,
    /// Some of it was not true any more: nothing was written, and it is to be planned again.
    Refused,
}

/// Changes of records and marks that a slice may not have seen.
///
/// Between the look at the index and the write, others may change what is carried; such an item would be a lie at the
/// place where it is written. Whoever writes keeps the last changes in mind and refuses a slice that they touch; it
/// is planned again from a fresh look. What needs no such care: entries and operations never change, marks and floors only
/// grow and are taken as such.
#[derive(Debug, Default)]
pub(crate) struct Touched {
    records: VecDeque<(u64, GroupId)>,
    marks: VecDeque<(u64, GroupId)>,
    /// Everything behind this LSN is in mind.
    complete_from: u64,
    /// For a control: every slice counts as true.
    #[cfg(test)]
    pub(crate) believes_all: bool,
}

/// Changes that are kept in mind; a slice that is older than all of them is planned again.
const TOUCHED_MAX: usize = 65_536;

impl Touched {
    /// Takes note of a change that was written at an LSN.
    pub(crate) fn note(&mut self, lsn: u64, change: &Change) {
        match change {
            Change::Effect(effect) if effect.entry.event.changes_record() => {
                self.records.push_back((lsn, effect.group));
            }
            Change::Effect(_) => {}
            Change::Marks(marks) => self.marks.extend(marks.iter().map(|mark| (lsn, mark.group))),
        }
        for list in [&mut self.records, &mut self.marks] {
            while list.len() > TOUCHED_MAX {
                let forgotten = list.pop_front().map_or(0, |(lsn, _)| lsn);
                self.complete_from = self.complete_from.max(forgotten);
            }
        }
    }

    /// Forgets what slices from this basis on have seen.
    pub(crate) fn forget_through(&mut self, basis_lsn: u64) {
        for list in [&mut self.records, &mut self.marks] {
            while list.front().is_some_and(|(lsn, _)| *lsn <= basis_lsn) {
                list.pop_front();
            }
        }
    }

    /// What of a slice may be written: all of it, or nothing if a change has overtaken some of it. Its items belong
    /// together: a record goes with the former memberships of its group.
    pub(crate) fn what_is_true(&self, slice: Slice) -> (Vec<Carried>, Carrying) {
        let Slice { basis_lsn, carried } = slice;
        #[cfg(test)]
        if self.believes_all {
            return (carried, Carrying::Done);
        }
        let believes_all = planted!("cleaner: what changed meanwhile is carried as it was");
        if believes_all || carried.iter().all(|carried| self.leaves(carried, basis_lsn)) {
            (carried, Carrying::Done)
        } else {
            (Vec::new(), Carrying::Refused)
        }
    }

    /// Whether an item that was computed from everything up to `basis_lsn` is still true.
    fn leaves(&self, carried: &Carried, basis_lsn: u64) -> bool {
        let touched = |list: &VecDeque<(u64, GroupId)>, group: GroupId| {
            basis_lsn < self.complete_from || list.iter().any(|(lsn, touched)| *lsn > basis_lsn && *touched == group)
        };
        match carried {
            Carried::Record(state) => {
                let group = state.record.group;
                !(touched(&self.records, group) || state.record.dissolved && touched(&self.marks, group))
            }
            Carried::Memberships { group, .. } => !touched(&self.records, *group) && !touched(&self.marks, *group),
            Carried::Operations(_)
            | Carried::Entry(_)
            | Carried::Floors(_)
            | Carried::LogStart { .. }
            | Carried::Marks(_) => true,
        }
    }
}
