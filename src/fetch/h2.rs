//! HTTP/2 to origins that choose it by ALPN (RFC 9113), by hyper's client on this core's own loop:
//! no runtime of hyper's, one task per connection, one connection per origin with many exchanges.
//!
//! A connection that carries nothing is closed after the pool's idle time, whatever its peer does
//! meanwhile. The same limits hold as for HTTP/1.1; interim responses are skipped by the library and
//! bounded by the time for a head.

use crate::error::{PageCode, PageError, Stage};
use crate::fetch::body::{Sink, stalled};
use crate::fetch::egress::CheckedAddr;
use crate::fetch::exchange::{Broken, malformed};
use crate::fetch::h2_io::TlsIo;
use crate::fetch::pool::PoolLimits;
use crate::fetch::request::Sent;
use crate::fetch::target::{Origin, Target};
use crate::fetch::tls::TlsStream;
use crate::fetch::track::Track;
use crate::limits::{
    H2_CONNECTION_WINDOW_BYTES, H2_EMPTY_FRAMES_MAX, H2_HEAD_BYTES_MAX, H2_STREAM_WINDOW_BYTES,
    RESPONSE_FIELDS_MAX,
};
use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::body::Body;
use hyper::client::conn::http2::{Builder, SendRequest};
use hyper::{HeaderMap, Request};
use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::future::Future;
use std::io;
use std::rc::{Rc, Weak};
use std::time::{Duration, Instant};
use uring::time::timeout;

/// Tasks of the library run on the core that makes them.
#[derive(Clone)]
struct OnThisLoop;

impl<F: Future<Output = ()> + 'static> hyper::rt::Executor<F> for OnThisLoop {
    fn execute(&self, future: F) {
        drop(uring::spawn(future));
    }
}

/// One connection, as its exchanges see it.
#[derive(Clone)]
pub(crate) struct Link {
    sender: SendRequest<Full<Bytes>>,
    addr: CheckedAddr,
    state: Rc<LinkState>,
}

impl Link {
    /// What it is connected to.
    pub(crate) const fn addr(&self) -> CheckedAddr {
        self.addr
    }
}

/// What a connection's task, its socket and its exchanges tell each other.
pub(crate) struct LinkState {
    exchanges: Cell<usize>,
    last_used: Cell<Instant>,
    /// It has carried an exchange before.
    asked: Cell<bool>,
    /// Why the socket failed.
    failed: Cell<Option<io::ErrorKind>>,
}

impl LinkState {
    pub(crate) fn fail(&self, kind: io::ErrorKind) {
        self.failed.set(Some(kind));
    }

    fn is_idle_since(&self, idle: Duration) -> bool {
        self.exchanges.get() == 0 && self.last_used.get().elapsed() >= idle
    }
}

/// An exchange under way.
struct Exchange(Rc<LinkState>);

impl Exchange {
    fn new(state: &Rc<LinkState>) -> Self {
        state.exchanges.set(state.exchanges.get() + 1);
        Self(Rc::clone(state))
    }
}

impl Drop for Exchange {
    fn drop(&mut self) {
        self.0.exchanges.set(self.0.exchanges.get() - 1);
        self.0.last_used.set(Instant::now());
    }
}

/// The body of a response. Dropping it resets its stream (RFC 9113 §5.4.2).
pub(crate) struct Incoming {
    body: hyper::body::Incoming,
    exchange: Exchange,
}

/// The connections of one core.
pub(crate) struct Links {
    open: RefCell<HashMap<Origin, Link>>,
    limits: PoolLimits,
}

impl Links {
    pub(crate) fn new(limits: PoolLimits) -> Rc<Self> {
        Rc::new(Self { open: RefCell::default(), limits })
    }

    /// The connection to an origin, if there is one to an address that it stands for now.
    pub(crate) fn checkout(&self, origin: &Origin, approved: &[CheckedAddr]) -> Option<Link> {
        let mut open = self.open.borrow_mut();
        let link = open.get(origin)?;
        if link.sender.is_closed() || !approved.contains(&link.addr) {
            open.remove(origin);
            return None;
        }
        Some(link.clone())
    }

    /// Speaks HTTP/2 over a TLS connection whose handshake chose it, and keeps it for others.
    pub(crate) async fn open(
        self: &Rc<Self>,
        origin: &Origin,
        addr: CheckedAddr,
        tls: TlsStream,
    ) -> Result<Link, PageError> {
        let state = Rc::new(LinkState {
            exchanges: Cell::new(0),
            last_used: Cell::new(Instant::now()),
            asked: Cell::new(false),
            failed: Cell::new(None),
        });
        let io = TlsIo::new(tls, Rc::clone(&state));
        let (sender, connection) = Builder::new(OnThisLoop)
            .initial_stream_window_size(H2_STREAM_WINDOW_BYTES)
            .initial_connection_window_size(H2_CONNECTION_WINDOW_BYTES)
            .max_header_list_size(H2_HEAD_BYTES_MAX)
            .handshake(io)
            .await
            .map_err(|error| failure(&state, &error, Stage::Ttfb))?;
        let (links, site, its_state) = (Rc::downgrade(self), origin.clone(), Rc::clone(&state));
        let idle = self.limits.idle;
        drop(uring::spawn(async move {
            drive(connection, &its_state, idle).await;
            if let Some(links) = Weak::upgrade(&links) {
                links.forget(&site, &its_state);
            }
        }));
        let link = Link { sender, addr, state };
        self.keep(origin, &link);
        Ok(link)
    }

