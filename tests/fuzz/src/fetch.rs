//! What of `fetch` is without IO.

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
