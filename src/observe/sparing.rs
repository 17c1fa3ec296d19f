//! Log lines that somebody outside can cause: at most one in a while, and how many were left out.

use std::cell::Cell;
use std::time::{Duration, Instant};

/// Lets one line of a kind through in a while; of one core.
#[derive(Debug, Default)]
pub struct Sparing {
    last: Cell<Option<Instant>>,
    left_out: Cell<u64>,
}

impl Sparing {
    /// Whether a line may be written: how many were left out since the last one.
    pub fn admit(&self, now: Instant, every: Duration) -> Option<u64> {
        let early = |last| now.saturating_duration_since(last) < every;
        if self.last.get().is_some_and(early) {
            self.left_out.set(self.left_out.get() + 1);
            return None;
        }
        self.last.set(Some(now));
        Some(self.left_out.take())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_in_a_while_says_how_many_were_left_out() {
        let (sparing, begun, every) = (Sparing::default(), Instant::now(), Duration::from_secs(1));
        assert_eq!(sparing.admit(begun, every), Some(0));
        assert_eq!(sparing.admit(begun, every), None);
        assert_eq!(sparing.admit(begun + every / 2, every), None);
        assert_eq!(sparing.admit(begun + every, every), Some(2));
        assert_eq!(sparing.admit(begun + 2 * every, every), Some(0));
    }
}
