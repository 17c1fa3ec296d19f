//! A client's bytes: heads and bodies, one after another.
#![no_main]

use forebay_fuzz::proto::h1::fuzzing;

libfuzzer_sys::fuzz_target!(|data: &[u8]| fuzzing::fuzz_request(data));
