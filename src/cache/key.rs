//! What a page is kept under: a hash over its URL in normal form and every option that changes what
//! comes out of it, credentials included, so that nobody gets what was fetched with another's.

use ring::digest::{Context, SHA256};

/// A page's key: the first 128 bits of a SHA-256, never zero. Nobody can make two requests meet
/// under one key on purpose.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Key(u128);

impl Key {
    /// The key as a number, for `cache_key`.
    #[must_use]
    pub const fn number(self) -> u128 {
        self.0
    }
}

/// Hashes what requests have in common once; each URL then costs one more block or two. Allocates
/// nothing.
#[derive(Clone)]
pub struct Keyer(Context);

impl Keyer {
    /// Begins with a name for everything that is hashed this way.
    #[must_use]
    pub fn new(namespace: &str) -> Self {
        let mut keyer = Self(Context::new(&SHA256));
        keyer.add(namespace.as_bytes());
        keyer
    }

    /// Adds an option by name. Names and values are hashed with their lengths, so no two lists of
    /// options read the same.
    #[must_use]
    pub fn with(mut self, name: &str, value: impl AsRef<[u8]>) -> Self {
        self.add(name.as_bytes());
        self.add(value.as_ref());
        self
    }

    /// The key of a URL in normal form under these options.
    #[must_use]
    pub fn key(&self, url: &str) -> Key {
        let mut keyer = self.clone();
        keyer.add(url.as_bytes());
        let digest = keyer.0.finish();
        let half = digest.as_ref().first_chunk().expect("a SHA-256 has 32 bytes");
        Key(u128::from_be_bytes(*half).max(1))
    }

    fn add(&mut self, bytes: &[u8]) {
        self.0.update(&(bytes.len() as u64).to_be_bytes());
        self.0.update(bytes);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    type Pairs = Vec<(String, String)>;

    fn key(pairs: &Pairs, url: &str) -> Key {
        let begin = Keyer::new("test");
        pairs.iter().fold(begin, |keyer, (name, value)| keyer.with(name, value)).key(url)
    }

    proptest! {
        /// Short texts of few letters: what would meet if lengths were left out.
        #[test]
        fn keys_are_equal_where_everything_is_equal_and_only_there(
            one in proptest::collection::vec(("[ab]{0,2}", "[ab]{0,2}"), 0..3),
            other in proptest::collection::vec(("[ab]{0,2}", "[ab]{0,2}"), 0..3),
            url in "[ab]{0,2}",
            another in "[ab]{0,2}",
        ) {
            let same = one == other && url == another;
            prop_assert_eq!(key(&one, &url) == key(&other, &another), same);
        }
    }

    #[test]
    fn keys_are_the_same_in_every_process() {
        let key = Keyer::new("test").with("a", "b").key("https://example.com/");
        assert_eq!(format!("{:032x}", key.number()), "326910c5e45effcf36709fd6b87a5563");
    }
}
