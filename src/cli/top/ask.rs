//! Asking the server: `/healthz`, `/metrics` and `/latency`, over plain TCP or TLS.

use super::TopArgs;
use super::sample::{Sample, health, latency};
use crate::cli::client::{self, Duplex};
use crate::fetch::tls::{TlsRoots, client_config};
use crate::serve::access::keys::looks_like_key;
use rustls::pki_types::ServerName;
use rustls::{ClientConfig, ClientConnection, StreamOwned};
use std::io;
use std::net::{TcpStream, ToSocketAddrs};
use std::sync::Arc;
use std::time::{Duration, Instant};
use url::Url;

/// How long the server may take to connect, and to say the next thing.
const PATIENCE: Duration = Duration::from_secs(5);

/// A server that is watched.
pub(super) struct Server {
    url: Url,
    host: String,
    port: u16,
    key: Option<String>,
    tls: Option<Arc<ClientConfig>>,
    window_s: u32,
}

impl Server {
    /// Checks what was given; asks nothing yet.
    pub(super) fn new(args: &TopArgs) -> Result<Self, String> {
        let wrong = |what: &dyn std::fmt::Display| format!("{}: {what}", args.url);
        let text = if args.url.contains("://") {
            args.url.clone()
        } else {
            format!("http://{}", args.url)
        };
        let url = Url::parse(&text).map_err(|error| wrong(&error))?;
        if !matches!(url.scheme(), "http" | "https") {
            return Err(wrong(&"expected http:// or https://"));
        }
        let host = url.host_str().ok_or_else(|| wrong(&"expected a host"))?;
        let host = host.trim_matches(['[', ']']).to_owned();
        let port = url.port_or_known_default().ok_or_else(|| wrong(&"expected a port"))?;
        let key = args.key_file.as_deref().map(|path| {
            let told = |what: &dyn std::fmt::Display| format!("{}: {what}", path.display());
            let text = std::fs::read_to_string(path).map_err(|error| told(&error))?;
            let key = text.trim().to_owned();
            if looks_like_key(&key) { Ok(key) } else { Err(told(&"this is no API key")) }
        });
        let ca: Vec<_> = args.ca.iter().cloned().collect();
        let tls = (url.scheme() == "https").then(|| {
            client_config(TlsRoots::Webpki, &ca, false).map_err(|error| error.to_string())
        });
        Ok(Self {
            host,
            port,
            key: key.transpose()?,
            tls: tls.transpose()?,
            window_s: args.window_s,
            url,
        })
    }

    /// What the server is called on the screen.
    pub(super) fn name(&self) -> &str {
        self.url.as_str().trim_end_matches('/')
    }

    /// Asks for everything.
    pub(super) fn sample(&self) -> Result<Sample, String> {
        // A server that drains answers 503, and is shown.
        let health = health(self.get("/healthz", &[200, 503])?)?;
        let metrics = self.get("/metrics", &[200])?;
        let metrics = String::from_utf8(metrics).map_err(|_| "/metrics is no text".to_owned())?;
        let path = format!("/latency?window={}s", self.window_s);
        let latency = latency(self.get(&path, &[200])?)?;
        Ok(Sample::new(Instant::now(), health, &metrics, latency))
    }

    fn get(&self, path: &str, expected: &[u16]) -> Result<Vec<u8>, String> {
        let told = |error: io::Error| match error.kind() {
            io::ErrorKind::ConnectionRefused => {
                format!("{}: nobody listens there; is the server running?", self.name())
            }
            _ => format!("{}: {error}", self.name()),
        };
        let socket = self.connect().map_err(told)?;
        let key = self.key.as_deref().map(|key| format!("Authorization: Bearer {key}\r\n"));
        let authority = &self.url[url::Position::BeforeHost..url::Position::AfterPort];
        let request = format!(
            "GET {path} HTTP/1.1\r\nHost: {authority}\r\nConnection: close\r\n{}\r\n",
            key.unwrap_or_default()
        );
        let answer = client::exchange(socket, request.as_bytes()).map_err(told)?;
        let hint = match answer.status {
            status if expected.contains(&status) => return answer.rest().map_err(told),
            401 => ": it wants an API key (--key-file)",
            403 => ": the key lacks the scope metrics",
            _ => "",
        };
        Err(format!("{}{path} was answered with {}{hint}", self.name(), answer.status))
    }

    fn connect(&self) -> io::Result<Box<dyn Duplex>> {
        let mut last = io::Error::other("the name has no address");
        for addr in (self.host.as_str(), self.port).to_socket_addrs()? {
            match TcpStream::connect_timeout(&addr, PATIENCE) {
                Ok(tcp) => return self.secure(tcp),
                Err(error) => last = error,
            }
        }
        Err(last)
    }

    fn secure(&self, tcp: TcpStream) -> io::Result<Box<dyn Duplex>> {
        tcp.set_nodelay(true)?;
        tcp.set_read_timeout(Some(PATIENCE))?;
        tcp.set_write_timeout(Some(PATIENCE))?;
        let Some(config) = &self.tls else { return Ok(Box::new(tcp)) };
        let name = ServerName::try_from(self.host.clone()).map_err(io::Error::other)?;
        let session = ClientConnection::new(Arc::clone(config), name).map_err(io::Error::other)?;
        Ok(Box::new(StreamOwned::new(session, tcp)))
    }
}
