//! What each vector on the page means, built in Rust.

use roundtable::codec::DecodeError;
use roundtable::group::{Entry, Event, Member, Record, Succession};
use roundtable::ids::{DeviceId, GroupId, OperationId, Role, UserId};
use roundtable::limits;
use roundtable::wire::{
    Attach, Changed, ConnectionRow, Created, ErrorBody, ErrorCode, GroupHistory, GroupPacket, GroupSeq, GroupShown,
    GroupSummary, Hello, HistoryOutcome, HistoryRequest, Kind, Limits, LogEntry, Mark, Push, Reply, Request, Stat,
    UserMarks, Welcome, features,
};

/// The request id of all requests and replies on the page.
pub(crate) const REQUEST_ID: u32 = 7;

/// The content of one frame.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Message {
    Request(Request),
    Reply(Reply),
    Push(Push),
}

impl Message {
    pub(crate) fn kind(&self) -> Kind {
        match self {
            Self::Request(request) => request.kind(),
            Self::Reply(reply) => reply.kind(),
            Self::Push(push) => push.kind(),
        }
    }

    /// The request id that the frame carries on the page.
    pub(crate) fn request_id(&self) -> u32 {
        match self {
            Self::Request(_) | Self::Reply(_) => REQUEST_ID,
            Self::Push(_) => 0,
        }
    }

    /// The whole frame.
    pub(crate) fn frame(&self) -> Vec<u8> {
        let mut out = Vec::new();
        match self {
            Self::Request(request) => request.encode_frame(&mut out, REQUEST_ID),
            Self::Reply(reply) => reply.encode_frame(&mut out, REQUEST_ID),
            Self::Push(push) => push.encode_frame(&mut out),
        }
        out
    }

    /// Reads a body. Exactly one of the three decoders knows each kind.
    pub(crate) fn decode(kind: Kind, body: &[u8]) -> Result<Self, DecodeError> {
        let found = [
            Request::decode(kind, body).map(|result| result.map(Self::Request)),
            Reply::decode(kind, body).map(|result| result.map(Self::Reply)),
            Push::decode(kind, body).map(|result| result.map(Self::Push)),
        ];
        let mut found = found.into_iter().flatten();
        let result = found.next().expect("each kind has a decoder");
        assert!(found.next().is_none(), "{} has two decoders", kind.name());
        result
    }
}

pub(crate) fn user(text: &str) -> UserId {
    UserId::new(text).expect("a legal user id")
}

pub(crate) fn users(texts: &[&str]) -> Vec<UserId> {
    texts.iter().map(|text| user(text)).collect()
}

pub(crate) fn group() -> GroupId {
    "01997e2a-5c00-7abc-8def-0123456789ab".parse().expect("a UUID")
}

fn other_group() -> GroupId {
    "01997e2a-5c01-7abc-8def-0123456789ac".parse().expect("a UUID")
}

fn operation() -> OperationId {
    "4d5e6f70-8192-4a3b-9c4d-5e6f70819203".parse().expect("a UUID")
}

const AT_MS: u64 = 1_758_800_000_000;

/// Every vector of the page: its name there and its value. The name is that of the kind, with `/variant` where a kind
/// has several.
pub(crate) fn all() -> Vec<(&'static str, Message)> {
    let mut all = Vec::new();
    all.extend(requests().into_iter().map(|(name, request)| (name, Message::Request(request))));
    all.extend(replies().into_iter().map(|(name, reply)| (name, Message::Reply(reply))));
    all.extend(pushes().into_iter().map(|(name, push)| (name, Message::Push(push))));
    all
}

fn requests() -> Vec<(&'static str, Request)> {
    let (operation, group) = (operation(), group());
    let mut requests = connection_requests();
    requests.extend([
        ("Create", Request::Create { operation, title: "lunch".into(), members: users(&["bob", "алиса"]) }),
        ("Add", Request::Add { operation, group, members: users(&["dave"]) }),
        ("Remove", Request::Remove { operation, group, members: users(&["bob"]) }),
        ("Leave", Request::Leave { operation, group }),
        ("Rename", Request::Rename { operation, group, title: "dinner".into() }),
        ("Transfer", Request::Transfer { operation, group, owner: user("bob") }),
        ("Dissolve", Request::Dissolve { operation, group }),
        ("Send", Request::Send { operation, group, body: b"hi"[..].into() }),
        ("Whisper", Request::Whisper { operation, group, to: users(&["bob"]), body: b"psst"[..].into() }),
        ("Signal", Request::Signal { group, body: b"typing"[..].into() }),
        (
            "Acknowledge",
            Request::Acknowledge {
                marks: vec![Mark { group, received: 5, read: 3 }, Mark { group: other_group(), received: 1, read: 0 }],
            },
        ),
        ("GetGroup", Request::GetGroup { group, newer_than: 0 }),
        ("ListGroups", Request::ListGroups { after: None, count_max: 100 }),
        ("ListGroups/next", Request::ListGroups { after: Some(group), count_max: 100 }),
        (
            "History",
            Request::History(HistoryRequest {
                groups: vec![GroupSeq { group, seq: 2 }],
                entries_max: 50,
                bytes_max: 65_536,
            }),
        ),
        ("Readers", Request::Readers { group, seq: 5 }),
        ("Feed", Request::Feed { position: 4096 }),
        ("Stats", Request::Stats),
        ("Backup", Request::Backup { path: "/var/backups/roundtable".into() }),
        ("Connections", Request::Connections { after: 0, count_max: 100 }),
        ("Kick", Request::Kick { user: user("bob") }),
    ]);
    requests
}

