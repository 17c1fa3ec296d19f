//! The second level of the page cache, and single flight among nodes: both in Redis.
//!
//! A page that memory hasn't got is looked up there before it is fetched, for
//! `redis.lookup_timeout_ms` at most. Where there is none that will do, the node takes a lease on it in the
//! same step: the other nodes that want the page then wait for what it stores, for `redis.flight_ms` at
//! most, which is as long as the lease of a node that died lives. Whoever has waited for nothing fetches
//! it itself. A page that is there and is too old, or none of ours, is looked at once: from then on there
//! is nothing until there is another.
//!
//! Two keys of one hash slot: `{page}` holds the [`envelope`], `{page}:lease` who fetches it.

use super::mesh::PageJob;
use super::node::Node;
use crate::cache::entry::Entry;
use crate::cache::envelope::{self, Now};
use crate::cache::key::Key;
use crate::cache::{Ttls, Wanted};
use crate::cluster::{Cluster, Does, Gauges, Link, Trouble};
use crate::extract::json;
use crate::limits::REDIS_PENDING_BYTES_MAX;
use redis::cmd;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};
use ulid::Ulid;

/// How long a page may wait to be stored.
const STORE_PATIENCE: Duration = Duration::from_secs(5);
/// How often it is tried to give a lease back.
const GIVE_BACK_AGAIN: Duration = Duration::from_millis(200);
/// Bytes of a page above which it is packed and unpacked on a thread of its own.
const HEAVY_BYTES: usize = 64 * 1024;
/// How often those who wait look whether the page has come: at first, and at most.
const LOOKS: (Duration, Duration) = (Duration::from_millis(5), Duration::from_millis(50));

/// The page, unless it begins as one that will not do; or a lease on it (1), or word that somebody else
/// has that (0). `KEYS`: page, lease. `ARGV`: the holder, milliseconds to live, the beginning.
const LOOK_OR_LEASE: &str = "local head = ARGV[3] \
     if head == '' or redis.call('GETRANGE', KEYS[1], 0, #head - 1) ~= head then \
     local page = redis.call('GET', KEYS[1]) \
     if page then return page end end \
     if redis.call('SET', KEYS[2], ARGV[1], 'NX', 'PX', ARGV[2]) then return 1 end \
     return 0";
/// Gives a lease back, if it is still ours.
const GIVE_BACK: &str = "if redis.call('GET', KEYS[1]) == ARGV[1] then \
     return redis.call('DEL', KEYS[1]) end return 0";

/// What Redis has to say of a page.
enum Said {
    /// Here it is; and what it begins with.
    Page(Arc<Entry>, Vec<u8>),
    /// What lies there is no page; and what it begins with.
    Garbage(Vec<u8>),
    /// Nobody has it, and we are the ones to fetch it.
    Leads(Lease),
    /// Another node fetches it.
    Follows,
    /// Nobody has it.
    Nothing,
}

/// What came of looking a page up.
#[derive(Default)]
pub(super) struct Found {
    /// The page, fresh or not.
    pub(super) entry: Option<Arc<Entry>>,
    /// It was fetched while we waited for it.
    pub(super) newer: bool,
    /// The duty to fetch it for all nodes.
    pub(super) lease: Option<Lease>,
}

/// The right to be the only node that fetches a page. Dropped, wherever that is, it is given back; but a
/// page that is stored ends it as well, so that nobody looks between the two.
pub(super) struct Lease {
    cluster: Cluster,
    key: Key,
    holder: String,
    /// For how long it lives by itself.
    time: Duration,
}

impl Lease {
    /// There is nothing to give back.
    fn disarm(mut self) {
        self.holder.clear();
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        if self.holder.is_empty() {
            return;
        }
        let (name, holder) = (lease_name(self.key), std::mem::take(&mut self.holder));
        // What made it late may be what keeps it from being given back now. One that can't be ends by
        // itself.
        let until = Instant::now() + self.time;
        let _ = self.cluster.start(move |link| async move {
            let mut eval = cmd("EVAL");
            eval.arg(GIVE_BACK).arg(1).arg(link.key(&name)).arg(holder);
            while link.ask::<i64>(Does::Write, &eval).await.is_err() && Instant::now() < until {
                tokio::time::sleep(GIVE_BACK_AGAIN).await;
            }
        });
    }
}

