//! The runtime's part of `/metrics`: loops, rings, pools, and what all cores share.

use super::super::metrics::{CoreSnapshot, LoopStats};
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
