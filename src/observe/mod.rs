//! Seeing inside: latencies, metrics, the flight recorder of a stream, trace context and logs.
//!
//! Everything on the hot path is thread-confined: one [`Core`] per event loop, written with plain
//! stores. A reader asks each core for a `Send` copy and adds the copies up.
//!
//! ```text
//! loop:   Core::record, Core::count         Core::tick once a second
//! reader: Core::copy_latency ─► Snapshot::merge ─► LatencyQuery::answer      GET /latency
//!         CoreSnapshot of each core ─► exposition::render                    GET /metrics
//! ```

pub mod core_snapshot;
pub mod exposition;
#[doc(hidden)]
pub mod fuzzing;
pub mod hist;
pub mod logging;
pub mod metrics;
pub mod process;
pub mod query;
pub mod redact;
pub mod request_id;
pub mod rings;
pub mod series;
pub mod snapshot;
pub mod span;
pub mod sparing;
pub mod sparse;
pub mod summary;
pub mod trace;
pub mod traceparent;

use crate::timings::Timings;
use hist::{Copy, Epoch, Recorder, Scope};
use metrics::{Counter, CounterValues, Counters};
use rings::Rings;
use series::Key;
use snapshot::Snapshot;
use std::cell::RefCell;
use std::rc::Rc;
use std::time::{Duration, Instant};

/// One core's latencies and counters behind shared references; `!Sync`, put it in an `Rc`.
///
/// No borrow outlives a call and no call runs foreign code, so the cell inside never clashes.
#[derive(Debug)]
pub struct Core {
    recorder: RefCell<Recorder>,
    counters: Counters,
    /// What waits in the send rings of its connections.
    pub rings: Rc<Rings>,
}

impl Core {
    /// An empty core; all cores of a process share `epoch`.
    #[must_use]
    pub fn new(epoch: Epoch, now: Instant) -> Self {
        let recorder = RefCell::new(Recorder::new(epoch, now));
        Self { recorder, counters: Counters::default(), rings: Rc::default() }
    }

    /// See [`Recorder::warm`].
    pub fn warm(&self, keys: impl IntoIterator<Item = Key>) {
        self.recorder.borrow_mut().warm(keys.into_iter().collect::<Vec<_>>());
    }

    /// See [`Recorder::record`].
    pub fn record(&self, key: Key, time: Duration) {
        self.recorder.borrow_mut().record(key, time);
    }

    /// See [`Recorder::record_page`].
    pub fn record_page(&self, timings: &Timings) {
        self.recorder.borrow_mut().record_page(timings);
    }

    /// See [`Recorder::record_extraction`].
    pub fn record_extraction(&self, timings: &Timings) {
        self.recorder.borrow_mut().record_extraction(timings);
    }

    /// Counts one.
    pub fn count(&self, counter: Counter) {
        self.counters.inc(counter);
    }

    /// Counts `more`.
    pub fn add(&self, counter: Counter, more: u64) {
        self.counters.add(counter, more);
    }

    /// Its counters so far.
    #[must_use]
    pub fn counters(&self) -> CounterValues {
        self.counters.values()
    }

    /// See [`Recorder::tick`]: about once a second; while it says true, again after a yield.
    pub fn tick(&self, now: Instant) -> bool {
        self.recorder.borrow_mut().tick(now)
    }

    /// Reads all latencies in one go; for tests and the end of a run.
    pub fn latency(&self, scope: Scope, now: Instant) -> Snapshot {
        self.recorder.borrow_mut().snapshot(scope, now)
    }

    /// Begins to read latencies; [`Core::copy_step`] until it says false, a yield between two.
    pub fn copy_latency(&self, scope: Scope, now: Instant) -> Copy {
        self.recorder.borrow_mut().copy(scope, now)
    }

    /// One step of a read; false when all is copied, then [`Copy::finish`].
    pub fn copy_step(&self, copy: &mut Copy) -> bool {
        copy.step(&mut self.recorder.borrow_mut())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use metrics::StatusClass;
    use series::{Endpoint, Measure};

    #[test]
    fn a_core_is_read_while_it_is_written() {
        let epoch = Epoch::now();
        let core = Core::new(epoch, epoch.instant);
        let key = Key::At(Endpoint::Livez, Measure::Ttfb);
        core.warm([key]);
        core.record(key, Duration::from_micros(80));
        core.count(Counter::Requests(Endpoint::Livez, StatusClass::Successful));
        let mut copy = core.copy_latency(Scope::default(), epoch.instant);
        while core.copy_step(&mut copy) {
            core.record(key, Duration::from_micros(90));
            core.tick(epoch.instant);
        }
        let read = copy.finish();
        assert_eq!(read.histogram(key).map(|all| all.len()), Some(1));
        let again = core.latency(Scope::default(), epoch.instant);
        assert_eq!(again.histogram(key).map(|all| all.len()), Some(2));
        let livez = Counter::Requests(Endpoint::Livez, StatusClass::Successful);
        assert_eq!(core.counters().value(livez), 1);
    }
}
