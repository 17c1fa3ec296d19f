//! Chunked bodies in any cut.
#![no_main]

use forebay_fuzz::proto::h1::fuzzing;

libfuzzer_sys::fuzz_target!(|data: &[u8]| fuzzing::fuzz_chunked(data));
