//! Export of traces and metrics to an OpenTelemetry collector (OTLP/HTTP, Protocol Buffers).
//!
//! Runs on the control thread. The loops hand over the spans of what has ended through a bounded queue
//! and never wait ([`crate::observe::span`]); metrics are asked of the cores as a scrape asks them. A
//! collector that is away, slow or mad costs spans, which are counted, and nothing else. One that takes
//! traces and no metrics, or the other way round, loses nothing of what it takes.

mod metrics;
mod post;
mod traces;
mod wire;

use crate::config::{Config, Wrong};
use crate::crawl::node::Shared;
use crate::crawl::report;
use crate::fetch::tls::client_config;
use crate::limits::{SPANS_PENDING_MAX, SPANS_PER_MESSAGE_MAX, SPANS_QUEUED_MAX};
use crate::observe::exposition::{self, Format};
use crate::observe::span::{Signal, Span, Spans};
use crate::parts;
use post::{Collector, PostError};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, SystemTime};
use tokio::sync::mpsc::Receiver;
use tokio::sync::oneshot;
use tokio::time::{Instant, MissedTickBehavior, interval_at};
use ulid::Ulid;
use wire::Wire;

/// Who exports.
struct Resource {
    attributes: Vec<(&'static str, String)>,
}

impl Resource {
    fn new(config: &Config) -> Self {
        let mut attributes = vec![
            ("service.name", config.otlp_service_name.clone()),
            ("service.version", env!("CARGO_PKG_VERSION").to_owned()),
            ("service.instance.id", Ulid::generate().to_string()),
            ("process.pid", std::process::id().to_string()),
        ];
        if let Ok(name) = std::fs::read_to_string("/proc/sys/kernel/hostname") {
            attributes.push(("host.name", name.trim().to_owned()));
        }
        Self { attributes }
    }

    fn write(&self, out: &mut Wire) {
        for (name, value) in &self.attributes {
            match value.parse().ok().filter(|_| *name == "process.pid") {
                Some(number) => out.number_attribute(1, name, number),
                None => out.text_attribute(1, name, value),
            }
        }
    }

    /// `InstrumentationScope`
    fn write_scope(out: &mut Wire) {
        out.bytes(1, b"forebay");
        out.bytes(2, env!("CARGO_PKG_VERSION").as_bytes());
    }
}

/// Sends what there is to send.
pub struct Exporter {
    spans: Receiver<Span>,
    collector: Collector,
    resource: Resource,
    interval: Duration,
    metrics: bool,
    /// Spans that the collector has not taken yet, the oldest first.
    pending: Vec<Span>,
    /// Of each [`Signal`].
    ways: [Way; 2],
}

/// How it goes with one signal.
#[derive(Debug, Clone, Copy, Default)]
struct Way {
    /// Whether the last message was not taken.
    failing: bool,
    /// Until when the collector wants to be left alone.
    until: Option<Instant>,
}

/// The queue of spans and who empties it; off without `otlp.endpoint`.
///
/// # Errors
/// A sentence about the setting that makes no sense.
pub fn open(config: &Config) -> Result<(Spans, Option<Exporter>), String> {
    if config.otlp_endpoint.is_empty() {
        return Ok((Spans::default(), None));
    }
    let tls = || {
        let files: Vec<_> = config.extra_ca.iter().cloned().collect();
        client_config(parts::tls_roots(config), &files, false).map_err(|error| error.to_string())
    };
    let timeout = Duration::from_millis(config.otlp_timeout_ms);
    let headers = config.otlp_headers.reveal();
    let collector = Collector::new(&config.otlp_endpoint, headers, timeout, tls)?;
    let (spans, from) = Spans::open(config.otlp_traces_ratio, SPANS_QUEUED_MAX);
    let exporter = Exporter {
        spans: from,
        collector,
        resource: Resource::new(config),
        interval: Duration::from_millis(config.otlp_interval_ms),
        metrics: config.otlp_metrics,
        pending: Vec::new(),
        ways: [Way::default(); 2],
    };
    Ok((spans, Some(exporter)))
}

/// All that would keep [`open`] from working, but the authorities that fetches trust as well.
#[must_use]
pub fn check(config: &Config) -> Vec<Wrong> {
    let mut wrong = Vec::new();
    if !config.otlp_endpoint.is_empty() {
        if let Err(message) = post::check_endpoint(&config.otlp_endpoint) {
            wrong.push(Wrong::new("otlp.endpoint", message));
        }
        if let Err(message) = post::fields(config.otlp_headers.reveal()) {
            wrong.push(Wrong::new("otlp.headers", message));
        }
    }
    wrong
}

impl Exporter {
    /// Exports until it is told to stop, and then the spans that are left.
    pub async fn run(mut self, shared: Arc<Shared>, mut stop: oneshot::Receiver<()>) {
        let mut ticks = interval_at(Instant::now() + self.interval, self.interval);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            let room = SPANS_PENDING_MAX - self.pending.len();
            tokio::select! {
                _ = &mut stop => break,
                _ = ticks.tick() => self.export(&shared).await,
                // The queue's other end is in `shared`, so it never closes.
                _ = self.spans.recv_many(&mut self.pending, room), if room > 0 => {
                    // While nothing is taken, the interval is the pause between two attempts.
                    let failing = self.ways[Signal::Traces as usize].failing;
                    if self.pending.len() >= SPANS_PER_MESSAGE_MAX && !failing {
                        self.export_spans(&shared.spans).await;
                    }
                }
            }
        }
        while let Ok(span) = self.spans.try_recv() {
            self.pending.push(span);
        }
        // The cores have ended by now: there is nobody left to ask for metrics.
        self.export_spans(&shared.spans).await;
    }

