//! Errors, and whose fault they are: [`Fault`] is `Client | Origin | Guest | Internal`.
//!
//! Two families, because they reach a client at two different moments (API §5):
//! - [`ApiError`]: the request is refused before a stream starts, with a real 4xx or 5xx status.
//! - [`PageError`]: one URL of a running stream went wrong; the stream goes on.
//!
//! A panic is a bug of ours and never an answer to bytes from the network.

use std::time::Duration;

/// Who has to change something so that the error goes away.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Fault {
    /// The client sent something that the API does not take.
    Client,
    /// The web server behind a URL, its name servers or its network.
    Origin,
    /// The extractor module in the sandbox, or the document that it was given.
    Guest,
    /// Forebay itself.
    Internal,
}

/// The stage of a page's way through the server in which something happened; the names are the
/// keys of `timings_us` (API §3).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Stage {
    /// Waiting for a free place among the stream's concurrent fetches.
    Queue,
    /// Waiting for the host's turn (`Crawl-delay`, per-host limits).
    Pace,
    /// Resolving the name and checking the addresses.
    Dns,
    /// TCP connect.
    Connect,
    /// TLS handshake.
    Tls,
    /// From the request's last byte to the response head's last byte.
    Ttfb,
    /// Response body.
    Body,
    /// Waiting for the extraction lane.
    ExtractWait,
    /// Decoding to text and extracting in the sandbox.
    Extract,
    /// From the extracted document to the frame's place in the stream.
    EmitWait,
}

impl Stage {
    /// Every stage, in the order in which a page passes them.
    pub const ALL: [Self; 10] = [
        Self::Queue,
        Self::Pace,
        Self::Dns,
        Self::Connect,
        Self::Tls,
        Self::Ttfb,
        Self::Body,
        Self::ExtractWait,
        Self::Extract,
        Self::EmitWait,
    ];

    /// The stage's name on the wire.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Queue => "queue",
            Self::Pace => "pace",
            Self::Dns => "dns",
            Self::Connect => "connect",
            Self::Tls => "tls",
            Self::Ttfb => "ttfb",
            Self::Body => "body",
            Self::ExtractWait => "extract_wait",
            Self::Extract => "extract",
            Self::EmitWait => "emit_wait",
        }
    }
}

/// What went wrong with one URL (API §5, `result.error.code`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[allow(missing_docs, reason = "each variant is its API name, described once in the API's table")]
pub enum PageCode {
    DnsFailed,
    ConnectFailed,
    ConnectTimeout,
    TlsFailed,
    ReadTimeout,
    UrlTimeout,
    BodyTooLarge,
    TooManyRedirects,
    BlockedEgress,
    RobotsDisallowed,
    HostThrottled,
    UnsupportedType,
    DecodeFailed,
    HttpMalformed,
    ExtractFailed,
    ExtractTimeout,
    ExtractMemory,
    Cancelled,
    DeadlineExceeded,
    InternalError,
}

impl PageCode {
    /// Every code, in the order of API §5.
    pub const ALL: [Self; 20] = [
        Self::DnsFailed,
        Self::ConnectFailed,
        Self::ConnectTimeout,
        Self::TlsFailed,
        Self::ReadTimeout,
        Self::UrlTimeout,
        Self::BodyTooLarge,
        Self::TooManyRedirects,
        Self::BlockedEgress,
        Self::RobotsDisallowed,
        Self::HostThrottled,
        Self::UnsupportedType,
        Self::DecodeFailed,
        Self::HttpMalformed,
        Self::ExtractFailed,
        Self::ExtractTimeout,
        Self::ExtractMemory,
        Self::Cancelled,
        Self::DeadlineExceeded,
        Self::InternalError,
    ];

