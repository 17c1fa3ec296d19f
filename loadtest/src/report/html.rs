//! The HTML report: one file, no outside resources, light and dark.

use crate::num;
use crate::report::hdr;
use crate::report::model::{GroupReport, Point, RunReport};
use crate::report::svg::{Plot, Scale, Series, Unit, escape};
use crate::report::table::warnings;
use crate::report::{bytes, count, rate, time};
use crate::run::tally::Metric;
use hdrhistogram::Histogram;
use std::fmt::Write as _;

/// The percentiles that get a dot.
const MARKED: [f64; 5] = [0.5, 0.9, 0.99, 0.999, 0.9999];

/// A report on one run, or the comparison of several.
///
/// # Errors
/// When a histogram in a report can't be read.
pub(crate) fn render(reports: &[RunReport]) -> Result<String, String> {
    let title = match reports {
        [only] => only.name.clone(),
        _ => format!("{} runs compared", reports.len()),
    };
    let mut out = format!(
        "<!DOCTYPE html>\n<html lang=\"en\"><head><meta charset=\"utf-8\"><meta name=\"viewport\" \
         content=\"width=device-width, initial-scale=1\"><title>{0} · latency</title><style>{1}\
         </style></head><body><main>\n",
        escape(&title),
        include_str!("style.css")
    );
    match reports {
        [only] => single(&mut out, only)?,
        _ => comparison(&mut out, &title, reports)?,
    }
    out.push_str(
        "<footer><p><b>Latency</b> counts from the moment a request was <i>meant</i> to start, so \
         a stall of the server is felt by every request that would have come meanwhile. \
         <b>Service</b> counts from the moment it was really sent. Where the two part, requests \
         were waiting for a connection.</p></footer></main></body></html>\n",
    );
    Ok(out)
}

fn single(out: &mut String, report: &RunReport) -> Result<(), String> {
    header(out, report);
    for group in report.groups.iter().filter(|group| group.measured) {
        tiles(out, report, group);
    }
    notes(out, report);
    for group in &report.groups {
        if report.groups.len() > 1 {
            let role = if group.measured { "measured" } else { "beside it" };
            let _ = write!(out, "<h2>{} <small>{role}</small></h2>", escape(&group.name));
        }
        let _ = writeln!(
            out,
            "<p class=\"sub\">{} over {}, {} connections → <code>{}</code></p>",
            escape(&group.load),
            escape(&group.transport),
            group.connections,
            escape(&group.target)
        );
        percentile_section(out, group)?;
        timeline_section(out, &group.timeline);
        histogram_section(out, group)?;
        figures(out, group);
    }
    usage(out, report);
    Ok(())
}

fn header(out: &mut String, report: &RunReport) {
    let _ = writeln!(
        out,
        "<header><h1>{}</h1><p class=\"sub\">{:.1} s measured{} · seed {} · {}{}</p></header>",
        escape(&report.name),
        report.measured_s(),
        if report.warmup_s > 0.0 {
            format!(" after {:.1} s of warm-up", report.warmup_s)
        } else {
            String::new()
        },
        report.seed,
        date(report.started_at_s),
        if report.interrupted { " · <b>stopped early</b>" } else { "" }
    );
}

fn tiles(out: &mut String, report: &RunReport, group: &GroupReport) {
    let mut tiles = Vec::new();
    if let Some(latency) = group.metric(Metric::Latency) {
        tiles.push(("p50", time(latency.p50_us)));
        tiles.push(("p99", time(latency.p99_us)));
        tiles.push(("p99.9", time(latency.p99_9_us)));
        tiles.push(("max", time(latency.max_us)));
    }
    if let Some(ttfr) = group.metric(Metric::Ttfr) {
        tiles.push(("first result p99", time(ttfr.p99_us)));
    }
    tiles.push(("ok per second", rate(group.counts.ok as f64 / report.measured_s())));
    tiles.push(("failed", count(group.counts.failed)));
    if group.counts.events > 0 {
        tiles.push(("rules broken", count(group.counts.violations)));
    }
    out.push_str("<div class=\"tiles\">");
    for (label, value) in tiles {
        let bad = (label == "failed" || label == "rules broken") && value != "0";
        let class = if bad { "tile bad" } else { "tile" };
        let _ = write!(out, "<div class=\"{class}\"><b>{value}</b><span>{label}</span></div>");
    }
    out.push_str("</div>\n");
}

fn notes(out: &mut String, report: &RunReport) {
    for warning in warnings(report) {
        let _ = writeln!(out, "<p class=\"note\">{}</p>", escape(&warning));
    }
}

