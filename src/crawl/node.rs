//! One core's share of all crawling: its fetcher, its lane, the streams that it owns and the pages
//! that it works on, for streams of any core.

use super::live::Live;
use super::mesh::{LaneJob, LaneReply, Message, PageJob};
use super::page;
use crate::config::Config;
use crate::error::{ApiCode, ApiError};
use crate::extract::Extractor;
use crate::fetch::Fetcher;
use crate::local::{Notify, Permit, Semaphore, Slot};
use crate::stream::registry::Registry;
use crate::stream::{Totals, Watcher};
use bytes::BytesMut;
use std::cell::{Cell, RefCell};
use std::collections::{BTreeSet, HashMap};
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};
use ulid::Ulid;
use uring::lane::Lane;
use uring::mailbox::{Receiver, SendError, Sender};

/// Bytes of the block that events are written into before they are split off.
const SCRATCH_BYTES: usize = 16 * 1024;
/// How often streams whose resume window is over are looked for.
const SWEEP_EVERY: Duration = Duration::from_secs(1);

/// What all cores share, read-only or behind short locks.
#[derive(Debug)]
pub struct Shared {
    /// The settings.
    pub config: Arc<Config>,
    /// The sandbox' engine and module.
    pub extractor: Extractor,
    /// All streams.
    pub registry: Registry,
    /// Bytes and number of all streams.
    pub totals: Arc<Totals>,
    /// The mailbox of each core, by its index.
    pub mesh: Vec<Sender<Message>>,
    /// Whether new work is refused.
    pub draining: AtomicBool,
}

/// See the module. Lives on one core; tasks of that core share it.
pub struct Node {
    /// This core's index in the mesh.
    pub index: usize,
    /// What all cores share.
    pub shared: Arc<Shared>,
    pub(super) fetcher: Rc<Fetcher>,
    lane: Lane<LaneJob>,
    lane_places: Rc<Semaphore>,
    tickets: RefCell<HashMap<usize, Ticket>>,
    next_ticket: Cell<usize>,
    /// Streams that this core owns and that still run.
    live: RefCell<HashMap<Ulid, Rc<Live>>>,
    /// Streams of this core that are over, by the end of their resume window.
    finished: RefCell<BTreeSet<(Instant, Ulid)>>,
    /// Pages that run here, by stream, each with its way to be told to end.
    pages: RefCell<HashMap<Ulid, Vec<Rc<Notify>>>>,
    watchers: RefCell<Vec<Option<Rc<Notify>>>>,
    scratch: RefCell<BytesMut>,
}

/// A page in the lane: its place there is given back when the lane answers, not before.
struct Ticket {
    slot: Rc<Slot<LaneReply>>,
    _place: Permit,
}

impl Node {
    /// A core's node; its mailbox is read by [`Node::serve`].
    #[must_use]
    pub fn new(index: usize, shared: Arc<Shared>, fetcher: Rc<Fetcher>, lane: Lane<LaneJob>) -> Rc<Self> {
        Rc::new(Self {
            index,
            lane_places: Semaphore::new(shared.config.extract_queue_max),
            shared,
            fetcher,
            lane,
            tickets: RefCell::default(),
            next_ticket: Cell::new(0),
            live: RefCell::default(),
            finished: RefCell::default(),
            pages: RefCell::default(),
            watchers: RefCell::default(),
            scratch: RefCell::new(BytesMut::with_capacity(SCRATCH_BYTES)),
        })
    }

    /// Reads the core's mailbox until every sender is gone. Never waits for another core, so two
    /// cores can't wait for each other.
    pub async fn serve(self: Rc<Self>, mailbox: Receiver<Message>) {
        let sweeper = Rc::clone(&self);
        uring::spawn(async move { sweeper.sweep().await });
        while let Some(message) = mailbox.recv().await {
            self.handle(message);
        }
    }

    fn handle(self: &Rc<Self>, message: Message) {
        match message {
            Message::Page(job) => self.work(*job),
            Message::Done { stream, index, page } => {
                if let Some(live) = self.live(stream) {
                    live.handle_result(self, index, *page);
                }
            }
            Message::Extracted { ticket, reply } => {
                if let Some(ticket) = self.tickets.borrow_mut().remove(&ticket) {
                    ticket.slot.fill(*reply);
                }
            }
            Message::Abort { stream } => self.abort_pages(stream),
            Message::Cancel { stream } => {
                if let Some(live) = self.live(stream) {
                    live.end(self, crate::stream::machine::Ending::Cancelled);
                }
            }
            Message::Look { stream } => self.look(stream),
            Message::Wake { token } => self.wake_here(token),
        }
    }

