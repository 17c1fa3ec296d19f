//! Outbound.
pub mod decode;
pub mod egress;
pub mod redirect;
pub mod special;
pub mod target;
