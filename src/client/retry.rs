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

    /// How long to wait before a request is made again that was refused with this, `elapsed_ms` after the call was made;
    /// nothing if waiting does not help, or would take longer than is to be waited. `full`: the waits of this call for a
    /// full disk. `random`: any 64 random bits.
    pub fn wait_ms(&self, refusal: &ErrorBody, elapsed_ms: u64, full: &mut Backoff, random: u64) -> Option<u64> {
        let (wait_ms, bound_ms) = match ErrorCode::from_number(refusal.code)? {
            ErrorCode::SlowDown => (refusal.detail.max(1), self.total_ms),
            ErrorCode::StorageFull => (full.next_ms(self, random), self.storage_full_ms),
            _ => return None,
        };
        (elapsed_ms.saturating_add(wait_ms) < bound_ms).then_some(wait_ms)
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

    fn refusal(code: ErrorCode, detail: u64) -> ErrorBody {
        ErrorBody::new(code, detail, "")
    }

    #[test]
    fn a_full_disk_is_waited_for_with_growing_waits_and_no_longer_than_the_policy_says() {
        let policy = RetryPolicy::default();
        let full = refusal(ErrorCode::StorageFull, 0);
        let mut backoff = Backoff::default();
        // The longest waits that there can be: 50 of 0 … 50, 100 of 0 … 100, and so on.
        let waits: Vec<u64> = [50, 100, 200].map(|r| policy.wait_ms(&full, 0, &mut backoff, r).unwrap()).into();
        assert_eq!(waits, [50, 100, 200]);
        for (elapsed_ms, waited) in [(949, true), (950, false), (951, false), (u64::MAX, false)] {
            let wait = policy.wait_ms(&full, elapsed_ms, &mut Backoff::default(), 50);
            assert_eq!(wait.is_some(), waited, "50 ms after {elapsed_ms}");
        }
        // With every wait at its longest, and an answer that takes no time, somebody is told within a second.
        let (mut elapsed_ms, mut backoff, mut attempts) = (0, Backoff::default(), 1);
        while let Some(wait_ms) = policy.wait_ms(&full, elapsed_ms, &mut backoff, 50 << (attempts - 1)) {
            elapsed_ms += wait_ms;
            attempts += 1;
        }
        assert_eq!((elapsed_ms, attempts), (750, 5));
    }

    #[test]
    fn slow_down_is_waited_for_as_it_says_as_long_as_the_call_may_take() {
        let policy = RetryPolicy::default();
        let mut full = Backoff::default();
        let mut wait_ms = |detail, elapsed_ms| {
            let slow = refusal(ErrorCode::SlowDown, detail);
            policy.wait_ms(&slow, elapsed_ms, &mut full, u64::MAX)
        };
        assert_eq!(wait_ms(700, 0), Some(700), "neither more nor less, whatever the randomness");
        assert_eq!(wait_ms(700, 29_299), Some(700));
        assert_eq!(wait_ms(700, 29_300), None, "it would be over the half minute");
        assert_eq!(wait_ms(0, 0), Some(1), "never a loop without a pause");
        assert_eq!(wait_ms(u64::MAX, 1), None);
        assert_eq!(full, Backoff::default(), "the waits for a full disk are counted apart");
    }

    #[test]
    fn nothing_else_is_waited_for_and_without_retries_nothing_at_all() {
        let waited = [ErrorCode::SlowDown, ErrorCode::StorageFull];
        for number in 0..=u16::MAX {
            let Some(code) = ErrorCode::from_number(number) else { continue };
            let of = |policy: RetryPolicy| policy.wait_ms(&refusal(code, 1), 0, &mut Backoff::default(), 1).is_some();
            assert_eq!(of(RetryPolicy::default()), waited.contains(&code), "{code:?}");
            assert!(!of(RetryPolicy::NONE), "{code:?}");
        }
        let unknown = ErrorBody { code: u16::MAX, detail: 1, message: String::new() };
        assert_eq!(RetryPolicy::default().wait_ms(&unknown, 0, &mut Backoff::default(), 1), None);
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