/// Looks a page up in Redis. With `lead` it is fetched by one node: who comes second waits.
pub(super) async fn look(
    node: &Node,
    job: &PageJob,
    wanted: &Wanted,
    until: Instant,
    lead: bool,
) -> Found {
    let cluster = &node.shared.cluster;
    if !cluster.answers() {
        return Found::default();
    }
    let config = &node.shared.config;
    let flight = Duration::from_millis(config.redis_flight_ms);
    let leads = lead && !flight.is_zero() && cluster.takes();
    let patient_until = until.min(Instant::now() + flight);
    let (mut pause, mut followed) = (LOOKS.0, false);
    // What is there and will not do, and what it begins with.
    let (mut old, mut seen) = (None, Vec::new());
    loop {
        let question = Question {
            key: job.key,
            ttls: *node.shared.pages.cache.ttls(),
            bytes_max: config.redis_value_bytes_max,
            lease: leads.then(|| (cluster.clone(), flight)),
            seen: seen.clone(),
        };
        let patience = cluster.patience().min(until.saturating_duration_since(Instant::now()));
        match cluster.ask(patience, move |link| question.ask(link)).await {
            Ok(Said::Page(entry, head)) => {
                let newer = followed && !(wanted.by_origin && entry.freshness.never);
                // The same one again can't be; but what can't be is no reason to go round for ever.
                let last = head == seen || Instant::now() >= patient_until;
                if newer || last || !leads || entry.is_fresh(wanted, Instant::now()) {
                    return Found { entry: Some(entry), newer, lease: None };
                }
                (old, seen) = (Some(entry), head);
            }
            Ok(Said::Garbage(head)) if leads && !head.is_empty() && head != seen => seen = head,
            Ok(Said::Leads(lease)) => {
                return Found { entry: old, newer: false, lease: Some(lease) };
            }
            Ok(Said::Follows)
                if Instant::now() + pause < patient_until && !job.stream.aborted() =>
            {
                followed = true;
                uring::time::sleep(pause).await;
                pause = (pause * 2).min(LOOKS.1);
                // Somebody of our own may have brought it meanwhile.
                if let crate::cache::Found::Fresh(entry) =
                    node.shared.pages.cache.look(job.key, wanted, Instant::now())
                {
                    return Found { entry: Some(entry), ..Found::default() };
                }
            }
            Ok(Said::Garbage(_) | Said::Follows | Said::Nothing) | Err(_) => {
                return Found { entry: old, ..Found::default() };
            }
        }
    }
}

/// Stores a page, soon, if Redis takes it: nobody waits for it. That ends the lease on it; where nothing
/// is stored, the lease is given back.
pub(super) fn store(node: &Node, key: Key, entry: &Arc<Entry>, lease: Option<Lease>) {
    let cluster = &node.shared.cluster;
    let Some(gauges) = cluster.gauges().filter(|_| !entry.ttl.is_zero()) else { return };
    let pending = Pending::new(gauges, entry.bytes());
    let sent = pending.map(|pending| {
        let (entry, bytes_max) = (Arc::clone(entry), node.shared.config.redis_value_bytes_max);
        cluster.tell(STORE_PATIENCE, move |link| async move {
            let stored = put(&link, key, entry, bytes_max).await;
            count(&link, stored.is_ok(), |gauges| (&gauges.stored, &gauges.not_stored));
            if stored.is_ok() {
                lease.into_iter().for_each(Lease::disarm);
            }
            drop(pending);
        })
    });
    if !matches!(sent, Some(Ok(()))) {
        gauges.not_stored.fetch_add(1, Ordering::Relaxed);
    }
}

/// What is to be asked on the control thread.
struct Question {
    key: Key,
    ttls: Ttls,
    bytes_max: usize,
    /// For how long to take a lease.
    lease: Option<(Cluster, Duration)>,
    /// What a page begins with that will not do.
    seen: Vec<u8>,
}

