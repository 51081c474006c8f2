//! Replies: the bodies of what the server answers. The fields stand in the order in which they are written here; the
//! layouts are in `docs/protocol.md`. Bytes behind the last known field are skipped.

mod decode;

use super::entry::LogEntry;
use super::error::ErrorBody;
use super::header::Kind;
use crate::codec::{DecodeError, Reader, Writer};
use crate::group::Record;
use crate::ids::{GroupId, Role, UserId};
use crate::limits::HISTORY_GROUPS_MAX;

/// Set in the flags of an answer that repeats an earlier one to the same operation id.
const REPEATED: u8 = 0x01;

/// What a client must respect, told once in [`Welcome`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Largest frame, header included.
    pub frame_bytes: u32,
    /// Largest frame of create, add, remove, attach.
    pub list_frame_bytes: u32,
    /// Most members of a group.
    pub members: u32,
    /// Longest body of a message.
    pub body_bytes: u32,
    /// Longest title.
    pub title_bytes: u32,
    /// Requests without an answer.
    pub in_flight: u32,
}

/// Answers a hello.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Welcome {
    /// The version that is spoken from here on.
    pub version: u8,
    /// The connection's number.
    pub connection: u64,
    /// The server's clock, in milliseconds since 1970.
    pub server_time_ms: u64,
    /// The heartbeat interval that was granted, in seconds.
    pub heartbeat_s: u16,
    /// The features that both sides have.
    pub features: u64,
    /// Who the connection is.
    pub user: UserId,
    /// What it may do.
    pub role: Role,
    /// What it must respect.
    pub limits: Limits,
}

/// Answers a create.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Created {
    /// The group that was made.
    pub group: GroupId,
    /// The seq of the created entry: 1.
    pub seq: u64,
    /// The version: 1.
    pub version: u64,
    /// How many members it was made with, the creator included.
    pub members: u32,
    /// Members other than the creator with a connection that took the packet.
    pub pushed: u32,
    /// The other members: they get the packet when they come.
    pub queued: u32,
    /// Whether this operation id had been answered before.
    pub repeated: bool,
}

/// Answers the other changes. Where nothing changed, seq = version.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Changed {
    /// The group.
    pub group: GroupId,
    /// The seq of the entry that was made.
    pub seq: u64,
    /// The group's version after it.
    pub version: u64,
    /// Whether this operation id had been answered before.
    pub repeated: bool,
}

/// Answers a request for a group's record.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum GroupShown {
    /// The record is not newer than the version that was named.
    Unchanged {
        /// The group.
        group: GroupId,
        /// Its version.
        version: u64,
    },
    /// The record as it is.
    Record {
        /// The seq of the last entry.
        head: u64,
        /// The lowest seq that the log still has.
        floor: u64,
        /// The record.
        record: Record,
    },
}

/// One line in the list of groups.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GroupSummary {
    /// The group.
    pub group: GroupId,
    /// Its title.
    pub title: String,
    /// How many members it has.
    pub members: u32,
    /// Its record's version.
    pub version: u64,
    /// The seq of its last entry.
    pub head: u64,
    /// The highest seq that some device of the user has received.
    pub received: u64,
    /// The highest seq that the user has read.
    pub read: u64,
    /// When its last entry was made, in milliseconds since 1970.
    pub last_at_ms: u64,
}

/// What a page of history has of one group.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GroupHistory {
    /// The group.
    pub group: GroupId,
    /// Its part of the answer.
    pub outcome: HistoryOutcome,
}

/// A group's part of a page of history.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum HistoryOutcome {
    /// Entries from the seq that was asked for, without gap. Their end is below the head if the page was full: ask
    /// again from there. If they reach the head, the group is live on an attached connection from here on.
    Entries {
        /// The seq of the last entry of the group.
        head: u64,
        /// The lowest seq that the log still has.
        floor: u64,
        /// Ascending, without gap.
        entries: Vec<LogEntry>,
    },
    /// This group alone was refused.
    Refused(ErrorBody),
}

/// The marks of one member.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UserMarks {
    /// Whose.
    pub user: UserId,
    /// The highest seq received.
    pub received: u64,
    /// The highest seq read.
    pub read: u64,
}

/// A counter or a gauge.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stat {
    /// Its name, the unit last.
    pub name: String,
    /// Its value.
    pub value: u64,
}

/// A connection, as an operator sees it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConnectionRow {
    /// Its number.
    pub connection: u64,
    /// Who it is, once it is authenticated.
    pub user: Option<UserId>,
    /// The device, once it is authenticated.
    pub device: Option<UserId>,
    /// Since when, in milliseconds since 1970.
    pub since_ms: u64,
    /// Bytes of output waiting.
    pub output_bytes: u64,
    /// Groups that are behind on it.
    pub behind: u32,
}

