//! Forebay binary.
fn main() {}