    /// The code on the wire.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::DnsFailed => "dns_failed",
            Self::ConnectFailed => "connect_failed",
            Self::ConnectTimeout => "connect_timeout",
            Self::TlsFailed => "tls_failed",
            Self::ReadTimeout => "read_timeout",
            Self::UrlTimeout => "url_timeout",
            Self::BodyTooLarge => "body_too_large",
            Self::TooManyRedirects => "too_many_redirects",
            Self::BlockedEgress => "blocked_egress",
            Self::RobotsDisallowed => "robots_disallowed",
            Self::HostThrottled => "host_throttled",
            Self::UnsupportedType => "unsupported_type",
            Self::DecodeFailed => "decode_failed",
            Self::HttpMalformed => "http_malformed",
            Self::ExtractFailed => "extract_failed",
            Self::ExtractTimeout => "extract_timeout",
            Self::ExtractMemory => "extract_memory",
            Self::Cancelled => "cancelled",
            Self::DeadlineExceeded => "deadline_exceeded",
            Self::InternalError => "internal_error",
        }
    }

    /// Whether the same URL may well work when it is asked for again.
    #[must_use]
    pub const fn retryable(self) -> bool {
        matches!(
            self,
            Self::DnsFailed
                | Self::ConnectFailed
                | Self::ConnectTimeout
                | Self::ReadTimeout
                | Self::UrlTimeout
                | Self::HostThrottled
                | Self::Cancelled
                | Self::DeadlineExceeded
        )
    }

    /// Whether it was our policy that refused the page (`gate_decision: rejected`), not a failure
    /// on the way (`failed`).
    #[must_use]
    pub const fn rejected(self) -> bool {
        matches!(
            self,
            Self::BlockedEgress
                | Self::RobotsDisallowed
                | Self::UnsupportedType
                | Self::BodyTooLarge
                | Self::HostThrottled
        )
    }

    /// Whose fault it is.
    #[must_use]
    pub const fn fault(self) -> Fault {
        match self {
            Self::BlockedEgress | Self::Cancelled | Self::DeadlineExceeded => Fault::Client,
            Self::ExtractFailed | Self::ExtractTimeout | Self::ExtractMemory => Fault::Guest,
            Self::InternalError => Fault::Internal,
            _ => Fault::Origin,
        }
    }
}

/// Why one URL has no document.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{} in stage {}: {message}", code.as_str(), stage.as_str())]
pub struct PageError {
    /// What kind of failure.
    pub code: PageCode,
    /// Where it happened.
    pub stage: Stage,
    /// One sentence for a person; never holds secrets, credentials or internal paths.
    pub message: String,
}

impl PageError {
    /// An error with its sentence.
    pub fn new(code: PageCode, stage: Stage, message: impl Into<String>) -> Self {
        Self { code, stage, message: message.into() }
    }
}

/// Why a request is refused before it starts (API §5).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[allow(missing_docs, reason = "each variant is its API name, described once in the API's table")]
pub enum ApiCode {
    ValidationError,
    UnknownField,
    InvalidUrl,
    InvalidJson,
    TooManyUrls,
    BadRequest,
    BadMessage,
    AuthenticationError,
    Forbidden,
    NotFound,
    StreamExpired,
    MethodNotAllowed,
    RequestTimeout,
    IdempotencyConflict,
    LengthRequired,
    PayloadTooLarge,
    UriTooLong,
    InvalidContentType,
    ExpectationFailed,
    ExtractFailed,
    ExtractMemory,
    UpgradeRequired,
    RateLimited,
    HeadersTooLarge,
    InternalError,
    NotImplemented,
    Overloaded,
    Draining,
    SearchUnavailable,
    ExtractTimeout,
    VersionNotSupported,
}

impl ApiCode {
    /// Every code, in the order of the declaration.
    pub const ALL: [Self; 31] = [
        Self::ValidationError,
        Self::UnknownField,
        Self::InvalidUrl,
        Self::InvalidJson,
        Self::TooManyUrls,
        Self::BadRequest,
        Self::BadMessage,
        Self::AuthenticationError,
        Self::Forbidden,
        Self::NotFound,
        Self::StreamExpired,
        Self::MethodNotAllowed,
        Self::RequestTimeout,
        Self::IdempotencyConflict,
        Self::LengthRequired,
        Self::PayloadTooLarge,
        Self::UriTooLong,
        Self::InvalidContentType,
        Self::ExpectationFailed,
        Self::ExtractFailed,
        Self::ExtractMemory,
        Self::UpgradeRequired,
        Self::RateLimited,
        Self::HeadersTooLarge,
        Self::InternalError,
        Self::NotImplemented,
        Self::Overloaded,
        Self::Draining,
        Self::SearchUnavailable,
        Self::ExtractTimeout,
        Self::VersionNotSupported,
    ];

