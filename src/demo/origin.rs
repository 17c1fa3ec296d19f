//! A web server on loopback that behaves like the web: some pages are quick, some slow, some
//! chunked, some compressed; one is gone, one has moved, one leads where it must not, one resets.
//!
//! It is a demo's prop on blocking sockets, one thread per connection up to a limit; it answers
//! `GET` and `HEAD`, keeps connections alive, and stops when it is dropped.

use std::collections::HashMap;
use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use flate2::Compression;
use flate2::write::GzEncoder;

use super::pages::{self, Page, SEED, Wire};

/// Connections served at a time; one more is closed at once.
const CONNECTIONS_MAX: usize = 64;
/// Bytes of a request head.
const HEAD_BYTES_MAX: usize = 16 * 1024;
/// How often a waiting connection looks whether the origin stops.
const POLL: Duration = Duration::from_millis(50);
/// How long a connection may stay quiet, and how long a client may take to read.
const IDLE: Duration = Duration::from_secs(30);
/// Where `/inside` leads: a documentation address (RFC 5737) that no crawler may connect to.
const FORBIDDEN: &str = "http://192.0.2.1/admin";

/// The running origin; dropping it stops it and waits for its threads.
#[derive(Debug)]
pub struct Origin {
    addr: SocketAddr,
    stop: Arc<AtomicBool>,
    acceptor: Option<JoinHandle<()>>,
}

impl Origin {
    /// Starts an origin on a free port of 127.0.0.1.
    ///
    /// # Errors
    /// When no port can be bound or no thread started.
    pub fn start() -> io::Result<Self> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
        let addr = listener.local_addr()?;
        let stop = Arc::new(AtomicBool::new(false));
        let site = Site::new();
        let stopped = Arc::clone(&stop);
        let acceptor = thread::Builder::new()
            .name("demo-origin".into())
            .spawn(move || accept(&listener, &site, &stopped))?;
        Ok(Self { addr, stop, acceptor: Some(acceptor) })
    }

    /// Where it listens.
    #[must_use]
    pub fn addr(&self) -> SocketAddr {
        self.addr
    }

    /// Every URL of the demo: all the pages, and one for each way in which a fetch goes wrong.
    #[must_use]
    pub fn urls(&self) -> Vec<String> {
        let special = ["/moved", "/inside", "/report.pdf", "/reset"];
        let paths = pages::pages().into_iter().map(|page| page.path);
        paths.chain(special).map(|path| format!("http://{}{path}", self.addr)).collect()
    }
}

impl Drop for Origin {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        // The acceptor sleeps in accept(); a connection of our own wakes it.
        let _woken = TcpStream::connect_timeout(&self.addr, Duration::from_secs(1));
        if let Some(acceptor) = self.acceptor.take() {
            let _joined = acceptor.join();
        }
    }
}

/// What is on offer, made once.
struct Site {
    answers: HashMap<&'static str, Answer>,
}

/// One ready response.
struct Answer {
    /// Status line and fields, up to and with the empty line.
    head: String,
    body: Vec<u8>,
    chunked: bool,
    /// Before the first byte.
    delay: Duration,
}

impl Site {
    fn new() -> Self {
        let mut answers: HashMap<_, _> =
            pages::pages().into_iter().map(|page| (page.path, Answer::page(page))).collect();
        let text = "Content-Type: text/plain; charset=utf-8";
        let robots = "User-agent: *\nAllow: /\n";
        answers.insert("/robots.txt", Answer::new(200, "OK", text, robots.into()));
        let moved = Answer::new(301, "Moved Permanently", "Location: /article", Vec::new());
        answers.insert("/moved", moved);
        let inside = format!("Location: {FORBIDDEN}");
        answers.insert("/inside", Answer::new(302, "Found", &inside, Vec::new()));
        let pdf = b"%PDF-1.4\n% not a page\n".to_vec();
        let report = Answer::new(200, "OK", "Content-Type: application/pdf", pdf);
        answers.insert("/report.pdf", report);
        Self { answers }
    }
}

impl Answer {
    fn new(status: u16, reason: &str, field: &str, body: Vec<u8>) -> Self {
        let head = format!(
            "HTTP/1.1 {status} {reason}\r\nServer: demo\r\n{field}\r\nContent-Length: {}\r\n\r\n",
            body.len()
        );
        Self { head, body, chunked: false, delay: Duration::from_millis(2) }
    }

