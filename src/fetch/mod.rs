//! Outbound: one URL to one decoded body, over connections that the egress guard has approved.
//!
//! ```text
//! Target::parse → resolve → egress::check → robots, turn → pool | connect → tls → request → head
//!      ↑                                                                                     │
//!      └───────────────────── redirect: the same door for every hop ────────────────────────┤
//!                                                                                           body
//! ```
//! The policies are without IO and stand alone: [`target`] (which URLs), [`egress`] with
//! [`special`] (which addresses), [`robots`], [`pacing`] (when), [`redirect`], [`decode`], [`sniff`]
//! (which bodies), [`pool`], [`proxy`]. [`resolve`] is a core's end of the control thread's
//! resolver, `courtesy` its end of what all cores know of the `hosts`. What moves bytes is thin:
//! `connect`, `tls`, `exchange`, `body`, `h2`.
//!
//! Every stage has its own deadline and its own time; what runs out of it is `dns_failed`,
//! `connect_timeout` (TCP and TLS), `read_timeout` (head and body); the whole fetch's is
//! `url_timeout`. Dropping a fetch's future ends all that it started. Nothing is retried but one
//! thing: a `GET` on a pooled connection that turns out to be closed, once, on a fresh one.

mod body;
pub mod caching;
mod connect;
mod courtesy;
pub mod decode;
pub mod egress;
mod exchange;
pub mod field;
#[doc(hidden)]
pub mod fuzzing;
mod h2;
mod h2_io;
mod hosts;
mod nodes;
pub mod normal;
pub mod pacing;
pub mod pool;
pub mod proxy;
pub mod redirect;
mod request;
pub mod resolve;
pub mod robots;
pub mod robots_tag;
pub mod sniff;
pub mod special;
pub mod target;
pub mod tls;
mod track;

use crate::cluster::Cluster;
use crate::error::{PageCode, PageError, Stage};
use crate::observe::metrics::Egress as Reason;
use crate::timings::Timings;
use caching::{Caching, Known};
use connect::Connection;
use courtesy::Waiters;
use egress::{DEFAULT_PORTS, Egress, RuleError};
use h2::Links;
use hosts::Hosts;
use pool::{Pool, PoolLimits};
use proxy::{Proxy, ProxyDns, ProxyError};
use redirect::Redirects;
use resolve::Resolver;
use std::cell::{Cell, RefCell};
use std::path::PathBuf;
use std::rc::{Rc, Weak};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};
use target::Target;
use tls::TlsRoots;
use track::Track;

/// Settings of all fetches.
#[derive(Debug, Clone)]
pub struct FetchConfig {
    /// Rules for destinations that would be refused; see [`Egress::new`]. Default: none.
    pub egress_allow: Vec<String>,
    /// Rules for destinations that are refused whatever else is said. Default: none.
    pub egress_deny: Vec<String>,
    /// Prefixes that this network has for NAT64; see [`Egress::with_nat64`]. Default: none.
    pub egress_nat64: Vec<String>,
    /// Ports that may be dialled. Default: 80, 443, 8080, 8443.
    pub egress_ports: Vec<u16>,
    /// Which authorities are trusted. Default: the built-in list.
    pub tls_roots: TlsRoots,
    /// PEM files with further authorities. Default: none.
    pub tls_ca_files: Vec<PathBuf>,
    /// Whether redirects from https to http are followed. Default: no.
    pub redirect_downgrade: bool,
    /// `User-Agent` where the request gives none. Default: `Forebay/` and the version.
    pub user_agent: String,
    /// `Accept-Language`, if one is to be sent. Default: none.
    pub accept_language: Option<String>,
    /// Time for a look-up. Default: 5 s.
    pub dns_timeout: Duration,
    /// Time for a TCP connection, all addresses together. Default: 5 s.
    pub connect_timeout: Duration,
    /// Time for a TLS handshake. Default: 5 s.
    pub tls_timeout: Duration,
    /// Time from the request to the end of the response's head. Default: 15 s.
    pub ttfb_timeout: Duration,
    /// Time without a byte of the body. Default: 10 s.
    pub body_idle_timeout: Duration,
    /// A proxy that everything goes through; see [`Proxy::parse`]. Default: none.
    pub proxy: Option<String>,
    /// Who resolves names where there is a proxy. Default: this server.
    pub proxy_dns: ProxyDns,
    /// Whether origins may choose HTTP/2. Default: yes.
    pub http2: bool,
    /// Requests of the whole process that may be under way to one host. Default: 64.
    pub host_concurrency: u32,
    /// Requests of the whole process that may be under way to one address. Default: 256.
    pub address_concurrency: u32,
    /// Requests of the whole process that may be under way at all. Default: 4096.
    pub concurrency_max: u32,
    /// Time between the starts of two requests to one host; its `Crawl-delay` where that is longer.
    /// Default: none.
    pub host_interval: Duration,
    /// URL of a service that the operator has named: its host and port may be called
    /// ([`Fetcher::call`]) wherever they lead to. Default: none.
    pub service: Option<String>,
    /// Bytes of a page's body that are kept; of a longer one the rest is read, checked and counted, no
    /// more. Default: all.
    pub page_bytes_kept: usize,
    /// Idle connections of one core. Default: 8 per origin, 256 in all, for 30 s.
    pub pool: PoolLimits,
}

