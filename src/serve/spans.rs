//! What a request leaves in a trace, where one is recorded and exported.

use super::ask::Ask;
use super::conn::Conn;
use super::route::Route;
use crate::observe::request_id::RequestId;
use crate::observe::span::{Attributes, Begun, Kind, Span};
use crate::proto::h1::Method;
use std::time::{Duration, Instant, SystemTime};

/// A request that is recorded, until it has been answered.
#[derive(Debug)]
pub(super) struct Recorded {
    begun: Begun,
    at: Instant,
    method: Method,
    route: Option<Route>,
}

impl Recorded {
    /// Begins to record a request, if it is to be: what it does is part of its span from here on.
    pub(super) fn begin(conn: &mut Conn, ask: &Ask) -> Option<Self> {
        let begun = conn.node.shared.spans.begin(conn.visit.trace.as_ref())?;
        conn.visit.trace = Some(begun.context);
        Some(Self { begun, at: conn.since, method: ask.method, route: ask.route })
    }

    /// It is answered, or its client is gone.
    pub(super) fn end(self, conn: &Conn, sent: u64, gone: bool) {
        let took = self.at.elapsed();
        let template = self.route.map_or("", Route::template);
        let status = conn.status();
        let outcome = match conn.visit.refused {
            Some(code) => code.as_str(),
            None if gone => "aborted",
            None => "ok",
        };
        let method = self.method.as_str();
        let mut attributes: Attributes = vec![
            ("http.request.method", method.into()),
            ("url.scheme", if conn.access.tls().is_some() { "https" } else { "http" }.into()),
            ("network.protocol.version", "1.1".into()),
            ("forebay.outcome", outcome.into()),
            ("forebay.sent_bytes", (conn.sent - sent).into()),
        ];
        if let Some(route) = self.route {
            attributes.push(("http.route", template.into()));
            attributes.push(("url.path", route.path().into()));
        }
        if status > 0 {
            attributes.push(("http.response.status_code", u64::from(status).into()));
        }
        let id = conn.request_id.as_ref().map(RequestId::as_str);
        attributes.extend(id.map(|id| ("forebay.request_id", id.to_owned().into())));
        // A refusal is the client's fault, and no error of the server's; nor is a client that goes.
        let failed = status >= 500;
        if failed {
            attributes.push(("error.type", outcome.into()));
        }
        let name =
            if template.is_empty() { method.into() } else { format!("{method} {template}").into() };
        conn.node.shared.spans.send(Span {
            context: self.begun.context,
            parent: self.begun.parent,
            parent_is_remote: self.begun.parent != [0; 8],
            kind: Kind::Server,
            name,
            started: SystemTime::now().checked_sub(took).unwrap_or(SystemTime::UNIX_EPOCH),
            took: took.max(Duration::from_micros(1)),
            attributes,
            parts: Vec::new(),
            error: failed.then_some(outcome.into()),
        });
    }
}
