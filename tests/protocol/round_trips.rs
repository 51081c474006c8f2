//! Any value that can be built reads back as itself.

use proptest::collection::vec;
use proptest::option;
use proptest::prelude::*;
use roundtable::group::{Entry, Event, Member, Record, Succession};
use roundtable::ids::{DeviceId, GroupId, OperationId, Role, UserId};
use roundtable::limits::HEADER_BYTES;
use roundtable::wire::{
    Attach, Changed, ConnectionRow, Created, ErrorBody, GroupHistory, GroupPacket, GroupSeq, GroupShown, GroupSummary,
    Hello, HistoryOutcome, HistoryRequest, Kind, Limits, LogEntry, Mark, Push, Reply, Request, Stat, UserMarks,
    Welcome,
};

use crate::values::Message;

proptest! {
    #[test]
    fn requests_read_back(request in request()) {
        reads_back(Message::Request(request))?;
    }

    #[test]
    fn replies_read_back(reply in reply()) {
        reads_back(Message::Reply(reply))?;
    }

    #[test]
    fn pushes_read_back(push in push()) {
        reads_back(Message::Push(push))?;
    }

    #[test]
    fn any_bytes_never_panic(body in vec(any::<u8>(), 0..200)) {
        for kind in Kind::ALL {
            let _ = Message::decode(*kind, &body);
        }
    }
}

fn reads_back(message: Message) -> Result<(), TestCaseError> {
    let frame = message.frame();
    prop_assert_eq!(Message::decode(message.kind(), &frame[HEADER_BYTES..]), Ok(message));
    Ok(())
}

fn user() -> impl Strategy<Value = UserId> {
    "[a-zа-я0-9@.☃-]{1,16}".prop_map(|text| UserId::new(&text).expect("at most 48 bytes"))
}

fn users() -> impl Strategy<Value = Vec<UserId>> {
    vec(user(), 0..6)
}

fn id() -> impl Strategy<Value = [u8; 16]> {
    any::<[u8; 16]>().prop_filter("not nil", |bytes| *bytes != [0; 16])
}

fn group() -> impl Strategy<Value = GroupId> {
    id().prop_map(|bytes| GroupId::from_bytes(bytes).expect("not nil"))
}

fn operation() -> impl Strategy<Value = OperationId> {
    id().prop_map(|bytes| OperationId::from_bytes(bytes).expect("not nil"))
}

fn title() -> impl Strategy<Value = String> {
    "\\PC{0,40}"
}

fn body() -> impl Strategy<Value = Vec<u8>> {
    vec(any::<u8>(), 0..100)
}

fn group_seq(seq: impl Strategy<Value = u64>) -> impl Strategy<Value = GroupSeq> {
    (group(), seq).prop_map(|(group, seq)| GroupSeq { group, seq })
}

fn request() -> impl Strategy<Value = Request> {
    let target = || (operation(), group());
    let connection = prop_oneof![
        (any::<(u8, u8, u64, u16)>(), user(), "[a-zA-Z0-9._-]{0,60}").prop_map(|(numbers, device, token)| {
            let (version_min, version_max, features, heartbeat_s) = numbers;
            let device = DeviceId::new(device.as_str()).expect("legal");
            Request::Hello(Hello { version_min, version_max, features, heartbeat_s, device, token })
        }),
        (any::<bool>(), vec(group_seq(any::<u64>()), 0..5))
            .prop_map(|(more, groups)| Request::Attach(Attach::Device { more, groups })),
        Just(Request::Attach(Attach::Marks)),
        "[a-zA-Z0-9._-]{0,60}".prop_map(|token| Request::Authenticate { token }),
        Just(Request::Ping),
        Just(Request::Stats),
    ];
    let changes = prop_oneof![
        (operation(), title(), users()).prop_map(|(operation, title, members)| Request::Create {
            operation,
            title: title.into(),
            members
        }),
        (target(), users()).prop_map(|((operation, group), members)| Request::Add { operation, group, members }),
        (target(), users()).prop_map(|((operation, group), members)| Request::Remove { operation, group, members }),
        target().prop_map(|(operation, group)| Request::Leave { operation, group }),
        (target(), title()).prop_map(|((operation, group), title)| Request::Rename {
            operation,
            group,
            title: title.into()
        }),
        (target(), user()).prop_map(|((operation, group), owner)| Request::Transfer { operation, group, owner }),
        target().prop_map(|(operation, group)| Request::Dissolve { operation, group }),
        (target(), body()).prop_map(|((operation, group), body)| Request::Send { operation, group, body: body.into() }),
        (target(), users(), body()).prop_map(|((operation, group), to, body)| Request::Whisper {
            operation,
            group,
            to,
            body: body.into()
        }),
        (group(), body()).prop_map(|(group, body)| Request::Signal { group, body: body.into() }),
    ];
    let reads = prop_oneof![
        vec((group(), any::<(u64, u64)>()), 0..5).prop_map(|marks| {
            let mark = |(group, (received, read))| Mark { group, received, read };
            Request::Acknowledge { marks: marks.into_iter().map(mark).collect() }
        }),
        group_seq(any::<u64>()).prop_map(|at| Request::GetGroup { group: at.group, newer_than: at.seq }),
        group_seq(any::<u64>()).prop_map(|at| Request::Readers { group: at.group, seq: at.seq }),
        (option::of(group()), any::<u32>()).prop_map(|(after, count_max)| Request::ListGroups { after, count_max }),
        (vec(group_seq(1..=u64::MAX), 1..=64), any::<(u32, u32)>()).prop_map(|(groups, (entries_max, bytes_max))| {
            Request::History(HistoryRequest { groups, entries_max, bytes_max })
        }),
        any::<u64>().prop_map(|position| Request::Feed { position }),
        title().prop_map(|path| Request::Backup { path }),
        any::<(u64, u32)>().prop_map(|(after, count_max)| Request::Connections { after, count_max }),
        user().prop_map(|user| Request::Kick { user }),
    ];
    prop_oneof![connection, changes, reads]
}

