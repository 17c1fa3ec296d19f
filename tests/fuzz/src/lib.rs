//! Forebay's sans-IO modules alone, included by path: without the sandbox's compiler they build
//! in seconds, so that fuzzing fits into every run of the gate.
//!
//! The checks are in the library beside the codecs (`fetch/fuzzing.rs`, `proto/*/fuzzing.rs`),
//! where unit tests call them too; a target here is one line.

/// The settings that bodies are held to.
pub mod config {
    /// With the names of the root's settings.
    #[derive(Debug)]
    #[allow(missing_docs, reason = "they are described there")]
    pub struct Config {
        pub urls_max: usize,
        pub jobs_urls_max: usize,
        pub jobs_deadline_s: u64,
        pub jobs_webhook_attempts_max: u32,
        pub jobs_webhook_backoff_ms: u64,
        pub jobs_webhook_timeout_ms: u64,
        pub redis_url: Secret,
    }
    /// As in the root.
    #[derive(Debug)]
    pub struct Secret(pub &'static str);
    impl Secret {
        /// See there.
        #[must_use]
        pub const fn reveal(&self) -> &str {
            self.0
        }
    }
    /// As in the root.
    #[derive(Debug, Clone, Copy, PartialEq, Eq)]
    #[allow(missing_docs, reason = "they are described there")]
    pub enum SearchProvider {
        Local,
        Searxng,
        Serper,
        Brave,
        Off,
    }
}
/// What of `cache` reads what others wrote.
#[path = "."]
pub mod cache {
    #[path = "../../../src/cache/date.rs"]
    pub mod date;
    #[path = "../../../src/cache/entry.rs"]
    pub mod entry;
    #[path = "../../../src/cache/envelope.rs"]
    pub mod envelope;
    #[path = "../../../src/cache/freshness.rs"]
    pub mod freshness;
    #[path = "../../../src/cache/fuzzing.rs"]
    pub mod fuzzing;
    #[path = "../../../src/cache/key.rs"]
    pub mod key;

    use crate::error::PageCode;
    use std::time::Duration;

    /// As in the root, where the time depends on what became of the page.
    #[derive(Debug, Clone, Copy)]
    #[allow(missing_docs, reason = "they are described there")]
    pub struct Ttls {
        pub success: Duration,
        pub redirect: Duration,
        pub client_error: Duration,
        pub server_error: Duration,
        pub error: Duration,
    }

    impl Ttls {
        /// For how long an answer may be used.
        pub fn of(&self, status: u16, redirected: bool, error: Option<PageCode>) -> Duration {
            match (error, status / 100, redirected) {
                (Some(_), ..) => self.error,
                (_, 3, _) | (.., true) => self.redirect,
                (_, 4, _) => self.client_error,
                (_, 5, _) => self.server_error,
                _ => self.success,
            }
        }
    }

    /// As in the root.
    #[derive(Debug, Clone, Copy)]
    #[allow(missing_docs, reason = "they are described there")]
    pub struct Wanted {
        pub max_age: Duration,
        pub by_origin: bool,
    }
}
/// What of `crawl` reads requests.
#[path = "."]
pub mod crawl {
    #[path = "../../../src/crawl/query.rs"]
    pub mod query;
    #[path = "../../../src/crawl/request.rs"]
    pub mod request;
    #[path = "../../../src/crawl/sitemap.rs"]
    pub mod sitemap;
}
#[path = "../../../src/error.rs"]
pub mod error;
/// What of `extract` is without the sandbox.
#[path = "."]
pub mod extract {
    #[path = "../../../src/extract/charset.rs"]
    pub mod charset;
    #[path = "../../../src/extract/json.rs"]
    pub mod json;
}
/// What of `fetch` is without IO.
#[path = "."]
pub mod fetch {
    #[path = "../../../src/fetch/decode.rs"]
    pub mod decode;
    #[path = "../../../src/fetch/egress.rs"]
    pub mod egress;
    #[path = "../../../src/fetch/field.rs"]
    pub mod field;
    #[path = "../../../src/fetch/fuzzing.rs"]
    pub mod fuzzing;
    #[path = "../../../src/fetch/normal.rs"]
    pub mod normal;
    #[path = "../../../src/fetch/pacing.rs"]
    pub mod pacing;
    #[path = "../../../src/fetch/proxy.rs"]
    pub mod proxy;
    #[path = "../../../src/fetch/robots.rs"]
    pub mod robots;
    #[path = "../../../src/fetch/robots_tag.rs"]
    pub mod robots_tag;
    #[path = "../../../src/fetch/special.rs"]
    pub mod special;
    #[path = "../../../src/fetch/target.rs"]
    pub mod target;
    /// How a proxy forwards requests, as in the root.
    pub mod request {
        /// See there.
        #[derive(Debug, Clone)]
        #[allow(missing_docs, reason = "they are described there")]
        pub struct ForwardedBy {
            pub authorization: Option<String>,
        }
    }
}
/// What of `jobs` reads requests.
#[path = "."]
pub mod jobs {
    #[path = "../../../src/jobs/fuzzing.rs"]
    pub mod fuzzing;
    #[path = "../../../src/jobs/request.rs"]
    pub mod request;
    #[path = "../../../src/jobs/webhook.rs"]
    pub mod webhook;
}
#[path = "../../../src/limits.rs"]
pub mod limits;
/// What of `observe` is about single texts.
#[path = "."]
pub mod observe {
    #[path = "../../../src/observe/fuzzing.rs"]
    pub mod fuzzing;
    #[path = "../../../src/observe/redact.rs"]
    pub mod redact;
    #[path = "../../../src/observe/traceparent.rs"]
    pub mod traceparent;
}
#[path = "../../../src/proto/mod.rs"]
pub mod proto;
/// What a request says of a search, as in the root's `search`, and what providers answer.
#[path = "."]
pub mod search {
    #[path = "../../../src/search/answer.rs"]
    pub mod answer;

