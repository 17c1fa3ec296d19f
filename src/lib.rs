//! Forebay: fetches web pages, extracts their content in a WASM sandbox, and streams each result the
//! moment it is ready.
//!
//! A request passes nine stations; nothing else moves one:
//!
//! 1. **accept** – [`serve`]: the core's own listener takes a connection.
//! 2. **recv** – `serve::conn`: bytes land in an arena buffer; an idle connection holds none.
//! 3. **parse** – [`proto::h1`]: a head, a body, without I/O.
//! 4. **route** – [`serve::route`]: path and method to a handler.
//! 5. **crawl** – [`crawl`]: a request becomes a stream, its URLs become pages on every core.
//! 6. **fetch** – [`fetch`]: resolve, check the address, connect, TLS, exchange, decode.
//! 7. **extract** – [`extract`]: the core's lane runs the guest in a fresh WASM instance.
//! 8. **encode** – [`proto::events`]: the event's JSON around the guest's own bytes.
//! 9. **send** – `serve::sender`: log, backpressure ring, one vectored send for all that is ready.
//!
//! Modules stand in layer order: each knows only those above it, and those of one paragraph don't know
//! each other. `tests/tidy.rs` holds them to it.

#![forbid(unsafe_code)]

pub mod limits;

pub mod error;

pub mod timings;

pub mod local;
pub mod proto;

pub mod observe;

pub mod config;

pub mod descriptors;

pub mod cluster;

pub mod cache;
pub mod extract;
pub mod fetch;
pub mod search;

pub mod stream;

pub mod crawl;

pub mod jobs;

pub mod serve;

pub mod notify;
pub mod parts;

pub mod otlp;

pub mod checks;

pub mod reload;

pub mod control;

pub mod server;

pub mod demo;

pub mod cli;
