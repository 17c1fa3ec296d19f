//! WebSocket (RFC 6455) with permessage-deflate (RFC 7692), server side, sans-IO.
//!
//! The way of a connection:
//! 1. [`handshake::accept`] judges an upgrade request and yields the 101 answer, with the
//!    subprotocol and the compression agreed.
//! 2. A [`Session`] takes over, starting with whatever bytes came glued to the request's head.
//!    It turns received bytes into [`Event`]s and messages to send into frame heads, and says by
//!    its [`Status`] when to stop writing and when to let the socket go.
//!
//! ```text
//!          close() / violation                peer's Close
//!   Open ───────────────────────► Closing ──────────────────► Draining
//!     │                              │                            │
//!     │ peer's Close (echoed)        │ deadline, EOF              │ deadline, EOF
//!     ├──────────────────────────────┼──────────► Draining        │
//!     │ two silent pings, EOF        ▼                            ▼
//!     └───────────────────────────► Cut ◄─────────────────────────┘
//! ```
//! A violation goes to Draining at once: nothing the peer says after it counts.
//!
//! Frame headers are parsed and written by `tungstenite`'s frame codec; which of them are legal
//! is decided in `frame`. What a session may hold is bounded by [`Config`] and `limits`.

mod close;
mod deflate;
mod event;
pub mod extension;
mod frame;
#[doc(hidden)]
pub mod fuzzing;
pub mod handshake;
mod mask;
mod session;
mod transmit;
mod utf8;

#[cfg(test)]
mod session_tests;
#[cfg(test)]
mod testing;

pub use close::{CloseCode, Violation};
pub use event::{CutReason, Event, MessageKind, Outgoing, SendError, Status};
pub use frame::FrameHead;
pub use session::{Config, DeflateConfig, Session};
