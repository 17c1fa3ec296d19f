//! Every setting once: name, type, unit, default, bounds and doc. Flags, `FOREBAY_*` variables, the
//! TOML file, `--help`, `forebay check` and the README's table all come from [`SETTINGS`].
//!
//! A setting `egress.allow` is `--egress-allow`, `FOREBAY_EGRESS_ALLOW`, and `allow` under
//! `[egress]`; `server.cores` is `--cores`, `FOREBAY_CORES`, and `cores` under `[server]`. Flags win over variables, variables over the file, the file over the default.

pub mod effective;
mod live;
mod load;
pub mod reload;
mod value;
mod wrong;

pub use live::{Change, Live};
pub use load::{Loaded, Problem, Source, Sources, load, load_partly, load_traced, table_markdown};
pub use value::{Deflate, MemoryLimit, Names, Roots, SearchProvider, Secret, Value};
pub use wrong::Wrong;

use crate::observe::logging::{self, LogFormat};
use crate::observe::span::Ratio;
use crate::proto::forwarded::ForwardedField;
use std::net::SocketAddr;
use std::time::Duration;
use uring::lane::Class;
use uring::probe::Runtime;
use uring::ring::BufferConfig;

/// What is known of a setting beside its value.
#[derive(Debug, Clone, Copy)]
pub struct Setting {
    /// Dotted name, as in `egress.allow`.
    pub name: &'static str,
    /// What it does, in a sentence or two.
    pub doc: &'static str,
    /// What a value looks like.
    pub expected: &'static str,
    /// Inclusive bounds of a number.
    pub bounds: Option<(u64, u64)>,
    /// Whether the value is never shown.
    pub secret: bool,
    /// `reloadable`, or nothing.
    marks: &'static [&'static str],
}

impl Setting {
    /// Whether a running server takes a new value; the others need a restart.
    #[must_use]
    pub fn reloadable(&self) -> bool {
        self.marks.contains(&"reloadable")
    }

    /// What its number counts, by the end of its name.
    #[must_use]
    pub fn unit(&self) -> Option<&'static str> {
        let name = self.name.trim_end_matches("_max").trim_end_matches("_min");
        let units = [
            ("_ms", "ms"),
            ("_s", "s"),
            ("bytes", "bytes"),
            ("_percent", "%"),
            ("_per_min", "per minute"),
        ];
        let bounded = self.bounds.is_some();
        let fits = |(end, _): &&(&str, &str)| name.ends_with(end) || self.name.ends_with(end);
        units.iter().find(fits).filter(|_| bounded).map(|(_, unit)| *unit)
    }

    /// The environment variable that sets it.
    #[must_use]
    pub fn variable(&self) -> String {
        format!("FOREBAY_{}", self.short().replace('.', "_").to_uppercase())
    }

    /// The flag that sets it, without the two dashes.
    #[must_use]
    pub fn flag(&self) -> String {
        self.short().replace(['.', '_'], "-")
    }

    /// The name without the section that most settings of a server are in.
    fn short(&self) -> &'static str {
        self.name.strip_prefix("server.").unwrap_or(self.name)
    }
}

macro_rules! bounds {
    () => {
        None
    };
    ($min:literal, $max:expr) => {
        Some(($min, $max as u64))
    };
}

