//! The events of a stream as JSON (API §3): one object, three transports.
//!
//! A durable event is a gather list of three pieces, so that a document's bytes, which the guest
//! serialized once, are shared by log, cache and every reader and never copied or parsed again.

mod about;
mod beyond;
mod job;
mod stored;

pub use about::About;
pub use beyond::{Failure, SearchFacts, discovered_json, error, hit_json, search};
pub use job::{Answer, answer, kept_result};
pub use stored::{CacheUse, Page, Stored, cached};

use super::json;
use super::text::Text;
use super::timestamp::rfc3339_millis;
use crate::error::{PageError, Stage};
use crate::timings::Timings;
use bytes::{BufMut, Bytes, BytesMut};
use std::sync::Arc;
use std::time::{Instant, SystemTime};

/// What an event tells; its name is the JSON's `type` and SSE's `event:`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Kind {
    /// First of every stream.
    Metadata,
    /// What a search found.
    Search,
    /// One URL's outcome.
    Result,
    /// Events that fell out of the replay window.
    Gap,
    /// The stream itself failed; last of it.
    Error,
    /// Totals; last of a stream that did its work.
    Summary,
    /// How far the stream is; ephemeral.
    Progress,
    /// Nothing new, still here; ephemeral.
    Heartbeat,
}

impl Kind {
    /// Each of them.
    pub const ALL: [Self; 8] = [
        Self::Metadata,
        Self::Search,
        Self::Result,
        Self::Gap,
        Self::Error,
        Self::Summary,
        Self::Progress,
        Self::Heartbeat,
    ];

    /// The name on the wire.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Metadata => "metadata",
            Self::Search => "search",
            Self::Result => "result",
            Self::Gap => "gap",
            Self::Error => "error",
            Self::Summary => "summary",
            Self::Progress => "progress",
            Self::Heartbeat => "heartbeat",
        }
    }

    /// Whether the event has a `seq` and is kept for replay.
    #[must_use]
    pub const fn durable(self) -> bool {
        !matches!(self, Self::Progress | Self::Heartbeat)
    }

    /// Whether nothing comes after it.
    #[must_use]
    pub const fn last(self) -> bool {
        matches!(self, Self::Error | Self::Summary)
    }
}

/// One event, serialized: the JSON text is `head`, `body`, `tail`, in one line, without a line end.
#[derive(Debug, Clone)]
pub struct Event {
    /// What it tells.
    pub kind: Kind,
    /// Place in the stream; 0 for ephemeral events, which have none.
    pub seq: u64,
    /// Up to the document, or everything.
    pub head: Bytes,
    /// The document, shared with everybody who has it.
    pub body: Bytes,
    /// After the document.
    pub tail: Bytes,
}

impl Event {
    /// Length of the JSON text in bytes.
    #[must_use]
    pub fn len(&self) -> usize {
        self.head.len() + self.body.len() + self.tail.len()
    }

    /// Never: an event has at least its type.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    fn whole(kind: Kind, seq: u64, out: &mut BytesMut) -> Self {
        let head = out.split().freeze();
        Self { kind, seq, head, body: Bytes::new(), tail: Bytes::new() }
    }
}

/// An extracted page: ready JSON, and its score as the guest wrote it.
#[derive(Debug, Clone)]
pub struct Document {
    /// The object under `document`.
    pub json: Bytes,
    /// The number under `quality_score`.
    pub quality: Bytes,
}

/// What became of one URL.
#[derive(Debug, Clone)]
pub struct PageResult {
    /// As the client gave it.
    pub url: Text,
    /// After redirects, where the origin was reached.
    pub final_url: Option<String>,
    /// The origin's status; 0 where there was no answer.
    pub status: u16,
    /// What the cache had to do with it.
    pub cache: CacheUse,
    /// Where the time went.
    pub timings: Timings,
    /// Bytes of the body as sent.
    pub wire_bytes: u64,
    /// Bytes of the body after its content codings.
    pub body_bytes: u64,
    /// The document, where there is one.
    pub document: Option<Document>,
    /// What the page tells crawlers, where it tells something and was asked.
    pub about: Option<Arc<About>>,
    /// Why there is none, where something failed.
    pub error: Option<PageError>,
    /// Hash over the URL and every option that changes the output; 0 where nothing was fetched.
    pub cache_key: u128,
    /// When the page was done, from which `emit_wait` counts.
    pub ready: Option<Instant>,
}

