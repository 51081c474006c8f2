//! What each connection is told, in its order: every entry from what it presented on, ascending, without a gap, and in
//! the end all there is (P5).
//!
//! On a connection a group is `Untold`, `Live` or `Behind` with the next seq that it has to get, or `Closed` when its
//! user's stay is over. Pages of history that the connection reads count as told, if they begin where it stands.

use std::collections::{BTreeMap, HashMap};

use super::super::format::{Answer, Call, Event, Outcome, Packet, Part, Push, What};
use super::book::Book;
use super::replay::Replays;
use super::rules::State;
use super::{Promise, Verdict};

/// A group on a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Standing {
    /// Its entries are pushed: this one is next.
    Live { next: u64 },
    /// It has to be read up to the head first.
    Behind { next: u64 },
    /// Its user is not in it any more.
    Closed,
}

/// A connection that is on line.
#[derive(Debug)]
struct Line<'l> {
    user: &'l str,
    /// Attached by marks: what is not told is up to the mark.
    by_marks: bool,
    /// Whether the server has said that it told all.
    ready: bool,
    groups: BTreeMap<&'l str, Standing>,
    /// Where the last packet of a group came: pages that were asked for before it are of another stay.
    packets: HashMap<&'l str, usize>,
}

struct Deliveries<'a, 'l> {
    book: &'a Book<'l>,
    replays: &'a Replays<'l>,
    lines: HashMap<u32, Line<'l>>,
}

pub(super) fn check<'l>(book: &Book<'l>, replays: &Replays<'l>, verdict: &mut Verdict) {
    let mut deliveries = Deliveries { book, replays, lines: HashMap::new() };
    for (place, line) in book.lines.iter().enumerate() {
        if let Err(why) = deliveries.take(place, &line.what, verdict) {
            verdict.accuse(Promise::P5, place, why);
        }
    }
    if let Some(finish) = book.finish {
        deliveries.check_complete(finish, verdict);
    }
}

impl<'l> Deliveries<'_, 'l> {
    fn take(&mut self, place: usize, what: &'l What, verdict: &mut Verdict) -> Result<(), String> {
        match what {
            What::Invoke { conn, call: Call::Attach { has }, .. } => {
                let user = self.book.users.get(conn).copied().unwrap_or_default();
                let has = has.iter().flatten().map(|(group, seq)| (group.as_str(), Standing::Live { next: seq + 1 }));
                let (by_marks, packets) = (is_by_marks(what), HashMap::new());
                let line = Line { user, by_marks, ready: false, groups: has.collect(), packets };
                self.lines.insert(*conn, line);
                Ok(())
            }
            What::Return { conn, req, answer: Answer::Page { parts } } => {
                let Some((asked, line)) = self.book.call_of(*conn, *req).zip(self.lines.get_mut(conn)) else {
                    return Ok(());
                };
                let Call::History { groups } = asked.call else { return Ok(()) };
                for ((_, from), part) in groups.iter().zip(parts) {
                    if line.packets.get(part.group.as_str()).is_none_or(|packet| *packet < asked.invoked) {
                        line.take_page(*from, part);
                    }
                }
                Ok(())
            }
            What::Push { conn, push } => {
                let Some(mut line) = self.lines.remove(conn) else {
                    return Err("a push to a connection that is not on line".to_owned());
                };
                let outcome = self.take_push(place, &mut line, push, verdict);
                self.lines.insert(*conn, line);
                outcome
            }
            What::End { conn, .. } => {
                self.lines.remove(conn);
                Ok(())
            }
            _ => Ok(()),
        }
    }

    fn take_push(
        &self,
        place: usize,
        line: &mut Line<'l>,
        push: &'l Push,
        verdict: &mut Verdict,
    ) -> Result<(), String> {
        match push {
            Push::Entry { group, entry } => {
                verdict.count("entries pushed");
                let seq = entry.seq;
                match line.groups.get(group.as_str()) {
                    Some(Standing::Live { next }) if *next == seq => {}
                    Some(standing) => return Err(format!("{}: seq {seq} of {group} to {standing:?}", line.user)),
                    // Live without a word: its mark stood at the head.
                    None if line.by_marks => {
                        let acknowledged = self.book.acknowledged_before(line.user, group, place);
                        if seq > acknowledged + 1 {
                            let user = line.user;
                            return Err(format!(
                                "{user}: seq {seq} of {group}, and its mark is {acknowledged} at most"
                            ));
                        }
                    }
                    None => return Err(format!("{}: seq {seq} of {group}, which it was not told of", line.user)),
                }
                let ends = entry.shown.as_ref().is_some_and(|shown| ends(line.user, &shown.sender, &shown.event));
                let standing = if ends { Standing::Closed } else { Standing::Live { next: seq + 1 } };
                line.groups.insert(group, standing);
                Ok(())
            }
            Push::Packet(packet) => {
                line.packets.insert(&packet.group, place);
                self.take_packet(line, packet, verdict)
            }
            Push::Behind { group, from, head } => {
                verdict.count("told to be behind");
                let next = match line.groups.get(group.as_str()) {
                    Some(Standing::Live { next } | Standing::Behind { next }) => Some(*next),
                    Some(Standing::Closed) => return Err(format!("{}: behind in {group}, which is over", line.user)),
                    None if line.by_marks => Some(self.book.acknowledged_before(line.user, group, place) + 1),
                    None => None,
                };
                let next = next.ok_or_else(|| format!("{}: behind in {group}, which it does not have", line.user))?;
                if *from > next && !self.book.may_be_deleted(from - 1, *head) {
                    return Err(format!(
                        "{}: behind in {group} from {from}, and it has what is below {next}",
                        line.user
                    ));
                }
                let next = if line.groups.contains_key(group.as_str()) { next.max(*from) } else { *from };
                line.groups.insert(group, Standing::Behind { next });
                Ok(())
            }
            Push::Gone { group, until } => {
                verdict.count("told that it is over");
                let replay = self.replays.get(group.as_str());
                let is_end =
                    replay.is_some_and(|replay| replay.stays(line.user).iter().any(|stay| stay.until == Some(*until)));
                if *until != 0 && !is_end {
                    return Err(format!("{} is told that {group} is over at {until}, where nothing ended", line.user));
                }
                line.groups.insert(group, Standing::Closed);
                Ok(())
            }
            Push::Ready => {
                line.ready = true;
                Ok(())
            }
            Push::TakenOver | Push::GoingAway => Ok(()),
        }
    }

    /// A group packet is the whole group as it is at its head; it begins behind the joining, or where the log begins.
    fn take_packet(&self, line: &mut Line<'l>, packet: &'l Packet, verdict: &mut Verdict) -> Result<(), String> {
        verdict.count("group packets");
        let group = packet.group.as_str();
        let replay = self.replays.get(group).ok_or_else(|| format!("{group} is in no log"))?;
        let state = replay.state(packet.head).ok_or_else(|| format!("{group} has no {}", packet.head))?;
        if !tells(packet, state) {
            return Err(format!("the packet {packet:?}, and the group is {state:?}"));
        }
        let joined = state.joined(line.user).unwrap_or(0);
        let has = match line.groups.get(group) {
            Some(Standing::Live { next } | Standing::Behind { next }) => *next,
            Some(Standing::Closed) | None => 0,
        };
        let from = packet.from;
        if from > has.max(joined + 1) && !self.book.may_be_deleted(from - 1, packet.head) || from > packet.head + 1 {
            let user = line.user;
            return Err(format!("{user}: {group} from {from} on, it joined at {joined} and has what is below {has}"));
        }
        let is_live = from > packet.head;
        line.groups
            .insert(group, if is_live { Standing::Live { next: from } } else { Standing::Behind { next: from } });
        Ok(())
    }

    /// Everybody who is on line in the end has all that there is.
    fn check_complete(&self, finish: usize, verdict: &mut Verdict) {
        for line in self.lines.values() {
            verdict.count("devices on line in the end");
            if !line.ready {
                verdict.accuse(
                    Promise::P5,
                    finish,
                    format!("a device of {} was never told that it has all", line.user),
                );
            }
            for (group, replay) in self.replays {
                let is_member = replay.state(replay.head).is_some_and(|state| state.has(line.user));
                let next = match line.groups.get(group) {
                    Some(Standing::Live { next } | Standing::Behind { next }) => *next,
                    None if line.by_marks => self.book.acknowledged_before(line.user, group, finish) + 1,
                    Some(Standing::Closed) | None => 0,
                };
                if is_member && next != replay.head + 1 {
                    let text =
                        format!("a device of {} has {group} below {next}, the head is {}", line.user, replay.head);
                    verdict.accuse(Promise::P5, finish, text);
                }
                let follows = matches!(line.groups.get(group), Some(Standing::Live { .. } | Standing::Behind { .. }));
                if !is_member && follows {
                    let text = format!("a device of {} was never told that {group} is over for it", line.user);
                    verdict.accuse(Promise::P5, finish, text);
                }
            }
        }
    }
}

