//! The kernel's floor: a server that answers whatever it reads with the same bytes, on one thread,
//! with as little as the kernel lets one do it with. It speaks no HTTP: `bench compare` hands it the
//! very bytes that Forebay answers `GET /livez` with, and loads it in the same way.
//!
//! Two drivers: [`epoll`], one `epoll_wait` for all that is ready, then a `recv` and a `send` each; and
//! [`ring`], multishot accepts and receives into a ring of provided buffers, one `io_uring_enter` for
//! everything.

#![allow(unsafe_code, reason = "a floor has nothing between itself and the kernel; never shipped")]

mod epoll;
mod ring;

use std::io::{self, Write};
use std::net::TcpListener;
use std::os::fd::AsRawFd;
use std::process::ExitCode;

const USAGE: &str = "usage: forebay-peer-echo epoll|ring [--listen ADDR:PORT] [--answer FILE]\nFILE holds the whole answer, head and all.";
/// What is answered when no file is given.
const ANSWER: &[u8] = b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nok\n";
/// Connections waiting to be accepted.
const BACKLOG: i32 = 4096;

fn main() -> ExitCode {
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("forebay-peer-echo: {error}");
            ExitCode::from(2)
        }
    }
}

fn run() -> io::Result<()> {
    let usage = || io::Error::new(io::ErrorKind::InvalidInput, USAGE);
    let mut args = std::env::args().skip(1);
    let driver = args.next().ok_or_else(usage)?;
    let (mut listen, mut answer) = ("127.0.0.1:0".to_owned(), ANSWER.to_vec());
    while let Some(flag) = args.next() {
        let value = args.next().ok_or_else(usage)?;
        match &*flag {
            "--listen" => listen = value,
            "--answer" => answer = std::fs::read(value)?,
            _ => return Err(usage()),
        }
    }
    let listener = TcpListener::bind(&*listen)?;
    // SAFETY: listen(2) on a socket that is ours and listens already only changes its backlog.
    if unsafe { libc::listen(listener.as_raw_fd(), BACKLOG) } < 0 {
        return Err(io::Error::last_os_error());
    }
    println!("listening on http://{}", listener.local_addr()?);
    io::stdout().flush()?;
    // The kernel reads the answer while sends are in flight, to the end of the process.
    let answer: &'static [u8] = Box::leak(answer.into_boxed_slice());
    match &*driver {
        "epoll" => epoll::serve(&listener, answer),
        "ring" => ring::serve(&listener, answer),
        _ => Err(usage()),
    }
}
