//! Entry functions for fuzzing: they take any bytes and panic if an invariant does not hold.
//!
//! A fuzz target calls them, and so does a test here.

use super::Ttls;
use super::envelope::{self, Now};
use super::freshness::{Fields, Freshness};
use super::key::Keyer;
use std::time::{Duration, UNIX_EPOCH};

const DAY: Duration = Duration::from_secs(24 * 3600);
/// Bytes of a document.
const DOCUMENT_BYTES_MAX: usize = 64 * 1024;

/// Five lines as `Cache-Control`, `Vary`, `Expires`, `Date` and `Age`: whatever they say, a page can be
/// asked whether it holds.
pub fn fuzz_freshness(data: &[u8]) {
    let text = String::from_utf8_lossy(data);
    let mut lines = text.split('\n');
    let fields = Fields {
        cache_control: lines.next().unwrap_or_default(),
        vary: lines.next().unwrap_or_default(),
        expires: lines.next(),
        date: lines.next(),
        age: lines.next(),
    };
    for with_credentials in [false, true] {
        let told = Freshness::read(&fields, UNIX_EPOCH + DAY * 20_000, DAY, with_credentials);
        assert!(told.age >= DAY, "it was on its way for that long");
        assert!(!told.holds(DAY * 365_000) || told.lifetime.is_none(), "nothing is for ever");
        assert!(told.holds(Duration::ZERO) || told.never || told.lifetime.is_some());
    }
}

/// Any bytes as a page from Redis, as they are and as what a good head stands before: no more is taken
/// from it than may be, and what is taken is written as something that reads the same.
pub fn fuzz_envelope(data: &[u8]) {
    let key = Keyer::new("fuzz").key("a");
    let ttls =
        Ttls { success: DAY, redirect: DAY, client_error: DAY, server_error: DAY, error: DAY };
    let check = |json: &[u8]| serde_json::from_slice::<serde::de::IgnoredAny>(json).is_ok();
    let now = Now::read();
    let read = |bytes: &[u8]| envelope::read(bytes, key, &ttls, DOCUMENT_BYTES_MAX, check, now);
    for bytes in [Some(data.to_vec()), envelope::seal(key, data, None)].into_iter().flatten() {
        let Some(entry) = read(&bytes) else { continue };
        assert!(entry.ttl <= DAY && entry.since <= now.instant);
        if let Some((again, left)) = envelope::write(key, &entry, DOCUMENT_BYTES_MAX, now) {
            assert!(left <= entry.ttl);
            // Its times are kept in milliseconds.
            let soon = left < Duration::from_millis(2);
            assert!(soon || read(&again).is_some(), "what we write we read");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn any_bytes_hold_every_invariant(data: Vec<u8>) {
            fuzz_freshness(&data);
            fuzz_envelope(&data);
        }

        #[test]
        fn likely_fields_hold_every_invariant(
            text in "((max-age|s-maxage|no-store|private|public)(=[0-9]{0,22})?,? ?){0,4}\n[*a]?\n\
                     (Sun, 06 Nov 1994 08:49:37 GMT)?\n(Sun, 06 Nov 9999 08:49:37 GMT)?\n[0-9]{0,22}",
        ) {
            fuzz_freshness(text.as_bytes());
        }
    }
}