/// A histogram as a curve over 1/(1−q).
fn curve(name: &str, colour: usize, histogram: &Histogram<u64>) -> Series {
    let total = histogram.len().max(1) as f64;
    let mut points = vec![(1.0, histogram.min() as f64)];
    for step in histogram.iter_quantiles(8) {
        let quantile = step.quantile_iterated_to();
        let inverse = if quantile < 1.0 { 1.0 / (1.0 - quantile) } else { total };
        points.push((inverse.min(total), step.value_iterated_to() as f64));
    }
    let marks = MARKED
        .iter()
        .filter(|&&quantile| 1.0 / (1.0 - quantile) <= total * 1.0001)
        .map(|&quantile| {
            let value = histogram.value_at_quantile(quantile);
            let text = format!("{name}: p{} {}", quantile * 100.0, time(value));
            (1.0 / (1.0 - quantile), value as f64, text)
        })
        .collect();
    Series { name: name.to_owned(), colour, points, marks }
}

fn legend(out: &mut String, series: &[Series]) {
    out.push_str("<p class=\"legend\">");
    for one in series {
        let _ =
            write!(out, "<span><i class=\"c{}\"></i>{}</span>", one.colour % 6, escape(&one.name));
    }
    out.push_str("</p>");
}

fn percentile_plot(out: &mut String, series: &[Series]) {
    let x_max = series.iter().flat_map(|s| &s.points).map(|p| p.0).fold(10.0, f64::max);
    let values = || series.iter().flat_map(|s| &s.points).map(|p| p.1);
    let y = Scale::fitting(values().fold(f64::MAX, f64::min), values().fold(1.0, f64::max));
    let x = Scale::log(1.0, x_max);
    let mut plot =
        Plot::new("Latency by percentile", 340.0, (x, Unit::Percentile), (y, Unit::Time));
    // The first is what matters most, so it is drawn last, on top.
    for one in series.iter().rev() {
        plot.line(one, false);
    }
    legend(out, series);
    out.push_str(&plot.finish("percentile, each step right is one more nine"));
}

fn percentile_section(out: &mut String, group: &GroupReport) -> Result<(), String> {
    let wanted = [
        (Metric::Latency, "latency (from intended send)"),
        (Metric::Service, "service (from actual send)"),
        (Metric::Ttfb, "first byte"),
        (Metric::Ttfr, "first result"),
        (Metric::Gap, "gap between events"),
    ];
    let mut series = Vec::new();
    for (colour, (metric, name)) in wanted.into_iter().enumerate() {
        if let Some(metric) = group.metric(metric) {
            series.push(curve(name, colour, &hdr::decode(&metric.histogram)?));
        }
    }
    if !series.is_empty() {
        out.push_str("<section><h3>Percentiles</h3>");
        percentile_plot(out, &series);
        out.push_str("</section>\n");
    }
    Ok(())
}

fn timeline_series(
    timeline: &[Point],
    name: &str,
    colour: usize,
    pick: fn(&Point) -> u64,
) -> Series {
    let shown: Vec<&Point> = timeline.iter().filter(|point| point.max_us > 0).collect();
    let points = shown.iter().map(|p| (p.second as f64 + 0.5, pick(p) as f64)).collect();
    let marks = if shown.len() > 60 {
        Vec::new()
    } else {
        shown
            .iter()
            .map(|p| {
                let text = format!("second {}: {name} {}", p.second + 1, time(pick(p)));
                (p.second as f64 + 0.5, pick(p) as f64, text)
            })
            .collect()
    };
    Series { name: name.to_owned(), colour, points, marks }
}

fn timeline_section(out: &mut String, timeline: &[Point]) {
    let worked = timeline.iter().any(|point| point.ok + point.failed > 0);
    if timeline.len() < 2 || !worked {
        return;
    }
    let end = timeline.last().map_or(1.0, |point| point.second as f64 + 1.0);
    let x = Scale::exact(0.0, end);
    let series = [
        timeline_series(timeline, "max", 1, |p| p.max_us),
        timeline_series(timeline, "p99", 2, |p| p.p99_us),
        timeline_series(timeline, "p50", 0, |p| p.p50_us),
    ];
    let values = || series.iter().flat_map(|s| &s.points).map(|p| p.1);
    let y =
        Scale::fitting(values().fold(f64::MAX, f64::min).min(1e12), values().fold(1.0, f64::max));
    out.push_str("<section><h3>Second by second</h3>");
    legend(out, &series);
    let mut plot = Plot::new("Latency over time", 260.0, (x, Unit::Seconds), (y, Unit::Time));
    for one in &series {
        plot.line(one, false);
    }
    out.push_str(&plot.finish("latency of the requests that ended in each second"));
    let most = timeline.iter().map(|p| (p.ok + p.failed) as f64).fold(1.0, f64::max);
    let y = Scale::linear(most);
    let mut plot = Plot::new("Requests per second", 170.0, (x, Unit::Seconds), (y, Unit::Plain));
    for point in timeline {
        let (from, all) = (point.second as f64, point.ok + point.failed);
        let text = format!("second {}: {} ok, {} failed", point.second + 1, point.ok, point.failed);
        if point.failed > 0 {
            plot.bar(from, from + 1.0, all as f64, 1, &text);
        }
        plot.bar(from, from + 1.0, point.ok as f64, 0, &text);
    }
    out.push_str(&plot.finish("requests per second (failed ones on top)"));
    out.push_str("</section>\n");
}

