//! A first byte that took too long, and which stages made it so.

use super::conn::Conn;
use crate::crawl::node::Node;
use crate::observe::metrics::Counter;
use crate::observe::request_id::RequestId;
use crate::observe::series::Endpoint;
use crate::observe::traceparent::TraceContext;
use std::time::{Duration, Instant};

/// How often a core warns: a crowd of slow clients must not fill the log. All are counted.
const WARN_EVERY: Duration = Duration::from_secs(1);

/// When the request in progress came past which point.
#[derive(Debug, Clone, Copy)]
pub(super) struct Stages {
    /// Its head was there and parsed.
    pub(super) parsed: Instant,
    /// Its body was there; the same as `parsed` where it has none.
    pub(super) read: Instant,
}

impl Stages {
    /// Of a request whose head has just been parsed.
    pub(super) const fn parsed(now: Instant) -> Self {
        Self { parsed: now, read: now }
    }
}

/// The first event of a stream over WebSocket was handed to the kernel at `sent`; its op came at
/// `since`.
pub(super) fn note_stream(node: &Node, endpoint: Endpoint, since: Instant, sent: Instant) {
    let Some((ttfb_ms, left_out)) = slow(node, since, sent) else { return };
    let transport = endpoint.transport();
    tracing::warn!(ttfb_ms, endpoint = endpoint.route(), transport, left_out, "slow first byte");
}

/// How many ms a first byte took, if that is too long and to be told; how many were not told since the
/// last.
fn slow(node: &Node, since: Instant, sent: Instant) -> Option<(u64, u64)> {
    let most_ms = node.shared.config.ttfb_warn_ms;
    let ttfb = sent.saturating_duration_since(since);
    if most_ms == 0 || ttfb <= Duration::from_millis(most_ms) {
        return None;
    }
    node.observe.count(Counter::TtfbSlow);
    let ttfb_ms = u64::try_from(ttfb.as_millis()).unwrap_or(u64::MAX);
    Some((ttfb_ms, node.slow_first_bytes.admit(sent, WARN_EVERY)?))
}

impl Conn {
    /// The first byte was handed to the kernel at `sent`; what is sent was ready at `ready`.
    pub(super) fn note_first_byte(&self, ready: Instant, sent: Instant) {
        let Some((ttfb_ms, left_out)) = slow(&self.node, self.since, sent) else { return };
        let Stages { parsed, read } = self.stages;
        let us = |from: Instant, to: Instant| {
            u64::try_from(to.saturating_duration_since(from).as_micros()).unwrap_or(u64::MAX)
        };
        tracing::warn!(
            ttfb_ms,
            endpoint = self.endpoint.route(),
            transport = self.endpoint.transport(),
            request_id = self.request_id.as_ref().map(RequestId::as_str),
            trace_id = self.visit.trace.as_ref().map(TraceContext::trace_id_text),
            // From the socket's readability: waiting for this loop and for the head's last byte.
            head_us = us(self.since, parsed),
            body_us = us(parsed, read),
            work_us = us(read, ready),
            send_us = us(ready, sent),
            left_out,
            "slow first byte"
        );
    }
}
