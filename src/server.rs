//! From a configuration to running cores, and from a signal to their end.

use crate::config::{Config, Names, Roots};
use crate::control::{self, Control};
use crate::crawl::cached::Pages;
use crate::crawl::lane;
use crate::crawl::mesh::{LETTERS_MAX, Message, ReportTo};
use crate::crawl::node::{Node, Shared};
use crate::crawl::report;
use crate::extract::{self, ExtractConfig, Extractor, LoadError, Ticker};
use crate::fetch::pool::PoolLimits;
use crate::fetch::proxy::ProxyDns;
use crate::fetch::resolve::Resolver;
use crate::fetch::tls::TlsRoots;
use crate::fetch::{FetchConfig, FetchConfigError, FetchShared, Fetcher};
use crate::observe::hist::{Epoch, Scope};
use crate::observe::summary;
use crate::serve;
use crate::serve::access::{Access, AccessError};
use crate::serve::pages::Site;
use crate::stream::Totals;
use crate::stream::idempotency::Keys;
use crate::stream::registry::Registry;
use std::io;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock, mpsc};
use std::thread;
use std::time::{Duration, Instant, SystemTime};
use uring::core::{CoreConfig, CoreHandle, CorePlan};
use uring::lane::{Lane, LaneConfig};
use uring::mailbox::{self, Receiver, Sender};
use uring::probe::{self, Choice, ProbeError};

/// Connections that the kernel may hold until a loop accepts them.
const BACKLOG: i32 = 4096;
/// How often running guests look at their limits.
const TICK: Duration = Duration::from_millis(5);
/// How long streams that were ended by the drain may take to say so.
const DRAIN_GRACE: Duration = Duration::from_secs(2);

