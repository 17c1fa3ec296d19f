//! One stream: pages under way, events as they are ready.
//!
//! A stream is polled by the connection that it is written to: no task and no channel of its own, and
//! dropping it ends its fetches. Everything that is ready leaves in one piece.

use crate::App;
use crate::events::{Counts, Encoder};
use crate::page::{self, Outcome, PageError, Timings};
use crate::request::{CrawlRequest, Order};
use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use futures_util::stream::{FuturesUnordered, StreamExt};
use std::collections::BTreeMap;
use std::pin::Pin;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};
use tokio::time::{Interval, MissedTickBehavior, Sleep, interval_at, sleep_until};
use ulid::Ulid;

/// Time between signs of life.
const HEARTBEAT: Duration = Duration::from_secs(15);

/// A running stream.
pub(crate) struct Crawl {
    app: Arc<App>,
    request: Arc<CrawlRequest>,
    pub(crate) stream_id: String,
    request_id: String,
    order: Order,
    started: Instant,
    started_at: SystemTime,
    pages: FuturesUnordered<BoxFuture<'static, (usize, Outcome)>>,
    /// What `pages` works on.
    running: Vec<usize>,
    /// The first URL that has not been started.
    next: usize,
    /// For results in the URLs' order: those that wait for an earlier one.
    held: BTreeMap<usize, Outcome>,
    order_next: usize,
    seq: u64,
    counts: Counts,
    ttfr: Option<Duration>,
    status: &'static str,
    over: bool,
    /// Made when the stream first has to wait: one out of the cache never does.
    timers: Option<Timers>,
}

struct Timers {
    deadline: Pin<Box<Sleep>>,
    progress: Option<Interval>,
    heartbeat: Interval,
}

enum Woken {
    Page(usize, Outcome),
    Progress,
    Heartbeat,
    Deadline,
}

impl Crawl {
    pub(crate) fn new(
        app: &Arc<App>,
        request: CrawlRequest,
        request_id: Option<String>,
        order: Order,
    ) -> Self {
        let total = u64::try_from(request.urls.len()).unwrap_or(u64::MAX);
        Self {
            app: Arc::clone(app),
            order: request.options.order.unwrap_or(order),
            request: Arc::new(request),
            stream_id: Ulid::generate().to_string(),
            request_id: request_id.unwrap_or_else(|| Ulid::generate().to_string()),
            started: Instant::now(),
            started_at: SystemTime::now(),
            pages: FuturesUnordered::new(),
            running: Vec::new(),
            next: 0,
            held: BTreeMap::new(),
            order_next: 0,
            seq: 0,
            counts: Counts { total, ..Counts::default() },
            ttfr: None,
            status: "completed",
            over: false,
            timers: None,
        }
    }

    pub(crate) fn request_id(&self) -> &str {
        &self.request_id
    }

    /// Whether the last event has been written.
    pub(crate) fn is_over(&self) -> bool {
        self.over
    }

    /// Writes everything that is ready, after waiting for some of it; `false` when nothing is left.
    /// The first call never waits: the first event leaves before any work is done.
    pub(crate) async fn next(&mut self, out: &mut Encoder) -> bool {
        if self.over {
            return false;
        }
        let first = self.seq == 0;
        if first {
            let ids = (&*self.stream_id, &*self.request_id);
            let deadline_ms = self.request.options.deadline_ms;
            out.metadata(ids, self.counts.total, self.started_at, deadline_ms);
            self.seq = 1;
        }
        loop {
            self.start_pages(out).await;
            if !first {
                while let Some(Some((index, outcome))) = self.pages.next().now_or_never() {
                    self.handle_page(out, index, outcome);
                    self.start_pages(out).await;
                }
            }
            if self.counts.completed() == self.counts.total {
                self.finish(out);
                return true;
            }
            if !out.is_empty() {
                return true;
            }
            match self.wait().await {
                Woken::Page(index, outcome) => self.handle_page(out, index, outcome),
                Woken::Progress => self.progress(out),
                Woken::Heartbeat => out.heartbeat(),
                Woken::Deadline => self.end(out, "deadline_exceeded", "the deadline has passed"),
            }
        }
    }

    /// Ends the stream early: what is not done has its result at once.
    pub(crate) fn cancel(&mut self, out: &mut Encoder) {
        if !self.over && self.seq > 0 {
            self.end(out, "cancelled", "the stream was cancelled");
            self.finish(out);
        }
    }

