//! Export of traces and metrics to an OpenTelemetry collector (OTLP/HTTP, Protocol Buffers).
//!
//! Runs on the control thread. The loops hand over the spans of what has ended through a bounded queue
//! and never wait ([`crate::observe::span`]); metrics are asked of the cores as a scrape asks them. A
//! collector that is away, slow or mad costs spans, which are counted, and nothing else.

mod metrics;
mod post;
mod traces;
mod wire;

use crate::config::{Config, Roots};
use crate::crawl::node::Shared;
use crate::crawl::report;
use crate::fetch::tls::{TlsRoots, client_config};
use crate::limits::{SPANS_PENDING_MAX, SPANS_PER_MESSAGE_MAX, SPANS_QUEUED_MAX};
use crate::observe::exposition::{self, Format};
use crate::observe::span::{Span, Spans};
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
    /// Whether the last message was not taken.
    failing: bool,
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
        let roots = match config.roots {
            Roots::Webpki => TlsRoots::Webpki,
            Roots::Platform => TlsRoots::Platform,
        };
        client_config(roots, &files, false).map_err(|error| error.to_string())
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
        failing: false,
    };
    Ok((spans, Some(exporter)))
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
                    if self.pending.len() >= SPANS_PER_MESSAGE_MAX && !self.failing {
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
        if self.metrics {
            self.export_metrics(shared).await;
        }
    }

    async fn export_spans(&mut self, spans: &Spans) {
        while !self.pending.is_empty() {
            let count = self.pending.len().min(SPANS_PER_MESSAGE_MAX);
            let message = traces::message(&self.resource, &self.pending[..count]);
            let posted = self.collector.post("/v1/traces", &message).await;
            let counter = match self.note(spans, "spans", posted) {
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
        self.note(&shared.spans, "metrics", posted);
    }

    fn note(&mut self, spans: &Spans, what: &str, posted: Result<(), PostError>) -> Outcome {
        spans.gauges.note(posted.is_ok());
        let failed_before = std::mem::replace(&mut self.failing, posted.is_err());
        match posted {
            Ok(()) => {
                if failed_before {
                    tracing::info!("the collector of otlp.endpoint takes {what} again");
                }
                Outcome::Taken
            }
            Err(error) => {
                if !failed_before {
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
