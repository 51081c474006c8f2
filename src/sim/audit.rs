//! Listens to what the server says on one connection, as it leaves the hub, and holds it against the truth.

use std::collections::{BTreeMap, BTreeSet};

use super::manner::check_offline;
use super::truth::{Kept, Truth};
use crate::group::Record;
use crate::ids::{GroupId, Role, UserId};
use crate::wire::{Deframer, FrameCaps, GroupPacket, GroupShown, HistoryOutcome, Kind, LogEntry, Push, Reply};

/// One connection.
#[derive(Default)]
pub(super) struct Audit {
    deframer: Deframer,
    user: Option<UserId>,
    is_user: bool,
    /// Up to where the feed was told.
    feed: Option<u64>,
    /// The last seq of each group that was pushed.
    pushed: BTreeMap<GroupId, u64>,
    /// Groups of which nothing may be pushed before a page has reached the head.
    behind: BTreeSet<GroupId>,
    /// The error that closes, if it came.
    end: Option<&'static str>,
}

impl Audit {
    /// Whose it is, once the server has said so.
    pub(super) fn user(&self) -> Option<&UserId> {
        self.user.as_ref()
    }

    /// Whether the server has said why it closes.
    pub(super) fn has_ended(&self) -> bool {
        self.end.is_some()
    }

    /// Whether it closes because it stops.
    pub(super) fn has_gone_away(&self) -> bool {
        self.end == Some("GOING_AWAY")
    }

    /// Bytes leave the hub.
    pub(super) fn listen(&mut self, bytes: &[u8], truth: &mut Truth) {
        let mut deframer = std::mem::take(&mut self.deframer);
        deframer.feed(bytes);
        while let Some(frame) = deframer.next_frame(FrameCaps::Server).expect("a server says what can be read") {
            assert!(self.end.is_none(), "nothing comes behind the error that closes");
            let kind = Kind::from_number(frame.header.kind).expect("a kind that is known");
            if let Some(push) = Push::decode(kind, frame.body) {
                self.hear_push(push.expect("a push can be read"), truth);
            } else {
                let reply = Reply::decode(kind, frame.body).expect("a server replies").expect("a reply can be read");
                self.hear_reply(frame.header.request_id, reply, truth);
            }
        }
        self.deframer = deframer;
    }

    fn hear_push(&mut self, push: Push, truth: &mut Truth) {
        if matches!(push, Push::GoingAway { .. }) {
            // Said to everybody, also to who has not said yet who it is.
            return;
        }
        let user = self.user.clone().expect("nobody is told anything before it is authenticated");
        match push {
            Push::Entry { group, entry } => {
                let kept = check_entry(truth, &user, group, &entry);
                kept.told = kept.told.max(entry.seq());
                let before = self.pushed.insert(group, entry.seq());
                assert!(before.is_none_or(|before| before + 1 == entry.seq()), "pushes have no gap");
                assert!(!self.behind.contains(&group), "nothing is pushed to who is behind");
            }
            Push::GroupPacket(packet) => {
                check_packet(truth, &user, &packet);
                self.pushed.remove(&packet.group);
                if packet.from > packet.head {
                    self.behind.remove(&packet.group);
                } else {
                    self.behind.insert(packet.group);
                }
            }
            Push::Behind { group, head, .. } => {
                let kept = truth.group(group);
                assert!(head <= kept.head() && kept.was_member(&user, head), "what is behind is there");
                self.pushed.remove(&group);
                self.behind.insert(group);
                truth.rare.push("told that it is behind");
            }
            Push::Gone { group, until } => {
                let kept = truth.group(group);
                assert!(until == 0 || kept.was_member(&user, until), "an end of a membership");
                self.behind.remove(&group);
                self.pushed.remove(&group);
            }
            Push::Signal { group, sender, .. } => {
                let kept = truth.group(group);
                assert!(
                    kept.stays.contains_key(&user) && kept.stays.contains_key(&sender),
                    "signals stay in the group"
                );
            }
            Push::TakenOver if self.behind.is_empty() => truth.rare.push("taken over"),
            Push::TakenOver => truth.rare.push("taken over during catch-up"),
            Push::FeedItem { position, group, seq, sender, offline } => {
                let told = self.feed.replace(position).expect("a feed that has begun");
                assert_eq!(
                    truth.effect_behind(told),
                    Some((position, group, seq)),
                    "a feed has no gap, and what is durable"
                );
                assert_eq!(truth.group(group).entry(seq).map(|entry| &entry.sender), Some(&sender), "whose act it is");
                check_offline(group, seq, &offline, truth);
                truth.rare.push("told by a feed");
            }
            Push::Ready | Push::AuthenticateSoon { .. } | Push::GoingAway { .. } => {}
        }
    }

