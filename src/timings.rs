//! Where a page's time went: one slot per [`Stage`], in microseconds.

use crate::error::Stage;
use std::time::Duration;

/// Microseconds spent in each stage of one page; `timings_us` on the wire (API §3).
///
/// Stages that a page never reached, or that happened more than once (redirect hops), hold 0 or
/// the sum. A slot saturates at `u32::MAX` µs (71 minutes), beyond every deadline.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Timings([u32; Stage::ALL.len()]);

impl Timings {
    /// Adds `spent` to a stage.
    pub fn add(&mut self, stage: Stage, spent: Duration) {
        let micros = u32::try_from(spent.as_micros()).unwrap_or(u32::MAX);
        let slot = &mut self.0[stage as usize];
        *slot = slot.saturating_add(micros);
    }

    /// Microseconds of one stage.
    #[must_use]
    pub const fn micros(&self, stage: Stage) -> u32 {
        self.0[stage as usize]
    }

    /// Adds every stage of `other`: what a page spent in two parts of the server.
    pub fn merge(&mut self, other: &Self) {
        for (slot, more) in self.0.iter_mut().zip(other.0) {
            *slot = slot.saturating_add(more);
        }
    }

    /// Sum of all stages in microseconds.
    #[must_use]
    pub fn total_micros(&self) -> u64 {
        self.0.iter().map(|&us| u64::from(us)).sum()
    }

    /// Every stage with its microseconds, in the order of [`Stage::ALL`].
    pub fn iter(&self) -> impl Iterator<Item = (Stage, u32)> + '_ {
        Stage::ALL.into_iter().zip(self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stages_add_up_and_saturate() {
        let mut timings = Timings::default();
        timings.add(Stage::Dns, Duration::from_micros(7));
        timings.add(Stage::Dns, Duration::from_micros(5));
        timings.add(Stage::Body, Duration::from_secs(10_000));
        assert_eq!(timings.micros(Stage::Dns), 12);
        assert_eq!(timings.micros(Stage::Body), u32::MAX);
        let mut sum = Timings::default();
        sum.merge(&timings);
        assert_eq!(sum.total_micros(), 12 + u64::from(u32::MAX));
    }
}
