//! Proxies: fetching through one that the operator names, by HTTP `CONNECT` (RFC 9110 §9.3.6),
//! absolute-form (RFC 9112 §3.2.2) or SOCKS5 (RFC 1928, RFC 1929). The handshakes are without IO.
//!
//! What the egress guard can promise depends on who resolves names:
//! - [`ProxyDns::Local`]: this server does. The guard checks each address as ever, and the proxy is
//!   told that very address, by `CONNECT` for http as well: it has nothing left to resolve.
//! - [`ProxyDns::Remote`]: the proxy does. The guard sees names, ports, and addresses that stand in
//!   URLs, and nothing of what a name leads to; the proxy has to guard its own network.
//!
//! The proxy itself is the operator's word: its address is dialled without asking the guard.

use crate::fetch::request::ForwardedBy;
use crate::fetch::target::{Scheme, Target};
use crate::proto::base64::base64;
use crate::proto::h1::ResponseDecoder;
use std::net::{IpAddr, SocketAddr};
use url::Url;

/// Who turns the names of URLs into addresses.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum ProxyDns {
    /// This server, so that the guard sees every address.
    #[default]
    Local,
    /// The proxy.
    Remote,
}

/// Why the setting cannot work.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("egress.proxy: {0}")]
pub struct ProxyError(&'static str);

/// Where fetches go instead of to their hosts.
#[derive(Clone, PartialEq, Eq)]
pub struct Proxy {
    kind: Kind,
    host: String,
    port: u16,
    credentials: Option<(String, String)>,
    dns: ProxyDns,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Http,
    Socks5,
}

/// What a tunnel leads to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Destination {
    Addr(SocketAddr),
    Name(String, u16),
}

impl Proxy {
    /// Reads `http://[user:password@]host[:port]` (port 8080 unless it says another) or
    /// `socks5://[user:password@]host[:port]` (1080).
    ///
    /// # Errors
    /// What is wrong with the text.
    pub fn parse(text: &str, dns: ProxyDns) -> Result<Self, ProxyError> {
        let url = Url::parse(text).map_err(|_| ProxyError("not a URL"))?;
        let (kind, default_port) = match url.scheme() {
            "http" => (Kind::Http, 8080),
            "socks5" => (Kind::Socks5, 1080),
            _ => return Err(ProxyError("expected http://host:port or socks5://host:port")),
        };
        if !matches!(url.path(), "" | "/") || url.query().is_some() || url.fragment().is_some() {
            return Err(ProxyError("nothing may follow the port"));
        }
        let host = url.host_str().filter(|host| !host.is_empty()).ok_or(ProxyError("no host"))?;
        let host = host.trim_matches(['[', ']']).to_ascii_lowercase();
        // The parser hides a port that is the scheme's own.
        let written = text.trim_end_matches('/').rsplit(['@', '/']).next().unwrap_or_default();
        let port = match url.port() {
            Some(port) => port,
            None if kind == Kind::Http && written.ends_with(":80") => 80,
            None => default_port,
        };
        let user = decode(url.username())?;
        let password = decode(url.password().unwrap_or_default())?;
        let credentials = match (user.is_empty(), password.is_empty()) {
            (true, true) => None,
            _ if user.len() > 255 || password.len() > 255 => {
                return Err(ProxyError("user and password have at most 255 bytes"));
            }
            _ => Some((user, password)),
        };
        Ok(Self { kind, host, port, credentials, dns })
    }

    /// The proxy's own host, a name or the text of an address.
    pub(crate) fn host(&self) -> &str {
        &self.host
    }

    /// The proxy's own port.
    pub(crate) const fn port(&self) -> u16 {
        self.port
    }

    /// Whether the proxy resolves names.
    pub(crate) fn resolves(&self) -> bool {
        self.dns == ProxyDns::Remote
    }

    /// How the proxy forwards requests to the target itself; `None` where it makes a tunnel.
    pub(crate) fn forwards(&self, target: &Target) -> Option<ForwardedBy> {
        let forwards =
            self.kind == Kind::Http && self.resolves() && target.origin().scheme == Scheme::Http;
        forwards.then(|| ForwardedBy { authorization: self.authorization() })
    }

