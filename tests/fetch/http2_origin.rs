//! An HTTP/2 origin, good and bad: a listener whose TLS chooses `h2`, and a script for each path.

use crate::answers::gzip;
use crate::trust::Trust;
use bytes::Bytes;
use h2::server::SendResponse;
use h2::{Reason, RecvStream};
use http::{Request, Response};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, LazyLock};
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

/// Made once: an origin that compresses is an origin that does nothing else.
static GZIPPED: LazyLock<[Vec<u8>; 2]> =
    LazyLock::new(|| [gzip(&HTTP2_PAGE.repeat(8000)), gzip(&vec![b' '; 32 << 20])]);

/// What `/page` is, and `/long` and `/gzip` 8,000 times over.
pub(crate) const HTTP2_PAGE: &[u8] = b"<!doctype html><title>A page</title><p>Over HTTP/2.";

/// What the origin has seen.
#[derive(Default)]
pub(crate) struct Seen {
    pub(crate) connections: AtomicUsize,
    /// Connections that have ended.
    pub(crate) ended: AtomicUsize,
    /// Streams that the client reset.
    pub(crate) resets: AtomicUsize,
}

/// An origin that speaks HTTP/2 where a client offers it; its paths say how it answers.
pub(crate) struct Http2Origin {
    port: u16,
    pub(crate) seen: Arc<Seen>,
}

impl Http2Origin {
    pub(crate) fn start(trust: &Trust) -> Self {
        let config = trust.good("127.0.0.1").server(&[b"h2", b"http/1.1"]);
        let seen = Arc::<Seen>::default();
        LazyLock::force(&GZIPPED);
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let counts = Arc::clone(&seen);
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        std::thread::spawn(move || {
            runtime.block_on(async move {
                listener.set_nonblocking(true).unwrap();
                let listener = tokio::net::TcpListener::from_std(listener).unwrap();
                let acceptor = tokio_rustls::TlsAcceptor::from(config);
                while let Ok((tcp, _)) = listener.accept().await {
                    counts.connections.fetch_add(1, Ordering::SeqCst);
                    tokio::spawn(serve(acceptor.clone(), tcp, Arc::clone(&counts)));
                }
            });
        });
        Self { port, seen }
    }

    pub(crate) fn url(&self, path: &str) -> String {
        format!("https://127.0.0.1:{}{path}", self.port)
    }
}

async fn serve(acceptor: tokio_rustls::TlsAcceptor, tcp: tokio::net::TcpStream, seen: Arc<Seen>) {
    if let Ok(mut tls) = acceptor.accept(tcp).await {
        if tls.get_ref().1.alpn_protocol() == Some(b"h2") {
            speak_http2(tls, &seen).await;
        } else {
            // What a client that offers no HTTP/2 is told. Its request is read first: to close with
            // bytes unread is to reset, which may overtake the answer.
            let mut head = Vec::new();
            while !head.ends_with(b"\r\n\r\n") && tls.read_buf(&mut head).await.unwrap_or(0) > 0 {}
            let _ = tls.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nold").await;
        }
    }
    seen.ended.fetch_add(1, Ordering::SeqCst);
}

async fn speak_http2(
    tls: tokio_rustls::server::TlsStream<tokio::net::TcpStream>,
    seen: &Arc<Seen>,
) {
    let mut builder = h2::server::Builder::new();
    builder.max_concurrent_streams(100).max_header_list_size(1 << 20);
    let Ok(mut connection) = builder.handshake(tls).await else { return };
    while let Some(Ok((request, respond))) = connection.accept().await {
        let path = request.uri().path().to_owned();
        tokio::spawn(answer(path.clone(), request, respond, Arc::clone(seen)));
        match path.as_str() {
            "/goaway" => connection.graceful_shutdown(),
            "/abrupt" => connection.abrupt_shutdown(Reason::ENHANCE_YOUR_CALM),
            "/gone" => return, // the socket closes with the connection
            _ => {}
        }
    }
}

async fn answer(
    path: String,
    request: Request<RecvStream>,
    mut respond: SendResponse<Bytes>,
    seen: Arc<Seen>,
) {
    let head = |fields: &[(&str, String)]| {
        let mut response = Response::builder();
        for (name, value) in fields {
            response = response.header(*name, value.as_str());
        }
        response.body(()).unwrap()
    };
    let html = ("content-type", "text/html".to_owned());
    let coded = ("content-encoding", "gzip".to_owned());
    let (head, body, end) = match path.as_str() {
        "/page" | "/goaway" => {
            assert_eq!(request.uri().scheme_str(), Some("https"));
            assert!(request.headers()["user-agent"].to_str().unwrap().starts_with("Forebay/"));
            (head(&[html]), HTTP2_PAGE.to_vec(), true)
        }
        "/long" => (head(&[html]), HTTP2_PAGE.repeat(8000), true),
        "/gzip" => (head(&[html, coded]), GZIPPED[0].clone(), true),
        "/bomb" => (head(&[html, coded]), GZIPPED[1].clone(), true),
        "/large" => (head(&[html]), vec![b'x'; 3 << 20], true),
        "/announced" => (head(&[html, ("content-length", "9999999999".to_owned())]), vec![], false),
        "/short" => (head(&[html, ("content-length", "100".to_owned())]), b"half".to_vec(), true),
        "/pdf" => (head(&[("content-type", "application/pdf".to_owned())]), vec![], false),
        "/fields" => {
            let many: Vec<_> = (0..300).map(|_| ("x-many", "y".to_owned())).collect();
            (head(&many), vec![], true)
        }
        "/huge-fields" => (head(&[("x-huge", "y".repeat(200_000))]), vec![], true),
        "/redirect" => {
            let response = Response::builder().status(302).header("location", "/page");
            (response.body(()).unwrap(), vec![], true)
        }
        "/refused" => return respond.send_reset(Reason::INTERNAL_ERROR),
        "/stalled" => (head(&[html]), b"half".to_vec(), false),
        "/cut" => {
            let mut body = respond.send_response(head(&[html]), false).unwrap();
            body.send_data(Bytes::from_static(b"half"), false).unwrap();
            tokio::time::sleep(Duration::from_millis(50)).await;
            return body.send_reset(Reason::INTERNAL_ERROR);
        }
        // "/mute", and what ends with its connection: nothing until the client gives up.
        _ => {
            let reset = std::future::poll_fn(|cx| respond.poll_reset(cx)).await;
            seen.resets.fetch_add(usize::from(reset.is_ok()), Ordering::SeqCst);
            return;
        }
    };
    let Ok(mut stream) = respond.send_response(head, body.is_empty() && end) else { return };
    if !body.is_empty() {
        let _ = stream.send_data(body.into(), end);
    }
    let reset = std::future::poll_fn(|cx| stream.poll_reset(cx)).await;
    seen.resets.fetch_add(usize::from(reset.is_ok()), Ordering::SeqCst);
}
