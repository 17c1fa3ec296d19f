//! One core's share of all crawling: its fetcher, its lane, the streams that it owns and the pages
//! that it works on, for streams of any core.

mod drain;
mod keep;
mod lanes;
mod owed;

pub use drain::Busy;

use super::cached::{Pages, Waiting};
use super::lane::Handed;
use super::live::{AddError, Live};
use super::mesh::{Message, PageJob};
use super::mirror;
use super::reading::Reading;
use super::report;
use super::spare::Spares;
use crate::cluster::Cluster;
use crate::config;
use crate::error::{ApiCode, ApiError};
use crate::extract::Extractor;
use crate::fetch::Fetcher;
use crate::local::Notify;
use crate::observe::Core;
use crate::observe::hist::Epoch;
use crate::observe::metrics::{Counter, Egress};
use crate::observe::request_id::{RequestId, RequestIds};
use crate::observe::span::Spans;
use crate::observe::sparing::Sparing;
use crate::proto::blocks::Blocks;
use crate::proto::events::PageResult;
use crate::proto::text::Text;
use crate::search::Search;
use crate::stream::idempotency::Keys;
use crate::stream::machine::{Ended, Ending};
use crate::stream::registry::Registry;
use crate::stream::{Stream, Totals, Watcher};
use bytes::BytesMut;
use lanes::Desk;
pub use lanes::{Extraction, LANE_PAGES_MAX};
pub(super) use owed::Here;
use std::cell::{Cell, RefCell};
use std::collections::{BTreeSet, HashMap};
use std::rc::Rc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant, SystemTime};
use ulid::Ulid;
use uring::lane::Lane;
use uring::mailbox::{Receiver, SendError, Sender};

/// How often streams whose resume window is over are looked for.
const SWEEP_EVERY: Duration = Duration::from_secs(1);

/// Finished streams that are forgotten at a time, where their buffers are full.
const FORGOTTEN_AT_ONCE: usize = 64;

/// How long another core may take to answer whether URLs were added.
const ADD_PATIENCE: Duration = Duration::from_secs(2);

/// What all cores share, read-only or behind short locks.
pub struct Shared {
    /// The settings.
    pub config: config::Live,
    /// Where a core asks for the settings to be read again.
    pub reload: tokio::sync::mpsc::Sender<config::reload::Request>,
    /// One for each core, which counts up about once a second while its loop runs.
    pub beats: Vec<AtomicU64>,
    /// The sandbox' engine and module, once it is loaded; `None` inside when that failed.
    pub extractor: OnceLock<Option<Extractor>>,
    /// Where spans go, where they go anywhere.
    pub spans: Spans,
    /// What is shared with other nodes.
    pub cluster: Cluster,
    /// Where long bodies are read.
    pub reading: Reading,
    /// The page cache, and the pages on their way into it.
    pub pages: Pages,
    /// Where a deepsearch finds its hits.
    pub search: Search,
    /// All streams.
    pub registry: Registry,
    /// The `Idempotency-Key`s of those streams.
    pub keys: Keys,
    /// Bytes and number of all streams.
    pub totals: Arc<Totals>,
    /// Bytes and number of the jobs in this process' memory.
    pub job_totals: Arc<Totals>,
    /// The mailbox of each core, by its index.
    pub mesh: Vec<Sender<Message>>,
    /// Whether new work is refused.
    pub draining: AtomicBool,
    /// Descriptors of the cores' rings, in their order; none with epoll.
    pub rings: OnceLock<Vec<u32>>,
    /// Client connections open.
    pub connections: AtomicUsize,
    /// What runs though no connection may wait for it: streams, pages of jobs, logs to be written.
    pub busy: AtomicUsize,
    /// When the process started, on the wall clock.
    pub started: SystemTime,
    /// What latencies are dated from.
    pub epoch: Epoch,
}

