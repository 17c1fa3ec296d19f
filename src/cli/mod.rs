//! The commands: what each takes, what it prints, and how it exits.

pub mod client;
pub mod command;
pub mod crawl;
pub mod demo;
pub mod files;
pub mod hdr;
pub mod key;
pub mod run;
pub mod seen;
pub mod settings;
pub mod startup;
pub mod top;
