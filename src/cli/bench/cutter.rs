//! Cuts what a system sends into items, without keeping more than the beginning of one.

use super::peers::{Cut, Item, Peer, Seat};
use crate::cli::failure::Failure;

/// The place in one connection's stream.
///
/// Invariant: either `skip` bytes of an item are still to come, or `kept` has the beginning of an item whose length is
/// not known yet. Bodies are counted, not copied: the generator must cost less than what it measures.
#[derive(Default)]
pub(super) struct Cutter {
    skip: usize,
    item: Option<Item>,
    kept: Vec<u8>,
}

impl Cutter {
    /// The beginning of an item that came before; whoever reads puts it in front of what comes next.
    pub(super) fn kept(&self) -> &[u8] {
        &self.kept
    }

    /// Takes what was kept, with what came behind it, and tells each item once its last byte is there.
    pub(super) fn take(
        &mut self,
        seat: Seat,
        mut bytes: &[u8],
        peer: &dyn Peer,
        mut on: impl FnMut(Item) -> Result<(), Failure>,
    ) -> Result<(), Failure> {
        self.kept.clear();
        loop {
            let skipped = self.skip.min(bytes.len());
            self.skip -= skipped;
            bytes = &bytes[skipped..];
            if self.skip > 0 {
                return Ok(());
            }
            if let Some(item) = self.item.take() {
                on(item)?;
            }
            if bytes.is_empty() {
                return Ok(());
            }
            let Some(Cut { bytes: length, item }) = peer.cut(seat, bytes).map_err(|what| peer.failed(&what))? else {
                self.kept.extend_from_slice(bytes);
                return Ok(());
            };
            self.skip = length;
            self.item = Some(item);
        }
    }
}
