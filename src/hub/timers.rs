//! Deadlines of connections: one entry a connection in an ordered set, looked at again when it comes up.
//!
//! Invariant: a connection's entry is never later than its deadline, so nothing is missed; it may be earlier, for
//! hearing from a peer moves the deadline and leaves the entry where it is. So a busy connection costs nothing here.
//! Entries are put earlier by less than [`TOGETHER_MS`], so that the many that find nothing to do come up together.

use super::Hub;
use super::connection::{ConnectionKey, Overdue};
use crate::wire::{ErrorCode, Push};

/// Deadlines that begin within one such stretch come up at its beginning, and again when they are there.
const TOGETHER_MS: u64 = 256;

impl Hub {
    /// Sees to it that a connection comes up at its deadline at the latest.
    pub(super) fn arm(&mut self, key: ConnectionKey) {
        let Some(connection) = self.connections.find_mut(key) else { return };
        let (deadline_ms, _) = connection.deadline();
        let together_ms = deadline_ms - deadline_ms % TOGETHER_MS;
        let timer_ms = if together_ms > self.now.monotonic_ms { together_ms } else { deadline_ms };
        if timer_ms < connection.timer_ms {
            self.timers.remove(&(connection.timer_ms, key));
            connection.timer_ms = timer_ms;
            self.timers.insert((timer_ms, key));
        }
    }

    /// Acts on every deadline that has passed.
    pub(super) fn expire_timers(&mut self) {
        while let Some((due_ms, key)) = self.timers.first().copied() {
            if due_ms > self.now.monotonic_ms {
                return;
            }
            self.timers.remove(&(due_ms, key));
            let Some(connection) = self.connections.find_mut(key) else { continue };
            connection.timer_ms = u64::MAX;
            let (deadline_ms, overdue) = connection.deadline();
            if deadline_ms <= self.now.monotonic_ms {
                self.expire(key, overdue);
            }
            // A closing connection comes up once more, to be closed whether its last bytes were taken or not.
            self.arm(key);
        }
    }

    fn expire(&mut self, key: ConnectionKey, overdue: Overdue) {
        let Some(connection) = self.connections.find(key) else { return };
        let waiting = connection.outbox.bytes();
        match overdue {
            Overdue::Linger => self.drop_now(key),
            Overdue::Authentication => self.close_with(key, ErrorCode::Timeout, 0, "no hello came in time"),
            Overdue::Silence => self.close_with(key, ErrorCode::Timeout, 0, "nothing was heard for 2.5 heartbeats"),
            Overdue::TokenSoon => {
                let session = self.connections.find_mut(key).and_then(|connection| connection.session_mut());
                let Some(session) = session else { return };
                session.told_of_end = true;
                let expires_at_ms = self.now.wall_ms;
                self.append(key, |out| Push::AuthenticateSoon { expires_at_ms }.encode_frame(out));
            }
            Overdue::Token => self.close_with(key, ErrorCode::TokenExpired, 0, "the token has expired"),
            Overdue::Frame => self.close_with(key, ErrorCode::Timeout, 0, "a frame was begun and not finished"),
            Overdue::Output => {
                self.counters.closed_slow += 1;
                self.cut(key, waiting);
            }
        }
    }

    /// Closes a connection at once, with what it has not taken.
    fn drop_now(&mut self, key: ConnectionKey) {
        self.end_burst();
        if let Some(connection) = self.connections.find_mut(key) {
            self.output_bytes -= connection.outbox.clear();
            connection.closing_ms = u64::MAX / 2;
            self.closed.push_back(key);
        }
    }
}
