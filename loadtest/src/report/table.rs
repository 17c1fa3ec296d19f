//! The table at the end of a run.

use crate::report::model::{GroupReport, RunReport, UsageReport};
use crate::report::{bytes, count, rate, time};
use crate::run::tally::Metric;
use std::fmt::Write as _;

/// The whole report as text.
pub(crate) fn render(report: &RunReport) -> String {
    let mut out = String::new();
    let stopped = if report.interrupted { ", stopped early" } else { "" };
    let _ = writeln!(
        out,
        "{}: {:.1} s measured, seed {}{stopped}",
        report.name,
        report.measured_s(),
        report.seed
    );
    for group in &report.groups {
        group_lines(&mut out, report, group);
    }
    out.push('\n');
    usage_line(&mut out, "client", &report.client, report);
    if let Some(server) = &report.server {
        usage_line(&mut out, "server", server, report);
        let grown = server.rss_connected_bytes.saturating_sub(server.rss_before_bytes);
        let connections: usize = report.groups.iter().map(|group| group.connections).sum();
        let _ = writeln!(
            out,
            "        memory {} before, {} with {connections} connections ({:.0} B each), {} after",
            bytes(server.rss_before_bytes),
            bytes(server.rss_connected_bytes),
            grown as f64 / connections.max(1) as f64,
            bytes(server.rss_after_bytes),
        );
    }
    for warning in warnings(report) {
        let _ = writeln!(out, "note: {warning}");
    }
    out
}

fn group_lines(out: &mut String, report: &RunReport, group: &GroupReport) {
    let seconds = report.measured_s();
    let counts = &group.counts;
    let _ = writeln!(
        out,
        "\n{}: {}, {}, {} connections → {}",
        group.name, group.load, group.transport, group.connections, group.target
    );
    let _ = writeln!(
        out,
        "  requests  {} started, {} ok ({}/s), {} failed, {} unsent",
        count(counts.started),
        count(counts.ok),
        rate(counts.ok as f64 / seconds),
        count(counts.failed),
        count(counts.unsent),
    );
    if counts.events > 0 {
        let _ = writeln!(
            out,
            "  events    {} in {} streams ({}/s): {} results, {} pages ok, {} failed",
            count(counts.events),
            count(counts.streams),
            rate(counts.events as f64 / seconds),
            count(counts.results),
            count(counts.pages_ok),
            count(counts.pages_failed),
        );
        let _ = writeln!(
            out,
            "  rules     {} broken, {} cuts, {} events replayed, {} dropped by gap",
            count(counts.violations),
            count(counts.cuts),
            count(counts.replayed),
            count(counts.gap_events),
        );
    }
    let _ = writeln!(
        out,
        "  bytes     {} in ({}/s), {} out; {} connects, {} idle connections lost",
        bytes(counts.bytes_in),
        bytes(crate::num::round_u64(counts.bytes_in as f64 / seconds)),
        bytes(counts.bytes_out),
        count(counts.connects),
        count(counts.idle_lost),
    );
    let tables = [("error", &group.errors), ("broken rule", &group.violations)];
    for (label, map) in tables {
        for (class, times) in map {
            let _ = writeln!(out, "  {label}: {class} × {}", count(*times));
        }
    }
    for note in &group.notes {
        let _ = writeln!(out, "    e.g. {}", note.escape_debug());
    }
    metric_lines(out, group);
}

fn metric_lines(out: &mut String, group: &GroupReport) {
    if group.metrics.is_empty() {
        return;
    }
    let heads = ["", "p50", "p90", "p99", "p99.9", "p99.99", "max", "mean", "count"];
    for (index, head) in heads.iter().enumerate() {
        let _ = if index == 0 { write!(out, "  {head:<14}") } else { write!(out, "{head:>10}") };
    }
    out.push('\n');
    for metric in Metric::ALL {
        let Some(m) = group.metric(metric) else { continue };
        let _ = write!(out, "  {:<14}", metric.name());
        for value in [m.p50_us, m.p90_us, m.p99_us, m.p99_9_us, m.p99_99_us, m.max_us] {
            let _ = write!(out, "{:>10}", time(value));
        }
        let mean = crate::num::round_u64(m.mean_us);
        let _ = writeln!(out, "{:>10}{:>10}", time(mean), count(m.count));
    }
}

fn usage_line(out: &mut String, label: &str, usage: &UsageReport, report: &RunReport) {
    let cpu = usage.user_s + usage.system_s;
    let ok: u64 = report.groups.iter().map(|group| group.counts.ok).sum();
    let each = if ok > 0 {
        format!(", {:.1} µs per request", cpu * 1e6 / ok as f64)
    } else {
        String::new()
    };
    let _ = writeln!(
        out,
        "{label}: CPU {cpu:.2} s ({:.0} % of a core; {:.2} user, {:.2} system){each}",
        100.0 * cpu / report.measured_s(),
        usage.user_s,
        usage.system_s,
    );
}

/// What a careful reader should know before believing the figures.
pub(crate) fn warnings(report: &RunReport) -> Vec<String> {
    let mut out = Vec::new();
    let cpu = report.client.user_s + report.client.system_s;
    let busy = cpu / report.measured_s() / report.threads.max(1) as f64;
    if busy > 0.85 {
        out.push(format!(
            "the generator used {:.0} % of its {} thread(s): its own queueing is in these figures; \
             use more --threads or a lower rate",
            busy * 100.0,
            report.threads
        ));
    }
    for group in &report.groups {
        let counts = &group.counts;
        if let (Some(slip), Some(latency)) =
            (group.metric(Metric::Slip), group.metric(Metric::Latency))
            && slip.p99_us > 200
            && slip.p99_us * 2 > latency.p99_us
        {
            out.push(format!(
                "{}: the generator was late itself (p99 {}), half of the p99 latency or more",
                group.name,
                time(slip.p99_us)
            ));
        }
        if counts.unsent > 0 {
            out.push(format!(
                "{}: {} requests never got a connection; their wait until the end counts as their latency",
                group.name,
                count(counts.unsent)
            ));
        }
        if counts.failed > 0 && counts.failed * 100 > counts.started {
            out.push(format!(
                "{}: {} of {} requests failed; of those only what was given up counts, as latency so far",
                group.name,
                count(counts.failed),
                count(counts.started)
            ));
        }
        if group.rate_per_s.is_none() && group.metric(Metric::Latency).is_some() {
            out.push(format!(
                "{}: a closed loop slows down with the server, so its percentiles hide stalls \
                 (coordinated omission)",
                group.name
            ));
        }
    }
    out
}
