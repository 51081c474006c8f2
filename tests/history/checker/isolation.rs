//! Who is shown what: nobody an entry of a group that it was not in at that seq, nobody a whisper to others (P7).

use super::super::format::{Answer, Entry, Event, Outcome, Push, What};
use super::book::Book;
use super::logs::Logs;
use super::replay::Replays;
use super::{Promise, Verdict};

pub(super) fn check(book: &Book<'_>, logs: &Logs<'_>, replays: &Replays<'_>, verdict: &mut Verdict) {
    for (place, line) in book.lines.iter().enumerate() {
        let (conn, entries): (u32, Vec<(&str, &Entry)>) = match &line.what {
            What::Push { conn, push: Push::Entry { group, entry } } => (*conn, vec![(group, entry)]),
            What::Return { conn, answer: Answer::Page { parts }, .. } => {
                let entries = parts.iter().flat_map(|part| match &part.outcome {
                    Outcome::Entries { entries, .. } => {
                        entries.iter().map(|entry| (part.group.as_str(), entry)).collect()
                    }
                    Outcome::Refused { .. } => Vec::new(),
                });
                (*conn, entries.collect())
            }
            What::Push { conn, push: Push::Packet(packet) } => {
                let user = book.users.get(conn).copied().unwrap_or_default();
                let state = replays.get(packet.group.as_str()).and_then(|replay| replay.state(packet.head));
                if !state.is_some_and(|state| state.has(user)) {
                    verdict.accuse(Promise::P7, place, format!("{user} is shown {}, and is not in it", packet.group));
                }
                continue;
            }
            _ => continue,
        };
        let user = book.users.get(&conn).copied().unwrap_or_default();
        for (group, entry) in entries {
            verdict.count("entries shown to somebody");
            let seq = entry.seq;
            if replays.get(group).is_none_or(|replay| replay.stay_at(user, seq).is_none()) {
                verdict.accuse(
                    Promise::P7,
                    place,
                    format!("{user} is shown seq {seq} of {group}, and was not in it then"),
                );
            }
            let known = logs.get(group).and_then(|log| log.entry(seq)).and_then(|known| known.shown);
            if let Some(shown) = known
                && entry.shown.is_some() != is_shown_to(user, &shown.sender, &shown.event)
            {
                let how = if entry.shown.is_some() { "shown" } else { "not shown" };
                verdict.accuse(Promise::P7, place, format!("seq {seq} of {group} is {how} to {user}: {shown:?}"));
            }
        }
    }
}

fn is_shown_to(user: &str, sender: &str, event: &Event) -> bool {
    match event {
        Event::Whisper { to, .. } => user == sender || to.iter().any(|member| member == user),
        _ => true,
    }
}
