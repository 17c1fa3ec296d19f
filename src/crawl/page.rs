//! One page's way: fetch, lane, result.

use super::mesh::{LaneJob, PageJob};
use super::node::Node;
use super::request::{Format, Options, Robots};
use crate::error::{PageCode, PageError, Stage};
use crate::extract;
use crate::fetch::{FetchRequest, Fetched};
use crate::local::Notify;
use crate::proto::events::{Document, PageResult};
use crate::timings::Timings;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};
use uring::Either;

/// How long a page that is ended waits for the lane to let go of it.
const LANE_QUIESCE: Duration = Duration::from_millis(100);

/// Works on a page until it is done or told to end; the result is complete but for its place.
pub(super) async fn run(node: &Rc<Node>, job: &PageJob, abort: &Notify) -> PageResult {
    let mut timings = Timings::default();
    timings.add(Stage::Queue, job.since.elapsed());
    if job.stream.aborted() {
        return cancelled(job, timings, Stage::Queue);
    }
    let timeout = Instant::now() + Duration::from_millis(job.options.timeout_ms);
    let request = FetchRequest {
        url: &job.url,
        deadline: timeout.min(job.deadline),
        max_body_bytes: job.options.max_body_bytes,
        redirects: job.options.redirects,
        user_agent: job.options.user_agent.as_deref(),
        headers: &job.options.headers,
        robots: job.options.robots == Robots::Respect,
    };
    let fetched = match uring::select2(node.fetcher.fetch(&request), abort.notified()).await {
        Either::Left(fetched) => fetched,
        Either::Right(()) => return cancelled(job, timings, Stage::Body),
    };
    match fetched {
        Ok(fetched) => {
            timings.merge(&fetched.timings);
            extract(node, job, fetched, timings, abort, request.deadline).await
        }
        Err(failure) => {
            timings.merge(&failure.timings);
            let error = late(failure.error, job);
            PageResult {
                final_url: Some(failure.final_url),
                status: failure.status,
                wire_bytes: failure.wire_bytes,
                timings,
                ready: Some(Instant::now()),
                ..PageResult::failed(Arc::clone(&job.url), error)
            }
        }
    }
}

async fn extract(
    node: &Rc<Node>,
    job: &PageJob,
    fetched: Fetched,
    mut timings: Timings,
    abort: &Notify,
    deadline: Instant,
) -> PageResult {
    let mut result = PageResult {
        final_url: Some(fetched.final_url.clone()),
        status: fetched.status,
        wire_bytes: fetched.wire_bytes,
        body_bytes: fetched.body.len() as u64,
        cache_key: cache_key(&job.url, &job.options),
        ..PageResult::failed(Arc::clone(&job.url), ended(Stage::ExtractWait))
    };
    let stream = Arc::clone(&job.stream);
    let options = lane_options(&job.options);
    let waiting = node.extract(move |ticket, reply_to| LaneJob {
        body: fetched.body,
        charset: fetched.charset,
        url: fetched.final_url,
        options,
        stream: Some(stream),
        deadline,
        submitted: Instant::now(),
        ticket,
        reply_to,
    });
    let mut waiting = std::pin::pin!(waiting);
    let mut reply = match uring::select2(waiting.as_mut(), abort.notified()).await {
        Either::Left(reply) => Some(reply),
        Either::Right(()) => None,
    };
    if reply.is_none() {
        // The lane sees the stream's flag within an epoch or two; then nothing of it is left running.
        reply = uring::time::timeout(LANE_QUIESCE, waiting).await.ok();
    }
    if let Some(reply) = reply {
        timings.add(Stage::ExtractWait, reply.waited);
        timings.add(Stage::Extract, reply.took);
        match reply.outcome {
            Ok(extracted) => {
                let quality = extracted.quality_json().to_owned().into();
                result.document = Some(Document { json: extracted.document(), quality });
                result.error = None;
            }
            Err(error) => result.error = Some(late(error, job)),
        }
    }
    result.timings = timings;
    result.ready = Some(Instant::now());
    result
}

/// What the guest is to write, by the client's options.
#[must_use]
pub fn lane_options(options: &Options) -> extract::Options {
    let wants = |format| options.formats.contains(&format);
    let formats = extract::Formats {
        markdown: wants(Format::Markdown),
        text: wants(Format::Text),
        links: wants(Format::Links),
        metadata: wants(Format::Metadata),
    };
    let options = extract::Options::new(options.extractor.as_str(), formats);
    options.expect("the names of extractors are ours")
}

/// A page's time can end in two ways: its own `timeout_ms`, or the stream's `deadline_ms`.
fn late(error: PageError, job: &PageJob) -> PageError {
    if !matches!(error.code, PageCode::UrlTimeout | PageCode::DeadlineExceeded) {
        return error;
    }
    if Instant::now() >= job.deadline {
        let message = "the stream's deadline_ms passed before this page was done";
        return PageError::new(PageCode::DeadlineExceeded, error.stage, message);
    }
    let message = format!("the page took longer than timeout_ms = {}", job.options.timeout_ms);
    PageError::new(PageCode::UrlTimeout, error.stage, message)
}

fn ended(stage: Stage) -> PageError {
    PageError::new(PageCode::Cancelled, stage, "the page was ended before it was done")
}

fn cancelled(job: &PageJob, timings: Timings, stage: Stage) -> PageResult {
    let result = PageResult::failed(Arc::clone(&job.url), ended(stage));
    PageResult { timings, ready: Some(Instant::now()), ..result }
}

/// Hashes the URL and every option that changes the output.
fn cache_key(url: &str, options: &Options) -> u64 {
    let mut hasher = DefaultHasher::new();
    url.hash(&mut hasher);
    options.formats.hash(&mut hasher);
    options.extractor.hash(&mut hasher);
    options.max_body_bytes.hash(&mut hasher);
    options.redirects.hash(&mut hasher);
    options.user_agent.hash(&mut hasher);
    options.headers.hash(&mut hasher);
    options.robots.hash(&mut hasher);
    hasher.finish().max(1)
}
