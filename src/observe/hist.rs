//! The per-core recorder: HDR histograms of every [`Key`], written without locks by one thread.
//!
//! # How a value travels
//!
//! ```text
//! record ─► live (dense, ≤ 5 s) ─tick─► ring of intervals (packed, ≤ 10 min) ─tick─► folded (packed)
//! ```
//! Each value is in exactly one of the three, so a [`Snapshot`] of all three is everything since
//! the last reset, and one without `folded` is a window of whole intervals.
//!
//! [`Recorder::record`] touches `live` only: an index, an increment, no allocation and no resize
//! (the range is fixed, longer values are clamped). Only the first value of a series allocates it;
//! [`Recorder::warm`] does that ahead of time. Packing and folding happen in [`Recorder::tick`],
//! one series a call, so that no call takes much longer than scanning one histogram (tens of µs).
//!
//! # Memory of one core
//!
//! - live: [`LIVE_BYTES`] (94 KB: 23,552 slots of `u32`) for each series that was ever used. A
//!   `u32` slot can't overflow in an interval: that would take 10⁸ values a second.
//! - ring: at most [`LATENCY_RING_BYTES_MAX`] over all series, and [`LATENCY_RING_SPAN`] of time;
//!   what is older, or over the limit, is folded first-in first-out.
//! - folded: 3 to 10 bytes for each distinct slot a series ever used; typically 2 to 10 KB, and
//!   never above [`FOLDED_BYTES_MAX`].
//!
//! All series are there from the start (10 MB of zeros a core), but the kernel gives pages only to what
//! is written to. A server that crawls over two transports writes to some 25: 2.4 MB + 2 MiB + 0.2 MB a
//! core at most.

use super::series::Key;
use super::snapshot::{Part, Snapshot};
use super::sparse::Counts;
use crate::error::Stage;
use crate::limits::{LATENCY_INTERVAL, LATENCY_RING_BYTES_MAX, LATENCY_RING_SPAN};
use crate::timings::Timings;
use hdrhistogram::Histogram;
use std::collections::VecDeque;
use std::time::{Duration, Instant, SystemTime};

/// The longest time that is told apart, in µs: one hour. Longer ones count as one hour.
pub const MICROS_MAX: u64 = 3_600_000_000;
/// Slots of a histogram with our range and precision.
pub const SLOTS: usize = 23 * 1024;
/// Bytes of one dense histogram's slots.
pub const LIVE_BYTES: usize = SLOTS * size_of::<u32>();
/// Upper bound of the bytes of one series' folded counts: each slot takes at most 4 bytes for its
/// distance and 10 for its count.
pub const FOLDED_BYTES_MAX: usize = SLOTS * 14;

/// The moment that a process' latencies are dated from; one for all its cores, so that their
/// intervals line up.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Epoch {
    /// The moment on the clock that durations are measured with.
    pub instant: Instant,
    /// The same moment on the wall clock.
    pub unix: SystemTime,
}

impl Epoch {
    /// Now.
    #[must_use]
    pub fn now() -> Self {
        Self { instant: Instant::now(), unix: SystemTime::now() }
    }

    /// Microseconds from the epoch to `now`; 0 before it.
    #[must_use]
    pub fn micros(&self, now: Instant) -> u64 {
        micros(now.saturating_duration_since(self.instant))
    }
}

/// What to read from a recorder.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Scope {
    /// Only intervals that ended within this time before now, and the one under way; `None` is
    /// everything since the last reset. Coarse by up to one [`LATENCY_INTERVAL`]; the answer says
    /// what it covers.
    pub window: Option<Duration>,
    /// Forget everything that was read, and what lies before the window too.
    pub reset: bool,
}

/// A histogram of our range and precision: 1 µs to 1 h, 3 significant digits.
#[must_use]
pub(super) fn histogram<T: hdrhistogram::Counter>() -> Histogram<T> {
    Histogram::new_with_bounds(1, MICROS_MAX, 3).expect("the bounds are constants that are valid")
}

/// Microseconds of a duration, saturating.
pub(super) fn micros(time: Duration) -> u64 {
    u64::try_from(time.as_micros()).unwrap_or(u64::MAX)
}

#[derive(Debug)]
struct Series {
    live: Histogram<u32>,
    live_since_us: u64,
    ring: VecDeque<Part>,
    folded: Part,
}

impl Series {
    fn new(since_us: u64, live_since_us: u64) -> Self {
        let folded = Part { start_us: since_us, end_us: since_us, counts: Counts::default() };
        Self { live: histogram(), live_since_us, ring: VecDeque::new(), folded }
    }

