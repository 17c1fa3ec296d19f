//! One message to the collector: OTLP/HTTP with binary Protocol Buffers, on the control thread.
//!
//! A connection for each message, some seconds apart: nothing to keep, nothing that could have died
//! meanwhile. The answer's head is read by the codec that reads every origin's.

use crate::fetch::pacing;
use crate::limits::{RESPONSE_HEAD_BYTES_MAX, RETRY_AFTER_MAX};
use crate::proto::h1::{ResponseDecoder, ResponseError};
use rustls::ClientConfig;
use rustls::pki_types::ServerName;
use std::io;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use url::{Host, Url};

/// Bytes that are read of an answer at a time.
const READ_BYTES: usize = 4096;

/// Where messages go, and with what.
pub(super) struct Collector {
    host: String,
    port: u16,
    tls: Option<(TlsConnector, ServerName<'static>)>,
    /// The endpoint's path, without a slash at its end.
    base: String,
    /// What every head has behind its first line.
    fields: String,
    timeout: Duration,
}

/// Why a message was not taken.
#[derive(Debug, thiserror::Error)]
pub(super) enum PostError {
    /// No answer in time.
    #[error("no answer within {0:?}")]
    Late(Duration),
    /// The connection, or TLS on it.
    #[error("{0}")]
    Io(#[from] io::Error),
    /// Something that is no HTTP.
    #[error("{0}")]
    Answer(#[from] ResponseError),
    /// A status that is no success, and when to come back where the answer says it.
    #[error("status {0}")]
    Status(u16, Option<Duration>),
}

impl PostError {
    /// Whether the same message may be taken later (OTLP/HTTP, "Failures" and "Retryable Response
    /// Codes").
    pub(super) const fn retryable(&self) -> bool {
        use ResponseError::{ClosedInHead, ClosedSilently};
        matches!(
            self,
            Self::Late(_)
                | Self::Io(_)
                | Self::Status(429 | 502 | 503 | 504, _)
                | Self::Answer(ClosedSilently | ClosedInHead)
        )
    }

    /// How long the collector wants to be left alone (OTLP/HTTP, "OTLP/HTTP Throttling").
    pub(super) fn retry_after(&self) -> Option<Duration> {
        match self {
            Self::Status(429 | 503, after) => after.map(|after| after.min(RETRY_AFTER_MAX)),
            _ => None,
        }
    }
}

/// Where `otlp.endpoint` leads to.
struct Endpoint {
    url: Url,
    host: String,
    /// The name that the collector's certificate is for, where it speaks TLS.
    name: Option<ServerName<'static>>,
}

impl Endpoint {
    fn parse(endpoint: &str) -> Result<Self, String> {
        let expected = "expected http://host:port or https://host:port, with a path if need be";
        let wrong = |why: &str| format!("otlp.endpoint: {why}: {expected}");
        let url = Url::parse(endpoint).map_err(|error| wrong(&error.to_string()))?;
        let bare = url.username().is_empty() && url.password().is_none();
        if !bare || url.query().is_some() || url.fragment().is_some() {
            return Err(wrong("no user, query or fragment belongs there"));
        }
        let host = match url.host() {
            Some(Host::Domain(name)) => name.to_owned(),
            Some(Host::Ipv4(address)) => address.to_string(),
            Some(Host::Ipv6(address)) => address.to_string(),
            None => return Err(wrong("it names no host")),
        };
        let name = match url.scheme() {
            "http" => None,
            "https" => {
                Some(ServerName::try_from(host.clone()).map_err(|_| wrong("no name for TLS"))?)
            }
            _ => return Err(wrong("it is neither http nor https")),
        };
        Ok(Self { url, host, name })
    }
}

/// Whether `otlp.endpoint` leads anywhere.
///
/// # Errors
/// A sentence that names the setting.
pub(super) fn check_endpoint(endpoint: &str) -> Result<(), String> {
    Endpoint::parse(endpoint).map(drop)
}

impl Collector {
    /// By `otlp.endpoint` and `otlp.headers`; `tls` is made where it is needed.
    ///
    /// # Errors
    /// A sentence that names the setting; it shows none of the headers.
    pub(super) fn new(
        endpoint: &str,
        headers: &str,
        timeout: Duration,
        tls: impl FnOnce() -> Result<Arc<ClientConfig>, String>,
    ) -> Result<Self, String> {
        let Endpoint { url, host, name } = Endpoint::parse(endpoint)?;
        let tls = match name {
            None => None,
            Some(name) => Some((TlsConnector::from(tls()?), name)),
        };
        let authority = &url[url::Position::BeforeHost..url::Position::AfterPort];
        let agent = concat!("Forebay/", env!("CARGO_PKG_VERSION"));
        let own = format!("Host: {authority}\r\nUser-Agent: {agent}\r\nConnection: close\r\n");
        Ok(Self {
            port: url.port_or_known_default().expect("both schemes have a port"),
            base: url.path().trim_end_matches('/').to_owned(),
            fields: own + &fields(headers)?,
            host,
            tls,
            timeout,
        })
    }

    /// Sends a message.
    ///
    /// # Errors
    /// Why it was not taken.
    pub(super) async fn post(&self, path: &str, message: &[u8]) -> Result<(), PostError> {
        let late = |_| PostError::Late(self.timeout);
        tokio::time::timeout(self.timeout, self.exchange(path, message)).await.map_err(late)?
    }

    async fn exchange(&self, path: &str, message: &[u8]) -> Result<(), PostError> {
        let tcp = TcpStream::connect((&*self.host, self.port)).await?;
        tcp.set_nodelay(true)?;
        let (status, after) = match &self.tls {
            None => self.ask(tcp, path, message).await?,
            Some((connector, name)) => {
                let stream = connector.connect(name.clone(), tcp).await?;
                self.ask(stream, path, message).await?
            }
        };
        if (200..300).contains(&status) { Ok(()) } else { Err(PostError::Status(status, after)) }
    }

    /// Writes the request and reads the status of its answer, and its `Retry-After`.
    async fn ask(
        &self,
        mut stream: impl AsyncRead + AsyncWrite + Unpin,
        path: &str,
        message: &[u8],
    ) -> Result<(u16, Option<Duration>), PostError> {
        let (base, fields, length) = (&self.base, &self.fields, message.len());
        let head = format!(
            "POST {base}{path} HTTP/1.1\r\n{fields}Content-Type: application/x-protobuf\r\nContent-Length: {length}\r\n\r\n"
        );
        stream.write_all(head.as_bytes()).await?;
        stream.write_all(message).await?;
        stream.flush().await?;
        let mut decoder = ResponseDecoder::new(false);
        let mut held = Vec::with_capacity(READ_BYTES);
        while held.len() <= RESPONSE_HEAD_BYTES_MAX {
            if stream.read_buf(&mut held).await? == 0 {
                return Err(decoder.handle_eof(held.len()).into());
            }
            if decoder.handle_bytes(&mut held)?.is_some() {
                let response = decoder.response(&held).expect("the head is complete");
                let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
                let after = response.field("retry-after").and_then(|value| {
                    pacing::retry_after(std::str::from_utf8(value).ok()?, now.as_secs())
                });
                return Ok((response.status(), after));
            }
        }
        Err(ResponseError::HeadTooLarge.into())
    }
}

/// `name=value` pairs, separated by commas, as the lines of a head.
pub(super) fn fields(headers: &str) -> Result<String, String> {
    let wrong = || "otlp.headers: expected name=value, separated by commas".to_owned();
    let mut lines = String::new();
    for pair in headers.split(',').map(str::trim).filter(|pair| !pair.is_empty()) {
        let (name, value) = pair.split_once('=').ok_or_else(wrong)?;
        let (name, value) = (name.trim(), value.trim());
        let token = !name.is_empty()
            && name.bytes().all(|byte| {
                byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte) // RFC 9110 §5.6.2
            });
        let ours = ["host", "connection", "content-length", "content-type", "transfer-encoding"];
        let visible = value.bytes().all(|byte| byte == b'\t' || (b' '..=b'~').contains(&byte));
        if !token || !visible || ours.iter().any(|own| name.eq_ignore_ascii_case(own)) {
            return Err(wrong());
        }
        lines.extend([name, ": ", value, "\r\n"]);
    }
    Ok(lines)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn collector(endpoint: &str, headers: &str) -> Result<Collector, String> {
        Collector::new(endpoint, headers, Duration::from_secs(1), || Err("no TLS".to_owned()))
    }

    #[test]
    fn an_endpoint_says_where_to_and_headers_what_with() {
        let one = collector("http://[::1]:4318/base/", "authorization=Bearer a=b, X-Scope = 7");
        let one = one.expect("both are right");
        assert_eq!((&*one.host, one.port, &*one.base), ("::1", 4318, "/base"));
        assert!(one.fields.starts_with("Host: [::1]:4318\r\n"), "{}", one.fields);
        assert!(one.fields.ends_with("authorization: Bearer a=b\r\nX-Scope: 7\r\n"));
        let plain = collector("http://collector", "").expect("a host is enough");
        assert_eq!((plain.port, &*plain.base), (80, ""));
    }

    #[test]
    fn what_is_wrong_is_said_without_its_secrets() {
        for (endpoint, headers) in [
            ("collector:4318", ""),
            ("http://", ""),
            ("grpc://a:4317", ""),
            ("http://ann:S3CRET@a", ""),
            ("http://a/?key=S3CRET", ""),
            ("https://a", ""),
            ("http://a", "S3CRET"),
            ("http://a", "a=S3CRET\r\nb: c"),
            ("http://a", "content-length=7"),
            ("http://a", "a b=S3CRET"),
        ] {
            let told = collector(endpoint, headers).err().expect(endpoint);
            assert!(!told.contains("S3CRET"), "{told}");
        }
    }

    #[test]
    fn what_may_pass_is_tried_again() {
        for (error, retryable) in [
            (PostError::Late(Duration::ZERO), true),
            (PostError::Io(io::ErrorKind::ConnectionRefused.into()), true),
            (PostError::Status(503, None), true),
            (PostError::Status(400, None), false),
            (PostError::Answer(ResponseError::NotHttp), false),
        ] {
            assert_eq!(error.retryable(), retryable, "{error}");
        }
        let asked =
            |status, s| PostError::Status(status, Some(Duration::from_secs(s))).retry_after();
        assert_eq!(asked(429, 7), Some(Duration::from_secs(7)));
        assert_eq!(asked(503, u64::MAX), Some(RETRY_AFTER_MAX));
        assert_eq!(asked(502, 7), None, "only those two may ask for it");
    }
}
