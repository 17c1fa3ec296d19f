//! Forebay's runtime layer: one pinned thread per CPU with one loop ([`core`]), and what runs on it: tasks ([`spawn`]), timers ([`time`]), sockets
//! ([`net`]), an arena of I/O buffers ([`arena`]), gather sends ([`Gather`]), the backpressure ring ([`ring`]), and what crosses threads: mailboxes
//! ([`mailbox`]) and the lane beside each loop ([`lane`]).
//!
//! It stands on monoio, on io_uring where the kernel has it and on epoll where not ([`probe`] decides and says why); everything here
//! behaves the same on both, and every test runs on both. It is the only package with `unsafe`, and the only one that names monoio.
//!
//! ```
//! use uring::core::{self, CoreConfig};
//! use uring::{Runtime, arena, net, probe};
//!
//! let choice = probe::choose(Runtime::Auto, &probe::probe())?;
//! let core = core::spawn(CoreConfig::new(0, choice.driver), || async {
//!     let listener = net::TcpListener::bind("127.0.0.1:0".parse().expect("an address"), 128)?;
//!     let client = net::TcpStream::connect(listener.local_addr()?).await?;
//!     let server = listener.accept().await?.expect("not stopped");
//!     client.write_all("hello").await?;
//!     let (result, buf) = server.read(arena::alloc(512)).await;
//!     result.map(|_| buf.len())
//! })?;
//! assert_eq!(core.join()??, 5);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! # Traps of monoio 0.2.4, and what is done about them
//!
//! | trap | answer |
//! | --- | --- |
//! | A task that wakes itself is put in front of the queue: no I/O happens any more. | [`yield_now`] comes back by a completion. |
//! | A cancelled accept leaks the descriptor that it got. | None is ever in flight: [`net::TcpListener`] waits for readability and accepts without waiting. |
//! | A waker used on another thread is undefined behaviour (its `sync` feature mends that at a cost to every wake-up). | No waker leaves its core: see [`mailbox`]. |
//! | A runtime dropped with tasks waiting leaks them and the ring (they refer to each other), and dropped with reads in flight frees buffers that the kernel may yet write to. | A stopping core drops every task's future on the running loop, then waits until the kernel holds no buffer; should that take seconds, ring and buffers are leaked instead. |
//! | A task that panics takes the loop with it. | Each task is its own panic boundary. |
//! | Under io_uring a non-blocking socket answers `EAGAIN` instead of waiting; an accepted one isn't close-on-exec. | Sockets are made and accepted here, with the mode that the driver needs. |
//! | Timers are looked at only when the loop parks. | Nothing to be done from outside: tasks that wake each other without end must [`yield_now`]. |
//! | A close is queued and happens when the loop parks. | Code on a loop never blocks on what a peer does after a close. |
//! | A cancelled operation costs an allocation and a cancellation. | Pin what is waited for repeatedly ([`select2`]); waiting for a mailbox, a timer or a [`Signal`] costs neither. |
//!
//! # Why it is sound
//!
//! 1. **Buffers.** What an operation points to, it owns: a read owns its [`arena::Buf`], a send its chunks and the list of them. All of these keep their memory at one
//!    address wherever the owner moves. A dropped future leaves its operation to the driver, which drops it when the kernel's completion has come.
//!    `CoreStats::buffers_in_flight` counts exactly these, and a core's end waits for zero.
//! 2. **Threads.** Buffers, streams, tasks and wakers are `!Send`. What crosses threads is the queue under mailboxes and lanes (one slot, one
//!    owner at a time, handed over by its sequence number), atomics and eventfds.
//! 3. **monoio's `&mut`.** Its stream wants `&mut self` to read and to write; `net` makes both from a shared handle, which holds because of how 0.2.4 implements them. So
//!    the dependency is pinned to exactly that version, and the one place says what it relies on.
//! 4. **Miri.** The unit tests of `arena`, `chunk`, `queue` and `ring` touch no kernel ring, so that Miri can run them:
//!    `MIRIFLAGS=-Zmiri-disable-isolation cargo +nightly miri test -p forebay-uring --lib -- arena chunk queue ring`.

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
mod timers;

pub use chunk::{Chunk, Gather};
pub use doorbell::yield_now;
pub use gate::{Gate, Pass, Signal};
pub use probe::{Driver, Runtime};
pub use select::{Either, Select2, select2};
pub use stats::{CoreStats, stats};
pub use sys::raise_descriptors;
pub use task::{Task, spawn};
