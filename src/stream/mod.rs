//! A stream's life: state machine, log, and who is told when something is new.
//!
//! A stream belongs to the core that took its request: only that core drives its machine and writes
//! its log. Readers may sit on any core; the log is behind a lock that is held for a few pointer moves,
//! and contended only when a reader of another core happens to take an event at that moment.

pub mod idempotency;
pub mod log;
pub mod machine;
pub mod place;
pub mod registry;
pub mod remote;
pub mod state;

use crate::limits::READERS_PER_STREAM_MAX;
use crate::observe::trace::{FlightRecorder, Mark};
use crate::observe::traceparent::TraceContext;
use crate::proto::events::{Counts, Event};
use log::{Log, ReaderId};
use state::State;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::{Duration, Instant};
use ulid::Ulid;

/// Events that a log has room for before any is written (112 bytes each); above it, it grows. A stream of
/// as many URLs as `stream.urls_max` allows unless it is told otherwise never does.
const EVENTS_AT_ONCE: usize = 1024;

/// Bytes that all streams hold together, and how many streams there are.
#[derive(Debug, Default)]
pub struct Totals {
    /// Bytes of events in logs, and of results that wait to be written.
    pub bytes: AtomicUsize,
    /// Streams that have not reached their last event.
    pub running: AtomicUsize,
}

/// How to wake a reader: its core, and its number there.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Watcher {
    /// Index of the reader's core.
    pub core: usize,
    /// What the core knows the reader by.
    pub token: usize,
}

/// What a stream is born with.
#[derive(Debug, Clone)]
pub struct Birth {
    /// Unique, sorted by time; its text is the `stream_id`.
    pub id: Ulid,
    /// Index of the core that drives it.
    pub owner: usize,
    /// Whose stream it is; nobody else gets to see it.
    pub principal: Arc<str>,
    /// The `Idempotency-Key` that it was begun with.
    pub idempotency_key: Option<Box<str>>,
    /// Bytes of events kept for replay.
    pub replay_bytes_max: usize,
    /// How long it may be without a reader, and how long it is kept after its end.
    pub resume_window: Duration,
    /// How its readers are to be treated.
    pub patience: Patience,
    /// When it began.
    pub began: Instant,
    /// URLs of its request.
    pub urls: usize,
    /// The node that crawls it, where that is another one: then this is a copy of its log.
    pub home: Option<Ulid>,
}

/// How slow a reader may be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Patience {
    /// How long a client may take nothing.
    pub stall: Duration,
    /// Whether a client that takes something, but never enough, is cut off after `stall`, too.
    pub cut_slow: bool,
}

/// Where a stream stands, as its core last said.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Status {
    /// Its place in the lifecycle.
    pub state: State,
    /// Its totals.
    pub counts: Counts,
    /// Fetches under way.
    pub in_flight: u32,
}

/// The backpressure ring of one reader, as its connection last said. Units as in `RingStats`.
#[derive(Debug, Default)]
pub struct ReaderGauge {
    /// Frames that wait.
    pub frames: AtomicU32,
    /// Frames that may wait, as the ring has adapted it.
    pub frames_limit: AtomicU32,
    /// Bytes that wait.
    pub bytes: AtomicUsize,
    /// Sends so far.
    pub sends: AtomicU64,
    /// Slow ones among the last.
    pub slow_sends: AtomicU32,
    /// Times that the ring grew.
    pub grown: AtomicU32,
    /// Times that it shrank.
    pub shrunk: AtomicU32,
}

/// One reader, for `GET /streams/{id}`.
#[derive(Debug, Clone)]
pub struct Attached {
    /// Its core.
    pub core: usize,
    /// `seq` of the next event that it takes.
    pub seq_next: u64,
    /// Its ring.
    pub gauge: Arc<ReaderGauge>,
}

/// What is shared of a stream: its log, its readers, and whether its work is still wanted.
#[derive(Debug)]
pub struct Stream {
    /// What it was born with.
    pub birth: Birth,
    /// `birth.id` as text, 26 characters.
    pub id_text: Box<str>,
    aborted: Arc<AtomicBool>,
    paused: AtomicBool,
    /// Readers that want no more results for now.
    starved: AtomicUsize,
    shared: Mutex<Shared>,
    trace: Mutex<FlightRecorder>,
    totals: Arc<Totals>,
    /// Bytes of results that wait to be written.
    held: AtomicUsize,
    /// Its place in its client's trace, where the client has one.
    trace_context: OnceLock<(TraceContext, [u8; 8])>,
}

#[derive(Debug)]
struct Shared {
    log: Log,
    watchers: Vec<(ReaderId, Watcher, Arc<ReaderGauge>)>,
    status: Status,
}

