//! Jobs: crawls in the background, thousands of URLs long, whose events are kept for whoever asks.
//!
//! Without Redis a job is a stream of this process ([`memory`]): the same machine, log and pages, bounded
//! by its bytes instead of its readers. With Redis it lives there ([`shared`]): its URLs in a consumer
//! group from which the cores of every node take, its events in a Redis Stream that every node reads.
//! Who is told of its end, and how, is the same for both ([`webhook`], [`deliver`]).

pub mod deliver;
pub mod fuzzing;
pub mod memory;
pub mod request;
pub mod shared;
pub mod view;
pub mod webhook;

use crate::cluster::Cluster;
use crate::config::Config;
use crate::crawl::node::{Node, Shared};
use crate::error::ApiError;
use crate::fetch::Fetcher;
use crate::limits::READ_TWICE_HERE_BYTES_MAX;
use crate::stream::Totals;
use memory::Shelf;
use request::JobRequest;
use std::rc::Rc;
use std::sync::atomic::{AtomicU32, AtomicUsize};
use std::sync::{Arc, Mutex};
use std::time::Duration;
use ulid::Ulid;
use webhook::Policy;

/// What all cores share of the jobs.
pub struct Jobs {
    /// Has the settings in force: each is read when it is needed, so that a reload counts.
    shared: Arc<Shared>,
    cluster: Cluster,
    /// Event loops of this process.
    cores: u32,
    /// This process among the nodes.
    node_id: Ulid,
    totals: Arc<Totals>,
    shelf: Mutex<Shelf>,
    /// Jobs in memory whose turn it is.
    running: AtomicU32,
    /// A page that is worked on by itself, because its nodes may have been lost by it.
    suspects: Arc<AtomicUsize>,
    flying: Arc<AtomicUsize>,
}

impl Jobs {
    /// No jobs yet.
    #[must_use]
    pub fn new(shared: &Arc<Shared>) -> Arc<Self> {
        Arc::new(Self {
            cluster: shared.cluster.clone(),
            cores: u32::try_from(shared.mesh.len()).unwrap_or(u32::MAX),
            node_id: Ulid::generate(),
            totals: Arc::clone(&shared.job_totals),
            shared: Arc::clone(shared),
            shelf: Mutex::default(),
            running: AtomicU32::new(0),
            suspects: Arc::default(),
            flying: Arc::default(),
        })
    }

    /// The settings in force.
    fn config(&self) -> &Config {
        &self.shared.config
    }

    /// How webhooks are delivered.
    fn policy(&self) -> Policy {
        Policy::new(self.config())
    }

    /// Whether jobs live in Redis.
    #[must_use]
    pub const fn in_redis(&self) -> bool {
        self.cluster.is_on()
    }

    /// For how long a job is kept after its end.
    #[must_use]
    pub fn retention(&self) -> Duration {
        Duration::from_secs(self.config().jobs_retention_s)
    }

    /// Reads and checks a body; a long one beside the loop.
    ///
    /// # Errors
    /// As [`request::parse`], or `overloaded`.
    pub async fn read(&self, mut body: Vec<u8>) -> Result<JobRequest, ApiError> {
        let (bytes, shared) = (body.len(), Arc::clone(&self.shared));
        let read = move || request::parse(&mut body, &shared.config);
        self.shared.reading.read(bytes, READ_TWICE_HERE_BYTES_MAX, read).await?
    }

    /// The work of a core beside its connections: ends with the core.
    /// Webhooks are delivered where there is a fetcher for them: on one core.
    pub fn start(self: &Arc<Self>, node: &Rc<Node>, hooks: Option<Rc<Fetcher>>) {
        if self.in_redis() {
            let worker = shared::worker::Worker::new(node, self);
            drop(uring::spawn(worker.run()));
        }
        if let Some(hooks) = hooks {
            let (jobs, node) = (Arc::clone(self), Rc::clone(node));
            drop(uring::spawn(deliver::run(jobs, node, hooks)));
        }
    }
}
