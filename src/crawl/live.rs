//! A running stream on the core that owns it: joins the machine, the log, the readers and the pages.

mod flow;
mod notes;

use super::beyond::Beyond;
use super::cached::Ask;
use super::node::{Busy, Node};
use super::request::{CrawlRequest, Options, OrderName};
use super::scribe;
use crate::error::{ApiCode, Stage};
use crate::local::Notify;
use crate::observe::metrics::{Counter, PageEnd};
use crate::observe::request_id::RequestId;
use crate::observe::series::Endpoint;
use crate::proto::events::{self, Event, Failure, Metadata, Page, PageResult, Progress, Summary};
use crate::proto::text::Text;
use crate::stream::machine::{Ended, Ending, Machine, Output, Plan};
use crate::stream::place::Place;
use crate::stream::state::State;
use crate::stream::{Birth, Status, Stream, Totals, Watcher};
use crate::timings::Timings;
use bytes::BytesMut;
use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};
use ulid::Ulid;

/// What a page's event is taken to weigh before the stream has seen larger ones, in bytes.
const EVENT_BYTES_GUESS: usize = 16 * 1024;

/// Events that are written before the clock is looked at.
const EVENTS_BETWEEN_LOOKS: u32 = 8;

/// For how long a stream works off cached pages before it lets others go on.
const TURN: Duration = Duration::from_micros(150);

/// What a stream in the background goes by: nobody needs to read it, and all its events are kept.
pub trait Background: std::fmt::Debug {
    /// What its bytes count to.
    fn totals(&self) -> Arc<Totals>;

    /// Pages that it may have under way now.
    fn pages_max(&self) -> u32;

    /// Bytes that its events may still take.
    fn room(&self) -> usize;

    /// For how long its events are kept once it has ended.
    fn kept_for(&self) -> Duration;

    /// Its last event is written.
    fn ended(&self, node: &Rc<Node>, ending: Option<Ending>);
}

/// Bytes of a log that drops nothing: what a client's JSON parser can still tell from its neighbour.
const KEEP_ALL: usize = usize::MAX >> 11;

/// How often a stream in the background looks again whether there is room.
const ROOM_EVERY: Duration = Duration::from_secs(1);

/// What a stream is begun with, beside the client's request.
#[derive(Debug, Clone)]
pub struct Terms {
    /// The stream's id.
    pub id: Ulid,
    /// Whose stream it is.
    pub principal: Arc<str>,
    /// The `Idempotency-Key` that was claimed for it.
    pub idempotency_key: Option<Box<str>>,
    /// Its place among the streams that its principal may have at a time, given back at its end.
    pub place: Option<Arc<Place>>,
    /// The order of the results where the client says none.
    pub order: OrderName,
    /// Whether it outlives its connection, for the resume window that the client asks for.
    pub resumable: bool,
    /// The request's id.
    pub request_id: RequestId,
    /// What the time to end it counts as.
    pub endpoint: Endpoint,
    /// What bounds it instead of its readers, where it works on without any.
    pub background: Option<Rc<dyn Background>>,
}

/// Why no URLs were added to a stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum AddError {
    /// The stream has ended, or is being ended.
    #[error(transparent)]
    Ended(#[from] Ended),
    /// The stream would have more URLs than a stream may have.
    #[error("{total} urls, maximum {max}")]
    TooMany {
        /// URLs that it would have.
        total: u64,
        /// URLs that it may have.
        max: u64,
    },
    /// The core that the stream belongs to did not answer in time.
    #[error("the stream's core is busy")]
    Busy,
}

/// See the module.
pub struct Live {
    /// What readers and other cores know of the stream.
    pub stream: Arc<Stream>,
    pub(super) machine: RefCell<Machine>,
    /// What it does beyond fetching its list.
    pub(super) beyond: Option<Box<Beyond>>,
    pub(super) options: Arc<Options>,
    /// How its pages are looked up.
    ask: Ask,
    request_id: RequestId,
    endpoint: Endpoint,
    started_at: SystemTime,
    /// The largest event so far: what each page in flight is taken to add to the log.
    event_bytes: Cell<usize>,
    /// Since when nobody reads.
    unread_since: Cell<Option<Instant>>,
    /// Whether it is being ended for that.
    abandoned: Cell<bool>,
    /// Whether a turn ended before there was nothing left to do.
    unfinished: Cell<bool>,
    /// Whether its last event is written and its end was told: that happens once.
    over: Cell<bool>,
    /// Since when it is being ended before its work is done.
    ending_since: Cell<Option<Instant>>,
    changed: Notify,
    /// Tells who copies the log to Redis, where somebody does.
    written: Option<Rc<Notify>>,
    background: Option<Rc<dyn Background>>,
    _busy: Busy,
    _place: Option<Arc<Place>>,
}