    fn live_part(&self, now_us: u64) -> Part {
        // All recorded values of one slot become its highest value; recording that again finds
        // the same slot.
        let pairs = self.live.iter_recorded();
        let pairs = pairs.map(|slot| (slot.value_iterated_to(), u64::from(slot.count_at_value())));
        Part { start_us: self.live_since_us, end_us: now_us, counts: Counts::pack(pairs) }
    }

    fn clear(&mut self, now_us: u64) {
        if !self.live.is_empty() {
            self.live.reset();
        }
        self.live_since_us = now_us;
        self.ring.clear();
        self.folded = Part { start_us: now_us, end_us: now_us, counts: Counts::default() };
    }
}

/// All latency series of one core; thread-confined.
///
/// Order of calls: [`record`](Self::record) whenever something took time, [`tick`](Self::tick) from
/// a timer about once a second, [`snapshot`](Self::snapshot) or [`copy`](Self::copy) to read.
#[derive(Debug)]
pub struct Recorder {
    epoch: Epoch,
    series: Vec<Option<Box<Series>>>,
    /// When counting began: the epoch, or the last reset.
    since_us: u64,
    /// When the current interval began.
    opened_us: u64,
    /// The boundary at which it ends; a multiple of the interval.
    next_us: u64,
    /// The next series to rotate, while a rotation is under way.
    rotating: Option<usize>,
    ring_bytes: usize,
}

impl Recorder {
    /// An empty recorder; allocates no series yet.
    #[must_use]
    pub fn new(epoch: Epoch, now: Instant) -> Self {
        let now_us = epoch.micros(now);
        Self {
            epoch,
            series: std::iter::repeat_with(|| None).take(Key::COUNT).collect(),
            since_us: now_us,
            opened_us: now_us,
            next_us: boundary_after(now_us),
            rotating: None,
            ring_bytes: 0,
        }
    }

    /// Allocates series ahead of their first value.
    pub fn warm(&mut self, keys: impl IntoIterator<Item = Key>) {
        for key in keys {
            self.series(key);
        }
    }

    /// Counts one time; clamped to [`MICROS_MAX`].
    pub fn record(&mut self, key: Key, time: Duration) {
        self.record_micros(key, micros(time));
    }

    /// Counts one time in µs; clamped to [`MICROS_MAX`].
    pub fn record_micros(&mut self, key: Key, time_us: u64) {
        self.series(key).live.saturating_record(time_us.min(MICROS_MAX));
    }

    /// Counts the stages of one page of a crawl. A stage at 0 is mostly one that the page didn't pass (a
    /// reused connection has no `tls`), and counts as nothing instead of pulling percentiles down; but
    /// every page waits for its turn and every extracted one for its lane and for its place in the
    /// stream, were it for less than 1 µs.
    pub fn record_page(&mut self, timings: &Timings) {
        let extracted = timings.micros(Stage::Extract) > 0;
        for (stage, time_us) in timings.iter() {
            let passed = match stage {
                Stage::Queue => true,
                Stage::ExtractWait | Stage::EmitWait => extracted,
                _ => false,
            };
            if passed || time_us > 0 {
                self.record_micros(Key::Page(stage), u64::from(time_us));
            }
        }
    }

    /// Counts the stages of a document that a client brought: it waited for its lane and was extracted.
    pub fn record_extraction(&mut self, timings: &Timings) {
        for stage in [Stage::ExtractWait, Stage::Extract] {
            self.record_micros(Key::Page(stage), u64::from(timings.micros(stage)));
        }
    }

    /// Ends the interval when it is due, packs one series, or folds one old interval: at most one
    /// unit of work. True: there is more, call again soon (yield in between).
    ///
    /// A late tick makes a longer interval and loses nothing.
    pub fn tick(&mut self, now: Instant) -> bool {
        let now_us = self.epoch.micros(now);
        if self.rotating.is_none() && now_us >= self.next_us {
            self.opened_us = now_us;
            self.next_us = boundary_after(now_us);
            self.rotating = Some(0);
        }
        while let Some(place) = self.rotating {
            self.rotating = (place + 1 < self.series.len()).then_some(place + 1);
            if self.rotate(place, now_us) {
                return true;
            }
        }
        self.fold_oldest(now_us)
    }

    /// Reads everything in `scope` at once. On a loop prefer [`Recorder::copy`].
    pub fn snapshot(&mut self, scope: Scope, now: Instant) -> Snapshot {
        let mut copy = self.copy(scope, now);
        while copy.step(self) {}
        copy.finish()
    }

