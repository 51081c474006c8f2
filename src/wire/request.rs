//! Requests: the bodies of what a client sends. The fields stand in the order in which they are written here; the
//! layouts are in `docs/protocol.md`. Bytes behind the last known field are skipped, so new fields break nobody.

use std::sync::Arc;

use super::header::Kind;
use crate::codec::{DecodeError, Reader, Writer};
use crate::ids::{DeviceId, GroupId, OperationId, UserId};
use crate::limits::{FRAME_BYTES_MAX_LIST, GROUPS_PER_FRAME_MAX, HISTORY_GROUPS_MAX, TOKEN_BYTES_MAX};

/// Titles, bodies and lists are taken as long as a frame can carry them: a quota is refused by the rules of groups,
/// with a code that names it, not here as if the bytes were malformed.
const ANY_TITLE: usize = 0xffff;
const ANY_BODY: usize = FRAME_BYTES_MAX_LIST;
const ANY_LIST: usize = FRAME_BYTES_MAX_LIST;

/// Who a client is and what it speaks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Hello {
    /// The lowest protocol version that it speaks.
    pub version_min: u8,
    /// The highest.
    pub version_max: u8,
    /// The features that it would use; see [`super::features`].
    pub features: u64,
    /// The heartbeat interval that it wants, in seconds; 0 for the server's default.
    pub heartbeat_s: u16,
    /// Its device.
    pub device: DeviceId,
    /// Its token.
    pub token: String,
}

/// A group and a seq in it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct GroupSeq {
    /// The group.
    pub group: GroupId,
    /// The seq.
    pub seq: u64,
}

/// How a connection goes on line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Attach {
    /// With what this device has: each group with the highest seq that it has of it.
    Device {
        /// Whether another frame with more groups follows.
        more: bool,
        /// The groups of this frame.
        groups: Vec<GroupSeq>,
    },
    /// With the user's received marks: for a client that keeps nothing.
    Marks,
}

/// How far a client has received and read a group.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Mark {
    /// The group.
    pub group: GroupId,
    /// The highest seq that was received.
    pub received: u64,
    /// The highest seq that was read; 0 for no change.
    pub read: u64,
}

/// Which entries are wanted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HistoryRequest {
    /// From which seq of which groups; at most 64.
    pub groups: Vec<GroupSeq>,
    /// At most so many entries in all; 0 for the server's limit.
    pub entries_max: u32,
    /// At most so many bytes in all, but always one entry; 0 for the server's limit.
    pub bytes_max: u32,
}

/// What a client asks.
#[derive(Clone, Debug, PartialEq, Eq)]
#[allow(missing_docs)] // the fields are those of the variants' kinds, see `Kind` and docs/protocol.md
pub enum Request {
    Hello(Hello),
    Attach(Attach),
    Authenticate { token: String },
    Ping,
    Create { operation: OperationId, title: Arc<str>, members: Vec<UserId> },
    Add { operation: OperationId, group: GroupId, members: Vec<UserId> },
    Remove { operation: OperationId, group: GroupId, members: Vec<UserId> },
    Leave { operation: OperationId, group: GroupId },
    Rename { operation: OperationId, group: GroupId, title: Arc<str> },
    Transfer { operation: OperationId, group: GroupId, owner: UserId },
    Dissolve { operation: OperationId, group: GroupId },
    Send { operation: OperationId, group: GroupId, body: Arc<[u8]> },
    Whisper { operation: OperationId, group: GroupId, to: Vec<UserId>, body: Arc<[u8]> },
    Signal { group: GroupId, body: Arc<[u8]> },
    Acknowledge { marks: Vec<Mark> },
    GetGroup { group: GroupId, newer_than: u64 },
    ListGroups { after: Option<GroupId>, count_max: u32 },
    History(HistoryRequest),
    Readers { group: GroupId, seq: u64 },
    Feed { position: u64 },
    Stats,
    Backup { path: String },
    Connections { after: u64, count_max: u32 },
    Kick { user: UserId },
}

