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
    /// Whether it answers `HEAD`: the head is the same and the body is left out (RFC 9110 §9.3.2).
    pub head_only: bool,
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
    // RFC 9112 §9.3, §9.6: each version is told when it is not its default. RFC 9110 §7.8: an
    // `Upgrade` field (as 426 has it) is named as a connection option.
    let offers_upgrade = fields.iter().any(|(name, _)| name.eq_ignore_ascii_case("upgrade"));
    let connection: &[u8] = match (answer.version, answer.keep_alive, offers_upgrade) {
        (Version::Http11, true, false) | (Version::Http10, false, _) => b"",
        (Version::Http11, true, true) => b"upgrade",
        (Version::Http11, false, false) => b"close",
        (Version::Http11, false, true) => b"close, upgrade",
        (Version::Http10, true, _) => b"keep-alive",
    };
    if !connection.is_empty() {
        put_field(sink, "Connection", connection);
    }
    sink.put(b"\r\n");
    Ok(())
}

/// Writes the head of a 101 to `protocol` (RFC 9110 §7.8), all or nothing.
pub(super) fn write_upgrade(
    sink: &mut impl Sink,
    protocol: &str,
    date: Option<&[u8]>,
    fields: &[(&str, &[u8])],
) -> Result<(), BadField> {
    let date_ok = date.is_none_or(|date| date.iter().all(|&byte| is_value_byte(byte)));
    let ours = |name: &str| is_ours_in_answers(name) || name.eq_ignore_ascii_case("upgrade");
    if !date_ok
        || !may_send("Upgrade", protocol.as_bytes(), is_ours_in_answers)
        || !fields.iter().all(|(name, value)| may_send(name, value, ours))
    {
        return Err(BadField);
    }
    sink.put(b"HTTP/1.1 101 Switching Protocols\r\n");
    if let Some(date) = date {
        put_field(sink, "Date", date);
    }
    put_field(sink, "Connection", b"Upgrade");
    put_field(sink, "Upgrade", protocol.as_bytes());
    for (name, value) in fields {
        put_field(sink, name, value);
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
    put_request(sink, b"GET ", target, host, fields)?;
    sink.put(b"\r\n");
    Ok(())
}

/// Writes a `POST` with its body; as [`write_get`].
///
/// # Errors
/// As [`write_get`].
pub fn write_post(
    sink: &mut impl Sink,
    target: &str,
    host: &str,
    fields: &[(&str, &[u8])],
    body: &[u8],
) -> Result<(), BadField> {
    put_request(sink, b"POST ", target, host, fields)?;
    put_field(sink, "Content-Length", body.len().to_string().as_bytes());
    sink.put(b"\r\n");
    sink.put(body);
    Ok(())
}

fn put_request(
    sink: &mut impl Sink,
    method: &[u8],
    target: &str,
    host: &str,
    fields: &[(&str, &[u8])],
) -> Result<(), BadField> {
    // RFC 9112 §3.2.1, and to a proxy §3.2.2: there, the host is the same one.
    let absolute = target.strip_prefix("http://").and_then(|rest| rest.strip_prefix(host));
    let target_ok = absolute.unwrap_or(target).starts_with('/')
        && target.bytes().all(|byte| byte.is_ascii_graphic() && byte != b'#');
    if !target_ok
        || !super::target::is_host_and_port(host.as_bytes())
        || !fields.iter().all(|(name, value)| may_send(name, value, is_ours_in_requests))
    {
        return Err(BadField);
    }
    sink.put(method);
    sink.put(target.as_bytes());
    sink.put(b" HTTP/1.1\r\n");
    put_field(sink, "Host", host.as_bytes());
    for (name, value) in fields {
        put_field(sink, name, value);
    }
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

fn may_send(name: &str, value: &[u8], is_ours: impl Fn(&str) -> bool) -> bool {
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

#[cfg(test)]
mod tests {
    use super::*;

    const PLAIN: Answer = Answer {
        status: 200,
        body: AnswerBody::Length(2),
        version: Version::Http11,
        keep_alive: true,
        head_only: false,
    };

    fn head(answer: Answer, fields: &[(&str, &[u8])]) -> String {
        let mut wire = Vec::new();
        assert_eq!(write_head(&mut wire, &answer, Some(b"now"), fields), Ok(()));
        String::from_utf8_lossy(&wire).into_owned()
    }

    #[test]
    fn heads_are_framed_for_their_client() {
        let wire = head(PLAIN, &[("Server", b"x")]);
        assert_eq!(wire, "HTTP/1.1 200 OK\r\nDate: now\r\nServer: x\r\nContent-Length: 2\r\n\r\n");
        let streamed = Answer { body: AnswerBody::Stream, ..PLAIN };
        assert!(head(streamed, &[]).contains("Transfer-Encoding: chunked\r\n"));
        let closing = Answer { keep_alive: false, status: 404, ..PLAIN };
        assert!(head(closing, &[]).starts_with("HTTP/1.1 404 Not Found\r\n"));
        assert!(head(closing, &[]).contains("Connection: close\r\n"));
        let upgrade = Answer { status: 426, ..PLAIN };
        let wire = head(upgrade, &[("Upgrade", b"websocket")]);
        assert!(wire.contains("Connection: upgrade\r\n"), "{wire}");
        let empty = Answer { status: 204, body: AnswerBody::None, ..PLAIN };
        assert_eq!(head(empty, &[]), "HTTP/1.1 204 No Content\r\nDate: now\r\n\r\n");
    }

    #[test]
    fn what_could_inject_is_refused_and_nothing_written() {
        let bad: [(&str, &[u8]); 12] = [
            ("X", b"a\r\nSet-Cookie: b"),
            ("X", b"a\n"),
            ("X", b"a\r"),
            ("X", b"\0"),
            ("X", b"\x7f"),
            ("X Y", b"a"),
            ("X:", b"a"),
            ("", b"a"),
            ("X\r\nY", b"a"),
            ("Content-Length", b"3"),
            ("transfer-encoding", b"chunked"),
            ("Connection", b"close"),
        ];
        for field in bad {
            let mut wire = Vec::new();
            let fields = [("A", b"fine".as_slice()), field];
            assert_eq!(write_head(&mut wire, &PLAIN, None, &fields), Err(BadField), "{field:?}");
            assert!(wire.is_empty());
        }
        let mut wire = Vec::new();
        assert_eq!(write_head(&mut wire, &PLAIN, Some(b"\r\n"), &[]), Err(BadField));
        assert!(wire.is_empty());
    }

    #[test]
    fn a_get_is_written_and_guarded() {
        let mut wire = Vec::new();
        let fields = [("Accept", b"*/*".as_slice()), ("Connection", b"close")];
        assert_eq!(write_get(&mut wire, "/a?b", "a.example:81", &fields), Ok(()));
        let expected =
            "GET /a?b HTTP/1.1\r\nHost: a.example:81\r\nAccept: */*\r\nConnection: close\r\n\r\n";
        assert_eq!(String::from_utf8_lossy(&wire), expected);
        let mut wire = bytes::BytesMut::new();
        for target in ["", "a", "/ b", "/a\r\n", "/#", "/\u{e9}", "*", "http://b/", "http://a"] {
            assert_eq!(write_get(&mut wire, target, "a", &[]), Err(BadField), "{target}");
        }
        assert_eq!(write_get(&mut Vec::new(), "http://a/x", "a", &[]), Ok(()));
        for host in ["", "a\r\nX: y", "a b", "u@a"] {
            assert_eq!(write_get(&mut wire, "/", host, &[]), Err(BadField), "{host}");
        }
        for name in ["Host", "content-length", "Transfer-Encoding", "Expect", "Upgrade", "a b"] {
            assert_eq!(write_get(&mut wire, "/", "a", &[(name, b"x")]), Err(BadField), "{name}");
        }
        assert!(wire.is_empty());
    }

    #[test]
    fn a_post_is_written_with_its_length_and_guarded_alike() {
        let mut wire = Vec::new();
        let fields = [("Content-Type", b"application/json".as_slice())];
        assert_eq!(write_post(&mut wire, "/a", "a.example", &fields, b"{}"), Ok(()));
        let expected = "POST /a HTTP/1.1\r\nHost: a.example\r\nContent-Type: application/json\r\n\
                        Content-Length: 2\r\n\r\n{}";
        assert_eq!(String::from_utf8_lossy(&wire), expected);
        let twice = [("Content-Length", b"9".as_slice())];
        assert_eq!(write_post(&mut Vec::new(), "/a", "a", &twice, b"{}"), Err(BadField));
    }

    #[test]
    fn what_is_written_is_what_the_parsers_read() {
        let mut wire = Vec::new();
        assert_eq!(write_get(&mut wire, "/x", "[::1]:80", &[("A", b"b")]), Ok(()));
        let mut decoder = crate::proto::h1::RequestDecoder::new();
        assert_eq!(decoder.handle_bytes(&wire), Ok(Some(wire.len())));
        let mut wire = head(Answer { body: AnswerBody::Stream, ..PLAIN }, &[]).into_bytes();
        let mut decoder = crate::proto::h1::ResponseDecoder::new(false);
        assert_eq!(decoder.handle_bytes(&mut wire), Ok(Some(wire.len())));
        let framing = decoder.response(&wire).map(|response| response.framing());
        assert_eq!(framing, Some(crate::proto::h1::Framing::Chunked));
    }

    #[test]
    fn every_api_status_has_a_reason() {
        for status in [400, 401, 403, 404, 405, 408, 409, 411, 413, 414, 415, 417, 422, 426, 429] {
            assert_ne!(reason_phrase(status), "", "{status}");
        }
        assert_eq!(reason_phrase(299), "");
    }
}
