#![allow(clippy::unwrap_used, reason = "a test may panic")]
use super::*;
use crate::observe::core_snapshot::{ArenaClass, ArenaHeap, LaneStats, LoopStats, Mailbox};
use crate::observe::hist::{Epoch, Recorder, Scope};
use crate::observe::metrics::Counters;
use crate::observe::rings::RingStats;
use std::collections::{BTreeMap, HashSet};
use std::time::Duration;

fn core(epoch: Epoch, core: usize) -> CoreSnapshot {
    let mut recorder = Recorder::new(epoch, epoch.instant);
    for time_us in [40u64, 50, 51, 900, 2_000_000, 400_000_000] {
        recorder.record_micros(Key::At(Endpoint::CrawlSse, Measure::Ttfb), time_us);
        recorder.record_micros(Key::Page(Stage::Dns), time_us);
    }
    let counters = Counters::default();
    counters.add(Counter::Requests(Endpoint::Livez, StatusClass::Successful), 7);
    counters.inc(Counter::ApiErrors(ApiCode::Overloaded));
    counters.add(Counter::BytesOut, 1000);
    counters.add(Counter::StreamsStarted, 2);
    CoreSnapshot {
        core,
        counters: counters.values(),
        latency: recorder.snapshot(Scope::default(), epoch.instant),
        arena: vec![ArenaClass { buffer_bytes: 4096, in_use: 1, high_water: 3, capacity: 64 }],
        heap: ArenaHeap { slab_bytes_max: 9000, total: 6, ..ArenaHeap::default() },
        rings: RingStats { rings: 2, bytes: 70, refused: 4, ..RingStats::default() },
        mailboxes: vec![Mailbox { name: "control", depth: 1, capacity: 128, refused: 0 }],
        lane: Some(LaneStats {
            refused: 5,
            busy: Duration::from_millis(1500),
            ..LaneStats::default()
        }),
        event_loop: Some(LoopStats {
            operations: [("read", 5), ("write", 4), ("poll", 3), ("accept", 2), ("connect", 1)],
            ring: Some((9, 8)),
            ..LoopStats::default()
        }),
    }
}

fn scrape() -> Scrape {
    let epoch = Epoch::now();
    Scrape {
        cores: vec![core(epoch, 0), core(epoch, 1)],
        process: Process::read(),
        started: epoch.unix,
        build: vec![("version", "0.1.0".to_owned())],
        cache: Cached { entries: 3, bytes: 4096, evictions: 2 },
        redis: Some(Redis {
            state: "up",
            queue: 3,
            events: vec![("answer", 5)],
            pages: vec![("hit", 2)],
        }),
        exported: Some(Exported {
            spans: vec![("sent", 9)],
            messages: vec![("traces", "failed", 4)],
        }),
        index: Some(Indexed { pages: 5, bytes: 8192, dropped: 1, evicted: 2 }),
        streams_bytes: 77,
        flights: 1,
        limits: vec![("connections_max", 1024)],
    }
}

/// Samples by name with labels.
fn samples(text: &str) -> BTreeMap<String, f64> {
    let lines = text.lines().filter(|line| !line.starts_with('#'));
    lines
        .map(|line| {
            let (name, value) = line.rsplit_once(' ').unwrap();
            (name.to_owned(), value.parse().unwrap())
        })
        .collect()
}

