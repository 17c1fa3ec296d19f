//! The routes.

use crate::App;
use crate::crawl::Crawl;
use crate::events::{Encoder, Transport};
use crate::page;
use crate::request::{CrawlRequest, ExtractRequest, Options, Order, Refused};
use axum::Router;
use axum::body::Body;
use axum::extract::{DefaultBodyLimit, RawQuery, State};
use axum::http::header::{ACCEPT, CACHE_CONTROL, CONTENT_TYPE};
use axum::http::{HeaderMap, HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use bytes::{BufMut, Bytes, BytesMut};
use futures_util::stream::{self, StreamExt};
use serde::Serialize;
use serde_json::json;
use serde_json::value::RawValue;
use std::convert::Infallible;
use std::sync::Arc;

/// Bytes of a crawl's body.
const CRAWL_BYTES_MAX: usize = 4 * 1024 * 1024;
/// Bytes of a document for `/extract`.
const EXTRACT_BYTES_MAX: usize = 16 * 1024 * 1024;

pub(crate) fn router(app: Arc<App>) -> Router {
    Router::new()
        .route("/livez", get(|| async { "ok\n" }))
        .route("/readyz", get(|| async { "ready\n" }))
        .route("/crawl", post(crawl))
        .route("/crawl/stream", post(crawl_stream))
        .route("/crawl/sse", get(crawl_sse_get).post(crawl_sse))
        .route("/crawl/ws", get(crate::ws::upgrade))
        .layer(DefaultBodyLimit::max(CRAWL_BYTES_MAX))
        .route("/extract", post(extract).layer(DefaultBodyLimit::max(EXTRACT_BYTES_MAX)))
        .with_state(app)
}

async fn crawl(State(app): State<Arc<App>>, headers: HeaderMap, body: Bytes) -> Response {
    respond(&app, &headers, &body, Transport::Json).await
}

async fn crawl_stream(State(app): State<Arc<App>>, headers: HeaderMap, body: Bytes) -> Response {
    let wants_sse = headers
        .get_all(ACCEPT)
        .iter()
        .any(|value| value.to_str().is_ok_and(|value| value.contains("text/event-stream")));
    let transport = if wants_sse { Transport::Sse } else { Transport::Ndjson };
    respond(&app, &headers, &body, transport).await
}

async fn crawl_sse(State(app): State<Arc<App>>, headers: HeaderMap, body: Bytes) -> Response {
    respond(&app, &headers, &body, Transport::Sse).await
}

async fn crawl_sse_get(
    State(app): State<Arc<App>>,
    headers: HeaderMap,
    RawQuery(query): RawQuery,
) -> Response {
    let query = query.unwrap_or_default();
    let pairs = url::form_urlencoded::parse(query.as_bytes());
    let urls = pairs.filter(|(name, _)| name == "url").map(|(_, url)| url.into_owned()).collect();
    let request = CrawlRequest { urls, options: Options::default() };
    match request.check() {
        Ok(request) => stream_of(&app, &headers, request, Transport::Sse).await,
        Err(refused) => refusal(&refused),
    }
}

async fn respond(
    app: &Arc<App>,
    headers: &HeaderMap,
    body: &[u8],
    transport: Transport,
) -> Response {
    let request =
        serde_json::from_slice::<CrawlRequest>(body).map_err(Refused::from).and_then(|r| r.check());
    match request {
        Ok(request) => stream_of(app, headers, request, transport).await,
        Err(refused) => refusal(&refused),
    }
}

/// Answers with a stream. One that is over at once, because everything was in the cache, is a plain
/// body.
async fn stream_of(
    app: &Arc<App>,
    headers: &HeaderMap,
    request: CrawlRequest,
    transport: Transport,
) -> Response {
    let request_id = headers.get("x-request-id").and_then(|id| id.to_str().ok());
    let order = if transport == Transport::Json { Order::Input } else { Order::Completion };
    let content_type = match transport {
        Transport::Sse => "text/event-stream",
        Transport::Json => "application/json",
        _ => "application/x-ndjson",
    };
    let mut crawl = Crawl::new(app, request, request_id.map(str::to_owned), order);
    let mut encoder = Encoder::new(transport);
    crawl.next(&mut encoder).await;
    let first = encoder.take();
    let mut response = Response::new(Body::empty());
    let fields = response.headers_mut();
    fields.insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
    fields.insert(CACHE_CONTROL, HeaderValue::from_static("no-cache, no-transform"));
    fields.insert("x-accel-buffering", HeaderValue::from_static("no"));
    for (name, id) in [("x-stream-id", &*crawl.stream_id), ("x-request-id", crawl.request_id())] {
        if let Ok(value) = HeaderValue::from_str(id) {
            fields.insert(name, value);
        }
    }
    *response.body_mut() = if crawl.is_over() {
        Body::from(first)
    } else {
        let rest = stream::unfold((crawl, encoder), |(mut crawl, mut encoder)| async move {
            let more = crawl.next(&mut encoder).await;
            more.then(|| (encoder.take(), (crawl, encoder)))
        });
        let pieces = stream::once(std::future::ready(first)).chain(rest);
        Body::from_stream(pieces.map(Ok::<_, Infallible>))
    };
    response
}

#[derive(Serialize)]
struct Extracted<'a> {
    url: Option<&'a str>,
    quality_score: f64,
    timings_us: ExtractTimings,
    document: &'a RawValue,
}

