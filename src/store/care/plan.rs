//! What can be saved of a damaged journal: which whole packets stay, and which groups have to be cut.
//!
//! A group's log has no gap, and its record must be the one that the log has made. Both begin with a *base*: the
//! `created` entry or, where cleaning has carried the group, a whole record. Every entry behind a base stands in the
//! journal as it was first written, because cleaning takes the oldest first; those that change no record may stand just
//! before the record that they follow. So:
//!
//! * an entry that is missing behind the base ends the group before it: what is whole behind it cannot stay;
//! * unless another whole record stands behind the gap: that is the base then, and what stood before is not needed;
//! * an entry that is missing at or below the base makes the log begin behind it, because of then there is no record;
//! * a group without a base is lost.
//!
//! Groups of which nothing is missing keep everything, wherever the damage is, and what cleaning had carried out of a
//! damaged segment is not lost with it.

use std::collections::{BTreeMap, BTreeSet};

use super::ranges::Ranges;
use super::survey::Seen;
use crate::group::{Event, Succession};
use crate::ids::GroupId;
use crate::store::carried::{Carried, CarriedOperation};
use crate::store::journal::Content;
use crate::store::{Change, Effect, GroupState, Mark};

/// Entries of a group that a repair cannot save.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct GroupLoss {
    /// The group.
    pub group: GroupId,
    /// The lowest entry that the log had.
    pub lost_from: u64,
    /// The first entry that stays, unless none does.
    pub kept_from: u64,
    /// The last entry that stays; 0 where the whole group is lost, one less than `kept_from` where only its record stays.
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
    /// This stays of it, which takes no more bytes.
    Change(Change),
    /// The same, of what cleaning has carried.
    Carried(Carried),
    /// It cannot stay.
    Drop,
}

/// What the log and the record of a group are built on.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Base {
    #[default]
    None,
    /// The entry that created the group.
    Created,
    /// A record that cleaning has carried.
    Record,
}

/// One group on the way through the journal.
#[derive(Clone, Debug, Default)]
struct Track {
    base: Base,
    /// The last entry without a gap behind the base.
    head: u64,
    /// The last entry of which anything is known.
    known: u64,
    /// From where on the log goes, as far as it was told.
    floor: u64,
    /// The same, as the index knows it.
    floor_known: u64,
    in_index: bool,
    /// The last packet that has named it.
    last_lsn: u64,
    whole_behind: u64,
    /// Something is missing behind the base.
    is_broken: bool,
    has_ended: bool,
    /// Entries that stand where they were first written, and carried ones.
    own: Ranges,
    carried: Ranges,
    /// The packets of the base and of former memberships that are told with it.
    base_lsns: Vec<u64>,
    /// Those of former memberships whose record is still to come.
    open_lsns: Vec<u64>,
}

impl Track {
    fn has_base(&self) -> bool {
        self.base != Base::None
    }

    /// From where on the log has no gap up to its head.
    fn kept_from(&self) -> u64 {
        let floor = self.floor.clamp(1, self.head + 1);
        self.own.highest_missing(&self.carried, floor, self.head).map_or(floor, |missing| missing + 1)
    }
}

/// What is decided about each packet, and why.
#[derive(Debug, Default)]
pub(super) struct Decisions {
    groups: BTreeMap<GroupId, Track>,
    /// LSNs of whole packets that cannot stay.
    dropped: BTreeSet<u64>,
    /// Up to where an index has told what there is.
    index_lsn: u64,
    /// Cleaning has written here, or removed what stood before.
    is_cleaned: bool,
    keeps_all: bool,
}

impl Decisions {
    /// Takes note of a whole packet, in the order of LSNs.
    pub(super) fn see(&mut self, seen: &Seen<'_>) {
        let lsn = seen.packet.lsn;
        match &seen.content {
            Some(Content::Effect(effect)) => self.see_effect(lsn, effect),
            Some(Content::Marks(marks)) => marks.iter().for_each(|mark| self.see_mark(lsn, mark)),
            Some(Content::Carried(carried)) => {
                self.is_cleaned = true;
                self.see_carried(lsn, carried);
            }
            Some(Content::Watermark(_)) => {}
            None => {
                self.dropped.insert(lsn);
            }
        }
    }

