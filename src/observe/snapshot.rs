//! What a core hands out when it is asked for its latencies, and the three forms in which a reader
//! gets them: JSON, HdrHistogram's percentile text (hgrm) and its V2 interval log (hlog).

use super::hist::{Epoch, histogram, micros};
use super::series::Key;
use super::sparse::Counts;
use crate::limits::LATENCY_INTERVAL;
use hdrhistogram::Histogram;
use hdrhistogram::serialization::V2DeflateSerializer;
use hdrhistogram::serialization::interval_log::{IntervalLogWriterBuilder, Tag};
use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::time::Duration;

/// The percentiles of the JSON form, with their names there.
pub const PERCENTILES: [(&str, f64); 5] =
    [("p50", 0.5), ("p90", 0.9), ("p99", 0.99), ("p99.9", 0.999), ("p99.99", 0.9999)];

/// HdrHistogram's "percentile ticks per half distance", as its tools set it.
const HGRM_TICKS: f64 = 5.0;
/// Sub-buckets of 3 significant digits: the power of two above 2 × 10³.
const HGRM_SUB_BUCKETS: u32 = 2048;

/// One interval of one series.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Part {
    /// When it began, µs since the epoch.
    pub start_us: u64,
    /// When it ended, µs since the epoch.
    pub end_us: u64,
    /// What was recorded in it.
    pub counts: Counts,
}

/// Latencies of one core, or of several once merged. `Send`, and cheap to move: packed counts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Snapshot {
    epoch: Epoch,
    since_us: u64,
    taken_us: u64,
    window: Option<Duration>,
    /// By [`Key::index`].
    series: BTreeMap<usize, Vec<Part>>,
}

impl Snapshot {
    pub(super) fn new(
        epoch: Epoch,
        since_us: u64,
        taken_us: u64,
        window: Option<Duration>,
    ) -> Self {
        Self { epoch, since_us, taken_us, window, series: BTreeMap::new() }
    }

    pub(super) fn insert(&mut self, place: usize, parts: Vec<Part>) {
        self.series.insert(place, parts);
    }

    /// Adds another core's values; both must have been taken with the same epoch and window.
    pub fn merge(&mut self, other: Self) {
        debug_assert_eq!(self.epoch, other.epoch, "cores of one process share an epoch");
        self.since_us = self.since_us.min(other.since_us);
        self.taken_us = self.taken_us.max(other.taken_us);
        for (place, parts) in other.series {
            self.series.entry(place).or_default().extend(parts);
        }
    }

