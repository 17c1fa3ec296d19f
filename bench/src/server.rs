//! A server in this process, and the smallest client that can be had: it allocates nothing per request.

use crate::Failure;
use forebay::config::Config;
use forebay::server::Server;
use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};

/// Starts a server with so many cores that may fetch from loopback.
pub(crate) fn start(cores: usize) -> Result<Server, Failure> {
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

/// Bytes of the longest streamed answer.
const STREAM_BYTES: usize = 8 * 1024 * 1024;

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

    /// Sends a request that is answered by a chunked stream, reads it to its end, and says how often
    /// `what` stands in it.
    pub(crate) fn stream(&mut self, request: &[u8], what: &[u8]) -> std::io::Result<usize> {
        self.socket.write_all(request)?;
        let mut read = 0;
        while !self.stream[..read].ends_with(b"\r\n0\r\n\r\n") {
            match self.socket.read(&mut self.stream[read..])? {
                0 => return Err(std::io::Error::other("the stream broke off or is too long")),
                more => read += more,
            }
        }
        Ok(self.stream[..read].windows(what.len()).filter(|window| *window == what).count())
    }
}
