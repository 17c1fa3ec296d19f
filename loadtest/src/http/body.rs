//! Response bodies by their framing (RFC 9112 §6.3, §7.1).

use crate::http::head::Head;
use crate::num::{to_u64, to_usize};
use memchr::memchr;

/// Bytes of a chunk-size or trailer line.
const LINE_BYTES_MAX: usize = 8192;

/// Takes a body off the wire.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct BodyDecoder {
    state: State,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum State {
    /// So many bytes are left of the body.
    Length(u64),
    /// Until the connection ends.
    Close,
    /// A chunk-size line comes.
    ChunkSize,
    /// So many bytes are left of a chunk.
    Chunk(u64),
    /// The CRLF after a chunk.
    ChunkEnd,
    /// Trailer lines, up to the empty one.
    Trailer,
    /// Over.
    Done,
}

impl BodyDecoder {
    /// The framing that a response head declares; `bodiless` for answers to HEAD.
    ///
    /// # Errors
    /// When the framing is malformed.
    pub(crate) fn of(head: &Head, status: u16, bodiless: bool) -> Result<Self, String> {
        let state = if bodiless || status < 200 || status == 204 || status == 304 {
            State::Done
        } else if let Some(coding) = head.field("transfer-encoding") {
            let last = coding.rsplit(',').next().unwrap_or_default().trim();
            if last.eq_ignore_ascii_case("chunked") { State::ChunkSize } else { State::Close }
        } else {
            match head.content_length()? {
                Some(0) => State::Done,
                Some(length) => State::Length(length),
                None => State::Close,
            }
        };
        Ok(Self { state })
    }

    /// Whether the body is over.
    pub(crate) fn is_done(&self) -> bool {
        self.state == State::Done
    }

    /// Whether only the end of the connection ends the body.
    pub(crate) fn is_until_close(&self) -> bool {
        self.state == State::Close
    }

    /// Takes what it can from `input` and hands the content to `sink`; returns the bytes taken.
    /// What is not taken is to be offered again with more behind it.
    ///
    /// # Errors
    /// What is malformed.
    pub(crate) fn feed(
        &mut self,
        input: &[u8],
        mut sink: impl FnMut(&[u8]),
    ) -> Result<usize, String> {
        let mut at = 0;
        loop {
            let rest = &input[at..];
            match self.state {
                State::Done => return Ok(at),
                _ if rest.is_empty() => return Ok(at),
                State::Close => {
                    sink(rest);
                    return Ok(input.len());
                }
                State::Length(left) | State::Chunk(left) => {
                    let take = to_usize(left).min(rest.len());
                    sink(&rest[..take]);
                    at += take;
                    let left = left - to_u64(take);
                    self.state = match self.state {
                        State::Length(_) if left == 0 => State::Done,
                        State::Length(_) => State::Length(left),
                        _ if left == 0 => State::ChunkEnd,
                        _ => State::Chunk(left),
                    };
                }
                State::ChunkEnd => {
                    if rest.len() < 2 {
                        return Ok(at);
                    }
                    if !rest.starts_with(b"\r\n") {
                        return Err("no CRLF after a chunk".to_owned());
                    }
                    at += 2;
                    self.state = State::ChunkSize;
                }
                State::ChunkSize | State::Trailer => {
                    let Some(line) = line(rest)? else { return Ok(at) };
                    at += line.len() + 2;
                    self.state = match self.state {
                        State::Trailer if line.is_empty() => State::Done,
                        State::Trailer => State::Trailer,
                        _ => match chunk_size(line)? {
                            0 => State::Trailer,
                            size => State::Chunk(size),
                        },
                    };
                }
            }
        }
    }
}

/// A line up to its CRLF, where it is whole.
fn line(bytes: &[u8]) -> Result<Option<&[u8]>, String> {
    match memchr(b'\n', bytes) {
        Some(end) if end > 0 && bytes[end - 1] == b'\r' => Ok(Some(&bytes[..end - 1])),
        Some(_) => Err("a chunk line ends without CR".to_owned()),
        None if bytes.len() > LINE_BYTES_MAX => Err("an endless chunk line".to_owned()),
        None => Ok(None),
    }
}

fn chunk_size(line: &[u8]) -> Result<u64, String> {
    let text = String::from_utf8_lossy(line);
    let digits = text.split(';').next().unwrap_or_default().trim_end();
    let hex = !digits.is_empty() && digits.bytes().all(|b| b.is_ascii_hexdigit());
    u64::from_str_radix(digits, 16)
        .ok()
        .filter(|_| hex)
        .ok_or_else(|| format!("chunk size `{}`", text.escape_debug()))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test may panic")]
    use super::*;
    use crate::origin::testing::chunked;
    use proptest::prelude::*;

    fn decoder(fields: &str) -> BodyDecoder {
        let head = format!("HTTP/1.1 200 OK\r\n{fields}\r\n");
        let head = Head::parse(head.as_bytes(), 0).unwrap().unwrap();
        BodyDecoder::of(&head, 200, false).unwrap()
    }

    fn chunky() -> BodyDecoder {
        decoder("Transfer-Encoding: chunked\r\n")
    }

    /// Feeds in pieces as a socket would; returns the content and what was left.
    fn run(
        mut decoder: BodyDecoder,
        wire: &[u8],
        piece: usize,
    ) -> Result<(Vec<u8>, usize), String> {
        let (mut out, mut pending, mut given) = (Vec::new(), Vec::new(), 0);
        while !decoder.is_done() && given < wire.len() {
            let end = (given + piece).min(wire.len());
            pending.extend_from_slice(&wire[given..end]);
            given = end;
            let taken = decoder.feed(&pending, |part| out.extend_from_slice(part))?;
            pending.drain(..taken);
        }
        assert!(decoder.is_done() || decoder.is_until_close(), "{decoder:?}");
        Ok((out, pending.len() + wire.len() - given))
    }

    proptest! {
        #[test]
        fn chunked_bodies_come_back_whatever_the_pieces(
            body in proptest::collection::vec(any::<u8>(), 0..500),
            chunk in 1_usize..90,
            piece in 1_usize..70,
        ) {
            let mut wire = chunked(&body, chunk);
            wire.extend_from_slice(b"HTTP/1.1 next");
            prop_assert_eq!(run(chunky(), &wire, piece).unwrap(), (body, 13));
        }
    }

    #[test]
    fn extensions_and_trailers_are_passed_over() {
        let wire = b"5;a=\"b\"\r\nhello\r\n0\r\nX-Sum: 1\r\n\r\n";
        assert_eq!(run(chunky(), wire, 1).unwrap(), (b"hello".to_vec(), 0));
    }

    #[test]
    fn bad_chunks_are_errors() {
        for wire in ["zz\r\n", "5\r\nhelloXX", "\r\n", "-1\r\n", "5\nhello", "+5\r\nhello\r\n"] {
            let fed = chunky().feed(wire.as_bytes(), |_| {});
            assert!(fed.is_err(), "{wire:?}");
        }
    }

    #[test]
    fn length_and_close_end_as_they_should() {
        assert_eq!(
            run(decoder("Content-Length: 3\r\n"), b"abcd", 2).unwrap(),
            (b"abc".to_vec(), 1)
        );
        assert_eq!(run(decoder(""), b"abcd", 3).unwrap(), (b"abcd".to_vec(), 0));
        assert!(decoder("Content-Length: 0\r\n").is_done());
    }
}