/// What the server answers.
#[derive(Clone, Debug, PartialEq, Eq)]
#[allow(missing_docs)] // the fields are those of the variants' kinds, see `Kind` and docs/protocol.md
pub enum Reply {
    Welcome(Welcome),
    Attached,
    Authenticated {
        expires_at_ms: u64,
    },
    Pong {
        server_time_ms: u64,
        ready: bool,
    },
    Created(Created),
    /// Any of the kinds that [`Kind::done`] names.
    Changed(Kind, Changed),
    GroupShown(GroupShown),
    GroupsListed {
        more: bool,
        groups: Vec<GroupSummary>,
    },
    HistoryPage {
        groups: Vec<GroupHistory>,
    },
    ReadersListed {
        group: GroupId,
        readers: Vec<UserMarks>,
    },
    FeedBegun {
        position: u64,
    },
    StatsListed {
        stats: Vec<Stat>,
    },
    BackupDone {
        files: u64,
        bytes: u64,
    },
    ConnectionsListed {
        more: bool,
        connections: Vec<ConnectionRow>,
    },
    KickDone {
        connections: u32,
    },
    Error(ErrorBody),
}

impl Reply {
    /// Its kind.
    pub fn kind(&self) -> Kind {
        match self {
            Self::Welcome(_) => Kind::Welcome,
            Self::Attached => Kind::Attached,
            Self::Authenticated { .. } => Kind::Authenticated,
            Self::Pong { .. } => Kind::Pong,
            Self::Created(_) => Kind::Created,
            Self::Changed(kind, _) => *kind,
            Self::GroupShown(_) => Kind::GroupShown,
            Self::GroupsListed { .. } => Kind::GroupsListed,
            Self::HistoryPage { .. } => Kind::HistoryPage,
            Self::ReadersListed { .. } => Kind::ReadersListed,
            Self::FeedBegun { .. } => Kind::FeedBegun,
            Self::StatsListed { .. } => Kind::StatsListed,
            Self::BackupDone { .. } => Kind::BackupDone,
            Self::ConnectionsListed { .. } => Kind::ConnectionsListed,
            Self::KickDone { .. } => Kind::KickDone,
            Self::Error(_) => Kind::Error,
        }
    }

    /// Appends the whole frame.
    pub fn encode_frame(&self, out: &mut Vec<u8>, request_id: u32) {
        super::encode_frame(out, self.kind(), 0, request_id, |writer| self.encode_body(writer));
    }

    fn encode_body(&self, writer: &mut Writer<'_>) {
        match self {
            Self::Welcome(welcome) => encode_welcome(welcome, writer),
            Self::Attached => {}
            Self::Authenticated { expires_at_ms } => writer.u64(*expires_at_ms),
            Self::Pong { server_time_ms, ready } => {
                writer.u64(*server_time_ms);
                writer.u8(u8::from(*ready));
            }
            Self::Created(created) => encode_created(created, writer),
            Self::Changed(_, changed) => {
                writer.group(changed.group);
                writer.u64(changed.seq);
                writer.u64(changed.version);
                writer.u8(if changed.repeated { REPEATED } else { 0 });
            }
            Self::GroupShown(shown) => encode_shown_group(shown, writer),
            Self::GroupsListed { more, groups } => {
                writer.u8(u8::from(*more));
                writer.count(groups.len());
                for group in groups {
                    encode_summary(group, writer);
                }
            }
            Self::HistoryPage { groups } => {
                writer.count(groups.len());
                for group in groups {
                    encode_history(group, writer);
                }
            }
            Self::ReadersListed { group, readers } => {
                writer.group(*group);
                writer.count(readers.len());
                for reader in readers {
                    writer.user(&reader.user);
                    writer.u64(reader.received);
                    writer.u64(reader.read);
                }
            }
            Self::FeedBegun { position } => writer.u64(*position),
            Self::StatsListed { stats } => {
                writer.count(stats.len());
                for stat in stats {
                    writer.text(&stat.name);
                    writer.u64(stat.value);
                }
            }
            Self::BackupDone { files, bytes } => {
                writer.u64(*files);
                writer.u64(*bytes);
            }
            Self::ConnectionsListed { more, connections } => {
                writer.u8(u8::from(*more));
                writer.count(connections.len());
                for row in connections {
                    encode_connection(row, writer);
                }
            }
            Self::KickDone { connections } => writer.u32(*connections),
            Self::Error(error) => error.encode(writer),
        }
    }

