//! How much of the room on the disk is granted for changes, and how much is kept for cleaning. Arithmetic alone.
//!
//! Three demands stand on the same zeros: changes that were granted room and may never use it, the cleaning of the
//! oldest segment, which gives nothing back before its last byte is carried, and the rest of a segment that is lost
//! when the next packet does not fit it. So cleaning's part is kept in bytes, wherever they are: a rule that keeps a
//! spare file for it stops to keep anything once that file has become the segment that is written.

use crate::limits::PACKET_BYTES_MAX;
#[cfg(test)]
use crate::limits::{GROUP_MEMBERS_MAX, SEGMENT_BYTES_MIN, USER_BYTES_MAX};

/// Room that one byte of granted change may take at most: the smallest change takes 64 bytes, and each may be a batch
/// of its own, with a watermark of 48 bytes before it and a marker of 48 bytes behind it.
pub(super) const ROOM_PER_CREDIT: u64 = 3;

/// The part of a segment that is kept for the rest which a slice of cleaning may leave behind, beyond what a packet
/// may: a slice has at most a sixteenth of a segment and one packet, and watermarks take less than another sixteenth.
const SLICES_PER_SEGMENT: u64 = 8;

/// What is there to be written into.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Room {
    /// Bytes of packets that fit the rest of the segment that is written.
    pub(super) rest_bytes: u64,
    /// Empty segments that are ready.
    pub(super) spares: u64,
    /// Bytes of packets that fit an empty one.
    pub(super) segment_bytes: u64,
}

impl Room {
    /// What a packet that does not fit the rest of a segment leaves behind at most: the largest packet, which takes a
    /// quarter of a segment at most (`limits.rs`), less in the segments of tests.
    fn left_behind_bytes(self) -> u64 {
        let quarter = self.segment_bytes.div_ceil(4).next_multiple_of(1024);
        quarter.min(PACKET_BYTES_MAX as u64)
    }

    /// What fits for certain, whatever the sizes of packets.
    pub(super) fn bytes(self) -> u64 {
        match self.spares {
            0 => self.rest_bytes,
            spares => {
                let whole = spares * self.segment_bytes - (spares - 1) * self.left_behind_bytes();
                self.rest_bytes.saturating_sub(self.left_behind_bytes()) + whole
            }
        }
    }

    /// What may be granted for changes where there is a segment to clean. The rest carries all of the oldest segment,
    /// even if nobody ever uses what was granted: `a_whole_segment_can_be_carried_beside_grants_that_nobody_uses`.
    pub(super) fn beside_cleaning_bytes(self) -> u64 {
        let kept = self.segment_bytes + self.segment_bytes / SLICES_PER_SEGMENT;
        self.bytes().saturating_sub(kept)
    }

    /// What is left behind a batch of so many bytes in the segment that is written; nothing if it does not fit there.
    pub(super) fn behind(self, batch_bytes: u64) -> Option<Self> {
        Some(Self { rest_bytes: self.rest_bytes.checked_sub(batch_bytes)?, ..self })
    }

    /// What is left when the next segment was begun.
    pub(super) fn in_next_segment(self) -> Option<Self> {
        Some(Self { rest_bytes: self.segment_bytes, spares: self.spares.checked_sub(1)?, ..self })
    }

    /// Whether a slice of cleaning may be written here and now, when so many bytes have to be left for changes. It may
    /// begin a new segment only where no change is in its batch.
    pub(super) fn takes_slice(self, batch_bytes: u64, has_changes: bool, left_bytes: u64) -> bool {
        if let Some(behind) = self.behind(batch_bytes) {
            return behind.bytes() >= left_bytes;
        }
        if has_changes || self.spares == 0 {
            return false;
        }
        match self.in_next_segment().and_then(|next| next.behind(batch_bytes)) {
            Some(behind) => behind.bytes() >= left_bytes,
            // The former memberships of one group, more than a segment of them.
            None => self.bytes() >= batch_bytes + self.left_behind_bytes() + left_bytes,
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const SEGMENT_BYTES: u64 = SEGMENT_BYTES_MIN - 560;
    /// See `Pace` and `CARRIED_BYTES_PER_BATCH`.
    const SLICE_BYTES_MAX: u64 = SEGMENT_BYTES / 16 + PACKET_BYTES_MAX as u64;

    /// Carries so many bytes in slices of these sizes, one after the other; gives what could not be carried.
    fn carry(mut room: Room, mut bytes: u64, slices: &[u64], granted_room_bytes: u64) -> u64 {
        for slice in slices.iter().cycle() {
            let slice = (*slice).min(bytes);
            if bytes == 0 || !room.takes_slice(slice, false, granted_room_bytes) {
                break;
            }
            room = room.behind(slice).or_else(|| room.in_next_segment().unwrap().behind(slice)).unwrap();
            bytes -= slice;
        }
        bytes
    }

    proptest! {
        #[test]
        fn a_whole_segment_can_be_carried_beside_grants_that_nobody_uses(
            rest_bytes in 0..=SEGMENT_BYTES,
            spares in 0..=2_u64,
            slices in proptest::collection::vec(1_000..=SLICE_BYTES_MAX, 1..20),
        ) {
            let room = Room { rest_bytes, spares, segment_bytes: SEGMENT_BYTES };
            let granted = room.beside_cleaning_bytes();
            if granted > 0 {
                prop_assert_eq!(carry(room, SEGMENT_BYTES, &slices, granted), 0);
            }
        }

        #[test]
        fn what_was_granted_fits_whatever_the_sizes(
            rest_bytes in 0..=SEGMENT_BYTES,
            spares in 0..=2_u64,
            packets in proptest::collection::vec(64..=PACKET_BYTES_MAX as u64, 1..20),
        ) {
            let mut room = Room { rest_bytes, spares, segment_bytes: SEGMENT_BYTES };
            let mut granted = room.bytes();
            for packet in packets.iter().cycle() {
                if *packet > granted {
                    break;
                }
                granted -= packet;
                room = room.behind(*packet).or_else(|| room.in_next_segment()?.behind(*packet)).unwrap();
            }
        }
    }

    #[test]
    fn control_without_what_a_slice_leaves_behind_a_segment_cannot_be_carried() {
        let room = Room { rest_bytes: PACKET_BYTES_MAX as u64 + 200_000, spares: 1, segment_bytes: SEGMENT_BYTES };
        let granted = room.bytes() - SEGMENT_BYTES;
        assert!(granted > 0 && carry(room, SEGMENT_BYTES, &[SLICE_BYTES_MAX], granted) > 0);
    }

    #[test]
    fn the_largest_change_is_granted_wherever_the_segment_is_and_two_spares_are_there() {
        let largest = (1_024 + GROUP_MEMBERS_MAX * (1 + USER_BYTES_MAX)) as u64;
        for rest_bytes in (0..=SEGMENT_BYTES).step_by(1_000) {
            let room = Room { rest_bytes, spares: 2, segment_bytes: SEGMENT_BYTES };
            assert!(room.beside_cleaning_bytes() / ROOM_PER_CREDIT >= largest, "{rest_bytes}");
        }
        let behind_a_roll = Room { rest_bytes: SEGMENT_BYTES, spares: 1, segment_bytes: SEGMENT_BYTES };
        assert!(behind_a_roll.beside_cleaning_bytes() / ROOM_PER_CREDIT >= largest);
    }
}
