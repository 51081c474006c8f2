//! What was measured, as a table for people and as one object for programs.

use std::fmt::Write as _;

use serde_json::{Map, Value, json};

use super::peers::PeerName;
use super::run::{Absent, Measured, Rounds};
use super::sample::{Sample, Spread};
use crate::cli::failure::Failure;
use crate::cli::output::{Output, Paint};

/// What is counted.
#[derive(Clone, Copy)]
pub(super) struct Unit {
    pub(super) one: &'static str,
    pub(super) many: &'static str,
}

pub(super) const DELIVERY: Unit = Unit { one: "delivery", many: "deliveries" };
pub(super) const CREATE: Unit = Unit { one: "create", many: "creates" };
pub(super) const MESSAGE: Unit = Unit { one: "message", many: "messages" };

/// Which ratio is `ratio_to_raw`: always ours divided by the raw limit's.
#[derive(Clone, Copy)]
pub(super) enum Headline {
    /// Server CPU of an item: 1 is the floor, more is worse.
    Cpu,
    /// Items a second: 1 is the ceiling, less is worse.
    Rate,
    /// Median latency: 1 is the floor, more is worse.
    Latency,
}

pub(super) struct Report {
    /// What ran, in words.
    pub(super) title: String,
    /// The same for programs: the bench and its parameters.
    pub(super) parameters: Value,
    pub(super) unit: Unit,
    pub(super) headline: Headline,
}

/// The figures of a system over all rounds.
pub(super) struct Figures {
    per_second: Spread,
    cpu_us: Option<Spread>,
    /// p50, p99, p99.9.
    pub(super) latency_us: [Spread; 3],
}

impl Figures {
    pub(super) fn of(rounds: &Rounds) -> Self {
        let spread = |value: fn(&Sample) -> f64| {
            Spread::of(rounds.samples.iter().map(|sample| Some(value(sample)))).expect("there is at least one round")
        };
        Self {
            per_second: spread(Sample::per_second),
            cpu_us: Spread::of(rounds.samples.iter().map(Sample::cpu_us)),
            latency_us: [spread(Sample::p50_us), spread(Sample::p99_us), spread(Sample::p99_9_us)],
        }
    }

    pub(super) fn latency(&self) -> Value {
        let [p50, p99, p99_9] = self.latency_us.map(|spread| round(spread.median));
        json!({"p50": p50, "p99": p99, "p99_9": p99_9})
    }

    fn latency_ranges(&self) -> Value {
        let [p50, p99, p99_9] = self.latency_us.map(|spread| range(Some(spread)));
        json!({"p50": p50, "p99": p99, "p99_9": p99_9})
    }
}

/// Ours divided by another's, round by round: both were measured within seconds of each other.
pub(super) struct Ratios {
    pub(super) rate: Spread,
    pub(super) cpu: Option<Spread>,
    pub(super) p50: Spread,
    pub(super) p99: Spread,
    pub(super) p99_9: Spread,
}

impl Ratios {
    pub(super) fn of(ours: &Rounds, other: &Rounds) -> Self {
        let pairs = || ours.samples.iter().zip(&other.samples);
        let ratio = |value: fn(&Sample) -> f64| {
            Spread::of(pairs().map(|(ours, other)| Some(value(ours) / value(other))))
                .expect("there is at least one round")
        };
        Self {
            rate: ratio(Sample::per_second),
            cpu: Spread::of(pairs().map(|(ours, other)| Some(ours.cpu_us()? / other.cpu_us()?))),
            p50: ratio(Sample::p50_us),
            p99: ratio(Sample::p99_us),
            p99_9: ratio(Sample::p99_9_us),
        }
    }

    /// Items of a second of server CPU, ours divided by the other's.
    pub(super) fn per_cpu_second(&self) -> Option<f64> {
        self.cpu.map(|spread| 1.0 / spread.median)
    }

