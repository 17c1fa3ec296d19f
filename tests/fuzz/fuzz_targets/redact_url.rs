//! A URL as it is logged, and a header field.
#![no_main]

use forebay_fuzz::observe::fuzzing;

libfuzzer_sys::fuzz_target!(|data: &[u8]| fuzzing::fuzz_redact(data));
