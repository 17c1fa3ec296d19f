//! One request, as access control sees it: who, from where, with what right.

use super::Access;
use super::audit::{Asked, Entry};
use super::cors::{Cors, Verdict};
use super::keys::{Credential, Key, Scope};
use super::peer::Found;
use super::quota::UrlsRefused;
use super::rate::{Reading, write_fields};
use super::table::{AddressKey, Counted};
use crate::error::{ApiCode, ApiError};
use crate::observe::traceparent::TraceContext;
use crate::proto::forwarded;
use crate::proto::h1::{Method, Request, list_members};
use crate::serve::route::Route;
use crate::stream::place::Place;
use bytes::Bytes;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

/// When to come back where no time can be computed: something that runs has to end first.
const SOON: Duration = Duration::from_secs(1);

/// Bytes of an answer after which the other nodes hear of them.
const TOLD_BYTES: u64 = 64 * 1024;

/// See the module.
#[derive(Debug)]
pub struct Visit {
    /// The client, as far as it can be known.
    pub address: IpAddr,
    /// Further fields of the answer.
    pub fields: Vec<(&'static str, Bytes)>,
    /// Why it was refused, if it was.
    pub refused: Option<ApiCode>,
    /// Where it stands in its client's trace, as a valid `traceparent` says.
    pub trace: Option<TraceContext>,
    key: Option<Arc<Key>>,
    /// The reading of the keys that it was found in.
    seen: u64,
    /// Bytes that were paid for since the other nodes were told.
    untold: u64,
    credential: Credential,
    origin: Verdict,
    /// Whether it names this server.
    named: bool,
    /// Whether a page elsewhere has it made, and not to be shown itself.
    foreign: bool,
    /// Whether a browser asks if it may ask (Fetch standard, "CORS-preflight request").
    preflight: bool,
    method: Option<Method>,
    /// For the audit log, where there is one.
    target: Option<Box<str>>,
    asked: Asked,
}

/// What a request holds while it is worked on.
#[derive(Debug, Default)]
pub struct Held {
    _by_address: Option<Counted>,
    _by_key: Option<Place>,
}

impl Visit {
    /// Before any request, or of one that can't be read.
    #[must_use]
    pub fn unknown(address: IpAddr) -> Self {
        Self {
            address,
            fields: Vec::new(),
            refused: None,
            trace: None,
            key: None,
            seen: 0,
            untold: 0,
            credential: Credential::None,
            origin: Verdict::Same,
            named: true,
            foreign: false,
            preflight: false,
            method: None,
            target: None,
            asked: Asked::default(),
        }
    }

    /// Takes out of a request's head what access control needs of it.
    #[must_use]
    pub fn of(access: &Access, peer: IpAddr, request: &Request<'_>, route: Option<Route>) -> Self {
        let mut visit = Self::unknown(peer);
        visit.method = Some(request.method());
        if is_probe(route) {
            return visit;
        }
        let fields = request.fields();
        let mut traces = fields.all("traceparent");
        // W3C Trace Context §3.2: of several fields none counts, as nobody can say which.
        visit.trace =
            traces.next().and_then(TraceContext::parse).filter(|_| traces.next().is_none());
        if access.is_proxy(peer) {
            let name = match access.forwarded_field {
                forwarded::ForwardedField::XForwardedFor => "x-forwarded-for",
                forwarded::ForwardedField::Forwarded => "forwarded",
            };
            let lines: Vec<&[u8]> = fields.all(name).collect();
            let trusted = |address| access.is_proxy(address);
            visit.address =
                forwarded::client(peer, access.forwarded_field, lines.into_iter(), trusted);
        }
        if !access.is_open() {
            let offered = fields.all("sec-websocket-protocol").flat_map(list_members);
            visit.credential = Credential::of(
                fields.all("authorization"),
                fields.all("x-api-key"),
                offered.filter(|_| route == Some(Route::CrawlWs)),
            );
        }
        let open = access.is_open();
        // What asks for a key has nothing to fear of a browser: it sends none by itself. And a browser
        // always has a `Host`.
        visit.named = !open || request.host().is_none_or(|host| access.names.know(host));
        visit.origin = access.cors.judge(request.field("origin"), request.host(), visit.named);
        let shown = route.is_some_and(Route::is_page)
            && request.field("sec-fetch-mode").is_some_and(|mode| mode == b"navigate");
        visit.foreign = open
            && !shown
            && access.cors.is_foreign(&visit.origin, request.field("sec-fetch-site"));
        visit.preflight = visit.origin != Verdict::Same
            && request.method() == Method::Options
            && request.field("access-control-request-method").is_some();
        if access.audit.is_some() {
            let query = request.query().map(|query| format!("?{query}")).unwrap_or_default();
            visit.target = Some(format!("{}{query}", request.path()).into());
        }
        visit
    }

