//! One group as a client follows it: how far it was told, what is shown of it, and whether that is still right.

use std::sync::Arc;

use crate::group::{Member, Record};
use crate::ids::{GroupId, UserId};
use crate::wire::{GroupPacket, LogEntry};

/// One group as a user interface shows it: made from its group packet alone, kept current by the entries since.
#[derive(Clone, Copy, Debug)]
pub struct GroupView<'a> {
    record: &'a Record,
    tracked: &'a Tracked,
}

impl<'a> GroupView<'a> {
    /// The group.
    pub fn group(&self) -> GroupId {
        self.record.group
    }

    /// Its title; empty means: show the members.
    pub fn title(&self) -> &'a str {
        &self.record.title
    }

    /// Who may remove, rename, transfer and dissolve.
    pub fn owner(&self) -> &'a UserId {
        &self.record.owner
    }

    /// Who made it.
    pub fn creator(&self) -> &'a UserId {
        &self.record.creator
    }

    /// When it was made, in milliseconds since 1970.
    pub fn created_at_ms(&self) -> u64 {
        self.record.created_at_ms
    }

    /// The seq of the last entry that changed what is shown here.
    pub fn version(&self) -> u64 {
        self.record.version
    }

    /// All members, in the order of joining.
    pub fn members(&self) -> impl ExactSizeIterator<Item = &'a UserId> + use<'a> {
        self.record.members.iter().map(|member| &member.user)
    }

    /// The highest seq that the group is known to have.
    pub fn head(&self) -> u64 {
        self.tracked.head
    }

    /// The next seq that is expected; entries below it have been told.
    pub fn next(&self) -> u64 {
        self.tracked.next
    }

    /// Whether what is shown has every change up to [`Self::next`]. If not, a change lay below the floor or was of a
    /// kind that this client does not know; the record is being fetched, and until then the last one that was right is
    /// shown.
    pub fn is_current(&self) -> bool {
        !self.tracked.needs_record()
    }
}

/// How far one group has been told.
///
/// Invariants: every entry below `next` that the user may see has been told, or a `Truncated` was told instead. The
/// record was right at its own version; unless it is `doubtful`, it is right at `next` as well. A doubtful record is
/// never changed by an entry: on top of a missed change that would make a state that never was, under a version that
/// looks right.
#[derive(Debug)]
pub(super) struct Tracked {
    pub(super) next: u64,
    pub(super) head: u64,
    /// The request for its history that is under way, by the number of its batch. Answers of other batches are of an
    /// earlier stretch of membership, or of an earlier connection, and say nothing.
    pub(super) asked: Option<u64>,
    /// The user is no longer in it; it is forgotten once it has been told up to here.
    pub(super) gone: Option<u64>,
    /// What is shown. Missing for a group that is known by its entries alone until its record has been fetched.
    record: Option<Record>,
    doubtful: bool,
    /// The highest version that the group is known to have had.
    version: u64,
}

impl Tracked {
    pub(super) fn starting_at(next: u64) -> Self {
        // Seqs begin at 1, whatever a server says.
        let next = next.max(1);
        let head = next.saturating_sub(1);
        Self { next, head, asked: None, gone: None, record: None, doubtful: false, version: 0 }
    }

    pub(super) fn is_behind(&self) -> bool {
        self.next <= self.head
    }

    pub(super) fn has_record(&self) -> bool {
        self.record.is_some()
    }

    /// The version of the record that is known, to ask only for a newer one; 0 without one.
    pub(super) fn known_version(&self) -> u64 {
        self.record.as_ref().map_or(0, |record| record.version)
    }

    /// Whether the record has to be asked for.
    pub(super) fn needs_record(&self) -> bool {
        self.gone.is_none() && (self.doubtful || self.known_version() < self.version.max(1))
    }

    pub(super) fn view(&self) -> Option<GroupView<'_>> {
        let record = self.record.as_ref().filter(|_| self.gone.is_none())?;
        Some(GroupView { record, tracked: self })
    }

    /// Takes a group packet. One that starts above what is expected begins another stretch of membership: what was
    /// asked for is of the last one.
    pub(super) fn begin(&mut self, packet: &GroupPacket) {
        if packet.from > self.next {
            self.next = packet.from;
            self.asked = None;
        }
        // What is read on from is at most one above the head, whatever a server says of both.
        self.head = self.head.max(packet.head).max(self.next.saturating_sub(1));
        self.gone = None;
        if packet.version >= self.version {
            self.record = Some(record_of(packet));
            self.version = packet.version;
            self.doubtful = false;
        }
    }

    /// Takes the next entry.
    pub(super) fn follow(&mut self, entry: &LogEntry) {
        self.next = entry.seq().saturating_add(1);
        self.head = self.head.max(entry.seq());
        self.version = self.version.max(entry.version());
        let Some(record) = self.record.as_mut().filter(|_| !self.doubtful) else { return };
        if let LogEntry::Shown(shown) = entry {
            record.apply(shown);
        }
        self.doubtful = record.version < entry.version();
    }

    /// Entries up to `floor` are deleted. A change among them is noticed by nothing else if no entry is left.
    pub(super) fn skip_to(&mut self, floor: u64) {
        self.next = floor;
        if self.gone.is_none() {
            // A floor stands at most one above the head.
            self.head = self.head.max(floor.saturating_sub(1));
        }
        self.doubtful |= self.known_version() < floor.saturating_sub(1);
    }

    /// Takes the record as the server has it.
    pub(super) fn take_record(&mut self, head: u64, record: Record) {
        if record.version >= self.version {
            self.version = record.version;
            self.head = self.head.max(head);
            self.record = Some(record);
            self.doubtful = false;
        }
    }

    /// The server's record is the one that is known.
    pub(super) fn confirm_record(&mut self, version: u64) {
        if version >= self.version && version == self.known_version() {
            self.doubtful = false;
        }
    }
}

fn record_of(packet: &GroupPacket) -> Record {
    Record {
        group: packet.group,
        title: Arc::from(packet.title.as_str()),
        owner: packet.owner.clone(),
        creator: packet.creator.clone(),
        created_at_ms: packet.created_at_ms,
        // A packet names the members in the order of joining, not the seqs at which they joined.
        members: packet.members.iter().map(|user| Member { user: user.clone(), joined: 0 }).collect(),
        version: packet.version,
        dissolved: false,
    }
}
