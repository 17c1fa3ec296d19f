//! Request heads, server side (RFC 9112 §3, §5): strict, incremental, in the caller's buffer.

use super::fields::{FieldSpan, Fields, Span, parse_fields, trim_ows};
use super::scan::{BadLineEnd, Line, LineScanner};
use super::target::{Target, is_host_and_port};
use super::{Framing, Method, Reject, TargetForm, Version, framing, is_token_byte, is_value_byte};
use crate::limits::{
    REQUEST_EMPTY_LINES_MAX, REQUEST_FIELDS_MAX, REQUEST_HEAD_BYTES_MAX, REQUEST_LINE_BYTES_MAX,
};

/// Incremental parser of request heads. The caller owns the buffer.
///
/// Order of calls, with a buffer whose first byte is the head's first byte:
/// 1. [`Self::handle_bytes`] with all that has arrived of it, each time more has. `None`: read more
///    and append; the bytes already given must not change.
/// 2. With `Some(len)`, [`Self::request`] on the same buffer, as often as needed.
/// 3. Drop `len` bytes from the buffer (the body, or the next head, follows) and [`Self::reset`].
///
/// The result does not depend on how the bytes were cut. A rejection stays until [`Self::reset`].
#[derive(Debug, Default)]
pub struct RequestDecoder {
    scanner: LineScanner,
    empty_lines: usize,
    line: Option<RequestLine>,
    fields_at: usize,
    field_lines: usize,
    spans: Vec<FieldSpan>,
    outcome: Option<Result<Head, Reject>>,
}

/// What the request line said.
#[derive(Debug, Clone, Copy)]
struct RequestLine {
    method: Method,
    target: Target,
    version: Version,
}

/// What the whole head said.
#[derive(Debug, Clone, Copy)]
struct Head {
    line: RequestLine,
    len: usize,
    framing: Framing,
    host: Option<Span>,
    keep_alive: bool,
    expects_continue: bool,
}

impl RequestDecoder {
    /// A decoder for the first head of a connection.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Forgets the last head and keeps its table of fields for the next one.
    pub fn reset(&mut self) {
        let mut spans = std::mem::take(&mut self.spans);
        spans.clear();
        *self = Self { spans, ..Self::default() };
    }

    /// Goes on parsing where the last call stopped. `Some(len)`: the head is the first `len` bytes.
    ///
    /// # Errors
    /// [`Reject`], which says how to answer; the connection must be closed after the answer.
    pub fn handle_bytes(&mut self, buf: &[u8]) -> Result<Option<usize>, Reject> {
        if self.outcome.is_none() {
            self.outcome = self.advance(buf).transpose();
        }
        self.outcome.map(|head| head.map(|head| head.len)).transpose()
    }

    /// Whether any byte of a request line has been seen, so that a silent connection is told from
    /// a slow head.
    #[must_use]
    pub fn has_started(&self, buf: &[u8]) -> bool {
        // Empty lines before it are skipped, and half of one may yet become one.
        let line = buf.get(self.scanner.line_start()..).unwrap_or_default();
        self.line.is_some() || !matches!(line, b"" | b"\r")
    }

    /// The request in the buffer that was given to [`Self::handle_bytes`], once that was complete.
    #[must_use]
    pub fn request<'b>(&'b self, buf: &'b [u8]) -> Option<Request<'b>> {
        let head = self.outcome?.ok()?;
        Some(Request { head, fields: Fields::new(buf.get(..head.len)?, &self.spans) })
    }

    fn advance(&mut self, buf: &[u8]) -> Result<Option<Head>, Reject> {
        loop {
            let bytes_max = self.window(buf)?;
            let window = &buf[..buf.len().min(bytes_max)];
            let Some(line) = self.scanner.next_line(window, false).map_err(line_end)? else {
                return match (window.len() < bytes_max, self.line) {
                    (true, _) => Ok(None),
                    (false, None) => Err(Reject::TargetTooLong),
                    (false, Some(_)) => Err(Reject::HeadTooLarge),
                };
            };
            match self.line {
                None if line.is_empty() => {
                    // RFC 9112 §2.2: skip at least one empty line before the request line.
                    self.empty_lines += 1;
                    if self.empty_lines > REQUEST_EMPTY_LINES_MAX {
                        return Err(Reject::EmptyLines);
                    }
                }
                None => {
                    self.line = Some(RequestLine::parse(buf, line)?);
                    self.fields_at = line.next;
                }
                Some(request_line) if line.is_empty() => {
                    return self.finish(buf, request_line, line).map(Some);
                }
                Some(_) => {
                    self.field_lines += 1;
                    if self.field_lines > REQUEST_FIELDS_MAX {
                        return Err(Reject::TooManyFields);
                    }
                }
            }
        }
    }