impl Stream {
    /// A stream with an empty log, which makes room for `events` of them at once, within reason.
    #[must_use]
    pub fn new(birth: Birth, totals: Arc<Totals>) -> Arc<Self> {
        totals.running.fetch_add(1, Ordering::Relaxed);
        let counts = Counts { total: birth.urls as u64, ..Counts::default() };
        let status = Status { state: State::Initializing, counts, in_flight: 0 };
        // Beside the results: metadata and summary.
        let events = (birth.urls + 2).min(EVENTS_AT_ONCE);
        let log = Log::with_capacity(events, birth.replay_bytes_max);
        let mut trace = FlightRecorder::new(birth.began, birth.urls);
        trace.stream(birth.began, Mark::Started, birth.urls as u64);
        Arc::new(Self {
            id_text: birth.id.to_string().into(),
            birth,
            aborted: Arc::default(),
            paused: AtomicBool::new(false),
            starved: AtomicUsize::new(0),
            shared: Mutex::new(Shared { log, watchers: Vec::new(), status }),
            trace: Mutex::new(trace),
            totals,
            held: AtomicUsize::new(0),
            trace_context: OnceLock::new(),
        })
    }

    /// The stream's id.
    #[must_use]
    pub fn id(&self) -> Ulid {
        self.birth.id
    }

    /// A number of its own, but for chance: where its name is too long.
    #[must_use]
    pub fn number(&self) -> u64 {
        u64::try_from(self.birth.id.random() & u128::from(u64::MAX)).unwrap_or(1)
    }

    /// Index of the core that drives it.
    #[must_use]
    pub fn owner(&self) -> usize {
        self.birth.owner
    }

    /// Writes an event to the log and answers who is to be woken.
    pub fn append(&self, event: Event, woken: &mut Vec<Watcher>) {
        let last = event.kind.last();
        let mut shared = self.lock();
        let grown = shared.log.append(event);
        woken.extend(shared.watchers.iter().map(|(_, watcher, _)| *watcher));
        drop(shared);
        if grown >= 0 {
            self.totals.bytes.fetch_add(grown.unsigned_abs(), Ordering::Relaxed);
        } else {
            self.totals.bytes.fetch_sub(grown.unsigned_abs(), Ordering::Relaxed);
        }
        if last {
            self.totals.running.fetch_sub(1, Ordering::Relaxed);
        }
    }

    /// So many bytes of results wait for others before they are written: they count as the log's do.
    pub fn set_held(&self, bytes: usize) {
        let before = self.held.swap(bytes, Ordering::Relaxed);
        if bytes >= before {
            self.totals.bytes.fetch_add(bytes - before, Ordering::Relaxed);
        } else {
            self.totals.bytes.fetch_sub(before - bytes, Ordering::Relaxed);
        }
    }

    /// A reader joins behind `after`, or at the very beginning.
    pub fn attach(
        &self,
        after: Option<u64>,
        watcher: Watcher,
        gauge: &Arc<ReaderGauge>,
    ) -> ReaderId {
        self.note(|trace, now| trace.stream(now, Mark::Attached, after.unwrap_or(0)));
        let mut shared = self.lock();
        let id = shared.log.attach(after);
        shared.watchers.push((id, watcher, Arc::clone(gauge)));
        id
    }

    /// A reader leaves. Answers how many are left.
    pub fn detach(&self, id: ReaderId) -> usize {
        let mut shared = self.lock();
        let seq_next = shared.log.position(id).unwrap_or(0);
        shared.log.detach(id);
        shared.watchers.retain(|(reader, ..)| *reader != id);
        let left = shared.watchers.len();
        drop(shared);
        self.note(|trace, now| trace.stream(now, Mark::Detached, seq_next.saturating_sub(1)));
        left
    }

    /// Whether as many read it as may.
    #[must_use]
    pub fn is_crowded(&self) -> bool {
        self.lock().watchers.len() >= READERS_PER_STREAM_MAX
    }

    /// The readers right now.
    #[must_use]
    pub fn attached(&self) -> Vec<Attached> {
        let shared = self.lock();
        let look = |(id, watcher, gauge): &(ReaderId, Watcher, Arc<ReaderGauge>)| Attached {
            core: watcher.core,
            seq_next: shared.log.position(*id).unwrap_or(0),
            gauge: Arc::clone(gauge),
        };
        shared.watchers.iter().map(look).collect()
    }

    /// Where the stream stands.
    #[must_use]
    pub fn status(&self) -> Status {
        self.lock().status
    }

    /// Its core says where it stands, and is told who is to be woken: those who wait for its end, some
    /// of whom may have come after its last event.
    pub fn set_status(&self, status: Status, woken: &mut Vec<Watcher>) {
        let mut shared = self.lock();
        if status.state == State::Closed && shared.status.state != State::Closed {
            woken.extend(shared.watchers.iter().map(|(_, watcher, _)| *watcher));
        }
        shared.status = status;
    }

    /// Notes something in the flight recorder.
    pub fn note(&self, write: impl FnOnce(&mut FlightRecorder, Instant)) {
        write(&mut self.trace.lock().unwrap_or_else(PoisonError::into_inner), Instant::now());
    }

    /// The flight recorder as JSON.
    #[must_use]
    pub fn trace_json(&self) -> String {
        let trace = self.trace.lock().unwrap_or_else(PoisonError::into_inner);
        let json = trace.to_json(&self.id_text);
        match (self.trace_context(), json.strip_prefix('{')) {
            (Some(context), Some(rest)) => format!("{{\"traceparent\":\"{context}\",{rest}"),
            _ => json,
        }
    }

