//! Forebay's outside view: an open-loop load generator with a client of its own, the synthetic
//! web that it crawls, and reports that a person reads.
//!
//! Nothing here shares code with the server, so a mistake of the server's codecs is not repeated
//! in the tool that should find it.
//!
//! - [`cli`]: the command line of the binary `loadtest`;
//! - [`origin`]: the synthetic web, also usable inside a test's process;
//! - `run`: scenario → schedule → connections → recorder;
//! - `http`, `events`: the client's codecs and the checks on what it receives;
//! - `report`: table, JSON, HdrHistogram's text formats, HTML.

#![forbid(unsafe_code)]

pub mod cli;
mod events;
mod http;
mod num;
pub mod origin;
mod report;
mod rng;
mod run;
mod units;
