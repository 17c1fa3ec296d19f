//! The smallest HTTP client that can ask a question before or after a measurement.

use crate::Failure;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

/// How long any answer may take.
const PATIENCE: Duration = Duration::from_secs(60);

/// An answer, its body as it came (chunk sizes and all).
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    /// Head and body.
    pub(crate) bytes: Vec<u8>,
}

impl Answer {
    /// The body as text.
    pub(crate) fn body(&self) -> String {
        let text = String::from_utf8_lossy(&self.bytes);
        text.split_once("\r\n\r\n").map_or_else(String::new, |(_, body)| body.to_owned())
    }
}

/// Sends a request without a body and reads to the end of the connection.
///
/// # Errors
/// When the connection breaks or no status comes.
pub(crate) fn get(addr: SocketAddr, path: &str) -> Result<Answer, Failure> {
    ask(
        addr,
        &format!("GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"),
        false,
    )
}

/// Posts JSON and reads to the end of the connection.
///
/// # Errors
/// As [`get`].
pub(crate) fn post(addr: SocketAddr, path: &str, json: &str) -> Result<Answer, Failure> {
    let head = format!(
        "POST {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nContent-Type: application/json\r\n\
         Content-Length: {}\r\n\r\n",
        json.len()
    );
    ask(addr, &(head + json), false)
}

/// Whether the server takes WebSockets at this path.
///
/// # Errors
/// As [`get`].
pub(crate) fn takes_websockets(addr: SocketAddr, path: &str) -> Result<bool, Failure> {
    Ok(ask(addr, &websocket_request(path), true)?.status == 101)
}

/// A handshake (RFC 6455 §4.1) whose key is the standard's own example.
pub(crate) fn websocket_request(path: &str) -> String {
    format!(
        "GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
         Sec-WebSocket-Version: 13\r\nSec-WebSocket-Protocol: crawl.v1\r\n\
         Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
    )
}

/// The bytes of one answer to a keep-alive request, which must have a `Content-Length`.
///
/// # Errors
/// As [`get`], and when the length is missing.
pub(crate) fn keep_alive_answer(addr: SocketAddr, path: &str) -> Result<Vec<u8>, Failure> {
    let mut socket = connect(addr)?;
    socket.write_all(format!("GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n").as_bytes())?;
    let mut bytes = Vec::new();
    let mut piece = [0; 4096];
    loop {
        let text = String::from_utf8_lossy(&bytes).to_ascii_lowercase();
        if let Some((head, body)) = text.split_once("\r\n\r\n") {
            let length = head.lines().find_map(|line| line.strip_prefix("content-length:"));
            let length: usize = length.ok_or("the answer has no length")?.trim().parse()?;
            if body.len() >= length {
                return Ok(bytes);
            }
        }
        match socket.read(&mut piece)? {
            0 => return Err("the answer broke off".into()),
            read => bytes.extend_from_slice(&piece[..read]),
        }
    }
}

fn connect(addr: SocketAddr) -> Result<TcpStream, Failure> {
    let socket = TcpStream::connect(addr)?;
    socket.set_read_timeout(Some(PATIENCE))?;
    socket.set_nodelay(true)?;
    Ok(socket)
}

fn ask(addr: SocketAddr, request: &str, head_only: bool) -> Result<Answer, Failure> {
    let mut socket = connect(addr)?;
    socket.write_all(request.as_bytes())?;
    let mut bytes = Vec::new();
    let mut piece = [0; 16 * 1024];
    loop {
        let read = socket.read(&mut piece)?;
        bytes.extend_from_slice(&piece[..read]);
        let whole_head = bytes.windows(4).any(|window| window == b"\r\n\r\n");
        if read == 0 || (head_only && whole_head) {
            break;
        }
    }
    let text = String::from_utf8_lossy(&bytes);
    let status = text.split(' ').nth(1).and_then(|status| status.parse().ok());
    Ok(Answer { status: status.ok_or("the answer is no HTTP")?, bytes })
}
