//! Delivers webhooks, from the first core: those of this process' jobs, and those that Redis says are
//! due.

use super::Jobs;
use super::memory::Record;
use super::view::Delivery;
use super::webhook::{Attempt, Verdict, Webhook};
use crate::crawl::node::Node;
use crate::error::PageCode;
use crate::fetch::{FetchRequest, Fetcher};
use crate::limits::WEBHOOKS_FLYING_MAX;
use crate::observe::metrics::{Counter, HookEnd};
use crate::stream::place::Place;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};
use ulid::Ulid;

/// How often due webhooks are looked for.
const LOOK_EVERY: Duration = Duration::from_millis(100);
/// Looks at this process' memory for one at Redis.
const LOOKS_PER_REDIS: u32 = 5;
/// Bytes of a receiver's answer that are read; what it says beside its status does not matter.
const ANSWER_BYTES_MAX: u64 = 64 * 1024;

/// Delivers for as long as the core runs.
pub(super) async fn run(jobs: Arc<Jobs>, node: Rc<Node>, hooks: Rc<Fetcher>) {
    let courier = Rc::new(Courier { jobs, node, hooks });
    for look in 0_u32.. {
        uring::time::sleep(LOOK_EVERY).await;
        courier.jobs.sweep(&courier.node);
        courier.launch();
        let redis = courier.jobs.in_redis() && look % LOOKS_PER_REDIS == 0;
        if redis && let Some(place) = courier.place() {
            let courier = Rc::clone(&courier);
            drop(uring::spawn(async move { courier.launch_shared(place).await }));
        }
    }
}

/// Carries webhooks to their receivers.
pub(super) struct Courier {
    pub(super) jobs: Arc<Jobs>,
    pub(super) node: Rc<Node>,
    hooks: Rc<Fetcher>,
}

impl Courier {
    fn place(&self) -> Option<Place> {
        Place::take(&self.jobs.flying, WEBHOOKS_FLYING_MAX)
    }

    /// Begins the deliveries that are due, as many as may be under way.
    fn launch(self: &Rc<Self>) {
        let now = Instant::now();
        while let Some(place) = self.place() {
            let mut shelf = self.jobs.shelf();
            let Some((due, id)) = shelf.due.first().copied().filter(|(due, _)| *due <= now) else {
                return;
            };
            shelf.due.remove(&(due, id));
            drop(shelf);
            let Some(record) = self.jobs.record(id) else { continue };
            let courier = Rc::clone(self);
            drop(uring::spawn(async move {
                courier.deliver(&record).await;
                drop(place);
            }));
        }
    }

    async fn deliver(&self, record: &Record) {
        let Some(hook) = &record.webhook else { return };
        let view = record.view();
        let before = view.webhook.clone().unwrap_or_default();
        let (after, again) = self.attempt(view.id, hook, &view.webhook_body(), before).await;
        record.note_delivery(|delivery| *delivery = after);
        if let Some(pause) = again {
            self.jobs.shelf().due.insert((Instant::now() + pause, view.id));
        }
    }

    /// One attempt: how the delivery stands after it, and when it is to be tried again.
    pub(super) async fn attempt(
        &self,
        job: Ulid,
        hook: &Webhook,
        body: &[u8],
        before: Delivery,
    ) -> (Delivery, Option<Duration>) {
        let attempt = self.post(job, hook, body).await;
        let number = before.attempts + 1;
        // The low bits of a ULID are random.
        let random = u64::try_from(Ulid::generate().0 & u128::from(u64::MAX)).unwrap_or(0);
        let verdict = self.jobs.policy().judge(number, &attempt, random);
        let (end, again) = match verdict {
            Verdict::Delivered => (HookEnd::Delivered, None),
            Verdict::Again(pause) => (HookEnd::Again, Some(pause)),
            Verdict::GivenUp => (HookEnd::GivenUp, None),
        };
        self.node.observe.count(Counter::Webhooks(end));
        let (status, error) = match attempt {
            Attempt::Answered(status) => (status, None),
            Attempt::Unreached { code, .. } => (0, Some(code.to_owned())),
        };
        if end == HookEnd::GivenUp {
            tracing::warn!(job = %job, status, error, "a webhook was given up");
        }
        let state = Delivery::state_after(verdict).to_owned();
        (Delivery { state, attempts: number, status, error }, again)
    }

    async fn post(&self, job: Ulid, hook: &Webhook, body: &[u8]) -> Attempt {
        let id = format!("msg_{job}");
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
        let headers = [
            ("webhook-id".to_owned(), id.clone()),
            ("webhook-timestamp".to_owned(), now.to_string()),
            ("webhook-signature".to_owned(), hook.secret.sign(&id, now, body)),
        ];
        let request = FetchRequest {
            url: &hook.url,
            deadline: Instant::now() + self.jobs.policy().timeout,
            max_body_bytes: ANSWER_BYTES_MAX,
            redirects: 0,
            user_agent: None,
            headers: &headers,
            known: None,
            robots: false,
            post: Some(body),
            owner: 0,
        };
        match self.hooks.call(&request).await {
            Ok(fetched) => Attempt::Answered(fetched.status),
            // The status is the answer, whatever became of the rest.
            Err(failure) if failure.status > 0 => Attempt::Answered(failure.status),
            Err(failure) => Attempt::Unreached {
                code: failure.error.code.as_str(),
                retryable: failure.error.code != PageCode::BlockedEgress,
            },
        }
    }
}
