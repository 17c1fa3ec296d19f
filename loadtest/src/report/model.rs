//! A run as JSON: what `--json` writes and `loadtest report` reads.

use crate::report::hdr;
use crate::run::Outcome;
use crate::run::process::Usage;
use crate::run::scenario::{Group, Kind};
use crate::run::tally::{Counts, Metric, Tally};
use hdrhistogram::Histogram;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::path::Path;
use std::time::UNIX_EPOCH;

/// Version of the format.
const FORMAT: u32 = 1;

/// A whole run.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct RunReport {
    /// Version of this format.
    pub(crate) format: u32,
    pub(crate) name: String,
    /// Seconds since 1970.
    pub(crate) started_at_s: f64,
    pub(crate) elapsed_s: f64,
    pub(crate) warmup_s: f64,
    pub(crate) seed: u64,
    pub(crate) threads: usize,
    pub(crate) interrupted: bool,
    pub(crate) groups: Vec<GroupReport>,
    pub(crate) client: UsageReport,
    pub(crate) server: Option<UsageReport>,
}

/// Use of a process over the run.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct UsageReport {
    /// Before the first connection.
    pub(crate) rss_before_bytes: u64,
    /// With all connections made, before the first request.
    pub(crate) rss_connected_bytes: u64,
    pub(crate) rss_after_bytes: u64,
    pub(crate) user_s: f64,
    pub(crate) system_s: f64,
}

/// One group.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct GroupReport {
    pub(crate) name: String,
    pub(crate) measured: bool,
    /// What its clients did, in words.
    pub(crate) load: String,
    pub(crate) transport: String,
    pub(crate) target: String,
    pub(crate) connections: usize,
    /// Requests meant to start per second; `None` for a closed loop.
    pub(crate) rate_per_s: Option<f64>,
    pub(crate) counts: Counts,
    pub(crate) errors: BTreeMap<String, u64>,
    pub(crate) statuses: BTreeMap<u16, u64>,
    pub(crate) violations: BTreeMap<String, u64>,
    pub(crate) notes: Vec<String>,
    /// By the metric's name.
    pub(crate) metrics: BTreeMap<String, MetricReport>,
    pub(crate) timeline: Vec<Point>,
}

/// A histogram in figures and in full.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct MetricReport {
    pub(crate) count: u64,
    pub(crate) min_us: u64,
    pub(crate) mean_us: f64,
    pub(crate) stdev_us: f64,
    pub(crate) p50_us: u64,
    pub(crate) p90_us: u64,
    pub(crate) p99_us: u64,
    pub(crate) p99_9_us: u64,
    pub(crate) p99_99_us: u64,
    pub(crate) max_us: u64,
    /// HdrHistogram V2, deflated, base64; values in microseconds.
    pub(crate) histogram: String,
}

/// One second of a group.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(crate) struct Point {
    pub(crate) second: u64,
    pub(crate) ok: u64,
    pub(crate) failed: u64,
    pub(crate) events: u64,
    pub(crate) bytes_in: u64,
    pub(crate) p50_us: u64,
    pub(crate) p99_us: u64,
    pub(crate) max_us: u64,
}

impl RunReport {
    /// The report of a run.
    ///
    /// # Errors
    /// When a histogram can't be serialized, which has no reason to happen.
    pub(crate) fn of(outcome: &Outcome) -> Result<Self, String> {
        let scenario = &outcome.scenario;
        let groups = scenario
            .groups
            .iter()
            .zip(&outcome.totals)
            .zip(&outcome.seconds)
            .map(|((group, total), seconds)| group_report(group, total, seconds))
            .collect::<Result<_, String>>()?;
        let since = outcome.started_at.duration_since(UNIX_EPOCH).unwrap_or_default();
        let (before, after) = outcome.client;
        Ok(Self {
            format: FORMAT,
            name: scenario.name.clone(),
            started_at_s: since.as_secs_f64(),
            elapsed_s: outcome.elapsed.as_secs_f64(),
            warmup_s: scenario.warmup.as_secs_f64(),
            seed: scenario.seed,
            threads: scenario.threads,
            interrupted: outcome.interrupted,
            groups,
            client: usage_report([before, before, before, after]),
            server: outcome.server.map(usage_report),
        })
    }

