//! Who may ask for what, and how much: keys and scopes, rates and counts, trusted proxies, origins,
//! the audit log, certificates, memory. The policies stand alone and know no socket; [`Access`] is
//! what one server has of them, and `serve::guard` asks it about every request.

pub mod audit;
pub mod cors;
pub mod keys;
pub mod proxies;
pub mod quota;
pub mod rate;
pub mod share;
pub mod table;
pub mod visit;

use super::tls;
use crate::cluster::Cluster;
use crate::config::Config;
use crate::observe::process::Process;
use crate::proto::forwarded::ForwardedField;
use arc_swap::ArcSwap;
use audit::Audit;
use cors::Cors;
use governor::clock::DefaultClock;
use keys::{Keys, KeysError};
use proxies::Networks;
use quota::KeyLimits;
use rate::AddressRate;
use rustls::ServerConfig;
use std::net::IpAddr;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};
use table::{AddressKey, Counted, Counts, Full};

/// Why a server's access settings can't be used.
#[derive(Debug, thiserror::Error)]
pub enum AccessError {
    /// Anybody could use it.
    #[error(
        "{0} is not a loopback address and no keys are set: whoever reaches it could fetch any page through this server. \
         Make a key (forebay key new --name NAME --scopes crawl,extract), put its entry into a file and set auth.keys_file; \
         or listen on 127.0.0.1; or, where something in front of it checks who asks, set auth.open = true"
    )]
    Open(std::net::SocketAddr),
    /// The keys file.
    #[error("auth.keys_file: {0}")]
    Keys(#[from] KeysError),
    /// Another setting.
    #[error("{setting}: {what}")]
    Setting {
        /// Its name.
        setting: &'static str,
        /// What was expected.
        what: String,
    },
}

/// See the module. One for all cores.
#[derive(Debug)]
pub struct Access {
    keys: Option<Reloaded<Keys>>,
    tls: Option<Reloaded<ServerConfig>>,
    tls_key: PathBuf,
    /// Whether trusted proxies begin their connections with the PROXY protocol.
    pub proxy_protocol: bool,
    proxies: Networks,
    forwarded_field: ForwardedField,
    cors: Cors,
    requests: Option<AddressRate>,
    failures: Option<AddressRate>,
    running: Arc<Counts>,
    running_max: usize,
    connections: Arc<Counts>,
    connections_max: usize,
    loopback_connections_max: usize,
    audit: Option<Audit>,
    memory_bytes_max: u64,
    pressed: AtomicBool,
    cluster: OnceLock<Cluster>,
}

/// What was read from a file and is read again on SIGHUP.
#[derive(Debug)]
struct Reloaded<T> {
    path: PathBuf,
    now: ArcSwap<T>,
}

/// Keys and certificate, read and not yet in force.
#[derive(Debug, Default)]
pub struct ReadAgain {
    keys: Option<Arc<Keys>>,
    tls: Option<Arc<ServerConfig>>,
}

