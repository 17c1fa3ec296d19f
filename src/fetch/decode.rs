//! Content codings, undone while the body arrives (RFC 9110 §8.4).
//!
//! Sans-IO: encoded bytes in, decoded bytes appended to the caller's buffer, at most `budget` of
//! them per call so that the caller can yield between calls. Three caps hold at every step, not
//! only at the end: on the decoded bytes, on the encoded bytes (an endless run of empty frames
//! decodes to nothing), and on the ratio between them (decompression bombs).

use crate::error::{PageCode, PageError, Stage};
use crate::limits::{
    CONTENT_CODINGS_MAX, DECODE_RATIO_FREE_BYTES, DECODE_RATIO_MAX, ENCODED_SLACK_BYTES,
    ZSTD_WINDOW_LOG_MAX,
};
use brotli::enc::StandardAlloc;
use brotli::{BrotliDecompressStream, BrotliResult, BrotliState};
use flate2::{Decompress, FlushDecompress, Status};
use zstd::stream::raw::{DParameter, Decoder as ZstdDecoder, Operation};

/// What is sent as `Accept-Encoding`, and all that [`Decoder`] can undo beside `identity`.
pub const ACCEPT_ENCODING: &str = "gzip, deflate, br, zstd";

/// Decoded bytes that one step of one coding makes at most.
const STEP_BYTES: usize = 16 * 1024;
/// Room for what comes of a piece of one byte, and for each further byte: what a step may fill is
/// cleared first, which is most of the work where a body comes in crumbs.
const CRUMB_ROOM: (usize, usize) = (256, 8);

/// Why a body cannot be decoded.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum DecodeError {
    /// A coding that was not asked for.
    #[error("the content coding {0:?} is not one of {ACCEPT_ENCODING}")]
    Unknown(String),
    /// More codings on top of each other than [`CONTENT_CODINGS_MAX`].
    #[error("more than {CONTENT_CODINGS_MAX} content codings are stacked")]
    Stacked,
    /// The coding's own format is violated.
    #[error("the body is not valid {0}")]
    Corrupt(&'static str),
    /// The body ends before the coding's end.
    #[error("the {0} body ends before its end mark")]
    Truncated(&'static str),
    /// The body grows more than [`DECODE_RATIO_MAX`] times.
    #[error("the body decompresses to more than {DECODE_RATIO_MAX} times its size")]
    Bomb,
    /// More bytes than the caller takes.
    #[error("the body is larger than {0} bytes")]
    TooLarge(u64),
}

impl From<DecodeError> for PageError {
    fn from(error: DecodeError) -> Self {
        let code = match error {
            DecodeError::TooLarge(_) => PageCode::BodyTooLarge,
            _ => PageCode::DecodeFailed,
        };
        Self::new(code, Stage::Body, error.to_string())
    }
}

/// What one call of [`Decoder::handle_input`] did.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Progress {
    /// Encoded bytes that were read from the front of the input.
    pub consumed: usize,
    /// All input is read and nothing is left to come of it; otherwise call again with the rest.
    pub drained: bool,
}

/// Undoes the codings of one body.
///
/// Order of calls: [`handle_input`](Self::handle_input) for each piece of the body until it says
/// `drained`, then [`handle_end`](Self::handle_end).
pub struct Decoder {
    /// Outermost first: the coding that was applied last.
    layers: Vec<Layer>,
    /// What lies between two layers: `middle[middle_at..]` is not yet read by the second.
    middle: Vec<u8>,
    middle_at: usize,
    bytes_max: u64,
    encoded: u64,
    between: u64,
    decoded: u64,
}

impl Decoder {
    /// A decoder for a body with this `Content-Encoding` (all its field lines joined by commas;
    /// empty for none), of which at most `bytes_max` decoded bytes are wanted.
    ///
    /// # Errors
    /// An unknown coding, or too many.
    pub fn new(content_encoding: &str, bytes_max: u64) -> Result<Self, DecodeError> {
        let mut layers = Vec::new();
        // RFC 9110 §8.4: codings are listed in the order in which they were applied.
        for coding in content_encoding.rsplit(',').map(str::trim) {
            if coding.is_empty() || coding.eq_ignore_ascii_case("identity") {
                continue;
            }
            if layers.len() == CONTENT_CODINGS_MAX {
                return Err(DecodeError::Stacked);
            }
            layers.push(Layer::new(coding)?);
        }
        let middle = Vec::new();
        Ok(Self { layers, middle, middle_at: 0, bytes_max, encoded: 0, between: 0, decoded: 0 })
    }

