//! What a server says that may say anything, in frames that can be read: for the client's side.

use arbitrary::{Result, Unstructured};

use crate::group::{Entry, Event, Member, Record, Succession};
use crate::ids::{GroupId, Role, UserId};
use crate::wire::{
    Changed, Created, ErrorBody, ErrorCode, GroupHistory, GroupPacket, GroupShown, HistoryOutcome, Kind, Limits,
    LogEntry, Push, Reply, Welcome,
};

const CODES: [ErrorCode; 8] = [
    ErrorCode::SlowDown,
    ErrorCode::NotFound,
    ErrorCode::Truncated,
    ErrorCode::Forbidden,
    ErrorCode::TokenExpired,
    ErrorCode::AuthFailed,
    ErrorCode::Damaged,
    ErrorCode::GoingAway,
];

/// One of three.
pub(super) fn some_group(input: &mut Unstructured<'_>) -> Result<GroupId> {
    Ok(GroupId::from_bytes([input.int_in_range(1..=3_u8)?; 16]).expect("not nil"))
}

fn some_user(input: &mut Unstructured<'_>) -> Result<UserId> {
    Ok(UserId::new(input.choose(&["me", "bob", "carol"])?).expect("a legal name"))
}

/// Small mostly, so that seqs meet; sometimes the largest.
fn some_seq(input: &mut Unstructured<'_>) -> Result<u64> {
    Ok(match input.int_in_range(0..=63_u8)? {
        0 => u64::MAX,
        1 => u64::MAX - 1,
        2 => 0,
        number => u64::from(number % 12) + 1,
    })
}

fn some_error(input: &mut Unstructured<'_>) -> Result<ErrorBody> {
    Ok(ErrorBody::new(*input.choose(&CODES)?, some_seq(input)?, "so it is"))
}

/// An answer to a request of a kind: a right one mostly.
pub(super) fn some_reply(input: &mut Unstructured<'_>, kind: Kind) -> Result<Reply> {
    if input.ratio(1, 8)? {
        return Ok(Reply::Error(some_error(input)?));
    }
    let group = some_group(input)?;
    let changed = Changed { group, seq: some_seq(input)?, version: some_seq(input)?, repeated: false };
    Ok(match kind {
        Kind::Hello => Reply::Welcome(welcome(input.ratio(1, 32)?)),
        Kind::Attach => Reply::Attached,
        Kind::Create => {
            let Changed { group, seq, version, repeated } = changed;
            Reply::Created(Created { group, seq, version, members: 1, pushed: 0, queued: 0, repeated })
        }
        Kind::GetGroup => Reply::GroupShown(some_record(input, group)?),
        Kind::History => {
            let mut groups = Vec::new();
            for _ in 0..input.int_in_range(0..=2_u8)? {
                groups.push(some_history(input)?);
            }
            Reply::HistoryPage { groups }
        }
        Kind::Feed => Reply::FeedBegun { position: some_seq(input)? },
        Kind::Ping => Reply::Pong { server_time_ms: 0, ready: true },
        _ => Reply::Changed(kind.done().unwrap_or(Kind::SendDone), changed),
    })
}

fn welcome(of_another_version: bool) -> Welcome {
    Welcome {
        version: 1 + u8::from(of_another_version),
        connection: 1,
        server_time_ms: 0,
        heartbeat_s: 15,
        features: 0,
        user: UserId::new("me").expect("a legal name"),
        role: Role::User,
        limits: Limits {
            frame_bytes: 1 << 17,
            list_frame_bytes: 1 << 20,
            members: 10,
            body_bytes: 1 << 16,
            title_bytes: 256,
            in_flight: 64,
        },
    }
}

fn some_record(input: &mut Unstructured<'_>, group: GroupId) -> Result<GroupShown> {
    let version = some_seq(input)?;
    if input.ratio(1, 3)? {
        return Ok(GroupShown::Unchanged { group, version });
    }
    let owner = some_user(input)?;
    let members = vec![Member { user: owner.clone(), joined: 1 }];
    let (creator, title) = (owner.clone(), "t".into());
    let record = Record { group, title, owner, creator, created_at_ms: 0, members, version, dissolved: false };
    Ok(GroupShown::Record { head: some_seq(input)?, floor: some_seq(input)?, record })
}

fn some_history(input: &mut Unstructured<'_>) -> Result<GroupHistory> {
    let group = some_group(input)?;
    if input.ratio(1, 6)? {
        return Ok(GroupHistory { group, outcome: HistoryOutcome::Refused(some_error(input)?) });
    }
    let (head, first) = (some_seq(input)?, some_seq(input)?);
    let floor = if input.ratio(1, 4)? { some_seq(input)? } else { 1 };
    let mut entries = Vec::new();
    for at in 0..input.int_in_range(0..=4)? {
        let skipped = u64::from(input.ratio(1, 16)?);
        entries.push(some_entry(input, first.saturating_add(at + skipped).max(1))?);
    }
    Ok(GroupHistory { group, outcome: HistoryOutcome::Entries { head, floor, entries } })
}

fn some_entry(input: &mut Unstructured<'_>, seq: u64) -> Result<LogEntry> {
    let sender = some_user(input)?;
    let event = match input.int_in_range(0..=9_u8)? {
        0 => return Ok(LogEntry::Hidden { seq, version: 1 }),
        1 => Event::Added { members: vec![some_user(input)?] },
        2 => Event::Removed { members: vec![some_user(input)?] },
        3 => Event::Left { succession: Succession::Unchanged },
        4 => Event::Dissolved,
        5 => Event::Renamed { title: "other".into() },
        6 => Event::Created { title: "t".into(), members: vec![sender.clone()] },
        _ => Event::Message { body: [7; 4].into() },
    };
    let version = if event.changes_record() { seq } else { some_seq(input)?.clamp(1, seq) };
    Ok(LogEntry::Shown(Entry { seq, version, at_ms: 1, sender, by: None, event }))
}

/// Anything that is said unasked.
pub(super) fn some_push(input: &mut Unstructured<'_>) -> Result<Push> {
    let group = some_group(input)?;
    Ok(match input.int_in_range(0..=15_u8)? {
        0 => Push::Ready,
        1 => Push::TakenOver,
        2 => Push::GoingAway { within_ms: 1 },
        3 => Push::AuthenticateSoon { expires_at_ms: some_seq(input)? },
        4 => Push::Gone { group, until: some_seq(input)? },
        5 => Push::Behind { group, from: some_seq(input)?, head: some_seq(input)? },
        6 => Push::Signal { group, sender: some_user(input)?, by: None, body: vec![1] },
        7 => {
            let (position, seq, sender) = (some_seq(input)?, some_seq(input)?, some_user(input)?);
            Push::FeedItem { position, group, seq, sender, offline: vec![] }
        }
        8..=10 => {
            let (from, version, head) = (some_seq(input)?, some_seq(input)?, some_seq(input)?);
            let (owner, members) = (some_user(input)?, vec![some_user(input)?]);
            let (creator, title) = (owner.clone(), String::new());
            let created_at_ms = 0;
            Push::GroupPacket(GroupPacket { from, group, version, head, created_at_ms, owner, creator, title, members })
        }
        _ => {
            let seq = some_seq(input)?.max(1);
            Push::Entry { group, entry: some_entry(input, seq)? }
        }
    })
}
