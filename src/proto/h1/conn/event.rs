//! What a connection says to its caller: where it stands, what bytes meant, what it refuses.

use crate::error::{ApiCode, ApiError};
use crate::proto::chunked::Step;
use crate::proto::h1::{BadField, BodyError, Reject};

/// Where a connection stands; the module has the diagram.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum State {
    /// Between requests; no byte of the next one has come.
    Idle,
    /// A head is arriving, or has been refused.
    Head,
    /// A request is being decided on. Its body, if any, is complete or not asked for yet.
    Request,
    /// The request's body is being read.
    Body,
    /// An answer is being written.
    Answer,
    /// The answer is written; what is left of the request's body is read away.
    Drain,
    /// The last answer is written and the sending side shut; what still comes is dropped, so that
    /// no RST destroys the answer on its way (RFC 9112 §9.6).
    Linger,
    /// The connection speaks another protocol.
    Upgraded,
    /// Nothing more to do but to close the socket.
    Closed,
}

/// What the bytes meant.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// Nothing yet: read more, and append it.
    NeedMore,
    /// A request is complete up to its body. [`super::Connection::request`] views it in the same buffer.
    /// From now on give only the bytes behind `head_len`.
    Request {
        /// Bytes of the head.
        head_len: usize,
    },
    /// A part of the body; drop `consumed` bytes when it has been used. `done` ends the body.
    Body(Step),
    /// Bytes that nobody wants: drop them and look at [`super::Connection::state`].
    Drop {
        /// How many.
        consumed: usize,
    },
    /// Not now: the bytes stay in the buffer until the answer is finished.
    Busy,
    /// The connection is over.
    Closed,
}

/// Why a request can't be served as it came. Answer it with [`super::Connection::start_answer`]; the
/// connection closes behind the answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// The head.
    #[error("{}", .0.message())]
    Head(Reject),
    /// The body.
    #[error("{0}")]
    Body(BodyError),
    /// It took too long (RFC 9110 §15.5.9).
    #[error("the request did not arrive in time")]
    Timeout,
}

impl Refusal {
    /// The code to answer with.
    #[must_use]
    pub fn code(self) -> ApiCode {
        match self {
            Self::Head(reject) => reject.code(),
            Self::Body(error) => error.api_code(),
            Self::Timeout => ApiCode::RequestTimeout,
        }
    }
}

impl From<Refusal> for ApiError {
    fn from(refusal: Refusal) -> Self {
        Self::new(refusal.code(), refusal.to_string())
    }
}

/// A call that the state does not allow: a bug of the caller, which the connection survives.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("{call} is not possible in state {state:?}")]
pub struct Illegal {
    /// The method that was called.
    pub call: &'static str,
    /// The state that it was called in, which did not change.
    pub state: State,
}

/// Why an answer was not started; the state did not change and nothing was written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum AnswerError {
    /// Not in this state.
    #[error(transparent)]
    Illegal(#[from] Illegal),
    /// Not with these fields.
    #[error(transparent)]
    Field(#[from] BadField),
}

/// What a request's body can be refused with, before a byte of it is read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum WantBodyError {
    /// Not in this state.
    #[error(transparent)]
    Illegal(#[from] Illegal),
    /// It is too large; answer with the code of [`Refusal::Body`].
    #[error(transparent)]
    Refused(#[from] Refusal),
}
