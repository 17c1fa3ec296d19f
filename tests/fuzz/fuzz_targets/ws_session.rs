//! WebSocket bytes as a client sends them.
#![no_main]

use forebay_fuzz::proto::ws::fuzzing;

libfuzzer_sys::fuzz_target!(|data: &[u8]| fuzzing::session(data));
