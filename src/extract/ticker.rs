//! A thread that ticks, for whoever has no other timer at hand.

use std::sync::mpsc::{RecvTimeoutError, Sender, channel};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use wasmtime::Engine;

use super::Extractor;

/// Ticks an extractor's clock until it is dropped.
pub struct Ticker {
    stop: Option<Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Ticker {
    /// Calls [`Extractor::tick`] every `period`, a few milliseconds.
    #[must_use]
    pub fn start(extractor: &Extractor, period: Duration) -> Self {
        Self::over(extractor.engine(), period)
    }

    pub(super) fn over(engine: &Engine, period: Duration) -> Self {
        let engine = engine.clone();
        let (stop, stopped) = channel();
        let tick = move || {
            while stopped.recv_timeout(period) == Err(RecvTimeoutError::Timeout) {
                engine.increment_epoch();
            }
        };
        let thread = thread::Builder::new().name("extract-ticker".to_owned()).spawn(tick);
        Self { stop: Some(stop), thread: thread.ok() }
    }
}

impl Drop for Ticker {
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take() {
            // The thread only waits and counts; it has nothing to fail with.
            let _ = thread.join();
        }
    }
}
