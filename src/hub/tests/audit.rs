//! What one connection may see, whatever the test is about: the promises of `docs/protocol.md` on order.
//!
//! * A group packet comes before any entry of its group, and again only for another stay of the user in it: then it goes
//!   on behind everything that came before.
//! * Entries are pushed only while the group is live, each one the next of its group, without gap and without repeat.
//! * Live begins with a group packet or a page of history that reaches the head, or at attaching up to date; `Behind`
//!   ends it.
//! * After the end of one's membership, and after `Gone`, nothing of the group comes but the packet of another stay.
//! * A whisper is shown to its sender and addressees, and hidden from the others.
//! * Nothing comes before `Attached` but answers; an answer bears the number of a request without one.

use std::collections::{BTreeMap, BTreeSet};

use crate::group::Event;
use crate::ids::{GroupId, UserId};
use crate::wire::{Attach, GroupSeq, HistoryOutcome, LogEntry, Push, Reply, Request};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Place {
    /// The next push is this seq.
    Live(u64),
    /// Nothing is pushed before a page of history reaches the head.
    Behind,
    /// Nothing of it is ever pushed again.
    Over,
}

#[derive(Debug, Default)]
pub(super) struct Audit {
    user: Option<UserId>,
    /// Requests without an answer.
    asked: BTreeMap<u32, Request>,
    attached: bool,
    /// The peer does not keep to the protocol: nothing is promised to it but that frames are good.
    off: bool,
    /// The position of the last item of the feed.
    position: u64,
    /// The packets that came, each with the seq to read on from.
    packets: BTreeMap<GroupId, u64>,
    /// What the device said that it has; `None` if it went by marks.
    has: Option<BTreeMap<GroupId, u64>>,
    places: BTreeMap<GroupId, Place>,
    /// Every entry that came, pushed or in a page.
    pub(super) seen: BTreeSet<(GroupId, u64)>,
}

impl Audit {
    pub(super) fn sent(&mut self, request_id: u32, request: Request) {
        if let Request::Attach(Attach::Device { groups, .. }) = &request {
            let has = self.has.get_or_insert_default();
            has.extend(groups.iter().map(|at| (at.group, at.seq)));
        }
        if !matches!(request, Request::Acknowledge { .. }) {
            self.asked.insert(request_id, request);
        }
    }

    /// From now on the peer may do anything, and nothing is held against the hub for it.
    pub(super) fn trusts_nothing(&mut self) {
        self.off = true;
    }

    /// How the group stands on the connection, for messages.
    pub(super) fn place(&self, group: GroupId) -> String {
        format!("{:?}", self.places.get(&group))
    }

    pub(super) fn replied(&mut self, request_id: u32, reply: &Reply) {
        let request = self.asked.remove(&request_id);
        if self.off {
            return;
        }
        match (reply, request) {
            (Reply::Error(_), _) => {}
            (Reply::Welcome(welcome), Some(Request::Hello(_))) => self.user = Some(welcome.user.clone()),
            (Reply::Attached, Some(Request::Attach(_))) => self.attached = true,
            (Reply::HistoryPage { groups }, Some(Request::History(request))) => {
                assert_eq!(groups.len(), request.groups.len(), "each group has its part");
                for (part, asked) in groups.iter().zip(&request.groups) {
                    assert_eq!(part.group, asked.group, "the parts stand in the order of the request");
                    if let HistoryOutcome::Entries { head, entries, .. } = &part.outcome {
                        self.page(*asked, *head, entries);
                    }
                }
            }
            (_, None) => panic!("an answer to nothing: {request_id} {reply:?}"),
            (_, Some(_)) => {}
        }
    }

