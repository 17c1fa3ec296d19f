//! A `Last-Event-ID` field.
#![no_main]

use forebay_fuzz::proto::sse::fuzzing;

libfuzzer_sys::fuzz_target!(|data: &[u8]| fuzzing::last_event_id(data));
