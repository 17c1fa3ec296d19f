//! When requests are meant to start. The schedule never looks at answers: that is what makes a
//! loop open.

use crate::num;
use crate::rng::Rng;
use crate::units;
use std::time::Duration;

/// A plan of arrivals.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Schedule {
    /// One every 1/rate seconds.
    Constant(f64),
    /// A Poisson process: gaps exponential, as of many clients that don't know each other.
    Poisson(f64),
    /// One rate after another, each constant; the last goes on.
    Steps(Vec<(Duration, f64)>),
}

impl Schedule {
    /// Reads `RATE:DURATION,RATE:DURATION,…`.
    ///
    /// # Errors
    /// Which step is wrong.
    pub(crate) fn steps(text: &str) -> Result<Self, String> {
        let step = |part: &str| {
            let wrong = || format!("step `{part}`: expected RATE:DURATION, such as 500:10s");
            let (rate, length) = part.split_once(':').ok_or_else(wrong)?;
            let rate: f64 = rate.trim().parse().map_err(|_| wrong())?;
            if rate <= 0.0 || !rate.is_finite() {
                return Err(wrong());
            }
            Ok((units::duration(length)?, rate))
        };
        text.split(',').map(step).collect::<Result<_, _>>().map(Self::Steps)
    }

    /// The arrivals of this plan as offsets from the start; the same for the same seed.
    pub(crate) fn arrivals(&self, seed: u64) -> Arrivals {
        Arrivals { schedule: self.clone(), rng: Rng::labelled(seed, "arrivals"), index: 0, at: 0.0 }
    }

    /// The highest rate in it, per second.
    pub(crate) fn rate_max(&self) -> f64 {
        match self {
            Self::Constant(rate) | Self::Poisson(rate) => *rate,
            Self::Steps(steps) => steps.iter().map(|(_, rate)| *rate).fold(0.0, f64::max),
        }
    }
}

/// An endless iterator over offsets from the start.
#[derive(Clone, Debug)]
pub(crate) struct Arrivals {
    schedule: Schedule,
    rng: Rng,
    index: u64,
    at: f64,
}

impl Iterator for Arrivals {
    type Item = Duration;

    fn next(&mut self) -> Option<Duration> {
        let offset = match &self.schedule {
            // By multiplication, so that no rounding adds up.
            Schedule::Constant(rate) => self.index as f64 / rate,
            Schedule::Poisson(rate) => {
                self.at += self.rng.exponential(1.0 / rate);
                self.at
            }
            Schedule::Steps(steps) => {
                let offset = self.at;
                let mut end = 0.0;
                let rate = steps.iter().find_map(|(length, rate)| {
                    end += length.as_secs_f64();
                    (offset < end - 1e-9).then_some(*rate)
                });
                let rate = rate.or(steps.last().map(|(_, rate)| *rate)).unwrap_or(1.0);
                self.at += 1.0 / rate;
                offset
            }
        };
        self.index += 1;
        Some(num::seconds(offset))
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test may panic")]
    use super::*;

    #[test]
    fn a_constant_rate_does_not_drift() {
        let mut arrivals = Schedule::Constant(3.0).arrivals(1);
        assert_eq!(arrivals.next(), Some(Duration::ZERO));
        assert_eq!(arrivals.nth(2_999_998).unwrap().as_millis(), 999_999_666);
    }

    #[test]
    fn a_poisson_process_has_its_rate_and_its_seed() {
        let schedule = Schedule::Poisson(1000.0);
        let first: Vec<_> = schedule.arrivals(7).take(20_000).collect();
        assert_eq!(first, schedule.arrivals(7).take(20_000).collect::<Vec<_>>());
        assert_ne!(first, schedule.arrivals(8).take(20_000).collect::<Vec<_>>());
        let seconds = first.last().unwrap().as_secs_f64();
        assert!((seconds - 20.0).abs() < 0.6, "{seconds}");
        let gaps: Vec<f64> = first.windows(2).map(|w| (w[1] - w[0]).as_secs_f64()).collect();
        let mean = gaps.iter().sum::<f64>() / gaps.len() as f64;
        let deviation =
            (gaps.iter().map(|g| (g - mean).powi(2)).sum::<f64>() / gaps.len() as f64).sqrt();
        assert!((deviation / mean - 1.0).abs() < 0.05, "exponential gaps: {}", deviation / mean);
    }

    #[test]
    fn steps_follow_each_other_and_the_last_goes_on() {
        let steps = Schedule::steps("10:2s, 100:1s,1:1s").unwrap();
        let at: Vec<f64> = steps.arrivals(1).take(130).map(|d| d.as_secs_f64()).collect();
        let within =
            |from: f64, to: f64| at.iter().filter(|&&t| t >= from - 1e-6 && t < to - 1e-6).count();
        assert_eq!((within(0.0, 2.0), within(2.0, 3.0), within(3.0, 10.0)), (20, 100, 7));
        assert!(Schedule::steps("10").is_err() && Schedule::steps("0:1s").is_err());
    }
}
