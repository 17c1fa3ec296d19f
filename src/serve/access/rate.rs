//! Rates: GCRA by `governor`, for one key or for each of many addresses, in bounded memory; and what
//! is told of them by `RateLimit` and `RateLimit-Policy`.
//!
//! The clock is a type parameter: the server's is monotonic time, a test's is moved by hand.

use super::table::AddressKey;
use crate::limits::RATED_ADDRESSES_MAX;
use governor::clock::{Clock, DefaultClock, Reference};
use governor::middleware::{StateInformationMiddleware, StateSnapshot};
use governor::nanos::Nanos;
use governor::state::{NotKeyed, StateStore};
use governor::{NotUntil, Quota, RateLimiter};
use std::collections::HashMap;
use std::fmt::Write as _;
use std::num::NonZeroU32;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

/// Shards of the table of addresses, so that cores seldom meet at a lock.
const SHARDS: usize = 64;
/// What every quota is for.
const WINDOW_S: u32 = 60;

/// What a rate allows: so many within a minute, at once or spread.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Reading {
    /// Whether it was allowed.
    pub allowed: bool,
    /// How many within the window.
    pub quota: u32,
    /// How many more now.
    pub remaining: u32,
    /// After that time there is more: all of the quota, or one where there was none.
    pub reset: Duration,
}

impl Reading {
    fn of(outcome: Result<StateSnapshot, (u32, Duration)>, quota: u32) -> Self {
        match outcome {
            Ok(snapshot) => {
                let remaining = snapshot.remaining_burst_capacity();
                let used = u64::from(quota.saturating_sub(remaining));
                let nanos = used * u64::from(WINDOW_S) * 1_000_000_000 / u64::from(quota.max(1));
                Self { allowed: true, quota, remaining, reset: Duration::from_nanos(nanos) }
            }
            Err((remaining, reset)) => Self { allowed: false, quota, remaining, reset },
        }
    }
}

/// Writes one policy's members of the two fields (draft-ietf-httpapi-ratelimit-headers-11 §3, §4):
/// structured field lists (RFC 9651), so a member is appended behind a comma.
pub fn write_fields(name: &str, reading: &Reading, policy: &mut String, state: &mut String) {
    for out in [&mut *policy, &mut *state] {
        if !out.is_empty() {
            out.push_str(", ");
        }
    }
    let reset = reading.reset.as_secs() + u64::from(reading.reset.subsec_nanos() > 0);
    write!(policy, "\"{name}\";q={};w={WINDOW_S}", reading.quota)
        .and_then(|()| write!(state, "\"{name}\";r={};t={reset}", reading.remaining))
        .expect("writing to a String can't fail");
}

/// One rate; several cores use it at once.
#[derive(Debug)]
pub struct Rate<C: Clock = DefaultClock> {
    limiter: RateLimiter<NotKeyed, FullAt, C, StateInformationMiddleware>,
    full_at: FullAt,
    /// What `full_at` counts from.
    epoch: C::Instant,
    quota: u32,
}

impl<C: Clock> Rate<C> {
    /// So many a minute; `None` for 0, which is no limit.
    pub fn per_minute(quota: u32, clock: C) -> Option<Self> {
        let limit = Quota::per_minute(NonZeroU32::new(quota)?);
        let (full_at, epoch) = (FullAt::default(), clock.now());
        let limiter = RateLimiter::new(limit, full_at.clone(), clock);
        Some(Self { limiter, full_at, epoch, quota })
    }

    /// Asks for `n` at once; all or nothing. `None` where the quota is below `n`: never.
    pub fn take(&self, n: NonZeroU32) -> Option<Reading> {
        let outcome = self.limiter.check_n(n).ok()?;
        let now = self.limiter.clock().now();
        Some(Reading::of(outcome.map_err(|not| (0, wait(&not, now))), self.quota))
    }

