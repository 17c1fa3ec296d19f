//! One page: out of the cache, or fetched and extracted.

use crate::App;
use crate::fetch::{self, Coding, Fetched};
use crate::request::Options;
use encoding_rs::{Encoding, UTF_8, WINDOWS_1252};
use flate2::bufread::MultiGzDecoder;
use serde::Serialize;
use serde_json::value::RawValue;
use std::borrow::Cow;
use std::io::Read;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Bytes of HTML that are extracted; the rest is cut off.
const HTML_BYTES_MAX: usize = 2 * 1024 * 1024;

/// A page with its document, serialized once.
#[derive(Debug)]
pub(crate) struct Page {
    pub(crate) status: u16,
    pub(crate) final_url: String,
    pub(crate) wire_bytes: usize,
    pub(crate) body_bytes: usize,
    pub(crate) document: Box<RawValue>,
    pub(crate) quality: f64,
    pub(crate) fetched_at: Instant,
}

/// Why there is no document.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct PageError {
    pub(crate) code: &'static str,
    pub(crate) message: String,
    pub(crate) retryable: bool,
    pub(crate) stage: &'static str,
}

impl PageError {
    pub(crate) fn new(code: &'static str, stage: &'static str, message: impl Into<String>) -> Self {
        let retryable = matches!(
            code,
            "connect_failed" | "read_timeout" | "url_timeout" | "deadline_exceeded" | "dns_failed"
        );
        Self { code, message: message.into(), retryable, stage }
    }

    pub(crate) fn is_rejected(&self) -> bool {
        matches!(self.code, "unsupported_type" | "body_too_large")
    }
}

/// Microseconds of each stage. The pooled client does not say when it resolved and connected: all of
/// that is in `ttfb`.
#[derive(Clone, Copy, Debug, Default, Serialize)]
pub(crate) struct Timings {
    pub(crate) queue: u64,
    pub(crate) pace: u64,
    pub(crate) dns: u64,
    pub(crate) connect: u64,
    pub(crate) tls: u64,
    pub(crate) ttfb: u64,
    pub(crate) body: u64,
    pub(crate) extract_wait: u64,
    pub(crate) extract: u64,
    pub(crate) emit_wait: u64,
}

impl Timings {
    pub(crate) fn total(&self) -> u64 {
        self.queue + self.ttfb + self.body + self.extract_wait + self.extract + self.emit_wait
    }
}

pub(crate) fn micros(time: Duration) -> u64 {
    u64::try_from(time.as_micros()).unwrap_or(u64::MAX)
}

/// What became of one URL.
#[derive(Debug)]
pub(crate) struct Outcome {
    pub(crate) page: Result<Arc<Page>, PageError>,
    pub(crate) timings: Timings,
    pub(crate) from_cache: bool,
    pub(crate) key: u64,
}

/// Looks a page up. Never waits in practice: the cache is in memory.
pub(crate) async fn cached(app: &App, options: &Options, key: u64) -> Option<Arc<Page>> {
    if !options.cache_mode.reads() {
        return None;
    }
    let page = app.cache.get(&key).await?;
    (page.fetched_at.elapsed() <= Duration::from_secs(options.max_age_s)).then_some(page)
}

/// Fetches and extracts a page within its time.
pub(crate) async fn work(
    app: &App,
    url: &str,
    options: &Options,
    key: u64,
    started: Instant,
) -> Outcome {
    let mut timings = Timings { queue: micros(started.elapsed()), ..Timings::default() };
    let limit = Duration::from_millis(options.timeout_ms);
    let page = match tokio::time::timeout(limit, load(app, url, options, key, &mut timings)).await {
        Ok(page) => page,
        Err(_) => {
            let message = format!("the page took longer than timeout_ms = {}", options.timeout_ms);
            Err(PageError::new("url_timeout", "body", message))
        }
    };
    Outcome { page, timings, from_cache: false, key }
}

