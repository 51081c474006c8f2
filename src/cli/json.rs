//! The shapes that scripts may rely on. Fields may be added; none is renamed.

use base64::Engine;
use roundtable::client::Event as ClientEvent;
use roundtable::group::{Entry, Event, Record, Succession};
use roundtable::ids::{GroupId, UserId};
use roundtable::wire::{Changed, ConnectionRow, Created, GroupPacket, GroupSummary, LogEntry, Stat, UserMarks};
use serde_json::{Map, Value, json};

pub(crate) fn created(created: &Created) -> Value {
    json!({
        "group": created.group.to_string(),
        "seq": created.seq,
        "version": created.version,
        "members": created.members,
        "pushed": created.pushed,
        "queued": created.queued,
        "repeated": created.repeated,
    })
}

pub(crate) fn changed(changed: &Changed) -> Value {
    json!({
        "group": changed.group.to_string(),
        "seq": changed.seq,
        "version": changed.version,
        "repeated": changed.repeated,
    })
}

pub(crate) fn shown(record: &Record, head: u64, floor: u64) -> Value {
    let members: Vec<Value> =
        record.members.iter().map(|member| json!({"user": member.user.as_str(), "joined": member.joined})).collect();
    json!({
        "group": record.group.to_string(),
        "title": &*record.title,
        "owner": record.owner.as_str(),
        "creator": record.creator.as_str(),
        "created_at": record.created_at_ms,
        "version": record.version,
        "head": head,
        "floor": floor,
        "members": members,
    })
}

pub(crate) fn summary(summary: &GroupSummary) -> Value {
    json!({
        "group": summary.group.to_string(),
        "title": summary.title,
        "members": summary.members,
        "version": summary.version,
        "head": summary.head,
        "received": summary.received,
        "read": summary.read,
        "last_at": summary.last_at_ms,
    })
}

pub(crate) fn reader(group: GroupId, marks: &UserMarks) -> Value {
    json!({
        "group": group.to_string(),
        "user": marks.user.as_str(),
        "received": marks.received,
        "read": marks.read,
    })
}

/// Without a user and a device until it has authenticated.
pub(crate) fn connection(row: &ConnectionRow) -> Value {
    json!({
        "connection": row.connection,
        "user": row.user.as_ref().map(UserId::as_str),
        "device": row.device.as_ref().map(UserId::as_str),
        "since": row.since_ms,
        "output_bytes": row.output_bytes,
        "behind": row.behind,
    })
}

pub(crate) fn stats(stats: &[Stat]) -> Value {
    Value::Object(stats.iter().map(|stat| (stat.name.clone(), json!(stat.value))).collect())
}

pub(crate) fn packet(packet: &GroupPacket) -> Value {
    json!({
        "kind": "group",
        "group": packet.group.to_string(),
        "title": packet.title,
        "owner": packet.owner.as_str(),
        "creator": packet.creator.as_str(),
        "created_at": packet.created_at_ms,
        "version": packet.version,
        "head": packet.head,
        "from": packet.from,
        "members": users(&packet.members),
    })
}

pub(crate) fn entry(group: GroupId, entry: &LogEntry) -> Value {
    match entry {
        LogEntry::Hidden { seq, version } => {
            json!({"kind": "hidden", "group": group.to_string(), "seq": seq, "version": version})
        }
        LogEntry::Shown(entry) => shown_entry(group, entry),
    }
}

/// What `watch` prints of an event; `None` for one that is no line.
pub(crate) fn event(event: &ClientEvent) -> Option<Value> {
    Some(match event {
        ClientEvent::Group { packet: said, .. } => packet(said),
        ClientEvent::Entry { group, entry: said } => entry(*group, said),
        ClientEvent::Signal { group, sender, by, body: said } => {
            let mut object = json!({"kind": "signal", "group": group.to_string(), "sender": sender.as_str()});
            if let (Some(by), Some(fields)) = (by, object.as_object_mut()) {
                fields.insert("by".to_owned(), json!(by.as_str()));
            }
            put_body(&mut object, said);
            object
        }
        ClientEvent::Gone { group, until } => {
            json!({"kind": "gone", "group": group.to_string(), "until": until})
        }
        ClientEvent::Truncated { group, floor } => {
            json!({"kind": "truncated", "group": group.to_string(), "floor": floor})
        }
        _ => return None,
    })
}

fn shown_entry(group: GroupId, entry: &Entry) -> Value {
    let mut object = json!({
        "kind": kind(&entry.event),
        "group": group.to_string(),
        "seq": entry.seq,
        "version": entry.version,
        "sender": entry.sender.as_str(),
        "at": entry.at_ms,
    });
    if let Some(by) = &entry.by {
        put(&mut object, "by", json!(by.as_str()));
    }
    match &entry.event {
        Event::Created { title, members } => {
            put(&mut object, "title", json!(&**title));
            put(&mut object, "members", users(members));
        }
        Event::Added { members } | Event::Removed { members } => put(&mut object, "members", users(members)),
        Event::Left { succession } => match succession {
            Succession::Unchanged => {}
            Succession::Passed { owner } => put(&mut object, "owner", json!(owner.as_str())),
            Succession::Dissolved => put(&mut object, "dissolved", json!(true)),
        },
        Event::Renamed { title } => put(&mut object, "title", json!(&**title)),
        Event::Transferred { owner } => put(&mut object, "owner", json!(owner.as_str())),
        Event::Dissolved => {}
        Event::Message { body } => put_body(&mut object, body),
        Event::Whisper { to, body } => {
            put(&mut object, "to", users(to));
            put_body(&mut object, body);
        }
    }
    object
}

/// The name of an entry's kind.
pub(crate) fn kind(event: &Event) -> &'static str {
    match event {
        Event::Created { .. } => "created",
        Event::Added { .. } => "added",
        Event::Removed { .. } => "removed",
        Event::Left { .. } => "left",
        Event::Renamed { .. } => "renamed",
        Event::Transferred { .. } => "transferred",
        Event::Dissolved => "dissolved",
        Event::Message { .. } => "message",
        Event::Whisper { .. } => "whisper",
    }
}

fn users(users: &[UserId]) -> Value {
    Value::Array(users.iter().map(|user| json!(user.as_str())).collect())
}

fn put(object: &mut Value, name: &str, value: Value) {
    object.as_object_mut().map(|fields: &mut Map<String, Value>| fields.insert(name.to_owned(), value));
}

/// `body` if it is UTF-8, or else `body_base64`.
fn put_body(object: &mut Value, body: &[u8]) {
    match std::str::from_utf8(body) {
        Ok(text) => put(object, "body", json!(text)),
        Err(_) => put(object, "body_base64", json!(base64::engine::general_purpose::STANDARD.encode(body))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn entries_have_the_fields_that_scripts_rely_on() {
        let group = GroupId::generate(1, &[1; 10]);
        let message = |body: &[u8]| {
            LogEntry::Shown(Entry {
                seq: 2,
                version: 1,
                at_ms: 9,
                sender: UserId::new("alice").unwrap(),
                by: None,
                event: Event::Message { body: body.into() },
            })
        };
        let id = group.to_string();
        assert_eq!(
            entry(group, &message(b"hi")),
            json!({"kind": "message", "group": id, "seq": 2, "version": 1, "sender": "alice", "at": 9, "body": "hi"})
        );
        assert_eq!(entry(group, &message(&[0xff]))["body_base64"], "/w==");
        assert_eq!(
            entry(group, &LogEntry::Hidden { seq: 3, version: 1 }),
            json!({"kind": "hidden", "group": id, "seq": 3, "version": 1})
        );
    }
}
