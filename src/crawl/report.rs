//! What the cores have to tell: metrics, latencies, health.

use super::mesh::{Message, ReportTo};
use super::node::{Node, Shared};
use crate::config::SETTINGS;
use crate::observe::core_snapshot::{
    ArenaClass, ArenaHeap, CoreSnapshot, LaneStats, LoopStats, Mailbox,
};
use crate::observe::exposition::{self, Cached, Exported, Format, Indexed, Redis, Scrape};
use crate::observe::hist::Scope;
use crate::observe::process::{Process, ring_counts};
use crate::observe::snapshot::Snapshot;
use crate::observe::span::Signal;
use crate::proto::json;
use bytes::{BufMut, Bytes, BytesMut};
use std::rc::Rc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

/// How long a scrape waits for a core; one that is busier than that is left out.
const PATIENCE: Duration = Duration::from_secs(2);

/// This core's report.
pub(super) async fn core(node: &Node, scope: Scope) -> CoreSnapshot {
    let mut copy = node.observe.copy_latency(scope, Instant::now());
    while node.observe.copy_step(&mut copy) {
        uring::yield_now().await;
    }
    let arena = uring::arena::stats();
    let heap = ArenaHeap {
        slab_bytes_max: node.shared.config.arena_bytes_max as u64,
        in_use: arena.heap.in_use as u64,
        bytes: arena.heap.bytes as u64,
        bytes_high_water: arena.heap.bytes_high_water as u64,
        total: arena.heap.total,
    };
    let arena = arena.classes.map(|class| ArenaClass {
        buffer_bytes: class.class as u64,
        in_use: class.in_use as u64,
        high_water: class.high_water as u64,
        capacity: (class.in_use + class.free) as u64,
    });
    let lane = node.lane_stats();
    node.count_fetches();
    CoreSnapshot {
        core: node.index,
        counters: node.observe.counters(),
        latency: copy.finish(),
        arena: arena.to_vec(),
        heap,
        rings: node.observe.rings.stats(),
        mailboxes: vec![Mailbox {
            name: "core",
            depth: node.shared.mesh[node.index].len() as u64,
            capacity: super::mesh::LETTERS_MAX as u64,
            refused: node.shared.mesh[node.index].refused(),
        }],
        lane: Some(LaneStats {
            depth: lane.queued as u64,
            capacity: node.shared.config.extract_queue_max as u64,
            refused: lane.refused,
            jobs: lane.done,
            busy: lane.busy,
            panics: lane.panicked,
            traps: node.traps(),
        }),
        event_loop: Some(event_loop(node)),
    }
}

fn event_loop(node: &Node) -> LoopStats {
    let stats = uring::stats();
    let operations = [
        ("read", stats.reads),
        ("write", stats.writes),
        ("poll", stats.polls),
        ("accept", stats.accepts),
        ("connect", stats.connects),
    ];
    LoopStats {
        beats: node.shared.beats[node.index].load(Ordering::Relaxed),
        tasks: stats.tasks_live,
        tasks_spawned: stats.tasks_spawned,
        tasks_panicked: stats.tasks_panicked,
        operations,
        buffers_in_flight: stats.buffers_in_flight,
        pooled: node.fetcher.idle_connections() as u64,
        ring: node.shared.rings.get().and_then(|rings| ring_counts(*rings.get(node.index)?)),
    }
}

/// Every core's report.
async fn all(node: &Rc<Node>, scope: Scope) -> Vec<CoreSnapshot> {
    let others = node.shared.mesh.len() - 1;
    let (to, mut from) = uring::mailbox::channel(others.max(1));
    for at in (0..node.shared.mesh.len()).filter(|at| *at != node.index) {
        node.post_soon(at, Message::Report { scope, to: ReportTo::Core(to.clone()) });
    }
    let mut reports = vec![core(node, scope).await];
    let until = Instant::now() + PATIENCE;
    while reports.len() <= others
        && let Ok(Some(report)) = uring::time::timeout_at(until, from.recv()).await
    {
        reports.push(*report);
    }
    reports.sort_by_key(|report| report.core);
    reports
}

/// `GET /latency`: all cores' times together.
pub async fn latency(node: &Rc<Node>, scope: Scope) -> Snapshot {
    merge(all(node, scope).await)
}