impl PageResult {
    /// The outcome of a page that never got anywhere.
    #[must_use]
    pub fn failed(url: Text, error: PageError) -> Self {
        Self {
            url,
            final_url: None,
            status: 0,
            cache: CacheUse::Miss,
            timings: Timings::default(),
            wire_bytes: 0,
            body_bytes: 0,
            document: None,
            about: None,
            error: Some(error),
            cache_key: 0,
            ready: None,
        }
    }

    /// A URL that was found and is not fetched, because nobody wants its content.
    #[must_use]
    pub fn listed(url: Text) -> Self {
        let unused = PageError::new(crate::error::PageCode::Cancelled, Stage::Queue, "");
        Self { error: None, cache: CacheUse::Bypass, ..Self::failed(url, unused) }
    }

    fn gate_decision(&self, cache: CacheUse) -> &'static str {
        match &self.error {
            None if cache.from_cache() => "cached",
            None if self.status == 0 => "skipped",
            None => "approved",
            Some(error) if error.code.rejected() => "rejected",
            Some(_) => "failed",
        }
    }

    fn document_json(&self) -> Bytes {
        match &self.document {
            Some(document) => document.json.clone(),
            None => Bytes::from_static(b"null"),
        }
    }
}

/// The facts of `metadata`.
#[derive(Debug, Clone)]
pub struct Metadata<'a> {
    /// ULID of the stream.
    pub stream_id: &'a str,
    /// URLs asked for; 0 where a search is to find them.
    pub total_urls: usize,
    /// `crawl`, `deepsearch` or `job`.
    pub stream_type: &'static str,
    /// The request's id, the client's own or ours.
    pub request_id: &'a str,
    /// When the stream began.
    pub at: SystemTime,
    /// Seconds for which the stream outlives its connection.
    pub resume_window_s: u64,
    /// Bytes of the replay window.
    pub replay_bytes_max: usize,
    /// Milliseconds for the whole stream.
    pub deadline_ms: u64,
    /// What the client should know and did not ask.
    pub warnings: &'a [&'a str],
}

/// How many URLs came to which end.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Counts {
    /// URLs asked for.
    pub total: u64,
    /// With a document.
    pub successful: u64,
    /// With an error of their own, deadlines included.
    pub failed: u64,
    /// Ended by the client or by a drain.
    pub cancelled: u64,
    /// Of all these, those whose page was in the cache.
    pub from_cache: u64,
}

impl Counts {
    /// URLs that have their result.
    #[must_use]
    pub const fn completed(&self) -> u64 {
        self.successful + self.failed + self.cancelled
    }
}

/// The facts of `summary`.
#[derive(Debug, Clone)]
pub struct Summary {
    /// Totals.
    pub counts: Counts,
    /// From the request's last byte to here.
    pub total_ms: u64,
    /// To the first result.
    pub ttfr_ms: Option<u64>,
    /// `completed`, `cancelled` or `deadline_exceeded`.
    pub status: &'static str,
}

/// The facts of `progress`.
#[derive(Debug, Clone)]
pub struct Progress<'a> {
    /// ULID of the stream.
    pub stream_id: &'a str,
    /// When the stream began.
    pub started: SystemTime,
    /// Totals so far.
    pub counts: Counts,
    /// When it should end at this pace, where there is a pace.
    pub estimated: Option<SystemTime>,
    /// A URL that is being worked on.
    pub current: Option<&'a str>,
}

/// Writes `metadata`, always event 0.
pub fn metadata(out: &mut BytesMut, facts: &Metadata<'_>) -> Event {
    out.put_slice(b"{\"type\":\"metadata\",\"seq\":0,\"stream_id\":");
    json::string(out, facts.stream_id);
    out.put_slice(b",\"total_urls\":");
    json::integer(out, facts.total_urls as u64);
    out.put_slice(b",\"request_id\":");
    json::string(out, facts.request_id);
    time(out, b",\"timestamp\":", facts.at);
    out.put_slice(b",\"stream_type\":\"");
    out.put_slice(facts.stream_type.as_bytes());
    out.put_slice(b"\",\"resume\":{\"window_s\":");
    json::integer(out, facts.resume_window_s);
    out.put_slice(b",\"max_bytes\":");
    json::integer(out, facts.replay_bytes_max as u64);
    out.put_slice(b"},\"limits\":{\"deadline_ms\":");
    json::integer(out, facts.deadline_ms);
    out.put_slice(b"},\"warnings\":[");
    for (at, warning) in facts.warnings.iter().enumerate() {
        if at > 0 {
            out.put_u8(b',');
        }
        json::string(out, warning);
    }
    out.put_slice(b"]}");
    Event::whole(Kind::Metadata, 0, out)
}