    /// How far to look for the next line end; refuses what can't become a request line.
    fn window(&self, buf: &[u8]) -> Result<usize, Reject> {
        if self.line.is_some() {
            return Ok(REQUEST_HEAD_BYTES_MAX);
        }
        let start = self.scanner.line_start();
        match buf.get(start) {
            // RFC 8446 §5.1: a handshake record. Its first line may never end, so it is told here.
            Some(0x16) => Err(Reject::TlsHello),
            Some(b' ' | b'\t') => Err(Reject::RequestLineSpace),
            Some(&byte) if !is_token_byte(byte) && byte != b'\r' && byte != b'\n' => {
                Err(Reject::RequestLine)
            }
            _ => Ok(start + REQUEST_LINE_BYTES_MAX + 2),
        }
    }

    /// The head is complete: its fields, and what they say about the message.
    fn finish(&mut self, buf: &[u8], line: RequestLine, last: Line) -> Result<Head, Reject> {
        let lines = self.fields_at..last.next;
        if parse_fields(buf, lines.clone(), &mut self.spans).is_err() {
            return Err(first_bad_line(&buf[lines]).unwrap_or(Reject::BadFieldName));
        }
        let fields = Fields::new(buf, &self.spans);
        let host = self.host(buf, line)?;
        let framing = framing::of_request(fields, line.version)?;
        // RFC 9110 §10.1.1: an expectation in a 1.0 request is ignored; another one is 417.
        let mut expects_continue = false;
        for value in fields.all("expect").filter(|_| line.version == Version::Http11) {
            if !value.eq_ignore_ascii_case(b"100-continue") {
                return Err(Reject::Expectation);
            }
            expects_continue = !matches!(framing, Framing::None | Framing::Length(0));
        }
        // RFC 9112 §9.3
        let keep_alive = !fields.list_has("connection", "close")
            && (line.version == Version::Http11 || fields.list_has("connection", "keep-alive"));
        Ok(Head { line, len: last.next, framing, host, keep_alive, expects_continue })
    }

    // RFC 9112 §3.2: exactly one valid Host in 1.1; an absolute target's host replaces it.
    fn host(&self, buf: &[u8], line: RequestLine) -> Result<Option<Span>, Reject> {
        let mut hosts =
            self.spans.iter().filter(|span| span.name.of(buf).eq_ignore_ascii_case(b"host"));
        let first = hosts.next();
        if hosts.next().is_some() {
            return Err(Reject::HostDoubled);
        }
        match first {
            None if line.version == Version::Http11 => Err(Reject::HostMissing),
            Some(span) if !is_host_and_port(span.value.of(buf)) => Err(Reject::BadHost),
            _ => Ok(line.target.authority.or(first.map(|span| span.value))),
        }
    }
}

impl RequestLine {
    // RFC 9112 §3: method SP request-target SP HTTP-version
    fn parse(buf: &[u8], line: Line) -> Result<Self, Reject> {
        let text = &buf[line.start..line.end];
        if text.len() > REQUEST_LINE_BYTES_MAX {
            return Err(Reject::TargetTooLong);
        }
        if text == b"PRI * HTTP/2.0" {
            return Err(Reject::Http2Preface);
        }
        if text.contains(&b'\t') || text.windows(2).any(|w| w == b"  ") || text.ends_with(b" ") {
            return Err(Reject::RequestLineSpace);
        }
        let mut parts = text.split(|&byte| byte == b' ');
        let method_name = parts.next().unwrap_or_default();
        let Some(target) = parts.next() else { return Err(Reject::RequestLine) };
        let version = parts.next().ok_or(Reject::Http09)?;
        if parts.next().is_some() {
            return Err(Reject::RequestLineSpace);
        }
        let version = match version {
            b"HTTP/1.1" => Version::Http11,
            b"HTTP/1.0" => Version::Http10,
            [b'H', b'T', b'T', b'P', b'/', major, b'.', minor]
                if major.is_ascii_digit() && minor.is_ascii_digit() =>
            {
                return Err(Reject::Version);
            }
            _ => return Err(Reject::RequestLine),
        };
        if !method_name.iter().all(|&byte| is_token_byte(byte)) {
            return Err(Reject::RequestLine);
        }
        let method = Method::from_bytes(method_name).ok_or(Reject::UnknownMethod)?;
        if method == Method::Connect {
            return Err(Reject::Connect);
        }
        let target = Target::parse(target, line.start + method_name.len() + 1, method)?;
        Ok(Self { method, target, version })
    }
}