    fn track(&mut self, lsn: u64, group: GroupId, known: u64) -> &mut Track {
        let track = self.groups.entry(group).or_default();
        track.last_lsn = lsn;
        track.known = track.known.max(known);
        track
    }

    fn see_mark(&mut self, lsn: u64, mark: &Mark) {
        self.track(lsn, mark.group, mark.received);
    }

    fn see_effect(&mut self, lsn: u64, effect: &Effect) {
        let seq = effect.entry.seq;
        let track = self.track(lsn, effect.group, seq);
        track.has_ended |=
            matches!(effect.entry.event, Event::Dissolved | Event::Left { succession: Succession::Dissolved });
        if !track.has_base() && !matches!(effect.entry.event, Event::Created { .. }) {
            // A record may come, which has what this has changed.
            track.own.insert(seq);
            return;
        }
        if seq <= track.head {
            self.dropped.insert(lsn);
            return;
        }
        track.own.insert(seq);
        if !track.has_base() {
            (track.base, track.head, track.floor) = (Base::Created, 1, 1);
            track.base_lsns.push(lsn);
        } else if !track.is_broken && seq == track.head + 1 {
            track.head = seq;
        } else {
            track.is_broken = true;
            track.whole_behind += 1;
        }
    }

    fn see_carried(&mut self, lsn: u64, carried: &Carried) {
        match carried {
            Carried::Record(state) => self.see_record(lsn, state),
            Carried::Memberships { group, .. } => self.track(lsn, *group, 0).open_lsns.push(lsn),
            Carried::Entry(entry) => self.track(lsn, entry.group, entry.entry.seq).carried.insert(entry.entry.seq),
            Carried::Floors(floors) => {
                for (group, floor) in floors {
                    let track = self.track(lsn, *group, 0);
                    track.floor = track.floor.max(*floor);
                }
            }
            Carried::Marks(marks) => marks.iter().for_each(|mark| self.see_mark(lsn, mark)),
            // They outlive their groups, and say nothing of what becomes of those.
            Carried::Operations(_) | Carried::LogStart { .. } => {}
        }
    }

    /// A whole record: a base, if there is none, or one behind a gap.
    fn see_record(&mut self, lsn: u64, state: &GroupState) {
        let track = self.track(lsn, state.record.group, state.head);
        track.floor = track.floor.max(state.floor);
        let mut told = std::mem::take(&mut track.open_lsns);
        told.push(lsn);
        if track.has_base() && !track.is_broken && state.head <= track.head {
            track.base_lsns.append(&mut told);
            return;
        }
        // Were the base before left there, a replay would begin with it and meet the gap.
        let replaced = std::mem::replace(&mut track.base_lsns, told);
        if track.base == Base::Created {
            track.own.remove(1);
        }
        // Entries that change no record may have come between the look at it and its writing: they stand before it.
        track.head = track.own.followed_through(state.head);
        track.whole_behind = track.own.count_above(track.head);
        (track.base, track.is_broken) = (Base::Record, track.whole_behind > 0);
        track.has_ended = state.record.dissolved;
        self.dropped.extend(replaced);
    }

    /// The index says up to which packet it has applied the journal; what it knows nothing of is gone since before.
    pub(super) fn ask_index(&mut self, lsn: u64) {
        self.index_lsn = lsn;
    }

    /// The index says that a group has entries from one to another.
    pub(super) fn know(&mut self, group: GroupId, floor: u64, head: u64) {
        let track = self.groups.entry(group).or_default();
        track.known = track.known.max(head);
        (track.floor_known, track.in_index) = (floor, true);
    }

    /// Ends the look at the packets of a journal that begins with the segment `first`. Where nothing is missing, every
    /// whole packet stays that holds a value. What was told of former memberships before a record that is lost, the base
    /// that stays tells too.
    pub(super) fn settle(&mut self, first: u32, is_complete: bool) {
        self.is_cleaned |= first > 1;
        self.keeps_all = is_complete && self.dropped.is_empty();
        for track in self.groups.values() {
            if track.is_broken || !track.has_base() {
                self.dropped.extend(&track.open_lsns);
            }
        }
    }

