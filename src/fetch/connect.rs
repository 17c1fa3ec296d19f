//! Connections: resolve, ask the guard, connect to what it approved, TLS, or take one from the
//! pool.

use crate::error::{PageCode, PageError, Stage};
use crate::fetch::courtesy::AtAddress;
use crate::fetch::egress::{CheckedAddr, Refusal};
use crate::fetch::h2::Link;
use crate::fetch::proxy::{Destination, Handshake, Proxy};
use crate::fetch::request::ForwardedBy;
use crate::fetch::target::{Origin, Scheme, Target};
use crate::fetch::tls::{TlsError, TlsStream};
use crate::fetch::track::Track;
use crate::fetch::{Fetcher, Kind, count};
use crate::observe::metrics::Egress as Reason;
use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};
use uring::net::{PeerState, TcpStream};
use uring::time::{sleep_until, timeout, timeout_at};

/// Bytes per read of a plain connection.
const READ_BYTES: usize = 16 * 1024;

/// What carries HTTP.
pub(crate) enum Transport {
    Plain(TcpStream),
    Tls(TlsStream),
}

/// A connection to an address that the guard has approved.
pub(crate) struct Connection {
    transport: Transport,
    addr: CheckedAddr,
    /// It has carried an exchange before.
    pub(crate) reused: bool,
    /// The proxy at its other end, where that forwards requests.
    pub(crate) forwarded_by: Option<ForwardedBy>,
}

/// A fresh connection, by the version of HTTP that it carries.
pub(crate) enum Opened {
    Http1(Connection),
    Http2(Link),
}

impl Connection {
    /// What it is connected to; through a proxy, what that connects to.
    pub(crate) const fn addr(&self) -> CheckedAddr {
        self.addr
    }

    /// Sends all of `bytes`.
    pub(crate) async fn write_all(&mut self, bytes: &[u8]) -> Result<(), TlsError> {
        match &mut self.transport {
            Transport::Plain(tcp) => {
                tcp.write_all(bytes::Bytes::copy_from_slice(bytes)).await?;
                Ok(())
            }
            Transport::Tls(tls) => tls.write_all(bytes).await,
        }
    }

    /// Appends what arrives to `inbox`; 0 at the end. A read that is dropped may have taken bytes
    /// off the socket, so whoever drops it drops the connection.
    pub(crate) async fn read(&mut self, inbox: &mut Vec<u8>) -> Result<usize, TlsError> {
        match &mut self.transport {
            Transport::Plain(tcp) => {
                let (outcome, buf) = tcp.read(uring::arena::alloc(READ_BYTES)).await;
                let received = outcome?;
                inbox.extend_from_slice(&buf);
                Ok(received)
            }
            Transport::Tls(tls) => tls.read(inbox).await,
        }
    }

    /// Whether an idle connection can take a request: open, and nothing has come unasked. TLS may
    /// have sent tickets, so there only the end counts.
    fn usable(&self) -> bool {
        match &self.transport {
            Transport::Plain(tcp) => tcp.peer_state() == PeerState::Quiet,
            Transport::Tls(tls) => !tls.tcp().is_closed(),
        }
    }
}

impl Fetcher {
    /// The approved addresses of a target, in the order in which to try them.
    pub(crate) async fn approved(
        &self,
        target: &Target,
        kind: Kind,
        track: &Track<'_>,
    ) -> Result<Vec<CheckedAddr>, PageError> {
        track.enter(Stage::Dns);
        let (host, port) = (target.host(), target.origin().port);
        let egress = &self.shared.egress;
        let service = kind == Kind::Call && self.shared.service.as_ref() == Some(target.origin());
        if !service {
            egress.check_name(host, port).map_err(|refusal| self.refuse(refusal))?;
        }
        let check = |ip| match service {
            true => egress.check_service(host, SocketAddr::new(ip, port)),
            false => egress.check(host, SocketAddr::new(ip, port)),
        };
        let blind = self.shared.proxy.as_ref().is_some_and(Proxy::resolves);
        let addresses: Rc<[IpAddr]> = match target.ip() {
            Some(ip) => Rc::from([ip]),
            // RFC 6761 §6.3: these need no look-up to be known.
            None if blind && is_localhost(host) => Rc::from([Ipv4Addr::LOCALHOST.into()]),
            // Never dialled: what such a connection is pooled by.
            None if blind => {
                let nowhere = SocketAddr::new(Ipv4Addr::UNSPECIFIED.into(), port);
                return Ok(vec![CheckedAddr::of_proxy(nowhere)]);
            }
            None => {
                let resolving = self.resolver.resolve(host, track.owner);
                let resolved = timeout(self.shared.config.dns_timeout, resolving);
                let failed = |reason: &str| {
                    let message = format!("{host}: {reason}");
                    PageError::new(PageCode::DnsFailed, Stage::Dns, message)
                };
                match resolved.await {
                    Ok(outcome) => outcome.map_err(|reason| failed(&reason))?,
                    Err(_) => return Err(failed("the name was not resolved in time")),
                }
            }
        };
        let mut refused = None;
        let mut approved = Vec::with_capacity(addresses.len());
        for &ip in addresses.iter() {
            match check(ip) {
                Ok(addr) => approved.push(addr),
                Err(refusal) => refused = refused.or(Some(refusal)),
            }
        }
        match refused {
            Some(refusal) if approved.is_empty() => Err(self.refuse(refusal)),
            _ => Ok(approved),
        }
    }

