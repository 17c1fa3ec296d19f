//! What was measured: histograms, counts, errors by class.

use crate::num;
use hdrhistogram::Histogram;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::time::{Duration, Instant};

/// Microseconds that a histogram reaches to: one hour.
const MICROS_MAX: u64 = 3_600_000_000;
/// Notes kept to show what an error looked like.
const NOTES_MAX: usize = 8;

/// A measured span of time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Metric {
    /// Intended send time to the last byte: what a user feels. Of a request that was given up, or never
    /// sent, to the moment at which that was decided: a lower bound of what it would have been.
    Latency,
    /// Actual send time to the last byte: what a closed loop would have reported.
    Service,
    /// Intended send time to the first byte.
    Ttfb,
    /// Actual send time to the first byte.
    TtfbService,
    /// Intended send time to the first `result` event.
    Ttfr,
    /// Actual send time to the first `result` event.
    TtfrService,
    /// From one durable event of a stream to the next.
    Gap,
    /// TCP connect.
    Connect,
    /// From a cut to the first byte of the resumed stream.
    Resume,
    /// How late the generator itself was: intended time to the moment a request was handed out.
    Slip,
}

impl Metric {
    /// All of them, in order.
    pub(crate) const ALL: [Self; 10] = [
        Self::Latency,
        Self::Service,
        Self::Ttfb,
        Self::TtfbService,
        Self::Ttfr,
        Self::TtfrService,
        Self::Gap,
        Self::Connect,
        Self::Resume,
        Self::Slip,
    ];

    fn slot(self) -> usize {
        Self::ALL.iter().position(|metric| *metric == self).expect("ALL lists every metric")
    }

    /// Its name in tables and files.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Latency => "latency",
            Self::Service => "service",
            Self::Ttfb => "ttfb",
            Self::TtfbService => "ttfb_service",
            Self::Ttfr => "ttfr",
            Self::TtfrService => "ttfr_service",
            Self::Gap => "gap",
            Self::Connect => "connect",
            Self::Resume => "resume",
            Self::Slip => "slip",
        }
    }
}

/// Plain counts.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct Counts {
    /// Requests handed out.
    pub(crate) started: u64,
    /// Requests answered as they should be.
    pub(crate) ok: u64,
    /// Requests that failed, by any class of `errors`.
    pub(crate) failed: u64,
    /// Requests whose turn never came before the run ended.
    pub(crate) unsent: u64,
    /// Connections made.
    pub(crate) connects: u64,
    /// Connections that the server closed while they should idle.
    pub(crate) idle_lost: u64,
    /// Bytes received.
    pub(crate) bytes_in: u64,
    /// Bytes sent.
    pub(crate) bytes_out: u64,
    /// Streams that came to their summary or error.
    pub(crate) streams: u64,
    /// Events of all kinds.
    pub(crate) events: u64,
    /// Durable events, each `(stream_id, seq)` once.
    pub(crate) durable: u64,
    /// `result` events.
    pub(crate) results: u64,
    /// Results that summaries call successful.
    pub(crate) pages_ok: u64,
    /// Results that summaries call failed or cancelled.
    pub(crate) pages_failed: u64,
    /// Connections cut on purpose.
    pub(crate) cuts: u64,
    /// Durable events that came again after a resume.
    pub(crate) replayed: u64,
    /// Events that a `gap` event owned up to have dropped.
    pub(crate) gap_events: u64,
    /// Broken rules of the event stream.
    pub(crate) violations: u64,
}

impl Counts {
    fn add(&mut self, other: &Self) {
        let Self {
            started,
            ok,
            failed,
            unsent,
            connects,
            idle_lost,
            bytes_in,
            bytes_out,
            streams,
            events,
            durable,
            results,
            pages_ok,
            pages_failed,
            cuts,
            replayed,
            gap_events,
            violations,
        } = other;
        self.started += started;
        self.ok += ok;
        self.failed += failed;
        self.unsent += unsent;
        self.connects += connects;
        self.idle_lost += idle_lost;
        self.bytes_in += bytes_in;
        self.bytes_out += bytes_out;
        self.streams += streams;
        self.events += events;
        self.durable += durable;
        self.results += results;
        self.pages_ok += pages_ok;
        self.pages_failed += pages_failed;
        self.cuts += cuts;
        self.replayed += replayed;
        self.gap_events += gap_events;
        self.violations += violations;
    }
}

