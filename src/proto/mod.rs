//! Sans-IO codecs: bytes in, events out; no clock, no socket.

pub mod base64;
pub mod blocks;
pub mod chunked;
pub mod events;
pub mod forwarded;
pub mod h1;
pub mod json;
pub mod ndjson;
pub mod proxy;
pub mod sse;
pub mod text;
pub mod timestamp;
pub mod ws;