    /// Connections that carry nothing now.
    pub(crate) fn idle(&self) -> usize {
        self.open.borrow().values().filter(|link| link.state.exchanges.get() == 0).count()
    }

    /// Closes those that carry nothing; the others close when their exchanges are over.
    pub(crate) fn clear(&self) {
        self.open.borrow_mut().clear();
    }

    fn keep(&self, origin: &Origin, link: &Link) {
        let mut open = self.open.borrow_mut();
        if self.limits.total == 0 || self.limits.per_origin == 0 {
            return;
        }
        if open.get(origin).is_some_and(|other| !other.sender.is_closed()) {
            return; // two were opened at once: this one serves its exchange and closes
        }
        if open.len() >= self.limits.total {
            let idle = open.iter().filter(|(_, link)| link.state.exchanges.get() == 0);
            let oldest = idle.min_by_key(|(_, link)| link.state.last_used.get());
            let Some(oldest) = oldest.map(|(origin, _)| origin.clone()) else { return };
            open.remove(&oldest);
        }
        open.insert(origin.clone(), link.clone());
    }

    fn forget(&self, origin: &Origin, state: &Rc<LinkState>) {
        let mut open = self.open.borrow_mut();
        if open.get(origin).is_some_and(|link| Rc::ptr_eq(&link.state, state)) {
            open.remove(origin);
        }
    }
}

/// Runs a connection until it ends or has been idle for too long: a peer that does not read our
/// farewell can't keep it either.
async fn drive(
    connection: impl Future<Output = hyper::Result<()>>,
    state: &LinkState,
    idle: Duration,
) {
    let mut connection = std::pin::pin!(connection);
    let pace = (idle / 4).clamp(Duration::from_millis(10), Duration::from_secs(5));
    while timeout(pace, connection.as_mut()).await.is_err() {
        if state.is_idle_since(idle) {
            return;
        }
    }
}

impl Link {
    /// Sends a request and waits for the response's head.
    pub(crate) async fn ask(
        &self,
        request: Request<Full<Bytes>>,
        track: &Track<'_>,
    ) -> Result<(u16, HeaderMap, Incoming), Broken> {
        let exchange = Exchange::new(&self.state);
        let reused = self.state.asked.replace(true);
        let response = match self.sender.clone().send_request(request).await {
            Ok(response) => response,
            // A connection that was idle may have been ended by its peer, with or without a word.
            Err(error) => {
                let error = failure(&self.state, &error, Stage::Ttfb);
                return Err(Broken { silent: reused, error });
            }
        };
        let (head, body) = response.into_parts();
        let fields = head.headers.iter().map(|(name, value)| name.as_str().len() + value.len());
        track.received(fields.sum());
        if head.headers.len() > RESPONSE_FIELDS_MAX {
            let error = malformed(Stage::Ttfb, "the response has too many fields");
            return Err(Broken { silent: false, error });
        }
        Ok((head.status.as_u16(), head.headers, Incoming { body, exchange }))
    }
}

/// The request of a hop.
pub(crate) fn request(target: &Target, sent: &Sent<'_>) -> Result<Request<Full<Bytes>>, PageError> {
    let mut request = match sent.post {
        None => Request::get(target.as_str()),
        Some(_) => Request::post(target.as_str()),
    };
    for &(name, value) in &sent.fields {
        request = request.header(name, value);
    }
    request
        .body(sent.post.map_or_else(Full::default, |body| Full::new(Bytes::copy_from_slice(body))))
        .map_err(|_| malformed(Stage::Ttfb, "the request cannot be written for HTTP/2"))
}

/// Reads a body; `true`: to its end.
pub(crate) async fn read_body(
    mut incoming: Incoming,
    sink: &mut Sink<'_>,
    idle: Duration,
    track: &Track<'_>,
) -> Result<bool, PageError> {
    let announced = incoming.body.size_hint().exact().unwrap_or(0);
    let (mut received, mut empty_frames) = (0_u64, 0);
    if announced > sink.wire_max() {
        return Err(sink.too_large());
    }
    loop {
        let frame = match timeout(idle, incoming.body.frame()).await {
            Ok(Some(Ok(frame))) => frame,
            Ok(Some(Err(error))) => {
                let error = failure(&incoming.exchange.0, &error, Stage::Body);
                let message = format!("the body is not whole: {}", error.message);
                return Err(malformed(Stage::Body, &message));
            }
            Ok(None) => return Ok(true),
            Err(_) => return Err(stalled()),
        };
        let Ok(data) = frame.into_data() else { continue };
        empty_frames += usize::from(data.is_empty());
        if empty_frames > H2_EMPTY_FRAMES_MAX {
            return Err(malformed(Stage::Body, "the body is made of empty frames"));
        }
        track.received(data.len());
        received += data.len() as u64;
        if received > sink.wire_max() {
            return Err(sink.too_large());
        }
        if !sink.push(&data).await? {
            return Ok(false);
        }
    }
}

/// What a failed exchange means: the connection's end, or the peer's fault in the protocol.
fn failure(state: &LinkState, error: &hyper::Error, stage: Stage) -> PageError {
    if let Some(kind) = state.failed.get() {
        let message = crate::fetch::connect::describe(&kind.into());
        return PageError::new(PageCode::ConnectFailed, stage, message);
    }
    let cause = std::error::Error::source(error).map(ToString::to_string);
    let cause = cause.unwrap_or_else(|| error.to_string());
    malformed(stage, &format!("HTTP/2: {cause}"))
}
