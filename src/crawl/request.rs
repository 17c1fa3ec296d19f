//! What a client may ask for (API §2): JSON by `simd-json` and serde, every bound checked before the
//! first byte of the answer.

// Named, so that the fuzzer can include this file by path.
#[path = "request/deepsearch.rs"]
pub mod deepsearch;
#[path = "request/follow.rs"]
pub mod follow;
#[path = "request/fuzzing.rs"]
pub mod fuzzing;

use crate::config::Config;
use crate::error::{ApiCode, ApiError};
use crate::fetch::field;
use crate::fetch::normal::normal;
use crate::fetch::target::TargetError;
use crate::limits;
use crate::proto::text::{Text, Texts};
use crate::stream::Patience;
use crate::stream::machine::Order;
use deepsearch::Searched;
use follow::Follow;
use serde::de::{DeserializeOwned, DeserializeSeed, Error, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer};
use simd_json::{Buffers, ErrorType};
use std::cell::RefCell;
use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

thread_local! {
    static BUFFERS: RefCell<Buffers> = RefCell::new(Buffers::default());
}

/// Bytes that a URL is taken to have before it is read.
const URL_BYTES_GUESS: usize = 96;

/// A validated crawl.
#[derive(Debug, Clone)]
pub struct CrawlRequest {
    /// What to fetch; none where a search is to find them.
    pub urls: Arc<[Text]>,
    /// How.
    pub options: Arc<Options>,
    /// The search that gives it its URLs, where it has none.
    pub search: Option<Box<Searched>>,
}

impl CrawlRequest {
    /// URLs that the request may come to: those that it names or a search may find, and the links that
    /// are followed.
    #[must_use]
    pub fn urls_max(&self, config: &Config) -> usize {
        let named = match &self.search {
            Some(searched) => searched.query.limit,
            None => self.urls.len(),
        };
        let follow = self.options.follow.as_ref();
        named.max(follow.map_or(0, |follow| follow.pages_max(config.urls_max)))
    }
}

/// How to crawl; every field within its bounds.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Options {
    /// Fetches at a time, 1 to 256.
    pub concurrency: u32,
    /// How the page cache is used.
    pub cache_mode: CacheMode,
    /// Seconds that a cached page may be old.
    pub max_age_s: u64,
    /// Whose word counts on how long a page stays fresh.
    pub freshness: FreshnessBy,
    /// What a document holds; the rest is null.
    pub formats: Vec<Format>,
    /// Which extractor.
    pub extractor: Extractor,
    /// Milliseconds for one page.
    pub timeout_ms: u64,
    /// Milliseconds for the whole stream.
    pub deadline_ms: u64,
    /// Bytes of one page's body, after its content codings.
    pub max_body_bytes: u64,
    /// Whether robots.txt is asked.
    pub robots: Robots,
    /// In which order results leave; `POST /crawl` takes `input` where nothing is said.
    pub order: Option<OrderName>,
    /// Milliseconds between `progress` events; 0 for none.
    pub progress_ms: u64,
    /// What happens when the client doesn't read.
    pub slow_client: SlowClient,
    /// Milliseconds without progress after which a client is cut off.
    pub stall_timeout_ms: u64,
    /// Seconds for which the stream outlives its connection.
    pub resume_window_s: u64,
    /// Redirects to follow.
    pub redirects: u32,
    /// User-Agent of the fetches.
    pub user_agent: Option<String>,
    /// Which links of the pages are fetched, too; none where nothing is said.
    pub follow: Option<Follow>,
    /// Further fields of the fetches' requests, sorted by name.
    #[serde(deserialize_with = "pairs")]
    pub headers: Vec<(String, String)>,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            concurrency: 16,
            cache_mode: CacheMode::ReadThrough,
            max_age_s: 3600,
            freshness: FreshnessBy::Ttl,
            formats: vec![Format::Markdown, Format::Text, Format::Links, Format::Metadata],
            extractor: Extractor::Article,
            timeout_ms: 15_000,
            deadline_ms: 60_000,
            max_body_bytes: 10 * 1024 * 1024,
            robots: Robots::Respect,
            order: None,
            progress_ms: 250,
            slow_client: SlowClient::Block,
            stall_timeout_ms: 30_000,
            resume_window_s: 120,
            redirects: 5,
            user_agent: None,
            follow: None,
            headers: Vec::new(),
        }
    }
}

