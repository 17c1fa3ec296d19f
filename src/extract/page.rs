//! What the host keeps for one page while its guest runs: memory limit, time budget, stop reasons.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use wasmtime::{ResourceLimiter, Store, UpdateDeadline};

use crate::limits::GUEST_MEMORY_BYTES_MAX;

/// Why the host stopped a guest.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Stop {
    /// It used up its CPU time.
    CpuBudget,
    /// The caller's deadline passed.
    Deadline,
    /// Nobody wants the page any more.
    Cancelled,
}

/// A store's data: one page's limits and what became of them.
pub(super) struct Page {
    cpu_clock: fn() -> Duration,
    /// Reading of `cpu_clock` at which the page's budget ends.
    cpu_end: Duration,
    deadline: Option<Instant>,
    cancel: Option<Arc<AtomicBool>>,
    pub(super) stopped: Option<Stop>,
    pub(super) memory_refused: bool,
}

impl Page {
    /// For one page: `cpu_budget` from now on by `cpu_clock`, and whichever of deadline and
    /// cancellation there is.
    pub(super) fn new(
        cpu_clock: fn() -> Duration,
        cpu_budget: Duration,
        deadline: Option<Instant>,
        cancel: Option<Arc<AtomicBool>>,
    ) -> Self {
        let cpu_end = cpu_clock().saturating_add(cpu_budget);
        Self { cpu_clock, cpu_end, deadline, cancel, stopped: None, memory_refused: false }
    }

    /// For looking at a module before it is used.
    pub(super) fn probe(deadline: Instant) -> Self {
        Self::new(|| Duration::ZERO, Duration::MAX, Some(deadline), None)
    }

    /// Puts the limits in force. Every tick of the engine's epoch, guest code comes by here.
    pub(super) fn arm(store: &mut Store<Self>) {
        store.limiter(|page| page);
        store.set_epoch_deadline(1);
        store.epoch_deadline_callback(|mut store| {
            let page = store.data_mut();
            page.stopped = page.due();
            Ok(match page.stopped {
                Some(_) => UpdateDeadline::Interrupt,
                None => UpdateDeadline::Continue(1),
            })
        });
    }

    /// A reason to stop now.
    pub(super) fn due(&self) -> Option<Stop> {
        if self.cancel.as_ref().is_some_and(|cancel| cancel.load(Ordering::Relaxed)) {
            Some(Stop::Cancelled)
        } else if self.deadline.is_some_and(|deadline| Instant::now() >= deadline) {
            Some(Stop::Deadline)
        } else if (self.cpu_clock)() >= self.cpu_end {
            Some(Stop::CpuBudget)
        } else {
            None
        }
    }
}

impl ResourceLimiter for Page {
    fn memory_growing(
        &mut self,
        _current: usize,
        desired: usize,
        _maximum: Option<usize>,
    ) -> wasmtime::Result<bool> {
        let allowed = desired <= GUEST_MEMORY_BYTES_MAX;
        self.memory_refused |= !allowed;
        Ok(allowed)
    }

    fn table_growing(
        &mut self,
        _current: usize,
        desired: usize,
        _maximum: Option<usize>,
    ) -> wasmtime::Result<bool> {
        Ok(desired <= super::engine::TABLE_ELEMENTS_MAX)
    }
}
