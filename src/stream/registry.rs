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
    /// Makes a stream known.
    pub fn insert(&self, stream: Arc<Stream>) {
        self.shard(stream.id()).insert(stream.id(), stream);
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

    fn shard(&self, id: Ulid) -> MutexGuard<'_, HashMap<Ulid, Arc<Stream>>> {
        // The low bits of a ULID are random.
        let at = (id.0 % SHARDS as u128) as usize;
        self.shards[at].lock().unwrap_or_else(PoisonError::into_inner)
    }
}
