//! Whether the process stood still: stopped, moved to another machine, asleep.
//!
//! Behind that, deadlines have passed that the peers may have met: what they said waits in their sockets, and the system
//! interrupts the poll without telling of any. So nobody is found silent or slow before everything that waits has been
//! heard once and what waits for them has been offered to their sockets once.

/// What a turn takes at most, beside waiting; more than that is a standstill.
const TURN_MS_MAX: u64 = 1_000;

/// What a poll has told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Told {
    /// Nothing: it was interrupted.
    Nothing,
    /// As much as it can, and there may be more.
    Some,
    /// Every socket that has something.
    All,
}

/// Watches the time between turns.
#[derive(Debug, Default)]
pub(super) struct Standstill {
    last_ms: u64,
    /// How long the poll was to wait; nothing if until something happens.
    waits_ms: Option<u64>,
    /// Polls until everything that waited has been told, if it stood still.
    polls_owed: usize,
    /// Turns until everything that was to be written has been offered.
    turns_owed: usize,
}

impl Standstill {
    /// The poll is about to wait so long.
    pub(super) fn wait(&mut self, waits_ms: Option<u64>) {
        self.waits_ms = waits_ms;
    }

    /// Whether the next turns come without waiting.
    pub(super) fn is_catching_up(&self) -> bool {
        self.polls_owed > 0 || self.turns_owed > 0
    }

    /// A turn begins, which reads what the poll has told. So many polls tell of all peers, and so many turns write to all
    /// of them, at most. Gives whether deadlines that have passed count.
    pub(super) fn may_judge(&mut self, now_ms: u64, told: Told, polls: usize, turns: usize) -> bool {
        let planned_ms = self.waits_ms.map_or(u64::MAX, |waits_ms| waits_ms.saturating_add(TURN_MS_MAX));
        if now_ms.saturating_sub(self.last_ms) > planned_ms {
            (self.polls_owed, self.turns_owed) = (polls, turns);
        }
        self.last_ms = now_ms;
        if self.polls_owed > 0 {
            self.polls_owed = match told {
                Told::Nothing => self.polls_owed,
                Told::Some => self.polls_owed - 1,
                Told::All => 0,
            };
            return false;
        }
        if self.turns_owed > 0 {
            self.turns_owed -= 1;
            return false;
        }
        told != Told::Nothing
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_long_wait_that_was_planned_is_no_standstill() {
        let mut standstill = Standstill::default();
        for (waits_ms, now_ms) in [(Some(0), 10), (Some(30_000), 30_010), (Some(0), 30_500), (None, 900_000)] {
            standstill.wait(waits_ms);
            assert!(standstill.may_judge(now_ms, Told::All, 2, 3), "at {now_ms}");
        }
    }

    #[test]
    fn behind_a_standstill_nobody_is_judged_before_all_is_heard_and_offered() {
        let mut standstill = Standstill::default();
        standstill.wait(Some(30_000));
        assert!(!standstill.may_judge(60_000, Told::Nothing, 3, 2));
        standstill.wait(Some(0));
        assert!(!standstill.may_judge(60_001, Told::Some, 3, 2));
        assert!(!standstill.may_judge(60_002, Told::All, 3, 2), "this turn only reads");
        assert!(!standstill.may_judge(60_003, Told::All, 3, 2));
        assert!(standstill.is_catching_up());
        assert!(!standstill.may_judge(60_004, Told::All, 3, 2));
        assert!(!standstill.is_catching_up());
        assert!(standstill.may_judge(60_005, Told::All, 3, 2));
    }

    #[test]
    fn a_poll_that_always_has_more_does_not_put_deadlines_off_for_ever() {
        let mut standstill = Standstill::default();
        standstill.wait(Some(0));
        let judged = (0..10).filter(|turn| standstill.may_judge(60_000 + turn, Told::Some, 3, 2)).count();
        assert_eq!(judged, 5);
    }

    #[test]
    fn a_poll_that_was_merely_interrupted_judges_nobody_in_its_turn() {
        let mut standstill = Standstill::default();
        standstill.wait(Some(10));
        assert!(!standstill.may_judge(10, Told::Nothing, 3, 5));
        assert!(standstill.may_judge(11, Told::Some, 3, 5));
    }
}