/// Why a server does not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// `server.runtime = io_uring` where that can't be.
    #[error("{0}")]
    Runtime(#[from] ProbeError),
    /// The address can't be listened on.
    #[error("can't listen on {addr}: {error}")]
    Listen {
        /// The address.
        addr: SocketAddr,
        /// Why.
        error: io::Error,
    },
    /// A thread can't be made.
    #[error("can't start a thread: {0}")]
    Thread(#[from] io::Error),
    /// The egress rules, roots or other settings of fetching make no sense.
    #[error("{0}")]
    Fetch(#[from] FetchConfigError),
    /// The settings of keys, certificates, proxies or origins make no sense, or would let anybody in.
    #[error("{0}")]
    Access(#[from] AccessError),
    /// The extractor's module can't be loaded.
    #[error("{0}")]
    Extractor(#[from] LoadError),
}

/// A running server.
pub struct Server {
    addr: SocketAddr,
    /// The loops' driver and why it was chosen.
    pub runtime: Choice,
    /// What did not work and isn't fatal.
    pub warnings: Vec<String>,
    shared: Arc<Shared>,
    access: Arc<Access>,
    site: Arc<Site>,
    cores: Vec<CoreHandle<()>>,
    control: Control,
    loaded: mpsc::Receiver<Result<Ticker, LoadError>>,
    ticker: OnceLock<Ticker>,
}

impl Server {
    /// Starts every core; when it returns, all of them listen. The extractor may still be loading:
    /// see [`Server::wait_ready`].
    ///
    /// # Errors
    /// [`StartError`]; nothing is left running.
    pub fn start(config: Config) -> Result<Self, StartError> {
        let kernel = probe::probe();
        let runtime = probe::choose(config.runtime, &kernel)?;
        let config = Arc::new(config);
        let fetch = fetch_config(&config)?;
        let access = Arc::new(Access::start(&config)?);
        let site = Site::start(&config);
        let plans = uring::core::plan((config.cores > 0).then_some(config.cores));
        let (mesh, mailboxes): (Vec<_>, Vec<_>) =
            plans.iter().map(|_| mailbox::channel::<Message>(LETTERS_MAX)).unzip();
        let control = control::start(&access)?;
        let shared = Arc::new(Shared {
            config: Arc::clone(&config),
            extractor: OnceLock::new(),
            pages: Pages::new(&config),
            registry: Registry::default(),
            keys: Keys::default(),
            totals: Arc::new(Totals::default()),
            mesh,
            draining: AtomicBool::new(false),
            connections: AtomicUsize::new(0),
            started: SystemTime::now(),
            epoch: Epoch::now(),
        });
        let loaded = load_extractor(&shared, plans.len())?;
        let mut server = Self {
            addr: config.listen,
            runtime,
            warnings: Vec::new(),
            shared,
            access,
            site,
            cores: Vec::new(),
            control,
            loaded,
            ticker: OnceLock::new(),
        };
        if server.access.is_open() && !config.listen.ip().is_loopback() {
            let warning = "auth.open: whoever reaches this server can use it, without a key";
            server.warnings.push(warning.to_owned());
        }
        for (plan, mailbox) in plans.into_iter().zip(mailboxes) {
            if let Err(error) = server.start_core(plan, mailbox, Arc::clone(&fetch)) {
                server.stop(Duration::ZERO);
                return Err(error);
            }
        }
        Ok(server)
    }

    fn start_core(
        &mut self,
        plan: CorePlan,
        mailbox: Receiver<Message>,
        fetch: Arc<FetchShared>,
    ) -> Result<(), StartError> {
        let config = &self.shared.config;
        let lane = Lane::start(
            LaneConfig {
                cpu: plan.cpu,
                class: config.lane_class,
                name: format!("lane-{}", plan.index),
            },
            config.extract_queue_max,
            lane::factory(&self.shared),
        )?;
        self.warnings.extend(lane.warnings().iter().cloned());
        let core = CoreConfig {
            cpu: plan.cpu,
            ring_entries: config.ring_entries,
            name: format!("core-{}", plan.index),
            arena: uring::arena::ArenaConfig { bytes_max: config.arena_bytes_max },
            ..CoreConfig::new(plan.index, self.runtime.driver)
        };
        let (report, listening) = mpsc::sync_channel(1);
        let (shared, addr) = (Arc::clone(&self.shared), self.addr);
        let (access, site) = (Arc::clone(&self.access), Arc::clone(&self.site));
        let questions = self.control.questions();
        let handle = uring::core::spawn(core, move || async move {
            let listener = match uring::net::TcpListener::bind(addr, BACKLOG) {
                Ok(listener) => listener,
                Err(error) => {
                    let _ = report.send(Err(error));
                    return;
                }
            };
            let _ = report.send(listener.local_addr());
            let fetcher = Fetcher::new(fetch, Resolver::new(questions));
            let node = Node::new(plan.index, shared, fetcher, lane);
            serve::run(node, access, site, listener, mailbox, DRAIN_GRACE).await;
        })?;
        self.warnings.extend(handle.info().warnings.iter().cloned());
        if plan.shared {
            self.warnings.push(format!("core {} shares its CPU with another core", plan.index));
        }
        self.cores.push(handle);
        let gone = || Err(io::Error::other("the core ended before it listened"));
        // The first core picks the port where none is given; the others join it.
        self.addr = listening
            .recv()
            .unwrap_or_else(|_| gone())
            .map_err(|error| StartError::Listen { addr: self.addr, error })?;
        Ok(())
    }

    /// Where the server listens, with the port that was picked.
    #[must_use]
    pub const fn addr(&self) -> SocketAddr {
        self.addr
    }

    /// Whether the listener speaks TLS.
    #[must_use]
    pub fn speaks_tls(&self) -> bool {
        self.access.tls().is_some()
    }

    /// Event loops.
    #[must_use]
    pub fn cores(&self) -> usize {
        self.cores.len()
    }

    /// Waits until the extractor is loaded and the server takes work.
    ///
    /// # Errors
    /// Why the module can't be loaded.
    pub fn wait_ready(&self) -> Result<(), StartError> {
        // The sender goes after one message, so a second call finds nothing to wait for.
        if let Ok(outcome) = self.loaded.recv() {
            let _ = self.ticker.set(outcome?);
        }
        Ok(())
    }

    /// A table of every stage's and endpoint's percentiles, for a person.
    #[must_use]
    pub fn latency_table(&self) -> String {
        let (to, reports) = mpsc::channel();
        for core in &self.shared.mesh {
            let to = ReportTo::Thread(to.clone());
            // A core whose mailbox is full is left out of the table.
            drop(core.try_send(Message::Report { scope: Scope::default(), to }));
        }
        drop(to);
        let reports = reports.into_iter().map(|report| *report).collect();
        summary::table(&report::merge(reports), true)
    }

    /// Blocks until SIGTERM or SIGINT arrives. A second one ends the process at once, with exit
    /// status 130.
    pub fn wait_for_signal(&self) -> &'static str {
        self.control.wait_for_signal()
    }

    /// Takes no new work, lets what runs come to its end for at most `patience`, then ends it, and
    /// waits until every core has ended.
    pub fn stop(self, patience: Duration) {
        self.shared.draining.store(true, Ordering::Relaxed);
        let until = Instant::now() + patience;
        for sender in &self.shared.mesh {
            tell(sender, until);
        }
        for core in self.cores {
            if let Err(error) = core.join() {
                tracing::error!("{error}");
            }
        }
        self.control.stop();
    }
}

/// A full mailbox empties as its core works through it.
fn tell(core: &Sender<Message>, until: Instant) {
    let mut message = Message::Drain { until };
    while let Err(mailbox::SendError::Full(back)) = core.try_send(message) {
        message = back;
        thread::sleep(Duration::from_millis(1));
    }
}

/// Loads the module on a thread of its own, so that `/livez` answers while it is compiled.
fn load_extractor(
    shared: &Arc<Shared>,
    lanes: usize,
) -> io::Result<mpsc::Receiver<Result<Ticker, LoadError>>> {
    let (report, loaded) = mpsc::sync_channel(1);
    let config = extract_config(&shared.config, lanes);
    let shared = Arc::clone(shared);
    thread::Builder::new().name("load".to_owned()).spawn(move || {
        let outcome = Extractor::load(&config);
        let ticking = outcome.as_ref().ok().map(|extractor| Ticker::start(extractor, TICK));
        let _ = shared.extractor.set(outcome.as_ref().ok().cloned());
        let outcome = outcome.map(|extractor| {
            let report = extractor.report();
            tracing::debug!(cached = report.cached, elapsed = ?report.elapsed, "extractor loaded");
            if let Some(warning) = &report.cache_warning {
                tracing::warn!("{warning}");
            }
            ticking.expect("a loaded extractor ticks")
        });
        let _ = report.send(outcome);
    })?;
    Ok(loaded)
}

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
    FetchShared::new(FetchConfig {
        egress_allow: config.egress_allow.clone(),
        egress_deny: config.egress_deny.clone(),
        egress_ports: config.egress_ports.clone(),
        tls_roots: match config.roots {
            Roots::Webpki => TlsRoots::Webpki,
            Roots::Platform => TlsRoots::Platform,
        },
        tls_ca_files: config.extra_ca.iter().cloned().collect(),
        user_agent: config.user_agent.clone(),
        dns_timeout: millis(config.dns_timeout_ms),
        connect_timeout: millis(config.connect_timeout_ms),
        tls_timeout: millis(config.tls_timeout_ms),
        ttfb_timeout: millis(config.ttfb_timeout_ms),
        body_idle_timeout: millis(config.body_idle_timeout_ms),
        proxy: Some(config.egress_proxy.clone()),
        proxy_dns: match config.egress_proxy_dns {
            Names::Local => ProxyDns::Local,
            Names::Remote => ProxyDns::Remote,
        },
        http2: config.http2,
        host_concurrency: config.host_concurrency,
        host_interval: millis(config.host_interval_ms),
        pool: PoolLimits {
            per_origin: config.pool_per_origin,
            total: config.pool_max,
            idle: millis(config.pool_idle_ms),
        },
        ..FetchConfig::default()
    })
}
