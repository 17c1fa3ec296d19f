//! A server in this process, and the smallest client that can be had: it allocates nothing per request.

use forebay::config::Config;
use forebay::server::Server;
use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};

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
}

impl Client {
    pub(crate) fn connect(addr: SocketAddr) -> std::io::Result<Self> {
        let socket = TcpStream::connect(addr)?;
        socket.set_nodelay(true)?;
        Ok(Self { socket, answer: [0; 1024] })
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
