//! The lines of `export`, read back.

use std::collections::BTreeSet;
use std::str::FromStr;

use base64::Engine;
use roundtable::group::{Entry, Event, Member, Record, Succession};
use roundtable::ids::{GroupId, UserId};
use roundtable::store::{GroupState, Membership};
use serde_json::{Map, Value};

/// One line.
#[derive(Debug, PartialEq)]
pub(super) enum Line {
    Group(GroupState),
    Entry(GroupId, Entry),
    Membership(UserId, Membership),
}

/// Reads a line; says what was expected where it is none.
pub(super) fn line(text: &str) -> Result<Line, String> {
    let value: Value = serde_json::from_str(text).map_err(|error| format!("no JSON object: {error}"))?;
    let Value::Object(fields) = value else { return Err("no JSON object".to_owned()) };
    let fields = Fields(&fields);
    match fields.text("kind")? {
        "group" => group(&fields).map(Line::Group),
        "membership" => membership(&fields).map(|(user, membership)| Line::Membership(user, membership)),
        kind => Ok(Line::Entry(fields.parsed("group")?, entry(&fields, kind)?)),
    }
}

/// The fields of a line.
struct Fields<'l>(&'l Map<String, Value>);

impl<'l> Fields<'l> {
    fn text(&self, name: &str) -> Result<&'l str, String> {
        self.0.get(name).and_then(Value::as_str).ok_or_else(|| format!("`{name}` has to be a text"))
    }

    fn number(&self, name: &str) -> Result<u64, String> {
        self.0.get(name).and_then(Value::as_u64).ok_or_else(|| format!("`{name}` has to be a number from 0 on"))
    }

    fn list(&self, name: &str) -> Result<&'l [Value], String> {
        let list = self.0.get(name).and_then(Value::as_array);
        list.map(Vec::as_slice).ok_or_else(|| format!("`{name}` has to be a list"))
    }

    fn parsed<T: FromStr>(&self, name: &str) -> Result<T, String>
    where
        T::Err: std::fmt::Display,
    {
        self.text(name)?.parse().map_err(|error| format!("`{name}`: {error}"))
    }

    fn user(&self, name: &str) -> Result<UserId, String> {
        UserId::new(self.text(name)?).map_err(|error| format!("`{name}`: {error}"))
    }

    fn has(&self, name: &str) -> bool {
        self.0.get(name).is_some_and(|value| !value.is_null())
    }

    fn users(&self, name: &str) -> Result<Vec<UserId>, String> {
        let user = |value: &Value| {
            let text = value.as_str().ok_or_else(|| format!("`{name}` has to be a list of texts"))?;
            UserId::new(text).map_err(|error| format!("`{name}`: {error}"))
        };
        self.list(name)?.iter().map(user).collect()
    }

    fn body(&self) -> Result<Vec<u8>, String> {
        if self.has("body_base64") {
            let text = self.text("body_base64")?;
            let decoded = base64::engine::general_purpose::STANDARD.decode(text);
            return decoded.map_err(|error| format!("`body_base64`: {error}"));
        }
        self.text("body").map(|text| text.as_bytes().to_vec())
    }
}

fn group(fields: &Fields<'_>) -> Result<GroupState, String> {
    let member = |value: &Value| {
        let fields = value.as_object().ok_or("`members` has to be a list of objects")?;
        let fields = Fields(fields);
        Ok(Member { user: fields.user("user")?, joined: fields.number("joined")? })
    };
    let members = fields.list("members")?.iter().map(member).collect::<Result<Vec<_>, String>>()?;
    let users: BTreeSet<&str> = members.iter().map(|member| member.user.as_str()).collect();
    if users.len() != members.len() {
        return Err("`members` lists a user twice".to_owned());
    }
    let record = Record {
        group: fields.parsed("group")?,
        title: fields.text("title")?.into(),
        owner: fields.user("owner")?,
        creator: fields.user("creator")?,
        created_at_ms: fields.number("created_at")?,
        version: fields.number("version")?,
        dissolved: fields.0.get("dissolved").and_then(Value::as_bool).unwrap_or(false),
        members,
    };
    let (head, floor) = (fields.number("head")?, fields.number("floor")?);
    Ok(GroupState { record, head, floor, last_at_ms: fields.number("last_at")? })
}

