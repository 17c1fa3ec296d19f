//! A server in this process, and the smallest client that can be had: it allocates nothing per request.

use crate::Failure;
use forebay::config::Config;
use forebay::server::Server;
use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};

/// Starts a server with so many cores that may fetch from loopback.
pub(crate) fn start(cores: usize) -> Result<Server, Failure> {
    start_with(cores, |_| {})
}

/// As [`start`], with other settings.
pub(crate) fn start_with(
    cores: usize,
    change: impl FnOnce(&mut Config),
) -> Result<Server, Failure> {
    let mut config = Config {
        listen: SocketAddr::from((Ipv4Addr::LOCALHOST, 0)),
        cores,
        egress_allow: vec!["127.0.0.0/8:*".to_owned()],
        ..Config::default()
    };
    change(&mut config);
    let server = Server::start(config)?;
    server.wait_ready()?;
    Ok(server)
}

/// Bytes of the longest streamed answer.
const STREAM_BYTES: usize = 16 * 1024 * 1024;

/// One keep-alive connection that sends the same request again and again.
pub(crate) struct Client {
    socket: TcpStream,
    answer: [u8; 1024],
    stream: Box<[u8]>,
}

impl Client {
    pub(crate) fn connect(addr: SocketAddr) -> std::io::Result<Self> {
        let socket = TcpStream::connect(addr)?;
        socket.set_nodelay(true)?;
        Ok(Self { socket, answer: [0; 1024], stream: vec![0; STREAM_BYTES].into_boxed_slice() })
    }

    /// Sends the request and reads its answer, which must be a short 200 that ends with `body`.
    pub(crate) fn exchange(&mut self, request: &[u8], body: &[u8]) -> std::io::Result<()> {
        self.socket.write_all(request)?;
        let broken = "the answer broke off or is another one";
        read_until(&mut self.socket, &mut self.answer, body, broken)?;
        if self.answer.starts_with(b"HTTP/1.1 200 OK\r\n") {
            Ok(())
        } else {
            Err(std::io::Error::other("the answer is no 200"))
        }
    }

    /// Sends a request that is answered by a chunked stream, reads it to its end, and says how often
    /// `what` stands in it.
    pub(crate) fn stream(&mut self, request: &[u8], what: &[u8]) -> std::io::Result<usize> {
        let read = self.take_stream(request)?;
        Ok(self.taken(read, what))
    }

    /// How often `what` stands in the first `read` bytes of the last stream. To look takes its time.
    pub(crate) fn taken(&self, read: usize, what: &[u8]) -> usize {
        self.stream[..read].windows(what.len()).filter(|window| *window == what).count()
    }

    /// Sends a request that is answered by a chunked stream, and reads it to its end: its bytes.
    pub(crate) fn take_stream(&mut self, request: &[u8]) -> std::io::Result<usize> {
        self.socket.write_all(request)?;
        let broken = "the stream broke off or is too long";
        read_until(&mut self.socket, &mut self.stream, b"\r\n0\r\n\r\n", broken)
    }

    /// Goes over to WebSocket; the server may agree to compress.
    pub(crate) fn upgrade(&mut self, request: &str) -> std::io::Result<()> {
        self.socket.write_all(request.as_bytes())?;
        let broken = "the handshake broke off or is too long";
        read_until(&mut self.socket, &mut self.answer, b"\r\n\r\n", broken)?;
        if self.answer.starts_with(b"HTTP/1.1 101 ") {
            Ok(())
        } else {
            Err(std::io::Error::other("the handshake is refused"))
        }
    }

    /// Sends a message on a WebSocket and reads so many messages, which must be all that come.
    pub(crate) fn messages(&mut self, message: &[u8], count: usize) -> std::io::Result<()> {
        self.socket.write_all(message)?;
        let (mut read, mut at, mut seen) = (0, 0, 0);
        while seen < count || at < read {
            match frame(&self.stream[at..read]) {
                Some((opcode, length)) => {
                    at += length;
                    seen += usize::from(opcode == 1);
                }
                None => match self.socket.read(&mut self.stream[read..])? {
                    0 => return Err(std::io::Error::other("the socket ended or said too much")),
                    more => read += more,
                },
            }
        }
        if seen == count { Ok(()) } else { Err(std::io::Error::other("too many messages")) }
    }
}

/// Reads until what has come ends with `end`; how many bytes that are. `broken` is the error should the
/// connection end, or the room, before that.
fn read_until(
    socket: &mut TcpStream,
    room: &mut [u8],
    end: &[u8],
    broken: &str,
) -> std::io::Result<usize> {
    let mut read = 0;
    while !room[..read].ends_with(end) {
        match socket.read(&mut room[read..])? {
            0 => return Err(std::io::Error::other(broken)),
            more => read += more,
        }
    }
    Ok(read)
}

/// The opcode and the length of a server's whole frame (RFC 6455 §5.2).
fn frame(bytes: &[u8]) -> Option<(u8, usize)> {
    let (&[first, short], rest) = bytes.split_first_chunk()?;
    let (head, length) = match short {
        126 => (4, usize::from(u16::from_be_bytes(*rest.first_chunk()?))),
        127 => (10, usize::try_from(u64::from_be_bytes(*rest.first_chunk()?)).ok()?),
        short => (2, usize::from(short)),
    };
    (bytes.len() >= head + length).then_some((first & 15, head + length))
}

/// A text message of a client in one frame; its mask is zero, which leaves the text as it is.
pub(crate) fn text_frame(text: &str) -> Vec<u8> {
    let mut frame = vec![0x81];
    // The shortest form of the length is the only legal one.
    match (u8::try_from(text.len()), u16::try_from(text.len())) {
        (Ok(length), _) if length < 126 => frame.push(0x80 | length),
        (_, Ok(length)) => {
            frame.push(0x80 | 126);
            frame.extend_from_slice(&length.to_be_bytes());
        }
        _ => {
            frame.push(0x80 | 127);
            frame.extend_from_slice(&(text.len() as u64).to_be_bytes());
        }
    }
    frame.extend_from_slice(&[0; 4]);
    frame.extend_from_slice(text.as_bytes());
    frame
}
