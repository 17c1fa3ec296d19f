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
    }
}
/// What of `crawl` reads requests.
#[path = "."]
pub mod crawl {
    #[path = "../../../src/crawl/request.rs"]
    pub mod request;
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
    #[path = "../../../src/fetch/robots.rs"]
    pub mod robots;
    #[path = "../../../src/fetch/special.rs"]
    pub mod special;
    #[path = "../../../src/fetch/target.rs"]
    pub mod target;
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
#[path = "../../../src/proto/mod.rs"]
pub mod proto;
/// What a request says of a search, as in the root's `search`.
pub mod search {
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
/// What of `serve` reads a WebSocket's messages.
#[path = "."]
pub mod serve {
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

/// A letter for what a JSON body is of (`c`rawl, `d`eepsearch, `e`xtract, `j`ob, `o`p), and the body.
pub fn fuzz_json_body(data: &[u8]) {
    let Some((kind, body)) = data.split_first() else { return };
    let config = config::Config {
        urls_max: 5,
        jobs_urls_max: 8,
        jobs_deadline_s: 100,
        jobs_webhook_attempts_max: 8,
        jobs_webhook_backoff_ms: 1_000,
        jobs_webhook_timeout_ms: 10_000,
    };
    match kind {
        b'c' => crawl::request::fuzzing::fuzz_crawl(body, &config),
        b'd' => crawl::request::fuzzing::fuzz_deepsearch(body, &config),
        b'e' => crawl::request::fuzzing::fuzz_extract(body),
        b'j' => jobs::fuzzing::fuzz_job(body, &config),
        _ => serve::fuzzing::fuzz_op(body, &config),
    }
}
