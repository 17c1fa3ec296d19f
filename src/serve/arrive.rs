//! What comes before the first request of a connection: whose it is (PROXY protocol), and TLS.

use super::access::Access;
use super::access::table::Counted;
use super::conn::READ_BYTES;
use super::socket::Socket;
use super::tls::TlsStream;
use crate::config::Config;
use crate::observe::metrics::Reject;
use crate::proto::proxy;
use std::io;
use std::net::IpAddr;
use std::rc::Rc;
use std::time::Duration;
use uring::arena::{self, Buf};
use uring::net::TcpStream;

/// A connection that is ready for its first request.
pub struct Arrival {
    /// The socket.
    pub socket: Socket,
    /// Plain bytes that were read already.
    pub early: Option<Buf>,
    /// Who is at the other end: the client, or a proxy that tells of clients by a header field.
    pub peer: IpAddr,
    /// The connection's place among those of its client.
    pub counted: Option<Counted>,
}

/// Why a connection does not come that far.
pub enum Turned {
    /// Its client has too many; what to answer, where it can be.
    Away(Reject, TcpStream),
    /// It broke off, took too long, or was no PROXY header or no TLS.
    Gone,
}

impl From<io::Error> for Turned {
    fn from(_: io::Error) -> Self {
        Self::Gone
    }
}

/// Brings a connection that was just accepted to its first request.
///
/// # Errors
/// [`Turned`].
pub async fn arrive(access: &Access, config: &Config, tcp: TcpStream) -> Result<Arrival, Turned> {
    let mut peer = tcp.peer_addr()?.ip().to_canonical();
    let mut early = None;
    if access.proxy_protocol && access.is_proxy(peer) {
        let patience = Duration::from_millis(config.head_timeout_ms);
        let header = uring::time::timeout(patience, proxy_header(&tcp)).await;
        let (source, rest) = header.map_err(|_| Turned::Gone)??;
        peer = source.unwrap_or(peer);
        early = rest;
    }
    let Ok(counted) = access.connect(peer) else {
        return Err(Turned::Away(Reject::PerAddress, tcp));
    };
    let Some(tls) = access.tls() else {
        return Ok(Arrival { socket: Socket::Plain(tcp), early, peer, counted });
    };
    let patience = Duration::from_millis(config.tls_handshake_timeout_ms);
    let handshake = Box::pin(TlsStream::accept(tcp, tls, early));
    let stream = uring::time::timeout(patience, handshake).await.map_err(|_| Turned::Gone)??;
    Ok(Arrival { socket: Socket::Tls(Rc::new(stream)), early: None, peer, counted })
}

/// Reads the header; the client, where it is told, and what was read behind the header.
async fn proxy_header(tcp: &TcpStream) -> io::Result<(Option<IpAddr>, Option<Buf>)> {
    let mut inbox = arena::alloc(READ_BYTES);
    loop {
        match proxy::parse(&inbox) {
            Ok(Some(header)) => {
                inbox.advance(header.len);
                let source = header.source.map(|source| source.ip().to_canonical());
                return Ok((source, Some(inbox).filter(|inbox| !inbox.is_empty())));
            }
            Ok(None) => {}
            Err(bad) => return Err(io::Error::new(io::ErrorKind::InvalidData, bad)),
        }
        let (read, buf) = tcp.read(inbox).await;
        inbox = buf;
        if read? == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
    }
}
