//! A letter (`c`rawl, `d`eepsearch), and a query string.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| forebay_fuzz::fuzz_query(data));
