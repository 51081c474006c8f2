//! Bodies of the journal's packets: what one change says, as bytes.
//!
//! All integers are big-endian. `user` is one byte of length and the text (a length of 0 means none where that is
//! allowed); a `list` is four bytes of count and the items; `text` is two bytes of length and UTF-8; `bytes` is four
//! bytes of length and the bytes. Group and operation ids are 16 bytes. A body ends with its last field.
//!
//! ```text
//! Effect (kind 0x01, version 1)
//!   principal    u8 (1 user, 2 service), user
//!   operation    16 bytes
//!   fingerprint  u64
//!   group        16 bytes
//!   entry        seq u64, version u64, at_ms u64, sender user, by user-or-none, event
//! event: u8, then
//!   0x01 created      title text, members list of user
//!   0x02 added        members list of user
//!   0x03 removed      members list of user
//!   0x04 left         u8: 0 unchanged; 1 passed, owner user; 2 dissolved
//!   0x05 renamed      title text
//!   0x06 transferred  owner user
//!   0x07 dissolved    —
//!   0x08 message      body bytes
//!   0x09 whisper      to list of user, body bytes
//! Marks (kind 0x02, version 1)
//!   list of: user, group 16 bytes, received u64, read u64
//! ```
//!
//! What cleaning carries forward is specified in `carried.rs`.

#![cfg_attr(not(test), deny(clippy::indexing_slicing, clippy::arithmetic_side_effects, clippy::as_conversions))]

use std::sync::Arc;

use crate::codec::{DecodeError, Reader, Writer};
use crate::group::{Entry, Event, Succession};
use crate::ids::{Principal, UserId};
use crate::limits::{BODY_BYTES_MAX, GROUP_MEMBERS_MAX, PACKET_BYTES_MAX, TITLE_BYTES_MAX};
use crate::store::{Change, Effect, MARKS_PER_CHANGE_MAX, Mark};

/// Bytes of one mark with the longest user id.
const MARK_BYTES_MAX: usize = 65 + 16 + 8 + 8;
const _: () = assert!(64 + MARKS_PER_CHANGE_MAX * MARK_BYTES_MAX <= PACKET_BYTES_MAX);

/// Appends the body of a change.
pub(crate) fn encode_change(writer: &mut Writer<'_>, change: &Change) {
    match change {
        Change::Effect(effect) => encode_effect(writer, effect),
        Change::Marks(marks) => encode_marks(writer, marks),
    }
}

/// Appends the body of a packet of marks.
pub(super) fn encode_marks(writer: &mut Writer<'_>, marks: &[Mark]) {
    writer.count(marks.len());
    for mark in marks {
        writer.user(&mark.user);
        writer.group(mark.group);
        writer.u64(mark.received);
        writer.u64(mark.read);
    }
}

/// The bytes that [`encode_change`] would append, without encoding: asked for several times on the way of each commit.
pub(crate) fn change_body_bytes(change: &Change) -> usize {
    match change {
        Change::Effect(effect) => {
            let (_, principal) = principal_parts(&effect.principal);
            // Sort of the principal; operation id, fingerprint, group.
            let fixed = 1 + 16 + 8 + 16;
            [fixed, user_bytes(principal), entry_bytes(&effect.entry)].iter().sum()
        }
        Change::Marks(marks) => {
            let names: usize = marks.iter().map(|mark| user_bytes(&mark.user)).sum();
            [4, names, marks.len().saturating_mul(16 + 8 + 8)].iter().sum()
        }
    }
}

/// The bytes of an entry.
pub(super) fn entry_bytes(entry: &Entry) -> usize {
    let by = entry.by.as_ref().map_or(1, user_bytes);
    // Seq, version, time.
    [8 + 8 + 8, user_bytes(&entry.sender), by, event_bytes(&entry.event)].iter().sum()
}

fn event_bytes(event: &Event) -> usize {
    let users = |users: &[UserId]| users.iter().map(user_bytes).sum::<usize>().saturating_add(4);
    let fields = match event {
        Event::Created { title, members } => [title.len().saturating_add(2), users(members)],
        Event::Added { members } | Event::Removed { members } => [0, users(members)],
        Event::Left { succession: Succession::Passed { owner } } => [1, user_bytes(owner)],
        Event::Left { succession: Succession::Unchanged | Succession::Dissolved } => [1, 0],
        Event::Renamed { title } => [title.len(), 2],
        Event::Transferred { owner } => [0, user_bytes(owner)],
        Event::Dissolved => [0, 0],
        Event::Message { body } => [body.len(), 4],
        Event::Whisper { to, body } => [users(to), body.len().saturating_add(4)],
    };
    fields.iter().sum::<usize>().saturating_add(1)
}

pub(super) fn user_bytes(user: &UserId) -> usize {
    user.as_str().len().saturating_add(1)
}

/// Reads the body of an effect.
pub(crate) fn decode_effect(body: &[u8]) -> Result<Effect, DecodeError> {
    let mut reader = Reader::new(body);
    let effect = Effect {
        principal: decode_principal(&mut reader)?,
        operation: reader.operation()?,
        fingerprint: reader.u64()?,
        group: reader.group()?,
        entry: Arc::new(decode_entry(&mut reader)?),
    };
    ended(&reader)?;
    Ok(effect)
}

