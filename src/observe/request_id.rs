//! `X-Request-ID`: a client's own, if it is harmless, else one of ours; echoed on every answer.

use crate::limits::REQUEST_ID_BYTES_MAX;
use std::fmt;
use std::sync::Arc;
use ulid::{ULID_LEN, Ulid};

/// A request's id: 1 to [`REQUEST_ID_BYTES_MAX`] bytes that are safe in header fields, JSON and
/// logs as they are. Small, and cheap to clone: an idle connection has room for one.
#[derive(Clone, PartialEq, Eq)]
pub struct RequestId(Arc<str>);

impl RequestId {
    /// A client's id; `None` if it is empty, too long or has other characters than letters,
    /// digits and `-_.:/+=@~`, and then the request gets one of ours.
    #[must_use]
    pub fn from_field(field: &[u8]) -> Option<Self> {
        let safe = |byte: &u8| byte.is_ascii_alphanumeric() || b"-_.:/+=@~".contains(byte);
        let fits = (1..=REQUEST_ID_BYTES_MAX).contains(&field.len());
        let text = str::from_utf8(field).ok()?;
        (fits && field.iter().all(safe)).then(|| Self(text.into()))
    }

    /// The id as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for RequestId {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(self.as_str())
    }
}

impl fmt::Debug for RequestId {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "RequestId({})", self.as_str())
    }
}

/// Makes ids, one of these a core: ULIDs (time, then a sequence that starts at a seed), unique in
/// the process and sorted by time. They name requests and guard nothing, so they may be guessed.
#[derive(Debug)]
pub struct RequestIds {
    state: u128,
}

impl RequestIds {
    /// A source with a seed of its own; from a random source, and different for each core.
    #[must_use]
    pub const fn new(seed: u128) -> Self {
        Self { state: seed }
    }

    /// The next id at that time (Unix, ms).
    pub fn next(&mut self, now_unix_ms: u64) -> RequestId {
        // An odd step visits every value of the 80 random bits before it comes back to one.
        self.state = self.state.wrapping_add(0x9e37_79b9_7f4a_7c15_f39d);
        let mut text = [0; ULID_LEN];
        let text = Ulid::from_parts(now_unix_ms, self.state).array_to_str(&mut text);
        RequestId::from_field(text.as_bytes()).expect("a ULID is 26 letters and digits")
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test may panic")]
    use super::*;
    use std::collections::HashSet;

    #[test]
    fn harmless_ids_are_kept() {
        let longest = "a".repeat(REQUEST_ID_BYTES_MAX);
        let uuid = "7c9e6679-7425-40de-944b-e07fc1f90ae7";
        for id in ["req-123", "a", uuid, &longest] {
            assert_eq!(RequestId::from_field(id.as_bytes()).unwrap().as_str(), id);
        }
    }

    #[test]
    fn others_are_not() {
        let longer = "a".repeat(REQUEST_ID_BYTES_MAX + 1);
        for id in ["", " ", "a b", "a\r\nX: y", "a\"b", "ä", "a\0", "<x>", "a,b", &longer] {
            assert_eq!(RequestId::from_field(id.as_bytes()), None, "{id:?}");
        }
        assert_eq!(RequestId::from_field(&vec![b'a'; 300]), None);
    }

    #[test]
    fn ours_are_unique_and_begin_with_the_time() {
        let mut ids = RequestIds::new(7);
        let many: HashSet<String> =
            (0..1000).map(|_| ids.next(1_469_918_176_385).to_string()).collect();
        assert_eq!(many.len(), 1000);
        assert!(many.iter().all(|id| id.starts_with("01ARYZ6S41") && id.len() == 26));
    }
}