impl Options {
    /// How the stream's readers are to be treated.
    #[must_use]
    pub fn patience(&self) -> Patience {
        Patience {
            stall: Duration::from_millis(self.stall_timeout_ms),
            cut_slow: self.slow_client == SlowClient::Disconnect,
        }
    }
}

macro_rules! names {
    ($(#[doc = $doc:literal])+ $name:ident { $( $(#[doc = $variant_doc:literal])+ $(#[serde($attr:meta)])? $variant:ident, )+ }) => {
        $(#[doc = $doc])+
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Deserialize)]
        #[serde(rename_all = "snake_case")]
        pub enum $name { $( $(#[doc = $variant_doc])+ $(#[serde($attr)])? $variant, )+ }
    };
}

names! {
    /// How the page cache is used.
    CacheMode {
        /// Read it, and write what was not there.
        #[serde(alias = "enabled")]
        ReadThrough,
        /// Neither read nor write.
        Bypass,
        /// Read, never write.
        ReadOnly,
        /// Write, never read.
        WriteOnly,
        /// Ask the origin whether the cached page still holds.
        Revalidate,
    }
}
names! {
    /// Whose word counts on how long a cached page stays fresh.
    FreshnessBy {
        /// The request's `max_age_s` and the server's settings alone.
        Ttl,
        /// The origin's as well, by its header fields (RFC 9111).
        Http,
    }
}
names! {
    /// A part of a document.
    Format {
        /// The content as Markdown.
        Markdown,
        /// The content as plain text.
        Text,
        /// Links of the content, absolute.
        Links,
        /// Title, byline, dates and the like.
        Metadata,
    }
}
names! {
    /// Which extractor reads the page.
    Extractor {
        /// The main content of the page.
        Article,
        /// All of the page's text.
        Full,
    }
}
names! {
    /// Whether robots.txt is asked.
    Robots {
        /// As RFC 9309 wants it.
        Respect,
        /// Not at all.
        Ignore,
    }
}
names! {
    /// In which order results leave.
    OrderName {
        /// Each as soon as it is there.
        Completion,
        /// As the URLs were given.
        Input,
    }
}
names! {
    /// What happens when the client doesn't read.
    SlowClient {
        /// Nothing new is fetched until it reads again.
        Block,
        /// It is cut off after `stall_timeout_ms` and may resume.
        Disconnect,
    }
}

impl Extractor {
    /// The name that the guest knows it by.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Article => "article",
            Self::Full => "full",
        }
    }
}

impl OrderName {
    /// The order as the stream's machine knows it.
    #[must_use]
    pub const fn order(self) -> Order {
        match self {
            Self::Completion => Order::Completion,
            Self::Input => Order::Input,
        }
    }
}

/// A crawl as JSON, before its bounds are checked.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Body {
    #[serde(deserialize_with = "texts")]
    urls: Texts,
    #[serde(default)]
    options: Options,
}

/// The JSON form of `POST /extract`.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ExtractBody {
    /// Base of the document's links.
    #[serde(default)]
    pub url: String,
    /// The document.
    pub html: String,
    /// As of a crawl; what concerns fetching is without effect.
    #[serde(default)]
    pub options: Options,
}

/// Reads and checks the body of a crawl.
///
/// # Errors
/// `invalid_json`, `unknown_field`, `validation_error`, `too_many_urls` or `invalid_url`, each with the
/// fields at fault.
pub fn parse_crawl(body: &mut [u8], config: &Config) -> Result<CrawlRequest, ApiError> {
    parse_json::<Body>(body)?.check(config)
}

