//! Message bodies of both sides: the framing that a head announced, applied to bytes.

use crate::error::{ApiCode, PageCode};
use crate::proto::chunked::{ChunkError, ChunkedDecoder, Step, Strictness};

/// What ends a message's body (RFC 9112 §6.3).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Framing {
    /// There is no body.
    None,
    /// That many bytes.
    Length(u64),
    /// The chunked coding.
    Chunked,
    /// The end of the connection; responses only.
    Close,
}

/// Why a body could not be read to its end. None of these leaves the connection usable.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, thiserror::Error)]
pub enum BodyError {
    /// More bytes than the caller wants, announced or received.
    #[error("the body is larger than {bytes_max} bytes")]
    TooLarge {
        /// The limit that was passed.
        bytes_max: u64,
    },
    /// The connection ended before the body did.
    #[error("the connection ended before the body did")]
    Truncated,
    /// Chunked framing that is refused.
    #[error("{0}")]
    Chunk(ChunkError),
}

impl BodyError {
    /// The code that answers a request with such a body.
    #[must_use]
    pub fn api_code(self) -> ApiCode {
        match self {
            Self::TooLarge { .. } => ApiCode::PayloadTooLarge,
            Self::Truncated | Self::Chunk(_) => ApiCode::BadRequest,
        }
    }

    /// The code of a page whose response has such a body.
    #[must_use]
    pub fn page_code(self) -> PageCode {
        match self {
            Self::TooLarge { .. } => PageCode::BodyTooLarge,
            Self::Truncated | Self::Chunk(_) => PageCode::HttpMalformed,
        }
    }
}

#[derive(Debug, Clone)]
enum Kind {
    Length { left: u64 },
    Chunked(ChunkedDecoder),
    Close { allowance: u64 },
}

/// Reads one body out of the bytes behind its head.
///
/// Order of calls: [`Self::next`] with unread input; use `data`, drop `consumed` bytes, and call
/// again while something was consumed and `done` is false; then read more. At the end of the
/// connection, [`Self::handle_eof`].
#[derive(Debug, Clone)]
pub struct BodyReader {
    kind: Kind,
    bytes_max: u64,
    received: u64,
}

impl BodyReader {
    /// A reader that refuses more than `bytes_max` body bytes.
    ///
    /// # Errors
    /// [`BodyError::TooLarge`] at once, when the head announces more.
    pub fn new(
        framing: Framing,
        strictness: Strictness,
        bytes_max: u64,
    ) -> Result<Self, BodyError> {
        let kind = match framing {
            Framing::None => Kind::Length { left: 0 },
            Framing::Length(length) if length > bytes_max => {
                return Err(BodyError::TooLarge { bytes_max });
            }
            Framing::Length(length) => Kind::Length { left: length },
            Framing::Chunked => Kind::Chunked(ChunkedDecoder::new(strictness, bytes_max)),
            Framing::Close => Kind::Close { allowance: bytes_max },
        };
        Ok(Self { kind, bytes_max, received: 0 })
    }

    /// Takes body bytes from the front of `input`.
    ///
    /// # Errors
    /// [`BodyError`]; the body is lost and the connection with it.
    pub fn next(&mut self, input: &[u8]) -> Result<Step, BodyError> {
        let bytes_max = self.bytes_max;
        let step = match &mut self.kind {
            Kind::Length { left } => {
                let take = usize::try_from(*left).unwrap_or(usize::MAX).min(input.len());
                *left -= take as u64;
                Step { consumed: take, data: 0..take, done: *left == 0 }
            }
            Kind::Chunked(decoder) => decoder.next(input).map_err(|error| match error {
                ChunkError::BodyTooLarge => BodyError::TooLarge { bytes_max },
                other => BodyError::Chunk(other),
            })?,
            Kind::Close { allowance } => {
                *allowance = allowance
                    .checked_sub(input.len() as u64)
                    .ok_or(BodyError::TooLarge { bytes_max })?;
                Step { consumed: input.len(), data: 0..input.len(), done: false }
            }
        };
        self.received += step.data.len() as u64;
        Ok(step)
    }

