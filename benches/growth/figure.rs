//! Figures and curves of them.

use serde::Serialize;
use serde_json::Value;

/// Of several rounds.
#[derive(Clone, Copy, Serialize)]
pub(crate) struct Figure {
    pub(crate) median: f64,
    pub(crate) lowest: f64,
    pub(crate) highest: f64,
}

impl Figure {
    /// Measured once.
    pub(crate) fn once(value: f64) -> Self {
        Self { median: value, lowest: value, highest: value }
    }

    pub(crate) fn of(mut values: Vec<f64>) -> Self {
        values.sort_by(f64::total_cmp);
        let (lowest, highest) = (values[0], values[values.len() - 1]);
        let median = f64::midpoint(values[(values.len() - 1) / 2], values[values.len() / 2]);
        Self { median, lowest, highest }
    }

    /// From a median and its range, as a bench prints them.
    pub(crate) fn of_bench(median: &Value, range: &Value) -> Self {
        let number = |value: &Value| value.as_f64().expect("a bench gives this figure");
        Self { median: number(median), lowest: number(&range[0]), highest: number(&range[1]) }
    }
}

/// One curve.
#[derive(Serialize)]
pub(crate) struct Series {
    pub(crate) name: &'static str,
    /// What is not to grow is compared with this: the last median divided by the first, at most.
    pub(crate) growth_max: Option<f64>,
    pub(crate) points: Vec<Point>,
}

#[derive(Serialize)]
pub(crate) struct Point {
    pub(crate) x: f64,
    #[serde(flatten)]
    pub(crate) figure: Figure,
}

impl Series {
    /// The last median divided by the first, of curves of two points and more.
    pub(crate) fn growth(&self) -> Option<f64> {
        let (first, last) = (self.points.first()?, self.points.last()?);
        (self.points.len() > 1).then_some(last.figure.median / first.figure.median)
    }

    /// Its name, and how far it has grown if that has a bound.
    pub(crate) fn label(&self) -> String {
        match self.growth_max.zip(self.growth()) {
            Some((most, growth)) => format!("{}: last / first {growth:.2} (at most {most})", self.name),
            None => self.name.to_owned(),
        }
    }
}

/// One picture: curves over the same axes.
#[derive(Serialize)]
pub(crate) struct Picture {
    /// Of its files, without an ending.
    pub(crate) name: &'static str,
    pub(crate) title: &'static str,
    pub(crate) x_label: &'static str,
    pub(crate) y_label: &'static str,
    /// Whether the figures differ so much that equal ratios, not equal differences, are equally high.
    pub(crate) y_is_logarithmic: bool,
    pub(crate) series: Vec<Series>,
}

impl Picture {
    /// Adds a figure to the curve of this name.
    pub(crate) fn put(&mut self, name: &'static str, x: u32, figure: Figure) {
        self.put_bounded(name, None, x, figure);
    }

    /// The same to a curve that may grow so much.
    pub(crate) fn put_bounded(&mut self, name: &'static str, growth_max: Option<f64>, x: u32, figure: Figure) {
        let point = Point { x: f64::from(x), figure };
        match self.series.iter_mut().find(|series| series.name == name) {
            Some(series) => series.points.push(point),
            None => self.series.push(Series { name, growth_max, points: vec![point] }),
        }
    }
}
