//! Many connections that are held open and say nothing.

use crate::Failure;
use crate::http;
use crate::usage::Memory;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use socket2::{Domain, Protocol, Socket, Type};
use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::time::Duration;

/// Connections from one source address: an address has some 28,000 ports for one destination.
const PER_ADDRESS: usize = 20_000;
/// Descriptors that a process needs beside its connections.
const SPARE_DESCRIPTORS: u64 = 200;
/// How long one answer may take.
const PATIENCE: Duration = Duration::from_secs(60);

/// What a connection has done before it falls silent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// One `GET /livez`.
    KeepAlive,
    /// An SSE stream with this body, which has sent its first event.
    Sse(String),
    /// A WebSocket handshake.
    WebSocket,
}

/// The connections; closed when dropped.
#[derive(Debug)]
pub(crate) struct Crowd(Vec<TcpStream>);

impl Crowd {
    /// Makes so many connections, one after another, each answered before the next.
    ///
    /// # Errors
    /// When one can't be made or is not answered as it should be.
    pub(crate) fn gather(addr: SocketAddr, kind: Kind, count: usize) -> Result<Self, Failure> {
        let (request, expected): (String, &[u8]) = match kind {
            Kind::KeepAlive => {
                ("GET /livez HTTP/1.1\r\nHost: localhost\r\n\r\n".to_owned(), b"\r\n\r\nok\n")
            }
            Kind::Sse(body) => (
                format!(
                    "POST /crawl/stream HTTP/1.1\r\nHost: localhost\r\nAccept: text/event-stream\r\n\
                     Content-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}",
                    body.len()
                ),
                b"event: metadata",
            ),
            Kind::WebSocket => (http::websocket_request("/crawl/ws"), b"HTTP/1.1 101"),
        };
        let mut sockets = Vec::with_capacity(count);
        let mut answer = [0; 4096];
        for n in 0..count {
            let mut socket = connect(addr, n / PER_ADDRESS)
                .map_err(|error| format!("connection {n} of {count}: {error}"))?;
            socket.write_all(request.as_bytes())?;
            let mut held = 0;
            while !answer[..held].windows(expected.len()).any(|window| window == expected) {
                match socket.read(&mut answer[held..])? {
                    0 => {
                        let told = String::from_utf8_lossy(&answer[..held]);
                        return Err(format!("connection {n}: an odd answer: {told}").into());
                    }
                    read => held += read,
                }
            }
            sockets.push(socket);
        }
        Ok(Self(sockets))
    }

    /// How many they are.
    pub(crate) fn len(&self) -> usize {
        self.0.len()
    }
}

/// Connects from the `n`th loopback address.
fn connect(addr: SocketAddr, n: usize) -> std::io::Result<TcpStream> {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, Some(Protocol::TCP))?;
    let last = u8::try_from(n + 1).map_err(std::io::Error::other)?;
    socket.bind(&SocketAddr::from((Ipv4Addr::new(127, 0, 1, last), 0)).into())?;
    socket.connect(&addr.into())?;
    let socket = TcpStream::from(socket);
    socket.set_read_timeout(Some(PATIENCE))?;
    Ok(socket)
}

/// How many connections this process may hold, after raising its limit as far as that goes.
pub(crate) fn connections_max() -> usize {
    let limit = getrlimit(Resource::Nofile);
    let raised = Rlimit { current: limit.maximum, maximum: limit.maximum };
    // Where raising fails, what is allowed now decides.
    let _ = setrlimit(Resource::Nofile, raised);
    let allowed = getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX);
    usize::try_from(allowed.saturating_sub(SPARE_DESCRIPTORS)).unwrap_or(usize::MAX)
}

/// Waits until a process's memory stands still, at most ten seconds.
///
/// # Errors
/// When the process is gone.
pub(crate) fn settle(pid: u32) -> Result<(), Failure> {
    let mut last = Memory::of(pid)?;
    for _ in 0..20 {
        std::thread::sleep(Duration::from_millis(500));
        let now = Memory::of(pid)?;
        if now == last {
            return Ok(());
        }
        last = now;
    }
    Ok(())
}
