//! From a configuration to running cores, and from a signal to their end.

use crate::cluster;
use crate::config::reload::{RELOADS_WAITING_MAX, Recipe};
use crate::config::{Config, Live};
use crate::control::{self, Control};
use crate::crawl::cached::Pages;
use crate::crawl::lane;
use crate::crawl::mesh::{LETTERS_MAX, Message, ReportTo};
use crate::crawl::node::{LANE_PAGES_MAX, Node, Shared};
use crate::crawl::reading::Reading;
use crate::crawl::report;
use crate::descriptors;
use crate::extract::{self, Extractor, LoadError, Ticker};
use crate::fetch::resolve::Resolver;
use crate::fetch::{FetchConfigError, FetchShared, Fetcher};
use crate::jobs::Jobs;
use crate::notify::Notifier;
use crate::observe::hist::{Epoch, Scope};
use crate::observe::process;
use crate::observe::summary;
use crate::otlp;
use crate::parts::{extract_config, fetch_config};
use crate::reload::Reloader;
use crate::search::Search;
use crate::serve;
use crate::serve::Serving;
use crate::serve::access::{Access, AccessError};
use crate::serve::pages::Site;
use crate::stream::Totals;
use crate::stream::idempotency::Keys;
use crate::stream::registry::Registry;
use std::io;
use std::net::{SocketAddr, TcpListener};
use std::os::fd::OwnedFd;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock, mpsc};
use std::thread;
use std::time::{Duration, Instant, SystemTime};
use uring::core::{CoreConfig, CoreHandle, CorePlan};
use uring::lane::{Lane, LaneConfig};
use uring::mailbox::{self, Receiver, Sender};
use uring::probe::{self, Choice, ProbeError};

/// Connections that the kernel may hold until a loop accepts them.
const BACKLOG: i32 = 4096;
/// The slice that a loop asks the scheduler for, so that its lane makes way for it sooner.
const SLICE: Duration = Duration::from_micros(100);
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
    /// The settings of Redis make no sense.
    #[error("{0}")]
    Redis(String),
    /// The settings of OTLP export make no sense.
    #[error("{0}")]
    Otlp(String),
    /// The search index can't be opened.
    #[error("{0}")]
    Search(String),
    /// The extractor's module can't be loaded.
    #[error("{0}")]
    Extractor(#[from] LoadError),
    /// More listening sockets were passed than there are cores to accept from them.
    #[error("{sockets} listening sockets were passed for {cores} cores: at most one for each")]
    Sockets {
        /// How many there are.
        sockets: usize,
        /// How many can be used.
        cores: usize,
    },
}

impl StartError {
    /// The setting that has to change, where it is one.
    #[must_use]
    pub const fn setting(&self) -> Option<&'static str> {
        Some(match self {
            Self::Runtime(_) => "server.runtime",
            Self::Listen { .. } | Self::Access(AccessError::Open(_)) => "server.listen",
            Self::Access(AccessError::Keys(_)) => "auth.keys_file",
            Self::Access(AccessError::Setting { setting, .. }) => setting,
            Self::Redis(_) => "redis.url",
            Self::Otlp(_) => "otlp.endpoint",
            Self::Search(_) => "search.index_dir",
            Self::Extractor(_) => "extract.module",
            Self::Sockets { .. } => "server.cores",
            Self::Thread(_) | Self::Fetch(_) => return None,
        })
    }
}

/// What a server is started with beside its settings.
#[derive(Debug, Default)]
pub struct Surroundings {
    /// Where the settings came from, to read them again.
    pub recipe: Recipe,
    /// Listening sockets that the service manager made; without any, each core makes its own.
    pub sockets: Vec<TcpListener>,
    /// Who is told how the server is.
    pub notifier: Notifier,
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
    jobs: Arc<Jobs>,
    site: Arc<Site>,
    cores: Vec<CoreHandle<()>>,
    control: Control,
    loaded: mpsc::Receiver<Result<Ticker, LoadError>>,
    ticker: OnceLock<Ticker>,
    sockets: Vec<TcpListener>,
    notifier: Notifier,
}

impl Server {
    /// Starts every core; when it returns, all of them listen. The extractor may still be loading:
    /// see [`Server::wait_ready`].
    ///
    /// # Errors
    /// [`StartError`]; nothing is left running.
    pub fn start(config: Config) -> Result<Self, StartError> {
        let recipe = Recipe { fixed: true, ..Recipe::default() };
        Self::start_in(config, Surroundings { recipe, ..Surroundings::default() })
    }

