//! `X-Forwarded-For` and `Forwarded`: nothing left of a stranger changes who the client is.
#![no_main]

use forebay_fuzz::proto::forwarded;

libfuzzer_sys::fuzz_target!(|data: &[u8]| forwarded::fuzz(data));
