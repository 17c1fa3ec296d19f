//! Heads and chunks on their way out: no formatting machinery, and no field that could inject
//! another.

use super::{Version, is_token_byte, is_value_byte};
use crate::proto::chunked::{CHUNK_END, ChunkHead, LAST_CHUNK};

/// The interim response that asks a client for the body it holds back (RFC 9110 §15.2.1).
pub const CONTINUE: &[u8] = b"HTTP/1.1 100 Continue\r\n\r\n";

/// Where heads and chunks are written to.
pub trait Sink {
    /// Appends bytes.
    fn put(&mut self, bytes: &[u8]);
}

impl Sink for Vec<u8> {
    fn put(&mut self, bytes: &[u8]) {
        self.extend_from_slice(bytes);
    }
}

impl Sink for bytes::BytesMut {
    fn put(&mut self, bytes: &[u8]) {
        self.extend_from_slice(bytes);
    }
}

/// A field that would not arrive as one field: its name is no token, its value has a control byte,
/// or it is one that the framing writes itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a header field has a name or value that can't be sent")]
pub struct BadField;

/// How an answer's body is framed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AnswerBody {
    /// No body and no length: for 204 and 304 (RFC 9110 §8.6).
    None,
    /// That many bytes. In an answer to `HEAD` the length is announced and the body left out.
    Length(u64),
    /// As it comes: chunked to a 1.1 client, up to the end of the connection to a 1.0 client.
    Stream,
}

/// What the framing of an answer depends on. [`super::Connection`] fills it in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Answer {
    /// The status code, three digits.
    pub status: u16,
    /// The body.
    pub body: AnswerBody,
    /// The version of the request.
    pub version: Version,
    /// Whether another request may follow.
    pub keep_alive: bool,
}

impl Answer {
    /// Whether the body goes out in chunks.
    #[must_use]
    pub fn is_chunked(&self) -> bool {
        self.body == AnswerBody::Stream && self.version == Version::Http11
    }
}

/// Writes an answer's head: status line, `date` (an RFC 9110 §5.6.7 date that the caller keeps),
/// `fields`, then what frames the message. Nothing is written if a field is refused.
///
/// # Errors
/// [`BadField`].
pub fn write_head(
    sink: &mut impl Sink,
    answer: &Answer,
    date: Option<&[u8]>,
    fields: &[(&str, &[u8])],
) -> Result<(), BadField> {
    let date_ok = date.is_none_or(|date| date.iter().all(|&byte| is_value_byte(byte)));
    if !date_ok || !fields.iter().all(|(name, value)| may_send(name, value, is_ours_in_answers)) {
        return Err(BadField);
    }
    sink.put(b"HTTP/1.1 ");
    sink.put(itoa::Buffer::new().format(answer.status).as_bytes());
    sink.put(b" ");
    sink.put(reason_phrase(answer.status).as_bytes());
    sink.put(b"\r\n");
    if let Some(date) = date {
        put_field(sink, "Date", date);
    }
    for (name, value) in fields {
        put_field(sink, name, value);
    }
    match answer.body {
        AnswerBody::None => {}
        AnswerBody::Length(length) => {
            put_field(sink, "Content-Length", itoa::Buffer::new().format(length).as_bytes());
        }
        // RFC 9112 §6.1: never to a 1.0 client.
        AnswerBody::Stream if answer.is_chunked() => {
            put_field(sink, "Transfer-Encoding", b"chunked");
        }
        AnswerBody::Stream => {}
    }
    // RFC 9112 §9.3, §9.6: each version is told when it is not its default.
    match (answer.version, answer.keep_alive) {
        (Version::Http11, true) | (Version::Http10, false) => {}
        (Version::Http11, false) => put_field(sink, "Connection", b"close"),
        (Version::Http10, true) => put_field(sink, "Connection", b"keep-alive"),
    }
    sink.put(b"\r\n");
    Ok(())
}