    /// As [`Server::start`], for a service: with sockets that were passed, and settings that can be
    /// read again.
    ///
    /// # Errors
    /// As [`Server::start`].
    pub fn start_in(mut config: Config, around: Surroundings) -> Result<Self, StartError> {
        let Surroundings { recipe, sockets, notifier } = around;
        let runtime = probe::choose(config.runtime, &probe::probe())?;
        let plans = uring::core::plan((config.cores > 0).then_some(config.cores));
        config.listen = listening_address(config.listen, &sockets, plans.len())?;
        let fetch = fetch_config(&config)?;
        let access = Arc::new(Access::start(&config)?);
        let search = Search::start(&config).map_err(StartError::Search)?;
        let site = Site::start(&config);
        let (mesh, mailboxes): (Vec<_>, Vec<_>) = plans.iter().map(|_| letters()).unzip();
        let (cluster, redis) = cluster::open(&config).map_err(StartError::Redis)?;
        fetch.share(cluster.clone());
        access.share(cluster.clone());
        let (spans, exporter) = otlp::open(&config).map_err(StartError::Otlp)?;
        let (reload, reloads) = tokio::sync::mpsc::channel(RELOADS_WAITING_MAX);
        let shared = Arc::new(Shared {
            reload,
            beats: plans.iter().map(|_| AtomicU64::new(0)).collect(),
            extractor: OnceLock::new(),
            spans,
            cluster,
            reading: Reading::start(config.lane_class)?,
            pages: Pages::new(&config),
            search,
            config: Live::new(config),
            registry: Registry::default(),
            keys: Keys::default(),
            totals: Arc::new(Totals::default()),
            job_totals: Arc::new(Totals::default()),
            mesh,
            draining: AtomicBool::new(false),
            rings: OnceLock::new(),
            connections: AtomicUsize::new(0),
            busy: AtomicUsize::new(0),
            started: SystemTime::now(),
            epoch: Epoch::now(),
        });
        let jobs = Jobs::new(&shared);
        let reloader = Reloader {
            recipe,
            shared: Arc::clone(&shared),
            access: Arc::clone(&access),
            site: Arc::clone(&site),
            notifier: notifier.clone(),
        };
        let control = control::start(Arc::new(reloader), reloads, (redis, exporter))?;
        let loaded = load_extractor(&shared, plans.len())?;
        let mut server = Self {
            addr: shared.config.listen,
            runtime,
            warnings: Vec::new(),
            shared,
            access,
            jobs,
            site,
            cores: Vec::new(),
            control,
            loaded,
            ticker: OnceLock::new(),
            sockets,
            notifier,
        };
        match server.start_cores(plans.into_iter().zip(mailboxes), &fetch) {
            Ok(()) => Ok(server),
            Err(error) => {
                server.stop(Duration::ZERO);
                Err(error)
            }
        }
    }

    /// Starts all cores, or as many as it can before one fails.
    fn start_cores(
        &mut self,
        cores: impl Iterator<Item = (CorePlan, Receiver<Message>)>,
        fetch: &Arc<FetchShared>,
    ) -> Result<(), StartError> {
        if self.access.is_open() && !self.addr.ip().is_loopback() {
            let warning = "auth.open: whoever reaches this server can use it, without a key";
            self.warnings.push(warning.to_owned());
        }
        for (plan, mailbox) in cores {
            self.start_core(plan, mailbox, Arc::clone(fetch))?;
        }
        let short =
            descriptors::shortage(self.config(), descriptors::available(), self.cores.len());
        self.warnings.extend(short);
        let rings = process::rings();
        // Where others have rings, too, nobody can say which is whose.
        if rings.len() == self.cores.len() {
            let _ = self.shared.rings.set(rings);
        }
        Ok(())
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
            LANE_PAGES_MAX,
            lane::factory(&self.shared),
        )?;
        self.warnings.extend(lane.warnings().iter().cloned());
        let core = CoreConfig {
            cpu: plan.cpu,
            ring_entries: config.ring_entries,
            name: format!("core-{}", plan.index),
            arena: uring::arena::ArenaConfig { bytes_max: config.arena_bytes_max },
            slice: Some(SLICE),
            ..CoreConfig::new(plan.index, self.runtime.driver)
        };
        let (report, listening) = mpsc::sync_channel(1);
        let (shared, addr) = (Arc::clone(&self.shared), self.addr);
        let hooks = if plan.index == 0 { Some(fetch.for_clients()?) } else { None };
        let serving = Serving {
            access: Arc::clone(&self.access),
            jobs: Arc::clone(&self.jobs),
            site: Arc::clone(&self.site),
        };
        let questions = self.control.questions();
        // Fewer sockets than cores are shared out in turn: several cores then accept from one.
        let turn = self.sockets.get(plan.index % self.sockets.len().max(1));
        let passed = turn.map(|socket| socket.try_clone().map(OwnedFd::from)).transpose()?;
        let handle = uring::core::spawn(core, move || async move {
            let made = match passed {
                Some(socket) => uring::net::TcpListener::from_fd(socket),
                None => uring::net::TcpListener::bind(addr, BACKLOG),
            };
            let listener = match made {
                Ok(listener) => listener,
                Err(error) => {
                    let _ = report.send(Err(error));
                    return;
                }
            };
            let _ = report.send(listener.local_addr());
            let hooks = hooks.map(|hooks| Fetcher::new(hooks, Resolver::new(questions.clone())));
            let fetcher = Fetcher::new(fetch, Resolver::new(questions));
            let node = Node::new(plan.index, shared, fetcher, lane);
            serving.jobs.start(&node, hooks);
            serve::run(node, serving, listener, mailbox, DRAIN_GRACE).await;
        })?;
        self.warnings.extend(handle.info().warnings.iter().cloned());
        if plan.shared {
            self.warnings.push(format!("core {} shares its CPU with another core", plan.index));
        }
        self.cores.push(handle);
        let gone = || Err(io::Error::other("the core ended before it listened"));
        // The first core picks the port where none is given; the others join it.
        let listening = listening.recv().unwrap_or_else(|_| gone());
        let listening = listening.map_err(|error| StartError::Listen { addr: self.addr, error })?;
        if self.sockets.is_empty() {
            self.addr = listening;
        }
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

