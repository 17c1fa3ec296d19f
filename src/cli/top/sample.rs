//! What one look at a server brings: health, metrics, percentiles.

use serde::Deserialize;
use std::time::Instant;

/// One look.
#[derive(Debug)]
pub(super) struct Sample {
    pub(super) at: Instant,
    pub(super) health: Health,
    metrics: Vec<Metric>,
    pub(super) latency: Vec<Series>,
}

/// `/healthz`, as far as it is shown.
#[derive(Debug, Clone, Deserialize)]
pub(super) struct Health {
    pub(super) status: String,
    pub(super) version: String,
    pub(super) extractor: String,
    #[serde(default)]
    pub(super) draining: bool,
}

/// One series of `/latency`, in µs.
#[derive(Debug, Clone, Deserialize)]
pub(super) struct Series {
    pub(super) name: String,
    pub(super) count: u64,
    pub(super) p50: u64,
    pub(super) p90: u64,
    pub(super) p99: u64,
    #[serde(rename = "p99.9")]
    pub(super) p999: u64,
    pub(super) max: u64,
}

#[derive(Deserialize)]
struct Latency {
    series: Vec<Series>,
}

#[derive(Debug)]
struct Metric {
    name: String,
    labels: String,
    value: f64,
}

impl Sample {
    pub(super) fn new(at: Instant, health: Health, metrics: &str, latency: Vec<Series>) -> Self {
        Self { at, health, metrics: metrics.lines().filter_map(metric).collect(), latency }
    }

    /// The sum of a metric over all its labels.
    pub(super) fn sum(&self, name: &str) -> f64 {
        add_up(self.metrics.iter().filter(|metric| metric.name == name))
    }

    /// The sum of a metric where its labels hold `label="value"`.
    pub(super) fn of(&self, name: &str, label: &str, value: &str) -> f64 {
        let wanted = format!("{label}=\"{value}\"");
        let fits = |metric: &&Metric| {
            metric.name == name && metric.labels.split(',').any(|pair| pair == wanted)
        };
        add_up(self.metrics.iter().filter(fits))
    }

    /// The cores, by their label.
    pub(super) fn cores(&self) -> Vec<String> {
        let lanes = self.metrics.iter().filter(|metric| metric.name == "forebay_lane_jobs_total");
        let mut cores: Vec<String> = lanes
            .filter_map(|metric| {
                metric.labels.strip_prefix("core=\"")?.strip_suffix('"').map(str::to_owned)
            })
            .collect();
        cores.sort_by_key(|core| (core.len(), core.clone()));
        cores
    }
}

/// From a positive zero on: nothing at all is shown as 0, not as -0.
fn add_up<'a>(metrics: impl Iterator<Item = &'a Metric>) -> f64 {
    metrics.fold(0.0, |sum, metric| sum + metric.value)
}

/// Reads `/healthz`.
pub(super) fn health(mut json: Vec<u8>) -> Result<Health, String> {
    simd_json::serde::from_slice(&mut json).map_err(|error| format!("/healthz: {error}"))
}

/// Reads `/latency`.
pub(super) fn latency(mut json: Vec<u8>) -> Result<Vec<Series>, String> {
    let read: Result<Latency, _> = simd_json::serde::from_slice(&mut json);
    read.map(|latency| latency.series).map_err(|error| format!("/latency: {error}"))
}

/// A line of Prometheus' text format that is no comment. None of our labels' values has a comma.
fn metric(line: &str) -> Option<Metric> {
    let (series, value) = line.rsplit_once(' ').filter(|_| !line.starts_with('#'))?;
    let (name, labels) = series.split_once('{').unwrap_or((series, ""));
    Some(Metric {
        name: name.to_owned(),
        labels: labels.trim_end_matches('}').to_owned(),
        value: value.parse().ok()?,
    })
}
