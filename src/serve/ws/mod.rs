//! `GET /crawl/ws`: many streams on one WebSocket (API §4), subprotocol `crawl.v1`.
//!
//! Every text message from the client is one op, a JSON object:
//!
//! | op | fields | what it does |
//! | --- | --- | --- |
//! | `crawl` | `id`, `data`, `credit`? | begins a stream; `data` is the body of `POST /crawl/stream` |
//! | `deepsearch` | `id`, `data`, `credit`? | begins a stream; `data` is the body of `POST /deepsearch/stream` |
//! | `cancel` | `id` | ends a stream; its `summary` follows, whatever its credit |
//! | `add` | `id`, `urls` | more URLs for a running stream; answered by `added` |
//! | `ack` | `id`, `seq` | the events up to `seq` need not be kept for a resume |
//! | `credit` | `id`, `n` | from now on results cost credit; adds `n` of it |
//! | `resume` | `stream_id`, `after`?, `id`?, `credit`? | attaches to a stream behind `after`; without `id` it is named by its `stream_id` |
//! | `ping` | `id`? | answered by `pong` |
//! | `status` | `id`? | answered by `status` |
//!
//! The server's messages are the events of API §3 with the stream's `id` in front. Four more are
//! answers to ops, without `seq`: `error` (the op was not obeyed; the stream of that `id`, if there
//! is one, goes on), `added` with `index`, `count` and `total`, `pong` with `timestamp`, and
//! `status` with the socket's `streams`.
//!
//! `crawl`, `deepsearch`, `add`, `resume` and `status` are held to the rates of the client's key and
//! address as requests are; the others only make room, or are cheap. A socket whose key is revoked is
//! closed with 1008.
//!
//! A socket that ends leaves its streams to their resume windows.

mod attached;
#[cfg(test)]
mod encoders_tests;
pub mod fuzzing;
mod obey;
mod op;
mod outbox;
mod reply;
mod socket;

pub use socket::run;

use super::access::peer::Peer;
use super::access::table::Counted;
use super::ask::Ask;
use super::conn::{Conn, Gone};
use super::reply::Reply;
use super::socket::Socket;
use crate::config::{Config, Deflate};
use crate::crawl::node::Node;
use crate::error::{ApiCode, ApiError};
use crate::observe::metrics::Counter;
use crate::observe::request_id::RequestId;
use crate::proto::h1::Request;
use crate::proto::ws::extension::Policy;
use crate::proto::ws::handshake::{self, Accepted, CRAWL_SUBPROTOCOL, Offer, Rejection};
use crate::proto::ws::{self, DeflateConfig, Session};
use crate::stream::place::Place;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};
use uring::arena::Buf;

/// A connection that has become a WebSocket; the 101 is sent.
pub struct Upgraded {
    node: Rc<Node>,
    socket: Socket,
    /// Who has opened the socket.
    peer: Peer,
    /// The places that the connection has.
    held: (Option<Counted>, Option<Place>),
    session: Session,
    /// Frames that came glued to the handshake.
    glued: Option<Buf>,
    /// Whose streams it begins and may see.
    principal: Arc<str>,
}

/// Judges a request for a WebSocket.
#[must_use]
pub fn judge(request: &Request<'_>, config: &Config) -> Box<Result<Accepted, Rejection>> {
    if request.has_body() {
        return Box::new(Err(Rejection::Body));
    }
    let deflate = match config.ws_deflate {
        Deflate::Off => None,
        // Memory of a compressor or two for each idle connection would be most of what it costs.
        Deflate::Message => Some(Policy {
            server_context_takeover: false,
            client_context_takeover: false,
            ..Policy::default()
        }),
        Deflate::Takeover => Some(Policy::default()),
    };
    let offer = Offer { subprotocols: &[CRAWL_SUBPROTOCOL], deflate };
    let fields = request.fields().iter();
    let fields = fields.filter_map(|(name, value)| Some((std::str::from_utf8(name).ok()?, value)));
    let is_http_11 = request.version() == crate::proto::h1::Version::Http11;
    Box::new(handshake::accept(request.method().as_str(), is_http_11, fields, &offer))
}

/// Answers the opening handshake. [`Gone`] also where all went well: HTTP ends here, and
/// [`Conn::run`] hands out what goes on.
pub(super) async fn upgrade(conn: &mut Conn, ask: Box<Ask>) -> Result<(), Gone> {
    let trace = conn.visit.trace.map(Box::new);
    let accepted = match ask.upgrade.map(|judged| *judged) {
        Some(Ok(accepted)) => accepted,
        // HEAD is answered as a GET that asks for no upgrade (RFC 9110 §9.3.2).
        None | Some(Err(Rejection::Method)) => return refuse(conn, Rejection::NotUpgrade).await,
        Some(Err(rejection)) => return refuse(conn, rejection).await,
    };
    if conn.node.draining() {
        let error = ApiError::new(ApiCode::Draining, "the server is shutting down");
        return conn.refuse(&error.retry_after(Duration::from_secs(1))).await;
    }
    let id = conn.request_id.clone();
    let mut fields: Vec<(&str, &[u8])> =
        accepted.fields().map(|(name, value)| (name, value.as_bytes())).collect();
    if let Some(id) = &id {
        fields.push(("X-Request-ID", id.as_str().as_bytes()));
    }
    let glued = conn.start_upgrade("websocket", &fields)?;
    conn.flush(Instant::now()).await?;
    conn.node.observe.count(Counter::WsOpened);
    let (key, target) = conn.visit.hand_over();
    let mut peer = Peer::new(Arc::clone(&conn.access), conn.visit.address, key, target);
    (peer.request_id, peer.trace) = (id, trace);
    let session =
        Session::new(Instant::now(), session_config(&conn.node.shared.config), accepted.deflate);
    conn.upgraded = Some(Box::new(Upgraded {
        node: Rc::clone(&conn.node),
        socket: conn.socket.clone(),
        peer,
        held: (conn.counted.take(), conn.place.take()),
        session,
        glued,
        principal: conn.principal(),
    }));
    Err(Gone)
}

async fn refuse(conn: &mut Conn, rejection: Rejection) -> Result<(), Gone> {
    let error = ApiError::new(rejection.code(), rejection.to_string());
    conn.node.observe.count(Counter::ApiErrors(error.code));
    let id = conn.request_id.clone();
    let reply = Reply::error(&error, id.as_ref().map(RequestId::as_str));
    // `Connection` is the framing's to write.
    let fields = rejection.fields().iter().filter(|(name, _)| *name != "Connection");
    conn.reply(fields.fold(reply, |reply, (name, value)| reply.field(name, *value))).await
}

fn session_config(config: &Config) -> ws::Config {
    ws::Config {
        message_bytes_max: config.ws_message_bytes_max,
        fragments_max: config.ws_fragments_max,
        message_timeout: Duration::from_millis(config.body_timeout_ms),
        ping_interval: Duration::from_millis(config.ws_ping_interval_ms),
        close_timeout: Duration::from_millis(config.ws_close_timeout_ms),
        deflate: DeflateConfig {
            level: u8::try_from(config.ws_deflate_level).unwrap_or(1),
            bytes_min: config.ws_deflate_bytes_min,
            bytes_max: config.ws_deflate_bytes_max,
        },
        ..ws::Config::default()
    }
}