/// Adds the cores' times up.
#[must_use]
pub fn merge(reports: Vec<CoreSnapshot>) -> Snapshot {
    let mut reports = reports.into_iter().map(|report| report.latency);
    let mut sum = reports.next().expect("a server has a core");
    reports.for_each(|report| sum.merge(report));
    sum
}

/// What the kernel says of the process. Counting ten thousand descriptors takes milliseconds: on a
/// thread of its own.
async fn process() -> Process {
    let (to, mut from) = uring::mailbox::channel(1);
    let reader = thread::Builder::new().name("process".to_owned());
    let begun = reader.spawn(move || {
        // Who has stopped waiting gets none.
        let _ = to.try_send(Process::read());
    });
    let read = match begun {
        Ok(_) => uring::time::timeout(PATIENCE, from.recv()).await.ok().flatten(),
        Err(_) => None,
    };
    read.unwrap_or_default()
}

/// `GET /metrics`.
pub async fn metrics(node: &Rc<Node>, format: Format) -> String {
    let cores = all(node, Scope::default()).await;
    exposition::render(tell(&node.shared, cores, process().await), format)
}

/// What `GET /metrics` shows, for a thread without a loop, which may block; `None` if a core is too busy
/// to tell.
#[must_use]
pub fn scrape(shared: &Shared) -> Option<Scrape> {
    let (to, reports) = mpsc::channel();
    for core in &shared.mesh {
        let (scope, to) = (Scope::default(), ReportTo::Thread(to.clone()));
        core.try_send(Message::Report { scope, to }).ok()?;
    }
    let until = Instant::now() + PATIENCE;
    let mut cores = Vec::with_capacity(shared.mesh.len());
    while cores.len() < shared.mesh.len() {
        let left = until.saturating_duration_since(Instant::now());
        cores.push(*reports.recv_timeout(left).ok()?);
    }
    cores.sort_by_key(|report| report.core);
    Some(tell(shared, cores, Process::read()))
}

fn tell(shared: &Shared, cores: Vec<CoreSnapshot>, process: Process) -> Scrape {
    let config = &shared.config;
    let number = |name: &'static str| Some((name, config.show(name)?.parse().ok()?));
    let limits = SETTINGS.iter().filter(|setting| setting.bounds.is_some());
    let cache = shared.pages.cache.stats();
    Scrape {
        cores,
        process,
        started: shared.started,
        build: vec![("version", env!("CARGO_PKG_VERSION").to_owned())],
        cache: Cached { entries: cache.entries, bytes: cache.bytes, evictions: cache.evictions },
        redis: redis(shared),
        exported: exported(shared),
        index: shared.search.local().map(|local| {
            let stats = local.stats();
            Indexed {
                pages: stats.pages,
                bytes: stats.bytes,
                dropped: stats.dropped,
                evicted: stats.evicted,
            }
        }),
        streams_bytes: shared.totals.bytes.load(Ordering::Relaxed) as u64,
        flights: shared.pages.flights.len() as u64,
        limits: limits.filter_map(|setting| number(setting.name)).collect(),
    }
}

fn exported(shared: &Shared) -> Option<Exported> {
    let gauges = &shared.spans.gauges;
    let read = |count: &AtomicU64| count.load(Ordering::Relaxed);
    shared.spans.is_on().then(|| Exported {
        spans: vec![
            ("sent", read(&gauges.sent)),
            ("dropped", read(&gauges.dropped)),
            ("refused", read(&gauges.refused)),
        ],
        messages: Signal::ALL
            .iter()
            .flat_map(|signal| {
                let way = gauges.way(*signal);
                [("taken", &way.taken), ("failed", &way.failed)]
                    .map(|(outcome, count)| (signal.as_str(), outcome, read(count)))
            })
            .collect(),
    })
}

