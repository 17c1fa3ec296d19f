//! A core's share of the jobs in Redis: claims URLs, works on their pages, writes what became of them.

use super::store::{self, Batch, Claimed, Outcome, number, text};
use crate::cluster::{Link, Trouble};
use crate::crawl::mesh::PageJob;
use crate::crawl::node::Node;
use crate::crawl::request::Options;
use crate::error::{PageCode, PageError, Stage};
use crate::jobs::{Jobs, request};
use crate::limits::JOB_TAKEOVERS_MAX;
use crate::local::Semaphore;
use crate::observe::metrics::{Counter, JobEnd, PageEnd};
use crate::proto::events::{self, PageResult};
use crate::proto::text::Text;
use crate::stream::place::Place;
use crate::stream::{Birth, Patience, Stream, Totals};
use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};
use ulid::Ulid;

/// Claims that a core holds for each page that it works on, so that it has something to do while it
/// asks for more.
const CLAIMS_PER_PAGE: usize = 3;
/// How often a core asks for URLs where there were none.
const LOOK_EVERY: Duration = Duration::from_millis(200);
/// How often it asks again where Redis is not well.
const TROUBLE_PAUSE: Duration = Duration::from_millis(300);
/// How often a core looks how its jobs stand.
const WATCH_EVERY: Duration = Duration::from_millis(500);
/// How long Redis is waited for.
const PATIENCE: Duration = Duration::from_secs(5);
/// How often a suspect looks whether it may be the only one now.
const ALONE_LOOK: Duration = Duration::from_millis(20);
/// Refusals after which a result is left to another node.
const REFUSALS_MAX: u32 = 10;

/// See the module.
pub(in crate::jobs) struct Worker {
    node: Rc<Node>,
    jobs: Arc<Jobs>,
    consumer: Arc<str>,
    places: Rc<Semaphore>,
    held: Cell<usize>,
    handles: RefCell<HashMap<Ulid, Rc<Handle>>>,
}

/// A job of which this core holds claims.
struct Handle {
    /// What its pages run for; nobody reads it.
    stream: Arc<Stream>,
    options: Arc<Options>,
    deadline: Instant,
    cancelled: Cell<bool>,
    claims: RefCell<HashMap<u32, String>>,
}

/// How a page is worked on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Manner {
    /// Beside others.
    Beside,
    /// As the only suspect of this process.
    Alone,
    /// Not at all.
    GivenUp,
}

impl Manner {
    /// Of a page that nodes were lost with and that was begun again so often since. The first time
    /// nobody knows which of the pages it was, so they are tried as before; from then on one by one, so
    /// that no page is given up for what its neighbour did.
    const fn of(begun_again: u64) -> Self {
        match begun_again {
            0 => Self::Beside,
            JOB_TAKEOVERS_MAX.. => Self::GivenUp,
            _ => Self::Alone,
        }
    }
}

impl Worker {
    /// The worker of a core.
    pub(in crate::jobs) fn new(node: &Rc<Node>, jobs: &Arc<Jobs>) -> Rc<Self> {
        let places = usize::try_from(jobs.config().jobs_concurrency).unwrap_or(usize::MAX);
        Rc::new(Self {
            node: Rc::clone(node),
            jobs: Arc::clone(jobs),
            consumer: format!("{}-{}", jobs.node_id, node.index).into(),
            places: Semaphore::new(places),
            held: Cell::new(0),
            handles: RefCell::default(),
        })
    }

