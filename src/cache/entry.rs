//! One page as the cache keeps it.

use super::Wanted;
use super::freshness::Freshness;
use crate::proto::events::{CacheUse, Document, PageResult, Stored};
use crate::proto::text::Text;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

/// What an origin knows its answer by (RFC 9110 §8.8).
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Validators {
    /// `ETag`.
    pub etag: Option<String>,
    /// `Last-Modified`.
    pub last_modified: Option<String>,
}

/// A page, with or without a document; never changed once it is made.
#[derive(Debug, Clone)]
pub struct Entry {
    /// The page as a result; its URL, its times and what it says of the cache are left out.
    page: PageResult,
    /// The same as ready JSON; shares the document's bytes with `page`.
    pub stored: Arc<Stored>,
    /// What its origin knows it by.
    pub validators: Validators,
    /// What its origin says of its use.
    pub freshness: Freshness,
    /// For how long it may be used.
    pub ttl: Duration,
    /// When it came, or was last said to hold.
    pub since: Instant,
    /// Whom the search index has it for.
    pub told: Arc<Told>,
}

/// Owners that are kept of one page; of more, the oldest is told again.
const OWNERS_MAX: usize = 64;

/// For which owners a page has been handed to somebody who keeps it for each: so that a hit, which is
/// all that most requests are, need not do it again. An owner is a number that is not zero.
#[derive(Debug, Default)]
pub struct Told {
    /// Whoever was asked about last.
    last: AtomicU64,
    all: Mutex<Vec<u64>>,
}

impl Told {
    /// Takes it upon the caller to hand the page over for an owner: `true` the first time. Where the
    /// owner is the same as the last time this is one load.
    #[must_use]
    pub fn claim(&self, owner: u64) -> bool {
        if self.last.load(Ordering::Relaxed) == owner {
            return false;
        }
        let mut all = self.all.lock().unwrap_or_else(PoisonError::into_inner);
        self.last.store(owner, Ordering::Relaxed);
        if all.contains(&owner) {
            return false;
        }
        if all.len() >= OWNERS_MAX {
            all.remove(0);
        }
        all.push(owner);
        true
    }

    /// It could not be handed over: another time.
    pub fn release(&self, owner: u64) {
        let mut all = self.all.lock().unwrap_or_else(PoisonError::into_inner);
        all.retain(|other| *other != owner);
        self.last.store(0, Ordering::Relaxed);
    }
}

impl Entry {
    /// An entry of a page that came at `since`.
    #[must_use]
    pub fn new(
        page: &PageResult,
        validators: Validators,
        freshness: Freshness,
        ttl: Duration,
        since: Instant,
    ) -> Self {
        let page = PageResult {
            url: Text::from(""),
            timings: crate::timings::Timings::default(),
            ready: None,
            cache: CacheUse::Hit,
            ..page.clone()
        };
        let stored = Arc::new(Stored::new(&page));
        let told = Arc::default();
        Self { page, stored, validators, freshness, ttl, since, told }
    }

    /// The page as the result of a URL.
    #[must_use]
    pub fn page(&self, url: Text, cache: CacheUse) -> PageResult {
        PageResult { url, cache, ..self.page.clone() }
    }

    /// The same page, said to hold at `now`; validators that came with that word replace the old.
    #[must_use]
    pub fn refreshed(&self, told: Validators, freshness: Freshness, now: Instant) -> Self {
        let validators = Validators {
            etag: told.etag.or_else(|| self.validators.etag.clone()),
            last_modified: told.last_modified.or_else(|| self.validators.last_modified.clone()),
        };
        Self { validators, freshness, since: now, ..self.clone() }
    }

    /// Whether it may be used for a request.
    #[must_use]
    pub fn is_fresh(&self, wanted: &Wanted, now: Instant) -> bool {
        let age = now.saturating_duration_since(self.since);
        // Strictly: with `max_age_s` 0 not even a page of this very moment will do.
        age < self.ttl.min(wanted.max_age) && (!wanted.by_origin || self.freshness.holds(age))
    }

    /// Whether it should stay where another came that failed: it is a page, and its time is not over.
    #[must_use]
    pub fn outlives(&self, other: &Self, now: Instant) -> bool {
        let failed = |entry: &Self| entry.page.error.is_some() || entry.page.status >= 500;
        let age = now.saturating_duration_since(self.since);
        failed(other) && !failed(self) && age < self.ttl
    }

    /// The document, where anybody may find it: of an answer of 2xx that its origin keeps from nobody,
    /// and that does not say `noindex`.
    #[must_use]
    pub fn findable(&self) -> Option<&Document> {
        let refused = self.page.about.as_ref().is_some_and(|about| about.noindex);
        let good = (200..300).contains(&self.page.status) && !refused && !self.freshness.never;
        self.page.document.as_ref().filter(|_| good)
    }

    /// The URL that answered.
    #[must_use]
    pub fn final_url(&self) -> Option<&str> {
        self.page.final_url.as_deref()
    }

    /// Whether its origin can be asked if it still holds.
    #[must_use]
    pub const fn can_be_vouched_for(&self) -> bool {
        let known = self.validators.etag.is_some() || self.validators.last_modified.is_some();
        known && self.page.document.is_some()
    }

    /// Bytes of its texts.
    #[must_use]
    pub fn bytes(&self) -> usize {
        let text = |text: Option<&String>| text.map_or(0, String::len);
        let quality =
            self.page.document.as_ref().map_or(0, |Document { quality, .. }| quality.len());
        self.stored.len()
            + quality
            + text(self.page.final_url.as_ref())
            + text(self.validators.etag.as_ref())
            + text(self.validators.last_modified.as_ref())
            + self.page.about.as_ref().map_or(0, |about| about.bytes())
            + self.page.error.as_ref().map_or(0, |error| error.message.len())
    }
}