    /// The series that have values, in the order of [`Key::all`].
    pub fn keys(&self) -> impl Iterator<Item = Key> + '_ {
        Key::all().filter(|key| self.series.contains_key(&key.index()))
    }

    /// One series as a histogram in µs; `None` if it has no values. Takes 188 KB: drop it soon.
    #[must_use]
    pub fn histogram(&self, key: Key) -> Option<Histogram<u64>> {
        let parts = self.series.get(&key.index())?;
        let mut all = histogram();
        parts.iter().for_each(|part| add(&mut all, &part.counts));
        Some(all)
    }

    /// All (value in µs, count) pairs of a series; several cores' and intervals' one after the
    /// other, so not in order.
    pub fn pairs(&self, key: Key) -> impl Iterator<Item = (u64, u64)> + '_ {
        self.series.get(&key.index()).into_iter().flatten().flat_map(|part| part.counts.iter())
    }

    /// What the values cover: µs before the snapshot at which the oldest of them may lie. Everything
    /// since start or reset, or for a window the beginning of its first whole interval.
    #[must_use]
    pub fn covered(&self) -> Duration {
        let oldest = self.series.values().flatten().map(|part| part.start_us).min();
        let start_us = match self.window {
            None => self.since_us,
            Some(window) => {
                let asked_us = self.taken_us.saturating_sub(micros(window)).max(self.since_us);
                oldest.unwrap_or(asked_us).min(asked_us)
            }
        };
        Duration::from_micros(self.taken_us.saturating_sub(start_us))
    }

    /// `GET /latency`: percentiles of every series that has values, in µs.
    #[must_use]
    pub fn to_json(&self) -> String {
        let mut out = String::with_capacity(4096);
        let covered = self.covered().as_secs_f64();
        let window = self.window.map_or("null".to_owned(), |w| format!("{}", w.as_secs_f64()));
        push(&mut out, format_args!("{{\"unit\":\"us\",\"covered_s\":{covered:.3}"));
        push(&mut out, format_args!(",\"window_s\":{window},\"series\":["));
        let mut first = true;
        for key in self.keys() {
            if let Some(all) = self.histogram(key) {
                out.push_str(if first { "" } else { "," });
                first = false;
                push_series(&mut out, key, &all);
            }
        }
        out.push_str("]}");
        out
    }

    /// One series in the percentile text that `HistogramLogProcessor` and
    /// `outputPercentileDistribution` print and HdrHistogram's plotters read. Values are µs divided
    /// by `unit_us`: 1.0 for µs, 1000.0 for ms. `None` if the series has no values.
    #[must_use]
    pub fn to_hgrm(&self, key: Key, unit_us: f64) -> Option<String> {
        Some(hgrm(&self.histogram(key)?, unit_us))
    }

    /// Every series in percentile text, one after the other, each after a comment line
    /// `#[Series: NAME]` and ended by an empty line.
    #[must_use]
    pub fn to_hgrm_all(&self, unit_us: f64) -> String {
        let mut out = String::new();
        for (key, text) in self.keys().filter_map(|k| Some((k, self.to_hgrm(k, unit_us)?))) {
            push(&mut out, format_args!("#[Series: {}]\n{text}\n", key.name()));
        }
        out
    }

    /// All series as a V2 compressed interval log, values in µs, each line tagged with its series'
    /// name. Lines are in order of time. Everything that is older than the kept intervals is the
    /// first line of its series, so the lines of a series add up to all its values.
    #[must_use]
    pub fn to_hlog(&self) -> String {
        let mut lines: BTreeMap<(u64, usize), (u64, u64, Histogram<u64>)> = BTreeMap::new();
        for (&place, parts) in &self.series {
            for part in parts {
                // Several cores end the same interval some µs apart: one line for all.
                let slot = part.start_us / micros(LATENCY_INTERVAL);
                let (start, end, all) = lines
                    .entry((slot, place))
                    .or_insert_with(|| (part.start_us, part.end_us, histogram()));
                *start = (*start).min(part.start_us);
                *end = (*end).max(part.end_us);
                add(all, &part.counts);
            }
        }
        let mut out = Vec::new();
        let mut serializer = V2DeflateSerializer::new();
        let names: Vec<String> = Key::all().map(Key::name).collect();
        let mut log = IntervalLogWriterBuilder::new();
        log.add_comment("[Histogram log format version 1.3]");
        log.add_comment("[Forebay latencies, values in microseconds]");
        log.with_base_time(self.epoch.unix).with_start_time(self.epoch.unix);
        let mut log =
            log.begin_log_with(&mut out, &mut serializer).expect("writing to memory does not fail");
        for ((_, place), (start_us, end_us, all)) in &lines {
            let start = Duration::from_micros(*start_us);
            let length = Duration::from_micros(end_us.saturating_sub(*start_us));
            log.write_histogram(all, start, length, Tag::new(&names[*place]))
                .expect("counts are far below 2⁶³ and memory takes every byte");
        }
        String::from_utf8(out).expect("an interval log is ASCII")
    }
}

fn add(all: &mut Histogram<u64>, counts: &Counts) {
    for (value_us, count) in counts.iter() {
        all.saturating_record_n(value_us, count);
    }
}

