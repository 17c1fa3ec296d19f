//! A charset's label and a page in any encoding.
#![no_main]

use forebay_fuzz::extract::charset;

libfuzzer_sys::fuzz_target!(|data: &[u8]| charset::fuzz(data));
