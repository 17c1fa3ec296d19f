//! `/streams/{id}`: a stream's state, its events again, its flight recorder, its end; and finding a
//! stream by what its client remembers of it.

use super::ask::Ask;
use super::conn::{Conn, Gone};
use super::reply::{JSON, Reply};
use super::sender::Reader;
use super::transport::Transport;
use crate::crawl::mirror;
use crate::error::{ApiCode, ApiError};
use crate::limits::{IDEMPOTENCY_KEY_BYTES_MAX, READERS_PER_STREAM_MAX};
use crate::proto::json;
use crate::proto::sse::EventId;
use crate::stream::Stream;
use crate::stream::idempotency::Fingerprint;
use crate::stream::log::Log;
use bytes::{BufMut, Bytes, BytesMut};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};
use ulid::Ulid;

/// How long a `DELETE` waits for the end of what its stream has started.
const CANCEL_PATIENCE: Duration = Duration::from_secs(30);
/// How long, and how often, a stream is looked for that another core or node is just beginning.
const JOIN_PATIENCE: Duration = Duration::from_millis(500);
const JOIN_PAUSE: Duration = Duration::from_millis(5);

/// `GET /streams/{id}`.
pub(super) async fn state(conn: &mut Conn, id: Ulid) -> Result<(), Gone> {
    match find(conn, id).await {
        Ok(stream) => conn.reply(Reply::new(200, JSON, state_json(&stream))).await,
        Err(error) => conn.refuse(&error).await,
    }
}

/// `GET /streams/{id}/trace`.
pub(super) async fn trace(conn: &mut Conn, id: Ulid) -> Result<(), Gone> {
    match find(conn, id).await {
        Ok(stream) => conn.reply(Reply::new(200, JSON, stream.trace_json())).await,
        Err(error) => conn.refuse(&error).await,
    }
}

/// `DELETE /streams/{id}`: answers when nothing of the stream is left running; 202 when that takes
/// longer than half a minute.
pub(super) async fn cancel(conn: &mut Conn, id: Ulid) -> Result<(), Gone> {
    let stream = match find(conn, id).await {
        Ok(stream) => stream,
        Err(error) => return conn.refuse(&error).await,
    };
    let node = conn.node.clone();
    // Where it has no room for one who waits for its end, it is ended all the same.
    let room = check_readers(&stream).is_ok();
    let watcher = room.then(|| Reader::attach(&node, &stream, Some(u64::MAX)));
    node.cancel(&stream);
    let ended = match watcher {
        Some(watcher) => uring::time::timeout(CANCEL_PATIENCE, watcher.skip_to_end()).await.is_ok(),
        None => false,
    };
    let status = if ended { 200 } else { 202 };
    conn.reply(Reply::new(status, JSON, state_json(&stream))).await
}

/// `GET /streams/{id}/events`: what comes after `?after=N` or `Last-Event-ID`, or everything.
pub(super) async fn events(conn: &mut Conn, ask: &Ask, id: Ulid) -> Result<(), Gone> {
    let transport = if ask.wants_sse { Transport::Sse } else { Transport::Ndjson };
    match after(ask, id) {
        Ok(after) => attach(conn, id, after, transport).await,
        Err(error) => conn.refuse(&error).await,
    }
}

/// A request that would begin a crawl, from a client that was cut off: it names the last event that
/// it has, and gets the stream that it had (an `EventSource` comes back like this by itself).
pub(super) async fn resume(
    conn: &mut Conn,
    cursor: &[u8],
    transport: Transport,
) -> Result<(), Gone> {
    match event_id(cursor) {
        Ok(cursor) => attach(conn, cursor.stream_id, Some(cursor.seq), transport).await,
        Err(error) => conn.refuse(&error).await,
    }
}