/// One request, as a view of the buffer that it arrived in.
#[derive(Debug, Clone, Copy)]
pub struct Request<'b> {
    head: Head,
    fields: Fields<'b>,
}

impl<'b> Request<'b> {
    /// Bytes of the head, with any empty lines before it.
    #[must_use]
    pub fn head_len(&self) -> usize {
        self.head.len
    }

    /// The method; never [`Method::Connect`].
    #[must_use]
    pub fn method(&self) -> Method {
        self.head.line.method
    }

    /// The form of the target.
    #[must_use]
    pub fn target_form(&self) -> TargetForm {
        self.head.line.target.form
    }

    /// The path as it was sent, percent-encoding and all; `*` for the asterisk form. Visible ASCII.
    #[must_use]
    pub fn path(&self) -> &'b str {
        let path = self.text(self.head.line.target.path);
        // RFC 9110 §4.2.3: an empty path is the root.
        if path.is_empty() { "/" } else { path }
    }

    /// What stands behind the first `?`, if there is one.
    #[must_use]
    pub fn query(&self) -> Option<&'b str> {
        self.head.line.target.query.map(|span| self.text(span))
    }

    /// Host and port that the request is meant for: an absolute target's, else the `Host` field's.
    /// `None` only in HTTP/1.0.
    #[must_use]
    pub fn host(&self) -> Option<&'b str> {
        self.head.host.map(|span| self.text(span))
    }

    /// The version of the request, which bounds what its answer may use.
    #[must_use]
    pub fn version(&self) -> Version {
        self.head.line.version
    }

    /// What ends the body; never [`Framing::Close`]. `Length(0)` is an explicit empty body.
    #[must_use]
    pub fn framing(&self) -> Framing {
        self.head.framing
    }

    /// Whether a body follows.
    #[must_use]
    pub fn has_body(&self) -> bool {
        !matches!(self.head.framing, Framing::None | Framing::Length(0))
    }

    /// Whether the client wants to go on with this connection (RFC 9112 §9.3).
    #[must_use]
    pub fn keep_alive(&self) -> bool {
        self.head.keep_alive
    }

    /// Whether the client waits for `100 Continue` before it sends the body.
    #[must_use]
    pub fn expects_continue(&self) -> bool {
        self.head.expects_continue
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

    /// Whether the client asks to go on in that protocol (RFC 9110 §7.8), such as `websocket`.
    #[must_use]
    pub fn wants_upgrade(&self, protocol: &str) -> bool {
        self.version() == Version::Http11
            && self.fields.list_has("connection", "upgrade")
            && self.fields.list_has("upgrade", protocol)
    }

    fn text(&self, span: Span) -> &'b str {
        std::str::from_utf8(span.of(self.fields.buffer()))
            .expect("target and host were checked to be visible ASCII")
    }
}

fn line_end(bad: BadLineEnd) -> Reject {
    match bad {
        BadLineEnd::BareCr => Reject::BareCr,
        BadLineEnd::BareLf => Reject::BareLf,
    }
}

/// Says what is wrong with field lines that the parser refused: the first bad line counts. Also the
/// slow, obvious twin of that parser: it finds nothing in what the parser takes.
pub(super) fn first_bad_line(lines: &[u8]) -> Option<Reject> {
    lines
        .split(|&byte| byte == b'\n')
        .map(|line| line.strip_suffix(b"\r").unwrap_or(line))
        .find_map(|line| {
            if line.is_empty() {
                return None;
            }
            if matches!(line[0], b' ' | b'\t') {
                return Some(Reject::ObsFold);
            }
            let Some(colon) = memchr::memchr(b':', line) else {
                return Some(Reject::BadFieldName);
            };
            let (name, value) = (&line[..colon], &line[colon + 1..]);
            if name.is_empty() {
                return Some(Reject::EmptyFieldName);
            }
            if !name.iter().all(|&byte| is_token_byte(byte)) {
                let token_then_space = trim_ows(name).iter().all(|&byte| is_token_byte(byte));
                let spaced = token_then_space && matches!(name.last(), Some(b' ' | b'\t'));
                return Some(if spaced { Reject::SpaceBeforeColon } else { Reject::BadFieldName });
            }
            (!value.iter().all(|&byte| is_value_byte(byte))).then_some(Reject::BadFieldValue)
        })
}

#[cfg(test)]
mod tests;
