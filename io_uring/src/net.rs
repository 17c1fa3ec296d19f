//! TCP: streams and listeners of one core.
//!
//! Notes that hold for everything here:
//! - **What the kernel borrows, the operation owns.** A read takes its [`Buf`] by value, a send takes its chunks out of the [`Gather`]. When the
//!   future is dropped, the operation is cancelled and keeps them until the kernel says that it is over; only then does the
//!   buffer return to the arena and the descriptor close.
//! - **Select on [`TcpStream::readable`], not on a read.** A cancelled read may have taken bytes off the socket already; they are lost. That
//!   is fine when the connection is given up (a timeout that closes it) and wrong otherwise.
//! - Under io_uring sockets are blocking (a non-blocking one makes the kernel answer `EAGAIN` instead of waiting), under epoll they aren't. Every
//!   constructor here sees to that.
//! - A send to a connection that the peer closed is an error (`EPIPE`), not a signal: Rust's start-up code ignores `SIGPIPE`.

use std::cell::{Cell, UnsafeCell};
use std::io;
use std::net::SocketAddr;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::pin::pin;
use std::rc::Rc;
use std::time::Duration;

use monoio::buf::{IoBuf, IoBufMut, IoVecBuf};
use monoio::io::{AsyncReadRent, AsyncWriteRent, CancelableAsyncReadRent, Canceller};
use socket2::SockRef;

use crate::arena::Buf;
use crate::chunk::{Batch, Chunk, Gather};
use crate::probe::Driver;
use crate::select::{Either, select2};
use crate::stats::{self, InFlight};
use crate::sys;

pub use crate::listener::TcpListener;

/// A connection. Cheap to clone; closed when the last clone is dropped and the kernel holds nothing of it any more.
///
/// At most one read (or wait for readability) and one write at a time: a second one is a bug of the caller and panics.
#[derive(Clone)]
pub struct TcpStream {
    conn: Rc<Conn>,
}

struct Conn {
    io: UnsafeCell<monoio::net::TcpStream>,
    reading: Cell<bool>,
    writing: Cell<bool>,
    /// What takes a read back; kept from one to the next, so that reads don't allocate.
    canceller: Cell<Option<Canceller>>,
}

/// What the kernel knows about the peer, without reading.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PeerState {
    /// Connected, nothing to read.
    Quiet,
    /// Connected, bytes to read (pipelined requests).
    Talking,
    /// The peer will send nothing more (FIN); bytes from before may still be there to read. It may still read what we send.
    Finished,
    /// The connection is gone (RST or an error).
    Gone,
}

/// Marks one direction as busy for as long as it lives.
struct Busy<'a>(&'a Cell<bool>);

impl<'a> Busy<'a> {
    fn mark(flag: &'a Cell<bool>, what: &str) -> Busy<'a> {
        assert!(!flag.replace(true), "two {what}s at once on one connection");
        Busy(flag)
    }
}

impl Drop for Busy<'_> {
    fn drop(&mut self) {
        self.0.set(false);
    }
}

impl TcpStream {
    /// Opens a connection. The caller bounds the time; dropping the future closes the socket.
    ///
    /// # Errors
    /// What `socket(2)` and `connect(2)` say.
    ///
    /// # Panics
    /// When polled off a core's loop.
    pub async fn connect(addr: SocketAddr) -> io::Result<TcpStream> {
        let driver = sys::driver().expect("connect is for a core's loop");
        let pending = sys::Pollable::new(sys::start_connect(addr)?)?;
        pending.writable().await?;
        let socket = SockRef::from(&pending);
        if let Some(error) = socket.take_error()? {
            return Err(error);
        }
        socket.set_nonblocking(driver == Driver::Epoll)?;
        stats::update(|s| s.connects += 1);
        Ok(TcpStream::new(pending.into_stream()))
    }

    /// Takes over a connected socket, from this or another core.
    ///
    /// # Errors
    /// When the descriptor can't be registered with this core's loop.
    ///
    /// # Panics
    /// When called off a core's loop.
    pub fn from_fd(fd: OwnedFd) -> io::Result<TcpStream> {
        let driver = sys::driver().expect("from_fd is for a core's loop");
        SockRef::from(&fd).set_nonblocking(driver == Driver::Epoll)?;
        TcpStream::from_prepared_fd(fd)
    }

