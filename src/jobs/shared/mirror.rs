//! A job's events on the core of whoever reads them: read from Redis a few at a time, as fast as the
//! reader takes them, into a stream like any other.

use super::store::{self, Fields, number, text};
use crate::cluster::Cluster;
use crate::crawl::node::Node;
use crate::error::ApiCode;
use crate::jobs::view::View;
use crate::proto::events::{self, Counts, Event, Failure, Kind, Progress, Summary};
use crate::stream::log::Log;
use crate::stream::{Birth, Patience, Stream, Totals};
use bytes::{Bytes, BytesMut};
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

/// Events that are read at a time.
const EVENTS_AT_ONCE: usize = 16;
/// Bytes that may wait for the reader before more is read.
const WAITING_BYTES_MAX: usize = 512 * 1024;
/// How often a reader that is behind is looked at.
const BEHIND_LOOK: Duration = Duration::from_millis(5);
/// How often Redis is asked for news.
const NEWS_EVERY: Duration = Duration::from_millis(100);
/// How long Redis is waited for.
const PATIENCE: Duration = Duration::from_secs(5);
/// How often a reader is told how far the job is.
const PROGRESS_EVERY: Duration = Duration::from_secs(1);
/// For how long a reader may take nothing.
const STALL: Duration = Duration::from_secs(30);
/// Empty answers after which it is asked whether there still is such a job.
const EMPTY_MAX: u32 = 50;

/// Begins to read; ends when nobody reads the stream, or with the job's last event.
pub(super) fn start(
    node: &Rc<Node>,
    cluster: Cluster,
    view: &View,
    after: Option<u64>,
) -> Arc<Stream> {
    let first = after.map_or(0, |seq| seq.saturating_add(1));
    let first = first.min(view.last_seq.unwrap_or(0).saturating_add(1));
    let birth = Birth {
        id: view.id,
        owner: node.index,
        principal: Arc::from(""),
        idempotency_key: None,
        replay_bytes_max: WAITING_BYTES_MAX,
        resume_window: Duration::ZERO,
        patience: Patience { stall: STALL, cut_slow: false },
        began: Instant::now(),
        urls: 0,
        home: None,
    };
    let stream = Stream::new(birth, Arc::new(Totals::default()));
    stream.with_log(|log| *log = Log::starting_at(first, WAITING_BYTES_MAX));
    let mirror = Mirror {
        node: Rc::clone(node),
        cluster,
        stream: Arc::clone(&stream),
        started: view.started.unwrap_or(view.created),
        counts: view.counts,
        next: first,
    };
    drop(uring::spawn(mirror.run()));
    stream
}

struct Mirror {
    node: Rc<Node>,
    cluster: Cluster,
    stream: Arc<Stream>,
    started: SystemTime,
    counts: Counts,
    /// The next event.
    next: u64,
}

impl Mirror {
    async fn run(mut self) {
        let (mut empty, mut progress_at) = (0, Instant::now() + PROGRESS_EVERY);
        loop {
            // Whoever began this has attached its reader by now, or has gone.
            uring::yield_now().await;
            let (readers, behind) = self.stream.with_log(|log| (log.readers(), log.behind()));
            if readers == 0 {
                return;
            }
            if behind > WAITING_BYTES_MAX {
                uring::time::sleep(BEHIND_LOOK).await;
                continue;
            }
            let (id, next) = (self.stream.id(), self.next);
            let asked = self
                .cluster
                .ask(PATIENCE, move |link| store::events(link, id, next, EVENTS_AT_ONCE));
            let news = asked.await.unwrap_or_default();
            empty = if news.is_empty() { empty + 1 } else { 0 };
            for (seq, fields) in news {
                if self.show(seq, fields) {
                    return;
                }
            }
            if empty > 0 {
                if empty % EMPTY_MAX == 0
                    && let Some(message) = self.is_gone().await
                {
                    self.show_failure(ApiCode::StreamExpired, message);
                    return;
                }
                uring::time::sleep(NEWS_EVERY).await;
            }
            if Instant::now() >= progress_at {
                progress_at = Instant::now() + PROGRESS_EVERY;
                self.show_progress();
            }
        }
    }

    /// Appends an event; `true` for the last one.
    fn show(&mut self, seq: u64, mut fields: Fields) -> bool {
        if seq != self.next {
            // Nothing of a job is ever dropped, so this is not the stream that we wrote.
            tracing::error!(job = %self.stream.id(), seq, expected = self.next, "a job's log is broken");
            self.show_failure(ApiCode::InternalError, "the job's log can't be read from here on");
            return true;
        }
        let data = Bytes::from(fields.remove("d").unwrap_or_default());
        let kind = text(&fields, "t");
        if kind != "metadata" {
            self.counts.successful = number(&fields, "ok");
            self.counts.failed = number(&fields, "failed");
            self.counts.cancelled = number(&fields, "cancelled");
            self.counts.from_cache = number(&fields, "cached");
        }
        let (out, counts) = (&mut BytesMut::new(), self.counts);
        let event = match kind.as_str() {
            "metadata" => {
                let (body, tail) = (Bytes::new(), Bytes::new());
                Event { kind: Kind::Metadata, seq, head: data, body, tail }
            }
            "result" => events::kept_result(out, seq, number(&fields, "i"), data, &counts),
            _ => {
                let status = match text(&fields, "word").as_str() {
                    "completed" => "completed",
                    "deadline_exceeded" => "deadline_exceeded",
                    _ => "cancelled",
                };
                let (total_ms, ttfr_ms) = (number(&fields, "ms"), Some(number(&fields, "ttfr")));
                events::summary(out, seq, &Summary { counts, total_ms, ttfr_ms, status })
            }
        };
        let last = event.kind.last();
        self.next += 1;
        self.append(event);
        last
    }

    /// Ends what is shown, for this reader: nothing that could follow is known.
    fn show_failure(&mut self, code: ApiCode, message: &str) {
        let failure = Failure::new(code, message);
        self.append(events::error(&mut BytesMut::new(), self.next, &failure, &self.counts));
    }

    fn show_progress(&self) {
        let facts = Progress {
            stream_id: &self.stream.id_text,
            started: self.started,
            counts: self.counts,
            estimated: None,
            current: None,
        };
        self.append(events::progress(&mut BytesMut::new(), &facts));
    }

    fn append(&self, event: Event) {
        let mut woken = Vec::new();
        self.stream.append(event, &mut woken);
        self.node.wake(&mut woken);
    }

    /// Why nothing will ever come any more, if that is so.
    async fn is_gone(&self) -> Option<&'static str> {
        let id = self.stream.id();
        let asked =
            self.cluster.ask(PATIENCE, move |link| async move { store::meta(&link, id).await });
        let meta = asked.await.ok()?;
        if meta.is_empty() {
            return Some("the job is not kept any more");
        }
        // Another node of Redis has taken over and had not heard of the last events.
        let ended = number(&meta, "ended") > 0 && number(&meta, "seq") < self.next;
        ended.then_some("Redis has lost the last events of this job: read it from its beginning")
    }
}
