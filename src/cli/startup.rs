//! What `forebay serve` says when it starts: what it may use, and what is off and why.

use crate::config::Config;
use crate::limits::GUEST_MEMORY_BYTES_MAX;
use crate::server::Server;
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

/// Bytes that each part may take at most, for so many cores; memory in proportion to use is less.
#[must_use]
pub fn memory(config: &Config, cores: usize) -> Vec<(&'static str, u64)> {
    let cores = cores as u64;
    vec![
        ("arenas", cores.saturating_mul(config.arena_bytes_max as u64)),
        ("streams", config.stream_bytes_max as u64),
        ("cache", config.cache_bytes_max),
        ("sandboxes", cores.saturating_mul(GUEST_MEMORY_BYTES_MAX as u64)),
        (
            "extraction_queues",
            cores
                .saturating_mul(config.extract_queue_max as u64)
                .saturating_mul(config.html_bytes_max as u64),
        ),
    ]
}

/// What is not in use, with the setting that would change it.
#[must_use]
pub fn off(config: &Config) -> Vec<&'static str> {
    let off = [
        (config.auth_keys_file.is_none(), "keys (auth.keys_file): whoever reaches it may use it"),
        (config.tls_cert.is_none(), "TLS (tls.cert)"),
        (config.cache_bytes_max == 0, "page cache (cache.bytes_max)"),
        (config.audit_file.is_none(), "audit log (audit.file)"),
        (config.memory_bytes_max == 0, "memory limit (limits.memory_bytes_max)"),
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
    let memory: Vec<String> =
        parts.iter().map(|(name, bytes)| format!("{name} {}", mib(*bytes))).collect();
    tracing::info!(
        connections = config.connections_max,
        streams = config.streams_max,
        urls_per_stream = config.urls_max,
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
    }
}
