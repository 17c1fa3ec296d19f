//! Ratios with their spread, and what may be said about them.
//!
//! Rounds are blocks of four runs, A B B A: a drift of the machine that is linear in time falls on both
//! sides alike. Each block gives one ratio; what is reported is the median of the blocks with their
//! least and largest.

use std::fmt;

/// Values of several rounds.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Spread {
    pub(crate) min: f64,
    pub(crate) median: f64,
    pub(crate) max: f64,
}

impl Spread {
    /// Of at least one value.
    pub(crate) fn of(mut values: Vec<f64>) -> Option<Self> {
        values.sort_by(f64::total_cmp);
        let (min, max) = (*values.first()?, *values.last()?);
        let middle = values.len() / 2;
        let median = if values.len().is_multiple_of(2) {
            f64::midpoint(values[middle - 1], values[middle])
        } else {
            values[middle]
        };
        Some(Self { min, median, max })
    }

    /// Of one measurement that has no rounds.
    pub(crate) fn exactly(value: f64) -> Self {
        Self { min: value, median: value, max: value }
    }

    /// The ratios of blocks `A B B A`, A over B; `None` when there are none or one is no number.
    pub(crate) fn of_blocks(blocks: &[[f64; 4]]) -> Option<Self> {
        let ratios: Vec<f64> = blocks.iter().map(|[a, b, c, d]| (a + d) / (b + c)).collect();
        if ratios.iter().any(|ratio| !ratio.is_finite() || *ratio <= 0.0) {
            return None;
        }
        Self::of(ratios)
    }

    /// Whether the rounds agree well enough for the ratio to mean anything: on a logarithmic scale,
    /// where half and double are alike, they differ by less than the ratio differs from 1. One round
    /// alone can't agree with anything.
    pub(crate) fn is_told(&self, rounds: usize) -> bool {
        rounds > 1 && (self.max / self.min).ln() <= self.median.ln().abs()
    }
}

impl fmt::Display for Spread {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let digits = match self.median.abs() {
            value if value >= 100.0 => 0,
            value if value >= 10.0 => 1,
            _ => 2,
        };
        let Self { min, median, max } = self;
        if min == max {
            return write!(f, "{median:.digits$}");
        }
        write!(f, "{median:.digits$} ({min:.digits$} … {max:.digits$})")
    }
}

/// What a figure must be.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Limit {
    /// This or less.
    AtMost(f64),
    /// This or more.
    AtLeast(f64),
}

/// Whether it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// In every round.
    Holds,
    /// In no round.
    Missed,
    /// In some rounds: more rounds, or a quieter machine.
    Undecided,
}

impl Limit {
    /// Judges all rounds.
    pub(crate) fn judge(self, figure: &Spread) -> Verdict {
        let meets = |value: f64| match self {
            Self::AtMost(limit) => value <= limit,
            Self::AtLeast(limit) => value >= limit,
        };
        match (meets(figure.min), meets(figure.max)) {
            (true, true) => Verdict::Holds,
            (false, false) => Verdict::Missed,
            _ => Verdict::Undecided,
        }
    }
}

impl fmt::Display for Limit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::AtMost(limit) => write!(f, "at most {limit}"),
            Self::AtLeast(limit) => write!(f, "at least {limit}"),
        }
    }
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Holds => "holds",
            Self::Missed => "MISSED",
            Self::Undecided => "undecided",
        })
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test may panic")]
    use super::*;

    #[test]
    fn a_linear_drift_falls_on_both_sides_alike() {
        // Twice as much for A, on a machine that gets slower with every run.
        let drift = |value: f64, run: f64| value + 0.1 * run;
        let block = [drift(2.0, 0.0), drift(1.0, 1.0), drift(1.0, 2.0), drift(2.0, 3.0)];
        let ratio = Spread::of_blocks(&[block]).unwrap().median;
        assert!((ratio - 4.3 / 2.3).abs() < 1e-9);
        assert_eq!(Spread::of_blocks(&[[1.0, 0.0, 0.0, 1.0]]), None);
        assert_eq!(Spread::of_blocks(&[]), None);
    }

    #[test]
    fn the_median_stands_in_the_middle() {
        let spread = Spread::of(vec![3.0, 1.0, 2.0]).unwrap();
        assert_eq!((spread.min, spread.median, spread.max), (1.0, 2.0, 3.0));
        assert_eq!(Spread::of(vec![1.0, 2.0]).unwrap().median, 1.5);
        assert_eq!(spread.to_string(), "2.00 (1.00 … 3.00)");
    }

    #[test]
    fn a_ratio_within_its_own_noise_is_not_told() {
        let spread = |min, median, max| Spread { min, median, max };
        assert!(spread(0.45, 0.5, 0.55).is_told(3));
        assert!(!spread(0.9, 1.02, 1.2).is_told(3));
        assert!(!spread(0.45, 0.9, 0.95).is_told(3), "twice the spread, a tenth of effect");
        assert!(spread(2.9, 3.0, 3.3).is_told(2));
        assert!(!spread(3.0, 3.0, 3.0).is_told(1), "one round can't agree with itself");
    }

    #[test]
    fn a_verdict_needs_every_round() {
        let spread = Spread { min: 0.9, median: 1.0, max: 1.3 };
        assert_eq!(Limit::AtMost(1.3).judge(&spread), Verdict::Holds);
        assert_eq!(Limit::AtMost(1.2).judge(&spread), Verdict::Undecided);
        assert_eq!(Limit::AtMost(0.8).judge(&spread), Verdict::Missed);
        assert_eq!(Limit::AtLeast(0.9).judge(&spread), Verdict::Holds);
        assert_eq!(Limit::AtLeast(2.0).judge(&spread), Verdict::Missed);
    }
}