impl Body {
    /// Checks every bound.
    ///
    /// # Errors
    /// As [`parse_crawl`].
    pub fn check(self, config: &Config) -> Result<CrawlRequest, ApiError> {
        let urls = check_urls(self.urls, config)?;
        check_options(&self.options)?;
        Ok(CrawlRequest { urls, options: Arc::new(self.options), search: None })
    }
}

/// Checks a job: a crawl of at most so many URLs, for which there is more time.
///
/// # Errors
/// As [`parse_crawl`].
pub fn check_job(urls: Texts, options: Options, urls_max: usize) -> Result<CrawlRequest, ApiError> {
    let urls = check_urls_up_to(urls, urls_max)?;
    check_options_for(&options, limits::JOB_DEADLINE_S_MAX * 1000)?;
    Ok(CrawlRequest { urls, options: Arc::new(options), search: None })
}

/// Checks the URLs of a stream, or those that are added to one.
///
/// # Errors
/// As [`parse_crawl`].
pub fn check_urls(urls: Texts, config: &Config) -> Result<Arc<[Text]>, ApiError> {
    check_urls_up_to(urls, config.urls_max)
}

fn check_urls_up_to(urls: Texts, urls_max: usize) -> Result<Arc<[Text]>, ApiError> {
    if urls.is_empty() {
        return Err(ApiError::new(ApiCode::ValidationError, "urls is empty, at least 1 is needed")
            .field("urls", "1 URL or more"));
    }
    if urls.len() > urls_max {
        let message = format!("{} urls, maximum {urls_max}", urls.len());
        return Err(ApiError::new(ApiCode::TooManyUrls, message).limit("urls", urls_max as u64));
    }
    let mut wrong: Option<ApiError> = None;
    for (at, url) in urls.iter().enumerate() {
        if let Err(why) = check_url(url) {
            let field = format!("urls[{at}]");
            let error = wrong.take().unwrap_or_else(|| {
                ApiError::new(ApiCode::InvalidUrl, format!("{field} is no URL to fetch: {why}"))
            });
            // A thousand wrong URLs need no thousand explanations.
            let told = error.details.len();
            wrong = Some(if told < 10 { error.field(field, why.to_string()) } else { error });
        }
    }
    match wrong {
        Some(error) => Err(error),
        None => Ok(urls.share()),
    }
}

/// Reads a list of texts into one block.
///
/// # Errors
/// Whatever is no list of texts.
pub fn texts<'de, D: Deserializer<'de>>(from: D) -> Result<Texts, D::Error> {
    struct List;
    struct Item<'a>(&'a mut Texts);

    impl<'de> Visitor<'de> for List {
        type Value = Texts;

        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("a list of URLs")
        }

        fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Texts, A::Error> {
            let count = items.size_hint().unwrap_or_default().min(limits::URLS_PER_STREAM_MAX);
            let mut texts = Texts::with_capacity(count, count * URL_BYTES_GUESS);
            while items.next_element_seed(Item(&mut texts))?.is_some() {}
            Ok(texts)
        }
    }

    impl<'de> DeserializeSeed<'de> for Item<'_> {
        type Value = ();

        fn deserialize<D: Deserializer<'de>>(self, from: D) -> Result<(), D::Error> {
            from.deserialize_str(self)
        }
    }

    impl Visitor<'_> for Item<'_> {
        type Value = ();

        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("a string")
        }

        fn visit_str<E: Error>(self, text: &str) -> Result<(), E> {
            self.0.push(text);
            Ok(())
        }
    }

    from.deserialize_seq(List)
}

fn pairs<'de, D: Deserializer<'de>>(from: D) -> Result<Vec<(String, String)>, D::Error> {
    BTreeMap::deserialize(from).map(|map| map.into_iter().collect())
}

/// Whether a URL is one that can be fetched.
///
/// # Errors
/// What is wrong with it.
pub fn check_url(url: &str) -> Result<(), TargetError> {
    normal(url).map(drop)
}

/// Reads and checks the JSON body of an extraction.
///
/// # Errors
/// As [`parse_crawl`].
pub fn parse_extract(body: &mut [u8]) -> Result<ExtractBody, ApiError> {
    let body: ExtractBody = parse_json(body)?;
    check_options(&body.options)?;
    Ok(body)
}

