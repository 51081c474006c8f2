//! The bound on all buffers together: output, frames that are not whole yet, requests under way. When they are over it,
//! the largest debtor goes first.
//!
//! Invariant: `input_bytes` is the sum of `counted_input` over all connections, and that of a connection is what it held
//! when it was last counted: behind each of its inputs, and when the last of its requests is done.

use super::Hub;
use super::connection::{Connection, ConnectionKey};
use crate::wire::{Deframer, ErrorCode};

impl Hub {
    /// Counts anew what a connection has sent and what is not done yet.
    pub(super) fn recount_input(&mut self, key: ConnectionKey) {
        let Some(connection) = self.connections.find_mut(key) else { return };
        let bytes = connection.deframer.buffered_bytes() + connection.request_bytes as usize;
        self.input_bytes = self.input_bytes + bytes - connection.counted_input;
        connection.counted_input = bytes;
    }

    /// What came and was not taken is never taken any more.
    pub(super) fn drop_input(&mut self, key: ConnectionKey) {
        if let Some(connection) = self.connections.find_mut(key) {
            connection.deframer = Deframer::default();
            self.recount_input(key);
        }
    }

    /// While all buffers together are over their bound, the largest debtor goes.
    pub(super) fn shed_buffers(&mut self) {
        while self.output_bytes + self.input_bytes > self.buffer_bytes_max {
            let keys = self.connections.keys().into_iter();
            let debts = keys.filter_map(|key| self.connections.find(key).map(|found| (debt(found), key)));
            let Some((waiting, key)) = debts.max().filter(|(waiting, _)| *waiting > 0) else { return };
            self.counters.closed_slow += 1;
            if let Some(connection) = self.connections.find_mut(key) {
                self.output_bytes -= connection.outbox.cut();
            }
            let message = "the server's buffers are full, and those of this connection are the largest";
            self.close_with(key, ErrorCode::Slow, waiting as u64, message);
        }
    }
}

/// What cutting a connection off would free, now or as soon as its requests are done. One that is closing has been cut
/// off already, but for what it has still to be told.
fn debt(connection: &Connection) -> usize {
    connection.outbox.bytes() + if connection.closing { 0 } else { connection.counted_input }
}
