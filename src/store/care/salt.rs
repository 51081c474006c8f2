//! The salt of a segment whose header is damaged: found again from a packet.
//!
//! A packet's CRC starts from the salt. For bytes that are known, CRC-32 is an affine function of where it starts: so
//! the salt is the solution of 32 equations over one bit each. A second packet has to confirm it, because any bytes
//! have such a solution.

use crate::store::journal::packet::{PACKET_HEADER_BYTES, Packet, packet_crc};
use crate::store::journal::segment::SEGMENT_HEADER_BYTES;

/// Where the header has the salt.
const SALT_OFFSET: usize = 40;
/// Where a packet has its CRC.
const CRC_OFFSET: usize = 20;

/// The salt of a segment, from its bytes; `None` where nothing confirms one.
pub(super) fn recover(segment: &[u8]) -> Option<u32> {
    let packets = segment.get(SEGMENT_HEADER_BYTES as usize..)?;
    let stored = u32::from_be_bytes(*segment.get(SALT_OFFSET..)?.first_chunk()?);
    [Some(stored), solve(packets)].into_iter().flatten().find(|salt| confirms(packets, *salt))
}

/// Whether two packets in a row are whole under this salt, the second continuing the first.
fn confirms(packets: &[u8], salt: u32) -> bool {
    let Ok(first) = Packet::decode(packets, salt) else { return false };
    let second = packets.get(first.bytes as usize..).map(|rest| Packet::decode(rest, salt));
    matches!(second, Some(Ok(second)) if second.previous_crc == first.crc)
}

/// The salt under which the first packet is whole.
fn solve(packets: &[u8]) -> Option<u32> {
    let length = u32::from_be_bytes(*packets.first_chunk()?);
    let whole = (PACKET_HEADER_BYTES + usize::try_from(length).ok()?).next_multiple_of(8);
    let packet = packets.get(..whole)?;
    let wanted = u32::from_be_bytes(*packet.get(CRC_OFFSET..)?.first_chunk()?);
    let constant = packet_crc(packet, 0);
    // Rows of the system: what each bit of the salt changes in the CRC, beside the bit itself.
    let mut rows: Vec<(u32, u32)> =
        (0..32).map(|bit| 1 << bit).map(|salt| (packet_crc(packet, salt) ^ constant, salt)).collect();
    let (mut rest, mut salt) = (wanted ^ constant, 0);
    for bit in (0..32).rev().map(|bit| 1_u32 << bit) {
        let Some(at) = rows.iter().position(|(changes, _)| changes & bit != 0) else { continue };
        let (pivot, its_salt) = rows.swap_remove(at);
        for (changes, by) in &mut rows {
            if *changes & bit != 0 {
                *changes ^= pivot;
                *by ^= its_salt;
            }
        }
        if rest & bit != 0 {
            rest ^= pivot;
            salt ^= its_salt;
        }
    }
    (rest == 0).then_some(salt)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::journal::packet::{Body, Watermark, encode};

    #[test]
    fn any_salt_is_found_again_when_two_packets_are_whole_and_not_from_one() {
        for salt in [0, 1, 0xdead_beef, u32::MAX, 0x8000_0001] {
            let mut segment = vec![0xee; SEGMENT_HEADER_BYTES as usize];
            let first = encode(&mut segment, salt, 5, 77, &Body::Watermark(Watermark::default()));
            let one = segment.clone();
            encode(&mut segment, salt, 6, first, &Body::Watermark(Watermark { running_ms: 9, ..Watermark::default() }));
            assert_eq!(recover(&segment), Some(salt));
            assert_eq!(recover(&one), None);
            segment[600] ^= 1;
            assert_eq!(recover(&segment), None, "the second is not whole");
        }
    }
}
