//! Planning what cleaning carries: a walk through the oldest segment, in slices, by what the index says now.
//!
//! Of each packet is carried what nothing newer says:
//!
//! * an entry, if the log still has it and its newest place is in this segment;
//! * a record, if its newest whole copy is here, and with it the former memberships of the group that are kept;
//! * an operation, if its principal's window still reaches back to it;
//! * a mark, if the membership stands at it;
//! * a floor, if the log stands at it.
//!
//! Where retention lets entries of this segment go, the slice has the new floor of their group. Written into the journal
//! and folded, a slice changes what the next one sees; so one is under way at a time.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use super::fold::mistaken;
use super::{FoldError, Indexer};
use crate::group::Entry;
use crate::ids::{GroupId, Principal, UserId};
use crate::limits::{CARRIED_BYTES_PER_BATCH, CLEANED_PACKETS_PER_TURN};
use crate::store::carried::{CARRIED_LIST_MAX, Carried, CarriedEntry, CarriedOperation, FormerMember, Slice};
use crate::store::disk::Disk;
use crate::store::index::Direction;
use crate::store::journal::writer::carried_bytes;
use crate::store::journal::{Content, Placed, Position, Walk};
use crate::store::tables::{StateValue, Stored, Value, extents_key, former_ends, former_user, group_key};
use crate::store::{Effect, GroupState, Mark, Operation};

/// Former memberships in one packet: small enough for the segments of tests.
const FORMER_PER_PACKET: usize = 500;
const _: () = assert!(FORMER_PER_PACKET <= CARRIED_LIST_MAX);

/// How far the cleaning of one segment is.
#[derive(Clone, Debug)]
pub(crate) struct Plan {
    walk: Walk,
    done: bool,
}

impl Plan {
    /// The segment.
    pub(crate) fn segment(&self) -> u32 {
        self.walk.segment()
    }

    /// Whether everything was looked at.
    pub(crate) fn is_done(&self) -> bool {
        self.done
    }

    /// The same place, to come back to.
    pub(crate) fn place(&self) -> Self {
        Self { walk: self.walk.place(), done: self.done }
    }
}

/// What one slice may be at least, beyond what it may be in any case: under load cleaning has to keep up.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Pace {
    /// Packets that are looked at.
    pub(crate) packets: usize,
    /// Bytes that are carried.
    pub(crate) carried_bytes: usize,
}

/// A slice that is being filled.
struct Draft {
    now_ms: u64,
    segment: u32,
    bytes: usize,
    bytes_max: usize,
    floors: BTreeMap<GroupId, u64>,
    /// Groups that one of the floors ends.
    ended: BTreeSet<GroupId>,
    items: Vec<Carried>,
    operations: Vec<CarriedOperation>,
    marks: BTreeMap<(UserId, GroupId), (u64, u64)>,
    /// The oldest operation of each principal that was met.
    windows: HashMap<Principal, Option<u64>>,
}

impl Draft {
    fn is_full(&self) -> bool {
        self.bytes >= self.bytes_max
    }

    fn push(&mut self, carried: Carried) {
        self.bytes += carried_bytes(&carried);
        self.items.push(carried);
    }

    fn into_slice(mut self, basis_lsn: u64) -> Slice {
        // A record may have been met before the entry whose age ends the group. It must not outlive the floor, which
        // may stand at the end of a segment that is cleaned before the next.
        self.items.retain(|item| match item {
            Carried::Record(state) => !self.ended.contains(&state.record.group),
            Carried::Memberships { group, .. } => !self.ended.contains(group),
            _ => true,
        });
        let mut carried = Vec::new();
        let floors: Vec<_> = self.floors.into_iter().collect();
        carried.extend(floors.chunks(CARRIED_LIST_MAX).map(|some| Carried::Floors(some.to_vec())));
        carried.extend(self.items);
        let operations = self.operations.chunks(CARRIED_LIST_MAX);
        if !planted!("cleaner: operations are not carried") {
            carried.extend(operations.map(|some| Carried::Operations(some.to_vec())));
        }
        let mark = |((user, group), (received, read))| Mark { user, group, received, read };
        let marks: Vec<_> = self.marks.into_iter().map(mark).collect();
        carried.extend(marks.chunks(CARRIED_LIST_MAX).map(|some| Carried::Marks(some.to_vec())));
        Slice { basis_lsn, carried }
    }
}

impl<D: Disk> Indexer<D> {
    /// Begins with a segment that ends at `end`.
    pub(crate) fn begin_plan(&mut self, segment: u32, end: u32) -> Result<Plan, FoldError> {
        Ok(Plan { walk: self.reader.begin_walk(segment, end)?, done: false })
    }

