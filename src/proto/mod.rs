//! Sans-IO codecs: bytes in, events out; no clock, no socket.

pub mod ndjson;
pub mod sse;
pub mod ws;