    /// Starts pages while there is room; what is in the cache is delivered on the spot.
    async fn start_pages(&mut self, out: &mut Encoder) {
        while self.pages.len() < self.request.options.concurrency
            && self.next < self.request.urls.len()
        {
            let index = self.next;
            self.next += 1;
            let options = &self.request.options;
            let key = options.cache_key(&self.request.urls[index]);
            if let Some(page) = page::cached(&self.app, options, key).await {
                let timings =
                    Timings { queue: page::micros(self.started.elapsed()), ..Timings::default() };
                let outcome = Outcome { page: Ok(page), timings, from_cache: true, key };
                self.deliver(out, index, outcome);
                continue;
            }
            let (app, request) = (Arc::clone(&self.app), Arc::clone(&self.request));
            let started = self.started;
            self.running.push(index);
            self.pages.push(Box::pin(async move {
                let (url, options) = (&request.urls[index], &request.options);
                (index, page::work(&app, url, options, key, started).await)
            }));
        }
    }

    async fn wait(&mut self) -> Woken {
        let options = &self.request.options;
        let timers = self.timers.get_or_insert_with(|| {
            let progress = Duration::from_millis(options.progress_ms);
            let deadline = self.started + Duration::from_millis(options.deadline_ms);
            Timers {
                deadline: Box::pin(sleep_until(deadline.into())),
                progress: (!progress.is_zero()).then(|| every(self.started, progress)),
                heartbeat: every(self.started, HEARTBEAT),
            }
        });
        let progress = async {
            match &mut timers.progress {
                Some(progress) => progress.tick().await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            biased;
            Some((index, outcome)) = self.pages.next() => Woken::Page(index, outcome),
            _ = progress => Woken::Progress,
            _ = timers.heartbeat.tick() => Woken::Heartbeat,
            () = &mut timers.deadline => Woken::Deadline,
        }
    }

    fn handle_page(&mut self, out: &mut Encoder, index: usize, outcome: Outcome) {
        self.running.retain(|running| *running != index);
        self.deliver(out, index, outcome);
    }

    fn deliver(&mut self, out: &mut Encoder, index: usize, outcome: Outcome) {
        if self.order == Order::Completion {
            self.emit(out, index, &outcome);
            return;
        }
        self.held.insert(index, outcome);
        while let Some(outcome) = self.held.remove(&self.order_next) {
            self.emit(out, self.order_next, &outcome);
            self.order_next += 1;
        }
    }

    fn emit(&mut self, out: &mut Encoder, index: usize, outcome: &Outcome) {
        match &outcome.page {
            Ok(_) => self.counts.successful += 1,
            Err(error) if error.code == "cancelled" => self.counts.cancelled += 1,
            Err(_) => self.counts.failed += 1,
        }
        self.counts.from_cache += u64::from(outcome.from_cache);
        self.ttfr.get_or_insert_with(|| self.started.elapsed());
        let url = &self.request.urls[index];
        out.result(&self.stream_id, (self.seq, index), url, outcome, &self.counts);
        self.seq += 1;
    }

    fn progress(&self, out: &mut Encoder) {
        let done = u32::try_from(self.counts.completed()).unwrap_or(u32::MAX);
        let left = u32::try_from(self.counts.total - self.counts.completed()).unwrap_or(u32::MAX);
        let estimated = (done > 0)
            .then(|| SystemTime::now() + (self.started.elapsed() / done).saturating_mul(left));
        let current = self.next.checked_sub(1).map(|index| &*self.request.urls[index]);
        out.progress(&self.stream_id, self.started_at, &self.counts, estimated, current);
    }

    /// Gives every URL that has no result yet one with that error, and drops what runs.
    fn end(&mut self, out: &mut Encoder, status: &'static str, message: &str) {
        self.status = status;
        self.pages.clear();
        let missing: Vec<usize> = match self.order {
            Order::Input => (self.order_next..self.request.urls.len()).collect(),
            Order::Completion => {
                self.running.drain(..).chain(self.next..self.request.urls.len()).collect()
            }
        };
        for index in missing {
            let outcome = match self.held.remove(&index) {
                Some(outcome) => outcome,
                None => Outcome {
                    page: Err(PageError::new(status, "queue", message)),
                    timings: Timings::default(),
                    from_cache: false,
                    key: 0,
                },
            };
            self.emit(out, index, &outcome);
        }
        self.next = self.request.urls.len();
    }

    fn finish(&mut self, out: &mut Encoder) {
        let millis = |time: Duration| u64::try_from(time.as_millis()).unwrap_or(u64::MAX);
        let (total, ttfr) = (millis(self.started.elapsed()), self.ttfr.map(millis));
        out.summary(&self.stream_id, self.seq, &self.counts, total, ttfr, self.status);
        self.over = true;
    }
}

fn every(from: Instant, period: Duration) -> Interval {
    let mut interval = interval_at((from + period).into(), period);
    interval.set_missed_tick_behavior(MissedTickBehavior::Delay);
    interval
}
