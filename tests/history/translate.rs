//! Between the words of a history and those of the wire.

use roundtable::group;
use roundtable::ids::{GroupId, OperationId, UserId};
use roundtable::wire::{
    self, Attach, GroupSeq, GroupShown, HistoryOutcome, HistoryRequest, LogEntry, Mark, Reply, Request,
};

use super::format::{
    Act, Answer, At, Call, Entry, Event, Outcome, Packet, Part, Push, Record, Shown, Summary, body_text,
};

/// A body of so many bytes that begins with an operation id.
pub(crate) fn body_of(op: &str, bytes: usize) -> Vec<u8> {
    let mut body = op.as_bytes().to_vec();
    body.resize(body.len() + bytes, b'.');
    body
}

/// The bytes of a body that this process made, from its text.
fn body_from(text: &str) -> Vec<u8> {
    let (op, rest) = text.split_once('+').unwrap_or((text, "0"));
    let bytes = rest.split(':').next().and_then(|bytes| bytes.parse().ok()).expect("a body as `body_text` says it");
    body_of(op, bytes)
}

pub(crate) fn request_of(call: &Call) -> Request {
    match call {
        Call::Attach { has: None } => Request::Attach(Attach::Marks),
        Call::Attach { has: Some(has) } => {
            Request::Attach(Attach::Device { more: false, groups: has.iter().map(group_seq).collect() })
        }
        Call::Create { op, title, members } => {
            Request::Create { operation: operation(op), title: title.as_str().into(), members: users(members) }
        }
        Call::Change { op, group, act } => change_of(operation(op), group_id(group), act),
        Call::Acknowledge { marks } => {
            let mark = |(group, received, read): &(String, u64, u64)| Mark {
                group: group_id(group),
                received: *received,
                read: *read,
            };
            Request::Acknowledge { marks: marks.iter().map(mark).collect() }
        }
        Call::Get { group, newer_than } => Request::GetGroup { group: group_id(group), newer_than: *newer_than },
        Call::List { after } => Request::ListGroups { after: after.as_deref().map(group_id), count_max: 0 },
        Call::History { groups } => {
            let groups = groups.iter().map(group_seq).collect();
            Request::History(HistoryRequest { groups, entries_max: 0, bytes_max: 0 })
        }
    }
}

fn change_of(operation: OperationId, group: GroupId, act: &Act) -> Request {
    match act {
        Act::Add(members) => Request::Add { operation, group, members: users(members) },
        Act::Remove(members) => Request::Remove { operation, group, members: users(members) },
        Act::Leave => Request::Leave { operation, group },
        Act::Rename(title) => Request::Rename { operation, group, title: title.as_str().into() },
        Act::Transfer(owner) => Request::Transfer { operation, group, owner: user(owner) },
        Act::Dissolve => Request::Dissolve { operation, group },
        Act::Send(body) => Request::Send { operation, group, body: body_from(body).into() },
        Act::Whisper { to, body } => Request::Whisper { operation, group, to: users(to), body: body_from(body).into() },
    }
}

/// `None` for answers to what is not written down.
pub(crate) fn answer_of(reply: Reply) -> Option<Answer> {
    Some(match reply {
        Reply::Attached => Answer::Attached,
        Reply::Created(wire::Created { group, seq, version, members, repeated, .. }) => {
            Answer::Created { group: group.to_string(), seq, version, members, repeated }
        }
        Reply::Changed(_, wire::Changed { group, seq, version, repeated }) => {
            Answer::Changed { group: group.to_string(), seq, version, repeated }
        }
        Reply::GroupShown(GroupShown::Unchanged { group, version }) => {
            Answer::Unchanged { group: group.to_string(), version }
        }
        Reply::GroupShown(GroupShown::Record { head, floor, record }) => {
            let members = record.members.iter().map(|member| (member.user.to_string(), member.joined)).collect();
            let group = record.group.to_string();
            let (owner, creator) = (record.owner.to_string(), record.creator.to_string());
            let record = Record { version: record.version, title: record.title.to_string(), owner, creator, members };
            Answer::Shown { group, head, floor, record }
        }
        Reply::GroupsListed { more, groups } => {
            Answer::Listed { more, groups: groups.into_iter().map(summary_of).collect() }
        }
        Reply::HistoryPage { groups } => Answer::Page { parts: groups.into_iter().map(part_of).collect() },
        Reply::Error(error) => Answer::Refused { code: error.name().to_owned(), detail: error.detail },
        _ => return None,
    })
}

