//! Draws a picture as SVG, on white: it is looked at on dark pages too.

use std::error::Error;
use std::ops::Range;
use std::path::Path;

use plotters::coord::Shift;
use plotters::coord::ranged1d::ValueFormatter;
use plotters::prelude::*;

use crate::figure::{Figure, Picture, Point, Series};

const WIDTH: u32 = 920;
/// Of everything above the legend.
const AXES_HEIGHT: u32 = 440;
/// Of a line of the legend, which stands below the axes: names are long.
const LEGEND_LINE: u32 = 24;
/// Okabe and Ito (2008): told apart with any kind of colour vision, and dark enough on white.
const COLOURS: [RGBColor; 6] = [
    RGBColor(0, 114, 178),
    RGBColor(213, 94, 0),
    RGBColor(0, 158, 115),
    RGBColor(204, 121, 167),
    RGBColor(148, 103, 0),
    RGBColor(60, 60, 60),
];

pub(crate) fn draw(picture: &Picture, file: &Path) {
    try_draw(picture, file).unwrap_or_else(|error| panic!("{}: {error}", file.display()));
}

fn try_draw(picture: &Picture, file: &Path) -> Result<(), Box<dyn Error>> {
    let legend_height = LEGEND_LINE * u32::try_from(picture.series.len())? + 16;
    let root = SVGBackend::new(file, (WIDTH, AXES_HEIGHT + legend_height)).into_drawing_area();
    root.fill(&WHITE)?;
    let (axes, legend) = root.split_vertically(AXES_HEIGHT);
    let mut builder = ChartBuilder::on(&axes);
    builder.caption(picture.title, ("sans-serif", 22)).margin(14).x_label_area_size(52).y_label_area_size(92);
    let figures = || picture.series.iter().flat_map(|series| &series.points).map(|point| point.figure);
    let highest = figures().map(|figure| figure.highest).fold(0.0, f64::max);
    let x = across(picture).log_scale();
    if picture.y_is_logarithmic {
        let lowest = figures().map(|figure| figure.lowest).fold(f64::MAX, f64::min);
        // A decade at least, so that noise does not look like growth.
        let y = (lowest / 2.0).min(highest / 5.0)..highest * 2.0;
        curves(picture, &mut builder.build_cartesian_2d(x, y.log_scale())?)?;
    } else {
        curves(picture, &mut builder.build_cartesian_2d(x, 0.0..highest * 1.15)?)?;
    }
    for (place, series) in picture.series.iter().enumerate() {
        let y = i32::try_from(LEGEND_LINE)? * i32::try_from(place)? + 12;
        key(&legend, y, series, style(picture, place))?;
    }
    root.present()?;
    Ok(())
}

/// From the first point to the last, with some room.
fn across(picture: &Picture) -> Range<f64> {
    let all = || picture.series.iter().flat_map(|series| &series.points).map(|point| point.x);
    all().fold(f64::MAX, f64::min) / 1.3..all().fold(0.0, f64::max) * 1.3
}

/// The raw limit is drawn as what it is the limit of, only thinner.
fn style(picture: &Picture, place: usize) -> ShapeStyle {
    let is_raw = |series: &&Series| series.name.ends_with("raw limit");
    let others = picture.series[..=place].iter().filter(|series| !is_raw(series)).count();
    let colour = COLOURS[others.saturating_sub(1) % COLOURS.len()];
    if is_raw(&&picture.series[place]) { colour.mix(0.55).stroke_width(1) } else { colour.stroke_width(3) }
}

type Chart<'c, Y> = ChartContext<'c, SVGBackend<'c>, Cartesian2d<LogCoord<f64>, Y>>;

fn curves<Y>(picture: &Picture, chart: &mut Chart<'_, Y>) -> Result<(), Box<dyn Error>>
where
    Y: Ranged<ValueType = f64> + ValueFormatter<f64>,
{
    chart
        .configure_mesh()
        .x_desc(picture.x_label)
        .y_desc(picture.y_label)
        .x_labels(4)
        .x_label_formatter(&|x| number(*x))
        .y_label_formatter(&|y| number(*y))
        .label_style(("sans-serif", 14))
        .axis_desc_style(("sans-serif", 16))
        .bold_line_style(BLACK.mix(0.15))
        .light_line_style(BLACK.mix(0.05))
        .draw()?;
    for (place, series) in picture.series.iter().enumerate() {
        let style = style(picture, place);
        let points = series.points.iter().map(|Point { x, figure }| (*x, figure.median));
        chart.draw_series(LineSeries::new(points.clone(), style))?;
        chart.draw_series(points.map(|at| Circle::new(at, 4, style.filled())))?;
        // From the lowest to the highest of the rounds.
        let span = |Point { x, figure: Figure { lowest, highest, .. } }: &Point| {
            PathElement::new(vec![(*x, *lowest), (*x, *highest)], style.stroke_width(1))
        };
        chart.draw_series(series.points.iter().map(span))?;
    }
    Ok(())
}

fn key(
    legend: &DrawingArea<SVGBackend<'_>, Shift>,
    y: i32,
    series: &Series,
    style: ShapeStyle,
) -> Result<(), Box<dyn Error>> {
    legend.draw(&PathElement::new(vec![(90, y), (130, y)], style))?;
    legend.draw(&Circle::new((110, y), 4, style.filled()))?;
    legend.draw(&Text::new(series.label(), (142, y - 9), ("sans-serif", 16)))?;
    Ok(())
}

/// In the shortest way, thousands apart.
fn number(value: f64) -> String {
    if value < 10.0 {
        let short = format!("{value:.2}");
        return short.trim_end_matches('0').trim_end_matches('.').to_owned();
    }
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
