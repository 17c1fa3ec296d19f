//! The operations of the API, one entry each. Whoever adds a route adds its entry; a test fails
//! until it is here.

use crate::error::ApiCode;
use crate::proto::h1::Method;
use crate::serve::access::keys::Scope;

/// A path and what can be done there.
pub(in crate::serve) struct PathItem {
    pub(in crate::serve) path: &'static str,
    pub(in crate::serve) operations: &'static [Operation],
}

/// One method of one path. `HEAD` and `OPTIONS` go without saying.
pub(in crate::serve) struct Operation {
    pub(in crate::serve) method: Method,
    /// `operationId`, unique.
    pub(in crate::serve) id: &'static str,
    pub(in crate::serve) tag: &'static str,
    pub(in crate::serve) summary: &'static str,
    /// A sentence or two more.
    pub(in crate::serve) text: &'static str,
    /// What a key must be good for.
    pub(in crate::serve) scope: Option<Scope>,
    /// Whether no key is needed although the server has keys.
    pub(in crate::serve) public: bool,
    /// A query with which a reader may try it.
    pub(in crate::serve) query: &'static str,
    /// Names under `components.parameters`.
    pub(in crate::serve) parameters: &'static [&'static str],
    /// A name under `components.requestBodies`.
    pub(in crate::serve) body: Option<&'static str>,
    /// Statuses with names under `components.responses`.
    pub(in crate::serve) answers: &'static [(u16, &'static str)],
    /// Errors beside [`EVERYWHERE`].
    pub(in crate::serve) errors: &'static [&'static [ApiCode]],
}

impl Operation {
    /// Every error that the operation may be answered with.
    pub(in crate::serve) fn errors(&self) -> impl Iterator<Item = ApiCode> {
        let access = if self.public { OF_PUBLIC } else { OF_ACCESS };
        let body = if self.body.is_some() { OF_BODY } else { &[] };
        let own = self.errors.iter().copied().flatten();
        EVERYWHERE.iter().chain(access).chain(body).chain(own).copied()
    }
}

/// What a request may be refused with before anybody looks at its path.
pub(in crate::serve) const EVERYWHERE: &[ApiCode] = &[
    ApiCode::BadRequest,
    ApiCode::MethodNotAllowed,
    ApiCode::RequestTimeout,
    ApiCode::UriTooLong,
    ApiCode::ExpectationFailed,
    ApiCode::HeadersTooLarge,
    ApiCode::InternalError,
    ApiCode::NotImplemented,
    ApiCode::VersionNotSupported,
];
const OF_PUBLIC: &[ApiCode] = &[ApiCode::Forbidden, ApiCode::RateLimited];
const OF_ACCESS: &[ApiCode] =
    &[ApiCode::AuthenticationError, ApiCode::Forbidden, ApiCode::RateLimited];
const OF_BODY: &[ApiCode] =
    &[ApiCode::LengthRequired, ApiCode::PayloadTooLarge, ApiCode::InvalidContentType];
/// Of a crawl's fields.
const OF_CRAWL: &[ApiCode] = &[
    ApiCode::ValidationError,
    ApiCode::UnknownField,
    ApiCode::InvalidUrl,
    ApiCode::InvalidJson,
    ApiCode::TooManyUrls,
];
const OF_KEY: &[ApiCode] = &[ApiCode::IdempotencyConflict, ApiCode::StreamExpired];
const OF_WORK: &[ApiCode] = &[ApiCode::Overloaded, ApiCode::Draining];
const OF_QUERY: &[ApiCode] = &[ApiCode::ValidationError, ApiCode::UnknownField];
const OF_STREAM: &[ApiCode] = &[ApiCode::NotFound, ApiCode::StreamExpired];

/// What most operations are like.
const GET: Operation = Operation {
    method: Method::Get,
    id: "",
    tag: "",
    summary: "",
    text: "",
    scope: None,
    public: false,
    query: "",
    parameters: &["RequestId"],
    body: None,
    answers: &[],
    errors: &[],
};
const POST: Operation = Operation { method: Method::Post, ..GET };

