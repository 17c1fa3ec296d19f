//! TLS client side: rustls as a state machine over a plain stream, with the host's own name.

use crate::fetch::FetchConfigError;
use rustls::client::WebPkiServerVerifier;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{
    AlertDescription, CertificateError, ClientConfig, ClientConnection, Error, PeerIncompatible,
    RootCertStore,
};
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use uring::net::TcpStream;

/// Bytes of ciphertext per read: one record and a little (RFC 8446 §5.2).
pub(crate) const READ_BYTES: usize = 16 * 1024;

/// Which certificate authorities are trusted.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum TlsRoots {
    /// Mozilla's list, built in.
    #[default]
    Webpki,
    /// The operating system's.
    Platform,
}

/// The client's TLS settings: TLS 1.2 and 1.3, `http/1.1` by ALPN (RFC 7301), and before it `h2`
/// where `http2` is wanted.
///
/// # Errors
/// A CA file that cannot be read, or no usable roots.
pub fn client_config(
    roots: TlsRoots,
    ca_files: &[PathBuf],
    http2: bool,
) -> Result<Arc<ClientConfig>, FetchConfigError> {
    let setup = |error: Error| FetchConfigError::Tls(error.to_string());
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let mut extra = Vec::new();
    for file in ca_files {
        extra.extend(read_pem(file)?);
    }
    let builder = ClientConfig::builder_with_provider(Arc::clone(&provider))
        .with_safe_default_protocol_versions()
        .map_err(setup)?;
    let mut config = match roots {
        TlsRoots::Webpki => {
            let mut store = RootCertStore { roots: webpki_roots::TLS_SERVER_ROOTS.to_vec() };
            for certificate in extra {
                store.add(certificate).map_err(setup)?;
            }
            let verifier = WebPkiServerVerifier::builder_with_provider(Arc::new(store), provider)
                .build()
                .map_err(|error| FetchConfigError::Tls(error.to_string()))?;
            builder.with_webpki_verifier(verifier).with_no_client_auth()
        }
        TlsRoots::Platform => {
            let verifier =
                rustls_platform_verifier::Verifier::new_with_extra_roots(extra, provider)
                    .map_err(setup)?;
            builder
                .dangerous() // the type's name for any verifier but webpki's; this one verifies
                .with_custom_certificate_verifier(Arc::new(verifier))
                .with_no_client_auth()
        }
    };
    if http2 {
        config.alpn_protocols.push(b"h2".to_vec());
    }
    config.alpn_protocols.push(b"http/1.1".to_vec());
    Ok(Arc::new(config))
}

fn read_pem(file: &Path) -> Result<Vec<CertificateDer<'static>>, FetchConfigError> {
    let error = |reason: String| FetchConfigError::CaFile { file: file.to_owned(), reason };
    let certificates = CertificateDer::pem_file_iter(file)
        .and_then(Iterator::collect::<Result<Vec<_>, _>>)
        .map_err(|e| error(e.to_string()))?;
    if certificates.is_empty() {
        return Err(error("no certificate in it".to_owned()));
    }
    Ok(certificates)
}

/// Why a TLS connection ended.
#[derive(Debug)]
pub(crate) enum TlsError {
    /// The stream below it.
    Io(io::Error),
    /// TLS itself.
    Tls(Error),
}

impl From<io::Error> for TlsError {
    fn from(error: io::Error) -> Self {
        Self::Io(error)
    }
}

impl From<Error> for TlsError {
    fn from(error: Error) -> Self {
        Self::Tls(error)
    }
}

impl TlsError {
    /// One sentence for a person.
    pub(crate) fn reason(&self) -> String {
        match self {
            Self::Io(error) if error.kind() == io::ErrorKind::UnexpectedEof => {
                "the origin closed the connection during the TLS handshake".to_owned()
            }
            Self::Io(error) => {
                format!("the connection failed during the TLS handshake: {}", error.kind())
            }
            Self::Tls(error) => tls_reason(error),
        }
    }
}

/// What went wrong in TLS, in the words that an operator looks for.
fn tls_reason(error: &Error) -> String {
    use CertificateError as Cert;
    let known = match error {
        Error::InvalidCertificate(certificate) => match certificate {
            Cert::Expired | Cert::ExpiredContext { .. } => "the certificate has expired",
            Cert::NotValidYet | Cert::NotValidYetContext { .. } => {
                "the certificate is not valid yet"
            }
            Cert::NotValidForName | Cert::NotValidForNameContext { .. } => {
                "the certificate is for another host"
            }
            Cert::UnknownIssuer => "the certificate's issuer is not trusted",
            Cert::Revoked => "the certificate has been revoked",
            Cert::BadSignature => "a certificate's signature is wrong",
            Cert::BadEncoding => "a certificate cannot be read",
            _ => return format!("the certificate is not accepted: {certificate}"),
        },
        Error::PeerIncompatible(PeerIncompatible::ServerDoesNotSupportTls12Or13)
        | Error::AlertReceived(AlertDescription::ProtocolVersion) => {
            "the origin speaks only versions before TLS 1.2"
        }
        Error::AlertReceived(AlertDescription::HandshakeFailure) => {
            "the origin found no common TLS parameters"
        }
        Error::AlertReceived(AlertDescription::UnrecognisedName) => {
            "the origin does not know the host's name"
        }
        Error::InvalidMessage(_) => "the origin does not speak TLS on this port",
        _ => return format!("TLS failed: {error}"),
    };
    known.to_owned()
}

