//! Response heads, client side (RFC 9112 §4, §5, §6.3), from origins that may be hostile.
//!
//! What real origins get wrong without doubt about the meaning is taken, and then the connection
//! is not used again: bare LF line ends, space before a colon, folded values (RFC 9112 §5.2: each
//! fold becomes spaces), `Content-Length` beside `Transfer-Encoding` (chunked wins, §6.3), repeated
//! equal lengths, chunked in HTTP/1.0. A status line without a reason, and statuses up to 999, are
//! fine. What leaves the end of the message in doubt is an error: unequal lengths, lengths that are
//! no number, transfer codings other than one `chunked`, bare CR, control bytes.

use super::fields::{FieldSpan, Fields, list_members, parse_response};
use super::framing::decimal;
use super::scan::{BadLineEnd, Line, LineScanner};
use super::{Framing, Version};
use crate::error::PageCode;
use crate::limits::{INTERIM_RESPONSES_MAX, RESPONSE_FIELDS_MAX, RESPONSE_HEAD_BYTES_MAX};

/// Why a response can't be used.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, thiserror::Error)]
pub enum ResponseError {
    /// The first bytes are no HTTP/1 status line.
    #[error("the origin's answer is not HTTP/1.1")]
    NotHttp,
    /// A status line that is not `HTTP/1.x NNN reason`.
    #[error("the origin's status line is malformed")]
    StatusLine,
    /// A field line that is malformed beyond repair.
    #[error("a header field of the origin's answer is malformed")]
    Field,
    /// A carriage return inside a line.
    #[error("a carriage return stands without a line feed in the origin's answer")]
    BareCr,
    /// More head than [`RESPONSE_HEAD_BYTES_MAX`], interim responses included.
    #[error("the head of the origin's answer is longer than {RESPONSE_HEAD_BYTES_MAX} bytes")]
    HeadTooLarge,
    /// More fields than [`RESPONSE_FIELDS_MAX`].
    #[error("the origin's answer has more than {RESPONSE_FIELDS_MAX} header fields")]
    TooManyFields,
    /// More 1xx responses than [`INTERIM_RESPONSES_MAX`].
    #[error("the origin sent more than {INTERIM_RESPONSES_MAX} interim responses")]
    TooManyInterim,
    /// 101, although no upgrade was asked for (RFC 9110 §15.2.2).
    #[error("the origin switched protocols without being asked")]
    SwitchingProtocols,
    /// A `Content-Length` that is no number.
    #[error("the origin's Content-Length is not a number")]
    BadLength,
    /// Several `Content-Length`s that differ.
    #[error("the origin sent Content-Lengths that differ")]
    LengthsDiffer,
    /// A `Transfer-Encoding` other than one `chunked`.
    #[error("the origin used a transfer coding other than chunked")]
    TransferCoding,
    /// The connection ended before the first byte; on a reused connection, a reason to retry.
    #[error("the origin closed the connection without an answer")]
    ClosedSilently,
    /// The connection ended inside the head.
    #[error("the origin closed the connection inside the head of its answer")]
    ClosedInHead,
}

impl ResponseError {
    /// The page's code in the API.
    #[must_use]
    pub fn page_code(self) -> PageCode {
        match self {
            Self::ClosedSilently => PageCode::ConnectFailed,
            _ => PageCode::HttpMalformed,
        }
    }
}

/// Incremental parser of one response's head, with the interim responses before it.
///
/// Order of calls, with a buffer whose first byte is the response's first byte:
/// 1. [`Self::handle_bytes`] with all that has arrived, each time more has, until `Some(len)`. At
///    the end of the connection before that, [`Self::handle_eof`].
/// 2. [`Self::response`] on the same buffer: a view.
/// 3. Drop `len` bytes; the body follows, to be read with a [`super::BodyReader`] of the view's
///    framing, leniently. [`Self::reset`] before the next exchange.
#[derive(Debug)]
pub struct ResponseDecoder {
    to_head: bool,
    scanner: LineScanner,
    /// Where the current head starts: behind the interim ones.
    start: usize,
    status_line: Option<Line>,
    last_line: Option<Line>,
    field_lines: usize,
    interim: usize,
    tolerated: bool,
    spans: Vec<FieldSpan>,
    outcome: Option<Result<Head, ResponseError>>,
}

