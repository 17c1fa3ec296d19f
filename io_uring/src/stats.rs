//! Per-core counters: plain cells of the core's own thread, so counting costs an add.

use std::cell::Cell;

/// What this core did since it started, as counted by this layer. All counts are of this thread alone.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CoreStats {
    /// Tasks spawned and not yet finished (the core's main future is one of them).
    pub tasks_live: u64,
    /// Tasks spawned so far.
    pub tasks_spawned: u64,
    /// Tasks that ended by a panic.
    pub tasks_panicked: u64,
    /// Reads submitted.
    pub reads: u64,
    /// Writes submitted; a gather of many chunks is one.
    pub writes: u64,
    /// Waits for readiness submitted.
    pub polls: u64,
    /// Bytes received.
    pub bytes_in: u64,
    /// Bytes sent.
    pub bytes_out: u64,
    /// Connections accepted.
    pub accepts: u64,
    /// Connections opened outbound.
    pub connects: u64,
    /// Buffers that the kernel holds now (reads and writes in flight, cancelled ones included until the kernel lets go).
    pub buffers_in_flight: u64,
}

thread_local! {
    static STATS: Cell<CoreStats> = const { Cell::new(CoreStats {
        tasks_live: 0,
        tasks_spawned: 0,
        tasks_panicked: 0,
        reads: 0,
        writes: 0,
        polls: 0,
        bytes_in: 0,
        bytes_out: 0,
        accepts: 0,
        connects: 0,
        buffers_in_flight: 0,
    }) };
}

/// This core's counters so far. On a thread that is not a core, all zero.
pub fn stats() -> CoreStats {
    STATS.with(Cell::get)
}

pub(crate) fn update(f: impl FnOnce(&mut CoreStats)) {
    STATS.with(|cell| {
        let mut stats = cell.get();
        f(&mut stats);
        cell.set(stats);
    });
}

/// Lives in an operation's data next to the buffer, so it is dropped exactly when the kernel is done with the buffer.
pub(crate) struct InFlight(());

impl InFlight {
    pub(crate) fn new() -> InFlight {
        update(|s| s.buffers_in_flight += 1);
        InFlight(())
    }
}

impl Drop for InFlight {
    fn drop(&mut self) {
        update(|s| s.buffers_in_flight -= 1);
    }
}