    /// Looks at the next packets: few enough that look-ups do not have to wait for long, and no more than one batch of
    /// the journal may take besides its changes; under load in proportion to it. The last slice says that the log may
    /// begin behind the segment.
    pub(crate) fn plan_slice(&mut self, plan: &mut Plan, now_ms: u64, pace: Pace) -> Result<Slice, FoldError> {
        let mut draft = Draft {
            now_ms,
            segment: plan.segment(),
            bytes: 0,
            // Segments of tests are smaller than a batch.
            bytes_max: CARRIED_BYTES_PER_BATCH.min(self.reader.segment_bytes() / 8).max(pace.carried_bytes),
            floors: BTreeMap::new(),
            ended: BTreeSet::new(),
            items: Vec::new(),
            operations: Vec::new(),
            marks: BTreeMap::new(),
            windows: HashMap::new(),
        };
        for _ in 0..CLEANED_PACKETS_PER_TURN.max(pace.packets) {
            if draft.is_full() {
                break;
            }
            let Some((packet, written_ms)) = self.reader.walk_on(&mut plan.walk)? else {
                draft.push(Carried::LogStart { segment: draft.segment + 1 });
                plan.done = true;
                break;
            };
            self.plan_packet(&mut draft, packet.placed, packet.content, written_ms)?;
        }
        Ok(draft.into_slice(self.folded().map_or(0, |folded| folded.lsn)))
    }

    fn plan_packet(
        &mut self,
        draft: &mut Draft,
        placed: Placed,
        content: Content,
        written_ms: u64,
    ) -> Result<(), FoldError> {
        match content {
            Content::Effect(effect) => {
                self.plan_operation(draft, &effect.principal, placed.lsn, Operation::of(&effect))?;
                let Effect { group, entry, .. } = effect;
                if entry.event.changes_record() && !planted!("cleaner: records are not carried") {
                    self.plan_base(draft, group, placed.position)?;
                }
                self.plan_entry(draft, group, Arc::unwrap_or_clone(entry), written_ms)?;
            }
            Content::Marks(marks) | Content::Carried(Carried::Marks(marks)) => self.plan_marks(draft, marks)?,
            Content::Carried(Carried::Record(state)) => {
                let group = state.record.group;
                self.plan_told_floor(draft, group, state.floor)?;
                self.plan_base(draft, group, placed.position)?;
            }
            Content::Carried(Carried::Entry(CarriedEntry { group, running_ms, entry })) => {
                self.plan_entry(draft, group, entry, running_ms)?;
            }
            Content::Carried(Carried::Operations(operations)) => {
                for CarriedOperation { principal, lsn, operation } in operations {
                    self.plan_operation(draft, &principal, lsn, operation)?;
                }
            }
            Content::Carried(Carried::Memberships { group, members }) => {
                let mark = |member: FormerMember| {
                    let FormerMember { user, received, read, .. } = member;
                    Mark { user, group, received, read }
                };
                self.plan_marks(draft, members.into_iter().map(mark).collect())?;
            }
            Content::Carried(Carried::Floors(floors)) => {
                for (group, floor) in floors {
                    self.plan_told_floor(draft, group, floor)?;
                }
            }
            Content::Carried(Carried::LogStart { .. }) | Content::Watermark(_) => {}
        }
        Ok(())
    }

    fn plan_entry(
        &mut self,
        draft: &mut Draft,
        group: GroupId,
        entry: Entry,
        written_ms: u64,
    ) -> Result<(), FoldError> {
        let Some(state) = self.state(group)? else { return Ok(()) };
        let known = draft.floors.get(&group).copied().unwrap_or(state.floor).max(state.floor);
        let forgets = planted!("cleaner: entries are not carried");
        if forgets || entry.seq < known || !self.stands_in(group, entry.seq, draft.segment)? {
            return Ok(());
        }
        let floor = self.wanted_floor(draft, group, &state, entry.seq, written_ms)?;
        if floor > known {
            draft.bytes += if draft.floors.insert(group, floor).is_none() { 24 } else { 0 };
        }
        if floor > state.head {
            draft.ended.insert(group);
        }
        if entry.seq >= floor {
            draft.push(Carried::Entry(CarriedEntry { group, running_ms: written_ms, entry }));
        }
        Ok(())
    }

    /// From where on the log of a group is kept, as far as an entry and its age tell. The newest entry is kept in any
    /// case, so that a log never ends below its floor; but of a dissolved group that goes too, and with it the group.
    fn wanted_floor(
        &mut self,
        draft: &Draft,
        group: GroupId,
        state: &StateValue,
        seq: u64,
        written_ms: u64,
    ) -> Result<u64, FoldError> {
        let retention = self.retention;
        let by_age = if retention.is_expired(written_ms, draft.now_ms) { seq + 1 } else { 1 };
        let by_bytes = if state.log_bytes > retention.bytes_max { self.floor_by_bytes(group, state)? } else { 1 };
        let floor = retention.floor_by_count(state.head).max(by_age).max(by_bytes);
        let over = floor > state.head && self.group_value(group)?.is_some_and(|value| value.record.dissolved);
        Ok(floor.min(state.head + u64::from(over)))
    }