/// See the module. Lives on one core; tasks of that core share it.
pub struct Node {
    /// This core's index in the mesh.
    pub index: usize,
    /// What all cores share.
    pub shared: Arc<Shared>,
    /// This core's times and counters.
    pub observe: Core,
    /// Warnings of first bytes that took too long.
    pub slow_first_bytes: Sparing,
    /// The principal of whoever shows no credential.
    pub anonymous: Arc<str>,
    pub(super) fetcher: Rc<Fetcher>,
    /// What waits for the lane, and the lane.
    desk: Desk,
    /// Streams that this core owns and that still run.
    live: RefCell<HashMap<Ulid, Rc<Live>>>,
    /// Streams of this core that are over, by the end of their resume window.
    finished: RefCell<BTreeSet<(Instant, Ulid)>>,
    /// Pages that run here, by stream, each with its way to be told to end.
    pub(super) pages: RefCell<HashMap<Ulid, Vec<Rc<Notify>>>>,
    watchers: RefCell<Vec<Option<Rc<Notify>>>>,
    /// Places in `watchers` that are free.
    watchers_free: RefCell<Vec<usize>>,
    /// Pages of this core that wait for another's fetch of the same page.
    pub(super) waiting: Waiting,
    /// What events are written into, and what is sent around them.
    pub(super) events: RefCell<Blocks>,
    pub(super) frames: RefCell<Blocks>,
    /// What connections send with, while none uses it.
    pub(super) spares: RefCell<Spares>,
    /// Readers to be woken; empty but for a moment.
    pub(super) woken: RefCell<Vec<Watcher>>,
    request_ids: RefCell<RequestIds>,
    /// Pages that the sandbox stopped or that failed in it.
    traps: Cell<u64>,
    /// What of the fetcher's own counts is in `observe` already.
    fetch_counted: Cell<[u64; 7]>,
    /// When the core must have ended, once it is told to.
    drain_until: Cell<Option<Instant>>,
    /// Bytes of unfinished WebSocket messages.
    pub ws_gathered: Cell<usize>,
    drain: Notify,
    pub(super) idle: Notify,
}

impl Node {
    /// A core's node; its mailbox is read by [`Node::serve`].
    #[must_use]
    pub fn new(
        index: usize,
        shared: Arc<Shared>,
        fetcher: Rc<Fetcher>,
        lane: Lane<Handed>,
    ) -> Rc<Self> {
        Rc::new(Self {
            index,
            observe: Core::new(shared.epoch, Instant::now()),
            slow_first_bytes: Sparing::default(),
            anonymous: Arc::from(""),
            shared,
            fetcher,
            desk: Desk::new(lane),
            live: RefCell::default(),
            finished: RefCell::default(),
            pages: RefCell::default(),
            watchers: RefCell::default(),
            watchers_free: RefCell::default(),
            fetch_counted: Cell::default(),
            waiting: Waiting::default(),
            events: RefCell::default(),
            frames: RefCell::default(),
            spares: RefCell::default(),
            woken: RefCell::default(),
            request_ids: RefCell::new(RequestIds::new(Ulid::generate().0)),
            traps: Cell::new(0),
            drain_until: Cell::new(None),
            ws_gathered: Cell::new(0),
            drain: Notify::default(),
            idle: Notify::default(),
        })
    }

    /// Reads the core's mailbox until every sender is gone. Never waits for another core, so two
    /// cores can't wait for each other.
    pub async fn serve(self: Rc<Self>, mut mailbox: Receiver<Message>) {
        if self.index == 0 && self.shared.cluster.is_on() {
            let node = Rc::clone(&self);
            drop(uring::spawn(async move { mirror::obey(&node).await }));
        }
        let sweeper = Rc::clone(&self);
        drop(uring::spawn(async move { sweeper.sweep().await }));
        while let Some(message) = mailbox.recv().await {
            self.handle(message);
        }
    }

