//! A letter for what the body is of, and the body.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| forebay_fuzz::fuzz_json_body(data));
