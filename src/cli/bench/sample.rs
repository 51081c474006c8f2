//! What one round of one system came to, and what many rounds say together.

use std::time::Duration;

use hdrhistogram::Histogram;

/// Latencies up to this are told apart, longer ones counted as this: a minute, in nanoseconds.
const LATENCY_NS_MAX: u64 = 60_000_000_000;

/// Latencies in nanoseconds, three digits of each.
pub(super) struct Latency(Histogram<u64>);

impl Latency {
    pub(super) fn new() -> Self {
        Self(Histogram::new_with_bounds(1, LATENCY_NS_MAX, 3).expect("the bounds are legal"))
    }

    pub(super) fn record(&mut self, time: Duration) {
        self.0.saturating_record(u64::try_from(time.as_nanos()).unwrap_or(u64::MAX));
    }

    pub(super) fn p50_us(&self) -> f64 {
        self.quantile_us(0.5)
    }

    /// The latency in microseconds that this share of all did not exceed.
    fn quantile_us(&self, share: f64) -> f64 {
        float(self.0.value_at_quantile(share)) / 1e3
    }
}

/// One round.
pub(super) struct Sample {
    /// Deliveries, creates or messages.
    pub(super) items: u64,
    pub(super) elapsed: Duration,
    /// CPU of the system meanwhile; none if nobody said which process it is.
    pub(super) cpu_ns: Option<u64>,
    pub(super) latency: Latency,
}

impl Sample {
    pub(super) fn per_second(&self) -> f64 {
        float(self.items) / self.elapsed.as_secs_f64()
    }

    pub(super) fn cpu_us(&self) -> Option<f64> {
        Some(float(self.cpu_ns?) / 1e3 / float(self.items))
    }

    pub(super) fn p50_us(&self) -> f64 {
        self.latency.p50_us()
    }

    pub(super) fn p99_us(&self) -> f64 {
        self.latency.quantile_us(0.99)
    }

    pub(super) fn p99_9_us(&self) -> f64 {
        self.latency.quantile_us(0.999)
    }
}

/// A figure over all rounds.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Spread {
    pub(super) median: f64,
    pub(super) lowest: f64,
    pub(super) highest: f64,
}

impl Spread {
    /// Of the values of all rounds; none if a round has none.
    pub(super) fn of(values: impl Iterator<Item = Option<f64>>) -> Option<Self> {
        let mut values = values.collect::<Option<Vec<f64>>>()?;
        values.sort_by(f64::total_cmp);
        let (lowest, highest) = (*values.first()?, *values.last()?);
        let middle = values.len() / 2;
        let median =
            if values.len() % 2 == 1 { values[middle] } else { f64::midpoint(values[middle - 1], values[middle]) };
        Some(Self { median, lowest, highest })
    }
}

/// How many there are of something in memory.
pub(super) fn count(items: usize) -> u64 {
    u64::try_from(items).unwrap_or(u64::MAX)
}

/// A count as a figure: what is beyond 2⁵³ is rounded.
#[expect(clippy::cast_precision_loss)]
pub(super) fn float(count: u64) -> f64 {
    count as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_median_is_that_of_the_sorted_values_and_of_two_their_middle() {
        let spread = |values: &[f64]| Spread::of(values.iter().copied().map(Some)).unwrap();
        assert_eq!(spread(&[3.0, 1.0, 2.0]), Spread { median: 2.0, lowest: 1.0, highest: 3.0 });
        assert_eq!(spread(&[4.0, 1.0, 2.0, 3.0]).median.to_bits(), 2.5_f64.to_bits());
        assert_eq!(Spread::of([Some(1.0), None].into_iter()), None, "a round without a value is no value");
        assert_eq!(Spread::of([].into_iter()), None);
    }

    #[test]
    fn latencies_keep_three_digits_and_lose_none_that_is_too_long() {
        let mut latency = Latency::new();
        for us in 1..=1_000 {
            latency.record(Duration::from_micros(us));
        }
        assert!((latency.quantile_us(0.5) - 500.0).abs() < 1.0, "{}", latency.quantile_us(0.5));
        assert!((latency.quantile_us(0.99) - 990.0).abs() < 2.0);
        latency.record(Duration::from_secs(3_600));
        assert!(latency.quantile_us(1.0) > 59e6);
    }
}