impl Access {
    /// Reads what the settings name.
    ///
    /// # Errors
    /// [`AccessError`]; nothing is left running.
    pub fn start(config: &Config) -> Result<Self, AccessError> {
        let setting = |setting, what: String| AccessError::Setting { setting, what };
        if config.auth_keys_file.is_none() && !config.auth_open && !config.listen.ip().is_loopback()
        {
            return Err(AccessError::Open(config.listen));
        }
        let key_defaults = key_defaults(config);
        let keys = match &config.auth_keys_file {
            Some(path) => {
                let keys = Keys::load(path, &key_defaults, &Keys::default())?;
                Some(Reloaded { path: path.clone(), now: ArcSwap::from_pointee(keys) })
            }
            None => None,
        };
        let tls = match (&config.tls_cert, &config.tls_key) {
            (Some(cert), Some(key)) => {
                let loaded =
                    tls::server_config(cert, key).map_err(|what| setting("tls.cert", what))?;
                Some(Reloaded { path: cert.clone(), now: ArcSwap::new(loaded) })
            }
            (None, None) => None,
            _ => {
                return Err(setting("tls.key", "a certificate and its key go together".to_owned()));
            }
        };
        let proxies = Networks::parse(&config.trusted_proxies)
            .map_err(|text| setting("server.trusted_proxies", format!("{text:?} is no network")))?;
        if config.proxy_protocol && proxies.is_empty() {
            let what = "needs server.trusted_proxies: who may send it".to_owned();
            return Err(setting("server.proxy_protocol", what));
        }
        let cors = Cors::new(&config.cors_origins)
            .map_err(|text| setting("cors.origins", format!("{text:?} is no origin")))?;
        let audit =
            match &config.audit_file {
                Some(path) => Some(Audit::start(path).map_err(|error| {
                    setting("audit.file", format!("{}: {error}", path.display()))
                })?),
                None => None,
            };
        let most = config.address_connections;
        Ok(Self {
            keys,
            tls,
            tls_key: config.tls_key.clone().unwrap_or_default(),
            proxy_protocol: config.proxy_protocol,
            proxies,
            forwarded_field: config.forwarded_field,
            cors,
            requests: AddressRate::per_minute(
                config.address_requests_per_min,
                DefaultClock::default(),
            ),
            failures: AddressRate::per_minute(
                config.auth_failures_per_min,
                DefaultClock::default(),
            ),
            running: Counts::new(),
            running_max: config.address_concurrency,
            connections: Counts::new(),
            connections_max: if most == 0 { config.connections_max.div_ceil(4) } else { most },
            loopback_connections_max: most,
            audit,
            memory_bytes_max: config.memory_bytes_max,
            pressed: AtomicBool::new(false),
            cluster: OnceLock::new(),
        })
    }

    /// From now on keys' rates hold for all nodes that share the Redis.
    pub fn share(&self, cluster: Cluster) {
        let _ = self.cluster.set(cluster);
    }

    /// Reads keys and certificate again, without putting them in force; `config` has the limits of
    /// keys that name none. Blocks: for the control thread.
    ///
    /// # Errors
    /// A sentence for each file that can't be used.
    pub fn read_again(&self, config: &Config) -> Result<ReadAgain, Vec<String>> {
        let (mut read, mut wrong) = (ReadAgain::default(), Vec::new());
        if let Some(keys) = &self.keys {
            match Keys::load(&keys.path, &key_defaults(config), &keys.now.load()) {
                Ok(loaded) => read.keys = Some(Arc::new(loaded)),
                Err(error) => {
                    wrong.push(format!("the keys stay as they were: auth.keys_file: {error}"));
                }
            }
        }
        if let Some(tls) = &self.tls {
            match tls::server_config(&tls.path, &self.tls_key) {
                Ok(loaded) => read.tls = Some(loaded),
                Err(what) => {
                    wrong.push(format!("the certificate stays as it was: tls.cert: {what}"))
                }
            }
        }
        if wrong.is_empty() { Ok(read) } else { Err(wrong) }
    }

