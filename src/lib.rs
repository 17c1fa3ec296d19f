//! Forebay.
#![forbid(unsafe_code)]
pub mod error;
pub mod extract;
pub mod limits;
pub mod timings;