    /// The lowest seq from which on there are at least as many bytes as are kept.
    fn floor_by_bytes(&self, group: GroupId, state: &StateValue) -> Result<u64, FoldError> {
        let mut left_bytes = state.log_bytes;
        let mut floor = state.floor;
        let (mut low, high) = (extents_key(group, 0), extents_key(group, u64::MAX));
        while let Some((key, stored)) = self.overlay.nearest(&low, &high, Direction::Ascending)? {
            let Value::Extents(extents) = stored.value else { return Err(mistaken(&key).into()) };
            let end = self.extents_behind(group, &key)?.unwrap_or(u64::MAX);
            for extent in extents.into_iter().filter(|extent| extent.first_seq < end) {
                left_bytes = left_bytes.saturating_sub(u64::from(extent.own_bytes));
                if left_bytes < self.retention.bytes_max {
                    return Ok(floor);
                }
                floor = extent.end();
            }
            low = key;
            low.push(0);
        }
        Ok(floor)
    }

    /// Whether the newest place of an entry is in a segment.
    fn stands_in(&self, group: GroupId, seq: u64, segment: u32) -> Result<bool, FoldError> {
        let (low, high) = (extents_key(group, 0), extents_key(group, seq));
        match self.overlay.nearest(&low, &high, Direction::Descending)? {
            Some((_, Stored { value: Value::Extents(extents), .. })) => {
                let at = extents.partition_point(|extent| extent.first_seq <= seq);
                let extent = at.checked_sub(1).and_then(|at| extents.get(at));
                Ok(extent.is_some_and(|extent| seq < extent.end() && extent.position.segment == segment))
            }
            Some((key, _)) => Err(mistaken(&key).into()),
            None => Ok(false),
        }
    }

    /// Carries a record whose newest whole copy stands here. Before it, in the same slice, the former memberships of
    /// the group: once the record stands elsewhere, nobody looks for them here.
    fn plan_base(&mut self, draft: &mut Draft, group: GroupId, position: Position) -> Result<(), FoldError> {
        let (Some(value), Some(state)) = (self.group_value(group)?, self.state(group)?) else { return Ok(()) };
        if value.base != position {
            return Ok(());
        }
        let StateValue { head, floor, last_at_ms, .. } = state;
        let floor = draft.floors.get(&group).map_or(floor, |new| floor.max(*new));
        if floor > head && value.record.dissolved {
            // The floor that stands in the same slice ends the group. A log that a repair has left empty does not.
            return Ok(());
        }
        self.plan_former(draft, group)?;
        let record = self.with_members(group, value)?;
        draft.push(Carried::Record(GroupState { record, head, floor, last_at_ms }));
        Ok(())
    }

    fn plan_former(&mut self, draft: &mut Draft, group: GroupId) -> Result<(), FoldError> {
        let (mut low, high) = former_ends(group);
        let mut members: Vec<FormerMember> = Vec::new();
        while let Some((key, _)) = self.overlay.nearest(&low, &high, Direction::Ascending)? {
            let user = former_user(&key).ok_or_else(|| mistaken(&key))?;
            if let Some(membership) = self.membership(&user, group)?
                && let Some(until) = membership.until
            {
                let (joined, received, read) = (membership.joined, membership.received, membership.read);
                members.push(FormerMember { user, joined, until, received, read });
            }
            if members.len() == FORMER_PER_PACKET {
                draft.push(Carried::Memberships { group, members: std::mem::take(&mut members) });
            }
            low = key;
            low.push(0);
        }
        if !members.is_empty() {
            draft.push(Carried::Memberships { group, members });
        }
        Ok(())
    }

    fn plan_operation(
        &mut self,
        draft: &mut Draft,
        principal: &Principal,
        lsn: u64,
        operation: Operation,
    ) -> Result<(), FoldError> {
        let oldest = if let Some(oldest) = draft.windows.get(principal) {
            *oldest
        } else {
            let oldest = self.oldest_operation(principal)?;
            draft.windows.insert(principal.clone(), oldest);
            oldest
        };
        if oldest.is_some_and(|oldest| oldest <= lsn) {
            draft.bytes += 160;
            draft.operations.push(CarriedOperation { principal: principal.clone(), lsn, operation });
        }
        Ok(())
    }

    fn plan_marks(&mut self, draft: &mut Draft, marks: Vec<Mark>) -> Result<(), FoldError> {
        for Mark { user, group, received, read } in marks {
            let Some(membership) = self.membership(&user, group)? else { continue };
            let stands_at = |mark: u64, at: u64| at > 0 && mark == at;
            if stands_at(received, membership.received) || stands_at(read, membership.read) {
                let before = draft.marks.insert((user, group), (membership.received, membership.read));
                draft.bytes += if before.is_none() { 100 } else { 0 };
            }
        }
        Ok(())
    }

    /// Tells a floor again that was told here, if the log still stands at it.
    fn plan_told_floor(&mut self, draft: &mut Draft, group: GroupId, floor: u64) -> Result<(), FoldError> {
        let stands = self.state(group)?.is_some_and(|state| state.floor == floor && floor > 1);
        if stands && !draft.floors.contains_key(&group) && self.overlay.value(&group_key(group))?.is_some() {
            draft.floors.insert(group, floor);
            draft.bytes += 24;
        }
        Ok(())
    }
}