fn connection_requests() -> Vec<(&'static str, Request)> {
    vec![
        (
            "Hello",
            Request::Hello(Hello {
                version_min: 1,
                version_max: 1,
                features: features::MEMBERSHIP | features::WHISPER,
                heartbeat_s: 30,
                device: DeviceId::new("phone").expect("a legal device id"),
                token: "eyJhbGciOiJFZERTQSJ9.e30.AA".into(),
            }),
        ),
        (
            "Attach/device",
            Request::Attach(Attach::Device { more: false, groups: vec![GroupSeq { group: group(), seq: 4 }] }),
        ),
        ("Attach/empty", Request::Attach(Attach::Device { more: false, groups: vec![] })),
        ("Attach/marks", Request::Attach(Attach::Marks)),
        ("Authenticate", Request::Authenticate { token: "eyJhbGciOiJFZERTQSJ9.e30.AA".into() }),
        ("Ping", Request::Ping),
    ]
}

fn replies() -> Vec<(&'static str, Reply)> {
    let group = group();
    let changed = |seq, version| Changed { group, seq, version, repeated: false };
    let created =
        |repeated| Reply::Created(Created { group, seq: 1, version: 1, members: 3, pushed: 1, queued: 1, repeated });
    let mut replies = vec![
        ("Welcome", welcome()),
        ("Attached", Reply::Attached),
        ("Authenticated", Reply::Authenticated { expires_at_ms: AT_MS }),
        ("Pong", Reply::Pong { server_time_ms: AT_MS, ready: true }),
        ("Created", created(false)),
        ("Created/repeated", created(true)),
        ("AddDone", Reply::Changed(Kind::AddDone, changed(2, 2))),
        ("RemoveDone", Reply::Changed(Kind::RemoveDone, changed(3, 3))),
        ("LeaveDone", Reply::Changed(Kind::LeaveDone, changed(4, 4))),
        ("RenameDone", Reply::Changed(Kind::RenameDone, changed(5, 5))),
        ("TransferDone", Reply::Changed(Kind::TransferDone, changed(6, 6))),
        ("DissolveDone", Reply::Changed(Kind::DissolveDone, changed(7, 7))),
        ("SendDone", Reply::Changed(Kind::SendDone, changed(2, 1))),
        ("WhisperDone", Reply::Changed(Kind::WhisperDone, changed(9, 7))),
    ];
    replies.extend(read_replies());
    replies.extend(operator_replies());
    replies.extend([
        ("Error/NOT_FOUND", error(ErrorCode::NotFound, 0, "no such group")),
        ("Error/SLOW_DOWN", error(ErrorCode::SlowDown, 250, "")),
        ("Error/TRUNCATED", error(ErrorCode::Truncated, 17, "older entries are gone")),
    ]);
    replies
}

fn error(code: ErrorCode, detail: u64, message: &str) -> Reply {
    Reply::Error(ErrorBody::new(code, detail, message))
}

fn welcome() -> Reply {
    let u32_of = |limit: usize| u32::try_from(limit).expect("limits fit four bytes");
    Reply::Welcome(Welcome {
        version: 1,
        connection: 12,
        server_time_ms: AT_MS,
        heartbeat_s: 30,
        features: 0,
        user: user("alice"),
        role: Role::User,
        limits: Limits {
            frame_bytes: u32_of(limits::FRAME_BYTES_MAX),
            list_frame_bytes: u32_of(limits::FRAME_BYTES_MAX_LIST),
            members: u32_of(limits::GROUP_MEMBERS_MAX),
            body_bytes: u32_of(limits::BODY_BYTES_MAX),
            title_bytes: u32_of(limits::TITLE_BYTES_MAX),
            in_flight: u32_of(limits::IN_FLIGHT_MAX),
        },
    })
}