#[derive(Serialize)]
struct ExtractTimings {
    extract_wait: u64,
    extract: u64,
}

async fn extract(
    State(app): State<Arc<App>>,
    headers: HeaderMap,
    RawQuery(query): RawQuery,
    body: Bytes,
) -> Response {
    let content_type = headers.get(CONTENT_TYPE).and_then(|value| value.to_str().ok());
    let content_type = content_type.unwrap_or_default();
    let (body, url, options, charset) = if content_type.starts_with("application/json") {
        match serde_json::from_slice::<ExtractRequest>(&body) {
            Ok(request) => {
                let charset = Some("utf-8".to_owned());
                (Bytes::from(request.html), request.url, request.options, charset)
            }
            Err(error) => return refusal(&error.into()),
        }
    } else {
        let query = query.unwrap_or_default();
        let mut pairs = url::form_urlencoded::parse(query.as_bytes());
        let url = pairs.find(|(name, _)| name == "url").map(|(_, url)| url.into_owned());
        let charset = content_type.split_once("charset=").map(|(_, label)| label.trim().to_owned());
        (body, url.unwrap_or_default(), Options::default(), charset)
    };
    let options = options.extractor_options();
    let base = url.clone();
    let job = move || page::document(&body, charset.as_deref(), &base, &options);
    let (document, quality_score, waited, took) = match page::on_blocking(&app, job).await {
        Ok((Ok((document, quality)), waited, took)) => (document, quality, waited, took),
        Ok((Err(error), ..)) | Err(error) => {
            let refused = Refused { code: error.code, message: error.message };
            return (StatusCode::UNPROCESSABLE_ENTITY, refusal(&refused)).into_response();
        }
    };
    let answer = Extracted {
        url: Some(&*url).filter(|url| !url.is_empty()),
        quality_score,
        timings_us: ExtractTimings {
            extract_wait: page::micros(waited),
            extract: page::micros(took),
        },
        document: &document,
    };
    let mut out = BytesMut::with_capacity(document.get().len() + 256);
    serde_json::to_writer((&mut out).writer(), &answer).expect("the answer is plain data");
    ([(CONTENT_TYPE, "application/json")], out.freeze()).into_response()
}

fn refusal(refused: &Refused) -> Response {
    let error = json!({"error": {
        "type": "validation_error", "code": refused.code, "message": refused.message,
        "retryable": false, "status": 400,
    }});
    let fields = [(CONTENT_TYPE, "application/json")];
    (StatusCode::BAD_REQUEST, fields, error.to_string()).into_response()
}
