//! What a stream and its pages leave in a trace, where one is recorded and exported.

use super::mesh::PageJob;
use super::node::Node;
use super::page::Work;
use crate::error::{PageError, Stage};
use crate::observe::redact;
use crate::observe::span::{Attributes, Kind, Part, Span};
use crate::proto::events::{Counts, PageResult};
use crate::stream::Stream;
use std::time::{Duration, Instant, SystemTime};
use url::Url;

/// What is told of a stream that has ended.
pub(super) struct StreamFacts<'a> {
    /// `crawl`, `deepsearch` or `job`.
    pub(super) name: &'static str,
    pub(super) started: SystemTime,
    pub(super) request_id: &'a str,
    /// As in its last event.
    pub(super) status: &'static str,
    pub(super) counts: &'a Counts,
}

/// A stream has ended: a span below the request that began it.
pub(super) fn stream(node: &Node, stream: &Stream, facts: &StreamFacts<'_>) {
    let (Some(context), Some(parent)) = (stream.trace_context(), stream.trace_parent()) else {
        return;
    };
    if !context.sampled || !node.shared.spans.is_on() {
        return;
    }
    let counts = facts.counts;
    let attributes: Attributes = vec![
        ("forebay.stream_id", stream.id_text.to_string().into()),
        ("forebay.request_id", facts.request_id.to_owned().into()),
        ("forebay.outcome", facts.status.into()),
        ("forebay.urls.total", counts.total.into()),
        ("forebay.urls.successful", counts.successful.into()),
        ("forebay.urls.failed", counts.failed.into()),
        ("forebay.urls.cancelled", counts.cancelled.into()),
        ("forebay.urls.from_cache", counts.from_cache.into()),
    ];
    node.shared.spans.send(Span {
        context: *context,
        parent,
        parent_is_remote: false,
        kind: Kind::Internal,
        name: facts.name.into(),
        started: facts.started,
        took: stream.birth.began.elapsed(),
        attributes,
        parts: Vec::new(),
        error: (facts.status == "failed").then_some("the search failed".into()),
    });
}

/// A page was asked of its origin: a span below its stream's, with the id that the origin was told.
pub(super) fn page(node: &Node, job: &PageJob, began: Instant, work: &Work) {
    let Some(stream) = job.stream.trace_context() else { return };
    if !stream.sampled || !node.shared.spans.is_on() {
        return;
    }
    let (result, took) = (&work.result, began.elapsed());
    // A page that still holds has an error where its document would be.
    let holds = work.answer.as_ref().is_some_and(|answer| answer.not_modified);
    let error = result.error.as_ref().filter(|_| !holds);
    let status = if holds { 304 } else { result.status };
    node.shared.spans.send(Span {
        context: stream.numbered(job.index),
        parent: stream.parent_id,
        parent_is_remote: false,
        kind: Kind::Client,
        name: "GET".into(),
        started: SystemTime::now() - took,
        took,
        attributes: attributes(job, result, status, error),
        parts: parts(result, took),
        // Its code: a message may hold a URL.
        error: error.map(|error| error.code.as_str().into()),
    });
}

/// In the words of the semantic conventions for HTTP clients; a URL without its secrets.
fn attributes(
    job: &PageJob,
    result: &PageResult,
    status: u16,
    error: Option<&PageError>,
) -> Attributes {
    let shown = |url: &str| redact::Url(url).to_string();
    let mut all: Attributes = vec![
        ("http.request.method", "GET".into()),
        ("url.full", shown(&job.url).into()),
        ("forebay.stream_id", job.stream.id_text.to_string().into()),
        ("forebay.index", u64::from(job.index).into()),
    ];
    if let Ok(url) = Url::parse(&job.url) {
        all.extend(url.host_str().map(|host| ("server.address", host.to_owned().into())));
        let port = url.port_or_known_default();
        all.extend(port.map(|port| ("server.port", u64::from(port).into())));
    }
    if status > 0 {
        all.push(("http.response.status_code", u64::from(status).into()));
    }
    if result.wire_bytes > 0 {
        all.push(("http.response.body.size", result.wire_bytes.into()));
    }
    if let Some(end) = result.final_url.as_deref().filter(|end| *end != &*job.url) {
        all.push(("forebay.final_url", shown(end).into()));
    }
    if let Some(error) = error {
        all.push(("error.type", error.code.as_str().into()));
        all.push(("forebay.stage", error.stage.as_str().into()));
    }
    all
}

/// The stages that took time, one behind the other, as they happen; what came before the page's turn
/// is not in its span.
fn parts(result: &PageResult, took: Duration) -> Vec<Part> {
    let mut ended = Duration::ZERO;
    let stages = result
        .timings
        .iter()
        .filter(|(stage, micros)| *micros > 0 && !matches!(stage, Stage::Queue | Stage::EmitWait));
    let part = |(stage, micros): (Stage, u32)| {
        let spent = Duration::from_micros(u64::from(micros));
        ended = (ended + spent).min(took);
        Part { name: stage.as_str(), ended, took: spent }
    };
    stages.map(part).collect()
}