/// Reads the body of a packet of marks.
pub(crate) fn decode_marks(body: &[u8]) -> Result<Vec<Mark>, DecodeError> {
    let mut reader = Reader::new(body);
    let marks = reader.list(MARKS_PER_CHANGE_MAX, 34, |reader| {
        Ok(Mark { user: reader.user()?, group: reader.group()?, received: reader.u64()?, read: reader.u64()? })
    })?;
    ended(&reader)?;
    Ok(marks)
}

/// Refuses bytes behind the last field: formats on disk grow by their version, never by a tail.
pub(crate) fn ended(reader: &Reader<'_>) -> Result<(), DecodeError> {
    if reader.remaining() == 0 { Ok(()) } else { Err(DecodeError::TooLong) }
}

fn encode_effect(writer: &mut Writer<'_>, effect: &Effect) {
    encode_principal(writer, &effect.principal);
    writer.operation(effect.operation);
    writer.u64(effect.fingerprint);
    writer.group(effect.group);
    encode_entry(writer, &effect.entry);
}

pub(super) fn encode_entry(writer: &mut Writer<'_>, entry: &Entry) {
    writer.u64(entry.seq);
    writer.u64(entry.version);
    writer.u64(entry.at_ms);
    writer.user(&entry.sender);
    writer.user_or_none(entry.by.as_ref());
    encode_event(writer, &entry.event);
}

pub(super) fn encode_principal(writer: &mut Writer<'_>, principal: &Principal) {
    let (kind, user) = principal_parts(principal);
    writer.u8(kind);
    writer.user(user);
}

/// The byte on disk for the sort of a principal, and its name.
pub(crate) fn principal_parts(principal: &Principal) -> (u8, &UserId) {
    match principal {
        Principal::User(user) => (0x01, user),
        Principal::Service(user) => (0x02, user),
    }
}

/// Reads a principal: the byte for its sort, and its name.
pub(crate) fn decode_principal(reader: &mut Reader<'_>) -> Result<Principal, DecodeError> {
    match reader.u8()? {
        0x01 => Ok(Principal::User(reader.user()?)),
        0x02 => Ok(Principal::Service(reader.user()?)),
        _ => Err(DecodeError::BadValue),
    }
}

pub(super) fn decode_entry(reader: &mut Reader<'_>) -> Result<Entry, DecodeError> {
    Ok(Entry {
        seq: reader.u64()?,
        version: reader.u64()?,
        at_ms: reader.u64()?,
        sender: reader.user()?,
        by: reader.user_or_none()?,
        event: decode_event(reader)?,
    })
}

fn encode_event(writer: &mut Writer<'_>, event: &Event) {
    match event {
        Event::Created { title, members } => {
            writer.u8(0x01);
            writer.text(title);
            writer.users(members.iter());
        }
        Event::Added { members } => {
            writer.u8(0x02);
            writer.users(members.iter());
        }
        Event::Removed { members } => {
            writer.u8(0x03);
            writer.users(members.iter());
        }
        Event::Left { succession } => {
            writer.u8(0x04);
            match succession {
                Succession::Unchanged => writer.u8(0),
                Succession::Passed { owner } => {
                    writer.u8(1);
                    writer.user(owner);
                }
                Succession::Dissolved => writer.u8(2),
            }
        }
        Event::Renamed { title } => {
            writer.u8(0x05);
            writer.text(title);
        }
        Event::Transferred { owner } => {
            writer.u8(0x06);
            writer.user(owner);
        }
        Event::Dissolved => writer.u8(0x07),
        Event::Message { body } => {
            writer.u8(0x08);
            writer.bytes(body);
        }
        Event::Whisper { to, body } => {
            writer.u8(0x09);
            writer.users(to.iter());
            writer.bytes(body);
        }
    }
}

fn decode_event(reader: &mut Reader<'_>) -> Result<Event, DecodeError> {
    Ok(match reader.u8()? {
        0x01 => {
            Event::Created { title: reader.text(TITLE_BYTES_MAX)?.into(), members: reader.users(GROUP_MEMBERS_MAX)? }
        }
        0x02 => Event::Added { members: reader.users(GROUP_MEMBERS_MAX)? },
        0x03 => Event::Removed { members: reader.users(GROUP_MEMBERS_MAX)? },
        0x04 => Event::Left {
            succession: match reader.u8()? {
                0 => Succession::Unchanged,
                1 => Succession::Passed { owner: reader.user()? },
                2 => Succession::Dissolved,
                _ => return Err(DecodeError::BadValue),
            },
        },
        0x05 => Event::Renamed { title: reader.text(TITLE_BYTES_MAX)?.into() },
        0x06 => Event::Transferred { owner: reader.user()? },
        0x07 => Event::Dissolved,
        0x08 => Event::Message { body: reader.bytes(BODY_BYTES_MAX)?.into() },
        0x09 => Event::Whisper { to: reader.users(GROUP_MEMBERS_MAX)?, body: reader.bytes(BODY_BYTES_MAX)?.into() },
        _ => return Err(DecodeError::BadValue),
    })
}
