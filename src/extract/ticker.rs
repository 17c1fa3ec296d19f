//! A thread that ticks while guests run, for whoever has no other timer at hand.

use std::io;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};
use std::thread::{self, JoinHandle, Thread};
use std::time::Duration;

use wasmtime::Engine;

use super::{Extractor, LoadError};

/// Ticks an extractor's clock until it is dropped; sleeps while no guest runs.
pub struct Ticker {
    stopping: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

/// The guests that run, and the thread that ticks for them.
#[derive(Default)]
pub(super) struct Pulse {
    running: AtomicUsize,
    /// The ticker sleeps, or is about to: the next guest wakes it.
    asleep: AtomicBool,
    /// The extractor's first ticker. A further one never sleeps.
    ticker: OnceLock<Thread>,
}

/// A guest runs, until this is dropped.
pub(super) struct Running<'a>(&'a Pulse);

impl Ticker {
    /// Calls [`Extractor::tick`] every `period`, a few milliseconds, while a guest runs.
    ///
    /// # Errors
    /// When there can be no thread for it; then no time limit would hold.
    pub fn start(extractor: &Extractor, period: Duration) -> Result<Self, LoadError> {
        let pulse = Arc::clone(extractor.pulse());
        Self::over(extractor.engine(), Some(pulse), period)
    }

    /// As [`Ticker::start`]; without a pulse it never sleeps.
    pub(super) fn over(
        engine: &Engine,
        pulse: Option<Arc<Pulse>>,
        period: Duration,
    ) -> Result<Self, LoadError> {
        let engine = engine.clone();
        Self::every(pulse, period, move || engine.increment_epoch()).map_err(LoadError::Ticker)
    }

    fn every(
        pulse: Option<Arc<Pulse>>,
        period: Duration,
        tick: impl Fn() + Send + 'static,
    ) -> io::Result<Self> {
        let stopping = Arc::new(AtomicBool::new(false));
        let stop = Arc::clone(&stopping);
        let work = move || {
            let pulse = pulse.filter(|pulse| pulse.ticker.set(thread::current()).is_ok());
            while !stop.load(Ordering::SeqCst) {
                if let Some(pulse) = &pulse {
                    pulse.wait_for_guest(&stop);
                }
                // Woken early, it ticks early: guests look at their limits, no more.
                thread::park_timeout(period);
                tick();
            }
        };
        let thread = thread::Builder::new().name("extract-ticker".to_owned()).spawn(work)?;
        Ok(Self { stopping, thread: Some(thread) })
    }
}

impl Drop for Ticker {
    fn drop(&mut self) {
        self.stopping.store(true, Ordering::SeqCst);
        if let Some(thread) = self.thread.take() {
            thread.thread().unpark();
            // The thread only waits and counts; it has nothing to fail with.
            let _ = thread.join();
        }
    }
}

impl Pulse {
    /// A guest begins to run.
    pub(super) fn run(&self) -> Running<'_> {
        // Counted, then looked whether the ticker sleeps; the ticker says that it will sleep, then looks
        // at the count. In the one order of all four, one of them sees what the other did.
        self.running.fetch_add(1, Ordering::SeqCst);
        if self.asleep.swap(false, Ordering::SeqCst)
            && let Some(ticker) = self.ticker.get()
        {
            ticker.unpark();
        }
        Running(self)
    }

    fn wait_for_guest(&self, stop: &AtomicBool) {
        let idle = || self.running.load(Ordering::SeqCst) == 0 && !stop.load(Ordering::SeqCst);
        while idle() {
            self.asleep.store(true, Ordering::SeqCst);
            if idle() {
                thread::park();
            }
            self.asleep.store(false, Ordering::SeqCst);
        }
    }
}

impl Drop for Running<'_> {
    fn drop(&mut self) {
        self.0.running.fetch_sub(1, Ordering::SeqCst);
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test may panic")]

    use super::*;
    use std::time::Instant;

    fn comes(what: impl Fn() -> bool) -> bool {
        let end = Instant::now() + Duration::from_secs(30);
        while !what() && Instant::now() < end {
            thread::sleep(Duration::from_millis(1));
        }
        what()
    }

    #[test]
    fn it_ticks_while_a_guest_runs_and_sleeps_otherwise() {
        let (pulse, ticks) = (Arc::new(Pulse::default()), Arc::new(AtomicUsize::new(0)));
        let count = || ticks.load(Ordering::SeqCst);
        let sleeps = || pulse.asleep.load(Ordering::SeqCst);
        let counted = Arc::clone(&ticks);
        let tick = move || {
            counted.fetch_add(1, Ordering::SeqCst);
        };
        let ticker = Ticker::every(Some(Arc::clone(&pulse)), Duration::from_millis(1), tick);
        for _ in 0..3 {
            assert!(comes(sleeps), "nothing runs");
            let before = count();
            thread::sleep(Duration::from_millis(20));
            assert_eq!(count(), before, "nothing runs");
            let (one, other) = (pulse.run(), pulse.run());
            assert!(comes(|| count() > before + 3), "a guest runs");
            drop(one);
            let before = count();
            assert!(comes(|| count() > before + 3), "another still runs");
            drop(other);
        }
        drop(ticker.unwrap());
    }

    #[test]
    fn it_ends_asleep_and_awake_and_a_second_one_ticks_too() {
        let pulse = Arc::new(Pulse::default());
        let start = |tick: Box<dyn Fn() + Send>| {
            Ticker::every(Some(Arc::clone(&pulse)), Duration::from_millis(1), tick).unwrap()
        };
        let first = start(Box::new(|| ()));
        assert!(comes(|| pulse.asleep.load(Ordering::SeqCst)));
        let ticks = Arc::new(AtomicUsize::new(0));
        let counted = Arc::clone(&ticks);
        let second = start(Box::new(move || {
            counted.fetch_add(1, Ordering::SeqCst);
        }));
        assert!(comes(|| ticks.load(Ordering::SeqCst) > 3));
        drop((first, second));
    }
}
