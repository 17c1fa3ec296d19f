//! The numbers of `/metrics` as an `ExportMetricsServiceRequest` (opentelemetry-proto 1.x,
//! `metrics/v1/metrics.proto`).
//!
//! They are taken from its OpenMetrics text, so that what is scraped and what is exported can't differ:
//! a metric has the same name (without `_total`, which Prometheus puts behind counters again), labels
//! are attributes, histograms have the same bounds. Sums are cumulative from the process' start on.

use super::Resource;
use super::traces::nanos;
use super::wire::Wire;
use std::time::SystemTime;

/// `AggregationTemporality`: every value counts from the start.
const CUMULATIVE: u64 = 2;

/// One metric with its rows.
#[derive(Debug, Default, PartialEq)]
struct Family<'a> {
    name: &'a str,
    help: &'a str,
    unit: &'a str,
    kind: &'a str,
    rows: Vec<Row<'a>>,
}

/// One line of the text.
#[derive(Debug, PartialEq)]
struct Row<'a> {
    /// What stands behind the family's name: `_total`, `_bucket`, `_sum`, `_count`, or nothing.
    suffix: &'a str,
    labels: Vec<(&'a str, String)>,
    value: &'a str,
}

/// One message with all metrics of the text.
pub(super) fn message(
    resource: &Resource,
    open_metrics: &str,
    started: SystemTime,
    now: SystemTime,
) -> Vec<u8> {
    let times = (nanos(started), nanos(now));
    let mut out = Wire::default();
    out.message(1, |all| {
        all.message(1, |out| resource.write(out));
        all.message(2, |scope| {
            scope.message(1, Resource::write_scope);
            for family in families(open_metrics).iter().filter(|family| !family.rows.is_empty()) {
                scope.message(2, |out| write(out, family, times));
            }
        });
    });
    out.into_bytes()
}

fn families(text: &str) -> Vec<Family<'_>> {
    let mut all: Vec<Family<'_>> = Vec::new();
    for line in text.lines() {
        if let Some(told) = line.strip_prefix("# ") {
            let mut words = told.splitn(3, ' ');
            let (what, name, rest) = (words.next(), words.next(), words.next().unwrap_or_default());
            let Some(name) = name else { continue };
            if all.last().is_none_or(|family| family.name != name) {
                all.push(Family { name, ..Family::default() });
            }
            let family = all.last_mut().expect("one was just pushed");
            match what {
                Some("HELP") => family.help = rest,
                Some("TYPE") => family.kind = rest,
                Some("UNIT") => family.unit = rest,
                _ => {}
            }
        } else if let Some(family) = all.last_mut()
            && let Some(row) = row(line, family.name)
        {
            family.rows.push(row);
        }
    }
    all
}

fn row<'a>(line: &'a str, name: &str) -> Option<Row<'a>> {
    let rest = line.strip_prefix(name)?;
    let (suffix, rest) = rest.split_at(rest.find([' ', '{'])?);
    let (labels, value) = match rest.strip_prefix('{') {
        Some(rest) => labels(rest)?,
        None => (Vec::new(), rest),
    };
    // An exemplar or a time would stand behind the value; there are none.
    Some(Row { suffix, labels, value: value.split_whitespace().next()? })
}

/// Labels up to their closing brace, and what is behind it.
fn labels(mut rest: &str) -> Option<(Vec<(&str, String)>, &str)> {
    let mut all = Vec::new();
    loop {
        if let Some(behind) = rest.strip_prefix('}') {
            return Some((all, behind));
        }
        let (name, quoted) = rest.split_once("=\"")?;
        let mut value = String::new();
        let mut chars = quoted.char_indices();
        let end = loop {
            match chars.next()? {
                (at, '"') => break at,
                (_, '\\') => match chars.next()?.1 {
                    'n' => value.push('\n'),
                    other => value.push(other),
                },
                (_, other) => value.push(other),
            }
        };
        all.push((name.trim_start_matches(','), value));
        rest = &quoted[end + 1..];
    }
}

fn write(out: &mut Wire, family: &Family<'_>, times: (u64, u64)) {
    let name = if family.kind == "info" { &format!("{}_info", family.name) } else { family.name };
    out.bytes(1, name.as_bytes());
    out.bytes(2, family.help.as_bytes());
    out.bytes(3, unit(family.unit).as_bytes());
    match family.kind {
        "counter" => out.message(7, |out| {
            family.rows.iter().for_each(|row| out.message(1, |out| number(out, row, times)));
            out.integer(2, CUMULATIVE);
            out.integer(3, 1); // monotonic
        }),
        "histogram" => out.message(9, |out| {
            for rows in histograms(&family.rows) {
                out.message(1, |out| histogram(out, rows, times));
            }
            out.integer(2, CUMULATIVE);
        }),
        _ => out.message(5, |out| {
            family.rows.iter().for_each(|row| out.message(1, |out| number(out, row, times)));
        }),
    }
}

