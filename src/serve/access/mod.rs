//! Who may ask for what, and how much: keys and scopes, rates and counts, trusted proxies, origins,
//! the audit log, certificates, memory. The policies stand alone and know no socket; [`Access`] is
//! what one server has of them, and `serve::guard` asks it about every request.

pub mod audit;
pub mod cors;
pub mod keys;
pub mod names;
pub mod peer;
pub mod proxies;
pub mod quota;
pub mod rate;
pub mod share;
pub mod table;
pub mod visit;

use super::tls;
use crate::cluster::Cluster;
use crate::config::{Config, MemoryLimit, Wrong};
use crate::limits::{CORS_ORIGINS_MAX, HOSTS_NAMED_MAX};
use crate::observe::process::{Process, memory_total};
use crate::proto::forwarded::ForwardedField;
use arc_swap::ArcSwap;
use audit::Audit;
use cors::Cors;
use governor::clock::DefaultClock;
use keys::{Key, Keys, KeysError};
use names::Names;
use proxies::Networks;
use quota::KeyLimits;
use rate::AddressRate;
use rustls::ServerConfig;
use std::net::IpAddr;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use table::{AddressKey, Counted, Counts, Full};
use uring::mailbox::{self, Receiver, Sender};

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

const PAIR: &str = "a certificate and its key go together";
const PROXIES_NEEDED: &str = "needs server.trusted_proxies: who may send it";

