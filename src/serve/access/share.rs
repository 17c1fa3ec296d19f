//! A key's rates for all nodes that share a Redis.
//!
//! Each node counts for itself, as it does without Redis, so that nothing is refused or let through by
//! anybody else's leave. Beside that it tells Redis behind the answer's back what it has let through,
//! and hears what all nodes together have: how far the key is in debt, by Redis' clock (GCRA: debt grows
//! with what is used and shrinks with time). Its own limiter then stands where all of them stand.
//!
//! A request waits for that only where the node has heard nothing of the key for [`FRESH`], and for
//! `redis.lookup_timeout_ms` at most. So what reaches several nodes within that time may be let through
//! by each of them; it is debt for all of them and has to be earned before there is more.

use super::keys::Key;
use crate::cluster::{Cluster, Does, Link, Trouble};
use redis::cmd;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// How old a node's knowledge of a key may be before a request waits for news.
const FRESH: Duration = Duration::from_millis(100);
/// For how long no request waits where Redis did not answer the last one in time.
const REST: Duration = Duration::from_secs(1);
/// How long what was let through may wait to be told.
const PATIENCE: Duration = Duration::from_millis(500);

/// The rates that are shared.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Rated {
    /// Requests.
    Requests,
    /// URLs.
    Urls,
    /// Bytes of answers.
    Bytes,
}

/// How many of each, or for how long each is in debt, in µs.
pub(super) type Each = [u64; 3];

/// Adds to a key's debts, and answers all of them. `KEYS`: the key's. `ARGV`: microseconds of requests,
/// URLs and bytes.
const SETTLE: &str = "local time = redis.call('TIME') \
     local now = time[1] * 1000000 + time[2] \
     local paid = redis.call('HMGET', KEYS[1], 'requests', 'urls', 'bytes') \
     local last, debts = now, {} \
     for at = 1, 3 do \
     paid[at] = math.max(now, tonumber(paid[at] or 0)) + ARGV[at] \
     last, debts[at] = math.max(last, paid[at]), paid[at] - now end \
     if ARGV[1] + ARGV[2] + ARGV[3] > 0 then \
     local text = function(at) return string.format('%d', paid[at]) end \
     redis.call('HSET', KEYS[1], 'requests', text(1), 'urls', text(2), 'bytes', text(3)) \
     redis.call('PEXPIRE', KEYS[1], math.ceil((last - now) / 1000) + 1) end \
     return debts";

/// What a node has to tell of a key, and when it last heard of it.
#[derive(Debug)]
pub(super) struct Ledger {
    untold: [AtomicU64; 3],
    /// A letter is on its way that will take along what is untold.
    sent: AtomicBool,
    epoch: Instant,
    /// Nanoseconds since the epoch at which it is due to ask again.
    due_ns: AtomicU64,
}

impl Ledger {
    /// Nothing told and nothing heard.
    pub(super) fn new() -> Self {
        let due_ns = AtomicU64::new(0);
        Self {
            untold: Default::default(),
            sent: AtomicBool::new(false),
            epoch: Instant::now(),
            due_ns,
        }
    }

    /// Notes what was let through.
    pub(super) fn note(&self, what: Rated, count: u64) {
        self.untold[what as usize].fetch_add(count, Ordering::SeqCst);
    }

    /// What is untold.
    pub(super) fn untold(&self) -> Each {
        self.untold.each_ref().map(|count| count.load(Ordering::SeqCst))
    }

    fn take(&self) -> Each {
        self.untold.each_ref().map(|count| count.swap(0, Ordering::SeqCst))
    }

    fn is_due(&self, now: Instant) -> bool {
        self.since_epoch(now) >= self.due_ns.load(Ordering::Relaxed)
    }

    fn rest(&self, now: Instant, time: Duration) {
        self.due_ns.store(self.since_epoch(now + time), Ordering::Relaxed);
    }

    fn since_epoch(&self, now: Instant) -> u64 {
        u64::try_from(now.saturating_duration_since(self.epoch).as_nanos()).unwrap_or(u64::MAX)
    }
}

/// Lets the next letter be sent, also where this one was never opened.
struct Sent(Arc<Key>);

impl Drop for Sent {
    fn drop(&mut self) {
        self.0.quota.ledger().sent.store(false, Ordering::SeqCst);
    }
}

impl Key {
    /// Hears what all nodes have let through, where that is not known by now; waits for
    /// `redis.lookup_timeout_ms` at most, and for nothing where Redis is not well.
    pub async fn catch_up(self: &Arc<Self>, cluster: &Cluster) {
        let ledger = self.quota.ledger();
        if !self.quota.is_rated() || !cluster.takes() || !ledger.is_due(Instant::now()) {
            return;
        }
        let key = Arc::clone(self);
        let asked = cluster.ask(cluster.patience(), async move |link| key.settle(&link).await);
        if asked.await.is_err() {
            ledger.rest(Instant::now(), REST);
        }
    }

    /// Tells the other nodes what this one has let through, without waiting for it. Where Redis is not
    /// well they never hear of it.
    pub fn tell(self: &Arc<Self>, cluster: &Cluster) {
        let ledger = self.quota.ledger();
        if ledger.untold() == Each::default() {
            return;
        }
        if !cluster.takes() {
            ledger.take();
            return;
        }
        if ledger.sent.swap(true, Ordering::SeqCst) {
            return;
        }
        let sent = Sent(Arc::clone(self));
        // Where it can't be told, each node goes by what it knows.
        let _ = cluster.tell(PATIENCE, async move |link| {
            let key = Arc::clone(&sent.0);
            drop(sent);
            let _ = key.settle(&link).await;
        });
    }

    async fn settle(&self, link: &Link) -> Result<(), Trouble> {
        let costs = self.quota.costs_us(self.quota.ledger().take());
        let mut eval = cmd("EVAL");
        eval.arg(SETTLE).arg(1).arg(link.key(&format!("limit:{}", self.principal))).arg(&costs);
        let debts: [u64; 3] = link.ask(Does::Write, &eval).await?;
        self.quota.hear(debts);
        self.quota.ledger().rest(Instant::now(), FRESH);
        Ok(())
    }
}
