//! What each route does with its request.

use super::ask::{Ask, BodyType};
use super::conn::{Conn, Gone};
use super::jobs;
use super::reply::{JSON, Reply, TEXT};
use super::route::Route;
use super::sender::Reader;
use super::streams;
use super::transport::Transport;
use super::ws;
use super::{mcp, pages};
use crate::config::Config;
use crate::config::reload::{Outcome, Request};
use crate::crawl::claims::Wish;
use crate::crawl::live::{Live, Terms};
use crate::crawl::mesh::LaneJob;
use crate::crawl::page;
use crate::crawl::query;
use crate::crawl::report;
use crate::crawl::request::deepsearch::parse_deepsearch;
use crate::crawl::request::{self, CrawlRequest, Options, OrderName};
use crate::crawl::turns::{Line, Whose};
use crate::error::{ApiCode, ApiError, PageCode, PageError, Stage};
use crate::limits::READ_HERE_BYTES_MAX;
use crate::observe::exposition::Format;
use crate::observe::query::LatencyQuery;
use crate::proto::h1::Method;
use crate::stream::idempotency::Claim;
use crate::stream::place::Place;
use crate::timings::Timings;
use bytes::Bytes;
use std::sync::Arc;
use std::time::{Duration, Instant};
use ulid::Ulid;

/// How long an extraction may wait for its turn and take, together.
const EXTRACT_DEADLINE: Duration = Duration::from_secs(30);

/// How long a reload may take.
const RELOAD_PATIENCE: Duration = Duration::from_secs(10);

/// Answers one request.
///
/// # Errors
/// The connection is over.
pub async fn handle(conn: &mut Conn, ask: Box<Ask>) -> Result<(), Gone> {
    let Some(route) = ask.route else {
        if ask.asterisk && ask.method == Method::Options {
            return conn
                .reply(Reply::empty(204).field("Allow", "GET, HEAD, POST, DELETE, OPTIONS"))
                .await;
        }
        let error = ApiError::new(ApiCode::NotFound, "there is nothing at this path");
        return conn.refuse(&error).await;
    };
    if ask.method == Method::Options {
        return conn.reply(Reply::empty(204).field("Allow", route.allow())).await;
    }
    if !route.methods().contains(&ask.method) {
        return method_not_allowed(conn, route, &ask).await;
    }
    match route {
        Route::Livez => conn.reply_plain(200, "ok\n").await,
        Route::Readyz => match conn.node.readiness() {
            Ok(()) => conn.reply_plain(200, "ready\n").await,
            Err(error) => conn.refuse(&error).await,
        },
        Route::Healthz => {
            let (status, text) = report::health(&conn.node);
            conn.reply(Reply::new(status, JSON, text)).await
        }
        Route::Metrics => {
            let format = if ask.wants_openmetrics { Format::OpenMetrics } else { Format::Text };
            let text = report::metrics(&conn.node, format).await;
            conn.reply(Reply::new(200, format.content_type(), text)).await
        }
        Route::Latency => latency(conn, &ask).await,
        Route::Reload => reload(conn).await,
        Route::Crawl | Route::Deepsearch => crawl(conn, &ask, Transport::Json).await,
        Route::CrawlSse | Route::DeepsearchSse => crawl(conn, &ask, Transport::Sse).await,
        Route::CrawlStream | Route::DeepsearchStream => {
            let transport = if ask.wants_sse { Transport::Sse } else { Transport::Ndjson };
            crawl(conn, &ask, transport).await
        }
        Route::CrawlWs => Box::pin(ws::upgrade(conn, ask)).await,
        Route::Extract => extract(conn, &ask).await,
        Route::Stream(id) if ask.method == Method::Delete => streams::cancel(conn, id).await,
        Route::Stream(id) => streams::state(conn, id).await,
        Route::StreamEvents(id) => streams::events(conn, &ask, id).await,
        Route::StreamTrace(id) => streams::trace(conn, id).await,
        Route::Jobs => Box::pin(jobs::all(conn, &ask)).await,
        Route::Job(id) => jobs::one(conn, &ask, id).await,
        Route::JobEvents(id) => jobs::events(conn, &ask, id).await,
        Route::Console | Route::Docs | Route::OpenApi => pages::answer(conn, &ask, route).await,
        Route::Mcp => Box::pin(mcp::handle(conn, &ask)).await,
    }
}

