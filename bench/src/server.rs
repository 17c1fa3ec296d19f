//! A server in this process, and the smallest client that can be had: it allocates nothing per request.

use forebay::config::Config;
use forebay::server::Server;
use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};

/// Bytes of the longest stream that is asked for.
const STREAM_BYTES_MAX: usize = 8 * 1024 * 1024;

/// Starts a server with so many cores that may fetch from loopback.
pub(crate) fn start(cores: usize) -> Result<Server, Box<dyn std::error::Error>> {
    let config = Config {
        listen: SocketAddr::from((Ipv4Addr::LOCALHOST, 0)),
        cores,
        egress_allow: vec!["127.0.0.0/8:*".to_owned()],
        ..Config::default()
    };
    let server = Server::start(config)?;
    server.wait_ready()?;
    Ok(server)
}

/// One keep-alive connection that sends the same request again and again.
pub(crate) struct Client {
    socket: TcpStream,
    answer: [u8; 1024],
    /// What of a stream has come.
    streamed: Vec<u8>,
}

impl Client {
    pub(crate) fn connect(addr: SocketAddr) -> std::io::Result<Self> {
        let socket = TcpStream::connect(addr)?;
        socket.set_nodelay(true)?;
        Ok(Self { socket, answer: [0; 1024], streamed: vec![0; STREAM_BYTES_MAX] })
    }

    /// Sends the request and reads a stream to its `end`, which must be a 200 whose summary says that
    /// `urls` pages are successful and all but the first ever came from the cache.
    pub(crate) fn stream(
        &mut self,
        request: &[u8],
        end: &[u8],
        urls: usize,
    ) -> std::io::Result<()> {
        self.socket.write_all(request)?;
        let mut read = 0;
        while !self.streamed[..read].ends_with(end) {
            match self.socket.read(&mut self.streamed[read..])? {
                0 => return Err(std::io::Error::other("the stream broke off or is too long")),
                more => read += more,
            }
        }
        let answer = &self.streamed[..read];
        let successful = b"\"successful\":";
        let summary = &answer[read.saturating_sub(400)..];
        let found = summary.windows(successful.len()).position(|window| window == successful);
        let count = found.map(|at| &summary[at + successful.len()..]).unwrap_or_default();
        let digits = count.iter().take_while(|byte| byte.is_ascii_digit());
        let count = digits.fold(0, |sum, digit| sum * 10 + usize::from(digit - b'0'));
        if answer.starts_with(b"HTTP/1.1 200 OK\r\n") && count == urls {
            Ok(())
        } else {
            Err(std::io::Error::other("the stream is no 200, or a page of it failed"))
        }
    }

    /// Sends the request and reads its answer, which must be a short 200 that ends with `body`.
    pub(crate) fn exchange(&mut self, request: &[u8], body: &[u8]) -> std::io::Result<()> {
        self.socket.write_all(request)?;
        let mut read = 0;
        while !self.answer[..read].ends_with(body) {
            match self.socket.read(&mut self.answer[read..])? {
                0 => return Err(std::io::Error::other("the answer broke off or is another one")),
                more => read += more,
            }
        }
        if self.answer.starts_with(b"HTTP/1.1 200 OK\r\n") {
            Ok(())
        } else {
            Err(std::io::Error::other("the answer is no 200"))
        }
    }
}