impl Question {
    async fn ask(self, link: Link) -> Result<Said, Trouble> {
        let page = link.key(&name(self.key));
        let Some((cluster, time)) = self.lease.clone() else {
            let answer = link.ask(Does::Read, cmd("GET").arg(page)).await?;
            return self.said(&link, answer).await;
        };
        // It may be ours from here on, also where the answer comes late or is not waited for: the lease
        // is dropped with whatever drops the answer.
        let holder = Ulid::generate().to_string();
        let lease = Lease { cluster, key: self.key, holder, time };
        let mut eval = cmd("EVAL");
        eval.arg(LOOK_OR_LEASE).arg(2).arg(page).arg(link.key(&lease_name(self.key)));
        let millis = u64::try_from(time.as_millis()).unwrap_or(u64::MAX);
        eval.arg(&lease.holder).arg(millis).arg(&self.seen);
        let answer: redis::Value = link.ask(Does::Write, &eval).await?;
        if answer == redis::Value::Int(1) {
            count(&link, false, |gauges| (&gauges.hits, &gauges.misses));
            return Ok(Said::Leads(lease));
        }
        lease.disarm();
        self.said(&link, answer).await
    }

    async fn said(self, link: &Link, answer: redis::Value) -> Result<Said, Trouble> {
        let said = match answer {
            redis::Value::BulkString(bytes) => {
                let head = bytes[..bytes.len().min(envelope::HEAD_BYTES)].to_vec();
                // Packed it is a fraction of what it will be.
                let light = bytes.len() < HEAVY_BYTES / 4;
                let read = move || {
                    let max = self.bytes_max;
                    envelope::read(&bytes, self.key, &self.ttls, max, check, Now::read())
                };
                match aside(light, read).await.flatten() {
                    Some(entry) => Said::Page(Arc::new(entry), head),
                    None => {
                        link.gauges().garbage.fetch_add(1, Ordering::Relaxed);
                        Said::Garbage(head)
                    }
                }
            }
            redis::Value::Int(0) => Said::Follows,
            redis::Value::Nil => Said::Nothing,
            _ => return Err(Trouble::Garbage),
        };
        count(link, matches!(said, Said::Page(..)), |gauges| (&gauges.hits, &gauges.misses));
        Ok(said)
    }
}

async fn put(link: &Link, key: Key, entry: Arc<Entry>, bytes_max: usize) -> Result<(), Trouble> {
    if !link.admits(Does::Write) {
        return Err(Trouble::Open);
    }
    let light = entry.bytes() < HEAVY_BYTES;
    let written = aside(light, move || envelope::write(key, &entry, bytes_max, Now::read())).await;
    let Some((bytes, ttl)) = written.flatten() else { return Err(Trouble::Garbage) };
    let millis = u64::try_from(ttl.as_millis()).unwrap_or(u64::MAX);
    let mut both = redis::pipe();
    both.cmd("SET").arg(link.key(&name(key))).arg(bytes).arg("PX").arg(millis);
    both.cmd("DEL").arg(link.key(&lease_name(key))).ignore();
    link.ask_all::<(String,)>(Does::Bulk, &both).await.map(drop)
}

/// Does something here where it is light, else on a thread of its own.
async fn aside<T: Send + 'static>(
    light: bool,
    work: impl FnOnce() -> T + Send + 'static,
) -> Option<T> {
    if light { Some(work()) } else { tokio::task::spawn_blocking(work).await.ok() }
}

fn check(bytes: &[u8]) -> bool {
    json::value(bytes).is_ok() && !bytes.contains(&b'\n')
}

fn name(key: Key) -> String {
    format!("{{{:032x}}}", key.number())
}

fn lease_name(key: Key) -> String {
    format!("{}:lease", name(key))
}

fn count(link: &Link, good: bool, which: impl Fn(&Gauges) -> (&AtomicU64, &AtomicU64)) {
    let (yes, no) = which(link.gauges());
    if good { yes } else { no }.fetch_add(1, Ordering::Relaxed);
}

/// Bytes on their way to Redis.
struct Pending(Arc<Gauges>, u64);

impl Pending {
    fn new(gauges: &Arc<Gauges>, bytes: usize) -> Option<Self> {
        let pending = Self(Arc::clone(gauges), bytes as u64);
        let before = gauges.pending_bytes.fetch_add(pending.1, Ordering::Relaxed);
        (before + pending.1 <= REDIS_PENDING_BYTES_MAX).then_some(pending)
    }
}

impl Drop for Pending {
    fn drop(&mut self) {
        self.0.pending_bytes.fetch_sub(self.1, Ordering::Relaxed);
    }
}
