//! The chunked transfer coding (RFC 9112 §7.1), both directions.
//!
//! The decoder is a byte-wise state machine over framing bytes and jumps over data, so its cost is
//! linear however the input is cut, and it holds no buffer: data is reported as a range of the
//! caller's input.
//!
//! ```text
//!  ┌──────────────────────────────────────────────────────┐
//!  ▼                                                      │
//! SizeStart → Size → [SizeSpace] → [Extension] → SizeLf ──┼─ n > 0 → Data → DataCr → DataLf
//!                                                  │ n = 0
//!                                                  ▼
//!                         ┌──────────────── TrailerStart ── CR → EndLf → Done
//!                         ▼                        ▲
//!                    TrailerName → TrailerValue → TrailerLf
//! ```

use std::ops::Range;

use crate::limits::{CHUNK_LINE_BYTES_MAX, CHUNK_OVERHEAD_BYTES_MAX, TRAILER_BYTES_MAX};

/// What ends a chunk's data.
pub const CHUNK_END: &[u8] = b"\r\n";
/// The last chunk and an empty trailer section: what ends a chunked body.
pub const LAST_CHUNK: &[u8] = b"0\r\n\r\n";

/// What one call of a body decoder did with its input.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Step {
    /// Bytes of the input that are done with; the caller drops them after using `data`.
    pub consumed: usize,
    /// Body bytes, as a range of the input that lies within the consumed part; may be empty.
    pub data: Range<usize>,
    /// Whether the body is complete. What follows in the input belongs to the next message.
    pub done: bool,
}

/// How much to take from a sender.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Strictness {
    /// For requests: the grammar and nothing else.
    Strict,
    /// For responses: white space may stand behind a chunk size, as some old servers pad it.
    Lenient,
}

/// Why a chunked body is refused. None of these leaves the connection usable.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, thiserror::Error)]
pub enum ChunkError {
    /// A chunk size with no digit, a sign, a prefix, leading space or a non-hexadecimal digit.
    #[error("a chunk size is not a hexadecimal number")]
    BadSize,
    /// A chunk size that does not fit in 64 bits.
    #[error("a chunk size is too large to be true")]
    SizeOverflow,
    /// A control byte in a chunk extension.
    #[error("a chunk extension holds a control byte")]
    BadExtension,
    /// A chunk-size line longer than [`CHUNK_LINE_BYTES_MAX`].
    #[error("a chunk-size line is longer than {CHUNK_LINE_BYTES_MAX} bytes")]
    LineTooLong,
    /// Framing that outweighs its data by more than [`CHUNK_OVERHEAD_BYTES_MAX`].
    #[error("chunk extensions outweigh the data")]
    TooMuchFraming,
    /// A carriage return or line feed without its partner.
    #[error("a line of the chunked framing does not end with CRLF")]
    BadLineEnd,
    /// Chunk data that is longer than its announced size.
    #[error("chunk data does not end where its size says")]
    MissingDataEnd,
    /// A trailer line that is not `name: value`.
    #[error("a trailer field is malformed")]
    BadTrailer,
    /// A trailer section longer than [`TRAILER_BYTES_MAX`].
    #[error("the trailer section is longer than {TRAILER_BYTES_MAX} bytes")]
    TrailerTooLong,
    /// More data than the caller wants.
    #[error("the body is larger than allowed")]
    BodyTooLarge,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    SizeStart,
    Size,
    SizeSpace,
    Extension,
    SizeLf,
    Data,
    DataCr,
    DataLf,
    TrailerStart,
    TrailerName,
    TrailerValue,
    TrailerLf,
    EndLf,
    Done,
    Failed(ChunkError),
}

/// Incremental decoder of one chunked body. Trailer fields are checked, bounded and discarded.
///
/// Order of calls: [`Self::next`] with unread input; use `data`, drop `consumed` bytes, and call
/// again while `consumed` was not zero and `done` is false. When it consumes nothing it needs more
/// bytes. At the end of input a body is complete only if [`Self::is_done`].
#[derive(Debug, Clone)]
pub struct ChunkedDecoder {
    state: State,
    strictness: Strictness,
    /// In a size line, the size so far; in data, what is left of the chunk.
    size: u64,
    /// Bytes of the current size line.
    line_bytes: usize,
    trailer_bytes: usize,
    /// By how much size lines outweigh data so far.
    overhead: u64,
    /// Data bytes that may still be announced.
    allowance: u64,
}

impl ChunkedDecoder {
    /// A decoder that refuses a body of more than `body_bytes_max` data bytes, as soon as a chunk
    /// announces it.
    #[must_use]
    pub fn new(strictness: Strictness, body_bytes_max: u64) -> Self {
        Self {
            state: State::SizeStart,
            strictness,
            size: 0,
            line_bytes: 0,
            trailer_bytes: 0,
            overhead: 0,
            allowance: body_bytes_max,
        }
    }

    /// Whether the last chunk and its trailer section have been read.
    #[must_use]
    pub fn is_done(&self) -> bool {
        self.state == State::Done
    }

    /// Decodes up to the end of the next run of data, the end of the body or the end of `input`.
    ///
    /// # Errors
    /// [`ChunkError`], the same one again on every later call.
    pub fn next(&mut self, input: &[u8]) -> Result<Step, ChunkError> {
        let mut at = 0;
        loop {
            match self.state {
                State::Done => return Ok(Step { consumed: at, data: at..at, done: true }),
                State::Failed(error) => return Err(error),
                State::Data => {
                    let left = usize::try_from(self.size).unwrap_or(usize::MAX);
                    let end = at + left.min(input.len() - at);
                    self.size -= (end - at) as u64;
                    if self.size == 0 {
                        self.state = State::DataCr;
                    }
                    return Ok(Step { consumed: end, data: at..end, done: false });
                }
                _ => {}
            }
            let Some(&byte) = input.get(at) else {
                return Ok(Step { consumed: at, data: at..at, done: false });
            };
            at += 1;
            self.state = self.after(byte).unwrap_or_else(State::Failed);
        }
    }