    /// Refuses a new stream where there is no room for it, before any work is done.
    ///
    /// # Errors
    /// `draining` or `overloaded`, with the time to come back.
    pub fn admit(&self) -> Result<(), ApiError> {
        let refuse = |code, message: &str| {
            Err(ApiError::new(code, message).retry_after(Duration::from_secs(1)))
        };
        if self.shared.draining.load(Ordering::Relaxed) {
            return refuse(ApiCode::Draining, "the server is shutting down");
        }
        let totals = &self.shared.totals;
        if totals.running.load(Ordering::Relaxed) >= self.shared.config.streams_max {
            return refuse(ApiCode::Overloaded, "as many streams run as may run at once");
        }
        if totals.bytes.load(Ordering::Relaxed) >= self.shared.config.stream_bytes_max {
            self.forget_oldest();
            if totals.bytes.load(Ordering::Relaxed) >= self.shared.config.stream_bytes_max {
                return refuse(ApiCode::Overloaded, "the streams' buffers are full");
            }
        }
        Ok(())
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

    fn work(self: &Rc<Self>, job: PageJob) {
        let node = Rc::clone(self);
        uring::spawn(async move {
            let stream = job.stream.id;
            let abort = Rc::new(Notify::default());
            node.pages.borrow_mut().entry(stream).or_default().push(Rc::clone(&abort));
            let result = page::run(&node, &job, &abort).await;
            node.forget_page(stream, &abort);
            node.report(job.stream.owner, stream, job.index, result).await;
        });
    }

    async fn report(
        self: &Rc<Self>,
        owner: usize,
        stream: Ulid,
        index: u32,
        page: crate::proto::events::PageResult,
    ) {
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

    fn forget_page(&self, stream: Ulid, abort: &Rc<Notify>) {
        let mut pages = self.pages.borrow_mut();
        if let Some(running) = pages.get_mut(&stream) {
            running.retain(|other| !Rc::ptr_eq(other, abort));
            if running.is_empty() {
                pages.remove(&stream);
            }
        }
    }

    fn abort_pages(&self, stream: Ulid) {
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
    fn post_soon(self: &Rc<Self>, core: usize, message: Message) {
        if let Err(SendError::Full(message)) = self.shared.mesh[core].try_send(message) {
            let node = Rc::clone(self);
            uring::spawn(async move { node.post(core, message).await });
        }
    }

    /// Hands a page to the lane and waits for its answer.
    pub(super) async fn extract(&self, job: impl FnOnce(usize, Sender<Message>) -> LaneJob) -> LaneReply {
        let place = self.lane_places.acquire().await;
        let number = self.next_ticket.replace(self.next_ticket.get().wrapping_add(1));
        let slot = Rc::<Slot<LaneReply>>::default();
        let ticket = Ticket { slot: Rc::clone(&slot), _place: place };
        self.tickets.borrow_mut().insert(number, ticket);
        let job = job(number, self.shared.mesh[self.index].clone());
        if let Err(refused) = self.lane.try_submit(job) {
            // The places are as many as the queue is long, so only a lane that has ended refuses.
            self.tickets.borrow_mut().remove(&number);
            return refused.into_inner().refuse();
        }
        slot.take().await
    }

    /// Registers a reader on this core; it is woken through `notify`.
    pub fn watch(&self, notify: &Rc<Notify>) -> Watcher {
        let mut watchers = self.watchers.borrow_mut();
        let free = watchers.iter().position(Option::is_none);
        let token = free.unwrap_or_else(|| {
            watchers.push(None);
            watchers.len() - 1
        });
        watchers[token] = Some(Rc::clone(notify));
        Watcher { core: self.index, token }
    }

    /// Forgets a reader of this core.
    pub fn unwatch(&self, watcher: Watcher) {
        if let Some(slot) = self.watchers.borrow_mut().get_mut(watcher.token) {
            *slot = None;
        }
    }

    fn wake_here(&self, token: usize) {
        if let Some(Some(notify)) = self.watchers.borrow().get(token) {
            notify.notify();
        }
    }

    /// Wakes readers, on whichever core they are.
    pub(super) fn wake(self: &Rc<Self>, watchers: &[Watcher]) {
        for watcher in watchers {
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
        self.shared.registry.insert(Arc::clone(&live.stream));
        self.live.borrow_mut().insert(live.stream.id, Rc::clone(live));
    }

    /// A stream of this core is over: it can be read until its resume window ends.
    pub(super) fn retire(&self, live: &Live) {
        let id = live.stream.id;
        self.live.borrow_mut().remove(&id);
        self.finished.borrow_mut().insert((Instant::now() + live.resume_window, id));
    }

    /// Forgets a finished stream at once where its window is over and nobody reads it.
    fn expire_when_unread(&self, id: Ulid) {
        let now = Instant::now();
        let over = |(until, other): &(Instant, Ulid)| *other == id && *until <= now;
        let entry = self.finished.borrow().iter().find(|entry| over(entry)).copied();
        if let Some(entry) = entry {
            self.expire(entry);
        }
    }

    fn expire(&self, entry: (Instant, Ulid)) {
        let stream = self.shared.registry.find(entry.1);
        if stream.is_none_or(|stream| stream.with_log(|log| log.readers()) == 0) {
            self.finished.borrow_mut().remove(&entry);
            self.shared.registry.remove(entry.1);
        }
    }

    fn forget_oldest(&self) {
        let oldest: Vec<_> = self.finished.borrow().iter().take(64).copied().collect();
        oldest.into_iter().for_each(|entry| self.expire(entry));
    }

    async fn sweep(&self) {
        loop {
            uring::time::sleep(SWEEP_EVERY).await;
            let now = Instant::now();
            let over: Vec<_> =
                self.finished.borrow().iter().take_while(|(until, _)| *until <= now).copied().collect();
            over.into_iter().for_each(|entry| self.expire(entry));
        }
    }

    /// Streams that this core owns and that still run.
    #[must_use]
    pub fn running(&self) -> usize {
        self.live.borrow().len()
    }

    /// Every stream of this core that still runs.
    pub(super) fn all_live(&self) -> Vec<Rc<Live>> {
        self.live.borrow().values().cloned().collect()
    }

    pub(super) fn with_scratch<T>(&self, write: impl FnOnce(&mut BytesMut) -> T) -> T {
        let mut scratch = self.scratch.borrow_mut();
        scratch.reserve(SCRATCH_BYTES / 4);
        write(&mut scratch)
    }
}