/// The unit as UCUM has it.
fn unit(name: &str) -> &str {
    match name {
        "seconds" => "s",
        "bytes" => "By",
        other => other,
    }
}

/// `NumberDataPoint`
fn number(out: &mut Wire, row: &Row<'_>, (started, now): (u64, u64)) {
    out.fixed64(2, started);
    out.fixed64(3, now);
    match row.value.parse::<u64>().ok().filter(|value| i64::try_from(*value).is_ok()) {
        Some(whole) => out.fixed64(6, whole),
        None => out.double(4, row.value.parse().unwrap_or(f64::NAN)),
    }
    row.labels.iter().for_each(|(name, value)| out.text_attribute(7, name, value));
}

/// Rows that make up one histogram each: each begins with its sum and ends with its last bucket, or
/// the other way round; what they share is their labels.
fn histograms<'a, 'b>(rows: &'b [Row<'a>]) -> impl Iterator<Item = &'b [Row<'a>]> {
    fn of<'c>(row: &'c Row<'_>) -> impl Iterator<Item = &'c (&'c str, String)> {
        row.labels.iter().filter(|(name, _)| *name != "le")
    }
    rows.chunk_by(|one, next| of(one).eq(of(next)))
}

/// `HistogramDataPoint`
fn histogram(out: &mut Wire, rows: &[Row<'_>], (started, now): (u64, u64)) {
    let whole = |row: &Row<'_>| row.value.parse::<u64>().unwrap_or_default();
    out.fixed64(2, started);
    out.fixed64(3, now);
    let (mut counts, mut bounds, mut before) = (Vec::new(), Vec::new(), 0);
    for row in rows {
        match row.suffix {
            "_count" => out.fixed64(4, whole(row)),
            "_sum" => out.double(5, row.value.parse().unwrap_or_default()),
            "_bucket" => {
                // Prometheus' buckets hold those below them, OTLP's do not.
                let (total, le) = (whole(row), row.labels.iter().find(|(name, _)| *name == "le"));
                counts.extend(total.saturating_sub(before).to_le_bytes());
                before = total;
                let bound = le.and_then(|(_, bound)| bound.parse::<f64>().ok());
                bounds.extend(bound.filter(|bound| bound.is_finite()).map(f64::to_le_bytes));
            }
            _ => {}
        }
    }
    out.bytes(6, &counts);
    out.bytes(7, &bounds.concat());
    let labels = rows.first().map(|row| &row.labels[..]).unwrap_or_default();
    for (name, value) in labels.iter().filter(|(name, _)| *name != "le") {
        out.text_attribute(9, name, value);
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test may panic")]
    use super::*;

    const TEXT: &str = "# HELP a_seconds Time.\n# TYPE a_seconds histogram\n# UNIT a_seconds seconds\n\
        a_seconds_sum{e=\"x\"} 1.5\na_seconds_count{e=\"x\"} 3\na_seconds_bucket{le=\"0.5\",e=\"x\"} 1\n\
        a_seconds_bucket{le=\"+Inf\",e=\"x\"} 3\na_seconds_sum{e=\"y\"} 0.0\n\
        # HELP b Things.\n# TYPE b counter\nb_total{l=\"q\\\"u\\\\,} \\n\",m=\"\"} 7\nb_total 8\n\
        # HELP c State.\n# TYPE c gauge\nc 0.25\n# EOF\n";

    #[test]
    fn the_text_is_read_as_it_was_meant() {
        let all = families(TEXT);
        let names: Vec<_> = all.iter().map(|f| (f.name, f.kind, f.unit, f.rows.len())).collect();
        let expected = [("a_seconds", "histogram", "seconds", 5), ("b", "counter", "", 2)];
        assert_eq!(names[..2], expected);
        assert_eq!(names[2..], [("c", "gauge", "", 1)]);
        let labels = vec![("l", "q\"u\\,} \n".to_owned()), ("m", String::new())];
        assert_eq!(all[1].rows[0], Row { suffix: "_total", labels, value: "7" });
        assert_eq!(all[1].rows[1], Row { suffix: "_total", labels: Vec::new(), value: "8" });
        assert_eq!(histograms(&all[0].rows).map(<[_]>::len).collect::<Vec<_>>(), [4, 1]);
    }
}