/// Writes `result` around the document's own bytes.
pub fn result(
    out: &mut BytesMut,
    seq: u64,
    index: u32,
    page: &PageResult,
    counts: &Counts,
) -> Event {
    result_start(out, seq, index, &page.url);
    answer_facts(out, page, page.cache);
    times(out, &page.timings);
    answer_bytes(out, page);
    let head = out.split().freeze();
    answer_end(out, page);
    result_end(out, counts);
    let tail = out.split().freeze();
    Event { kind: Kind::Result, seq, head, body: page.document_json(), tail }
}

fn result_start(out: &mut BytesMut, seq: u64, index: u32, url: &str) {
    out.put_slice(b"{\"type\":\"result\",\"seq\":");
    json::integer(out, seq);
    out.put_slice(b",\"index\":");
    json::integer(out, u64::from(index));
    out.put_slice(b",\"result\":{\"url\":");
    json::string(out, url);
}

fn answer_facts(out: &mut BytesMut, page: &PageResult, cache: CacheUse) {
    out.put_slice(b",\"final_url\":");
    json::string_or_null(out, page.final_url.as_deref());
    out.put_slice(b",\"status\":");
    json::integer(out, u64::from(page.status));
    out.put_slice(b",\"from_cache\":");
    json::boolean(out, cache.from_cache());
    out.put_slice(b",\"cache\":\"");
    out.put_slice(cache.as_str().as_bytes());
    out.put_slice(b"\",\"gate_decision\":\"");
    out.put_slice(page.gate_decision(cache).as_bytes());
    out.put_slice(b"\",\"quality_score\":");
    out.put_slice(page.document.as_ref().map_or(b"0.0", |document| &document.quality));
}

fn times(out: &mut BytesMut, spent: &Timings) {
    out.put_slice(b",\"processing_time_ms\":");
    json::integer(out, spent.total_micros() / 1000);
    timings(out, spent);
}

fn answer_bytes(out: &mut BytesMut, page: &PageResult) {
    out.put_slice(b",\"bytes\":{\"wire\":");
    json::integer(out, page.wire_bytes);
    out.put_slice(b",\"body\":");
    json::integer(out, page.body_bytes);
    out.put_slice(b"},\"document\":");
}

fn answer_end(out: &mut BytesMut, page: &PageResult) {
    out.put_slice(b",\"error\":");
    match &page.error {
        Some(error) => page_error(out, error),
        None => out.put_slice(b"null"),
    }
    out.put_slice(b",\"cache_key\":\"");
    if page.cache_key != 0 {
        const HEX: &[u8; 16] = b"0123456789abcdef";
        for shift in (0..128).step_by(4).rev() {
            out.put_u8(HEX[(page.cache_key >> shift & 15) as usize]);
        }
    }
    out.put_slice(b"\"}");
}

fn result_end(out: &mut BytesMut, counts: &Counts) {
    out.put_slice(b",\"progress\":{\"completed\":");
    json::integer(out, counts.completed());
    out.put_slice(b",\"total\":");
    json::integer(out, counts.total);
    out.put_slice(b",\"success_rate\":");
    json::ratio(out, counts.successful, counts.completed());
    out.put_slice(b"}}");
}

/// Writes `"timings_us":{…}` with a comma before it.
pub fn timings(out: &mut BytesMut, timings: &Timings) {
    out.put_slice(b",\"timings_us\":{");
    for (at, (stage, micros)) in timings.iter().enumerate() {
        out.put_slice(if at == 0 { b"\"" } else { b",\"" });
        out.put_slice(stage.as_str().as_bytes());
        out.put_slice(b"\":");
        json::integer(out, u64::from(micros));
    }
    out.put_u8(b'}');
}