/// A TLS connection.
pub(crate) struct TlsStream {
    tcp: TcpStream,
    session: Box<ClientConnection>,
    /// The peer's close_notify has come.
    closed: bool,
    /// Plaintext that came with the handshake's end.
    early: Vec<u8>,
}

impl TlsStream {
    /// Makes the handshake. `host`: a name, or the text of an address (RFC 9110 §4.3.5).
    pub(crate) async fn connect(
        tcp: TcpStream,
        config: Arc<ClientConfig>,
        host: &str,
    ) -> Result<Self, TlsError> {
        let name = ServerName::try_from(host.to_owned())
            .map_err(|_| Error::General("the host is no name for a certificate".to_owned()))?;
        let session = Box::new(ClientConnection::new(config, name)?);
        let mut stream = Self { tcp, session, closed: false, early: Vec::new() };
        let mut early = Vec::new();
        while stream.session.is_handshaking() {
            stream.flush().await?;
            if !stream.session.is_handshaking() {
                break;
            }
            match stream.receive(&mut early).await {
                Ok(0) => return Err(io::Error::from(io::ErrorKind::UnexpectedEof).into()),
                Ok(_) => {}
                Err(error) => {
                    // The alert that tells the origin why; whether it arrives is its own affair.
                    let _ = stream.flush().await;
                    return Err(error);
                }
            }
        }
        stream.flush().await?;
        // RFC 9113 §3.4: the server's settings may come with the end of the handshake.
        if !early.is_empty() && !stream.chose_http2() {
            return Err(Error::General("the origin spoke before it was asked".to_owned()).into());
        }
        stream.early = early;
        Ok(stream)
    }

    /// Whether the origin chose HTTP/2 (RFC 9113 §3.2).
    pub(crate) fn chose_http2(&self) -> bool {
        self.session.alpn_protocol() == Some(b"h2")
    }

    /// The socket, the session, plaintext that has come already, and whether it was the last.
    pub(crate) fn into_parts(self) -> (TcpStream, Box<ClientConnection>, Vec<u8>, bool) {
        (self.tcp, self.session, self.early, self.closed)
    }

    pub(crate) fn tcp(&self) -> &TcpStream {
        &self.tcp
    }

    /// Sends plaintext.
    pub(crate) async fn write_all(&mut self, bytes: &[u8]) -> Result<(), TlsError> {
        io::Write::write_all(&mut self.session.writer(), bytes)?;
        self.flush().await?;
        Ok(())
    }

    /// Appends plaintext to `inbox`: at least one byte, or 0 at the end that the peer announced.
    ///
    /// An end without close_notify is an error: what was read may be cut (RFC 9112 §9.8).
    pub(crate) async fn read(&mut self, inbox: &mut Vec<u8>) -> Result<usize, TlsError> {
        let before = inbox.len();
        while inbox.len() == before {
            if self.closed {
                return Ok(0);
            }
            if self.receive(inbox).await? == 0 {
                return Err(io::Error::from(io::ErrorKind::UnexpectedEof).into());
            }
            self.flush().await?; // answers to key updates
        }
        Ok(inbox.len() - before)
    }

    /// One read of ciphertext, taken through the session; bytes of ciphertext.
    async fn receive(&mut self, inbox: &mut Vec<u8>) -> Result<usize, TlsError> {
        let (outcome, buf) = self.tcp.read(uring::arena::alloc(READ_BYTES)).await;
        let received = outcome?;
        let mut ciphertext = &buf[..];
        while !ciphertext.is_empty() && !self.closed {
            self.session.read_tls(&mut ciphertext)?;
            let state = self.session.process_new_packets()?;
            let start = inbox.len();
            inbox.resize(start + state.plaintext_bytes_to_read(), 0);
            self.session.reader().read_exact(&mut inbox[start..])?;
            self.closed |= state.peer_has_closed();
        }
        Ok(received)
    }

    /// Sends what the session has to say.
    async fn flush(&mut self) -> io::Result<()> {
        while self.session.wants_write() {
            let mut out = Vec::new();
            self.session.write_tls(&mut out)?;
            self.tcp.write_all(bytes::Bytes::from(out)).await?;
        }
        Ok(())
    }
}