/// See the module. One for all cores.
#[derive(Debug)]
pub struct Access {
    keys: Option<Reloaded<Keys>>,
    /// How often keys were put in force: who holds one looks for it again when that has changed.
    keys_version: AtomicU64,
    /// Who is told that they were.
    told: Mutex<Vec<Sender<()>>>,
    tls: Option<Reloaded<ServerConfig>>,
    tls_key: PathBuf,
    /// Whether trusted proxies begin their connections with the PROXY protocol.
    pub proxy_protocol: bool,
    proxies: Networks,
    forwarded_field: ForwardedField,
    names: Names,
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

impl<T> Reloaded<T> {
    fn new(path: PathBuf, now: impl Into<Arc<T>>) -> Self {
        Self { path, now: ArcSwap::new(now.into()) }
    }
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
        if is_for_anybody(config) {
            return Err(AccessError::Open(config.listen));
        }
        let key_defaults = key_defaults(config);
        let keys = match &config.auth_keys_file {
            Some(path) => {
                let keys = Keys::load(path, &key_defaults, &Keys::default())?;
                Some(Reloaded::new(path.clone(), keys))
            }
            None => None,
        };
        let tls = match (&config.tls_cert, &config.tls_key) {
            (Some(cert), Some(key)) => {
                let loaded =
                    tls::server_config(cert, key).map_err(|what| setting("tls.cert", what))?;
                Some(Reloaded::new(cert.clone(), loaded))
            }
            (None, None) => None,
            _ => {
                return Err(setting("tls.key", PAIR.to_owned()));
            }
        };
        let proxies = Networks::parse(&config.trusted_proxies)
            .map_err(|text| setting("server.trusted_proxies", format!("{text:?} is no network")))?;
        if config.proxy_protocol && proxies.is_empty() {
            return Err(setting("server.proxy_protocol", PROXIES_NEEDED.to_owned()));
        }
        let (names, cors) = browsers(config)?;
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
            keys_version: AtomicU64::new(0),
            told: Mutex::default(),
            tls,
            tls_key: config.tls_key.clone().unwrap_or_default(),
            proxy_protocol: config.proxy_protocol,
            proxies,
            forwarded_field: config.forwarded_field,
            names,
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
            memory_bytes_max: memory_bytes_max(config.memory_bytes_max),
            pressed: AtomicBool::new(false),
            cluster: OnceLock::new(),
        })
    }

    /// All that would keep [`Access::start`] from working. Makes no file: that of the audit log may
    /// belong to another user than the one that asks.
    #[must_use]
    pub fn check(config: &Config) -> Vec<Wrong> {
        let mut wrong = Vec::new();
        if is_for_anybody(config) {
            let settings = ["server.listen", "auth.keys_file", "auth.open"];
            wrong.push(Wrong::together(&settings, AccessError::Open(config.listen)));
        }
        if let Some(path) = &config.auth_keys_file
            && let Err(error) = Keys::load(path, &key_defaults(config), &Keys::default())
        {
            wrong.push(Wrong::new("auth.keys_file", error));
        }
        match (&config.tls_cert, &config.tls_key) {
            (Some(cert), Some(key)) => {
                if let Err(what) = tls::server_config(cert, key) {
                    let at_key = what.starts_with(&*key.to_string_lossy()) && cert != key;
                    wrong.push(Wrong::new(if at_key { "tls.key" } else { "tls.cert" }, what));
                }
            }
            (None, None) => {}
            _ => wrong.push(Wrong::together(&["tls.key", "tls.cert"], PAIR)),
        }
        for text in &config.trusted_proxies {
            if Networks::parse(std::slice::from_ref(text)).is_err() {
                let what = format!("{text:?} is no network");
                wrong.push(Wrong::new("server.trusted_proxies", what));
            }
        }
        if config.proxy_protocol && config.trusted_proxies.is_empty() {
            let settings = ["server.proxy_protocol", "server.trusted_proxies"];
            wrong.push(Wrong::together(&settings, PROXIES_NEEDED));
        }
        // Too many are one mistake; else each is looked at by itself.
        let origins = &config.cors_origins;
        let size = if origins.len() > CORS_ORIGINS_MAX { origins.len() } else { 1 };
        for some in origins.chunks(size) {
            if let Err(what) = Cors::new(some) {
                wrong.push(Wrong::new("cors.origins", what));
            }
        }
        let hosts = &config.hosts;
        let size = if hosts.len() > HOSTS_NAMED_MAX { hosts.len() } else { 1 };
        for some in hosts.chunks(size) {
            if let Err(what) = Names::new(some) {
                wrong.push(Wrong::new("server.hosts", what));
            }
        }
        if let Some(path) = &config.audit_file
            && let Err(error) = audit::check(path)
        {
            wrong.push(Wrong::new("audit.file", format!("{}: {error}", path.display())));
        }
        wrong
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
        if let Some(read) = read.keys {
            self.put_keys(read);
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

    fn put_keys(&self, read: Arc<Keys>) {
        let Some(keys) = &self.keys else { return };
        keys.now.store(read);
        self.keys_version.fetch_add(1, Ordering::Release);
        let told = self.told.lock().unwrap_or_else(PoisonError::into_inner);
        // Who has not read the last word yet will see this one with it.
        for core in told.iter() {
            let _ = core.try_send(());
        }
    }

    /// A word for each time that keys are put in force, for the core that calls it.
    #[must_use]
    pub fn key_changes(&self) -> Receiver<()> {
        let (to, words) = mailbox::channel(1);
        self.told.lock().unwrap_or_else(PoisonError::into_inner).push(to);
        words
    }

    /// How often keys were put in force; to be read before a key is looked up.
    #[must_use]
    pub fn keys_version(&self) -> u64 {
        self.keys_version.load(Ordering::Acquire)
    }

    /// Looks whether a key that was found at version `seen` is still there, and takes it as it is now:
    /// its name, scopes and limits may be others. Costs nothing while no keys were read.
    pub fn renew(&self, key: &mut Option<Arc<Key>>, seen: &mut u64) -> bool {
        let version = self.keys_version();
        let (Some(keys), Some(held)) = (&self.keys, &mut *key) else { return true };
        if *seen == version {
            return true;
        }
        let Some(found) = keys.now.load().find(held.digest()).cloned() else { return false };
        (*held, *seen) = (found, version);
        true
    }

    /// Looks at the process' memory. Blocks some 100 µs: for the control thread.
    pub fn measure_memory(&self) {
        let resident = Process::read().resident_bytes.unwrap_or_default();
        let pressed = self.memory_bytes_max > 0 && resident > self.memory_bytes_max;
        if self.pressed.swap(pressed, Ordering::Relaxed) != pressed {
            tracing::warn!(resident, pressed, "memory against limits.memory_bytes_max");
        }
    }

    /// Resident bytes above which no new work is taken; 0 for no limit.
    #[must_use]
    pub const fn memory_bytes_max(&self) -> u64 {
        self.memory_bytes_max
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

/// Whether whoever reaches the server could use it, and nobody has said that this is meant.
fn is_for_anybody(config: &Config) -> bool {
    config.auth_keys_file.is_none() && !config.auth_open && !config.listen.ip().is_loopback()
}

/// By what names it goes, and whose pages may ask.
fn browsers(config: &Config) -> Result<(Names, Cors), AccessError> {
    let setting = |setting, what: String| AccessError::Setting { setting, what };
    let names = Names::new(&config.hosts).map_err(|what| setting("server.hosts", what))?;
    let cors = Cors::new(&config.cors_origins).map_err(|what| setting("cors.origins", what))?;
    Ok((names, cors))
}

fn memory_bytes_max(limit: MemoryLimit) -> u64 {
    match limit {
        MemoryLimit::Auto => memory_total().map_or(0, |total| total / 5 * 4),
        MemoryLimit::Bytes(bytes) => bytes,
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
            ("server.hosts", "http://a", "server.hosts"),
            ("tls.cert", "/none", "go together"),
            ("auth.keys_file", "/none", "auth.keys_file: /none"),
            ("audit.file", "/none/a", "audit.file"),
        ] {
            let refused = start(|config| config.set(setting, value).unwrap()).unwrap_err();
            assert!(refused.contains(expected), "{setting}: {refused}");
            let mut config = Config::default();
            config.set(setting, value).unwrap();
            let wrong = Access::check(&config);
            assert_eq!(wrong.len(), 1, "{wrong:?}");
            assert!(wrong[0].settings.contains(&setting), "{wrong:?}");
            assert_eq!(wrong[0].to_string(), refused, "a check says what a start does");
        }
    }

    #[test]
    fn a_check_finds_all_and_makes_no_file() {
        let mut config = Config::default();
        assert_eq!(Access::check(&config), []);
        config.listen = "0.0.0.0:80".parse().unwrap();
        config.trusted_proxies = ["10.0.0.0/8", "a", "b"].map(str::to_owned).to_vec();
        config.cors_origins = ["x", "https://a.example", "y"].map(str::to_owned).to_vec();
        config.tls_cert = Some("/none/cert".into());
        config.tls_key = Some("/none/key".into());
        let folder = std::env::temp_dir();
        config.audit_file = Some(folder.join(format!("forebay-check-{}", std::process::id())));
        assert_eq!(Access::check(&config).len(), 6);
        assert!(!config.audit_file.as_ref().unwrap().exists());
        config.audit_file = Some(folder);
        let wrong = Access::check(&config);
        assert!(wrong[6].to_string().starts_with("audit.file: "), "{wrong:?}");
    }

    #[test]
    fn memory_has_a_limit_unless_told_otherwise() {
        let limit = |value: &str| {
            start(|config| config.set("limits.memory_bytes_max", value).unwrap()).unwrap()
        };
        assert_eq!(limit("auto").memory_bytes_max(), memory_total().unwrap() / 5 * 4);
        assert!(start(|_| {}).unwrap().watches_memory());
        assert_eq!(limit("7").memory_bytes_max(), 7);
        assert!(!limit("0").watches_memory());
        assert!(Config::default().set("limits.memory_bytes_max", "much").is_err());
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