impl Request {
    /// Its kind.
    pub fn kind(&self) -> Kind {
        match self {
            Self::Hello(_) => Kind::Hello,
            Self::Attach(_) => Kind::Attach,
            Self::Authenticate { .. } => Kind::Authenticate,
            Self::Ping => Kind::Ping,
            Self::Create { .. } => Kind::Create,
            Self::Add { .. } => Kind::Add,
            Self::Remove { .. } => Kind::Remove,
            Self::Leave { .. } => Kind::Leave,
            Self::Rename { .. } => Kind::Rename,
            Self::Transfer { .. } => Kind::Transfer,
            Self::Dissolve { .. } => Kind::Dissolve,
            Self::Send { .. } => Kind::Send,
            Self::Whisper { .. } => Kind::Whisper,
            Self::Signal { .. } => Kind::Signal,
            Self::Acknowledge { .. } => Kind::Acknowledge,
            Self::GetGroup { .. } => Kind::GetGroup,
            Self::ListGroups { .. } => Kind::ListGroups,
            Self::History(_) => Kind::History,
            Self::Readers { .. } => Kind::Readers,
            Self::Feed { .. } => Kind::Feed,
            Self::Stats => Kind::Stats,
            Self::Backup { .. } => Kind::Backup,
            Self::Connections { .. } => Kind::Connections,
            Self::Kick { .. } => Kind::Kick,
        }
    }

    /// Appends the whole frame.
    pub fn encode_frame(&self, out: &mut Vec<u8>, request_id: u32) {
        self.encode_frame_as(out, request_id, None);
    }

    /// Appends the whole frame; with a user, as a service that acts for it ([`super::flags::AS_USER`]).
    pub fn encode_frame_as(&self, out: &mut Vec<u8>, request_id: u32, user: Option<&UserId>) {
        let flags = if user.is_some() { super::flags::AS_USER } else { 0 };
        super::encode_frame(out, self.kind(), flags, request_id, |writer| {
            if let Some(user) = user {
                writer.user(user);
            }
            self.encode_body(writer);
        });
    }

    fn encode_body(&self, writer: &mut Writer<'_>) {
        match self {
            Self::Hello(hello) => {
                writer.u8(hello.version_min);
                writer.u8(hello.version_max);
                writer.u64(hello.features);
                writer.u16(hello.heartbeat_s);
                write_device(writer, &hello.device);
                writer.text(&hello.token);
            }
            Self::Attach(Attach::Device { more, groups }) => {
                writer.u8(0);
                writer.u8(u8::from(*more));
                write_group_seqs(writer, groups);
            }
            Self::Attach(Attach::Marks) => {
                writer.u8(1);
                writer.u8(0);
                write_group_seqs(writer, &[]);
            }
            Self::Authenticate { token } => writer.text(token),
            Self::Ping | Self::Stats => {}
            Self::Create { operation, title, members } => {
                writer.operation(*operation);
                writer.text(title);
                writer.users(members.iter());
            }
            Self::Add { operation, group, members } | Self::Remove { operation, group, members } => {
                write_target(writer, *operation, *group);
                writer.users(members.iter());
            }
            Self::Leave { operation, group } | Self::Dissolve { operation, group } => {
                write_target(writer, *operation, *group);
            }
            Self::Rename { operation, group, title } => {
                write_target(writer, *operation, *group);
                writer.text(title);
            }
            Self::Transfer { operation, group, owner } => {
                write_target(writer, *operation, *group);
                writer.user(owner);
            }
            Self::Send { operation, group, body } => {
                write_target(writer, *operation, *group);
                writer.bytes(body);
            }
            Self::Whisper { operation, group, to, body } => {
                write_target(writer, *operation, *group);
                writer.users(to.iter());
                writer.bytes(body);
            }
            Self::Signal { group, body } => {
                writer.group(*group);
                writer.bytes(body);
            }
            Self::Acknowledge { marks } => {
                writer.count(marks.len());
                for mark in marks {
                    writer.group(mark.group);
                    writer.u64(mark.received);
                    writer.u64(mark.read);
                }
            }
            Self::GetGroup { group, newer_than: number } | Self::Readers { group, seq: number } => {
                writer.group(*group);
                writer.u64(*number);
            }
            Self::ListGroups { after, count_max } => {
                writer.raw(after.as_ref().map_or(&[0; 16], GroupId::as_bytes).as_slice());
                writer.u32(*count_max);
            }
            Self::History(request) => {
                writer.u32(request.entries_max);
                writer.u32(request.bytes_max);
                write_group_seqs(writer, &request.groups);
            }
            Self::Feed { position } => writer.u64(*position),
            Self::Backup { path } => writer.text(path),
            Self::Connections { after, count_max } => {
                writer.u64(*after);
                writer.u32(*count_max);
            }
            Self::Kick { user } => writer.user(user),
        }
    }

