//! What to fetch next, on which core, and what becomes of it: joins fetch, extract and stream.
//!
//! A request becomes a [`live::Live`] stream on its core's [`node::Node`]; each URL becomes a page
//! ([`page`]) on some core; letters between cores are [`mesh::Message`]s.

mod about;
mod asking;
mod beyond;
pub mod cached;
pub mod claims;
mod follow;
mod frontier;
mod indexing;
pub mod lane;
pub mod live;
pub mod mesh;
pub mod mirror;
pub mod node;
pub mod page;
pub mod query;
pub mod reading;
pub mod report;
pub mod request;
mod scribe;
mod second;
pub mod sitemap;
mod spans;
pub mod spare;
pub mod turns;
