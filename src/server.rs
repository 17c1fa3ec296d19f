//! From a configuration to running cores, and from a signal to their end.

use crate::config::Config;
use crate::control::{self, Control};
use crate::crawl::lane;
use crate::crawl::mesh::Message;
use crate::crawl::node::{Node, Shared};
use crate::extract::{ExtractConfig, Extractor, LoadError};
use crate::fetch::{FetchConfig, Fetcher};
use crate::serve;
use crate::stream::Totals;
use crate::stream::registry::Registry;
use std::io;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock, mpsc};
use std::thread;
use std::time::{Duration, Instant};
use uring::core::{CoreConfig, CoreHandle, CorePlan};
use uring::lane::{Lane, LaneConfig};
use uring::mailbox::{self, Receiver, Sender};
use uring::probe::{self, Choice, ProbeError};

/// Letters that may wait for one core: pages handed to it, results of its streams' pages, wake-ups.
const MAILBOX_LETTERS: usize = 4096;
/// Connections that the kernel may hold until a loop accepts them.
const BACKLOG: i32 = 4096;
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
    Fetch(String),
    /// The extractor's module can't be loaded.
    #[error("{0}")]
    Extractor(#[from] LoadError),
}

/// A running server.
#[derive(Debug)]
pub struct Server {
    addr: SocketAddr,
    /// The loops' driver and why it was chosen.
    pub runtime: Choice,
    /// What did not work and isn't fatal.
    pub warnings: Vec<String>,
    shared: Arc<Shared>,
    cores: Vec<CoreHandle<()>>,
    control: Control,
    loaded: mpsc::Receiver<Result<(), LoadError>>,
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
        let fetch = Arc::new(fetch_config(&config)?);
        let plans = uring::core::plan((config.cores > 0).then_some(config.cores));
        let (mesh, mailboxes): (Vec<_>, Vec<_>) =
            plans.iter().map(|_| mailbox::channel::<Message>(MAILBOX_LETTERS)).unzip();
        let control = control::start(fetch.dns_timeout)?;
        let shared = Arc::new(Shared {
            config: Arc::clone(&config),
            extractor: OnceLock::new(),
            registry: Registry::default(),
            totals: Arc::new(Totals::default()),
            mesh,
            draining: AtomicBool::new(false),
            connections: AtomicUsize::new(0),
            started: Instant::now(),
        });
        let loaded = load_extractor(&shared, &control)?;
        let mut server = Self {
            addr: config.listen,
            runtime,
            warnings: Vec::new(),
            shared,
            cores: Vec::new(),
            control,
            loaded,
        };
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
        fetch: Arc<FetchConfig>,
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
        let resolver = self.control.resolver(&fetch);
        let handle = uring::core::spawn(core, move || async move {
            let listener = match uring::net::TcpListener::bind(addr, BACKLOG) {
                Ok(listener) => listener,
                Err(error) => {
                    let _ = report.send(Err(error));
                    return;
                }
            };
            let _ = report.send(listener.local_addr());
            let fetcher = Fetcher::new(fetch, resolver);
            let node = Node::new(plan.index, shared, fetcher, lane);
            serve::run(node, listener, mailbox, DRAIN_GRACE).await;
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
        match self.loaded.recv() {
            Ok(outcome) => Ok(outcome?),
            Err(mpsc::RecvError) => Ok(()),
        }
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
    control: &Control,
) -> io::Result<mpsc::Receiver<Result<(), LoadError>>> {
    let (report, loaded) = mpsc::sync_channel(1);
    let config = &shared.config;
    let extract = ExtractConfig {
        html_bytes_max: config.html_bytes_max,
        cpu_budget: Duration::from_millis(config.extract_cpu_ms),
        module: config.extract_module.clone(),
        ..ExtractConfig::default()
    };
    let (shared, ticker) = (Arc::clone(shared), control.ticker());
    thread::Builder::new().name("load".to_owned()).spawn(move || {
        let outcome = Extractor::load(&extract).map(|extractor| {
            ticker.follow(&extractor);
            let _ = shared.extractor.set(extractor);
        });
        let _ = report.send(outcome);
    })?;
    Ok(loaded)
}

fn fetch_config(config: &Config) -> Result<FetchConfig, StartError> {
    let millis = Duration::from_millis;
    FetchConfig::from_settings(config, millis).map_err(StartError::Fetch)
}
