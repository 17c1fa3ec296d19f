//! The codecs that the generator and the origin need, each sans-IO: bytes in, pieces out.

pub(crate) mod body;
pub(crate) mod head;
pub(crate) mod sse;
pub(crate) mod target;
pub(crate) mod ws;