    /// The connection ended.
    ///
    /// # Errors
    /// [`BodyError::Truncated`] if the body did not (RFC 9112 §8).
    pub fn handle_eof(&self) -> Result<(), BodyError> {
        if self.is_complete_on_eof() { Ok(()) } else { Err(BodyError::Truncated) }
    }

    /// Whether the body would be whole if the connection ended now.
    #[must_use]
    pub fn is_complete_on_eof(&self) -> bool {
        matches!(self.kind, Kind::Close { .. }) || self.is_done()
    }

    /// Whether the framing says that nothing more belongs to this body.
    #[must_use]
    pub fn is_done(&self) -> bool {
        match &self.kind {
            Kind::Length { left } => *left == 0,
            Kind::Chunked(decoder) => decoder.is_done(),
            Kind::Close { .. } => false,
        }
    }

    /// Body bytes so far, without framing.
    #[must_use]
    pub fn received_bytes(&self) -> u64 {
        self.received
    }

    /// Body bytes still to come, where the head told.
    #[must_use]
    pub fn remaining_bytes(&self) -> Option<u64> {
        match &self.kind {
            Kind::Length { left } => Some(*left),
            Kind::Chunked(_) | Kind::Close { .. } => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn reader(framing: Framing, bytes_max: u64) -> Result<BodyReader, BodyError> {
        BodyReader::new(framing, Strictness::Lenient, bytes_max)
    }

    #[test]
    fn a_length_is_kept_to() -> Result<(), BodyError> {
        let mut body = reader(Framing::Length(5), 5)?;
        assert_eq!(body.next(b"abc"), Ok(Step { consumed: 3, data: 0..3, done: false }));
        assert_eq!((body.received_bytes(), body.remaining_bytes()), (3, Some(2)));
        assert_eq!(body.handle_eof(), Err(BodyError::Truncated));
        assert_eq!(body.next(b"deHTTP"), Ok(Step { consumed: 2, data: 0..2, done: true }));
        assert_eq!(body.next(b"HTTP"), Ok(Step { consumed: 0, data: 0..0, done: true }));
        assert_eq!(body.handle_eof(), Ok(()));
        assert_eq!(reader(Framing::None, 0)?.next(b"x").map(|step| step.done), Ok(true));
        Ok(())
    }

    #[test]
    fn limits_hold_for_every_framing() -> Result<(), BodyError> {
        let too_large = BodyError::TooLarge { bytes_max: 5 };
        assert_eq!(reader(Framing::Length(6), 5).err(), Some(too_large));
        assert_eq!(reader(Framing::Chunked, 5)?.next(b"6\r\n"), Err(too_large));
        let mut body = reader(Framing::Close, 5)?;
        assert_eq!(body.next(b"abcde"), Ok(Step { consumed: 5, data: 0..5, done: false }));
        assert_eq!(body.next(b"f"), Err(too_large));
        assert_eq!(
            (too_large.api_code().status(), too_large.page_code()),
            (413, PageCode::BodyTooLarge)
        );
        Ok(())
    }

    #[test]
    fn truncation_is_told_from_the_end() -> Result<(), BodyError> {
        assert_eq!(reader(Framing::Close, 5)?.handle_eof(), Ok(()));
        let mut body = reader(Framing::Chunked, 5)?;
        body.next(b"1\r\na")?;
        assert_eq!(body.handle_eof(), Err(BodyError::Truncated));
        body.next(b"\r\n0\r\n\r")?;
        assert_eq!(body.handle_eof(), Err(BodyError::Truncated), "the last line feed counts");
        assert_eq!(body.next(b"\n").map(|step| step.done), Ok(true));
        assert_eq!(body.handle_eof(), Ok(()));
        Ok(())
    }
}