    /// Puts what was read again in force, and opens the audit file anew. Answers which settings'
    /// files that were.
    pub fn take_over(&self, read: ReadAgain) -> Vec<&'static str> {
        let mut files = Vec::new();
        if let (Some(keys), Some(read)) = (&self.keys, read.keys) {
            keys.now.store(read);
            files.push("auth.keys_file");
        }
        if let (Some(tls), Some(read)) = (&self.tls, read.tls) {
            tls.now.store(read);
            files.push("tls.cert");
        }
        if let Some(audit) = &self.audit {
            audit.reopen();
            files.push("audit.file");
        }
        files
    }

    /// Looks at the process' memory. Blocks some 100 µs: for the control thread.
    pub fn measure_memory(&self) {
        let resident = Process::read().resident_bytes.unwrap_or_default();
        let pressed = self.memory_bytes_max > 0 && resident > self.memory_bytes_max;
        if self.pressed.swap(pressed, Ordering::Relaxed) != pressed {
            tracing::warn!(resident, pressed, "memory against limits.memory_bytes_max");
        }
    }

    /// Whether memory is looked at, at all.
    #[must_use]
    pub const fn watches_memory(&self) -> bool {
        self.memory_bytes_max > 0
    }

    /// Whether there is more memory in use than new work is taken at.
    #[must_use]
    pub fn pressed(&self) -> bool {
        self.pressed.load(Ordering::Relaxed)
    }

    /// The settings of TLS, where the listener speaks it.
    #[must_use]
    pub fn tls(&self) -> Option<Arc<ServerConfig>> {
        self.tls.as_ref().map(|tls| tls.now.load_full())
    }

    /// Whether the address is a proxy that the operator named.
    #[must_use]
    pub fn is_proxy(&self, address: IpAddr) -> bool {
        self.proxies.contains(address)
    }

    /// Counts a connection of a client.
    ///
    /// # Errors
    /// The client has as many as it may have.
    pub fn connect(&self, client: IpAddr) -> Result<Option<Counted>, Full> {
        if self.is_proxy(client) {
            return Ok(None);
        }
        let loopback = client.to_canonical().is_loopback();
        let most = if loopback { self.loopback_connections_max } else { self.connections_max };
        self.connections.enter(AddressKey::of(client), most)
    }

    /// Whether a credential is asked for.
    #[must_use]
    pub const fn is_open(&self) -> bool {
        self.keys.is_none()
    }

    /// Where requests are noted, if they are.
    #[must_use]
    pub const fn audit(&self) -> Option<&Audit> {
        self.audit.as_ref()
    }
}

fn key_defaults(config: &Config) -> KeyLimits {
    KeyLimits {
        requests_per_min: config.key_requests_per_min,
        urls_per_min: config.key_urls_per_min,
        bytes_per_min: config.key_bytes_per_min,
        concurrency: config.key_concurrency,
        streams: config.key_streams,
        connections: config.key_connections,
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test may panic")]
    use super::*;

    fn start(change: impl FnOnce(&mut Config)) -> Result<Access, String> {
        let mut config = Config::default();
        change(&mut config);
        Access::start(&config).map_err(|error| error.to_string())
    }

    #[test]
    fn an_open_server_is_for_loopback_unless_told_so() {
        assert!(start(|_| {}).unwrap().is_open());
        assert!(start(|config| config.listen = "[::1]:80".parse().unwrap()).is_ok());
        for address in ["0.0.0.0:8080", "[::]:8080", "192.0.2.1:80"] {
            let refused = start(|config| config.listen = address.parse().unwrap()).unwrap_err();
            for hint in [address, "auth.keys_file", "auth.open", "forebay key new"] {
                assert!(refused.contains(hint), "{refused}");
            }
            let told = |config: &mut Config| {
                config.listen = address.parse().unwrap();
                config.auth_open = true;
            };
            assert!(start(told).is_ok());
        }
    }

    #[test]
    fn settings_that_make_no_sense_are_named() {
        for (setting, value, expected) in [
            ("server.trusted_proxies", "proxy.example", "server.trusted_proxies"),
            ("server.proxy_protocol", "true", "server.trusted_proxies"),
            ("cors.origins", "example.com", "cors.origins"),
            ("tls.cert", "/none", "go together"),
            ("auth.keys_file", "/none", "auth.keys_file: /none"),
            ("audit.file", "/none/a", "audit.file"),
        ] {
            let refused = start(|config| config.set(setting, value).unwrap()).unwrap_err();
            assert!(refused.contains(expected), "{setting}: {refused}");
        }
    }

    #[test]
    fn proxies_and_loopback_are_no_single_clients() {
        let access = start(|config| {
            config.connections_max = 4;
            config.trusted_proxies = vec!["192.0.2.9".to_owned()];
        });
        let access = access.unwrap();
        let connect = |address: &str| access.connect(address.parse().unwrap());
        let _first = connect("192.0.2.1").unwrap();
        assert_eq!(connect("192.0.2.1").unwrap_err(), Full);
        for unlimited in ["192.0.2.9", "127.0.0.1", "::1"] {
            assert!(connect(unlimited).unwrap().is_none(), "{unlimited}");
        }
    }
}
