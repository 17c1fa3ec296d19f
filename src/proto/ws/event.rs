//! What a session says to its caller.

use super::close::{CloseCode, Violation};
use super::frame::FrameHead;

/// Text or binary.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum MessageKind {
    /// UTF-8.
    Text,
    /// Any bytes.
    Binary,
}

/// What the peer did. Payloads lie in the caller's input or in the session, and may be changed in
/// place, as some JSON parsers want it.
#[derive(Debug, PartialEq, Eq)]
pub enum Event<'a> {
    /// A whole text message: its bytes are valid UTF-8.
    Text(&'a mut [u8]),
    /// A whole binary message.
    Binary(&'a mut [u8]),
    /// A ping; its pong is queued already.
    Ping(&'a [u8]),
    /// A pong, asked for or not.
    Pong(&'a [u8]),
    /// The peer closes; our Close is queued, unless it went first. No event follows.
    Close(Option<CloseCode>, &'a str),
    /// Much of a compressed message has been inflated and more is there: let others have their turn, then
    /// call again with the same rest.
    Turn,
    /// The peer broke a rule; a Close with [`Violation::code`] is queued. No event follows.
    Violation(Violation),
}

/// How far the connection is from its end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Status {
    /// Messages go both ways.
    Open,
    /// Our Close is queued or sent, the peer's is awaited. Go on reading; send no messages.
    Closing,
    /// Both have closed, or the peer broke a rule. Send what [`Session::poll_transmit`](super::Session::poll_transmit) has, shut
    /// the write side down, and read until end of file: data unread at close would make the kernel
    /// reset the connection, and the reset can overtake our Close frame.
    Draining,
    /// Drop the socket now.
    Cut(CutReason),
}

/// Why the socket is to be dropped.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CutReason {
    /// The closing handshake is done and the peer has closed the socket.
    Finished,
    /// The peer closed the socket without a closing handshake (close code 1006 to applications).
    PeerGone,
    /// Nothing came back after several pings.
    PeerSilent,
    /// The peer did not finish the closing handshake in time.
    CloseTimeout,
}

/// The way to put a message on the wire.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Outgoing {
    /// The frame's header, to be sent first.
    pub head: FrameHead,
    /// Whether what follows it is what the message was compressed into; else its parts as they are.
    pub deflated: bool,
}

/// Why a message can't be sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum SendError {
    /// The session is not [`Status::Open`] any more.
    #[error("the WebSocket is closing")]
    Closed,
    /// The compressor failed: a bug of ours. Close with [`CloseCode::INTERNAL_ERROR`].
    #[error("compressing a message failed")]
    Deflate,
}
