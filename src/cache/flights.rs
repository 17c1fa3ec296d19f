//! Single flight: a page that is being fetched is not fetched a second time; whoever wants it as well
//! waits for the one that is under way, on whichever core.
//!
//! A flight knows which cores wait, not who on them: each core keeps its own list, by the flight's
//! number. Order of calls: [`Flights::enter`]; who leads calls [`Flights::land`] in the end, however it
//! ended, and tells the cores that come back; who joined waits to be told. A flight whose leader
//! gives up is no more: those who waited enter again, and one of them leads.

use super::key::Key;
use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

/// Shards of the table, so that cores seldom meet at a lock.
const SHARDS: usize = 16;

/// A flight's number; never used again.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct FlightId(u64);

/// What became of a wish to fetch a page.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Entered {
    /// Nobody else fetches it: the caller does, and others will wait for it.
    Leads(FlightId),
    /// It is being fetched; the caller's core will be told.
    Joined(FlightId),
}

#[derive(Debug)]
struct Flight {
    id: FlightId,
    /// Cores that wait, each once.
    cores: Vec<usize>,
}

/// All flights of the process.
#[derive(Debug, Default)]
pub struct Flights {
    shards: [Mutex<HashMap<Key, Flight>>; SHARDS],
    last: AtomicU64,
}

impl Flights {
    /// Joins the flight for a page, or begins it.
    pub fn enter(&self, key: Key, core: usize) -> Entered {
        let mut shard = self.shard(key);
        if let Some(flight) = shard.get_mut(&key) {
            if !flight.cores.contains(&core) {
                flight.cores.push(core);
            }
            return Entered::Joined(flight.id);
        }
        let id = FlightId(self.last.fetch_add(1, Ordering::Relaxed));
        shard.insert(key, Flight { id, cores: Vec::new() });
        Entered::Leads(id)
    }

    /// Ends a flight; the cores that wait for it, to be told by the caller.
    #[must_use]
    pub fn land(&self, key: Key, id: FlightId) -> Vec<usize> {
        let mut shard = self.shard(key);
        match shard.get(&key) {
            Some(flight) if flight.id == id => {
                shard.remove(&key).map(|flight| flight.cores).unwrap_or_default()
            }
            _ => Vec::new(),
        }
    }

    /// Flights under way.
    #[must_use]
    pub fn len(&self) -> usize {
        let shards = self.shards.iter();
        shards.map(|shard| shard.lock().unwrap_or_else(PoisonError::into_inner).len()).sum()
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// A panic elsewhere can't leave a shard half changed: every change of it is one call.
    fn shard(&self, key: Key) -> MutexGuard<'_, HashMap<Key, Flight>> {
        // A key is a hash: any of its bits will do.
        let at = (key.number() % SHARDS as u128) as usize;
        self.shards[at].lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::super::key::Keyer;
    use super::*;

    #[test]
    fn one_leads_and_each_core_that_waits_is_told_once() {
        let flights = Flights::default();
        let key = Keyer::new("test").key("a");
        let Entered::Leads(first) = flights.enter(key, 0) else { panic!("nobody else is there") };
        for core in [1, 0, 1, 2] {
            assert_eq!(flights.enter(key, core), Entered::Joined(first));
        }
        assert_eq!(flights.len(), 1);
        assert_eq!(flights.land(key, first), [1, 0, 2]);
        assert!(flights.is_empty());
        assert!(flights.land(key, first).is_empty());
        let Entered::Leads(second) = flights.enter(key, 0) else { panic!("the first is over") };
        assert_ne!(first, second);
        // Whoever comes late with the first one's number ends nothing.
        assert!(flights.land(key, first).is_empty());
        assert_eq!(flights.enter(key, 1), Entered::Joined(second));
    }
}