    /// The bucket is not full again before so long: others have taken from it.
    pub fn owe(&self, debt: Duration) {
        let now = self.limiter.clock().now().duration_since(self.epoch).as_u64();
        let debt = u64::try_from(debt.as_nanos()).unwrap_or(u64::MAX);
        self.full_at.0.fetch_max(now.saturating_add(debt), Ordering::AcqRel);
    }
}

/// When a bucket is full again, in ns since its rate was made.
#[derive(Debug, Clone, Default)]
struct FullAt(Arc<AtomicU64>);

impl StateStore for FullAt {
    type Key = NotKeyed;

    fn measure_and_replace<T, F, E>(&self, _: &NotKeyed, f: F) -> Result<T, E>
    where
        F: Fn(Option<Nanos>) -> Result<(T, Nanos), E>,
    {
        let mut before = self.0.load(Ordering::Acquire);
        loop {
            let (answer, after) = f((before > 0).then(|| Nanos::from(before)))?;
            let (set, get) = (Ordering::AcqRel, Ordering::Acquire);
            match self.0.compare_exchange_weak(before, after.as_u64(), set, get) {
                Ok(_) => return Ok(answer),
                Err(now) => before = now,
            }
        }
    }
}

/// The same rate for each address.
#[derive(Debug)]
pub struct AddressRate<C: Clock = DefaultClock> {
    limiter: RateLimiter<AddressKey, Addresses, C, StateInformationMiddleware>,
    quota: u32,
}

impl<C: Clock> AddressRate<C> {
    /// So many a minute for each address; `None` for 0, which is no limit.
    pub fn per_minute(quota: u32, clock: C) -> Option<Self> {
        let limit = Quota::per_minute(NonZeroU32::new(quota)?);
        let limiter = RateLimiter::new(limit, Addresses::new(RATED_ADDRESSES_MAX), clock);
        Some(Self { limiter, quota })
    }

    /// Asks for one.
    pub fn take(&self, address: AddressKey) -> Reading {
        let outcome = self.limiter.check_key(&address);
        let now = self.limiter.clock().now();
        Reading::of(outcome.map_err(|not| (0, wait(&not, now))), self.quota)
    }
}

fn wait<R: Reference>(not: &NotUntil<R>, now: R) -> Duration {
    not.wait_time_from(now)
}

/// When each address' bucket is full again, for at most so many addresses. Where there is no room
/// for another one, the address whose bucket is full soonest is forgotten: it had least to lose.
#[derive(Debug)]
struct Addresses {
    shards: Vec<Mutex<HashMap<AddressKey, u64>>>,
    per_shard: usize,
}

impl Addresses {
    fn new(most: usize) -> Self {
        let shards = (0..SHARDS).map(|_| Mutex::default()).collect();
        Self { shards, per_shard: most.div_ceil(SHARDS) }
    }
}

impl StateStore for Addresses {
    type Key = AddressKey;