impl Live {
    /// Begins a stream: its first event is in the log, its first pages are under way.
    ///
    /// `attach` joins the first reader before anything is written; that reader is what comes back.
    pub fn start<R>(
        node: &Rc<Node>,
        request: CrawlRequest,
        terms: Terms,
        attach: impl FnOnce(&Arc<Stream>) -> R,
    ) -> R {
        let now = Instant::now();
        let CrawlRequest { urls, options, search } = request;
        let urls_max = node.shared.config.urls_max;
        let beyond = Beyond::new(search, options.follow.as_ref(), urls_max);
        let plan = Plan {
            urls: Arc::clone(&urls),
            concurrency: options.concurrency,
            order: options.order.unwrap_or(terms.order).order(),
            deadline: Duration::from_millis(options.deadline_ms),
            progress: Duration::from_millis(options.progress_ms),
            sources: u32::from(beyond.as_ref().is_some_and(|beyond| beyond.has_sources())),
        };
        let shared = &node.shared;
        let background = terms.background;
        let window = match &background {
            Some(background) => background.kept_for(),
            None if terms.resumable => Duration::from_secs(options.resume_window_s),
            None => Duration::ZERO,
        };
        let totals = background.as_ref().map_or_else(|| Arc::clone(&shared.totals), |b| b.totals());
        let birth = Birth {
            id: terms.id,
            owner: node.index,
            principal: terms.principal,
            idempotency_key: terms.idempotency_key,
            replay_bytes_max: match background {
                Some(_) => KEEP_ALL,
                None => shared.config.replay_bytes_max,
            },
            resume_window: window,
            patience: options.patience(),
            began: now,
            urls: urls.len(),
            home: None,
        };
        let ask = Ask::new(&shared.pages, &options);
        let ask = ask.indexing(&shared.search, &options, &birth.principal);
        let shares = shared.cluster.is_on() && !window.is_zero() && background.is_none();
        let live = Rc::new(Self {
            stream: Stream::new(birth, totals),
            machine: RefCell::new(Machine::new(plan, now)),
            beyond,
            ask,
            options,
            request_id: terms.request_id,
            endpoint: terms.endpoint,
            started_at: SystemTime::now(),
            event_bytes: Cell::new(EVENT_BYTES_GUESS),
            unread_since: Cell::new(None),
            abandoned: Cell::new(false),
            unfinished: Cell::new(false),
            over: Cell::new(false),
            ending_since: Cell::new(None),
            changed: Notify::default(),
            written: shares.then(Rc::default),
            _busy: node.busy(),
            background,
            _place: terms.place,
        });
        let reader = attach(&live.stream);
        live.set_out(node, &urls, now);
        reader
    }

    /// The stream is known to its core, and its first pages begin. That is before its head and its first
    /// event are sent, so that pages in the cache leave with them; of the others no more begin than a
    /// stream of unknown sizes may have under way, a microsecond or two for each.
    fn set_out(self: &Rc<Self>, node: &Rc<Node>, urls: &[Text], now: Instant) {
        self.beyond.iter().for_each(|beyond| beyond.start(0, urls));
        node.adopt(self);
        if let Some(written) = &self.written {
            scribe::start(node, self, written);
        }
        self.machine.borrow_mut().handle_start(now);
        self.pump(node);
        if self.beyond.as_ref().is_some_and(|beyond| beyond.has_sources()) {
            let (asking, live) = (Rc::clone(node), Rc::clone(self));
            drop(uring::spawn(async move { live.run_sources(&asking).await }));
        }
        // One whose pages were all in the cache is over by now.
        if !self.over.get() {
            let (driver, driven) = (Rc::clone(node), Rc::clone(self));
            drop(uring::spawn(async move { driven.keep_time(&driver).await }));
        }
        node.observe.count(Counter::StreamsStarted);
    }

    /// A page has come to its end.
    pub(super) fn handle_result(
        self: &Rc<Self>,
        node: &Rc<Node>,
        index: u32,
        page: Box<PageResult>,
    ) {
        if self.follows() {
            let (node, live) = (Rc::clone(node), Rc::clone(self));
            drop(uring::spawn(async move { live.follow(&node, index, page).await }));
            return;
        }
        self.machine.borrow_mut().handle_result(Instant::now(), index, page);
        self.pump(node);
    }

    /// More URLs for the stream. Answers the first one's index and the new total.
    ///
    /// # Errors
    /// Why none were added.
    pub fn add(&self, node: &Rc<Node>, urls: &[Text]) -> Result<(u32, u64), AddError> {
        let max = node.shared.config.urls_max as u64;
        let total = self.machine.borrow().counts().total + urls.len() as u64;
        if total > max {
            return Err(AddError::TooMany { total, max });
        }
        let first = self.machine.borrow_mut().handle_add(urls)?;
        self.beyond.iter().for_each(|beyond| beyond.start(first, urls));
        self.pump(node);
        Ok((first, total))
    }

