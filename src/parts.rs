//! The settings of the parts that don't know the configuration, from it.

use crate::config::{Config, Names, Roots};
use crate::descriptors;
use crate::extract::{self, ExtractConfig};
use crate::fetch::pool::PoolLimits;
use crate::fetch::proxy::ProxyDns;
use crate::fetch::tls::TlsRoots;
use crate::fetch::{FetchConfig, FetchConfigError, FetchShared};
use std::sync::Arc;
use std::time::Duration;

/// The settings of extraction for so many lanes.
#[must_use]
pub fn extract_config(config: &Config, lanes: usize) -> ExtractConfig {
    ExtractConfig {
        module: config.extract_module.clone(),
        cache_dir: extract::default_cache_dir(),
        instances: u32::try_from(lanes).unwrap_or(u32::MAX),
        html_bytes_max: config.html_bytes_max,
        cpu_budget: Duration::from_millis(config.extract_cpu_ms),
        ..ExtractConfig::default()
    }
}

/// The settings of fetching, checked.
///
/// # Errors
/// The first one that can't work.
pub fn fetch_config(config: &Config) -> Result<Arc<FetchShared>, FetchConfigError> {
    let millis = Duration::from_millis;
    let cores = uring::core::plan((config.cores > 0).then_some(config.cores)).len();
    let outbound = descriptors::outbound(config, descriptors::available(), cores);
    FetchShared::new(FetchConfig {
        egress_allow: config.egress_allow.clone(),
        egress_deny: config.egress_deny.clone(),
        egress_nat64: config.egress_nat64.clone(),
        egress_ports: config.egress_ports.clone(),
        tls_roots: tls_roots(config),
        tls_ca_files: config.extra_ca.iter().cloned().collect(),
        user_agent: config.user_agent.clone(),
        dns_timeout: millis(config.dns_timeout_ms),
        connect_timeout: millis(config.connect_timeout_ms),
        tls_timeout: millis(config.tls_timeout_ms),
        ttfb_timeout: millis(config.ttfb_timeout_ms),
        body_idle_timeout: millis(config.body_idle_timeout_ms),
        proxy: Some(config.egress_proxy.reveal().to_owned()),
        proxy_dns: proxy_dns(config),
        http2: config.http2,
        host_concurrency: config.host_concurrency,
        address_concurrency: config.fetch_address_concurrency,
        concurrency_max: outbound.requests,
        host_interval: millis(config.host_interval_ms),
        service: Some(config.search_url.clone()),
        // One byte more than the guest is given tells that there is more.
        page_bytes_kept: config.html_bytes_max.saturating_add(1),
        pool: PoolLimits {
            per_origin: config.pool_per_origin,
            total: outbound.idle,
            idle: millis(config.pool_idle_ms),
        },
        ..FetchConfig::default()
    })
}

/// The authorities that are trusted, in fetches and by exports.
#[must_use]
pub const fn tls_roots(config: &Config) -> TlsRoots {
    match config.roots {
        Roots::Webpki => TlsRoots::Webpki,
        Roots::Platform => TlsRoots::Platform,
    }
}

/// Who resolves names where there is a proxy.
#[must_use]
pub const fn proxy_dns(config: &Config) -> ProxyDns {
    match config.egress_proxy_dns {
        Names::Local => ProxyDns::Local,
        Names::Remote => ProxyDns::Remote,
    }
}
