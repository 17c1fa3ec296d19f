//! What a guest hands out as its answer.
#![no_main]

use forebay_fuzz::extract::json;

libfuzzer_sys::fuzz_target!(|data: &[u8]| json::fuzz(data));
