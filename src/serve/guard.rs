//! Between a request's head and its handler: admits or refuses it, and notes what came of it.

use super::access::visit::{End, is_probe};
use super::ask::Ask;
use super::conn::{Conn, Gone};
use super::handle;
use super::reply::Reply;
use super::route::Route;
use crate::error::ApiError;
use crate::observe::metrics::Counter;
use crate::observe::request_id::RequestId;
use crate::proto::h1::Method;
use crate::stream::place::Place;
use std::sync::Arc;
use std::time::Instant;

/// Answers one request, or refuses it.
///
/// # Errors
/// The connection is over.
pub async fn handle(conn: &mut Conn, ask: Ask) -> Result<(), Gone> {
    if ask.route == Some(Route::Livez) && matches!(ask.method, Method::Get | Method::Head) {
        return conn.reply_plain(200, "ok\n").await;
    }
    // An idle connection holds no room for what a request needs.
    Box::pin(answer(conn, ask)).await
}

async fn answer(conn: &mut Conn, mut ask: Ask) -> Result<(), Gone> {
    if is_probe(ask.route) {
        return handle::handle(conn, ask).await;
    }
    // The audit log, the answer and the stream name the request alike.
    let id = conn.node.request_id(ask.request_id);
    (ask.request_id, conn.request_id) = (Some(id), Some(id));
    let begun = Instant::now();
    let sent = conn.sent;
    let outcome = decide(conn, ask).await;
    note(conn, begun, sent, outcome.is_err() && conn.upgraded.is_none());
    outcome
}

async fn decide(conn: &mut Conn, ask: Ask) -> Result<(), Gone> {
    let access = Arc::clone(&conn.access);
    let held = match conn.visit.admit(&access, ask.route, ask.query.as_deref()) {
        Ok(held) => held,
        Err(error) => return conn.refuse(&error).await,
    };
    if let Err(error) = join_key(conn) {
        return conn.refuse(&error).await;
    }
    let answered = if conn.visit.preflight(ask.route) {
        conn.reply(Reply::empty(204)).await
    } else {
        handle::handle(conn, ask).await
    };
    drop(held);
    answered
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
    /// Whose the request in progress is: whose streams it may see, and whose it starts.
    #[must_use]
    pub fn principal(&self) -> Arc<str> {
        let key = self.visit.key().map(|key| &key.principal);
        Arc::clone(key.unwrap_or(&self.node.anonymous))
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
