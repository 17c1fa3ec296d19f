//! `GET /metrics`: everything that the cores counted, in Prometheus' text format or OpenMetrics.
//!
//! Encoded by `prometheus-client`, which writes OpenMetrics; [`Format::Text`] is the same text
//! with the four differences of Prometheus' older format (see [`to_text`]), which every scraper
//! and `promtool check metrics` read.
//!
//! Latencies are classic histograms in seconds with the bounds [`BUCKETS_S`], derived from the HDR
//! series (exact to their 3 digits): `forebay_ttfb_seconds{endpoint,transport}`, likewise for each
//! [`Measure`], and `forebay_page_stage_seconds{stage}`.

mod runtime;

use super::core_snapshot::{CoreSnapshot, Mailbox};
use super::metrics::{
    Counter, CounterValues, Durability, Egress, EventKind, HookEnd, JobEnd, PageEnd, Reject,
    Resized, StatusClass, StreamEnd, Way,
};
use super::process::Process;
use super::series::{Endpoint, Key, Measure};
use super::snapshot::Snapshot;
use crate::error::{ApiCode, Stage};
use prometheus_client::collector::Collector;
use prometheus_client::encoding::text::encode;
use prometheus_client::encoding::{DescriptorEncoder, MetricEncoder, NoLabelSet};
use prometheus_client::metrics::MetricType;
use prometheus_client::registry::{Registry, Unit};
use std::fmt;
use std::time::{SystemTime, UNIX_EPOCH};

/// Upper bounds of the latency histograms, in seconds.
pub const BUCKETS_S: [f64; 20] = [
    0.000_05, 0.000_1, 0.000_25, 0.000_5, 0.001, 0.002_5, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5,
    1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0,
];

/// Which text a scraper wants.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    /// Prometheus' text format 0.0.4, the default.
    Text,
    /// OpenMetrics 1.0.0.
    OpenMetrics,
}

impl Format {
    /// By the request's `Accept` field: OpenMetrics only for who names it.
    #[must_use]
    pub fn from_accept(accept: &str) -> Self {
        if accept.to_ascii_lowercase().contains("application/openmetrics-text") {
            Self::OpenMetrics
        } else {
            Self::Text
        }
    }

    /// The answer's `Content-Type`.
    #[must_use]
    pub const fn content_type(self) -> &'static str {
        match self {
            Self::Text => "text/plain; version=0.0.4; charset=utf-8",
            Self::OpenMetrics => "application/openmetrics-text; version=1.0.0; charset=utf-8",
        }
    }
}

/// The page cache as all cores share it.
#[derive(Debug, Clone, Copy, Default)]
pub struct Cached {
    /// Pages.
    pub entries: u64,
    /// What they weigh, in bytes.
    pub bytes: u64,
    /// Pages that went to make room.
    pub evictions: u64,
}

