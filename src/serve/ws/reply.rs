//! Answers to ops, as JSON: `error`, `added`, `pong`, `status`.

use super::attached::Attached;
use super::op::Refused;
use crate::proto::json;
use crate::proto::timestamp::rfc3339_millis;
use crate::stream::Status;
use bytes::{BufMut, Bytes, BytesMut};
use std::time::SystemTime;

/// The op was not obeyed.
pub(super) fn error(refused: &Refused) -> Bytes {
    let Refused { id, code, error } = refused;
    let mut out = begin("error", id.as_deref());
    out.put_slice(b",\"error\":{\"code\":");
    json::string(&mut out, code.as_str());
    if *code != error.code {
        out.put_slice(b",\"cause\":");
        json::string(&mut out, error.code.as_str());
    }
    out.put_slice(b",\"message\":");
    json::string(&mut out, &error.message);
    out.put_slice(b",\"retryable\":");
    json::boolean(&mut out, code.retryable());
    if let Some(after) = error.retry_after {
        out.put_slice(b",\"retry_after_ms\":");
        json::integer(&mut out, u64::try_from(after.as_millis()).unwrap_or(u64::MAX));
    }
    out.put_slice(b",\"status\":");
    json::integer(&mut out, u64::from(code.status()));
    if !error.details.is_empty() {
        out.put_slice(b",\"details\":[");
        for (at, detail) in error.details.iter().enumerate() {
            out.put_slice(if at == 0 { b"{\"field\":" } else { b",{\"field\":" });
            json::string(&mut out, &detail.field);
            out.put_slice(b",\"expected\":");
            json::string(&mut out, &detail.expected);
            if let Some(limit) = detail.limit {
                out.put_slice(b",\"limit\":");
                json::integer(&mut out, limit);
            }
            out.put_u8(b'}');
        }
        out.put_u8(b']');
    }
    out.put_slice(b"}}");
    out.freeze()
}

/// URLs were added to a stream: the first one's index, and the new total.
pub(super) fn added(id: &str, index: u32, count: usize, total: u64) -> Bytes {
    let mut out = begin("added", Some(id));
    out.put_slice(b",\"index\":");
    json::integer(&mut out, u64::from(index));
    out.put_slice(b",\"count\":");
    json::integer(&mut out, count as u64);
    out.put_slice(b",\"total\":");
    json::integer(&mut out, total);
    out.put_u8(b'}');
    out.freeze()
}

/// We are here.
pub(super) fn pong(id: Option<&str>, at: SystemTime) -> Bytes {
    let mut out = begin("pong", id);
    out.put_slice(b",\"timestamp\":\"");
    out.put_slice(&rfc3339_millis(at));
    out.put_slice(b"\"}");
    out.freeze()
}

/// How the socket's streams are.
pub(super) fn status<'a>(id: Option<&str>, streams: impl Iterator<Item = &'a Attached>) -> Bytes {
    let mut out = begin("status", id);
    out.put_slice(b",\"streams\":[");
    for (at, attached) in streams.enumerate() {
        if at > 0 {
            out.put_u8(b',');
        }
        stream(&mut out, attached);
    }
    out.put_slice(b"]}");
    out.freeze()
}

fn stream(out: &mut BytesMut, attached: &Attached) {
    let stream = attached.stream();
    let Status { state, counts, .. } = stream.status();
    out.put_slice(&attached.prefix);
    out.put_slice(b"\"stream_id\":");
    json::string(out, &stream.id_text);
    out.put_slice(b",\"state\":");
    json::string(out, state.as_str());
    for (name, count) in [
        (&b",\"completed\":"[..], counts.completed()),
        (b",\"total\":", counts.total),
        (b",\"successful\":", counts.successful),
        (b",\"failed\":", counts.failed),
        (b",\"cancelled\":", counts.cancelled),
    ] {
        out.put_slice(name);
        json::integer(out, count);
    }
    let written = stream.with_log(|log| log.next_seq()).checked_sub(1);
    for (name, number) in [
        (&b",\"last_seq\":"[..], written),
        (b",\"sent_seq\":", attached.taken_seq),
        (b",\"credit\":", attached.credit().left()),
    ] {
        out.put_slice(name);
        match number {
            Some(number) => json::integer(out, number),
            None => out.put_slice(b"null"),
        }
    }
    out.put_u8(b'}');
}

fn begin(kind: &str, id: Option<&str>) -> BytesMut {
    let mut out = BytesMut::with_capacity(256);
    out.put_slice(b"{\"type\":");
    json::string(&mut out, kind);
    if let Some(id) = id {
        out.put_slice(b",\"id\":");
        json::string(&mut out, id);
    }
    out
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test may panic")]
    use super::*;
    use crate::error::{ApiCode, ApiError};
    use serde_json::Value;
    use std::time::{Duration, UNIX_EPOCH};

    fn read(text: &Bytes) -> Value {
        serde_json::from_slice(text).unwrap()
    }

    #[test]
    fn answers_are_json_with_their_fields() {
        let cause = ApiError::new(ApiCode::UnknownField, "no \"x\"").field("x", "y").limit("z", 9);
        let told = read(&error(&Refused::message(Some("a\"".to_owned()), cause)));
        assert_eq!((&told["type"], &told["id"]), (&"error".into(), &"a\"".into()));
        assert_eq!(told["error"]["code"], "bad_message");
        assert_eq!(told["error"]["cause"], "unknown_field");
        assert_eq!(told["error"]["retryable"], false);
        assert_eq!(told["error"]["details"][1]["limit"], 9);
        let full = ApiError::new(ApiCode::Overloaded, "m").retry_after(Duration::from_secs(1));
        let told = read(&error(&Refused::state(None, full)));
        assert_eq!(told["error"]["code"], "overloaded");
        assert_eq!(told["error"]["retry_after_ms"], 1000);
        assert!(told.get("id").is_none() && told["error"].get("cause").is_none());
        let told = read(&added("a", 3, 2, 5));
        assert_eq!((told["index"].as_u64(), told["count"].as_u64()), (Some(3), Some(2)));
        assert_eq!(read(&pong(None, UNIX_EPOCH))["timestamp"], "1970-01-01T00:00:00.000Z");
        assert_eq!(read(&status(Some("s"), std::iter::empty()))["streams"], Value::Array(vec![]));
    }
}
