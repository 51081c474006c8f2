//! How long a client goes on trying, and how long it waits in between. Pure: randomness and time come in from outside.

use crate::wire::{ErrorBody, ErrorCode};

/// How a client deals with connections that break and with servers that ask for patience.
///
/// The wait before the n-th attempt is random between 0 and `delay_first_ms`·2ⁿ, at most `delay_max_ms` (exponential
/// back-off with full jitter): thousands of clients of a server that was restarted do not come back at one instant.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RetryPolicy {
    /// How long a call may take in all, from when it is made, with every connection and wait that it needs; and how
    /// long a lost connection is tried to be made again while events are awaited. 0: nothing is tried again.
    pub total_ms: u64,
    /// Bound of the first wait.
    pub delay_first_ms: u64,
    /// Bound of every wait.
    pub delay_max_ms: u64,
    /// How long in all a call waits for a server whose disk is full. What is short may be room that is just being
    /// made; a disk that is really full should be told.
    pub storage_full_ms: u64,
}

impl RetryPolicy {
    /// Nothing is tried again: the first thing that goes wrong is the answer.
    pub const NONE: Self = Self { total_ms: 0, delay_first_ms: 0, delay_max_ms: 0, storage_full_ms: 0 };

    /// Lost connections are made again for as long as it takes.
    #[must_use]
    pub fn for_ever(self) -> Self {
        Self { total_ms: u64::MAX, ..self }
    }

    /// Whether anything is tried again.
    pub fn retries(&self) -> bool {
        self.total_ms > 0
    }
}

impl Default for RetryPolicy {
    /// Half a minute in all; waits of up to 50 ms, 100 ms, … 5 s; a full disk is waited for one second.
    fn default() -> Self {
        Self { total_ms: 30_000, delay_first_ms: 50, delay_max_ms: 5_000, storage_full_ms: 1_000 }
    }
}

/// The waits of one row of attempts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Backoff {
    attempts: u32,
}

impl Backoff {
    /// How long to wait before the next attempt. `random`: any 64 random bits.
    pub fn next_ms(&mut self, policy: &RetryPolicy, random: u64) -> u64 {
        let doubled = 1_u64.checked_shl(self.attempts).unwrap_or(u64::MAX);
        let bound_ms = policy.delay_first_ms.saturating_mul(doubled).min(policy.delay_max_ms);
        self.attempts = self.attempts.saturating_add(1);
        match bound_ms.checked_add(1) {
            // A modulus of so few bits is as good as even.
            Some(choices) => random % choices,
            None => random,
        }
    }
}

/// Whether a connection that the server closed for this reason may be made again. Not where it would be closed for
/// the same reason again, nor where a newer connection of the same device would be pushed out in turn.
pub(super) fn may_reconnect(reason: &ErrorBody) -> bool {
    match ErrorCode::from_number(reason.code) {
        Some(
            ErrorCode::BadCrc
            | ErrorCode::Slow
            | ErrorCode::Timeout
            | ErrorCode::TooMany
            | ErrorCode::GoingAway
            | ErrorCode::SlowDown
            | ErrorCode::StorageFull,
        ) => true,
        Some(
            ErrorCode::Version
            | ErrorCode::TooLarge
            | ErrorCode::NotAuthenticated
            | ErrorCode::Protocol
            | ErrorCode::AuthFailed
            | ErrorCode::TokenExpired
            | ErrorCode::TakenOver
            | ErrorCode::Kicked
            | ErrorCode::UnknownKind
            | ErrorCode::Malformed
            | ErrorCode::NotFound
            | ErrorCode::Forbidden
            | ErrorCode::Limit
            | ErrorCode::Range
            | ErrorCode::Truncated
            | ErrorCode::NotAMember
            | ErrorCode::IdReused
            | ErrorCode::Damaged,
        )
        | None => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_grow_to_their_bound_and_are_spread_over_all_of_it() {
        let policy = RetryPolicy::default();
        let mut backoff = Backoff::default();
        let bounds: Vec<u64> = (0..70)
            .map(|_| {
                let mut same = backoff;
                let longest = (0..20_000).map(|random| same.clone().next_ms(&policy, random)).max();
                assert_eq!(same.next_ms(&policy, 0), 0, "full jitter begins at nothing");
                backoff = same;
                longest.unwrap()
            })
            .collect();
        assert_eq!(bounds[..8], [50, 100, 200, 400, 800, 1_600, 3_200, 5_000]);
        assert!(bounds[8..].iter().all(|bound| *bound == 5_000), "and stays there: {bounds:?}");
    }

    #[test]
    fn who_was_pushed_out_or_not_let_in_stays_away() {
        let body = |code| ErrorBody::new(code, 0, "");
        for code in [ErrorCode::TakenOver, ErrorCode::AuthFailed, ErrorCode::TokenExpired, ErrorCode::Version] {
            assert!(!may_reconnect(&body(code)), "{code:?}");
        }
        for code in [ErrorCode::Slow, ErrorCode::GoingAway, ErrorCode::Timeout] {
            assert!(may_reconnect(&body(code)), "{code:?}");
        }
    }
}
