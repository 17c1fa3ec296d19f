//! A running stream on the core that owns it: joins the machine, the log, the readers and the pages.

use super::mesh::PageJob;
use super::node::Node;
use super::request::{CrawlRequest, Options, OrderName};
use crate::error::Stage;
use crate::local::Notify;
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

/// See the module.
pub struct Live {
    /// What readers and other cores know of the stream.
    pub stream: Arc<Stream>,
    /// How long it may be without a reader.
    pub resume_window: Duration,
    machine: RefCell<Machine>,
    urls: Arc<[Arc<str>]>,
    options: Arc<Options>,
    request_id: Box<str>,
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
    /// `attach` is called before anything is written, to join the first reader.
    pub fn start(
        node: &Rc<Node>,
        request: CrawlRequest,
        order: OrderName,
        resumable: bool,
        request_id: &str,
        attach: impl FnOnce(&Arc<Stream>),
    ) -> Rc<Self> {
        let now = Instant::now();
        let CrawlRequest { urls, options } = request;
        let plan = Plan {
            urls: Arc::clone(&urls),
            concurrency: options.concurrency,
            order: options.order.unwrap_or(order).order(),
            deadline: Duration::from_millis(options.deadline_ms),
            progress: Duration::from_millis(options.progress_ms),
        };
        let shared = &node.shared;
        let totals = Arc::clone(&shared.totals);
        let stream = Stream::new(Ulid::generate(), node.index, shared.config.replay_bytes_max, totals);
        let window = if resumable { options.resume_window_s } else { 0 };
        let live = Rc::new(Self {
            stream,
            resume_window: Duration::from_secs(window),
            machine: RefCell::new(Machine::new(plan, now)),
            urls,
            options,
            request_id: request_id.into(),
            started_at: SystemTime::now(),
            event_bytes: Cell::new(EVENT_BYTES_GUESS),
            unread_since: Cell::new(None),
            changed: Notify::default(),
        });
        attach(&live.stream);
        node.adopt(&live);
        live.machine.borrow_mut().handle_start(now);
        live.pump(node);
        let (driver, driven) = (Rc::clone(node), Rc::clone(&live));
        uring::spawn(async move { driven.keep_time(&driver).await });
        live
    }

    /// Where the stream stands, its totals, and the fetches under way.
    pub fn status(&self) -> (State, events::Counts, u32) {
        let machine = self.machine.borrow();
        (machine.state(), machine.counts(), machine.in_flight())
    }

    /// A page has come to its end.
    pub(super) fn handle_result(&self, node: &Rc<Node>, index: u32, page: PageResult) {
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
        self.note_readers(node);
        let mut machine = self.machine.borrow_mut();
        let mut woken = Vec::new();
        while let Some(output) = machine.poll_output() {
            if matches!(output, Output::Abort) {
                self.stream.abort();
                node.abort_everywhere(self.stream.id);
                continue;
            }
            let event = self.write(node, &machine, output);
            self.event_bytes.set(self.event_bytes.get().max(event.len()));
            self.stream.append(event, &mut woken);
        }
        let replay = node.shared.config.replay_bytes_max;
        let behind = self.stream.with_log(|log| log.behind());
        let held = if machine.state() == State::Flushing { replay / 4 } else { replay / 2 };
        machine.handle_watermark(behind >= held);
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
    fn note_readers(&self, node: &Rc<Node>) {
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
        let _ = node;
    }

    /// Wakes the machine when its time has come, until it is closed.
    async fn keep_time(&self, node: &Rc<Node>) {
        loop {
            let due = self.machine.borrow().poll_timeout();
            let unread = self.unread_since.get().map(|since| since + self.resume_window);
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

    fn write(&self, node: &Rc<Node>, machine: &Machine, output: Output) -> Event {
        let stream_id = &*self.stream.id_text;
        node.with_scratch(|out| match output {
            Output::Metadata => {
                let facts = Metadata {
                    stream_id,
                    total_urls: self.urls.len(),
                    request_id: &self.request_id,
                    at: self.started_at,
                    resume_window_s: self.resume_window.as_secs(),
                    replay_bytes_max: node.shared.config.replay_bytes_max,
                    deadline_ms: self.options.deadline_ms,
                };
                events::metadata(out, &facts)
            }
            Output::Result { seq, index, mut page, counts } => {
                if let Some(ready) = page.ready {
                    page.timings.add(Stage::EmitWait, ready.elapsed());
                }
                events::result(out, seq, index, &page, &counts)
            }
            Output::Progress => {
                let counts = machine.counts();
                let spent = machine.started().elapsed();
                let left = counts.total - counts.completed();
                let estimated = u32::try_from(left).ok().filter(|_| counts.completed() > 0).map(
                    |left| {
                        let done = u32::try_from(counts.completed()).unwrap_or(u32::MAX);
                        SystemTime::now() + spent / done * left
                    },
                );
                let started = self.started_at;
                let current = machine.current();
                events::progress(out, &Progress { stream_id, started, counts, estimated, current })
            }
            Output::Summary { seq, counts, total, ttfr, status } => {
                let millis = |time: Duration| u64::try_from(time.as_millis()).unwrap_or(u64::MAX);
                let facts =
                    Summary { counts, total_ms: millis(total), ttfr_ms: ttfr.map(millis), status };
                events::summary(out, seq, &facts)
            }
            Output::Abort => unreachable!("handled before anything is written"),
        })
    }
}