#[derive(Debug, Clone, Copy)]
struct Head {
    len: usize,
    status: u16,
    version: Version,
    framing: Framing,
    keep_alive: bool,
}

impl ResponseDecoder {
    /// A decoder for the answer to a request; the answer to `HEAD` has no body.
    #[must_use]
    pub fn new(to_head: bool) -> Self {
        Self {
            to_head,
            scanner: LineScanner::default(),
            start: 0,
            status_line: None,
            last_line: None,
            field_lines: 0,
            interim: 0,
            tolerated: false,
            spans: Vec::new(),
            outcome: None,
        }
    }

    /// Ready for the answer to the connection's next request; keeps the table of fields.
    pub fn reset(&mut self, to_head: bool) {
        let mut spans = std::mem::take(&mut self.spans);
        spans.clear();
        *self = Self { spans, ..Self::new(to_head) };
    }

    /// Goes on parsing where the last call stopped. Folded field values are unfolded in place,
    /// which is all that it writes. `Some(len)`: the final head ends at `len`.
    ///
    /// # Errors
    /// [`ResponseError`], the same one again on every later call.
    pub fn handle_bytes(&mut self, buf: &mut [u8]) -> Result<Option<usize>, ResponseError> {
        if self.outcome.is_none() {
            self.outcome = self.advance(buf).transpose();
        }
        self.outcome.map(|head| head.map(|head| head.len)).transpose()
    }

    /// The connection ended before the head was complete, after `received` bytes of it.
    #[must_use]
    pub fn handle_eof(&self, received: usize) -> ResponseError {
        match self.outcome {
            Some(Err(error)) => error,
            _ if received == 0 => ResponseError::ClosedSilently,
            _ => ResponseError::ClosedInHead,
        }
    }

    /// The response in the buffer that was given to [`Self::handle_bytes`], once it was complete.
    #[must_use]
    pub fn response<'b>(&'b self, buf: &'b [u8]) -> Option<Response<'b>> {
        let head = self.outcome?.ok()?;
        Some(Response { head, fields: Fields::new(buf.get(..head.len)?, &self.spans) })
    }

    fn advance(&mut self, buf: &mut [u8]) -> Result<Option<Head>, ResponseError> {
        loop {
            let window = &buf[..buf.len().min(RESPONSE_HEAD_BYTES_MAX)];
            if self.status_line.is_none() && !could_be_http(window.get(self.start..)) {
                return Err(ResponseError::NotHttp);
            }
            let line = self.scanner.next_line(window, true).map_err(|bad| match bad {
                BadLineEnd::BareCr | BadLineEnd::BareLf => ResponseError::BareCr,
            })?;
            let Some(line) = line else {
                let full = window.len() >= RESPONSE_HEAD_BYTES_MAX;
                return if full { Err(ResponseError::HeadTooLarge) } else { Ok(None) };
            };
            if self.status_line.is_none() {
                self.status_line = Some(line);
            } else if !line.is_empty() {
                self.field_line(buf, line)?;
            } else if let Some(head) = self.finish(buf, line)? {
                return Ok(Some(head));
            }
        }
    }

    /// Counts a field line, and joins it to the one before if it is a continuation.
    fn field_line(&mut self, buf: &mut [u8], line: Line) -> Result<(), ResponseError> {
        if matches!(buf[line.start], b' ' | b'\t') {
            // RFC 9112 §5.2: a user agent replaces each obs-fold with spaces.
            let before = self.last_line.ok_or(ResponseError::Field)?;
            buf[before.end..before.next].fill(b' ');
            self.tolerated = true;
        } else {
            self.field_lines += 1;
            if self.field_lines > RESPONSE_FIELDS_MAX {
                return Err(ResponseError::TooManyFields);
            }
        }
        self.last_line = Some(line);
        Ok(())
    }