fn histogram_section(out: &mut String, group: &GroupReport) -> Result<(), String> {
    let Some(metric) = group.metric(Metric::Latency) else { return Ok(()) };
    let histogram = hdr::decode(&metric.histogram)?;
    let (low, high) = (histogram.min().max(1) as f64, histogram.max().max(2) as f64);
    let x = Scale::log(low, high);
    // 24 bars to the decade, fewer where the range is wide.
    let ratio = (high / low).ln();
    let bars = num::round_u64((ratio / 10_f64.ln() * 24.0).clamp(8.0, 72.0));
    let edge = |index: u64| low * (ratio * index as f64 / bars as f64).exp();
    let counts: Vec<u64> = (0..bars)
        .map(|index| {
            let from = if index == 0 { 0 } else { num::round_u64(edge(index)) };
            let to = if index + 1 == bars { u64::MAX } else { num::round_u64(edge(index + 1)) };
            let (from, to) = (from, to.saturating_sub(1));
            if to < from { 0 } else { histogram.count_between(from, to.min(histogram.high())) }
        })
        .collect();
    let most = counts.iter().copied().max().unwrap_or(1) as f64;
    let share = Scale::linear(100.0 * most / histogram.len().max(1) as f64);
    let mut plot =
        Plot::new("Histogram of latency", 220.0, (x, Unit::Time), (share, Unit::Percent));
    for (index, &n) in (0_u64..).zip(&counts).filter(|(_, n)| **n > 0) {
        let text = format!(
            "{} to {}: {} requests",
            time(num::round_u64(edge(index))),
            time(num::round_u64(edge(index + 1))),
            count(n)
        );
        let height = 100.0 * n as f64 / histogram.len() as f64;
        plot.bar(edge(index), edge(index + 1), height, 0, &text);
    }
    out.push_str("<section><h3>Where the requests lie</h3>");
    out.push_str(&plot.finish("latency, logarithmic; height is the share of requests"));
    out.push_str("</section>\n");
    Ok(())
}

fn figures(out: &mut String, group: &GroupReport) {
    out.push_str(
        "<section><h3>Figures</h3><div class=\"scroll\"><table><thead><tr><th></th><th>p50</th>\
         <th>p90</th><th>p99</th><th>p99.9</th><th>p99.99</th><th>max</th><th>mean</th>\
         <th>count</th></tr></thead><tbody>",
    );
    for metric in Metric::ALL {
        let Some(m) = group.metric(metric) else { continue };
        let _ = write!(out, "<tr><th>{}</th>", metric.name());
        let mean = num::round_u64(m.mean_us);
        for value in [m.p50_us, m.p90_us, m.p99_us, m.p99_9_us, m.p99_99_us, m.max_us, mean] {
            let _ = write!(out, "<td>{}</td>", time(value));
        }
        let _ = write!(out, "<td>{}</td></tr>", count(m.count));
    }
    out.push_str("</tbody></table></div>");
    let c = &group.counts;
    let mut facts = vec![
        format!(
            "{} started, {} ok, {} failed, {} unsent",
            count(c.started),
            count(c.ok),
            count(c.failed),
            count(c.unsent)
        ),
        format!(
            "{} received, {} sent, {} connects",
            bytes(c.bytes_in),
            bytes(c.bytes_out),
            count(c.connects)
        ),
    ];
    if c.events > 0 {
        facts.push(format!(
            "{} events in {} streams, {} results, {} cuts, {} replayed, {} dropped by gap, {} rules broken",
            count(c.events), count(c.streams), count(c.results), count(c.cuts), count(c.replayed),
            count(c.gap_events), count(c.violations)
        ));
    }
    if c.idle_lost > 0 {
        facts.push(format!("{} idle connections were closed by the server", count(c.idle_lost)));
    }
    let _ = write!(out, "<p class=\"sub\">{}</p>", escape(&facts.join(" · ")));
    for (class, times) in group.errors.iter().chain(&group.violations) {
        let _ = write!(out, "<p class=\"error\"><b>{}</b> {}</p>", count(*times), escape(class));
    }
    out.push_str("</section>\n");
}

