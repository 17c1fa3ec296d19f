//! `Idempotency-Key`: the same request again finds the stream that the first one began
//! (draft-ietf-httpapi-idempotency-key-header).
//!
//! A key belongs to whoever sent it, and lives as long as its stream can be read.

use std::collections::HashMap;
use std::hash::{BuildHasher, RandomState};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use ulid::Ulid;

/// Shards of the map, so that cores seldom meet at a lock.
const SHARDS: usize = 16;

/// What a request is known by: equal for equal bodies of equal routes.
pub type Fingerprint = [u8; 32];

/// Whose key, and the key.
type Owned = (Arc<str>, Box<str>);

/// What a key was used for before.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Claim {
    /// Nothing: the stream of the given id has it now.
    New,
    /// The very same request; here is its stream.
    Same(Ulid),
    /// Another request.
    Conflict,
}

/// All keys of this process whose streams can still be read.
#[derive(Debug)]
pub struct Keys {
    shards: [Mutex<HashMap<Owned, (Fingerprint, Ulid)>>; SHARDS],
    hasher: RandomState,
}

impl Default for Keys {
    fn default() -> Self {
        Self { shards: Default::default(), hasher: RandomState::new() }
    }
}

impl Keys {
    /// Takes a key for a stream that is to begin, unless it is taken.
    pub fn claim(
        &self,
        principal: &Arc<str>,
        key: &str,
        request: &Fingerprint,
        stream: Ulid,
    ) -> Claim {
        let owned = (Arc::clone(principal), Box::from(key));
        let mut shard = self.shard(&owned);
        match shard.get(&owned) {
            Some((before, stream)) if before == request => Claim::Same(*stream),
            Some(_) => Claim::Conflict,
            None => {
                shard.insert(owned, (*request, stream));
                Claim::New
            }
        }
    }

    /// Frees a key whose stream can't be read any more; the request that it was used for, where the
    /// stream had it.
    pub fn release(&self, principal: &Arc<str>, key: &str, stream: Ulid) -> Option<Fingerprint> {
        let owned = (Arc::clone(principal), Box::from(key));
        let mut shard = self.shard(&owned);
        shard.get(&owned).filter(|(_, holder)| *holder == stream)?;
        shard.remove(&owned).map(|(request, _)| request)
    }

    fn shard(&self, owned: &Owned) -> MutexGuard<'_, HashMap<Owned, (Fingerprint, Ulid)>> {
        let at = usize::try_from(self.hasher.hash_one(owned) % SHARDS as u64).expect("below 16");
        self.shards[at].lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_taken_once_by_each_principal_until_it_is_released() {
        let keys = Keys::default();
        let (ann, bob) = (Arc::from("ann"), Arc::from("bob"));
        let (one, two) = (Ulid(1), Ulid(2));
        assert_eq!(keys.claim(&ann, "k", &[1; 32], one), Claim::New);
        assert_eq!(keys.claim(&ann, "k", &[1; 32], two), Claim::Same(one));
        assert_eq!(keys.claim(&ann, "k", &[2; 32], two), Claim::Conflict);
        assert_eq!(keys.claim(&bob, "k", &[2; 32], two), Claim::New);
        assert_eq!(keys.release(&ann, "k", two), None);
        assert_eq!(keys.claim(&ann, "k", &[2; 32], two), Claim::Conflict);
        assert_eq!(keys.release(&ann, "k", one), Some([1; 32]));
        assert_eq!(keys.claim(&ann, "k", &[2; 32], two), Claim::New);
    }
}
