//! `/jobs`: crawls that go on in the background, wherever they live.

use super::ask::{Ask, BodyType};
use super::conn::{Conn, Gone};
use super::handle::take_body;
use super::reply::{JSON, Reply};
use super::sender::Reader;
use super::streams;
use super::transport::Transport;
use crate::error::{ApiCode, ApiError};
use crate::jobs::memory::Owner;
use crate::jobs::request::JobRequest;
use crate::jobs::shared::Submitted;
use crate::jobs::view::View;
use crate::limits::JOBS_LISTED_MAX;
use crate::proto::h1::Method;
use crate::proto::json;
use crate::stream::Stream;
use crate::stream::idempotency::Claim;
use bytes::{BufMut, BytesMut};
use std::sync::Arc;
use std::time::{Duration, Instant};
use ulid::Ulid;

/// How long a `DELETE` waits for the end of what its job has started.
const CANCEL_PATIENCE: Duration = Duration::from_secs(30);
/// How often a job is looked at whose stream has just ended.
const END_LOOK: Duration = Duration::from_millis(1);
/// Jobs on a page where nothing is said.
const LISTED: usize = 20;

/// `POST /jobs`, `GET /jobs`.
pub(super) async fn all(conn: &mut Conn, ask: &Ask) -> Result<(), Gone> {
    if ask.method != Method::Post {
        return match list(conn, ask).await {
            Ok(text) => conn.reply(Reply::new(200, JSON, text)).await,
            Err(error) => conn.refuse(&error).await,
        };
    }
    match create(conn, ask).await? {
        Ok(view) => {
            let location = format!("/jobs/{}", view.id);
            conn.reply(Reply::new(202, JSON, view.json()).field("Location", location)).await
        }
        Err(error) => conn.refuse(&error).await,
    }
}

/// `GET /jobs/{id}`, `DELETE /jobs/{id}`.
pub(super) async fn one(conn: &mut Conn, ask: &Ask, id: Ulid) -> Result<(), Gone> {
    let view = match ask.method {
        Method::Delete => cancel(conn, id).await,
        _ => find(conn, id).await,
    };
    match view {
        Ok(view) => {
            let going = ask.method == Method::Delete && !view.status.ended();
            conn.reply(Reply::new(if going { 202 } else { 200 }, JSON, view.json())).await
        }
        Err(error) => conn.refuse(&error).await,
    }
}

/// `GET /jobs/{id}/events`: what comes after `?after=N` or `Last-Event-ID`, or everything.
pub(super) async fn events(conn: &mut Conn, ask: &Ask, id: Ulid) -> Result<(), Gone> {
    let transport = if ask.wants_sse { Transport::Sse } else { Transport::Ndjson };
    let found = match streams::after(ask, id) {
        Ok(after) => find_events(conn, id, after).await.map(|found| (found, after)),
        Err(error) => Err(error),
    };
    let (stream, after) = match found {
        Ok((Some(stream), after)) => (stream, after),
        // Nothing will ever come: 204 is what stops an EventSource from asking again
        // (WHATWG HTML §9.2.3).
        Ok((None, _)) if transport == Transport::Sse => return conn.reply(Reply::empty(204)).await,
        Ok((None, _)) => return conn.reply(Reply::new(200, transport.content_type(), "")).await,
        Err(error) => return conn.refuse(&error).await,
    };
    if ask.method == Method::Head {
        return conn.reply(Reply::new(200, transport.content_type(), "")).await;
    }
    if let Err(error) = streams::check_readers(&stream) {
        return conn.refuse(&error).await;
    }
    conn.request_id = Some(conn.node.request_id(conn.request_id.take()));
    let reader = Reader::attach(&conn.node.clone(), &stream, after);
    drop(stream);
    conn.send_stream(reader, transport)
}

async fn create(conn: &mut Conn, ask: &Ask) -> Result<Result<View, ApiError>, Gone> {
    let bytes_max = conn.node.shared.config.jobs_body_bytes_max;
    let types = [BodyType::Json, BodyType::Missing];
    let body = match take_body(conn, ask, &types, "application/json", bytes_max).await? {
        Ok(body) => body,
        Err(error) => return Ok(Err(error)),
    };
    let key = match ask.idempotency_key.as_deref().map(streams::idempotency_key).transpose() {
        Ok(key) => key,
        Err(error) => return Ok(Err(error)),
    };
    let jobs = Arc::clone(&conn.jobs);
    let request = match jobs.read(body).await {
        Ok(request) => request,
        Err(error) => return Ok(Err(error)),
    };
    let request_id = conn.node.request_id(ask.request_id.clone());
    conn.request_id = Some(request_id.clone());
    let access = Arc::clone(&conn.access);
    // As for a stream, links that may be followed count like URLs that are named.
    let (urls, most) = (&request.crawl.urls, request.crawl.urls_max(&conn.node.shared.config));
    let asked = (0..most).map(|at| &*urls[at % urls.len()]);
    if let Err(error) = conn.visit.ask(&access, asked) {
        return Ok(Err(error));
    }
    if let Some(webhook) = &request.webhook {
        conn.visit.note_webhook(&access, &webhook.url);
    }
    let owner = Owner { principal: conn.principal(), idempotency_key: key, request_id };
    let id = Ulid::generate();
    if !jobs.in_redis() {
        return Ok(begin(conn, id, owner, request));
    }
    let node = conn.node.clone();
    Ok(match jobs.submit(&node, id, owner, request).await {
        Ok(Submitted::New(view) | Submitted::Same(view)) => Ok(view),
        Err(error) => Err(error),
    })
}