    /// Works until the server drains.
    pub(in crate::jobs) async fn run(self: Rc<Self>) {
        let watcher = Rc::clone(&self);
        drop(uring::spawn(async move { watcher.watch().await }));
        let pages = usize::try_from(self.jobs.config().jobs_concurrency).unwrap_or(usize::MAX);
        let (most, takeover) = (pages * CLAIMS_PER_PAGE, self.takeover());
        let mut looked = None;
        while !self.node.draining() {
            let free = most.saturating_sub(self.held.get());
            if free < pages || self.node.readiness().is_err() {
                uring::time::sleep(Duration::from_millis(5)).await;
                continue;
            }
            let now = Instant::now();
            let due = looked.is_none_or(|looked| now >= looked + takeover / 4);
            let (consumer, idle) = (Arc::clone(&self.consumer), due.then_some(takeover));
            let bytes_max = self.jobs.config().jobs_bytes_max as u64;
            let claiming = self
                .jobs
                .cluster
                .ask(PATIENCE, move |link| store::claim(link, consumer, free, idle, bytes_max));
            match claiming.await {
                Ok(batches) => {
                    if due {
                        looked = Some(now);
                    }
                    let nothing = batches.is_empty();
                    batches.into_iter().for_each(|batch| self.take(batch));
                    if nothing {
                        uring::time::sleep(LOOK_EVERY).await;
                    }
                }
                Err(trouble) => {
                    if matches!(trouble, Trouble::Refused(_) | Trouble::Garbage) {
                        tracing::warn!("URLs of jobs can't be claimed: {trouble}");
                    }
                    uring::time::sleep(TROUBLE_PAUSE).await;
                }
            }
        }
    }

    fn takeover(&self) -> Duration {
        Duration::from_secs(self.jobs.config().jobs_takeover_s)
    }

    /// Begins to work on what was claimed.
    fn take(self: &Rc<Self>, batch: Batch) {
        self.node.observe.add(Counter::JobsTakenOver, batch.taken_over as u64);
        let handle = match self.handle(&batch) {
            Ok(handle) => handle,
            Err(error) => {
                // A node of its own version takes the claims over.
                tracing::error!(job = %batch.job, "{error}");
                return;
            }
        };
        if text(&batch.meta, "status") == "cancelling" {
            self.cancel(&handle);
        }
        for claimed in batch.urls {
            let index = claimed.index;
            handle.claims.borrow_mut().insert(index, claimed.claim.clone());
            self.held.set(self.held.get() + 1);
            let (worker, handle) = (Rc::clone(self), Rc::clone(&handle));
            drop(uring::spawn(async move {
                let busy = worker.node.busy();
                worker.work(&handle, claimed).await;
                worker.forget(&handle, index);
                drop(busy);
            }));
        }
    }

    fn handle(&self, batch: &Batch) -> Result<Rc<Handle>, crate::error::ApiError> {
        if let Some(handle) = self.handles.borrow().get(&batch.job) {
            return Ok(Rc::clone(handle));
        }
        let options = request::reread(&text(&batch.meta, "options"), self.jobs.config())?;
        let left = number(&batch.meta, "deadline").saturating_sub(store::now_ms());
        let now = Instant::now();
        let birth = Birth {
            id: batch.job,
            owner: self.node.index,
            // Whose pages they are: the index keeps them for their owner.
            principal: text(&batch.meta, "principal").into(),
            idempotency_key: None,
            replay_bytes_max: 0,
            resume_window: Duration::ZERO,
            patience: Patience { stall: Duration::ZERO, cut_slow: false },
            began: now,
            urls: 0,
            home: None,
        };
        let handle = Rc::new(Handle {
            stream: Stream::new(birth, Arc::new(Totals::default())),
            options: Arc::new(options),
            deadline: now + Duration::from_millis(left),
            cancelled: Cell::new(false),
            claims: RefCell::default(),
        });
        self.handles.borrow_mut().insert(batch.job, Rc::clone(&handle));
        Ok(handle)
    }

    fn forget(&self, handle: &Rc<Handle>, index: u32) {
        self.held.set(self.held.get() - 1);
        handle.claims.borrow_mut().remove(&index);
        if handle.claims.borrow().is_empty() {
            self.handles.borrow_mut().remove(&handle.stream.id());
        }
    }

    fn cancel(&self, handle: &Handle) {
        if !handle.cancelled.replace(true) {
            handle.stream.abort();
            self.node.abort_pages(handle.stream.id());
        }
    }