async fn method_not_allowed(conn: &mut Conn, route: Route, ask: &Ask) -> Result<(), Gone> {
    let message = format!("{} is not for this path", ask.method.as_str());
    let error = ApiError::new(ApiCode::MethodNotAllowed, message);
    let id = conn.request_id.clone();
    let reply = Reply::error(&error, id.as_ref().map(|id| id.as_str()));
    conn.reply(reply.field("Allow", route.allow())).await
}

/// `POST /admin/reload`: on the control thread, which may block.
async fn reload(conn: &mut Conn) -> Result<(), Gone> {
    let (reply, mut from) = uring::mailbox::channel(1);
    let asked = conn.node.shared.reload.try_send(Request { reply });
    let waiting = uring::time::timeout(RELOAD_PATIENCE, from.recv());
    let outcome = match asked {
        Ok(()) => waiting.await.ok().flatten(),
        Err(_) => None,
    };
    match outcome {
        Some(outcome) => {
            let status = if matches!(outcome, Outcome::Done { .. }) { 200 } else { 422 };
            conn.reply(Reply::new(status, JSON, outcome.to_json().freeze())).await
        }
        None => {
            let error = ApiError::new(ApiCode::Overloaded, "a reload takes too long: see the log");
            conn.refuse(&error.retry_after(Duration::from_secs(1))).await
        }
    }
}

async fn latency(conn: &mut Conn, ask: &Ask) -> Result<(), Gone> {
    match LatencyQuery::parse(ask.query.as_deref().unwrap_or_default()) {
        Ok(query) => {
            let snapshot = report::latency(&conn.node, query.scope).await;
            let (text, content_type) = query.answer(&snapshot);
            let content_type = if content_type == JSON { JSON } else { TEXT };
            conn.reply(Reply::new(200, content_type, text)).await
        }
        Err(error) => conn.refuse(&error).await,
    }
}

/// `/crawl`, `/crawl/stream` and `/crawl/sse`, and `/deepsearch` alike: one stream, written in one of
/// three ways.
async fn crawl(conn: &mut Conn, ask: &Ask, transport: Transport) -> Result<(), Gone> {
    if ask.method == Method::Head {
        return conn.reply(Reply::new(200, transport.content_type(), "")).await;
    }
    if let Some(cursor) = ask.last_event_id.as_deref().filter(|_| transport != Transport::Json) {
        return streams::resume(conn, cursor, transport).await;
    }
    let begun = match begin(conn, ask, transport).await? {
        Ok(reader) => reader,
        Err(error) => return conn.refuse(&error).await,
    };
    conn.send_stream(begun, transport)
}

/// Reads and checks a crawl's request and begins its stream, or finds the one that the same request
/// with the same `Idempotency-Key` has begun.
async fn begin(
    conn: &mut Conn,
    ask: &Ask,
    transport: Transport,
) -> Result<Result<Reader, ApiError>, Gone> {
    let body = body_of(conn, ask).await?;
    let mut body = match body {
        Ok(body) => body,
        Err(error) => return Ok(Err(error)),
    };
    let key = match ask.idempotency_key.as_deref().map(streams::idempotency_key).transpose() {
        Ok(key) => key,
        Err(error) => return Ok(Err(error)),
    };
    let parse = if is_search(ask) { parse_deepsearch } else { request::parse_crawl };
    let (bytes, keyed, shared) = (body.len(), key.is_some(), Arc::clone(&conn.node.shared));
    let read = move || {
        let fingerprint = keyed.then(|| streams::fingerprint(&body));
        parse(&mut body, &shared.config).map(|request| (request, fingerprint))
    };
    let reading = conn.node.shared.reading.read(bytes, READ_HERE_BYTES_MAX, read);
    let (request, fingerprint) = match reading.await.flatten() {
        Ok(read) => read,
        Err(error) => return Ok(Err(error)),
    };
    let request_id = conn.node.request_id(ask.request_id.clone());
    conn.request_id = Some(request_id.clone());
    let (node, principal, id) = (conn.node.clone(), conn.principal(), Ulid::generate());
    let mut wish = None;
    if let (Some(key), Some(fingerprint)) = (&key, fingerprint) {
        let wished = Wish::new(Arc::clone(&principal), key, &fingerprint, id);
        match wished.claim(&node, &request.options).await {
            Claim::New => wish = Some(wished),
            Claim::Same(stream) => return Ok(streams::join(conn, stream, transport).await),
            Claim::Conflict => {
                let message = "this Idempotency-Key was used for another request";
                return Ok(Err(ApiError::new(ApiCode::IdempotencyConflict, message)));
            }
        }
    }
    let place = match admit(conn, &request) {
        Ok(place) => place,
        Err(error) => {
            if let Some(wish) = wish {
                wish.release(&node);
            }
            return Ok(Err(error));
        }
    };
    let trace = conn.visit.trace;
    let terms = Terms {
        id,
        principal,
        // Whoever waits for the whole answer wants its results in the order of the URLs, and can
        // come back for it only by a key.
        order: if transport == Transport::Json { OrderName::Input } else { OrderName::Completion },
        resumable: transport != Transport::Json || key.is_some(),
        idempotency_key: key,
        place,
        request_id,
        endpoint: conn.endpoint,
        background: None,
    };
    Ok(Ok(Live::start(&node, request, terms, |stream| {
        if let Some(trace) = &trace {
            stream.join_trace(trace);
        }
        Reader::attach(&node, stream, None)
    })))
}

