//! Sans-IO codecs: bytes in, events out; no clock, no socket.

pub mod events;
pub mod json;
pub mod timestamp;