    /// What the client's address counts as.
    #[must_use]
    pub fn address_number(&self) -> u128 {
        AddressKey::of(self.address).number()
    }

    /// The API key that the request was admitted with.
    #[must_use]
    pub const fn key(&self) -> Option<&Arc<Key>> {
        self.key.as_ref()
    }

    /// The key with the reading of the keys that it was found in, and the target: what is known of a
    /// connection that goes over to another protocol.
    pub fn hand_over(&self) -> (Found, Option<Box<str>>) {
        ((self.key.clone(), self.seen), self.target.clone())
    }

    /// Whether its key is still known.
    pub fn stands(&mut self, access: &Access) -> bool {
        access.renew(&mut self.key, &mut self.seen)
    }

    /// Decides on the request; what it holds while it is worked on.
    ///
    /// # Errors
    /// 401, 403, 429 or 503, with the fields that belong to it.
    pub async fn admit(
        &mut self,
        access: &Access,
        route: Option<Route>,
        query: Option<&str>,
    ) -> Result<Held, ApiError> {
        if is_probe(route) {
            return Ok(Held::default());
        }
        access.cors.fields(&self.origin, &mut self.fields);
        let address = AddressKey::of(self.address);
        let by_rate = access.requests.as_ref().map(|rate| rate.take(address));
        self.tell_rates(&[("address", by_rate)]);
        refuse_over(by_rate, "this address sends too many requests")?;
        let full = |_| refuse(ApiCode::RateLimited, "this address has too many requests at a time");
        let by_address = access.running.enter(address, access.running_max).map_err(full)?;
        let mut held = Held { _by_address: by_address, _by_key: None };
        if self.method == Some(Method::Options) {
            return Ok(held);
        }
        if !self.named {
            let message = "this server does not go by the name in Host (server.hosts)";
            return Err(ApiError::new(ApiCode::Forbidden, message));
        }
        if self.origin == Verdict::Refused || self.foreign {
            let message = "requests of that origin are not allowed here (cors.origins)";
            return Err(ApiError::new(ApiCode::Forbidden, message));
        }
        if route.is_some_and(Route::is_page) {
            // A page to enter the key on can't ask for it, and it tells nothing of the server's work.
            return Ok(held);
        }
        self.authenticate(access, address)?;
        if let Some(key) = self.key.clone() {
            if let Some(cluster) = access.cluster.get() {
                key.catch_up(cluster).await;
            }
            let reading = key.quota.take_request();
            self.tell_rates(&[("address", by_rate), ("key", reading)]);
            self.tell_nodes(access);
            refuse_over(reading, "this key sends too many requests")?;
            let scope = scope_of(route, query);
            if let Some(scope) = scope.filter(|scope| !key.has(*scope)) {
                let message = format!("this key lacks the scope {}", scope.as_str());
                return Err(ApiError::new(ApiCode::Forbidden, message));
            }
            check_bytes(&key)?;
            held._by_key = key.quota.begin_request().map_err(|most| too_many(most, "requests"))?;
        }
        if matches!(scope_of(route, query), Some(Scope::Crawl | Scope::Extract)) {
            refuse_pressed(access)?;
        }
        Ok(held)
    }