    /// Ends the stream early; its pages on all cores are told, its last event follows when they have
    /// ended.
    pub fn end(&self, node: &Rc<Node>, ending: Ending) {
        self.machine.borrow_mut().handle_end(Instant::now(), ending);
        self.pump(node);
    }

    /// Whether nobody can read it once the process has no connections: it is read by nobody, and goes on
    /// for none of the nodes that it shares its log with.
    pub(super) fn is_lost(&self) -> bool {
        let shared = self.written.is_some() && !self.stream.paused();
        let unread = self.stream.with_log(|log| log.readers()) == 0;
        self.background.is_none() && unread && !shared
    }

    /// Does whatever there is to do: writes events, wakes readers, pauses or goes on, starts pages.
    /// Cached pages need nothing else, so a turn is bounded; the next one follows after a yield.
    pub(super) fn pump(&self, node: &Rc<Node>) {
        if self.over.get() {
            return;
        }
        self.note_readers();
        let mut machine = self.machine.borrow_mut();
        let mut woken = node.woken.take();
        let turn_ends = Instant::now() + TURN;
        loop {
            let all = self.write_all(node, &mut machine, &mut woken, turn_ends);
            let room = self.hold_or_go_on(node, &mut machine);
            if !all || Instant::now() >= turn_ends {
                self.unfinished.set(true);
                break;
            }
            if !self.start_pages(node, &mut machine, room) {
                break;
            }
        }
        let (done, counts) = (machine.is_done(), machine.counts());
        // Who waits for the end waits for the last event.
        let state = if done { State::Closed } else { not_closed(machine.state()) };
        let in_flight = machine.in_flight();
        let ending = machine.ending();
        drop(machine);
        self.stream.set_status(Status { state, counts, in_flight }, &mut woken);
        node.wake(&mut woken);
        node.woken.replace(woken);
        self.changed.notify();
        self.written.iter().for_each(|written| written.notify());
        if done {
            self.over.set(true);
            self.note_quiesced(node);
            node.retire(self, self.background.is_none());
            if let Some(background) = &self.background {
                background.ended(node, ending);
            }
        }
    }

    /// Writes what there is to write; `false` when the turn is over before that.
    fn write_all(
        &self,
        node: &Rc<Node>,
        machine: &mut Machine,
        woken: &mut Vec<Watcher>,
        turn_ends: Instant,
    ) -> bool {
        let mut written = 0_u32;
        while let Some(output) = machine.poll_output() {
            let Some(event) = self.write(node, machine, output) else {
                self.stream.abort();
                self.note_ending(machine.ending());
                self.beyond.iter().for_each(|beyond| beyond.end());
                node.abort_everywhere(self.stream.id());
                continue;
            };
            self.event_bytes.set(self.event_bytes.get().max(event.len()));
            self.stream.append(event, woken);
            written += 1;
            if written.is_multiple_of(EVENTS_BETWEEN_LOOKS) && Instant::now() >= turn_ends {
                return false;
            }
        }
        true
    }

    fn follows(&self) -> bool {
        self.beyond.as_ref().is_some_and(|beyond| beyond.frontier.is_some())
    }

    fn searches(&self) -> bool {
        self.beyond.as_ref().is_some_and(|beyond| beyond.searches())
    }