    fn refuse(&self, refusal: Refusal) -> PageError {
        count(&self.stats.refused, 1);
        count(&self.stats.refused_by[reason(&refusal) as usize], 1);
        refusal.into()
    }

    /// A pooled connection that is still good, if there is one.
    pub(crate) fn checkout(&self, origin: &Origin, approved: &[CheckedAddr]) -> Option<Connection> {
        loop {
            let conn = self.pool.borrow_mut().take(origin, approved, Instant::now())?;
            if conn.usable() {
                count(&self.stats.reused, 1);
                return Some(conn);
            }
            count(&self.stats.found_closed, 1);
        }
    }

    /// Opens a connection to the first address that takes one.
    pub(crate) async fn open(
        &self,
        target: &Target,
        approved: &[CheckedAddr],
        at: Option<&AtAddress>,
        track: &Track<'_>,
    ) -> Result<Opened, PageError> {
        track.enter(Stage::Connect);
        let forwarded_by = self.shared.proxy.as_ref().and_then(|proxy| proxy.forwards(target));
        let (tcp, addr) = match &self.shared.proxy {
            Some(proxy) => self.connect_by(proxy, target, approved, (at, track)).await?,
            None => self.connect(approved, (at, track)).await?,
        };
        count(&self.stats.opened, 1);
        let transport = match target.origin().scheme {
            Scheme::Http => Transport::Plain(tcp),
            Scheme::Https => {
                track.enter(Stage::Tls);
                let tls = self.secure(tcp, target).await?;
                if tls.chose_http2() {
                    let link = self.links.open(target.origin(), addr, tls).await?;
                    return Ok(Opened::Http2(link));
                }
                Transport::Tls(tls)
            }
        };
        Ok(Opened::Http1(Connection { transport, addr, reused: false, forwarded_by }))
    }

    async fn secure(&self, tcp: TcpStream, target: &Target) -> Result<TlsStream, PageError> {
        let config = Arc::clone(&self.shared.tls);
        let handshake = TlsStream::connect(tcp, config, target.host());
        match timeout(self.shared.config.tls_timeout, Box::pin(handshake)).await {
            Ok(Ok(tls)) => Ok(tls),
            Ok(Err(error)) => Err(PageError::new(PageCode::TlsFailed, Stage::Tls, error.reason())),
            Err(_) => {
                let message = "the TLS handshake took too long";
                Err(PageError::new(PageCode::ConnectTimeout, Stage::Tls, message))
            }
        }
    }

