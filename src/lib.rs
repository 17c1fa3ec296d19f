//! Forebay.
#![forbid(unsafe_code)]
pub mod error;
pub mod limits;
pub mod proto;
pub mod timings;
