//! What `forebay serve` says when it starts: what it may use, and what is off and why.

use crate::config::reload::Recipe;
use crate::config::{Config, MemoryLimit, SearchProvider};
use crate::limits::{
    GUEST_MEMORY_BYTES_MAX, INDEX_QUEUE_BYTES_MAX, REDIS_PENDING_BYTES_MAX, ROBOTS_CACHE_BYTES_MAX,
};
use crate::server::{Server, listening_address};
use listenfd::ListenFd;
use std::net::TcpListener;

/// Listening sockets that the service manager passed (sd_listen_fds(3)); none without one.
///
/// # Errors
/// One of them is no TCP socket that listens.
pub fn passed_sockets() -> Result<Vec<TcpListener>, String> {
    let mut passed = ListenFd::from_env();
    let mut sockets = Vec::with_capacity(passed.len());
    for at in 0..passed.len() {
        let socket = passed.take_tcp_listener(at);
        match socket.map_err(|error| format!("the passed socket {at}: {error}"))? {
            Some(socket) => sockets.push(socket),
            None => return Err(format!("the passed socket {at} is taken already")),
        }
    }
    Ok(sockets)
}

/// The recipe of a server that listens on what was passed, if anything was, and those sockets.
///
/// # Errors
/// As [`passed_sockets`].
pub fn recipe(recipe: Recipe) -> Result<(Recipe, Vec<TcpListener>), String> {
    let sockets = passed_sockets()?;
    if sockets.is_empty() {
        return Ok((recipe, sockets));
    }
    let unset = Config::default().listen;
    let listen = listening_address(unset, &sockets, sockets.len());
    let listen = listen.map_err(|error| error.to_string())?;
    Ok((Recipe { listen: Some(listen), ..recipe }, sockets))
}

/// Bytes that each part may take at most, for so many cores; memory in proportion to use is less. What
/// one request or one message may take comes out of these: a body out of the arenas, a page out of the
/// queues.
#[must_use]
pub fn memory(config: &Config, cores: usize) -> Vec<(&'static str, u64)> {
    let cores = cores as u64;
    let product = |one: u64, other: u64| one.saturating_mul(other);
    let queued = product(config.extract_queue_max as u64, config.html_bytes_max as u64);
    let local = config.search_provider == SearchProvider::Local;
    let index = if local { config.search_index_bytes_max } else { 0 };
    let redis = if config.redis_url.is_empty() { 0 } else { REDIS_PENDING_BYTES_MAX };
    vec![
        ("arenas", product(cores, config.arena_bytes_max as u64)),
        // Most of what they hold is in the streams' logs as well.
        ("rings", product(config.connections_max as u64, config.buffer_bytes_max as u64)),
        ("streams", config.stream_bytes_max as u64),
        ("jobs", config.jobs_bytes_max as u64),
        ("cache", config.cache_bytes_max),
        ("robots", ROBOTS_CACHE_BYTES_MAX as u64),
        ("sandboxes", product(cores, GUEST_MEMORY_BYTES_MAX as u64)),
        ("extraction_queues", product(cores, queued)),
        // On disk it is none of the process' own.
        ("index", if config.search_index_dir.is_some() { 0 } else { index }),
        ("index_queue", if index > 0 { INDEX_QUEUE_BYTES_MAX } else { 0 }),
        ("redis_queue", redis),
    ]
}

/// What is not in use, with the setting that would change it.
#[must_use]
pub fn off(config: &Config) -> Vec<&'static str> {
    let index = config.search_provider == SearchProvider::Local;
    let off = [
        (config.auth_keys_file.is_none(), "keys (auth.keys_file): whoever reaches it may use it"),
        (config.auth_open, "the refusal to listen to everybody without keys (auth.open)"),
        (config.tls_cert.is_none(), "TLS (tls.cert)"),
        (config.cache_bytes_max == 0, "page cache (cache.bytes_max)"),
        (config.redis_url.is_empty(), "what nodes share (redis.url)"),
        (config.search_provider == SearchProvider::Off, "deepsearch (search.provider)"),
        (index && config.search_index_bytes_max == 0, "search index (search.index_bytes_max)"),
        (config.audit_file.is_none(), "audit log (audit.file)"),
        (
            config.memory_bytes_max == MemoryLimit::Bytes(0),
            "memory limit (limits.memory_bytes_max)",
        ),
        (config.address_requests_per_min == 0, "rate limit (limits.address_requests_per_min)"),
        (config.otlp_endpoint.is_empty(), "traces and metrics for a collector (otlp.endpoint)"),
        (config.ttfb_warn_ms == 0, "warnings of slow first bytes (log.ttfb_warn_ms)"),
    ];
    off.into_iter().filter(|(is_off, _)| *is_off).map(|(_, what)| what).collect()
}

