//! What one API key may use, and has used.

use super::rate::{Rate, Reading};
use super::share::{Each, Ledger, Rated};
use crate::stream::place::Place;
use governor::clock::DefaultClock;
use std::num::NonZeroU32;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

/// What a budget of bytes is for.
const MINUTE_NS: u64 = 60_000_000_000;
/// The most that is told at once, in µs: a day, so that what Redis adds up stays an exact number.
const COST_US_MAX: u64 = 86_400_000_000;

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
    ledger: Ledger,
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
            ledger: Ledger::new(),
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
        let reading = self.requests.as_ref()?.take(NonZeroU32::MIN)?;
        if reading.allowed {
            self.ledger.note(Rated::Requests, 1);
        }
        Some(reading)
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
            Some(reading) if reading.allowed => {
                self.ledger.note(Rated::Urls, u64::from(n.get()));
                Ok(())
            }
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

    /// How long to wait before there may be more bytes.
    #[must_use]
    pub fn overdrawn(&self, now: Instant) -> Option<Duration> {
        self.bytes.overdrawn(now)
    }

    /// Pays for bytes that were sent.
    pub fn charge(&self, now: Instant, bytes: u64) {
        if self.limits.bytes_per_min > 0 {
            self.bytes.charge(now, bytes);
            self.ledger.note(Rated::Bytes, bytes);
        }
    }

    /// What all nodes share of it.
    pub(super) const fn ledger(&self) -> &Ledger {
        &self.ledger
    }

    /// Whether there is a limit on anything in a minute.
    pub(super) const fn is_rated(&self) -> bool {
        self.requests.is_some() || self.urls.is_some() || self.limits.bytes_per_min > 0
    }

    /// In how many µs so many are earned, each by its own limit.
    pub(super) fn costs_us(&self, counts: Each) -> Each {
        let limits = &self.limits;
        let per_min = [
            u64::from(limits.requests_per_min),
            u64::from(limits.urls_per_min),
            limits.bytes_per_min,
        ];
        std::array::from_fn(|at| {
            let cost = u128::from(counts[at]) * u128::from(MINUTE_NS / 1000);
            let cost = cost.checked_div(u128::from(per_min[at])).unwrap_or_default();
            u64::try_from(cost).unwrap_or(u64::MAX).min(COST_US_MAX)
        })
    }

    /// All nodes together have used so much that it is earned in so many µs; what this one has not
    /// told yet comes on top.
    pub(super) fn hear(&self, debts_us: Each) {
        let untold = self.costs_us(self.ledger.untold());
        let debt = |what: Rated| {
            Duration::from_micros(debts_us[what as usize].saturating_add(untold[what as usize]))
        };
        for (rate, what) in [(&self.requests, Rated::Requests), (&self.urls, Rated::Urls)] {
            if let Some(rate) = rate {
                rate.owe(debt(what));
            }
        }
        self.bytes.owe(Instant::now(), debt(Rated::Bytes));
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
struct ByteBudget {
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
    fn overdrawn(&self, now: Instant) -> Option<Duration> {
        let full = self.since_epoch(now).saturating_add(MINUTE_NS);
        let over = self.earned_at_ns.load(Ordering::Relaxed).saturating_sub(full);
        (self.per_min > 0 && over > 0).then(|| Duration::from_nanos(over))
    }

    /// Not less than so much has to be earned.
    fn owe(&self, now: Instant, debt: Duration) {
        let debt = u64::try_from(debt.as_nanos()).unwrap_or(u64::MAX);
        let earned_at = self.since_epoch(now).saturating_add(debt);
        self.earned_at_ns.fetch_max(earned_at, Ordering::Relaxed);
    }

    /// Pays for what was sent.
    fn charge(&self, now: Instant, bytes: u64) {
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

    /// Redis' side of the script, at a standstill of its clock.
    fn settle(quotas: &[&KeyQuota]) {
        let told = quotas.iter().map(|quota| quota.costs_us(quota.ledger.untold()));
        let debts =
            told.fold(Each::default(), |all, costs| std::array::from_fn(|at| all[at] + costs[at]));
        // Each has its own on top until it has told.
        for quota in quotas {
            let own = quota.costs_us(quota.ledger.untold());
            quota.hear(std::array::from_fn(|at| debts[at] - own[at]));
        }
    }

    #[test]
    fn what_another_node_has_let_through_is_not_there_for_this_one() {
        let limits = KeyLimits {
            requests_per_min: 10,
            urls_per_min: 100,
            bytes_per_min: 1_000,
            ..KeyLimits::default()
        };
        let (one, other) = (KeyQuota::new(limits.clone()), KeyQuota::new(limits));
        for _ in 0..6 {
            assert!(one.take_request().unwrap().allowed);
        }
        assert_eq!(one.take_urls(70), Ok(()));
        one.charge(Instant::now(), 1_500);
        settle(&[&one, &other]);
        let reading = other.take_request().unwrap();
        assert!(reading.allowed && reading.remaining == 3, "{reading:?}");
        assert!(matches!(other.take_urls(40), Err(UrlsRefused::Later(_))));
        assert_eq!(other.take_urls(30), Ok(()));
        let wait = other.overdrawn(Instant::now()).unwrap();
        assert!(wait > Duration::from_secs(29) && wait <= Duration::from_secs(30), "{wait:?}");
        assert_eq!(other.ledger.untold(), [1, 30, 0], "what is refused is not told");
    }

    #[test]
    fn costs_are_times_and_bounded() {
        let limits = KeyLimits { requests_per_min: 60, bytes_per_min: 1, ..KeyLimits::default() };
        let quota = KeyQuota::new(limits);
        assert_eq!(quota.costs_us([3, 7, u64::MAX]), [3_000_000, 0, COST_US_MAX]);
        assert!(quota.is_rated() && !KeyQuota::new(KeyLimits::default()).is_rated());
        quota.hear([u64::MAX; 3]);
        assert!(!quota.take_request().unwrap().allowed);
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