impl Default for FetchConfig {
    fn default() -> Self {
        Self {
            egress_allow: Vec::new(),
            egress_deny: Vec::new(),
            egress_nat64: Vec::new(),
            egress_ports: DEFAULT_PORTS.to_vec(),
            tls_roots: TlsRoots::default(),
            tls_ca_files: Vec::new(),
            redirect_downgrade: false,
            user_agent: concat!("Forebay/", env!("CARGO_PKG_VERSION")).to_owned(),
            accept_language: None,
            dns_timeout: Duration::from_secs(5),
            connect_timeout: Duration::from_secs(5),
            tls_timeout: Duration::from_secs(5),
            ttfb_timeout: Duration::from_secs(15),
            body_idle_timeout: Duration::from_secs(10),
            proxy: None,
            proxy_dns: ProxyDns::default(),
            http2: true,
            host_concurrency: 64,
            address_concurrency: 256,
            concurrency_max: 4096,
            host_interval: Duration::ZERO,
            service: None,
            page_bytes_kept: usize::MAX,
            pool: PoolLimits { per_origin: 8, total: 256, idle: Duration::from_secs(30) },
        }
    }
}

/// Settings that cannot work.
#[derive(Debug, thiserror::Error)]
pub enum FetchConfigError {
    /// A rule of the egress guard.
    #[error(transparent)]
    Egress(#[from] RuleError),
    /// The proxy.
    #[error(transparent)]
    Proxy(#[from] ProxyError),
    /// A file of certificate authorities.
    #[error("CA file {}: {reason}", file.display())]
    CaFile {
        /// The file.
        file: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// The service's URL.
    #[error("search.url: {0}")]
    Service(target::TargetError),
    /// The TLS library refuses the settings.
    #[error("TLS: {0}")]
    Tls(String),
    /// `user_agent` or `accept_language` cannot stand in a header field.
    #[error("{0}: {1}")]
    Field(&'static str, field::FieldError),
}

/// Checked settings, made once and shared by every core.
#[derive(Debug)]
pub struct FetchShared {
    config: FetchConfig,
    egress: Egress,
    tls: Arc<rustls::ClientConfig>,
    proxy: Option<Proxy>,
    /// Of the operator's service.
    service: Option<target::Origin>,
    hosts: Hosts,
    /// Turns by address: a thousand names may lead to one.
    addresses: Arc<Hosts>,
    /// Turns of all requests there are.
    all: Arc<Hosts>,
    /// The nodes that hosts' turns are shared with, if there are any.
    cluster: OnceLock<Cluster>,
}

impl FetchShared {
    /// Checks the settings: reads the rules and the CA files.
    ///
    /// # Errors
    /// The first setting that cannot work.
    pub fn new(config: FetchConfig) -> Result<Arc<Self>, FetchConfigError> {
        let addresses = Arc::new(Hosts::new(config.address_concurrency));
        let all = Arc::new(Hosts::new(config.concurrency_max));
        Self::with_lines(config, addresses, all)
    }

    fn with_lines(
        config: FetchConfig,
        addresses: Arc<Hosts>,
        all: Arc<Hosts>,
    ) -> Result<Arc<Self>, FetchConfigError> {
        let egress = Egress::new(&config.egress_allow, &config.egress_deny, &config.egress_ports)?
            .with_nat64(&config.egress_nat64)?;
        let tls = tls::client_config(config.tls_roots, &config.tls_ca_files, config.http2)?;
        let proxy = config.proxy.as_deref().filter(|text| !text.is_empty());
        let proxy = proxy.map(|text| Proxy::parse(text, config.proxy_dns)).transpose()?;
        field::check("user-agent", &config.user_agent)
            .map_err(|error| FetchConfigError::Field("user_agent", error))?;
        if let Some(language) = &config.accept_language {
            field::check("accept-language", language)
                .map_err(|error| FetchConfigError::Field("accept_language", error))?;
        }
        let service = config.service.as_deref().filter(|url| !url.is_empty());
        let service = service.map(Target::parse).transpose().map_err(FetchConfigError::Service)?;
        let service = service.map(|target| target.origin().clone());
        let hosts = Hosts::new(config.host_concurrency);
        let cluster = OnceLock::new();
        Ok(Arc::new(Self { config, egress, tls, proxy, service, hosts, addresses, all, cluster }))
    }

    /// From now on hosts' turns are those of all nodes; the first call counts.
    pub fn share(&self, cluster: Cluster) {
        let _ = self.cluster.set(cluster);
    }

    /// The same settings for URLs that clients name: no service of the operator's may be called, and
    /// connections and paces are of their own; what an address and the process take is counted together.
    ///
    /// # Errors
    /// As [`FetchShared::new`].
    pub fn for_clients(&self) -> Result<Arc<Self>, FetchConfigError> {
        let config = FetchConfig { service: None, ..self.config.clone() };
        Self::with_lines(config, Arc::clone(&self.addresses), Arc::clone(&self.all))
    }

    /// Requests under way to all hosts, of all cores, and the hosts that they go to or wait for.
    #[must_use]
    pub fn under_way(&self) -> (u64, usize) {
        self.hosts.busy()
    }

    /// Whether nobody has a turn, or waits for one: at a host, an address or at all.
    #[must_use]
    pub fn is_idle(&self) -> bool {
        [&self.hosts, &*self.addresses, &*self.all].iter().all(|turns| turns.busy() == (0, 0))
    }
}

/// One URL to fetch.
#[derive(Debug, Clone, Copy)]
pub struct FetchRequest<'a> {
    /// The URL, one that [`Target::parse`] takes.
    pub url: &'a str,
    /// When the fetch must be over, whatever its stages' own deadlines: `url_timeout`.
    pub deadline: Instant,
    /// Bytes of the body, decoded.
    pub max_body_bytes: u64,
    /// Redirects that are followed; see [`redirect`].
    pub redirects: u32,
    /// `User-Agent` instead of the configured one.
    pub user_agent: Option<&'a str>,
    /// Further fields, each one that [`field::check`] takes. They replace fields of the same name
    /// that would be sent anyway.
    pub headers: &'a [(String, String)],
    /// The page as it is known, to be asked about instead of fetched again.
    pub known: Option<Known<'a>>,
    /// Whether robots.txt is asked first (RFC 9309): `robots_disallowed`, and its `Crawl-delay`.
    pub robots: bool,
    /// JSON that is sent by `POST` instead of a `GET`. It must be of a kind that may be sent twice, as a
    /// `GET` may (RFC 9110 §9.2.2).
    pub post: Option<&'a [u8]>,
    /// For whom, where something is shared out among those who fetch: a number of the stream.
    pub owner: u64,
}

/// What is fetched.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    /// A page.
    Page,
    /// A robots.txt: of any type, without a turn of its own, and only its start if it is long.
    Robots,
    /// A file beside the pages: of any type.
    File,
    /// A call of the operator's service: of any type, without a turn or a robots.txt.
    Call,
}

/// A fetched page.
#[derive(Debug, Clone)]
pub struct Fetched {
    /// The URL that answered, normalised, after all redirects.
    pub final_url: String,
    /// The origin's status, whatever it is.
    pub status: u16,
    /// `type/subtype` in lower case: the origin's, or what the first bytes show if it sent none.
    pub content_type: String,
    /// The `charset` parameter of its `Content-Type`, as written.
    pub charset: Option<String>,
    /// The body without content codings, in its own charset; of a page that is longer than
    /// [`FetchConfig::page_bytes_kept`] its beginning. Empty for an answer other than 2xx whose type is
    /// no page's.
    pub body: Vec<u8>,
    /// Bytes of the whole body.
    pub body_bytes: u64,
    /// Bytes of HTTP received, over all hops: heads, framing and encoded bodies, without TLS's own.
    pub wire_bytes: u64,
    /// Time in [`Stage::Dns`] to [`Stage::Body`], summed over all hops.
    pub timings: Timings,
    /// Redirects followed.
    pub redirects: usize,
    /// `ETag`, for revalidation (RFC 9110 §8.8.3).
    pub etag: Option<String>,
    /// `Last-Modified` (RFC 9110 §8.8.2).
    pub last_modified: Option<String>,
    /// `Retry-After` (RFC 9110 §10.2.3).
    pub retry_after: Option<String>,
    /// What a cache goes by.
    pub caching: Caching,
    /// `X-Robots-Tag`, each field by itself; see [`robots_tag`].
    pub robots_tag: Vec<Vec<u8>>,
    /// Whether the origin says that [`FetchRequest::known`] still holds; then there is no body.
    pub not_modified: bool,
}

/// Why there is no page, and how far it came.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FetchFailure {
    /// Code, stage and sentence.
    pub error: PageError,
    /// The last status that an origin answered; 0 if none did.
    pub status: u16,
    /// The URL of the hop that failed.
    pub final_url: String,
    /// As [`Fetched::wire_bytes`].
    pub wire_bytes: u64,
    /// As [`Fetched::timings`].
    pub timings: Timings,
}

/// Counts since the core started; read on the core.
#[derive(Debug, Default)]
pub struct FetchStats {
    /// Fetches that ended with a page.
    pub fetched: Cell<u64>,
    /// Fetches that ended with an error.
    pub failed: Cell<u64>,
    /// Fetches whose future was dropped.
    pub dropped: Cell<u64>,
    /// Connections opened.
    pub opened: Cell<u64>,
    /// Exchanges on a pooled connection.
    pub reused: Cell<u64>,
    /// Pooled connections found closed before they were used.
    pub found_closed: Cell<u64>,
    /// Exchanges made again because a pooled connection was closed under them.
    pub retried: Cell<u64>,
    /// Redirects followed.
    pub redirects: Cell<u64>,
    /// Destinations that the guard refused.
    pub refused: Cell<u64>,
    /// Those, by the reason's place in [`Reason::ALL`].
    pub refused_by: [Cell<u64>; Reason::ALL.len()],
    /// Bytes of HTTP received.
    pub wire_bytes: Cell<u64>,
    /// Bytes of bodies after decoding.
    pub body_bytes: Cell<u64>,
}

pub(crate) fn count(counter: &Cell<u64>, more: u64) {
    counter.set(counter.get() + more);
}

/// Fetches for one core.
pub struct Fetcher {
    shared: Arc<FetchShared>,
    resolver: Resolver,
    pool: Rc<RefCell<Pool<Connection>>>,
    sweeping: Rc<Cell<bool>>,
    links: Rc<Links>,
    waiters: Waiters,
    me: Weak<Self>,
    stats: FetchStats,
}

impl Fetcher {
    /// A fetcher with an empty pool, for the core that calls it.
    #[must_use]
    pub fn new(shared: Arc<FetchShared>, resolver: Resolver) -> Rc<Self> {
        let pool = Rc::new(RefCell::new(Pool::new(shared.config.pool)));
        let links = Links::new(shared.config.pool);
        let (sweeping, stats, waiters) = (Rc::default(), FetchStats::default(), Waiters::new());
        let make = |me: &Weak<Self>| {
            let me = me.clone();
            Self { shared, resolver, pool, sweeping, links, waiters, me, stats }
        };
        Rc::new_cyclic(make)
    }

