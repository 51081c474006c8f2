//! What can be saved of a damaged journal: which whole packets stay, and which groups have to be cut.
//!
//! A group's log has no gap. So a group of which an entry is missing ends before that entry, and what is whole behind
//! it cannot stay; groups of which nothing is missing keep everything, wherever the damage is.

use std::collections::{BTreeMap, BTreeSet};

use super::survey::Seen;
use crate::ids::GroupId;
use crate::store::journal::Content;
use crate::store::{Effect, Mark};

/// Entries of a group that a repair cannot save.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct GroupLoss {
    /// The group.
    pub group: GroupId,
    /// The last entry that stays; 0 where the whole group is lost.
    pub kept_through: u64,
    /// The last entry that is known to have been there. Later ones may be lost without a trace.
    pub lost_through: u64,
    /// Of those lost, entries that are whole but stand behind the gap.
    pub whole_behind: u64,
}

/// What to do with a whole packet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// It stays as it is.
    Keep,
    /// These marks stay of it.
    Marks(Vec<Mark>),
    /// It cannot stay.
    Drop,
}

/// One group on the way through the journal.
#[derive(Clone, Copy, Debug, Default)]
struct Track {
    /// The last entry without a gap before it.
    head: u64,
    /// The last entry of which anything is known.
    known: u64,
    whole_behind: u64,
}

/// What is decided about each packet, and why.
#[derive(Debug, Default)]
pub(super) struct Decisions {
    groups: BTreeMap<GroupId, Track>,
    /// LSNs of whole packets that cannot stay.
    dropped: BTreeSet<u64>,
    has_carried: bool,
    keeps_all: bool,
}

impl Decisions {
    /// Decides that every whole packet stays.
    pub(super) fn keeping_all() -> Self {
        Self { keeps_all: true, ..Self::default() }
    }

    /// Whether cleaning has written anything.
    pub(super) fn has_carried(&self) -> bool {
        self.has_carried
    }

    /// Takes note of a whole packet, in the order of LSNs.
    pub(super) fn see(&mut self, seen: &Seen<'_>) {
        match &seen.content {
            Some(Content::Effect(effect)) => self.see_effect(seen.packet.lsn, effect),
            Some(Content::Marks(marks)) => marks.iter().for_each(|mark| self.know(mark.group, mark.received)),
            Some(Content::Watermark(_)) => {}
            Some(Content::Carried(_)) => self.has_carried = true,
            None => {
                self.dropped.insert(seen.packet.lsn);
            }
        }
    }

    fn see_effect(&mut self, lsn: u64, effect: &Effect) {
        let track = self.groups.entry(effect.group).or_default();
        track.known = track.known.max(effect.entry.seq);
        if effect.entry.seq == track.head + 1 {
            track.head += 1;
            return;
        }
        track.whole_behind += u64::from(effect.entry.seq > track.head);
        self.dropped.insert(lsn);
    }

    /// Somebody says that a group had an entry: a mark, or the index.
    pub(super) fn know(&mut self, group: GroupId, seq: u64) {
        let track = self.groups.entry(group).or_default();
        track.known = track.known.max(seq);
    }

    /// What becomes of a whole packet.
    pub(super) fn verdict(&self, lsn: u64, content: Option<&Content>) -> Verdict {
        if self.keeps_all {
            return Verdict::Keep;
        }
        if self.dropped.contains(&lsn) {
            return Verdict::Drop;
        }
        let Some(Content::Marks(marks)) = content else { return Verdict::Keep };
        let head = |mark: &Mark| self.groups.get(&mark.group).map_or(0, |track| track.head);
        if marks.iter().all(|mark| mark.received.max(mark.read) <= head(mark)) {
            return Verdict::Keep;
        }
        // Nobody has received what is not there any more.
        let cut = |mark: &Mark| {
            let head = head(mark);
            (head > 0).then(|| Mark { received: mark.received.min(head), read: mark.read.min(head), ..mark.clone() })
        };
        Verdict::Marks(marks.iter().filter_map(cut).collect())
    }

    /// The groups that are cut, in the order of their ids.
    pub(super) fn losses(&self) -> Vec<GroupLoss> {
        let lost = self.groups.iter().filter(|(_, track)| track.known > track.head);
        lost.map(|(group, track)| GroupLoss {
            group: *group,
            kept_through: track.head,
            lost_through: track.known,
            whole_behind: track.whole_behind,
        })
        .collect()
    }
}