impl<'l> Line<'l> {
    /// A page that begins where the connection stands, or below, brings it on; one that reaches the head makes it live.
    fn take_page(&mut self, from: u64, part: &'l Part) {
        let Some(before) = self.groups.get(part.group.as_str()).copied() else { return };
        let (Standing::Live { next } | Standing::Behind { next }) = before else { return };
        match &part.outcome {
            Outcome::Entries { head, entries, .. } => {
                if from > next {
                    return;
                }
                let next = entries.last().map_or(next, |entry| next.max(entry.seq + 1));
                let ended = entries.iter().any(|entry| {
                    let shown = entry.shown.as_ref();
                    shown.is_some_and(|shown| ends(self.user, &shown.sender, &shown.event)) && entry.seq == *head
                });
                let standing = match before {
                    _ if ended => Standing::Closed,
                    Standing::Behind { .. } if next <= *head => Standing::Behind { next },
                    _ => Standing::Live { next },
                };
                self.groups.insert(&part.group, standing);
            }
            // Told, not silent: what is below is deleted, or of an earlier stay.
            Outcome::Refused { code, detail } if code == "TRUNCATED" && *detail > next => {
                let next = *detail;
                let is_live = matches!(before, Standing::Live { .. });
                self.groups
                    .insert(&part.group, if is_live { Standing::Live { next } } else { Standing::Behind { next } });
            }
            Outcome::Refused { code, .. } if code == "NOT_FOUND" => {
                self.groups.insert(&part.group, Standing::Closed);
            }
            Outcome::Refused { .. } => {}
        }
    }
}

fn is_by_marks(what: &What) -> bool {
    matches!(what, What::Invoke { call: Call::Attach { has: None }, .. })
}

fn tells(packet: &Packet, state: &State) -> bool {
    packet.version == state.version
        && packet.title == state.title
        && packet.owner == state.owner
        && packet.creator == state.creator
        && packet.members.iter().eq(state.members.iter().map(|(member, _)| member))
}

/// Whether an entry ends a user's stay.
fn ends(user: &str, sender: &str, event: &Event) -> bool {
    match event {
        Event::Dissolved => true,
        Event::Left { .. } => sender == user,
        Event::Removed(users) => users.iter().any(|removed| removed == user),
        _ => false,
    }
}