    /// See there.
    #[derive(Debug, Clone, PartialEq, Eq)]
    #[allow(missing_docs, reason = "they are described there")]
    pub struct Hit {
        pub url: String,
        pub title: String,
        pub snippet: String,
    }
    /// See there; of its kinds the one that an answer can be.
    #[derive(Debug, Clone, PartialEq, Eq)]
    #[allow(missing_docs, reason = "they are described there")]
    pub enum SearchError {
        Unreadable(&'static str),
    }
    /// See there.
    #[derive(Debug, Clone, PartialEq, Eq)]
    #[allow(missing_docs, reason = "they are described there")]
    pub struct Query {
        pub text: String,
        pub limit: usize,
        pub country: Option<String>,
        pub locale: Option<String>,
    }
}
/// What of `serve` reads messages.
#[path = "."]
pub mod serve {
    /// Those of the Model Context Protocol.
    #[path = "."]
    pub mod mcp {
        #[path = "../../../src/serve/mcp/rpc.rs"]
        pub mod rpc;
        /// The name that answers bear.
        mod tools {
            pub(super) fn server_info() -> &'static str {
                "{}"
            }
        }
    }
    #[path = "../../../src/serve/ws/fuzzing.rs"]
    pub mod fuzzing;
    #[path = "../../../src/serve/ws/op.rs"]
    pub mod op;
}
/// What a request says of its stream, as in the root's `stream`.
pub mod stream {
    /// See there.
    #[derive(Debug, Clone, Copy, PartialEq, Eq)]
    #[allow(missing_docs, reason = "they are described there")]
    pub struct Patience {
        pub stall: std::time::Duration,
        pub cut_slow: bool,
    }
    /// A body's digest.
    pub mod idempotency {
        /// See there.
        pub type Fingerprint = [u8; 32];
    }
    /// The order of results.
    pub mod machine {
        /// See there.
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        #[allow(missing_docs, reason = "they are described there")]
        pub enum Order {
            Completion,
            Input,
        }
    }
}
#[path = "../../../src/timings.rs"]
pub mod timings;

const fn settings() -> config::Config {
    config::Config {
        urls_max: 5,
        jobs_urls_max: 8,
        jobs_deadline_s: 100,
        jobs_webhook_attempts_max: 8,
        jobs_webhook_backoff_ms: 1_000,
        jobs_webhook_timeout_ms: 10_000,
        redis_url: config::Secret(""),
    }
}

/// A letter for what a JSON body is of (`c`rawl, `d`eepsearch, `e`xtract, `j`ob, `o`p), and the body.
pub fn fuzz_json_body(data: &[u8]) {
    let Some((kind, body)) = data.split_first() else { return };
    let config = settings();
    match kind {
        b'c' => crawl::request::fuzzing::fuzz_crawl(body, &config),
        b'd' => crawl::request::fuzzing::fuzz_deepsearch(body, &config),
        b'e' => crawl::request::fuzzing::fuzz_extract(body),
        b'j' => jobs::fuzzing::fuzz_job(body, &config),
        _ => serve::fuzzing::fuzz_op(body, &config),
    }
}

/// A letter (`d`eepsearch, else a crawl), and a query: it becomes the JSON of a body, whatever it says,
/// and is judged as that.
pub fn fuzz_query(data: &[u8]) {
    let Some((kind, query)) = data.split_first() else { return };
    let (query, config) = (String::from_utf8_lossy(query), settings());
    let json = |body: &[u8]| serde_json::from_slice::<serde::de::IgnoredAny>(body).is_ok();
    if *kind == b'd' {
        let body = crawl::query::deepsearch_body(&query);
        assert!(json(&body), "{body:?}");
        crawl::request::fuzzing::fuzz_deepsearch(&body, &config);
    } else {
        let body = crawl::query::crawl_body(&query);
        assert!(json(&body), "{body:?}");
        crawl::request::fuzzing::fuzz_crawl(&body, &config);
    }
}
