//! Which path is what, and which methods it takes.

use crate::proto::h1::Method;
use std::borrow::Cow;
use ulid::Ulid;

/// A resource of the API (API §1).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Route {
    /// Is the process alive?
    Livez,
    /// Does it take work?
    Readyz,
    /// How is each part?
    Healthz,
    /// Prometheus text.
    Metrics,
    /// Reads the settings again.
    Reload,
    /// Percentiles.
    Latency,
    /// One JSON answer for all URLs.
    Crawl,
    /// Events, NDJSON or SSE by `Accept`.
    CrawlStream,
    /// SSE; also by `GET`, for a browser's `EventSource`.
    CrawlSse,
    /// A WebSocket that carries many streams.
    CrawlWs,
    /// A search and a crawl of its hits: one JSON answer.
    Deepsearch,
    /// The same as events, NDJSON or SSE by `Accept`.
    DeepsearchStream,
    /// The same as SSE; also by `GET`.
    DeepsearchSse,
    /// HTML in, document out.
    Extract,
    /// State of a stream, or its end.
    Stream(Ulid),
    /// A stream's events from a position on.
    StreamEvents(Ulid),
    /// A stream's flight recorder.
    StreamTrace(Ulid),
    /// Jobs: a new one, or the list.
    Jobs,
    /// State of a job, or its end.
    Job(Ulid),
    /// A job's events from a position on.
    JobEvents(Ulid),
    /// The console: a web page.
    Console,
    /// The API's description as a web page.
    Docs,
    /// The API's description (OpenAPI 3.1).
    OpenApi,
    /// Model Context Protocol.
    Mcp,
}

impl Route {
    /// Finds a path's route; all but health and metrics also live under `/v1`.
    #[must_use]
    pub fn find(path: &str) -> Option<Self> {
        match path {
            "/livez" => return Some(Self::Livez),
            "/readyz" => return Some(Self::Readyz),
            "/healthz" => return Some(Self::Healthz),
            "/metrics" => return Some(Self::Metrics),
            "/" => return Some(Self::Console),
            _ => {}
        }
        match path.strip_prefix("/v1").unwrap_or(path) {
            "/crawl" => Some(Self::Crawl),
            "/crawl/stream" => Some(Self::CrawlStream),
            "/crawl/ws" => Some(Self::CrawlWs),
            "/extract" => Some(Self::Extract),
            "/crawl/sse" => Some(Self::CrawlSse),
            "/deepsearch" => Some(Self::Deepsearch),
            "/deepsearch/stream" => Some(Self::DeepsearchStream),
            "/deepsearch/sse" => Some(Self::DeepsearchSse),
            "/latency" => Some(Self::Latency),
            "/admin/reload" => Some(Self::Reload),
            "/docs" => Some(Self::Docs),
            "/openapi.json" => Some(Self::OpenApi),
            "/mcp" => Some(Self::Mcp),
            "/jobs" => Some(Self::Jobs),
            path => match path.strip_prefix("/jobs/") {
                Some(rest) => Self::find_job(rest),
                None => Self::find_stream(path.strip_prefix("/streams/")?),
            },
        }
    }

    /// What is behind `/jobs/`, as [`Route::find_stream`].
    fn find_job(rest: &str) -> Option<Self> {
        match rest.strip_suffix("/events") {
            Some(id) => Ulid::from_string(id).ok().map(Self::JobEvents),
            None => Ulid::from_string(rest).ok().map(Self::Job),
        }
    }

    /// What is behind `/streams/`: an id as we write it, and one of its resources.
    fn find_stream(rest: &str) -> Option<Self> {
        let (id, resource) =
            rest.split_once('/').map_or((rest, None), |(id, what)| (id, Some(what)));
        let id = Ulid::from_string(id).ok()?;
        match resource {
            None => Some(Self::Stream(id)),
            Some("events") => Some(Self::StreamEvents(id)),
            Some("trace") => Some(Self::StreamTrace(id)),
            Some(_) => None,
        }
    }

