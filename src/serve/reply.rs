//! Whole answers: status, fields and a body that is there.

use crate::error::{ApiError, Stage};
use crate::proto::h1::Sink;
use crate::proto::json;
use crate::proto::timestamp::imf_fixdate;
use crate::timings::Timings;
use bytes::{BufMut, Bytes, BytesMut};
use std::cell::Cell;
use std::time::{Duration, Instant, SystemTime};
use uring::arena::Buf;

/// JSON's content type.
pub const JSON: &str = "application/json";
/// Plain text's content type.
pub const TEXT: &str = "text/plain; charset=utf-8";

/// What keeps a browser from guessing a body's type (Fetch standard, "`X-Content-Type-Options`
/// header"): on every answer that has one.
pub const NO_SNIFFING: (&str, &[u8]) = ("X-Content-Type-Options", b"nosniff");

/// Fields of a page that is meant for a person's browser, beside its own `Content-Security-Policy`:
/// it is in no frame, and tells nobody where the person came from.
pub const PAGE_FIELDS: [(&str, &str); 5] = [
    ("Referrer-Policy", "no-referrer"),
    ("X-Frame-Options", "DENY"),
    ("Cross-Origin-Opener-Policy", "same-origin"),
    ("Cross-Origin-Resource-Policy", "same-origin"),
    ("Permissions-Policy", "camera=(), geolocation=(), microphone=(), payment=(), usb=()"),
];

/// A head that is written into an arena buffer.
pub struct Head(pub Buf);

impl Sink for Head {
    fn put(&mut self, bytes: &[u8]) {
        self.0.reserve(bytes.len());
        self.0.extend_from_slice(bytes);
    }
}

/// A whole answer.
#[derive(Debug, Clone)]
pub struct Reply {
    /// The status.
    pub status: u16,
    /// The body's type; none for an empty one.
    pub content_type: &'static str,
    /// The body, in one or more parts.
    pub body: Vec<Bytes>,
    /// Further fields.
    pub fields: Vec<(&'static str, Bytes)>,
}

impl Reply {
    /// An answer with a body.
    pub fn new(status: u16, content_type: &'static str, body: impl Into<Bytes>) -> Self {
        Self { status, content_type, body: vec![body.into()], fields: Vec::new() }
    }

    /// An answer without a body.
    #[must_use]
    pub const fn empty(status: u16) -> Self {
        Self { status, content_type: "", body: Vec::new(), fields: Vec::new() }
    }

    /// Adds a field; its value must hold no control byte.
    #[must_use]
    pub fn field(mut self, name: &'static str, value: impl Into<Bytes>) -> Self {
        self.fields.push((name, value.into()));
        self
    }

    /// A refusal, as API §5 writes it.
    #[must_use]
    pub fn error(error: &ApiError, request_id: Option<&str>) -> Self {
        let mut out = BytesMut::with_capacity(512);
        write_error(&mut out, error, request_id);
        let reply = Self::new(error.code.status(), JSON, out.freeze());
        match error.retry_after {
            Some(after) => {
                // RFC 9110 §10.2.3: whole seconds; never sooner than we mean.
                let seconds = after.as_secs() + u64::from(after.subsec_nanos() > 0);
                reply.field("Retry-After", seconds.max(1).to_string())
            }
            None => reply,
        }
    }

    /// The answer to `POST /extract`: the guest's document and where the time went (API §2).
    #[must_use]
    pub fn extracted(url: &str, quality: &str, document: Bytes, timings: &Timings) -> Self {
        let mut out = BytesMut::with_capacity(256 + url.len());
        out.put_slice(b"{\"url\":");
        json::string_or_null(&mut out, Some(url).filter(|url| !url.is_empty()));
        out.put_slice(b",\"quality_score\":");
        out.put_slice(quality.as_bytes());
        out.put_slice(b",\"timings_us\":{\"extract_wait\":");
        json::integer(&mut out, u64::from(timings.micros(Stage::ExtractWait)));
        out.put_slice(b",\"extract\":");
        json::integer(&mut out, u64::from(timings.micros(Stage::Extract)));
        out.put_slice(b"},\"document\":");
        let body = vec![out.freeze(), document, Bytes::from_static(b"}")];
        Self { body, ..Self::new(200, JSON, Bytes::new()) }
    }