    /// Reads a report that `--json` wrote.
    ///
    /// # Errors
    /// When it can't be read or is of another format.
    pub(crate) fn read(path: &Path) -> Result<Self, String> {
        let text = std::fs::read_to_string(path)
            .map_err(|error| format!("{}: {error}", path.display()))?;
        let report: Self = serde_json::from_str(&text).map_err(|error| {
            format!("{}: no report of `loadtest run --json`: {error}", path.display())
        })?;
        if report.format == FORMAT {
            Ok(report)
        } else {
            Err(format!("{}: format {}, expected {FORMAT}", path.display(), report.format))
        }
    }

    /// The group that was to be measured.
    pub(crate) fn measured(&self) -> Option<&GroupReport> {
        self.groups.iter().find(|group| group.measured).or(self.groups.first())
    }

    /// Seconds that were measured.
    pub(crate) fn measured_s(&self) -> f64 {
        (self.elapsed_s - self.warmup_s).max(1e-3)
    }
}

impl GroupReport {
    /// A metric by name.
    pub(crate) fn metric(&self, metric: Metric) -> Option<&MetricReport> {
        self.metrics.get(metric.name())
    }
}

impl MetricReport {
    fn of(histogram: &Histogram<u64>) -> Result<Self, String> {
        let at = |quantile| histogram.value_at_quantile(quantile);
        Ok(Self {
            count: histogram.len(),
            min_us: histogram.min(),
            mean_us: histogram.mean(),
            stdev_us: histogram.stdev(),
            p50_us: at(0.5),
            p90_us: at(0.9),
            p99_us: at(0.99),
            p99_9_us: at(0.999),
            p99_99_us: at(0.9999),
            max_us: histogram.max(),
            histogram: hdr::encode(histogram)?,
        })
    }
}

fn group_report(
    group: &Group,
    total: &Tally,
    seconds: &BTreeMap<u64, Tally>,
) -> Result<GroupReport, String> {
    let mut metrics = BTreeMap::new();
    for metric in Metric::ALL {
        if let Some(histogram) = total.histogram(metric) {
            metrics.insert(metric.name().to_owned(), MetricReport::of(histogram)?);
        }
    }
    let rate = group.schedule.as_ref().map(|schedule| schedule.rate_max());
    let load = match (group.kind, rate) {
        (Kind::Idle, _) => "idle crowd".to_owned(),
        (Kind::Storm(_), Some(rate)) => format!("connection storm, {rate}/s"),
        (_, Some(rate)) => format!("open loop, {rate}/s"),
        (_, None) => format!("closed loop of {}", group.connections),
    };
    Ok(GroupReport {
        name: group.name.clone(),
        measured: group.measured,
        load,
        transport: group.transport.name().to_owned(),
        target: format!("http://{}{}", group.host, group.path),
        connections: group.connections,
        rate_per_s: rate,
        counts: total.counts.clone(),
        errors: total.errors.clone(),
        statuses: total.statuses.clone(),
        violations: total.violations.clone(),
        notes: total.notes.clone(),
        metrics,
        timeline: seconds.iter().map(|(second, tally)| point(*second, tally)).collect(),
    })
}

fn point(second: u64, tally: &Tally) -> Point {
    let at = |quantile: f64| {
        tally.histogram(Metric::Latency).map_or(0, |h| h.value_at_quantile(quantile))
    };
    Point {
        second,
        ok: tally.counts.ok,
        failed: tally.counts.failed,
        events: tally.counts.events,
        bytes_in: tally.counts.bytes_in,
        p50_us: at(0.5),
        p99_us: at(0.99),
        max_us: at(1.0),
    }
}

fn usage_report([before, ready, warm, after]: [Usage; 4]) -> UsageReport {
    UsageReport {
        rss_before_bytes: before.rss_bytes,
        rss_connected_bytes: ready.rss_bytes,
        rss_after_bytes: after.rss_bytes,
        // CPU time of what was measured, without connecting and warm-up.
        user_s: after.user_s - warm.user_s,
        system_s: after.system_s - warm.system_s,
    }
}
