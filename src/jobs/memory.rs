//! Jobs in this process' memory: each is a stream that nobody needs to read. They end with the
//! process.

use super::Jobs;
use super::request::JobRequest;
use super::view::{Delivery, Status, View};
use super::webhook::Webhook;
use crate::crawl::live::{Background, Live, Terms};
use crate::crawl::node::Node;
use crate::crawl::request::OrderName;
use crate::error::{ApiCode, ApiError};
use crate::observe::metrics::{Counter, JobEnd};
use crate::observe::request_id::RequestId;
use crate::observe::series::Endpoint;
use crate::stream::machine::Ending;
use crate::stream::{Stream, Totals};
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::rc::Rc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant, SystemTime};
use ulid::Ulid;

/// Whose job, and by what name of the client's.
#[derive(Debug, Clone)]
pub struct Owner {
    /// The credential's.
    pub principal: Arc<str>,
    /// The `Idempotency-Key`, as it was claimed.
    pub idempotency_key: Option<Box<str>>,
    /// The id of the request that made it.
    pub request_id: RequestId,
}

/// All jobs of the process.
#[derive(Debug, Default)]
pub struct Shelf {
    records: BTreeMap<Ulid, Arc<Record>>,
    /// Jobs whose turn has not come, and their cores.
    waiting: VecDeque<(Ulid, usize)>,
    /// Jobs whose results may go, by when.
    over: BTreeSet<(Instant, Ulid)>,
    /// Webhooks to be delivered, by when.
    pub(super) due: BTreeSet<(Instant, Ulid)>,
    /// URLs of all records.
    urls: usize,
}

/// One job.
#[derive(Debug)]
pub struct Record {
    /// The job's stream.
    pub stream: Arc<Stream>,
    /// Who is told of its end.
    pub webhook: Option<Webhook>,
    created: SystemTime,
    deadline: SystemTime,
    retention: Duration,
    turn: AtomicBool,
    facts: Mutex<Facts>,
}

#[derive(Debug, Default)]
struct Facts {
    started: Option<SystemTime>,
    ended: Option<(SystemTime, Status, Option<&'static str>)>,
    delivery: Delivery,
}

impl Record {
    /// As its client sees it.
    #[must_use]
    pub fn view(&self) -> View {
        let status = self.stream.status();
        let (next_seq, bytes) = self.stream.with_log(|log| (log.next_seq(), log.bytes()));
        let facts = self.facts();
        let (ended, word, error) = match facts.ended {
            Some((at, status, error)) => (Some(at), status, error),
            None if self.stream.aborted() => (None, Status::Cancelling, None),
            None if self.turn.load(Ordering::Relaxed) => (None, Status::Running, None),
            None => (None, Status::Queued, None),
        };
        View {
            id: self.stream.id(),
            status: word,
            error,
            place: "memory",
            counts: status.counts,
            last_seq: next_seq.checked_sub(1),
            bytes: bytes as u64,
            created: self.created,
            started: facts.started,
            ended,
            deadline: self.deadline,
            retention: self.retention,
            webhook: self.webhook.as_ref().map(|_| facts.delivery.clone()),
        }
    }

    /// Notes how the delivery of its webhook stands.
    pub fn note_delivery(&self, note: impl FnOnce(&mut Delivery)) {
        note(&mut self.facts().delivery);
    }

