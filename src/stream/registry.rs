//! Which streams there are, by id, for every core.

use super::Stream;
use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use ulid::Ulid;

/// Shards of the map, so that cores seldom meet at a lock.
const SHARDS: usize = 16;

/// All streams of this process, running or within their resume window.
#[derive(Debug, Default)]
pub struct Registry {
    shards: [Mutex<HashMap<Ulid, Arc<Stream>>>; SHARDS],
}

impl Registry {
    /// Makes a stream known, unless there is one of its id: the one that is known from now on.
    pub fn insert(&self, stream: Arc<Stream>) -> Arc<Stream> {
        let mut shard = self.shard(stream.id());
        Arc::clone(shard.entry(stream.id()).or_insert(stream))
    }

    /// Looks a stream up.
    #[must_use]
    pub fn find(&self, id: Ulid) -> Option<Arc<Stream>> {
        self.shard(id).get(&id).cloned()
    }

    /// Forgets a stream; who still holds it may go on reading.
    pub fn remove(&self, id: Ulid) -> Option<Arc<Stream>> {
        self.shard(id).remove(&id)
    }

    /// Forgets this very stream, not another of its id.
    pub fn remove_one(&self, stream: &Arc<Stream>) {
        let mut shard = self.shard(stream.id());
        if shard.get(&stream.id()).is_some_and(|known| Arc::ptr_eq(known, stream)) {
            shard.remove(&stream.id());
        }
    }

    fn shard(&self, id: Ulid) -> MutexGuard<'_, HashMap<Ulid, Arc<Stream>>> {
        // The low bits of a ULID are random.
        let at = (id.0 % SHARDS as u128) as usize;
        self.shards[at].lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::super::{Birth, Patience, Totals};
    use super::*;
    use std::time::{Duration, Instant};

    fn stream(id: u128) -> Arc<Stream> {
        let birth = Birth {
            id: Ulid(id),
            owner: 0,
            principal: Arc::from(""),
            idempotency_key: None,
            replay_bytes_max: 0,
            resume_window: Duration::ZERO,
            patience: Patience { stall: Duration::ZERO, cut_slow: false },
            began: Instant::now(),
            urls: 0,
            home: None,
        };
        Stream::new(birth, Arc::new(Totals::default()))
    }

    #[test]
    fn the_first_of_an_id_stays_until_it_is_removed_itself() {
        let (registry, one, two) = (Registry::default(), stream(1), stream(1));
        assert!(Arc::ptr_eq(&registry.insert(Arc::clone(&one)), &one));
        assert!(Arc::ptr_eq(&registry.insert(Arc::clone(&two)), &one));
        registry.remove_one(&two);
        registry.remove_one(&stream(17));
        assert!(registry.find(Ulid(1)).is_some_and(|known| Arc::ptr_eq(&known, &one)));
        registry.remove_one(&one);
        assert!(registry.find(Ulid(1)).is_none());
    }
}