    async fn export(&mut self, shared: &Arc<Shared>) {
        self.export_spans(&shared.spans).await;
        if self.metrics && !self.rests(Signal::Metrics) {
            self.export_metrics(shared).await;
        }
    }

    /// Whether the collector has asked for some time before the next message of a signal.
    fn rests(&self, signal: Signal) -> bool {
        self.ways[signal as usize].until.is_some_and(|until| Instant::now() < until)
    }

    async fn export_spans(&mut self, spans: &Spans) {
        while !self.pending.is_empty() && !self.rests(Signal::Traces) {
            let count = self.pending.len().min(SPANS_PER_MESSAGE_MAX);
            let message = traces::message(&self.resource, &self.pending[..count]);
            let posted = self.collector.post("/v1/traces", &message).await;
            let counter = match self.note(spans, Signal::Traces, posted) {
                Outcome::Taken => &spans.gauges.sent,
                Outcome::Refused => &spans.gauges.refused,
                Outcome::Later => return,
            };
            counter.fetch_add(count as u64, Ordering::Relaxed);
            self.pending.drain(..count);
        }
    }

    async fn export_metrics(&mut self, shared: &Arc<Shared>) {
        let asked = Arc::clone(shared);
        // The cores answer when they come to it, and counting descriptors takes milliseconds.
        let rendered = tokio::task::spawn_blocking(move || {
            let scrape = report::scrape(&asked)?;
            Some(exposition::render(scrape, Format::OpenMetrics))
        });
        // Without one of the cores sums would go down and come back: the next round has all.
        let Ok(Some(text)) = rendered.await else { return };
        let now = SystemTime::now();
        let message = metrics::message(&self.resource, &text, shared.started, now);
        let posted = self.collector.post("/v1/metrics", &message).await;
        self.note(&shared.spans, Signal::Metrics, posted);
    }

    fn note(&mut self, spans: &Spans, signal: Signal, posted: Result<(), PostError>) -> Outcome {
        spans.gauges.note(signal, posted.is_ok());
        let asked = posted.as_ref().err().and_then(PostError::retry_after);
        let way = Way {
            failing: posted.is_err(),
            until: asked.and_then(|after| Instant::now().checked_add(after)),
        };
        let before = std::mem::replace(&mut self.ways[signal as usize], way);
        let what = signal.as_str();
        match posted {
            Ok(()) => {
                if before.failing {
                    tracing::info!("the collector of otlp.endpoint takes {what} again");
                }
                Outcome::Taken
            }
            Err(error) => {
                if !before.failing {
                    tracing::warn!("{what} were not exported to otlp.endpoint: {error}");
                }
                if error.retryable() { Outcome::Later } else { Outcome::Refused }
            }
        }
    }
}

/// What became of a message.
enum Outcome {
    Taken,
    /// For good.
    Refused,
    /// It may be taken later.
    Later,
}
