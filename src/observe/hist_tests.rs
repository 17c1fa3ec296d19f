#![allow(clippy::unwrap_used, reason = "a test may panic")]
use super::*;
use crate::error::Stage;
use crate::observe::series::{Endpoint, Measure};
use proptest::prelude::*;

const TTFB: Key = Key::At(Endpoint::CrawlNdjson, Measure::Ttfb);
const DNS: Key = Key::Page(Stage::Dns);
const ALL: Scope = Scope { window: None, reset: false };

/// A clock that only moves when told to.
struct Clock {
    epoch: Epoch,
    now: Instant,
}

impl Clock {
    fn new() -> Self {
        let epoch = Epoch::now();
        Self { epoch, now: epoch.instant }
    }

    fn pass(&mut self, seconds: u64) {
        self.now += Duration::from_secs(seconds);
    }

    fn recorder(&self) -> Recorder {
        Recorder::new(self.epoch, self.now)
    }
}

fn tick_all(recorder: &mut Recorder, now: Instant) {
    while recorder.tick(now) {}
}

fn window(seconds: u64) -> Scope {
    Scope { window: Some(Duration::from_secs(seconds)), reset: false }
}

fn count(snapshot: &Snapshot, key: Key) -> u64 {
    snapshot.histogram(key).map_or(0, |all| all.len())
}

#[test]
fn the_documented_sizes_are_the_histograms() {
    let live = histogram::<u32>();
    assert_eq!(live.distinct_values(), SLOTS);
    assert_eq!((live.low(), live.high(), live.sigfig()), (1, MICROS_MAX, 3));
}

#[test]
fn a_window_covers_whole_intervals() {
    let mut clock = Clock::new();
    let mut recorder = clock.recorder();
    for second in 0..60u64 {
        recorder.record_micros(TTFB, second);
        clock.pass(1);
        tick_all(&mut recorder, clock.now);
    }
    // 60 s: twelve intervals of five values, nothing in the one under way.
    for (seconds, expected) in [(5, 5), (10, 10), (12, 15), (600, 60)] {
        let snapshot = recorder.snapshot(window(seconds), clock.now);
        assert_eq!(count(&snapshot, TTFB), expected, "window of {seconds} s");
        assert_eq!(snapshot.covered(), Duration::from_secs(expected.max(seconds.min(60))));
    }
    recorder.record_micros(TTFB, 99);
    clock.pass(2);
    let snapshot = recorder.snapshot(window(4), clock.now);
    assert_eq!(count(&snapshot, TTFB), 6, "the interval under way and the one that ended 2 s ago");
    assert_eq!(snapshot.histogram(TTFB).unwrap().max(), 99);
    assert_eq!(count(&recorder.snapshot(ALL, clock.now), TTFB), 61);
}

#[test]
fn a_late_tick_makes_a_longer_interval_and_an_idle_series_a_fresh_one() {
    let mut clock = Clock::new();
    let mut recorder = clock.recorder();
    recorder.record_micros(TTFB, 1);
    clock.pass(17);
    tick_all(&mut recorder, clock.now);
    recorder.record_micros(DNS, 1);
    clock.pass(5);
    tick_all(&mut recorder, clock.now);
    clock.pass(20);
    tick_all(&mut recorder, clock.now);
    recorder.record_micros(TTFB, 2);
    let snapshot = recorder.snapshot(window(10), clock.now);
    assert_eq!(snapshot.histogram(TTFB).unwrap().min(), 2, "the old value is out of the window");
    assert_eq!(count(&snapshot, DNS), 0);
    assert_eq!(count(&recorder.snapshot(ALL, clock.now), TTFB), 2);
}

#[test]
fn old_intervals_are_folded_and_still_count() {
    let mut clock = Clock::new();
    let mut recorder = clock.recorder();
    let seconds = LATENCY_RING_SPAN.as_secs() * 2;
    for second in 0..seconds {
        recorder.record_micros(TTFB, 100 + second % 7);
        clock.pass(1);
        tick_all(&mut recorder, clock.now);
    }
    let longest = recorder.snapshot(window(seconds), clock.now);
    let kept = count(&longest, TTFB);
    let span = LATENCY_RING_SPAN.as_secs();
    assert!((span..=span + 5).contains(&kept), "{kept}");
    assert_eq!(count(&recorder.snapshot(ALL, clock.now), TTFB), seconds);
}

#[test]
fn reset_forgets_what_was_read_and_no_more() {
    let mut clock = Clock::new();
    let mut recorder = clock.recorder();
    for _ in 0..3 {
        recorder.record_micros(TTFB, 5);
        clock.pass(6);
        tick_all(&mut recorder, clock.now);
    }
    recorder.record_micros(DNS, 5);
    let before = recorder.snapshot(Scope { window: None, reset: true }, clock.now);
    assert_eq!((count(&before, TTFB), count(&before, DNS)), (3, 1));
    assert_eq!(recorder.ring_bytes, 0);
    clock.pass(1);
    let after = recorder.snapshot(ALL, clock.now);
    assert_eq!(after.keys().count(), 0);
    assert_eq!(after.covered(), Duration::from_secs(1));
    recorder.record_micros(DNS, 7);
    assert_eq!(count(&recorder.snapshot(ALL, clock.now), DNS), 1);
}

