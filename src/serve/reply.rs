//! Whole answers: a head and a body that is there, in one send.

use crate::error::ApiError;
use crate::proto::h1::{Answer, AnswerBody, Sink, Version, write_head};
use crate::proto::json;
use crate::proto::timestamp::imf_fixdate;
use bytes::{BufMut, Bytes, BytesMut};
use std::time::SystemTime;
use uring::Gather;
use uring::arena::{self, Buf};

/// Room for the head of any answer of ours.
const HEAD_BYTES: usize = 1024;

/// JSON's content type.
pub const JSON: &str = "application/json";
/// Plain text's content type.
pub const TEXT: &str = "text/plain; charset=utf-8";

/// A head written into an arena buffer.
pub struct Head(pub Buf);

impl Sink for Head {
    fn put(&mut self, bytes: &[u8]) {
        self.0.reserve(bytes.len());
        self.0.extend_from_slice(bytes);
    }
}

/// What an answer's head depends on beside the answer: the request that it answers.
#[derive(Debug, Clone, Copy)]
pub struct Context<'a> {
    /// The request's version.
    pub version: Version,
    /// Whether another request may follow.
    pub keep_alive: bool,
    /// Whether the request was `HEAD`: the body is announced, not sent.
    pub head_only: bool,
    /// The request's id, echoed.
    pub request_id: Option<&'a str>,
}

/// A whole answer.
#[derive(Debug, Clone)]
pub struct Reply {
    /// The status.
    pub status: u16,
    /// The body's type.
    pub content_type: &'static str,
    /// The body.
    pub body: Bytes,
    /// Further fields.
    pub fields: Vec<(&'static str, Bytes)>,
}

impl Reply {
    /// An answer with a body.
    pub fn new(status: u16, content_type: &'static str, body: impl Into<Bytes>) -> Self {
        Self { status, content_type, body: body.into(), fields: Vec::new() }
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

    /// Puts head and body behind what waits in `gather`.
    pub fn write(self, context: &Context<'_>, gather: &mut Gather) {
        let answer = Answer {
            status: self.status,
            body: AnswerBody::Length(self.body.len() as u64),
            version: context.version,
            keep_alive: context.keep_alive,
        };
        let mut head = Head(arena::alloc(HEAD_BYTES));
        let mut fields: Vec<(&str, &[u8])> = vec![("Content-Type", self.content_type.as_bytes())];
        if let Some(id) = context.request_id {
            fields.push(("X-Request-ID", id.as_bytes()));
        }
        fields.extend(self.fields.iter().map(|(name, value)| (*name, &value[..])));
        finish_head(&mut head, &answer, &fields);
        gather.push(head.0);
        if !context.head_only && !self.body.is_empty() {
            gather.push(self.body);
        }
    }
}

/// Writes a head with today's date; a field that can't be sent is a bug of ours.
pub fn finish_head(head: &mut Head, answer: &Answer, fields: &[(&str, &[u8])]) {
    let date = imf_fixdate(SystemTime::now());
    write_head(head, answer, Some(&date), fields).expect("our own fields hold no control bytes");
}

/// The shortest answer there is: no body's bytes of its own, no allocation.
pub fn write_plain(context: &Context<'_>, status: u16, body: &'static str, gather: &mut Gather) {
    let answer = Answer {
        status,
        body: AnswerBody::Length(body.len() as u64),
        version: context.version,
        keep_alive: context.keep_alive,
    };
    let mut head = Head(arena::alloc(HEAD_BYTES));
    match context.request_id {
        Some(id) => finish_head(
            &mut head,
            &answer,
            &[("Content-Type", TEXT.as_bytes()), ("X-Request-ID", id.as_bytes())],
        ),
        None => finish_head(&mut head, &answer, &[("Content-Type", TEXT.as_bytes())]),
    }
    if !context.head_only {
        head.put(body.as_bytes());
    }
    gather.push(head.0);
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

/// The answer to `POST /extract`: the guest's document and where the time went (API §2).
pub fn write_extracted(
    out: &mut BytesMut,
    url: &str,
    quality: &[u8],
    timings: &crate::timings::Timings,
) -> (Bytes, Bytes) {
    use crate::error::Stage;
    out.put_slice(b"{\"url\":");
    json::string_or_null(out, Some(url).filter(|url| !url.is_empty()));
    out.put_slice(b",\"quality_score\":");
    out.put_slice(quality);
    out.put_slice(b",\"timings_us\":{\"extract_wait\":");
    json::integer(out, u64::from(timings.micros(Stage::ExtractWait)));
    out.put_slice(b",\"extract\":");
    json::integer(out, u64::from(timings.micros(Stage::Extract)));
    out.put_slice(b"},\"document\":");
    (out.split().freeze(), Bytes::from_static(b"}"))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test may panic")]
    use super::*;
    use crate::error::ApiCode;

    #[test]
    fn a_refusal_is_the_documented_object() {
        let error = ApiError::new(ApiCode::TooManyUrls, "101 urls, maximum 100").limit("urls", 100);
        let reply = Reply::error(&error, Some("req-123"));
        let told: serde_json::Value = serde_json::from_slice(&reply.body).unwrap();
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
        let after = std::time::Duration::from_millis(1500);
        let error = ApiError::new(ApiCode::Overloaded, "full").retry_after(after);
        let reply = Reply::error(&error, None);
        assert_eq!(reply.fields, [("Retry-After", Bytes::from_static(b"2"))]);
    }
}
