//! The events and fields of what goes beyond a list of URLs: a search before it, links behind it.

use super::{Counts, Event, Kind};
use crate::error::ApiCode;
use crate::proto::json;
use bytes::{BufMut, Bytes, BytesMut};

/// The facts of `search`.
#[derive(Debug, Clone)]
pub struct SearchFacts<'a> {
    /// What was searched for.
    pub query: &'a str,
    /// Different URLs that came back; they are crawled.
    pub urls_found: usize,
    /// From the question to the answer.
    pub search_time_ms: u64,
    /// Who was asked.
    pub provider: &'a str,
}

/// The facts of `error`.
#[derive(Debug, Clone)]
pub struct Failure<'a> {
    /// The API's code.
    pub code: &'a str,
    /// The status that it would have had before the stream.
    pub status: u16,
    /// One sentence for a person.
    pub message: &'a str,
    /// When the same request may well work, if it may.
    pub retry_after_ms: Option<u64>,
}

impl<'a> Failure<'a> {
    /// One that may be tried again soon.
    #[must_use]
    pub const fn new(code: ApiCode, message: &'a str) -> Self {
        Self { code: code.as_str(), status: code.status(), message, retry_after_ms: Some(1000) }
    }
}

/// Writes `search`.
pub fn search(out: &mut BytesMut, seq: u64, facts: &SearchFacts<'_>) -> Event {
    out.put_slice(b"{\"type\":\"search\",\"seq\":");
    json::integer(out, seq);
    out.put_slice(b",\"query\":");
    json::string(out, facts.query);
    let numbers =
        [("urls_found", facts.urls_found as u64), ("search_time_ms", facts.search_time_ms)];
    json::integers(out, &numbers);
    out.put_slice(b",\"provider\":");
    json::string(out, facts.provider);
    out.put_u8(b'}');
    Event::whole(Kind::Search, seq, out)
}

/// Writes `error`, the last event of a stream that we had to give up.
pub fn error(out: &mut BytesMut, seq: u64, failure: &Failure<'_>, counts: &Counts) -> Event {
    out.put_slice(b"{\"type\":\"error\",\"seq\":");
    json::integer(out, seq);
    out.put_slice(b",\"error\":{\"code\":");
    json::string(out, failure.code);
    out.put_slice(b",\"message\":");
    json::string(out, failure.message);
    out.put_slice(b",\"retryable\":");
    json::boolean(out, failure.retry_after_ms.is_some());
    if let Some(after) = failure.retry_after_ms {
        json::integers(out, &[("retry_after_ms", after)]);
    }
    json::integers(out, &[("status", u64::from(failure.status))]);
    out.put_u8(b'}');
    json::integers(out, &[("completed", counts.completed()), ("total", counts.total)]);
    out.put_u8(b'}');
    Event::whole(Kind::Error, seq, out)
}

/// The field of a result that a search has found.
#[must_use]
pub fn hit_json(rank: u64, title: &str, snippet: &str) -> Bytes {
    let mut out = BytesMut::with_capacity(64 + title.len() + snippet.len());
    out.put_slice(b"\"search\":{\"rank\":");
    json::integer(&mut out, rank);
    out.put_slice(b",\"title\":");
    json::string(&mut out, title);
    out.put_slice(b",\"snippet\":");
    json::string(&mut out, snippet);
    out.put_u8(b'}');
    out.freeze()
}

/// The field of a result whose URL stood in another page, or in a sitemap.
#[must_use]
pub fn discovered_json(from: &str) -> Bytes {
    let mut out = BytesMut::with_capacity(24 + from.len());
    out.put_slice(b"\"discovered_from\":");
    json::string(&mut out, from);
    out.freeze()
}

impl Event {
    /// The event with one more field at its end; `field` is `"name":value`.
    #[must_use]
    pub fn with(self, out: &mut BytesMut, field: &[u8]) -> Self {
        let Some(open) = self.tail.strip_suffix(b"}") else { return self };
        out.put_slice(open);
        out.put_u8(b',');
        out.put_slice(field);
        out.put_u8(b'}');
        Self { tail: out.split().freeze(), ..self }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test may panic")]
    use super::super::{PageResult, result};
    use super::*;
    use crate::error::{PageCode, PageError, Stage};
    use serde_json::Value;

    fn read(event: &Event) -> Value {
        serde_json::from_slice(&[&event.head[..], &event.body, &event.tail].concat()).unwrap()
    }

    #[test]
    fn they_are_json_with_their_fields() {
        let out = &mut BytesMut::new();
        let facts =
            SearchFacts { query: "a \"b\"", urls_found: 3, search_time_ms: 12, provider: "local" };
        let event = read(&search(out, 1, &facts));
        assert_eq!((&event["query"], &event["urls_found"]), (&"a \"b\"".into(), &3.into()));
        assert_eq!((&event["type"], &event["provider"]), (&"search".into(), &"local".into()));
        let failure = Failure {
            code: "search_unavailable",
            status: 503,
            message: "m",
            retry_after_ms: Some(30_000),
        };
        let counts = Counts { total: 3, successful: 2, ..Counts::default() };
        let event = read(&error(out, 3, &failure, &counts));
        assert_eq!(event["error"]["retry_after_ms"], 30_000);
        assert_eq!((&event["completed"], &event["total"]), (&2.into(), &3.into()));
        assert_eq!(
            (&event["error"]["status"], &event["error"]["retryable"]),
            (&503.into(), &true.into())
        );
        let failure = Failure { retry_after_ms: None, ..failure };
        let event = read(&error(out, 3, &failure, &counts));
        assert_eq!(event["error"]["retryable"], false);
        assert!(event["error"].get("retry_after_ms").is_none());
    }

    #[test]
    fn a_result_gets_its_fields_beside_it() {
        let out = &mut BytesMut::new();
        let error = PageError::new(PageCode::DnsFailed, Stage::Dns, "m");
        let page = PageResult::failed("http://a.test/".into(), error);
        let event = result(out, 2, 0, &page, &Counts::default());
        let event = event.with(out, &hit_json(1, "T", "s \u{7}"));
        let event = read(&event.with(out, &discovered_json("http://b.test/\"")));
        assert_eq!(
            event["search"],
            serde_json::json!({"rank": 1, "title": "T", "snippet": "s \u{7}"})
        );
        assert_eq!(event["discovered_from"], "http://b.test/\"");
        assert_eq!(event["result"]["url"], "http://a.test/");
    }
}
