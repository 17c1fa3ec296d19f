//! Level-triggered epoll: the least that a readiness loop can do.

use std::io::{self, ErrorKind, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};

/// Events taken at once.
const EVENTS: u16 = 256;

/// Answers every read, for ever.
///
/// # Errors
/// What the kernel says to the listener or to epoll itself; a broken connection is only dropped.
pub(crate) fn serve(listener: &TcpListener, answer: &[u8]) -> io::Result<()> {
    listener.set_nonblocking(true)?;
    // SAFETY: no pointers; the descriptor is checked before it is owned.
    let epoll = unsafe { libc::epoll_create1(libc::EPOLL_CLOEXEC) };
    if epoll < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: just made, and nobody else has it.
    let epoll = unsafe { OwnedFd::from_raw_fd(epoll) };
    watch(&epoll, listener.as_raw_fd())?;
    let mut connections: Vec<Option<TcpStream>> = Vec::new();
    let mut events = [libc::epoll_event { events: 0, u64: 0 }; EVENTS as usize];
    let mut buffer = [0; 4096];
    loop {
        // SAFETY: `events` has room for EVENTS entries and outlives the call.
        let ready =
            unsafe { libc::epoll_wait(epoll.as_raw_fd(), events.as_mut_ptr(), EVENTS.into(), -1) };
        let Ok(ready) = usize::try_from(ready) else {
            let error = io::Error::last_os_error();
            if error.kind() == ErrorKind::Interrupted {
                continue;
            }
            return Err(error);
        };
        for event in &events[..ready] {
            let fd = usize::try_from(event.u64).expect("we put a descriptor there");
            if fd == slot(listener.as_raw_fd()) {
                accept(listener, &epoll, &mut connections)?;
            } else if let Some(connection) = connections.get_mut(fd)
                && let Some(socket) = connection
                && !exchange(socket, &mut buffer, answer)
            {
                *connection = None;
            }
        }
    }
}

fn slot(fd: RawFd) -> usize {
    usize::try_from(fd).expect("an open descriptor is not negative")
}

fn watch(epoll: &OwnedFd, fd: RawFd) -> io::Result<()> {
    let mut event =
        libc::epoll_event { events: libc::EPOLLIN.cast_unsigned(), u64: slot(fd) as u64 };
    // SAFETY: the event outlives the call, which copies it.
    match unsafe { libc::epoll_ctl(epoll.as_raw_fd(), libc::EPOLL_CTL_ADD, fd, &raw mut event) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

fn accept(
    listener: &TcpListener,
    epoll: &OwnedFd,
    connections: &mut Vec<Option<TcpStream>>,
) -> io::Result<()> {
    loop {
        let socket = match listener.accept() {
            Ok((socket, _)) => socket,
            Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(()),
            Err(error) => return Err(error),
        };
        socket.set_nonblocking(true)?;
        socket.set_nodelay(true)?;
        watch(epoll, socket.as_raw_fd())?;
        let at = slot(socket.as_raw_fd());
        if connections.len() <= at {
            connections.resize_with(at + 1, || None);
        }
        connections[at] = Some(socket);
    }
}

/// One read and its answer; `false` when the connection is over.
fn exchange(socket: &mut TcpStream, buffer: &mut [u8], answer: &[u8]) -> bool {
    match socket.read(buffer) {
        Ok(0) => false,
        Ok(_) => matches!(socket.write(answer), Ok(sent) if sent == answer.len()),
        Err(error) => error.kind() == ErrorKind::WouldBlock,
    }
}