    /// Resident bytes above which no new work is taken; 0 for no limit.
    #[must_use]
    pub fn memory_bytes_max(&self) -> u64 {
        self.access.memory_bytes_max()
    }

    /// The settings in force.
    #[must_use]
    pub fn config(&self) -> &Config {
        &self.shared.config
    }

    /// Sockets that the service manager passed.
    #[must_use]
    pub fn sockets(&self) -> usize {
        self.sockets.len()
    }

    /// Takes no new work, lets what runs come to its end for at most `patience`, then ends it, and
    /// waits until every core has ended.
    pub fn stop(self, patience: Duration) {
        self.notifier.stopping();
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
        self.shared.search.stop();
        self.control.stop();
    }
}

/// Where the server will listen: on what was passed, else on what is set. Of several addresses it is
/// the one that most people can reach.
///
/// # Errors
/// More sockets than cores to accept from them, or one that does not know its address.
pub fn listening_address(
    set: SocketAddr,
    sockets: &[TcpListener],
    cores: usize,
) -> Result<SocketAddr, StartError> {
    if sockets.len() > cores {
        return Err(StartError::Sockets { sockets: sockets.len(), cores });
    }
    let mut addresses = Vec::with_capacity(sockets.len());
    for socket in sockets {
        let error = |error| StartError::Listen { addr: set, error };
        addresses.push(socket.local_addr().map_err(error)?);
    }
    let open = addresses.iter().find(|addr| !addr.ip().is_loopback());
    Ok(open.or(addresses.first()).copied().unwrap_or(set))
}

/// A core's mailbox.
fn letters() -> (Sender<Message>, Receiver<Message>) {
    mailbox::channel(LETTERS_MAX)
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
        if let Ok(extractor) = &outcome {
            warm_up(extractor);
        }
        // Without a ticker no time limit would hold: then there is no extractor either.
        let outcome = outcome.and_then(|extractor| {
            Ticker::start(&extractor, TICK).map(|ticker| (extractor, ticker))
        });
        // Before anybody can be told that work is taken.
        if let Ok((extractor, _)) = &outcome {
            let module = &extractor.report().module_sha256;
            shared.pages.set_extractor(module, config.html_bytes_max);
        }
        let _ = shared.extractor.set(outcome.as_ref().ok().map(|(extractor, _)| extractor.clone()));
        let outcome = outcome.map(|(extractor, ticker)| {
            let report = extractor.report();
            tracing::debug!(cached = report.cached, elapsed = ?report.elapsed, "extractor loaded");
            if let Some(warning) = &report.cache_warning {
                tracing::warn!("{warning}");
            }
            ticker
        });
        let _ = report.send(outcome);
    })?;
    Ok(loaded)
}

/// One page before the first client's: so that its code is in memory, and what it needs has been
/// asked for once.
fn warm_up(extractor: &Extractor) {
    let options = extract::Options::default();
    let page = b"<title>warm</title><article><h1>warm</h1><p>A page for the road, with a <a href=/>link</a>.</article>";
    let mut worker = extractor.worker(uring::lane::thread_cpu_time);
    if let Err(error) = worker.extract(&extract::Input::new(page, "http://warm.invalid/", &options))
    {
        tracing::warn!("the extractor could not read its first page: {error}");
    }
}
