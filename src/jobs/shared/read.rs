//! Jobs in Redis as their clients ask for them, on whichever node.

use super::create::{self, Made, New};
use super::mirror;
use super::store::{self, Fields, number, text};
use crate::cluster::{Link, Trouble};
use crate::crawl::node::Node;
use crate::error::{ApiCode, ApiError};
use crate::jobs::Jobs;
use crate::jobs::memory::Owner;
use crate::jobs::request::JobRequest;
use crate::jobs::view::{Delivery, Status, View};
use crate::observe::metrics::Counter;
use crate::proto::events::{self, Counts, Metadata};
use crate::stream::Stream;
use bytes::BytesMut;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};
use ulid::Ulid;

/// For how long a client's question about jobs may take.
const PATIENCE: Duration = Duration::from_secs(5);
/// For how long the URLs of a job may take to get there.
const CREATE_PATIENCE: Duration = Duration::from_secs(60);
/// When to ask again for a job that is being made.
const MAKING_PAUSE: Duration = Duration::from_secs(1);
/// How often a job is looked at that is to end.
const CANCEL_LOOK: Duration = Duration::from_millis(50);

/// What became of a job that was handed in.
#[derive(Debug)]
pub enum Submitted {
    /// It is there.
    New(View),
    /// The same one was there before.
    Same(View),
}

impl Jobs {
    /// Makes a job in Redis.
    ///
    /// # Errors
    /// `overloaded`, `rate_limited` or `idempotency_conflict`.
    pub async fn submit(
        &self,
        node: &Node,
        id: Ulid,
        owner: Owner,
        request: JobRequest,
    ) -> Result<Submitted, ApiError> {
        let principal = Arc::clone(&owner.principal);
        let new = self.new_job(id, owner, request);
        let created = self.cluster.ask(CREATE_PATIENCE, move |link| create::create(link, new));
        let again = |code, message: &str| {
            Err(ApiError::new(code, message).retry_after(Duration::from_secs(10)))
        };
        match created.await.map_err(trouble)? {
            Made::New => {
                node.observe.count(Counter::JobsStarted);
                self.look(id, &principal).await.map(Submitted::New)
            }
            Made::Same(before) => self.look(before, &principal).await.map(Submitted::Same),
            Made::Unfinished => {
                let message = "the job of this Idempotency-Key is being made";
                Err(ApiError::new(ApiCode::Overloaded, message).retry_after(MAKING_PAUSE))
            }
            Made::Conflict => {
                let message = "this Idempotency-Key was used for another request";
                Err(ApiError::new(ApiCode::IdempotencyConflict, message))
            }
            Made::Full => again(ApiCode::Overloaded, "there are as many jobs as there may be"),
            Made::KeyFull => {
                again(ApiCode::RateLimited, "this key has as many jobs as it may have")
            }
        }
    }

    fn new_job(&self, id: Ulid, owner: Owner, request: JobRequest) -> New {
        let (created, deadline_ms) = (SystemTime::now(), request.crawl.options.deadline_ms);
        let facts = Metadata {
            stream_id: &id.to_string(),
            total_urls: request.crawl.urls.len(),
            stream_type: "job",
            request_id: owner.request_id.as_str(),
            at: created,
            resume_window_s: self.config().jobs_retention_s,
            replay_bytes_max: self.config().jobs_bytes_max,
            deadline_ms,
            warnings: &[],
        };
        let metadata = events::metadata(&mut BytesMut::new(), &facts).head;
        let created_ms = store::now_ms();
        let principal = owner.principal;
        let idempotency = owner.idempotency_key.map(|key| {
            // Whose key it is, is a part of what it is known by.
            let name = format!("{principal}\n{key}");
            let digest = ring::digest::digest(&ring::digest::SHA256, name.as_bytes());
            let hex = digest.as_ref().iter().map(|byte| format!("{byte:02x}")).collect();
            (hex, request.fingerprint)
        });
        New {
            id,
            principal,
            idempotency,
            urls: request.crawl.urls,
            options: request.options_json,
            webhook: request.webhook,
            metadata,
            created_ms,
            deadline_ms: created_ms + deadline_ms,
            retention_s: self.config().jobs_retention_s,
            kept_max: self.config().jobs_kept_max,
            key_max: self.config().jobs_key_max,
        }
    }

