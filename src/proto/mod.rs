//! Sans-IO codecs: bytes in, events out; no clock, no socket.

pub mod chunked;
pub mod h1;