    /// The state behind one framing byte.
    fn after(&mut self, byte: u8) -> Result<State, ChunkError> {
        match self.state {
            State::SizeStart | State::Size | State::SizeSpace | State::Extension => {
                self.line_bytes += 1;
                if self.line_bytes > CHUNK_LINE_BYTES_MAX {
                    return Err(ChunkError::LineTooLong);
                }
                self.after_in_size_line(byte)
            }
            State::SizeLf if byte == b'\n' => self.announced(),
            State::DataCr if byte == b'\r' => Ok(State::DataLf),
            State::DataLf if byte == b'\n' => Ok(State::SizeStart),
            State::DataCr | State::DataLf => Err(ChunkError::MissingDataEnd),
            State::EndLf if byte == b'\n' => Ok(State::Done),
            State::TrailerStart | State::TrailerName | State::TrailerValue | State::TrailerLf => {
                self.trailer_bytes += 1;
                if self.trailer_bytes > TRAILER_BYTES_MAX {
                    return Err(ChunkError::TrailerTooLong);
                }
                after_in_trailer(self.state, byte)
            }
            State::SizeLf | State::EndLf => Err(ChunkError::BadLineEnd),
            // `next` takes these three before it takes a byte.
            State::Data | State::Done | State::Failed(_) => Ok(self.state),
        }
    }

    // RFC 9112 §7.1: chunk-size [ chunk-ext ] CRLF
    fn after_in_size_line(&mut self, byte: u8) -> Result<State, ChunkError> {
        let digit = char::from(byte).to_digit(16);
        match (self.state, byte) {
            (State::SizeStart | State::Size, _) if let Some(digit) = digit => {
                // RFC 9112 §7.1: a recipient must anticipate large numbers and prevent overflow.
                let size = self.size.checked_mul(16).ok_or(ChunkError::SizeOverflow)?;
                self.size = size + u64::from(digit);
                Ok(State::Size)
            }
            (State::SizeStart, _) => Err(ChunkError::BadSize),
            (State::Extension, b'\t' | b' '..=b'~' | 0x80..) => Ok(State::Extension),
            (State::Size | State::SizeSpace, b';') => Ok(State::Extension),
            // RFC 9112 §7.1.1 has "bad white space" before a semicolon, and only there.
            (State::Size | State::SizeSpace, b' ' | b'\t') => Ok(State::SizeSpace),
            (State::SizeSpace, b'\r') if self.strictness == Strictness::Strict => {
                Err(ChunkError::BadSize)
            }
            (_, b'\r') => Ok(State::SizeLf),
            (_, b'\n') => Err(ChunkError::BadLineEnd),
            (State::Extension, _) => Err(ChunkError::BadExtension),
            _ => Err(ChunkError::BadSize),
        }
    }

    /// A size line is complete: takes the chunk, or starts the trailer section.
    fn announced(&mut self) -> Result<State, ChunkError> {
        // A plain size line is at most 16 digits, so only extensions, zeros and tiny chunks in
        // padded lines count as overhead.
        let line_bytes = std::mem::take(&mut self.line_bytes) as u64;
        self.overhead = (self.overhead + line_bytes).saturating_sub(self.size.saturating_add(17));
        if self.overhead > CHUNK_OVERHEAD_BYTES_MAX as u64 {
            return Err(ChunkError::TooMuchFraming);
        }
        if self.size == 0 {
            return Ok(State::TrailerStart);
        }
        self.allowance = self.allowance.checked_sub(self.size).ok_or(ChunkError::BodyTooLarge)?;
        Ok(State::Data)
    }
}

// RFC 9112 §7.1.2: trailer-section = *( field-line CRLF ); fields are checked and discarded.
fn after_in_trailer(state: State, byte: u8) -> Result<State, ChunkError> {
    match (state, byte) {
        (State::TrailerStart, b'\r') => Ok(State::EndLf),
        (State::TrailerStart | State::TrailerName, byte) if super::h1::is_token_byte(byte) => {
            Ok(State::TrailerName)
        }
        (State::TrailerName, b':') => Ok(State::TrailerValue),
        (State::TrailerValue, b'\t' | b' '..=b'~' | 0x80..) => Ok(State::TrailerValue),
        (State::TrailerValue, b'\r') => Ok(State::TrailerLf),
        (State::TrailerLf, b'\n') => Ok(State::TrailerStart),
        (State::TrailerLf, _) | (_, b'\n') => Err(ChunkError::BadLineEnd),
        _ => Err(ChunkError::BadTrailer),
    }
}

/// The size line in front of a chunk of data, made without allocation.
#[derive(Debug, Clone, Copy)]
pub struct ChunkHead {
    bytes: [u8; 18],
    start: u8,
}

impl ChunkHead {
    /// The size line for `len` bytes of data. A chunk of no data would end the body
    /// (RFC 9112 §7.1), so zero has none.
    #[must_use]
    pub fn new(len: usize) -> Option<Self> {
        if len == 0 {
            return None;
        }
        let mut bytes = *b"0000000000000000\r\n";
        let (mut rest, mut start) = (len, 16_u8);
        while rest > 0 {
            start -= 1;
            bytes[usize::from(start)] = b"0123456789abcdef"[rest & 0xf];
            rest >>= 4;
        }
        Some(Self { bytes, start })
    }

    /// The line with its CRLF.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        &self.bytes[usize::from(self.start)..]
    }
}

#[cfg(test)]
mod tests;
