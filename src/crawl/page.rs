//! One page's way: fetch, lane, result.

use super::cached::{self, Ask};
use super::indexing;
use super::mesh::{LaneJob, PageJob};
use super::node::{Here, Node};
use super::request::{Format, Options, Robots};
use super::spans;
use super::turns::{Line, Whose};
use crate::cache::entry::Entry;
use crate::cache::key::Key;
use crate::error::{PageCode, PageError, Stage};
use crate::extract;
use crate::fetch::caching::{Caching, Known};
use crate::fetch::robots::token;
use crate::fetch::robots_tag::{self, RobotsTag};
use crate::fetch::{FetchRequest, Fetched};
use crate::local::Notify;
use crate::proto::events::{About, Document, PageResult};
use crate::timings::Timings;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};
use uring::Either;

/// W3C Trace Context §3.2.
const TRACEPARENT: &str = "traceparent";
/// How long a page that is ended waits for the lane to let go of it.
const LANE_QUIESCE: Duration = Duration::from_millis(100);

/// What the origin's answer says about keeping it.
#[derive(Debug, Default)]
pub(super) struct Answer {
    pub(super) etag: Option<String>,
    pub(super) last_modified: Option<String>,
    pub(super) caching: Caching,
    /// From the request to the end of the answer.
    pub(super) took: Duration,
    /// Whether redirects led to it.
    pub(super) redirected: bool,
    /// Whether the page that was asked about still holds; then the result has no document.
    pub(super) not_modified: bool,
    /// Whether the local index has been handed the page.
    pub(super) indexed: bool,
}

/// A page that was worked on.
pub(super) struct Work {
    /// Complete but for its place.
    pub(super) result: PageResult,
    /// Where the origin answered.
    pub(super) answer: Option<Answer>,
}

impl Node {
    /// What the cache knows a page by.
    #[must_use]
    pub fn page_key(&self, options: &Options, url: &str) -> Key {
        Ask::new(&self.shared.pages, options).key(url)
    }

    /// Works on a page on this core, until it is done or [`Node::abort_pages`] ends it.
    pub async fn page(self: &Rc<Self>, job: &PageJob) -> PageResult {
        let here = Here::new(self, job.stream.id());
        cached::run(self, job, &here.abort).await
    }
}

/// Works on a page until it is done or told to end, in its time. The origin is asked whether `known`
/// still holds, where that can be asked.
pub(super) async fn run(
    node: &Rc<Node>,
    job: &PageJob,
    abort: &Notify,
    until: Instant,
    known: Option<&Entry>,
) -> Work {
    let began = Instant::now();
    let work = attempt(node, job, abort, until, known).await;
    spans::page(node, job, began, &work);
    work
}

async fn attempt(
    node: &Rc<Node>,
    job: &PageJob,
    abort: &Notify,
    until: Instant,
    known: Option<&Entry>,
) -> Work {
    let mut timings = Timings::default();
    timings.add(Stage::Queue, job.since.elapsed());
    if job.stream.aborted() {
        return cancelled(job, timings, Stage::Queue);
    }
    let traced = traced_headers(job);
    let request = FetchRequest {
        url: &job.url,
        deadline: until,
        max_body_bytes: job.options.max_body_bytes,
        redirects: job.options.redirects,
        user_agent: job.options.user_agent.as_deref(),
        headers: traced.as_deref().unwrap_or(&job.options.headers),
        known: known.filter(|entry| entry.can_be_vouched_for()).and_then(known_page),
        robots: job.options.robots == Robots::Respect,
        post: None,
        owner: job.stream.number(),
    };
    let fetched = match uring::select2(node.fetcher.fetch(&request), abort.notified()).await {
        Either::Left(fetched) => fetched,
        Either::Right(()) => return cancelled(job, timings, Stage::Body),
    };
    match fetched {
        Ok(mut fetched) => {
            timings.merge(&fetched.timings);
            let mut answer = Answer {
                etag: fetched.etag.take(),
                last_modified: fetched.last_modified.take(),
                caching: std::mem::take(&mut fetched.caching),
                took: Duration::from_micros(fetched.timings.total_micros()),
                redirected: fetched.redirects > 0,
                not_modified: fetched.not_modified,
                indexed: false,
            };
            let result = if answer.not_modified {
                let blank = PageResult::failed(job.url.clone(), ended(Stage::Body));
                PageResult { timings, ready: Some(Instant::now()), ..blank }
            } else {
                let agent = job.options.user_agent.as_ref();
                let agent = agent.unwrap_or(&node.shared.config.user_agent).as_bytes();
                let tag = robots_tag::read(&fetched.robots_tag, token(agent));
                let mut result = extract(node, job, fetched, timings, abort, until).await;
                heed(&mut result, tag);
                answer.indexed = indexing::offer(node, job, &result, &answer);
                result
            };
            Work { result, answer: Some(answer) }
        }
        Err(failure) => {
            timings.merge(&failure.timings);
            let error = late(failure.error, job);
            let result = PageResult {
                final_url: Some(failure.final_url),
                status: failure.status,
                wire_bytes: failure.wire_bytes,
                timings,
                ready: Some(Instant::now()),
                ..PageResult::failed(job.url.clone(), error)
            };
            Work { result, answer: None }
        }
    }
}

