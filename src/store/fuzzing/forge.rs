//! Packets as only somebody who knows the salt could make them: any kind, version, LSN and body, under a right CRC.

use crate::store::journal::packet::{PACKET_HEADER_BYTES, packet_crc, padded};

/// What the header of a packet says.
#[derive(Clone, Copy, Debug)]
pub(super) struct Forged<'a> {
    pub(super) kind: u8,
    pub(super) version: u8,
    pub(super) lsn: u64,
    pub(super) previous_crc: u32,
    pub(super) body: &'a [u8],
}

impl Forged<'_> {
    /// Its bytes, and its CRC.
    pub(super) fn encode(&self, salt: u32) -> (Vec<u8>, u32) {
        let mut packet = Vec::new();
        packet.extend_from_slice(&u32::try_from(self.body.len()).expect("a short body").to_be_bytes());
        packet.extend_from_slice(&[self.kind, self.version, 0, 0]);
        packet.extend_from_slice(&self.lsn.to_be_bytes());
        packet.extend_from_slice(&self.previous_crc.to_be_bytes());
        packet.extend_from_slice(&[0; 4]);
        assert_eq!(packet.len(), PACKET_HEADER_BYTES);
        packet.extend_from_slice(self.body);
        packet.resize(padded(self.body.len()), 0);
        let crc = packet_crc(&packet, salt);
        packet[20..24].copy_from_slice(&crc.to_be_bytes());
        (packet, crc)
    }
}