    /// Decodes from the front of `input`, appends to `out` at most `budget` bytes.
    ///
    /// # Errors
    /// The body breaks its coding's format or one of the caps; nothing more can come of it.
    pub fn handle_input(
        &mut self,
        input: &[u8],
        out: &mut Vec<u8>,
        budget: usize,
    ) -> Result<Progress, DecodeError> {
        let (start, mut consumed) = (out.len(), 0);
        loop {
            let made = out.len() - start;
            if made >= budget {
                return Ok(Progress { consumed, drained: false });
            }
            // One byte above the cap is room enough to see that it is passed.
            let spare = usize::try_from(self.bytes_max - self.decoded).unwrap_or(usize::MAX);
            let room = (budget - made).min(spare.saturating_add(1));
            let room = room.min(room_for(input.len() - consumed, made));
            let Step { read, written, between } = self.step(&input[consumed..], out, room)?;
            consumed += read;
            self.encoded += read as u64;
            self.decoded += written as u64;
            self.between += between as u64;
            self.check_caps()?;
            // A single coding that leaves room has nothing more to say without more input.
            let idle = read == 0 && written == 0 && between == 0;
            let silent = self.layers.len() < 2 && consumed == input.len() && written < room;
            if idle || silent {
                return Ok(Progress { consumed, drained: true });
            }
        }
    }

    /// The body is at its end: every coding must be too. A body of no bytes at all is fine.
    ///
    /// # Errors
    /// A coding's end mark has not come.
    pub fn handle_end(&self) -> Result<(), DecodeError> {
        if self.encoded == 0 {
            return Ok(());
        }
        match self.layers.iter().find(|layer| !layer.at_end()) {
            Some(layer) => Err(DecodeError::Truncated(layer.name())),
            None => Ok(()),
        }
    }

    /// Decoded bytes so far.
    #[must_use]
    pub const fn decoded_bytes(&self) -> u64 {
        self.decoded
    }

    fn check_caps(&self) -> Result<(), DecodeError> {
        let encoded_max = self.bytes_max.saturating_add(ENCODED_SLACK_BYTES);
        if self.decoded > self.bytes_max || self.encoded > encoded_max {
            return Err(DecodeError::TooLarge(self.bytes_max));
        }
        let largest = self.decoded.max(self.between);
        if !self.layers.is_empty()
            && largest > DECODE_RATIO_FREE_BYTES
            && largest / DECODE_RATIO_MAX > self.encoded
        {
            return Err(DecodeError::Bomb);
        }
        Ok(())
    }

    /// One step through all layers.
    fn step(&mut self, input: &[u8], out: &mut Vec<u8>, room: usize) -> Result<Step, DecodeError> {
        match self.layers.as_mut_slice() {
            [] => {
                let read = input.len().min(room);
                out.extend_from_slice(&input[..read]);
                Ok(Step { read, written: read, between: 0 })
            }
            [only] => {
                let (read, written) = append(out, room, |space| only.step(input, space))?;
                Ok(Step { read, written, between: 0 })
            }
            [outer, inner, ..] => {
                let (mut read, mut between) = (0, 0);
                if self.middle_at == self.middle.len() {
                    self.middle.clear();
                    self.middle_at = 0;
                    let room = room_for(input.len(), 0);
                    (read, between) =
                        append(&mut self.middle, room, |space| outer.step(input, space))?;
                }
                let middle = &self.middle[self.middle_at..];
                let (taken, written) = append(out, room, |space| inner.step(middle, space))?;
                self.middle_at += taken;
                if taken == 0 && written == 0 && !middle.is_empty() {
                    return Err(DecodeError::Corrupt(inner.name()));
                }
                // Bytes that the inner layer took without an outcome yet are progress too.
                Ok(Step { read, written, between: between.max(taken) })
            }
        }
    }
}

/// Bytes read from the input, appended to the output, and moved between two layers.
struct Step {
    read: usize,
    written: usize,
    between: usize,
}