fn page_error(out: &mut BytesMut, error: &PageError) {
    out.put_slice(b"{\"code\":\"");
    out.put_slice(error.code.as_str().as_bytes());
    out.put_slice(b"\",\"message\":");
    json::string(out, &error.message);
    out.put_slice(b",\"retryable\":");
    json::boolean(out, error.code.retryable());
    out.put_slice(b",\"stage\":\"");
    out.put_slice(error.stage.as_str().as_bytes());
    out.put_slice(b"\"}");
}

/// Writes `summary`, the last event of a stream that did its work.
pub fn summary(out: &mut BytesMut, seq: u64, facts: &Summary) -> Event {
    out.put_slice(b"{\"type\":\"summary\",\"seq\":");
    json::integer(out, seq);
    for (name, count) in [
        (&b",\"total_urls\":"[..], facts.counts.total),
        (b",\"successful\":", facts.counts.successful),
        (b",\"failed\":", facts.counts.failed),
        (b",\"cancelled\":", facts.counts.cancelled),
        (b",\"from_cache\":", facts.counts.from_cache),
        (b",\"total_processing_time_ms\":", facts.total_ms),
    ] {
        out.put_slice(name);
        json::integer(out, count);
    }
    out.put_slice(b",\"cache_hit_rate\":");
    json::ratio(out, facts.counts.from_cache, facts.counts.completed());
    out.put_slice(b",\"status\":\"");
    out.put_slice(facts.status.as_bytes());
    out.put_slice(b"\",\"ttfr_ms\":");
    match facts.ttfr_ms {
        Some(ms) => json::integer(out, ms),
        None => out.put_slice(b"null"),
    }
    out.put_slice(b",\"last_seq\":");
    json::integer(out, seq);
    out.put_u8(b'}');
    Event::whole(Kind::Summary, seq, out)
}

/// Writes `gap`: the events from `from_seq` to `seq` are gone for this reader. The gap takes the place
/// of the last of them, so that a client that counts goes on at `seq + 1`; `to_seq` is the one before,
/// or `seq` itself where there is no other.
pub fn gap(out: &mut BytesMut, from_seq: u64, seq: u64) -> Event {
    out.put_slice(b"{\"type\":\"gap\",\"seq\":");
    json::integer(out, seq);
    out.put_slice(b",\"from_seq\":");
    json::integer(out, from_seq);
    out.put_slice(b",\"to_seq\":");
    json::integer(out, seq.saturating_sub(1).max(from_seq));
    out.put_slice(b",\"reason\":\"window_exceeded\"}");
    Event::whole(Kind::Gap, seq, out)
}

/// Writes `progress`, which a newer one may replace before it is sent.
pub fn progress(out: &mut BytesMut, facts: &Progress<'_>) -> Event {
    out.put_slice(b"{\"type\":\"progress\",\"operation_id\":");
    json::string(out, facts.stream_id);
    out.put_slice(b",\"operation_type\":\"batch_crawl\"");
    time(out, b",\"started_at\":", facts.started);
    out.put_slice(b",\"current_phase\":\"processing\",\"progress_percentage\":");
    json::ratio(out, facts.counts.completed() * 100, facts.counts.total);
    out.put_slice(b",\"items_completed\":");
    json::integer(out, facts.counts.completed());
    out.put_slice(b",\"items_total\":");
    json::integer(out, facts.counts.total);
    match facts.estimated {
        Some(at) => time(out, b",\"estimated_completion\":", at),
        None => out.put_slice(b",\"estimated_completion\":null"),
    }
    out.put_slice(b",\"current_item\":");
    json::string_or_null(out, facts.current);
    out.put_u8(b'}');
    Event::whole(Kind::Progress, 0, out)
}

/// Writes `heartbeat`.
pub fn heartbeat(out: &mut BytesMut, at: SystemTime) -> Event {
    time(out, b"{\"type\":\"heartbeat\",\"timestamp\":", at);
    out.put_u8(b'}');
    Event::whole(Kind::Heartbeat, 0, out)
}