    /// Starts a handshake for a tunnel.
    pub(crate) fn handshake(&self, to: Destination) -> Handshake {
        match self.kind {
            Kind::Http => {
                Handshake::new(connect_request(&to, self.authorization()), State::Connect)
            }
            Kind::Socks5 => {
                let methods: &[u8] =
                    if self.credentials.is_some() { &[5, 2, 0, 2] } else { &[5, 1, 0] };
                let state = State::Method { to, credentials: self.credentials.clone() };
                Handshake::new(methods.to_vec(), state)
            }
        }
    }

    /// RFC 7617
    fn authorization(&self) -> Option<String> {
        let (user, password) = self.credentials.as_ref()?;
        Some(format!("Basic {}", base64(format!("{user}:{password}").as_bytes())))
    }
}

impl std::fmt::Debug for Proxy {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { kind, host, port, credentials, dns } = self;
        let credentials = credentials.as_ref().map(|_| "…");
        write!(f, "Proxy({kind:?} {host}:{port} {credentials:?} {dns:?})")
    }
}

/// A handshake with a proxy. Order of calls: send what [`poll_transmit`](Self::poll_transmit) gives,
/// read, [`handle_bytes`](Self::handle_bytes); and again, until that says `true`.
pub(crate) struct Handshake {
    out: Option<Vec<u8>>,
    state: State,
}

enum State {
    /// The answer to `CONNECT`.
    Connect,
    /// RFC 1928 §3: which method the proxy chose.
    Method { to: Destination, credentials: Option<(String, String)> },
    /// RFC 1929 §2: whether it knows us.
    Login { to: Destination },
    /// RFC 1928 §6: whether the tunnel is there.
    Reply,
}

impl Handshake {
    fn new(out: Vec<u8>, state: State) -> Self {
        Self { out: Some(out), state }
    }

    /// What is to be sent now.
    pub(crate) fn poll_transmit(&mut self) -> Option<Vec<u8>> {
        self.out.take()
    }

    /// What has come so far and was not taken; takes what it uses. `true`: the tunnel is there.
    pub(crate) fn handle_bytes(&mut self, inbox: &mut Vec<u8>) -> Result<bool, String> {
        let used = match &self.state {
            State::Connect => {
                let Some(used) = read_connect(inbox)? else { return Ok(false) };
                inbox.drain(..used);
                return Ok(true);
            }
            State::Method { to, credentials } => {
                let &[version, method, ..] = inbox.as_slice() else { return Ok(false) };
                let to = to.clone();
                match (version, method, credentials) {
                    (5, 0, _) => {
                        self.out = Some(socks_request(&to)?);
                        self.state = State::Reply;
                    }
                    (5, 2, Some((user, password))) => {
                        self.out = Some(socks_login(user, password));
                        self.state = State::Login { to };
                    }
                    (5, 0xff, _) => return Err("the proxy accepts no login of ours".to_owned()),
                    _ => return Err("the proxy does not speak SOCKS5".to_owned()),
                }
                2
            }
            State::Login { to } => {
                let &[version, status, ..] = inbox.as_slice() else { return Ok(false) };
                if (version, status) != (1, 0) {
                    return Err("the proxy refuses user and password".to_owned());
                }
                self.out = Some(socks_request(to)?);
                self.state = State::Reply;
                2
            }
            State::Reply => {
                let Some(used) = read_reply(inbox)? else { return Ok(false) };
                inbox.drain(..used);
                return Ok(true);
            }
        };
        inbox.drain(..used);
        Ok(false)
    }
}

fn connect_request(to: &Destination, authorization: Option<String>) -> Vec<u8> {
    let to = match to {
        Destination::Addr(addr) => addr.to_string(),
        Destination::Name(name, port) => format!("{name}:{port}"),
    };
    let mut request = format!("CONNECT {to} HTTP/1.1\r\nHost: {to}\r\n");
    if let Some(authorization) = authorization {
        request.push_str(&format!("Proxy-Authorization: {authorization}\r\n"));
    }
    request.push_str("\r\n");
    request.into_bytes()
}

/// Bytes of the answer's head, if it is there and says yes.
fn read_connect(inbox: &mut [u8]) -> Result<Option<usize>, String> {
    // As to HEAD: what follows a 2xx is the tunnel (RFC 9110 §9.3.6), anything else is not read.
    let mut decoder = ResponseDecoder::new(true);
    let head = decoder.handle_bytes(inbox).map_err(|error| format!("the proxy: {error}"))?;
    let Some(len) = head else { return Ok(None) };
    let status = decoder.response(inbox).map_or(0, |response| response.status());
    match status {
        200..300 => Ok(Some(len)),
        407 => Err("the proxy wants another user and password".to_owned()),
        _ => Err(format!("the proxy answers {status}")),
    }
}