    /// Reads the user for whom a service acts from the front of a body, and gives the rest.
    pub fn split_user(body: &[u8]) -> Result<(UserId, &[u8]), DecodeError> {
        let mut reader = Reader::new(body);
        let user = reader.user()?;
        Ok((user, reader.take(reader.remaining())?))
    }

    /// Reads the body of a frame of a kind; `None` if the kind is not one of a request.
    pub fn decode(kind: Kind, body: &[u8]) -> Option<Result<Self, DecodeError>> {
        let mut reader = Reader::new(body);
        let r = &mut reader;
        Some(match kind {
            Kind::Hello => decode_hello(r),
            Kind::Attach => decode_attach(r),
            Kind::Authenticate => r.text(TOKEN_BYTES_MAX).map(|token| Self::Authenticate { token: token.to_owned() }),
            Kind::Ping => Ok(Self::Ping),
            Kind::Create => decode_create(r),
            Kind::Add => decode_members(r).map(|(operation, group, members)| Self::Add { operation, group, members }),
            Kind::Remove => {
                decode_members(r).map(|(operation, group, members)| Self::Remove { operation, group, members })
            }
            Kind::Leave => decode_target(r).map(|(operation, group)| Self::Leave { operation, group }),
            Kind::Rename => decode_rename(r),
            Kind::Transfer => decode_transfer(r),
            Kind::Dissolve => decode_target(r).map(|(operation, group)| Self::Dissolve { operation, group }),
            Kind::Send => decode_send(r),
            Kind::Whisper => decode_whisper(r),
            Kind::Signal => decode_signal(r),
            Kind::Acknowledge => decode_marks(r),
            Kind::GetGroup => decode_group_seq(r).map(|at| Self::GetGroup { group: at.group, newer_than: at.seq }),
            Kind::ListGroups => decode_list(r),
            Kind::History => decode_history(r),
            Kind::Readers => decode_group_seq(r).map(|at| Self::Readers { group: at.group, seq: at.seq }),
            Kind::Feed => r.u64().map(|position| Self::Feed { position }),
            Kind::Stats => Ok(Self::Stats),
            Kind::Backup => r.text(4096).map(|path| Self::Backup { path: path.to_owned() }),
            Kind::Connections => decode_connections(r),
            Kind::Kick => r.user().map(|user| Self::Kick { user }),
            Kind::GroupPacket
            | Kind::Entry
            | Kind::SignalPush
            | Kind::Behind
            | Kind::Gone
            | Kind::Ready
            | Kind::AuthenticateSoon
            | Kind::TakenOver
            | Kind::GoingAway
            | Kind::FeedItem
            | Kind::Welcome
            | Kind::Attached
            | Kind::Authenticated
            | Kind::Pong
            | Kind::Created
            | Kind::AddDone
            | Kind::RemoveDone
            | Kind::LeaveDone
            | Kind::RenameDone
            | Kind::TransferDone
            | Kind::DissolveDone
            | Kind::SendDone
            | Kind::WhisperDone
            | Kind::GroupShown
            | Kind::GroupsListed
            | Kind::HistoryPage
            | Kind::ReadersListed
            | Kind::FeedBegun
            | Kind::StatsListed
            | Kind::BackupDone
            | Kind::ConnectionsListed
            | Kind::KickDone
            | Kind::Error => return None,
        })
    }
}

fn write_device(writer: &mut Writer<'_>, device: &DeviceId) {
    writer.u8(u8::try_from(device.as_str().len()).expect("a device id has at most 64 bytes"));
    writer.raw(device.as_str().as_bytes());
}

fn write_target(writer: &mut Writer<'_>, operation: OperationId, group: GroupId) {
    writer.operation(operation);
    writer.group(group);
}

fn write_group_seqs(writer: &mut Writer<'_>, groups: &[GroupSeq]) {
    writer.count(groups.len());
    for at in groups {
        writer.group(at.group);
        writer.u64(at.seq);
    }
}