    /// What becomes of a whole packet.
    pub(super) fn verdict(&self, lsn: u64, content: Option<&Content>) -> Verdict {
        if self.dropped.contains(&lsn) {
            return Verdict::Drop;
        }
        let Some(content) = content.filter(|_| !self.keeps_all) else { return Verdict::Keep };
        match content {
            Content::Effect(effect) => self.keep_up_to_head(effect.group, effect.entry.seq),
            Content::Marks(marks) => {
                let kept = self.cut_marks(marks);
                if kept == *marks { Verdict::Keep } else { Verdict::Change(Change::Marks(kept)) }
            }
            Content::Carried(carried) => self.verdict_of_carried(carried),
            Content::Watermark(_) => Verdict::Keep,
        }
    }

    fn verdict_of_carried(&self, carried: &Carried) -> Verdict {
        let kept = match carried {
            Carried::Entry(entry) => return self.keep_up_to_head(entry.group, entry.entry.seq),
            Carried::Floors(floors) => {
                // A log does not begin behind its end.
                let cut = |(group, floor): &(GroupId, u64)| (*group, (*floor).min(self.head(*group) + 1));
                Carried::Floors(floors.iter().map(cut).collect())
            }
            Carried::Operations(operations) => {
                // Whoever says it again does it again.
                let is_there = |carried: &&CarriedOperation| match self.groups.get(&carried.operation.group) {
                    Some(track) if track.has_base() => carried.operation.seq <= track.head,
                    track => track.is_none_or(|track| !self.is_lost(track)),
                };
                Carried::Operations(operations.iter().filter(is_there).cloned().collect())
            }
            Carried::Marks(marks) => Carried::Marks(self.cut_marks(marks)),
            Carried::Record(_) | Carried::Memberships { .. } | Carried::LogStart { .. } => return Verdict::Keep,
        };
        if kept == *carried { Verdict::Keep } else { Verdict::Carried(kept) }
    }

    fn head(&self, group: GroupId) -> u64 {
        self.groups.get(&group).map_or(0, |track| track.head)
    }

    fn keep_up_to_head(&self, group: GroupId, seq: u64) -> Verdict {
        let stays = match self.groups.get(&group) {
            Some(track) if track.has_base() => seq <= track.head,
            // Of a group that is over only the operations count, which are remembered longer.
            track => track.is_some_and(|track| !self.is_lost(track)),
        };
        if stays { Verdict::Keep } else { Verdict::Drop }
    }

    /// The first packet that does not stay as it is, though it may be whole and stand before all damage.
    pub(super) fn first_dropped(&self) -> Option<u64> {
        self.dropped.first().copied()
    }

    /// Nobody has received what is not there any more.
    fn cut_marks(&self, marks: &[Mark]) -> Vec<Mark> {
        let cut = |mark: &Mark| {
            let head = self.head(mark.group);
            (head > 0).then(|| Mark { received: mark.received.min(head), read: mark.read.min(head), ..mark.clone() })
        };
        marks.iter().filter_map(cut).collect()
    }

    /// Whether a group without a base was there when the journal was damaged. In a journal that was cleaned, packets of
    /// groups that are over may be left.
    fn is_lost(&self, track: &Track) -> bool {
        let is_over = track.has_ended || track.last_lsn <= self.index_lsn;
        track.known > 0 && (track.in_index || !self.is_cleaned || !is_over)
    }

    /// The floors that have to be told, because entries behind them are missing.
    pub(super) fn raised_floors(&self) -> Vec<(GroupId, u64)> {
        let groups = self.groups.iter().filter(|(_, track)| track.has_base() && !self.keeps_all);
        groups
            .map(|(group, track)| (*group, track.kept_from(), track.floor))
            .filter(|(_, kept_from, floor)| kept_from > floor)
            .map(|(group, kept_from, _)| (group, kept_from))
            .collect()
    }

    /// The groups that are cut, in the order of their ids.
    pub(super) fn losses(&self) -> Vec<GroupLoss> {
        let losses = self.groups.iter().filter(|_| !self.keeps_all).filter_map(|(group, track)| {
            let kept_from = if track.has_base() { track.kept_from() } else { 1 };
            // What the index knows as let go of was not there to be lost.
            let lost_from = track.floor.max(track.floor_known).max(1).min(kept_from);
            let is_lost =
                if track.has_base() { track.known > track.head || lost_from < kept_from } else { self.is_lost(track) };
            is_lost.then_some(GroupLoss {
                group: *group,
                lost_from,
                kept_from,
                kept_through: track.head,
                lost_through: track.known,
                whole_behind: track.whole_behind,
            })
        });
        losses.collect()
    }
}
