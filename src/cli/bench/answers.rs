//! Clients that each wait for their answer: as many requests are on their way as there are clients.

use std::time::Instant;

use super::closed::Bound;
use super::failed;
use super::field::Field;
use super::peers::Item;
use super::sample::{Latency, Sample};
use crate::cli::failure::Failure;

pub(super) struct Answered {
    pub(super) warm_up: Bound,
    pub(super) bound: Bound,
}

impl Answered {
    /// Warms up, then measures: from an idle system to an idle system.
    pub(super) fn run(&self, field: &mut Field) -> Result<Sample, Failure> {
        part(field, self.warm_up)?;
        let ((items, latency), elapsed, cpu_ns) = field.timed(|field| part(field, self.bound))?;
        Ok(Sample { items, elapsed, cpu_ns, latency })
    }
}

/// Gives how many answers came, and how long each took.
fn part(field: &mut Field, bound: Bound) -> Result<(u64, Latency), Failure> {
    let begun = Instant::now();
    let goes_on = |sent: u64| match bound {
        Bound::Time(time) => begun.elapsed() < time,
        Bound::Count(count) => sent < count,
    };
    let (mut sent, mut answered, mut latency) = (0, 0, Latency::new());
    // Since when each client waits.
    let mut waits: Vec<Option<Instant>> = vec![None; field.senders];
    let mut free: Vec<usize> = (0..field.senders).collect();
    let mut out = Vec::new();
    let name = field.peer.name();
    loop {
        for client in free.drain(..) {
            if !goes_on(sent) {
                break;
            }
            out.clear();
            field.peer.request(client, 0, &mut out);
            waits[client] = Some(Instant::now());
            field.send(client, &out)?;
            sent += 1;
        }
        if answered == sent {
            return Ok((answered, latency));
        }
        field.turn(&mut |client, item| {
            if item == Item::Answer {
                let since = waits[client].take().ok_or_else(|| failed(format!("{name} answered what nobody asked")))?;
                latency.record(since.elapsed());
                answered += 1;
                free.push(client);
            }
            Ok(())
        })?;
    }
}
