//! A small blocking client for our own server: what `crawl`, `demo` and `top` speak with.

use crate::proto::chunked::Strictness;
use crate::proto::h1::{BodyReader, ResponseDecoder};
use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};

/// Bytes asked of the socket at a time.
const READ_BYTES: usize = 64 * 1024;
/// Bytes of one line of events; a document is far smaller.
const LINE_BYTES_MAX: usize = 128 * 1024 * 1024;

/// An answer whose body is read as it comes.
pub struct Answer {
    /// The status.
    pub status: u16,
    socket: Box<dyn Duplex>,
    body: BodyReader,
    /// Bytes from the socket that the body reader has not seen.
    raw: Vec<u8>,
    /// Body bytes that were not handed out.
    text: Vec<u8>,
    done: bool,
}

/// What a request is sent on: a socket, or TLS over one.
pub trait Duplex: Read + Write + Send {}

impl<T: Read + Write + Send> Duplex for T {}

/// Sends a request and reads the answer's head.
///
/// # Errors
/// What the socket says, or `InvalidData` for an answer that is no HTTP.
pub fn send(
    addr: SocketAddr,
    method: &str,
    path: &str,
    content_type: &str,
    body: &[u8],
) -> io::Result<Answer> {
    let socket = TcpStream::connect(addr)?;
    socket.set_nodelay(true)?;
    let head = format!(
        "{method} {path} HTTP/1.1\r\nHost: {addr}\r\nConnection: close\r\nContent-Type: {content_type}\r\n\
         Content-Length: {}\r\n\r\n",
        body.len()
    );
    exchange(Box::new(socket), &[head.as_bytes(), body].concat())
}

/// Sends a whole request, which must ask for `Connection: close`, and reads the answer's head.
///
/// # Errors
/// As [`send`].
pub fn exchange(mut socket: Box<dyn Duplex>, request: &[u8]) -> io::Result<Answer> {
    socket.write_all(request)?;
    socket.flush()?;
    let mut decoder = ResponseDecoder::new(false);
    let mut raw = Vec::new();
    loop {
        let length = decoder.handle_bytes(&mut raw).map_err(invalid)?;
        if let Some(length) = length {
            let response = decoder.response(&raw).ok_or_else(|| invalid("no head"))?;
            let bytes_max = u64::MAX;
            let body = BodyReader::new(response.framing(), Strictness::Strict, bytes_max);
            let (status, body) = (response.status(), body.map_err(invalid)?);
            raw.drain(..length);
            return Ok(Answer { status, socket, body, raw, text: Vec::new(), done: false });
        }
        if fill(&mut *socket, &mut raw)? == 0 {
            return Err(invalid("the server closed the connection without an answer"));
        }
    }
}

impl Answer {
    /// The next line of the body without its end, or `None` after the last.
    ///
    /// # Errors
    /// What the socket says, or `InvalidData` for broken framing or a line without end.
    pub fn line(&mut self) -> io::Result<Option<Vec<u8>>> {
        let mut searched = 0;
        loop {
            if let Some(at) = memchr::memchr(b'\n', &self.text[searched..]) {
                let rest = self.text.split_off(searched + at + 1);
                let mut line = std::mem::replace(&mut self.text, rest);
                line.pop();
                return Ok(Some(line));
            }
            searched = self.text.len();
            if searched > LINE_BYTES_MAX {
                return Err(invalid("a line without end"));
            }
            if !self.more()? {
                let line = std::mem::take(&mut self.text);
                return Ok(Some(line).filter(|line| !line.is_empty()));
            }
        }
    }

    /// The whole rest of the body.
    ///
    /// # Errors
    /// As [`Answer::line`].
    pub fn rest(mut self) -> io::Result<Vec<u8>> {
        while self.more()? {}
        Ok(self.text)
    }

    /// Reads some more of the body; `false` at its end.
    fn more(&mut self) -> io::Result<bool> {
        while !self.done {
            let step = self.body.next(&self.raw).map_err(invalid)?;
            self.text.extend_from_slice(&self.raw[step.data.clone()]);
            self.raw.drain(..step.consumed);
            self.done = step.done;
            if !step.data.is_empty() {
                return Ok(true);
            }
            if step.consumed == 0 && !self.done && fill(&mut *self.socket, &mut self.raw)? == 0 {
                self.body.handle_eof().map_err(invalid)?;
                self.done = true;
            }
        }
        Ok(false)
    }
}

fn fill(socket: &mut dyn Duplex, into: &mut Vec<u8>) -> io::Result<usize> {
    let before = into.len();
    into.resize(before + READ_BYTES, 0);
    let read = socket.read(&mut into[before..]);
    into.truncate(before + *read.as_ref().unwrap_or(&0));
    read
}

fn invalid(why: impl ToString) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, why.to_string())
}