#[test]
fn values_beyond_an_hour_count_as_an_hour() {
    let clock = Clock::new();
    let mut recorder = clock.recorder();
    recorder.record(TTFB, Duration::MAX);
    recorder.record_micros(TTFB, MICROS_MAX + 600_000_000);
    let all = recorder.snapshot(ALL, clock.now).histogram(TTFB).unwrap();
    assert_eq!(all.count_at(MICROS_MAX), 2);
}

#[test]
fn a_page_counts_the_stages_that_it_passed() {
    let clock = Clock::new();
    let mut recorder = clock.recorder();
    let mut timings = Timings::default();
    timings.add(Stage::Dns, Duration::from_micros(900));
    timings.add(Stage::Body, Duration::from_millis(60));
    recorder.record_page(&timings);
    let snapshot = recorder.snapshot(ALL, clock.now);
    assert_eq!(
        snapshot.keys().collect::<Vec<_>>(),
        [Key::Page(Stage::Queue), Key::Page(Stage::Dns), Key::Page(Stage::Body)]
    );
    assert_eq!(snapshot.histogram(DNS).unwrap().max(), 900);
}

#[test]
fn what_every_page_passes_counts_however_quick_it_was() {
    let clock = Clock::new();
    let mut recorder = clock.recorder();
    let mut timings = Timings::default();
    timings.add(Stage::Extract, Duration::from_micros(5));
    recorder.record_page(&timings);
    recorder.record_extraction(&timings);
    let snapshot = recorder.snapshot(ALL, clock.now);
    let count = |stage| snapshot.histogram(Key::Page(stage)).map_or(0, |h| h.len());
    let stages = [Stage::Queue, Stage::ExtractWait, Stage::Extract, Stage::EmitWait, Stage::Tls];
    assert_eq!(stages.map(count), [1, 2, 2, 1, 0]);
}

#[test]
fn memory_stays_under_its_bound_with_every_series_and_hostile_values() {
    let mut clock = Clock::new();
    let mut recorder = clock.recorder();
    recorder.warm(Key::all());
    let warm = recorder.memory_bytes();
    // As many distinct slots as a busy core could touch, spread over the whole range.
    let mut seed = 1u64;
    for _ in 0..14 {
        for key in Key::all() {
            for _ in 0..500 {
                seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
                recorder.record_micros(key, (seed >> 33) >> (seed >> 20 & 15));
            }
        }
        clock.pass(5);
        tick_all(&mut recorder, clock.now);
        assert!(recorder.ring_bytes <= LATENCY_RING_BYTES_MAX);
    }
    let part = size_of::<Part>();
    let bound = warm + LATENCY_RING_BYTES_MAX + Key::COUNT * (FOLDED_BYTES_MAX + 128 * part);
    assert!(recorder.memory_bytes() <= bound, "{} > {bound}", recorder.memory_bytes());
    let folded = recorder.series.iter().flatten().any(|s| !s.folded.counts.is_empty());
    assert!(folded, "the ring's limit was reached");
    let snapshot = recorder.snapshot(ALL, clock.now);
    assert!(snapshot.keys().all(|key| count(&snapshot, key) == 14 * 500));
    assert_eq!(snapshot.keys().count(), Key::COUNT);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    /// Whatever way the values took (cores, intervals, folding), the merge is one histogram of all.
    #[test]
    fn merged_percentiles_are_those_of_one_histogram(
        values in proptest::collection::vec((0usize..3, 0u64..5_000_000_000, 0u64..9), 1..100),
    ) {
        let mut clock = Clock::new();
        let mut cores = [clock.recorder(), clock.recorder(), clock.recorder()];
        let mut twin = histogram::<u64>();
        for (core, value_us, pause) in values {
            cores[core].record_micros(TTFB, value_us);
            twin.record(value_us.min(MICROS_MAX)).unwrap();
            clock.pass(pause * pause);
            for core in &mut cores {
                core.tick(clock.now);
            }
        }
        let mut snapshots = cores.iter_mut().map(|core| core.snapshot(ALL, clock.now));
        let mut merged = snapshots.next().unwrap();
        snapshots.for_each(|snapshot| merged.merge(snapshot));
        let all = merged.histogram(TTFB).unwrap();
        prop_assert_eq!(all.len(), twin.len());
        for quantile in [0.0, 0.1, 0.5, 0.9, 0.99, 0.999, 0.9999, 1.0] {
            prop_assert_eq!(all.value_at_quantile(quantile), twin.value_at_quantile(quantile));
        }
        prop_assert_eq!((all.min(), all.max()), (twin.min(), twin.max()));
    }
}
