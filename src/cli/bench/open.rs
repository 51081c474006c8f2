//! The open loop: requests are due at fixed times, whatever has become of those before.
//!
//! The clock of each begins when it was due, not when it was written: a system that stops for a second is charged for
//! everything that should have been sent meanwhile (no coordinated omission), and so is a generator that is late, in
//! the same way for all systems.

use std::time::{Duration, Instant};

use super::failed;
use super::field::Field;
use super::options::Seconds;
use super::peers::Item;
use super::sample::{Latency, Sample, count};
use crate::cli::failure::Failure;

/// Messages to groups in turn, from one sender.
pub(super) struct Open {
    /// Time from one message to the next.
    period: Duration,
    warm_up: Duration,
    duration: Duration,
    groups: u64,
    /// Members of each group.
    members: u64,
}

impl Open {
    /// As many messages as make so many deliveries a second.
    pub(super) fn at_rate(rate: u32, groups: u32, members: u32, seconds: Seconds) -> Self {
        Self {
            period: Duration::from_secs(1) * members / rate,
            warm_up: seconds.warm_up(),
            duration: seconds.duration(),
            groups: u64::from(groups),
            members: u64::from(members),
        }
    }

    pub(super) fn run(&self, field: &mut Field) -> Result<Sample, Failure> {
        let mut next = vec![0; field.members];
        let begins_with = self.part(field, self.warm_up, 0, &mut next)?.0;
        let ((sent, latency), elapsed, cpu_ns) =
            field.timed(|field| self.part(field, self.duration, begins_with, &mut next))?;
        Ok(Sample { items: (sent - begins_with) * self.members, elapsed, cpu_ns, latency })
    }

    /// Sends what is due in a time, beginning with a message's number, and waits until all have arrived. Gives the
    /// number to go on with. `next` has, for each member, how many messages of its group it got.
    fn part(
        &self,
        field: &mut Field,
        duration: Duration,
        first: u64,
        next: &mut [u64],
    ) -> Result<(u64, Latency), Failure> {
        let begun = Instant::now();
        let due = |message: u64| begun + nanoseconds(self.period.as_nanos() * u128::from(message - first));
        let messages = u64::try_from(duration.as_nanos() / self.period.as_nanos().max(1)).unwrap_or(u64::MAX);
        let end = first + messages.max(self.groups);
        let (mut sent, mut missing, mut latency) = (first, (end - first) * self.members, Latency::new());
        let (senders, name) = (field.senders, field.peer.name());
        let mut out = Vec::new();
        while missing > 0 {
            out.clear();
            while sent < end && due(sent) <= Instant::now() {
                field.peer.request(0, usize::try_from(sent % self.groups).unwrap_or(0), &mut out);
                sent += 1;
            }
            if !out.is_empty() {
                field.send(0, &out)?;
            }
            if sent < end {
                field.crowd.wake_at(due(sent))?;
            }
            let mut last = (usize::MAX, begun);
            field.turn(&mut |slot, item| {
                if item != Item::Delivery || slot < senders {
                    return Ok(());
                }
                if last.0 != slot {
                    last = (slot, Instant::now());
                }
                let member = slot - senders;
                let message = next[member] * self.groups + count(member) / self.members;
                if message >= sent || message < first {
                    return Err(failed(format!("{name}: a member got what was not sent to it")));
                }
                next[member] += 1;
                missing -= 1;
                latency.record(last.1.saturating_duration_since(due(message)));
                Ok(())
            })?;
        }
        assert!(sent == end, "everything was sent before everything arrived");
        Ok((end, latency))
    }
}

pub(super) fn nanoseconds(time: u128) -> Duration {
    Duration::from_nanos(u64::try_from(time).unwrap_or(u64::MAX))
}
