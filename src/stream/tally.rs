//! Where a stream stands, for any core to look at.

use super::state::State;
use crate::proto::events::Counts;
use std::sync::atomic::{AtomicU8, AtomicU64, Ordering};

/// State and totals of a stream, written by its owner alone. Each number is true by itself; between
/// two of them a result may have come.
#[derive(Debug, Default)]
pub struct Tally {
    /// Place in [`State::ALL`].
    state: AtomicU8,
    total: AtomicU64,
    successful: AtomicU64,
    failed: AtomicU64,
    cancelled: AtomicU64,
}

impl Tally {
    /// The owner says how things are.
    pub fn set(&self, state: State, counts: Counts) {
        self.total.store(counts.total, Ordering::Relaxed);
        self.successful.store(counts.successful, Ordering::Relaxed);
        self.failed.store(counts.failed, Ordering::Relaxed);
        self.cancelled.store(counts.cancelled, Ordering::Relaxed);
        self.state.store(state as u8, Ordering::Release);
    }

    /// How things are.
    #[must_use]
    pub fn get(&self) -> (State, Counts) {
        let state = State::ALL[usize::from(self.state.load(Ordering::Acquire))];
        let counts = Counts {
            total: self.total.load(Ordering::Relaxed),
            successful: self.successful.load(Ordering::Relaxed),
            failed: self.failed.load(Ordering::Relaxed),
            cancelled: self.cancelled.load(Ordering::Relaxed),
        };
        (state, counts)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_state_comes_back() {
        let tally = Tally::default();
        assert_eq!(tally.get(), (State::Initializing, Counts::default()));
        let counts = Counts { total: 4, successful: 1, failed: 2, cancelled: 1 };
        for state in State::ALL {
            tally.set(state, counts);
            assert_eq!(tally.get(), (state, counts));
        }
    }
}
