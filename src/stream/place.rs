//! Places of which there are only so many.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

/// One of a bounded number of places, given back when dropped; may be dropped on any thread.
#[derive(Debug)]
pub struct Place(Arc<AtomicUsize>);

impl Place {
    /// Takes a place where fewer than `most` are taken.
    pub fn take(taken: &Arc<AtomicUsize>, most: usize) -> Option<Self> {
        let one_more = |now: usize| (now < most).then_some(now + 1);
        let took = taken.fetch_update(Ordering::AcqRel, Ordering::Acquire, one_more);
        took.is_ok().then(|| Self(Arc::clone(taken)))
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::AcqRel);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_are_bounded_and_come_back() {
        let taken = Arc::new(AtomicUsize::new(0));
        let first = Place::take(&taken, 2);
        let second = Place::take(&taken, 2);
        assert!(first.is_some() && second.is_some() && Place::take(&taken, 2).is_none());
        drop(first);
        assert!(Place::take(&taken, 2).is_some());
    }
}
