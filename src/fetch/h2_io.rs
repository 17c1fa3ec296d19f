//! A TLS connection as hyper wants one: polled, where ours is made of operations that own their
//! buffers until the kernel is done with them. One read and one write may be in flight.

use crate::fetch::h2::LinkState;
use crate::fetch::tls::{READ_BYTES, TlsStream};
use hyper::rt::{Read, ReadBufCursor, Write};
use rustls::ClientConnection;
use std::future::Future;
use std::io::{self, Read as _, Write as _};
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, ready};
use uring::arena::Buf;
use uring::net::TcpStream;

type Reading = Pin<Box<dyn Future<Output = (io::Result<usize>, Buf)>>>;
type Writing = Pin<Box<dyn Future<Output = io::Result<()>>>>;

/// See the module.
pub(crate) struct TlsIo {
    tcp: TcpStream,
    session: Box<ClientConnection>,
    /// Plaintext that was received; `plain[taken..]` is not read yet.
    plain: Vec<u8>,
    taken: usize,
    /// The peer has said that nothing more comes.
    ended: bool,
    /// We have said so.
    closing: bool,
    reading: Option<Reading>,
    writing: Option<Writing>,
    state: Rc<LinkState>,
}

impl TlsIo {
    pub(crate) fn new(tls: TlsStream, state: Rc<LinkState>) -> Self {
        let (tcp, session, plain, ended) = tls.into_parts();
        Self {
            tcp,
            session,
            plain,
            taken: 0,
            ended,
            closing: false,
            reading: None,
            writing: None,
            state,
        }
    }

    /// Takes ciphertext through the session; all of it becomes plaintext at once, so what is kept is
    /// never more than one read brings.
    fn decrypt(&mut self, mut ciphertext: &[u8]) -> io::Result<()> {
        while !ciphertext.is_empty() && !self.ended {
            self.session.read_tls(&mut ciphertext)?;
            let state = self.session.process_new_packets().map_err(io::Error::other)?;
            let start = self.plain.len();
            self.plain.resize(start + state.plaintext_bytes_to_read(), 0);
            self.session.reader().read_exact(&mut self.plain[start..])?;
            self.ended |= state.peer_has_closed();
        }
        Ok(())
    }

    /// Sends what the session has to say, until it has nothing more.
    fn poll_send(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        loop {
            if let Some(writing) = &mut self.writing {
                let outcome = ready!(writing.as_mut().poll(cx));
                self.writing = None;
                if let Err(error) = outcome {
                    return Poll::Ready(self.fail(error));
                }
            }
            if !self.session.wants_write() {
                return Poll::Ready(Ok(()));
            }
            let mut out = Vec::new();
            self.session.write_tls(&mut out)?;
            let tcp = self.tcp.clone();
            self.writing =
                Some(Box::pin(async move { tcp.write_all(bytes::Bytes::from(out)).await }));
        }
    }

    fn fail<T>(&self, error: io::Error) -> io::Result<T> {
        self.state.fail(error.kind());
        Err(error)
    }
}

impl Read for TlsIo {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        mut buf: ReadBufCursor<'_>,
    ) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        loop {
            let unread = &this.plain[this.taken..];
            if !unread.is_empty() {
                let some = unread.len().min(buf.remaining());
                buf.put_slice(&unread[..some]);
                this.taken += some;
                return Poll::Ready(Ok(()));
            }
            this.plain.clear();
            this.taken = 0;
            if this.ended {
                return Poll::Ready(Ok(()));
            }
            // Answers to key updates; whether they have left already is the writer's affair.
            if let Poll::Ready(Err(error)) = this.poll_send(cx) {
                return Poll::Ready(Err(error));
            }
            let tcp = &this.tcp;
            let reading = this.reading.get_or_insert_with(|| {
                let tcp = tcp.clone();
                Box::pin(async move { tcp.read(uring::arena::alloc(READ_BYTES)).await })
            });
            let (outcome, ciphertext) = ready!(reading.as_mut().poll(cx));
            this.reading = None;
            let read = match outcome {
                // Without close_notify the end may be somebody else's (RFC 8446 §6.1).
                Ok(0) => Err(io::ErrorKind::UnexpectedEof.into()),
                Ok(_) => this.decrypt(&ciphertext),
                Err(error) => Err(error),
            };
            if let Err(error) = read {
                return Poll::Ready(this.fail(error));
            }
        }
    }
}

impl Write for TlsIo {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        ready!(this.poll_send(cx))?;
        let taken = this.session.writer().write(buf)?;
        if let Poll::Ready(Err(error)) = this.poll_send(cx) {
            return Poll::Ready(Err(error));
        }
        Poll::Ready(Ok(taken))
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.get_mut().poll_send(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        if !std::mem::replace(&mut this.closing, true) {
            this.session.send_close_notify();
        }
        ready!(this.poll_send(cx))?;
        Poll::Ready(this.tcp.shutdown_write())
    }
}