    fn hear_reply(&mut self, request: u32, reply: Reply, truth: &mut Truth) {
        if let Reply::Welcome(welcome) = &reply {
            self.user = Some(welcome.user.clone());
            self.is_user = welcome.role == Role::User;
        }
        let user = self.user.as_ref();
        let known = || user.cloned().expect("nothing is answered before the hello");
        match reply {
            Reply::Created(created) => {
                let kept = check_place(truth, created.group, created.seq, created.version);
                let members = kept.records[&1].members.len();
                assert_eq!(members, usize::try_from(created.members).unwrap_or(0), "all members are counted");
            }
            Reply::Changed(_, changed) => _ = check_place(truth, changed.group, changed.seq, changed.version),
            Reply::GroupShown(GroupShown::Record { head, record, .. }) => {
                let kept = truth.group(record.group);
                // The wire does not say that a group is dissolved: only operators are shown one that is.
                let was = kept.records.get(&record.version).map(|was| Record { dissolved: false, ..was.clone() });
                assert_eq!(was.as_ref(), Some(&record), "the record as it was at its version");
                assert!(head <= kept.head(), "a head that is durable");
                assert!(!self.is_user || record.has(&known()), "a record is shown to members");
            }
            Reply::HistoryPage { groups } => {
                let mut reached = Vec::new();
                for part in groups {
                    let HistoryOutcome::Entries { head, entries, .. } = part.outcome else { continue };
                    assert!(head <= truth.group(part.group).head(), "a head that is durable");
                    let mut last = None;
                    for entry in &entries {
                        assert!(last.is_none_or(|last| entry.seq() == last + 1), "a page has no gap");
                        last = Some(entry.seq());
                        check_entry(truth, &known(), part.group, entry);
                    }
                    if last.is_none_or(|last| last == head) {
                        reached.push((part.group, head));
                    }
                }
                for (group, head) in reached {
                    self.behind.remove(&group);
                    if let Some(pushed) = self.pushed.get_mut(&group) {
                        *pushed = (*pushed).max(head);
                    }
                }
            }
            Reply::GroupsListed { groups, .. } => {
                for line in groups {
                    let kept = truth.group(line.group);
                    assert!(!self.is_user || kept.stays.contains_key(&known()), "a list has one's own groups");
                    assert!(line.head <= kept.head(), "a head in a list is durable");
                    assert!(line.received <= line.head, "a mark in a list is below the head");
                }
            }
            Reply::FeedBegun { position } => self.feed = Some(position),
            Reply::Error(error) => {
                if request == 0 && error_closes(error.code) {
                    self.end = Some(error.name());
                }
                match error.name() {
                    "SLOW" if !self.behind.is_empty() => truth.rare.push("cut for slowness during catch-up"),
                    "SLOW" => truth.rare.push("cut for slowness"),
                    "TIMEOUT" => truth.rare.push("timed out"),
                    "KICKED" => truth.rare.push("kicked"),
                    _ => {}
                }
            }
            _ => {}
        }
    }
}

fn error_closes(code: u16) -> bool {
    crate::wire::ErrorCode::from_number(code).is_some_and(crate::wire::ErrorCode::closes)
}

fn check_entry<'t>(truth: &'t mut Truth, user: &UserId, group: GroupId, entry: &LogEntry) -> &'t mut Kept {
    let kept = truth.groups.get_mut(&group).unwrap_or_else(|| panic!("{group} is not in the durable journal"));
    let seq = entry.seq();
    let Some(is_so) = kept.entry(seq) else {
        panic!("entry {seq} of {group} is told to {user}, and is not in the durable journal");
    };
    assert_eq!(*entry, LogEntry::shown_to(user, is_so), "an entry as {user} may see it");
    assert!(kept.was_member(user, seq), "{user} is told entry {seq} of {group}, and was not in it then");
    kept
}

fn check_packet(truth: &mut Truth, user: &UserId, packet: &GroupPacket) {
    let kept = truth.group(packet.group);
    let record = kept.records.get(&packet.version).expect("a packet has a version that is durable");
    assert!(packet.members.iter().eq(record.members.iter().map(|member| &member.user)), "the members of a packet");
    assert_eq!((&*packet.title, &packet.owner), (&*record.title, &record.owner));
    assert!(record.has(user), "{user} is shown {}, and was not in it then", packet.group);
    assert!(packet.head <= kept.head() && packet.from <= packet.head + 1, "a packet's head is durable");
}

/// An acknowledgement: it is in the durable journal by now.
fn check_place(truth: &mut Truth, group: GroupId, seq: u64, version: u64) -> &Kept {
    let kept = truth.groups.get_mut(&group).unwrap_or_else(|| panic!("{group} is acknowledged, and is not durable"));
    let Some(entry) = kept.entry(seq) else {
        panic!("entry {seq} of {group} is acknowledged, and is not in the durable journal");
    };
    assert_eq!(entry.version, version, "the version of an answer");
    kept.told = kept.told.max(seq);
    kept
}
