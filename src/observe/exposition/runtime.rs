//! The runtime's part of `/metrics`: loops, rings, pools, and what all cores share.

use super::super::core_snapshot::{ArenaClass, ArenaHeap, CoreSnapshot, LoopStats};
use super::super::rings::RingStats;
use super::{Exported, Out, Scrape, labels, on};
use prometheus_client::registry::Unit;
use std::fmt;

impl Out<'_> {
    /// Loops and rings, by core.
    pub(super) fn loops(&mut self, cores: &[CoreSnapshot]) -> fmt::Result {
        let loops = || cores.iter().filter_map(|core| Some((core, core.event_loop?)));
        let row =
            |value: fn(&LoopStats) -> u64| loops().map(move |(core, one)| (on(core), value(&one)));
        let name = ("forebay_loop_beats", None, "Seconds in which the loop has turned.");
        self.counters(name, row(|one| one.beats))?;
        self.gauges(("forebay_loop_tasks", None, "Tasks that live."), row(|one| one.tasks))?;
        let name = ("forebay_loop_tasks_spawned", None, "Tasks begun.");
        self.counters(name, row(|one| one.tasks_spawned))?;
        let name = ("forebay_loop_tasks_panicked", None, "Tasks that panicked.");
        self.counters(name, row(|one| one.tasks_panicked))?;
        let name = ("forebay_ring_operations", None, "Operations begun by the loop, by kind.");
        let operations = loops().flat_map(|(core, one)| {
            one.operations.into_iter().map(move |(operation, count)| {
                let mut labels = on(core);
                labels.push(("op", operation.to_owned()));
                (labels, count)
            })
        });
        self.counters(name, operations)?;
        let name = ("forebay_ring_buffers_in_flight", None, "Buffers that the kernel holds.");
        self.gauges(name, row(|one| one.buffers_in_flight))?;
        let ring = |value: fn((u64, u64)) -> u64| {
            loops().filter_map(move |(core, one)| Some((on(core), value(one.ring?))))
        };
        let name = ("forebay_ring_submissions", None, "Entries submitted (SQEs); wraps at 2^32.");
        self.counters(name, ring(|(submitted, _)| submitted))?;
        let name = ("forebay_ring_completions", None, "Completions (CQEs); wraps at 2^32.");
        self.counters(name, ring(|(_, completed)| completed))?;
        let name = ("forebay_fetch_pooled_connections", None, "Idle connections to origins.");
        self.gauges(name, row(|one| one.pooled))
    }

    /// I/O buffers, by core.
    pub(super) fn arenas(&mut self, cores: &[CoreSnapshot]) -> fmt::Result {
        let classes = || cores.iter().flat_map(|core| core.arena.iter().map(move |a| (core, a)));
        let own = |core: &CoreSnapshot, bytes: u64| {
            vec![("core", core.core.to_string()), ("buffer_bytes", bytes.to_string())]
        };
        let row = |value: fn(&ArenaClass) -> u64| {
            classes().map(move |(core, class)| (own(core, class.buffer_bytes), value(class)))
        };
        let name = ("forebay_arena_buffers_in_use", None, "I/O buffers in use, by size.");
        self.gauges(name, row(|class| class.in_use))?;
        let name = ("forebay_arena_buffers_high_water", None, "Most I/O buffers in use at once.");
        self.gauges(name, row(|class| class.high_water))?;
        let name =
            ("forebay_arena_buffers_capacity", None, "I/O buffers that there is memory for.");
        self.gauges(name, row(|class| class.capacity))?;
        let heap = |value: fn(&ArenaHeap) -> u64| {
            cores.iter().map(move |core| (on(core), value(&core.heap)))
        };
        let bytes = || Some(Unit::Bytes);
        let name =
            ("forebay_arena_max", bytes(), "I/O buffers that the arena may have memory for.");
        self.gauges(name, heap(|heap| heap.slab_bytes_max))?;
        let name = ("forebay_arena_heap_buffers", None, "I/O buffers outside the arena, in use.");
        self.gauges(name, heap(|heap| heap.in_use))?;
        let name = ("forebay_arena_heap", bytes(), "Size of the I/O buffers outside the arena.");
        self.gauges(name, heap(|heap| heap.bytes))?;
        let name = ("forebay_arena_heap_high_water", bytes(), "Most of them at once.");
        self.gauges(name, heap(|heap| heap.bytes_high_water))?;
        let name =
            ("forebay_arena_heap_made", None, "I/O buffers that the arena had no place for.");
        self.counters(name, heap(|heap| heap.total))
    }

    /// What waits to be sent, by core.
    pub(super) fn send_rings(&mut self, cores: &[CoreSnapshot]) -> fmt::Result {
        let row = |value: fn(&RingStats) -> u64| {
            cores.iter().map(move |core| (on(core), value(&core.rings)))
        };
        let bytes = || Some(Unit::Bytes);
        let name = ("forebay_send_rings", None, "Rings of connections that stream.");
        self.gauges(name, row(|rings| rings.rings))?;
        let name = ("forebay_send_ring_frames", None, "Frames that wait in them.");
        self.gauges(name, row(|rings| rings.frames))?;
        let name = ("forebay_send_ring_frames_limit", None, "Frames that may wait in them.");
        self.gauges(name, row(|rings| rings.frames_limit))?;
        let name = ("forebay_send_ring", bytes(), "What waits in them.");
        self.gauges(name, row(|rings| rings.bytes))?;
        let name = ("forebay_send_ring_frames_high_water", None, "Most frames of one ring so far.");
        self.gauges(name, row(|rings| rings.frames_high_water))?;
        let name = ("forebay_send_ring_high_water", bytes(), "Most bytes of one ring so far.");
        self.gauges(name, row(|rings| rings.bytes_high_water))?;
        let name = ("forebay_send_ring_refused", None, "Frames that found their ring full.");
        self.counters(name, row(|rings| rings.refused))
    }

    /// What is exported by OTLP.
    pub(super) fn exported(&mut self, exported: &Exported) -> fmt::Result {
        let rows = |all: &[(&'static str, u64)]| {
            let row = |&(outcome, count)| (labels([("outcome", outcome)]), count);
            all.iter().map(row).collect::<Vec<_>>()
        };
        let name = ("forebay_otlp_spans", None, "Spans for the collector, by what became of them.");
        self.counters(name, rows(&exported.spans))?;
        let name =
            ("forebay_otlp_messages", None, "Messages to the collector, by signal and outcome.");
        let row = |&(signal, outcome, count): &(&'static str, &'static str, u64)| {
            (labels([("signal", signal), ("outcome", outcome)]), count)
        };
        self.counters(name, exported.messages.iter().map(row).collect::<Vec<_>>())
    }

    /// What all cores share.
    pub(super) fn shared(&mut self, scrape: &Scrape) -> fmt::Result {
        let bytes = Some(Unit::Bytes);
        let name = ("forebay_streams", bytes, "Events of all streams, kept for replay.");
        self.gauge(name, scrape.streams_bytes)?;
        let name = ("forebay_cache_flights", None, "Pages being fetched for all who want them.");
        self.gauge(name, scrape.flights)
    }
}
