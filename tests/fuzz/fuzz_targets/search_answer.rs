//! A letter for the provider, and its answer.
#![no_main]

use forebay_fuzz::search::answer;

libfuzzer_sys::fuzz_target!(|data: &[u8]| answer::fuzz(data));