    /// The stream becomes part of its client's trace: a span of its own, below the client's. Only the
    /// first call counts.
    pub fn join_trace(&self, client: &TraceContext) {
        let _ = self.trace_context.set((client.child(self.number()), client.parent_id));
    }

    /// The stream's own place in its client's trace.
    #[must_use]
    pub fn trace_context(&self) -> Option<&TraceContext> {
        self.trace_context.get().map(|(own, _)| own)
    }

    /// The id of the span that it is part of, where it is part of a trace.
    #[must_use]
    pub fn trace_parent(&self) -> Option<[u8; 8]> {
        self.trace_context.get().map(|(_, parent)| *parent)
    }

    /// A client has what it was sent up to `seq`: the window before is freed, as far as every reader
    /// has taken it.
    pub fn ack(&self, seq: u64) {
        let freed = self.with_log(|log| log.ack(seq));
        self.totals.bytes.fetch_sub(freed, Ordering::Relaxed);
    }

    /// Goes on with the log at `seq`, as [`Log::skip_to`].
    pub fn skip_to(&self, seq: u64) {
        let freed = self.with_log(|log| log.skip_to(seq));
        self.totals.bytes.fetch_sub(freed, Ordering::Relaxed);
    }

    /// The stream can't be found here any more: its memory becomes free now, whoever still writes it
    /// elsewhere. As [`Log::forget`].
    pub fn forget(&self) {
        let freed = self.with_log(Log::forget);
        self.totals.bytes.fetch_sub(freed, Ordering::Relaxed);
    }

    /// The log, for a moment: nothing may be awaited while it is held.
    pub fn with_log<T>(&self, look: impl FnOnce(&mut Log) -> T) -> T {
        look(&mut self.lock().log)
    }

    /// Says to everything that runs for this stream that nobody wants it any more.
    pub fn abort(&self) {
        self.aborted.store(true, Ordering::Release);
    }

    /// Whether [`Stream::abort`] was called.
    #[must_use]
    pub fn aborted(&self) -> bool {
        self.aborted.load(Ordering::Acquire)
    }

    /// The flag itself, for the lane's watchdog.
    #[must_use]
    pub fn abort_flag(&self) -> Arc<AtomicBool> {
        Arc::clone(&self.aborted)
    }

    /// Whether the crawl waits for readers: they tell its core when they have taken something.
    #[must_use]
    pub fn paused(&self) -> bool {
        self.paused.load(Ordering::Acquire)
    }

    /// Whether a reader wants no more results for now: nothing new is to be fetched.
    #[must_use]
    pub fn starved(&self) -> bool {
        self.starved.load(Ordering::Acquire) > 0
    }

    /// A reader begins to want no more results, or wants some again.
    pub fn starve(&self, begins: bool) {
        match begins {
            true => self.starved.fetch_add(1, Ordering::AcqRel),
            false => self.starved.fetch_sub(1, Ordering::AcqRel),
        };
    }

    /// The crawl begins or ends to wait for readers.
    pub fn set_paused(&self, paused: bool) {
        self.paused.store(paused, Ordering::Release);
    }

    /// A panic elsewhere can't leave the log half written: every change of it is one call.
    fn lock(&self) -> MutexGuard<'_, Shared> {
        self.shared.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Stream {
    fn drop(&mut self) {
        self.set_held(0);
        let (bytes, ended) = self.with_log(|log| (log.bytes(), log.ended()));
        self.totals.bytes.fetch_sub(bytes, Ordering::Relaxed);
        if !ended {
            self.totals.running.fetch_sub(1, Ordering::Relaxed);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::proto::events::{self, Summary};
    use bytes::BytesMut;

    fn stream() -> Arc<Stream> {
        let birth = Birth {
            id: Ulid(7),
            owner: 0,
            principal: Arc::from(""),
            idempotency_key: None,
            replay_bytes_max: 1 << 20,
            resume_window: Duration::ZERO,
            patience: Patience { stall: Duration::ZERO, cut_slow: false },
            began: Instant::now(),
            urls: 0,
            home: None,
        };
        Stream::new(birth, Arc::default())
    }

    #[test]
    fn who_comes_behind_the_last_event_is_woken_by_the_end() {
        let (stream, mut woken) = (stream(), Vec::new());
        let facts =
            Summary { counts: Counts::default(), total_ms: 1, ttfr_ms: None, status: "cancelled" };
        let event = events::summary(&mut BytesMut::new(), 0, &facts);
        stream.append(event, &mut woken);
        let late = Watcher { core: 1, token: 3 };
        stream.attach(Some(u64::MAX), late, &Arc::default());
        let status = |state| Status { state, counts: Counts::default(), in_flight: 0 };
        stream.set_status(status(State::Closing), &mut woken);
        assert!(woken.is_empty(), "it goes on");
        stream.set_status(status(State::Closed), &mut woken);
        assert_eq!(woken, [late]);
        stream.set_status(status(State::Closed), &mut woken);
        assert_eq!(woken, [late], "it ends once");
    }
}