fn time(out: &mut BytesMut, name: &[u8], at: SystemTime) {
    out.put_slice(name);
    out.put_u8(b'"');
    out.put_slice(&rfc3339_millis(at));
    out.put_u8(b'"');
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test may panic")]
    use super::*;
    use crate::error::PageCode;
    use serde_json::Value;
    use std::time::{Duration, UNIX_EPOCH};

    fn read(event: &Event) -> Value {
        let text = [&event.head[..], &event.body, &event.tail].concat();
        assert!(!text.contains(&b'\n'));
        serde_json::from_slice(&text).unwrap()
    }

    fn counts() -> Counts {
        Counts { total: 3, successful: 1, failed: 1, cancelled: 0, from_cache: 1 }
    }

    #[test]
    fn a_result_is_spliced_around_the_guests_bytes() {
        let mut timings = Timings::default();
        timings.add(Stage::Ttfb, Duration::from_micros(98_765));
        let document =
            Document { json: Bytes::from_static(br#"{"title":"A"}"#), quality: "0.85".into() };
        let page = PageResult {
            final_url: Some("https://example.com/\"a".into()),
            status: 200,
            timings,
            wire_bytes: 10,
            body_bytes: 20,
            document: Some(document),
            error: None,
            cache_key: 0x9f2c,
            ..PageResult::failed("https://example.com/a".into(), page_error())
        };
        let event = read(&result(&mut BytesMut::new(), 7, 2, &page, &counts()));
        assert_eq!(event["seq"], 7);
        assert_eq!(event["result"]["document"]["title"], "A");
        assert_eq!(event["result"]["quality_score"], 0.85);
        assert_eq!(event["result"]["processing_time_ms"], 98);
        assert_eq!(event["result"]["timings_us"]["ttfb"], 98_765);
        assert_eq!(event["result"]["timings_us"].as_object().unwrap().len(), 10);
        assert_eq!(event["result"]["cache_key"], "00000000000000000000000000009f2c");
        assert_eq!(event["progress"]["success_rate"], 0.5);
    }

    fn page_error() -> PageError {
        PageError::new(PageCode::BlockedEgress, Stage::Dns, "10.0.0.1 is not globally routable")
    }

    #[test]
    fn a_refused_page_has_its_code_and_its_stage() {
        let page = PageResult::failed("http://10.0.0.1/".into(), page_error());
        let event = read(&result(&mut BytesMut::new(), 2, 1, &page, &counts()));
        let told = &event["result"];
        assert_eq!(told["gate_decision"], "rejected");
        assert_eq!(told["document"], Value::Null);
        assert_eq!(told["error"]["code"], "blocked_egress");
        assert_eq!(told["error"]["stage"], "dns");
        assert_eq!(told["error"]["retryable"], false);
        assert_eq!(told["cache_key"], "");
    }

    #[test]
    fn the_other_events_are_json_with_their_fields() {
        let out = &mut BytesMut::new();
        let at = UNIX_EPOCH + Duration::from_secs(1_768_473_000);
        let facts = Metadata {
            stream_id: "01J9",
            total_urls: 2,
            stream_type: "crawl",
            request_id: "req\n1",
            at,
            resume_window_s: 120,
            replay_bytes_max: 8,
            deadline_ms: 60,
            warnings: &["a", "b"],
        };
        let event = read(&metadata(out, &facts));
        assert_eq!(event["timestamp"], "2026-01-15T10:30:00.000Z");
        assert_eq!(event["resume"]["window_s"], 120);
        assert_eq!(event["warnings"][1], "b");
        let event = read(&summary(
            out,
            3,
            &Summary { counts: counts(), total_ms: 9, ttfr_ms: None, status: "completed" },
        ));
        assert_eq!((&event["last_seq"], &event["ttfr_ms"]), (&Value::from(3), &Value::Null));
        assert_eq!((&event["from_cache"], &event["cache_hit_rate"]), (&1.into(), &0.5.into()));
        let facts = Progress {
            stream_id: "01J9",
            started: at,
            counts: counts(),
            estimated: Some(at),
            current: None,
        };
        assert_eq!(read(&progress(out, &facts))["progress_percentage"], 66.6667);
        let event = read(&gap(out, 12, 40));
        assert_eq!((&event["seq"], &event["to_seq"]), (&Value::from(40), &Value::from(39)));
        assert_eq!(read(&gap(out, 7, 7))["to_seq"], 7);
        assert_eq!(read(&heartbeat(out, at))["type"], "heartbeat");
    }
}