/// Reads a body in place. One that is refused is read once more, from a copy, with an eye on where:
/// a good body pays for the copy only. A loop reads none above [`limits::READ_HERE_BYTES_MAX`]: what is
/// longer goes to [`super::reading::Reading`].
///
/// # Errors
/// `invalid_json`, `unknown_field` or `validation_error`, with the field at fault.
pub fn parse_json<T: DeserializeOwned>(body: &mut [u8]) -> Result<T, ApiError> {
    let mut untouched = body.to_vec();
    let read = if body.len() <= limits::READ_HERE_BYTES_MAX {
        BUFFERS.with_borrow_mut(|buffers| simd_json::serde::from_slice_with_buffers(body, buffers))
    } else {
        simd_json::serde::from_slice(body)
    };
    if let Ok(value) = read {
        return Ok(value);
    }
    let json = simd_json::Deserializer::from_slice(&mut untouched);
    let mut json = json.map_err(|error| {
        ApiError::new(ApiCode::InvalidJson, format!("the body is no JSON: {error}"))
    })?;
    serde_path_to_error::deserialize(&mut json).map_err(|error| {
        let path = error.path().to_string();
        shape_error(&path, error.inner())
    })
}

/// A wrong shape, with the field where it is. serde says what it found and expected in words; a test
/// pins those that are relied on.
fn shape_error(path: &str, error: &simd_json::Error) -> ApiError {
    let message = match error.error() {
        ErrorType::Serde(message) => message.clone(),
        other => format!("{other:?}"),
    };
    let quoted = message.split('`').nth(1).unwrap_or_default();
    if message.starts_with("unknown field") {
        let expected = message.split_once(", ").map_or("no other field", |(_, expected)| expected);
        let text = format!("unknown field {quoted}");
        return ApiError::new(ApiCode::UnknownField, text).field(quoted, expected);
    }
    if message.starts_with("missing field") {
        let error = ApiError::new(ApiCode::ValidationError, format!("{quoted} is missing"));
        return error.field(quoted, "to be there");
    }
    let found = message.split_once(", expected ");
    let expected = found.map_or("another type or value", |(_, expected)| expected);
    ApiError::new(ApiCode::ValidationError, format!("{path}: {message}")).field(path, expected)
}

/// Holds every option of a stream to its bounds, and names all that break theirs.
fn check_options(options: &Options) -> Result<(), ApiError> {
    check_options_for(options, limits::DEADLINE_MS_MAX)
}

