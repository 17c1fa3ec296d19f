//! What of a request matters to us, taken out of its head, so that the head's bytes can go.

use super::access::visit::is_probe;
use super::mcp::Fields;
use super::pages::Browse;
use super::route::Route;
use crate::error::{ApiCode, ApiError};
use crate::observe::request_id::RequestId;
use crate::observe::series::Endpoint;
use crate::proto::h1::{Framing, Method, Request, TargetForm, list_members};
use crate::proto::ws::handshake::{Accepted, Rejection};

/// What a request's body claims to be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BodyType {
    /// `application/json`, or any `+json`.
    Json,
    /// `text/html`, or XHTML.
    Html,
    /// No `Content-Type` at all.
    Missing,
    /// Something else.
    Other,
}

/// A request, as far as we look at it. No allocation unless it has a query or a charset.
#[derive(Debug, Clone)]
pub struct Ask {
    /// The resource, where there is one.
    pub route: Option<Route>,
    /// The method.
    pub method: Method,
    /// `OPTIONS *`: about the server, not a resource.
    pub asterisk: bool,
    /// The client's own id for the request, where it sent a valid one.
    pub request_id: Option<RequestId>,
    /// Whether the head says how long the body is, or that it comes in chunks.
    pub has_length: bool,
    /// What the body claims to be.
    pub body_type: BodyType,
    /// The charset that the body claims to have.
    pub charset: Option<String>,
    /// What stands behind the `?`.
    pub query: Option<String>,
    /// Whether the client asks for Server-Sent Events.
    pub wants_sse: bool,
    /// Whether the client asks for OpenMetrics.
    pub wants_openmetrics: bool,
    /// The last event that the client has, as it says.
    pub last_event_id: Option<Box<[u8]>>,
    /// What the client calls its request, so that sending it twice is like sending it once.
    pub idempotency_key: Option<Box<[u8]>>,
    /// What came of the opening handshake where the route is a WebSocket's.
    pub upgrade: Option<Box<Result<Accepted, Rejection>>>,
    /// What a browser wants a page like, where the route is one.
    pub browse: Option<Box<Browse>>,
    /// What stands in the head of a request of the Model Context Protocol.
    pub mcp: Option<Box<Fields>>,
}

impl Ask {
    /// Looks at a request.
    #[must_use]
    pub fn of(request: &Request<'_>) -> Self {
        let asterisk = request.target_form() == TargetForm::Asterisk;
        let route = if asterisk { None } else { Route::find(request.path()) };
        if is_probe(route) {
            return Self::of_probe(request, route);
        }
        let (body_type, charset) = match request.field("content-type") {
            Some(value) => body_type(value),
            None => (BodyType::Missing, None),
        };
        let page = route.is_some_and(Route::is_page);
        Self {
            route,
            method: request.method(),
            asterisk,
            request_id: request.field("x-request-id").and_then(RequestId::from_field),
            has_length: request.framing() != Framing::None,
            body_type,
            charset,
            query: request.query().map(str::to_owned),
            wants_sse: accepts(request, "text/event-stream"),
            wants_openmetrics: accepts(request, "application/openmetrics-text"),
            last_event_id: request.field("last-event-id").map(Box::from),
            idempotency_key: request.field("idempotency-key").map(Box::from),
            upgrade: None,
            browse: page.then(|| Box::new(Browse::of(request))),
            mcp: (route == Some(Route::Mcp)).then(|| Box::new(Fields::of(request))),
        }
    }

    /// Of a request for `/livez` or `/readyz`, of which nothing but its id matters.
    fn of_probe(request: &Request<'_>, route: Option<Route>) -> Self {
        Self {
            route,
            method: request.method(),
            asterisk: false,
            request_id: request.field("x-request-id").and_then(RequestId::from_field),
            has_length: false,
            body_type: BodyType::Missing,
            charset: None,
            query: None,
            wants_sse: false,
            wants_openmetrics: false,
            last_event_id: None,
            idempotency_key: None,
            upgrade: None,
            browse: None,
            mcp: None,
        }
    }

    /// Whether it only asks if the process lives.
    #[must_use]
    pub fn is_livez(&self) -> bool {
        self.route == Some(Route::Livez) && matches!(self.method, Method::Get | Method::Head)
    }