    /// As [`TcpStream::from_fd`], for a socket whose blocking mode fits the driver.
    pub(crate) fn from_prepared_fd(fd: OwnedFd) -> io::Result<TcpStream> {
        sys::Pollable::new(fd).map(|pollable| TcpStream::new(pollable.into_stream()))
    }

    fn new(io: monoio::net::TcpStream) -> TcpStream {
        let conn = Conn {
            io: UnsafeCell::new(io),
            reading: Cell::new(false),
            writing: Cell::new(false),
            canceller: Cell::new(None),
        };
        TcpStream { conn: Rc::new(conn) }
    }

    /// A descriptor of this connection to move it to another core, which calls [`TcpStream::from_fd`].
    ///
    /// It is a duplicate, so this core's own handle goes in peace whatever still refers to it.
    ///
    /// # Errors
    /// When the process is out of descriptors.
    ///
    /// # Panics
    /// When a read or write is in flight: its bytes would get lost.
    pub fn into_fd(self) -> io::Result<OwnedFd> {
        assert!(!self.conn.reading.get() && !self.conn.writing.get(), "moved a busy connection");
        self.fd().try_clone_to_owned()
    }

    /// Waits until there is something to read: bytes, the peer's FIN or an error. Holds no buffer, may be dropped at any time, loses nothing.
    ///
    /// # Errors
    /// When the wait itself fails; errors of the connection are left for the read to tell.
    pub async fn readable(&self) -> io::Result<()> {
        let _busy = Busy::mark(&self.conn.reading, "read");
        stats::update(|s| s.polls += 1);
        self.conn.io().readable(false).await
    }

    /// Reads into the room behind `buf`'s bytes: `Ok(0)` is the end. The buffer comes back in either case, when the kernel is done with it.
    ///
    /// # Errors
    /// What `recv(2)` says.
    ///
    /// # Panics
    /// When the buffer has no room (that read would look like the end), or another read is in flight.
    pub async fn read(&self, buf: Buf) -> (io::Result<usize>, Buf) {
        assert!(buf.spare_capacity() > 0, "a read needs room");
        let _busy = Busy::mark(&self.conn.reading, "read");
        let mut op = ReadOp { buf, _in_flight: InFlight::new() };
        loop {
            stats::update(|s| s.reads += 1);
            // SAFETY: see `Conn::io_mut`: the reference is only used to make the operation.
            let (result, done) = unsafe { self.conn.io_mut() }.read(op).await;
            op = done;
            match result {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Ok(n) => {
                    stats::update(|s| s.bytes_in += n as u64);
                    return (Ok(n), op.buf);
                }
                Err(error) => return (Err(error), op.buf),
            }
        }
    }

    /// As [`TcpStream::read`], until `stop` is over: then the operation is taken back, and `Ok(None)` says that it brought nothing. What it
    /// had brought already is not lost. One operation where [`TcpStream::readable`] and a read are two: for a connection whose bytes are
    /// expected soon, because the buffer is held meanwhile.
    ///
    /// # Errors
    /// What `recv(2)` says.
    ///
    /// # Panics
    /// As [`TcpStream::read`].
    pub async fn read_until(
        &self,
        buf: Buf,
        stop: impl Future,
    ) -> (io::Result<Option<usize>>, Buf) {
        assert!(buf.spare_capacity() > 0, "a read needs room");
        let _busy = Busy::mark(&self.conn.reading, "read");
        let op = ReadOp { buf, _in_flight: InFlight::new() };
        stats::update(|s| s.reads += 1);
        let canceller = self.conn.canceller.take().unwrap_or_default();
        // SAFETY: see `Conn::io_mut`: the reference is used up to the first poll, which is the next thing to happen.
        let io = unsafe { self.conn.io_mut() };
        let mut read = pin!(io.cancelable_read(op, canceller.handle()));
        let (result, op) = match select2(read.as_mut(), stop).await {
            Either::Left(done) => {
                self.conn.canceller.set(Some(canceller));
                done
            }
            Either::Right(_) => {
                canceller.cancel();
                read.await
            }
        };
        let result = match result {
            Ok(n) => {
                stats::update(|s| s.bytes_in += n as u64);
                Ok(Some(n))
            }
            Err(error) if is_cancelled(&error) => Ok(None),
            Err(error) => Err(error),
        };
        (result, op.buf)
    }

    /// Sends all of one chunk. When the future is dropped, an unknown part was sent: close the connection.
    ///
    /// # Errors
    /// What `send(2)` says; `WriteZero` should the kernel take nothing.
    pub async fn write_all(&self, chunk: impl Into<Chunk>) -> io::Result<()> {
        self.write_chunk(chunk.into()).await
    }

