//! TLS on the listener: rustls as a state machine over the plain socket.
//!
//! A stream is a future's to drop at any time while it waits to read ([`TlsStream::readable`]): the
//! read of ciphertext that may be under way then stays with the stream and is finished by who waits
//! next, so that no byte is lost between two records.

use rustls::ServerConfig;
use rustls::ServerConnection;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use std::cell::RefCell;
use std::future::{Future, poll_fn};
use std::io::{self, BufRead, Write};
use std::path::Path;
use std::pin::Pin;
use std::sync::Arc;
use uring::Gather;
use uring::arena::{self, Buf};
use uring::net::TcpStream;

/// Bytes of ciphertext per read: one record and a little (RFC 8446 §5.2).
const READ_BYTES: usize = 16 * 1024;
/// Bytes of plaintext that one send encrypts: two records. A client must take them within the stall
/// timeout.
const SEND_BYTES: usize = 32 * 1024;

/// The listener's settings: TLS 1.2 and 1.3, `http/1.1` by ALPN (RFC 7301), no client certificates.
///
/// # Errors
/// A sentence that names the file at fault.
pub fn server_config(cert: &Path, key: &Path) -> Result<Arc<ServerConfig>, String> {
    let told = |path: &Path, what: &dyn std::fmt::Display| format!("{}: {what}", path.display());
    let chain = CertificateDer::pem_file_iter(cert)
        .and_then(Iterator::collect::<Result<Vec<_>, _>>)
        .map_err(|error| told(cert, &error))?;
    if chain.is_empty() {
        return Err(told(cert, &"no certificate in it"));
    }
    let private = PrivateKeyDer::from_pem_file(key).map_err(|error| told(key, &error))?;
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let mut config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|error| error.to_string())?
        .with_no_client_auth()
        .with_single_cert(chain, private)
        .map_err(|error| told(cert, &format!("with {}: {error}", key.display())))?;
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(Arc::new(config))
}

/// A TLS connection of a client.
pub struct TlsStream {
    tcp: TcpStream,
    state: RefCell<State>,
    reading: RefCell<Option<Reading>>,
}

/// A read of ciphertext under way.
type Reading = Pin<Box<dyn Future<Output = (io::Result<usize>, Buf)>>>;

struct State {
    session: ServerConnection,
    /// Ciphertext that the session has not been given.
    ciphertext: Option<Buf>,
}

