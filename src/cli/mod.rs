//! The commands: what each takes, what it prints, and how it exits.

pub mod client;
pub mod crawl;
pub mod demo;
pub mod key;
pub mod run;
pub mod seen;
