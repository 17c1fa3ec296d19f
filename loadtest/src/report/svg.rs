//! Plots as inline SVG: scales, ticks, lines, bars. Colours are CSS variables of the page, so that
//! light and dark come from one drawing.

use crate::num;
use crate::report::time;
use std::fmt::Write as _;

/// Width of every plot in its own units; the page scales it.
const WIDTH: f64 = 880.0;
const LEFT: f64 = 76.0;
const RIGHT: f64 = 22.0;
const TOP: f64 = 14.0;
const BOTTOM: f64 = 44.0;

/// A line with a name.
#[derive(Clone, Debug)]
pub(crate) struct Series {
    pub(crate) name: String,
    /// Index of the colour.
    pub(crate) colour: usize,
    pub(crate) points: Vec<(f64, f64)>,
    /// Points that get a dot and a text on hover.
    pub(crate) marks: Vec<(f64, f64, String)>,
}

/// One axis.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Scale {
    min: f64,
    max: f64,
    log: bool,
}

impl Scale {
    /// From zero to a round value above `max`.
    pub(crate) fn linear(max: f64) -> Self {
        let step = nice_step(max.max(1e-9), 7.0);
        Self { min: 0.0, max: (max / step).ceil().max(1.0) * step, log: false }
    }

    /// Over these bounds as they are.
    pub(crate) fn exact(min: f64, max: f64) -> Self {
        Self { min, max: if max > min { max } else { min + 1.0 }, log: false }
    }

    /// Logarithmic between 1, 2 or 5 times a power of ten around the bounds.
    pub(crate) fn log(min: f64, max: f64) -> Self {
        let (min, max) = (min.max(1e-6), max.max(min.max(1e-6) * 1.01));
        let ladder = ladder();
        let low = ladder.iter().rev().find(|&&v| v <= min * 1.0001).copied().unwrap_or(min);
        let high = ladder.iter().find(|&&v| v >= max * 0.9999).copied().unwrap_or(max);
        Self { min: low, max: if high > low { high } else { low * 10.0 }, log: true }
    }

    /// Logarithmic where the values span more than a factor of 12, else linear.
    pub(crate) fn fitting(min: f64, max: f64) -> Self {
        if min > 0.0 && max / min > 12.0 { Self::log(min, max) } else { Self::linear(max) }
    }

    /// Where a value lies, 0 to 1.
    fn at(self, value: f64) -> f64 {
        let part = if self.log {
            (value.max(self.min) / self.min).ln() / (self.max / self.min).ln()
        } else {
            (value - self.min) / (self.max - self.min)
        };
        part.clamp(0.0, 1.0)
    }

    /// Values that get a line and a label.
    pub(crate) fn ticks(self) -> Vec<f64> {
        if !self.log {
            let step = nice_step(self.max - self.min, 7.0);
            let count = num::round_u64(((self.max - self.min) / step).floor());
            return (0..=count).map(|i| self.min + i as f64 * step).collect();
        }
        let all: Vec<f64> = ladder()
            .into_iter()
            .filter(|&v| v >= self.min * 0.999 && v <= self.max * 1.001)
            .collect();
        if all.len() <= 8 {
            return all;
        }
        all.into_iter().filter(|v| (v.log10() - v.log10().round()).abs() < 1e-6).collect()
    }
}

fn ladder() -> Vec<f64> {
    (-6..14).flat_map(|power| [1.0, 2.0, 5.0].map(|digit| digit * 10_f64.powi(power))).collect()
}

fn nice_step(span: f64, wanted: f64) -> f64 {
    let rough = (span / wanted).max(1e-12);
    let power = 10_f64.powf(rough.log10().floor());
    let digit = rough / power;
    let digit = match digit {
        d if d <= 1.0 => 1.0,
        d if d <= 2.0 => 2.0,
        d if d <= 5.0 => 5.0,
        _ => 10.0,
    };
    digit * power
}

/// How values of an axis are written.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Unit {
    /// Microseconds, as a time.
    Time,
    /// A plain number.
    Plain,
    /// Per cent.
    Percent,
    /// 1/(1−q), as a percentile.
    Percentile,
    /// Seconds of the run.
    Seconds,
}

impl Unit {
    fn write(self, value: f64) -> String {
        match self {
            Self::Time if value < 1.0 => "0".to_owned(),
            Self::Time => trim(&time(num::round_u64(value))),
            Self::Plain if value >= 1e6 => format!("{}M", value / 1e6),
            Self::Plain if value >= 1e4 => format!("{}k", value / 1e3),
            Self::Plain => format!("{}", (value * 100.0).round() / 100.0),
            Self::Percent => format!("{} %", (value * 100.0).round() / 100.0),
            Self::Seconds => format!("{value} s"),
            Self::Percentile => percentile(value),
        }
    }
}

/// `5.00 ms` as `5 ms`.
fn trim(text: &str) -> String {
    match text.split_once(' ') {
        Some((number, unit)) if number.contains('.') => {
            format!("{} {unit}", number.trim_end_matches('0').trim_end_matches('.'))
        }
        _ => text.to_owned(),
    }
}

/// `1/(1−q)` as its percentile: 2 is 50 %, 100 is 99 %.
fn percentile(inverse: f64) -> String {
    let percent = 100.0 * (1.0 - 1.0 / inverse);
    let digits = num::to_usize(num::round_u64(inverse.log10() - 2.0).min(9));
    if inverse >= 1e3 { format!("{percent:.digits$} %") } else { format!("{percent:.0} %") }
}

/// A plot under construction.
#[derive(Debug)]
pub(crate) struct Plot {
    out: String,
    height: f64,
    x: Scale,
    y: Scale,
}

