//! What several nodes share through one Redis: the way there, and nothing of what is said.
//!
//! The connection lives on the control thread ([`Link`]). A core hands it work through a bounded queue
//! ([`Cluster::ask`], [`Cluster::tell`]) and waits no longer than it wants to; a full queue, an open
//! breaker and a late answer are all the same to it: there is no Redis for now. So a Redis that is dead,
//! slow, full or mad costs a request nothing but what it would have found there.
//!
//! Keys begin with `redis.prefix`. Those that belong together and are changed together carry one hash
//! tag (`{…}`), so that they are in one slot of a Redis Cluster.

pub mod breaker;
pub mod dial;
mod gauges;
mod link;
mod nodes;
mod target;

pub use gauges::{Gauges, Health};
pub use link::{Does, Link, Trouble};
pub use target::Target;

use crate::config::{Config, Wrong};
use crate::limits::{REDIS_FLIGHTS_MAX, REDIS_LETTERS_MAX};
use dial::Dialer;
use std::path::Path;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};
use tokio::sync::{Semaphore, mpsc};
use ulid::Ulid;

/// What is to be done on the control thread.
type Work = Box<dyn FnOnce(Link) -> Pin<Box<dyn Future<Output = ()> + Send>> + Send>;

struct Letter {
    work: Work,
    /// When nobody wants it any more; `None`: it may take as long as it likes, and takes no place.
    until: Option<Instant>,
}

/// The cores' end. Cheap to clone; without `redis.url` it answers [`Trouble::Off`] to everything.
#[derive(Clone, Default)]
pub struct Cluster(Option<Arc<Inner>>);

struct Inner {
    letters: mpsc::Sender<Letter>,
    gauges: Arc<Gauges>,
    prefix: String,
    target: String,
    patience: Duration,
    node: Ulid,
}

/// The control thread's end.
pub struct Keeper {
    letters: mpsc::Receiver<Letter>,
    link: Link,
    node: Ulid,
}

/// Both ends, by the settings; no connection yet, and nothing fails because there is none.
///
/// # Errors
/// What is wrong with `redis.url`, `redis.prefix` or `redis.ca`.
pub fn open(config: &Config) -> Result<(Cluster, Option<Keeper>), String> {
    let url = config.redis_url.reveal();
    if url.is_empty() {
        return Ok((Cluster::default(), None));
    }
    let target = Target::parse(url)?;
    let prefix = config.redis_prefix.clone();
    check_prefix(&prefix)?;
    let dialer = Dialer {
        target: target.clone(),
        ca: config.redis_ca.as_deref().map(read_ca).transpose()?,
        connect_timeout: Duration::from_millis(config.redis_connect_timeout_ms),
        timeout: Duration::from_millis(config.redis_timeout_ms),
    };
    let gauges = Arc::<Gauges>::default();
    let patience = Duration::from_millis(config.redis_lookup_timeout_ms);
    let link = Link::new(dialer, prefix.clone(), patience, Arc::clone(&gauges));
    let (to, from) = mpsc::channel(REDIS_LETTERS_MAX);
    let target = target.to_string();
    let node = Ulid::generate();
    let inner = Inner { letters: to, gauges, prefix, target, patience, node };
    Ok((Cluster(Some(Arc::new(inner))), Some(Keeper { letters: from, link, node })))
}

/// All that would keep [`open`] from working.
#[must_use]
pub fn check(config: &Config) -> Vec<Wrong> {
    let url = config.redis_url.reveal();
    if url.is_empty() {
        return Vec::new();
    }
    let wrong = |setting, outcome: Result<(), String>| {
        outcome.err().map(|message| Wrong::new(setting, message))
    };
    let ca = config.redis_ca.as_deref().map_or(Ok(()), |path| read_ca(path).map(drop));
    [
        wrong("redis.url", Target::parse(url).map(drop)),
        wrong("redis.prefix", check_prefix(&config.redis_prefix)),
        wrong("redis.ca", ca),
    ]
    .into_iter()
    .flatten()
    .collect()
}

fn check_prefix(prefix: &str) -> Result<(), String> {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.:".contains(&byte);
    if prefix.is_empty() || prefix.len() > 64 || !prefix.bytes().all(plain) {
        return Err("redis.prefix is 1 to 64 letters, digits, '-', '_', '.' or ':'".to_owned());
    }
    Ok(())
}

fn read_ca(path: &Path) -> Result<Vec<u8>, String> {
    std::fs::read(path).map_err(|error| format!("redis.ca {}: {error}", path.display()))
}

impl Cluster {
    /// Whether there is a `redis.url`.
    #[must_use]
    pub const fn is_on(&self) -> bool {
        self.0.is_some()
    }

    /// Whether Redis is well enough to be asked: a look at one atomic.
    #[must_use]
    pub fn answers(&self) -> bool {
        self.0.as_ref().is_some_and(|inner| can(&inner.gauges, Does::Read))
    }

    /// Whether Redis is well enough to be written to.
    #[must_use]
    pub fn takes(&self) -> bool {
        self.0.as_ref().is_some_and(|inner| can(&inner.gauges, Does::Write))
    }

    /// What this process is known by among the nodes; another one each time that it starts.
    #[must_use]
    pub fn node_id(&self) -> Ulid {
        self.0.as_ref().map_or(Ulid::nil(), |inner| inner.node)
    }