    /// What the request's times count as.
    #[must_use]
    pub const fn endpoint(&self) -> Endpoint {
        match self.route {
            Some(Route::Livez) => Endpoint::Livez,
            Some(Route::Readyz | Route::Healthz) => Endpoint::Health,
            Some(Route::Metrics | Route::Latency) => Endpoint::Metrics,
            Some(Route::Extract) => Endpoint::Extract,
            Some(Route::Crawl) => Endpoint::Crawl,
            Some(Route::CrawlSse) => Endpoint::CrawlSse,
            Some(Route::CrawlStream) if self.wants_sse => Endpoint::CrawlSse,
            Some(Route::CrawlStream) => Endpoint::CrawlNdjson,
            Some(Route::CrawlWs) => Endpoint::CrawlWs,
            Some(Route::Deepsearch) => Endpoint::Deepsearch,
            Some(Route::DeepsearchSse) => Endpoint::DeepsearchSse,
            Some(Route::DeepsearchStream) if self.wants_sse => Endpoint::DeepsearchSse,
            Some(Route::DeepsearchStream) => Endpoint::DeepsearchNdjson,
            Some(Route::StreamEvents(_) | Route::JobEvents(_)) if self.wants_sse => {
                Endpoint::EventsSse
            }
            Some(Route::StreamEvents(_) | Route::JobEvents(_)) => Endpoint::EventsNdjson,
            Some(Route::Stream(_) | Route::StreamTrace(_) | Route::Jobs | Route::Job(_)) => {
                Endpoint::Streams
            }
            Some(Route::Console | Route::Docs | Route::OpenApi | Route::Mcp | Route::Reload)
            | None => Endpoint::Other,
        }
    }

    /// Refuses every query parameter but one.
    ///
    /// # Errors
    /// `unknown_field`, with the parameter's name.
    pub fn only_parameter(&self, known: &str) -> Result<(), ApiError> {
        self.only_parameters(&[known])
    }

    /// Refuses every query parameter but these.
    ///
    /// # Errors
    /// `unknown_field`, with the parameter's name.
    pub fn only_parameters(&self, known: &[&str]) -> Result<(), ApiError> {
        let query = self.query.as_deref().unwrap_or_default();
        let mut pairs = url::form_urlencoded::parse(query.as_bytes());
        match pairs.find(|(name, _)| !known.contains(&&**name)) {
            None => Ok(()),
            Some((name, _)) => {
                let name: String = name.chars().take(64).collect();
                let message = format!("unknown query parameter {name}");
                let error = ApiError::new(ApiCode::UnknownField, message);
                Err(error.field(name, known.join(", ")))
            }
        }
    }

    /// The first value of a query parameter, decoded.
    #[must_use]
    pub fn parameter(&self, name: &str) -> Option<String> {
        let query = self.query.as_deref()?;
        let mut pairs = url::form_urlencoded::parse(query.as_bytes());
        pairs.find(|(key, _)| key == name).map(|(_, value)| value.into_owned())
    }
}

/// Reads a media type with its charset (RFC 9110 §8.3.1).
fn body_type(value: &[u8]) -> (BodyType, Option<String>) {
    let (essence, mut parameters) = media_type(value);
    let is = |name: &str| essence.eq_ignore_ascii_case(name.as_bytes());
    let ends = |suffix: &str| {
        let start = essence.len().saturating_sub(suffix.len());
        essence[start..].eq_ignore_ascii_case(suffix.as_bytes())
    };
    let body_type = if is("application/json") || ends("+json") {
        BodyType::Json
    } else if is("text/html") || is("application/xhtml+xml") {
        BodyType::Html
    } else {
        BodyType::Other
    };
    let charset = parameters.find(|(name, _)| name.eq_ignore_ascii_case(b"charset"));
    let named = charset.map(|(_, value)| String::from_utf8_lossy(value));
    (body_type, named.map(|value| value.trim_matches('"').to_owned()))
}

/// Whether `Accept` names a media type with a weight above zero (RFC 9110 §12.5.1).
fn accepts(request: &Request<'_>, wanted: &str) -> bool {
    let refused = |(name, value): (&[u8], &[u8])| {
        let weight = || std::str::from_utf8(value).ok()?.parse::<f32>().ok();
        name.eq_ignore_ascii_case(b"q") && weight() == Some(0.0)
    };
    request.fields().all("accept").flat_map(list_members).any(|member| {
        let (essence, mut parameters) = media_type(member);
        essence.eq_ignore_ascii_case(wanted.as_bytes()) && !parameters.any(refused)
    })
}

/// A media type's name, and the names and values of its parameters; of values in quotation marks
/// those without a `;` alone, which is enough for a charset and a weight.
fn media_type(value: &[u8]) -> (&[u8], impl Iterator<Item = (&[u8], &[u8])>) {
    let mut parts = value.split(|byte| *byte == b';').map(<[u8]>::trim_ascii);
    let essence = parts.next().unwrap_or_default();
    let parameters = parts.filter_map(|part| {
        let at = part.iter().position(|byte| *byte == b'=')?;
        Some((part[..at].trim_ascii(), part[at + 1..].trim_ascii()))
    });
    (essence, parameters)
}