    fn headline(&self, headline: Headline) -> Option<Spread> {
        match headline {
            Headline::Cpu => self.cpu,
            Headline::Rate => Some(self.rate),
            Headline::Latency => Some(self.p50),
        }
    }

    fn object(&self) -> Value {
        json!({
            "rate": round(self.rate.median),
            "cpu": self.cpu.map(|spread| round(spread.median)),
            "per_cpu_second": self.per_cpu_second().map(round),
            "p50": round(self.p50.median),
            "p99": round(self.p99.median),
        })
    }
}

impl Report {
    pub(super) fn print(&self, measured: &Measured, output: &mut Output) -> Result<(), Failure> {
        output.line(|paint| self.table(measured, paint), || self.object(measured))?;
        Ok(())
    }

    /// One object: the figures of roundtable at its top, those of the raw limit and of peers below.
    pub(super) fn object(&self, measured: &Measured) -> Value {
        let mut object = self.parameters.as_object().cloned().unwrap_or_default();
        let (ours, raw) = (measured.ours(), measured.raw());
        let figures = Figures::of(ours);
        let ratios = Ratios::of(ours, raw);
        let headline = ratios.headline(self.headline);
        let per_second = format!("{}_per_second", self.unit.many);
        let cpu = |who: &str| format!("{who}_cpu_us_per_{}", self.unit.one);
        let mut put = |name: String, value: Value| _ = object.insert(name, value);
        put(per_second.clone(), json!(round(figures.per_second.median)));
        put(cpu("server"), json!(figures.cpu_us.map(|spread| round(spread.median))));
        put(cpu("raw"), json!(Figures::of(raw).cpu_us.map(|spread| round(spread.median))));
        let per_cpu_second = figures.cpu_us.map(|spread| round(1e6 / spread.median));
        put(format!("{}_per_server_cpu_second", self.unit.many), json!(per_cpu_second));
        put("ratio_to_raw".to_owned(), json!(headline.map(|spread| round(spread.median))));
        put("latency_us".to_owned(), figures.latency());
        put("ratios_to_raw".to_owned(), ratios.object());
        put("raw".to_owned(), self.system(raw));
        put("peers".to_owned(), self.peers(measured));
        let mut spread = Map::new();
        spread.insert(per_second, range(Some(figures.per_second)));
        spread.insert(cpu("server"), range(figures.cpu_us));
        spread.insert(cpu("raw"), range(Figures::of(raw).cpu_us));
        spread.insert("latency_us".to_owned(), figures.latency_ranges());
        spread.insert("ratio_to_raw".to_owned(), range(headline));
        put("spread".to_owned(), Value::Object(spread));
        put("machine".to_owned(), machine());
        Value::Object(object)
    }

    fn system(&self, rounds: &Rounds) -> Value {
        let figures = Figures::of(rounds);
        let mut object = Map::new();
        object.insert(format!("{}_per_second", self.unit.many), json!(round(figures.per_second.median)));
        let cpu_us = figures.cpu_us.map(|spread| round(spread.median));
        object.insert(format!("cpu_us_per_{}", self.unit.one), json!(cpu_us));
        object.insert("latency_us".to_owned(), figures.latency());
        Value::Object(object)
    }

    fn peers(&self, measured: &Measured) -> Value {
        let mut peers = Map::new();
        for rounds in measured.peers() {
            let mut object = self.system(rounds);
            if let Some(fields) = object.as_object_mut() {
                fields.insert("ratios".to_owned(), Ratios::of(measured.ours(), rounds).object());
            }
            peers.insert(rounds.name.to_owned(), object);
        }
        peers.extend(absent_words(&measured.absent));
        Value::Object(peers)
    }

