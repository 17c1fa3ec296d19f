#![allow(clippy::unwrap_used, reason = "a test may panic")]
use super::*;
use crate::error::Stage;
use crate::observe::hist::{Recorder, Scope};
use crate::observe::series::{Endpoint, Measure};
use base64::Engine as _;
use hdrhistogram::serialization::Deserializer;
use hdrhistogram::serialization::interval_log::{IntervalLogIterator, LogEntry};
use proptest::prelude::*;

const TTFB: Key = Key::At(Endpoint::CrawlNdjson, Measure::Ttfb);
const DNS: Key = Key::Page(Stage::Dns);

/// Two cores, three intervals and one under way.
fn sample(values: &[u64]) -> Snapshot {
    let epoch = Epoch::now();
    let mut now = epoch.instant;
    let mut cores = [Recorder::new(epoch, now), Recorder::new(epoch, now)];
    for (turn, value_us) in values.iter().enumerate() {
        cores[turn % 2].record_micros(TTFB, *value_us);
        cores[turn / 2 % 2].record_micros(DNS, *value_us / 10);
        if turn % (values.len() / 3).max(1) == 0 {
            now += LATENCY_INTERVAL;
            for core in &mut cores {
                while core.tick(now) {}
            }
        }
    }
    let [mut left, mut right] = cores;
    let mut snapshot = left.snapshot(Scope::default(), now);
    snapshot.merge(right.snapshot(Scope::default(), now));
    snapshot
}

fn many() -> Vec<u64> {
    (0..20_000u64).map(|n| 50 + n * n % 7919 + if n % 997 == 0 { 2_500_000 } else { 0 }).collect()
}

#[test]
fn json_has_every_series_with_its_percentiles() {
    let snapshot = sample(&many());
    let json: serde_json::Value = serde_json::from_str(&snapshot.to_json()).unwrap();
    assert_eq!(json["unit"], "us");
    let series = json["series"].as_array().unwrap();
    assert_eq!(series.len(), 2);
    assert_eq!(series[0]["name"], "crawl.ndjson.ttfb");
    assert_eq!(series[0]["transport"], "ndjson");
    assert_eq!(series[1]["stage"], "dns");
    let all = snapshot.histogram(TTFB).unwrap();
    assert_eq!(series[0]["count"], 20_000);
    assert_eq!(series[0]["p99.9"], all.value_at_quantile(0.999));
    assert_eq!(series[0]["max"], all.max());
    for name in ["p50", "p90", "p99", "p99.99", "mean"] {
        assert!(series[0][name].is_number(), "{name}");
    }
}

#[test]
fn an_empty_snapshot_is_valid_in_every_form() {
    let epoch = Epoch::now();
    let mut recorder = Recorder::new(epoch, epoch.instant);
    let snapshot = recorder.snapshot(Scope::default(), epoch.instant);
    let json: serde_json::Value = serde_json::from_str(&snapshot.to_json()).unwrap();
    assert_eq!(json["series"], serde_json::json!([]));
    assert_eq!(snapshot.to_hgrm_all(1.0), "");
    assert!(snapshot.to_hgrm(TTFB, 1.0).is_none());
    let log = snapshot.to_hlog();
    assert!(IntervalLogIterator::new(log.as_bytes()).all(|entry| entry.is_ok()));
}

/// The text that HdrHistogram's other implementations print for the same values.
#[test]
fn hgrm_is_what_the_java_tools_print() {
    let epoch = Epoch::now();
    let mut recorder = Recorder::new(epoch, epoch.instant);
    for value_us in [1u64, 2, 3, 4, 5, 6, 7, 8, 9, 10_000] {
        recorder.record_micros(TTFB, value_us);
    }
    let snapshot = recorder.snapshot(Scope::default(), epoch.instant);
    let text = snapshot.to_hgrm(TTFB, 1.0).unwrap();
    let expected = include_str!("testdata/ten.hgrm");
    assert_eq!(text, expected);
    let every = snapshot.to_hgrm_all(1.0);
    assert_eq!(every, format!("#[Series: crawl.ndjson.ttfb]\n{expected}\n"));
}

#[test]
fn hgrm_scales_to_milliseconds() {
    let epoch = Epoch::now();
    let mut recorder = Recorder::new(epoch, epoch.instant);
    recorder.record_micros(TTFB, 1500);
    let text = recorder.snapshot(Scope::default(), epoch.instant).to_hgrm(TTFB, 1000.0).unwrap();
    assert!(text.contains("\n       1.500 1.000000000000          1\n"), "{text}");
    assert!(text.contains("#[Max     =        1.500, Total count    =            1]"), "{text}");
}

/// Rows of percentile text: (value, quantile, total).
fn rows(text: &str) -> Vec<(f64, f64, u64)> {
    let rows = text.lines().skip(1).filter(|line| !line.is_empty() && !line.starts_with('#'));
    rows.map(|line| {
        let mut cells = line.split_whitespace();
        let mut next = || cells.next().unwrap();
        (next().parse().unwrap(), next().parse().unwrap(), next().parse().unwrap())
    })
    .collect()
}

fn parse_hlog(log: &str, tag: &str) -> (Histogram<u64>, Vec<(Duration, Duration)>) {
    let mut all = histogram::<u64>();
    let mut spans = Vec::new();
    for entry in IntervalLogIterator::new(log.as_bytes()) {
        let LogEntry::Interval(line) = entry.unwrap() else { continue };
        if line.tag().unwrap().as_str() != tag {
            continue;
        }
        let bytes =
            base64::engine::general_purpose::STANDARD.decode(line.encoded_histogram()).unwrap();
        let part: Histogram<u64> = Deserializer::new().deserialize(&mut &bytes[..]).unwrap();
        assert_eq!(part.sigfig(), 3);
        all.add(&part).unwrap();
        spans.push((line.start_timestamp(), line.duration()));
    }
    (all, spans)
}

#[test]
fn hlog_lines_of_a_series_follow_each_other_in_time() {
    let log = sample(&many()).to_hlog();
    let (_, spans) = parse_hlog(&log, &TTFB.name());
    assert!(spans.len() >= 3, "both cores share a line for each interval: {spans:?}");
    assert!(spans.windows(2).all(|w| w[0].0 + w[0].1 <= w[1].0), "{spans:?}");
    assert!(log.starts_with("#[Histogram log format version 1.3]\n"));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    #[test]
    fn hlog_and_hgrm_parse_back(values in proptest::collection::vec(0u64..4_000_000_000, 1..200)) {
        let snapshot = sample(&values);
        let all = snapshot.histogram(TTFB).unwrap();
        let (parsed, _) = parse_hlog(&snapshot.to_hlog(), &TTFB.name());
        prop_assert!(parsed == all);
        let text = snapshot.to_hgrm(TTFB, 1.0).unwrap();
        let rows = rows(&text);
        let last = rows.last().unwrap();
        prop_assert_eq!((last.1, last.2), (1.0, all.len()));
        for (value, quantile, total) in rows {
            let micros = format!("{value:.0}").parse::<u64>().unwrap();
            let percent = 100.0 * float(total) / float(all.len());
            prop_assert!(percent >= 100.0 * quantile - 1e-9, "{} < {}", percent, quantile);
            prop_assert_eq!(total, all.count_between(0, micros));
        }
    }
}