    /// Fetches a page. Dropping the future closes its connection.
    ///
    /// # Errors
    /// [`FetchFailure`]; an origin's 4xx or 5xx is none.
    pub async fn fetch(&self, request: &FetchRequest<'_>) -> Result<Fetched, FetchFailure> {
        self.fetch_as(request, Kind::Page).await
    }

    /// Fetches a file of any type, with all that a page's fetch owes its host.
    ///
    /// # Errors
    /// As [`Fetcher::fetch`].
    pub async fn fetch_file(&self, request: &FetchRequest<'_>) -> Result<Fetched, FetchFailure> {
        self.fetch_as(request, Kind::File).await
    }

    /// Calls the operator's service. Its host and port may be in a network that pages are not fetched
    /// from; `egress.deny` still holds. No redirect is followed, so that no credentials travel on.
    ///
    /// # Errors
    /// As [`Fetcher::fetch`]; an answer of any type and status is none.
    pub async fn call(&self, request: &FetchRequest<'_>) -> Result<Fetched, FetchFailure> {
        let request = FetchRequest { redirects: 0, robots: false, known: None, ..*request };
        self.fetch_as(&request, Kind::Call).await
    }

    async fn fetch_as(
        &self,
        request: &FetchRequest<'_>,
        kind: Kind,
    ) -> Result<Fetched, FetchFailure> {
        let track = Track::new(request, &self.stats);
        let run = Box::pin(self.run(request, kind, &track));
        let outcome = match uring::time::timeout_at(request.deadline, run).await {
            Ok(outcome) => outcome,
            Err(_) => {
                let message = "the page took longer than the time given to it";
                Err(PageError::new(PageCode::UrlTimeout, track.stage(), message))
            }
        };
        track.finish(outcome)
    }

    /// Counts since the core started.
    #[must_use]
    pub const fn stats(&self) -> &FetchStats {
        &self.stats
    }

    /// Idle connections in the pool.
    #[must_use]
    pub fn idle_connections(&self) -> usize {
        self.pool.borrow().len() + self.links.idle()
    }

    /// Closes all idle connections: the server drains.
    pub fn close_idle(&self) {
        self.pool.borrow_mut().clear();
        self.links.clear();
    }

    async fn run(
        &self,
        request: &FetchRequest<'_>,
        kind: Kind,
        track: &Track<'_>,
    ) -> Result<Fetched, PageError> {
        let mut target = Target::parse(request.url).map_err(|error| {
            PageError::new(PageCode::BlockedEgress, Stage::Dns, error.to_string())
        })?;
        let downgrade = self.shared.config.redirect_downgrade;
        let mut redirects = Redirects::new(&target, request.redirects, downgrade);
        loop {
            track.start_hop(&target);
            match self.hop((request, kind), &target, &mut redirects, track).await? {
                exchange::Hop::Answer(fetched) => return Ok(*fetched),
                exchange::Hop::Redirect(next) => target = *next,
            }
            count(&self.stats.redirects, 1);
        }
    }
}