/// A reader at the beginning of the stream that an `Idempotency-Key` stands for.
pub(super) async fn join(conn: &Conn, id: Ulid, transport: Transport) -> Result<Reader, ApiError> {
    let principal = conn.principal();
    let until = Instant::now() + JOIN_PATIENCE;
    let stream = loop {
        match conn.node.find_anywhere(id, &principal).await {
            Ok(stream) => break stream,
            Err(_) if Instant::now() < until => uring::time::sleep(JOIN_PAUSE).await,
            Err(_) => {
                let message = "the stream of this Idempotency-Key has just ended its resume window";
                return Err(ApiError::new(ApiCode::StreamExpired, message));
            }
        }
    };
    check_readers(&stream)?;
    // From here on nothing is dropped that this reader has not taken.
    let reader = Reader::attach(&conn.node, &stream, None);
    if transport == Transport::Json && stream.with_log(|log| log.first_seq()) > 0 {
        let message = "the stream's first events are out of its replay window: read \
                       /streams/{id}/events, which says what is missing";
        return Err(ApiError::new(ApiCode::StreamExpired, message));
    }
    Ok(reader)
}

/// Checks an `Idempotency-Key`: printable ASCII, with or without the quotes of a structured field.
///
/// # Errors
/// `validation_error`.
pub(super) fn idempotency_key(field: &[u8]) -> Result<Box<str>, ApiError> {
    let expected = "1 to 255 printable ASCII characters without quotation marks inside";
    let inner = field.strip_prefix(b"\"").and_then(|rest| rest.strip_suffix(b"\""));
    let key = inner.unwrap_or(field);
    let fits = (1..=IDEMPOTENCY_KEY_BYTES_MAX).contains(&key.len());
    match std::str::from_utf8(key) {
        Ok(text) if fits && key.iter().all(|byte| matches!(byte, b' '..=b'~') && *byte != b'"') => {
            Ok(text.into())
        }
        _ => {
            let message = format!("Idempotency-Key must be {expected}");
            Err(ApiError::new(ApiCode::ValidationError, message).field("Idempotency-Key", expected))
        }
    }
}

/// What a crawl's body is known by; equal bodies begin equal streams, whatever carries them.
pub(super) fn fingerprint(body: &[u8]) -> Fingerprint {
    let digest = ring::digest::digest(&ring::digest::SHA256, body);
    digest.as_ref().try_into().expect("SHA-256 has 32 bytes")
}

async fn find(conn: &Conn, id: Ulid) -> Result<Arc<Stream>, ApiError> {
    let principal = conn.principal();
    conn.node.find_anywhere(id, &principal).await
}

async fn attach(
    conn: &mut Conn,
    id: Ulid,
    after: Option<u64>,
    transport: Transport,
) -> Result<(), Gone> {
    let stream = match find(conn, id).await {
        Ok(stream) => stream,
        Err(error) => return conn.refuse(&error).await,
    };
    mirror::catch_up(&stream, after, mirror::CATCH_UP_MAX).await;
    let after = after.map(|seq| seen(&stream, seq));
    let at_end = |seq| stream.with_log(|log| log.ended() && seq >= log.next_seq() - 1);
    if transport == Transport::Sse && after.is_some_and(at_end) {
        // Nothing will ever come: 204 is what stops an EventSource from asking again
        // (WHATWG HTML §9.2.3).
        return conn.reply(Reply::empty(204)).await;
    }
    if let Err(error) = check_readers(&stream) {
        return conn.refuse(&error).await;
    }
    conn.request_id = Some(conn.node.request_id(conn.request_id.take()));
    let reader = Reader::attach(&conn.node.clone(), &stream, after);
    conn.send_stream(reader, transport)
}

/// Whether one more may read a stream.
///
/// # Errors
/// `rate_limited`.
pub(super) fn check_readers(stream: &Stream) -> Result<(), ApiError> {
    if !stream.is_crowded() {
        return Ok(());
    }
    let message = format!("{READERS_PER_STREAM_MAX} read it already");
    Err(ApiError::new(ApiCode::RateLimited, message).retry_after(Duration::from_secs(1)))
}

/// What a client has of a stream. A node that died may have sent it more than it has written anywhere:
/// then the end is what is new to it.
fn seen(stream: &Stream, seq: u64) -> u64 {
    let lost = |log: &mut Log| stream.birth.home.is_some() && log.ended() && seq >= log.next_seq();
    stream.with_log(|log| if lost(log) { log.next_seq().saturating_sub(2) } else { seq })
}

