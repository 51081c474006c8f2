//! What the journal says durably: follows the packets on an image of the disk, without recovery and without an index.
//!
//! For the simulator, whose truth this is. It knows one rule that recovery has too: behind the end that a successor's
//! header names, nothing counts.

use super::packet::{Content, Packet};
use super::recovery::{advance, first_tail};
use super::segment::{SegmentHeader, segment_path};
use super::writer::Tail;
use crate::group::Entry;
use crate::ids::GroupId;
use crate::store::carried::Carried;
use crate::store::disk::simulated::SimulatedDisk;
use crate::store::{Effect, GroupState};

/// A packet that was found.
#[derive(Debug)]
pub(crate) struct Found {
    /// Its number.
    pub(crate) lsn: u64,
    /// What it says.
    pub(crate) said: Said,
}

/// What a packet says that can be held against something.
#[derive(Debug)]
pub(crate) enum Said {
    /// One request's effect.
    Effect(Effect),
    /// The lowest seqs that logs still have.
    Floors(Vec<(GroupId, u64)>),
    /// A group, carried by cleaning.
    Record(GroupState),
    /// An entry, carried by cleaning.
    Entry(GroupId, Entry),
    /// Marks, and what carries them and operations.
    Other,
}

impl From<Content> for Said {
    fn from(content: Content) -> Self {
        match content {
            Content::Effect(effect) => Self::Effect(effect),
            Content::Carried(Carried::Floors(floors)) => Self::Floors(floors),
            Content::Carried(Carried::Record(state)) => Self::Record(state),
            Content::Carried(Carried::Entry(carried)) => Self::Entry(carried.group, carried.entry),
            Content::Marks(_) | Content::Watermark(_) | Content::Carried(_) => Self::Other,
        }
    }
}

/// How far an image was followed.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Follower {
    tail: Option<Tail>,
}

impl Follower {
    /// The segment that it stands in; 0 before the first.
    pub(crate) fn segment(&self) -> u32 {
        self.tail.map_or(0, |tail| tail.segment)
    }

    /// Everything that is durable behind what was found before. What recovery has written again is found again.
    pub(crate) fn follow(&mut self, disk: &SimulatedDisk, found: &mut Vec<Found>) -> Result<(), String> {
        loop {
            if let Some(tail) = self.tail {
                let after = disk.with_durable(&segment_path(tail.segment), |bytes| {
                    bytes.map_or(Ok(tail), |bytes| take_packets(bytes, tail, found))
                })?;
                self.tail = Some(after);
            }
            let next = self.segment() + 1;
            let header = disk.with_durable(&segment_path(next), |bytes| {
                bytes.and_then(|bytes| SegmentHeader::decode(bytes.get(..512)?).ok())
            });
            let Some(header) = header else { return Ok(()) };
            if let Some(tail) = self.tail
                && header.first_lsn > tail.next_lsn
            {
                let (first, next) = (header.first_lsn, tail.next_lsn);
                return Err(format!("a segment begins with LSN {first}, and durable is what is before {next}"));
            }
            self.tail = Some(first_tail(&header));
        }
    }
}

fn take_packets(bytes: &[u8], mut tail: Tail, found: &mut Vec<Found>) -> Result<Tail, String> {
    while let Ok((packet, after)) = advance(bytes, tail) {
        take_packet(&packet, found)?;
        tail = after;
    }
    Ok(tail)
}

fn take_packet(packet: &Packet<'_>, found: &mut Vec<Found>) -> Result<(), String> {
    if !packet.is_watermark() {
        let content = packet.content().map_err(|error| format!("a durable packet holds no value: {error:?}"))?;
        found.push(Found { lsn: packet.lsn, said: content.into() });
    }
    Ok(())
}
