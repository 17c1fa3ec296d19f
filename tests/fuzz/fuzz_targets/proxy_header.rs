//! What a proxy says of its client, versions 1 and 2, in any pieces.
#![no_main]

use forebay_fuzz::proto::proxy;

libfuzzer_sys::fuzz_target!(|data: &[u8]| proxy::fuzz(data));