    fn handle(self: &Rc<Self>, message: Message) {
        match message {
            Message::Page(job) => self.work(*job),
            Message::Done { stream, index, page } => {
                if let Some(live) = self.live(stream) {
                    live.handle_result(self, index, page);
                }
            }
            Message::Landed { flight, landing } => self.waiting.land(flight, &landing),
            Message::Extracted { ticket, reply } => self.handle_extracted(ticket, *reply),
            Message::Abort { stream } => self.abort_pages(stream),
            Message::Cancel { stream } => self.cancel_here(stream),
            Message::Add { stream, urls, to } => {
                // Who has stopped waiting gets no answer.
                let _ = to.try_send(self.add_here(stream, &urls));
            }
            Message::Look { stream } => self.look(stream),
            Message::MakeRoom => self.forget_oldest(FORGOTTEN_AT_ONCE),
            Message::Wake { token } => self.wake_here(token),
            Message::Report { scope, to } => {
                let node = Rc::clone(self);
                drop(uring::spawn(async move { to.send(report::core(&node, scope).await) }));
            }
            Message::Drain { until } => {
                self.drain_until.set(Some(until));
                self.drain.notify();
            }
        }
    }

    /// Whether new work is refused because the server is going down.
    #[must_use]
    pub fn draining(&self) -> bool {
        self.shared.draining.load(Ordering::Relaxed)
    }

    /// Waits until the core is told to end; the time by which it must have.
    pub async fn drained_at(&self) -> Instant {
        loop {
            if let Some(until) = self.drain_until.get() {
                return until;
            }
            self.drain.notified().await;
        }
    }

    /// More URLs for a stream, on whichever core it is; as [`Live::add`].
    ///
    /// # Errors
    /// Why none were added.
    pub async fn add(
        self: &Rc<Self>,
        (owner, stream): (usize, Ulid),
        urls: Box<[Text]>,
    ) -> Result<(u32, u64), AddError> {
        if owner == self.index {
            return self.add_here(stream, &urls);
        }
        let (to, mut from) = uring::mailbox::channel(1);
        self.post_soon(owner, Message::Add { stream, urls, to });
        let answer = uring::time::timeout(ADD_PATIENCE, from.recv()).await;
        answer.ok().flatten().unwrap_or(Err(AddError::Busy))
    }

    fn add_here(self: &Rc<Self>, stream: Ulid, urls: &[Text]) -> Result<(u32, u64), AddError> {
        self.live(stream).ok_or(AddError::Ended(Ended))?.add(self, urls)
    }

    /// Whether the server takes work, and why not.
    ///
    /// # Errors
    /// `draining`, or `overloaded` while the extractor is being loaded.
    pub fn readiness(&self) -> Result<(), ApiError> {
        let refuse = |code, message: &str| {
            Err(ApiError::new(code, message).retry_after(Duration::from_secs(1)))
        };
        if self.draining() {
            return refuse(ApiCode::Draining, "the server is shutting down");
        }
        match self.shared.extractor.get() {
            Some(Some(_)) => Ok(()),
            Some(None) => refuse(ApiCode::Overloaded, "the extractor could not be loaded"),
            None => refuse(ApiCode::Overloaded, "starting: the extractor is being loaded"),
        }
    }

    /// The client's own id for its request, or one of ours.
    pub fn request_id(&self, given: Option<RequestId>) -> RequestId {
        given.unwrap_or_else(|| {
            let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
            let now_ms = u64::try_from(now.as_millis()).unwrap_or(u64::MAX);
            self.request_ids.borrow_mut().next(now_ms)
        })
    }

