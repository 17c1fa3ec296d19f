//! A WebSocket echo server for conformance tests, on any path: blocking sockets, a thread per
//! connection, and `forebay::proto::ws` in between.
//!
//! ```text
//! cargo run --release --example ws_echo -- 127.0.0.1:9001
//! ```
//! Port 0 takes a free one. The first line on standard output is the address listened on.

use std::io::{self, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::time::{Duration, Instant};

use forebay::proto::ws::extension::Policy;
use forebay::proto::ws::handshake::{self, Offer};
use forebay::proto::ws::{Config, DeflateConfig, Event, MessageKind, SendError, Session, Status};

/// Bytes of the request head that are taken.
const HEAD_BYTES_MAX: usize = 16 * 1024;
/// Connections at a time, and so threads.
const CONNECTIONS_MAX: usize = 64;

fn main() -> io::Result<()> {
    let address = std::env::args().nth(1).unwrap_or_else(|| "127.0.0.1:9001".to_owned());
    let listener = TcpListener::bind(address)?;
    println!("{}", listener.local_addr()?);
    let mut threads: Vec<std::thread::JoinHandle<()>> = Vec::new();
    loop {
        let (socket, peer) = listener.accept()?;
        threads.retain(|thread| !thread.is_finished());
        if threads.len() >= CONNECTIONS_MAX {
            eprintln!("{peer}: too many connections");
            continue;
        }
        threads.push(std::thread::spawn(move || {
            if let Err(error) = serve(socket) {
                eprintln!("{peer}: {error}");
            }
        }));
    }
}

/// One connection from its request to its end.
fn serve(mut socket: TcpStream) -> io::Result<()> {
    socket.set_nodelay(true)?;
    socket.set_read_timeout(Some(Duration::from_secs(10)))?;
    socket.set_write_timeout(Some(Duration::from_secs(30)))?;
    let mut received = Vec::new();
    let Some((head_bytes, accepted)) = read_head(&mut socket, &mut received)? else {
        return Ok(());
    };
    let mut response = Vec::new();
    accepted.write_response([], &mut response);
    socket.write_all(&response)?;

    // An echo answers every message the way it came: all sizes are compressed.
    let deflate =
        DeflateConfig { bytes_min: 0, bytes_max: usize::MAX, ..Config::default().deflate };
    let config = Config { deflate, ..Config::default() };
    let mut session = Session::new(Instant::now(), config, accepted.deflate);
    // Frames may be glued to the request.
    echo(&mut session, &mut socket, &mut received[head_bytes..])?;
    let mut buffer = vec![0; 64 * 1024];
    while let Some(deadline) = session.poll_timeout() {
        let wait = deadline.saturating_duration_since(Instant::now());
        socket.set_read_timeout(Some(wait.max(Duration::from_millis(1))))?;
        match socket.read(&mut buffer) {
            Ok(0) => session.handle_eof(),
            Ok(count) => echo(&mut session, &mut socket, &mut buffer[..count])?,
            Err(error) if is_timeout(&error) => {
                session.handle_timeout(Instant::now());
                flush(&mut session, &mut socket)?;
            }
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

/// Sends every message in `input` back.
fn echo(session: &mut Session, socket: &mut TcpStream, mut input: &mut [u8]) -> io::Result<()> {
    let now = Instant::now();
    while let Some(event) = session.handle_bytes(now, &mut input) {
        let (kind, message) = match event {
            Event::Text(text) => (MessageKind::Text, text.to_vec()),
            Event::Binary(data) => (MessageKind::Binary, data.to_vec()),
            _ => {
                flush(session, socket)?;
                continue;
            }
        };
        let mut deflated = Vec::new();
        match session.send(kind, &[&message], &mut deflated) {
            Ok(sent) => {
                let body = if sent.deflated { &deflated } else { &message };
                socket.write_all(&[&sent.head, &body[..]].concat())?;
            }
            Err(SendError::Closed) => {}
            Err(error) => return Err(io::Error::other(error)),
        }
    }
    flush(session, socket)
}

/// Sends what the session itself has to say; after the last of it, our side is shut.
fn flush(session: &mut Session, socket: &mut TcpStream) -> io::Result<()> {
    if let Some(frames) = session.poll_transmit() {
        socket.write_all(&frames)?;
        if session.status() == Status::Draining {
            socket.shutdown(std::net::Shutdown::Write)?;
        }
    }
    Ok(())
}

/// Reads the request's head and judges it: its length and the acceptance, or `None` after an
/// answer that refuses it.
fn read_head(
    socket: &mut TcpStream,
    received: &mut Vec<u8>,
) -> io::Result<Option<(usize, handshake::Accepted)>> {
    let mut piece = [0; 4096];
    loop {
        let count = socket.read(&mut piece)?;
        received.extend_from_slice(&piece[..count]);
        let mut fields = [httparse::EMPTY_HEADER; 64];
        let mut request = httparse::Request::new(&mut fields);
        let parsed = request.parse(received).map_err(io::Error::other)?;
        let httparse::Status::Complete(head_bytes) = parsed else {
            if count == 0 || received.len() > HEAD_BYTES_MAX {
                return Err(io::ErrorKind::InvalidData.into());
            }
            continue;
        };
        let fields = request.headers.iter().map(|field| (field.name, field.value));
        let offer = Offer { subprotocols: &[], deflate: Some(Policy::default()) };
        let method = request.method.unwrap_or_default();
        match handshake::accept(method, request.version == Some(1), fields, &offer) {
            Ok(accepted) => return Ok(Some((head_bytes, accepted))),
            Err(rejection) => {
                let mut answer = format!("HTTP/1.1 {} Refused\r\n", rejection.code().status());
                for (name, value) in rejection.fields() {
                    answer.push_str(&format!("{name}: {value}\r\n"));
                }
                answer.push_str("Content-Length: 0\r\n\r\n");
                socket.write_all(answer.as_bytes())?;
                return Ok(None);
            }
        }
    }
}

/// The read timeout has passed, under either of its names.
fn is_timeout(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut)
}
