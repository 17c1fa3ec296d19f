//! `forebay hdr FILE…`: percentile tables of hgrm and hlog files, side by side, merged, plotted.

mod plot;
mod read;

use crate::observe::summary::time;
use clap::{Args, ValueEnum};
use hdrhistogram::Histogram;
use hdrhistogram::serialization::V2DeflateSerializer;
use hdrhistogram::serialization::interval_log::{IntervalLogWriterBuilder, Tag};
use read::Series;
use std::fmt::Write as _;
use std::io::{self, Write as _};
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::{Duration, SystemTime};

/// Which files, and what to do with them.
#[derive(Debug, Args)]
pub struct HdrArgs {
    /// Files: HdrHistogram's interval log (hlog) or percentile text (hgrm), as `/latency` and
    /// `loadtest` write them; `-` for standard input.
    #[arg(required = true, value_name = "FILE")]
    pub files: Vec<PathBuf>,
    /// Only series whose name contains this.
    #[arg(long, value_name = "TEXT")]
    pub series: Option<String>,
    /// Add the files up, series by series, instead of comparing them.
    #[arg(long)]
    pub merge: bool,
    /// What to print; hlog and hgrm are of all files merged.
    #[arg(long, value_name = "FORMAT", default_value = "table")]
    pub format: Format,
    /// Leave out the plot.
    #[arg(long)]
    pub no_plot: bool,
    /// Columns of the plot.
    #[arg(long, value_name = "N", default_value_t = 72, value_parser = clap::value_parser!(u16).range(24..=400))]
    pub width: u16,
    /// Microseconds that one unit of an hgrm file stands for; an hlog file's are µs.
    #[arg(long, value_name = "US", default_value_t = 1)]
    pub unit_us: u32,
}

/// A form of the output.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Format {
    /// Percentiles for people, and a plot.
    Table,
    /// A JSON object per series and file.
    Json,
    /// HdrHistogram's V2 interval log.
    Hlog,
    /// HdrHistogram's percentile text.
    Hgrm,
}

/// The levels that are shown.
const LEVELS: [(&str, f64); 9] = [
    ("p50", 0.5),
    ("p75", 0.75),
    ("p90", 0.9),
    ("p95", 0.95),
    ("p99", 0.99),
    ("p99.9", 0.999),
    ("p99.99", 0.9999),
    ("p99.999", 0.99999),
    ("max", 1.0),
];

/// One file's share of a series.
struct Column<'a> {
    file: &'a str,
    histogram: &'a Histogram<u64>,
}

/// Prints what the files hold.
///
/// # Errors
/// A file that can't be read, or holds no such series.
pub fn run(args: &HdrArgs) -> Result<ExitCode, String> {
    let mut files = Vec::new();
    for path in &args.files {
        let mut series = read::file(path, args.unit_us)?;
        if let Some(wanted) = &args.series {
            series.retain(|one| one.name.contains(wanted.as_str()));
        }
        files.push((path.display().to_string(), series));
    }
    if files.iter().all(|(_, series)| series.is_empty()) {
        return Err("no series to show: the files hold none, or none of that name".to_owned());
    }
    if args.merge || matches!(args.format, Format::Hlog | Format::Hgrm) {
        files = vec![("merged".to_owned(), merge(files)?)];
    }
    let text = match args.format {
        Format::Table => tables(&files, args),
        Format::Json => json(&files),
        Format::Hlog => hlog(&files[0].1),
        Format::Hgrm => hgrm(&files[0].1),
    };
    match io::stdout().lock().write_all(text.as_bytes()) {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => Err(error.to_string()),
        _ => Ok(ExitCode::SUCCESS),
    }
}

type Files = Vec<(String, Vec<Series>)>;

fn merge(files: Files) -> Result<Vec<Series>, String> {
    let mut merged: Vec<Series> = Vec::new();
    for series in files.into_iter().flat_map(|(_, series)| series) {
        match merged.iter_mut().find(|known| known.name == series.name) {
            Some(known) => known.histogram.add(&series.histogram).map_err(|e| e.to_string())?,
            None => merged.push(series),
        }
    }
    Ok(merged)
}

/// Every series' name, in the order of its first file.
fn names(files: &Files) -> Vec<&str> {
    let mut names: Vec<&str> = Vec::new();
    for series in files.iter().flat_map(|(_, series)| series) {
        if !names.contains(&&*series.name) {
            names.push(&series.name);
        }
    }
    names
}

fn columns<'a>(files: &'a Files, name: &str) -> Vec<Column<'a>> {
    let mut columns = Vec::new();
    for (file, series) in files {
        let found = series.iter().find(|series| series.name == name);
        columns.extend(found.map(|found| Column { file, histogram: &found.histogram }));
    }
    columns
}

fn tables(files: &Files, args: &HdrArgs) -> String {
    let mut out = String::new();
    for name in names(files) {
        let columns = columns(files, name);
        push(&mut out, format_args!("{}\n", if name.is_empty() { "(no name)" } else { name }));
        out.push_str(&table(&columns));
        if !args.no_plot {
            let curves: Vec<_> = columns.iter().map(|column| column.histogram).collect();
            out.push('\n');
            out.push_str(&plot::curves(&curves, usize::from(args.width)));
        }
        out.push('\n');
    }
    out
}

