//! Percentiles as a table for a terminal: what the `demo` command prints at its end.

use super::series::Key;
use super::snapshot::{PERCENTILES, Snapshot};
use std::fmt::Write as _;

/// Cells of the bar that shows the 99th percentile on a logarithmic scale.
const BAR_CELLS: usize = 12;
/// Percentiles that are shown.
const SHOWN: usize = 4;

/// A table of every series that has values: name, count, p50, p90, p99, p99.9, max, and with `bar`
/// a line of blocks whose length is the logarithm of p99. Ends with a line end; empty without
/// values.
#[must_use]
pub fn table(snapshot: &Snapshot, bar: bool) -> String {
    let rows: Vec<_> = snapshot.keys().filter_map(|key| Row::of(snapshot, key)).collect();
    if rows.is_empty() {
        return String::new();
    }
    let heads = PERCENTILES[..SHOWN].iter().map(|(name, _)| *name);
    let heads: Vec<String> =
        ["series", "count"].into_iter().chain(heads).chain(["max"]).map(str::to_owned).collect();
    let longest_us = rows.iter().map(|row| row.p99_us).max().unwrap_or_default();
    let cells: Vec<&[String]> =
        std::iter::once(&heads[..]).chain(rows.iter().map(|row| &row.cells[..])).collect();
    let widths: Vec<usize> = (0..heads.len())
        .map(|column| cells.iter().map(|row| row[column].chars().count()).max().unwrap_or_default())
        .collect();
    let mut out = String::new();
    for (place, row) in cells.iter().enumerate() {
        // Names to the left, figures to the right.
        let name = &row[0];
        let width = widths[0];
        write!(out, "{name:<width$}").expect("writing to a String does not fail");
        for (cell, width) in row.iter().zip(&widths).skip(1) {
            write!(out, "  {cell:>width$}").expect("writing to a String does not fail");
        }
        if let Some(row) = place.checked_sub(1).map(|place| &rows[place]).filter(|_| bar) {
            out.push_str("  ");
            out.push_str(&blocks(row.p99_us, longest_us));
        }
        out.push('\n');
    }
    out
}

struct Row {
    cells: Vec<String>,
    p99_us: u64,
}

impl Row {
    fn of(snapshot: &Snapshot, key: Key) -> Option<Self> {
        let all = snapshot.histogram(key)?;
        let mut cells = vec![key.name(), all.len().to_string()];
        let percentiles = PERCENTILES[..SHOWN].iter();
        cells.extend(percentiles.map(|(_, quantile)| time(all.value_at_quantile(*quantile))));
        cells.push(time(all.max()));
        Some(Self { cells, p99_us: all.value_at_quantile(0.99) })
    }
}

/// A time with three significant digits in the unit that suits it: `0 µs`, `842 µs`, `12.4 ms`,
/// `1.25 s`, `3600 s`.
#[must_use]
pub fn time(time_us: u64) -> String {
    let (unit, per_unit) = match time_us {
        0..1000 => return format!("{time_us} µs"),
        1000..999_500 => ("ms", 1000),
        _ => ("s", 1_000_000),
    };
    // Digits behind the point so that three are significant; chosen after rounding (9.996 → 10.0).
    for digits in [2_u32, 1, 0] {
        let scale = 10_u64.pow(digits);
        let rounded = (time_us * scale + per_unit / 2) / per_unit;
        if rounded < 1000 || digits == 0 {
            let (whole, part) = (rounded / scale, rounded % scale);
            return match digits {
                0 => format!("{whole} {unit}"),
                1 => format!("{whole}.{part} {unit}"),
                _ => format!("{whole}.{part:02} {unit}"),
            };
        }
    }
    unreachable!("the loop ends at no digits")
}

/// Blocks in eighths of a cell: logarithm of the time in µs, the longest fills the bar.
fn blocks(time_us: u64, longest_us: u64) -> String {
    const EIGHTHS: [&str; 8] = ["", "▏", "▎", "▍", "▌", "▋", "▊", "▉"];
    // Bits of the value to an eighth: plenty for a bar, and exact for equal values.
    let log = |us: u64| {
        let us = us.max(1);
        let bits = us.ilog2();
        u64::from(bits) * 8 + ((us << 3 >> bits) - 8)
    };
    let full = u64::try_from(BAR_CELLS * 8).expect("a bar is short");
    let eighths = (log(time_us) * full).checked_div(log(longest_us)).unwrap_or(full);
    let eighths = usize::try_from(eighths.min(full)).expect("a bar is short");
    format!("{}{}", "█".repeat(eighths / 8), EIGHTHS[eighths % 8])
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::Stage;
    use crate::observe::hist::{Epoch, Recorder, Scope};
    use crate::observe::series::{Endpoint, Measure};

    #[test]
    fn times_have_three_digits_and_a_unit_that_suits() {
        for (time_us, text) in [
            (0, "0 µs"),
            (999, "999 µs"),
            (1000, "1.00 ms"),
            (9994, "9.99 ms"),
            (9996, "10.0 ms"),
            (12_449, "12.4 ms"),
            (99_960, "100 ms"),
            (999_499, "999 ms"),
            (999_500, "1.00 s"),
            (1_249_000, "1.25 s"),
            (59_960_000, "60.0 s"),
            (3_600_000_000, "3600 s"),
        ] {
            assert_eq!(time(time_us), text, "{time_us}");
        }
    }

    #[test]
    fn columns_line_up() {
        let epoch = Epoch::now();
        let mut recorder = Recorder::new(epoch, epoch.instant);
        for time_us in 1..=1000u64 {
            recorder.record_micros(Key::At(Endpoint::CrawlNdjson, Measure::Ttfb), time_us);
            recorder.record_micros(Key::Page(Stage::Body), time_us * 1000);
        }
        let snapshot = recorder.snapshot(Scope::default(), epoch.instant);
        let expected = "\
series             count     p50     p90     p99   p99.9      max
crawl.ndjson.ttfb   1000  500 µs  900 µs  990 µs  999 µs  1.00 ms
page.body           1000  500 ms  900 ms  990 ms  999 ms   1.00 s
";
        assert_eq!(table(&snapshot, false), expected);
        let bars = table(&snapshot, true);
        assert!(bars.lines().nth(2).is_some_and(|line| line.ends_with("████████████")), "{bars}");
        assert!(bars.lines().nth(1).is_some_and(|line| line.contains("  █████")), "{bars}");
    }

    #[test]
    fn nothing_measured_is_no_table() {
        let epoch = Epoch::now();
        let mut recorder = Recorder::new(epoch, epoch.instant);
        assert_eq!(table(&recorder.snapshot(Scope::default(), epoch.instant), true), "");
    }

    #[test]
    fn bars_are_never_longer_than_their_place() {
        for time_us in [0, 1, 2, 1000, u64::from(u32::MAX)] {
            for longest_us in [0, 1, 7, u64::from(u32::MAX)] {
                assert!(blocks(time_us, longest_us).chars().count() <= BAR_CELLS);
            }
        }
    }
}