    /// Begins to read series by series, so that a loop can yield in between.
    pub fn copy(&mut self, scope: Scope, now: Instant) -> Copy {
        let now_us = self.epoch.micros(now);
        let snapshot = Snapshot::new(self.epoch, self.since_us, now_us, scope.window);
        if scope.reset {
            self.since_us = now_us;
        }
        Copy { snapshot, scope, now_us, place: 0 }
    }

    /// Heap bytes in use; see the module's text for the bound.
    #[must_use]
    pub fn memory_bytes(&self) -> usize {
        let used = self.series.iter().flatten();
        let table = self.series.len() * size_of::<Option<Box<Series>>>();
        let each = |series: &Series| {
            size_of::<Series>()
                + LIVE_BYTES
                + series.folded.counts.bytes()
                + series.ring.capacity() * size_of::<Part>()
        };
        table + self.ring_bytes + used.map(|series| each(series)).sum::<usize>()
    }

    fn series(&mut self, key: Key) -> &mut Series {
        let (since_us, opened_us) = (self.since_us, self.opened_us);
        let slot = &mut self.series[key.index()];
        slot.get_or_insert_with(|| Box::new(Series::new(since_us, opened_us)))
    }

    /// Moves a series' live counts into its ring; false if there are none.
    fn rotate(&mut self, place: usize, now_us: u64) -> bool {
        let Some(series) = &mut self.series[place] else { return false };
        let part = (!series.live.is_empty()).then(|| series.live_part(now_us));
        series.live_since_us = now_us;
        let Some(part) = part else { return false };
        series.live.reset();
        self.ring_bytes += part.counts.bytes();
        series.ring.push_back(part);
        true
    }

    /// Folds the oldest interval of all series if it has to go; false if it may stay.
    fn fold_oldest(&mut self, now_us: u64) -> bool {
        let rings = self.series.iter_mut().flatten();
        let Some(oldest) = rings
            .filter(|series| !series.ring.is_empty())
            .min_by_key(|series| series.ring.front().map(|part| part.end_us))
        else {
            return false;
        };
        let over = self.ring_bytes > LATENCY_RING_BYTES_MAX;
        let Some(part) = oldest.ring.pop_front_if(|part| {
            over || part.end_us.saturating_add(micros(LATENCY_RING_SPAN)) < now_us
        }) else {
            return false;
        };
        self.ring_bytes -= part.counts.bytes();
        oldest.folded.counts = oldest.folded.counts.merged(&part.counts);
        oldest.folded.end_us = part.end_us;
        true
    }
}

/// A read under way: [`step`](Self::step) until it says false, then [`finish`](Self::finish).
#[derive(Debug)]
pub struct Copy {
    snapshot: Snapshot,
    scope: Scope,
    now_us: u64,
    place: usize,
}

impl Copy {
    /// Copies one series that has values; false when all are copied.
    pub fn step(&mut self, recorder: &mut Recorder) -> bool {
        while self.place < recorder.series.len() {
            let place = self.place;
            self.place += 1;
            let Some(series) = &mut recorder.series[place] else { continue };
            let parts = parts(series, self.scope, self.now_us);
            if self.scope.reset {
                let freed: usize = series.ring.iter().map(|part| part.counts.bytes()).sum();
                recorder.ring_bytes -= freed;
                series.clear(self.now_us);
            }
            if !parts.is_empty() {
                self.snapshot.insert(place, parts);
                return true;
            }
        }
        false
    }

    /// What was copied.
    #[must_use]
    pub fn finish(self) -> Snapshot {
        self.snapshot
    }
}

/// The parts of a series that lie in scope, oldest first.
fn parts(series: &Series, scope: Scope, now_us: u64) -> Vec<Part> {
    let after_us = scope.window.map(|window| now_us.saturating_sub(micros(window)));
    let folded = after_us.is_none().then_some(&series.folded);
    let ring = series.ring.iter().filter(|part| after_us.is_none_or(|after| part.end_us > after));
    let old = folded.into_iter().chain(ring).cloned();
    let live = (!series.live.is_empty()).then(|| series.live_part(now_us));
    old.chain(live).filter(|part| !part.counts.is_empty()).collect()
}

fn boundary_after(now_us: u64) -> u64 {
    let interval_us = micros(LATENCY_INTERVAL);
    (now_us / interval_us + 1) * interval_us
}

#[cfg(test)]
#[path = "hist_tests.rs"]
mod tests;
