//! Forebay's sans-IO modules alone, included by path: without the sandbox's compiler they build
//! in seconds, so that fuzzing fits into every run of the gate.
//!
//! The checks are in the library beside the codecs (`fetch/fuzzing.rs`, `proto/*/fuzzing.rs`), where unit tests call
//! them too; a target here is one line.

#[path = "../../../src/error.rs"]
pub mod error;
pub mod fetch;
#[path = "../../../src/limits.rs"]
pub mod limits;
#[path = "../../../src/proto/mod.rs"]
pub mod proto;
#[path = "../../../src/timings.rs"]
pub mod timings;