pub(in crate::serve) const PATHS: &[PathItem] = &[
    PathItem {
        path: "/crawl",
        operations: &[Operation {
            id: "crawl",
            tag: "Crawl",
            summary: "Fetch pages, answer with one JSON object",
            text: "Results stand in the order of the URLs. The object is written as it grows and ends with `summary`, or with `error` where the stream was given up.",
            scope: Some(Scope::Crawl),
            parameters: &["RequestId", "IdempotencyKey", "Traceparent"],
            body: Some("Crawl"),
            answers: &[(200, "CrawlAnswer")],
            errors: &[OF_CRAWL, OF_KEY, OF_WORK],
            ..POST
        }],
    },
    PathItem {
        path: "/crawl/stream",
        operations: &[Operation {
            id: "crawlStream",
            tag: "Crawl",
            summary: "Fetch pages, stream an event for each as it is done",
            text: "NDJSON; Server-Sent Events with `Accept: text/event-stream`. `metadata` comes before any work, `summary` or `error` last.",
            scope: Some(Scope::Crawl),
            parameters: &["RequestId", "IdempotencyKey", "Traceparent", "LastEventId"],
            body: Some("Crawl"),
            answers: &[(200, "Events"), (204, "NothingLeft")],
            errors: &[OF_CRAWL, OF_KEY, OF_STREAM, OF_WORK],
            ..POST
        }],
    },
    PathItem {
        path: "/crawl/sse",
        operations: &[
            Operation {
                id: "crawlSse",
                query: "url=https://example.com/&formats=markdown",
                tag: "Crawl",
                summary: "Fetch pages, stream Server-Sent Events",
                text: "What a browser's `EventSource` can call: every option but `headers` is a parameter. It comes back by itself with `Last-Event-ID` and gets the stream that it had.",
                scope: Some(Scope::Crawl),
                parameters: &[
                    "RequestId",
                    "Traceparent",
                    "LastEventId",
                    "QueryUrl",
                    "QueryOptions",
                ],
                answers: &[(200, "ServerSentEvents"), (204, "NothingLeft")],
                errors: &[OF_CRAWL, OF_KEY, OF_STREAM, OF_WORK],
                ..GET
            },
            Operation {
                id: "crawlSsePost",
                tag: "Crawl",
                summary: "Fetch pages, stream Server-Sent Events",
                text: "As `POST /crawl/stream`, whatever `Accept` says.",
                scope: Some(Scope::Crawl),
                parameters: &["RequestId", "IdempotencyKey", "Traceparent", "LastEventId"],
                body: Some("Crawl"),
                answers: &[(200, "ServerSentEvents"), (204, "NothingLeft")],
                errors: &[OF_CRAWL, OF_KEY, OF_STREAM, OF_WORK],
                ..POST
            },
        ],
    },
    PathItem {
        path: "/crawl/ws",
        operations: &[Operation {
            id: "crawlWs",
            tag: "Crawl",
            summary: "A WebSocket that carries many streams",
            text: "RFC 6455, subprotocol `crawl.v1`, permessage-deflate. The client sends ops (schema `WsOp`), the server events with the stream's `id` in front, and answers to ops (schema `WsMessage`). A browser, which can send no field of its own here, may offer its key as a second subprotocol `fb.key.<key>`, which is never agreed on.",
            scope: Some(Scope::Crawl),
            answers: &[(101, "SwitchingProtocols")],
            errors: &[&[ApiCode::UpgradeRequired, ApiCode::Draining]],
            ..GET
        }],
    },
    PathItem {
        path: "/extract",
        operations: &[Operation {
            id: "extract",
            tag: "Extract",
            summary: "HTML in, document out",
            text: "Nothing is fetched. The body is the page, in any charset, or a JSON object with it.",
            scope: Some(Scope::Extract),
            parameters: &["RequestId", "ExtractUrl"],
            body: Some("Extract"),
            answers: &[(200, "Extracted")],
            errors: &[
                OF_QUERY,
                &[ApiCode::InvalidUrl, ApiCode::InvalidJson],
                &[ApiCode::ExtractFailed, ApiCode::ExtractMemory, ApiCode::ExtractTimeout],
                OF_WORK,
            ],
            ..POST
        }],
    },
    PathItem {
        path: "/streams/{id}",
        operations: &[
            Operation {
                id: "stream",
                tag: "Streams",
                summary: "State of a stream",
                text: "Lifecycle state, counts, replay window, and its readers with their rings.",
                scope: Some(Scope::Crawl),
                parameters: &["RequestId", "StreamId"],
                answers: &[(200, "Stream")],
                errors: &[OF_STREAM],
                ..GET
            },
            Operation {
                method: Method::Delete,
                id: "cancelStream",
                tag: "Streams",
                summary: "Cancel a stream",
                text: "Answers when nothing of it is left running, or 202 after half a minute.",
                scope: Some(Scope::Crawl),
                parameters: &["RequestId", "StreamId"],
                answers: &[(200, "Stream"), (202, "Stream")],
                errors: &[OF_STREAM],
                ..GET
            },
        ],
    },
    PathItem {
        path: "/streams/{id}/events",
        operations: &[Operation {
            id: "streamEvents",
            query: "after=17",
            tag: "Streams",
            summary: "A stream's events again",
            text: "Replays what comes behind `after` and goes on live; NDJSON, or Server-Sent Events by `Accept`. What has fallen out of the replay window is covered by a `gap`.",
            scope: Some(Scope::Crawl),
            parameters: &["RequestId", "StreamId", "After", "LastEventId"],
            answers: &[(200, "Events"), (204, "NothingLeft")],
            errors: &[OF_QUERY, OF_STREAM],
            ..GET
        }],
    },
    PathItem {
        path: "/streams/{id}/trace",
        operations: &[Operation {
            id: "streamTrace",
            tag: "Streams",
            summary: "A stream's flight recorder",
            text: "What happened to which URL, with times in µs since the stream began.",
            scope: Some(Scope::Crawl),
            parameters: &["RequestId", "StreamId"],
            answers: &[(200, "Trace")],
            errors: &[OF_STREAM],
            ..GET
        }],
    },
    PathItem {
        path: "/deepsearch",
        operations: &[Operation {
            id: "deepsearch",
            tag: "Search",
            summary: "Search, fetch the hits, answer with one JSON object",
            text: "As `POST /crawl`, with the hits of a query in place of URLs.",
            scope: Some(Scope::Crawl),
            parameters: &["RequestId", "IdempotencyKey", "Traceparent"],
            body: Some("Deepsearch"),
            answers: &[(200, "CrawlAnswer")],
            errors: &[OF_CRAWL, OF_KEY, OF_WORK, &[ApiCode::SearchUnavailable]],
            ..POST
        }],
    },
    PathItem {
        path: "/deepsearch/stream",
        operations: &[Operation {
            id: "deepsearchStream",
            tag: "Search",
            summary: "Search, stream an event for each hit as it is done",
            text: "As `POST /crawl/stream`; `search` says what was found.",
            scope: Some(Scope::Crawl),
            parameters: &["RequestId", "IdempotencyKey", "Traceparent", "LastEventId"],
            body: Some("Deepsearch"),
            answers: &[(200, "Events"), (204, "NothingLeft")],
            errors: &[OF_CRAWL, OF_KEY, OF_STREAM, OF_WORK, &[ApiCode::SearchUnavailable]],
            ..POST
        }],
    },
    PathItem {
        path: "/deepsearch/sse",
        operations: &[
            Operation {
                id: "deepsearchSse",
                query: "query=old+weirs&limit=3",
                tag: "Search",
                summary: "Search, stream Server-Sent Events",
                text: "What a browser's `EventSource` can call.",
                scope: Some(Scope::Crawl),
                parameters: &[
                    "RequestId",
                    "Traceparent",
                    "LastEventId",
                    "QueryQuery",
                    "QueryLimit",
                    "QueryCountry",
                    "QueryLocale",
                    "QueryContent",
                    "QueryOptions",
                ],
                answers: &[(200, "ServerSentEvents"), (204, "NothingLeft")],
                errors: &[OF_CRAWL, OF_KEY, OF_STREAM, OF_WORK, &[ApiCode::SearchUnavailable]],
                ..GET
            },
            Operation {
                id: "deepsearchSsePost",
                tag: "Search",
                summary: "Search, stream Server-Sent Events",
                text: "As `POST /deepsearch/stream`, whatever `Accept` says.",
                scope: Some(Scope::Crawl),
                parameters: &["RequestId", "IdempotencyKey", "Traceparent", "LastEventId"],
                body: Some("Deepsearch"),
                answers: &[(200, "ServerSentEvents"), (204, "NothingLeft")],
                errors: &[OF_CRAWL, OF_KEY, OF_STREAM, OF_WORK, &[ApiCode::SearchUnavailable]],
                ..POST
            },
        ],
    },
    PathItem {
        path: "/admin/reload",
        operations: &[Operation {
            id: "reload",
            tag: "Operations",
            summary: "Read the settings again",
            text: "All or nothing; what can't be changed while it runs is said.",
            scope: Some(Scope::Admin),
            answers: &[(200, "Reloaded"), (422, "NotReloaded")],
            errors: &[OF_QUERY],
            ..POST
        }],
    },
    PathItem {
        path: "/jobs",
        operations: &[
            Operation {
                id: "jobs",
                query: "limit=5",
                tag: "Jobs",
                summary: "The caller's jobs",
                text: "The newest first.",
                scope: Some(Scope::Crawl),
                parameters: &["RequestId", "JobsBefore", "JobsLimit"],
                answers: &[(200, "Jobs")],
                errors: &[OF_QUERY, OF_WORK],
                ..GET
            },
            Operation {
                id: "beginJob",
                tag: "Jobs",
                summary: "Crawl thousands of URLs in the background",
                text: "As `POST /crawl`, without waiting; nobody has to read the results. Where jobs are in Redis, `options.follow` is refused.",
                scope: Some(Scope::Crawl),
                parameters: &["RequestId", "IdempotencyKey"],
                body: Some("Job"),
                answers: &[(202, "Job")],
                errors: &[OF_CRAWL, OF_KEY, OF_WORK, OF_STREAM],
                ..POST
            },
        ],
    },
    PathItem {
        path: "/jobs/{id}",
        operations: &[
            Operation {
                id: "job",
                tag: "Jobs",
                summary: "State of a job",
                text: "Counts, times, and how its webhook stands.",
                scope: Some(Scope::Crawl),
                parameters: &["RequestId", "JobId"],
                answers: &[(200, "Job")],
                errors: &[OF_STREAM, OF_WORK],
                ..GET
            },
            Operation {
                method: Method::Delete,
                id: "cancelJob",
                tag: "Jobs",
                summary: "End a job",
                text: "What it has done is kept.",
                scope: Some(Scope::Crawl),
                parameters: &["RequestId", "JobId"],
                answers: &[(200, "Job"), (202, "Job")],
                errors: &[OF_STREAM, OF_WORK],
                ..GET
            },
        ],
    },
    PathItem {
        path: "/jobs/{id}/events",
        operations: &[Operation {
            id: "jobEvents",
            query: "after=17",
            tag: "Jobs",
            summary: "A job's events",
            text: "From `after` on, and live; NDJSON, or Server-Sent Events by `Accept`.",
            scope: Some(Scope::Crawl),
            parameters: &["RequestId", "JobId", "After", "LastEventId"],
            answers: &[(200, "Events"), (204, "NothingLeft")],
            errors: &[OF_QUERY, OF_STREAM, OF_WORK],
            ..GET
        }],
    },
    PathItem {
        path: "/mcp",
        operations: &[Operation {
            id: "mcp",
            tag: "Agents",
            summary: "Model Context Protocol, Streamable HTTP",
            text: "One JSON-RPC 2.0 request or notification a POST, in the revisions that `MCP-Protocol-Version` may name, without sessions. A call of a tool is answered by Server-Sent Events where `Accept` names them, with progress in front of the result. Errors of the protocol are JSON-RPC's; a tool needs the scope of the route that does the same.",
            parameters: &["RequestId", "McpVersion"],
            body: Some("JsonRpc"),
            answers: &[
                (200, "JsonRpc"),
                (202, "Accepted"),
                (400, "JsonRpcError"),
                (404, "JsonRpcError"),
            ],
            errors: &[OF_WORK],
            ..POST
        }],
    },
    PathItem {
        path: "/latency",
        operations: &[Operation {
            id: "latency",
            query: "window=10s",
            tag: "Operations",
            summary: "Percentiles of every stage and endpoint",
            text: "JSON in µs, or HdrHistogram's own text forms. `reset` needs the scope `admin`.",
            scope: Some(Scope::Metrics),
            parameters: &["RequestId", "Format", "Window", "Reset", "Series", "Unit"],
            answers: &[(200, "Latency")],
            errors: &[OF_QUERY],
            ..GET
        }],
    },
    PathItem {
        path: "/metrics",
        operations: &[Operation {
            id: "metrics",
            tag: "Operations",
            summary: "Prometheus text",
            text: "OpenMetrics where `Accept` names it.",
            scope: Some(Scope::Metrics),
            answers: &[(200, "Metrics")],
            ..GET
        }],
    },
    PathItem {
        path: "/healthz",
        operations: &[Operation {
            id: "healthz",
            tag: "Operations",
            summary: "Every part with its state",
            text: "503 with the same object while the server takes no work.",
            scope: Some(Scope::Metrics),
            answers: &[(200, "Health"), (503, "Health")],
            ..GET
        }],
    },
    PathItem {
        path: "/livez",
        operations: &[Operation {
            id: "livez",
            tag: "Operations",
            summary: "Is the process alive?",
            text: "Allocates nothing and asks for no key.",
            public: true,
            answers: &[(200, "Ok")],
            ..GET
        }],
    },
    PathItem {
        path: "/readyz",
        operations: &[Operation {
            id: "readyz",
            tag: "Operations",
            summary: "Does it take work?",
            text: "503 while it starts and while it stops.",
            public: true,
            answers: &[(200, "Ok")],
            errors: &[OF_WORK],
            ..GET
        }],
    },
    PathItem {
        path: "/",
        operations: &[Operation {
            id: "console",
            tag: "Pages",
            summary: "The console",
            text: "A web page to run a crawl and watch its events and the latencies.",
            public: true,
            parameters: &["RequestId", "IfNoneMatch"],
            answers: &[(200, "Page"), (304, "NotModified")],
            ..GET
        }],
    },
    PathItem {
        path: "/docs",
        operations: &[Operation {
            id: "docs",
            tag: "Pages",
            summary: "This description, to be read",
            text: "A web page.",
            public: true,
            parameters: &["RequestId", "IfNoneMatch"],
            answers: &[(200, "Page"), (304, "NotModified")],
            ..GET
        }],
    },
    PathItem {
        path: "/openapi.json",
        operations: &[Operation {
            id: "openapi",
            tag: "Pages",
            summary: "This description",
            text: "OpenAPI 3.1, with the bounds of this server's settings.",
            public: true,
            parameters: &["RequestId", "IfNoneMatch"],
            answers: &[(200, "OpenApi"), (304, "NotModified")],
            ..GET
        }],
    },
];