/// Everything measured of one group in some span of time.
#[derive(Clone, Debug, Default)]
pub(crate) struct Tally {
    histograms: [Option<Histogram<u64>>; Metric::ALL.len()],
    /// Counts.
    pub(crate) counts: Counts,
    /// Failures by class.
    pub(crate) errors: BTreeMap<String, u64>,
    /// Answers by status.
    pub(crate) statuses: BTreeMap<u16, u64>,
    /// Broken rules by name.
    pub(crate) violations: BTreeMap<String, u64>,
    /// A few failures in full.
    pub(crate) notes: Vec<String>,
    /// When the last request ended, well or not.
    pub(crate) last_end: Option<Instant>,
}

impl Tally {
    /// Records a span, in whole microseconds from 1 µs to 1 h.
    pub(crate) fn record(&mut self, metric: Metric, span: Duration) {
        self.histograms[metric.slot()]
            .get_or_insert_with(new_histogram)
            .saturating_record(num::micros(span).max(1));
    }

    /// Counts a failure of this class; what follows a `: ` goes to the notes only.
    pub(crate) fn fail(&mut self, failure: &str) {
        self.counts.failed += 1;
        let class = failure.split_once(": ").map_or(failure, |(class, _)| class);
        *self.errors.entry(class.to_owned()).or_default() += 1;
        if class.len() < failure.len() {
            self.note(failure);
        }
    }

    /// Keeps a note, unless there are enough or this very one is there.
    fn note(&mut self, note: &str) {
        if self.notes.len() < NOTES_MAX && !self.notes.iter().any(|kept| kept == note) {
            self.notes.push(note.to_owned());
        }
    }

    /// The histogram of a metric, where anything was recorded.
    pub(crate) fn histogram(&self, metric: Metric) -> Option<&Histogram<u64>> {
        self.histograms[metric.slot()].as_ref()
    }

    /// Forgets all histograms but one: of each second only the latency is kept.
    pub(crate) fn keep_only(&mut self, metric: Metric) {
        for (slot, histogram) in self.histograms.iter_mut().enumerate() {
            if slot != metric.slot() {
                *histogram = None;
            }
        }
    }

    /// Adds what another tally holds.
    pub(crate) fn merge(&mut self, other: &Self) {
        for (mine, theirs) in self.histograms.iter_mut().zip(&other.histograms) {
            if let Some(theirs) = theirs {
                mine.get_or_insert_with(new_histogram)
                    .add(theirs)
                    .expect("all histograms here have the same bounds");
            }
        }
        self.counts.add(&other.counts);
        merge_map(&mut self.errors, &other.errors);
        merge_map(&mut self.statuses, &other.statuses);
        merge_map(&mut self.violations, &other.violations);
        self.last_end = self.last_end.max(other.last_end);
        other.notes.iter().for_each(|note| self.note(note));
    }
}

fn merge_map<K: Ord + Clone>(into: &mut BTreeMap<K, u64>, from: &BTreeMap<K, u64>) {
    for (key, count) in from {
        *into.entry(key.clone()).or_default() += count;
    }
}

/// 3 significant digits from 1 µs to 1 h.
pub(crate) fn new_histogram() -> Histogram<u64> {
    Histogram::new_with_bounds(1, MICROS_MAX, 3).expect("the bounds are constants that fit")
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test may panic")]
    use super::*;

    #[test]
    fn percentiles_match_a_sorted_list_within_three_digits() {
        let mut rng = crate::rng::Rng::new(3);
        let mut tally = Tally::default();
        let mut all: Vec<u64> =
            (0..50_000).map(|_| rng.below(1 << (4 + rng.clone().below(24))) + 1).collect();
        for &micros in &all {
            tally.record(Metric::Latency, Duration::from_micros(micros));
        }
        all.sort_unstable();
        let histogram = tally.histogram(Metric::Latency).unwrap();
        for quantile in [0.5_f64, 0.9, 0.99, 0.999, 0.9999, 1.0] {
            let rank = num::to_usize(num::round_u64((quantile * 50_000.0).ceil())) - 1;
            let (exact, got) = (all[rank] as f64, histogram.value_at_quantile(quantile) as f64);
            assert!((got / exact - 1.0).abs() < 0.002, "{quantile}: {exact} {got}");
        }
    }

    #[test]
    fn merging_adds_everything() {
        let mut a = Tally::default();
        a.record(Metric::Gap, Duration::from_millis(1));
        a.fail("connect refused: 127.0.0.1");
        let mut b = a.clone();
        b.counts.ok = 5;
        b.merge(&a);
        assert_eq!(b.histogram(Metric::Gap).unwrap().len(), 2);
        assert_eq!((b.counts.failed, b.counts.ok, b.errors["connect refused"]), (2, 5, 2));
        assert_eq!(b.notes, ["connect refused: 127.0.0.1"]);
    }
}
