//! Any text as a URL and as a Location.
#![no_main]

use forebay_fuzz::fetch::fuzzing;

libfuzzer_sys::fuzz_target!(|data: &[u8]| fuzzing::fuzz_url(data));