    /// Reads the body of a frame of a kind; `None` if the kind is not one of a reply.
    pub fn decode(kind: Kind, body: &[u8]) -> Option<Result<Self, DecodeError>> {
        let mut reader = Reader::new(body);
        let r = &mut reader;
        Some(match kind {
            Kind::Welcome => decode::welcome(r),
            Kind::Attached => Ok(Self::Attached),
            Kind::Authenticated => r.u64().map(|expires_at_ms| Self::Authenticated { expires_at_ms }),
            Kind::Pong => decode::pong(r),
            Kind::Created => decode::created(r),
            Kind::AddDone
            | Kind::RemoveDone
            | Kind::LeaveDone
            | Kind::RenameDone
            | Kind::TransferDone
            | Kind::DissolveDone
            | Kind::SendDone
            | Kind::WhisperDone => decode::changed(r).map(|changed| Self::Changed(kind, changed)),
            Kind::GroupShown => decode::shown(r),
            Kind::GroupsListed => decode::listed(r),
            Kind::HistoryPage => {
                r.list(HISTORY_GROUPS_MAX, 17, decode::history).map(|groups| Self::HistoryPage { groups })
            }
            Kind::ReadersListed => decode::readers(r),
            Kind::FeedBegun => r.u64().map(|position| Self::FeedBegun { position }),
            Kind::StatsListed => r.list(4096, 10, decode::stat).map(|stats| Self::StatsListed { stats }),
            Kind::BackupDone => decode::backup(r),
            Kind::ConnectionsListed => decode::connections(r),
            Kind::KickDone => r.u32().map(|connections| Self::KickDone { connections }),
            Kind::Error => ErrorBody::decode(r).map(Self::Error),
            Kind::Hello
            | Kind::Attach
            | Kind::Authenticate
            | Kind::Ping
            | Kind::Create
            | Kind::Add
            | Kind::Remove
            | Kind::Leave
            | Kind::Rename
            | Kind::Transfer
            | Kind::Dissolve
            | Kind::Send
            | Kind::Whisper
            | Kind::Signal
            | Kind::Acknowledge
            | Kind::GetGroup
            | Kind::ListGroups
            | Kind::History
            | Kind::Readers
            | Kind::Feed
            | Kind::Stats
            | Kind::Backup
            | Kind::Connections
            | Kind::Kick
            | Kind::GroupPacket
            | Kind::Entry
            | Kind::SignalPush
            | Kind::Behind
            | Kind::Gone
            | Kind::Ready
            | Kind::AuthenticateSoon
            | Kind::TakenOver
            | Kind::GoingAway
            | Kind::FeedItem => return None,
        })
    }
}

fn encode_welcome(welcome: &Welcome, writer: &mut Writer<'_>) {
    writer.u8(welcome.version);
    writer.u64(welcome.connection);
    writer.u64(welcome.server_time_ms);
    writer.u16(welcome.heartbeat_s);
    writer.u64(welcome.features);
    writer.user(&welcome.user);
    writer.u8(match welcome.role {
        Role::User => 0,
        Role::Service => 1,
        Role::Operator => 2,
    });
    writer.u32(welcome.limits.frame_bytes);
    writer.u32(welcome.limits.list_frame_bytes);
    writer.u32(welcome.limits.members);
    writer.u32(welcome.limits.body_bytes);
    writer.u32(welcome.limits.title_bytes);
    writer.u32(welcome.limits.in_flight);
}

fn encode_created(created: &Created, writer: &mut Writer<'_>) {
    writer.group(created.group);
    writer.u64(created.seq);
    writer.u64(created.version);
    writer.u32(created.members);
    writer.u32(created.pushed);
    writer.u32(created.queued);
    writer.u8(if created.repeated { REPEATED } else { 0 });
}

fn encode_shown_group(shown: &GroupShown, writer: &mut Writer<'_>) {
    match shown {
        GroupShown::Unchanged { group, version } => {
            writer.u8(0);
            writer.group(*group);
            writer.u64(*version);
        }
        GroupShown::Record { head, floor, record } => {
            writer.u8(1);
            writer.group(record.group);
            writer.u64(record.version);
            writer.u64(*head);
            writer.u64(*floor);
            writer.u64(record.created_at_ms);
            writer.user(&record.owner);
            writer.user(&record.creator);
            writer.text(&record.title);
            writer.count(record.members.len());
            for member in &record.members {
                writer.user(&member.user);
                writer.u64(member.joined);
            }
        }
    }
}

fn encode_summary(summary: &GroupSummary, writer: &mut Writer<'_>) {
    writer.group(summary.group);
    writer.text(&summary.title);
    writer.u32(summary.members);
    writer.u64(summary.version);
    writer.u64(summary.head);
    writer.u64(summary.received);
    writer.u64(summary.read);
    writer.u64(summary.last_at_ms);
}

fn encode_history(history: &GroupHistory, writer: &mut Writer<'_>) {
    writer.group(history.group);
    match &history.outcome {
        HistoryOutcome::Entries { head, floor, entries } => {
            writer.u8(0);
            writer.u64(*head);
            writer.u64(*floor);
            writer.count(entries.len());
            // Each with its length, so that an entry of a kind that is not known yet can be skipped.
            for entry in entries {
                writer.sized(|writer| entry.encode(writer));
            }
        }
        HistoryOutcome::Refused(error) => {
            writer.u8(1);
            error.encode(writer);
        }
    }
}

fn encode_connection(row: &ConnectionRow, writer: &mut Writer<'_>) {
    writer.u64(row.connection);
    writer.user_or_none(row.user.as_ref());
    writer.user_or_none(row.device.as_ref());
    writer.u64(row.since_ms);
    writer.u64(row.output_bytes);
    writer.u32(row.behind);
}
