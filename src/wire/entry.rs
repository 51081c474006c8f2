//! Entries as they stand in pushes and in pages of history.
//!
//! ```text
//! kind u8 · seq u64 · version u64                                (a hidden entry ends here)
//! at u64 · sender user · by user-or-none · fields of the kind
//! ```
//!
//! | kind | entry | fields |
//! |---|---|---|
//! | 0 | hidden | |
//! | 1 | created | title text · members users |
//! | 2 | added | members users |
//! | 3 | removed | members users |
//! | 4 | left | succession u8 (0 unchanged, 1 passed, 2 dissolved) · with 1: owner user |
//! | 5 | renamed | title text |
//! | 6 | transferred | owner user |
//! | 7 | dissolved | |
//! | 8 | message | body bytes |
//! | 9 | whisper | to users · body bytes |

use std::ops::RangeInclusive;

use crate::codec::{DecodeError, Reader, Writer};
use crate::group::{Entry, Event, Succession};
use crate::ids::UserId;
use crate::limits::{BODY_BYTES_MAX, GROUP_MEMBERS_MAX, TITLE_BYTES_MAX};

/// The kinds that have a content here; the others show that a seq was used, and nothing more.
const KINDS_KNOWN: RangeInclusive<u8> = 1..=9;

/// An entry as a member may see it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LogEntry {
    /// The whole entry.
    Shown(Entry),
    /// A whisper to others: a seq was used, and nothing more.
    Hidden {
        /// Its seq.
        seq: u64,
        /// The group's version at it.
        version: u64,
    },
}

impl LogEntry {
    /// What a member may see of an entry.
    pub fn shown_to(user: &UserId, entry: &Entry) -> Self {
        if entry.is_shown_to(user) {
            Self::Shown(entry.clone())
        } else {
            Self::Hidden { seq: entry.seq, version: entry.version }
        }
    }

    /// Its seq.
    pub fn seq(&self) -> u64 {
        match self {
            Self::Shown(entry) => entry.seq,
            Self::Hidden { seq, .. } => *seq,
        }
    }

    /// The group's version at it.
    pub fn version(&self) -> u64 {
        match self {
            Self::Shown(entry) => entry.version,
            Self::Hidden { version, .. } => *version,
        }
    }

    /// Appends it.
    pub fn encode(&self, writer: &mut Writer<'_>) {
        match self {
            Self::Shown(entry) => encode_shown(entry, writer),
            Self::Hidden { seq, version } => {
                writer.u8(0);
                writer.u64(*seq);
                writer.u64(*version);
            }
        }
    }

    /// Reads it. A kind that is not known is read as hidden: a later server's entry costs an old client its content,
    /// not the connection, and the version in it tells whether the record has to be asked for.
    pub fn decode(reader: &mut Reader<'_>) -> Result<Self, DecodeError> {
        let kind = reader.u8()?;
        let seq = reader.u64()?;
        let version = reader.u64()?;
        if seq == 0 || version == 0 || version > seq {
            return Err(DecodeError::BadValue);
        }
        if !KINDS_KNOWN.contains(&kind) {
            return Ok(Self::Hidden { seq, version });
        }
        let at_ms = reader.u64()?;
        let sender = reader.user()?;
        let by = reader.user_or_none()?;
        let event = decode_event(kind, reader)?;
        Ok(Self::Shown(Entry { seq, version, at_ms, sender, by, event }))
    }
}

/// Appends a whole entry, as one that may see it gets it.
pub(super) fn encode_shown(entry: &Entry, writer: &mut Writer<'_>) {
    writer.u8(kind_of(&entry.event));
    writer.u64(entry.seq);
    writer.u64(entry.version);
    writer.u64(entry.at_ms);
    writer.user(&entry.sender);
    writer.user_or_none(entry.by.as_ref());
    match &entry.event {
        Event::Created { title, members } => {
            writer.text(title);
            writer.users(members.iter());
        }
        Event::Added { members } | Event::Removed { members } => writer.users(members.iter()),
        Event::Left { succession } => match succession {
            Succession::Unchanged => writer.u8(0),
            Succession::Passed { owner } => {
                writer.u8(1);
                writer.user(owner);
            }
            Succession::Dissolved => writer.u8(2),
        },
        Event::Renamed { title } => writer.text(title),
        Event::Transferred { owner } => writer.user(owner),
        Event::Dissolved => {}
        Event::Message { body } => writer.bytes(body),
        Event::Whisper { to, body } => {
            writer.users(to.iter());
            writer.bytes(body);
        }
    }
}

fn kind_of(event: &Event) -> u8 {
    match event {
        Event::Created { .. } => 1,
        Event::Added { .. } => 2,
        Event::Removed { .. } => 3,
        Event::Left { .. } => 4,
        Event::Renamed { .. } => 5,
        Event::Transferred { .. } => 6,
        Event::Dissolved => 7,
        Event::Message { .. } => 8,
        Event::Whisper { .. } => 9,
    }
}

fn decode_event(kind: u8, reader: &mut Reader<'_>) -> Result<Event, DecodeError> {
    Ok(match kind {
        1 => Event::Created { title: reader.text(TITLE_BYTES_MAX)?.into(), members: reader.users(GROUP_MEMBERS_MAX)? },
        2 => Event::Added { members: reader.users(GROUP_MEMBERS_MAX)? },
        3 => Event::Removed { members: reader.users(GROUP_MEMBERS_MAX)? },
        4 => Event::Left {
            succession: match reader.u8()? {
                0 => Succession::Unchanged,
                1 => Succession::Passed { owner: reader.user()? },
                2 => Succession::Dissolved,
                _ => return Err(DecodeError::BadValue),
            },
        },
        5 => Event::Renamed { title: reader.text(TITLE_BYTES_MAX)?.into() },
        6 => Event::Transferred { owner: reader.user()? },
        7 => Event::Dissolved,
        8 => Event::Message { body: reader.bytes(BODY_BYTES_MAX)?.into() },
        9 => Event::Whisper { to: reader.users(GROUP_MEMBERS_MAX)?, body: reader.bytes(BODY_BYTES_MAX)?.into() },
        _ => return Err(DecodeError::BadValue),
    })
}