/// Room for one step over so many bytes of input, after `made` bytes have come of the piece.
fn room_for(input: usize, made: usize) -> usize {
    (CRUMB_ROOM.0 + CRUMB_ROOM.1.saturating_mul(input)).max(made).min(STEP_BYTES)
}

/// Lets `fill` write into `room` bytes behind the end of `out`; keeps what it wrote.
fn append(
    out: &mut Vec<u8>,
    room: usize,
    fill: impl FnOnce(&mut [u8]) -> Result<(usize, usize), DecodeError>,
) -> Result<(usize, usize), DecodeError> {
    let start = out.len();
    #[cfg(test)]
    CLEARED.set(CLEARED.get() + room);
    out.resize(start + room, 0);
    let outcome = fill(&mut out[start..]);
    out.truncate(start + outcome.as_ref().map_or(0, |&(_, written)| written));
    outcome
}

#[cfg(test)]
thread_local! {
    /// Bytes that steps have cleared.
    static CLEARED: std::cell::Cell<usize> = const { std::cell::Cell::new(0) };
}

/// One coding's state.
enum Layer {
    /// RFC 1952; `None` between two members.
    Gzip { member: Option<Decompress>, members: u64, ignoring: bool },
    /// RFC 9110 §8.4.1.2: zlib (RFC 1950), but some servers send raw deflate (RFC 1951), told apart
    /// by the first two bytes.
    Deflate { inflate: Option<Decompress>, first: Option<u8>, ended: bool },
    /// RFC 7932, without the large windows that it does not know.
    Brotli { state: Box<Brotli>, ended: bool },
    /// RFC 8878 with the window of RFC 9659.
    Zstd { decoder: ZstdDecoder<'static>, at_frame_end: bool },
}

type Brotli = BrotliState<StandardAlloc, StandardAlloc, StandardAlloc>;

impl Layer {
    fn new(coding: &str) -> Result<Self, DecodeError> {
        let is = |name| coding.eq_ignore_ascii_case(name);
        if is("gzip") || is("x-gzip") {
            return Ok(Self::Gzip { member: None, members: 0, ignoring: false });
        }
        if is("deflate") {
            return Ok(Self::Deflate { inflate: None, first: None, ended: false });
        }
        if is("br") {
            let alloc = StandardAlloc::default;
            let state = Box::new(BrotliState::new_strict(alloc(), alloc(), alloc()));
            return Ok(Self::Brotli { state, ended: false });
        }
        if is("zstd") {
            let corrupt = |_| DecodeError::Corrupt("zstd");
            let mut decoder = ZstdDecoder::new().map_err(corrupt)?;
            let window = DParameter::WindowLogMax(ZSTD_WINDOW_LOG_MAX);
            decoder.set_parameter(window).map_err(corrupt)?;
            return Ok(Self::Zstd { decoder, at_frame_end: true });
        }
        let shown: String = coding.chars().take(32).collect();
        Err(DecodeError::Unknown(shown))
    }

    const fn name(&self) -> &'static str {
        match self {
            Self::Gzip { .. } => "gzip",
            Self::Deflate { .. } => "deflate",
            Self::Brotli { .. } => "br",
            Self::Zstd { .. } => "zstd",
        }
    }

    const fn at_end(&self) -> bool {
        match self {
            Self::Gzip { member, members, .. } => member.is_none() && *members > 0,
            Self::Deflate { ended, .. } | Self::Brotli { ended, .. } => *ended,
            Self::Zstd { at_frame_end, .. } => *at_frame_end,
        }
    }