fn membership(fields: &Fields<'_>) -> Result<(UserId, Membership), String> {
    let until = if fields.has("until") { Some(fields.number("until")?) } else { None };
    let membership = Membership {
        group: fields.parsed("group")?,
        joined: fields.number("joined")?,
        until,
        received: fields.number("received")?,
        read: fields.number("read")?,
        head: fields.number("head")?,
    };
    Ok((fields.user("user")?, membership))
}

fn entry(fields: &Fields<'_>, kind: &str) -> Result<Entry, String> {
    let event = match kind {
        "created" => Event::Created { title: fields.text("title")?.into(), members: fields.users("members")? },
        "added" => Event::Added { members: fields.users("members")? },
        "removed" => Event::Removed { members: fields.users("members")? },
        "left" => Event::Left { succession: succession(fields)? },
        "renamed" => Event::Renamed { title: fields.text("title")?.into() },
        "transferred" => Event::Transferred { owner: fields.user("owner")? },
        "dissolved" => Event::Dissolved,
        "message" => Event::Message { body: fields.body()?.into() },
        "whisper" => Event::Whisper { to: fields.users("to")?, body: fields.body()?.into() },
        "hidden" => return Err("a `hidden` entry has no content: export from the data directory".to_owned()),
        other => {
            return Err(format!("`kind` is `{other}`: it has to be `group`, `membership`, or that of an entry"));
        }
    };
    let by = if fields.has("by") { Some(fields.user("by")?) } else { None };
    Ok(Entry {
        seq: fields.number("seq")?,
        version: fields.number("version")?,
        at_ms: fields.number("at")?,
        sender: fields.user("sender")?,
        by,
        event,
    })
}

fn succession(fields: &Fields<'_>) -> Result<Succession, String> {
    if fields.has("dissolved") {
        return Ok(Succession::Dissolved);
    }
    if fields.has("owner") {
        return Ok(Succession::Passed { owner: fields.user("owner")? });
    }
    Ok(Succession::Unchanged)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::json as shapes;
    use roundtable::wire::LogEntry;

    #[test]
    fn every_kind_of_entry_reads_back_as_it_was() {
        let group = GroupId::generate(1, &[1; 10]);
        let user = |name: &str| UserId::new(name).unwrap();
        let events = [
            Event::Created { title: "t\u{202e}".into(), members: vec![user("алиса"), user("b")] },
            Event::Added { members: vec![user("c")] },
            Event::Removed { members: vec![user("c")] },
            Event::Left { succession: Succession::Unchanged },
            Event::Left { succession: Succession::Passed { owner: user("b") } },
            Event::Left { succession: Succession::Dissolved },
            Event::Renamed { title: "".into() },
            Event::Transferred { owner: user("b") },
            Event::Dissolved,
            Event::Message { body: b"hi".as_slice().into() },
            Event::Message { body: [0xff, 0].as_slice().into() },
            Event::Whisper { to: vec![user("b")], body: b"".as_slice().into() },
        ];
        for (seq, event) in (1..).zip(events) {
            for by in [None, Some(user("gateway"))] {
                let entry = Entry { seq, version: 1, at_ms: 9, sender: user("алиса"), by, event: event.clone() };
                let text = shapes::entry(group, &LogEntry::Shown(entry.clone())).to_string();
                assert_eq!(line(&text), Ok(Line::Entry(group, entry)), "{text}");
            }
        }
    }

    #[test]
    fn a_line_that_is_none_says_what_was_expected() {
        for (text, words) in [
            ("", "no JSON object"),
            ("[]", "no JSON object"),
            ("{}", "`kind` has to be a text"),
            (r#"{"kind":"group"}"#, "`members` has to be a list"),
            (r#"{"kind":"mesage","group":"0190a2e4-0000-7000-8000-000000000001"}"#, "it has to be `group`"),
            (r#"{"kind":"message","group":"x"}"#, "`group`"),
            (r#"{"kind":"membership","group":"0190a2e4-0000-7000-8000-000000000001","joined":-1}"#, "from 0 on"),
        ] {
            let error = line(text).unwrap_err();
            assert!(error.contains(words), "{text}: {error}");
        }
    }
}