    /// Its path, with `{id}` in an id's place.
    #[must_use]
    pub const fn template(self) -> &'static str {
        match self {
            Self::Livez => "/livez",
            Self::Readyz => "/readyz",
            Self::Healthz => "/healthz",
            Self::Metrics => "/metrics",
            Self::Reload => "/admin/reload",
            Self::Latency => "/latency",
            Self::Crawl => "/crawl",
            Self::CrawlStream => "/crawl/stream",
            Self::CrawlSse => "/crawl/sse",
            Self::CrawlWs => "/crawl/ws",
            Self::Deepsearch => "/deepsearch",
            Self::DeepsearchStream => "/deepsearch/stream",
            Self::DeepsearchSse => "/deepsearch/sse",
            Self::Extract => "/extract",
            Self::Stream(_) => "/streams/{id}",
            Self::StreamEvents(_) => "/streams/{id}/events",
            Self::StreamTrace(_) => "/streams/{id}/trace",
            Self::Jobs => "/jobs",
            Self::Job(_) => "/jobs/{id}",
            Self::JobEvents(_) => "/jobs/{id}/events",
            Self::Console => "/",
            Self::Docs => "/docs",
            Self::OpenApi => "/openapi.json",
            Self::Mcp => "/mcp",
        }
    }

    /// Its path; the prefix `/v1` is left out.
    #[must_use]
    pub fn path(self) -> Cow<'static, str> {
        match self {
            Self::Stream(id)
            | Self::StreamEvents(id)
            | Self::StreamTrace(id)
            | Self::Job(id)
            | Self::JobEvents(id) => self.template().replace("{id}", &id.to_string()).into(),
            _ => self.template().into(),
        }
    }

    /// Whether it is a page that was written at the start and is the same for everybody.
    #[must_use]
    pub const fn is_page(self) -> bool {
        matches!(self, Self::Console | Self::Docs | Self::OpenApi)
    }

    /// The methods that the resource takes, `OPTIONS` left out.
    #[must_use]
    pub const fn methods(self) -> &'static [Method] {
        match self {
            Self::Crawl
            | Self::CrawlStream
            | Self::Deepsearch
            | Self::DeepsearchStream
            | Self::Extract
            | Self::Mcp
            | Self::Reload => &[Method::Post],
            Self::CrawlSse | Self::DeepsearchSse | Self::Jobs => {
                &[Method::Get, Method::Head, Method::Post]
            }
            Self::Stream(_) | Self::Job(_) => &[Method::Get, Method::Head, Method::Delete],
            _ => &[Method::Get, Method::Head],
        }
    }

    /// Those methods as an `Allow` field's value (RFC 9110 §10.2.1).
    #[must_use]
    pub const fn allow(self) -> &'static str {
        match self {
            Self::Crawl
            | Self::CrawlStream
            | Self::Deepsearch
            | Self::DeepsearchStream
            | Self::Extract
            | Self::Mcp
            | Self::Reload => "POST, OPTIONS",
            Self::CrawlSse | Self::DeepsearchSse | Self::Jobs => "GET, HEAD, POST, OPTIONS",
            Self::Stream(_) | Self::Job(_) => "GET, HEAD, DELETE, OPTIONS",
            _ => "GET, HEAD, OPTIONS",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_are_found_with_and_without_their_version() {
        assert_eq!(Route::find("/crawl"), Some(Route::Crawl));
        assert_eq!(Route::find("/v1/crawl/stream"), Some(Route::CrawlStream));
        assert_eq!(Route::find("/crawl/ws"), Some(Route::CrawlWs));
        assert_eq!(Route::find("/v1/crawl/ws"), Some(Route::CrawlWs));
        assert_eq!(Route::find("/v1/deepsearch"), Some(Route::Deepsearch));
        assert_eq!(Route::find("/deepsearch/sse"), Some(Route::DeepsearchSse));
        assert_eq!(Route::find("/livez"), Some(Route::Livez));
        let id = Ulid(7);
        assert_eq!(Route::find(&format!("/streams/{id}")), Some(Route::Stream(id)));
        assert_eq!(Route::find(&format!("/v1/streams/{id}/events")), Some(Route::StreamEvents(id)));
        assert_eq!(Route::find(&format!("/streams/{id}/trace")), Some(Route::StreamTrace(id)));
        assert_eq!(Route::find(&format!("/streams/{id}/")), None);
        assert_eq!(Route::find("/"), Some(Route::Console));
        assert_eq!(Route::find("/v1/openapi.json"), Some(Route::OpenApi));
        for absent in
            ["/v1/livez", "/v1", "/v1/", "/crawl/", "", "/streams/x", "/streams/", "//crawl"]
        {
            assert_eq!(Route::find(absent), None, "{absent}");
        }
    }

    #[test]
    fn a_route_is_found_by_its_own_path() {
        for path in ["/crawl/stream", "/streams/{id}/events", "/jobs/{id}", "/", "/deepsearch/sse"]
        {
            let path = path.replace("{id}", &Ulid(7).to_string());
            assert_eq!(Route::find(&path).expect("a route").path(), path);
        }
    }

    #[test]
    fn allow_names_each_method_once() {
        let stream = format!("/streams/{}", Ulid(7));
        for path in [
            "/crawl",
            "/admin/reload",
            "/livez",
            "/deepsearch/sse",
            "/deepsearch",
            "/crawl/sse",
            "/mcp",
            "/",
            &stream,
            &format!("{stream}/events"),
        ] {
            let route = Route::find(path).expect("a route");
            let names: Vec<&str> = route.methods().iter().map(|method| method.as_str()).collect();
            assert_eq!(route.allow(), format!("{}, OPTIONS", names.join(", ")));
        }
    }
}