fn read_replies() -> Vec<(&'static str, Reply)> {
    let group = group();
    let member = |name, joined| Member { user: user(name), joined };
    let record = Record {
        group,
        title: "lunch".into(),
        owner: user("alice"),
        creator: user("alice"),
        created_at_ms: AT_MS,
        members: vec![member("alice", 1), member("bob", 1), member("dave", 3)],
        version: 3,
        dissolved: false,
    };
    let summary = GroupSummary {
        group,
        title: "lunch".into(),
        members: 3,
        version: 3,
        head: 5,
        received: 4,
        read: 2,
        last_at_ms: AT_MS,
    };
    let entries =
        vec![shown(2, 1, "alice", Event::Message { body: b"hi"[..].into() }), LogEntry::Hidden { seq: 3, version: 1 }];
    vec![
        ("GroupShown/unchanged", Reply::GroupShown(GroupShown::Unchanged { group, version: 3 })),
        ("GroupShown/record", Reply::GroupShown(GroupShown::Record { head: 5, floor: 1, record })),
        ("GroupsListed", Reply::GroupsListed { more: false, groups: vec![summary] }),
        (
            "HistoryPage",
            Reply::HistoryPage {
                groups: vec![
                    GroupHistory { group, outcome: HistoryOutcome::Entries { head: 3, floor: 1, entries } },
                    GroupHistory {
                        group: other_group(),
                        outcome: HistoryOutcome::Refused(ErrorBody::new(ErrorCode::NotFound, 0, "no such group")),
                    },
                ],
            },
        ),
        (
            "ReadersListed",
            Reply::ReadersListed { group, readers: vec![UserMarks { user: user("bob"), received: 5, read: 2 }] },
        ),
    ]
}

fn operator_replies() -> Vec<(&'static str, Reply)> {
    let rows = vec![
        ConnectionRow {
            connection: 12,
            user: Some(user("alice")),
            device: Some(user("phone")),
            since_ms: AT_MS,
            output_bytes: 4096,
            behind: 1,
        },
        ConnectionRow { connection: 13, user: None, device: None, since_ms: AT_MS, output_bytes: 0, behind: 0 },
    ];
    vec![
        ("FeedBegun", Reply::FeedBegun { position: 4096 }),
        ("StatsListed", Reply::StatsListed { stats: vec![Stat { name: "connections_count".into(), value: 12 }] }),
        ("BackupDone", Reply::BackupDone { files: 3, bytes: 67_108_864 }),
        ("ConnectionsListed", Reply::ConnectionsListed { more: false, connections: rows }),
        ("KickDone", Reply::KickDone { connections: 2 }),
    ]
}

fn shown(seq: u64, version: u64, sender: &str, event: Event) -> LogEntry {
    LogEntry::Shown(Entry { seq, version, at_ms: AT_MS, sender: user(sender), by: None, event })
}

fn pushes() -> Vec<(&'static str, Push)> {
    let group = group();
    let packet = GroupPacket {
        from: 2,
        group,
        version: 1,
        head: 1,
        created_at_ms: AT_MS,
        owner: user("alice"),
        creator: user("alice"),
        title: "lunch".into(),
        members: users(&["alice", "bob", "carol"]),
    };
    let mut pushes = vec![("GroupPacket", Push::GroupPacket(packet))];
    pushes.extend(entries().into_iter().map(|(name, entry)| (name, Push::Entry { group, entry })));
    pushes.extend([
        ("SignalPush", Push::Signal { group, sender: user("bob"), by: None, body: b"typing".to_vec() }),
        ("Behind", Push::Behind { group, from: 5, head: 9 }),
        ("Gone", Push::Gone { group, until: 6 }),
        ("Ready", Push::Ready),
        ("AuthenticateSoon", Push::AuthenticateSoon { expires_at_ms: AT_MS }),
        ("TakenOver", Push::TakenOver),
        ("GoingAway", Push::GoingAway { within_ms: 10_000 }),
        (
            "FeedItem",
            Push::FeedItem { position: 4097, group, seq: 2, sender: user("alice"), offline: users(&["carol"]) },
        ),
    ]);
    pushes
}

/// One push of each kind of entry.
fn entries() -> Vec<(&'static str, LogEntry)> {
    let passed = Succession::Passed { owner: user("bob") };
    let by_service = Entry {
        seq: 9,
        version: 7,
        at_ms: AT_MS,
        sender: user("alice"),
        by: Some(user("gateway-1")),
        event: Event::Message { body: b"hi"[..].into() },
    };
    vec![
        ("Entry/hidden", LogEntry::Hidden { seq: 3, version: 1 }),
        (
            "Entry/created",
            shown(1, 1, "alice", Event::Created { title: "lunch".into(), members: users(&["alice", "bob"]) }),
        ),
        ("Entry/added", shown(3, 3, "bob", Event::Added { members: users(&["dave", "eve"]) })),
        ("Entry/removed", shown(4, 4, "alice", Event::Removed { members: users(&["eve"]) })),
        ("Entry/left", shown(5, 5, "dave", Event::Left { succession: Succession::Unchanged })),
        ("Entry/left-passed", shown(6, 6, "alice", Event::Left { succession: passed })),
        ("Entry/left-dissolved", shown(7, 7, "bob", Event::Left { succession: Succession::Dissolved })),
        ("Entry/renamed", shown(5, 5, "alice", Event::Renamed { title: "dinner".into() })),
        ("Entry/transferred", shown(6, 6, "alice", Event::Transferred { owner: user("bob") })),
        ("Entry/dissolved", shown(7, 7, "alice", Event::Dissolved)),
        ("Entry/message", shown(2, 1, "alice", Event::Message { body: b"hi"[..].into() })),
        ("Entry/message-by-service", LogEntry::Shown(by_service)),
        ("Entry/whisper", shown(3, 1, "alice", Event::Whisper { to: users(&["bob"]), body: b"psst"[..].into() })),
    ]
}