fn otlp_json(out: &mut BytesMut, shared: &Shared) {
    out.put_slice(b",\"otlp\":{\"state\":");
    json::string(out, shared.spans.health().as_str());
    if let Some(exported) = exported(shared) {
        for signal in Signal::ALL {
            out.put_slice(b",\"");
            out.put_slice(signal.as_str().as_bytes());
            out.put_slice(b"\":");
            json::string(out, shared.spans.health_of(signal).as_str());
        }
        json::integers(out, &exported.spans);
        let both = |wanted| {
            let of = exported.messages.iter().filter(|(_, outcome, _)| *outcome == wanted);
            (wanted, of.map(|(_, _, count)| count).sum())
        };
        json::integers(out, &[both("taken"), both("failed")]);
    }
    out.put_u8(b'}');
}

fn redis(shared: &Shared) -> Option<Redis> {
    let cluster = &shared.cluster;
    let gauges = cluster.gauges()?;
    let read = |count: &AtomicU64| count.load(Ordering::Relaxed);
    Some(Redis {
        state: gauges.health().as_str(),
        queue: cluster.queued() as u64,
        events: vec![
            ("answer", read(&gauges.asked)),
            ("failure", read(&gauges.failed)),
            ("slow", read(&gauges.slow)),
            ("connect", read(&gauges.connected)),
            ("breaker_open", read(&gauges.opened)),
            ("drop", read(&gauges.dropped)),
            ("log_retry", read(&gauges.log_failed)),
        ],
        pages: vec![
            ("hit", read(&gauges.hits)),
            ("miss", read(&gauges.misses)),
            ("stored", read(&gauges.stored)),
            ("not_stored", read(&gauges.not_stored)),
            ("garbage", read(&gauges.garbage)),
        ],
    })
}

fn redis_json(out: &mut BytesMut, shared: &Shared) {
    out.put_slice(b",\"redis\":{\"state\":");
    match redis(shared) {
        None => json::string(out, "off"),
        Some(redis) => {
            json::string(out, redis.state);
            json::integers(out, &[("queue", redis.queue)]);
            json::integers(out, &redis.events);
            json::integers(out, &redis.pages);
        }
    }
    out.put_u8(b'}');
}

/// `GET /healthz`: a status, and every part with its state.
#[must_use]
pub fn health(node: &Node) -> (u16, Bytes) {
    let ready = node.readiness();
    let shared = &node.shared;
    let mut out = BytesMut::with_capacity(512);
    out.put_slice(b"{\"status\":");
    json::string(&mut out, if ready.is_ok() { "ok" } else { "unavailable" });
    out.put_slice(b",\"version\":");
    json::string(&mut out, env!("CARGO_PKG_VERSION"));
    out.put_slice(b",\"extractor\":");
    let extractor = match shared.extractor.get() {
        Some(Some(_)) => "ready",
        Some(None) => "failed",
        None => "loading",
    };
    json::string(&mut out, extractor);
    out.put_slice(b",\"draining\":");
    json::boolean(&mut out, node.draining());
    let cache = shared.pages.cache.stats();
    out.put_slice(b",\"cache\":{\"state\":");
    json::string(&mut out, if cache.bytes_max > 0 { "memory" } else { "off" });
    let stored = [
        ("entries", cache.entries),
        ("bytes", cache.bytes),
        ("bytes_max", cache.bytes_max),
        ("evictions", cache.evictions),
        ("flights", shared.pages.flights.len() as u64),
    ];
    json::integers(&mut out, &stored);
    out.put_slice(b"},\"search\":{\"provider\":");
    json::string(&mut out, shared.search.provider());
    if let Some(local) = shared.search.local() {
        let stats = local.stats();
        let indexed = [
            ("pages", stats.pages),
            ("bytes", stats.bytes),
            ("bytes_max", stats.bytes_max),
            ("dropped", stats.dropped),
            ("evicted", stats.evicted),
        ];
        json::integers(&mut out, &indexed);
    }
    out.put_u8(b'}');
    redis_json(&mut out, shared);
    otlp_json(&mut out, shared);
    let now = [
        ("cores", shared.mesh.len() as u64),
        ("connections", shared.connections.load(Ordering::Relaxed) as u64),
        ("streams_running", shared.totals.running.load(Ordering::Relaxed) as u64),
        ("stream_bytes", shared.totals.bytes.load(Ordering::Relaxed) as u64),
    ];
    json::integers(&mut out, &now);
    out.put_slice(b"}\n");
    (if ready.is_ok() { 200 } else { 503 }, out.freeze())
}