    /// Brings the fetcher's counts into the core's.
    pub(super) fn count_fetches(&self) {
        let stats = self.fetcher.stats();
        let [special, embedded, denied, port] = &stats.refused_by;
        let all =
            [&stats.opened, &stats.reused, &stats.wire_bytes, special, embedded, denied, port];
        let now = all.map(Cell::get);
        let before = self.fetch_counted.replace(now);
        let single = [Counter::FetchOpened, Counter::FetchReused, Counter::FetchBytesIn];
        let counters = single.into_iter().chain(Egress::ALL.map(Counter::EgressRefused));
        for (at, counter) in counters.enumerate() {
            self.observe.add(counter, now[at] - before[at]);
        }
    }

    /// Pages that the sandbox stopped or that failed in it.
    pub(super) fn traps(&self) -> u64 {
        self.traps.get()
    }

    /// Refuses a new stream where there is no room for it, before any work is done.
    ///
    /// # Errors
    /// `draining` or `overloaded`, with the time to come back.
    pub fn admit(&self) -> Result<(), ApiError> {
        self.readiness()?;
        let (totals, config) = (&self.shared.totals, &self.shared.config);
        let full = || totals.bytes.load(Ordering::Relaxed) >= config.stream_bytes_max;
        if full() {
            self.forget_oldest(FORGOTTEN_AT_ONCE);
            // What others can forget makes room for who comes back.
            let others = (0..self.shared.mesh.len()).filter(|core| *core != self.index);
            others.for_each(|core| drop(self.shared.mesh[core].try_send(Message::MakeRoom)));
        }
        let why = if totals.running.load(Ordering::Relaxed) >= config.streams_max {
            "as many streams run as may run at once"
        } else if full() {
            "the streams' buffers are full"
        } else {
            return Ok(());
        };
        Err(ApiError::new(ApiCode::Overloaded, why).retry_after(Duration::from_secs(1)))
    }

    /// Where a page of `stream` is worked on: the cores take turns, beginning with the owner.
    pub(super) fn dispatch(self: &Rc<Self>, job: PageJob) {
        let cores = self.shared.mesh.len();
        let core = (self.index + job.index as usize) % cores;
        if core == self.index {
            return self.work(job);
        }
        // A core whose mailbox is full is busier than we are.
        match self.shared.mesh[core].try_send(Message::Page(Box::new(job))) {
            Ok(()) => {}
            Err(SendError::Full(message) | SendError::Closed(message)) => self.handle(message),
        }
    }

    async fn report(self: &Rc<Self>, owner: usize, stream: Ulid, index: u32, page: PageResult) {
        let message = Message::Done { stream, index, page: Box::new(page) };
        if owner == self.index {
            self.handle(message);
        } else {
            self.post(owner, message).await;
        }
    }

    async fn post(&self, core: usize, message: Message) {
        // A closed mailbox is a core that has ended, and with it the streams that it owned.
        let _ = self.shared.mesh[core].send(message).await;
    }

    pub(super) fn forget_page(&self, stream: Ulid, abort: &Rc<Notify>) {
        let mut pages = self.pages.borrow_mut();
        if let Some(running) = pages.get_mut(&stream) {
            running.retain(|other| !Rc::ptr_eq(other, abort));
            if running.is_empty() {
                pages.remove(&stream);
            }
        }
    }

    /// Ends the pages of a stream that run on this core.
    pub fn abort_pages(&self, stream: Ulid) {
        if let Some(running) = self.pages.borrow().get(&stream) {
            running.iter().for_each(|abort| abort.notify());
        }
    }

    /// Ends the pages of a stream on every core; its flag is raised already.
    pub(super) fn abort_everywhere(self: &Rc<Self>, stream: Ulid) {
        self.abort_pages(stream);
        for core in (0..self.shared.mesh.len()).filter(|core| *core != self.index) {
            self.post_soon(core, Message::Abort { stream });
        }
    }

    /// Sends now where there is room, else from a task of its own.
    pub(super) fn post_soon(self: &Rc<Self>, core: usize, message: Message) {
        if let Err(SendError::Full(message)) = self.shared.mesh[core].try_send(message) {
            let node = Rc::clone(self);
            drop(uring::spawn(async move { node.post(core, message).await }));
        }
    }

