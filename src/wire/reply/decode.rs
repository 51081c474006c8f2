//! Reading the bodies of replies, field by field, in the order in which `reply.rs` writes them.

use super::{
    Changed, ConnectionRow, Created, GroupHistory, GroupShown, GroupSummary, HistoryOutcome, Limits, REPEATED, Reply,
    Stat, UserMarks, Welcome,
};
use crate::codec::{DecodeError, Reader};
use crate::group::{Member, Record};
use crate::ids::Role;
use crate::limits::{FRAME_BYTES_MAX_SERVER, GROUP_MEMBERS_MAX, HISTORY_ENTRIES_MAX, LIST_GROUPS_MAX, TITLE_BYTES_MAX};
use crate::wire::entry::LogEntry;
use crate::wire::error::ErrorBody;

fn flag(r: &mut Reader<'_>) -> Result<bool, DecodeError> {
    match r.u8()? {
        0 => Ok(false),
        1 => Ok(true),
        _ => Err(DecodeError::BadValue),
    }
}

pub(super) fn welcome(r: &mut Reader<'_>) -> Result<Reply, DecodeError> {
    Ok(Reply::Welcome(Welcome {
        version: r.u8()?,
        connection: r.u64()?,
        server_time_ms: r.u64()?,
        heartbeat_s: r.u16()?,
        features: r.u64()?,
        user: r.user()?,
        role: match r.u8()? {
            0 => Role::User,
            1 => Role::Service,
            2 => Role::Operator,
            _ => return Err(DecodeError::BadValue),
        },
        limits: Limits {
            frame_bytes: r.u32()?,
            list_frame_bytes: r.u32()?,
            members: r.u32()?,
            body_bytes: r.u32()?,
            title_bytes: r.u32()?,
            in_flight: r.u32()?,
        },
    }))
}

pub(super) fn pong(r: &mut Reader<'_>) -> Result<Reply, DecodeError> {
    Ok(Reply::Pong { server_time_ms: r.u64()?, ready: flag(r)? })
}

pub(super) fn created(r: &mut Reader<'_>) -> Result<Reply, DecodeError> {
    Ok(Reply::Created(Created {
        group: r.group()?,
        seq: r.u64()?,
        version: r.u64()?,
        members: r.u32()?,
        pushed: r.u32()?,
        queued: r.u32()?,
        repeated: r.u8()? & REPEATED != 0,
    }))
}

pub(super) fn changed(r: &mut Reader<'_>) -> Result<Changed, DecodeError> {
    Ok(Changed { group: r.group()?, seq: r.u64()?, version: r.u64()?, repeated: r.u8()? & REPEATED != 0 })
}

pub(super) fn shown(r: &mut Reader<'_>) -> Result<Reply, DecodeError> {
    Ok(Reply::GroupShown(match r.u8()? {
        0 => GroupShown::Unchanged { group: r.group()?, version: r.u64()? },
        1 => {
            let group = r.group()?;
            let version = r.u64()?;
            let head = r.u64()?;
            let floor = r.u64()?;
            let created_at_ms = r.u64()?;
            let owner = r.user()?;
            let creator = r.user()?;
            let title = r.text(TITLE_BYTES_MAX)?.into();
            let members = r.list(GROUP_MEMBERS_MAX, 10, |r| Ok(Member { user: r.user()?, joined: r.u64()? }))?;
            let record = Record { group, title, owner, creator, created_at_ms, members, version, dissolved: false };
            GroupShown::Record { head, floor, record }
        }
        _ => return Err(DecodeError::BadValue),
    }))
}

fn summary(r: &mut Reader<'_>) -> Result<GroupSummary, DecodeError> {
    Ok(GroupSummary {
        group: r.group()?,
        title: r.text(TITLE_BYTES_MAX)?.to_owned(),
        members: r.u32()?,
        version: r.u64()?,
        head: r.u64()?,
        received: r.u64()?,
        read: r.u64()?,
        last_at_ms: r.u64()?,
    })
}

pub(super) fn listed(r: &mut Reader<'_>) -> Result<Reply, DecodeError> {
    Ok(Reply::GroupsListed { more: flag(r)?, groups: r.list(LIST_GROUPS_MAX, 62, summary)? })
}

pub(super) fn history(r: &mut Reader<'_>) -> Result<GroupHistory, DecodeError> {
    let group = r.group()?;
    let outcome = match r.u8()? {
        0 => HistoryOutcome::Entries {
            head: r.u64()?,
            floor: r.u64()?,
            entries: r.list(HISTORY_ENTRIES_MAX, 21, |r| {
                LogEntry::decode(&mut Reader::new(r.bytes(FRAME_BYTES_MAX_SERVER)?))
            })?,
        },
        1 => HistoryOutcome::Refused(ErrorBody::decode(r)?),
        _ => return Err(DecodeError::BadValue),
    };
    Ok(GroupHistory { group, outcome })
}

pub(super) fn readers(r: &mut Reader<'_>) -> Result<Reply, DecodeError> {
    let group = r.group()?;
    let readers =
        r.list(GROUP_MEMBERS_MAX, 18, |r| Ok(UserMarks { user: r.user()?, received: r.u64()?, read: r.u64()? }))?;
    Ok(Reply::ReadersListed { group, readers })
}

pub(super) fn stat(r: &mut Reader<'_>) -> Result<Stat, DecodeError> {
    Ok(Stat { name: r.text(256)?.to_owned(), value: r.u64()? })
}

pub(super) fn backup(r: &mut Reader<'_>) -> Result<Reply, DecodeError> {
    Ok(Reply::BackupDone { files: r.u64()?, bytes: r.u64()? })
}

pub(super) fn connections(r: &mut Reader<'_>) -> Result<Reply, DecodeError> {
    let more = flag(r)?;
    let connections = r.list(LIST_GROUPS_MAX, 30, |r| {
        Ok(ConnectionRow {
            connection: r.u64()?,
            user: r.user_or_none()?,
            device: r.user_or_none()?,
            since_ms: r.u64()?,
            output_bytes: r.u64()?,
            behind: r.u32()?,
        })
    })?;
    Ok(Reply::ConnectionsListed { more, connections })
}