    fn authenticate(&mut self, access: &Access, address: AddressKey) -> Result<(), ApiError> {
        let Some(keys) = &access.keys else { return Ok(()) };
        self.seen = access.keys_version();
        let found = match &self.credential {
            Credential::Digest(digest) => keys.now.load().find(digest).cloned(),
            _ => None,
        };
        if let Some(key) = found {
            self.key = Some(key);
            return Ok(());
        }
        let message = match self.credential {
            Credential::None => "an API key is needed: Authorization: Bearer, or X-API-Key",
            // A key that does not exist and one that can't exist are told apart by nobody.
            _ => {
                // Whoever has a key is never kept waiting by who has none: only failures count.
                let failed = access.failures.as_ref().map(|rate| rate.take(address));
                refuse_over(failed, "this address has sent too many wrong keys")?;
                "this API key is not known"
            }
        };
        // RFC 9110 §11.6.1
        let challenge = Bytes::from_static(b"Bearer realm=\"forebay\"");
        self.fields.push(("WWW-Authenticate", challenge));
        Err(ApiError::new(ApiCode::AuthenticationError, message))
    }

    /// The answer to a preflight, where the request is one: its fields are in place then.
    pub fn preflight(&mut self, route: Option<Route>) -> bool {
        let asks = self.preflight && matches!(self.origin, Verdict::Allowed(_));
        if asks && let Some(route) = route {
            Cors::preflight(route.allow(), &mut self.fields);
        }
        asks && route.is_some()
    }

    /// Counts the URLs that the request asks for.
    ///
    /// # Errors
    /// `rate_limited`, or `too_many_urls` where so many never fit.
    pub fn ask<'a>(
        &mut self,
        access: &Access,
        urls: impl ExactSizeIterator<Item = &'a str>,
    ) -> Result<(), ApiError> {
        let count = urls.len();
        if access.audit.is_some() {
            self.asked = Asked::of(urls);
        }
        let taken = take_urls(self.key.as_deref(), count);
        self.tell_nodes(access);
        taken
    }

    /// Notes for the audit log who is to be told of a job's end.
    pub fn note_webhook(&mut self, access: &Access, url: &str) {
        if access.audit.is_some() {
            self.asked.told(url);
        }
    }

    /// Takes a place for a stream, to be held for as long as it runs.
    ///
    /// # Errors
    /// `rate_limited`: the key has as many as it may have.
    pub fn begin_stream(&self) -> Result<Option<Place>, ApiError> {
        begin_stream(self.key.as_deref())
    }

    /// Takes a place for the connection, to be held for as long as it is open.
    ///
    /// # Errors
    /// `rate_limited`: the key has as many as it may have.
    pub fn begin_connection(&self) -> Result<Option<Place>, ApiError> {
        let Some(key) = &self.key else { return Ok(None) };
        key.quota.begin_connection().map_err(|most| too_many(most, "connections"))
    }

    /// Pays for bytes of the answer that were sent.
    pub fn charge(&mut self, access: &Access, bytes: u64) {
        let Some(key) = self.key.as_ref().filter(|key| key.quota.limits().bytes_per_min > 0) else {
            return;
        };
        key.quota.charge(Instant::now(), bytes);
        self.untold += bytes;
        if self.untold >= TOLD_BYTES {
            self.untold = 0;
            self.tell_nodes(access);
        }
    }

    /// How long no more of a stream is sent, because the key has used up its bytes.
    #[must_use]
    pub fn overdrawn(&self, now: Instant) -> Option<Duration> {
        self.key.as_ref()?.quota.overdrawn(now)
    }

    /// The request is over: notes it. `false` where the note was dropped.
    pub fn finish(&self, access: &Access, end: &End<'_>) -> bool {
        self.tell_nodes(access);
        let Some(audit) = &access.audit else { return true };
        let trace_id = self.trace.as_ref().map(TraceContext::trace_id_text);
        let entry = Entry {
            trace_id: trace_id.as_deref(),
            at: SystemTime::now(),
            op: None,
            request_id: end.request_id,
            key: self.key.as_ref().map(|key| &*key.name),
            address: self.address,
            method: self.method.map(Method::as_str),
            target: self.target.as_deref(),
            urls: &self.asked,
            status: end.status,
            outcome: match self.refused {
                Some(code) => code.as_str(),
                None if end.gone => "aborted",
                None => "ok",
            },
            bytes: end.bytes,
            took: end.took,
        };
        audit.write(entry.line())
    }

    /// What was let through counts on every node.
    fn tell_nodes(&self, access: &Access) {
        if let (Some(key), Some(cluster)) = (&self.key, access.cluster.get()) {
            key.tell(cluster);
        }
    }

