//! Seeing inside: latencies, metrics, the flight recorder of a stream, trace context and logs.
//!
//! Everything on the hot path is thread-confined: one [`Core`] per event loop, written with plain
//! stores. Readers ask each core for a `Send` copy and add the copies up.

pub mod exposition;
pub mod hist;
pub mod metrics;
pub mod process;
pub mod series;
pub mod snapshot;
pub mod sparse;
pub mod trace;
pub mod traceparent;
