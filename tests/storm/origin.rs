//! The storm's origins: one thread, a listener for each way to begin, and a script for each path.

use crate::faults::script;
use crate::trust::Trust;
use std::sync::{Arc, LazyLock};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

/// Longest time that a connection is kept by an origin that says nothing.
const HANG: Duration = Duration::from_secs(60);

/// What an origin sends, and what it does then.
pub(crate) struct Script {
    pub(crate) bytes: Vec<u8>,
    pub(crate) then: Then,
}

#[derive(Clone)]
pub(crate) enum Then {
    /// Take the next request.
    Go,
    /// Close.
    Close,
    /// Reset, once the bytes have had the time to arrive.
    Reset,
    /// Say nothing more.
    Hang,
    /// Send this again and again, so far apart.
    Repeat(Vec<u8>, Duration),
}

/// How a listener begins.
enum Begin {
    Plain,
    Tls(Arc<rustls::ServerConfig>),
    /// These bytes once something has come, then the end.
    Raw(&'static [u8], Then),
}

/// Ports of all listeners.
pub(crate) struct Origins {
    pub(crate) plain: u16,
    pub(crate) tls: u16,
    pub(crate) expired: u16,
    pub(crate) wrong_host: u16,
    pub(crate) self_signed: u16,
    /// Knows nothing newer than TLS 1.1 (RFC 8446 §6.2: protocol_version).
    pub(crate) old_tls: u16,
    /// Speaks HTTP where TLS is wanted.
    pub(crate) no_tls: u16,
    pub(crate) mute_tls: u16,
    pub(crate) reset_tls: u16,
    pub(crate) closed_tls: u16,
    /// Nobody listens there.
    pub(crate) dead: u16,
}

impl Origins {
    pub(crate) fn start(trust: &Trust) -> Self {
        let http1: &[&[u8]] = &[b"http/1.1"];
        LazyLock::force(&crate::faults::BOMBS);
        let tls = |certificate: crate::trust::Certificate| Begin::Tls(certificate.server(http1));
        Self {
            plain: listen(Begin::Plain),
            tls: listen(tls(trust.good("127.0.0.1"))),
            expired: listen(tls(trust.expired("127.0.0.1"))),
            wrong_host: listen(tls(trust.good("other.test"))),
            self_signed: listen(tls(Trust::self_signed("127.0.0.1"))),
            old_tls: listen(Begin::Raw(b"\x15\x03\x01\x00\x02\x02\x46", Then::Close)),
            no_tls: listen(Begin::Raw(b"HTTP/1.1 400 Bad Request\r\n\r\n", Then::Close)),
            mute_tls: listen(Begin::Raw(b"", Then::Hang)),
            reset_tls: listen(Begin::Raw(b"", Then::Reset)),
            closed_tls: listen(Begin::Raw(b"", Then::Close)),
            dead: std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port(),
        }
    }
}

/// Starts a listener on a thread of its own; its port.
fn listen(begin: Begin) -> u16 {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    std::thread::spawn(move || {
        runtime.block_on(async move {
            listener.set_nonblocking(true).unwrap();
            let listener = TcpListener::from_std(listener).unwrap();
            let begin = Arc::new(begin);
            while let Ok((tcp, _)) = listener.accept().await {
                tokio::spawn(accepted(tcp, Arc::clone(&begin)));
            }
        });
    });
    port
}

async fn accepted(mut tcp: TcpStream, begin: Arc<Begin>) {
    match &*begin {
        Begin::Plain => {
            if serve(&mut tcp).await {
                let _ = tcp.set_zero_linger();
            }
        }
        Begin::Tls(config) => {
            let acceptor = tokio_rustls::TlsAcceptor::from(Arc::clone(config));
            let Ok(mut tls) = acceptor.accept(tcp).await else { return };
            if serve(&mut tls).await {
                let _ = tls.get_ref().0.set_zero_linger();
            }
        }
        Begin::Raw(bytes, then) => {
            let _ = tcp.read(&mut [0; 4096]).await;
            let _ = tcp.write_all(bytes).await;
            match then {
                Then::Hang => until_closed(&mut tcp).await,
                Then::Reset => drop(tcp.set_zero_linger()),
                // Not a reset: the rest of what the client said is read first.
                _ => {
                    let _ = tcp.shutdown().await;
                    until_closed(&mut tcp).await;
                }
            }
        }
    }
}

/// Answers requests by their paths; `true`: the connection is to be reset.
async fn serve<S: AsyncRead + AsyncWrite + Unpin>(stream: &mut S) -> bool {
    while let Some(path) = next_path(stream).await {
        let Script { bytes, then } = script(&path);
        if stream.write_all(&bytes).await.is_err() || stream.flush().await.is_err() {
            return false;
        }
        match then {
            Then::Go => {}
            Then::Close => {
                let _ = stream.shutdown().await;
                return false;
            }
            Then::Reset => {
                tokio::time::sleep(Duration::from_millis(30)).await;
                return true;
            }
            Then::Hang => {
                until_closed(stream).await;
                return false;
            }
            Then::Repeat(unit, pause) => {
                while stream.write_all(&unit).await.is_ok() && stream.flush().await.is_ok() {
                    tokio::time::sleep(pause).await;
                }
                return false;
            }
        }
    }
    false
}

async fn until_closed<S: AsyncRead + Unpin>(stream: &mut S) {
    let mut sink = [0; 4096];
    let read = async { while matches!(stream.read(&mut sink).await, Ok(1..)) {} };
    let _ = tokio::time::timeout(HANG, read).await;
}

/// The path of the next request.
async fn next_path<S: AsyncRead + Unpin>(stream: &mut S) -> Option<String> {
    let mut head = Vec::new();
    let mut some = [0; 2048];
    while !head.ends_with(b"\r\n\r\n") {
        match stream.read(&mut some).await {
            Ok(n @ 1..) => head.extend_from_slice(&some[..n]),
            _ => return None,
        }
    }
    let text = String::from_utf8(head).unwrap();
    Some(text.split(' ').nth(1).unwrap().to_owned())
}