    /// `stream_type` of its first event.
    fn kind(&self) -> &'static str {
        match &self.background {
            Some(_) => "job",
            None if self.searches() => "deepsearch",
            None => "crawl",
        }
    }

    /// Wakes the machine when its time has come, until it is closed.
    async fn keep_time(&self, node: &Rc<Node>) {
        loop {
            let due = self.machine.borrow().poll_timeout();
            // Once the stream is being ended, the end of its window is behind us for good: to wait for
            // a time in the past would be to spin, and nothing else on this core would ever run.
            let over = self.machine.borrow().ending().is_some();
            let unread = self.unread_since.get().filter(|_| !over);
            let unread = unread.map(|since| since + self.stream.birth.resume_window);
            if self.machine.borrow().is_done() {
                return;
            }
            if self.unfinished.replace(false) {
                uring::yield_now().await;
                self.pump(node);
                continue;
            }
            let waits = self.background.is_some() && self.stream.paused();
            let room = waits.then(|| Instant::now() + ROOM_EVERY);
            let Some(due) = [due, unread, room].into_iter().flatten().min() else {
                self.changed.notified().await;
                continue;
            };
            uring::select2(self.changed.notified(), uring::time::sleep_until(due)).await;
            let now = Instant::now();
            if now >= due {
                self.machine.borrow_mut().handle_timeout(now);
                self.pump(node);
            }
        }
    }

    fn write_result(
        &self,
        node: &Rc<Node>,
        machine: &Machine,
        out: &mut BytesMut,
        (seq, index): (u64, u32),
        page: Page,
        counts: &events::Counts,
    ) -> Event {
        let end = match page.code() {
            Some(code) => PageEnd::Failed(code),
            None if page.from_cache() => PageEnd::Cached,
            None => PageEnd::Approved,
        };
        // Of a URL that was not fetched there is nothing to measure.
        let listed =
            matches!(&page, Page::Fetched(page) if page.status == 0 && page.error.is_none());
        if !listed {
            node.observe.count(Counter::Pages(end));
        }
        match page {
            Page::Cached(stored) => {
                let mut timings = Timings::default();
                timings.add(Stage::Queue, self.stream.birth.began.elapsed());
                node.observe.record_page(&timings);
                self.note_cached(seq, index, &stored);
                let url = &**machine.url(index);
                events::cached(out, seq, (index, url), &stored, &timings, counts)
            }
            Page::Fetched(mut page) => {
                if let Some(ready) = page.ready {
                    page.timings.add(Stage::EmitWait, ready.elapsed());
                }
                self.note_page(seq, index, &page);
                if !listed {
                    node.observe.record_page(&page.timings);
                }
                events::result(out, seq, index, &page, counts)
            }
        }
    }

    /// Writes an output as an event; [`Output::Abort`] is none.
    fn write(&self, node: &Rc<Node>, machine: &Machine, output: Output) -> Option<Event> {
        let stream_id = &*self.stream.id_text;
        node.with_scratch(|out| {
            Some(match output {
                Output::Metadata => {
                    let facts = Metadata {
                        stream_id,
                        total_urls: usize::try_from(machine.counts().total).unwrap_or(usize::MAX),
                        stream_type: self.kind(),
                        request_id: self.request_id.as_str(),
                        at: self.started_at,
                        resume_window_s: self.stream.birth.resume_window.as_secs(),
                        replay_bytes_max: self.stream.birth.replay_bytes_max,
                        deadline_ms: self.options.deadline_ms,
                        warnings: &[],
                    };
                    events::metadata(out, &facts)
                }
                Output::Result { seq, index, page, counts } => {
                    let event = self.write_result(node, machine, out, (seq, index), page, &counts);
                    match &self.beyond {
                        Some(beyond) => beyond.complete(out, index, event),
                        None => event,
                    }
                }
                Output::Search { seq, found } => {
                    self.beyond.as_ref()?.write_search(node, out, seq, found)
                }
                Output::Failure { seq, counts } => {
                    self.note_end(node, (seq, &counts), Some(Ending::Failed));
                    self.beyond.as_ref()?.write_failure(out, seq, &counts)
                }
                Output::Progress => {
                    let (started, counts) = (self.started_at, machine.counts());
                    let estimated = estimate(machine.started().elapsed(), &counts);
                    let current = machine.current();
                    events::progress(
                        out,
                        &Progress { stream_id, started, counts, estimated, current },
                    )
                }
                Output::Summary { seq, counts, total, ttfr, ending } => {
                    self.note_end(node, (seq, &counts), ending);
                    if ending == Some(Ending::Drained) {
                        let message = match &self.background {
                            Some(_) => "the server is shutting down, and the job with it",
                            None => "the server is shutting down: ask again for what is missing",
                        };
                        let failure = Failure::new(ApiCode::Draining, message);
                        return Some(events::error(out, seq, &failure, &counts));
                    }
                    let millis =
                        |time: Duration| u64::try_from(time.as_millis()).unwrap_or(u64::MAX);
                    let facts = Summary {
                        counts,
                        total_ms: millis(total),
                        ttfr_ms: ttfr.map(millis),
                        status: ending.map_or("completed", Ending::status),
                    };
                    events::summary(out, seq, &facts)
                }
                Output::Abort => return None,
            })
        })
    }
}

/// The last state before the end, for a stream that has something left to write.
const fn not_closed(state: State) -> State {
    match state {
        State::Closed => State::Closing,
        other => other,
    }
}

/// When a stream should end if it goes on at its pace so far.
fn estimate(spent: Duration, counts: &events::Counts) -> Option<SystemTime> {
    let done = u32::try_from(counts.completed()).ok().filter(|done| *done > 0)?;
    let left = u32::try_from(counts.total - counts.completed()).ok()?;
    Some(SystemTime::now() + (spent / done).checked_mul(left)?)
}
