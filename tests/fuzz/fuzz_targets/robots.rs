//! A path and a robots.txt.
#![no_main]

use forebay_fuzz::fetch::fuzzing;

libfuzzer_sys::fuzz_target!(|data: &[u8]| fuzzing::fuzz_robots(data));