    /// Works on one page to its end, and sees to it that this is written.
    async fn work(&self, handle: &Rc<Handle>, claimed: Claimed) {
        let Claimed { claim, index, url, again } = claimed;
        let Some((manner, alone)) = self.manner(handle, index, again).await else { return };
        let place = self.places.acquire().await;
        if self.node.draining() {
            return; // others take it over
        }
        let Some(page) = self.tried(handle, index, url.into(), (again, manner)).await else {
            return;
        };
        let code = page.error.as_ref().map(|error| error.code);
        let class = match code {
            None => "ok",
            // Nobody has cancelled it: this node is going down.
            Some(PageCode::Cancelled) if !handle.cancelled.get() => return,
            Some(PageCode::Cancelled) => "cancelled",
            Some(_) => "failed",
        };
        let end = match code {
            Some(code) => PageEnd::Failed(code),
            None if page.cache.from_cache() => PageEnd::Cached,
            None => PageEnd::Approved,
        };
        self.node.observe.count(Counter::Pages(end));
        self.node.observe.record_page(&page.timings);
        let answer = events::answer(&mut bytes::BytesMut::with_capacity(512), &page);
        let late = code == Some(PageCode::DeadlineExceeded);
        let (job, cached) = (handle.stream.id(), page.cache.from_cache());
        // A page in the cache has no bytes of its own: nothing but this is held while Redis is away.
        let result: Arc<[u8]> = answer.text().into();
        self.append(handle, &|| Outcome {
            job,
            index,
            claim: claim.clone(),
            class,
            cached,
            late,
            result: Arc::clone(&result),
        })
        .await;
        drop((place, alone));
    }

    /// How a page is to be worked on, and its place where that is alone; nothing where this node goes
    /// down first.
    async fn manner(
        &self,
        handle: &Handle,
        index: u32,
        again: bool,
    ) -> Option<(Manner, Option<Place>)> {
        if !again {
            return Some((Manner::Beside, None));
        }
        let job = handle.stream.id();
        let begun = self.insist(|| move |link| store::begun_again(link, job, index)).await?;
        let manner = Manner::of(begun);
        while manner == Manner::Alone && !self.node.draining() {
            let over = handle.cancelled.get() || Instant::now() >= handle.deadline;
            let place = Place::take(&self.jobs.suspects, 1);
            if over || place.is_some() {
                return Some((manner, place));
            }
            uring::time::sleep(ALONE_LOOK).await;
        }
        (!self.node.draining()).then_some((manner, None))
    }

    /// What becomes of a page; that it was begun again is noted first. Nothing where this node goes down.
    async fn tried(
        &self,
        handle: &Rc<Handle>,
        index: u32,
        url: Text,
        (again, manner): (bool, Manner),
    ) -> Option<PageResult> {
        if manner == Manner::GivenUp {
            return Some(given_up(url));
        }
        if again {
            let job = handle.stream.id();
            self.insist(|| move |link| store::begin_again(link, job, index)).await?;
        }
        Some(self.page(handle, index, url).await)
    }

    /// Asks Redis until it answers; nothing where this node goes down first.
    async fn insist<T, F, W>(&self, work: impl Fn() -> W) -> Option<T>
    where
        T: Send + 'static,
        W: FnOnce(Link) -> F + Send + 'static,
        F: Future<Output = Result<T, Trouble>> + Send + 'static,
    {
        while !self.node.draining() {
            if let Ok(answer) = self.jobs.cluster.ask(PATIENCE, work()).await {
                return Some(answer);
            }
            uring::time::sleep(TROUBLE_PAUSE).await;
        }
        None
    }

