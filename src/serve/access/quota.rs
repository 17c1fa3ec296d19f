//! What one API key may use, and has used.

use super::rate::{Rate, Reading};
use crate::stream::place::Place;
use governor::clock::DefaultClock;
use std::num::NonZeroU32;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

/// What a budget of bytes is for.
const MINUTE_NS: u64 = 60_000_000_000;

/// A key's limits; 0 is no limit.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct KeyLimits {
    /// Requests a minute.
    pub requests_per_min: u32,
    /// URLs a minute, over all its requests.
    pub urls_per_min: u32,
    /// Bytes of answers a minute.
    pub bytes_per_min: u64,
    /// Requests at a time.
    pub concurrency: usize,
    /// Streams at a time.
    pub streams: usize,
    /// Connections at a time.
    pub connections: usize,
}

/// A key's limits and what of them is used; all cores share it.
#[derive(Debug)]
pub struct KeyQuota {
    limits: KeyLimits,
    requests: Option<Rate>,
    urls: Option<Rate>,
    bytes: ByteBudget,
    running: Arc<AtomicUsize>,
    streams: Arc<AtomicUsize>,
    connections: Arc<AtomicUsize>,
}

/// What there is of a limit on things at a time.
pub type Bounded = Result<Option<Place>, usize>;

impl KeyQuota {
    /// With nothing used.
    #[must_use]
    pub fn new(limits: KeyLimits) -> Self {
        Self {
            requests: Rate::per_minute(limits.requests_per_min, DefaultClock::default()),
            urls: Rate::per_minute(limits.urls_per_min, DefaultClock::default()),
            bytes: ByteBudget::new(limits.bytes_per_min, Instant::now()),
            running: Arc::default(),
            streams: Arc::default(),
            connections: Arc::default(),
            limits,
        }
    }

    /// The limits.
    #[must_use]
    pub const fn limits(&self) -> &KeyLimits {
        &self.limits
    }

    /// Asks for one request; `None` without a limit.
    pub fn take_request(&self) -> Option<Reading> {
        self.requests.as_ref()?.take(NonZeroU32::MIN)
    }

    /// Asks for so many URLs.
    ///
    /// # Errors
    /// How long to wait; or, where the limit is below `urls`, the limit.
    pub fn take_urls(&self, urls: usize) -> Result<(), UrlsRefused> {
        let (Some(rate), Some(n)) =
            (&self.urls, NonZeroU32::new(u32::try_from(urls).unwrap_or(u32::MAX)))
        else {
            return Ok(());
        };
        match rate.take(n) {
            None => Err(UrlsRefused::Never(self.limits.urls_per_min)),
            Some(reading) if reading.allowed => Ok(()),
            Some(reading) => Err(UrlsRefused::Later(reading.reset)),
        }
    }

    /// One more request at a time.
    ///
    /// # Errors
    /// The limit.
    pub fn begin_request(&self) -> Bounded {
        begin(&self.running, self.limits.concurrency)
    }

    /// One more stream; the place is the stream's for as long as it runs.
    ///
    /// # Errors
    /// The limit.
    pub fn begin_stream(&self) -> Bounded {
        begin(&self.streams, self.limits.streams)
    }

    /// One more connection.
    ///
    /// # Errors
    /// The limit.
    pub fn begin_connection(&self) -> Bounded {
        begin(&self.connections, self.limits.connections)
    }

    /// The budget of bytes.
    #[must_use]
    pub const fn bytes(&self) -> &ByteBudget {
        &self.bytes
    }
}

/// Why URLs are refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum UrlsRefused {
    /// After that time there is room for them.
    Later(Duration),
    /// There is never room for so many: the limit.
    Never(u32),
}

fn begin(taken: &Arc<AtomicUsize>, most: usize) -> Bounded {
    if most == 0 {
        return Ok(None);
    }
    Place::take(taken, most).map(Some).ok_or(most)
}

/// Bytes a minute, paid for afterwards, because an answer's length is known when it is written: who
/// has overdrawn waits until a minute's worth covers it.
#[derive(Debug)]
pub struct ByteBudget {
    per_min: u64,
    epoch: Instant,
    /// When everything spent will have been earned, in ns since the epoch.
    earned_at_ns: AtomicU64,
}

impl ByteBudget {
    fn new(per_min: u64, epoch: Instant) -> Self {
        Self { per_min, epoch, earned_at_ns: AtomicU64::new(0) }
    }

    /// How long to wait before more may be spent.
    #[must_use]
    pub fn overdrawn(&self, now: Instant) -> Option<Duration> {
        let full = self.since_epoch(now).saturating_add(MINUTE_NS);
        let over = self.earned_at_ns.load(Ordering::Relaxed).saturating_sub(full);
        (self.per_min > 0 && over > 0).then(|| Duration::from_nanos(over))
    }

    /// Pays for what was sent.
    pub fn charge(&self, now: Instant, bytes: u64) {
        if self.per_min == 0 {
            return;
        }
        let cost = u128::from(bytes) * u128::from(MINUTE_NS) / u128::from(self.per_min);
        let cost = u64::try_from(cost).unwrap_or(u64::MAX);
        let now = self.since_epoch(now);
        let add = |earned_at: u64| Some(earned_at.max(now).saturating_add(cost));
        let _ = self.earned_at_ns.fetch_update(Ordering::Relaxed, Ordering::Relaxed, add);
    }

    fn since_epoch(&self, now: Instant) -> u64 {
        let since = now.saturating_duration_since(self.epoch).as_nanos();
        u64::try_from(since).unwrap_or(u64::MAX)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test may panic")]
    use super::*;

    #[test]
    fn bytes_are_paid_for_afterwards() {
        let start = Instant::now();
        let budget = ByteBudget::new(6_000, start);
        budget.charge(start, 6_000);
        assert_eq!(budget.overdrawn(start), None);
        budget.charge(start, 100);
        assert_eq!(budget.overdrawn(start), Some(Duration::from_secs(1)));
        assert_eq!(budget.overdrawn(start + Duration::from_secs(1)), None);
        budget.charge(start, u64::MAX);
        assert!(budget.overdrawn(start).is_some());
        let none = ByteBudget::new(0, start);
        none.charge(start, u64::MAX);
        assert_eq!(none.overdrawn(start), None);
    }

    #[test]
    fn urls_that_never_fit_are_told_from_those_that_fit_later() {
        let quota = KeyQuota::new(KeyLimits { urls_per_min: 10, ..KeyLimits::default() });
        assert_eq!(quota.take_urls(11), Err(UrlsRefused::Never(10)));
        assert_eq!(quota.take_urls(10), Ok(()));
        assert!(matches!(quota.take_urls(1), Err(UrlsRefused::Later(_))));
        assert_eq!(KeyQuota::new(KeyLimits::default()).take_urls(usize::MAX), Ok(()));
    }

    #[test]
    fn what_runs_is_bounded() {
        let quota = KeyQuota::new(KeyLimits { streams: 1, ..KeyLimits::default() });
        let stream = quota.begin_stream().unwrap();
        assert_eq!(quota.begin_stream().unwrap_err(), 1);
        assert!(quota.begin_request().unwrap().is_none());
        drop(stream);
        assert!(quota.begin_stream().unwrap().is_some());
    }
}