    /// The code on the wire.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        self.parts().1
    }

    /// The HTTP status (RFC 9110 §15).
    #[must_use]
    pub const fn status(self) -> u16 {
        self.parts().0
    }

    /// The wider class in `error.type`.
    #[must_use]
    pub const fn kind(self) -> &'static str {
        match self.parts().0 {
            401 => "authentication_error",
            403 => "permission_error",
            404 | 410 => "not_found_error",
            408 | 504 => "timeout_error",
            409 => "conflict_error",
            429 => "rate_limit_error",
            503 => "overloaded_error",
            400..=499 => "validation_error",
            _ => "internal_error",
        }
    }

    /// Whether the same request may work later as it stands.
    #[must_use]
    pub const fn retryable(self) -> bool {
        matches!(self.parts().0, 408 | 429 | 503)
    }

    const fn parts(self) -> (u16, &'static str) {
        match self {
            Self::ValidationError => (400, "validation_error"),
            Self::UnknownField => (400, "unknown_field"),
            Self::InvalidUrl => (400, "invalid_url"),
            Self::InvalidJson => (400, "invalid_json"),
            Self::TooManyUrls => (400, "too_many_urls"),
            Self::BadRequest => (400, "bad_request"),
            Self::BadMessage => (400, "bad_message"),
            Self::AuthenticationError => (401, "authentication_error"),
            Self::Forbidden => (403, "forbidden"),
            Self::NotFound => (404, "not_found"),
            Self::StreamExpired => (404, "stream_expired"),
            Self::MethodNotAllowed => (405, "method_not_allowed"),
            Self::RequestTimeout => (408, "request_timeout"),
            Self::IdempotencyConflict => (409, "idempotency_conflict"),
            Self::LengthRequired => (411, "length_required"),
            Self::PayloadTooLarge => (413, "payload_too_large"),
            Self::UriTooLong => (414, "uri_too_long"),
            Self::InvalidContentType => (415, "invalid_content_type"),
            Self::ExpectationFailed => (417, "expectation_failed"),
            Self::ExtractFailed => (422, "extract_failed"),
            Self::ExtractMemory => (422, "extract_memory"),
            Self::UpgradeRequired => (426, "upgrade_required"),
            Self::RateLimited => (429, "rate_limited"),
            Self::HeadersTooLarge => (431, "headers_too_large"),
            Self::InternalError => (500, "internal_error"),
            Self::NotImplemented => (501, "not_implemented"),
            Self::Overloaded => (503, "overloaded"),
            Self::Draining => (503, "draining"),
            Self::SearchUnavailable => (503, "search_unavailable"),
            Self::ExtractTimeout => (504, "extract_timeout"),
            Self::VersionNotSupported => (505, "version_not_supported"),
        }
    }
}

/// One field of a refused request: where, and what would have been allowed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Detail {
    /// Path of the field, as in `options.concurrency`.
    pub field: String,
    /// What was expected, as in `1..=256`.
    pub expected: String,
    /// The limit that was passed, where it is a number.
    pub limit: Option<u64>,
}

/// A refusal before the stream starts: one JSON object with a real status.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{}: {message}", code.as_str())]
pub struct ApiError {
    /// Code, from which status and type follow.
    pub code: ApiCode,
    /// One sentence for a person.
    pub message: String,
    /// The fields at fault, if fields are.
    pub details: Vec<Detail>,
    /// When to come back, for 429 and 503.
    pub retry_after: Option<Duration>,
}

impl ApiError {
    /// A refusal with its sentence.
    pub fn new(code: ApiCode, message: impl Into<String>) -> Self {
        Self { code, message: message.into(), details: Vec::new(), retry_after: None }
    }

    /// Names a field at fault and what it may hold.
    #[must_use]
    pub fn field(mut self, field: impl Into<String>, expected: impl Into<String>) -> Self {
        self.details.push(Detail { field: field.into(), expected: expected.into(), limit: None });
        self
    }

    /// Names a field at fault and the number that bounds it.
    #[must_use]
    pub fn limit(mut self, field: impl Into<String>, limit: u64) -> Self {
        let expected = format!("at most {limit}");
        self.details.push(Detail { field: field.into(), expected, limit: Some(limit) });
        self
    }

    /// Says when to come back.
    #[must_use]
    pub fn retry_after(mut self, after: Duration) -> Self {
        self.retry_after = Some(after);
        self
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_unique_and_stages_are_complete() {
        let names: std::collections::HashSet<_> =
            PageCode::ALL.iter().map(|c| c.as_str()).collect();
        assert_eq!(names.len(), PageCode::ALL.len());
        for (place, code) in ApiCode::ALL.into_iter().enumerate() {
            assert_eq!(code as usize, place);
        }
        let stages: std::collections::HashSet<_> = Stage::ALL.iter().map(|s| s.as_str()).collect();
        assert_eq!(stages.len(), Stage::ALL.len());
    }

    #[test]
    fn refusals_by_policy_are_told_from_failures() {
        assert!(PageCode::BlockedEgress.rejected());
        assert!(!PageCode::ConnectFailed.rejected());
        assert_eq!(PageCode::ExtractMemory.fault(), Fault::Guest);
    }
}