    fn measure_and_replace<T, F, E>(&self, key: &AddressKey, f: F) -> Result<T, E>
    where
        F: Fn(Option<Nanos>) -> Result<(T, Nanos), E>,
    {
        let shard = &self.shards[key.shard(SHARDS)];
        let mut known = shard.lock().unwrap_or_else(PoisonError::into_inner);
        let (answer, full_at) = f(known.get(key).copied().map(Nanos::from))?;
        if known.len() >= self.per_shard && !known.contains_key(key) {
            let soonest = known.iter().min_by_key(|(_, full_at)| **full_at).map(|(key, _)| *key);
            soonest.and_then(|key| known.remove(&key));
        }
        known.insert(*key, full_at.as_u64());
        Ok(answer)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test may panic")]
    use super::*;
    use governor::clock::FakeRelativeClock;
    use std::net::IpAddr;

    fn one() -> NonZeroU32 {
        NonZeroU32::MIN
    }

    #[test]
    fn a_burst_then_the_pace_and_the_wait_is_exact() {
        let clock = FakeRelativeClock::default();
        let rate = Rate::per_minute(3, clock.clone()).unwrap();
        let left: Vec<u32> = (0..3).map(|_| rate.take(one()).unwrap().remaining).collect();
        assert_eq!(left, [2, 1, 0]);
        let refused = rate.take(one()).unwrap();
        assert!(!refused.allowed);
        assert_eq!(refused.reset, Duration::from_secs(20));
        clock.advance(Duration::from_millis(19_999));
        assert!(!rate.take(one()).unwrap().allowed);
        clock.advance(Duration::from_millis(1));
        assert!(rate.take(one()).unwrap().allowed);
    }

    #[test]
    fn what_others_have_taken_is_gone_and_is_earned_again() {
        let clock = FakeRelativeClock::default();
        let rate = Rate::per_minute(60, clock.clone()).unwrap();
        clock.advance(Duration::from_secs(100));
        rate.owe(Duration::from_secs(58));
        assert_eq!(rate.take(one()).unwrap().remaining, 1);
        rate.owe(Duration::from_secs(3));
        assert!(rate.take(one()).unwrap().allowed, "what is known already is not owed twice");
        rate.owe(Duration::from_secs(64));
        let refused = rate.take(one()).unwrap();
        assert!(!refused.allowed);
        assert_eq!(refused.reset, Duration::from_secs(5));
        clock.advance(Duration::from_secs(5));
        assert!(rate.take(one()).unwrap().allowed);
        rate.owe(Duration::MAX);
        assert!(!rate.take(one()).unwrap().allowed);
    }

    #[test]
    fn many_at_once_are_all_or_nothing() {
        let rate = Rate::per_minute(10, FakeRelativeClock::default()).unwrap();
        let n = |n| NonZeroU32::new(n).unwrap();
        assert_eq!(rate.take(n(8)).unwrap().remaining, 2);
        assert!(!rate.take(n(3)).unwrap().allowed);
        assert!(rate.take(n(2)).unwrap().allowed);
        assert!(rate.take(n(11)).is_none());
        assert!(Rate::per_minute(0, FakeRelativeClock::default()).is_none());
    }

    #[test]
    fn addresses_do_not_disturb_each_other_and_a_network_of_ipv6_is_one() {
        let rate = AddressRate::per_minute(1, FakeRelativeClock::default()).unwrap();
        let take = |text: &str| rate.take(AddressKey::of(text.parse::<IpAddr>().unwrap())).allowed;
        assert!(take("192.0.2.1") && take("192.0.2.2") && !take("192.0.2.1"));
        assert!(take("2001:db8::1") && !take("2001:db8::ffff:1") && take("2001:db8:0:1::1"));
        assert!(!take("::ffff:192.0.2.1"));
    }

    #[test]
    fn a_flood_of_addresses_forgets_the_most_harmless() {
        let table = Addresses::new(SHARDS);
        let measured = |key: AddressKey, full_at: u64| {
            let known = |before: Option<Nanos>| Ok::<_, ()>((before, Nanos::from(full_at)));
            table.measure_and_replace(&key, known).unwrap()
        };
        for n in 0..10_000_u32 {
            measured(AddressKey::of(IpAddr::from(n.to_be_bytes())), u64::from(n));
        }
        let held: usize = table.shards.iter().map(|shard| shard.lock().unwrap().len()).sum();
        assert!(held <= SHARDS, "{held}");
        let last = AddressKey::of(IpAddr::from(9_999_u32.to_be_bytes()));
        assert_eq!(measured(last, 1), Some(Nanos::from(9_999_u64)));
    }

    #[test]
    fn fields_are_lists_of_structured_items() {
        let (mut policy, mut state) = (String::new(), String::new());
        let reset = Duration::from_millis(1_500);
        let reading = Reading { allowed: true, quota: 60, remaining: 7, reset };
        write_fields("address", &reading, &mut policy, &mut state);
        write_fields("key", &reading, &mut policy, &mut state);
        assert_eq!(policy, "\"address\";q=60;w=60, \"key\";q=60;w=60");
        assert_eq!(state, "\"address\";r=7;t=2, \"key\";r=7;t=2");
    }
}
