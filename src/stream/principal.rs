//! Whose a request is, and with it the stream that it starts.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

/// The credential that a request came with. A stream is visible only to an equal one; any two
/// requests without a credential are equal, so on an open server every stream is everybody's who
/// knows its id.
#[derive(Debug, Clone, Default)]
pub enum Principal {
    /// No credential: the server is open.
    #[default]
    Anonymous,
    /// An API key.
    Key(KeyId),
}

/// Which API key: its digest decides, so a key that is replaced under the same name is another one,
/// and the same key is the same on every node and after a reload.
#[derive(Debug, Clone)]
pub struct KeyId {
    /// SHA-256 of the key's text.
    pub digest: [u8; 32],
    /// What the operator calls it; for logs.
    pub name: Arc<str>,
}

impl Principal {
    /// The key's name, where there is a key.
    #[must_use]
    pub fn name(&self) -> Option<&str> {
        match self {
            Self::Anonymous => None,
            Self::Key(key) => Some(&key.name),
        }
    }
}

impl PartialEq for Principal {
    fn eq(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Anonymous, Self::Anonymous) => true,
            (Self::Key(one), Self::Key(other)) => one.digest == other.digest,
            _ => false,
        }
    }
}

impl Eq for Principal {}

impl fmt::Display for Principal {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(self.name().unwrap_or("anonymous"))
    }
}

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
    fn the_digest_decides_not_the_name() {
        let key =
            |byte, name: &str| Principal::Key(KeyId { digest: [byte; 32], name: name.into() });
        assert_eq!(key(1, "a"), key(1, "b"));
        assert_ne!(key(1, "a"), key(2, "a"));
        assert_ne!(key(1, "a"), Principal::Anonymous);
        assert_eq!(Principal::default(), Principal::Anonymous);
    }

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
