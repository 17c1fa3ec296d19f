//! A body in one of the content codings.
#![no_main]

use forebay_fuzz::fetch::fuzzing;

libfuzzer_sys::fuzz_target!(|data: &[u8]| fuzzing::fuzz_decode(data));
