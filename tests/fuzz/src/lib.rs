//! Forebay's sans-IO modules alone, included by path: without the sandbox's compiler they build
//! in seconds, so that fuzzing fits into every run of the gate.
//!
//! The checks are in the library beside the codecs (`fetch/fuzzing.rs`, `proto/*/fuzzing.rs`),
//! where unit tests call them too; a target here is one line.

#[path = "../../../src/error.rs"]
pub mod error;
/// What of `extract` is without the sandbox.
#[path = "."]
pub mod extract {
    #[path = "../../../src/extract/charset.rs"]
    pub mod charset;
    #[path = "../../../src/extract/json.rs"]
    pub mod json;
}
/// What of `fetch` is without IO.
#[path = "."]
pub mod fetch {
    #[path = "../../../src/fetch/decode.rs"]
    pub mod decode;
    #[path = "../../../src/fetch/egress.rs"]
    pub mod egress;
    #[path = "../../../src/fetch/fuzzing.rs"]
    pub mod fuzzing;
    #[path = "../../../src/fetch/robots.rs"]
    pub mod robots;
    #[path = "../../../src/fetch/special.rs"]
    pub mod special;
    #[path = "../../../src/fetch/target.rs"]
    pub mod target;
}
#[path = "../../../src/limits.rs"]
pub mod limits;
#[path = "../../../src/proto/mod.rs"]
pub mod proto;
#[path = "../../../src/timings.rs"]
pub mod timings;
