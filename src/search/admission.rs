//! When a provider may be asked: a rate, so that its bill is bounded, and a breaker, so that one that
//! is down costs requests nothing but their search. Without a clock.

use super::SearchError;
use crate::limits::RETRY_AFTER_MAX;
use std::time::{Duration, Instant};

/// Failures one after the other that open the breaker.
const FAILURES_MAX: u32 = 5;
/// For how long it stays open at first, and at most; each failed probe doubles it.
const REST: (Duration, Duration) = (Duration::from_secs(5), Duration::from_secs(300));
/// How long a probe may take before another may try.
const PROBE: Duration = Duration::from_secs(60);

/// See the module.
#[derive(Debug)]
pub struct Admission {
    /// Time between two queries at the full rate; zero: no limit.
    interval: Duration,
    /// When the bucket would be full again; a bucket holds a minute's queries.
    full_at: Option<Instant>,
    failures: u32,
    /// No query before this.
    resting_until: Option<Instant>,
    /// One query is under way that shows whether the rest is over.
    probing: bool,
    rest: Duration,
}

impl Admission {
    /// So many queries a minute; 0: no limit.
    #[must_use]
    pub fn new(queries_per_min: u32) -> Self {
        let interval = Duration::from_secs(60).checked_div(queries_per_min).unwrap_or_default();
        Self {
            interval,
            full_at: None,
            failures: 0,
            resting_until: None,
            probing: false,
            rest: REST.0,
        }
    }

    /// Takes a place for one query.
    ///
    /// # Errors
    /// `Quota` or `Resting`, with the time to come back.
    pub fn admit(&mut self, now: Instant) -> Result<(), SearchError> {
        if let Some(until) = self.resting_until.filter(|until| now < *until) {
            return Err(SearchError::Resting(until - now));
        }
        if !self.interval.is_zero() {
            let full_at = self.full_at.filter(|at| *at > now).unwrap_or(now) + self.interval;
            let room = now + Duration::from_secs(60);
            if full_at > room {
                return Err(SearchError::Quota(full_at - room));
            }
            self.full_at = Some(full_at);
        }
        if self.resting_until.is_some() {
            // Half open: one may try, the others wait for what it finds.
            self.resting_until = Some(now + PROBE);
            self.probing = true;
        }
        Ok(())
    }

    /// A query was answered.
    pub const fn succeeded(&mut self) {
        self.failures = 0;
        self.resting_until = None;
        self.probing = false;
        self.rest = REST.0;
    }

    /// A query failed by the provider's fault; `rest`: it said, or we know, for how long it is of no
    /// use to ask again.
    pub fn failed(&mut self, now: Instant, rest: Option<Duration>) {
        self.failures = self.failures.saturating_add(1);
        let probed = std::mem::take(&mut self.probing);
        let rest = match rest {
            Some(rest) => rest.min(RETRY_AFTER_MAX),
            None if probed || self.failures >= FAILURES_MAX => {
                let rest = self.rest;
                self.rest = (rest * 2).min(REST.1);
                rest
            }
            None => return,
        };
        self.resting_until = Some(now + rest);
    }

    /// A query ended without a word about the provider: who probed with it leaves that to another.
    pub const fn given_up(&mut self, now: Instant) {
        if self.probing {
            self.probing = false;
            self.resting_until = Some(now);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn a_breaker_opens_probes_and_heals() {
        let (mut admission, mut now) = (Admission::new(0), Instant::now());
        for _ in 0..FAILURES_MAX {
            assert_eq!(admission.admit(now), Ok(()));
            admission.failed(now, None);
        }
        assert_eq!(admission.admit(now), Err(SearchError::Resting(REST.0)));
        now += REST.0;
        assert_eq!(admission.admit(now), Ok(()), "the probe");
        assert!(admission.admit(now).is_err(), "one at a time");
        admission.failed(now, None);
        assert_eq!(admission.admit(now), Err(SearchError::Resting(REST.0 * 2)), "longer each time");
        now += REST.0 * 2;
        assert_eq!(admission.admit(now), Ok(()));
        admission.given_up(now);
        assert_eq!(admission.admit(now), Ok(()), "another probe");
        admission.succeeded();
        assert_eq!(admission.admit(now), Ok(()));
        assert_eq!(admission.admit(now), Ok(()));
    }

    #[test]
    fn who_asks_to_be_left_alone_is() {
        let (mut admission, now) = (Admission::new(0), Instant::now());
        assert_eq!(admission.admit(now), Ok(()));
        admission.failed(now, Some(SECOND * 7));
        assert_eq!(admission.admit(now), Err(SearchError::Resting(SECOND * 7)));
        assert_eq!(admission.admit(now + SECOND * 7), Ok(()));
    }

    proptest! {
        /// Whatever the arrivals: no minute has more than its rate and the bucket, and whoever comes
        /// back when told gets in.
        #[test]
        fn the_rate_holds_and_retry_after_is_true(
            rate in 1_u32..100,
            gaps in proptest::collection::vec(0_u64..3_000, 1..400),
        ) {
            let (mut admission, start) = (Admission::new(rate), Instant::now());
            let (mut now, mut taken) = (start, 0_u32);
            for gap in gaps {
                now += Duration::from_millis(gap);
                match admission.admit(now) {
                    Ok(()) => taken += 1,
                    Err(SearchError::Quota(after)) => {
                        now += after;
                        prop_assert_eq!(admission.admit(now), Ok(()));
                        taken += 1;
                    }
                    Err(other) => prop_assert!(false, "{other:?}"),
                }
            }
            let minutes = (now - start).as_secs_f64() / 60.0;
            prop_assert!(f64::from(taken) <= f64::from(rate) * (minutes + 1.0) + 1.0);
        }
    }
}
