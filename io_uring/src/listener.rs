//! Listening sockets: one per core on the same address, and the kernel spreads connections over them (`SO_REUSEPORT`).
//!
//! monoio's own accept leaks the descriptor when it is cancelled while a connection arrives. So none is ever in flight here: the loop waits for
//! readability, which takes nothing and may be cancelled, and then accepts without waiting, as many as there are.

use std::cell::Cell;
use std::io;
use std::net::SocketAddr;
use std::os::fd::{AsFd, OwnedFd};
use std::rc::Rc;

use socket2::{Domain, SockRef, Socket, Type};

use crate::net::{TcpStream, as_inet};
use crate::select::select2;
use crate::signal::Signal;
use crate::{doorbell, stats, sys};

/// Connections accepted in a row before the rest of the core gets its turn.
const BURST: u32 = 64;

/// A listening socket of this core. Cheap to clone; closed with the last clone.
#[derive(Clone)]
pub struct TcpListener {
    inner: Rc<Inner>,
}

struct Inner {
    socket: sys::Pollable,
    stop: Signal,
    burst: Cell<u32>,
    /// Whether another process has the same socket.
    shared: bool,
}

impl TcpListener {
    /// Listens on `addr` with `SO_REUSEADDR` and `SO_REUSEPORT`, so that every core binds the same one; a wildcard IPv6 address accepts IPv4, too.
    /// Its connections have `TCP_NODELAY`: what is ready leaves in one send, and a later one must not wait for the acknowledgement of the last.
    ///
    /// # Errors
    /// What `socket(2)`, `bind(2)` and `listen(2)` say.
    ///
    /// # Panics
    /// When called off a core's loop.
    pub fn bind(addr: SocketAddr, backlog: i32) -> io::Result<TcpListener> {
        let socket = Socket::new(Domain::for_address(addr), Type::STREAM, None)?;
        if addr.is_ipv6() {
            socket.set_only_v6(!addr.ip().is_unspecified())?;
        }
        socket.set_reuse_address(true)?;
        socket.set_reuse_port(true)?;
        socket.bind(&addr.into())?;
        socket.listen(backlog)?;
        TcpListener::new(socket.into(), false)
    }

    /// Takes over a listening socket that another process made, and may still have: what waits in its backlog at
    /// [`TcpListener::stop`] is left for whoever listens next.
    ///
    /// # Errors
    /// When it can't be registered with this core's loop.
    pub fn from_fd(fd: OwnedFd) -> io::Result<TcpListener> {
        TcpListener::new(fd, true)
    }

    fn new(fd: OwnedFd, shared: bool) -> io::Result<TcpListener> {
        let socket = SockRef::from(&fd);
        socket.set_nonblocking(true)?;
        // Each connection inherits it; a passed socket may not be of TCP.
        let _ = socket.set_tcp_nodelay(true);
        let socket = sys::Pollable::new(fd)?;
        Ok(TcpListener {
            inner: Rc::new(Inner { socket, stop: Signal::new(), burst: Cell::new(0), shared }),
        })
    }

    /// The address listened on, with the port that the kernel chose.
    ///
    /// # Errors
    /// What `getsockname(2)` says.
    pub fn local_addr(&self) -> io::Result<SocketAddr> {
        as_inet(SockRef::from(&self.inner.socket).local_addr()?)
    }

    /// The next connection, or `None` after [`TcpListener::stop`] once the backlog is empty. Only one task accepts; dropping the future
    /// loses nothing.
    ///
    /// # Errors
    /// When the process or the system is out of descriptors or memory: wait a moment and go on.
    pub async fn accept(&self) -> io::Result<Option<TcpStream>> {
        let inner = &*self.inner;
        let driver = sys::driver().expect("a listener is bound on a core's loop");
        if inner.burst.replace(inner.burst.get() + 1) >= BURST {
            inner.burst.set(0);
            doorbell::yield_now().await;
        }
        loop {
            if inner.shared && inner.stop.is_set() {
                return Ok(None);
            }
            match sys::accept(inner.socket.as_fd(), driver) {
                Ok(fd) => {
                    stats::update(|s| s.accepts += 1);
                    return TcpStream::from_prepared_fd(fd).map(Some);
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    if inner.stop.is_set() {
                        return Ok(None);
                    }
                    inner.burst.set(0);
                    // Which of the two it was, the next round tells.
                    let _ = select2(inner.socket.readable(), inner.stop.wait()).await;
                }
                Err(error) if concerns_one_peer(&error) => {}
                Err(error) => return Err(error),
            }
        }
    }

    /// No more connections: what is in the backlog is still handed out, then [`TcpListener::accept`] gives `None`. Drop the listener then, so that
    /// the kernel sends new connections elsewhere.
    pub fn stop(&self) {
        self.inner.stop.set();
    }
}

/// accept(2): errors of a connection that went away before it was accepted; the listener is fine.
fn concerns_one_peer(error: &io::Error) -> bool {
    matches!(
        error.raw_os_error(),
        Some(
            libc::ECONNABORTED
                | libc::EINTR
                | libc::EPROTO
                | libc::ENETDOWN
                | libc::ENOPROTOOPT
                | libc::EHOSTDOWN
                | libc::ENONET
                | libc::EHOSTUNREACH
                | libc::EOPNOTSUPP
                | libc::ENETUNREACH
        )
    )
}
