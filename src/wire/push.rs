//! Pushes: what the server sends unasked, with request id 0. A push is encoded once, whoever gets it: neither its
//! bytes nor its CRC depend on the recipient.

use super::entry::LogEntry;
use super::header::Kind;
use crate::codec::{DecodeError, Reader, Writer};
use crate::group::Record;
use crate::ids::{GroupId, UserId};
use crate::limits::{BODY_BYTES_MAX, GROUP_MEMBERS_MAX, TITLE_BYTES_MAX};

/// A group as a member must know it to show it: the one packet that a create sends to everybody.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GroupPacket {
    /// The seq to read on from: one more than what this packet already tells.
    pub from: u64,
    /// The group.
    pub group: GroupId,
    /// The record's version.
    pub version: u64,
    /// The seq of the last entry. If `from` is above it, the group is live on this connection.
    pub head: u64,
    /// When it was made, in milliseconds since 1970.
    pub created_at_ms: u64,
    /// The owner.
    pub owner: UserId,
    /// The creator.
    pub creator: UserId,
    /// The title, possibly empty.
    pub title: String,
    /// All members, in the order of joining.
    pub members: Vec<UserId>,
}

impl GroupPacket {
    /// The packet of a record.
    pub fn of(record: &Record, head: u64, from: u64) -> Self {
        Self {
            from,
            group: record.group,
            version: record.version,
            head,
            created_at_ms: record.created_at_ms,
            owner: record.owner.clone(),
            creator: record.creator.clone(),
            title: record.title.to_string(),
            members: record.members.iter().map(|member| member.user.clone()).collect(),
        }
    }

    fn encode(&self, writer: &mut Writer<'_>) {
        writer.u64(self.from);
        writer.group(self.group);
        writer.u64(self.version);
        writer.u64(self.head);
        writer.u64(self.created_at_ms);
        writer.user(&self.owner);
        writer.user(&self.creator);
        writer.text(&self.title);
        writer.users(self.members.iter());
    }

    fn decode(r: &mut Reader<'_>) -> Result<Self, DecodeError> {
        Ok(Self {
            from: r.u64()?,
            group: r.group()?,
            version: r.u64()?,
            head: r.u64()?,
            created_at_ms: r.u64()?,
            owner: r.user()?,
            creator: r.user()?,
            title: r.text(TITLE_BYTES_MAX)?.to_owned(),
            members: r.users(GROUP_MEMBERS_MAX)?,
        })
    }
}

/// What the server sends unasked.
#[derive(Clone, Debug, PartialEq, Eq)]
#[allow(missing_docs)] // the fields are those of the variants' kinds, see `Kind` and docs/protocol.md
pub enum Push {
    GroupPacket(GroupPacket),
    Entry {
        group: GroupId,
        entry: LogEntry,
    },
    Signal {
        group: GroupId,
        sender: UserId,
        by: Option<UserId>,
        body: Vec<u8>,
    },
    /// Read history from `from`; entries are not pushed until an answer reaches the head.
    Behind {
        group: GroupId,
        from: u64,
        head: u64,
    },
    /// The user's membership ended with the entry `until`; 0 where nothing is known of it any more.
    Gone {
        group: GroupId,
        until: u64,
    },
    Ready,
    AuthenticateSoon {
        expires_at_ms: u64,
    },
    TakenOver,
    /// The server stops in so many milliseconds.
    GoingAway {
        within_ms: u64,
    },
    FeedItem {
        position: u64,
        group: GroupId,
        seq: u64,
        sender: UserId,
        offline: Vec<UserId>,
    },
}

impl Push {
    /// Its kind.
    pub fn kind(&self) -> Kind {
        match self {
            Self::GroupPacket(_) => Kind::GroupPacket,
            Self::Entry { .. } => Kind::Entry,
            Self::Signal { .. } => Kind::SignalPush,
            Self::Behind { .. } => Kind::Behind,
            Self::Gone { .. } => Kind::Gone,
            Self::Ready => Kind::Ready,
            Self::AuthenticateSoon { .. } => Kind::AuthenticateSoon,
            Self::TakenOver => Kind::TakenOver,
            Self::GoingAway { .. } => Kind::GoingAway,
            Self::FeedItem { .. } => Kind::FeedItem,
        }
    }

    /// Appends the whole frame.
    pub fn encode_frame(&self, out: &mut Vec<u8>) {
        super::encode_frame(out, self.kind(), 0, 0, |writer| self.encode_body(writer));
    }

    fn encode_body(&self, writer: &mut Writer<'_>) {
        match self {
            Self::GroupPacket(packet) => packet.encode(writer),
            Self::Entry { group, entry } => {
                writer.group(*group);
                entry.encode(writer);
            }
            Self::Signal { group, sender, by, body } => {
                writer.group(*group);
                writer.user(sender);
                writer.user_or_none(by.as_ref());
                writer.bytes(body);
            }
            Self::Behind { group, from, head } => {
                writer.group(*group);
                writer.u64(*from);
                writer.u64(*head);
            }
            Self::Gone { group, until } => {
                writer.group(*group);
                writer.u64(*until);
            }
            Self::Ready | Self::TakenOver => {}
            Self::AuthenticateSoon { expires_at_ms: time } | Self::GoingAway { within_ms: time } => writer.u64(*time),
            Self::FeedItem { position, group, seq, sender, offline } => {
                writer.u64(*position);
                writer.group(*group);
                writer.u64(*seq);
                writer.user(sender);
                writer.users(offline.iter());
            }
        }
    }

    /// Reads the body of a frame of a kind; `None` if the kind is not one of a push.
    pub fn decode(kind: Kind, body: &[u8]) -> Option<Result<Self, DecodeError>> {
        let mut reader = Reader::new(body);
        Self::decode_body(kind, &mut reader).transpose()
    }

    fn decode_body(kind: Kind, r: &mut Reader<'_>) -> Result<Option<Self>, DecodeError> {
        Ok(Some(match kind {
            Kind::GroupPacket => Self::GroupPacket(GroupPacket::decode(r)?),
            Kind::Entry => Self::Entry { group: r.group()?, entry: LogEntry::decode(r)? },
            Kind::SignalPush => Self::Signal {
                group: r.group()?,
                sender: r.user()?,
                by: r.user_or_none()?,
                body: r.bytes(BODY_BYTES_MAX)?.to_vec(),
            },
            Kind::Behind => Self::Behind { group: r.group()?, from: r.u64()?, head: r.u64()? },
            Kind::Gone => Self::Gone { group: r.group()?, until: r.u64()? },
            Kind::Ready => Self::Ready,
            Kind::AuthenticateSoon => Self::AuthenticateSoon { expires_at_ms: r.u64()? },
            Kind::TakenOver => Self::TakenOver,
            Kind::GoingAway => Self::GoingAway { within_ms: r.u64()? },
            Kind::FeedItem => Self::FeedItem {
                position: r.u64()?,
                group: r.group()?,
                seq: r.u64()?,
                sender: r.user()?,
                offline: r.users(GROUP_MEMBERS_MAX)?,
            },
            _ => return Ok(None),
        }))
    }
}

/// Appends the frame of an entry's push without making a [`Push`] of it first: the path that every message takes.
pub(crate) fn encode_entry_push(out: &mut Vec<u8>, group: GroupId, entry: &crate::group::Entry) {
    super::encode_frame(out, Kind::Entry, 0, 0, |writer| {
        writer.group(group);
        super::entry::encode_shown(entry, writer);
    });
}