#[test]
fn cores_are_summed_or_labelled() {
    let text = render(scrape(), Format::Text);
    let all = samples(&text);
    let labels = "endpoint=\"livez\",transport=\"http\",status=\"2xx\"";
    assert_eq!(all[&format!("forebay_requests_total{{{labels}}}")], 14.0);
    assert_eq!(all["forebay_api_errors_total{code=\"overloaded\"}"], 2.0);
    assert_eq!(all["forebay_messages_dropped_total{kind=\"durable\"}"], 0.0);
    assert_eq!(all["forebay_sent_bytes_total"], 2000.0);
    assert_eq!(all["forebay_streams_active"], 4.0);
    assert_eq!(all["forebay_lane_busy_seconds_total{core=\"1\"}"], 1.5);
    assert_eq!(
        all["forebay_arena_buffers_high_water{core=\"0\",buffer_bytes=\"4096\"}"], 3.0,
        "{text}"
    );
    assert_eq!(all["forebay_arena_max_bytes{core=\"1\"}"], 9000.0);
    assert_eq!(all["forebay_arena_heap_made_total{core=\"0\"}"], 6.0);
    assert_eq!(all["forebay_lane_refused_total{core=\"1\"}"], 5.0);
    assert_eq!(all["forebay_send_rings{core=\"0\"}"], 2.0);
    assert_eq!(all["forebay_send_ring_bytes{core=\"1\"}"], 70.0);
    assert_eq!(all["forebay_send_ring_refused_total{core=\"0\"}"], 4.0);
    assert_eq!(all["forebay_build_info{version=\"0.1.0\"}"], 1.0);
    assert_eq!(all["forebay_limit{name=\"connections_max\"}"], 1024.0);
    assert_eq!((all["forebay_cache_entries"], all["forebay_cache_bytes"]), (3.0, 4096.0));
    assert_eq!(all["forebay_cache_evictions_total"], 2.0);
    assert!(all["process_resident_memory_bytes"] > 0.0);
    assert_eq!((all["forebay_streams_bytes"], all["forebay_cache_flights"]), (77.0, 1.0));
    assert_eq!(all["forebay_ring_operations_total{core=\"1\",op=\"write\"}"], 4.0);
    assert_eq!(all["forebay_ring_submissions_total{core=\"0\"}"], 9.0);
    assert_eq!(all["forebay_egress_refused_total{reason=\"denied\"}"], 0.0);
}

#[test]
fn buckets_are_cumulative_and_come_from_the_hdr_series() {
    let all = samples(&render(scrape(), Format::Text));
    let bucket = |bound: &str| {
        let name = "forebay_ttfb_seconds_bucket";
        all[&format!("{name}{{le=\"{bound}\",endpoint=\"crawl\",transport=\"sse\"}}")]
    };
    let bounds = ["0.00005", "0.0001", "0.0005", "0.001", "2.5", "300.0", "+Inf"];
    assert_eq!(bounds.map(bucket), [4.0, 6.0, 6.0, 8.0, 10.0, 10.0, 12.0]);
    let at = "{endpoint=\"crawl\",transport=\"sse\"}";
    assert_eq!(all[&format!("forebay_ttfb_seconds_count{at}")], 12.0);
    let sum = all[&format!("forebay_ttfb_seconds_sum{at}")];
    assert!((sum - 804.002_082).abs() < 0.8, "{sum}");
    assert!(all.contains_key("forebay_page_stage_seconds_count{stage=\"dns\"}"));
}

/// The rules that `promtool check metrics` and the format's readers hold a page to.
#[test]
fn the_text_format_has_metadata_before_each_sample() {
    let text = render(scrape(), Format::Text);
    let mut kinds = BTreeMap::new();
    let mut helped = HashSet::new();
    for line in text.lines() {
        let mut words = line.split([' ', '{']);
        let first = words.next().unwrap();
        if first == "#" {
            let (what, name) = (words.next().unwrap(), words.next().unwrap());
            match what {
                "HELP" => assert!(helped.insert(name) && words.next().is_some(), "{line}"),
                "TYPE" => {
                    let kind = words.next().unwrap();
                    assert!(kinds.insert(name, kind).is_none(), "{line}");
                    assert_eq!(kind == "counter", name.ends_with("_total"), "{line}");
                    assert!(["counter", "gauge", "histogram"].contains(&kind), "{line}");
                }
                _ => panic!("{line}"),
            }
            continue;
        }
        let histogram = ["_bucket", "_sum", "_count"].iter().find_map(|end| {
            first.strip_suffix(end).filter(|name| kinds.get(name) == Some(&"histogram"))
        });
        let name = histogram.unwrap_or(first);
        assert!(kinds.contains_key(name) && helped.contains(name), "{line}");
    }
    assert!(!text.contains("# EOF"));
}

#[test]
fn open_metrics_is_for_who_asks() {
    let accept = "application/openmetrics-text;version=1.0.0,text/plain;version=0.0.4;q=0.5";
    assert_eq!(Format::from_accept(accept), Format::OpenMetrics);
    assert_eq!(Format::from_accept("*/*"), Format::Text);
    let text = render(scrape(), Format::OpenMetrics);
    assert!(text.ends_with("# EOF\n"));
    assert!(text.contains("# UNIT forebay_sent_bytes bytes\n"));
}

#[test]
fn a_scrape_without_cores_is_a_page_too() {
    let empty = Scrape { cores: Vec::new(), ..scrape() };
    assert!(render(empty, Format::Text).contains("forebay_streams_active 0\n"));
}