fn check_options_for(options: &Options, deadline_ms_max: u64) -> Result<(), ApiError> {
    let mut wrong: Vec<(&'static str, String)> = Vec::new();
    let mut bound = |field, value: u64, min: u64, max: u64| {
        if !(min..=max).contains(&value) {
            wrong.push((field, format!("{min} to {max}, found {value}")));
        }
    };
    let concurrency_max = u64::from(limits::CONCURRENCY_MAX);
    bound("options.concurrency", u64::from(options.concurrency), 1, concurrency_max);
    bound("options.max_age_s", options.max_age_s, 0, 31_536_000);
    bound("options.timeout_ms", options.timeout_ms, 1, 600_000);
    bound("options.deadline_ms", options.deadline_ms, 1, deadline_ms_max);
    bound("options.max_body_bytes", options.max_body_bytes, 1, limits::BODY_BYTES_MAX);
    if options.progress_ms != 0 {
        bound("options.progress_ms", options.progress_ms, 10, 60_000);
    }
    bound("options.stall_timeout_ms", options.stall_timeout_ms, 10, 600_000);
    bound("options.resume_window_s", options.resume_window_s, 0, 3_600);
    let redirects_max = u64::from(limits::REDIRECTS_MAX);
    bound("options.redirects", u64::from(options.redirects), 0, redirects_max);
    bound("options.headers", options.headers.len() as u64, 0, limits::FETCH_HEADERS_MAX as u64);
    let header_bytes: usize = options.headers.iter().map(|(k, v)| k.len() + v.len()).sum();
    let header_bytes_max = limits::FETCH_HEADERS_BYTES_MAX as u64;
    bound("options.headers (bytes)", header_bytes as u64, 0, header_bytes_max);
    if options.formats.is_empty() {
        wrong.push(("options.formats", "1 format or more".to_owned()));
    }
    if let Some(agent) = &options.user_agent
        && (agent.is_empty() || agent.len() > 256 || !agent.bytes().all(|b| (32..127).contains(&b)))
    {
        wrong.push(("options.user_agent", "1 to 256 printable ASCII characters".to_owned()));
    }
    options.follow.iter().for_each(|follow| follow.check(&mut wrong));
    for (name, value) in &options.headers {
        if let Err(why) = field::check(name, value) {
            wrong.push(("options.headers", format!("{name}: {why}")));
        }
    }
    let Some((field, expected)) = wrong.first() else { return Ok(()) };
    let error = ApiError::new(ApiCode::ValidationError, format!("{field}: expected {expected}"));
    Err(wrong.into_iter().fold(error, |error, (field, expected)| error.field(field, expected)))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test may panic")]
    use super::*;

    fn parse(text: &str) -> Result<CrawlRequest, ApiError> {
        let config = Config { urls_max: 3, ..Config::default() };
        parse_crawl(&mut text.as_bytes().to_vec(), &config)
    }

    #[test]
    fn the_smallest_request_has_the_documented_defaults() {
        let request = parse(r#"{"urls":["https://example.com/a"]}"#).unwrap();
        assert_eq!(&*request.urls[0], "https://example.com/a");
        assert_eq!(*request.options, Options::default());
        let request = parse(
            r#"{"urls":["http://a.example/"],"options":{"cache_mode":"enabled","order":"input"}}"#,
        );
        let options = request.unwrap().options;
        assert_eq!(options.cache_mode, CacheMode::ReadThrough);
        assert_eq!(options.order, Some(OrderName::Input));
    }

    #[test]
    fn each_mistake_has_its_code_and_names_its_field() {
        for (text, code, field) in [
            ("{", ApiCode::InvalidJson, ""),
            ("", ApiCode::InvalidJson, ""),
            (r#"{"urls":[]}"#, ApiCode::ValidationError, "urls"),
            (r#"{"options":{}}"#, ApiCode::ValidationError, "urls"),
            (r#"{"urls":"x"}"#, ApiCode::ValidationError, "urls"),
            (r#"{"urls":[1]}"#, ApiCode::ValidationError, "urls[0]"),
            (
                r#"{"urls":["http://a.example"],"options":{"concurrency":"16"}}"#,
                ApiCode::ValidationError,
                "options.concurrency",
            ),
            (
                r#"{"urls":["http://a.example"],"options":{"timeout_ms":-1}}"#,
                ApiCode::ValidationError,
                "options.timeout_ms",
            ),
            (
                r#"{"urls":["http://a.example"],"options":{"order":"random"}}"#,
                ApiCode::ValidationError,
                "options.order",
            ),
            (r#"{"urls":["http://a.example"],"x":1}"#, ApiCode::UnknownField, "x"),
            (r#"{"urls":["http://a.example"],"options":{"y":1}}"#, ApiCode::UnknownField, "y"),
            (r#"{"urls":["a","b","c","d"]}"#, ApiCode::TooManyUrls, "urls"),
            (r#"{"urls":["http://a.example","ftp://b"]}"#, ApiCode::InvalidUrl, "urls[1]"),
            (
                r#"{"urls":["http://a.example"],"options":{"concurrency":0}}"#,
                ApiCode::ValidationError,
                "options.concurrency",
            ),
            (
                r#"{"urls":["http://a.example"],"options":{"headers":{"Host":"b"}}}"#,
                ApiCode::ValidationError,
                "options.headers",
            ),
        ] {
            let error = parse(text).expect_err(text);
            assert_eq!(error.code, code, "{text}: {error:?}");
            let named = error.details.first().map_or("", |detail| &detail.field);
            assert_eq!(named, field, "{text}: {error:?}");
        }
    }
}
