//! Fetches a page with hyper-util's pooled client.

use crate::page::PageError;
use crate::request::Options;
use bytes::Bytes;
use http_body_util::{BodyExt, Empty, Limited};
use hyper::header::{
    ACCEPT, ACCEPT_ENCODING, CONTENT_ENCODING, CONTENT_TYPE, HeaderMap, HeaderName, HeaderValue,
    LOCATION, USER_AGENT,
};
use hyper::{Request, Uri};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::{TokioExecutor, TokioTimer};
use std::time::{Duration, Instant};

/// What every core shares: a keep-alive pool.
pub(crate) type HttpClient = Client<HttpConnector, Empty<Bytes>>;

/// How a body is coded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Coding {
    Identity,
    Gzip,
}

/// A page as it came.
#[derive(Debug)]
pub(crate) struct Fetched {
    pub(crate) status: u16,
    pub(crate) final_url: String,
    pub(crate) body: Bytes,
    pub(crate) coding: Coding,
    pub(crate) charset: Option<String>,
    pub(crate) ttfb: Duration,
    pub(crate) body_time: Duration,
}

/// The client, as it is for the whole process.
pub(crate) fn client() -> HttpClient {
    let mut connector = HttpConnector::new();
    connector.set_nodelay(true);
    connector.set_connect_timeout(Some(Duration::from_secs(5)));
    Client::builder(TokioExecutor::new())
        .pool_timer(TokioTimer::new())
        .pool_idle_timeout(Duration::from_secs(30))
        .pool_max_idle_per_host(64)
        .build(connector)
}

/// Fetches a page and reads it whole, redirects followed.
pub(crate) async fn fetch(
    client: &HttpClient,
    url: &str,
    options: &Options,
) -> Result<Fetched, PageError> {
    let begun = Instant::now();
    let mut final_url = url.to_owned();
    let headers = headers(options)?;
    for _ in 0..=options.redirects {
        let uri: Uri = final_url
            .parse()
            .map_err(|_| PageError::new("http_malformed", "dns", "not an address to fetch"))?;
        let mut request = Request::new(Empty::new());
        *request.uri_mut() = uri;
        *request.headers_mut() = headers.clone();
        let answer = client.request(request).await.map_err(|error| {
            let code = if error.is_connect() { "connect_failed" } else { "http_malformed" };
            PageError::new(code, "connect", error.to_string())
        })?;
        let status = answer.status();
        if status.is_redirection()
            && let Some(next) = answer.headers().get(LOCATION)
        {
            final_url = join(&final_url, next)?;
            // The rest of a redirect's body is read, so that its connection can be kept.
            let _ = Limited::new(answer.into_body(), 64 * 1024).collect().await;
            continue;
        }
        let ttfb = begun.elapsed();
        let charset = page_charset(answer.headers())?;
        let coding = coding(answer.headers())?;
        let body = Limited::new(answer.into_body(), options.max_body_bytes)
            .collect()
            .await
            .map_err(|error| {
                let code = if error.is::<http_body_util::LengthLimitError>() {
                    "body_too_large"
                } else {
                    "read_timeout"
                };
                PageError::new(code, "body", error.to_string())
            })?
            .to_bytes();
        let body_time = begun.elapsed().saturating_sub(ttfb);
        let status = status.as_u16();
        return Ok(Fetched { status, final_url, body, coding, charset, ttfb, body_time });
    }
    Err(PageError::new("too_many_redirects", "ttfb", "more redirects than allowed"))
}

fn headers(options: &Options) -> Result<HeaderMap, PageError> {
    let bad = |_| PageError::new("http_malformed", "ttfb", "a header that can't be sent");
    let mut headers = HeaderMap::with_capacity(4);
    headers.insert(ACCEPT, HeaderValue::from_static("text/html,application/xhtml+xml"));
    headers.insert(ACCEPT_ENCODING, HeaderValue::from_static("gzip"));
    let agent = match &options.user_agent {
        Some(agent) => HeaderValue::from_str(agent).map_err(bad)?,
        None => HeaderValue::from_static("forebay-peer-axum/0.1"),
    };
    headers.insert(USER_AGENT, agent);
    for (name, value) in &options.headers {
        let name = HeaderName::from_bytes(name.as_bytes());
        let name =
            name.map_err(|_| PageError::new("http_malformed", "ttfb", "a bad header name"))?;
        headers.insert(name, HeaderValue::from_str(value).map_err(bad)?);
    }
    Ok(headers)
}

fn join(base: &str, location: &HeaderValue) -> Result<String, PageError> {
    let bad = || PageError::new("http_malformed", "ttfb", "a Location that is no URL");
    let location = location.to_str().map_err(|_| bad())?;
    let next = url::Url::parse(base).and_then(|base| base.join(location)).map_err(|_| bad())?;
    Ok(next.into())
}

/// The charset of a page; what is no page is refused.
fn page_charset(headers: &HeaderMap) -> Result<Option<String>, PageError> {
    let Some(value) = headers.get(CONTENT_TYPE).and_then(|value| value.to_str().ok()) else {
        return Ok(None);
    };
    let mut parts = value.split(';');
    let essence = parts.next().unwrap_or_default().trim();
    let page = ["text/html", "application/xhtml+xml", "text/plain"]
        .iter()
        .any(|known| essence.eq_ignore_ascii_case(known));
    if !page {
        let message = format!("{essence} is not a page");
        return Err(PageError::new("unsupported_type", "ttfb", message));
    }
    Ok(parts.find_map(|part| {
        let (name, value) = part.split_once('=')?;
        let is_charset = name.trim().eq_ignore_ascii_case("charset");
        is_charset.then(|| value.trim().trim_matches('"').to_owned())
    }))
}

fn coding(headers: &HeaderMap) -> Result<Coding, PageError> {
    match headers.get(CONTENT_ENCODING).map(HeaderValue::as_bytes) {
        None | Some(b"identity" | b"") => Ok(Coding::Identity),
        Some(b"gzip" | b"x-gzip") => Ok(Coding::Gzip),
        Some(_) => Err(PageError::new("decode_failed", "body", "a coding that was not asked for")),
    }
}