    fn page(page: Page) -> Self {
        let Page { path, content_type, status, wire, body } = page;
        let reason = if status == 200 { "OK" } else { "Not Found" };
        let body = if wire.gzip() { gzip(&body) } else { body.into_owned() };
        let coding = if wire.gzip() { "Content-Encoding: gzip\r\n" } else { "" };
        let framing = match wire {
            Wire::Chunked | Wire::GzipChunked => "Transfer-Encoding: chunked".to_owned(),
            Wire::Length | Wire::Gzip => format!("Content-Length: {}", body.len()),
        };
        let head = format!(
            "HTTP/1.1 {status} {reason}\r\nServer: demo\r\nContent-Type: {content_type}\r\n\
             {coding}{framing}\r\n\r\n"
        );
        Self { head, body, chunked: wire.chunked(), delay: latency(path) }
    }
}

/// A page's own latency, 3 to 150 ms, most of them short.
fn latency(path: &str) -> Duration {
    let mut state = path.bytes().fold(SEED, |hash, b| hash.rotate_left(7) ^ u64::from(b));
    let draw = pages::splitmix(&mut state) % 100;
    Duration::from_millis(3 + draw * draw * 147 / 9_801)
}

fn gzip(body: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::default());
    encoder.write_all(body).and_then(|()| encoder.finish()).expect("a Vec takes every write")
}

/// Accepts until told to stop, then waits for the connections that are still being served.
fn accept(listener: &TcpListener, site: &Site, stop: &AtomicBool) {
    let open = AtomicUsize::new(0);
    thread::scope(|scope| {
        for stream in listener.incoming() {
            if stop.load(Ordering::Relaxed) {
                break;
            }
            let Ok(stream) = stream else {
                thread::sleep(POLL); // out of descriptors, say: a pause instead of a hot loop
                continue;
            };
            if open.fetch_add(1, Ordering::Relaxed) >= CONNECTIONS_MAX {
                open.fetch_sub(1, Ordering::Relaxed);
                continue;
            }
            let open = &open;
            let started = thread::Builder::new().spawn_scoped(scope, move || {
                // A client that goes away is its own affair.
                let _ended = serve(stream, site, stop);
                open.fetch_sub(1, Ordering::Relaxed);
            });
            if started.is_err() {
                open.fetch_sub(1, Ordering::Relaxed);
            }
        }
    });
}

/// Serves one connection, request after request, until either side has had enough.
fn serve(mut stream: TcpStream, site: &Site, stop: &AtomicBool) -> io::Result<()> {
    stream.set_nodelay(true)?;
    stream.set_read_timeout(Some(POLL))?;
    stream.set_write_timeout(Some(IDLE))?;
    let mut buffer = Vec::new();
    while let Some(head_len) = read_head(&mut stream, &mut buffer, stop)? {
        let head: Vec<u8> = buffer.drain(..head_len).collect();
        let head = String::from_utf8_lossy(&head);
        let mut words = head.split_ascii_whitespace();
        let (method, target) = (words.next().unwrap_or(""), words.next().unwrap_or("/"));
        let path = target.split('?').next().unwrap_or("/");
        if !matches!(method, "GET" | "HEAD") {
            let refusal = Answer::new(405, "Method Not Allowed", "Allow: GET, HEAD", Vec::new());
            return stream.write_all(refusal.head.as_bytes()); // the body, if any, is not read
        }
        match site.answers.get(path) {
            Some(answer) => respond(&mut stream, answer, method == "HEAD")?,
            None => {
                let field = "Content-Type: text/plain";
                let answer = Answer::new(404, "Not Found", field, b"no such page\n".to_vec());
                respond(&mut stream, &answer, method == "HEAD")?;
            }
        }
        let lower = head.to_ascii_lowercase();
        if lower.contains("\nconnection: close") || lower.contains(" http/1.0\r") {
            break;
        }
    }
    Ok(())
}

/// Reads until `buffer` holds a request head and tells how long it is; `None` when the client is
/// done, silent for too long, asks for `/reset`, or the origin stops.
fn read_head(
    stream: &mut TcpStream,
    buffer: &mut Vec<u8>,
    stop: &AtomicBool,
) -> io::Result<Option<usize>> {
    const END: &[u8] = b"\r\n\r\n";
    const RESET: &[u8] = b"GET /reset ";
    let since = Instant::now();
    let mut scanned = 0_usize;
    let mut chunk = [0; 4096];
    while since.elapsed() < IDLE && !stop.load(Ordering::Relaxed) {
        if let Some(at) = buffer[scanned..].windows(END.len()).position(|w| w == END) {
            return Ok(Some(scanned + at + END.len()));
        }
        scanned = buffer.len().saturating_sub(END.len() - 1);
        if buffer.len() > HEAD_BYTES_MAX {
            return Ok(None);
        }
        match stream.peek(&mut chunk) {
            // Closing a socket that still holds unread bytes resets the connection.
            Ok(n) if buffer.is_empty() && chunk[..n].starts_with(RESET) => return Ok(None),
            Ok(0) => return Ok(None),
            // The first bytes may have come in pieces: what may yet become that path stays unread.
            Ok(n) if buffer.is_empty() && RESET.starts_with(&chunk[..n]) => {
                thread::sleep(Duration::from_millis(1));
            }
            Ok(n) => {
                let n = stream.read(&mut chunk[..n])?;
                buffer.extend_from_slice(&chunk[..n]);
            }
            Err(e) if matches!(e.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut) => {}
            Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
            Err(e) => return Err(e),
        }
    }
    Ok(None)
}