fn decode_target(r: &mut Reader<'_>) -> Result<(OperationId, GroupId), DecodeError> {
    Ok((r.operation()?, r.group()?))
}

fn decode_group_seq(r: &mut Reader<'_>) -> Result<GroupSeq, DecodeError> {
    Ok(GroupSeq { group: r.group()?, seq: r.u64()? })
}

fn decode_hello(r: &mut Reader<'_>) -> Result<Request, DecodeError> {
    let version_min = r.u8()?;
    let version_max = r.u8()?;
    let features = r.u64()?;
    let heartbeat_s = r.u16()?;
    let device = DeviceId::new(r.user()?.as_str())?;
    let token = r.text(TOKEN_BYTES_MAX)?.to_owned();
    Ok(Request::Hello(Hello { version_min, version_max, features, heartbeat_s, device, token }))
}

fn decode_attach(r: &mut Reader<'_>) -> Result<Request, DecodeError> {
    let mode = r.u8()?;
    let more = match r.u8()? {
        0 => false,
        1 => true,
        _ => return Err(DecodeError::BadValue),
    };
    let groups = r.list(GROUPS_PER_FRAME_MAX, 24, decode_group_seq)?;
    Ok(Request::Attach(match mode {
        0 => Attach::Device { more, groups },
        1 if !more && groups.is_empty() => Attach::Marks,
        _ => return Err(DecodeError::BadValue),
    }))
}

fn decode_create(r: &mut Reader<'_>) -> Result<Request, DecodeError> {
    let operation = r.operation()?;
    let title = r.text(ANY_TITLE)?.into();
    let members = r.users(ANY_LIST)?;
    Ok(Request::Create { operation, title, members })
}

fn decode_members(r: &mut Reader<'_>) -> Result<(OperationId, GroupId, Vec<UserId>), DecodeError> {
    let (operation, group) = decode_target(r)?;
    Ok((operation, group, r.users(ANY_LIST)?))
}

fn decode_rename(r: &mut Reader<'_>) -> Result<Request, DecodeError> {
    let (operation, group) = decode_target(r)?;
    Ok(Request::Rename { operation, group, title: r.text(ANY_TITLE)?.into() })
}

fn decode_transfer(r: &mut Reader<'_>) -> Result<Request, DecodeError> {
    let (operation, group) = decode_target(r)?;
    Ok(Request::Transfer { operation, group, owner: r.user()? })
}

fn decode_send(r: &mut Reader<'_>) -> Result<Request, DecodeError> {
    let (operation, group) = decode_target(r)?;
    Ok(Request::Send { operation, group, body: r.bytes(ANY_BODY)?.into() })
}

fn decode_whisper(r: &mut Reader<'_>) -> Result<Request, DecodeError> {
    let (operation, group) = decode_target(r)?;
    let to = r.users(ANY_LIST)?;
    Ok(Request::Whisper { operation, group, to, body: r.bytes(ANY_BODY)?.into() })
}

fn decode_signal(r: &mut Reader<'_>) -> Result<Request, DecodeError> {
    Ok(Request::Signal { group: r.group()?, body: r.bytes(ANY_BODY)?.into() })
}

fn decode_marks(r: &mut Reader<'_>) -> Result<Request, DecodeError> {
    let marks =
        r.list(GROUPS_PER_FRAME_MAX, 32, |r| Ok(Mark { group: r.group()?, received: r.u64()?, read: r.u64()? }))?;
    Ok(Request::Acknowledge { marks })
}

fn decode_list(r: &mut Reader<'_>) -> Result<Request, DecodeError> {
    Ok(Request::ListGroups { after: r.group_or_none()?, count_max: r.u32()? })
}

fn decode_history(r: &mut Reader<'_>) -> Result<Request, DecodeError> {
    let entries_max = r.u32()?;
    let bytes_max = r.u32()?;
    let groups = r.list(HISTORY_GROUPS_MAX, 24, decode_group_seq)?;
    if groups.is_empty() || groups.iter().any(|at| at.seq == 0) {
        return Err(DecodeError::BadValue);
    }
    Ok(Request::History(HistoryRequest { groups, entries_max, bytes_max }))
}

fn decode_connections(r: &mut Reader<'_>) -> Result<Request, DecodeError> {
    Ok(Request::Connections { after: r.u64()?, count_max: r.u32()? })
}