/// The request's body, or one made of its query.
async fn body_of(conn: &mut Conn, ask: &Ask) -> Result<Result<Vec<u8>, ApiError>, Gone> {
    if ask.method == Method::Get {
        let query = ask.query.as_deref().unwrap_or_default();
        let body = if is_search(ask) { query::deepsearch_body } else { query::crawl_body };
        return Ok(conn.node.admit().map(|()| body(query)));
    }
    let bytes_max = conn.node.shared.config.body_bytes_max;
    let types = [BodyType::Json, BodyType::Missing];
    take_body(conn, ask, &types, "application/json", bytes_max).await
}

fn is_search(ask: &Ask) -> bool {
    use Route::{Deepsearch, DeepsearchSse, DeepsearchStream};
    matches!(ask.route, Some(Deepsearch | DeepsearchSse | DeepsearchStream))
}

/// Counts what the request asks for, and takes the places that it needs: what is known to fail before
/// the answer begins fails here.
pub(super) fn admit(
    conn: &mut Conn,
    request: &CrawlRequest,
) -> Result<Option<Arc<Place>>, ApiError> {
    let place = conn.begin_stream(asked_for(request, &conn.node.shared.config))?;
    if let Some(searched) = &request.search {
        conn.node.shared.search.admit(&searched.query, Instant::now())?;
    }
    Ok(place)
}

/// What a request counts as: a search as the URLs that it may find, each under its query's text, and
/// links that are followed as those that may be.
pub(super) fn asked_for<'a>(
    request: &'a CrawlRequest,
    config: &Config,
) -> impl ExactSizeIterator<Item = &'a str> + use<'a> {
    let query = request.search.as_ref().map(|searched| searched.query.text.as_str());
    (0..request.urls_max(config)).map(move |at| match query {
        Some(query) => query,
        None => &request.urls[at % request.urls.len()],
    })
}

/// `POST /extract`: no fetch, the lane only.
async fn extract(conn: &mut Conn, ask: &Ask) -> Result<(), Gone> {
    let bytes_max = conn.node.shared.config.extract_body_bytes_max;
    let (types, expected) = ([BodyType::Json, BodyType::Html], "text/html or application/json");
    let mut body = match take_body(conn, ask, &types, expected, bytes_max).await? {
        Ok(body) => body,
        Err(error) => return conn.refuse(&error).await,
    };
    let told = ask.parameter("url").unwrap_or_default();
    if let Err(error) = ask.only_parameter("url").and_then(|()| check_base(&told)) {
        return conn.refuse(&error).await;
    }
    let (html, url, options, charset) = if ask.body_type == BodyType::Json {
        let (bytes, read) = (body.len(), move || request::parse_extract(&mut body));
        match conn.node.shared.reading.read(bytes, READ_HERE_BYTES_MAX, read).await.flatten() {
            Ok(body) => {
                let url = if body.url.is_empty() { told } else { body.url };
                // What came as JSON is UTF-8, whatever its own declarations say.
                (body.html.into_bytes(), url, body.options, Some("utf-8".to_owned()))
            }
            Err(error) => return conn.refuse(&error).await,
        }
    } else {
        (body, told, Options::default(), ask.charset.clone())
    };
    match extract_page(conn, Given { html, charset, url: url.clone(), options }).await {
        Ok(Done { document, quality, timings }) => {
            conn.reply(Reply::extracted(&url, &quality, document, &timings)).await
        }
        Err(error) => conn.refuse(&error).await,
    }
}