fn respond(stream: &mut TcpStream, answer: &Answer, head_only: bool) -> io::Result<()> {
    thread::sleep(answer.delay);
    stream.write_all(answer.head.as_bytes())?;
    if head_only {
        return Ok(());
    }
    if !answer.chunked {
        return stream.write_all(&answer.body);
    }
    // Four pieces with a pause between them: a body that takes its time, as on a real network.
    for piece in answer.body.chunks(answer.body.len().div_ceil(4).max(1)) {
        write!(stream, "{:x}\r\n", piece.len())?;
        stream.write_all(piece)?;
        stream.write_all(b"\r\n")?;
        thread::sleep(answer.delay / 8);
    }
    stream.write_all(b"0\r\n\r\n")
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test may panic")]

    use super::*;

    /// Everything that the origin sends to one request on a connection of its own.
    fn ask(origin: &Origin, path: &str) -> io::Result<Vec<u8>> {
        let mut stream = TcpStream::connect(origin.addr())?;
        write!(stream, "GET {path} HTTP/1.1\r\nHost: demo\r\nConnection: close\r\n\r\n")?;
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer)?;
        Ok(answer)
    }

    fn text(bytes: &[u8]) -> String {
        String::from_utf8_lossy(bytes).into_owned()
    }

    #[test]
    fn every_kind_of_answer_is_there() {
        let origin = Origin::start().unwrap();
        assert!(origin.urls().len() >= 16);
        let news = text(&ask(&origin, "/news").unwrap());
        assert!(news.starts_with("HTTP/1.1 200 OK\r\n") && news.ends_with("</html>\n"), "{news}");
        let moved = text(&ask(&origin, "/moved").unwrap());
        assert!(moved.contains("301") && moved.contains("Location: /article\r\n"), "{moved}");
        assert!(text(&ask(&origin, "/missing").unwrap()).contains(" 404 Not Found\r\n"));
        assert!(text(&ask(&origin, "/article").unwrap()).contains("Content-Encoding: gzip\r\n"));
        assert!(text(&ask(&origin, "/forum").unwrap()).ends_with("\r\n0\r\n\r\n"));
        assert!(text(&ask(&origin, "/robots.txt").unwrap()).contains("Allow: /"));
        let reset = ask(&origin, "/reset").unwrap_err();
        assert_eq!(reset.kind(), io::ErrorKind::ConnectionReset);
    }

    #[test]
    fn pipelined_requests_are_answered_in_order_on_one_connection() {
        let origin = Origin::start().unwrap();
        let mut stream = TcpStream::connect(origin.addr()).unwrap();
        let first = "GET /robots.txt HTTP/1.1\r\nHost: demo\r\n\r\n";
        let last = "HEAD /report.pdf HTTP/1.1\r\nHost: demo\r\nConnection: close\r\n\r\n";
        stream.write_all(format!("{first}{last}").as_bytes()).unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        let (robots, report) = (answer.find("Allow").unwrap(), answer.find("pdf").unwrap());
        assert!(robots < report && answer.ends_with("\r\n\r\n"), "{answer}");
    }

    #[test]
    fn it_stops_with_an_idle_connection_open() {
        let origin = Origin::start().unwrap();
        let (addr, _idle) = (origin.addr(), TcpStream::connect(origin.addr()).unwrap());
        drop(origin);
        assert!(TcpStream::connect(addr).is_err(), "the port is free again");
    }

    #[test]
    fn latencies_are_spread_and_bounded() {
        let all: Vec<_> = pages::pages().iter().map(|p| latency(p.path)).collect();
        assert!(all.iter().all(|d| (3..=150).contains(&d.as_millis())), "{all:?}");
        assert!(all.iter().max() > all.iter().min());
    }
}