    /// A head is complete: skips it if it is interim, else says what it means.
    fn finish(&mut self, buf: &[u8], last: Line) -> Result<Option<Head>, ResponseError> {
        let (minor, status) = parse_response(buf, self.start..last.next, &mut self.spans).map_err(
            |error| match error {
                httparse::Error::HeaderName | httparse::Error::HeaderValue => ResponseError::Field,
                _ => ResponseError::StatusLine,
            },
        )?;
        let spaced = self.spans.iter().any(|span| buf.get(span.name.end()) != Some(&b':'));
        self.tolerated |= spaced || self.scanner.saw_bare_lf;
        match status {
            0..100 => return Err(ResponseError::StatusLine),
            101 => return Err(ResponseError::SwitchingProtocols),
            100..200 => {
                // RFC 9110 §15.2: a client must be able to skip interim responses.
                self.interim += 1;
                if self.interim > INTERIM_RESPONSES_MAX {
                    return Err(ResponseError::TooManyInterim);
                }
                self.start = last.next;
                self.status_line = None;
                self.last_line = None;
                self.field_lines = 0;
                return Ok(None);
            }
            _ => {}
        }
        let fields = Fields::new(buf, &self.spans);
        let version = if minor == 0 { Version::Http10 } else { Version::Http11 };
        let (framing, clean) = of_response(fields, version, status, self.to_head)?;
        // RFC 9112 §9.3
        let wanted = !fields.list_has("connection", "close")
            && (version == Version::Http11 || fields.list_has("connection", "keep-alive"));
        let keep_alive = wanted && clean && !self.tolerated && framing != Framing::Close;
        Ok(Some(Head { len: last.next, status, version, framing, keep_alive }))
    }
}

/// One response, as a view of the buffer that it arrived in.
#[derive(Debug, Clone, Copy)]
pub struct Response<'b> {
    head: Head,
    fields: Fields<'b>,
}

impl<'b> Response<'b> {
    /// Bytes up to the end of the final head, interim responses included.
    #[must_use]
    pub fn head_len(&self) -> usize {
        self.head.len
    }

    /// The status, 200 to 999; what is over 599 is to be treated as a 5xx (RFC 9110 §15).
    #[must_use]
    pub fn status(&self) -> u16 {
        self.head.status
    }

    /// The version that the origin spoke.
    #[must_use]
    pub fn version(&self) -> Version {
        self.head.version
    }

    /// What ends the body.
    #[must_use]
    pub fn framing(&self) -> Framing {
        self.head.framing
    }

    /// Whether the connection may carry another request once the body has been read to its end and
    /// no byte follows it.
    #[must_use]
    pub fn keep_alive(&self) -> bool {
        self.head.keep_alive
    }

    /// All fields.
    #[must_use]
    pub fn fields(&self) -> Fields<'b> {
        self.fields
    }

    /// The first value of a field.
    #[must_use]
    pub fn field(&self, name: &str) -> Option<&'b [u8]> {
        self.fields.get(name)
    }
}

/// Whether these may be the first bytes of a status line. Tells garbage whose first line may never
/// end.
fn could_be_http(start: Option<&[u8]>) -> bool {
    let start = start.unwrap_or_default();
    let len = start.len().min(7);
    start[..len] == b"HTTP/1."[..len]
}

/// The framing of a response (RFC 9112 §6.3), and whether it leaves the connection usable.
fn of_response(
    fields: Fields<'_>,
    version: Version,
    status: u16,
    to_head: bool,
) -> Result<(Framing, bool), ResponseError> {
    // Rule 1: no body, whatever the fields say.
    if to_head || status == 204 || status == 304 {
        return Ok((Framing::None, true));
    }
    let mut codings = fields.all("transfer-encoding").flat_map(list_members);
    let has_coding = fields.get("transfer-encoding").is_some();
    let has_length = fields.get("content-length").is_some();
    if has_coding {
        // Rules 3 and 4, for a client that knows no other coding.
        let chunked = codings.next().is_some_and(|c| c.eq_ignore_ascii_case(b"chunked"));
        if !chunked || codings.next().is_some() {
            return Err(ResponseError::TransferCoding);
        }
        return Ok((Framing::Chunked, !has_length && version == Version::Http11));
    }
    if !has_length {
        return Ok((Framing::Close, false));
    }
    // Rule 5: a list of equal lengths counts as one; anything else can't be recovered from.
    let mut lengths = fields.all("content-length").flat_map(|value| value.split(|&b| b == b','));
    let mut length = None;
    let mut clean = true;
    for member in &mut lengths {
        let value = decimal(super::fields::trim_ows(member)).ok_or(ResponseError::BadLength)?;
        clean &= length.is_none();
        if length.is_some_and(|length| length != value) {
            return Err(ResponseError::LengthsDiffer);
        }
        length = Some(value);
    }
    let length = length.ok_or(ResponseError::BadLength)?;
    Ok((Framing::Length(length), clean))
}

#[cfg(test)]
mod tests;
