//! What a proxy answers: a byte for its kind and one for how it is cut, and its bytes.
#![no_main]

use forebay_fuzz::fetch::fuzzing;

libfuzzer_sys::fuzz_target!(|data: &[u8]| fuzzing::fuzz_proxy(data));
