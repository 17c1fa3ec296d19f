//! An origin's bytes, as an answer to GET and to HEAD.
#![no_main]

use forebay_fuzz::proto::h1::fuzzing;

libfuzzer_sys::fuzz_target!(|data: &[u8]| fuzzing::fuzz_response(data));
