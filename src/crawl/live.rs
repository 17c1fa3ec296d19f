//! A running stream on the core that owns it: joins the machine, the log, the readers and the pages.

use super::mesh::PageJob;
use super::node::Node;
use super::request::{CrawlRequest, Options, OrderName};
use crate::error::Stage;
use crate::local::Notify;
use crate::observe::metrics::{Counter, PageEnd, StreamEnd};
use crate::observe::request_id::RequestId;
use crate::proto::events::{self, Event, Metadata, PageResult, Progress, Summary};
use crate::stream::Stream;
use crate::stream::machine::{Ending, Machine, Output, Plan};
use crate::stream::state::State;
use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};
use ulid::Ulid;

/// What a page's event is taken to weigh before the stream has seen larger ones, in bytes.
const EVENT_BYTES_GUESS: usize = 16 * 1024;

/// What a stream is begun with, beside the client's request.
#[derive(Debug, Clone, Copy)]
pub struct Terms {
    /// The order of the results where the client says none.
    pub order: OrderName,
    /// Whether it outlives its connection, for the resume window that the client asks for.
    pub resumable: bool,
    /// The request's id.
    pub request_id: RequestId,
}

/// See the module.
pub struct Live {
    /// What readers and other cores know of the stream.
    pub stream: Arc<Stream>,
    /// How long it may be without a reader.
    pub resume_window: Duration,
    machine: RefCell<Machine>,
    urls: Arc<[Arc<str>]>,
    options: Arc<Options>,
    request_id: RequestId,
    started_at: SystemTime,
    /// The largest event so far: what each page in flight is taken to add to the log.
    event_bytes: Cell<usize>,
    /// Since when nobody reads.
    unread_since: Cell<Option<Instant>>,
    changed: Notify,
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
        let CrawlRequest { urls, options } = request;
        let plan = Plan {
            urls: Arc::clone(&urls),
            concurrency: options.concurrency,
            order: options.order.unwrap_or(terms.order).order(),
            deadline: Duration::from_millis(options.deadline_ms),
            progress: Duration::from_millis(options.progress_ms),
        };
        let shared = &node.shared;
        let totals = Arc::clone(&shared.totals);
        let stream =
            Stream::new(Ulid::generate(), node.index, shared.config.replay_bytes_max, totals);
        let window = if terms.resumable { options.resume_window_s } else { 0 };
        let live = Rc::new(Self {
            stream,
            resume_window: Duration::from_secs(window),
            machine: RefCell::new(Machine::new(plan, now)),
            urls,
            options,
            request_id: terms.request_id,
            started_at: SystemTime::now(),
            event_bytes: Cell::new(EVENT_BYTES_GUESS),
            unread_since: Cell::new(None),
            changed: Notify::default(),
        });
        let reader = attach(&live.stream);
        node.adopt(&live);
        live.machine.borrow_mut().handle_start(now);
        live.pump(node);
        let (driver, driven) = (Rc::clone(node), Rc::clone(&live));
        drop(uring::spawn(async move { driven.keep_time(&driver).await }));
        node.observe.count(Counter::StreamsStarted);
        reader
    }

    /// Where the stream stands, its totals, and the fetches under way.
    pub fn status(&self) -> (State, events::Counts, u32) {
        let machine = self.machine.borrow();
        (machine.state(), machine.counts(), machine.in_flight())
    }

    /// A page has come to its end.
    pub(super) fn handle_result(&self, node: &Rc<Node>, index: u32, page: Box<PageResult>) {
        self.machine.borrow_mut().handle_result(Instant::now(), index, page);
        self.pump(node);
    }

    /// Ends the stream early; its pages on all cores are told, its last event follows when they have
    /// ended.
    pub fn end(&self, node: &Rc<Node>, ending: Ending) {
        self.machine.borrow_mut().handle_end(Instant::now(), ending);
        self.pump(node);
    }

    /// Does whatever there is to do: writes events, wakes readers, pauses or goes on, starts pages.
    pub(super) fn pump(&self, node: &Rc<Node>) {
        self.note_readers();
        let mut machine = self.machine.borrow_mut();
        let mut woken = Vec::new();
        while let Some(output) = machine.poll_output() {
            let Some(event) = self.write(node, &machine, output) else {
                self.stream.abort();
                node.abort_everywhere(self.stream.id);
                continue;
            };
            self.event_bytes.set(self.event_bytes.get().max(event.len()));
            self.stream.append(event, &mut woken);
        }
        let replay = node.shared.config.replay_bytes_max;
        let behind = self.stream.with_log(|log| log.behind());
        let held = if machine.state() == State::Flushing { replay / 4 } else { replay / 2 };
        let (before, paused) = (machine.state(), behind >= held);
        machine.handle_watermark(paused);
        self.stream.set_paused(machine.state() == State::Flushing);
        if before == State::Active && machine.state() == State::Flushing {
            node.observe.count(Counter::StreamsPaused);
        }
        // Each page in flight will add an event: what they may add together has to fit, too.
        while machine.in_flight() == 0
            || behind + (machine.in_flight() as usize + 1) * self.event_bytes.get() < replay
        {
            let Some(index) = machine.poll_dispatch() else { break };
            node.dispatch(PageJob {
                stream: Arc::clone(&self.stream),
                url: Arc::clone(&self.urls[index as usize]),
                index,
                options: Arc::clone(&self.options),
                since: machine.started(),
                deadline: machine.deadline(),
            });
        }
        let closed = machine.state() == State::Closed;
        drop(machine);
        node.wake(&woken);
        self.changed.notify();
        if closed {
            node.retire(self);
        }
    }

    /// A stream that nobody reads is ended when its resume window is over.
    fn note_readers(&self) {
        let readers = self.stream.with_log(|log| log.readers());
        if readers > 0 {
            self.unread_since.set(None);
            return;
        }
        let now = Instant::now();
        let since = self.unread_since.get().unwrap_or(now);
        self.unread_since.set(Some(since));
        if now >= since + self.resume_window {
            self.machine.borrow_mut().handle_end(now, Ending::Cancelled);
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
            let unread = unread.map(|since| since + self.resume_window);
            if self.machine.borrow().state() == State::Closed {
                return;
            }
            let Some(due) = [due, unread].into_iter().flatten().min() else {
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

    /// Writes an output as an event; [`Output::Abort`] is none.
    fn write(&self, node: &Rc<Node>, machine: &Machine, output: Output) -> Option<Event> {
        let stream_id = &*self.stream.id_text;
        node.with_scratch(|out| {
            Some(match output {
                Output::Metadata => {
                    let facts = Metadata {
                        stream_id,
                        total_urls: self.urls.len(),
                        request_id: self.request_id.as_str(),
                        at: self.started_at,
                        resume_window_s: self.resume_window.as_secs(),
                        replay_bytes_max: node.shared.config.replay_bytes_max,
                        deadline_ms: self.options.deadline_ms,
                        warnings: &[],
                    };
                    events::metadata(out, &facts)
                }
                Output::Result { seq, index, mut page, counts } => {
                    if let Some(ready) = page.ready {
                        page.timings.add(Stage::EmitWait, ready.elapsed());
                    }
                    node.observe.record_page(&page.timings);
                    let end =
                        page.error.as_ref().map_or(PageEnd::Approved, |e| PageEnd::Failed(e.code));
                    node.observe.count(Counter::Pages(end));
                    events::result(out, seq, index, &page, &counts)
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
                    node.observe.count(Counter::StreamsEnded(match ending {
                        None => StreamEnd::Completed,
                        Some(Ending::Cancelled) => StreamEnd::Cancelled,
                        Some(Ending::Deadline) => StreamEnd::Deadline,
                        Some(Ending::Drained) => StreamEnd::Drained,
                    }));
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

/// When a stream should end if it goes on at its pace so far.
fn estimate(spent: Duration, counts: &events::Counts) -> Option<SystemTime> {
    let done = u32::try_from(counts.completed()).ok().filter(|done| *done > 0)?;
    let left = u32::try_from(counts.total - counts.completed()).ok()?;
    Some(SystemTime::now() + (spent / done).checked_mul(left)?)
}