/// Writes one chunk (RFC 9112 §7.1). Empty data writes nothing, because it would end the body.
pub fn write_chunk(sink: &mut impl Sink, data: &[u8]) {
    if let Some(head) = ChunkHead::new(data.len()) {
        sink.put(head.as_bytes());
        sink.put(data);
        sink.put(CHUNK_END);
    }
}

/// Ends a chunked body.
pub fn write_last_chunk(sink: &mut impl Sink) {
    sink.put(LAST_CHUNK);
}

/// Writes a client's `GET` with an origin-form target, `host` (as in a URL, with a port that is not
/// the default) and fields. Nothing is written if something is refused.
///
/// # Errors
/// [`BadField`] for a target that does not start with `/` or has anything but visible ASCII, for a
/// bad host or field, and for the fields that frame a message or manage a connection.
pub fn write_get(
    sink: &mut impl Sink,
    target: &str,
    host: &str,
    fields: &[(&str, &[u8])],
) -> Result<(), BadField> {
    let target_ok = target.starts_with('/')
        && target.bytes().all(|byte| byte.is_ascii_graphic() && byte != b'#');
    if !target_ok
        || !super::target::is_host_and_port(host.as_bytes())
        || !fields.iter().all(|(name, value)| may_send(name, value, is_ours_in_requests))
    {
        return Err(BadField);
    }
    sink.put(b"GET ");
    sink.put(target.as_bytes());
    sink.put(b" HTTP/1.1\r\n");
    put_field(sink, "Host", host.as_bytes());
    for (name, value) in fields {
        put_field(sink, name, value);
    }
    sink.put(b"\r\n");
    Ok(())
}

/// The reason phrase of a status (RFC 9110 §15, RFC 6585), empty for one that has none here.
#[must_use]
pub fn reason_phrase(status: u16) -> &'static str {
    match status {
        100 => "Continue",
        101 => "Switching Protocols",
        200 => "OK",
        202 => "Accepted",
        204 => "No Content",
        301 => "Moved Permanently",
        302 => "Found",
        303 => "See Other",
        304 => "Not Modified",
        307 => "Temporary Redirect",
        308 => "Permanent Redirect",
        400 => "Bad Request",
        401 => "Unauthorized",
        403 => "Forbidden",
        404 => "Not Found",
        405 => "Method Not Allowed",
        406 => "Not Acceptable",
        408 => "Request Timeout",
        409 => "Conflict",
        410 => "Gone",
        411 => "Length Required",
        412 => "Precondition Failed",
        413 => "Content Too Large",
        414 => "URI Too Long",
        415 => "Unsupported Media Type",
        417 => "Expectation Failed",
        422 => "Unprocessable Content",
        426 => "Upgrade Required",
        429 => "Too Many Requests",
        431 => "Request Header Fields Too Large",
        500 => "Internal Server Error",
        501 => "Not Implemented",
        502 => "Bad Gateway",
        503 => "Service Unavailable",
        504 => "Gateway Timeout",
        505 => "HTTP Version Not Supported",
        _ => "",
    }
}

fn put_field(sink: &mut impl Sink, name: &str, value: &[u8]) {
    sink.put(name.as_bytes());
    sink.put(b": ");
    sink.put(value);
    sink.put(b"\r\n");
}

fn may_send(name: &str, value: &[u8], is_ours: fn(&str) -> bool) -> bool {
    !name.is_empty()
        && name.bytes().all(is_token_byte)
        && value.iter().all(|&byte| is_value_byte(byte))
        && !is_ours(name)
}

/// Fields that [`write_head`] writes itself; a second one would contradict it.
fn is_ours_in_answers(name: &str) -> bool {
    ["connection", "content-length", "transfer-encoding"]
        .iter()
        .any(|ours| name.eq_ignore_ascii_case(ours))
}

/// Fields that would frame a request, ask for another protocol, or name another host.
fn is_ours_in_requests(name: &str) -> bool {
    ["host", "content-length", "transfer-encoding", "te", "trailer", "upgrade", "expect"]
        .iter()
        .any(|ours| name.eq_ignore_ascii_case(ours))
}
