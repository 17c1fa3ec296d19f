//! Between a request's head and its handler: admits or refuses it, and notes what came of it.

use super::access::visit::{End, Held, is_probe};
use super::ask::Ask;
use super::conn::{Conn, Gone};
use super::handle;
use super::reply::Reply;
use super::sender::{self, Manner, Reader};
use super::spans::Recorded;
use super::transport::Transport;
use crate::error::ApiError;
use crate::observe::metrics::Counter;
use crate::observe::request_id::RequestId;
use crate::stream::place::Place;
use std::sync::Arc;
use std::time::Instant;

/// Answers one request, or refuses it.
///
/// # Errors
/// The connection is over.
pub async fn handle(conn: &mut Conn) -> Result<(), Gone> {
    let Some(ask) = conn.ask.take() else {
        return conn.reply_plain(200, "ok\n").await;
    };
    // An idle connection holds no room for what a request needs.
    Box::pin(answer(conn, ask)).await
}

async fn answer(conn: &mut Conn, mut ask: Box<Ask>) -> Result<(), Gone> {
    if is_probe(ask.route) {
        return Box::pin(handle::handle(conn, ask)).await;
    }
    // The audit log, the answer and the stream name the request alike.
    let id = conn.node.request_id(ask.request_id.take());
    (ask.request_id, conn.request_id) = (Some(id.clone()), Some(id));
    let begun = Instant::now();
    let sent = conn.sent;
    let recorded = Recorded::begin(conn, &ask);
    // A stream is sent with nothing left of what it took to begin it: it may have nothing to say for
    // long.
    let outcome = match Box::pin(decide(conn, ask)).await {
        Ok(held) => {
            let outcome = match conn.stream.take() {
                Some(stream) => sender::send(conn, &stream.0, stream.1).await,
                None => Ok(()),
            };
            drop(held);
            outcome
        }
        Err(gone) => Err(gone),
    };
    let gone = outcome.is_err() && conn.upgraded.is_none();
    note(conn, begun, sent, gone);
    if let Some(recorded) = recorded {
        recorded.end(conn, sent, gone);
    }
    outcome
}

/// Admits and answers a request, but for the stream that may be left to send; what the request holds.
async fn decide(conn: &mut Conn, ask: Box<Ask>) -> Result<Option<Held>, Gone> {
    let access = Arc::clone(&conn.access);
    let held = match conn.visit.admit(&access, ask.route, ask.query.as_deref()).await {
        Ok(held) => held,
        Err(error) => return conn.refuse(&error).await.map(|()| None),
    };
    if let Err(error) = join_key(conn) {
        return conn.refuse(&error).await.map(|()| None);
    }
    if conn.visit.preflight(ask.route) {
        conn.reply(Reply::empty(204)).await?;
    } else {
        handle::handle(conn, ask).await?;
    }
    Ok(Some(held))
}

/// A connection counts for the key that it was last used with.
fn join_key(conn: &mut Conn) -> Result<(), ApiError> {
    let asks = conn.principal();
    if conn.place_of != asks {
        // What it held for another key goes first.
        conn.place = None;
        conn.place_of = Arc::clone(&conn.node.anonymous);
        conn.place = conn.visit.begin_connection()?;
        conn.place_of = asks;
    }
    Ok(())
}

/// Notes a request, or what came in place of one.
pub(super) fn note(conn: &Conn, begun: Instant, sent: u64, gone: bool) {
    let end = End {
        request_id: conn.request_id.as_ref().map(RequestId::as_str),
        status: conn.status(),
        bytes: conn.sent - sent,
        took: begun.elapsed(),
        gone,
    };
    if !conn.visit.finish(&conn.access, &end) {
        conn.node.observe.count(Counter::AuditDropped);
    }
}

impl Conn {
    /// Leaves a stream to be sent as the answer.
    pub(super) fn send_stream(&mut self, reader: Reader, transport: Transport) -> Result<(), Gone> {
        let manner = Manner { transport, endpoint: self.endpoint };
        self.stream = Some(Box::new((reader, manner)));
        Ok(())
    }

    /// Whose the request in progress is: whose streams it may see, and whose it starts.
    #[must_use]
    pub fn principal(&self) -> Arc<str> {
        let key = self.visit.key().map(|key| &key.principal);
        Arc::clone(key.unwrap_or(&self.node.anonymous))
    }

    /// Whether the key of the request in progress is still known.
    pub(super) fn key_stands(&mut self) -> bool {
        self.visit.stands(&self.access)
    }

    /// Counts the URLs that the request asks for, and takes a place for its stream.
    ///
    /// # Errors
    /// `rate_limited`, or `too_many_urls`.
    pub(super) fn begin_stream<'a>(
        &mut self,
        urls: impl ExactSizeIterator<Item = &'a str>,
    ) -> Result<Option<Arc<Place>>, ApiError> {
        let access = Arc::clone(&self.access);
        let place = self.visit.begin_stream()?;
        self.visit.ask(&access, urls)?;
        Ok(place.map(Arc::new))
    }
}