    /// A tunnel through the proxy to the first approved address that it reaches, or a connection to
    /// the proxy itself where that forwards requests. All of it in the time for one connect.
    async fn connect_by(
        &self,
        proxy: &Proxy,
        target: &Target,
        approved: &[CheckedAddr],
        (at, track): (Option<&AtAddress>, &Track<'_>),
    ) -> Result<(TcpStream, CheckedAddr), PageError> {
        let mut end = Instant::now() + self.shared.config.connect_timeout;
        let failed =
            |reason: String| PageError::new(PageCode::ConnectFailed, Stage::Connect, reason);
        let late = |_| {
            let message = "the proxy did not make the connection in time";
            PageError::new(PageCode::ConnectTimeout, Stage::Connect, message)
        };
        let own = match proxy.host().parse() {
            Ok(ip) => Rc::from([ip]),
            Err(_) => timeout_at(end, self.resolver.resolve(proxy.host(), 0))
                .await
                .map_err(late)?
                .map_err(|reason| failed(format!("the proxy's name: {reason}")))?,
        };
        let own: Vec<_> = own
            .iter()
            .map(|ip| CheckedAddr::of_proxy(SocketAddr::new(*ip, proxy.port())))
            .collect();
        let mut error = failed("the name has no addresses".to_owned());
        let (host, port) = (target.host(), target.origin().port);
        let tunnels: Vec<_> = match (proxy.resolves(), target.ip()) {
            (true, None) => vec![Destination::Name(host.to_owned(), port)],
            _ => approved.iter().map(|addr| Destination::Addr(addr.addr())).collect(),
        };
        for (tried, to) in tunnels.into_iter().enumerate() {
            let reached = approved.get(tried).copied();
            if let Some(addr) = reached {
                end += self.wait_at(at, addr, track).await?;
            }
            let left = end.saturating_duration_since(Instant::now());
            let (tcp, addr) =
                timeout(left, self.connect(&own, (None, track))).await.map_err(late)??;
            if proxy.forwards(target).is_some() {
                return Ok((tcp, reached.unwrap_or(addr)));
            }
            match timeout_at(end, tunnel(&tcp, proxy.handshake(to))).await.map_err(late)? {
                Ok(()) => return Ok((tcp, reached.unwrap_or(addr))),
                Err(reason) => error = failed(reason),
            }
        }
        Err(error)
    }

    /// Waits for the turn at an address, and says how long: that is no time of connecting.
    async fn wait_at(
        &self,
        at: Option<&AtAddress>,
        addr: CheckedAddr,
        track: &Track<'_>,
    ) -> Result<Duration, PageError> {
        let begun = Instant::now();
        self.turn_at(at, addr, track).await?;
        track.enter(Stage::Connect);
        Ok(begun.elapsed())
    }

    /// Tries the addresses in order, each with its share of the time that is left.
    async fn connect(
        &self,
        approved: &[CheckedAddr],
        (at, track): (Option<&AtAddress>, &Track<'_>),
    ) -> Result<(TcpStream, CheckedAddr), PageError> {
        let mut end = Instant::now() + self.shared.config.connect_timeout;
        let mut error =
            PageError::new(PageCode::DnsFailed, Stage::Dns, "the name has no addresses");
        for (tried, &addr) in approved.iter().enumerate() {
            end += self.wait_at(at, addr, track).await?;
            let left = end.saturating_duration_since(Instant::now());
            let addresses_left = u32::try_from(approved.len() - tried).unwrap_or(u32::MAX);
            match timeout(left / addresses_left, TcpStream::connect(addr.addr())).await {
                Ok(Ok(tcp)) => {
                    // Without it a small request could wait for an acknowledgement.
                    let _ = tcp.set_nodelay(true);
                    return Ok((tcp, addr));
                }
                Ok(Err(cause)) => {
                    let message = format!("no connection: {}", describe(&cause));
                    error = PageError::new(PageCode::ConnectFailed, Stage::Connect, message);
                }
                Err(_) => {
                    let message = "the origin did not accept the connection in time";
                    error = PageError::new(PageCode::ConnectTimeout, Stage::Connect, message);
                }
            }
        }
        Err(error)
    }

    /// Puts a connection whose exchange is over, with nothing unread, into the pool.
    pub(crate) fn recycle(&self, origin: &Origin, mut conn: Connection) {
        conn.reused = true;
        self.pool.borrow_mut().put(origin, conn.addr, conn, Instant::now());
        if self.sweeping.replace(true) {
            return;
        }
        // Closes what stays idle; ends with the pool, or when it is empty.
        let (pool, sweeping) = (Rc::downgrade(&self.pool), Rc::clone(&self.sweeping));
        let pace = self.shared.config.pool.idle / 4;
        drop(uring::spawn(async move {
            loop {
                let Some(pool) = pool.upgrade() else { return };
                let next = pool.borrow_mut().handle_timeout(Instant::now());
                drop(pool);
                let Some(next) = next else { break };
                sleep_until(next.max(Instant::now() + pace.max(Duration::from_millis(10)))).await;
            }
            sweeping.set(false);
        }));
    }
}

/// Makes a handshake with a proxy, after which the connection is the origin's.
async fn tunnel(tcp: &TcpStream, mut handshake: Handshake) -> Result<(), String> {
    let failed = |error: io::Error| format!("the proxy: {}", describe(&error));
    let mut inbox = Vec::new();
    loop {
        if let Some(out) = handshake.poll_transmit() {
            tcp.write_all(bytes::Bytes::from(out)).await.map_err(failed)?;
        }
        let (outcome, buf) = tcp.read(uring::arena::alloc(READ_BYTES)).await;
        if outcome.map_err(failed)? == 0 {
            return Err("the proxy closed the connection".to_owned());
        }
        inbox.extend_from_slice(&buf);
        if handshake.handle_bytes(&mut inbox)? {
            break;
        }
    }
    // Who speaks first is us, so these can't be the origin's.
    if inbox.is_empty() { Ok(()) } else { Err("the proxy sent more than its answer".to_owned()) }
}

fn is_localhost(name: &str) -> bool {
    name == "localhost" || name.ends_with(".localhost")
}

/// What a connection's error means, without numbers and addresses.
pub(crate) fn describe(error: &io::Error) -> String {
    match error.kind() {
        io::ErrorKind::ConnectionRefused => {
            "the origin refuses connections on that port".to_owned()
        }
        io::ErrorKind::ConnectionReset => "the origin reset the connection".to_owned(),
        io::ErrorKind::UnexpectedEof => "the origin cut the connection".to_owned(),
        kind => kind.to_string(),
    }
}

/// What a refusal is counted as.
const fn reason(refusal: &Refusal) -> Reason {
    match refusal {
        Refusal::Special { .. } => Reason::Special,
        Refusal::Embedded { .. } => Reason::Embedded,
        Refusal::Denied { .. } => Reason::Denied,
        Refusal::Port { .. } => Reason::Port,
    }
}