    fn page(&mut self, asked: GroupSeq, head: u64, entries: &[LogEntry]) {
        let mut next = asked.seq;
        for entry in entries {
            assert_eq!(entry.seq(), next, "a page has no gap");
            if self.attached {
                self.check_shown(entry);
            }
            self.seen.insert((asked.group, entry.seq()));
            next += 1;
        }
        assert!(next <= head + 1, "no page goes beyond the head");
        if next <= head || !self.attached {
            return;
        }
        match self.places.get_mut(&asked.group) {
            Some(place @ Place::Behind) => *place = Place::Live(next),
            // A page may bring what was about to be missing: the connection had fallen behind and was not told yet.
            Some(Place::Live(at)) if asked.seq <= *at => *at = next.max(*at),
            Some(Place::Live(_) | Place::Over) | None => {}
        }
    }

    pub(super) fn pushed(&mut self, push: &Push) {
        if self.off {
            return;
        }
        let before_attach =
            matches!(push, Push::GoingAway { .. } | Push::AuthenticateSoon { .. } | Push::FeedItem { .. });
        assert!(self.attached || before_attach, "a push before the connection is on line: {push:?}");
        match push {
            Push::GroupPacket(packet) => {
                let before = self.packets.insert(packet.group, packet.from);
                assert!(before.is_none_or(|from| packet.from > from), "a stay is told once: {packet:?}");
                if let Some(Place::Live(next)) = self.places.get(&packet.group) {
                    assert!(packet.from > *next, "a packet in the middle of a stay: {packet:?}");
                }
                let place = if packet.from > packet.head { Place::Live(packet.from) } else { Place::Behind };
                self.places.insert(packet.group, place);
            }
            Push::Behind { group, from, head } => {
                assert!(from <= head, "behind in nothing");
                let before = self.places.insert(*group, Place::Behind);
                assert!(!matches!(before, Some(Place::Behind | Place::Over)), "told twice that it is behind: {group}");
            }
            Push::Gone { group, .. } => _ = self.places.insert(*group, Place::Over),
            Push::Entry { group, entry } => self.entry(*group, entry),
            Push::Signal { group, sender, .. } => {
                assert!(Some(sender) != self.user.as_ref(), "a signal is not sent back to its sender");
                let place = self.places.get(group);
                assert!(!matches!(place, Some(Place::Behind | Place::Over)), "a signal to who is behind: {push:?}");
            }
            Push::Ready | Push::TakenOver | Push::GoingAway { .. } | Push::AuthenticateSoon { .. } => {}
            Push::FeedItem { position, .. } => {
                assert!(*position > self.position, "the feed ascends: {push:?}");
                self.position = *position;
            }
        }
    }

    fn entry(&mut self, group: GroupId, entry: &LogEntry) {
        let seq = entry.seq();
        self.check_shown(entry);
        match self.places.get(&group) {
            Some(Place::Live(next)) => assert_eq!(seq, *next, "pushes have no gap and no repeat in {group}"),
            Some(Place::Behind) => panic!("entry {seq} pushed before a page reached the head of {group}"),
            Some(Place::Over) => panic!("entry {seq} of {group} pushed after its end"),
            None => {
                if let Some(has) = &self.has {
                    assert_eq!(Some(&(seq - 1)), has.get(&group), "a group that the device has goes on where it was");
                }
            }
        }
        self.seen.insert((group, seq));
        let ends = self.ends(entry);
        self.places.insert(group, if ends { Place::Over } else { Place::Live(seq + 1) });
    }

    fn ends(&self, entry: &LogEntry) -> bool {
        let (LogEntry::Shown(entry), Some(me)) = (entry, &self.user) else { return false };
        match &entry.event {
            Event::Left { .. } => entry.sender == *me,
            Event::Removed { members } => members.contains(me),
            Event::Dissolved => true,
            _ => false,
        }
    }

    fn check_shown(&self, entry: &LogEntry) {
        if let LogEntry::Shown(entry) = entry
            && let Some(me) = &self.user
        {
            assert!(entry.is_shown_to(me), "{me} sees {entry:?}");
        }
    }
}