async fn load(
    app: &App,
    url: &str,
    options: &Options,
    key: u64,
    timings: &mut Timings,
) -> Result<Arc<Page>, PageError> {
    let build = async {
        let fetched = fetch::fetch(&app.client, url, options).await?;
        timings.ttfb = micros(fetched.ttfb);
        timings.body = micros(fetched.body_time);
        let (options, bytes_max) = (options.extractor_options(), options.max_body_bytes);
        let job = move || page_of(fetched, &options, bytes_max);
        let (page, waited, took) = on_blocking(app, job).await?;
        timings.extract_wait = micros(waited);
        timings.extract = micros(took);
        page.map(Arc::new)
    };
    if !options.cache_mode.writes() {
        return build.await;
    }
    if !options.cache_mode.reads() {
        let page = build.await?;
        app.cache.insert(key, Arc::clone(&page)).await;
        return Ok(page);
    }
    // One flight per key.
    app.cache.try_get_with(key, build).await.map_err(|error| PageError::clone(&error))
}

/// Runs CPU-bound work on the blocking pool, no more at once than there are CPUs.
pub(crate) async fn on_blocking<T: Send + 'static>(
    app: &App,
    job: impl FnOnce() -> T + Send + 'static,
) -> Result<(T, Duration, Duration), PageError> {
    let submitted = Instant::now();
    let failed = || PageError::new("extract_failed", "extract", "the extraction was lost");
    let turn = Arc::clone(&app.lanes).acquire_owned().await.map_err(|_| failed())?;
    tokio::task::spawn_blocking(move || {
        let begun = Instant::now();
        let done = job();
        let took = begun.elapsed();
        drop(turn);
        (done, begun.saturating_duration_since(submitted), took)
    })
    .await
    .map_err(|_| failed())
}

fn page_of(
    fetched: Fetched,
    options: &forebay_extractor::Options,
    bytes_max: usize,
) -> Result<Page, PageError> {
    let wire_bytes = fetched.body.len();
    let body: Cow<'_, [u8]> = match fetched.coding {
        Coding::Identity => Cow::Borrowed(&fetched.body),
        Coding::Gzip => {
            let mut plain = Vec::with_capacity(wire_bytes * 4);
            let limit = u64::try_from(bytes_max).unwrap_or(u64::MAX).saturating_add(1);
            MultiGzDecoder::new(&fetched.body[..])
                .take(limit)
                .read_to_end(&mut plain)
                .map_err(|error| PageError::new("decode_failed", "body", error.to_string()))?;
            if plain.len() > bytes_max {
                let message = "the body is larger than max_body_bytes";
                return Err(PageError::new("body_too_large", "body", message));
            }
            Cow::Owned(plain)
        }
    };
    let (document, quality) =
        document(&body, fetched.charset.as_deref(), &fetched.final_url, options)?;
    Ok(Page {
        status: fetched.status,
        body_bytes: body.len(),
        final_url: fetched.final_url,
        wire_bytes,
        document,
        quality,
        fetched_at: Instant::now(),
    })
}

/// Extracts a document: the object as it goes out, and its score.
pub(crate) fn document(
    body: &[u8],
    charset: Option<&str>,
    url: &str,
    options: &forebay_extractor::Options,
) -> Result<(Box<RawValue>, f64), PageError> {
    let body = &body[..body.len().min(HTML_BYTES_MAX)];
    let label = charset.and_then(|label| Encoding::for_label(label.as_bytes()));
    let html = match (label, std::str::from_utf8(body)) {
        (None, Ok(text)) => Cow::Borrowed(text),
        (None, Err(_)) => WINDOWS_1252.decode(body).0,
        (Some(encoding), Ok(text)) if encoding == UTF_8 => Cow::Borrowed(text),
        (Some(encoding), _) => encoding.decode(body).0,
    };
    let answer = forebay_extractor::extract(&html, url, options);
    let failed = || PageError::new("extract_failed", "extract", "the extractor's answer is odd");
    let text = String::from_utf8(answer).map_err(|_| failed())?;
    let rest = text.strip_prefix("{\"quality_score\":").ok_or_else(failed)?;
    let (quality, rest) = rest.split_once(",\"document\":").ok_or_else(failed)?;
    let quality = quality.parse().map_err(|_| failed())?;
    let document = rest.strip_suffix('}').ok_or_else(failed)?.to_owned();
    Ok((RawValue::from_string(document).map_err(|_| failed())?, quality))
}
