//! The closed loop with a window: one sender, and a bounded number of its messages on their way.
//!
//! A message is on its way from when it is written until the slowest member has it whole. As soon as the oldest of the
//! window has arrived everywhere, as many new ones are written, in one call, as fit into the window again. A window of
//! 1 is one message at a time. What the system answers to the sender is read and opens nothing.

use std::time::{Duration, Instant};

use super::field::Field;
use super::peers::Item;
use super::sample::{Latency, Sample};
use crate::cli::failure::Failure;

/// How long a round is.
#[derive(Clone, Copy)]
pub(super) enum Bound {
    Time(Duration),
    /// Messages.
    Count(u64),
}

/// Whose latency counts.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Clocked {
    /// Each delivery of each message.
    Each,
    /// The last delivery of each message; a message counts as one.
    Last,
}

pub(super) struct Closed {
    pub(super) window: u64,
    pub(super) warm_up: Bound,
    pub(super) bound: Bound,
    pub(super) clocked: Clocked,
}

impl Closed {
    /// Warms up, then measures: from an idle system to an idle system, so what is counted and what was done are the same.
    pub(super) fn run(&self, field: &mut Field) -> Result<Sample, Failure> {
        self.part(field, self.warm_up)?;
        let (flight, elapsed, cpu_ns) = field.timed(|field| self.part(field, self.bound))?;
        let items = match self.clocked {
            Clocked::Each => flight.deliveries,
            Clocked::Last => flight.arrived,
        };
        Ok(Sample { items, elapsed, cpu_ns, latency: flight.latency })
    }

    /// Warms up, says so, and goes on until it is told that it is over and everything has arrived.
    pub(super) fn run_until(
        &self,
        field: &mut Field,
        flows: impl FnOnce() -> Result<(), Failure>,
        is_over: &mut dyn FnMut() -> bool,
    ) -> Result<Sample, Failure> {
        self.part(field, self.warm_up)?;
        flows()?;
        let (flight, elapsed, cpu_ns) =
            field.timed(|field| self.launch_while(field, &mut |_| if is_over() { 0 } else { u64::MAX }))?;
        Ok(Sample { items: flight.deliveries, elapsed, cpu_ns, latency: flight.latency })
    }

    fn part(&self, field: &mut Field, bound: Bound) -> Result<Flight, Failure> {
        let begun = Instant::now();
        self.launch_while(field, &mut |sent| match bound {
            Bound::Time(time) if begun.elapsed() < time => u64::MAX,
            Bound::Time(_) => 0,
            Bound::Count(count) => count - sent,
        })
    }

    /// `left` is told how many messages were sent, and says how many more there may be.
    fn launch_while(&self, field: &mut Field, left: &mut dyn FnMut(u64) -> u64) -> Result<Flight, Failure> {
        let mut flight = Flight::new(self.window, field.members, self.clocked);
        let mut out = Vec::new();
        loop {
            let launched = flight.room().min(left(flight.sent));
            out.clear();
            (0..launched).for_each(|_| field.peer.request(0, 0, &mut out));
            if launched > 0 {
                flight.launch(launched, Instant::now());
                field.send(0, &out)?;
            } else if flight.room() == self.window {
                return Ok(flight);
            }
            turn(field, &mut flight)?;
        }
    }
}

fn turn(field: &mut Field, flight: &mut Flight) -> Result<(), Failure> {
    let senders = field.senders;
    let name = field.peer.name();
    // The clock is read once for what one read brought.
    let mut last = (usize::MAX, Instant::now());
    field.turn(&mut |slot, item| {
        if item == Item::Delivery && slot >= senders {
            if last.0 != slot {
                last = (slot, Instant::now());
            }
            return flight.deliver(slot - senders, last.1).map_err(|what| super::failed(format!("{name}: {what}")));
        }
        Ok(())
    })
}

/// The messages on their way.
///
/// Invariant: `arrived <= next[m] <= sent <= arrived + window` for each member m, and the cell of each message that is
/// on its way counts the members that have it.
struct Flight {
    sent: u64,
    /// Messages below this have arrived everywhere.
    arrived: u64,
    deliveries: u64,
    cells: Vec<Cell>,
    /// Of each member: the number of the message that it gets next.
    next: Vec<u64>,
    clocked: Clocked,
    latency: Latency,
}

struct Cell {
    members: usize,
    sent_at: Instant,
}

impl Flight {
    fn new(window: u64, members: usize, clocked: Clocked) -> Self {
        let cells = (0..window).map(|_| Cell { members: 0, sent_at: Instant::now() }).collect();
        Self { sent: 0, arrived: 0, deliveries: 0, cells, next: vec![0; members], clocked, latency: Latency::new() }
    }

    fn room(&self) -> u64 {
        self.window() - (self.sent - self.arrived)
    }

    fn window(&self) -> u64 {
        u64::try_from(self.cells.len()).unwrap_or(u64::MAX)
    }

    fn cell(&mut self, message: u64) -> &mut Cell {
        let place = usize::try_from(message % self.window()).unwrap_or(0);
        &mut self.cells[place]
    }

    fn launch(&mut self, count: u64, now: Instant) {
        for message in self.sent..self.sent + count {
            *self.cell(message) = Cell { members: 0, sent_at: now };
        }
        self.sent += count;
    }

    fn deliver(&mut self, member: usize, now: Instant) -> Result<(), &'static str> {
        let message = self.next[member];
        if message >= self.sent {
            return Err("a member got more than was sent");
        }
        self.next[member] += 1;
        self.deliveries += 1;
        let members = self.next.len();
        let cell = self.cell(message);
        cell.members += 1;
        let (took, is_last) = (now.saturating_duration_since(cell.sent_at), cell.members == members);
        if is_last || self.clocked == Clocked::Each {
            self.latency.record(took);
        }
        // A member gets messages in order, so whoever has the newest has all: they arrive everywhere in order too.
        if is_last {
            assert_eq!(message, self.arrived, "messages arrive everywhere in the order in which they were sent");
            self.arrived += 1;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_is_on_its_way_until_the_slowest_member_has_it() {
        let now = Instant::now();
        let mut flight = Flight::new(2, 3, Clocked::Last);
        flight.launch(2, now);
        assert_eq!(flight.room(), 0);
        for member in [0, 0, 1, 1] {
            flight.deliver(member, now).unwrap();
        }
        assert_eq!(flight.room(), 0, "two have both, the third has none");
        flight.deliver(2, now).unwrap();
        assert_eq!((flight.room(), flight.arrived), (1, 1));
        flight.launch(1, now);
        flight.deliver(2, now).unwrap();
        assert_eq!((flight.room(), flight.arrived, flight.deliveries), (1, 2, 6));
    }

    #[test]
    fn what_was_never_sent_is_an_error() {
        let mut flight = Flight::new(1, 1, Clocked::Each);
        assert!(flight.deliver(0, Instant::now()).is_err());
    }
}