    /// A job of a principal.
    ///
    /// # Errors
    /// `not_found`, or `overloaded` while Redis does not answer.
    pub async fn look(&self, id: Ulid, principal: &str) -> Result<View, ApiError> {
        let asked = self
            .cluster
            .ask(PATIENCE, move |link: Link| async move { store::meta(&link, id).await });
        let meta = asked.await.map_err(trouble)?;
        let theirs = meta.get("principal").is_some_and(|owner| owner == principal.as_bytes());
        let view = view(id, &meta).filter(|_| theirs);
        view.ok_or_else(|| ApiError::new(ApiCode::NotFound, "there is no job of this id"))
    }

    /// The principal's jobs before one, the newest first.
    ///
    /// # Errors
    /// `overloaded` while Redis does not answer.
    pub async fn look_all(
        &self,
        principal: &Arc<str>,
        before: Option<Ulid>,
        most: usize,
    ) -> Result<Vec<View>, ApiError> {
        let principal = Arc::clone(principal);
        let asked =
            self.cluster.ask(PATIENCE, move |link| store::list(link, principal, before, most));
        let all = asked.await.map_err(trouble)?;
        Ok(all.iter().filter_map(|(id, meta)| view(*id, meta)).collect())
    }

    /// Ends a job of a principal and waits until it has ended, for so long at most.
    ///
    /// # Errors
    /// As [`Jobs::look`].
    pub async fn end_shared(
        &self,
        id: Ulid,
        principal: &str,
        patience: Duration,
    ) -> Result<View, ApiError> {
        let until = Instant::now() + patience;
        let mut view = self.look(id, principal).await?;
        if view.status.ended() {
            return Ok(view);
        }
        self.cluster.ask(PATIENCE, move |link| store::cancel(link, id)).await.map_err(trouble)?;
        loop {
            view = self.look(id, principal).await?;
            if view.status.ended() || Instant::now() >= until {
                return Ok(view);
            }
            uring::time::sleep(CANCEL_LOOK).await;
        }
    }

    /// A stream of this core that shows a job's events behind `after`, for as long as somebody reads it.
    pub fn mirror(
        self: &Arc<Self>,
        node: &Rc<Node>,
        view: &View,
        after: Option<u64>,
    ) -> Arc<Stream> {
        mirror::start(node, self.cluster.clone(), view, after)
    }
}

/// What a client is told of a Redis that does not do its work.
fn trouble(trouble: Trouble) -> ApiError {
    let message = format!("jobs are in Redis: {trouble}");
    ApiError::new(ApiCode::Overloaded, message).retry_after(Duration::from_secs(1))
}

/// A job as its hash has it.
pub(super) fn view(id: Ulid, meta: &Fields) -> Option<View> {
    // One that is being made is none yet: of no word of ours.
    let status = Status::read(&text(meta, "status"))?;
    let at = |name| {
        let ms = number(meta, name);
        (ms > 0).then(|| UNIX_EPOCH + Duration::from_millis(ms))
    };
    let counts = Counts {
        total: number(meta, "total"),
        successful: number(meta, "ok"),
        failed: number(meta, "failed"),
        cancelled: number(meta, "cancelled"),
        from_cache: number(meta, "cached"),
    };
    let webhook = meta.contains_key("hook").then(|| Delivery {
        state: text(meta, "hook"),
        attempts: u32::try_from(number(meta, "hook_attempts")).unwrap_or(u32::MAX),
        status: u16::try_from(number(meta, "hook_status")).unwrap_or(0),
        error: Some(text(meta, "hook_error")).filter(|error| !error.is_empty()),
    });
    Some(View {
        id,
        status,
        error: (status == Status::Failed).then_some("deadline_exceeded"),
        place: "redis",
        counts,
        last_seq: Some(number(meta, "seq")),
        bytes: number(meta, "bytes"),
        created: at("created")?,
        started: at("started"),
        ended: at("ended"),
        deadline: at("deadline")?,
        retention: Duration::from_secs(number(meta, "retention")),
        webhook,
    })
}
