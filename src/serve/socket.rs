//! A client's connection, with or without TLS. Without, every call is the plain socket's own: the
//! vectored sends, the buffers that the kernel fills, the waits that hold none. What TLS needs while it
//! waits is boxed: it would be room in every connection.

use super::tls::TlsStream;
use std::io;
use std::rc::Rc;
use uring::Gather;
use uring::arena::Buf;
use uring::net::{PeerState, TcpStream};

/// See the module. Cheap to clone; one read and one write at a time.
#[derive(Clone)]
pub enum Socket {
    /// Bytes as they are.
    Plain(TcpStream),
    /// Bytes in TLS records.
    Tls(Rc<TlsStream>),
}

impl Socket {
    /// Waits until there is something to read, or the end; may be dropped at any time.
    ///
    /// # Errors
    /// When the wait itself fails.
    pub async fn readable(&self) -> io::Result<()> {
        match self {
            Self::Plain(tcp) => tcp.readable().await,
            Self::Tls(tls) => Box::pin(tls.readable()).await,
        }
    }

    /// Reads into the room behind `buf`'s bytes; `Ok(0)` is the end.
    ///
    /// # Errors
    /// What the socket says, or bytes that are no TLS.
    ///
    /// # Panics
    /// When the buffer has no room.
    pub async fn read(&self, buf: Buf) -> (io::Result<usize>, Buf) {
        match self {
            Self::Plain(tcp) => tcp.read(buf).await,
            Self::Tls(tls) => Box::pin(tls.read(buf)).await,
        }
    }

    /// Sends from the front of `gather`, which keeps the rest; bytes taken from it. When the future
    /// is dropped, close the connection.
    ///
    /// # Errors
    /// What the socket says.
    pub async fn send(&self, gather: &mut Gather) -> io::Result<usize> {
        match self {
            Self::Plain(tcp) => tcp.send(gather).await,
            Self::Tls(tls) => Box::pin(tls.send(gather)).await,
        }
    }

    /// Says that nothing more will be sent.
    ///
    /// # Errors
    /// When the connection is gone already.
    pub async fn shutdown_write(&self) -> io::Result<()> {
        match self {
            Self::Plain(tcp) => tcp.shutdown_write(),
            Self::Tls(tls) => Box::pin(tls.shutdown_write()).await,
        }
    }

    /// What the kernel knows about the peer now.
    #[must_use]
    pub fn peer_state(&self) -> PeerState {
        self.tcp().peer_state()
    }

    /// Makes the close send RST and discard what is unsent.
    ///
    /// # Errors
    /// What `setsockopt(2)` says.
    pub fn set_linger_zero(&self) -> io::Result<()> {
        self.tcp().set_linger_zero()
    }

    fn tcp(&self) -> &TcpStream {
        match self {
            Self::Plain(tcp) => tcp,
            Self::Tls(tls) => tls.tcp(),
        }
    }
}
