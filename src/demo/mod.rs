//! What `forebay demo` crawls: pages of our own ([`pages`]) behind a small origin on loopback
//! ([`origin`]), so that the main job can be seen on a machine without any other service.

pub mod origin;
pub mod pages;

pub use origin::Origin;