fn socks_login(user: &str, password: &str) -> Vec<u8> {
    let mut out = vec![1];
    for part in [user, password] {
        out.push(u8::try_from(part.len()).expect("checked where it was parsed"));
        out.extend(part.bytes());
    }
    out
}

/// RFC 1928 §4
fn socks_request(to: &Destination) -> Result<Vec<u8>, String> {
    let mut out = vec![5, 1, 0];
    let port = match to {
        Destination::Addr(addr) => {
            match addr.ip() {
                IpAddr::V4(v4) => {
                    out.push(1);
                    out.extend(v4.octets());
                }
                IpAddr::V6(v6) => {
                    out.push(4);
                    out.extend(v6.octets());
                }
            }
            addr.port()
        }
        Destination::Name(name, port) => {
            let len = u8::try_from(name.len()).map_err(|_| "the name is too long".to_owned())?;
            out.extend([3, len]);
            out.extend(name.bytes());
            *port
        }
    };
    out.extend(port.to_be_bytes());
    Ok(out)
}

/// RFC 1928 §6: bytes of the reply, if it is there and says yes.
fn read_reply(inbox: &[u8]) -> Result<Option<usize>, String> {
    let &[version, reply, _, kind, first, ..] = inbox else { return Ok(None) };
    if version != 5 {
        return Err("the proxy does not speak SOCKS5".to_owned());
    }
    let why = match reply {
        0 => {
            let address = match kind {
                1 => 4,
                3 => 1 + usize::from(first),
                4 => 16,
                _ => return Err("the proxy's reply has an address of no known kind".to_owned()),
            };
            let len = 4 + address + 2;
            return Ok((inbox.len() >= len).then_some(len));
        }
        2 => "its rules forbid it",
        3 => "the network is unreachable",
        4 => "the host is unreachable",
        5 => "the connection was refused",
        6 => "it took too long",
        _ => "it failed",
    };
    Err(format!("the proxy could not connect: {why}"))
}