/// A page that the client brought.
pub(super) struct Given {
    pub(super) html: Vec<u8>,
    /// The charset that it is said to have.
    pub(super) charset: Option<String>,
    /// Base of its links; may be empty.
    pub(super) url: String,
    pub(super) options: Options,
}

/// Its document.
pub(super) struct Done {
    pub(super) document: Bytes,
    /// The quality score, as JSON.
    pub(super) quality: Box<str>,
    timings: Timings,
}

/// Has the core's lane extract a page.
///
/// # Errors
/// `invalid_url`, `overloaded` or what became of the extraction.
pub(super) async fn extract_page(conn: &Conn, given: Given) -> Result<Done, ApiError> {
    let Given { html, charset, url, options } = given;
    check_base(&url)?;
    let submitted = Instant::now();
    let job = LaneJob {
        body: html,
        charset,
        url,
        options: page::lane_options(&options),
        stream: None,
        deadline: submitted + EXTRACT_DEADLINE,
        submitted,
    };
    let line = Line::Address(conn.visit.address_number());
    let whose = Whose { client: conn.principal(), line };
    if conn.node.lane_is_full_for(&whose) {
        return Err(busy());
    }
    let waiting = conn.node.extract(whose, job);
    let Ok(reply) = uring::time::timeout(EXTRACT_DEADLINE, waiting.reply()).await else {
        return Err(busy());
    };
    let mut timings = Timings::default();
    timings.add(Stage::ExtractWait, reply.waited);
    timings.add(Stage::Extract, reply.took);
    conn.node.observe.record_extraction(&timings);
    let extracted = reply.outcome.map_err(extract_error)?;
    let quality = extracted.quality_json().into();
    Ok(Done { document: extracted.document(), quality, timings })
}

/// Reads the body of a request that must have one of these types, if there is room for the work.
pub(super) async fn take_body(
    conn: &mut Conn,
    ask: &Ask,
    types: &[BodyType],
    expected: &str,
    bytes_max: usize,
) -> Result<Result<Vec<u8>, ApiError>, Gone> {
    if !types.contains(&ask.body_type) {
        let message = format!("the body must be {expected}");
        let error = ApiError::new(ApiCode::InvalidContentType, message);
        return Ok(Err(error.field("Content-Type", expected)));
    }
    if !ask.has_length {
        // RFC 9110 §15.5.12
        let message = "a body is needed, with Content-Length or in chunks";
        return Ok(Err(ApiError::new(ApiCode::LengthRequired, message)));
    }
    if let Err(error) = conn.node.admit() {
        return Ok(Err(error));
    }
    conn.read_body(bytes_max).await
}

/// The base of a document's links is an absolute http(s) URL, or nothing.
fn check_base(url: &str) -> Result<(), ApiError> {
    if url.is_empty() {
        return Ok(());
    }
    request::check_url(url).map_err(|why| {
        ApiError::new(ApiCode::InvalidUrl, format!("url is no http or https URL: {why}"))
            .field("url", "an absolute http or https URL")
    })
}

fn extract_error(error: PageError) -> ApiError {
    let code = match error.code {
        PageCode::ExtractTimeout => ApiCode::ExtractTimeout,
        PageCode::ExtractMemory => ApiCode::ExtractMemory,
        PageCode::DeadlineExceeded => return busy(),
        _ => ApiCode::ExtractFailed,
    };
    ApiError::new(code, error.message)
}

fn busy() -> ApiError {
    let error = ApiError::new(ApiCode::Overloaded, "the extraction lanes are busy");
    error.retry_after(Duration::from_secs(1))
}
