//! Forebay's runtime layer.
#![allow(unsafe_code, reason = "the kernel borrows buffers here; every block says why it is sound")]

pub mod arena;
pub mod chunk;
pub mod core;
mod doorbell;
mod gate;
pub mod lane;
mod listener;
pub mod mailbox;
pub mod net;
pub mod probe;
mod queue;
pub mod ring;
mod select;
mod stats;
mod sys;
mod task;
pub mod time;

pub use chunk::{Chunk, Gather};
pub use doorbell::yield_now;
pub use gate::{Gate, Pass, Signal};
pub use probe::{Driver, Runtime};
pub use select::{Either, Select2, select2};
pub use stats::{CoreStats, stats};
pub use task::{Task, spawn};