impl TlsStream {
    /// Makes the handshake. `early`: what was read from the socket already.
    ///
    /// # Errors
    /// What the socket or TLS says; an alert was sent where one belongs.
    pub async fn accept(
        tcp: TcpStream,
        config: Arc<ServerConfig>,
        early: Option<Buf>,
    ) -> io::Result<Self> {
        let session = ServerConnection::new(config).map_err(io::Error::other)?;
        let state = RefCell::new(State { session, ciphertext: early });
        let stream = Self { tcp, state, reading: RefCell::default() };
        while stream.state.borrow().session.is_handshaking() {
            if !stream.has_ciphertext() {
                stream.receive().await?;
            }
            let fed = stream.feed();
            // The alert too, that tells the client why.
            stream.flush().await?;
            if fed? == 0 && stream.state.borrow().session.is_handshaking() {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
        }
        Ok(stream)
    }

    pub(super) fn tcp(&self) -> &TcpStream {
        &self.tcp
    }

    /// Waits until there is plaintext, or the end. May be dropped at any time.
    ///
    /// # Errors
    /// What the socket says, or bytes that are no TLS.
    pub async fn readable(&self) -> io::Result<()> {
        loop {
            if self.state.borrow_mut().has_news() {
                return Ok(());
            }
            if !self.has_ciphertext() {
                self.receive().await?;
            }
            self.feed()?;
        }
    }

    /// Appends plaintext to `buf`: what is there, at least one byte; `Ok(0)` is the end. An end that
    /// TLS did not announce counts as one: HTTP's own framing tells a cut request (RFC 9112 §9.8).
    ///
    /// # Errors
    /// As [`TlsStream::readable`].
    pub async fn read(&self, mut buf: Buf) -> (io::Result<usize>, Buf) {
        assert!(buf.spare_capacity() > 0, "a read needs room");
        if let Err(error) = self.readable().await {
            return (Err(error), buf);
        }
        let mut state = self.state.borrow_mut();
        let mut reader = state.session.reader();
        let read = match reader.fill_buf() {
            Ok(plaintext) => {
                let taken = buf.append(plaintext);
                reader.consume(taken);
                Ok(taken)
            }
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => Ok(0),
            Err(error) => Err(error),
        };
        drop(state);
        (read, buf)
    }

    /// Encrypts from the front of `gather` and sends it whole.
    ///
    /// # Errors
    /// What the socket says.
    pub async fn send(&self, gather: &mut Gather) -> io::Result<usize> {
        let mut taken = 0;
        while taken < SEND_BYTES
            && let Some(front) = gather.front()
        {
            let piece = &front[..front.len().min(SEND_BYTES - taken)];
            let written = self.state.borrow_mut().session.writer().write(piece)?;
            if written == 0 {
                break;
            }
            gather.advance(written);
            taken += written;
        }
        self.flush().await?;
        Ok(taken)
    }

    /// Announces the end (RFC 8446 §6.1) and sends FIN.
    ///
    /// # Errors
    /// When the connection is gone already.
    pub async fn shutdown_write(&self) -> io::Result<()> {
        self.state.borrow_mut().session.send_close_notify();
        self.flush().await?;
        self.tcp.shutdown_write()
    }

    fn has_ciphertext(&self) -> bool {
        self.state.borrow().ciphertext.is_some()
    }

    /// One read of the socket; an empty buffer is its end.
    async fn receive(&self) -> io::Result<()> {
        if self.reading.borrow().is_none() {
            // Nothing is held while a client is quiet.
            self.tcp.readable().await?;
            let tcp = self.tcp.clone();
            let reading = Box::pin(async move { tcp.read(arena::alloc(READ_BYTES)).await });
            *self.reading.borrow_mut() = Some(reading);
        }
        let (read, buf) = poll_fn(|context| {
            let mut reading = self.reading.borrow_mut();
            let under_way = reading.as_mut().expect("it was put there, and is taken out below");
            under_way.as_mut().poll(context)
        })
        .await;
        *self.reading.borrow_mut() = None;
        read?;
        self.state.borrow_mut().ciphertext = Some(buf);
        Ok(())
    }

    /// Gives the session ciphertext, as much as it takes at a time; bytes taken, 0 for the end.
    fn feed(&self) -> io::Result<usize> {
        let mut state = self.state.borrow_mut();
        let State { session, ciphertext } = &mut *state;
        let mut held = ciphertext.take();
        let mut bytes: &[u8] = held.as_deref().unwrap_or_default();
        let taken = session.read_tls(&mut bytes)?;
        if let Some(buf) = &mut held {
            buf.advance(taken);
        }
        *ciphertext = held.filter(|buf| !buf.is_empty());
        let processed = session.process_new_packets();
        processed.map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))?;
        Ok(taken)
    }

    /// Sends what the session has to say.
    async fn flush(&self) -> io::Result<()> {
        loop {
            let out = self.state.borrow_mut().output()?;
            if out.is_empty() {
                return Ok(());
            }
            self.tcp.write_all(bytes::Bytes::from(out)).await?;
        }
    }
}

impl State {
    /// What is to be sent, encrypted.
    fn output(&mut self) -> io::Result<Vec<u8>> {
        let mut out = Vec::new();
        while self.session.wants_write() {
            self.session.write_tls(&mut out)?;
        }
        Ok(out)
    }

    /// Whether a read would say anything: plaintext, or the end in either way.
    fn has_news(&mut self) -> bool {
        match self.session.reader().fill_buf() {
            Ok(_) => true,
            Err(error) => error.kind() != io::ErrorKind::WouldBlock,
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test may panic")]
    use super::*;

    #[test]
    fn a_file_at_fault_is_named() {
        let dir = std::env::temp_dir().join(format!("forebay-tls-{}", std::process::id()));
        std::fs::create_dir_all(&dir).unwrap();
        let (cert, key) = (dir.join("cert.pem"), dir.join("key.pem"));
        let made = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
        let other = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
        std::fs::write(&cert, made.cert.pem()).unwrap();
        std::fs::write(&key, made.signing_key.serialize_pem()).unwrap();
        let config = server_config(&cert, &key).unwrap();
        assert_eq!(config.alpn_protocols, [b"http/1.1"]);
        std::fs::write(&key, other.signing_key.serialize_pem()).unwrap();
        assert!(server_config(&cert, &key).unwrap_err().contains("key.pem"), "of another one");
        std::fs::write(&key, "nothing").unwrap();
        assert!(server_config(&cert, &key).unwrap_err().contains("key.pem"));
        std::fs::write(&cert, "nothing").unwrap();
        assert!(server_config(&cert, &key).unwrap_err().contains("no certificate"));
        assert!(server_config(&dir.join("none"), &key).unwrap_err().contains("none"));
        std::fs::remove_dir_all(&dir).unwrap();
    }
}