    fn table(&self, measured: &Measured, paint: &Paint) -> String {
        let mut text = paint.bold(&self.title);
        let head = format!(
            "{:<11} {:>26}  {:>24}  {:>9}  {:>9}  {:>9}",
            "",
            format!("{} a second", self.unit.many),
            format!("CPU µs a {}", self.unit.one),
            "p50 µs",
            "p99 µs",
            "p99.9 µs"
        );
        let _ = write!(text, "\n{}", paint.faint(&head));
        for rounds in &measured.systems {
            let figures = Figures::of(rounds);
            let [p50, p99, p99_9] = figures.latency_us.map(|spread| number(spread.median));
            let cpu = figures.cpu_us.map_or_else(|| "unknown".to_owned(), |cpu| with_range(&cpu));
            let rate = with_range(&figures.per_second);
            let _ = write!(text, "\n{:<11} {rate:>26}  {cpu:>24}  {p50:>9}  {p99:>9}  {p99_9:>9}", rounds.name);
        }
        for rounds in measured.systems.iter().skip(1) {
            let ratios = Ratios::of(measured.ours(), rounds);
            let shown = |spread: Option<Spread>| spread.map_or_else(|| "unknown".to_owned(), |s| with_range(&s));
            let (rate, cpu, p50) = (shown(Some(ratios.rate)), shown(ratios.cpu), shown(Some(ratios.p50)));
            let _ =
                write!(text, "\nours / {:<10}  {} a second {rate}, CPU {cpu}, p50 {p50}", rounds.name, self.unit.many);
        }
        text + &absent_lines(&measured.absent, paint)
    }
}

/// Peers without figures, by name, with one word instead.
pub(super) fn absent_words(absent: &[(PeerName, Absent)]) -> impl Iterator<Item = (String, Value)> {
    absent.iter().map(|(name, why)| {
        let word = match why {
            Absent::Missing(_) => "missing",
            Absent::NotComparable(_) => "not_comparable",
        };
        (name.word().to_owned(), json!(word))
    })
}

/// The same for people, with what can be done about it.
pub(super) fn absent_lines(absent: &[(PeerName, Absent)], paint: &Paint) -> String {
    absent.iter().fold(String::new(), |mut text, (name, why)| {
        let _ = write!(text, "\n{:<11} {}", name.word(), paint.bad(&why.sentence()));
        text
    })
}

/// What the figures were taken on.
pub(super) fn machine() -> Value {
    let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    let kernel = std::fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    json!({"cores": cores, "kernel": kernel.trim(), "version": env!("CARGO_PKG_VERSION")})
}

pub(super) fn range(spread: Option<Spread>) -> Value {
    json!(spread.map(|spread| [round(spread.lowest), round(spread.highest)]))
}

/// Four digits are more than any of these figures is good for.
pub(super) fn round(value: f64) -> f64 {
    if value == 0.0 || !value.is_finite() {
        return 0.0;
    }
    let scale = 10_f64.powf(3.0 - value.abs().log10().floor());
    (value * scale).round() / scale
}

pub(super) fn with_range(spread: &Spread) -> String {
    format!("{} ({}–{})", number(spread.median), number(spread.lowest), number(spread.highest))
}

/// Three digits at least, in the shortest way.
pub(super) fn number(value: f64) -> String {
    match value.abs() {
        large if large >= 100.0 => grouped(value),
        middle if middle >= 10.0 => format!("{value:.1}"),
        _ => format!("{value:.2}"),
    }
}

/// Thousands apart.
fn grouped(value: f64) -> String {
    let digits = format!("{value:.0}");
    let mut out = String::new();
    for (place, digit) in digits.chars().enumerate() {
        if place > 0 && (digits.len() - place) % 3 == 0 {
            out.push(',');
        }
        out.push(digit);
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn figures_are_short_and_say_no_more_than_they_are_good_for() {
        let rounded: Vec<f64> = [1_234_567.0, 0.612_345, 0.0, 99_999.0].into_iter().map(round).collect();
        assert_eq!(rounded, [1_235_000.0, 0.6123, 0.0, 100_000.0]);
        let shown: Vec<String> = [1_234_567.4, 100.0, 12.34, 0.612].into_iter().map(number).collect();
        assert_eq!(shown, ["1,234,567", "100", "12.3", "0.61"]);
    }
}