    /// Bytes of the body.
    #[must_use]
    pub fn len(&self) -> u64 {
        self.body.iter().map(|part| part.len() as u64).sum()
    }

    /// Whether the body is empty.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

fn write_error(out: &mut BytesMut, error: &ApiError, request_id: Option<&str>) {
    out.put_slice(b"{\"error\":{\"type\":\"");
    out.put_slice(error.code.kind().as_bytes());
    out.put_slice(b"\",\"code\":\"");
    out.put_slice(error.code.as_str().as_bytes());
    out.put_slice(b"\",\"message\":");
    json::string(out, &error.message);
    out.put_slice(b",\"retryable\":");
    json::boolean(out, error.code.retryable());
    out.put_slice(b",\"status\":");
    json::integer(out, u64::from(error.code.status()));
    out.put_slice(b",\"request_id\":");
    json::string_or_null(out, request_id);
    out.put_slice(b",\"details\":[");
    for (at, detail) in error.details.iter().enumerate() {
        out.put_slice(if at == 0 { b"{\"field\":" } else { b",{\"field\":" });
        json::string(out, &detail.field);
        out.put_slice(b",\"expected\":");
        json::string(out, &detail.expected);
        if let Some(limit) = detail.limit {
            out.put_slice(b",\"limit\":");
            json::integer(out, limit);
        }
        out.put_u8(b'}');
    }
    out.put_slice(b"]}}");
}

thread_local! {
    /// The `Date` field, and until when it is true.
    static DATE: Cell<Option<(Instant, [u8; 29])>> = const { Cell::new(None) };
}

/// The `Date` of an answer (RFC 9110 §6.6.1): written anew with each second, not with each answer.
pub(super) fn date_field(now: Instant) -> [u8; 29] {
    if let Some((_, text)) = DATE.get().filter(|(until, _)| now < *until) {
        return text;
    }
    let at = SystemTime::now();
    let second = Duration::from_secs(1);
    let part = at.duration_since(SystemTime::UNIX_EPOCH).map_or(0, |since| since.subsec_nanos());
    let text = imf_fixdate(at);
    DATE.set(Some((now + second - Duration::from_nanos(part.into()), text)));
    text
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test may panic")]
    use super::*;
    use crate::error::ApiCode;
    use std::time::Duration;

    #[test]
    fn a_refusal_is_the_documented_object() {
        let error = ApiError::new(ApiCode::TooManyUrls, "101 urls, maximum 100").limit("urls", 100);
        let reply = Reply::error(&error, Some("req-123"));
        let told: serde_json::Value = serde_json::from_slice(&reply.body[0]).unwrap();
        assert_eq!(reply.status, 400);
        let told = &told["error"];
        assert_eq!(told["type"], "validation_error");
        assert_eq!(told["code"], "too_many_urls");
        assert_eq!(told["request_id"], "req-123");
        assert_eq!(told["details"][0]["limit"], 100);
        assert_eq!(told["status"], 400);
    }

    #[test]
    fn retry_after_is_never_sooner_than_meant() {
        let error = ApiError::new(ApiCode::Overloaded, "full");
        let reply = Reply::error(&error.retry_after(Duration::from_millis(1500)), None);
        assert_eq!(reply.fields, [("Retry-After", Bytes::from_static(b"2"))]);
    }

    #[test]
    fn an_extraction_is_spliced_around_the_guests_bytes() {
        let mut timings = Timings::default();
        timings.add(Stage::Extract, Duration::from_micros(7));
        let reply =
            Reply::extracted("http://a/\"", "0.5", Bytes::from_static(b"{\"t\":1}"), &timings);
        let told: serde_json::Value = serde_json::from_slice(&reply.body.concat()).unwrap();
        assert_eq!(told["url"], "http://a/\"");
        assert_eq!(told["document"]["t"], 1);
        assert_eq!(told["timings_us"]["extract"], 7);
    }
}