fn reply() -> impl Strategy<Value = Reply> {
    let done = [
        Kind::AddDone,
        Kind::RemoveDone,
        Kind::LeaveDone,
        Kind::RenameDone,
        Kind::TransferDone,
        Kind::DissolveDone,
        Kind::SendDone,
        Kind::WhisperDone,
    ];
    let plain = prop_oneof![
        Just(Reply::Attached),
        any::<u64>().prop_map(|expires_at_ms| Reply::Authenticated { expires_at_ms }),
        any::<(u64, bool)>().prop_map(|(server_time_ms, ready)| Reply::Pong { server_time_ms, ready }),
        (group(), any::<(u64, u64, u32, u32, u32, bool)>()).prop_map(|(group, numbers)| {
            let (seq, version, members, pushed, queued, repeated) = numbers;
            Reply::Created(Created { group, seq, version, members, pushed, queued, repeated })
        }),
        (proptest::sample::select(done.to_vec()), group(), any::<(u64, u64, bool)>()).prop_map(
            |(kind, group, (seq, version, repeated))| {
                Reply::Changed(kind, Changed { group, seq, version, repeated })
            }
        ),
        any::<u64>().prop_map(|position| Reply::FeedBegun { position }),
        any::<(u64, u64)>().prop_map(|(files, bytes)| Reply::BackupDone { files, bytes }),
        any::<u32>().prop_map(|connections| Reply::KickDone { connections }),
        error().prop_map(Reply::Error),
    ];
    let lists = prop_oneof![
        welcome(),
        shown().prop_map(Reply::GroupShown),
        (any::<bool>(), vec(summary(), 0..4)).prop_map(|(more, groups)| Reply::GroupsListed { more, groups }),
        vec(history(), 0..4).prop_map(|groups| Reply::HistoryPage { groups }),
        (group(), vec((user(), any::<(u64, u64)>()), 0..4)).prop_map(|(group, readers)| {
            let marks = |(user, (received, read))| UserMarks { user, received, read };
            Reply::ReadersListed { group, readers: readers.into_iter().map(marks).collect() }
        }),
        vec((title(), any::<u64>()), 0..4).prop_map(|stats| Reply::StatsListed {
            stats: stats.into_iter().map(|(name, value)| Stat { name, value }).collect(),
        }),
        (any::<bool>(), vec(connection(), 0..4))
            .prop_map(|(more, connections)| Reply::ConnectionsListed { more, connections }),
    ];
    prop_oneof![plain, lists]
}

fn error() -> impl Strategy<Value = ErrorBody> {
    (any::<(u16, u64)>(), title()).prop_map(|((code, detail), message)| ErrorBody { code, detail, message })
}

fn welcome() -> impl Strategy<Value = Reply> {
    let role = proptest::sample::select(vec![Role::User, Role::Service, Role::Operator]);
    (any::<(u8, u64, u64, u16, u64)>(), user(), role, any::<[u32; 6]>()).prop_map(|(numbers, user, role, limits)| {
        let (version, connection, server_time_ms, heartbeat_s, features) = numbers;
        let [frame_bytes, list_frame_bytes, members, body_bytes, title_bytes, in_flight] = limits;
        let limits = Limits { frame_bytes, list_frame_bytes, members, body_bytes, title_bytes, in_flight };
        Reply::Welcome(Welcome { version, connection, server_time_ms, heartbeat_s, features, user, role, limits })
    })
}

