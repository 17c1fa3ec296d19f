//! Percentile curves as text: the value, logarithmic, over the percentile, where each step to the
//! right is one nine more.

use crate::observe::summary::time;
use hdrhistogram::Histogram;

/// What each curve is drawn with.
pub(super) const MARKS: [char; 6] = ['*', 'o', '+', 'x', '#', '@'];

/// Rows of the plot.
const ROWS: usize = 14;
/// Nines at the right edge: 99.999 %.
const NINES: f64 = 5.0;
/// Columns of the scale at the left.
const SCALE: usize = 9;

/// Draws every histogram that has values, over each other, `width` columns wide.
pub(super) fn curves(all: &[&Histogram<u64>], width: usize) -> String {
    let columns = width.saturating_sub(SCALE + 2).max(10);
    let filled = || all.iter().filter(|one| !one.is_empty());
    let lowest = filled().map(|one| one.value_at_quantile(0.0)).min();
    let highest = filled().map(|one| one.max()).max();
    let (Some(lowest), Some(highest)) = (lowest, highest) else { return String::new() };
    let (low, high) = (log(lowest), log(highest).max(log(lowest) + 1.0));
    let mut grid = vec![vec![' '; columns]; ROWS];
    // The first lies on top.
    for (at, histogram) in all.iter().enumerate().rev() {
        let mark = MARKS[at % MARKS.len()];
        if histogram.is_empty() {
            continue;
        }
        let heights = (0..columns).map(|column| {
            let level = 1.0 - 10_f64.powf(-NINES * share(column, columns - 1));
            (log(histogram.value_at_quantile(level)) - low) / (high - low)
        });
        for (column, height) in heights.enumerate() {
            grid[ROWS - 1 - cell(height, ROWS - 1)][column] = mark;
        }
    }
    let mut out = String::new();
    for (row, cells) in grid.iter().enumerate() {
        let height = share(ROWS - 1 - row, ROWS - 1);
        let value = super::read::whole((low + height * (high - low)).exp2());
        let label = if row % 3 == 1 { time(value) } else { String::new() };
        let cells: String = cells.iter().collect();
        out.push_str(&format!("{label:>SCALE$} ┤{}\n", cells.trim_end()));
    }
    out.push_str(&axis(columns));
    out
}

/// The line below: where 0, 90, 99 … percent are.
fn axis(columns: usize) -> String {
    let mut line: Vec<char> = vec!['─'; columns];
    let mut labels = vec![' '; columns + 8];
    for (nines, label) in [(0.0, "0%"), (1.0, "90%"), (2.0, "99%"), (3.0, "99.9%"), (4.0, "99.99%")]
    {
        let at = cell(nines / NINES, columns - 1);
        line[at] = '┴';
        labels.splice(at..at + label.len(), label.chars());
    }
    let (line, labels): (String, String) = (line.iter().collect(), labels.iter().collect());
    format!("{:>SCALE$} └{line}\n{:>SCALE$}  {}\n", "", "", labels.trim_end())
}

fn log(value: u64) -> f64 {
    super::float(value.max(1)).log2()
}

#[allow(clippy::cast_precision_loss, reason = "columns and rows of a terminal")]
fn share(part: usize, whole: usize) -> f64 {
    part as f64 / whole as f64
}

/// Which of `0..=most` a share of 0 to 1 falls on.
fn cell(share: f64, most: usize) -> usize {
    #[allow(clippy::cast_precision_loss, reason = "columns and rows of a terminal")]
    let at = super::read::whole(share * most as f64);
    usize::try_from(at).unwrap_or(most).min(most)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test may panic")]
    use super::super::read::histogram;
    use super::*;

    #[test]
    fn a_slower_curve_lies_above() {
        let (mut fast, mut slow) = (histogram(), histogram());
        for value in 1..=10_000_u64 {
            fast.record(value).unwrap();
            slow.record(value * 100).unwrap();
        }
        let text = curves(&[&fast, &slow], 60);
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!(lines.len(), ROWS + 2);
        assert!(lines.iter().all(|line| line.chars().count() <= 66), "{text}");
        let first = |mark| lines.iter().position(|line| line.contains(mark)).unwrap();
        assert!(first('o') < first('*'), "{text}");
        assert!(lines.last().unwrap().contains("99.9%"), "{text}");
    }

    #[test]
    fn a_single_value_and_none_are_drawn() {
        let mut one = histogram();
        assert_eq!(curves(&[&one], 40), "");
        one.record(0).unwrap();
        assert!(curves(&[&one], 10).contains('*'));
    }
}