    fn facts(&self) -> MutexGuard<'_, Facts> {
        self.facts.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Jobs {
    /// Begins a job in memory.
    ///
    /// # Errors
    /// `overloaded` or `rate_limited`: there are as many as there may be.
    pub fn begin(
        self: &Arc<Self>,
        node: &Rc<Node>,
        id: Ulid,
        owner: Owner,
        request: JobRequest,
    ) -> Result<View, ApiError> {
        self.admit(&owner.principal, request.crawl.urls.len())?;
        let (created, options) = (SystemTime::now(), &request.crawl.options);
        let running = Rc::new(Running { jobs: Arc::clone(self), id });
        let terms = Terms {
            id,
            principal: owner.principal,
            idempotency_key: owner.idempotency_key,
            place: None,
            order: OrderName::Completion,
            resumable: true,
            request_id: owner.request_id,
            endpoint: Endpoint::Other,
            background: Some(running),
        };
        let deadline = created + Duration::from_millis(options.deadline_ms);
        let (webhook, core) = (request.webhook, node.index);
        let record = Live::start(node, request.crawl, terms, |stream| {
            let record = Arc::new(Record {
                stream: Arc::clone(stream),
                webhook,
                created,
                deadline,
                retention: self.retention(),
                turn: AtomicBool::new(false),
                facts: Mutex::default(),
            });
            record.note_delivery(|delivery| delivery.state = "pending".to_owned());
            let mut shelf = self.shelf();
            shelf.urls += stream.birth.urls;
            shelf.records.insert(id, Arc::clone(&record));
            shelf.waiting.push_back((id, core));
            record
        });
        node.observe.count(Counter::JobsStarted);
        self.give_turns(node);
        Ok(record.view())
    }

    /// A job of a principal.
    #[must_use]
    pub fn find(&self, id: Ulid, principal: &str) -> Option<Arc<Record>> {
        let record = self.shelf().records.get(&id).cloned();
        record.filter(|record| &*record.stream.birth.principal == principal)
    }

    /// A job of whoever's.
    #[must_use]
    pub(super) fn record(&self, id: Ulid) -> Option<Arc<Record>> {
        self.shelf().records.get(&id).cloned()
    }

    /// The principal's jobs before one, the newest first.
    #[must_use]
    pub fn list(&self, principal: &str, before: Option<Ulid>, most: usize) -> Vec<View> {
        let shelf = self.shelf();
        let upto = before.unwrap_or(Ulid(u128::MAX));
        let all = shelf.records.range(..upto).rev().map(|(_, record)| record);
        let theirs = all.filter(|record| &*record.stream.birth.principal == principal);
        let records: Vec<_> = theirs.take(most).cloned().collect();
        drop(shelf);
        records.iter().map(|record| record.view()).collect()
    }

    /// Forgets jobs whose retention is over.
    pub(super) fn sweep(&self, node: &Node) {
        let now = Instant::now();
        let mut shelf = self.shelf();
        let mut gone = Vec::new();
        while let Some((until, id)) = shelf.over.first().copied().filter(|(until, _)| *until <= now)
        {
            shelf.over.remove(&(until, id));
            shelf.due.retain(|(_, other)| *other != id);
            if let Some(record) = shelf.records.remove(&id) {
                shelf.urls -= record.stream.birth.urls;
                gone.push(record);
            }
        }
        drop(shelf);
        for record in &gone {
            let birth = &record.stream.birth;
            node.shared.registry.remove(birth.id);
            if let Some(key) = &birth.idempotency_key {
                node.shared.keys.release(&birth.principal, key, birth.id);
            }
        }
        if !gone.is_empty() {
            // To free many events takes longer than a loop may.
            let thread = std::thread::Builder::new().name("job".to_owned());
            drop(thread.spawn(move || drop(gone)));
        }
    }

    pub(super) fn shelf(&self) -> MutexGuard<'_, Shelf> {
        self.shelf.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn admit(&self, principal: &str, urls: usize) -> Result<(), ApiError> {
        let shelf = self.shelf();
        let refuse = |code, message: String| {
            Err(ApiError::new(code, message).retry_after(Duration::from_secs(10)))
        };
        if shelf.records.len() >= self.config().jobs_kept_max {
            let message = format!("there are {} jobs, the maximum", shelf.records.len());
            return refuse(ApiCode::Overloaded, message);
        }
        if shelf.urls + urls > self.config().jobs_urls_total_max {
            let message = format!("the jobs that there are have {} urls already", shelf.urls);
            return refuse(ApiCode::Overloaded, message);
        }
        let most = self.config().jobs_key_max;
        let theirs = shelf.records.values().filter(|record| {
            &*record.stream.birth.principal == principal && record.facts().ended.is_none()
        });
        if most > 0 && theirs.count() >= most {
            let message = format!("this key has {most} jobs that have not ended, its maximum");
            return refuse(ApiCode::RateLimited, message);
        }
        Ok(())
    }

    /// Lets jobs fetch that wait for their turn, while there is one.
    fn give_turns(&self, node: &Rc<Node>) {
        let most = u32::try_from(self.config().jobs_running_max).unwrap_or(u32::MAX);
        let mut begun = Vec::new();
        let mut shelf = self.shelf();
        while self.running.load(Ordering::Relaxed) < most
            && let Some((id, core)) = shelf.waiting.pop_front()
        {
            let Some(record) = shelf.records.get(&id) else { continue };
            let mut facts = record.facts();
            if facts.ended.is_some() {
                continue;
            }
            facts.started = Some(SystemTime::now());
            drop(facts);
            record.turn.store(true, Ordering::Relaxed);
            self.running.fetch_add(1, Ordering::Relaxed);
            begun.push((core, id));
        }
        drop(shelf);
        if begun.is_empty() {
            return;
        }
        // From a task of its own: the stream whose end has made room is still at work.
        let node = Rc::clone(node);
        drop(uring::spawn(async move {
            begun.into_iter().for_each(|(core, id)| node.look_at(core, id));
        }));
    }

    fn end(&self, node: &Rc<Node>, id: Ulid, ending: Option<Ending>) {
        let Some(record) = self.record(id) else { return };
        let (status, error, end) = match ending {
            None => (Status::Completed, None, JobEnd::Completed),
            Some(Ending::Cancelled) => (Status::Cancelled, None, JobEnd::Cancelled),
            Some(Ending::Deadline) => (Status::Failed, Some("deadline_exceeded"), JobEnd::Failed),
            Some(Ending::Failed) => (Status::Failed, Some("internal_error"), JobEnd::Failed),
            Some(Ending::Drained) => {
                let counts = record.stream.status().counts;
                tracing::warn!(
                    job = %id, done = counts.successful + counts.failed, total = counts.total,
                    "a job in memory was ended by the shutdown"
                );
                (Status::Failed, Some("draining"), JobEnd::Failed)
            }
        };
        node.observe.count(Counter::JobsEnded(end));
        record.facts().ended = Some((SystemTime::now(), status, error));
        let wanted =
            |hook: &Webhook| status.event().is_some_and(|event| hook.events.contains(&event));
        let now = Instant::now();
        let mut shelf = self.shelf();
        shelf.over.insert((now + record.retention, id));
        match &record.webhook {
            Some(hook) if wanted(hook) => {
                shelf.due.insert((now, id));
            }
            _ => record.note_delivery(|delivery| delivery.state = "unwanted".to_owned()),
        }
        drop(shelf);
        if record.turn.load(Ordering::Relaxed) {
            self.running.fetch_sub(1, Ordering::Relaxed);
            self.give_turns(node);
        }
    }
}

/// A job's stream, as the crawl knows it.
struct Running {
    jobs: Arc<Jobs>,
    id: Ulid,
}

impl std::fmt::Debug for Running {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "job {}", self.id)
    }
}

impl Background for Running {
    fn totals(&self) -> Arc<Totals> {
        Arc::clone(&self.jobs.totals)
    }

    fn pages_max(&self) -> u32 {
        let turn =
            self.jobs.record(self.id).is_some_and(|record| record.turn.load(Ordering::Relaxed));
        if !turn {
            return 0;
        }
        let all = self.jobs.config().jobs_concurrency.saturating_mul(self.jobs.cores);
        (all / self.jobs.running.load(Ordering::Relaxed).max(1)).max(1)
    }

    fn room(&self) -> usize {
        let held = self.jobs.totals.bytes.load(Ordering::Relaxed);
        self.jobs.config().jobs_bytes_max.saturating_sub(held)
    }

    fn kept_for(&self) -> Duration {
        self.jobs.retention()
    }

    fn ended(&self, node: &Rc<Node>, ending: Option<Ending>) {
        self.jobs.end(node, self.id, ending);
    }
}