/// Percent-decoding of user and password (RFC 3986 §2.1).
fn decode(text: &str) -> Result<String, ProxyError> {
    let bad = ProxyError("user or password is not UTF-8");
    let (mut out, mut rest) = (Vec::new(), text.as_bytes());
    while let [first, tail @ ..] = rest {
        let escape = tail.get(..2).filter(|_| *first == b'%');
        let byte = escape.and_then(|hex| std::str::from_utf8(hex).ok());
        match byte.and_then(|hex| u8::from_str_radix(hex, 16).ok()) {
            Some(byte) => {
                out.push(byte);
                rest = &tail[2..];
            }
            None => {
                out.push(*first);
                rest = tail;
            }
        }
    }
    String::from_utf8(out).map_err(|_| bad)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test may panic")]

    use super::*;
    use proptest::prelude::*;

    fn parse(text: &str) -> Result<Proxy, ProxyError> {
        Proxy::parse(text, ProxyDns::Local)
    }

    #[test]
    fn settings_are_read_or_refused() {
        for (text, host, port, credentials) in [
            ("http://p.test:3128", "p.test", 3128, None),
            ("http://P.test/", "p.test", 8080, None),
            ("http://p.test:80", "p.test", 80, None),
            ("socks5://127.0.0.1", "127.0.0.1", 1080, None),
            ("socks5://[::1]:9", "::1", 9, None),
            ("http://a:b%40c@p.test", "p.test", 8080, Some(("a", "b@c"))),
            ("socks5://a@p.test", "p.test", 1080, Some(("a", ""))),
        ] {
            let proxy = parse(text).unwrap();
            assert_eq!((proxy.host(), proxy.port()), (host, port), "{text}");
            let own = credentials.map(|(u, p)| (u.to_owned(), p.to_owned()));
            assert_eq!(proxy.credentials, own, "{text}");
        }
        let long = format!("http://{}@p.test", "u".repeat(256));
        for text in
            ["", "p.test:80", "https://p.test", "socks4://p", "http://p/x", "http://p?x", &long]
        {
            assert!(parse(text).is_err(), "{text}");
        }
        let shown = format!("{:?}", parse("http://user:secret@p.test").unwrap());
        assert!(!shown.contains("secret") && !shown.contains("user"), "{shown}");
    }

    #[test]
    fn base64_is_rfc_4648s() {
        for (plain, coded) in [
            ("", ""),
            ("f", "Zg=="),
            ("fo", "Zm8="),
            ("foo", "Zm9v"),
            ("foob", "Zm9vYg=="),
            ("fooba", "Zm9vYmE="),
            ("foobar", "Zm9vYmFy"),
        ] {
            assert_eq!(base64(plain.as_bytes()), coded);
        }
    }

    /// Gives the answers byte by byte; what was sent, and the outcome with what is left unread.
    fn drive(mut handshake: Handshake, answers: &[u8]) -> (Vec<u8>, Result<bool, String>, usize) {
        let (mut sent, mut inbox) = (Vec::new(), Vec::new());
        sent.extend(handshake.poll_transmit().unwrap_or_default());
        for byte in answers {
            inbox.push(*byte);
            match handshake.handle_bytes(&mut inbox) {
                Ok(false) => sent.extend(handshake.poll_transmit().unwrap_or_default()),
                done => return (sent, done, inbox.len()),
            }
        }
        (sent, Ok(false), inbox.len())
    }

    #[test]
    fn http_tunnels() {
        let proxy = parse("http://a:b@p.test").unwrap();
        let to = Destination::Addr("[2001:db8::1]:443".parse().unwrap());
        let (sent, done, left) = drive(
            proxy.handshake(to.clone()),
            b"HTTP/1.1 200 Connection established\r\nA: b\r\n\r\n",
        );
        assert_eq!((done, left), (Ok(true), 0));
        let expected = "CONNECT [2001:db8::1]:443 HTTP/1.1\r\nHost: [2001:db8::1]:443\r\n\
            Proxy-Authorization: Basic YTpi\r\n\r\n";
        assert_eq!(String::from_utf8(sent).unwrap(), expected);
        for answer in ["HTTP/1.1 407 X\r\n\r\n", "HTTP/1.1 502 X\r\n\r\n", "SSH-2.0-x\r\n"] {
            assert!(drive(proxy.handshake(to.clone()), answer.as_bytes()).1.is_err(), "{answer}");
        }
        let endless = "HTTP/1.1 200 OK\r\n".to_owned() + &"A: b\r\n".repeat(200);
        assert!(drive(proxy.handshake(to), endless.as_bytes()).1.is_err());
    }

    #[test]
    fn socks_tunnels() {
        let to = Destination::Addr("192.0.2.7:80".parse().unwrap());
        let plain = parse("socks5://p.test").unwrap();
        let (sent, done, left) =
            drive(plain.handshake(to.clone()), b"\x05\x00\x05\x00\x00\x01\0\0\0\0\0\0");
        assert_eq!((done, left), (Ok(true), 0));
        assert_eq!(sent, b"\x05\x01\x00\x05\x01\x00\x01\xc0\x00\x02\x07\x00\x50");

        let named = Destination::Name("a.test".to_owned(), 443);
        let login = parse("socks5://u:pw@p.test").unwrap();
        let answers = b"\x05\x02\x01\x00\x05\x00\x00\x03\x02ab\0\0";
        let (sent, done, _) = drive(login.handshake(named), answers);
        assert_eq!(done, Ok(true));
        let expected = b"\x05\x02\x00\x02\x01\x01u\x02pw\x05\x01\x00\x03\x06a.test\x01\xbb";
        assert_eq!(sent, expected);

        for refusal in [
            &b"\x05\xff"[..],
            b"\x04\x00",
            b"\x05\x02", // a login that was not offered
            b"\x05\x00\x05\x05\x00\x01\0\0\0\0\0\0",
            b"\x05\x00\x05\x00\x00\x09\0\0\0\0\0\0",
        ] {
            assert!(drive(plain.handshake(to.clone()), refusal).1.is_err(), "{refusal:?}");
        }
        assert!(drive(login.handshake(to), b"\x05\x02\x01\x01").1.is_err(), "wrong password");
    }

    proptest! {
        #[test]
        fn any_answer_is_taken_without_a_panic(answer in proptest::collection::vec(any::<u8>(), 0..60)) {
            for proxy in ["http://p", "socks5://u:p@p"] {
                let to = Destination::Name("a.test".to_owned(), 1);
                let _ = drive(parse(proxy).unwrap().handshake(to), &answer);
            }
        }
    }
}