/// Logs limits, the memory that they add up to, and what is off.
pub fn tell(server: &Server) {
    let config = server.config();
    let parts = memory(config, server.cores());
    let sum: u64 = parts.iter().fold(0, |sum, (_, bytes)| sum.saturating_add(*bytes));
    let mib = |bytes: u64| bytes >> 20;
    let used = parts.iter().filter(|(_, bytes)| *bytes > 0);
    let memory: Vec<String> = used.map(|(name, bytes)| format!("{name} {}", mib(*bytes))).collect();
    tracing::info!(
        connections = config.connections_max,
        streams = config.streams_max,
        urls_per_stream = config.urls_max,
        memory_resident_mib_max = mib(server.memory_bytes_max()),
        memory_mib = mib(sum),
        memory = memory.join(", "),
        "limits in force"
    );
    let off = off(config).join("; ");
    tracing::info!(sockets_passed = server.sockets(), off, "not in use");
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::SETTINGS;

    /// Bounds of one request, message or stream, which takes its bytes out of a part that is counted, and
    /// the bound of everything.
    const OF_ONE: [&str; 8] = [
        "server.body_bytes_max",
        "limits.memory_bytes_max",
        "stream.replay_bytes_max",
        "ws.message_bytes_max",
        "ws.deflate_bytes_max",
        "jobs.body_bytes_max",
        "redis.value_bytes_max",
        "extract.body_bytes_max",
    ];

    #[test]
    fn every_bound_of_bytes_counts_or_is_part_of_one_that_does() {
        let config = Config { redis_url: "redis://a".into(), ..Config::default() };
        let before = memory(&config, 2);
        assert!(before.iter().all(|(_, bytes)| *bytes > 0), "{before:?}");
        let bytes = SETTINGS.iter().filter(|setting| setting.name.ends_with("bytes_max"));
        for setting in bytes {
            let mut other = config.clone();
            let (least, most) = setting.bounds.expect("bytes have bounds");
            let now = config.show(setting.name).expect("it is a setting");
            let new = if now == least.to_string() { most } else { least };
            other.set(setting.name, &new.to_string()).expect("within its bounds");
            let counts = memory(&other, 2) != before;
            assert_ne!(counts, OF_ONE.contains(&setting.name), "{}", setting.name);
        }
        let missing: Vec<_> = OF_ONE
            .iter()
            .filter(|name| !SETTINGS.iter().any(|setting| setting.name == **name))
            .collect();
        assert_eq!(missing, [&""; 0]);
    }

    #[test]
    fn what_is_off_takes_nothing() {
        let config = Config { search_provider: SearchProvider::Off, ..Config::default() };
        let of = |name: &str, config: &Config| {
            memory(config, 1).iter().find(|(part, _)| *part == name).map(|(_, bytes)| *bytes)
        };
        for part in ["index", "index_queue", "redis_queue"] {
            assert_eq!(of(part, &config), Some(0), "{part}");
        }
        let disk = Config { search_index_dir: Some("index".into()), ..Config::default() };
        assert_eq!(
            (of("index", &disk), of("index_queue", &disk)),
            (Some(0), Some(INDEX_QUEUE_BYTES_MAX))
        );
    }

    #[test]
    fn memory_grows_with_the_cores() {
        let config = Config::default();
        let sum = |cores| memory(&config, cores).iter().map(|(_, bytes)| bytes).sum::<u64>();
        let core = sum(2) - sum(1);
        assert_eq!(sum(3), sum(2) + core);
        assert!(core > config.arena_bytes_max as u64);
    }

    #[test]
    fn what_is_on_is_not_off() {
        let mut config = Config::default();
        assert!(off(&config).iter().any(|what| what.contains("tls.cert")));
        config.tls_cert = Some("cert.pem".into());
        assert!(!off(&config).iter().any(|what| what.contains("tls.cert")));
        let told = |config: &Config, name: &str| off(config).iter().any(|what| what.contains(name));
        assert!(
            told(&config, "redis.url") && !told(&config, "search.") && !told(&config, "auth.open")
        );
        config.redis_url = "redis://a".into();
        config.search_provider = SearchProvider::Off;
        config.auth_open = true;
        assert!(
            !told(&config, "redis.url")
                && told(&config, "search.provider")
                && told(&config, "auth.open")
        );
    }
}