    async fn write_chunk(&self, chunk: Chunk) -> io::Result<()> {
        let _busy = Busy::mark(&self.conn.writing, "write");
        let mut op = WriteOp { chunk, _in_flight: InFlight::new() };
        while !op.chunk.is_empty() {
            stats::update(|s| s.writes += 1);
            // SAFETY: see `Conn::io_mut`.
            let (result, done) = unsafe { self.conn.io_mut() }.write(op).await;
            op = done;
            match result {
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                Ok(n) => {
                    stats::update(|s| s.bytes_out += n as u64);
                    op.chunk.advance(n);
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    /// One send of what waits in `gather` (vectored where it is in pieces, at most [`crate::chunk::IOV_MAX`] chunks), which then holds what was not sent. Returns the
    /// bytes sent; 0 only when nothing waited.
    ///
    /// When the future is dropped, `gather` is empty and an unknown part was sent: close the connection.
    ///
    /// # Errors
    /// What `send(2)` or `writev(2)` says; `gather` keeps everything. `WriteZero` should the kernel take nothing.
    pub async fn send(&self, gather: &mut Gather) -> io::Result<usize> {
        if gather.is_empty() {
            return Ok(0);
        }
        let _busy = Busy::mark(&self.conn.writing, "write");
        let waiting = gather.len();
        loop {
            stats::update(|s| s.writes += 1);
            let op = SendOp { batch: gather.take_batch(), _in_flight: InFlight::new() };
            // What is in one piece needs no list of pieces: `send` is the shorter way through the kernel.
            let (result, done) = if op.batch.is_one() {
                // SAFETY: see `Conn::io_mut`.
                unsafe { self.conn.io_mut() }.write(op).await
            } else {
                // SAFETY: see `Conn::io_mut`.
                unsafe { self.conn.io_mut() }.writev(op).await
            };
            gather.restore(done.batch, waiting);
            match result {
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                Ok(n) => {
                    stats::update(|s| s.bytes_out += n as u64);
                    gather.advance(n);
                    return Ok(n);
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
    }

    /// Sends all that waits in `gather`, by as many sends as it takes.
    ///
    /// # Errors
    /// As [`TcpStream::send`].
    pub async fn send_all(&self, gather: &mut Gather) -> io::Result<()> {
        while !gather.is_empty() {
            self.send(gather).await?;
        }
        Ok(())
    }

    /// What the kernel knows about the peer now; reads nothing, so pipelined bytes stay and don't hide a FIN behind them.
    pub fn peer_state(&self) -> PeerState {
        let asked = libc::POLLIN | libc::POLLRDHUP;
        match sys::poll_events(self.fd(), asked) {
            Err(_) => PeerState::Gone,
            Ok(events) if events & (libc::POLLERR | libc::POLLHUP | libc::POLLNVAL) != 0 => {
                PeerState::Gone
            }
            Ok(events) if events & libc::POLLRDHUP != 0 => PeerState::Finished,
            Ok(events) if events & libc::POLLIN != 0 => PeerState::Talking,
            Ok(_) => PeerState::Quiet,
        }
    }

    /// Whether the peer has finished or is gone.
    pub fn is_closed(&self) -> bool {
        matches!(self.peer_state(), PeerState::Finished | PeerState::Gone)
    }

    /// Switches Nagle's algorithm off (`true`) or on.
    ///
    /// # Errors
    /// What `setsockopt(2)` says.
    pub fn set_nodelay(&self, on: bool) -> io::Result<()> {
        self.socket().set_tcp_nodelay(on)
    }

    /// Sends FIN: the peer reads the end, we can still read.
    ///
    /// # Errors
    /// When the connection is gone already.
    pub fn shutdown_write(&self) -> io::Result<()> {
        self.socket().shutdown(std::net::Shutdown::Write)
    }

    /// Ends both directions: a read in flight completes with the end, a write with an error.
    ///
    /// # Errors
    /// When the connection is gone already.
    pub fn shutdown_both(&self) -> io::Result<()> {
        self.socket().shutdown(std::net::Shutdown::Both)
    }

    /// Makes the close send RST and discard what is unsent.
    ///
    /// # Errors
    /// What `setsockopt(2)` says.
    pub fn set_linger_zero(&self) -> io::Result<()> {
        self.socket().set_linger(Some(Duration::ZERO))
    }

    /// The peer's address.
    ///
    /// # Errors
    /// When it is gone already.
    pub fn peer_addr(&self) -> io::Result<SocketAddr> {
        as_inet(self.socket().peer_addr()?)
    }

    /// Our address.
    ///
    /// # Errors
    /// What `getsockname(2)` says.
    pub fn local_addr(&self) -> io::Result<SocketAddr> {
        as_inet(self.socket().local_addr()?)
    }

    fn fd(&self) -> BorrowedFd<'_> {
        self.conn.as_fd()
    }

    fn socket(&self) -> SockRef<'_> {
        SockRef::from(&*self.conn)
    }
}

impl AsFd for Conn {
    fn as_fd(&self) -> BorrowedFd<'_> {
        // SAFETY: open as long as `self` is.
        unsafe { BorrowedFd::borrow_raw(self.io().as_raw_fd()) }
    }
}

impl Conn {
    fn io(&self) -> &monoio::net::TcpStream {
        // SAFETY: exclusive references are made by `io_mut` alone and are dead before anything else runs.
        unsafe { &*self.io.get() }
    }

    /// monoio's `read`, `write` and `writev` ask for `&mut self`, which would forbid reading while writing.
    ///
    /// # Safety
    /// Use it only to call one of those three, or `cancelable_read`, which must be polled at once. In monoio 0.2.4 (pinned to exactly that
    /// version) each clones the descriptor's handle into an
    /// operation and returns a future that owns the operation alone; the reference is dead before the call returns, whatever lifetime the
    /// future's type carries. So no two live exclusive references meet.
    #[expect(clippy::mut_from_ref, reason = "the safety section says why none overlap")]
    unsafe fn io_mut(&self) -> &mut monoio::net::TcpStream {
        // SAFETY: the caller's contract.
        unsafe { &mut *self.io.get() }
    }
}

/// Whether an operation was taken back, or interrupted before it did anything.
fn is_cancelled(error: &io::Error) -> bool {
    error.raw_os_error() == Some(libc::ECANCELED) || error.kind() == io::ErrorKind::Interrupted
}

pub(crate) fn as_inet(addr: socket2::SockAddr) -> io::Result<SocketAddr> {
    addr.as_socket().ok_or_else(|| io::Error::other("not an internet address"))
}

/// A read's data: owned by the operation until the kernel is done.
struct ReadOp {
    buf: Buf,
    _in_flight: InFlight,
}

// SAFETY: the pointer is into the arena (or heap) allocation that `buf` owns: it doesn't move with `self`, and `bytes_total` bytes from it are
// ours to write. `set_init` is called with what the kernel wrote.
unsafe impl IoBufMut for ReadOp {
    fn write_ptr(&mut self) -> *mut u8 {
        self.buf.spare_ptr()
    }

    fn bytes_total(&mut self) -> usize {
        self.buf.spare_capacity()
    }

    unsafe fn set_init(&mut self, n: usize) {
        // SAFETY: the kernel wrote `n` bytes from `write_ptr` on.
        unsafe { self.buf.set_filled(n) };
    }
}

/// A write's data.
struct WriteOp {
    chunk: Chunk,
    _in_flight: InFlight,
}

// SAFETY: a chunk's bytes are in the arena, in a `Bytes` or static; none of them move with `self`, and nobody writes to them.
unsafe impl IoBuf for WriteOp {
    fn read_ptr(&self) -> *const u8 {
        self.chunk.as_ptr()
    }

    fn bytes_init(&self) -> usize {
        self.chunk.len()
    }
}

/// A vectored send's data.
struct SendOp {
    batch: Batch,
    _in_flight: InFlight,
}

// SAFETY: the iovecs are in a `Vec`'s allocation and point into the chunks' memory (see `WriteOp`); both are owned by `batch`, and neither moves
// with `self` nor changes while the operation has it.
unsafe impl IoVecBuf for SendOp {
    fn read_iovec_ptr(&self) -> *const libc::iovec {
        self.batch.iovecs().as_ptr()
    }

    fn read_iovec_len(&self) -> usize {
        self.batch.iovecs().len()
    }
}

// SAFETY: the first piece's memory (see `WriteOp`) is owned by `batch` and neither moves with `self` nor changes while the operation has it.
unsafe impl IoBuf for SendOp {
    fn read_ptr(&self) -> *const u8 {
        self.batch.first().as_ptr()
    }

    fn bytes_init(&self) -> usize {
        self.batch.first().len()
    }
}
