//! The page cache: extracted pages in memory, one copy of each for all cores and all readers.
//!
//! A page is kept under its [`key::Key`], the hash of its URL and of every option that changes what
//! comes out. It is weighed by its bytes, and the least used pages go when there are too many. What
//! kind of answer it was decides for how long it may be used ([`Ttls`]); a request may ask for less.
//! A page that is too old stays until it is pushed out: its origin can be asked whether it still holds.
//!
//! Nothing here waits: a look-up takes a shard's read lock for a moment and clones a pointer.
//! [`flights`] keeps pages from being fetched twice at the same time.

pub mod date;
pub mod entry;
pub mod envelope;
pub mod flights;
pub mod freshness;
#[doc(hidden)]
pub mod fuzzing;
pub mod key;

use crate::error::PageCode;
use entry::Entry;
use key::Key;
use quick_cache::sync::Cache;
use quick_cache::{DefaultHashBuilder, Lifecycle, OptionsBuilder, Weighter};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// What a page is taken to weigh before there are any, in bytes: from it follow the number of shards
/// and the memory for the keys of pages that were pushed out.
const PAGE_BYTES_GUESS: u64 = 16 * 1024;
/// Bytes of the cache's own for each page: the entry, its slot and its key.
const ENTRY_BYTES: u64 = 512;

/// For how long answers of each kind may be used; zero: not kept at all.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ttls {
    /// Answers of 2xx.
    pub success: Duration,
    /// Answers of 3xx that were not followed; also the most for a page that redirects led to.
    pub redirect: Duration,
    /// Answers of 4xx.
    pub client_error: Duration,
    /// Answers of 5xx.
    pub server_error: Duration,
    /// No answer, or one without a document.
    pub error: Duration,
}

impl Ttls {
    /// For how long an answer may be used.
    #[must_use]
    pub fn of(&self, status: u16, redirected: bool, error: Option<PageCode>) -> Duration {
        let ttl = match (error, status / 100) {
            (Some(code), _) if is_of_its_request(code) || is_policy(code) => return Duration::ZERO,
            (Some(PageCode::TooManyRedirects), _) | (None, 3) => self.redirect,
            (Some(_), _) => self.error,
            (None, 4) => self.client_error,
            (None, 5) => self.server_error,
            (None, _) => self.success,
        };
        if redirected { ttl.min(self.redirect) } else { ttl }
    }
}

/// Whether an error came from the limits of one request, so that it says nothing to others.
#[must_use]
pub const fn is_of_its_request(code: PageCode) -> bool {
    matches!(code, PageCode::UrlTimeout | PageCode::DeadlineExceeded | PageCode::Cancelled)
}

/// Whether a rule of ours refused the page before it was asked for: asking again costs nothing, and
/// rules change.
const fn is_policy(code: PageCode) -> bool {
    matches!(code, PageCode::BlockedEgress | PageCode::RobotsDisallowed | PageCode::HostThrottled)
}

/// How old a page may be for a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Wanted {
    /// The request's own limit.
    pub max_age: Duration,
    /// Whether the origin's word counts as well (RFC 9111).
    pub by_origin: bool,
}

/// What the cache has under a key.
#[derive(Debug)]
pub enum Found {
    /// A page that may be used as it is.
    Fresh(Arc<Entry>),
    /// A page that is too old for this request.
    Stale(Arc<Entry>),
    /// No page.
    Nothing,
}

/// The cache right now.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct CacheStats {
    /// Pages.
    pub entries: u64,
    /// What they weigh, in bytes.
    pub bytes: u64,
    /// What they may weigh, in bytes; 0: there is no cache.
    pub bytes_max: u64,
    /// Pages that went to make room, or were too large to be kept at all.
    pub evictions: u64,
}

/// See the module.
pub struct PageCache {
    /// `None` where its size is set to nothing.
    pages: Option<Cache<Key, Arc<Entry>, Weight, DefaultHashBuilder, Evictions>>,
    bytes_max: u64,
    ttls: Ttls,
    evictions: Arc<AtomicU64>,
}

impl PageCache {
    /// An empty cache of so many bytes; with 0 it never keeps anything.
    #[must_use]
    pub fn new(bytes_max: u64, ttls: Ttls) -> Self {
        let evictions = Arc::<AtomicU64>::default();
        let pages = (bytes_max > 0).then(|| {
            let items = usize::try_from(bytes_max / PAGE_BYTES_GUESS).unwrap_or(usize::MAX);
            let mut options = OptionsBuilder::new();
            options.estimated_items_capacity(items.max(1)).weight_capacity(bytes_max);
            let options = options.build().expect("both capacities are given");
            let lifecycle = Evictions(Arc::clone(&evictions));
            Cache::with_options(options, Weight, DefaultHashBuilder::default(), lifecycle)
        });
        Self { pages, bytes_max, ttls, evictions }
    }

    /// Looks a page up.
    #[must_use]
    pub fn look(&self, key: Key, wanted: &Wanted, now: Instant) -> Found {
        match self.pages.as_ref().and_then(|pages| pages.get(&key)) {
            Some(entry) if entry.is_fresh(wanted, now) => Found::Fresh(entry),
            Some(entry) => Found::Stale(entry),
            None => Found::Nothing,
        }
    }

    /// Keeps a page in place of the one that was there; not one whose kind has no time.
    pub fn store(&self, key: Key, entry: &Arc<Entry>) {
        if let Some(pages) = self.pages.as_ref().filter(|_| !entry.ttl.is_zero()) {
            pages.insert(key, Arc::clone(entry));
        }
    }

    /// Whether it was given no bytes: nothing is kept, and nothing is fetched for two.
    #[must_use]
    pub const fn is_off(&self) -> bool {
        self.pages.is_none()
    }

    /// For how long answers may be used.
    #[must_use]
    pub const fn ttls(&self) -> &Ttls {
        &self.ttls
    }

    /// The cache right now.
    #[must_use]
    pub fn stats(&self) -> CacheStats {
        let pages = self.pages.as_ref();
        CacheStats {
            entries: pages.map_or(0, |pages| pages.len() as u64),
            bytes: pages.map_or(0, Cache::weight),
            bytes_max: self.bytes_max,
            evictions: self.evictions.load(Ordering::Relaxed),
        }
    }
}

/// Weighs pages by their bytes.
#[derive(Debug, Clone, Copy)]
struct Weight;

impl Weighter<Key, Arc<Entry>> for Weight {
    fn weight(&self, _: &Key, entry: &Arc<Entry>) -> u64 {
        entry.bytes() as u64 + ENTRY_BYTES
    }
}

/// Counts the pages that go; they are dropped when the shard's lock is free again.
#[derive(Debug, Clone)]
struct Evictions(Arc<AtomicU64>);

impl Lifecycle<Key, Arc<Entry>> for Evictions {
    type RequestState = Vec<Arc<Entry>>;

    fn on_evict(&self, gone: &mut Vec<Arc<Entry>>, _: Key, entry: Arc<Entry>) {
        self.0.fetch_add(1, Ordering::Relaxed);
        gone.push(entry);
    }
}

#[cfg(test)]
#[path = "tests.rs"]
mod tests;