    /// For how long a page's look-up waits: `redis.lookup_timeout_ms`.
    #[must_use]
    pub fn patience(&self) -> Duration {
        self.0.as_ref().map_or(Duration::ZERO, |inner| inner.patience)
    }

    /// A key of ours: the prefix, a colon, and this.
    #[must_use]
    pub fn key(&self, name: &str) -> String {
        format!("{}:{name}", self.0.as_ref().map_or("", |inner| &inner.prefix))
    }

    /// Counts and states.
    #[must_use]
    pub fn gauges(&self) -> Option<&Arc<Gauges>> {
        self.0.as_ref().map(|inner| &inner.gauges)
    }

    /// Where Redis is, without secrets.
    #[must_use]
    pub fn target(&self) -> &str {
        self.0.as_ref().map_or("", |inner| &inner.target)
    }

    /// Letters that wait for the control thread.
    #[must_use]
    pub fn queued(&self) -> usize {
        self.0.as_ref().map_or(0, |inner| inner.letters.max_capacity() - inner.letters.capacity())
    }

    /// Has something done on the control thread and waits for what comes of it, on a core's loop, for
    /// `patience` at most. Dropped, it is still done.
    ///
    /// # Errors
    /// [`Trouble`]; at once where Redis is not well.
    pub async fn ask<T, F>(
        &self,
        patience: Duration,
        work: impl FnOnce(Link) -> F + Send + 'static,
    ) -> Result<T, Trouble>
    where
        T: Send + 'static,
        F: Future<Output = Result<T, Trouble>> + Send + 'static,
    {
        let inner = self.0.as_ref().ok_or(Trouble::Off)?;
        if !can(&inner.gauges, Does::Read) {
            return Err(Trouble::Open);
        }
        let until = Instant::now() + patience;
        let (to, mut from) = uring::mailbox::channel(1);
        inner.send(Some(until), move |link| async move {
            // Whoever has stopped waiting gets no answer.
            let _ = to.try_send(work(link).await);
        })?;
        match uring::time::timeout_at(until, from.recv()).await {
            Ok(Some(answer)) => answer,
            Ok(None) => Err(Trouble::Busy),
            Err(_) => Err(Trouble::Late),
        }
    }

    /// Has something done on the control thread, from any thread, without waiting for it; dropped where
    /// it could not begin before `patience` is over.
    ///
    /// # Errors
    /// [`Trouble`] where it will not be done.
    pub fn tell<F>(
        &self,
        patience: Duration,
        work: impl FnOnce(Link) -> F + Send + 'static,
    ) -> Result<(), Trouble>
    where
        F: Future<Output = ()> + Send + 'static,
    {
        let inner = self.0.as_ref().ok_or(Trouble::Off)?;
        if !can(&inner.gauges, Does::Read) {
            return Err(Trouble::Open);
        }
        inner.send(Some(Instant::now() + patience), work)
    }

    /// Starts a task on the control thread that may go on for as long as the process, whether Redis is
    /// well or not; it meets [`Trouble`] where it asks. It must never block the thread.
    ///
    /// # Errors
    /// [`Trouble::Off`] or [`Trouble::Busy`]: it was not started.
    pub fn start<F>(&self, work: impl FnOnce(Link) -> F + Send + 'static) -> Result<(), Trouble>
    where
        F: Future<Output = ()> + Send + 'static,
    {
        self.0.as_ref().ok_or(Trouble::Off)?.send(None, work)
    }
}

impl std::fmt::Debug for Cluster {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        out.debug_tuple("Cluster").field(&self.target()).finish()
    }
}

impl Inner {
    fn send<F>(
        &self,
        until: Option<Instant>,
        work: impl FnOnce(Link) -> F + Send + 'static,
    ) -> Result<(), Trouble>
    where
        F: Future<Output = ()> + Send + 'static,
    {
        let work: Work = Box::new(move |link| Box::pin(work(link)));
        self.letters.try_send(Letter { work, until }).map_err(|_| {
            self.gauges.dropped.fetch_add(1, Ordering::Relaxed);
            Trouble::Busy
        })
    }
}

impl Keeper {
    /// Keeps the connection and does what the cores ask for, until the last [`Cluster`] is gone. Runs on
    /// a tokio `current_thread` runtime.
    pub async fn run(mut self) {
        tokio::spawn(self.link.clone().keep());
        tokio::spawn(nodes::live(self.link.clone(), self.node));
        let places = Arc::new(Semaphore::new(REDIS_FLIGHTS_MAX));
        while let Some(Letter { work, until }) = self.letters.recv().await {
            let Some(until) = until else {
                tokio::spawn(work(self.link.clone()));
                continue;
            };
            let Ok(place) = Arc::clone(&places).acquire_owned().await else { break };
            if Instant::now() >= until {
                self.link.gauges().dropped.fetch_add(1, Ordering::Relaxed);
                continue;
            }
            let doing = work(self.link.clone());
            tokio::spawn(async move {
                doing.await;
                drop(place);
            });
        }
    }
}

fn can(gauges: &Gauges, does: Does) -> bool {
    match gauges.health() {
        Health::Up => true,
        Health::ReadOnly => does == Does::Read,
        Health::Connecting | Health::Down => false,
    }
}