    async fn page(&self, handle: &Rc<Handle>, index: u32, url: Text) -> PageResult {
        let early = if handle.cancelled.get() {
            Some((PageCode::Cancelled, "the job was cancelled"))
        } else if Instant::now() >= handle.deadline {
            let message = "the job's deadline_ms passed before this page was done";
            Some((PageCode::DeadlineExceeded, message))
        } else {
            None
        };
        if let Some((code, message)) = early {
            return PageResult::failed(url, PageError::new(code, Stage::Queue, message));
        }
        let job = PageJob {
            stream: Arc::clone(&handle.stream),
            key: self.node.page_key(&handle.options, &url),
            url,
            index,
            options: Arc::clone(&handle.options),
            since: Instant::now(),
            deadline: handle.deadline,
        };
        self.node.page(&job).await
    }

    /// Writes a result, however long Redis is away.
    async fn append(&self, handle: &Rc<Handle>, outcome: &impl Fn() -> Outcome) {
        let mut refused = 0;
        loop {
            let outcome = outcome();
            let (job, index) = (outcome.job, outcome.index);
            let asked = self.jobs.cluster.ask(PATIENCE, move |link| store::append(link, outcome));
            match asked.await {
                Ok(answer) => {
                    self.note(handle, &answer);
                    return;
                }
                Err(Trouble::Refused(code)) if refused >= REFUSALS_MAX => {
                    // The claim stays, so the page is not lost.
                    tracing::error!(%job, index, "a result can't be written: {code}");
                    return;
                }
                Err(trouble) => {
                    refused += u32::from(matches!(trouble, Trouble::Refused(_)));
                    uring::time::sleep(TROUBLE_PAUSE).await;
                }
            }
        }
    }

    fn note(&self, handle: &Rc<Handle>, answer: &[String]) {
        let status = answer.first().map(String::as_str);
        if matches!(status, None | Some("cancelling")) {
            self.cancel(handle);
        }
        if answer.get(1).is_some_and(|word| word == "last") {
            self.node.observe.count(Counter::JobsEnded(match status {
                Some("completed") => JobEnd::Completed,
                Some("cancelled") => JobEnd::Cancelled,
                _ => JobEnd::Failed,
            }));
        }
    }

    /// Says of the claims that they are worked on, and ends pages whose job was cancelled.
    async fn watch(self: Rc<Self>) {
        let mut kept = Instant::now();
        loop {
            uring::time::sleep(WATCH_EVERY).await;
            let keep = kept.elapsed() >= self.takeover() / 4;
            if keep {
                kept = Instant::now();
            }
            let handles: Vec<_> = self.handles.borrow().values().cloned().collect();
            for handle in handles {
                let claims = match keep {
                    true => handle.claims.borrow().values().cloned().collect(),
                    false => Vec::new(),
                };
                let (id, consumer) = (handle.stream.id(), Arc::clone(&self.consumer));
                let asked = self
                    .jobs
                    .cluster
                    .ask(PATIENCE, move |link| store::keep_claims(link, id, consumer, claims));
                if asked.await.is_ok_and(|status| status == "cancelling") {
                    self.cancel(&handle);
                }
            }
        }
    }
}

/// The result of a page that no node has lived to see.
fn given_up(url: Text) -> PageResult {
    let message = format!(
        "given up after {JOB_TAKEOVERS_MAX} takeovers: each node that worked on this page was lost"
    );
    PageResult::failed(url, PageError::new(PageCode::InternalError, Stage::Queue, message))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_page_that_nodes_are_lost_with_is_isolated_and_then_given_up() {
        assert_eq!(Manner::of(0), Manner::Beside);
        assert!((1..JOB_TAKEOVERS_MAX).all(|begun| Manner::of(begun) == Manner::Alone));
        for begun in [JOB_TAKEOVERS_MAX, JOB_TAKEOVERS_MAX + 1, u64::MAX] {
            assert_eq!(Manner::of(begun), Manner::GivenUp);
        }
        let result = given_up("http://a.test/".into());
        let error = result.error.expect("it has none");
        assert_eq!((error.code, error.stage), (PageCode::InternalError, Stage::Queue));
        assert!(!error.code.retryable() && error.message.contains("after 6 takeovers"), "{error}");
    }
}