    /// Reads from `input`, writes to `output`; how many bytes of each. (0, 0): more input is needed.
    fn step(&mut self, input: &[u8], output: &mut [u8]) -> Result<(usize, usize), DecodeError> {
        match self {
            Self::Gzip { member, members, ignoring } => {
                step_gzip(member, members, ignoring, input, output)
            }
            Self::Deflate { inflate, first, ended } => {
                step_deflate(inflate, first, ended, input, output)
            }
            // What follows the end mark is no part of the content.
            Self::Brotli { ended: true, .. } => Ok((input.len(), 0)),
            Self::Brotli { state, ended } => {
                let (mut left, mut read) = (input.len(), 0);
                let (mut space, mut written, mut total) = (output.len(), 0, 0);
                let result = BrotliDecompressStream(
                    &mut left,
                    &mut read,
                    input,
                    &mut space,
                    &mut written,
                    output,
                    &mut total,
                    state,
                );
                match result {
                    BrotliResult::ResultFailure => return Err(DecodeError::Corrupt("br")),
                    BrotliResult::ResultSuccess => *ended = true,
                    BrotliResult::NeedsMoreInput | BrotliResult::NeedsMoreOutput => {}
                }
                Ok((read, written))
            }
            Self::Zstd { decoder, at_frame_end } => {
                if input.is_empty() && *at_frame_end {
                    return Ok((0, 0)); // asking again would start a new frame
                }
                let status = decoder
                    .run_on_buffers(input, output)
                    .map_err(|_| DecodeError::Corrupt("zstd"))?;
                let idle = status.bytes_read == 0 && status.bytes_written == 0;
                *at_frame_end = status.remaining == 0 || (*at_frame_end && idle);
                Ok((status.bytes_read, status.bytes_written))
            }
        }
    }
}

/// RFC 1952 §2.2: a file is a series of members. What follows the last one and is no member is
/// padding and ignored, as every common decoder does.
fn step_gzip(
    member: &mut Option<Decompress>,
    members: &mut u64,
    ignoring: &mut bool,
    input: &[u8],
    output: &mut [u8],
) -> Result<(usize, usize), DecodeError> {
    if member.is_none() {
        let Some(&first) = input.first() else { return Ok((0, 0)) };
        *ignoring |= *members > 0 && first != 0x1f;
        if *ignoring {
            return Ok((input.len(), 0));
        }
    }
    let inflate = member.get_or_insert_with(|| Decompress::new_gzip(15));
    let (read, written, ended) = inflate_step(inflate, input, output, "gzip")?;
    if ended {
        *member = None;
        *members += 1;
    }
    Ok((read, written))
}

fn step_deflate(
    inflate: &mut Option<Decompress>,
    first: &mut Option<u8>,
    ended: &mut bool,
    input: &[u8],
    output: &mut [u8],
) -> Result<(usize, usize), DecodeError> {
    if *ended {
        return Ok((input.len(), 0));
    }
    if let Some(inflate) = inflate {
        let (read, written, done) = inflate_step(inflate, input, output, "deflate")?;
        *ended = done;
        return Ok((read, written));
    }
    // The first two bytes tell zlib from raw deflate; the first may come alone.
    let (cmf, rest) = match (*first, input) {
        (None, []) => return Ok((0, 0)),
        (None, [cmf]) => {
            *first = Some(*cmf);
            return Ok((1, 0));
        }
        (None, [cmf, ..]) => (*cmf, input),
        (Some(_), []) => return Ok((0, 0)),
        (Some(cmf), rest) => (cmf, rest),
    };
    let flg = if first.is_some() { rest[0] } else { rest[1] };
    // RFC 1950 §2.2: method 8, and the two bytes are a multiple of 31.
    let zlib = cmf & 0x0f == 8 && u16::from_be_bytes([cmf, flg]) % 31 == 0;
    let mut fresh = Decompress::new(zlib);
    if let Some(held) = first.take() {
        inflate_step(&mut fresh, &[held], &mut output[..0], "deflate")?;
    }
    let (read, written, done) = inflate_step(&mut fresh, rest, output, "deflate")?;
    *inflate = Some(fresh);
    *ended = done;
    Ok((read, written))
}

/// Bytes read, bytes written, whether the end mark was seen.
fn inflate_step(
    inflate: &mut Decompress,
    input: &[u8],
    output: &mut [u8],
    name: &'static str,
) -> Result<(usize, usize, bool), DecodeError> {
    let (read, written) = (inflate.total_in(), inflate.total_out());
    let status = inflate
        .decompress(input, output, FlushDecompress::None)
        .map_err(|_| DecodeError::Corrupt(name))?;
    let moved = |now: u64, then: u64| usize::try_from(now - then).expect("bounded by a slice");
    let (read, written) = (moved(inflate.total_in(), read), moved(inflate.total_out(), written));
    Ok((read, written, status == Status::StreamEnd))
}

#[cfg(test)]
mod tests;
