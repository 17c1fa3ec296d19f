//! A page as it is kept in Redis.
#![no_main]

use forebay_fuzz::cache::fuzzing;

libfuzzer_sys::fuzz_target!(|data: &[u8]| fuzzing::fuzz_envelope(data));
