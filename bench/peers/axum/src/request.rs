//! What a client may ask for (API §2), by serde.

use serde::Deserialize;
use std::collections::BTreeMap;
use std::fmt;
use std::hash::{DefaultHasher, Hash, Hasher};

/// URLs of one stream.
const URLS_MAX: usize = 1000;

/// The body of a crawl.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct CrawlRequest {
    pub(crate) urls: Vec<String>,
    #[serde(default)]
    pub(crate) options: Options,
}

/// The JSON body of an extraction.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct ExtractRequest {
    #[serde(default)]
    pub(crate) url: String,
    pub(crate) html: String,
    #[serde(default)]
    pub(crate) options: Options,
}

/// How to crawl. What concerns resuming, robots.txt and slow clients is read and has no effect.
#[derive(Debug, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct Options {
    pub(crate) concurrency: usize,
    pub(crate) cache_mode: CacheMode,
    pub(crate) max_age_s: u64,
    pub(crate) formats: Vec<Format>,
    pub(crate) extractor: Extractor,
    pub(crate) timeout_ms: u64,
    pub(crate) deadline_ms: u64,
    pub(crate) max_body_bytes: usize,
    pub(crate) robots: Robots,
    pub(crate) order: Option<Order>,
    pub(crate) progress_ms: u64,
    #[serde(rename = "slow_client")]
    _slow_client: SlowClient,
    #[serde(rename = "stall_timeout_ms")]
    _stall_timeout_ms: u64,
    #[serde(rename = "resume_window_s")]
    _resume_window_s: u64,
    pub(crate) redirects: u32,
    pub(crate) user_agent: Option<String>,
    pub(crate) headers: BTreeMap<String, String>,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            concurrency: 16,
            cache_mode: CacheMode::ReadThrough,
            max_age_s: 3600,
            formats: vec![Format::Markdown, Format::Text, Format::Links, Format::Metadata],
            extractor: Extractor::Article,
            timeout_ms: 15_000,
            deadline_ms: 60_000,
            max_body_bytes: 10 * 1024 * 1024,
            robots: Robots::Respect,
            order: None,
            progress_ms: 250,
            _slow_client: SlowClient::Block,
            _stall_timeout_ms: 30_000,
            _resume_window_s: 120,
            redirects: 5,
            user_agent: None,
            headers: BTreeMap::new(),
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum CacheMode {
    #[serde(alias = "enabled")]
    ReadThrough,
    Bypass,
    ReadOnly,
    WriteOnly,
    Revalidate,
}

impl CacheMode {
    pub(crate) fn reads(self) -> bool {
        matches!(self, Self::ReadThrough | Self::ReadOnly)
    }

    pub(crate) fn writes(self) -> bool {
        matches!(self, Self::ReadThrough | Self::WriteOnly | Self::Revalidate)
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Format {
    Markdown,
    Text,
    Links,
    Metadata,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Extractor {
    Article,
    Full,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Robots {
    Respect,
    Ignore,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Order {
    Completion,
    Input,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum SlowClient {
    Block,
    Disconnect,
}

/// Why a request is refused.
#[derive(Debug)]
pub(crate) struct Refused {
    pub(crate) code: &'static str,
    pub(crate) message: String,
}

impl fmt::Display for Refused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.code, self.message)
    }
}

impl From<serde_json::Error> for Refused {
    fn from(error: serde_json::Error) -> Self {
        let message = error.to_string();
        let code = match error.classify() {
            serde_json::error::Category::Data if message.starts_with("unknown field") => {
                "unknown_field"
            }
            serde_json::error::Category::Data => "validation_error",
            _ => "invalid_json",
        };
        Self { code, message }
    }
}

impl CrawlRequest {
    /// Checks the bounds.
    ///
    /// # Errors
    /// The first one that is broken.
    pub(crate) fn check(self) -> Result<Self, Refused> {
        let refuse = |code, message: String| Err(Refused { code, message });
        if self.urls.is_empty() {
            return refuse("validation_error", "urls is empty, at least 1 is needed".to_owned());
        }
        if self.urls.len() > URLS_MAX {
            let message = format!("{} urls, maximum {URLS_MAX}", self.urls.len());
            return refuse("too_many_urls", message);
        }
        self.options.check()?;
        for url in &self.urls {
            if !url::Url::parse(url).is_ok_and(|url| matches!(url.scheme(), "http" | "https")) {
                return refuse("invalid_url", format!("{url} is no http or https URL"));
            }
        }
        Ok(self)
    }
}

impl Options {
    fn check(&self) -> Result<(), Refused> {
        let concurrency = u64::try_from(self.concurrency).unwrap_or(u64::MAX);
        for (name, value, max) in [
            ("concurrency", concurrency, 256),
            ("timeout_ms", self.timeout_ms, 600_000),
            ("deadline_ms", self.deadline_ms, 3_600_000),
        ] {
            if !(1..=max).contains(&value) {
                let message = format!("options.{name}: expected 1 to {max}, found {value}");
                return Err(Refused { code: "validation_error", message });
            }
        }
        Ok(())
    }

    /// The options as the extractor takes them.
    pub(crate) fn extractor_options(&self) -> forebay_extractor::Options {
        let wants = |format| self.formats.contains(&format);
        forebay_extractor::Options {
            kind: match self.extractor {
                Extractor::Article => forebay_extractor::Kind::Article,
                Extractor::Full => forebay_extractor::Kind::Full,
            },
            formats: forebay_extractor::Formats {
                markdown: wants(Format::Markdown),
                text: wants(Format::Text),
                links: wants(Format::Links),
                metadata: wants(Format::Metadata),
            },
            ..forebay_extractor::Options::default()
        }
    }

    /// Hash over the URL and every option that changes the output.
    pub(crate) fn cache_key(&self, url: &str) -> u64 {
        let mut hasher = DefaultHasher::new();
        url.hash(&mut hasher);
        self.formats.hash(&mut hasher);
        self.extractor.hash(&mut hasher);
        self.max_body_bytes.hash(&mut hasher);
        self.redirects.hash(&mut hasher);
        self.user_agent.hash(&mut hasher);
        self.headers.hash(&mut hasher);
        self.robots.hash(&mut hasher);
        hasher.finish()
    }
}
