//! Values of `traceparent`, `Retry-After`, `X-Robots-Tag`, `Cache-Control` and its kin, one a line.
#![no_main]

use forebay_fuzz::{cache, fetch, observe};

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    observe::fuzzing::fuzz_traceparent(data);
    fetch::fuzzing::fuzz_fields(data);
    cache::fuzzing::fuzz_freshness(data);
});