fn shown() -> impl Strategy<Value = GroupShown> {
    let member = (user(), any::<u64>()).prop_map(|(user, joined)| Member { user, joined });
    let record = (group(), title(), user(), user(), any::<(u64, u64)>(), vec(member, 0..6)).prop_map(
        |(group, title, owner, creator, (created_at_ms, version), members)| Record {
            group,
            title: title.into(),
            owner,
            creator,
            created_at_ms,
            members,
            version,
            dissolved: false,
        },
    );
    prop_oneof![
        group_seq(any::<u64>()).prop_map(|at| GroupShown::Unchanged { group: at.group, version: at.seq }),
        (any::<(u64, u64)>(), record).prop_map(|((head, floor), record)| GroupShown::Record { head, floor, record }),
    ]
}

fn summary() -> impl Strategy<Value = GroupSummary> {
    (group(), title(), any::<(u32, [u64; 5])>()).prop_map(|(group, title, (members, numbers))| {
        let [version, head, received, read, last_at_ms] = numbers;
        GroupSummary { group, title, members, version, head, received, read, last_at_ms }
    })
}

fn history() -> impl Strategy<Value = GroupHistory> {
    let outcome =
        prop_oneof![
            (any::<(u64, u64)>(), vec(log_entry(), 0..4))
                .prop_map(|((head, floor), entries)| HistoryOutcome::Entries { head, floor, entries }),
            error().prop_map(HistoryOutcome::Refused),
        ];
    (group(), outcome).prop_map(|(group, outcome)| GroupHistory { group, outcome })
}

fn connection() -> impl Strategy<Value = ConnectionRow> {
    (any::<(u64, u64, u64, u32)>(), option::of(user()), option::of(user())).prop_map(|(numbers, user, device)| {
        let (connection, since_ms, output_bytes, behind) = numbers;
        ConnectionRow { connection, user, device, since_ms, output_bytes, behind }
    })
}

fn log_entry() -> impl Strategy<Value = LogEntry> {
    let at = || (1..=u64::MAX).prop_flat_map(|seq| (Just(seq), 1..=seq));
    let shown = (at(), any::<u64>(), user(), option::of(user()), event())
        .prop_map(|((seq, version), at_ms, sender, by, event)| Entry { seq, version, at_ms, sender, by, event });
    prop_oneof![
        1 => at().prop_map(|(seq, version)| LogEntry::Hidden { seq, version }),
        9 => shown.prop_map(LogEntry::Shown),
    ]
}

fn event() -> impl Strategy<Value = Event> {
    let succession = prop_oneof![
        Just(Succession::Unchanged),
        user().prop_map(|owner| Succession::Passed { owner }),
        Just(Succession::Dissolved),
    ];
    prop_oneof![
        (title(), users()).prop_map(|(title, members)| Event::Created { title: title.into(), members }),
        users().prop_map(|members| Event::Added { members }),
        users().prop_map(|members| Event::Removed { members }),
        succession.prop_map(|succession| Event::Left { succession }),
        title().prop_map(|title| Event::Renamed { title: title.into() }),
        user().prop_map(|owner| Event::Transferred { owner }),
        Just(Event::Dissolved),
        body().prop_map(|body| Event::Message { body: body.into() }),
        (users(), body()).prop_map(|(to, body)| Event::Whisper { to, body: body.into() }),
    ]
}

fn push() -> impl Strategy<Value = Push> {
    let packet = (group(), any::<[u64; 4]>(), user(), user(), title(), users()).prop_map(
        |(group, [from, version, head, created_at_ms], owner, creator, title, members)| {
            Push::GroupPacket(GroupPacket { from, group, version, head, created_at_ms, owner, creator, title, members })
        },
    );
    prop_oneof![
        3 => packet,
        5 => (group(), log_entry()).prop_map(|(group, entry)| Push::Entry { group, entry }),
        1 => (group(), user(), option::of(user()), body())
            .prop_map(|(group, sender, by, body)| Push::Signal { group, sender, by, body }),
        1 => (group(), any::<(u64, u64)>()).prop_map(|(group, (from, head))| Push::Behind { group, from, head }),
        1 => group_seq(any::<u64>()).prop_map(|at| Push::Gone { group: at.group, until: at.seq }),
        1 => Just(Push::Ready),
        1 => any::<u64>().prop_map(|expires_at_ms| Push::AuthenticateSoon { expires_at_ms }),
        1 => Just(Push::TakenOver),
        1 => any::<u64>().prop_map(|within_ms| Push::GoingAway { within_ms }),
        1 => (any::<(u64, u64)>(), group(), user(), users()).prop_map(|((position, seq), group, sender, offline)| {
            Push::FeedItem { position, group, seq, sender, offline }
        }),
    ]
}