/// Begins a job in memory, or finds the one that the same request with the same key has begun.
fn begin(conn: &Conn, id: Ulid, owner: Owner, request: JobRequest) -> Result<View, ApiError> {
    let keys = &conn.node.shared.keys;
    // No key of a stream has such a byte: the same key may stand for a stream and for a job.
    let key = owner.idempotency_key.map(|key| format!("\0{key}").into_boxed_str());
    let owner = Owner { idempotency_key: key.clone(), ..owner };
    let principal = Arc::clone(&owner.principal);
    if let Some(key) = &key {
        match keys.claim(&principal, key, &request.fingerprint, id) {
            Claim::New => {}
            Claim::Same(before) => {
                let record = conn.jobs.find(before, &principal);
                return record.map(|record| record.view()).ok_or_else(not_found);
            }
            Claim::Conflict => {
                let message = "this Idempotency-Key was used for another request";
                return Err(ApiError::new(ApiCode::IdempotencyConflict, message));
            }
        }
    }
    let begun = conn.jobs.begin(&conn.node, id, owner, request);
    if let (Err(_), Some(key)) = (&begun, &key) {
        keys.release(&principal, key, id);
    }
    begun
}

async fn list(conn: &Conn, ask: &Ask) -> Result<BytesMut, ApiError> {
    let wrong = |field: &str, expected: String| {
        let message = format!("{field}: expected {expected}");
        ApiError::new(ApiCode::ValidationError, message).field(field, expected)
    };
    ask.only_parameters(&["before", "limit"])?;
    let before = match ask.parameter("before") {
        None => None,
        Some(text) => Some(
            Ulid::from_string(&text).map_err(|_| wrong("before", "the id of a job".to_owned()))?,
        ),
    };
    let most = match ask.parameter("limit").map(|text| text.parse()) {
        None => LISTED,
        Some(Ok(most)) if (1..=JOBS_LISTED_MAX).contains(&most) => most,
        Some(_) => return Err(wrong("limit", format!("1 to {JOBS_LISTED_MAX}"))),
    };
    let (jobs, principal) = (Arc::clone(&conn.jobs), conn.principal());
    let views = if jobs.in_redis() {
        jobs.look_all(&principal, before, most).await?
    } else {
        jobs.list(&principal, before, most)
    };
    let mut out = BytesMut::with_capacity(64 + views.len() * 512);
    out.put_slice(b"{\"jobs\":[");
    for (at, view) in views.iter().enumerate() {
        if at > 0 {
            out.put_u8(b',');
        }
        out.put_slice(&view.json());
    }
    out.put_slice(b"],\"next\":");
    let next = views.last().filter(|_| views.len() == most).map(|view| view.id.to_string());
    json::string_or_null(&mut out, next.as_deref());
    out.put_u8(b'}');
    Ok(out)
}

async fn find(conn: &Conn, id: Ulid) -> Result<View, ApiError> {
    let (jobs, principal) = (Arc::clone(&conn.jobs), conn.principal());
    if jobs.in_redis() {
        return jobs.look(id, &principal).await;
    }
    jobs.find(id, &principal).map(|record| record.view()).ok_or_else(not_found)
}

/// A job's events as a stream of this process; `None` where nothing comes after `after` any more.
async fn find_events(
    conn: &Conn,
    id: Ulid,
    after: Option<u64>,
) -> Result<Option<Arc<Stream>>, ApiError> {
    let (jobs, principal) = (Arc::clone(&conn.jobs), conn.principal());
    if jobs.in_redis() {
        let view = jobs.look(id, &principal).await?;
        let over = view.status.ended() && after.is_some() && after >= view.last_seq;
        return Ok((!over).then(|| jobs.mirror(&conn.node, &view, after)));
    }
    let record = jobs.find(id, &principal).ok_or_else(not_found)?;
    let last = record.stream.with_log(|log| log.ended().then(|| log.next_seq() - 1));
    let over = last.is_some() && after.is_some() && after >= last;
    Ok((!over).then(|| Arc::clone(&record.stream)))
}

async fn cancel(conn: &Conn, id: Ulid) -> Result<View, ApiError> {
    let (jobs, principal) = (Arc::clone(&conn.jobs), conn.principal());
    if jobs.in_redis() {
        return jobs.end_shared(id, &principal, CANCEL_PATIENCE).await;
    }
    let record = jobs.find(id, &principal).ok_or_else(not_found)?;
    let node = conn.node.clone();
    let until = Instant::now() + CANCEL_PATIENCE;
    let room = streams::check_readers(&record.stream).is_ok();
    let watcher = room.then(|| Reader::attach(&node, &record.stream, Some(u64::MAX)));
    node.cancel(&record.stream);
    if let Some(watcher) = watcher {
        let _ = uring::time::timeout_at(until, watcher.skip_to_end()).await;
    }
    while !record.view().status.ended() && Instant::now() < until {
        uring::time::sleep(END_LOOK).await;
    }
    Ok(record.view())
}

fn not_found() -> ApiError {
    ApiError::new(ApiCode::NotFound, "there is no job of this id")
}