macro_rules! settings {
    ($( $(#[doc = $doc:literal])+ $name:literal $field:ident: $ty:ty = $default:expr $(, $min:literal..=$max:expr)? $(, $mark:ident)*; )+) => {
        /// The whole configuration, validated: every value is within its setting's bounds.
        #[derive(Debug, Clone, PartialEq)]
        pub struct Config {
            $( $(#[doc = $doc])+ pub $field: $ty, )+
        }

        impl Default for Config {
            fn default() -> Self {
                Self { $( $field: $default, )+ }
            }
        }

        /// Every setting, in the order of the README's table.
        pub static SETTINGS: &[Setting] = &[ $( Setting {
            name: $name,
            doc: concat!($($doc),+),
            expected: <$ty as Value>::EXPECTED,
            bounds: bounds!($($min, $max)?),
            secret: <$ty as Value>::SECRET,
            marks: &[$(stringify!($mark)),*],
        }, )+ ];

        impl Config {
            /// Sets one value from text; the error says what was expected.
            ///
            /// # Errors
            /// An unknown name, a value of another type, or one out of bounds.
            pub fn set(&mut self, name: &str, text: &str) -> Result<(), String> {
                match name {
                    $( $name => self.$field = value::parse(text, bounds!($($min, $max)?))?, )+
                    _ => return Err(format!("no setting has the name {name}")),
                }
                Ok(())
            }

            /// One value as text that [`Config::set`] takes; a secret, too, as it is. Who shows settings to
            /// somebody takes [`Config::shown`].
            #[must_use]
            pub fn show(&self, name: &str) -> Option<String> {
                match name {
                    $( $name => Some(self.$field.show()), )+
                    _ => None,
                }
            }
        }
    };
}

settings! {
    /// Address and port that the server listens on; port 0 picks a free one.
    "server.listen" listen: SocketAddr = SocketAddr::from(([127, 0, 0, 1], 8080));
    /// Event loops, one pinned to each CPU; 0 means one for every CPU that this process may use.
    "server.cores" cores: usize = 0, 0..=256;
    /// How loops wait: io_uring, epoll, or auto (io_uring where the kernel allows it).
    "server.runtime" runtime: Runtime = Runtime::Auto;
    /// Entries of each loop's submission queue.
    "server.ring_entries" ring_entries: u32 = 1024, 64..=32768;
    /// Open client connections of the whole process; above it new ones are answered 503 and closed.
    "server.connections_max" connections_max: usize = 20_000, 1..=1_000_000, reloadable;
    /// Milliseconds for a request head, from its first byte (or the accept) to its last.
    "server.head_timeout_ms" head_timeout_ms: u64 = 10_000, 10..=600_000, reloadable;
    /// Milliseconds for a request body to arrive whole.
    "server.body_timeout_ms" body_timeout_ms: u64 = 30_000, 10..=600_000, reloadable;
    /// Milliseconds that a keep-alive connection may wait for its next request.
    "server.idle_timeout_ms" idle_timeout_ms: u64 = 75_000, 10..=3_600_000, reloadable;
    /// Milliseconds that a client may refuse to take bytes of an answer that is no stream.
    "server.write_stall_ms" write_stall_ms: u64 = 30_000, 10..=600_000, reloadable;
    /// Bytes of a JSON request body.
    "server.body_bytes_max" body_bytes_max: usize = 4 * 1024 * 1024, 1024..=67_108_864, reloadable;
    /// Seconds that streams may still run after SIGTERM before they are ended.
    "server.drain_timeout_s" drain_timeout_s: u64 = 30, 0..=3600, reloadable;
    /// Bytes of pooled I/O buffers per loop; above it buffers are allocated one by one.
    "server.arena_bytes_max" arena_bytes_max: usize = 256 * 1024 * 1024, 1_048_576..=68_719_476_736u64;

    /// Addresses and networks of proxies that may say who a client is.
    "server.trusted_proxies" trusted_proxies: Vec<String> = Vec::new();
    /// Field in which those proxies say it: x_forwarded_for, or forwarded (RFC 7239).
    "server.forwarded_field" forwarded_field: ForwardedField = ForwardedField::XForwardedFor;
    /// Whether those proxies begin each connection with a PROXY protocol header, version 1 or 2.
    "server.proxy_protocol" proxy_protocol: bool = false;
    /// Names that requests may call the server by (in `Host`) while it is open, beside localhost and plain
    /// addresses; `*` for any, which lets every web page that a user opens drive it.
    "server.hosts" hosts: Vec<String> = Vec::new();

    /// TOML file of API keys (`forebay key new` writes its entries); read again on SIGHUP. Without it
    /// the server is open.
    "auth.keys_file" auth_keys_file: Option<std::path::PathBuf> = None;
    /// Whether a server without keys may listen on other addresses than loopback.
    "auth.open" auth_open: bool = false;
    /// Wrong keys that one address may send a minute before it is answered 429; 0 for no limit.
    "auth.failures_per_min" auth_failures_per_min: u32 = 30, 0..=1_000_000;

    /// Requests a minute of one client address (IPv6: of one /64); 0 for no limit.
    "limits.address_requests_per_min" address_requests_per_min: u32 = 0, 0..=10_000_000;
    /// Requests at a time of one client address; 0 for no limit.
    "limits.address_concurrency" address_concurrency: usize = 0, 0..=1_000_000;
    /// Connections of one client address; 0 means a quarter of server.connections_max, and no limit
    /// for loopback.
    "limits.address_connections" address_connections: usize = 0, 0..=1_000_000;
    /// Requests a minute of one key; 0 for no limit. A key's entry in the keys file may say otherwise,
    /// here and below.
    "limits.key_requests_per_min" key_requests_per_min: u32 = 0, 0..=10_000_000, reloadable;
    /// URLs a minute of one key; 0 for no limit.
    "limits.key_urls_per_min" key_urls_per_min: u32 = 0, 0..=100_000_000, reloadable;
    /// Bytes of answers a minute of one key; 0 for no limit.
    "limits.key_bytes_per_min" key_bytes_per_min: u64 = 0, 0..=1_099_511_627_776u64, reloadable;
    /// Requests at a time of one key; 0 for no limit.
    "limits.key_concurrency" key_concurrency: usize = 0, 0..=1_000_000, reloadable;
    /// Streams at a time of one key; 0 for no limit.
    "limits.key_streams" key_streams: usize = 0, 0..=1_000_000, reloadable;
    /// Connections at a time of one key; 0 for no limit.
    "limits.key_connections" key_connections: usize = 0, 0..=1_000_000, reloadable;
    /// Resident bytes of the process above which new crawls and extractions are answered 503: auto (four
    /// fifths of what the machine or this process' control group has), a number, or 0 for no limit.
    "limits.memory_bytes_max" memory_bytes_max: MemoryLimit = MemoryLimit::Auto, 0..=1_099_511_627_776u64;

    /// Origins of web pages that may use the server from a browser, or `*`.
    "cors.origins" cors_origins: Vec<String> = Vec::new();

    /// PEM file with the listener's certificate chain; read again on SIGHUP. With it the server speaks
    /// TLS only.
    "tls.cert" tls_cert: Option<std::path::PathBuf> = None;
    /// PEM file with the certificate's private key.
    "tls.key" tls_key: Option<std::path::PathBuf> = None;
    /// Milliseconds for a client's TLS handshake.
    "tls.handshake_timeout_ms" tls_handshake_timeout_ms: u64 = 10_000, 10..=600_000, reloadable;

    /// File for one JSON line per request: who, what, from where, what came of it; `-` for standard
    /// error.
    "audit.file" audit_file: Option<std::path::PathBuf> = None;

    /// URLs of one stream.
    "stream.urls_max" urls_max: usize = 1000, 1..=crate::limits::URLS_PER_STREAM_MAX, reloadable;
    /// Streams of the whole process that may run at once; above it 503 overloaded.
    "stream.streams_max" streams_max: usize = 10_000, 1..=1_000_000, reloadable;
    /// Bytes of durable events kept for replay, per stream; also the most that may wait for a slow
    /// client before the stream's crawl pauses.
    "stream.replay_bytes_max" replay_bytes_max: usize = 8 * 1024 * 1024, 65_536..=1_073_741_824;
    /// Bytes of events of all streams together; above it new streams are answered 503 overloaded.
    "stream.bytes_max" stream_bytes_max: usize = 1024 * 1024 * 1024, 1_048_576..=1_099_511_627_776u64, reloadable;
    /// Ended streams that are kept for replay within their resume window; the oldest go first.
    "stream.kept_max" streams_kept_max: usize = 4096, 1..=1_000_000, reloadable;
    /// Milliseconds between heartbeats of a stream (NDJSON events, SSE comments).
    "stream.heartbeat_ms" heartbeat_ms: u64 = 15_000, 10..=300_000, reloadable;

    /// Frames that a connection's ring holds at least, however slow its reader.
    "buffer.frames_min" buffer_frames_min: usize = 64, 1..=65_536, reloadable;
    /// Frames that a connection's ring holds at first.
    "buffer.frames_start" buffer_frames_start: usize = 256, 1..=65_536, reloadable;
    /// Frames that a connection's ring holds at most.
    "buffer.frames_max" buffer_frames_max: usize = 2048, 1..=65_536, reloadable;
    /// Bytes that a connection's ring holds at most.
    "buffer.bytes_max" buffer_bytes_max: usize = 1024 * 1024, 65_536..=1_073_741_824, reloadable;
    /// Percent of its size that a full ring with a fast reader grows to.
    "buffer.growth_percent" buffer_growth_percent: usize = 150, 101..=1000, reloadable;
    /// Percent of its size that a ring shrinks to when sends are slow.
    "buffer.shrink_percent" buffer_shrink_percent: usize = 75, 1..=99, reloadable;
    /// Sends that the ring's size is judged by.
    "buffer.window_sends" buffer_window_sends: u32 = 50, 1..=64, reloadable;
    /// Milliseconds above which a send counts as slow.
    "buffer.slow_send_ms" buffer_slow_send_ms: u64 = 100, 1..=60_000, reloadable;
    /// Slow sends within the window before the ring shrinks.
    "buffer.slow_sends_max" buffer_slow_sends_max: u32 = 10, 0..=63, reloadable;

    /// Streams that one WebSocket may carry at once.
    "ws.streams_max" ws_streams_max: usize = 64, 1..=crate::limits::WS_STREAMS_MAX, reloadable;
    /// Bytes of one WebSocket message from a client, before and after inflating; above it close code 1009.
    "ws.message_bytes_max" ws_message_bytes_max: usize = crate::limits::WS_MESSAGE_BYTES_MAX, 1024..=crate::limits::WS_MESSAGE_BYTES_MAX, reloadable;
    /// Fragments of one WebSocket message from a client; above it close code 1009.
    "ws.fragments_max" ws_fragments_max: usize = crate::limits::WS_FRAGMENTS_MAX, 1..=crate::limits::WS_FRAGMENTS_MAX, reloadable;
    /// Milliseconds between pings on a WebSocket; a client silent for two of them is cut.
    "ws.ping_interval_ms" ws_ping_interval_ms: u64 = 30_000, 10..=3_600_000, reloadable;
    /// Milliseconds for a client to finish the closing handshake, and then to close its connection.
    "ws.close_timeout_ms" ws_close_timeout_ms: u64 = 5_000, 10..=60_000, reloadable;
    /// Whether permessage-deflate is agreed to: off, message (each message by itself, no memory while idle) or takeover (better ratio, about 330 KiB per connection).
    "ws.deflate" ws_deflate: Deflate = Deflate::Message, reloadable;
    /// zlib level of messages that are compressed.
    "ws.deflate_level" ws_deflate_level: u16 = 1, 1..=9, reloadable;
    /// Bytes of the smallest message that is compressed.
    "ws.deflate_bytes_min" ws_deflate_bytes_min: usize = 1024, 1..=16_777_216, reloadable;
    /// Bytes of the largest message that is compressed; a larger one would hold up the loop, and its document goes out as it lies in memory.
    "ws.deflate_bytes_max" ws_deflate_bytes_max: usize = 32 * 1024, 1..=16_777_216, reloadable;

    /// Milliseconds for one name to resolve.
    "fetch.dns_timeout_ms" dns_timeout_ms: u64 = 5_000, 1..=60_000;
    /// Milliseconds for one TCP connect.
    "fetch.connect_timeout_ms" connect_timeout_ms: u64 = 5_000, 1..=60_000;
    /// Milliseconds for one TLS handshake.
    "fetch.tls_timeout_ms" tls_timeout_ms: u64 = 5_000, 1..=60_000;
    /// Milliseconds from the request to the end of the response head.
    "fetch.ttfb_timeout_ms" ttfb_timeout_ms: u64 = 10_000, 1..=600_000;
    /// Milliseconds that a response body may stand still.
    "fetch.body_idle_timeout_ms" body_idle_timeout_ms: u64 = 10_000, 1..=600_000;
    /// Idle connections kept for one origin, per loop.
    "fetch.pool_per_origin" pool_per_origin: usize = 8, 0..=1024;
    /// Idle connections kept for all origins, per loop.
    "fetch.pool_max" pool_max: usize = 256, 0..=65_536;
    /// Milliseconds that an idle connection to an origin is kept.
    "fetch.pool_idle_ms" pool_idle_ms: u64 = 30_000, 0..=3_600_000;
    /// User-Agent of fetches; `options.user_agent` overrides it.
    "fetch.user_agent" user_agent: String = concat!("Forebay/", env!("CARGO_PKG_VERSION")).to_owned();
    /// Trusted roots for https: webpki (Mozilla's list, built in) or platform (the system's).
    "fetch.roots" roots: Roots = Roots::Webpki;
    /// PEM file with further trusted roots, for private certificate authorities.
    "fetch.extra_ca" extra_ca: Option<std::path::PathBuf> = None;
    /// Whether https origins may choose HTTP/2.
    "fetch.http2" http2: bool = true;
    /// Requests of the whole process that may be under way to one host and port; more wait.
    "fetch.host_concurrency" host_concurrency: u32 = 64, 1..=65_536;
    /// Requests of the whole process that may be under way to one address, by whatever names; more wait.
    "fetch.address_concurrency" fetch_address_concurrency: u32 = 256, 1..=65_536;
    /// Requests of the whole process that may be under way to all hosts; more wait. Never more than a
    /// quarter of the descriptors that the process may open.
    "fetch.concurrency_max" fetch_concurrency_max: u32 = 4096, 1..=1_000_000;
    /// Milliseconds between the starts of two requests to one host and port; its Crawl-delay counts
    /// where that is longer and robots.txt is respected.
    "fetch.host_interval_ms" host_interval_ms: u64 = 0, 0..=3_600_000;

    /// Bytes of extracted pages kept in memory; 0: no cache and no single flight.
    "cache.bytes_max" cache_bytes_max: u64 = 256 * 1024 * 1024, 0..=1_099_511_627_776u64;
    /// Seconds that a page (2xx) may be used; a request's max_age_s can only lower it. 0, here and below: never.
    "cache.ttl_s" cache_ttl_s: u64 = 86_400, 0..=31_536_000;
    /// Seconds that a redirect which was not followed may be used; also the most for a page that redirects led to.
    "cache.ttl_redirect_s" cache_ttl_redirect_s: u64 = 3_600, 0..=31_536_000;
    /// Seconds that an answer of 4xx may be used.
    "cache.ttl_4xx_s" cache_ttl_4xx_s: u64 = 60, 0..=31_536_000;
    /// Seconds that an answer of 5xx may be used.
    "cache.ttl_5xx_s" cache_ttl_5xx_s: u64 = 10, 0..=31_536_000;
    /// Seconds that a failure (no connection, no document) may be used.
    "cache.ttl_error_s" cache_ttl_error_s: u64 = 5, 0..=31_536_000;

    /// URLs of one job.
    "jobs.urls_max" jobs_urls_max: usize = 20_000, 1..=crate::limits::URLS_PER_JOB_MAX, reloadable;
    /// Bytes of the body of `POST /jobs`.
    "jobs.body_bytes_max" jobs_body_bytes_max: usize = 16 * 1024 * 1024, 1024..=268_435_456, reloadable;
    /// Jobs that are known at a time: in memory ended ones too, until their retention is over; in Redis
    /// those that have not ended. Above it 503 overloaded.
    "jobs.kept_max" jobs_kept_max: usize = 1000, 1..=100_000, reloadable;
    /// Jobs of one key that have not ended; 0 for no limit.
    "jobs.key_max" jobs_key_max: usize = 100, 0..=100_000, reloadable;
    /// URLs of all jobs in this process' memory.
    "jobs.urls_total_max" jobs_urls_total_max: usize = 1_000_000, 1..=100_000_000, reloadable;
    /// Jobs in this process' memory that fetch at a time; more wait their turn.
    "jobs.running_max" jobs_running_max: usize = 4, 1..=1000, reloadable;
    /// Pages of jobs that are under way at a time, per loop: what is left for streams.
    "jobs.concurrency" jobs_concurrency: u32 = 8, 1..=crate::limits::CONCURRENCY_MAX;
    /// Bytes of results, of all jobs in memory together, or of one job in Redis; above it they fetch
    /// nothing more until there is room.
    "jobs.bytes_max" jobs_bytes_max: usize = 1024 * 1024 * 1024, 65_536..=1_099_511_627_776u64, reloadable;
    /// Seconds that a job may take; its deadline_ms can only lower it.
    "jobs.deadline_s" jobs_deadline_s: u64 = 86_400, 1..=crate::limits::JOB_DEADLINE_S_MAX;
    /// Seconds that a job's results are kept after its end.
    "jobs.retention_s" jobs_retention_s: u64 = 3_600, 1..=2_592_000, reloadable;
    /// Seconds after which the URLs of a node that says nothing any more are taken over by others.
    "jobs.takeover_s" jobs_takeover_s: u64 = 30, 1..=3_600;
    /// Milliseconds for one attempt to deliver a webhook.
    "jobs.webhook_timeout_ms" jobs_webhook_timeout_ms: u64 = 10_000, 100..=60_000, reloadable;
    /// Attempts to deliver a webhook.
    "jobs.webhook_attempts_max" jobs_webhook_attempts_max: u32 = 8, 1..=32, reloadable;
    /// Milliseconds from the first attempt to the second; each further pause is twice as long, up to
    /// five minutes.
    "jobs.webhook_backoff_ms" jobs_webhook_backoff_ms: u64 = 1_000, 10..=300_000, reloadable;

    /// The Redis that nodes share: `redis://[user:password@]host:port/db`, `rediss://`, `unix://`,
    /// `redis+sentinel://host:port,…/name`, `redis+cluster://host:port,…`. Without it nothing is shared.
    "redis.url" redis_url: Secret = Secret::default();
    /// PEM file with the authorities that `rediss://` trusts; without it the system's.
    "redis.ca" redis_ca: Option<std::path::PathBuf> = None;
    /// What all keys begin with; nodes with the same prefix share everything.
    "redis.prefix" redis_prefix: String = "forebay".to_owned();
    /// Milliseconds that a page waits for Redis before it is fetched; an answer that takes longer speaks
    /// against Redis.
    "redis.lookup_timeout_ms" redis_lookup_timeout_ms: u64 = 50, 1..=10_000;
    /// Milliseconds for any answer of Redis.
    "redis.timeout_ms" redis_timeout_ms: u64 = 1_000, 1..=60_000;
    /// Milliseconds to connect to Redis.
    "redis.connect_timeout_ms" redis_connect_timeout_ms: u64 = 2_000, 1..=60_000;
    /// Milliseconds that a page waits for another node which is fetching it, before it is fetched here
    /// as well; 0: nodes don't wait for each other.
    "redis.flight_ms" redis_flight_ms: u64 = 3_000, 0..=60_000;
    /// Bytes of the largest page that is kept in Redis, before it is compressed.
    "redis.value_bytes_max" redis_value_bytes_max: usize = 4 * 1024 * 1024, 1024..=67_108_864;

    /// Addresses, CIDR ranges, hosts or `.suffixes` that may be fetched although they are not public.
    "egress.allow" egress_allow: Vec<String> = Vec::new();
    /// Addresses, CIDR ranges, hosts or `.suffixes` that are never fetched.
    "egress.deny" egress_deny: Vec<String> = Vec::new();
    /// Prefixes that this network's NAT64 (or DNS64) makes IPv4 addresses of, as `2001:db8:64::/96`: the
    /// address inside is what counts. Any that is not named here and looks public passes as public.
    "egress.nat64" egress_nat64: Vec<String> = Vec::new();
    /// Ports that may be fetched.
    "egress.ports" egress_ports: Vec<u16> = vec![80, 443, 8080, 8443];
    /// Proxy that all fetches go through: `http://[user:password@]host:port` or `socks5://…`.
    "egress.proxy" egress_proxy: Secret = Secret::default();
    /// Who resolves names where there is a proxy: local (the address guard sees every address) or
    /// remote (the proxy does, and has to guard its own network).
    "egress.proxy_dns" egress_proxy_dns: Names = Names::Local;

    /// Where deepsearch finds its hits: local (an index of the pages that this server has extracted),
    /// searxng, serper, brave, or off.
    "search.provider" search_provider: SearchProvider = SearchProvider::Local;
    /// Address of the provider: needed for searxng, otherwise its public one. It may be in a private
    /// network: this one host and port needs no egress.allow.
    "search.url" search_url: String = String::new();
    /// The provider's API key.
    "search.key" search_key: Secret = Secret::default();
    /// Milliseconds for one search.
    "search.timeout_ms" search_timeout_ms: u64 = 10_000, 1..=60_000;
    /// Queries a minute to a provider on the network, of the whole process; 0 for no limit.
    "search.queries_per_min" search_queries_per_min: u32 = 0, 0..=1_000_000;
    /// Bytes of the local index; 0: none is kept.
    "search.index_bytes_max" search_index_bytes_max: u64 = 256 * 1024 * 1024, 0..=1_099_511_627_776u64;
    /// Folder of the local index; in memory where none is named.
    "search.index_dir" search_index_dir: Option<std::path::PathBuf> = None;
    /// Whether a key finds pages that other keys have fetched.
    "search.shared" search_shared: bool = false;

    /// Bytes of HTML handed to the extractor; the rest of a longer page is cut off.
    "extract.html_bytes_max" html_bytes_max: usize = 2 * 1024 * 1024, 1024..=crate::limits::HTML_BYTES_MAX;
    /// Bytes of a document handed to `POST /extract`.
    "extract.body_bytes_max" extract_body_bytes_max: usize = 16 * 1024 * 1024, 1024..=crate::limits::BODY_BYTES_MAX, reloadable;
    /// Milliseconds of CPU time for one page.
    "extract.cpu_ms" extract_cpu_ms: u64 = 1_000, 10..=60_000;
    /// Pages that may wait for a core's lane; above it `POST /extract` is 503 to a client with one waiting there.
    "extract.queue_max" extract_queue_max: usize = 256, 1..=65_536;
    /// Scheduling class of the lanes: nice19, batch, idle or normal.
    "extract.lane_class" lane_class: Class = Class::Nice19;
    /// WebAssembly module with the extractor's ABI, in place of the built-in one.
    "extract.module" extract_module: Option<std::path::PathBuf> = None;

    /// OpenTelemetry collector that traces and metrics are exported to by OTLP/HTTP (http/protobuf), as
    /// `http://127.0.0.1:4318`; `/v1/traces` and `/v1/metrics` are put behind it. Without it nothing is.
    "otlp.endpoint" otlp_endpoint: String = String::new();
    /// Fields of those requests, as `name=value,name=value`.
    "otlp.headers" otlp_headers: Secret = Secret::default();
    /// Milliseconds between two exports.
    "otlp.interval_ms" otlp_interval_ms: u64 = 10_000, 50..=3_600_000;
    /// Milliseconds for one export.
    "otlp.timeout_ms" otlp_timeout_ms: u64 = 10_000, 10..=60_000;
    /// Part of all requests that are traced, 0 to 1, of those whose client says nothing; a `traceparent`
    /// that says yes or no is obeyed.
    "otlp.traces_ratio" otlp_traces_ratio: Ratio = Ratio::ALL;
    /// Whether metrics are exported.
    "otlp.metrics" otlp_metrics: bool = true;
    /// What this server is called there.
    "otlp.service_name" otlp_service_name: String = "forebay".to_owned();

    /// Log lines for people (human) or machines (json).
    "log.format" log_format: LogFormat = LogFormat::Human;
    /// Milliseconds to a request's first byte above which a warning says which stages made it; 0 for none.
    "log.ttfb_warn_ms" ttfb_warn_ms: u64 = 500, 0..=600_000, reloadable;
    /// Which log lines, in RUST_LOG's syntax.
    "log.level" log_level: String = "info".to_owned(), reloadable;
}

impl Config {
    /// What no single bound can say: relations between settings, and texts of a form. Empty where all
    /// of it holds.
    #[must_use]
    pub fn validate(&self) -> Vec<Wrong> {
        let mut wrong = self.validate_ring();
        if self.replay_bytes_max > self.stream_bytes_max {
            wrong.push(Wrong::together(
                &["stream.replay_bytes_max", "stream.bytes_max"],
                format_args!(
                    "stream.replay_bytes_max is {}, and must be at most stream.bytes_max, {}",
                    self.replay_bytes_max, self.stream_bytes_max
                ),
            ));
        }
        if let Err(error) = logging::check(&self.log_level) {
            wrong.push(Wrong::new("log.level", error));
        }
        // It goes into a header field as it is.
        if !self.search_key.reveal().bytes().all(|byte| byte.is_ascii_graphic()) {
            wrong.push(Wrong::new("search.key", "expected printable ASCII without spaces"));
        }
        let name = self.search_provider.as_str();
        let needs = match self.search_provider {
            SearchProvider::Searxng if self.search_url.is_empty() => Some("search.url"),
            SearchProvider::Serper | SearchProvider::Brave if self.search_key.is_empty() => {
                Some("search.key")
            }
            _ => None,
        };
        if let Some(needs) = needs {
            let message = format!("search.provider = {name} needs {needs}");
            wrong.push(Wrong::together(&["search.provider", needs], message));
        }
        wrong
    }

    /// The ring's relations: those of its frames, and those of its sends.
    fn validate_ring(&self) -> Vec<Wrong> {
        let (ring, good) = (self.ring(), BufferConfig::default());
        let frames = BufferConfig {
            window_sends: good.window_sends,
            slow_sends_max: good.slow_sends_max,
            ..ring.clone()
        };
        let sends = BufferConfig {
            frames_min: good.frames_min,
            frames_start: good.frames_start,
            frames_max: good.frames_max,
            ..ring
        };
        let wrong = |ring: &BufferConfig| {
            let told = ring.validate().err()?.to_string();
            // The sentence names what it is about.
            let about = |setting: &&Setting| {
                setting.name.strip_prefix("buffer.").is_some_and(|name| told.contains(name))
            };
            let names: Vec<_> = SETTINGS.iter().filter(about).map(|setting| setting.name).collect();
            Some(Wrong::together(&names, told.trim_start_matches("buffer settings: ")))
        };
        [frames, sends].iter().filter_map(wrong).collect()
    }

    /// The limits of a connection's backpressure ring.
    #[must_use]
    pub fn ring(&self) -> BufferConfig {
        BufferConfig {
            frames_min: self.buffer_frames_min,
            frames_start: self.buffer_frames_start,
            frames_max: self.buffer_frames_max,
            growth_percent: self.buffer_growth_percent,
            shrink_percent: self.buffer_shrink_percent,
            window_sends: self.buffer_window_sends,
            slow_send: Duration::from_millis(self.buffer_slow_send_ms),
            slow_sends_max: self.buffer_slow_sends_max,
            bytes_max: self.buffer_bytes_max,
            ..BufferConfig::default()
        }
    }
}