/// `None` for what is not written down.
pub(crate) fn push_of(push: wire::Push) -> Option<Push> {
    Some(match push {
        wire::Push::Entry { group, entry } => Push::Entry { group: group.to_string(), entry: entry_of(entry) },
        wire::Push::GroupPacket(packet) => Push::Packet(Packet {
            group: packet.group.to_string(),
            from: packet.from,
            head: packet.head,
            version: packet.version,
            title: packet.title,
            owner: packet.owner.to_string(),
            creator: packet.creator.to_string(),
            members: names(&packet.members),
        }),
        wire::Push::Behind { group, from, head } => Push::Behind { group: group.to_string(), from, head },
        wire::Push::Gone { group, until } => Push::Gone { group: group.to_string(), until },
        wire::Push::Ready => Push::Ready,
        wire::Push::TakenOver => Push::TakenOver,
        wire::Push::GoingAway { .. } => Push::GoingAway,
        wire::Push::Signal { .. } | wire::Push::AuthenticateSoon { .. } | wire::Push::FeedItem { .. } => return None,
    })
}

fn summary_of(line: wire::GroupSummary) -> Summary {
    let wire::GroupSummary { group, title, members, version, head, received, read, .. } = line;
    Summary { group: group.to_string(), title, members, version, head, received, read }
}

fn part_of(part: wire::GroupHistory) -> Part {
    let outcome = match part.outcome {
        HistoryOutcome::Entries { head, floor, entries } => {
            Outcome::Entries { head, floor, entries: entries.into_iter().map(entry_of).collect() }
        }
        HistoryOutcome::Refused(error) => Outcome::Refused { code: error.name().to_owned(), detail: error.detail },
    };
    Part { group: part.group.to_string(), outcome }
}

fn entry_of(entry: LogEntry) -> Entry {
    match entry {
        LogEntry::Hidden { seq, version } => Entry { seq, version, shown: None },
        LogEntry::Shown(group::Entry { seq, version, at_ms, sender, by, event }) => {
            let (sender, by) = (sender.to_string(), by.map(|by| by.to_string()));
            Entry { seq, version, shown: Some(Shown { at_ms, sender, by, event: event_of(event) }) }
        }
    }
}

fn event_of(event: group::Event) -> Event {
    match event {
        group::Event::Created { title, members } => {
            Event::Created { title: title.to_string(), members: names(&members) }
        }
        group::Event::Added { members } => Event::Added(names(&members)),
        group::Event::Removed { members } => Event::Removed(names(&members)),
        group::Event::Left { succession } => match succession {
            group::Succession::Unchanged => Event::Left { heir: None, dissolved: false },
            group::Succession::Passed { owner } => Event::Left { heir: Some(owner.to_string()), dissolved: false },
            group::Succession::Dissolved => Event::Left { heir: None, dissolved: true },
        },
        group::Event::Renamed { title } => Event::Renamed(title.to_string()),
        group::Event::Transferred { owner } => Event::Transferred(owner.to_string()),
        group::Event::Dissolved => Event::Dissolved,
        group::Event::Message { body } => Event::Message(body_text(&body)),
        group::Event::Whisper { to, body } => Event::Whisper { to: names(&to), body: body_text(&body) },
    }
}

fn names(users: &[UserId]) -> Vec<String> {
    users.iter().map(UserId::to_string).collect()
}

fn users(names: &[String]) -> Vec<UserId> {
    names.iter().map(|name| user(name)).collect()
}

fn user(name: &str) -> UserId {
    UserId::new(name).expect("a legal name")
}

fn operation(text: &str) -> OperationId {
    text.parse().expect("an operation id")
}

fn group_id(text: &str) -> GroupId {
    text.parse().expect("a group id")
}

fn group_seq((group, seq): &At) -> GroupSeq {
    GroupSeq { group: group_id(group), seq: *seq }
}
