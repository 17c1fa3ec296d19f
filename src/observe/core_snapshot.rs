//! What one core tells `/metrics`: its counters, its latencies, and how full its pools and queues are.

use super::metrics::CounterValues;
use super::rings::RingStats;
use super::snapshot::Snapshot;
use std::time::Duration;

/// One size class of a core's buffer arena.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct ArenaClass {
    /// Bytes of one buffer.
    pub buffer_bytes: u64,
    /// Buffers in use.
    pub in_use: u64,
    /// Most buffers that were in use at once.
    pub high_water: u64,
    /// Buffers that it has memory for.
    pub capacity: u64,
}

/// What of a core's buffers is no class': larger than all, or beyond the arena's bound.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct ArenaHeap {
    /// Bytes of slabs that the arena may hold.
    pub slab_bytes_max: u64,
    /// Buffers from the heap that are in use.
    pub in_use: u64,
    /// Bytes of them.
    pub bytes: u64,
    /// Most bytes of them at once.
    pub bytes_high_water: u64,
    /// Such buffers made so far.
    pub total: u64,
}

/// One bounded queue into a core.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Mailbox {
    /// Who sends into it.
    pub name: &'static str,
    /// Messages that wait.
    pub depth: u64,
    /// Messages that may wait.
    pub capacity: u64,
    /// Times that a message found it full.
    pub refused: u64,
}

/// One core's extraction lane.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct LaneStats {
    /// Jobs that wait.
    pub depth: u64,
    /// Jobs that may wait.
    pub capacity: u64,
    /// Jobs refused because the queue was full.
    pub refused: u64,
    /// Jobs done.
    pub jobs: u64,
    /// CPU time spent on them.
    pub busy: Duration,
    /// Jobs that panicked: bugs of ours.
    pub panics: u64,
    /// Jobs that trapped in the sandbox: deadline, memory, a bug of the guest.
    pub traps: u64,
}

/// One core's event loop and its ring.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct LoopStats {
    /// Seconds in which the loop has turned.
    pub beats: u64,
    /// Tasks that live.
    pub tasks: u64,
    /// Tasks that were begun.
    pub tasks_spawned: u64,
    /// Tasks that panicked: bugs of ours.
    pub tasks_panicked: u64,
    /// Operations begun: reads, writes, waits for readiness, accepts, connects.
    pub operations: [(&'static str, u64); 5],
    /// Buffers that the kernel holds.
    pub buffers_in_flight: u64,
    /// Idle connections to origins.
    pub pooled: u64,
    /// Entries submitted to the ring and completions that it gave, as the kernel counts them; none
    /// with epoll.
    pub ring: Option<(u64, u64)>,
}

/// Everything that one core has to tell `/metrics`; `Send`.
#[derive(Debug, Clone)]
pub struct CoreSnapshot {
    /// The core's number.
    pub core: usize,
    /// Its counters.
    pub counters: CounterValues,
    /// Its latencies since start or reset; a reset of `/latency` is a counter reset to Prometheus.
    pub latency: Snapshot,
    /// Its arena.
    pub arena: Vec<ArenaClass>,
    /// Buffers that its arena had no place for.
    pub heap: ArenaHeap,
    /// The send rings of its connections.
    pub rings: RingStats,
    /// Its queues.
    pub mailboxes: Vec<Mailbox>,
    /// Its lane, if it has one.
    pub lane: Option<LaneStats>,
    /// Its loop, where that is known.
    pub event_loop: Option<LoopStats>,
}
