//! Quantities as people write them: `50ms`, `2s`, `20k`, `10m`, and latency distributions.

use crate::num;
use crate::rng::Rng;
use std::time::Duration;

/// A duration: a number with `us`, `ms`, `s`, `m` or `h`; a bare number is seconds.
pub(crate) fn duration(text: &str) -> Result<Duration, String> {
    let text = text.trim();
    let split = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
    let (number, unit) = text.split_at(split);
    let scale = match unit.trim() {
        "us" | "µs" => 1e-6,
        "ms" => 1e-3,
        "" | "s" => 1.0,
        "m" | "min" => 60.0,
        "h" => 3600.0,
        _ => return Err(format!("`{text}`: expected a duration such as 250us, 50ms, 2s, 1m")),
    };
    let number: f64 = number
        .parse()
        .map_err(|_| format!("`{text}`: expected a duration such as 250us, 50ms, 2s, 1m"))?;
    Duration::try_from_secs_f64(number * scale).map_err(|_| format!("`{text}` is too long"))
}

/// A number of bytes: digits with `k`, `m` or `g` (powers of 1000) or `ki`, `mi`, `gi` (of 1024).
pub(crate) fn bytes(text: &str) -> Result<u64, String> {
    let lower = text.trim().to_ascii_lowercase();
    let trimmed = lower.strip_suffix('b').unwrap_or(&lower);
    let split = trimmed.find(|c: char| !c.is_ascii_digit()).unwrap_or(trimmed.len());
    let (number, unit) = trimmed.split_at(split);
    let scale: u64 = match unit {
        "" => 1,
        "k" => 1_000,
        "m" => 1_000_000,
        "g" => 1_000_000_000,
        "ki" => 1 << 10,
        "mi" => 1 << 20,
        "gi" => 1 << 30,
        _ => return Err(format!("`{text}`: expected bytes such as 20000, 20k, 5m, 64ki")),
    };
    let number: u64 =
        number.parse().map_err(|_| format!("`{text}`: expected bytes such as 20000, 20k, 5m"))?;
    number.checked_mul(scale).ok_or_else(|| format!("`{text}` is too large"))
}

/// A distribution of waiting times.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Latency {
    /// Always the same.
    Fixed(Duration),
    /// Uniform between the two.
    Uniform(Duration, Duration),
    /// Exponential with this mean.
    Exponential(Duration),
    /// Log-normal through this median and this 99th percentile: what real origins look like.
    LogNormal { p50: Duration, p99: Duration },
}

impl Latency {
    /// Parses `fixed:D`, `D`, `uniform:A,B`, `exp:MEAN`, `lognormal:P50,P99`.
    pub(crate) fn parse(text: &str) -> Result<Self, String> {
        let (name, rest) = text.split_once(':').unwrap_or(("fixed", text));
        let pair = || -> Result<(Duration, Duration), String> {
            let (a, b) = rest
                .split_once(',')
                .ok_or_else(|| format!("`{text}`: expected two durations, {name}:A,B"))?;
            let (a, b) = (duration(a)?, duration(b)?);
            if a > b { Err(format!("`{text}`: the first is above the second")) } else { Ok((a, b)) }
        };
        match name {
            "fixed" => Ok(Self::Fixed(duration(rest)?)),
            "exp" => Ok(Self::Exponential(duration(rest)?)),
            "uniform" => pair().map(|(a, b)| Self::Uniform(a, b)),
            "lognormal" => pair().map(|(p50, p99)| Self::LogNormal { p50, p99 }),
            _ => Err(format!(
                "`{text}`: expected fixed:50ms, uniform:10ms,50ms, exp:20ms or lognormal:P50,P99"
            )),
        }
    }

    /// One draw.
    pub(crate) fn sample(self, rng: &mut Rng) -> Duration {
        match self {
            Self::Fixed(wait) => wait,
            Self::Uniform(low, high) => low + (high - low).mul_f64(rng.unit()),
            Self::Exponential(mean) => num::seconds(rng.exponential(mean.as_secs_f64())),
            Self::LogNormal { p50, p99 } => {
                // The 99th percentile of the standard normal is 2.3263 standard deviations up.
                let median = p50.as_secs_f64().max(1e-9);
                let sigma = (p99.as_secs_f64() / median).max(1.0).ln() / 2.326_347_9;
                num::seconds(median * (sigma * rng.normal()).exp())
            }
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test may panic")]
    use super::*;

    #[test]
    fn durations_and_bytes_read_as_written() {
        assert_eq!(duration("50ms").unwrap(), Duration::from_millis(50));
        assert_eq!(duration("1.5s").unwrap(), Duration::from_millis(1500));
        assert_eq!(duration("250us").unwrap(), Duration::from_micros(250));
        assert_eq!(duration("2").unwrap(), Duration::from_secs(2));
        assert!(duration("fast").is_err() && duration("").is_err() && duration("1d").is_err());
        assert_eq!(bytes("20k").unwrap(), 20_000);
        assert_eq!(bytes("64KiB").unwrap(), 65_536);
        assert!(bytes("99999999999999999999").is_err() && bytes("1.5k").is_err());
    }

    #[test]
    fn a_log_normal_meets_its_two_percentiles() {
        let latency = Latency::parse("lognormal:50ms,400ms").unwrap();
        let mut rng = Rng::new(5);
        let mut draws: Vec<_> = (0..20_000).map(|_| latency.sample(&mut rng)).collect();
        draws.sort();
        let p50 = draws[10_000].as_secs_f64();
        let p99 = draws[19_800].as_secs_f64();
        assert!((p50 / 0.05 - 1.0).abs() < 0.05, "{p50}");
        assert!((p99 / 0.4 - 1.0).abs() < 0.15, "{p99}");
    }

    #[test]
    fn a_wrong_distribution_says_what_was_expected() {
        assert!(Latency::parse("gauss:1,2").unwrap_err().contains("lognormal"));
        assert!(Latency::parse("uniform:5ms").unwrap_err().contains("two durations"));
        assert!(Latency::parse("uniform:9ms,1ms").unwrap_err().contains("above"));
    }
}