    /// Registers a reader on this core; it is woken through `notify`.
    pub fn watch(&self, notify: &Rc<Notify>) -> Watcher {
        let mut watchers = self.watchers.borrow_mut();
        let free = self.watchers_free.borrow_mut().pop();
        let token = free.unwrap_or_else(|| {
            watchers.push(None);
            watchers.len() - 1
        });
        watchers[token] = Some(Rc::clone(notify));
        Watcher { core: self.index, token }
    }

    /// Forgets a reader of this core.
    pub fn unwatch(&self, watcher: Watcher) {
        let known = self.watchers.borrow_mut().get_mut(watcher.token).and_then(Option::take);
        if known.is_some() {
            self.watchers_free.borrow_mut().push(watcher.token);
        }
    }

    fn wake_here(&self, token: usize) {
        if let Some(Some(notify)) = self.watchers.borrow().get(token) {
            notify.notify();
        }
    }

    /// Wakes readers, each once, on whichever core they are; none are left in the list.
    pub fn wake(self: &Rc<Self>, watchers: &mut Vec<Watcher>) {
        watchers.sort_unstable();
        watchers.dedup();
        for watcher in watchers.drain(..) {
            if watcher.core == self.index {
                self.wake_here(watcher.token);
            } else {
                self.post_soon(watcher.core, Message::Wake { token: watcher.token });
            }
        }
    }

    /// Tells a stream's owner that its readers have come, gone or caught up.
    pub fn look_at(self: &Rc<Self>, owner: usize, stream: Ulid) {
        if owner == self.index {
            self.look(stream);
        } else {
            self.post_soon(owner, Message::Look { stream });
        }
    }

    fn look(self: &Rc<Self>, stream: Ulid) {
        match self.live(stream) {
            Some(live) => live.pump(self),
            None => self.expire_when_unread(stream),
        }
    }

    pub(super) fn live(&self, stream: Ulid) -> Option<Rc<Live>> {
        self.live.borrow().get(&stream).cloned()
    }

    pub(super) fn adopt(&self, live: &Rc<Live>) {
        // Nobody else makes streams of this id.
        let _ = self.shared.registry.insert(Arc::clone(&live.stream));
        self.live.borrow_mut().insert(live.stream.id(), Rc::clone(live));
    }

    /// Looks a stream up for a principal. An id that this process may have given away names a
    /// stream that can't be read any more.
    ///
    /// # Errors
    /// `stream_expired` or `not_found`; a stream of somebody else is not told from either.
    pub fn find_stream(&self, id: Ulid, principal: &str) -> Result<Arc<Stream>, ApiError> {
        let found = self.shared.registry.find(id);
        if let Some(stream) = found.filter(|stream| &*stream.birth.principal == principal) {
            return Ok(stream);
        }
        let began = id.datetime();
        Err(if (self.shared.started..=SystemTime::now()).contains(&began) {
            ApiError::new(ApiCode::StreamExpired, "the stream's resume window is over")
        } else {
            ApiError::new(ApiCode::NotFound, "there is no stream of this id")
        })
    }

    /// Begins to end a stream of any core, or node.
    pub fn cancel(self: &Rc<Self>, stream: &Stream) {
        if let Some(home) = stream.birth.home {
            mirror::cancel(self, home, stream.id());
        } else if stream.owner() == self.index {
            self.cancel_here(stream.id());
        } else {
            self.post_soon(stream.owner(), Message::Cancel { stream: stream.id() });
        }
    }

    fn cancel_here(self: &Rc<Self>, stream: Ulid) {
        if let Some(live) = self.live(stream) {
            live.end(self, Ending::Cancelled);
        }
    }

    pub(super) fn with_scratch<T>(&self, write: impl FnOnce(&mut BytesMut) -> T) -> T {
        write(self.events.borrow_mut().writer())
    }
}
