//! WebSocket frames that are mostly legal.
#![no_main]

use forebay_fuzz::proto::ws::fuzzing;

libfuzzer_sys::fuzz_target!(|data: &[u8]| fuzzing::frames(data));
