//! HTTP/1.1 by hand (RFC 9110, RFC 9112), server side and client side.
//!
//! - A server gives a connection's bytes to [`Connection`], which is [`RequestDecoder`] and
//!   [`BodyReader`] with the rules of a connection's life around them, and writes with
//!   [`write_head`] and [`write_chunk`].
//! - A client writes with [`write_get`], reads heads with [`ResponseDecoder`] and bodies with
//!   [`BodyReader`].
//!
//! Heads are parsed in the caller's buffer: a view holds offsets and borrows, never copies, and the
//! tables of offsets are used again for the next head, so a warm connection allocates nothing.

mod body;
mod conn;
mod fields;
mod framing;
mod method;
mod reject;
mod request;
mod response;
mod scan;
mod target;
mod write;

#[doc(hidden)]
pub mod fuzzing;

pub use body::{BodyError, BodyReader, Framing};
pub use conn::{
    Action, AnswerError, Connection, Event, Illegal, Refusal, State, Timeout, Timeouts,
    WantBodyError,
};
pub use fields::{Fields, list_members};
pub use method::Method;
pub use reject::Reject;
pub use request::{Request, RequestDecoder};
pub use response::{Response, ResponseDecoder, ResponseError};
pub use target::TargetForm;
pub use write::{
    Answer, AnswerBody, BadField, CONTINUE, Sink, reason_phrase, write_chunk, write_get,
    write_head, write_last_chunk, write_post,
};

/// The two versions that are spoken here (RFC 9112 §2.3).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Version {
    /// HTTP/1.0: no chunked coding, one request per connection unless asked for otherwise.
    Http10,
    /// HTTP/1.1.
    Http11,
}

// RFC 9110 §5.6.2
const TOKEN_BYTES: [bool; 256] = {
    let tokens = b"!#$%&'*+-.^_`|~0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz";
    let mut table = [false; 256];
    let mut at = 0;
    while at < tokens.len() {
        table[tokens[at] as usize] = true;
        at += 1;
    }
    table
};

/// Whether a byte may stand in a token: a method, a field name, a coding (RFC 9110 §5.6.2).
#[must_use]
pub fn is_token_byte(byte: u8) -> bool {
    TOKEN_BYTES[usize::from(byte)]
}

/// Whether a byte may stand in a field value: no control byte but HTAB (RFC 9110 §5.5).
#[must_use]
pub fn is_value_byte(byte: u8) -> bool {
    matches!(byte, b'\t' | b' '..=b'~' | 0x80..)
}
