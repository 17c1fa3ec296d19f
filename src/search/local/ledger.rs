//! Which pages the index holds, in the order in which they came, and what they weigh.

use std::collections::{BTreeMap, HashMap};

/// See the module. A page is named by a number that its URL and its owner give.
#[derive(Debug, Default)]
pub(super) struct Ledger {
    /// By arrival.
    order: BTreeMap<u64, u64>,
    /// Arrival and weight of each page.
    pages: HashMap<u64, (u64, u64)>,
    weight: u64,
    next: u64,
}

impl Ledger {
    /// A page has come, or has come again. Answers its place in the order of arrival.
    pub(super) fn add(&mut self, page: u64, weight: u64) -> u64 {
        let arrival = self.next;
        self.restore(arrival, page, weight);
        arrival
    }

    /// A page that was there before this process began.
    pub(super) fn restore(&mut self, arrival: u64, page: u64, weight: u64) {
        self.next = self.next.max(arrival + 1);
        if let Some((before, weighed)) = self.pages.insert(page, (arrival, weight)) {
            self.order.remove(&before);
            self.weight -= weighed;
        }
        self.order.insert(arrival, page);
        self.weight += weight;
    }

    /// Takes the oldest pages out until all the others weigh at most `weight`.
    pub(super) fn shrink_to(&mut self, weight: u64) -> Vec<u64> {
        let mut gone = Vec::new();
        while self.weight > weight
            && let Some((_, page)) = self.order.pop_first()
        {
            let (_, weighed) = self.pages.remove(&page).expect("every arrival is a page's");
            self.weight -= weighed;
            gone.push(page);
        }
        gone
    }

    /// What all pages weigh.
    pub(super) const fn weight(&self) -> u64 {
        self.weight
    }

    /// How many there are.
    pub(super) fn len(&self) -> usize {
        self.pages.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn a_slow_twin_agrees(steps in proptest::collection::vec((0_u64..20, 1_u64..9, 0_u64..40), 0..80)) {
            let (mut ledger, mut twin) = (Ledger::default(), Vec::<(u64, u64)>::new());
            for (page, weight, shrink) in steps {
                twin.retain(|(other, _)| *other != page);
                twin.push((page, weight));
                ledger.add(page, weight);
                if shrink > 30 {
                    let mut gone = Vec::new();
                    while twin.iter().map(|(_, weight)| weight).sum::<u64>() > shrink {
                        gone.push(twin.remove(0).0);
                    }
                    prop_assert_eq!(ledger.shrink_to(shrink), gone);
                }
                prop_assert_eq!(ledger.weight(), twin.iter().map(|(_, weight)| weight).sum::<u64>());
                prop_assert_eq!(ledger.len(), twin.len());
            }
        }
    }
}