/// A row per level, a column per file; behind the first, the ratio to the first.
fn table(columns: &[Column<'_>]) -> String {
    let mut rows: Vec<Vec<String>> = vec![vec![String::new()]];
    for (at, column) in columns.iter().enumerate() {
        let mark = plot::MARKS[at % plot::MARKS.len()];
        rows[0].push(format!("{mark} {}", short(column.file)));
        if at > 0 {
            rows[0].push("ratio".to_owned());
        }
    }
    let mut row = |name: &str, cell: &dyn Fn(&Histogram<u64>) -> (String, f64)| {
        let mut cells = vec![name.to_owned()];
        let first = cell(columns[0].histogram).1;
        for (at, column) in columns.iter().enumerate() {
            let (text, value) = cell(column.histogram);
            cells.push(text);
            if at > 0 {
                let ratio =
                    if first > 0.0 { format!("{:.2}", value / first) } else { "-".to_owned() };
                cells.push(ratio);
            }
        }
        rows.push(cells);
    };
    row("count", &|all| (all.len().to_string(), float(all.len())));
    row("mean", &|all| (micros(all.mean()), all.mean()));
    for (name, level) in LEVELS {
        row(name, &|all| {
            let value = all.value_at_quantile(level).min(all.max());
            (time(value), float(value))
        });
    }
    align(&rows)
}

fn align(rows: &[Vec<String>]) -> String {
    let mut out = String::new();
    let width = |column: usize| rows.iter().map(|row| row[column].chars().count()).max();
    for row in rows {
        let mut line = String::new();
        for (at, cell) in row.iter().enumerate() {
            let width = width(at).unwrap_or_default();
            match at {
                0 => push(&mut line, format_args!("  {cell:<width$}")),
                _ => push(&mut line, format_args!("  {cell:>width$}")),
            }
        }
        out.push_str(line.trim_end());
        out.push('\n');
    }
    out
}

/// The end of a path, which tells files apart.
fn short(path: &str) -> String {
    let count = path.chars().count();
    if count <= 28 {
        path.to_owned()
    } else {
        format!("…{}", path.chars().skip(count - 27).collect::<String>())
    }
}

fn json(files: &Files) -> String {
    use bytes::{BufMut, BytesMut};
    let mut out = BytesMut::new();
    for name in names(files) {
        for column in columns(files, name) {
            let all = column.histogram;
            out.put_slice(b"{\"series\":");
            crate::proto::json::string(&mut out, name);
            out.put_slice(b",\"file\":");
            crate::proto::json::string(&mut out, column.file);
            out.put_slice(
                format!(",\"unit\":\"us\",\"count\":{},\"mean\":{:.1}", all.len(), all.mean())
                    .as_bytes(),
            );
            for (level, quantile) in LEVELS {
                let value = all.value_at_quantile(quantile).min(all.max());
                out.put_slice(format!(",\"{level}\":{value}").as_bytes());
            }
            out.put_slice(b"}\n");
        }
    }
    String::from_utf8_lossy(&out).into_owned()
}

fn hlog(series: &[Series]) -> String {
    let mut out = Vec::new();
    let mut serializer = V2DeflateSerializer::new();
    let mut log = IntervalLogWriterBuilder::new();
    log.add_comment("[Histogram log format version 1.3]");
    log.with_base_time(SystemTime::UNIX_EPOCH).with_start_time(SystemTime::UNIX_EPOCH);
    let mut log = log.begin_log_with(&mut out, &mut serializer).expect("memory takes every byte");
    for one in series {
        let tag = Tag::new(&one.name).filter(|_| !one.name.is_empty());
        log.write_histogram(&one.histogram, Duration::ZERO, Duration::ZERO, tag)
            .expect("memory takes every byte");
    }
    String::from_utf8_lossy(&out).into_owned()
}

fn hgrm(series: &[Series]) -> String {
    series.iter().fold(String::new(), |mut out, one| {
        let text = crate::observe::snapshot::hgrm(&one.histogram, 1.0);
        push(&mut out, format_args!("#[Series: {}]\n{text}\n", one.name));
        out
    })
}

fn micros(us: f64) -> String {
    time(read::whole(us))
}

#[allow(clippy::cast_precision_loss, reason = "shown with three digits")]
fn float(value: u64) -> f64 {
    value as f64
}

fn push(out: &mut String, text: std::fmt::Arguments<'_>) {
    out.write_fmt(text).expect("writing to a String does not fail");
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test may panic")]
    use super::*;

    fn files(factors: &[u64]) -> Files {
        let file = |factor: &u64| {
            let mut histogram = read::histogram();
            (1..=1000).for_each(|value| histogram.record(value * factor).unwrap());
            (format!("f{factor}.hlog"), vec![Series { name: "page.dns".to_owned(), histogram }])
        };
        factors.iter().map(file).collect()
    }

    #[test]
    fn files_stand_side_by_side_with_ratios_to_the_first() {
        let both = files(&[1, 2]);
        let text = table(&columns(&both, "page.dns"));
        let row = |name: &str| {
            let line = text.lines().find(|line| line.trim_start().starts_with(name)).unwrap();
            line.split_whitespace().skip(1).map(str::to_owned).collect::<Vec<_>>()
        };
        assert_eq!(row("p50 "), ["500", "µs", "1.00", "ms", "2.00"]);
        assert_eq!(row("max"), ["1.00", "ms", "2.00", "ms", "2.00"]);
        assert_eq!(row("count"), ["1000", "1000", "1.00"]);
    }

    #[test]
    fn merged_files_add_up_and_come_back() {
        let merged = merge(files(&[1, 1, 3])).unwrap();
        assert_eq!(merged[0].histogram.len(), 3000);
        let again = read::text(&hlog(&merged), 1).unwrap();
        assert_eq!(again[0].histogram, merged[0].histogram);
        assert_eq!(again[0].name, "page.dns");
        let again = read::text(&hgrm(&merged), 1).unwrap();
        let again = &again[0].histogram;
        assert_eq!(again.len(), 3000);
        assert!(again.equivalent(again.max(), 3000));
    }
}