impl Plot {
    /// Axes with their grid and labels.
    pub(crate) fn new(label: &str, height: f64, x: (Scale, Unit), y: (Scale, Unit)) -> Self {
        let mut plot = Self { out: String::new(), height, x: x.0, y: y.0 };
        let _ = write!(
            plot.out,
            "<svg viewBox=\"0 0 {WIDTH} {height}\" role=\"img\" aria-label=\"{}\">",
            escape(label)
        );
        for tick in y.0.ticks() {
            let at = plot.py(tick);
            let _ = write!(
                plot.out,
                "<line class=\"grid\" x1=\"{LEFT}\" x2=\"{:.1}\" y1=\"{at:.1}\" y2=\"{at:.1}\"/>\
                 <text x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"end\">{}</text>",
                WIDTH - RIGHT,
                LEFT - 8.0,
                at + 4.0,
                y.1.write(tick)
            );
        }
        let bottom = height - BOTTOM;
        let mut ticks = x.0.ticks();
        if matches!(x.1, Unit::Percentile) {
            // The median is what everybody looks for first, and no power of ten.
            ticks.push(2.0);
        }
        for tick in ticks {
            let at = plot.px(tick);
            let _ = write!(
                plot.out,
                "<line class=\"grid\" x1=\"{at:.1}\" x2=\"{at:.1}\" y1=\"{TOP}\" y2=\"{bottom:.1}\"/>\
                 <text x=\"{at:.1}\" y=\"{:.1}\" text-anchor=\"middle\">{}</text>",
                bottom + 20.0,
                x.1.write(tick)
            );
        }
        plot
    }

    fn px(&self, x: f64) -> f64 {
        LEFT + self.x.at(x) * (WIDTH - LEFT - RIGHT)
    }

    fn py(&self, y: f64) -> f64 {
        let span = self.height - TOP - BOTTOM;
        TOP + (1.0 - self.y.at(y)) * span
    }

    /// A line through points, or a staircase, with its marks.
    pub(crate) fn line(&mut self, series: &Series, stairs: bool) {
        let mut path = String::new();
        let mut last: Option<f64> = None;
        for &(x, y) in &series.points {
            let (px, py) = (self.px(x), self.py(y));
            let _ = match last {
                None => write!(path, "M{px:.1} {py:.1}"),
                Some(before) if stairs => write!(path, "L{px:.1} {before:.1}L{px:.1} {py:.1}"),
                Some(_) => write!(path, "L{px:.1} {py:.1}"),
            };
            last = Some(py);
        }
        let colour = series.colour % 6;
        let _ = write!(self.out, "<path class=\"line c{colour}\" d=\"{path}\"/>");
        for (x, y, text) in &series.marks {
            let _ = write!(
                self.out,
                "<circle class=\"dot c{colour}\" cx=\"{:.1}\" cy=\"{:.1}\" r=\"4\"><title>{}</title></circle>",
                self.px(*x),
                self.py(*y),
                escape(text)
            );
        }
    }

    /// A bar from the foot to `y`, between two values of x.
    pub(crate) fn bar(&mut self, from: f64, to: f64, y: f64, colour: usize, text: &str) {
        let (left, right) = (self.px(from), self.px(to));
        let (top, foot) = (self.py(y), self.height - BOTTOM);
        let _ = write!(
            self.out,
            "<rect class=\"bar c{}\" x=\"{left:.1}\" y=\"{top:.1}\" width=\"{:.1}\" height=\"{:.1}\"><title>{}</title></rect>",
            colour % 6,
            (right - left - 1.0).max(0.8),
            (foot - top).max(0.0),
            escape(text)
        );
    }

    /// The name of the x axis, and the end.
    pub(crate) fn finish(mut self, x_label: &str) -> String {
        let _ = write!(
            self.out,
            "<text class=\"axis\" x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"middle\">{}</text></svg>",
            f64::midpoint(LEFT, WIDTH - RIGHT),
            self.height - 6.0,
            escape(x_label)
        );
        self.out
    }
}

/// Text that can't end an element or an attribute.
pub(crate) fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ticks_are_round_and_few() {
        assert_eq!(Scale::linear(9.3).ticks(), [0.0, 2.0, 4.0, 6.0, 8.0, 10.0]);
        let few = Scale::log(130.0, 900.0).ticks();
        assert!(
            few.iter().zip([100.0, 200.0, 500.0, 1000.0]).all(|(a, b)| (a / b - 1.0).abs() < 1e-9)
        );
        assert!(Scale::log(1.0, 1e7).ticks().len() == 8);
    }

    #[test]
    fn percentiles_are_written_with_as_many_nines_as_they_have() {
        let written: Vec<String> = [1.0, 2.0, 10.0, 100.0, 1e3, 1e4, 1e5].map(percentile).into();
        assert_eq!(written, ["0 %", "50 %", "90 %", "99 %", "99.9 %", "99.99 %", "99.999 %"]);
    }

    #[test]
    fn a_plot_is_well_formed_and_escapes() {
        let mut plot = Plot::new(
            "a \"b\" <c>",
            200.0,
            (Scale::log(1.0, 1e4), Unit::Percentile),
            (Scale::linear(9.0), Unit::Time),
        );
        let marks = vec![(2.0, 3.0, "<x>".to_owned())];
        plot.line(
            &Series { name: "n".into(), colour: 0, points: vec![(1.0, 1.0), (2.0, 3.0)], marks },
            true,
        );
        let svg = plot.finish("p");
        assert!(svg.starts_with("<svg ") && svg.ends_with("</svg>"));
        assert!(!svg.contains("<x>") && !svg.contains("<c>"));
        assert_eq!(svg.matches("<path").count(), 1);
    }
}