/// The Redis that nodes share.
#[derive(Debug, Clone, Default)]
pub struct Redis {
    /// How it is, in a word.
    pub state: &'static str,
    /// Letters that wait for it.
    pub queue: u64,
    /// What has been counted so far: event and number.
    pub events: Vec<(&'static str, u64)>,
    /// What became of pages: outcome and number.
    pub pages: Vec<(&'static str, u64)>,
}

/// What is exported by OTLP.
#[derive(Debug, Clone, Default)]
pub struct Exported {
    /// What became of spans: outcome and number.
    pub spans: Vec<(&'static str, u64)>,
    /// What became of messages: signal, outcome and number.
    pub messages: Vec<(&'static str, &'static str, u64)>,
}

/// The local search index as all cores share it.
#[derive(Debug, Clone, Copy, Default)]
pub struct Indexed {
    /// Pages.
    pub pages: u64,
    /// Bytes of the index.
    pub bytes: u64,
    /// Pages that came faster than they could be indexed.
    pub dropped: u64,
    /// Pages that went to make room.
    pub evicted: u64,
}

/// What one scrape shows.
#[derive(Debug, Clone)]
pub struct Scrape {
    /// Every core.
    pub cores: Vec<CoreSnapshot>,
    /// The process.
    pub process: Process,
    /// When it started.
    pub started: SystemTime,
    /// `version`, `commit` and the like: labels of `forebay_build_info`.
    pub build: Vec<(&'static str, String)>,
    /// The page cache.
    pub cache: Cached,
    /// Redis, where there is one.
    pub redis: Option<Redis>,
    /// What is exported, where something is.
    pub exported: Option<Exported>,
    /// The local search index, where there is one.
    pub index: Option<Indexed>,
    /// Bytes of all streams' events.
    pub streams_bytes: u64,
    /// Pages that are being fetched for everybody who wants them.
    pub flights: u64,
    /// Limits in force, by their setting's name: `forebay_limit{name}`.
    pub limits: Vec<(&'static str, u64)>,
}

/// The metrics as text.
#[must_use]
pub fn render(scrape: Scrape, format: Format) -> String {
    let mut registry = Registry::default();
    registry.register_collector(Box::new(Page(scrape)));
    let mut text = String::with_capacity(64 * 1024);
    encode(&mut text, &registry).expect("writing to a String does not fail");
    match format {
        Format::OpenMetrics => text,
        Format::Text => to_text(&text),
    }
}

/// OpenMetrics to Prometheus text 0.0.4: a counter's metadata carry its `_total`, an info is a
/// gauge whose metadata carry `_info`, and there are no `# UNIT` and no `# EOF` lines.
fn to_text(open_metrics: &str) -> String {
    let mut out = String::with_capacity(open_metrics.len());
    let mut help = "";
    for line in open_metrics.lines() {
        let mut words = line.splitn(4, ' ');
        match (words.next(), words.next(), words.next(), words.next()) {
            // The name to print depends on the type, which comes one line later.
            (Some("#"), Some("HELP"), _, text) => help = text.unwrap_or_default(),
            (Some("#"), Some("TYPE"), Some(name), Some(kind)) => {
                let (suffix, kind) = match kind {
                    "counter" => ("_total", "counter"),
                    "info" => ("_info", "gauge"),
                    other => ("", other),
                };
                out.extend(["# HELP ", name, suffix, " ", help, "\n"]);
                out.extend(["# TYPE ", name, suffix, " ", kind, "\n"]);
            }
            (Some("#"), ..) => {}
            _ => out.extend([line, "\n"]),
        }
    }
    out
}

type Labels = Vec<(&'static str, String)>;

/// One scrape as a collector.
#[derive(Debug)]
struct Page(Scrape);

impl Collector for Page {
    fn encode(&self, encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let mut sum = CounterValues::default();
        self.0.cores.iter().for_each(|core| sum.merge(&core.counters));
        let mut out = Out(encoder);
        out.process(&self.0)?;
        out.requests(&sum)?;
        out.streams(&sum)?;
        out.shared(&self.0)?;
        out.websockets(&sum)?;
        out.fetch(&sum)?;
        out.jobs(&sum)?;
        out.cache(&self.0.cache)?;
        self.0.redis.as_ref().map_or(Ok(()), |redis| out.redis(redis))?;
        self.0.exported.as_ref().map_or(Ok(()), |exported| out.exported(exported))?;
        self.0.index.as_ref().map_or(Ok(()), |index| out.index(index))?;
        out.arenas(&self.0.cores)?;
        out.queues(&self.0.cores)?;
        out.loops(&self.0.cores)?;
        out.send_rings(&self.0.cores)?;
        let mut latencies = self.0.cores.iter().map(|core| &core.latency);
        let Some(first) = latencies.next() else { return Ok(()) };
        let mut latency = first.clone();
        latencies.for_each(|more| latency.merge(more.clone()));
        out.latencies(&latency)
    }
}

struct Out<'a>(DescriptorEncoder<'a>);

impl Out<'_> {
    fn family(
        &mut self,
        (name, unit, help): (&str, Option<Unit>, &str),
        kind: MetricType,
        mut rows: impl FnMut(&mut MetricEncoder<'_>) -> fmt::Result,
    ) -> fmt::Result {
        rows(&mut self.0.encode_descriptor(name, help, unit.as_ref(), kind)?)
    }

    fn counters(
        &mut self,
        name: (&str, Option<Unit>, &str),
        rows: impl IntoIterator<Item = (Labels, u64)>,
    ) -> fmt::Result {
        let mut rows = rows.into_iter();
        self.family(name, MetricType::Counter, |metric| {
            rows.try_for_each(|(labels, value)| {
                let metric = &mut metric.encode_family(&labels)?;
                metric.encode_counter::<NoLabelSet, u64, f64>(&value, None)
            })
        })
    }

    fn counter(&mut self, name: (&str, Option<Unit>, &str), value: u64) -> fmt::Result {
        self.family(name, MetricType::Counter, |metric| {
            metric.encode_counter::<NoLabelSet, u64, f64>(&value, None)
        })
    }

    fn gauges(
        &mut self,
        name: (&str, Option<Unit>, &str),
        rows: impl IntoIterator<Item = (Labels, u64)>,
    ) -> fmt::Result {
        let mut rows = rows.into_iter();
        self.family(name, MetricType::Gauge, |metric| {
            rows.try_for_each(|(labels, value)| metric.encode_family(&labels)?.encode_gauge(&value))
        })
    }

    fn gauge(&mut self, name: (&str, Option<Unit>, &str), value: u64) -> fmt::Result {
        self.family(name, MetricType::Gauge, |metric| metric.encode_gauge(&value))
    }

    fn process(&mut self, scrape: &Scrape) -> fmt::Result {
        self.family(("forebay_build", None, "What this build is."), MetricType::Info, |metric| {
            metric.encode_info(&scrape.build)
        })?;
        let started = scrape.started.duration_since(UNIX_EPOCH).unwrap_or_default();
        let started = started.as_secs_f64();
        let name = ("process_start_time", Some(Unit::Seconds), "Start, as Unix time.");
        self.family(name, MetricType::Gauge, |metric| metric.encode_gauge(&started))?;
        let process = &scrape.process;
        if let Some(cpu) = process.cpu {
            let name = ("process_cpu", Some(Unit::Seconds), "CPU time, user and system.");
            self.family(name, MetricType::Counter, |metric| {
                metric.encode_counter::<NoLabelSet, f64, f64>(&cpu.as_secs_f64(), None)
            })?;
        }
        let bytes = || Some(Unit::Bytes);
        for (name, value) in [
            (("process_resident_memory", bytes(), "Resident memory."), process.resident_bytes),
            (("process_virtual_memory", bytes(), "Address space."), process.virtual_bytes),
            (("process_open_fds", None, "Open descriptors."), process.fds),
            (("process_max_fds", None, "Descriptors that may be open."), process.fds_max),
            (("process_threads", None, "Threads."), process.threads),
        ] {
            value.map_or(Ok(()), |value| self.gauge(name, value))?;
        }
        let limits = scrape.limits.iter().map(|&(name, value)| (labels([("name", name)]), value));
        self.gauges(("forebay_limit", None, "Limits in force."), limits)
    }

    fn requests(&mut self, sum: &CounterValues) -> fmt::Result {
        let rows = Endpoint::ALL.into_iter().flat_map(|endpoint| {
            StatusClass::ALL.into_iter().filter_map(move |class| {
                let value = sum.value(Counter::Requests(endpoint, class));
                let mut labels = at(endpoint);
                labels.push(("status", class.as_str().to_owned()));
                (value > 0).then_some((labels, value))
            })
        });
        self.counters(("forebay_requests", None, "Requests answered."), rows)?;
        let codes = ApiCode::ALL.into_iter().filter_map(|code| {
            let value = sum.value(Counter::ApiErrors(code));
            (value > 0).then(|| (labels([("code", code.as_str())]), value))
        });
        self.counters(("forebay_api_errors", None, "Requests refused, by code."), codes)?;
        let open = sum.connections_open();
        self.gauge(("forebay_connections_open", None, "Clients' open connections."), open)?;
        let accepted = sum.value(Counter::ConnectionsAccepted);
        self.counter(("forebay_connections_accepted", None, "Connections served."), accepted)?;
        let name = ("forebay_connections_rejected", None, "Connections closed at once, by reason.");
        self.counters(
            name,
            Reject::ALL.into_iter().map(|reason| {
                (
                    labels([("reason", reason.as_str())]),
                    sum.value(Counter::ConnectionsRejected(reason)),
                )
            }),
        )?;
        let read = sum.value(Counter::BytesIn);
        self.counter(("forebay_received", Some(Unit::Bytes), "Read from clients."), read)?;
        let sent = sum.value(Counter::BytesOut);
        self.counter(("forebay_sent", Some(Unit::Bytes), "Written to clients."), sent)?;
        let dropped = sum.value(Counter::AuditDropped);
        self.counter(("forebay_audit_dropped", None, "Audit lines dropped."), dropped)?;
        let slow = sum.value(Counter::TtfbSlow);
        self.counter(("forebay_ttfb_slow", None, "First bytes later than the threshold."), slow)
    }

    fn streams(&mut self, sum: &CounterValues) -> fmt::Result {
        let active = sum.streams_active();
        self.gauge(("forebay_streams_active", None, "Streams that have not ended."), active)?;
        for (name, help, counter) in [
            ("forebay_streams_started", "Streams started.", Counter::StreamsStarted),
            ("forebay_streams_resumed", "Readers that came back.", Counter::StreamsResumed),
            ("forebay_streams_paused", "Stops for a slow reader.", Counter::StreamsPaused),
        ] {
            self.counter((name, None, help), sum.value(counter))?;
        }
        let name = ("forebay_streams_ended", None, "Streams ended, by how.");
        self.counters(
            name,
            StreamEnd::ALL.into_iter().map(|end| {
                (labels([("end", end.as_str())]), sum.value(Counter::StreamsEnded(end)))
            }),
        )?;
        let name = ("forebay_rings_resized", None, "Adaptations of a ring to its reader, by way.");
        self.counters(
            name,
            Resized::ALL.into_iter().map(|way| {
                (labels([("way", way.as_str())]), sum.value(Counter::RingsResized(way)))
            }),
        )?;
        let name = ("forebay_events", None, "Events, by type.");
        self.counters(
            name,
            EventKind::ALL
                .into_iter()
                .map(|kind| (labels([("type", kind.as_str())]), sum.value(Counter::Events(kind)))),
        )?;
        let name =
            ("forebay_messages_dropped", None, "Events that readers were not given; durable: 0.");
        self.counters(
            name,
            Durability::ALL.into_iter().map(|kind| {
                (labels([("kind", kind.as_str())]), sum.value(Counter::MessagesDropped(kind)))
            }),
        )
    }

    fn websockets(&mut self, sum: &CounterValues) -> fmt::Result {
        let opened = sum.value(Counter::WsOpened);
        let open = opened.saturating_sub(sum.value(Counter::WsClosed));
        self.gauge(("forebay_websockets_open", None, "Open WebSockets."), open)?;
        self.counter(("forebay_websockets_opened", None, "WebSockets opened."), opened)?;
        let name = ("forebay_websocket_messages", None, "WebSocket messages, by direction.");
        self.counters(
            name,
            Way::ALL.into_iter().map(|way| {
                (labels([("direction", way.as_str())]), sum.value(Counter::WsMessages(way)))
            }),
        )?;
        let name = ("forebay_websocket_messages_deflated", None, "Messages sent compressed.");
        self.counter(name, sum.value(Counter::WsDeflated))
    }

    fn fetch(&mut self, sum: &CounterValues) -> fmt::Result {
        let name = ("forebay_pages", None, "Pages done, by outcome or error code.");
        self.counters(
            name,
            PageEnd::all()
                .map(|end| (labels([("outcome", end.as_str())]), sum.value(Counter::Pages(end)))),
        )?;
        let name = ("forebay_fetch_connections", None, "Connections that fetches took.");
        let reuse = [("false", Counter::FetchOpened), ("true", Counter::FetchReused)];
        self.counters(
            name,
            reuse.map(|(reused, counter)| (labels([("reused", reused)]), sum.value(counter))),
        )?;
        let bytes = sum.value(Counter::FetchBytesIn);
        self.counter(("forebay_fetched", Some(Unit::Bytes), "Body bytes from origins."), bytes)?;
        let name = ("forebay_egress_refused", None, "Destinations refused, by reason.");
        self.counters(
            name,
            Egress::ALL.map(|why| {
                (labels([("reason", why.as_str())]), sum.value(Counter::EgressRefused(why)))
            }),
        )?;
        let name = ("forebay_cache_lookups", None, "Cache look-ups.");
        let found = [
            ("hit", Counter::CacheHits),
            ("miss", Counter::CacheMisses),
            ("stale", Counter::CacheStale),
            ("revalidated", Counter::CacheRevalidated),
        ];
        self.counters(
            name,
            found.map(|(outcome, counter)| (labels([("outcome", outcome)]), sum.value(counter))),
        )?;
        let name = ("forebay_cache_joins", None, "Pages that waited for another request's fetch.");
        self.counter(name, sum.value(Counter::CacheJoins))
    }

    fn index(&mut self, index: &Indexed) -> fmt::Result {
        self.gauge(("forebay_index_pages", None, "Pages in the search index."), index.pages)?;
        let bytes = ("forebay_index", Some(Unit::Bytes), "Size of the search index.");
        self.gauge(bytes, index.bytes)?;
        let dropped = ("forebay_index_dropped", None, "Pages that were not indexed in time.");
        self.counter(dropped, index.dropped)?;
        let evicted = ("forebay_index_evicted", None, "Pages that left the search index.");
        self.counter(evicted, index.evicted)
    }

    fn cache(&mut self, cache: &Cached) -> fmt::Result {
        self.gauge(("forebay_cache_entries", None, "Pages in memory."), cache.entries)?;
        let bytes = Some(Unit::Bytes);
        self.gauge(("forebay_cache", bytes, "What the pages in memory weigh."), cache.bytes)?;
        let name = ("forebay_cache_evictions", None, "Pages that went to make room.");
        self.counter(name, cache.evictions)
    }

    fn jobs(&mut self, sum: &CounterValues) -> fmt::Result {
        let begun = sum.value(Counter::JobsStarted);
        self.counter(("forebay_jobs_started", None, "Jobs begun."), begun)?;
        let ends = JobEnd::ALL
            .map(|end| (labels([("end", end.as_str())]), sum.value(Counter::JobsEnded(end))));
        self.counters(("forebay_jobs_ended", None, "Jobs ended, by how."), ends)?;
        let name = ("forebay_jobs_taken_over", None, "URLs taken over from a silent node.");
        self.counter(name, sum.value(Counter::JobsTakenOver))?;
        let attempts = HookEnd::ALL
            .map(|end| (labels([("outcome", end.as_str())]), sum.value(Counter::Webhooks(end))));
        self.counters(("forebay_webhooks", None, "Attempts to deliver a webhook."), attempts)
    }

    fn redis(&mut self, redis: &Redis) -> fmt::Result {
        let name = ("forebay_redis_state", None, "How Redis is: 1 for the state that it is in.");
        self.gauges(name, [(labels([("state", redis.state)]), 1)])?;
        let name = ("forebay_redis_queue", None, "Letters that wait for Redis.");
        self.gauge(name, redis.queue)?;
        let rows = |label, counts: &[(&'static str, u64)]| -> Vec<_> {
            counts.iter().map(|&(name, value)| (labels([(label, name)]), value)).collect()
        };
        let name = ("forebay_redis_events", None, "What happened with Redis.");
        self.counters(name, rows("event", &redis.events))?;
        let name = ("forebay_redis_pages", None, "Pages looked up and stored in Redis.");
        self.counters(name, rows("outcome", &redis.pages))
    }

    fn queues(&mut self, cores: &[CoreSnapshot]) -> fmt::Result {
        let row = |value: fn(&Mailbox) -> u64| {
            cores.iter().flat_map(move |core| {
                core.mailboxes.iter().map(move |mailbox| {
                    let mut labels = on(core);
                    labels.push(("mailbox", mailbox.name.to_owned()));
                    (labels, value(mailbox))
                })
            })
        };
        let name = ("forebay_mailbox_depth", None, "Messages that wait.");
        self.gauges(name, row(|mailbox| mailbox.depth))?;
        let name = ("forebay_mailbox_capacity", None, "Messages that may wait.");
        self.gauges(name, row(|mailbox| mailbox.capacity))?;
        let name =
            ("forebay_mailbox_refused", None, "Times that a message found its mailbox full.");
        self.counters(name, row(|mailbox| mailbox.refused))?;
        let lanes = || cores.iter().filter_map(|core| Some((core, core.lane?)));
        let name = ("forebay_lane_queue_depth", None, "Extractions that wait.");
        self.gauges(name, lanes().map(|(core, lane)| (on(core), lane.depth)))?;
        let name = ("forebay_lane_queue_capacity", None, "Extractions that may wait.");
        self.gauges(name, lanes().map(|(core, lane)| (on(core), lane.capacity)))?;
        let name = ("forebay_lane_refused", None, "Extractions refused by a full queue.");
        self.counters(name, lanes().map(|(core, lane)| (on(core), lane.refused)))?;
        let name = ("forebay_lane_jobs", None, "Extractions done.");
        self.counters(name, lanes().map(|(core, lane)| (on(core), lane.jobs)))?;
        let name = ("forebay_lane_panics", None, "Extractions that panicked.");
        self.counters(name, lanes().map(|(core, lane)| (on(core), lane.panics)))?;
        let name = ("forebay_lane_traps", None, "Extractions that trapped.");
        self.counters(name, lanes().map(|(core, lane)| (on(core), lane.traps)))?;
        let name = ("forebay_lane_busy", Some(Unit::Seconds), "CPU time of extractions.");
        self.family(name, MetricType::Counter, |metric| {
            lanes().try_for_each(|(core, lane)| {
                let (labels, busy) = (on(core), lane.busy.as_secs_f64());
                let metric = &mut metric.encode_family(&labels)?;
                metric.encode_counter::<NoLabelSet, f64, f64>(&busy, None)
            })
        })
    }

    fn latencies(&mut self, latency: &Snapshot) -> fmt::Result {
        for measure in Measure::ALL {
            let (name, help) = measure_name(measure);
            let keys = Endpoint::ALL.map(|endpoint| (at(endpoint), Key::At(endpoint, measure)));
            self.histograms((name, Some(Unit::Seconds), help), latency, &keys)?;
        }
        let stages =
            Stage::ALL.map(|stage| (labels([("stage", stage.as_str())]), Key::Page(stage)));
        let name = ("forebay_page_stage", Some(Unit::Seconds), "Stages of a page.");
        self.histograms(name, latency, &stages)
    }

    fn histograms(
        &mut self,
        name: (&str, Option<Unit>, &str),
        latency: &Snapshot,
        keys: &[(Labels, Key)],
    ) -> fmt::Result {
        self.family(name, MetricType::Histogram, |metric| {
            keys.iter().try_for_each(|(labels, key)| {
                let (sum_s, count, buckets) = buckets(latency, *key);
                if count == 0 {
                    return Ok(());
                }
                let metric = &mut metric.encode_family(labels)?;
                metric.encode_histogram::<NoLabelSet>(sum_s, count, &buckets, None)
            })
        })
    }
}

/// Sum in seconds, count, and counts by bucket (not yet cumulative), `+Inf` last.
fn buckets(latency: &Snapshot, key: Key) -> (f64, u64, Vec<(f64, u64)>) {
    let bounds = BUCKETS_S.into_iter().chain([f64::INFINITY]);
    let mut buckets: Vec<_> = bounds.map(|bound| (bound, 0)).collect();
    let (mut sum_us, mut count) = (0_u128, 0);
    for (value_us, more) in latency.pairs(key) {
        let value_s = std::time::Duration::from_micros(value_us).as_secs_f64();
        let place = BUCKETS_S.partition_point(|&bound| bound < value_s);
        buckets[place].1 += more;
        count += more;
        sum_us += u128::from(value_us) * u128::from(more);
    }
    let sum_us = u64::try_from(sum_us).unwrap_or(u64::MAX);
    (std::time::Duration::from_micros(sum_us).as_secs_f64(), count, buckets)
}

const fn measure_name(measure: Measure) -> (&'static str, &'static str) {
    match measure {
        Measure::AcceptToParse => ("forebay_accept_to_parse", "Accept or readable to parsed head."),
        Measure::Ttfb => ("forebay_ttfb", "Accept or readable to first byte sent."),
        Measure::Ttfr => ("forebay_ttfr", "Accept or readable to first result sent."),
        Measure::Gap => ("forebay_event_gap", "Between two events of a stream."),
        Measure::Whole => ("forebay_whole", "Accept or readable to last byte sent."),
        Measure::CancelQuiesce => ("forebay_cancel_quiesce", "Cancel to nothing left running."),
    }
}

fn labels<const N: usize>(pairs: [(&'static str, &str); N]) -> Labels {
    pairs.into_iter().map(|(name, value)| (name, value.to_owned())).collect()
}

fn on(core: &CoreSnapshot) -> Labels {
    vec![("core", core.core.to_string())]
}

fn at(endpoint: Endpoint) -> Labels {
    labels([("endpoint", endpoint.route()), ("transport", endpoint.transport())])
}

#[cfg(test)]
#[path = "exposition_tests.rs"]
mod tests;