fn usage(out: &mut String, report: &RunReport) {
    out.push_str("<section><h3>Processes</h3><div class=\"scroll\"><table><thead><tr><th></th><th>CPU</th><th>user</th><th>system</th><th>memory before</th><th>connected</th><th>after</th></tr></thead><tbody>");
    for (name, usage) in [("generator", Some(&report.client)), ("server", report.server.as_ref())] {
        let Some(usage) = usage else { continue };
        let _ = write!(
            out,
            "<tr><th>{name}</th><td>{:.2} s</td><td>{:.2} s</td><td>{:.2} s</td><td>{}</td><td>{}</td><td>{}</td></tr>",
            usage.user_s + usage.system_s,
            usage.user_s,
            usage.system_s,
            bytes(usage.rss_before_bytes),
            bytes(usage.rss_connected_bytes),
            bytes(usage.rss_after_bytes)
        );
    }
    out.push_str("</tbody></table></div></section>\n");
}

fn comparison(out: &mut String, title: &str, reports: &[RunReport]) -> Result<(), String> {
    let _ = writeln!(
        out,
        "<header><h1>{}</h1><p class=\"sub\">ratios are to the first run</p></header>",
        escape(title)
    );
    out.push_str("<section><h3>Figures</h3><div class=\"scroll\"><table><thead><tr><th>run</th><th>p50</th><th>p90</th><th>p99</th><th>p99.9</th><th>max</th><th>ok/s</th><th>failed</th></tr></thead><tbody>");
    let groups: Vec<(&RunReport, &GroupReport)> =
        reports.iter().filter_map(|report| Some((report, report.measured()?))).collect();
    let mut first: Option<[f64; 6]> = None;
    for (colour, (report, group)) in groups.iter().enumerate() {
        let Some(m) = group.metric(Metric::Latency) else { continue };
        let values = [m.p50_us, m.p90_us, m.p99_us, m.p99_9_us, m.max_us];
        let per_s = group.counts.ok as f64 / report.measured_s();
        let base = *first.get_or_insert_with(|| {
            let [a, b, c, d, e] = values.map(|value| value as f64);
            [a, b, c, d, e, per_s]
        });
        let ratio = |value: f64, base: f64| {
            if colour == 0 || base <= 0.0 {
                String::new()
            } else {
                format!("<small>{:.2}×</small>", value / base)
            }
        };
        let _ =
            write!(out, "<tr><th><i class=\"c{}\"></i>{}</th>", colour % 6, escape(&report.name));
        for (value, base) in values.into_iter().zip(base) {
            let _ = write!(out, "<td>{}{}</td>", time(value), ratio(value as f64, base));
        }
        let _ = write!(
            out,
            "<td>{}{}</td><td>{}</td></tr>",
            rate(per_s),
            ratio(per_s, base[5]),
            count(group.counts.failed)
        );
    }
    out.push_str("</tbody></table></div></section>\n");
    for (metric, heading) in [
        (Metric::Latency, "Latency"),
        (Metric::Ttfb, "First byte"),
        (Metric::Ttfr, "First result"),
        (Metric::Gap, "Gap between events"),
    ] {
        let mut series = Vec::new();
        for (colour, (report, group)) in groups.iter().enumerate() {
            if let Some(m) = group.metric(metric) {
                series.push(curve(&report.name, colour, &hdr::decode(&m.histogram)?));
            }
        }
        if !series.is_empty() {
            let _ = write!(out, "<section><h3>{heading}</h3>");
            percentile_plot(out, &series);
            out.push_str("</section>\n");
        }
    }
    for (report, group) in groups {
        let _ = write!(out, "<h2>{}</h2>", escape(&report.name));
        notes(out, report);
        timeline_section(out, &group.timeline);
        figures(out, group);
        usage(out, report);
    }
    Ok(())
}

/// Seconds since 1970 as a date and time in UTC (days to civil, H. Hinnant's algorithm).
fn date(seconds: f64) -> String {
    let seconds = num::round_u64(seconds);
    let (days, rest) = (seconds / 86_400, seconds % 86_400);
    let z = days + 719_468;
    let (era, day_of_era) = (z / 146_097, z % 146_097);
    let year_of_era =
        (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * shifted + 2) / 5 + 1;
    let month = if shifted < 10 { shifted + 3 } else { shifted - 9 };
    let year = year_of_era + era * 400 + u64::from(month <= 2);
    format!("{year}-{month:02}-{day:02} {:02}:{:02} UTC", rest / 3600, rest % 3600 / 60)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dates_are_right() {
        assert_eq!(date(0.0), "1970-01-01 00:00 UTC");
        assert_eq!(date(1_709_210_096.0), "2024-02-29 12:34 UTC");
    }
}