    fn tell_rates(&mut self, readings: &[(&str, Option<Reading>)]) {
        self.fields.retain(|(name, _)| !name.starts_with("RateLimit"));
        let (mut policy, mut state) = (String::new(), String::new());
        for (name, reading) in readings {
            if let Some(reading) = reading {
                write_fields(name, reading, &mut policy, &mut state);
            }
        }
        if !policy.is_empty() {
            self.fields.push(("RateLimit-Policy", policy.into()));
            self.fields.push(("RateLimit", state.into()));
        }
    }
}

/// Counts URLs that a key asks for.
///
/// # Errors
/// `rate_limited`, or `too_many_urls` where so many never fit.
pub fn take_urls(key: Option<&Key>, count: usize) -> Result<(), ApiError> {
    let Some(key) = key else { return Ok(()) };
    key.quota.take_urls(count).map_err(|refused| match refused {
        UrlsRefused::Later(wait) => {
            let message = "this key has used up its URLs";
            ApiError::new(ApiCode::RateLimited, message).retry_after(wait)
        }
        UrlsRefused::Never(most) => {
            let message = format!("{count} urls, maximum {most} a minute for this key");
            ApiError::new(ApiCode::TooManyUrls, message).limit("urls", u64::from(most))
        }
    })
}

/// Takes a place for a stream of a key.
///
/// # Errors
/// `rate_limited`: the key has as many as it may have.
pub fn begin_stream(key: Option<&Key>) -> Result<Option<Place>, ApiError> {
    let Some(key) = key else { return Ok(None) };
    check_bytes(key)?;
    key.quota.begin_stream().map_err(|most| too_many(most, "streams"))
}

/// How a request ended.
#[derive(Debug, Clone, Copy)]
pub struct End<'a> {
    /// Its id.
    pub request_id: Option<&'a str>,
    /// The status that was written; 0 where none was.
    pub status: u16,
    /// Bytes written.
    pub bytes: u64,
    /// From its head to its end.
    pub took: Duration,
    /// Whether the connection ended with it.
    pub gone: bool,
}

/// Whether the route is for who watches over the process: always open, never counted, and its
/// answer allocates nothing.
#[must_use]
pub const fn is_probe(route: Option<Route>) -> bool {
    matches!(route, Some(Route::Livez | Route::Readyz))
}

/// What a key must be good for. A route that is not named here is one that fetches.
fn scope_of(route: Option<Route>, query: Option<&str>) -> Option<Scope> {
    let resets =
        || query.is_some_and(|query| query.split('&').any(|part| part.starts_with("reset")));
    match route? {
        Route::Livez | Route::Readyz => None,
        Route::Reload => Some(Scope::Admin),
        Route::Latency if resets() => Some(Scope::Admin),
        Route::Healthz | Route::Metrics | Route::Latency => Some(Scope::Metrics),
        Route::Extract => Some(Scope::Extract),
        // Each tool asks for its own.
        Route::Mcp => None,
        _ => Some(Scope::Crawl),
    }
}

pub(super) fn check_bytes(key: &Key) -> Result<(), ApiError> {
    key.quota.overdrawn(Instant::now()).map_or(Ok(()), |wait| {
        let message = "this key has used up its bytes";
        Err(ApiError::new(ApiCode::RateLimited, message).retry_after(wait))
    })
}

fn refuse(code: ApiCode, message: &str) -> ApiError {
    ApiError::new(code, message).retry_after(SOON)
}

fn too_many(most: usize, what: &str) -> ApiError {
    let message = format!("this key has {most} {what} at a time, its maximum");
    refuse(ApiCode::RateLimited, &message)
}

/// Whether there is memory for new work.
pub(super) fn refuse_pressed(access: &Access) -> Result<(), ApiError> {
    if access.pressed() {
        return Err(refuse(ApiCode::Overloaded, "the server is short of memory"));
    }
    Ok(())
}

pub(super) fn refuse_over(reading: Option<Reading>, message: &str) -> Result<(), ApiError> {
    match reading.filter(|reading| !reading.allowed) {
        None => Ok(()),
        Some(reading) => {
            Err(ApiError::new(ApiCode::RateLimited, message).retry_after(reading.reset))
        }
    }
}