/// Where a client wants to go on: the parameter wins over the field.
pub(super) fn after(ask: &Ask, id: Ulid) -> Result<Option<u64>, ApiError> {
    ask.only_parameter("after")?;
    if let Some(text) = ask.parameter("after") {
        let expected = "the seq of the last event that you have";
        let digits = text.bytes().all(|byte| byte.is_ascii_digit());
        return text.parse().ok().filter(|_| digits).map(Some).ok_or_else(|| {
            let message = format!("after must be {expected}, a whole number");
            ApiError::new(ApiCode::ValidationError, message).field("after", expected)
        });
    }
    let Some(cursor) = &ask.last_event_id else { return Ok(None) };
    let cursor = event_id(cursor)?;
    if cursor.stream_id != id {
        let message = "Last-Event-ID is an event of another stream";
        return Err(ApiError::new(ApiCode::ValidationError, message)
            .field("Last-Event-ID", format!("{id}.<seq>")));
    }
    Ok(Some(cursor.seq))
}

fn event_id(field: &[u8]) -> Result<EventId, ApiError> {
    EventId::parse(field).ok_or_else(|| {
        let expected = "<stream_id>.<seq>, as the event's id said";
        let message = format!("Last-Event-ID must be {expected}");
        ApiError::new(ApiCode::ValidationError, message).field("Last-Event-ID", expected)
    })
}

/// A stream's state, totals, replay window and readers.
fn state_json(stream: &Stream) -> Bytes {
    let status = stream.status();
    let (first_seq, next_seq, bytes, behind) =
        stream.with_log(|log| (log.first_seq(), log.next_seq(), log.bytes(), log.behind()));
    let mut out = BytesMut::with_capacity(512);
    out.put_slice(b"{\"stream_id\":");
    json::string(&mut out, &stream.id_text);
    out.put_slice(b",\"state\":");
    json::string(&mut out, status.state.as_str());
    let counts = status.counts;
    json::integers(
        &mut out,
        &[
            ("total_urls", counts.total),
            ("successful", counts.successful),
            ("failed", counts.failed),
            ("cancelled", counts.cancelled),
            ("in_flight", u64::from(status.in_flight)),
        ],
    );
    out.put_slice(b",\"last_seq\":");
    match next_seq.checked_sub(1) {
        Some(last) => json::integer(&mut out, last),
        None => out.put_slice(b"null"),
    }
    out.put_slice(b",\"replay\":{\"first_seq\":");
    json::integer(&mut out, first_seq);
    json::integers(
        &mut out,
        &[
            ("bytes", bytes as u64),
            ("max_bytes", stream.birth.replay_bytes_max as u64),
            ("window_s", stream.birth.resume_window.as_secs()),
            ("unread_bytes", behind as u64),
        ],
    );
    out.put_slice(b"},\"readers\":[");
    for (at, reader) in stream.attached().iter().enumerate() {
        let gauge = &reader.gauge;
        let small =
            |number: &std::sync::atomic::AtomicU32| u64::from(number.load(Ordering::Relaxed));
        out.put_slice(if at == 0 { b"{\"core\":" } else { b",{\"core\":" });
        json::integer(&mut out, reader.core as u64);
        json::integers(&mut out, &[("next_seq", reader.seq_next)]);
        out.put_slice(b",\"ring\":{\"frames\":");
        json::integer(&mut out, small(&gauge.frames));
        json::integers(
            &mut out,
            &[
                ("frames_limit", small(&gauge.frames_limit)),
                ("bytes", gauge.bytes.load(Ordering::Relaxed) as u64),
                ("sends", gauge.sends.load(Ordering::Relaxed)),
                ("slow_sends", small(&gauge.slow_sends)),
                ("grown", small(&gauge.grown)),
                ("shrunk", small(&gauge.shrunk)),
            ],
        );
        out.put_slice(b"}}");
    }
    out.put_slice(b"]}");
    out.freeze()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_printable_and_short() {
        assert_eq!(idempotency_key(b"abc-1").as_deref().ok(), Some("abc-1"));
        assert_eq!(idempotency_key(b"\"quoted\"").as_deref().ok(), Some("quoted"));
        for wrong in [&b""[..], b"\"\"", b"a\tb", "\u{e9}".as_bytes(), &[b'x'; 256]] {
            assert!(idempotency_key(wrong).is_err(), "{wrong:?}");
        }
    }
}