fn push_series(out: &mut String, key: Key, all: &Histogram<u64>) {
    push(out, format_args!("{{\"name\":\"{}\",", key.name()));
    match key {
        Key::At(endpoint, measure) => push(
            out,
            format_args!(
                "\"endpoint\":\"{}\",\"transport\":\"{}\",\"measure\":\"{}\"",
                endpoint.route(),
                endpoint.transport(),
                measure.as_str()
            ),
        ),
        Key::Page(stage) => push(out, format_args!("\"stage\":\"{}\"", stage.as_str())),
    }
    push(out, format_args!(",\"count\":{},\"mean\":{:.1}", all.len(), all.mean()));
    for (name, quantile) in PERCENTILES {
        push(out, format_args!(",\"{name}\":{}", all.value_at_quantile(quantile)));
    }
    push(out, format_args!(",\"max\":{}}}", all.max()));
}

/// The widths and digits of `AbstractHistogram.outputPercentileDistribution` for 3 significant
/// digits, five ticks per half distance.
/// A histogram of µs in percentile text; see [`Snapshot::to_hgrm`].
#[must_use]
pub fn hgrm(all: &Histogram<u64>, unit_us: f64) -> String {
    let mut out = format!(
        "{:>12} {:>14} {:>10} {:>14}\n\n",
        "Value", "Percentile", "TotalCount", "1/(1-Percentile)"
    );
    for (value_us, percent, total) in percentile_rows(all) {
        let value = unit(value_us, unit_us);
        // The Java tools round a tie up, Rust to even: one step up decides ties alike.
        let quantile = (percent / 100.0).next_up();
        push(&mut out, format_args!("{value:12.3} {quantile:.12} {total:10}"));
        if percent < 100.0 {
            push(&mut out, format_args!(" {:14.2}", 100.0 / (100.0 - percent)));
        }
        out.push('\n');
    }
    let (mean, deviation) = (all.mean() / unit_us, all.stdev() / unit_us);
    let (max, count) = (unit(all.max(), unit_us), all.len());
    push(&mut out, format_args!("#[Mean    = {mean:12.3}, StdDeviation   = {deviation:12.3}]\n"));
    push(&mut out, format_args!("#[Max     = {max:12.3}, Total count    = {count:12}]\n"));
    let buckets = all.buckets();
    let sub = HGRM_SUB_BUCKETS;
    push(&mut out, format_args!("#[Buckets = {buckets:12}, SubBuckets     = {sub:12}]\n"));
    out
}

/// The (value in µs, percentile, count up to it) rows of the Java tools, in their arithmetic:
/// percentages in floating point, so that a level like 30 % of ten values falls on the third. (The
/// histogram library iterates over quantiles instead, where 0.30000000000000004 takes the fourth.)
fn percentile_rows(all: &Histogram<u64>) -> Vec<(u64, f64, u64)> {
    let mut rows = Vec::new();
    let (count, mut total, mut percent) = (all.len(), 0, 0.0_f64);
    for slot in all.iter_recorded() {
        let before = total;
        total += slot.count_at_value();
        let reached = 100.0 * float(total) / float(count);
        // The levels that this slot reaches; the slot with the last value takes just one.
        while before < count && reached >= percent && percent < 100.0 {
            rows.push((slot.value_iterated_to(), percent, total));
            // Five ticks for each halving of the distance to 100 %.
            let halvings = (100.0 / (100.0 - percent)).log2().floor();
            percent += 100.0 / (HGRM_TICKS * (halvings + 1.0).exp2());
            if total == count {
                break;
            }
        }
    }
    if count > 0 {
        rows.push((all.max(), 100.0, count));
    }
    rows
}

/// A count as a float; above 2⁵³ it is rounded, which no percentile can show.
#[allow(clippy::cast_precision_loss, reason = "said above")]
fn float(count: u64) -> f64 {
    count as f64
}

/// A time in another unit, as a float: our range has 32 bits, so nothing is lost.
fn unit(value_us: u64, unit_us: f64) -> f64 {
    u32::try_from(value_us).map_or(f64::INFINITY, f64::from) / unit_us
}

fn push(out: &mut String, text: std::fmt::Arguments<'_>) {
    out.write_fmt(text).expect("writing to a String does not fail");
}

#[cfg(test)]
#[path = "snapshot_tests.rs"]
mod tests;