/// What a response says of its page counts beside what the page says itself.
fn heed(result: &mut PageResult, tag: RobotsTag) {
    if tag == RobotsTag::default() {
        return;
    }
    let mut about = result.about.take().map_or_else(About::default, Arc::unwrap_or_clone);
    about.noindex |= tag.noindex;
    about.nofollow |= tag.nofollow;
    result.about = Some(Arc::new(about));
}

fn known_page(entry: &Entry) -> Option<Known<'_>> {
    Some(Known {
        url: entry.final_url()?,
        etag: entry.validators.etag.as_deref(),
        last_modified: entry.validators.last_modified.as_deref(),
    })
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
        body_bytes: fetched.body_bytes,
        cache_key: job.key.number(),
        ..PageResult::failed(job.url.clone(), ended(Stage::ExtractWait))
    };
    let submitted = Instant::now();
    let whose = Whose {
        client: Arc::clone(&job.stream.birth.principal),
        line: Line::Stream(job.stream.id()),
    };
    let waiting = node.extract(
        whose,
        LaneJob {
            body: fetched.body,
            charset: fetched.charset,
            url: fetched.final_url,
            options: lane_options(&job.options),
            stream: Some(Arc::clone(&job.stream)),
            deadline,
            submitted,
        },
    );
    let in_time = uring::time::timeout_at(deadline, waiting.reply());
    let mut reply = match uring::select2(in_time, abort.notified()).await {
        Either::Left(Ok(reply)) => Some(reply),
        Either::Left(Err(_)) => {
            let message = "the page's time was up before the lane took it up";
            let error = PageError::new(PageCode::UrlTimeout, Stage::ExtractWait, message);
            result.error = Some(late(error, job));
            None
        }
        Either::Right(()) => None,
    };
    if reply.is_none() && !waiting.withdraw() {
        // The lane sees flag and deadline within an epoch or two; then nothing of it is left running.
        reply = uring::time::timeout(LANE_QUIESCE, waiting.reply()).await.ok();
    }
    if reply.is_none() {
        timings.add(Stage::ExtractWait, submitted.elapsed());
    }
    if let Some(reply) = reply {
        timings.add(Stage::ExtractWait, reply.waited);
        timings.add(Stage::Extract, reply.took);
        match reply.outcome {
            Ok(extracted) => {
                let quality = extracted.quality_json().to_owned().into();
                result.about = reply.about;
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
    let links = options.follow.is_some();
    let options = extract::Options::new(options.extractor.as_str(), formats);
    let mut options = options.expect("the names of extractors are ours");
    options.about = extract::Wanted { robots: true, links };
    options
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

/// The error of a page that nobody wants any more.
pub(super) fn ended(stage: Stage) -> PageError {
    PageError::new(PageCode::Cancelled, stage, "the page was ended before it was done")
}

/// The result of a page that never was fetched.
pub(super) fn unfinished(job: &PageJob, error: PageError) -> PageResult {
    let mut timings = Timings::default();
    timings.add(Stage::Queue, job.since.elapsed());
    let result = PageResult::failed(job.url.clone(), late(error, job));
    PageResult { timings, ready: Some(Instant::now()), ..result }
}

fn cancelled(job: &PageJob, timings: Timings, stage: Stage) -> Work {
    let result = PageResult::failed(job.url.clone(), ended(stage));
    Work { result: PageResult { timings, ready: Some(Instant::now()), ..result }, answer: None }
}

/// The client's own fields, and the page's place in its trace, where it has one and names none itself.
fn traced_headers(job: &PageJob) -> Option<Vec<(String, String)>> {
    let context = job.stream.trace_context()?.numbered(job.index);
    let given = &job.options.headers;
    if given.iter().any(|(name, _)| name.eq_ignore_ascii_case(TRACEPARENT)) {
        return None;
    }
    let ours = (TRACEPARENT.to_owned(), context.to_string());
    Some(given.iter().cloned().chain([ours]).collect())
}
